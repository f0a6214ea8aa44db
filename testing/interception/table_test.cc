// That docs/testing.md lists what is taken over, and nothing else.

#include <dlfcn.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ward::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;

std::string Read(const std::string& file) {
  const std::ifstream in(file);
  EXPECT_TRUE(in.is_open()) << file;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// The names in the second column of the table.
std::set<std::string> Documented() {
  std::string text = Read("docs/testing.md");
  text = text.substr(text.find("### What is taken over"));
  text.resize(text.find("\n## "));
  std::set<std::string> names;
  const std::regex row("\n\\|[^|]*\\|([^|]*)\\|");
  const std::regex name("`(\\w+)`");
  for (std::sregex_iterator found(text.begin(), text.end(), row), end;
       found != end; ++found) {
    const std::string functions = (*found)[1];
    for (std::sregex_iterator one(functions.begin(), functions.end(), name);
         one != end; ++one) {
      names.insert((*one)[1]);
    }
  }
  return names;
}

// Whether this program has it, and not a shared library.
bool IsTakenOver(const std::string& name) {
  Dl_info function;
  Dl_info own;
  static const int kOwn = 0;
  void* const found = dlsym(RTLD_DEFAULT, name.c_str());
  return found != nullptr && dladdr(found, &function) != 0 &&
         dladdr(&kOwn, &own) != 0 && function.dli_fbase == own.dli_fbase;
}

TEST(InterceptionTable, NamesWhatIsTakenOver) {
  EXPECT_THAT(Documented(), Not(IsEmpty()));
  for (const std::string& name : Documented()) {
    EXPECT_TRUE(IsTakenOver(name)) << name;
  }
  EXPECT_FALSE(IsTakenOver("memcpy"));
}

TEST(InterceptionTable, LeavesNoneOut) {
  const std::set<std::string> documented = Documented();
  const std::regex taken("\nWARD_REAL\\((\\w+)\\)");
  std::set<std::string> found;
  for (const auto& file :
       std::filesystem::directory_iterator("testing/interception")) {
    const std::string source = Read(file.path().string());
    for (std::sregex_iterator one(source.begin(), source.end(), taken), end;
         one != end; ++one) {
      found.insert((*one)[1]);
    }
  }
  EXPECT_THAT(found, Not(IsEmpty()));
  EXPECT_THAT(documented, IsSupersetOf(found));
}

}  // namespace
}  // namespace ward::testing

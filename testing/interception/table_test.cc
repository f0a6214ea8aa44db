// That docs/testing.md lists what is taken over, and nothing else.

#include <dlfcn.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
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
  for (const std::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<std::string_view> cells = absl::StrSplit(line, '|');
    if (cells.size() < 3) continue;
    const std::vector<std::string> parts = absl::StrSplit(cells[2], '`');
    for (size_t i = 1; i < parts.size(); i += 2) names.insert(parts[i]);
  }
  return names;
}

// Whether this program has it, and not a shared library.
bool IsInProgram(const std::string& name) {
  Dl_info function;
  Dl_info own;
  static const int kOwn = 0;
  void* const found = dlsym(RTLD_DEFAULT, name.c_str());
  return found != nullptr && dladdr(found, &function) != 0 &&
         dladdr(&kOwn, &own) != 0 && function.dli_fbase == own.dli_fbase;
}

// The second is what the linker takes each call of it for: -Wl,--wrap=.
bool IsTakenOver(const std::string& name) {
  return IsInProgram(name) || IsInProgram("__wrap_" + name);
}

TEST(InterceptionTable, NamesWhatIsTakenOver) {
  EXPECT_THAT(Documented(), Not(IsEmpty()));
  for (const std::string& name : Documented()) {
    EXPECT_TRUE(IsTakenOver(name)) << name;
  }
  EXPECT_FALSE(IsTakenOver("getppid"));
}

TEST(InterceptionTable, LeavesNoneOut) {
  const std::set<std::string> documented = Documented();
  std::set<std::string> found;
  for (const auto& file :
       std::filesystem::directory_iterator("testing/interception")) {
    const std::string source = Read(file.path().string());
    for (std::string_view line : absl::StrSplit(source, '\n')) {
      if (!absl::ConsumePrefix(&line, "WARD_REAL(")) continue;
      found.emplace(line.substr(0, line.find(')')));
    }
  }
  EXPECT_THAT(found, Not(IsEmpty()));
  EXPECT_THAT(documented, IsSupersetOf(found));
}

}  // namespace
}  // namespace ward::testing

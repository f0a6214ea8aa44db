#include "ward/testing/report/places.h"

#include <elf.h>
#include <link.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/base/attributes.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ward::testing {

// Not of an unnamed namespace, so that the symbol table has it.
ABSL_ATTRIBUTE_NOINLINE int OneOfThePlaces(int number) { return 3 * number; }

int64_t one_of_the_variables = 3;

namespace {

using ::testing::AnyOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Of a place a little behind the beginning of a function.
std::string In(int (*function)(int)) {
  return PlaceOf(reinterpret_cast<uintptr_t>(function) + 1);
}

TEST(Places, AreNamed) {
  const std::string text =
      WithPlaces(absl::StrCat("before <", In(&OneOfThePlaces), "> after"));
  EXPECT_THAT(text, StartsWith("before "));
  EXPECT_THAT(text, EndsWith(" after"));
  EXPECT_THAT(text,
              AnyOf(HasSubstr("OneOfThePlaces"), HasSubstr("places_test.cc:")));
}

TEST(Places, HaveTheirIndentWhereTheyAreAlone) {
  const std::string place = In(&OneOfThePlaces);
  const std::string text =
      WithPlaces(absl::StrCat("who:\n    <", place, place, ">\nnext"));
  EXPECT_THAT(text, StartsWith("who:\n    "));
  EXPECT_THAT(text, HasSubstr("OneOfThePlaces"));
  EXPECT_THAT(text, HasSubstr("\n    ward::testing::OneOfThePlaces"));
  EXPECT_THAT(text, EndsWith("\nnext"));
}

TEST(Places, LeaveOtherTextAlone) {
  for (const char* text : {"", "<", "<+0x>", "<+0xyz>", "a <b> c", "<+0x12",
                           "<+0x12+>", "operator<(int)\n<+1>"}) {
    EXPECT_EQ(WithPlaces(text), text);
  }
}

// As a program may print it; such a text was searched by a function that called
// itself for each.
TEST(Places, AreFoundInATextFullOfTheirBeginnings) {
  std::string text;
  for (int i = 0; i < 200000; ++i) text += i % 2 == 0 ? "<+0x" : "<+0x1+";
  EXPECT_EQ(WithPlaces(text), text);
  EXPECT_EQ(WithPlaces(text + "<+0x1>"), text + "?");
}

TEST(Places, AreInnerByTheirFilesOrTheirFunctions) {
  for (const char* line :
       {"Check() testing/explore.cc:12",
        "void f<a b>(int) ./external/x/y.h:1",
        "operator new(unsigned long) /usr/include/c++/12/new:7",
        "ward::testing::f() a.cc:?",
        "std::thread::join()",
        "void std::__invoke<int ()>",
        "?",
        "_start",
        "ward::testing::Explore(int)",
        "ward::FileDescriptor::Reset(int)",
        "void ward::internal::Handle<Shop, int>(Shop&)",
        ("ward::Handle<Shop>(Shop&) bazel-out/bin/server/_virtual_includes/"
         "method/ward/server/method.h:12"),
        "main",
        "RUN_ALL_TESTS()",
        "clone3",
        "syscall",
        "sem_wait",
        "start_thread",
        "void std::vector<int, std::allocator<int> >::f<int>(int)",
        "std::vector<int> std::f<std::vector<int> >(std::vector<int>)",
        "std::ostream& std::operator<< <char>(std::ostream&, char)",
        "std::map<int, int>::operator[](int const&)",
        "std::atomic<int>::operator int() const",
        "std::vector<int>::~vector()",
        "std::string::f[abi:cxx11]()",
        "absl::Mutex::Lock",
        "ward::testing::(anonymous namespace)::f()",
        "std::thread::_State_impl<std::_Invoker<my::f()::{lambda()#1}> >::_M()",
        "void* std::__invoke_impl<void*, my::f(std::vector<int>, unsigne...",
        "std::invoke_result<std::vector<my::f(int, my::Type<int>, pthr...",
        "std::vector<int> std::in..."}) {
    EXPECT_TRUE(IsInner(line)) << line;
  }
  for (const char* line :
       {"std::f() server/client.cc:12", "Test() testing/explore_test.cc:12",
        "absl::g() my/testing/thing.h:1", "g() thing.h:?",
        "Account::Deposit(int)", "mainly()", "cloneAccount()", "clone(int)",
        "sem_count()", "sem_count", "futexes()", "syscalls", "start_threads()",
        "std::string my::Name<int>(int)", "absl::Status my::Do<int>(int)",
        "std::vector<int, std::allocator<int> > my::All<int>(int)",
        "std::enable_if<true, int>::type my::f<int>()",
        "std::ostream& my::operator<< <int>(std::ostream&, int)",
        "std::vector<int> my::All<int, std::vector<..."}) {
    EXPECT_FALSE(IsInner(line)) << line;
  }
}

TEST(Variables, AreFoundInProgramsThatAreSound) {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  const std::string program{std::istreambuf_iterator<char>(file), {}};
  const auto offset = static_cast<uint64_t>(std::stoull(
      PlaceOf(reinterpret_cast<uintptr_t>(&one_of_the_variables)).substr(1),
      nullptr, 16));
  const std::string name = "ward::testing::one_of_the_variables";
  EXPECT_EQ(VariableIn(program, offset), name);
  EXPECT_EQ(VariableIn(program, offset + 1), name + "+0x1");
  for (size_t size = 0; size < program.size(); size += program.size() / 50) {
    // Elsewhere, so that AddressSanitizer sees its end.
    const std::vector<char> part(
        program.begin(), program.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_EQ(VariableIn({part.data(), size}, offset), "");
  }
  const auto changed = [&](auto field, auto value) {
    std::string other = program;
    ElfW(Ehdr) header;
    memcpy(&header, other.data(), sizeof(header));
    header.*field = static_cast<std::decay_t<decltype(header.*field)>>(value);
    memcpy(other.data(), &header, sizeof(header));
    return VariableIn(other, offset);
  };
  EXPECT_EQ(changed(&ElfW(Ehdr)::e_shoff, program.size()), "");
  EXPECT_EQ(changed(&ElfW(Ehdr)::e_shoff, ~uint64_t{7}), "");
  EXPECT_EQ(changed(&ElfW(Ehdr)::e_shoff, 1), "");
  EXPECT_EQ(changed(&ElfW(Ehdr)::e_shnum, 0xfeff), "");
  EXPECT_EQ(changed(&ElfW(Ehdr)::e_shnum, 0), "");
  EXPECT_EQ(changed(&ElfW(Ehdr)::e_shentsize, 1), "");
  // All that sections say of themselves.
  ElfW(Ehdr) header;
  memcpy(&header, program.data(), sizeof(header));
  std::string wild = program;
  for (size_t i = 0; i < header.e_shnum; ++i) {
    ElfW(Shdr) section;
    char* const at = &wild[header.e_shoff + i * sizeof(section)];
    memcpy(&section, at, sizeof(section));
    const ElfW(Shdr) sound = section;
    const auto with = [&](auto member, auto value) {
      section = sound;
      section.*member = value;
      memcpy(at, &section, sizeof(section));
      const std::string found = VariableIn(wild, offset);
      EXPECT_THAT(found, AnyOf("", name));
    };
    with(&ElfW(Shdr)::sh_offset, program.size());
    with(&ElfW(Shdr)::sh_size, ~uint64_t{0});
    with(&ElfW(Shdr)::sh_size, uint64_t{0});
    with(&ElfW(Shdr)::sh_link, ~uint32_t{0});
    memcpy(at, &sound, sizeof(sound));
  }
}

TEST(Places, MayBeUnknown) { EXPECT_EQ(WithPlaces("at <+0x1>."), "at ?."); }

}  // namespace
}  // namespace ward::testing

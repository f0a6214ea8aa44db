#include "ward/testing/report/places.h"

#include <cstdint>
#include <string>

#include "absl/base/attributes.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ward::testing {

// Not of an unnamed namespace, so that the symbol table has it.
ABSL_ATTRIBUTE_NOINLINE int OneOfThePlaces(int number) { return 3 * number; }

namespace {

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
  EXPECT_THAT(text, ::testing::AnyOf(HasSubstr("OneOfThePlaces"),
                                     HasSubstr("places_test.cc:")));
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
       {"Check() testing/explore.cc:12", "void f<a b>(int) ./external/x/y.h:1",
        "operator new(unsigned long) /usr/include/c++/12/new:7",
        "ward::testing::f() a.cc:?", "std::thread::join()",
        "void std::__invoke<int ()>", "?", "_start",
        "ward::testing::Explore(int)", "main"}) {
    EXPECT_TRUE(IsInner(line)) << line;
  }
  for (const char* line :
       {"std::f() server/client.cc:12", "Test() testing/explore_test.cc:12",
        "absl::g() my/testing/thing.h:1", "g() thing.h:?",
        "Account::Deposit(int)", "mainly()"}) {
    EXPECT_FALSE(IsInner(line)) << line;
  }
}

TEST(Places, MayBeUnknown) { EXPECT_EQ(WithPlaces("at <+0x1>."), "at ?."); }

}  // namespace
}  // namespace ward::testing

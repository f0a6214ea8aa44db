#include "ward/testing/report/places.h"

#include <link.h>

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
  uintptr_t base = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* module, size_t, void* found) {
        *static_cast<uintptr_t*>(found) = module->dlpi_addr;
        return 1;
      },
      &base);
  return absl::StrCat(
      "+0x", absl::Hex(reinterpret_cast<uintptr_t>(function) + 1 - base));
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

TEST(Places, MayBeUnknown) { EXPECT_EQ(WithPlaces("at <+0x1>."), "at ?."); }

}  // namespace
}  // namespace ward::testing

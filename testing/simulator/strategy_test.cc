#include "ward/testing/simulator/strategy.h"

#include <optional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ward::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::Optional;

TEST(Deviations, AreReadAsTheyWereWritten) {
  const Deviations deviations = {{0, 1}, {12, 3}, {4294967295u, 4294967295u}};
  EXPECT_EQ(FormatDeviations(deviations), "0=1,12=3,4294967295=4294967295");
  EXPECT_THAT(ParseDeviations(FormatDeviations(deviations)),
              Optional(deviations));
  EXPECT_EQ(FormatDeviations({}), "");
  EXPECT_THAT(ParseDeviations(""), Optional(IsEmpty()));
}

TEST(Deviations, MayComeInAnyOrderAndWithEmptyEntries) {
  EXPECT_THAT(ParseDeviations("12=3,,0=1,"),
              Optional(Deviations({{0, 1}, {12, 3}})));
}

TEST(Deviations, AreNotReadFromOtherText) {
  const std::string with_nul("1=2\0", 4);
  for (const std::string& text :
       {std::string("1"), std::string("1="), std::string("=1"),
        std::string("="), std::string("1=2=3"), std::string("one=two"),
        std::string("-1=2"), std::string("1=-2"), std::string("4294967296=1"),
        std::string("1=4294967296"), std::string("0x1=1"),
        std::string("1=2;3=4"), std::string("1:2"), with_nul,
        std::string("1=99999999999999999999999"), std::string("\xff=\xff")}) {
    EXPECT_EQ(ParseDeviations(text), std::nullopt) << text;
  }
}

TEST(ReplayStrategy, TakesADeviationThatIsNoOptionForTheDullOne) {
  ReplayStrategy strategy({{0, 2}, {1, 1}});
  EXPECT_EQ(strategy.Choose({ChoiceKind::kThread, 2}), 0u);
  EXPECT_EQ(strategy.Choose({ChoiceKind::kThread, 2}), 1u);
  EXPECT_EQ(strategy.Choose({ChoiceKind::kThread, 2}), 0u);
}

}  // namespace
}  // namespace ward::testing

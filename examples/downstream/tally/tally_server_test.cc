#include "tally/tally_server.h"

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tally/tally.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace {

using ::ward::testing::IsOkAndHolds;

class TallyServerTest : public ward::testing::ServerTest<TallyServer> {};

TEST_F(TallyServerTest, AddsUpByName) {
  EXPECT_THAT(Call(kAdd, "visits", 2), IsOkAndHolds(2));
  EXPECT_THAT(Call(kAdd, "visits", 3), IsOkAndHolds(5));
  EXPECT_THAT(Call(kAdd, "sales", -1), IsOkAndHolds(-1));
  EXPECT_THAT(Call(kTotal, "visits"), IsOkAndHolds(5));
}

TEST_F(TallyServerTest, HasNoTotalOfWhatWasNeverAddedTo) {
  EXPECT_EQ(Call(kTotal, "visits").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace

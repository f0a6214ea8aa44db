// What two clients do at the same time, under many schedules.

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tally/tally.h"
#include "tally/tally_server.h"
#include "ward/testing/explore.h"
#include "ward/testing/matchers.h"
#include "ward/testing/run_at_once.h"

namespace {

using ::ward::testing::Explore;
using ::ward::testing::ExploreOptions;
using ::ward::testing::IsOk;
using ::ward::testing::IsOkAndHolds;
using ::ward::testing::RunAtOnce;

TEST(TallyServer, AddsUpWhatTwoClientsAddAtOnce) {
  ExploreOptions options;
  options.runs = 300;
  Explore(options, [] {
    TallyServer server;
    ASSERT_THAT(server.Start(), IsOk());
    const auto add = [&server] {
      EXPECT_THAT(server.Call(kAdd, "visits", 1), IsOk());
    };
    RunAtOnce(add, add);
    EXPECT_THAT(server.Call(kTotal, "visits"), IsOkAndHolds(2));
    EXPECT_THAT(server.Stop(), IsOk());
  });
}

}  // namespace

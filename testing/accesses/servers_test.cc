// Data races of servers' handlers, and their right twins. This file is compiled
// with -fsanitize=thread.

#include <iostream>
#include <string_view>

#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/message_channel.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/call_server.h"
#include "ward/testing/explore.h"
#include "ward/testing/matchers.h"
#include "ward/testing/run_at_once.h"

namespace ward::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Each connection has a thread of the server's.
class CountingServer : public AbstractServer {
 public:
  explicit CountingServer(bool locks) {
    DefineMessageHandler("add", [this, locks](MessageChannel& channel) {
      if (!locks) return channel.Write(++sum_);
      int sum = 0;
      {
        const absl::MutexLock lock(&mutex_);
        sum = ++sum_;
      }
      return channel.Write(sum);
    });
  }

 private:
  absl::Mutex mutex_;
  int sum_ = 0;
};

// What one handler has written in its thread another one reads in its own, or
// nothing tells it that it may.
void AddAtOnce(bool locks) {
  CountingServer server(locks);
  ASSERT_THAT(server.Start(), IsOk());
  const auto add = [&] { EXPECT_THAT(CallServer(server, "add"), IsOk()); };
  RunAtOnce(add, add);
  EXPECT_THAT(server.Stop(), IsOk());
}

void AddInTurn() {
  CountingServer server(/*locks=*/false);
  ASSERT_THAT(server.Start(), IsOk());
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(CallServer(server, "add"), IsOk());
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST(Servers, RaceInHandlers) {
  const Exploration exploration =
      FindFailure(ExploreOptions(), [] { AddAtOnce(/*locks=*/false); });
  ASSERT_TRUE(exploration.failure.has_value());
  std::cout << exploration.failure->what << std::endl;
  EXPECT_THAT(exploration.failure->what,
              AllOf(StartsWith("a data race: "), HasSubstr("servers_test.cc:"),
                    HasSubstr("of process 2")));
  EXPECT_TRUE(exploration.failure->replayed);
}

TEST(Servers, DoNotRaceUnderLocks) {
  const Exploration exploration =
      FindFailure(ExploreOptions(), [] { AddAtOnce(/*locks=*/true); });
  EXPECT_FALSE(exploration.failure.has_value()) << exploration.failure->what;
}

// A client's second message comes after the reply to its first, which comes
// after what the first has done.
TEST(Servers, DoNotRaceInTurn) {
  const Exploration exploration =
      FindFailure(ExploreOptions(), [] { AddInTurn(); });
  EXPECT_FALSE(exploration.failure.has_value()) << exploration.failure->what;
}

}  // namespace
}  // namespace ward::testing

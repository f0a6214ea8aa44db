// One server object, many threads: calls, watchers, and those who stop it, at
// the same time; in every mode.

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using ::testing::AnyOf;
using testing::SharesMemory;

auto Stopped() {
  return AnyOf(FailsWith(reason::kServerStopping),
               FailsWith(reason::kServerNotStarted));
}

class TogetherTest : public ModesTest {
 protected:
  // A call whose handler waits for its client, and whose client for the
  // handler; `waits` tells when.
  static absl::Status Hold(AbstractServer& server, absl::Notification& waits) {
    return server.Connect([&](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.Write("hold"));
      WARD_RETURN_IF_ERROR(channel.Read().status());
      waits.Notify();
      return channel.Read().status();
    });
  }
};

TEST_F(TogetherTest, WhoCallsOrWatchesWhileOthersStopEndsWithATrueReason) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  std::atomic<int> answered{0};
  absl::Notification many_answered;
  std::vector<absl::AnyInvocable<void()>> all;
  for (int i = 0; i < 4; ++i) {
    all.emplace_back([&] {
      absl::StatusOr<std::string> reply;
      while ((reply = Call(server, "echo", "x")).ok()) {
        EXPECT_EQ(*reply, "x");
        if (++answered == 100) many_answered.Notify();
      }
      EXPECT_THAT(reply, Stopped());
    });
    all.emplace_back([&] {
      absl::Status status;
      while ((status = server.CheckAlive()).ok()) {
        // Whatever it is: they are asked for.
        (void)server.started();
        (void)server.server_pid();
        (void)server.socket_filename();
        std::this_thread::yield();
      }
      EXPECT_THAT(status, Stopped());
    });
  }
  for (int i = 0; i < 2; ++i) {
    all.emplace_back([&] {
      many_answered.WaitForNotification();
      EXPECT_THAT(server.Stop(),
                  AnyOf(IsOk(), FailsWith(reason::kServerNotStarted)));
      EXPECT_FALSE(server.started());
    });
  }
  RunAtOnce(std::move(all));
}

TEST_F(TogetherTest, ACallThatWaitsIsToldThatItsServerIsStopped) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  absl::Notification waits;
  RunAtOnce(
      [&] {
        EXPECT_THAT(Hold(server, waits), FailsWith(reason::kServerStopping));
      },
      [&] {
        waits.WaitForNotification();
        EXPECT_THAT(server.Stop(), IsOk());
      });
}

TEST_F(TogetherTest, TheDestructorMayBeginWhileACallWaits) {
  if (SharesMemory()) GTEST_SKIP() << "the server runs on the object itself";
  auto server = std::make_unique<TestServer>();
  ASSERT_THAT(server->Start(), IsOk());
  absl::Notification waits;
  RunAtOnce(
      [&] {
        EXPECT_THAT(Hold(*server, waits), FailsWith(reason::kServerStopping));
      },
      [&] {
        waits.WaitForNotification();
        server.reset();
      });
}

TEST_F(TogetherTest, WhatAWatcherPollsStaysOpenWhenAnotherThreadStops) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  const std::shared_ptr<const Pollable> watched = server.pollable();
  RunAtOnce(
      [&] {
        const Pollable* const polled[] = {watched.get()};
        EXPECT_THAT(environment().Poll(
                        polled, environment().TimeNow() + absl::Minutes(1)),
                    IsOkAndHolds(0u));
        EXPECT_THAT(server.CheckAlive(), Stopped());
      },
      [&] { EXPECT_THAT(server.Stop(), IsOk()); });
  EXPECT_EQ(server.pollable(), nullptr);
}

}  // namespace
}  // namespace ward

// StartSynchronously, in every mode: on a thread of the test's process.

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
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

using testing::HasProcesses;

constexpr Reason kOutOfPaper{"OutOfPaper", absl::StatusCode::kDataLoss};

class StartSynchronouslyTest : public ModesTest {
 protected:
  // Runs `server` on a thread of this process.
  void Start(TestServer& server) {
    auto listener = environment().Listen({path()});
    ASSERT_THAT(listener, IsOk());
    auto ends = environment().CreateTransportPair();
    ASSERT_THAT(ends, IsOk());
    owner_ = std::make_unique<MessageChannel>(std::move(ends->first));
    auto thread = environment().StartThread(
        [this, &server, listener = *std::move(listener),
         end = std::move(ends->second)]() mutable {
          status_ =
              server.StartSynchronously(std::move(listener), std::move(end));
        });
    ASSERT_THAT(thread, IsOk());
    thread_ = *std::move(thread);
  }

  // Waits for its end and returns what it returned.
  absl::Status Join() {
    thread_.reset();
    owner_.reset();
    return status_;
  }

  std::unique_ptr<MessageChannel> owner_;

 private:
  std::unique_ptr<Thread> thread_;
  absl::Status status_;
};

TEST_F(StartSynchronouslyTest, ServesUntilTheOwnersEndIsClosed) {
  std::string hooks;
  TestServer server(Shared());
  server.before_fork = [&] {
    hooks += "before fork;";
    return absl::OkStatus();
  };
  server.initialize = [&] {
    hooks += "initialize;";
    return absl::OkStatus();
  };
  server.finalize = [&] {
    hooks += "finalize;";
    return absl::OkStatus();
  };
  TestServer client(Shared());
  Start(server);
  ASSERT_THAT(owner_->Read(), IsOk());  // It is ready.
  EXPECT_THAT(Call(client, "echo", "x"), IsOkAndHolds("x"));
  owner_->Close();
  EXPECT_THAT(Join(), IsOk());
  EXPECT_EQ(hooks, "initialize;finalize;");
  EXPECT_FALSE(server.started());
  EXPECT_FALSE(Answers(path()));
  EXPECT_THAT(Call(client, "echo", "x"), FailsWith(reason::kServerUnreachable));
}

TEST_F(StartSynchronouslyTest, SaysThatItsOwnersAreNotKnown) {
  TestServer server(Shared());
  TestServer client(Shared());
  Start(server);
  ASSERT_THAT(owner_->Read(), IsOk());
  EXPECT_THAT(client.Owners(), FailsWith(reason::kOwnersUnknown));
  owner_->Close();
  EXPECT_THAT(Join(), IsOk());
}

TEST_F(StartSynchronouslyTest, QuitsAtAWordOfItsOwner) {
  TestServer server(Shared());
  Start(server);
  ASSERT_THAT(owner_->Read(), IsOk());
  ASSERT_THAT(owner_->Write("quit"), IsOk());
  EXPECT_THAT(Join(), IsOk());
}

TEST_F(StartSynchronouslyTest, QuitsAtOnceWhenItsOwnerIsGoneAlready) {
  TestServer server(Shared());
  Start(server);
  owner_->Close();
  EXPECT_THAT(Join(), IsOk());
}

TEST_F(StartSynchronouslyTest,
       AFailureBeforeItServesIsReturnedAndToldToTheOwner) {
  TestServer server(Shared());
  server.initialize = [] { return MakeError(kOutOfPaper, "tray 2"); };
  Start(server);
  EXPECT_THAT(owner_->Read(), FailsWith(kOutOfPaper, "tray 2"));
  EXPECT_THAT(Join(), FailsWith(kOutOfPaper, "tray 2"));
  EXPECT_FALSE(Answers(path()));
}

TEST_F(StartSynchronouslyTest, ReturnsWhatFinalizeServerReturns) {
  TestServer server(Shared());
  server.finalize = [] { return MakeError(kOutOfPaper, "tray 2"); };
  Start(server);
  ASSERT_THAT(owner_->Read(), IsOk());
  owner_->Close();
  EXPECT_THAT(Join(), FailsWith(kOutOfPaper, "tray 2"));
}

TEST_F(StartSynchronouslyTest, IsRefusedWhileAnotherServerHasTheSignals) {
  if (!HasProcesses()) {
    GTEST_SKIP() << "servers in threads have signals of their own";
  }
  auto signals = environment().TakeSignals({});
  ASSERT_THAT(signals, IsOk());
  TestServer server(Shared());
  Start(server);
  EXPECT_THAT(owner_->Read(), FailsWith(reason::kSignalsTaken));
  EXPECT_THAT(Join(), FailsWith(reason::kSignalsTaken));
  EXPECT_FALSE(Answers(path()));
}

TEST_F(StartSynchronouslyTest, KnowsThatItIsStarted) {
  TestServer server(Shared());
  absl::Status second;
  server.initialize = [&] {
    EXPECT_TRUE(server.started());
    EXPECT_EQ(server.server_pid(), Environment::Default().ProcessId());
    second = server.Start();
    return absl::OkStatus();
  };
  Start(server);
  EXPECT_THAT(owner_->Read(), IsOk());
  owner_->Close();
  EXPECT_THAT(Join(), IsOk());
  EXPECT_THAT(second, FailsWith(reason::kServerAlreadyStarted));
  EXPECT_EQ(server.server_pid(), 0);
}

TEST_F(StartSynchronouslyTest, WaitsForAHandlerThatDoesNotHeedItsCutChannel) {
  ServerOptions options = Shared();
  options.drain_time = absl::Milliseconds(10);
  TestServer server(std::move(options));
  std::atomic<bool> finished{false};
  server.DefineMessageHandler("linger", [&](MessageChannel& channel) {
    (void)channel.Write("here");
    (void)channel.Read();                      // Until it is cut ...
    absl::SleepFor(absl::Milliseconds(1200));  // ... and past all patience.
    finished = true;
    return absl::OkStatus();
  });
  TestServer client(Shared());
  Start(server);
  ASSERT_THAT(owner_->Read(), IsOk());
  EXPECT_THAT(client.Connect([&](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("linger"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    owner_->Close();
    return channel.Read().status();
  }),
              FailsWith(reason::kCallCut));
  EXPECT_THAT(Join(), IsOk());
  EXPECT_TRUE(finished);
}

}  // namespace
}  // namespace ward

// What a server does for its clients and owners: simulated, threaded and
// forked, from the same tests. A difference between the modes is a bug.

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/testing/call_server.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using testing::CallServer;
using testing::FailsWith;
using testing::HasDescriptors;
using testing::HasProcesses;
using testing::IsOk;
using testing::MovesClock;
using testing::RepliesWith;
using testing::SharesMemory;

class Server : public AbstractServer {
 public:
  explicit Server(ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    DefineMessageHandler("echo",
                         [](MessageChannel& channel, std::string_view text) {
                           return channel.Write(text);
                         });
    DefineMessageHandler("add", [](MessageChannel& channel, int a, int b) {
      return channel.Write(a + b);
    });
    DefineMessageHandler("fail", [](MessageChannel&) {
      return absl::NotFoundError("no such camera");
    });
    DefineMessageHandler("throw", [](MessageChannel&) -> absl::Status {
      throw std::runtime_error("oops");
    });
    DefineMessageHandler("hold", [](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.Write("held"));
      WARD_RETURN_IF_ERROR(channel.Read().status());
      return channel.Write("released");
    });
    DefineMessageHandler("finish", [this](MessageChannel& channel) {
      (void)channel.Write("running");
      while (access(GoFile(*this).c_str(), F_OK) != 0) {
        absl::SleepFor(absl::Milliseconds(1));
      }
      return channel.Write("finished");
    });
    DefineMessageHandler("flood", [](MessageChannel& channel) {
      absl::Status status;
      while ((status = channel.Write(std::string(100000, 'x'))).ok()) {
      }
      return status;
    });
    DefineMessageHandler("meet", &Server::HandleMeet);
    DefineMessageHandler("sleep", [](MessageChannel& channel) {
      absl::SleepFor(absl::Milliseconds(500));
      return channel.Write("slept");
    });
    DefineMessageHandler("count", [this](MessageChannel& channel) {
      return channel.Write(absl::StrCat(++calls_, " calls, ", hangups_.load(),
                                        " hangups, initialized ",
                                        initialized_));
    });
    DefineMessageHandler("open", [](MessageChannel& channel) -> absl::Status {
      const FileDescriptor file(memfd_create("file", MFD_CLOEXEC));
      return channel.Write("opened", file);
    });
    DefineSignalHandler(SIGHUP, [this] { ++hangups_; });
  }

  int calls() const { return calls_; }

  // "finish" waits for it.
  static std::string GoFile(const AbstractServer& server) {
    return absl::StrCat(server.socket_filename(), ".go");
  }

  absl::Status before_fork;

 protected:
  absl::Status BeforeFork() override { return before_fork; }
  absl::Status InitializeServer() override {
    ++initialized_;
    // Broken as long as there is this file.
    const bool broken = !options().arguments.empty() &&
                        access(options().arguments[0].c_str(), F_OK) == 0;
    return broken ? absl::DataLossError("initialize") : absl::OkStatus();
  }

 private:
  // Returns when two clients are in it at the same time.
  absl::Status HandleMeet(MessageChannel& channel) {
    absl::MutexLock lock(&mutex_);
    ++here_;
    mutex_.Await(absl::Condition(
        // NOLINTNEXTLINE(readability-non-const-parameter): as Condition has it.
        +[](int* here) { return *here >= 2; }, &here_));
    return channel.Write("met");
  }

  absl::Mutex mutex_;
  int here_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<int> calls_{0};
  std::atomic<int> hangups_{0};
  int initialized_ = 0;
};

WARD_REGISTER_SERVER(Server);

class EveryModeTest : public testing::ServerTest<Server> {
 protected:
  std::unique_ptr<Server> MakeServer() override {
    return std::make_unique<Server>(Options());
  }

  // To be reached by other objects too.
  ServerOptions Options() const {
    ServerOptions options;
    options.socket_filename = directory() + "/s";
    options.password = Secret("the right password");
    // However loaded the machine is.
    options.stop.kill_after = absl::Minutes(1);
    return options;
  }

  // Opens a conversation, and says `name`.
  MessageChannel Open() {
    auto transport = environment().Connect(
        server().socket_filename(), environment().TimeNow() + absl::Minutes(1));
    EXPECT_THAT(transport, IsOk());
    MessageChannel channel(*std::move(transport));
    channel.PresentPassword(server().password());
    return channel;
  }
  MessageChannel Say(std::string_view name) {
    MessageChannel channel = Open();
    EXPECT_THAT(channel.Write(name), IsOk());
    return channel;
  }
};

// --- calls ---

TEST_F(EveryModeTest, RepliesComeBack) {
  EXPECT_THAT(Call("echo", "text"), RepliesWith("text"));
  EXPECT_THAT(Call("echo", ""), RepliesWith(""));
  EXPECT_THAT(Call("echo", std::string(300000, 'x')),
              RepliesWith(std::string(300000, 'x')));
  EXPECT_THAT(Call("add", 2, 40), RepliesWith("42"));
}

TEST_F(EveryModeTest, EachErrorReachesItsClientAndEndsNothingElse) {
  EXPECT_THAT(Call("no such"), FailsWith(reason::kUnknownMessage, "echo"));
  EXPECT_THAT(Call("add", "two", 40), FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(Call("add", 2), FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(Call("throw"), FailsWith(reason::kUserCodeThrew, "oops"));
  EXPECT_EQ(Call("fail").status().code(), absl::StatusCode::kNotFound);
  Say("hold").Close();
  EXPECT_THAT(Call("echo", "x"), RepliesWith("x"));
}

TEST_F(EveryModeTest, TwoHandlersRunAtTheSameTime) {
  std::vector<absl::AnyInvocable<void()>> clients;
  for (int i = 0; i < 2; ++i) {
    clients.emplace_back(
        [this] { EXPECT_THAT(Call("meet"), RepliesWith("met")); });
  }
  RunAtOnce(std::move(clients));
}

TEST_F(EveryModeTest, TwoHandlersThatSleepTakeNoLongerThanOne) {
  const absl::Time start = environment().TimeNow();
  std::vector<absl::AnyInvocable<void()>> clients;
  for (int i = 0; i < 2; ++i) {
    clients.emplace_back(
        [this] { EXPECT_THAT(Call("sleep"), RepliesWith("slept")); });
  }
  RunAtOnce(std::move(clients));
  const absl::Duration took = environment().TimeNow() - start;
  if (MovesClock()) {
    EXPECT_EQ(took, absl::Milliseconds(500));
  } else {
    EXPECT_GE(took, absl::Milliseconds(500));
  }
}

TEST_F(EveryModeTest, AHandlerTalksWithItsClient) {
  EXPECT_THAT(Connect([](MessageChannel& channel) -> absl::Status {
                WARD_RETURN_IF_ERROR(channel.Write("hold"));
                EXPECT_THAT(channel.Read(), RepliesWith("held"));
                WARD_RETURN_IF_ERROR(channel.Write("go"));
                EXPECT_THAT(channel.Read(), RepliesWith("released"));
                return absl::OkStatus();
              }),
              IsOk());
}

TEST_F(EveryModeTest, DescriptorsTravel) {
  const absl::StatusOr<Message> reply = Call("open");
  ASSERT_THAT(reply, HasDescriptors(1));
  EXPECT_NE(fcntl(reply->descriptors()[0].get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(EveryModeTest, WhatHandlersChangeIsTheServersOwn) {
  EXPECT_THAT(Call("count"), RepliesWith("1 calls, 0 hangups, initialized 1"));
  EXPECT_THAT(Call("count"), RepliesWith("2 calls, 0 hangups, initialized 1"));
  EXPECT_EQ(server().calls(), SharesMemory() ? 2 : 0);
}

// --- who may call ---

TEST_F(EveryModeTest, AWrongPasswordIsRefusedAndTold) {
  ServerOptions options = Options();
  options.password = Secret("the wrong password");
  Server stranger(std::move(options));
  EXPECT_THAT(CallServer(stranger, "echo", "x"),
              FailsWith(reason::kInvalidPassword));
  Server friendly(Options());
  EXPECT_THAT(CallServer(friendly, "echo", "x"), RepliesWith("x"));
}

TEST_F(EveryModeTest, ASilentClientIsCutWhenItsTimeIsOver) {
  const absl::Time start = environment().TimeNow();
  auto silent =
      environment().Connect(server().socket_filename(), absl::InfiniteFuture());
  ASSERT_THAT(silent, IsOk());
  EXPECT_THAT(Call("echo", "x"), RepliesWith("x"));
  MessageChannel channel(*std::move(silent));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kTimedOut));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  const absl::Duration limit = ServerOptions().authentication_timeout;
  const absl::Duration took = environment().TimeNow() - start;
  if (MovesClock()) {
    EXPECT_EQ(took, limit);
  } else {
    EXPECT_GE(took, limit);
  }
}

// --- starting and stopping ---

TEST_F(EveryModeTest, StopsAndStartsThreeTimesOver) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(server().Stop(), IsOk());
    EXPECT_FALSE(server().started());
    EXPECT_EQ(server().server_pid(), 0);
    EXPECT_THAT(Call("echo", "x"), FailsWith(reason::kServerUnreachable));
    ASSERT_THAT(server().Start(), IsOk());
    EXPECT_THAT(Call("echo", "x"), RepliesWith("x"));
  }
}

TEST_F(EveryModeTest, ASecondStartAndASecondStopAreRefused) {
  EXPECT_THAT(server().Start(), FailsWith(reason::kServerAlreadyStarted));
  EXPECT_THAT(Call("echo", "x"), RepliesWith("x"));
  ASSERT_THAT(server().Stop(), IsOk());
  EXPECT_THAT(server().Stop(), FailsWith(reason::kServerNotStarted));
}

TEST_F(EveryModeTest, AnotherServersPathIsTaken) {
  Server other(Options());
  EXPECT_THAT(other.Start(), FailsWith(reason::kPathTaken));
  EXPECT_THAT(Call("echo", "x"), RepliesWith("x"));
}

TEST_F(EveryModeTest, WhatAHookReturnsComesOutOfStart) {
  const std::string file = directory() + "/broken";
  ServerOptions options;
  options.arguments = {file};
  Server other(std::move(options));
  other.before_fork = absl::DataLossError("before");
  EXPECT_EQ(other.Start(), other.before_fork);
  other.before_fork = absl::OkStatus();
  FileDescriptor(open(file.c_str(), O_CREAT | O_CLOEXEC, 0600)).Reset();
  EXPECT_EQ(other.Start(), absl::DataLossError("initialize"));
  EXPECT_FALSE(other.started());
  ASSERT_EQ(unlink(file.c_str()), 0);
  EXPECT_THAT(other.Start(), IsOk());
  EXPECT_THAT(CallServer(other, "echo", "x"), RepliesWith("x"));
  EXPECT_THAT(other.Stop(), IsOk());
}

TEST_F(EveryModeTest, StopLetsARunningHandlerFinish) {
  MessageChannel channel = Say("finish");
  ASSERT_THAT(channel.Read(), RepliesWith("running"));
  const std::string go = Server::GoFile(server());
  RunAtOnce([&] {
    std::vector<absl::AnyInvocable<void()>> both;
    both.emplace_back([&] { EXPECT_THAT(server().Stop(), IsOk()); });
    both.emplace_back([&] {
      // The name is gone as soon as the server quits.
      while (environment()
                 .Connect(Options().socket_filename, absl::InfiniteFuture())
                 .ok()) {
        absl::SleepFor(absl::Milliseconds(1));
      }
      close(open(go.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
      EXPECT_THAT(channel.Read(), RepliesWith("finished"));
    });
    return both;
  }());
  unlink(go.c_str());
}

TEST_F(EveryModeTest, StopCutsAHandlerAfterTheDrainTime) {
  MessageChannel channel = Say("flood");
  ASSERT_THAT(channel.Read(), IsOk());
  const absl::Time start = environment().TimeNow();
  EXPECT_THAT(server().Stop(), IsOk());
  EXPECT_GE(environment().TimeNow() - start, ServerOptions().drain_time);
  while (channel.Read().ok()) {
  }
}

TEST_F(EveryModeTest, StopDoesNotWaitForAClientThatSendsNothing) {
  MessageChannel silent = Open();
  MessageChannel channel = Say("hold");
  ASSERT_THAT(channel.Read(), RepliesWith("held"));
  EXPECT_THAT(server().Stop(), IsOk());
  EXPECT_THAT(channel.Read(), FailsWith(reason::kServerStopping));
}

TEST_F(EveryModeTest, AHandlerMayWaitForTenMinutes) {
  if (!MovesClock()) GTEST_SKIP() << "ten minutes take ten minutes here";
  MessageChannel channel = Say("hold");
  ASSERT_THAT(channel.Read(), RepliesWith("held"));
  Advance(absl::Minutes(10));
  ASSERT_THAT(channel.Write("go"), IsOk());
  EXPECT_THAT(channel.Read(), RepliesWith("released"));
}

// --- signals, deaths and owners ---

TEST_F(EveryModeTest, TermEndsTheServer) {
  Raise(SIGTERM);
  // Clean, as Stop finds it: nobody was hurt.
  EXPECT_THAT(server().Stop(), IsOk());
}

TEST_F(EveryModeTest, AHandlerOfASignalRunsAsOrdinaryCode) {
  Raise(SIGHUP);
  while (!::testing::Value(
      Call("count").value(),
      ::testing::ResultOf([](const Message& m) { return m[0]; },
                          ::testing::HasSubstr("1 hangups")))) {
    absl::SleepFor(absl::Milliseconds(1));
  }
}

TEST_F(EveryModeTest, AKilledServerIsReportedAndCanBeStartedAgain) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  KillServer();
  EXPECT_THAT(Call("echo", "x"),
              FailsWith(reason::kServerDied, "killed by signal 9"));
  EXPECT_THAT(server().Stop(), FailsWith(reason::kServerDied));
  ASSERT_THAT(server().Start(), IsOk());
  EXPECT_THAT(Call("echo", "x"), RepliesWith("x"));
}

TEST_F(EveryModeTest, OwnersThatAreKilledLeaveTheServerToTheOthers) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread owns nothing of its own";
  Owner first = AddOwner();
  Owner second = AddOwner();
  first.Kill();
  EXPECT_THAT(Call("echo", "x"), RepliesWith("x"));
  second.Quit();
  EXPECT_THAT(Call("echo", "x"), RepliesWith("x"));
}

TEST_F(EveryModeTest, TheServerGoesWithItsLastOwner) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread owns nothing of its own";
  ServerOptions options = Options();
  options.socket_filename += "2";
  Server other(std::move(options));
  // The owner ends without Stop; the server must, too, or this would not
  // return.
  ASSERT_EQ(RunInProcess([&other] { return other.Start().ok() ? 0 : 1; }), 0);
  EXPECT_THAT(
      environment().Connect(directory() + "/s2", absl::InfiniteFuture()),
      FailsWith(reason::kServerUnreachable));
}

// --- limits ---

class OneClientTest : public EveryModeTest {
 protected:
  std::unique_ptr<Server> MakeServer() override {
    ServerOptions options = Options();
    options.max_clients = 1;
    options.max_waiting_clients = 1;
    return std::make_unique<Server>(std::move(options));
  }
};

TEST_F(OneClientTest, AnotherWaitsForItsTurn) {
  MessageChannel first = Say("hold");
  ASSERT_THAT(first.Read(), RepliesWith("held"));
  MessageChannel second = Say("hold");
  const Pollable* const polled[] = {second.transport()};
  EXPECT_THAT(environment().Poll(
                  polled, environment().TimeNow() + absl::Milliseconds(20)),
              FailsWith(reason::kTimedOut));
  ASSERT_THAT(first.Write("go"), IsOk());
  EXPECT_THAT(first.Read(), RepliesWith("released"));
  EXPECT_THAT(second.Read(), RepliesWith("held"));
}

}  // namespace
}  // namespace ward

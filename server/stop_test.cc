// How a server ends: stopped, or left alone by its owners, whatever its hooks
// and handlers are doing then; in every mode.

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/call_context.h"
#include "ward/server/environment.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/process.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using ::testing::AnyOf;
using testing::HasProcesses;
using testing::MovesClock;
using testing::RepliesWith;

// Longer than any test takes: what comes before it did not wait for it.
constexpr absl::Duration kNever = absl::Minutes(5);

absl::Status Hang() {
  absl::SleepFor(absl::InfiniteDuration());
  return absl::OkStatus();
}

class HangingServer : public Registered<HangingServer> {
 public:
  explicit HangingServer(ServerOptions options)
      : Registered(std::move(options)) {
    DefineMessageHandler("hang", [](MessageChannel& channel) {
      (void)channel.Write("hanging");
      return Hang();
    });
  }
};

// Until it has ended, the handler of `server`, which `client` can reach, hangs;
// `end` ends it.
absl::Status WhileItHangs(AbstractServer& client,
                          absl::FunctionRef<absl::Status()> end) {
  return client.Connect([&](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("hang"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    return end();
  });
}

class StopTest : public ModesTest {
 protected:
  ServerOptions Options(absl::Duration drain_time, absl::Duration kill_after) {
    ServerOptions options = Shared();
    options.drain_time = drain_time;
    options.stop.kill_after = kill_after;
    return options;
  }
};

TEST_F(StopTest, ARunningHandlersChannelIsCutAfterTheDrainTime) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler("flood", [this](MessageChannel& channel) {
        absl::Status status;
        while ((status = channel.Write(std::string(100000, 'x'))).ok()) {
        }
        return Note(ReasonOf(status));
      });
    }
    absl::Status FinalizeServer() override { return Note("finalized"); }
  };
  Server server(Options(absl::Milliseconds(100), kNever));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Open(server);
  ASSERT_THAT(channel.Write("flood"), IsOk());
  ASSERT_THAT(channel.Read(), IsOk());
  const Stopwatch watch;
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_GE(watch.Elapsed(), absl::Milliseconds(100));
  if (MovesClock()) {
    EXPECT_EQ(watch.Elapsed(), absl::Milliseconds(100));
  }
  while (channel.Read().ok()) {
  }
  EXPECT_EQ(TakeNotes(), "ConnectionLost\nfinalized\n");
}

TEST_F(StopTest, HandlersThatWaitForTheirClientsAreNotDrained) {
  constexpr int kClients = 100;
  ServerOptions options = Options(kNever, 2 * kNever);
  options.max_clients = kClients;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<MessageChannel> idle;
  for (int i = 0; i < kClients; ++i) {
    idle.push_back(Open(server));
    ASSERT_THAT(idle.back().Write("hold"), IsOk());
    ASSERT_THAT(idle.back().Read(), IsOk());
  }
  const Stopwatch watch;
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_LT(watch.Elapsed(), kSurely);
  if (MovesClock()) {
    EXPECT_EQ(watch.Elapsed(), absl::ZeroDuration());
  }
  for (MessageChannel& channel : idle) {
    EXPECT_THAT(channel.Read(), FailsWith(reason::kServerStopping));
  }
}

TEST_F(StopTest, WhatHasComeBeforeIsStillRead) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler(
          "sum",
          [](const CallContext& context,
             MessageChannel& channel) -> absl::Status {
            (void)channel.Write("running");
            while (!context.stopping()) absl::SleepFor(absl::Milliseconds(1));
            WARD_ASSIGN_OR_RETURN(const Message first, channel.Read());
            WARD_ASSIGN_OR_RETURN(const Message second, channel.Read());
            return channel.Write(absl::StrCat(first[0], second[0]));
          });
    }
  };
  Server server(Options(kNever, 2 * kNever));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Open(server);
  ASSERT_THAT(channel.Write("sum"), IsOk());
  ASSERT_THAT(channel.Read(), IsOk());
  ASSERT_THAT(channel.Write("a"), IsOk());
  ASSERT_THAT(channel.Write("b"), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(channel.Read(), RepliesWith("ab"));
}

// Its name is gone already, and that is no fault.
TEST_F(StopTest, AServerThatIsBeingStoppedIsKnownToBe) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler("stay", [](MessageChannel& channel) {
        (void)channel.Write("running");
        while (!channel.transport()->HungUp()) {
          absl::SleepFor(absl::Milliseconds(1));
        }
        return absl::OkStatus();
      });
    }
  };
  Server server(Options(kNever, 2 * kNever));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Open(server);
  ASSERT_THAT(channel.Write("stay"), IsOk());
  ASSERT_THAT(channel.Read(), IsOk());
  RunAtOnce([&] { EXPECT_THAT(server.Stop(), IsOk()); },
            [&] {
              absl::Status status;
              while ((status = server.CheckReachable()).ok()) {
                absl::SleepFor(absl::Milliseconds(1));
              }
              EXPECT_THAT(status, FailsWith(reason::kServerStopping));
              channel.Close();
            });
}

// Its server reads no more from one moment on, and says why a little later.
TEST_F(StopTest, AClientThatWritesIsToldWhy) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler("swallow", [](MessageChannel& channel) {
        absl::Status status = channel.Write("running");
        while (status.ok()) status = channel.Read().status();
        absl::SleepFor(absl::Milliseconds(100));
        return status;
      });
    }
  };
  Server server(Options(kNever, 2 * kNever));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Open(server);
  ASSERT_THAT(channel.Write("swallow"), IsOk());
  ASSERT_THAT(channel.Read(), IsOk());
  RunAtOnce(
      [&] {
        absl::Status status;
        while (status.ok()) status = channel.Write("more");
        if (MovesClock()) {
          EXPECT_THAT(status, FailsWith(reason::kServerStopping));
        } else {
          // A machine under load may take longer than is waited for.
          EXPECT_THAT(status, AnyOf(FailsWith(reason::kServerStopping),
                                    FailsWith(reason::kConnectionLost)));
        }
      },
      [&] { EXPECT_THAT(server.Stop(), IsOk()); });
}

// --- a handler learns of it ---

// Its handlers run until nobody waits for them.
class AskingServer : public Registered<AskingServer> {
 public:
  explicit AskingServer(ServerOptions options)
      : Registered(std::move(options)) {
    DefineMessageHandler(
        "ask", [this](const CallContext& context, MessageChannel& channel) {
          (void)channel.Write("running");
          absl::MutexLock lock(&mutex_);
          while (!context.cancelled()) {
            mutex_.AwaitWithTimeout(absl::Condition(&never_),
                                    absl::Milliseconds(1));
          }
          return Note(context.stopping() ? "stopping" : "left");
        });
    DefineMessageHandler(
        "poll", [this](const CallContext& context, MessageChannel& channel) {
          (void)channel.Write("running");
          const Pollable* const polled[] = {channel.transport()};
          (void)environment().Poll(polled, absl::InfiniteFuture());
          return Note(context.stopping()    ? "stopping"
                      : context.cancelled() ? "left"
                                            : "more");
        });
    DefineMessageHandler(
        "close", [this](const CallContext& context, MessageChannel& channel) {
          channel.Close();
          absl::MutexLock lock(&mutex_);
          while (!context.stopping()) {
            mutex_.AwaitWithTimeout(absl::Condition(&never_),
                                    absl::Milliseconds(1));
          }
          // Longer than it is waited for: its connection is cut.
          mutex_.AwaitWithTimeout(absl::Condition(&never_),
                                  absl::Milliseconds(100));
          return Note("stopping");
        });
  }

 private:
  absl::Mutex mutex_;
  const bool never_ = false;
};

TEST_F(StopTest, AHandlerLearnsThatItsServerStops) {
  for (const char* const how : {"ask", "poll"}) {
    AskingServer server(Options(kNever, 2 * kNever));
    ASSERT_THAT(server.Start(), IsOk());
    MessageChannel channel = Open(server);
    ASSERT_THAT(channel.Write(how), IsOk());
    ASSERT_THAT(channel.Read(), IsOk());
    EXPECT_THAT(server.Stop(), IsOk());
    EXPECT_EQ(TakeNotes(), "stopping\n") << how;
  }
}

TEST_F(StopTest, AHandlerMayHaveClosedItsChannel) {
  AskingServer server(Options(absl::Milliseconds(10), kNever));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Open(server);
  ASSERT_THAT(channel.Write("close"), IsOk());
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(TakeNotes(), "stopping\n");
}

TEST_F(StopTest, AHandlerLearnsThatItsClientHasLeft) {
  AskingServer server(Options(kNever, 2 * kNever));
  ASSERT_THAT(server.Start(), IsOk());
  for (const char* const how : {"ask", "poll"}) {
    MessageChannel channel = Open(server);
    ASSERT_THAT(channel.Write(how), IsOk());
    ASSERT_THAT(channel.Read(), IsOk());
    channel.Close();
    EXPECT_EQ(AwaitNotes(), "left\n") << how;
  }
  MessageChannel channel = Open(server);
  ASSERT_THAT(channel.Write("poll"), IsOk());
  ASSERT_THAT(channel.Read(), IsOk());
  ASSERT_THAT(channel.Write("a word"), IsOk());
  EXPECT_EQ(AwaitNotes(), "more\n");
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(StopTest, AHandlerLearnsThatItsTimeIsOver) {
  constexpr absl::Duration kTimeout = absl::Milliseconds(100);
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      // As in call_context.h.
      DefineMessageHandler(
          "watch", [this](const CallContext& context) -> absl::Status {
            absl::MutexLock lock(&mutex_);
            while (!mutex_.AwaitWithTimeout(absl::Condition(&never_),
                                            absl::Milliseconds(10))) {
              if (context.cancelled()) return absl::CancelledError("given up");
            }
            return absl::OkStatus();
          });
    }
    absl::Mutex mutex_;
    const bool never_ = false;
  };
  ServerOptions options = Options(kNever, 2 * kNever);
  options.call_timeout = kTimeout;
  Server server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  const Stopwatch watch;
  EXPECT_THAT(
      Call(server, "watch"),
      FailsWith(reason::kTimedOut, "ServerOptions::call_timeout is 100ms"));
  EXPECT_GE(watch.Elapsed(), kTimeout);
  if (MovesClock()) {
    EXPECT_EQ(watch.Elapsed(), kTimeout);
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

// What an owner finds that comes a second late, on a machine under load.
auto KilledItself() {
  return FailsWith(reason::kServerDied, "killed by signal 9");
}

TEST_F(StopTest, SigkillEndsAServerThatDoesNotQuitWithinKillAfter) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  HangingServer server(Options(kNever, absl::Milliseconds(100)));
  HangingServer client(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(
      WhileItHangs(client,
                   [&] {
                     const Stopwatch watch;
                     absl::Status status = server.Stop();
                     EXPECT_GE(watch.Elapsed(), absl::Milliseconds(100));
                     if (MovesClock()) {
                       EXPECT_EQ(watch.Elapsed(), absl::Milliseconds(100));
                     }
                     return status;
                   }),
      AnyOf(FailsWith(reason::kServerKilled, "100ms"), KilledItself()));
  EXPECT_FALSE(server.started());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  // A machine under load may not manage this within 100 ms.
  (void)server.Stop();
  EXPECT_FALSE(server.started());
}

TEST_F(StopTest, SigkillEndsAFinalizeServerThatNeverReturns) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  struct Server : Registered<Server> {
    using Registered::Registered;
    absl::Status FinalizeServer() override { return Hang(); }
  };
  Server server(Options(kNever, absl::Milliseconds(100)));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Stop(),
              AnyOf(FailsWith(reason::kServerKilled), KilledItself()));
}

TEST_F(StopTest, AServerWithAHandlerThatNeverReturnsEndsWithoutAnOwnersHelp) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  HangingServer server(
      Options(absl::Milliseconds(20), absl::Milliseconds(100)));
  HangingServer client(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(WhileItHangs(client,
                           [&] {
                             Raise(server, SIGTERM);
                             AwaitEnd(server);
                             return absl::OkStatus();
                           }),
              IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), KilledItself());
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
}

// --- the owner is killed ---

class LastOwnerTest : public StopTest {
 protected:
  // A process that starts `server`, and owns it until it is killed. Returns
  // when Start has, unless that is for ever.
  std::unique_ptr<Process> StartOwner(AbstractServer& server,
                                      bool await_start = true) {
    auto ends = environment().CreateTransportPair();
    if (!ends.ok()) abort();
    ForkOptions options;
    options.keep_open = {ends->second->descriptor()};
    auto owner = environment().Fork(
        options, [&server, report = std::move(ends->second)]() -> int {
          if (!server.Start().ok()) return 1;
          report->ShutDown();
          (void)Hang();
          return 0;
        });
    if (!owner.ok()) abort();
    if (await_start) (void)MessageChannel(std::move(ends->first)).Read();
    return *std::move(owner);
  }

  static bool Kill(Process& owner) {
    return owner.Kill(SIGKILL).ok() && owner.Wait(absl::InfiniteFuture()).ok();
  }
};

// Each server must end, or RunInProcess would not return.

TEST_F(LastOwnerTest, ARunningHandlerFinishesFirst) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread owns nothing of its own";
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler(
          "finish", [](const CallContext& context, MessageChannel& channel) {
            (void)channel.Write("running");
            while (!context.stopping()) absl::SleepFor(absl::Milliseconds(1));
            return channel.Write("finished");
          });
    }
  };
  Server server(Options(kSurely, 2 * kSurely));
  TestServer client(Shared());
  EXPECT_EQ(RunInProcess([&] {
              const std::unique_ptr<Process> owner = StartOwner(server);
              const absl::Status status =
                  client.Connect([&](MessageChannel& channel) -> absl::Status {
                    WARD_RETURN_IF_ERROR(channel.Write("finish"));
                    WARD_RETURN_IF_ERROR(channel.Read().status());
                    if (!Kill(*owner)) return absl::AbortedError("it lives");
                    return channel.Read().status();
                  });
              return status.ok() ? 0 : 1;
            }),
            0);
  EXPECT_FALSE(Answers(path()));
}

TEST_F(LastOwnerTest, AHandlerThatNeverReturnsDoesNotKeepTheServerAlive) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread owns nothing of its own";
  HangingServer server(
      Options(absl::Milliseconds(20), absl::Milliseconds(100)));
  HangingServer client(Shared());
  EXPECT_EQ(RunInProcess([&] {
              const std::unique_ptr<Process> owner = StartOwner(server);
              const absl::Status status = WhileItHangs(client, [&] {
                return Kill(*owner) ? absl::OkStatus()
                                    : absl::AbortedError("it lives");
              });
              return status.ok() ? 0 : 1;
            }),
            0);
  EXPECT_FALSE(Answers(path()));
}

TEST_F(LastOwnerTest, ItMayDieWhileTheServerStarts) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread owns nothing of its own";
  // Starts until there is a file "go".
  struct Server : Registered<Server> {
    using Registered::Registered;
    absl::Status InitializeServer() override {
      (void)Note("starts");
      while (!Exists(options().arguments.at(1))) {
        absl::SleepFor(absl::Milliseconds(1));
      }
      return absl::OkStatus();
    }
  };
  const std::string go = directory() + "/go";
  Server server(Shared({go}));
  EXPECT_EQ(RunInProcess([&] {
              const std::unique_ptr<Process> owner =
                  StartOwner(server, /*await_start=*/false);
              (void)AwaitNotes();
              if (!Kill(*owner)) return 1;
              Note(go, "");
              return 0;
            }),
            0);
  EXPECT_FALSE(Answers(path()));
  unlink(go.c_str());
}

TEST_F(LastOwnerTest, AServerThatHangsWhileItStartsDoesNotOutliveItLong) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread owns nothing of its own";
  struct Server : Registered<Server> {
    using Registered::Registered;
    absl::Status InitializeServer() override {
      (void)Note("starts");
      return Hang();
    }
  };
  ServerOptions options = Shared();
  // Time enough to come to InitializeServer on a machine under load.
  options.launch.start_timeout = absl::Seconds(MovesClock()      ? 1
                                               : kUnderSanitizer ? 5
                                                                 : 2);
  Server server(std::move(options));
  EXPECT_EQ(RunInProcess([&] {
              const std::unique_ptr<Process> owner =
                  StartOwner(server, /*await_start=*/false);
              (void)AwaitNotes();
              return Kill(*owner) ? 0 : 1;
            }),
            0);
  // Nobody was left to remove its name; the next server there replaces it.
  TestServer next(Shared());
  ASSERT_THAT(next.Start(), IsOk());
  EXPECT_THAT(next.Stop(), IsOk());
}

}  // namespace
}  // namespace ward

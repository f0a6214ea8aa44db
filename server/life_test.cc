// A server's life, from its hooks to its death, in every mode.

#include <signal.h>
#include <unistd.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using testing::HasProcesses;
using ::testing::HasSubstr;
using testing::MovesClock;
using testing::SharesMemory;

constexpr Reason kOutOfPaper{"OutOfPaper", absl::StatusCode::kDataLoss};

TEST_F(ModesTest, KnowsInTheServerThatItIsTheServer) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler("who", [this](MessageChannel& channel) {
        return channel.Write(started(),
                             server_pid() == Environment::Default().ProcessId(),
                             socket_filename());
      });
    }
  };
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const absl::StatusOr<Message> reply = CallServer(server, "who");
  ASSERT_THAT(reply, IsOk());
  EXPECT_THAT(reply->parts(), ElementsAre("true", "true", path()));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, HasTheAttributesOfTheOriginal) {
  TestServer server;
  EXPECT_FALSE(server.ignore_password_errors());
  server.set_ignore_password_errors(true);
  EXPECT_TRUE(server.ignore_password_errors());

  EXPECT_EQ(server.max_idle_time(), absl::ZeroDuration());
  server.set_max_idle_time(absl::Minutes(5));
  EXPECT_EQ(server.max_idle_time(), absl::Minutes(5));

  EXPECT_EQ(server.next_cleaning_time(), absl::InfiniteFuture());
  server.set_next_cleaning_time(absl::UnixEpoch());
  EXPECT_EQ(server.next_cleaning_time(), absl::UnixEpoch());

  EXPECT_EQ(TestServer(Shared()).password().Expose(), "the right password");
  EXPECT_EQ(server.password().Expose().size(), 64u);
  EXPECT_FALSE(TestServer().password().Matches(server.password().Expose()));
}

TEST_F(ModesTest, AChosenPathIsKnownBeforeAndAfter) {
  TestServer server(Shared());
  EXPECT_EQ(server.socket_filename(), path());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_EQ(server.socket_filename(), path());
  ASSERT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(server.socket_filename(), path());
}

TEST_F(ModesTest, TheDestructorStopsTheServer) {
  if (SharesMemory()) GTEST_SKIP() << "a server in here uses the very object";
  {
    TestServer server(Shared());
    ASSERT_THAT(server.Start(), IsOk());
    EXPECT_TRUE(Answers(path()));
  }
  EXPECT_FALSE(Answers(path()));
}

TEST_F(ModesTest, WhatIsNotStartedCanNeitherBeStoppedNorReached) {
  TestServer server;
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerNotStarted));
  EXPECT_THAT(Call(server, "echo", "x"),
              FailsWith(reason::kServerNotStarted, "Start()"));
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerNotStarted));
  EXPECT_THAT(Call(server, "echo", "x"), FailsWith(reason::kServerNotStarted));

  TestServer somewhere(Shared());
  EXPECT_THAT(Call(somewhere, "echo", "x"),
              FailsWith(reason::kServerUnreachable, path()));
}

TEST_F(ModesTest, CallsEachHookOnceInTheRightProcessAndOrder) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler("note", [this](MessageChannel& channel) {
        (void)Tell("serve");
        return channel.Write("noted");
      });
    }
    absl::Status BeforeFork() override { return Tell("before fork"); }
    absl::Status InitializeServer() override { return Tell("initialize"); }
    absl::Status FinalizeServer() override { return Tell("finalize"); }
    absl::Status Tell(std::string_view what) const {
      const bool in_owner = absl::StrCat(Environment::Default().ProcessId()) ==
                            options().arguments.at(1);
      return Note(absl::StrCat(what, in_owner ? " in owner" : " in server"));
    }
  };
  Server server(Shared({absl::StrCat(environment().ProcessId())}));
  std::string expected;
  for (int i = 0; i < 2; ++i) {
    ASSERT_THAT(server.Start(), IsOk());
    ASSERT_THAT(Call(server, "note"), IsOkAndHolds("noted"));
    ASSERT_THAT(server.Stop(), IsOk());
    expected +=
        "before fork in owner\ninitialize in server\nserve in server\n"
        "finalize in server\n";
  }
  // Where a server is a thread, there is one process.
  if (!HasProcesses()) {
    absl::StrReplaceAll({{"server\n", "owner\n"}}, &expected);
  }
  EXPECT_EQ(TakeNotes(), expected);
}

TEST_F(ModesTest, WhatAHookReturnsIsReturnedByStartAndNothingIsLeft) {
  // Its hooks do what their names among the arguments are followed by.
  struct Server : Registered<Server> {
    using Registered::Registered;
    absl::Status BeforeFork() override { return Do("before fork"); }
    absl::Status InitializeServer() override { return Do("initialize"); }
    absl::Status FinalizeServer() override { return Note("finalized"); }
    absl::Status Do(std::string_view hook) const {
      if (options().arguments.at(1) != hook) return absl::OkStatus();
      const std::string& what = options().arguments.at(2);
      if (what == "throw") throw std::runtime_error("paper jam");
      if (what == "throw anything") throw 42;
      return MakeError(kOutOfPaper, "tray 2");
    }
  };
  const auto start = [this](const std::string& hook, const std::string& what) {
    Server server(Shared({hook, what}));
    absl::Status status = server.Start();
    EXPECT_FALSE(server.started());
    EXPECT_EQ(server.server_pid(), 0);
    EXPECT_FALSE(Answers(path()));
    return status;
  };
  EXPECT_THAT(start("before fork", "fail"), FailsWith(kOutOfPaper, "tray 2"));
  EXPECT_THAT(start("before fork", "throw"),
              FailsWith(reason::kUserCodeThrew, "BeforeFork threw: paper jam"));
  EXPECT_THAT(start("initialize", "fail"), FailsWith(kOutOfPaper, "tray 2"));
  EXPECT_THAT(
      start("initialize", "throw"),
      FailsWith(reason::kUserCodeThrew, "InitializeServer threw: paper jam"));
  EXPECT_THAT(start("initialize", "throw anything"),
              FailsWith(reason::kUserCodeThrew, "no std::exception"));
  // FinalizeServer belongs to an initialization that succeeded.
  EXPECT_EQ(TakeNotes(), "");
  Server server(Shared({"none", ""}));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(TakeNotes(), "finalized\n");
}

TEST_F(ModesTest, AFinalizeServerThatFailsIsLoggedAndMakesItExitWith1) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread has no exit code";
  struct Server : Registered<Server> {
    using Registered::Registered;
    absl::Status FinalizeServer() override {
      if (options().arguments.at(1) == "throw") {
        throw std::runtime_error("paper jam");
      }
      return MakeError(kOutOfPaper, "tray 2");
    }
  };
  for (const std::string how : {"fail", "throw"}) {
    const StderrCapture log;
    Server server(Shared({how}));
    ASSERT_THAT(server.Start(), IsOk());
    EXPECT_THAT(server.Stop(),
                FailsWith(reason::kServerDied, "exited with code 1"));
    EXPECT_FALSE(server.started());
    // A simulation's log is in its transcript.
    if (!MovesClock()) {
      EXPECT_THAT(log.Text(),
                  HasSubstr(how == "throw" ? "FinalizeServer threw: paper jam"
                                           : "tray 2"));
    }
  }
}

TEST_F(ModesTest, AServerThatIsNotReadyInTimeIsKilled) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  struct Server : Registered<Server> {
    using Registered::Registered;
    absl::Status InitializeServer() override {
      absl::SleepFor(absl::InfiniteDuration());
      return absl::OkStatus();
    }
  };
  ServerOptions options = Shared();
  options.launch.start_timeout = absl::Milliseconds(100);
  Server server(std::move(options));
  const Stopwatch watch;
  EXPECT_THAT(server.Start(), FailsWith(reason::kTimedOut, "100ms"));
  EXPECT_GE(watch.Elapsed(), absl::Milliseconds(100));
  if (MovesClock()) {
    EXPECT_EQ(watch.Elapsed(), absl::Milliseconds(100));
  }
  EXPECT_FALSE(server.started());
  EXPECT_FALSE(Answers(path()));
  // Its place is free again.
  TestServer other(Shared());
  EXPECT_THAT(other.Start(), IsOk());
}

TEST_F(ModesTest, TermAndIntFinishThroughFinalizeServerWithCode0) {
  struct Server : Registered<Server> {
    using Registered::Registered;
    absl::Status FinalizeServer() override { return Note("finalized"); }
  };
  for (const int signal : {SIGTERM, SIGINT}) {
    Server server(Shared());
    ASSERT_THAT(server.Start(), IsOk());
    Raise(server, signal);
    AwaitEnd(server);
    EXPECT_TRUE(server.started());  // Until it is stopped.
    EXPECT_FALSE(Answers(path()));
    EXPECT_THAT(Call(server, "echo", "x"),
                FailsWith(reason::kServerDied, "exited with code 0"));
    EXPECT_THAT(server.Stop(), IsOk());
    EXPECT_EQ(TakeNotes(), "finalized\n");
  }
}

TEST_F(ModesTest, HupAndPipeAreIgnored) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  Raise(server, SIGHUP);
  Raise(server, SIGPIPE);
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, AHandlerTakesThePlaceOfQuittingAndOfIgnoring) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineSignalHandler(SIGUSR1, &Server::HandleUsr1);
      for (const int signal : {SIGHUP, SIGINT, SIGTERM}) {
        // Ordinary code: it may allocate.
        DefineSignalHandler(signal, [this, signal] {
          (void)Note(absl::StrCat("signal ", signal));
        });
      }
    }
    void HandleUsr1() {
      // Where there are real processes, each has a main thread.
      const bool elsewhere = !SharesMemory() && gettid() != getpid();
      (void)Note(elsewhere ? "USR1, not on the main thread" : "USR1");
    }
    absl::Status FinalizeServer() override { return Note("finalized"); }
  };
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  Raise(server, SIGUSR1);
  EXPECT_EQ(AwaitNotes(), "USR1\n");
  for (const int signal : {SIGHUP, SIGINT, SIGTERM}) {
    Raise(server, signal);
    EXPECT_EQ(AwaitNotes(), absl::StrCat("signal ", signal, "\n"));
  }
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(TakeNotes(), "finalized\n");
}

TEST_F(ModesTest, ASignalHandlerThatThrowsIsLoggedAndEndsNothing) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineSignalHandler(SIGUSR1,
                          [] { throw std::runtime_error("paper jam"); });
      DefineSignalHandler(SIGUSR2, [this] { (void)Note("USR2"); });
    }
  };
  const StderrCapture log;
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  Raise(server, SIGUSR1);
  Raise(server, SIGUSR2);
  EXPECT_EQ(AwaitNotes(), "USR2\n");
  EXPECT_THAT(server.Stop(), IsOk());
  // A simulation's log is in its transcript.
  if (!MovesClock()) {
    EXPECT_THAT(log.Text(), HasSubstr("paper jam"));
  }
}

// Its handler of SIGUSR1 has another one come each time.
struct StormyServer : Registered<StormyServer> {
  explicit StormyServer(ServerOptions options)
      : Registered(std::move(options)) {
    DefineSignalHandler(SIGUSR1, [this] {
      if (!std::exchange(stormy_, true)) (void)Note("stormy");
      absl::SleepFor(absl::Milliseconds(1));
      RaiseHere(SIGUSR1);
    });
  }
  absl::Status FinalizeServer() override { return Note("finalized"); }

 private:
  bool stormy_ = false;
};

TEST_F(ModesTest, AStormOfSignalsDoesNotHideItsOwner) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread sends itself no signals";
  ServerOptions options = Shared();
  options.stop.kill_after = absl::Seconds(20);
  StormyServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  Raise(server, SIGUSR1);
  EXPECT_EQ(AwaitNotes(), "stormy\n");
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(TakeNotes(), "finalized\n");
}

TEST_F(ModesTest, AStormOfSignalsDoesNotHideTheOneThatEndsTheServer) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread sends itself no signals";
  StormyServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  Raise(server, SIGUSR1);
  EXPECT_EQ(AwaitNotes(), "stormy\n");
  Raise(server, SIGTERM);
  AwaitEnd(server);
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(TakeNotes(), "finalized\n");
}

// Though ward has it end a server that is not ready yet; see
// Environment::TieProcess.
TEST_F(ModesTest, SigioIsTheServersOwn) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread sends itself no signals";
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineSignalHandler(SIGIO, [this] { (void)Note("IO"); });
    }
    absl::Status InitializeServer() override {
      RaiseHere(SIGIO);
      return absl::OkStatus();
    }
  };
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_EQ(AwaitNotes(), "IO\n");
  Raise(server, SIGIO);
  EXPECT_EQ(AwaitNotes(), "IO\n");
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, ASignalThatCanHaveNoHandlerFailsStart) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineSignalHandler(std::stoi(this->options().arguments.at(1)), [] {});
    }
  };
  for (const int signal :
       {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, 0, -1, 1000}) {
    Server server(Shared({absl::StrCat(signal)}));
    EXPECT_THAT(server.Start(), FailsWith(reason::kInvalidSignal,
                                          absl::StrCat("signal ", signal)));
    EXPECT_FALSE(server.started());
  }
}

TEST_F(ModesTest, APathOfALiveServerIsTaken) {
  TestServer first(Shared());
  TestServer second(Shared());
  ASSERT_THAT(first.Start(), IsOk());
  EXPECT_THAT(second.Start(), FailsWith(reason::kPathTaken, path()));
  EXPECT_FALSE(second.started());
  EXPECT_THAT(Call(first, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(first.Stop(), IsOk());
  EXPECT_THAT(second.Start(), IsOk());
  EXPECT_THAT(second.Stop(), IsOk());
}

TEST_F(ModesTest, AServerWhoseNameWasRemovedIsKnownToLive) {
  TestServer server;
  EXPECT_THAT(server.CheckReachable(), FailsWith(reason::kServerNotStarted));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.CheckReachable(), IsOk());
  RemoveName(server);
  EXPECT_THAT(Call(server, "echo", "x"),
              FailsWith(reason::kServerUnreachable,
                        absl::StrCat(server.server_pid(), ", lives")));
  EXPECT_THAT(server.CheckReachable(),
              FailsWith(reason::kServerUnreachable, "file was removed"));
  EXPECT_THAT(server.CheckAlive(), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, AServerWhoseNameAnotherHasTakenIsKnownToLive) {
  TestServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  RemoveName(server);
  ServerOptions options = Shared();
  options.password = Secret("another password");
  TestServer other(std::move(options));
  other.set_ignore_password_errors(true);
  ASSERT_THAT(other.Start(), IsOk());
  // And not only that the password is wrong.
  EXPECT_THAT(Call(server, "echo", "x"),
              FailsWith(reason::kServerUnreachable, "another file is there"));
  EXPECT_THAT(server.CheckAlive(), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(Call(other, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(other.Stop(), IsOk());
}

TEST_F(ModesTest, AStaleSocketIsReplaced) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  TestServer dead(Shared());
  ASSERT_THAT(dead.Start(), IsOk());
  Raise(dead, SIGKILL);
  AwaitEnd(dead);
  TestServer server(Shared());
  EXPECT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(dead.Stop(), FailsWith(reason::kServerDied));
}

TEST_F(ModesTest, AFileNameThatIsTooLongIsRefusedWithItsLength) {
  ServerOptions options;
  options.socket_filename = directory() + "/" + std::string(150, 'n');
  TestServer server(std::move(options));
  EXPECT_THAT(server.Start(), FailsWith(reason::kPathTooLong, "150 bytes"));
}

TEST_F(ModesTest, AnObjectWithThePathAndPasswordIsAClientAndNoOwner) {
  TestServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  {
    TestServer client(Shared());
    EXPECT_FALSE(client.started());
    EXPECT_THAT(Call(client, "echo", "x"), IsOkAndHolds("x"));
    EXPECT_THAT(client.Stop(), FailsWith(reason::kServerNotStarted));
  }
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, AServerDoesNotOwnAnotherThatWasStartedBefore) {
  auto first = std::make_unique<TestServer>(Shared());
  ASSERT_THAT(first->Start(), IsOk());
  TestServer second;
  ASSERT_THAT(second.Start(), IsOk());
  EXPECT_THAT(first->Stop(), IsOk());
  EXPECT_THAT(Call(second, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(second.Stop(), IsOk());
}

TEST_F(ModesTest, AServerThatWasKilledIsReportedAndStartsAgain) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  TestServer server;
  for (int i = 0; i < 20; ++i) {
    ASSERT_THAT(server.Start(), IsOk());
    ASSERT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
    const pid_t pid = server.server_pid();
    Raise(server, SIGKILL);
    // At once: it may be dying still, and take the call.
    const std::string how =
        absl::StrCat("(pid ", pid, ") was killed by signal 9");
    ASSERT_THAT(Call(server, "echo", "x"),
                AnyOf(FailsWith(reason::kServerDied, how),
                      FailsWith(reason::kCallCut, how)))
        << "round " << i;
    EXPECT_TRUE(server.started());
    EXPECT_THAT(server.Stop(),
                FailsWith(reason::kServerDied, "killed by signal 9"));
    EXPECT_FALSE(server.started());
  }
}

}  // namespace
}  // namespace ward

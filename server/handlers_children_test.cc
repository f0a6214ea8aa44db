// Processes that a server's handlers fork: what they keep of the server, and
// what they start with.

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/process.h"
#include "ward/server/server_for_test.h"
#include "ward/server/server_options.h"
#include "ward/server/signals.h"

namespace ward {
namespace {

// A child of this process that does nothing until it is killed. It has begun to
// when this returns.
pid_t ForkSleeper() {
  Pipe begun = MakePipe();
  const pid_t pid = fork();
  if (pid != 0) {
    begun.write.Reset();
    (void)ReadSome(begun.read.get());
    return pid;
  }
  WriteAll(begun.write.get(), "x");
  while (true) pause();
}

// The same, which has all that this process has, as ward's own forks may.
pid_t ForkKeeper() {
  ForkOptions options;
  options.keep_all_open = true;
  options.allow_threads = true;
  const auto process = Environment::Posix().Fork(options, [] {
    while (true) pause();
    return 0;
  });
  return process.ok() ? (*process)->pid() : -1;
}

// Its signal, minus; see Child.
int EndOf(pid_t pid, absl::Duration within) {
  int status = 0;
  for (; within > absl::ZeroDuration(); within -= absl::Milliseconds(1)) {
    if (waitpid(pid, &status, WNOHANG) == pid) {
      return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
    absl::SleepFor(absl::Milliseconds(1));
  }
  kill(pid, SIGKILL);
  waitpid(pid, &status, 0);
  return -SIGKILL;
}

std::string OutputOf(FILE* program) {
  std::string output = ReadToEnd(fileno(program));
  pclose(program);
  return output;
}

// Without the two that the C library keeps to itself (32 and 33): no program
// can change them, and who starts one by posix_spawn(3), as Bazel does a test,
// leaves them ignored.
constexpr char kShowSignals[] =
    "grep -E '^Sig(Blk|Ign):' /proc/self/status |"
    " sed 's/^SigIgn:\t0000000[01][08]0000000$/SigIgn:\t0000000000000000/'";
constexpr char kNoSignals[] =
    "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";

struct Forking : Registered<Forking> {
  explicit Forking(ServerOptions options = {})
      : Registered(std::move(options)) {
    DefineMessageHandler("fork", [](MessageChannel& channel) {
      return channel.Write(ForkSleeper());
    });
    DefineMessageHandler("keep", [](MessageChannel& channel) {
      return channel.Write(ForkKeeper());
    });
    DefineMessageHandler("fork, and hang", [](MessageChannel& channel) {
      absl::Status status = channel.Write(ForkSleeper());
      while (true) pause();
      return status;
    });
    DefineMessageHandler("descriptors", [](MessageChannel& channel) {
      const pid_t child = ForkSleeper();
      std::vector<std::string> sockets;
      for (const auto& [fd, target] : DescriptorsOf(child)) {
        if (target.rfind("socket:", 0) == 0) sockets.push_back(target);
      }
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
      return channel.Write(sockets.size());
    });
    DefineMessageHandler("terminate", [](MessageChannel& channel) {
      const pid_t child = ForkSleeper();
      kill(child, SIGTERM);
      return channel.Write(EndOf(child, absl::Seconds(5)));
    });
    DefineMessageHandler("popen", [](MessageChannel& channel) {
      const UnblockedSignals unblocked;
      return channel.Write(
          OutputOf(popen("grep '^SigBlk:' /proc/self/status", "re")));
    });
    DefineMessageHandler("shell", [](MessageChannel& channel) {
      sigset_t blocked;
      pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
      return channel.Write(sigismember(&blocked, SIGCHLD) == 0
                               ? OutputOf(popen("sleep 0.01 & wait", "re"))
                               : "it would wait for ever");
    });
    DefineMessageHandler("program", [](MessageChannel& channel) {
      Pipe output = MakePipe();
      const pid_t child = fork();
      if (child == 0) {
        dup2(output.write.get(), STDOUT_FILENO);
        execl("/bin/sh", "sh", "-c", kShowSignals, nullptr);
        _exit(127);
      }
      output.write.Reset();
      const std::string shown = ReadToEnd(output.read.get());
      waitpid(child, nullptr, 0);
      return channel.Write(shown);
    });
  }

  absl::Status InitializeServer() override {
    if (options().arguments.size() < 2) return absl::OkStatus();
    (void)Note(absl::StrCat(ForkKeeper()));
    kill(getpid(), SIGKILL);
    return absl::OkStatus();
  }
};

class HandlersChildrenTest : public NothingLeftTest,
                             public ::testing::WithParamInterface<StartMode> {
 protected:
  ServerOptions Options() const {
    ServerOptions options = Shared();
    options.start_mode = GetParam();
    return options;
  }

  // Kills the server, of which a child is left, and checks that nobody waits
  // for that.
  void KillAndCheck(Forking& server, pid_t child) {
    ASSERT_EQ(kill(server.server_pid(), SIGKILL), 0);
    EXPECT_TRUE(BecomesReadable(server.pollable()->descriptor(), kSoon));
    EXPECT_THAT(server.CheckAlive(),
                FailsWith(reason::kServerDied, "killed by signal 9"));
    ASSERT_EQ(kill(child, 0), 0) << "the child has lived all the time";
  }

  // It has come to this process.
  static void End(pid_t child) {
    kill(child, SIGKILL);
    EXPECT_EQ(Reap(child), -SIGKILL);
  }

  static pid_t AskForChild(Forking& server, std::string_view how) {
    const absl::StatusOr<std::string> pid = Call(server, how);
    EXPECT_THAT(pid, IsOk());
    pid_t number = 0;
    EXPECT_TRUE(pid.ok() && absl::SimpleAtoi(*pid, &number));
    return number;
  }

  static constexpr absl::Duration kSoon = absl::Seconds(10);
};

INSTANTIATE_TEST_SUITE_P(Modes, HandlersChildrenTest,
                         ::testing::Values(StartMode::kFork, StartMode::kExec),
                         [](const auto& info) {
                           return info.param == StartMode::kFork ? "Fork"
                                                                 : "Exec";
                         });

TEST_P(HandlersChildrenTest, DoNotHideTheServersDeath) {
  Forking server(Options());
  TestServer client(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const pid_t child = AskForChild(server, "fork");
  KillAndCheck(server, child);
  EXPECT_THAT(Call(server, "echo", "x"), FailsWith(reason::kServerDied));
  EXPECT_THAT(Call(client, "echo", "x"), FailsWith(reason::kServerUnreachable));
  End(child);
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
}

TEST_P(HandlersChildrenTest, DoNotKeepCallsUnderWay) {
  Forking server(Options());
  TestServer client(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const pid_t server_pid = server.server_pid();
  pid_t child = 0;
  const auto call_and_kill = [&](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("fork, and hang"));
    WARD_ASSIGN_OR_RETURN(const Message pid, channel.Read());
    EXPECT_TRUE(absl::SimpleAtoi(pid[0], &child));
    kill(server_pid, SIGKILL);
    channel.set_timeout(kSoon);
    return channel.Read().status();
  };
  EXPECT_THAT(client.Connect(call_and_kill), FailsWith(reason::kCallCut));
  EXPECT_EQ(kill(child, 0), 0);
  // Its end, after which the child is this process's.
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
  End(child);
}

TEST_P(HandlersChildrenTest, HaveNoneOfTheServersSockets) {
  Forking server(Options());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Connect([&](MessageChannel& other) -> absl::Status {
    WARD_RETURN_IF_ERROR(other.Write("hold"));
    WARD_RETURN_IF_ERROR(other.Read().status());
    EXPECT_THAT(Call(server, "descriptors"), IsOkAndHolds("0"));
    WARD_RETURN_IF_ERROR(other.Write("go"));
    return other.Read().status();
  }),
              IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

// What a child keeps on purpose does not hide that the process is gone.
TEST_P(HandlersChildrenTest, ThatKeepEverythingDoNotHideTheServersDeath) {
  Forking server(Options());
  ASSERT_THAT(server.Start(), IsOk());
  const pid_t child = AskForChild(server, "keep");
  KillAndCheck(server, child);
  End(child);
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
}

TEST_P(HandlersChildrenTest, DoNotKeepStartWaiting) {
  const std::string notes = directory() + "/notes";
  ServerOptions options = Options();
  options.arguments = {notes, "fork, and die"};
  options.launch.start_timeout = kSurely;
  Forking server(std::move(options));
  const Stopwatch watch;
  EXPECT_THAT(server.Start(),
              FailsWith(reason::kServerDied, "killed by signal 9"));
  EXPECT_LT(watch.Elapsed(), kSoon);
  pid_t child = 0;
  ASSERT_TRUE(absl::SimpleAtoi(
      ReadToEnd(
          FileDescriptor(open(notes.c_str(), O_RDONLY | O_CLOEXEC)).get()),
      &child));
  End(child);
  unlink(notes.c_str());
}

TEST_P(HandlersChildrenTest, CanBeTerminated) {
  Forking server(Options());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "terminate"), IsOkAndHolds(absl::StrCat(-SIGTERM)));
  EXPECT_THAT(server.CheckAlive(), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_P(HandlersChildrenTest, StartProgramsThatBlockAndIgnoreNothing) {
  Forking server(Options());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_EQ(Call(server, "program").value_or("none"), kNoSignals);
  EXPECT_THAT(Call(server, "popen"),
              IsOkAndHolds("SigBlk:\t0000000000000000\n"));
  EXPECT_THAT(server.Stop(), IsOk());
}

// dash waits for the signal with which its children end (SIGCHLD), even if it
// was started with that blocked: for ever, then.
TEST_P(HandlersChildrenTest, ThatAreShellsSeeTheirOwnChildrenEnd) {
  Forking server(Options());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "shell"), IsOkAndHolds(""));
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward

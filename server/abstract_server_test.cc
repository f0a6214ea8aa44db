// What abstract_server.h promises, seen from outside: real forks, sockets and
// signals.

#include "ward/server/abstract_server.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
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
#include "ward/proto/frame.pb.h"
#include "ward/server/environment.h"
#include "ward/server/server_for_test.h"
#include "ward/server/signals.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

constexpr Reason kOutOfPaper{"OutOfPaper", absl::StatusCode::kDataLoss};

// Waits for the end of a process that is, or is not, this one's child.
bool Ends(int pidfd) { return BecomesReadable(pidfd); }

// A client's end that need not end with a function.
MessageChannel Open(const TestServer& server) {
  auto transport = Environment::Posix().Connect(server.socket_filename(),
                                                absl::InfiniteFuture());
  if (!transport.ok()) return MessageChannel();
  MessageChannel channel(*std::move(transport));
  channel.PresentPassword(server.password());
  return channel;
}

class AbstractServerTest : public NothingLeftTest {
 protected:
  // Where hooks and handlers of a server write what happens, line by line.
  // Whoever reads it to the end knows that all writers are gone.
  struct Diary {
    Pipe pipe = MakePipe();

    int fd() const { return pipe.write.get(); }
    std::function<absl::Status()> Writes(std::string_view line) const {
      return [fd = fd(), line = std::string(line)] {
        WriteAll(fd, absl::StrCat(line, "\n"));
        return absl::OkStatus();
      };
    }
    // Once only: closes this process's end.
    std::string ReadAll() {
      pipe.write.Reset();
      return ReadToEnd(pipe.read.get());
    }
  };

  ServerOptions WithDiary(const Diary& diary) const {
    ServerOptions options = Shared();
    options.launch.fork.keep_open.push_back(diary.fd());
    return options;
  }
};

// --- the original's own cases ---

// The original's case 1.
TEST_F(AbstractServerTest, EachStartedServerHasARandomStateOfItsOwn) {
  TestServer server;
  server.DefineMessageHandler("random", [](MessageChannel& channel) {
    return channel.Write(absl::StrCat(random(), " ", lrand48()));
  });
  srandom(1);
  srand48(1);
  std::set<std::string> states = {absl::StrCat(random(), " ", lrand48())};
  srandom(1);
  srand48(1);
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(server.Start(), IsOk());
    const absl::StatusOr<std::string> state = Call(server, "random");
    ASSERT_THAT(state, IsOk());
    EXPECT_TRUE(states.insert(*state).second) << "twice: " << *state;
    ASSERT_THAT(server.Stop(), IsOk());
  }
}

// The original's case 2.
TEST_F(AbstractServerTest, AWrongPasswordGetsAnError) {
  TestServer server(Shared());
  server.set_ignore_password_errors(true);
  ServerOptions options = Shared();
  options.password = Secret("another password");
  TestServer stranger(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(stranger, "echo", "x"),
              FailsWith(reason::kInvalidPassword, "password"));
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

// The original's case 3.
TEST_F(AbstractServerTest, StopsAndStartsThreeTimesOver) {
  TestServer server;
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(server.Start(), IsOk());
    EXPECT_THAT(Call(server, "echo", i), IsOkAndHolds(absl::StrCat(i)));
    ASSERT_THAT(server.Stop(), IsOk());
  }
}

// The original's case 4.
TEST_F(AbstractServerTest, ASecondStartIsRefusedAndTheFirstServerGoesOn) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Start(),
              FailsWith(reason::kServerAlreadyStarted,
                        absl::StrCat("process ", server.server_pid())));
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

// --- what it tells about itself ---

TEST_F(AbstractServerTest, TellsWhetherWhereAndAsWhatItIsStarted) {
  TestServer server;
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(server.started());
    EXPECT_EQ(server.server_pid(), 0);
    EXPECT_EQ(server.socket_filename(), "");
    ASSERT_THAT(server.Start(), IsOk());
    EXPECT_TRUE(server.started());
    EXPECT_GT(server.server_pid(), 0);
    EXPECT_NE(server.server_pid(), getpid());
    EXPECT_THAT(server.socket_filename(), StartsWith(directory()));
    EXPECT_TRUE(Exists(server.socket_filename()));
    ASSERT_THAT(server.Stop(), IsOk());
  }
}

TEST_F(AbstractServerTest, KnowsInTheServerThatItIsTheServer) {
  TestServer server(Shared());
  server.DefineMessageHandler("who", [&server](MessageChannel& channel) {
    return channel.Write(server.started(), server.server_pid() == getpid(),
                         server.socket_filename());
  });
  ASSERT_THAT(server.Start(), IsOk());
  const absl::StatusOr<Message> reply = CallServer(server, "who");
  ASSERT_THAT(reply, IsOk());
  EXPECT_THAT(reply->parts(), ElementsAre("true", "true", path()));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, AChosenPathIsKnownBeforeAndAfter) {
  TestServer server(Shared());
  EXPECT_EQ(server.socket_filename(), path());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_EQ(server.socket_filename(), path());
  ASSERT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(server.socket_filename(), path());
  EXPECT_FALSE(Exists(path()));
}

TEST_F(AbstractServerTest, HasTheAttributesOfTheOriginal) {
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

TEST_F(AbstractServerTest, WhatIsNotStartedCanNeitherBeStoppedNorReached) {
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

TEST_F(AbstractServerTest, TheDestructorStopsTheServer) {
  FileDescriptor pidfd;
  pid_t pid;
  {
    TestServer server;
    ASSERT_THAT(server.Start(), IsOk());
    pid = server.server_pid();
    pidfd = OpenPidfd(pid);
  }
  EXPECT_TRUE(BecomesReadable(pidfd.get(), absl::ZeroDuration()));
  EXPECT_EQ(kill(pid, 0), -1);  // Reaped.
}

// --- Connect ---

TEST_F(AbstractServerTest, ManyThreadsConnectAtOnce) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < 25; ++j) {
        const std::string text = absl::StrCat(i, ".", j);
        const absl::StatusOr<std::string> reply = Call(server, "echo", text);
        EXPECT_THAT(reply, IsOkAndHolds(text));
        if (reply.ok()) ++right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 8 * 25);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, ConnectReturnsWhatItsFunctionReturns) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Connect([](MessageChannel&) {
    return MakeError(kOutOfPaper, "as I said");
  }),
              FailsWith(kOutOfPaper, "as I said"));
  EXPECT_THAT(server.Connect([](MessageChannel&) { return absl::OkStatus(); }),
              IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, OneConnectionServesOneHandlersCall) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Connect([](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("echo", "x"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    return channel.Read().status();
  }),
              FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, BothSidesReadAndWriteAsOftenAsTheyLike) {
  TestServer server;
  server.DefineMessageHandler(
      "sum", [](MessageChannel& channel, int count) -> absl::Status {
        int64_t sum = 0;
        for (int i = 0; i < count; ++i) {
          WARD_RETURN_IF_ERROR(channel.Write("next"));
          WARD_ASSIGN_OR_RETURN(Message message, channel.Read());
          WARD_ASSIGN_OR_RETURN(const auto values, message.Unpack<int64_t>());
          sum += std::get<0>(values);
        }
        WARD_RETURN_IF_ERROR(channel.WriteScalar("the sum follows"));
        return channel.Write(sum);
      });
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Connect([](MessageChannel& channel) -> absl::Status {
    constexpr int kCount = 100;
    WARD_RETURN_IF_ERROR(channel.Write("sum", kCount));
    for (int i = 0; i < kCount; ++i) {
      WARD_ASSIGN_OR_RETURN(const Message asked, channel.Read());
      EXPECT_THAT(asked.parts(), ElementsAre("next"));
      WARD_RETURN_IF_ERROR(channel.Write(i));
    }
    std::string scalar;
    WARD_RETURN_IF_ERROR(channel.ReadScalar(scalar));
    EXPECT_EQ(scalar, "the sum follows");
    WARD_ASSIGN_OR_RETURN(const Message sum, channel.Read());
    EXPECT_THAT(sum.parts(), ElementsAre("4950"));
    return absl::OkStatus();
  }),
              IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, ConnectGivesUpWhenTheQueueStaysFull) {
  ServerOptions options = Shared();
  options.connect_timeout = absl::Milliseconds(50);
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_EQ(kill(server.server_pid(), SIGSTOP), 0);
  int status = 0;
  ASSERT_EQ(waitpid(server.server_pid(), &status, WUNTRACED),
            server.server_pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  std::vector<FileDescriptor> queue;
  while (true) {
    FileDescriptor peer = RawConnect(path(), SOCK_NONBLOCK);
    if (!peer.is_open()) break;
    queue.push_back(std::move(peer));
  }
  const bool full = errno == EAGAIN;  // And no lack of descriptors here.
  EXPECT_TRUE(full);
  EXPECT_THAT(Call(server, "echo", "x"), FailsWith(reason::kTimedOut, "queue"));
  queue.clear();
  ASSERT_EQ(kill(server.server_pid(), SIGCONT), 0);
  EXPECT_THAT(server.Stop(), IsOk());
}

// --- hooks ---

TEST_F(AbstractServerTest, CallsEachHookOnceInTheRightProcessAndOrder) {
  Diary diary;
  TestServer server(WithDiary(diary));
  const auto note = [fd = diary.fd(), owner = getpid()](std::string_view what) {
    return [=] {
      WriteAll(fd, absl::StrCat(what, getpid() == owner ? " in owner; "
                                                        : " in server; "));
      return absl::OkStatus();
    };
  };
  server.before_fork = note("before fork");
  server.initialize = note("initialize");
  server.finalize = note("finalize");
  server.DefineMessageHandler("note", [note](MessageChannel& channel) {
    (void)note("serve")();
    return channel.Write("noted");
  });
  std::string expected;
  for (int i = 0; i < 2; ++i) {
    ASSERT_THAT(server.Start(), IsOk());
    ASSERT_THAT(Call(server, "note"), IsOkAndHolds("noted"));
    ASSERT_THAT(server.Stop(), IsOk());
    expected +=
        "before fork in owner; initialize in server; serve in server; "
        "finalize in server; ";
  }
  EXPECT_EQ(diary.ReadAll(), expected);
}

TEST_F(AbstractServerTest, WhatAHookReturnsIsReturnedByStartAndNothingIsLeft) {
  Diary diary;
  TestServer server(WithDiary(diary));
  server.finalize = diary.Writes("finalized");
  const auto fails = [] { return MakeError(kOutOfPaper, "tray 2"); };
  const auto throws = []() -> absl::Status {
    throw std::runtime_error("paper jam");
  };
  const auto throws_anything = []() -> absl::Status { throw 42; };

  server.before_fork = fails;
  EXPECT_THAT(server.Start(), FailsWith(kOutOfPaper, "tray 2"));
  server.before_fork = throws;
  EXPECT_THAT(server.Start(),
              FailsWith(reason::kUserCodeThrew, "BeforeFork threw: paper jam"));
  server.before_fork = nullptr;
  server.initialize = fails;
  EXPECT_THAT(server.Start(), FailsWith(kOutOfPaper, "tray 2"));
  server.initialize = throws;
  EXPECT_THAT(server.Start(), FailsWith(reason::kUserCodeThrew,
                                        "InitializeServer threw: paper jam"));
  server.initialize = throws_anything;
  EXPECT_THAT(server.Start(),
              FailsWith(reason::kUserCodeThrew, "no std::exception"));
  EXPECT_FALSE(server.started());
  EXPECT_EQ(server.server_pid(), 0);
  EXPECT_FALSE(Exists(path()));

  // FinalizeServer belongs to an initialization that succeeded.
  server.initialize = nullptr;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(diary.ReadAll(), "finalized\n");
}

TEST_F(AbstractServerTest,
       AFinalizeServerThatFailsIsLoggedAndMakesItExitWith1) {
  TestServer server;
  for (const bool throws : {false, true}) {
    server.finalize = [throws]() -> absl::Status {
      if (throws) throw std::runtime_error("paper jam");
      return MakeError(kOutOfPaper, "tray 2");
    };
    ASSERT_THAT(server.Start(), IsOk());
    const StderrCapture log;
    EXPECT_THAT(server.Stop(),
                FailsWith(reason::kServerDied, "exited with code 1"));
    // The server has the standard error that was there when it was started.
    EXPECT_EQ(log.Text(), "");
  }
  const StderrCapture log;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
  EXPECT_THAT(log.Text(),
              AllOf(HasSubstr("FinalizeServer"), HasSubstr("paper jam")));
  EXPECT_FALSE(server.started());
}

TEST_F(AbstractServerTest, ClosesWhatIsOpenButForWhatItWasToldToKeep) {
  const Pipe kept = MakePipe();
  const Pipe closed = MakePipe();
  ServerOptions options;
  options.launch.fork.keep_open = {kept.write.get()};
  TestServer server(std::move(options));
  server.DefineMessageHandler("is_open", [](MessageChannel& channel, int fd) {
    return channel.Write(fcntl(fd, F_GETFD) >= 0);
  });
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "is_open", kept.write.get()), IsOkAndHolds("true"));
  for (const int standard : {0, 1, 2}) {
    EXPECT_THAT(Call(server, "is_open", standard), IsOkAndHolds("true"));
  }
  // Their numbers may have been given out again; what they stood for is gone.
  const auto there = DescriptorsOf(server.server_pid());
  const auto here = DescriptorsOf(getpid());
  for (const auto& [fd, target] : there) {
    EXPECT_NE(target, here.at(closed.read.get())) << "descriptor " << fd;
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

// --- Start's other errors ---

TEST_F(AbstractServerTest, AServerThatIsNotReadyInTimeIsKilled) {
  ServerOptions options = Shared();
  options.launch.start_timeout = absl::Milliseconds(100);
  TestServer server(std::move(options));
  server.initialize = []() -> absl::Status {
    while (true) pause();
  };
  const Stopwatch watch;
  EXPECT_THAT(server.Start(), FailsWith(reason::kTimedOut, "100ms"));
  EXPECT_GE(watch.Elapsed(), absl::Milliseconds(100));
  EXPECT_FALSE(server.started());
  EXPECT_FALSE(Exists(path()));
  server.initialize = nullptr;
  // The limit is for the start alone.
  TestServer patient(Shared());
  EXPECT_THAT(patient.Start(), IsOk());
}

TEST_F(AbstractServerTest, AServerThatDiesBeforeItIsReadyIsReported) {
  TestServer server;
  server.initialize = []() -> absl::Status { _exit(3); };
  EXPECT_THAT(server.Start(),
              FailsWith(reason::kServerDied, "exited with code 3"));
  server.initialize = []() -> absl::Status {
    kill(getpid(), SIGKILL);
    return absl::OkStatus();
  };
  EXPECT_THAT(server.Start(),
              FailsWith(reason::kServerDied, "killed by signal 9"));
  EXPECT_FALSE(server.started());
}

TEST_F(AbstractServerTest, StartsRightAfterThreadsWereJoined) {
  // The kernel may still have them in its books, now and then.
  TestServer server;
  server.before_fork = [] {
    for (int i = 0; i < 16; ++i) std::thread([] {}).join();
    return absl::OkStatus();
  };
  for (int i = 0; i < 200; ++i) {
    ASSERT_THAT(server.Start(), IsOk()) << "round " << i;
    ASSERT_THAT(server.Stop(), IsOk());
  }
}

// --- signals ---

TEST_F(AbstractServerTest, TermAndIntFinishThroughFinalizeServerWithCode0) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Diary diary;
    TestServer server(WithDiary(diary));
    server.finalize = diary.Writes("finalized");
    ASSERT_THAT(server.Start(), IsOk());
    const FileDescriptor pidfd = OpenPidfd(server.server_pid());
    ASSERT_EQ(kill(server.server_pid(), signal), 0);
    ASSERT_TRUE(Ends(pidfd.get()));
    EXPECT_TRUE(server.started());  // Until it is stopped.
    EXPECT_FALSE(Exists(path()));
    EXPECT_THAT(Call(server, "echo", "x"),
                FailsWith(reason::kServerDied, "exited with code 0"));
    EXPECT_THAT(server.Stop(), IsOk());
    EXPECT_EQ(diary.ReadAll(), "finalized\n");
  }
}

TEST_F(AbstractServerTest, HupAndPipeAreIgnored) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_EQ(kill(server.server_pid(), SIGHUP), 0);
  ASSERT_EQ(kill(server.server_pid(), SIGPIPE), 0);
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, OtherSignalsDoWhatTheyDoByDefault) {
  TestServer server;
  // What the owner does with them is of no importance.
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  struct sigaction found;
  ASSERT_EQ(sigaction(SIGUSR1, &ignore, &found), 0);
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_EQ(sigaction(SIGUSR1, &found, nullptr), 0);
  ASSERT_EQ(kill(server.server_pid(), SIGUSR1), 0);
  EXPECT_THAT(Call(server, "echo", "x"),
              FailsWith(reason::kServerDied,
                        absl::StrCat("killed by signal ", SIGUSR1)));
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
}

class SignalHandlers : public TestServer {
 public:
  SignalHandlers(ServerOptions options, int diary)
      : TestServer(std::move(options)), diary_(diary) {
    DefineSignalHandler(SIGUSR1, &SignalHandlers::HandleUsr1);
  }

 private:
  void HandleUsr1() {
    WriteAll(diary_, gettid() == getpid() ? "USR1 on the main thread\n"
                                          : "USR1 elsewhere\n");
  }

  const int diary_;
};

TEST_F(AbstractServerTest, DefinedSignalHandlersRunOnTheMainThread) {
  Diary diary;
  SignalHandlers server(WithDiary(diary), diary.fd());
  const int fd = diary.fd();
  for (const int signal : {SIGHUP, SIGINT, SIGTERM}) {
    server.DefineSignalHandler(signal, [fd, signal] {
      // Ordinary code: it may allocate.
      WriteAll(fd,
               absl::StrCat(std::string(100, '.').size(), " ", signal, "\n"));
    });
  }
  server.finalize = diary.Writes("finalized");
  ASSERT_THAT(server.Start(), IsOk());
  std::string expected;
  for (const int signal : {SIGUSR1, SIGHUP, SIGINT, SIGTERM}) {
    ASSERT_EQ(kill(server.server_pid(), signal), 0);
    expected = signal == SIGUSR1 ? "USR1 on the main thread\n"
                                 : absl::StrCat("100 ", signal, "\n");
    EXPECT_EQ(ReadSome(diary.pipe.read.get()), expected);
  }
  // INT and TERM did not end it.
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(diary.ReadAll(), "finalized\n");
}

TEST_F(AbstractServerTest, ASignalHandlerThatThrowsIsLoggedAndEndsNothing) {
  Diary diary;
  TestServer server(WithDiary(diary));
  server.DefineSignalHandler(SIGUSR1,
                             [] { throw std::runtime_error("paper jam"); });
  server.DefineSignalHandler(SIGUSR2, [&] { (void)diary.Writes("usr2")(); });
  const StderrCapture log;
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_EQ(kill(server.server_pid(), SIGUSR1), 0);
  ASSERT_EQ(kill(server.server_pid(), SIGUSR2), 0);
  EXPECT_EQ(ReadSome(diary.pipe.read.get()), "usr2\n");
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(log.Text(), HasSubstr("paper jam"));
}

TEST_F(AbstractServerTest, WorkersBlockAllSignals) {
  TestServer server;
  server.DefineMessageHandler("blocked", [](MessageChannel& channel) {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    int blocked = 0;
    for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGCHLD}) {
      blocked += sigismember(&mask, signal);
    }
    return channel.Write(blocked);
  });
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "blocked"), IsOkAndHolds("5"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, ASignalThatCanHaveNoHandlerFailsStart) {
  for (const int signal : {SIGKILL, SIGSTOP, 0, -1, 1000}) {
    TestServer server;
    server.DefineSignalHandler(signal, [] {});
    EXPECT_THAT(server.Start(), FailsWith(reason::kInvalidSignal,
                                          absl::StrCat("signal ", signal)));
    EXPECT_FALSE(server.started());
  }
}

// --- StartSynchronously ---

class StartSynchronouslyTest : public AbstractServerTest {
 protected:
  // Runs `server` on a thread of this process.
  void Start(TestServer& server) {
    auto listener = Environment::Posix().Listen({path()});
    ASSERT_THAT(listener, IsOk());
    auto ends = Environment::Posix().CreateTransportPair();
    ASSERT_THAT(ends, IsOk());
    owner_ = std::make_unique<MessageChannel>(std::move(ends->first));
    thread_ = std::thread([this, &server, listener = *std::move(listener),
                           end = std::move(ends->second)]() mutable {
      status_ = server.StartSynchronously(std::move(listener), std::move(end));
    });
  }

  // Waits for its end and returns what it returned.
  absl::Status Join() {
    thread_.join();
    owner_.reset();
    return status_;
  }

  std::unique_ptr<MessageChannel> owner_;

 private:
  std::thread thread_;
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
  EXPECT_FALSE(Exists(path()));
  EXPECT_THAT(Call(client, "echo", "x"), FailsWith(reason::kServerUnreachable));
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

TEST_F(StartSynchronouslyTest, QuitsAtTermAndPutsBackAllSignalsAsFound) {
  // A mask and dispositions of every kind, which the fixture and this test
  // compare afterwards.
  struct sigaction mine {};
  mine.sa_sigaction = [](int, siginfo_t*, void*) {};
  mine.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART;
  sigaddset(&mine.sa_mask, SIGUSR2);
  struct sigaction found_term;
  struct sigaction found_usr1;
  ASSERT_EQ(sigaction(SIGTERM, &mine, &found_term), 0);
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  ASSERT_EQ(sigaction(SIGUSR1, &ignore, &found_usr1), 0);

  TestServer server(Shared());
  std::atomic<int> usr1{0};
  absl::Notification handled;
  server.DefineSignalHandler(SIGUSR1, [&] {
    if (++usr1 == 1) handled.Notify();
  });
  auto listener = Environment::Posix().Listen({path()});
  ASSERT_THAT(listener, IsOk());
  auto ends = Environment::Posix().CreateTransportPair();
  ASSERT_THAT(ends, IsOk());
  MessageChannel owner(std::move(ends->first));
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  sigaddset(&mask, SIGTERM);
  sigset_t mask_after;
  absl::Status status;
  std::thread thread([&] {
    pthread_sigmask(SIG_SETMASK, &mask, nullptr);
    status = server.StartSynchronously(*std::move(listener),
                                       std::move(ends->second));
    pthread_sigmask(SIG_SETMASK, nullptr, &mask_after);
  });
  EXPECT_THAT(owner.Read(), IsOk());
  EXPECT_EQ(kill(getpid(), SIGUSR1), 0);
  handled.WaitForNotification();
  EXPECT_EQ(kill(getpid(), SIGTERM), 0);
  thread.join();
  EXPECT_THAT(status, IsOk());
  EXPECT_EQ(usr1, 1);

  struct sigaction after;
  ASSERT_EQ(sigaction(SIGTERM, &found_term, &after), 0);
  EXPECT_EQ(after.sa_sigaction, mine.sa_sigaction);
  EXPECT_EQ(after.sa_flags & (SA_SIGINFO | SA_NODEFER | SA_RESTART),
            mine.sa_flags);
  EXPECT_TRUE(sigismember(&after.sa_mask, SIGUSR2));
  ASSERT_EQ(sigaction(SIGUSR1, &found_usr1, &after), 0);
  EXPECT_EQ(after.sa_handler, SIG_IGN);
  for (int signal = 1; signal <= SIGRTMAX; ++signal) {
    EXPECT_EQ(sigismember(&mask_after, signal), sigismember(&mask, signal))
        << signal;
  }
}

TEST_F(StartSynchronouslyTest,
       AFailureBeforeItServesIsReturnedAndToldToTheOwner) {
  TestServer server(Shared());
  server.initialize = [] { return MakeError(kOutOfPaper, "tray 2"); };
  Start(server);
  EXPECT_THAT(owner_->Read(), FailsWith(kOutOfPaper, "tray 2"));
  EXPECT_THAT(Join(), FailsWith(kOutOfPaper, "tray 2"));
  EXPECT_FALSE(Exists(path()));
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
  auto signals = Environment::Posix().TakeSignals({});
  ASSERT_THAT(signals, IsOk());
  TestServer server(Shared());
  Start(server);
  EXPECT_THAT(owner_->Read(), FailsWith(reason::kSignalsTaken));
  EXPECT_THAT(Join(), FailsWith(reason::kSignalsTaken));
  EXPECT_FALSE(Exists(path()));
}

TEST_F(StartSynchronouslyTest, KnowsThatItIsStarted) {
  TestServer server(Shared());
  absl::Status second;
  server.initialize = [&] {
    EXPECT_TRUE(server.started());
    EXPECT_EQ(server.server_pid(), getpid());
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
              FailsWith(reason::kEndOfStream));
  EXPECT_THAT(Join(), IsOk());
  EXPECT_TRUE(finished);
}

// --- messages and handlers ---

absl::Status Reverse(MessageChannel& channel, const std::string& text) {
  return channel.Write(std::string(text.rbegin(), text.rend()));
}

struct Adder {
  int base;
  absl::StatusOr<int> operator()(int number) const { return base + number; }
};

// A handler of each shape that message_handler.h lists.
class Shapes : public TestServer {
 public:
  Shapes() {
    DefineMessageHandler("method", &Shapes::Method);
    DefineMessageHandler("const_method", &Shapes::ConstMethod);
    DefineMessageHandler("function", &Reverse);
    DefineMessageHandler("functor", Adder{1000});
    DefineMessageHandler("std_function",
                         std::function<absl::StatusOr<bool>(bool)>(
                             [](bool truth) { return !truth; }));
    DefineMessageHandler("nothing", []() { return absl::OkStatus(); });
    DefineMessageHandler("proto", &Shapes::Proto);
    DefineMessageHandler("log", &Shapes::Log);
    DefineMessageHandler("open", &Shapes::Open);
    DefineMessageHandler("anything", &Shapes::Anything);
    DefineMessageHandler(
        "bounce",
        [](Message message) -> absl::StatusOr<Message> { return message; });
    DefineMessageHandler(
        "numbers",
        [](MessageChannel& channel, int64_t a, uint8_t b, double c, float d,
           std::string_view e) { return channel.Write(a, b, c, d, e); });
    DefineMessageHandler("calls", [this](MessageChannel& channel) {
      return channel.Write(calls_.load());
    });
  }

 private:
  absl::Status Method(MessageChannel& channel, std::string_view name, int age) {
    ++calls_;
    return channel.Write(absl::StrCat(name, " is ", age));
  }
  absl::StatusOr<std::string> ConstMethod(std::string a, std::string b) const {
    return a + b;
  }
  absl::StatusOr<proto::Error> Proto(const proto::Error& request) {
    proto::Error reply;
    reply.set_code(request.code() + 1);
    reply.set_text(absl::StrCat("re: ", request.text()));
    return reply;
  }
  absl::Status Log(FileDescriptor where, std::string line) {
    ++calls_;
    WriteAll(where.get(), line);
    return absl::OkStatus();
  }
  absl::StatusOr<FileDescriptor> Open(std::string file) {
    FileDescriptor opened(open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (!opened.is_open())
      return SystemError(errno, absl::StrCat("open ", file));
    return opened;
  }
  absl::Status Anything(MessageChannel& channel, Message message) {
    return channel.Write(message.name(), message.arguments().size(),
                         message.descriptors().size());
  }

  std::atomic<int> calls_{0};
};

class MessagesTest : public AbstractServerTest {
 protected:
  void SetUp() override {
    AbstractServerTest::SetUp();
    server_ = std::make_unique<Shapes>();
    ASSERT_THAT(server_->Start(), IsOk());
  }
  void TearDown() override {
    EXPECT_THAT(server_->Stop(), IsOk());
    server_.reset();
    AbstractServerTest::TearDown();
  }

  std::unique_ptr<Shapes> server_;
};

TEST_F(MessagesTest, AHandlerMayHaveAnyListedShape) {
  EXPECT_THAT(Call(*server_, "method", "Joe", 42), IsOkAndHolds("Joe is 42"));
  EXPECT_THAT(Call(*server_, "const_method", "a", "b"), IsOkAndHolds("ab"));
  EXPECT_THAT(Call(*server_, "function", "abc"), IsOkAndHolds("cba"));
  EXPECT_THAT(Call(*server_, "functor", 7), IsOkAndHolds("1007"));
  EXPECT_THAT(Call(*server_, "std_function", false), IsOkAndHolds("true"));
  // One that returns no value and writes none has no reply.
  EXPECT_THAT(Call(*server_, "nothing"), FailsWith(reason::kEndOfStream));
}

TEST_F(MessagesTest, ArgumentsAreConvertedBothWaysWithoutLoss) {
  const std::string binary("\0\xff\n\0x", 5);
  const absl::StatusOr<Message> reply = CallServer(
      *server_, "numbers", INT64_MIN, uint8_t{255}, 0.1, 1.5e-30F, binary);
  ASSERT_THAT(reply, IsOk());
  EXPECT_THAT(reply->parts(), ElementsAre("-9223372036854775808", "255", "0.1",
                                          "1.5e-30", binary));
}

TEST_F(MessagesTest, ProtobufMessagesGoInAndOut) {
  proto::Error request;
  request.set_code(41);
  request.set_text("hello");
  absl::StatusOr<Message> reply = CallServer(*server_, "proto", request);
  ASSERT_THAT(reply, IsOk());
  const auto values = reply->Unpack<proto::Error>();
  ASSERT_THAT(values, IsOk());
  EXPECT_EQ(std::get<0>(*values).code(), 42);
  EXPECT_EQ(std::get<0>(*values).text(), "re: hello");
  EXPECT_THAT(Call(*server_, "proto", "\xff no protobuf"),
              FailsWith(reason::kInvalidArguments, "protobuf"));
}

TEST_F(MessagesTest, AHandlerWithAMessageGetsEverythingUnconverted) {
  const Pipe pipe = MakePipe();
  const absl::StatusOr<Message> reply =
      CallServer(*server_, "anything", "a", 1, pipe.read, "", pipe.write);
  ASSERT_THAT(reply, IsOk());
  EXPECT_THAT(reply->parts(), ElementsAre("anything", "3", "2"));

  const absl::StatusOr<Message> bounced =
      CallServer(*server_, "bounce", "a", pipe.read);
  ASSERT_THAT(bounced, IsOk());
  EXPECT_THAT(bounced->parts(), ElementsAre("bounce", "a"));
  EXPECT_EQ(bounced->descriptors().size(), 1u);
}

TEST_F(MessagesTest, TheServerWritesToAFileOfTheClients) {
  Pipe pipe = MakePipe();
  EXPECT_THAT(Call(*server_, "log", pipe.write, "a line"),
              FailsWith(reason::kEndOfStream));  // It has no reply.
  // Its copy is closed, as the end of this read shows.
  pipe.write.Reset();
  EXPECT_EQ(ReadToEnd(pipe.read.get()), "a line");
}

TEST_F(MessagesTest, TheServerPassesAnOpenFileBack) {
  const std::string file = directory() + "/file";
  WriteAll(FileDescriptor(open(file.c_str(), O_WRONLY | O_CREAT, 0600)).get(),
           "content");
  const absl::StatusOr<Message> reply = CallServer(*server_, "open", file);
  ASSERT_THAT(reply, IsOk());
  ASSERT_EQ(reply->descriptors().size(), 1u);
  EXPECT_EQ(ReadToEnd(reply->descriptors()[0].get()), "content");
  EXPECT_EQ(fcntl(reply->descriptors()[0].get(), F_GETFD), FD_CLOEXEC);
  ASSERT_EQ(unlink(file.c_str()), 0);
  EXPECT_EQ(CallServer(*server_, "open", file).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(MessagesTest, AMessageThatDoesNotFitIsAnsweredAndTheHandlerNotCalled) {
  const Pipe pipe = MakePipe();
  const auto refused = [](std::string_view text) {
    return FailsWith(reason::kInvalidArguments, text);
  };
  EXPECT_THAT(Call(*server_, "method"), refused("2 arguments"));
  EXPECT_THAT(Call(*server_, "method", "Joe"), refused("got 1 argument"));
  EXPECT_THAT(Call(*server_, "method", "Joe", 1, 2), refused("got 3"));
  EXPECT_THAT(Call(*server_, "method", "Joe", "12x"), refused("argument 2"));
  EXPECT_THAT(Call(*server_, "method", "Joe", ""), refused("argument 2"));
  EXPECT_THAT(Call(*server_, "method", "Joe", INT64_MAX),
              refused("argument 2"));
  EXPECT_THAT(Call(*server_, "method", "Joe", 1.5), refused("argument 2"));
  EXPECT_THAT(Call(*server_, "method", "Joe", 1, pipe.read),
              refused("1 descriptor"));
  EXPECT_THAT(Call(*server_, "log", "a line"), refused("0 descriptors"));
  EXPECT_THAT(Call(*server_, "numbers", 1, 256, 1, 1, ""),
              refused("argument 2"));
  EXPECT_THAT(Call(*server_, "std_function", "yes"), refused("true or false"));
  // It may be a secret.
  EXPECT_THAT(Call(*server_, "method", "Joe", "s3cret").status().message(),
              Not(HasSubstr("s3cret")));
  EXPECT_THAT(Call(*server_, "calls"), IsOkAndHolds("0"));
  EXPECT_THAT(Call(*server_, "method", "Joe", 1), IsOk());
  EXPECT_THAT(Call(*server_, "calls"), IsOkAndHolds("1"));
}

TEST_F(AbstractServerTest, AnUnknownMessageIsAnsweredWithTheKnownOnes) {
  TestServer server;
  server.DefineMessageHandler("apple", [] { return absl::OkStatus(); });
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "pear", 1),
              FailsWith(reason::kUnknownMessage,
                        "\"pear\"; it knows: apple, echo, hold"));
  EXPECT_THAT(Call(server, ""), FailsWith(reason::kUnknownMessage));
  // What a peer calls it gets no further than it is fit for a log.
  const absl::Status strange =
      Call(server, std::string(1000, 'x') + "\n").status();
  EXPECT_THAT(strange, FailsWith(reason::kUnknownMessage, "xxx...\""));
  EXPECT_LT(strange.message().size(), 300u);
  EXPECT_THAT(Call(server, "a\n\xff").status().message(),
              HasSubstr("\"a\\n\\xff\""));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, ASecondDefinitionReplacesTheFirst) {
  TestServer server;
  server.DefineMessageHandler("echo", [](MessageChannel& channel) {
    return channel.Write("replaced");
  });
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo"), IsOkAndHolds("replaced"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, AnErrorOfAHandlerReachesTheClientIntact) {
  TestServer server;
  server.DefineMessageHandler(
      "print", []() { return MakeError(kOutOfPaper, "tray 2 is empty"); });
  server.DefineMessageHandler(
      "plain", []() { return absl::NotFoundError("no reason given"); });
  server.DefineMessageHandler("late", [](MessageChannel& channel) {
    (void)channel.Write("first");
    return MakeError(kOutOfPaper, "tray 3");
  });
  // Of another connection, not of the client's.
  server.DefineMessageHandler("lost", []() {
    return MakeError(reason::kConnectionLost, "the printer is gone");
  });
  server.DefineMessageHandler("ended", []() {
    return MakeError(reason::kEndOfStream, "the printer has hung up");
  });
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "print"),
              FailsWith(kOutOfPaper, "message \"print\": tray 2 is empty"));
  EXPECT_EQ(Call(server, "plain").status(),
            absl::NotFoundError("message \"plain\": no reason given"));
  EXPECT_THAT(server.Connect([](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("late"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    return channel.Read().status();
  }),
              FailsWith(kOutOfPaper, "tray 3"));
  EXPECT_THAT(Call(server, "lost"),
              FailsWith(reason::kConnectionLost, "the printer is gone"));
  EXPECT_THAT(Call(server, "ended"),
              FailsWith(reason::kEndOfStream, "the printer has hung up"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, AnExceptionOfAHandlerIsAnErrorOfItsClientAlone) {
  TestServer server;
  server.DefineMessageHandler(
      "throw", []() -> absl::Status { throw std::runtime_error("paper jam"); });
  server.DefineMessageHandler("throw_anything",
                              []() -> absl::Status { throw 42; });
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "throw"),
              FailsWith(reason::kUserCodeThrew, "paper jam"));
  EXPECT_THAT(Call(server, "throw_anything"),
              FailsWith(reason::kUserCodeThrew));
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, TheFirstMessageHasLimitsOfItsOwn) {
  ServerOptions options;
  options.first_message_limits = {1000, 10, 1};
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", std::string(1000, 'x')),
              FailsWith(reason::kFrameTooLarge, "first message"));
  EXPECT_THAT(Call(server, "echo", "", "", "", "", "", "", "", "", "", ""),
              FailsWith(reason::kFrameTooLarge, "parts"));
  const Pipe pipe = MakePipe();
  EXPECT_FALSE(Call(server, "echo", pipe.read, pipe.write).ok());
  // All later ones may be larger.
  EXPECT_THAT(server.Connect([](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("hold"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    WARD_RETURN_IF_ERROR(channel.Write(std::string(1000000, 'x')));
    return channel.Read().status();
  }),
              IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

// --- who may be a client ---

TEST_F(AbstractServerTest, APasswordThatIsMissingIsAWrongOne) {
  TestServer server(Shared());
  server.set_ignore_password_errors(true);
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel(RawConnect(path()));
  ASSERT_THAT(channel.Write("echo", "x"), IsOk());
  EXPECT_THAT(channel.Read(), FailsWith(reason::kInvalidPassword, "missing"));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, WrongPasswordsAreLoggedSparserAndSparserOrNotAtAll) {
  for (const bool ignore : {false, true}) {
    TestServer server(Shared());
    server.set_ignore_password_errors(ignore);
    ServerOptions options = Shared();
    options.password = Secret("an unfit word");
    TestServer stranger(std::move(options));
    const StderrCapture log;
    ASSERT_THAT(server.Start(), IsOk());
    for (int i = 1; i <= 9; ++i) {
      EXPECT_THAT(Call(stranger, "echo", "x"),
                  FailsWith(reason::kInvalidPassword));
    }
    EXPECT_THAT(server.Stop(), IsOk());
    std::string expected;
    for (const int number : {1, 2, 4, 8}) {
      absl::StrAppend(&expected, "wrong password from process ", getpid(),
                      " of user ", geteuid(), " (number ", number, ")\n");
    }
    std::string text = log.Text();
    const std::string prefix = absl::StrCat("]: ");
    std::string lines;
    for (size_t at = 0; (at = text.find(prefix, at)) != std::string::npos;) {
      at += prefix.size();
      lines += text.substr(at, text.find('\n', at) - at) + "\n";
    }
    EXPECT_EQ(lines, ignore ? "" : expected);
  }
}

TEST_F(AbstractServerTest, NoLogAndNoErrorTextHasThePassword) {
  const StderrCapture log;
  std::string texts;
  const auto note = [&texts](const absl::Status& status) {
    absl::StrAppend(&texts, status.ToString(), "\n");
  };
  TestServer server(Shared());
  server.DefineMessageHandler("die", []() -> absl::Status { _exit(1); });
  ServerOptions options = Shared();
  options.password = Secret("an unfit word");
  TestServer stranger(std::move(options));
  note(Call(server, "echo", "x").status());
  ASSERT_THAT(server.Start(), IsOk());
  note(server.Start());
  note(Call(stranger, "echo", "x").status());
  note(Call(server, "unknown").status());
  note(Call(server, "echo").status());
  note(Call(server, "echo", std::string(2 << 20, 'x')).status());
  note(Call(server, "die").status());
  note(server.Stop());
  texts += log.Text();
  EXPECT_THAT(texts, HasSubstr("wrong password"));
  EXPECT_THAT(texts, Not(HasSubstr("the right password")));
  EXPECT_THAT(texts, Not(HasSubstr("an unfit word")));
}

TEST_F(AbstractServerTest, AdmitPeerDecidesOnTheKernelsWord) {
  Diary diary;
  ServerOptions options = WithDiary(diary);
  options.admit_peer = [fd = diary.fd()](const PeerCredentials& peer) {
    WriteAll(fd, absl::StrCat(peer.pid, " ", peer.uid, " ", peer.gid, "\n"));
    return false;
  };
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(
      Call(server, "echo", "x"),
      FailsWith(reason::kPeerNotAllowed, absl::StrCat("user ", geteuid())));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(diary.ReadAll(),
            absl::StrCat(getpid(), " ", geteuid(), " ", getegid(), "\n"));
}

TEST_F(AbstractServerTest, AnAdmitPeerThatThrowsAdmitsNobodyAndEndsNothing) {
  ServerOptions options;
  std::atomic<int> count{0};
  options.admit_peer = [&count](const PeerCredentials&) -> bool {
    if (++count == 1) throw std::runtime_error("paper jam");
    return true;
  };
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"),
              FailsWith(reason::kUserCodeThrew, "paper jam"));
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, OtherUsersAreRefusedWhateverTheSocketsMode) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to become someone else";
  ASSERT_EQ(chmod(directory().c_str(), 0755), 0);
  ServerOptions options = Shared();
  options.socket_mode = 0666;
  TestServer server(std::move(options));
  TestServer client(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  Child other([&] {
    constexpr uid_t kNobody = 65534;
    if (setresuid(kNobody, kNobody, kNobody) != 0) return 2;
    const absl::Status status = Call(client, "echo", "x").status();
    return HasReason(status, reason::kPeerNotAllowed) ? 0 : 1;
  });
  const int code = other.Wait();
  EXPECT_THAT(server.Stop(), IsOk());
  if (code == 2) GTEST_SKIP() << "this sandbox knows one user only";
  EXPECT_EQ(code, 0);
}

// --- the socket's place ---

mode_t ModeOf(const std::string& path) {
  struct stat found {};
  lstat(path.c_str(), &found);
  return found.st_mode & 07777;
}

TEST_F(AbstractServerTest, SocketAndDirectoryArePrivateWhateverTheUmask) {
  for (const mode_t umask_value : {0, 077, 0177}) {
    TestServer server;
    const mode_t found = umask(umask_value);
    const absl::Status status = server.Start();
    umask(found);
    ASSERT_THAT(status, IsOk());
    const std::string socket = server.socket_filename();
    EXPECT_EQ(ModeOf(socket), 0600u);
    EXPECT_EQ(ModeOf(socket.substr(0, socket.rfind('/'))), 0700u);
    EXPECT_THAT(server.Stop(), IsOk());
  }
}

TEST_F(AbstractServerTest, SocketModeIsWhatWasAskedFor) {
  ServerOptions options = Shared();
  options.socket_mode = 0660;
  TestServer server(std::move(options));
  const mode_t found = umask(077);
  const absl::Status status = server.Start();
  umask(found);
  ASSERT_THAT(status, IsOk());
  EXPECT_EQ(ModeOf(path()), 0660u);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, APathOfALiveServerIsTaken) {
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

TEST_F(AbstractServerTest, AStaleSocketIsReplaced) {
  TestServer dead(Shared());
  ASSERT_THAT(dead.Start(), IsOk());
  const FileDescriptor pidfd = OpenPidfd(dead.server_pid());
  ASSERT_EQ(kill(dead.server_pid(), SIGKILL), 0);
  ASSERT_TRUE(Ends(pidfd.get()));
  ASSERT_TRUE(Exists(path()));
  TestServer server(Shared());
  EXPECT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(dead.Stop(), FailsWith(reason::kServerDied));
}

TEST_F(AbstractServerTest, APathOf200BytesWorks) {
  const std::string folder = absl::StrCat(
      directory(), "/", std::string(200 - directory().size() - 3, 'd'));
  ASSERT_EQ(mkdir(folder.c_str(), 0700), 0);
  ServerOptions options;
  options.socket_filename = folder + "/s";
  ASSERT_EQ(options.socket_filename.size(), 200u);
  TestServer server(std::move(options));
  EXPECT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(NamesIn(folder), IsEmpty());
  ASSERT_EQ(rmdir(folder.c_str()), 0);
}

TEST_F(AbstractServerTest, AFileNameThatIsTooLongIsRefusedWithItsLength) {
  ServerOptions options;
  options.socket_filename = directory() + "/" + std::string(150, 'n');
  TestServer server(std::move(options));
  EXPECT_THAT(server.Start(), FailsWith(reason::kPathTooLong, "150 bytes"));
}

TEST_F(AbstractServerTest, ARelativePathCountsFromWhereItWasStarted) {
  std::string found(PATH_MAX, '\0');
  ASSERT_NE(getcwd(found.data(), found.size()), nullptr);
  ASSERT_EQ(chdir(directory().c_str()), 0);
  ServerOptions options;
  options.socket_filename = "s";
  TestServer server(std::move(options));
  EXPECT_THAT(server.Start(), IsOk());
  ASSERT_EQ(chdir("/"), 0);
  EXPECT_EQ(server.socket_filename(), path());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_FALSE(Exists(path()));
  ASSERT_EQ(chdir(found.c_str()), 0);
}

TEST_F(AbstractServerTest, ADirectoryThatIsNotThereIsNamed) {
  ServerOptions options;
  options.socket_filename = directory() + "/none/s";
  TestServer server(std::move(options));
  const absl::Status status = server.Start();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_THAT(status.message(), HasSubstr("/none/s"));
}

// --- owners ---

TEST_F(AbstractServerTest, AForkOfTheOwnerIsAnOwnerWhenTheFirstIsGone) {
  Pipe report = MakePipe();
  // Starts a server, forks, and ends without stopping it.
  Child first([&] {
    TestServer server(Shared());
    if (!server.Start().ok()) return 1;
    const FileDescriptor parent = OpenPidfd(getpid());
    if (fork() > 0) _exit(0);
    BecomesReadable(parent.get());
    const bool served = Call(server, "echo", "x").ok();
    const bool stopped = server.Stop().ok();
    WriteAll(report.write.get(),
             absl::StrCat(getpid(), served ? " served" : " not served",
                          stopped ? " stopped" : " not stopped"));
    _exit(0);
  });
  EXPECT_EQ(first.Wait(), 0);
  report.write.Reset();
  const std::string words = ReadToEnd(report.read.get());
  EXPECT_THAT(words, HasSubstr(" served stopped"));
  EXPECT_FALSE(Exists(path()));
  // Both orphans have come to this process.
  int orphans = 0;
  while (waitpid(-1, nullptr, 0) > 0) ++orphans;
  EXPECT_EQ(orphans, 2);
}

TEST_F(AbstractServerTest, AForkOfTheOwnerCanStopTheServer) {
  TestServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  Child fork([&] {
    if (!Call(server, "echo", "x").ok()) return 1;
    if (!server.Stop().ok()) return 2;
    if (server.started() || server.server_pid() != 0) return 3;
    return Exists(path()) ? 4 : 0;
  });
  EXPECT_EQ(fork.Wait(), 0);
  EXPECT_THAT(Call(server, "echo", "x"),
              FailsWith(reason::kServerDied, "exited with code 0"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, TheDestructorInAForkStopsNothing) {
  auto server = std::make_unique<TestServer>();
  ASSERT_THAT(server->Start(), IsOk());
  Child fork([&] {
    server.reset();
    return 0;
  });
  EXPECT_EQ(fork.Wait(), 0);
  EXPECT_THAT(Call(*server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server->Stop(), IsOk());
}

TEST_F(AbstractServerTest, AnObjectWithThePathAndPasswordIsAClientAndNoOwner) {
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

TEST_F(AbstractServerTest, AServerDoesNotOwnAnotherThatWasStartedBefore) {
  auto first = std::make_unique<TestServer>(Shared());
  ASSERT_THAT(first->Start(), IsOk());
  TestServer second;
  ASSERT_THAT(second.Start(), IsOk());
  EXPECT_THAT(first->Stop(), IsOk());
  EXPECT_THAT(Call(second, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(second.Stop(), IsOk());
}

// --- death ---

TEST_F(AbstractServerTest, AServerThatWasKilledIsReportedAndStartsAgain) {
  TestServer server;
  for (int i = 0; i < 20; ++i) {
    ASSERT_THAT(server.Start(), IsOk());
    ASSERT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
    const pid_t pid = server.server_pid();
    ASSERT_EQ(kill(pid, SIGKILL), 0);
    // At once: it may be dying still.
    ASSERT_THAT(
        Call(server, "echo", "x"),
        FailsWith(reason::kServerDied,
                  absl::StrCat("(pid ", pid, ") was killed by signal 9")))
        << "round " << i;
    EXPECT_TRUE(server.started());
    EXPECT_THAT(server.Stop(),
                FailsWith(reason::kServerDied, "killed by signal 9"));
    EXPECT_FALSE(server.started());
    EXPECT_EQ(kill(pid, 0), -1);  // Reaped.
    EXPECT_THAT(NamesIn(directory()), IsEmpty());
  }
}

TEST_F(AbstractServerTest, AServerThatDiesInAConversationIsReported) {
  TestServer server;
  server.DefineMessageHandler("exit",
                              [](int code) -> absl::Status { _exit(code); });
  for (int code = 1; code <= 20; ++code) {
    ASSERT_THAT(server.Start(), IsOk());
    ASSERT_THAT(Call(server, "exit", code),
                FailsWith(reason::kServerDied,
                          absl::StrCat("exited with code ", code)));
    EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
  }
}

// --- Stop ---

class StopTest : public AbstractServerTest {
 protected:
  // Longer than any test takes: what comes before it did not wait for it.
  static constexpr absl::Duration kNever = absl::Minutes(5);

  ServerOptions Options(absl::Duration drain_time, absl::Duration kill_after) {
    ServerOptions options = Shared();
    options.drain_time = drain_time;
    options.stop.kill_after = kill_after;
    return options;
  }
};

TEST_F(StopTest, ARunningHandlerFinishesWithinTheDrainTime) {
  TestServer server(Options(kNever, kNever));
  server.DefineMessageHandler(
      "outlast", [this](MessageChannel& channel) -> absl::Status {
        const FileDescriptor events(inotify_init1(IN_CLOEXEC));
        if (inotify_add_watch(events.get(), directory().c_str(),
                              IN_DELETE | IN_MOVED_FROM) < 0) {
          return SystemError(errno, "watch the socket");
        }
        WARD_RETURN_IF_ERROR(channel.Write("watching"));
        while (Exists(path())) ReadSome(events.get());
        // The server is about to quit.
        return channel.Write("finished");
      });
  ASSERT_THAT(server.Start(), IsOk());
  TestServer client(Shared());
  EXPECT_THAT(client.Connect([&](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("outlast"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    EXPECT_THAT(server.Stop(), IsOk());
    WARD_ASSIGN_OR_RETURN(const Message reply, channel.Read());
    EXPECT_THAT(reply.parts(), ElementsAre("finished"));
    return absl::OkStatus();
  }),
              IsOk());
}

TEST_F(StopTest, ARunningHandlersChannelIsCutAfterTheDrainTime) {
  Diary diary;
  ServerOptions options = Options(absl::Milliseconds(100), kNever);
  options.launch.fork.keep_open.push_back(diary.fd());
  TestServer server(std::move(options));
  server.DefineMessageHandler("wait", [&](MessageChannel& channel) {
    (void)channel.Write("waiting");
    const absl::Status status = channel.Read().status();
    return diary.Writes(ReasonOf(status))();
  });
  server.finalize = diary.Writes("finalized");
  ASSERT_THAT(server.Start(), IsOk());
  TestServer client(Shared());
  EXPECT_THAT(client.Connect([&](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("wait"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    const Stopwatch watch;
    EXPECT_THAT(server.Stop(), IsOk());
    EXPECT_GE(watch.Elapsed(), absl::Milliseconds(100));
    return channel.Read().status();
  }),
              FailsWith(reason::kEndOfStream));
  EXPECT_EQ(diary.ReadAll(), "EndOfStream\nfinalized\n");
}

TEST_F(StopTest, AServerWithAHandlerThatNeverReturnsEndsWithoutAnOwnersHelp) {
  TestServer server(Options(absl::Milliseconds(20), absl::Milliseconds(100)));
  server.DefineMessageHandler("hang", [](MessageChannel& channel) {
    (void)channel.Write("hanging");
    while (true) pause();
    return absl::OkStatus();
  });
  ASSERT_THAT(server.Start(), IsOk());
  const FileDescriptor pidfd = OpenPidfd(server.server_pid());
  MessageChannel channel = Open(server);
  ASSERT_THAT(channel.Write("hang"), IsOk());
  ASSERT_THAT(channel.Read(), IsOk());
  ASSERT_EQ(kill(server.server_pid(), SIGTERM), 0);
  EXPECT_TRUE(Ends(pidfd.get()));
  EXPECT_THAT(Call(server, "echo", "x"),
              FailsWith(reason::kServerDied, "killed by signal 9"));
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
}

// What an owner finds that comes a second late, on a machine under load.
auto KilledItself() {
  return FailsWith(reason::kServerDied, "killed by signal 9");
}

TEST_F(StopTest, SigkillEndsAServerThatDoesNotQuitWithinKillAfter) {
  TestServer server(Options(kNever, absl::Milliseconds(100)));
  server.DefineMessageHandler("hang", [](MessageChannel& channel) {
    (void)channel.Write("hanging");
    while (true) pause();
    return absl::OkStatus();
  });
  ASSERT_THAT(server.Start(), IsOk());
  const pid_t pid = server.server_pid();
  TestServer client(Shared());
  EXPECT_THAT(client.Connect([&](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("hang"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    const Stopwatch watch;
    const absl::Status status = server.Stop();
    EXPECT_GE(watch.Elapsed(), absl::Milliseconds(100));
    return status;
  }),
              AnyOf(FailsWith(reason::kServerKilled, "100ms"), KilledItself()));
  EXPECT_EQ(kill(pid, 0), -1);  // Reaped.
  EXPECT_FALSE(server.started());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  // A machine under load may not manage this within 100 ms.
  (void)server.Stop();
  EXPECT_FALSE(server.started());
}

TEST_F(StopTest, SigkillEndsAFinalizeServerThatNeverReturns) {
  TestServer server(Options(kNever, absl::Milliseconds(100)));
  server.finalize = []() -> absl::Status {
    while (true) pause();
  };
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Stop(),
              AnyOf(FailsWith(reason::kServerKilled), KilledItself()));
}

TEST_F(StopTest, AServerThatIsStoppedBySigstopIsKilledToo) {
  TestServer server(Options(kNever, absl::Milliseconds(100)));
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_EQ(kill(server.server_pid(), SIGSTOP), 0);
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerKilled));
}

TEST_F(StopTest, PeersWithoutThePasswordAreNotWaitedFor) {
  ServerOptions options = Options(kNever, kNever);
  options.authentication_timeout = kNever;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  const FileDescriptor silent = RawConnect(path());
  // Comes after it: when this one is served, the silent one is a client.
  ASSERT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_TRUE(BecomesReadable(silent.get()));
}

// --- limits ---

TEST_F(AbstractServerTest, ClientsOverMaxClientsWaitUntilOneLeaves) {
  ServerOptions options;
  options.max_clients = 2;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<MessageChannel> channels;
  for (int i = 0; i < 4; ++i) {
    channels.push_back(Open(server));
    ASSERT_THAT(channels[i].Write("hold"), IsOk());
    if (i < 2) {
      ASSERT_THAT(channels[i].Read(), IsOk());
    }
  }
  EXPECT_FALSE(BecomesReadable(channels[2].transport()->descriptor(),
                               absl::Milliseconds(50)));
  EXPECT_FALSE(BecomesReadable(channels[3].transport()->descriptor(),
                               absl::ZeroDuration()));
  ASSERT_THAT(channels[0].Write("go"), IsOk());
  ASSERT_THAT(channels[0].Read(), IsOk());
  channels[1].Close();
  EXPECT_THAT(channels[2].Read(), IsOk());
  EXPECT_THAT(channels[3].Read(), IsOk());
  channels.clear();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, UpToMaxClientsAreServedAtOnceAndNeverMore) {
  constexpr int kMax = 3;
  ServerOptions options;
  options.max_clients = kMax;
  TestServer server(std::move(options));
  absl::Mutex mutex;
  int now = 0;
  int most = 0;
  server.DefineMessageHandler("meet", [&](MessageChannel& channel) {
    absl::MutexLock lock(&mutex);
    most = std::max(most, ++now);
    // Goes on when all places have been taken once.
    const auto full = [&] { return most >= kMax; };
    mutex.Await(absl::Condition(&full));
    --now;
    return channel.Write("met");
  });
  server.DefineMessageHandler("most", [&](MessageChannel& channel) {
    absl::MutexLock lock(&mutex);
    return channel.Write(most);
  });
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<std::thread> threads;
  for (int i = 0; i < 3 * kMax; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 10; ++j) {
        EXPECT_THAT(Call(server, "meet"), IsOkAndHolds("met"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(Call(server, "most"), IsOkAndHolds(absl::StrCat(kMax)));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, AClientThatWaitsForAPlaceIsToldThatTheServerStops) {
  ServerOptions options = Shared();
  options.max_clients = 1;
  options.drain_time = absl::Milliseconds(10);
  TestServer server(std::move(options));
  TestServer client(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel served = Open(client);
  ASSERT_THAT(served.Write("hold"), IsOk());
  ASSERT_THAT(served.Read(), IsOk());
  MessageChannel waiting = Open(client);
  ASSERT_THAT(waiting.Write("hold"), IsOk());
  // A wrong password needs no place; and this client comes after the other.
  ServerOptions other = Shared();
  other.password = Secret("another password");
  TestServer stranger(std::move(other));
  const StderrCapture log;
  ASSERT_THAT(Call(stranger, "echo"), FailsWith(reason::kInvalidPassword));
  EXPECT_THAT(server.Stop(), IsOk());
  const absl::Status status = waiting.Read().status();
  // If its thread had not come to read yet, the end of the stream tells it.
  EXPECT_TRUE(HasReason(status, reason::kServerStopping) ||
              HasReason(status, reason::kEndOfStream))
      << status;
}

TEST_F(AbstractServerTest, OfTooManyPeersWithoutAPasswordTheOldestIsCut) {
  ServerOptions options = Shared();
  options.max_unauthenticated_clients = 2;
  options.authentication_timeout = kSurely;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  const Stopwatch watch;
  const FileDescriptor first = RawConnect(path());
  const FileDescriptor second = RawConnect(path());
  EXPECT_FALSE(BecomesReadable(first.get(), absl::Milliseconds(20)));
  const FileDescriptor third = RawConnect(path());
  EXPECT_TRUE(BecomesReadable(first.get()));
  EXPECT_FALSE(BecomesReadable(second.get(), absl::ZeroDuration()));
  // One that shows the password in time is never the oldest for long.
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_TRUE(BecomesReadable(second.get()));
  EXPECT_FALSE(BecomesReadable(third.get(), absl::ZeroDuration()));
  EXPECT_LT(watch.Elapsed(), kSurely);
  EXPECT_THAT(server.Stop(), IsOk());
}

// --- full descriptor tables ---

// Fills this process's table, but for `free` descriptors, under a lower limit.
class FullTable {
 public:
  explicit FullTable(int free) {
    getrlimit(RLIMIT_NOFILE, &found_);
    rlimit lowered = found_;
    lowered.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &lowered);
    while (true) {
      FileDescriptor filler(open("/dev/null", O_RDONLY | O_CLOEXEC));
      if (!filler.is_open()) break;
      fillers_.push_back(std::move(filler));
    }
    while (free-- > 0) fillers_.pop_back();
  }
  ~FullTable() { setrlimit(RLIMIT_NOFILE, &found_); }

 private:
  rlimit found_;
  std::vector<FileDescriptor> fillers_;
};

TEST_F(AbstractServerTest,
       AFullTableInTheServerIsToldAndClientsAreServedAgainAfterwards) {
  TestServer server;
  server.DefineMessageHandler("fill", [](MessageChannel& channel) {
    static const FullTable* const table = new FullTable(0);
    return channel.Write(table != nullptr);
  });
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_THAT(Call(server, "fill"), IsOkAndHolds("true"));

  // Idle threads have a number ready for the next client (accept4(2) takes it
  // before it waits), so that some may be served still.
  std::vector<MessageChannel> holders;
  absl::Status held;
  while (held.ok() && holders.size() < 50) {
    holders.push_back(Open(server));
    held = holders.back().Write("hold");
    if (held.ok()) held = holders.back().Read().status();
  }
  EXPECT_THAT(held, FailsWith(reason::kDescriptorTableFull, "ulimit -n"));

  holders.pop_back();
  for (MessageChannel& holder : holders) {
    ASSERT_THAT(holder.Write("go"), IsOk());
    ASSERT_THAT(holder.Read(), IsOk());
    EXPECT_THAT(holder.Read(), FailsWith(reason::kEndOfStream));
  }
  // Another thread than the one that has a number ready may get the client.
  const Stopwatch watch;
  int served = 0;
  while (served < 10 && watch.Elapsed() < kSurely) {
    const absl::StatusOr<std::string> reply = Call(server, "echo", "x");
    if (reply.ok()) ++served;
    if (!reply.ok()) {
      EXPECT_THAT(reply, FailsWith(reason::kDescriptorTableFull));
    }
  }
  EXPECT_EQ(served, 10);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, AFullTableInTheOwnerIsAnErrorThatSaysSo) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  {
    const FullTable full(0);
    EXPECT_THAT(Call(server, "echo", "x"),
                FailsWith(reason::kDescriptorTableFull, "ulimit -n"));
  }
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  const FullTable full(0);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, StartFailsCleanlyHoweverManyDescriptorsAreFree) {
  for (const bool chosen_path : {false, true}) {
    TestServer server(chosen_path ? Shared() : ServerOptions());
    bool started = false;
    for (int free = 0; !started; ++free) {
      ASSERT_LT(free, 30);
      const FullTable full(free);
      const absl::Status status = server.Start();
      started = status.ok();
      EXPECT_EQ(server.started(), started);
      if (started) continue;
      EXPECT_THAT(status, FailsWith(reason::kDescriptorTableFull))
          << free << " free";
    }
    EXPECT_THAT(server.Stop(), IsOk());
  }
}

}  // namespace
}  // namespace ward

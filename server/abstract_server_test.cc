// What abstract_server.h promises and only the real kernel shows: descriptors
// and their table, files and their modes, processes, signals, users, and the
// standard error. All else is tested in every mode: clients_test,
// every_mode_test, life_test, messages_test, owners_test, synchronous_test.

#include "ward/server/abstract_server.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
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
#include "ward/server/environment.h"
#include "ward/server/server_for_test.h"
#include "ward/server/signals.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

// A client's end that need not end with a function.
MessageChannel Open(const TestServer& server) {
  auto transport = Environment::Posix().Connect(server.socket_filename(),
                                                absl::InfiniteFuture());
  if (!transport.ok()) return {};
  MessageChannel channel(*std::move(transport));
  channel.PresentPassword(server.password());
  return channel;
}

using AbstractServerTest = NothingLeftTest;

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

// A fault raises its signal in the thread that made it; where that blocks it,
// the kernel kills the process without asking.
TEST_F(AbstractServerTest, ACrashHandlerRunsInAClientsThread) {
  for (const int signal : {SIGSEGV, SIGILL}) {
    TestServer server;
    server.initialize = [signal] {
      struct sigaction action {};
      action.sa_handler = [](int caught) { _exit(caught + 100); };
      return sigaction(signal, &action, nullptr) == 0
                 ? absl::OkStatus()
                 : absl::InternalError("sigaction");
    };
    server.DefineMessageHandler("crash", [signal](MessageChannel&) {
      // NOLINTNEXTLINE: the fault is the purpose.
      if (signal == SIGILL) __builtin_trap();
      void* const page =
          mmap(nullptr, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      *static_cast<volatile char*>(page) = 1;
      return absl::OkStatus();
    });
    ASSERT_THAT(server.Start(), IsOk());
    const std::string end = absl::StrCat("exited with code ", signal + 100);
    EXPECT_THAT(Call(server, "crash"), FailsWith(reason::kCallCut, end));
    EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied, end));
  }
}

TEST_F(AbstractServerTest,
       AClientsThreadBlocksAllButFaultsAndItsChildrensEnds) {
  TestServer server;
  server.DefineMessageHandler("unblocked", [](MessageChannel& channel) {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    std::vector<std::string> unblocked;
    // The C library keeps two to itself, before SIGRTMIN; nobody can block
    // SIGKILL and SIGSTOP.
    for (int signal = 1; signal < 32; ++signal) {
      if (sigismember(&mask, signal) != 0 || signal == SIGKILL ||
          signal == SIGSTOP) {
        continue;
      }
      unblocked.emplace_back(strsignal(signal));
    }
    return channel.Write(absl::StrJoin(unblocked, ", "));
  });
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "unblocked"),
              IsOkAndHolds("Illegal instruction, Trace/breakpoint trap, "
                           "Aborted, Bus error, Floating point exception, "
                           "Segmentation fault, Child exited, "
                           "Urgent I/O condition, Bad system call"));
  EXPECT_THAT(server.Stop(), IsOk());
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

// --- descriptors ---

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
  // It may be dying still, and take the call.
  const std::string how = absl::StrCat("killed by signal ", SIGUSR1);
  EXPECT_THAT(Call(server, "echo", "x"),
              AnyOf(FailsWith(reason::kServerDied, how),
                    FailsWith(reason::kCallCut, how)));
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
}

// Of SIGCHLD nobody is told, unless the server receives it.
TEST_F(AbstractServerTest, WorkersBlockAllSignalsButWhatIsToldToNobody) {
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
  EXPECT_THAT(Call(server, "blocked"), IsOkAndHolds("4"));
  EXPECT_THAT(server.Stop(), IsOk());
  server.DefineSignalHandler(SIGCHLD, [] {});
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "blocked"), IsOkAndHolds("5"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, StopSaysThatASignalHadStoppedTheServer) {
  ServerOptions options;
  options.stop.kill_after = absl::Milliseconds(20);
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_EQ(kill(server.server_pid(), SIGSTOP), 0);
  siginfo_t stopped;
  ASSERT_EQ(waitid(P_PID, server.server_pid(), &stopped, WSTOPPED | WNOWAIT),
            0);
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerKilled, "SIGCONT"));
}

TEST_F(AbstractServerTest, StopSaysWhoMayHaveBeenToldHowTheServerEnded) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_EQ(kill(server.server_pid(), SIGKILL), 0);
  ASSERT_EQ(waitpid(server.server_pid(), nullptr, 0), server.server_pid());
  EXPECT_THAT(server.CheckAlive(),
              FailsWith(reason::kServerDied, "waitpid(-1)"));
  (void)server.Stop();
}

// --- StartSynchronously ---

TEST_F(AbstractServerTest, QuitsAtTermAndPutsBackAllSignalsAsFound) {
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

// --- memory ---

// The field of /proc/<process>/status, in bytes.
size_t MemoryOf(pid_t process, std::string_view field) {
  std::ifstream status(absl::StrCat("/proc/", process, "/status"));
  size_t kilobytes = 0;
  for (std::string word; status >> word;) {
    if (word == field && status >> kilobytes) break;
  }
  return kilobytes << 10;
}

TEST_F(AbstractServerTest, AServerGivesBackWhatLargeMessagesTook) {
  if (kUnderSanitizer) GTEST_SKIP() << "its memory is in the way";
  constexpr size_t kSize = 16'000'000;
  TestServer server(Shared());
  server.DefineMessageHandler(
      "take", [](MessageChannel& channel) -> absl::Status {
        WARD_ASSIGN_OR_RETURN(const Message message, channel.Read());
        return channel.Write(message[0].size());
      });
  ASSERT_THAT(server.Start(), IsOk());
  const auto burst = [&server](const std::string& bytes) {
    std::vector<std::thread> clients;
    for (int i = 0; i < 16; ++i) {
      clients.emplace_back([&] {
        EXPECT_THAT(server.Connect([&](MessageChannel& channel) {
          WARD_RETURN_IF_ERROR(channel.Write("take"));
          WARD_RETURN_IF_ERROR(channel.Write(bytes));
          return channel.Read().status();
        }),
                    IsOk());
      });
    }
    for (std::thread& client : clients) client.join();
  };
  // With the code and the stacks that so many clients take, whatever they send.
  burst("x");
  const size_t before = MemoryOf(server.server_pid(), "VmRSS:");
  const std::string large(kSize, 'x');
  for (int round = 0; round < 3; ++round) burst(large);
  // The allocator's arenas keep some, and the more of them the more threads
  // this process had before; one of the 16 messages it is not.
  const size_t most = before + kSize;
  const Stopwatch watch;
  size_t after;
  do {
    after = MemoryOf(server.server_pid(), "VmRSS:");
  } while (after > most && watch.Elapsed() < kSurely);
  std::cout << before << " bytes before, " << after << " after\n";
  EXPECT_LE(after, most);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AbstractServerTest, AReplyThatIsNotReadIsThereOnce) {
  if (kUnderSanitizer) GTEST_SKIP() << "its memory is in the way";
  constexpr size_t kSize = 8 << 20;
  constexpr size_t kClients = 8;
  TestServer server(Shared());
  server.DefineMessageHandler("give", []() -> absl::StatusOr<std::string> {
    return std::string(kSize, 'x');
  });
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_THAT(Call(server, "echo", "x"), IsOk());
  const size_t before = MemoryOf(server.server_pid(), "VmRSS:");
  // Once all have the first bytes of theirs, all are sent from what is there.
  std::atomic<size_t> answered = 0;
  std::vector<std::thread> clients;
  for (size_t i = 0; i < kClients; ++i) {
    clients.emplace_back([&] {
      EXPECT_THAT(server.Connect([&](MessageChannel& channel) -> absl::Status {
        WARD_RETURN_IF_ERROR(channel.Write("give"));
        EXPECT_TRUE(BecomesReadable(channel.transport()->descriptor()));
        ++answered;
        const Stopwatch watch;
        while (answered < kClients && watch.Elapsed() < kSurely) {
          std::this_thread::yield();
        }
        const size_t now = MemoryOf(server.server_pid(), "VmRSS:");
        EXPECT_GE(now, kClients * kSize);
        EXPECT_LE(now, before + kClients * kSize * 5 / 4);
        ++answered;
        while (answered < 2 * kClients && watch.Elapsed() < kSurely) {
          std::this_thread::yield();
        }
        return absl::OkStatus();
      }),
                  IsOk());
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_THAT(server.Stop(), IsOk());
}

// --- who may be a client ---

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

TEST_F(AbstractServerTest, AnErrorThatAClientSendsFirstIsNoWrongPassword) {
  // It came with the right one, whatever reason it gives.
  TestServer server(Shared());
  const StderrCapture log;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Connect([](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(
        channel.WriteError(MakeError(reason::kInvalidPassword, "it is not")));
    return channel.Read().status();
  }),
              FailsWith(reason::kUnexpectedFrame));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(log.Text(), Not(HasSubstr("wrong password")));
}

TEST_F(AbstractServerTest, AClientThatHasEndedItsSideIsToldWhatWasDue) {
  TestServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Connect([](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("hold"));
    EXPECT_EQ(shutdown(channel.transport()->descriptor(), SHUT_WR), 0);
    WARD_RETURN_IF_ERROR(channel.Read().status());
    return channel.Read().status();
  }),
              FailsWith(reason::kUnexpectedFrame));
  EXPECT_THAT(server.Stop(), IsOk());
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

// --- owners that have changed ---

constexpr int kOneUserOnly = 2;

TEST_F(AbstractServerTest, AnOwnerWithAnotherRootHearsWhyItReachesNobody) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to change it";
  const std::string jail = directory() + "/jail";
  ASSERT_EQ(mkdir(jail.c_str(), 0700), 0);
  Child owner([&] {
    TestServer server;
    if (!server.Start().ok()) return 1;
    if (chroot(jail.c_str()) != 0 || chdir("/") != 0) return kOneUserOnly;
    const absl::Status status = Call(server, "echo", "x").status();
    if (!HasReason(status, reason::kServerUnreachable)) return 3;
    if (!absl::StrContains(status.message(), "root directory")) return 4;
    if (!server.CheckAlive().ok()) return 5;
    return server.Stop().ok() ? 0 : 6;
  });
  const int code = owner.Wait();
  EXPECT_EQ(rmdir(jail.c_str()), 0);
  if (code == kOneUserOnly) GTEST_SKIP() << "this sandbox changes no root";
  EXPECT_EQ(code, 0);
}

TEST_F(AbstractServerTest, AnOwnerThatIsAnotherUserHearsWhyItReachesNobody) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to become someone else";
  Child owner([&] {
    constexpr uid_t kNobody = 65534;
    TestServer server;
    if (!server.Start().ok()) return 1;
    if (setresuid(kNobody, kNobody, kNobody) != 0) return kOneUserOnly;
    const absl::Status status = Call(server, "echo", "x").status();
    if (!absl::IsPermissionDenied(status)) return 3;
    if (!absl::StrContains(status.message(), "as user 65534")) return 4;
    const absl::Status reachable = server.CheckReachable();
    if (!HasReason(reachable, reason::kServerUnreachable)) return 5;
    if (!absl::StrContains(reachable.message(), "user")) return 6;
    return server.Stop().ok() ? 0 : 7;
  });
  const int code = owner.Wait();
  if (code == kOneUserOnly) GTEST_SKIP() << "this sandbox knows one user only";
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

// --- death ---

TEST_F(AbstractServerTest, AServerThatDiesInAConversationIsReported) {
  TestServer server;
  server.DefineMessageHandler("exit",
                              [](int code) -> absl::Status { _exit(code); });
  for (int code = 1; code <= 20; ++code) {
    ASSERT_THAT(server.Start(), IsOk());
    ASSERT_THAT(
        Call(server, "exit", code),
        FailsWith(reason::kCallCut, absl::StrCat("exited with code ", code)));
    EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
  }
}

// --- Stop ---

TEST_F(AbstractServerTest, AServerThatIsStoppedBySigstopIsKilledToo) {
  ServerOptions options = Shared();
  options.stop.kill_after = absl::Milliseconds(100);
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_EQ(kill(server.server_pid(), SIGSTOP), 0);
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerKilled));
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
    static const FullTable* const kTable = new FullTable(0);
    return channel.Write(kTable != nullptr);
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

#include "ward/server/posix/process.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <streambuf>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/posix_wait.h"
#include "ward/server/environment.h"
#include "ward/server/posix/deny_for_test.h"
#include "ward/server/process.h"

namespace ward {
namespace {

std::unique_ptr<Process> Fork(absl::AnyInvocable<int()> child,
                              const ForkOptions& options = {}) {
  auto process = PosixFork(options, std::move(child));
  EXPECT_TRUE(process.ok()) << process.status();
  return *std::move(process);
}

ProcessExit ExitOf(Process& process) {
  const auto exit = process.Wait(absl::InfiniteFuture());
  EXPECT_TRUE(exit.ok()) << exit.status();
  return exit.value_or(ProcessExit());
}

// A child that waits until it is killed.
int Forever() {
  while (true) pause();
}

struct Pipe {
  FileDescriptor read_end;
  FileDescriptor write_end;

  Pipe() {
    std::array<int, 2> ends;
    EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
    read_end.Reset(ends[0]);
    write_end.Reset(ends[1]);
  }

  // All that is written until the last write end is closed.
  std::string ReadAll() {
    write_end.Reset();
    std::string all;
    std::array<char, 256> piece;
    ssize_t got;
    while ((got = read(read_end.get(), piece.data(), piece.size())) > 0) {
      all.append(piece.data(), static_cast<size_t>(got));
    }
    return all;
  }
};

// What `fd` is; empty when it is not open.
std::string LeadsTo(int fd) {
  std::array<char, 256> target;
  const ssize_t size = readlink(absl::StrCat("/proc/self/fd/", fd).c_str(),
                                target.data(), target.size());
  return {target.data(), static_cast<size_t>(size < 0 ? 0 : size)};
}

TEST(PosixFork, ReturnsTheChildsExitCode) {
  const auto process = Fork([] { return 7; });
  const ProcessExit exit = ExitOf(*process);
  EXPECT_EQ(exit.ToString(), "exited with code 7");
  EXPECT_FALSE(exit.clean());
  EXPECT_EQ(ExitOf(*process).value, 7) << "the same at every call";
  EXPECT_TRUE(process->Ending());
  EXPECT_EQ(waitpid(process->pid(), nullptr, WNOHANG), -1) << "no zombie stays";
}

TEST(PosixFork, NamesTheSignalThatKilledTheChild) {
  const auto process = Fork(Forever);
  EXPECT_TRUE(process->Kill(SIGKILL).ok());
  EXPECT_EQ(ExitOf(*process).ToString(), "was killed by signal 9 (Killed)");
  EXPECT_TRUE(process->Kill(SIGKILL).ok()) << "nobody is hit, and no error";
}

TEST(PosixFork, WaitsUntilTheDeadlineAndNoLonger) {
  const auto process = Fork(Forever);
  const auto exit = process->Wait(MonotonicNow() + absl::Milliseconds(20));
  EXPECT_TRUE(HasReason(exit.status(), reason::kTimedOut)) << exit.status();
  EXPECT_TRUE(process->Kill(SIGKILL).ok());
  ExitOf(*process);
}

TEST(PosixFork, ClosesAllDescriptorsButThoseNamed) {
  const Pipe kept;
  const Pipe other;
  const int high = fcntl(kept.read_end.get(), F_DUPFD_CLOEXEC, 700);
  ForkOptions options;
  options.keep_open = {high, kept.write_end.get(), kept.write_end.get(), -1};
  const auto process = Fork(
      [&] {
        const bool right =
            !LeadsTo(0).empty() && !LeadsTo(1).empty() && !LeadsTo(2).empty() &&
            absl::StartsWith(LeadsTo(high), "pipe:") &&
            absl::StartsWith(LeadsTo(kept.write_end.get()), "pipe:") &&
            LeadsTo(kept.read_end.get()) == "/dev/null" &&
            LeadsTo(other.read_end.get()) == "/dev/null" &&
            LeadsTo(other.write_end.get()) == "/dev/null";
        return right ? 0 : 1;
      },
      options);
  close(high);
  EXPECT_TRUE(ExitOf(*process).clean());
}

TEST(PosixFork, GivesNoMoreThanHalfOfTheTableToNumbersThatWereOpen) {
  std::vector<FileDescriptor> many;
  for (int i = 0; i < 60; ++i) {
    many.emplace_back(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  }
  rlimit found{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &found), 0);
  const rlimit few = {80, found.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  const auto process = Fork([&many] {
    const auto lead_to = [&many](std::string_view what) {
      return std::count_if(many.begin(), many.end(),
                           [what](const FileDescriptor& one) {
                             return LeadsTo(one.get()) == what;
                           });
    };
    // Some of the 40 are GoogleTest's.
    return lead_to("/dev/zero") == 0 && lead_to("/dev/null") <= 40 &&
                   lead_to("/dev/null") > 30 && lead_to("") >= 20 &&
                   LeadsTo(many.front().get()) == "/dev/null"
               ? 0
               : 1;
  });
  EXPECT_TRUE(ExitOf(*process).clean());
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &found), 0);
}

TEST(PosixFork, ClosesAllDescriptorsOfAFullTable) {
  rlimit found{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &found), 0);
  const rlimit few = {40, found.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  std::vector<FileDescriptor> many;
  do {
    many.emplace_back(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  } while (many.back().is_open());
  many.resize(many.size() - 3);  // It takes two itself.
  const auto process = Fork([&many] {
    return std::none_of(many.begin(), many.end(),
                        [](const FileDescriptor& one) {
                          return LeadsTo(one.get()) == "/dev/zero";
                        })
               ? 0
               : 1;
  });
  EXPECT_TRUE(ExitOf(*process).clean());
  many.clear();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &found), 0);
}

TEST(PosixFork, ClosesWhatItIsToldToWhateverElseIsKept) {
  for (const bool all : {false, true}) {
    Pipe pipe;
    ForkOptions options;
    options.keep_all_open = all;
    options.keep_open = {pipe.read_end.get(), pipe.write_end.get()};
    options.close = {pipe.write_end.get()};
    const auto process = Fork(
        [&pipe] {
          char byte;
          return read(pipe.read_end.get(), &byte, 1) == 0 ? 0 : 1;
        },
        options);
    pipe.write_end.Reset();
    EXPECT_TRUE(ExitOf(*process).clean());
  }
}

TEST(PosixFork, StartsTheChildWithAllSignalsBlockedButThoseOfFaults) {
  const auto process = Fork([] {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    for (const int signal :
         {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) {
      if (sigismember(&mask, signal) != 0) return signal;
    }
    return sigismember(&mask, SIGTERM) && sigismember(&mask, SIGUSR1) ? 0 : 1;
  });
  EXPECT_TRUE(ExitOf(*process).clean());
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_FALSE(sigismember(&mask, SIGTERM)) << "the parent's mask is as it was";
}

TEST(PosixFork, WritesBufferedOutputOnce) {
  Pipe pipe;
  FILE* stream = fdopen(dup(pipe.write_end.get()), "w");
  std::fputs("parent,", stream);
  ForkOptions options;
  options.keep_open = {fileno(stream)};
  const auto process = Fork(
      [stream] {
        std::fputs("child", stream);
        return 0;
      },
      options);
  EXPECT_TRUE(ExitOf(*process).clean());
  std::fclose(stream);
  EXPECT_EQ(pipe.ReadAll(), "parent,child");
}

TEST(PosixFork, WritesWhatTheStandardStreamsHaveBufferedOnce) {
  Pipe pipe;
  const FileDescriptor found(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
  // So that it buffers, as after sync_with_stdio(false): which this program has
  // used its standard output too long to call.
  class Buffered final : public std::stringbuf {
   public:
    int sync() override {
      const std::string text = str();
      str("");
      return write(STDOUT_FILENO, text.data(), text.size()) < 0 ? -1 : 0;
    }
  } buffered;
  std::streambuf* const before = std::cout.rdbuf(&buffered);
  dup2(pipe.write_end.get(), STDOUT_FILENO);
  std::cout << "parent,";
  const auto process = Fork([] {
    std::cout << "child";
    return 0;
  });
  EXPECT_TRUE(ExitOf(*process).clean());
  std::cout.flush();
  dup2(found.get(), STDOUT_FILENO);
  std::cout.rdbuf(before);
  EXPECT_EQ(pipe.ReadAll(), "parent,child");
}

TEST(PosixFork, GivesEachChildARandomStateOfItsOwn) {
  Pipe pipe;
  ForkOptions options;
  options.keep_open = {pipe.write_end.get()};
  std::array<int, 3> first{};
  std::array<int, 3> second{};
  for (std::array<int, 3>* drawn : {&first, &second}) {
    const auto process = Fork(
        [&pipe] {
          const std::array<int, 3> numbers = {
              rand(), static_cast<int>(random()), static_cast<int>(mrand48())};
          return write(pipe.write_end.get(), numbers.data(), sizeof(numbers)) ==
                         sizeof(numbers)
                     ? 0
                     : 1;
        },
        options);
    ASSERT_TRUE(ExitOf(*process).clean());
    ASSERT_EQ(read(pipe.read_end.get(), drawn->data(), sizeof(*drawn)),
              static_cast<ssize_t>(sizeof(*drawn)));
  }
  for (size_t i = 0; i < first.size(); ++i) EXPECT_NE(first[i], second[i]) << i;
}

TEST(PosixFork, RefusesAProcessWithOtherThreads) {
  absl::Notification done;
  std::thread other([&done] { done.WaitForNotification(); });
  const auto process = PosixFork({}, [] { return 0; });
  EXPECT_TRUE(HasReason(process.status(), reason::kForkWithThreads));
  EXPECT_TRUE(absl::StrContains(process.status().message(), "1 other thread"))
      << process.status();
  EXPECT_TRUE(absl::StrContains(process.status().message(), "exec"))
      << process.status();
  done.Notify();
  other.join();
  EXPECT_TRUE(ExitOf(*Fork([] { return 0; })).clean()) << "alone again";
}

TEST(PosixFork, DoesNotCountThreadsThatTheKernelRunsForIoUring) {
  io_uring_params params{};
  params.flags = IORING_SETUP_SQPOLL;  // With a thread that polls.
  const FileDescriptor ring(
      static_cast<int>(syscall(SYS_io_uring_setup, 1, &params)));
  if (!ring.is_open()) {
    GTEST_SKIP() << "this kernel has no io_uring for this user";
  }
  struct stat tasks {};
  ASSERT_EQ(stat("/proc/self/task", &tasks), 0);
  ASSERT_GT(tasks.st_nlink, 3u) << "there is such a thread";
  EXPECT_TRUE(ExitOf(*Fork([] { return 0; })).clean());
}

TEST(PosixFork, ForksAmongThreadsWhenToldTo) {
  absl::Notification done;
  std::thread other([&done] { done.WaitForNotification(); });
  ForkOptions options;
  options.allow_threads = true;
  const auto process = Fork([] { return 0; }, options);
  EXPECT_TRUE(ExitOf(*process).clean());
  done.Notify();
  other.join();
}

// Its number is asked for once in a process.
TEST(PosixFork, EachProcessKnowsItsOwnNumber) {
  Environment& environment = Environment::Posix();
  ASSERT_EQ(environment.ProcessId(), getpid());
  const auto check = [&] {
    return environment.ProcessId() == getpid() ? 7 : 8;
  };
  EXPECT_EQ(ExitOf(*Fork(check)).ToString(), "exited with code 7");
  // Without the C library, which would call what was registered for forks.
  const auto child =
      static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
  if (child == 0) _exit(check());
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_EQ(environment.ProcessId(), getpid());
}

TEST(PosixFork, DoesNotLetAnExceptionRunTheParentsCodeTwice) {
  Pipe pipe;
  ForkOptions options;
  options.keep_open = {pipe.write_end.get()};
  const pid_t self = getpid();
  const auto process = Fork(
      []() -> int {
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        throw std::runtime_error("not caught");
      },
      options);
  if (getpid() != self) _exit(99);
  EXPECT_TRUE(absl::StrContains(ExitOf(*process).ToString(), "Aborted"));
}

TEST(PosixFork, WaitsForAChildOfAnotherProcessWithoutReaping) {
  const auto process = Fork(Forever);
  const auto other = Fork(
      [&process] {
        const auto exit = process->Wait(absl::InfiniteFuture());
        return exit.ok() && exit->kind == ProcessExit::Kind::kUnknown ? 0 : 1;
      },
      {{process->descriptor()}});
  EXPECT_TRUE(process->Kill(SIGKILL).ok());
  EXPECT_TRUE(ExitOf(*other).clean());
  EXPECT_EQ(ExitOf(*process).kind, ProcessExit::Kind::kSignaled);
}

// What this process does after each fork, as a handler of a signal, or another
// thread, may do at that moment.
void (*after_fork)() = nullptr;

void SetAfterFork(void (*function)()) {
  static const int kAtFork = pthread_atfork(
      nullptr,
      [] {
        if (after_fork != nullptr) after_fork();
      },
      nullptr);
  ASSERT_EQ(kAtFork, 0);
  after_fork = function;
}

TEST(PosixFork, DoesNotLetTheChildEndBeforeItIsWatched) {
  // Reaps whatever child ends within a while.
  SetAfterFork([] {
    for (int i = 0; i < 50; ++i) {
      if (waitpid(-1, nullptr, WNOHANG) > 0) return;
      poll(nullptr, 0, 1);
    }
  });
  const auto process = PosixFork({}, [] { return 7; });
  SetAfterFork(nullptr);
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ(ExitOf(**process).ToString(), "exited with code 7");
}

TEST(PosixFork, EndsAChildWhoseParentDiesBeforeItIsWatched) {
  SetAfterFork(nullptr);
  Pipe alive;
  ForkOptions options;
  options.keep_open = {alive.write_end.get()};
  const auto parent = Fork(
      [&alive] {
        std::array<int, 2> ends;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) !=
            0) {
          return 1;
        }
        ForkOptions tied;
        tied.keep_open = {alive.write_end.get(), ends[1]};
        tied.close = {ends[0]};
        tied.tie = ends[1];
        after_fork = [] { kill(getpid(), SIGKILL); };
        (void)PosixFork(tied, Forever);
        return 2;
      },
      options);
  EXPECT_EQ(ExitOf(*parent).value, SIGKILL);
  EXPECT_EQ(alive.ReadAll(), "") << "nobody has it open any more";
}

TEST(PosixFork, LeavesNoChildThatItCannotWatch) {
  const auto parent = Fork([] {
    DenyCalls({SYS_pidfd_open}, EPERM);
    const auto child = PosixFork({}, Forever);
    return !child.ok() && waitpid(-1, nullptr, 0) == -1 ? 0 : 1;
  });
  EXPECT_EQ(ExitOf(*parent).ToString(), "exited with code 0");
}

// By wait(2), say, for whatever child has ended.
TEST(PosixFork, SeesTheEndOfAChildThatSomebodyElseHasReaped) {
  const auto process = Fork([] { return 7; });
  ASSERT_EQ(waitpid(process->pid(), nullptr, 0), process->pid());
  EXPECT_TRUE(process->Ending());
  EXPECT_TRUE(process->Kill(SIGKILL).ok());
  EXPECT_EQ(ExitOf(*process).kind, ProcessExit::Kind::kUnknown);
}

// Its number may be another one's by now.
TEST(PosixFork, KillsByNumberOnlyAChildThatNobodyHasReaped) {
  const auto process = Fork([] {
    DenyCalls({SYS_pidfd_send_signal}, EPERM);
    const auto alive = Fork(Forever);
    const auto reaped = Fork([] { return 0; });
    waitpid(reaped->pid(), nullptr, 0);
    if (!alive->Kill(SIGKILL).ok()) return 1;
    if (ExitOf(*alive).value != SIGKILL) return 2;
    return reaped->Kill(SIGKILL).ok() ? 0 : 3;
  });
  EXPECT_EQ(ExitOf(*process).ToString(), "exited with code 0");
}

// A thread that has `stream` for itself for ever, as one has that reads what
// does not come.
void HoldForEver(FILE* stream) {
  std::thread([stream] {
    flockfile(stream);
    Forever();
  }).detach();
  while (ftrylockfile(stream) == 0) {
    funlockfile(stream);
    std::this_thread::yield();
  }
}

// It is killed if it has not ended soon.
ProcessExit ExitSoonOf(Process& process) {
  const auto exit = process.Wait(MonotonicNow() + absl::Seconds(10));
  if (exit.ok()) return *exit;
  EXPECT_TRUE(process.Kill(SIGKILL).ok());
  return ExitOf(process);
}

TEST(PosixFork, NoThreadThatHasAStreamKeepsAChildFromItsEnd) {
  Pipe said;
  ForkOptions options;
  options.keep_open = {said.write_end.get()};
  const auto process = Fork(
      [&said] {
        FILE* const out = fdopen(said.write_end.get(), "w");
        FILE* const written = fdopen(open("/dev/null", O_WRONLY), "w");
        FILE* const read = fdopen(open("/dev/null", O_RDONLY), "r");
        if (out == nullptr || written == nullptr || read == nullptr) return 1;
        std::fputs("said", out);
        std::fputs("half a li", written);
        HoldForEver(written);
        HoldForEver(read);
#ifndef ABSL_HAVE_THREAD_SANITIZER  // Whose _exit() waits for stdout.
        // The C++ streams' own.
        HoldForEver(stdout);
        HoldForEver(stderr);
#endif
        return 7;
      },
      options);
  EXPECT_EQ(ExitSoonOf(*process).ToString(), "exited with code 7");
  EXPECT_EQ(said.ReadAll(), "said");
}

TEST(PosixFork, NoThreadThatHasAStreamKeepsAnOwnerFromForking) {
  Pipe said;
  ForkOptions options;
  options.keep_open = {said.write_end.get()};
  const auto owner = Fork(
      [&said] {
        FILE* const out = fdopen(said.write_end.get(), "w");
        FILE* const read = fdopen(open("/dev/null", O_RDONLY), "r");
        if (out == nullptr || read == nullptr) return 1;
        std::fputs("said", out);
        HoldForEver(read);
        ForkOptions with_threads;
        with_threads.allow_threads = true;
        with_threads.keep_open = {said.write_end.get()};
        const auto child = Fork([] { return 0; }, with_threads);
        if (!ExitOf(*child).clean()) return 2;
        // A stream can be opened and closed still.
        std::fclose(out);
        return 0;
      },
      options);
  EXPECT_EQ(ExitSoonOf(*owner).ToString(), "exited with code 0");
  EXPECT_EQ(said.ReadAll(), "said") << "and not twice";
}

// Which may be in the midst of that, and for long.
TEST(PosixFork, WritesNothingThatAnotherThreadIsWriting) {
  Pipe said;
  ForkOptions options;
  options.keep_open = {said.write_end.get(), said.read_end.get()};
  const auto owner = Fork(
      [&said]() -> int {
        FILE* const out = fdopen(said.write_end.get(), "w");
        if (out == nullptr) return 1;
        // As much as there is room for, so that what is "said" has none.
        const int room = fcntl(said.write_end.get(), F_GETPIPE_SZ);
        const std::string filling(static_cast<size_t>(room), '.');
        if (write(said.write_end.get(), filling.data(), filling.size()) !=
            room) {
          return 2;
        }
        std::fputs("said", out);
        std::thread writer([out] { std::fflush(out); });
        // Until it has the stream's lock, and waits.
        while (ftrylockfile(out) == 0) {
          funlockfile(out);
          std::this_thread::yield();
        }
        ForkOptions with_threads;
        with_threads.allow_threads = true;
        with_threads.keep_open = {said.write_end.get()};
        const auto child = Fork([] { return 0; }, with_threads);
        if (!ExitOf(*child).clean()) return 3;
        std::string got(filling.size(), '\0');
        if (read(said.read_end.get(), got.data(), got.size()) != room) return 4;
        writer.join();
        std::fclose(out);
        return 0;
      },
      options);
  EXPECT_EQ(ExitSoonOf(*owner).ToString(), "exited with code 0");
  EXPECT_EQ(said.ReadAll(), "said") << "and not twice";
}

// This program's main() is GoogleTest's.
TEST(PosixExec, RefusesAProgramThatWouldRunItsMainAgain) {
  const auto process = PosixExec("entry", {}, ProcessGroup::kParents);
  EXPECT_EQ(process.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(process.status().message(), "ServeIfExeced"))
      << process.status();
}

TEST(PosixAdoptProcess, WatchesWhatIsNotItsChildAndReapsNothing) {
  const auto process = Fork(Forever);
  auto duplicate = FileDescriptor::DuplicateOf(process->descriptor());
  ASSERT_TRUE(duplicate.ok());
  const auto adopted = PosixAdoptProcess(*std::move(duplicate), geteuid());
  ASSERT_TRUE(adopted.ok()) << adopted.status();
  EXPECT_EQ((*adopted)->pid(), process->pid());
  EXPECT_FALSE((*adopted)->Ending());
  EXPECT_TRUE((*adopted)->Kill(SIGKILL).ok());
  EXPECT_TRUE((*adopted)->Wait(absl::InfiniteFuture()).ok());
  EXPECT_EQ(ExitOf(*process).kind, ProcessExit::Kind::kSignaled);
}

TEST(PosixAdoptProcess, RefusesAProcessOfAnotherUserAndWhatIsNone) {
  const auto process = Fork(Forever);
  auto duplicate = FileDescriptor::DuplicateOf(process->descriptor());
  ASSERT_TRUE(duplicate.ok());
  const uid_t other = geteuid() + 1;
  const auto foreign = PosixAdoptProcess(*std::move(duplicate), other);
  EXPECT_TRUE(HasReason(foreign.status(), reason::kInvalidArguments))
      << foreign.status();
  Pipe pipe;
  const auto none = PosixAdoptProcess(std::move(pipe.read_end), geteuid());
  EXPECT_TRUE(HasReason(none.status(), reason::kInvalidArguments))
      << none.status();
  EXPECT_TRUE(process->Kill(SIGKILL).ok());
  (void)ExitOf(*process);
}

}  // namespace
}  // namespace ward

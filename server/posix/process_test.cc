#include "ward/server/posix/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/posix_wait.h"
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
        const auto open = [](int fd) { return fcntl(fd, F_GETFD) >= 0; };
        const bool right =
            open(0) && open(1) && open(2) && open(high) &&
            open(kept.write_end.get()) && !open(kept.read_end.get()) &&
            !open(other.read_end.get()) && !open(other.write_end.get());
        return right ? 0 : 1;
      },
      options);
  close(high);
  EXPECT_TRUE(ExitOf(*process).clean());
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

// A server quits by itself when the last of its owners is gone, however they
// went, and leaves nothing.

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/abstract_server.h"
#include "ward/server/server_for_test.h"
#include "ward/server/server_options.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using ::testing::IsEmpty;

class OwnerDeathTest : public NothingLeftTest {
 protected:
  // In the owner: starts a server, reports its pid, and waits to be killed.
  static int Own(TestServer& server, const Pipe& report) {
    if (!server.Start().ok()) return 1;
    WriteAll(report.write.get(), absl::StrCat(server.server_pid()));
    return Wait();
  }

  static int Wait() {
    while (true) pause();
  }

  static pid_t ReadPid(const Pipe& report) {
    pid_t pid = 0;
    EXPECT_TRUE(absl::SimpleAtoi(ReadSome(report.read.get()), &pid));
    return pid;
  }

  // Kills the last owner, and returns how long the server lived on. Its process
  // has come to this one, and is reaped.
  absl::Duration Outlives(Child& owner, pid_t server, int exit_code) {
    const FileDescriptor pidfd = OpenPidfd(server);
    EXPECT_TRUE(pidfd.is_open());
    const Stopwatch watch;
    owner.Kill();
    const bool ends = BecomesReadable(pidfd.get());
    EXPECT_TRUE(ends) << "the server has no owner, and does not end";
    const absl::Duration lived = watch.Elapsed();
    if (!ends) kill(server, SIGKILL);
    EXPECT_EQ(owner.Wait(), -SIGKILL);
    EXPECT_EQ(Reap(server), exit_code);
    return lived;
  }

  // That the kernel's word of an owner's death ended servers soon; where it is
  // so busy that processes of a few lines took long, in so many times as long.
  static void ExpectSoon(const std::vector<absl::Duration>& servers,
                         const std::vector<absl::Duration>& bare_processes) {
    std::cout << servers.size() << " owners killed; gone after (median) "
              << Median(servers) << ", (longest) "
              << *std::max_element(servers.begin(), servers.end())
              << "; a bare process " << Median(bare_processes) << "\n";
    RecordProperty("gone_after", absl::FormatDuration(Median(servers)));
    EXPECT_LT(Median(servers),
              std::max(absl::Milliseconds(kUnderSanitizer ? 1000 : 100),
                       10 * Median(bare_processes)));
  }

  // What Outlives() is for a process that does nothing but wait for its owner.
  absl::Duration ABareProcessOutlivesItsOwner() {
    const Pipe report = MakePipe();
    Child owner([&] {
      Pipe life = MakePipe();
      const pid_t owned = fork();
      if (owned == 0) {
        life.write.Reset();
        ReadSome(life.read.get());
        _exit(0);
      }
      WriteAll(report.write.get(), absl::StrCat(owned));
      return Wait();
    });
    return Outlives(owner, ReadPid(report), 0);
  }
};

TEST_F(OwnerDeathTest, TheServerIsGone100MillisecondsAfterItsOwnerWasKilled) {
  std::vector<absl::Duration> times;
  std::vector<absl::Duration> least;
  for (int i = 0; i < 9; ++i) {
    least.push_back(ABareProcessOutlivesItsOwner());
    const Pipe report = MakePipe();
    // At a path that was chosen, or in a directory that was made for it.
    TestServer server(i % 2 == 0 ? Shared() : ServerOptions());
    Child owner([&] { return Own(server, report); });
    const pid_t pid = ReadPid(report);
    EXPECT_EQ(NamesIn(directory()).size(), 1u);
    times.push_back(Outlives(owner, pid, 0));
    EXPECT_THAT(NamesIn(directory()), IsEmpty());
  }
  ExpectSoon(times, least);
}

TEST_F(OwnerDeathTest, WithTwoOwnersItLivesUntilTheSecondIsKilled) {
  const Pipe report = MakePipe();
  const Pipe second_report = MakePipe();
  TestServer server(Shared());
  Child first([&] {
    if (!server.Start().ok()) return 1;
    if (fork() == 0) {
      WriteAll(second_report.write.get(), absl::StrCat(getpid()));
      return Wait();
    }
    WriteAll(report.write.get(), absl::StrCat(server.server_pid()));
    return Wait();
  });
  const pid_t pid = ReadPid(report);
  const pid_t second = ReadPid(second_report);
  first.Kill();
  EXPECT_EQ(first.Wait(), -SIGKILL);
  for (int i = 0; i < 10; ++i) {
    EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  }

  const FileDescriptor pidfd = OpenPidfd(pid);
  const Stopwatch watch;
  ASSERT_EQ(kill(second, SIGKILL), 0);
  EXPECT_TRUE(BecomesReadable(pidfd.get()));
  std::cout << "gone after " << watch.Elapsed() << "\n";
  EXPECT_EQ(Reap(second), -SIGKILL);
  EXPECT_EQ(Reap(pid), 0);
  EXPECT_FALSE(Exists(path()));
}

TEST_F(OwnerDeathTest, AHandlerOfASignalThatHangsKeepsNoServerWithoutAnOwner) {
  const Pipe report = MakePipe();
  Pipe handled = MakePipe();
  ServerOptions options = Shared();
  options.stop.kill_after = absl::Milliseconds(10);
  options.launch.fork.keep_open = {handled.write.get()};
  TestServer server(std::move(options));
  server.DefineSignalHandler(SIGUSR1, [&handled] {
    WriteAll(handled.write.get(), "x");
    Wait();
  });
  Child owner([&] { return Own(server, report); });
  const pid_t pid = ReadPid(report);
  ASSERT_EQ(kill(pid, SIGUSR1), 0);
  ASSERT_EQ(ReadSome(handled.read.get()), "x");
  Outlives(owner, pid, -SIGKILL);
  EXPECT_FALSE(Exists(path()));
}

// --- at every moment of a server's life ---

enum class Life { kHangsWhenLoaded, kHangsWhenInitialized, kServes };

// Set in the environment: a program that hangs before its main().
constexpr char kHangsWhenLoaded[] = "WARD_TEST_HANGS_WHEN_LOADED";

[[noreturn]] void Hang() {
  while (true) pause();
}

[[maybe_unused]] const bool kLoaded = [] {
  if (!testing::EnvironmentVariable(kHangsWhenLoaded).empty()) Hang();
  return true;
}();

struct Hanging : Registered<Hanging> {
  using Registered::Registered;
  absl::Status InitializeServer() override { Hang(); }
};

class OwnerDeathAtAnyMomentTest : public OwnerDeathTest {
 protected:
  // In the owner, until it is killed.
  [[noreturn]] void LiveThrough(StartMode mode, Life life) const {
    if (life == Life::kHangsWhenLoaded) setenv(kHangsWhenLoaded, "1", 1);
    const auto options = [&] {
      ServerOptions made = Shared();
      made.start_mode = mode;
      return made;
    };
    while (true) {
      if (life == Life::kHangsWhenInitialized) {
        Hanging server(options());
        (void)server.Start();
      } else {
        TestServer server(options());
        (void)server.Start();
        (void)Call(server, "echo", "x");
      }
    }
  }

  // Kills an owner `age` after it has begun, and returns for how long anything
  // of it was left.
  absl::Duration OutlivesItsOwner(StartMode mode, Life life,
                                  absl::Duration age) {
    Pipe begun = MakePipe();
    // The servers have the owner's standard input, and it is open as long as
    // any of them lives.
    Pipe lives = MakePipe();
    Child owner([&]() -> int {
      dup2(lives.write.get(), STDIN_FILENO);
      lives.write.Reset();
      WriteAll(begun.write.get(), "x");
      LiveThrough(mode, life);
    });
    lives.write.Reset();
    EXPECT_EQ(ReadSome(begun.read.get()), "x");
    absl::SleepFor(age);
    const Stopwatch watch;
    owner.Kill();
    EXPECT_TRUE(BecomesReadable(lives.read.get(), kOrphan));
    const absl::Duration lived = watch.Elapsed();
    EXPECT_EQ(owner.Wait(), -SIGKILL);
    if (!HasFailure()) {
      // Those that were its have come to this process.
      while (waitpid(-1, nullptr, 0) > 0 || errno == EINTR) {
      }
    }
    // Those that were killed have left what they had made of the name.
    for (const std::string& name : NamesIn(directory())) {
      unlink(absl::StrCat(directory(), "/", name).c_str());
    }
    return lived;
  }

  void KillOwnersOf(StartMode mode, const std::vector<Life>& lives) {
    const uint64_t runs = testing::EnvironmentNumber("WARD_RUNS", 60);
    std::mt19937 random(static_cast<unsigned>(testing::RunNumber()));
    std::uniform_int_distribution<int> microseconds(0, 12000);
    std::vector<absl::Duration> times;
    std::vector<absl::Duration> least;
    for (uint64_t i = 0; i < runs && !HasFailure(); ++i) {
      if (i % 8 == 0) least.push_back(ABareProcessOutlivesItsOwner());
      times.push_back(
          OutlivesItsOwner(mode, lives[i % lives.size()],
                           absl::Microseconds(microseconds(random))));
    }
    ExpectSoon(times, least);
  }

 private:
  // What lives as long has not noticed.
  static constexpr absl::Duration kOrphan = absl::Seconds(10);
};

// With --test_env=WARD_RUNS=1000 a thousand of each.
TEST_F(OwnerDeathAtAnyMomentTest, EndsAForkedServer) {
  KillOwnersOf(StartMode::kFork, {Life::kHangsWhenInitialized, Life::kServes});
}

TEST_F(OwnerDeathAtAnyMomentTest, EndsAServerStartedByExec) {
  KillOwnersOf(StartMode::kExec, {Life::kHangsWhenLoaded,
                                  Life::kHangsWhenInitialized, Life::kServes});
}

// --- while it waits for a lock that nobody will ever open ---

// Has another thread hold the C library's lock of rand(3) and random(3), for
// ever: it is to write a state where it cannot be written.
void HoldRandomsLock() {
  const long page = sysconf(_SC_PAGESIZE);
  static void* const kState =
      mmap(nullptr, static_cast<size_t>(page), PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  static Pipe& held = *new Pipe(MakePipe());
  struct sigaction action {};
  action.sa_handler = [](int /*signal*/) {
    WriteAll(held.write.get(), "x");
    Hang();
  };
  sigaction(SIGSEGV, &action, nullptr);
  std::thread([] { initstate(1, static_cast<char*>(kState), 128); }).detach();
  ReadSome(held.read.get());
}

int told_of_fork = -1;

TEST_F(OwnerDeathTest, EndsAServerThatHangsInALockBeforeItRuns) {
  const Pipe forked = MakePipe();
  Child owner([&] {
    HoldRandomsLock();
    told_of_fork = forked.write.get();
    pthread_atfork(nullptr, nullptr,
                   [] { WriteAll(told_of_fork, absl::StrCat(getpid())); });
    ServerOptions options = Shared();
    options.launch.fork.allow_threads = true;
    TestServer server(std::move(options));
    (void)server.Start();
    return 1;
  });
  const pid_t server = ReadPid(forked);
  Outlives(owner, server, -SIGKILL);
  unlink(path().c_str());
}

TEST_F(OwnerDeathTest, AProgramThatTheOwnerStartedIsNoOwner) {
  const Pipe report = MakePipe();
  const Pipe to_program = MakePipe();
  const Pipe from_program = MakePipe();
  TestServer server(Shared());
  Child owner([&] {
    if (!server.Start().ok()) return 1;
    const pid_t program = fork();
    if (program == 0) {
      dup2(to_program.read.get(), STDIN_FILENO);
      dup2(from_program.write.get(), STDOUT_FILENO);
      execlp("cat", "cat", nullptr);
      _exit(1);
    }
    WriteAll(report.write.get(),
             absl::StrCat(server.server_pid(), " ", program));
    return Wait();
  });
  const std::string pids = ReadSome(report.read.get());
  pid_t pid = 0;
  pid_t program = 0;
  ASSERT_TRUE(absl::SimpleAtoi(pids.substr(0, pids.find(' ')), &pid));
  ASSERT_TRUE(absl::SimpleAtoi(pids.substr(pids.find(' ') + 1), &program));
  WriteAll(to_program.write.get(), "it runs");
  ASSERT_EQ(ReadSome(from_program.read.get()), "it runs");

  Outlives(owner, pid, 0);
  EXPECT_EQ(kill(program, SIGKILL), 0);  // It was there all the while.
  EXPECT_EQ(Reap(program), -SIGKILL);
}

TEST_F(OwnerDeathTest, AServerThatWasKilledLeavesNothingWhenItIsStopped) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  const FileDescriptor pidfd = OpenPidfd(server.server_pid());
  ASSERT_EQ(kill(server.server_pid(), SIGKILL), 0);
  ASSERT_TRUE(BecomesReadable(pidfd.get()));
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
  EXPECT_THAT(NamesIn(directory()), IsEmpty());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(NamesIn(directory()), IsEmpty());
}

}  // namespace
}  // namespace ward

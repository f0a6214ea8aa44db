// Programs that send signals to themselves: who takes them, and when, is the
// schedule's.

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <semaphore>
#include <thread>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/environment.h"
#include "ward/server/process.h"
#include "ward/testing/explore.h"
#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {
namespace {

// Who sleeps gives the others time to come to where they wait.
void Everywhere(void (*body)()) {
  ExploreOptions options;
  options.runs = 200;
  options.early_sleeps = false;
  for (const Search search : {Search::kPortfolio, Search::kRandom, Search::kPct,
                              Search::kDepthFirst}) {
    options.search = search;
    Explore(options, body);
  }
  for (uint64_t run = 0; run < 10; ++run) {
    EXPECT_EQ(FingerprintOfRun(options, run, body),
              FingerprintOfRun(options, run, body));
  }
}

sigset_t Only(int signal) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  return set;
}

// Of the calling thread and those that it starts, for a while.
class Blocked {
 public:
  explicit Blocked(int signal) {
    const sigset_t set = Only(signal);
    EXPECT_EQ(pthread_sigmask(SIG_BLOCK, &set, &found_), 0);
  }
  Blocked(const Blocked&) = delete;
  Blocked& operator=(const Blocked&) = delete;
  ~Blocked() { pthread_sigmask(SIG_SETMASK, &found_, nullptr); }

 private:
  sigset_t found_;
};

volatile sig_atomic_t handled;
pthread_t handler_thread;

// Notes who runs it.
void Handle(int signal, int flags = SA_RESTART) {
  handled = 0;
  struct sigaction action {};
  action.sa_handler = [](int) {
    handled = handled + 1;
    handler_thread = pthread_self();
  };
  action.sa_flags = flags;
  ASSERT_EQ(sigaction(signal, &action, nullptr), 0);
}

TEST(Signals, ASignalfdIsReadByALoop) {
  Everywhere([] {
    const Blocked blocked(SIGUSR1);
    const sigset_t set = Only(SIGUSR1);
    const FileDescriptor signals(signalfd(-1, &set, SFD_CLOEXEC));
    std::thread loop([&] {
      pollfd polled{signals.get(), POLLIN, 0};
      ASSERT_EQ(poll(&polled, 1, -1), 1);
      signalfd_siginfo taken;
      ASSERT_EQ(read(signals.get(), &taken, sizeof(taken)),
                static_cast<ssize_t>(sizeof(taken)));
      EXPECT_EQ(taken.ssi_signo, static_cast<uint32_t>(SIGUSR1));
    });
    EXPECT_EQ(kill(getpid(), SIGUSR1), 0);
    loop.join();
    EXPECT_EQ(raise(SIGUSR1), 0);
    signalfd_siginfo taken;
    EXPECT_EQ(read(signals.get(), &taken, sizeof(taken)),
              static_cast<ssize_t>(sizeof(taken)));
  });
}

TEST(Signals, TheSenderTakesItBeforeKillReturns) {
  Everywhere([] {
    Handle(SIGUSR1);
    std::thread other([] {
      EXPECT_EQ(kill(getpid(), SIGUSR1), 0);
      EXPECT_EQ(handled, 1);
      EXPECT_NE(pthread_equal(handler_thread, pthread_self()), 0);
    });
    std::this_thread::sleep_for(std::chrono::seconds(1));
    other.join();
  });
}

// A loop that is told to end by a flag, which it lets be set only while it
// waits.
TEST(Signals, AnotherThreadTakesWhatTheSenderBlocks) {
  Everywhere([] {
    Handle(SIGUSR1);
    sigset_t none;
    sigemptyset(&none);
    const Blocked blocked(SIGUSR1);
    std::thread other([] { EXPECT_EQ(kill(getpid(), SIGUSR1), 0); });
    const pthread_t self = pthread_self();
    while (handled == 0) {
      EXPECT_EQ(ppoll(nullptr, 0, nullptr, &none), -1);
      EXPECT_EQ(errno, EINTR);
    }
    EXPECT_NE(pthread_equal(handler_thread, self), 0);
    other.join();
  });
}

// It is looked at, set, and waited for too late: a classic.
TEST(Signals, AFlagThatIsLookedAtTooEarlyIsFound) {
  const Exploration found = FindFailure({.runs = 100}, [] {
    Handle(SIGUSR1);
    std::thread other([] {
      const Blocked blocked(SIGUSR1);
      EXPECT_EQ(kill(getpid(), SIGUSR1), 0);
    });
    if (handled == 0) {
      EXPECT_EQ(poll(nullptr, 0, 1000), -1) << "missed";
    }
    other.join();
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_TRUE(found.failure->replayed);
}

// It is sent, and what its handler looks at is set too late.
TEST(Signals, WhatIsDoneAfterOneIsSentMayBeTooLate) {
  void (*const sendings[])(pthread_t) = {
      [](pthread_t to) { EXPECT_EQ(pthread_kill(to, SIGUSR1), 0); },
      [](pthread_t) {
        const Blocked blocked(SIGUSR1);
        EXPECT_EQ(kill(getpid(), SIGUSR1), 0);
      },
  };
  for (void (*const send)(pthread_t) : sendings) {
    const Exploration found = FindFailure({.runs = 1000}, [send] {
      static volatile bool is_set;
      static volatile bool was_set;
      is_set = false;
      was_set = true;
      struct sigaction action {};
      action.sa_handler = [](int) { was_set = is_set; };
      ASSERT_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
      std::thread other(
          [] { std::this_thread::sleep_for(std::chrono::seconds(1)); });
      send(other.native_handle());
      is_set = true;
      other.join();
      EXPECT_TRUE(was_set);
    });
    ASSERT_TRUE(found.failure.has_value());
    EXPECT_TRUE(found.failure->replayed);
  }
}

TEST(Signals, AThreadTakesItInItsSleep) {
  Everywhere([] {
    Handle(SIGUSR1);
    std::thread sleeper([] {
      EXPECT_EQ(sleep(100), 70u);
      EXPECT_NE(pthread_equal(handler_thread, pthread_self()), 0);
    });
    std::this_thread::sleep_for(std::chrono::seconds(30));
    EXPECT_EQ(pthread_kill(sleeper.native_handle(), SIGUSR1), 0);
    sleeper.join();
    EXPECT_EQ(handled, 1);
  });
}

TEST(Signals, AReadIsInterruptedUnlessItIsStartedAnew) {
  for (const int flags : {0, SA_RESTART}) {
    Explore({.runs = 200, .early_sleeps = false}, [flags] {
      Handle(SIGUSR1, flags);
      int ends[2];
      ASSERT_EQ(pipe(ends), 0);
      const FileDescriptor from(ends[0]);
      const FileDescriptor to(ends[1]);
      std::thread reader([&] {
        char byte;
        const ssize_t got = read(from.get(), &byte, 1);
        EXPECT_EQ(got, flags == 0 ? -1 : 1);
        if (got < 0) {
          EXPECT_EQ(errno, EINTR);
        }
      });
      std::this_thread::sleep_for(std::chrono::seconds(1));
      EXPECT_EQ(pthread_kill(reader.native_handle(), SIGUSR1), 0);
      std::this_thread::sleep_for(std::chrono::seconds(1));
      EXPECT_EQ(write(to.get(), "x", 1), 1);
      reader.join();
      EXPECT_EQ(handled, 1);
    });
  }
}

// signal(7): what is started anew with SA_RESTART, and what never is.
TEST(Signals, AWaitIsInterruptedAsTheKernelsIs) {
  static uint32_t word;
  static FileDescriptor end;
  static FileDescriptor other_end;
  using Wait = long (*)();
  static constexpr timespec kLimit = {3600, 0};
  const auto limit_reading = [] {
    const timeval limit = {3600, 0};
    setsockopt(end.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  };
  const struct {
    const char* name;
    Wait wait;
    bool is_started_anew;
    void (*prepare)() = [] {};
  } waits[] = {
      {"FUTEX_WAIT",
       [] { return syscall(SYS_futex, &word, FUTEX_WAIT, 0, nullptr); }, true},
      {"FUTEX_WAIT_BITSET",
       [] {
         return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, nullptr,
                        nullptr, FUTEX_BITSET_MATCH_ANY);
       },
       true},
      {"FUTEX_WAIT with a limit",
       [] { return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &kLimit); }, false},
      {"read",
       [] {
         char byte;
         return long{read(end.get(), &byte, 1)};
       },
       true},
      {"recv",
       [] {
         char byte;
         return long{recv(end.get(), &byte, 1, 0)};
       },
       true},
      {"recv with SO_RCVTIMEO",
       [] {
         char byte;
         return long{recv(end.get(), &byte, 1, 0)};
       },
       false, limit_reading},
      {"poll",
       [] {
         pollfd polled{end.get(), POLLIN, 0};
         return long{poll(&polled, 1, -1)};
       },
       false},
      {"select",
       [] {
         fd_set set;
         FD_ZERO(&set);
         FD_SET(end.get(), &set);
         return long{select(end.get() + 1, &set, nullptr, nullptr, nullptr)};
       },
       false},
      {"epoll_wait",
       [] {
         const FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
         epoll_event event{};
         return long{epoll_wait(epoll.get(), &event, 1, -1)};
       },
       false},
      {"nanosleep", [] { return long{nanosleep(&kLimit, nullptr)}; }, false},
      {"clock_nanosleep",
       [] {
         const int error =
             clock_nanosleep(CLOCK_MONOTONIC, 0, &kLimit, nullptr);
         errno = error;
         return error == 0 ? 0L : -1L;
       },
       false},
  };
  for (const auto& wait : waits) {
    for (const int flags : {0, SA_RESTART}) {
      Explore({.runs = 50, .early_sleeps = false}, [&wait, flags] {
        const bool goes_on = flags != 0 && wait.is_started_anew;
        Handle(SIGUSR1, flags);
        word = 0;
        int ends[2];
        ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        end.Reset(ends[0]);
        other_end.Reset(ends[1]);
        wait.prepare();
        std::thread waiter([&] {
          const long result = wait.wait();
          const int error = errno;
          EXPECT_EQ(result < 0, !goes_on) << wait.name;
          if (result < 0) {
            EXPECT_EQ(error, EINTR) << wait.name;
          }
          EXPECT_EQ(handled, 1) << wait.name;
        });
        std::this_thread::sleep_for(std::chrono::seconds(1));
        EXPECT_EQ(pthread_kill(waiter.native_handle(), SIGUSR1), 0);
        std::this_thread::sleep_for(std::chrono::seconds(1));
        word = 1;
        EXPECT_EQ(syscall(SYS_futex, &word, FUTEX_WAKE, 1),
                  goes_on && wait.name[0] == 'F' ? 1 : 0);
        EXPECT_EQ(write(other_end.get(), "x", 1), 1);
        waiter.join();
        end.Reset();
        other_end.Reset();
      });
    }
  }
}

// The C++ library waits on, as POSIX has pthread_cond_wait do.
TEST(Signals, NoHandlerEndsAWaitForAnAtomicOrACondition) {
  Explore({.runs = 200, .early_sleeps = false}, [] {
    Handle(SIGUSR1, 0);
    std::atomic<int> value{0};
    std::counting_semaphore<1> semaphore(0);
    std::mutex mutex;
    std::condition_variable_any condition;
    bool is_set = false;
    std::thread waiter([&] {
      value.wait(0);
      EXPECT_EQ(value, 1);
      semaphore.acquire();
      std::unique_lock lock(mutex);
      EXPECT_TRUE(condition.wait_for(lock, std::chrono::hours(1),
                                     [&] { return is_set; }));
    });
    const auto interrupt = [&] {
      std::this_thread::sleep_for(std::chrono::seconds(1));
      EXPECT_EQ(pthread_kill(waiter.native_handle(), SIGUSR1), 0);
      std::this_thread::sleep_for(std::chrono::seconds(1));
    };
    interrupt();
    value = 1;
    value.notify_one();
    interrupt();
    semaphore.release();
    interrupt();
    {
      const std::lock_guard lock(mutex);
      is_set = true;
    }
    condition.notify_one();
    waiter.join();
    EXPECT_EQ(handled, 3);
  });
}

TEST(Signals, ASemaphoreIsInterruptedAsTheKernelsIs) {
  for (const int flags : {0, SA_RESTART}) {
    Explore({.runs = 200, .early_sleeps = false}, [flags] {
      Handle(SIGUSR1, flags);
      sem_t semaphore;
      sem_init(&semaphore, 0, 0);
      std::thread waiter([&] {
        EXPECT_EQ(sem_wait(&semaphore), flags == 0 ? -1 : 0);
        if (flags == 0) {
          EXPECT_EQ(errno, EINTR);
        }
        const timespec limit =
            absl::ToTimespec(Scheduler::Current()->now() + absl::Hours(1));
        EXPECT_EQ(sem_timedwait(&semaphore, &limit), -1);
        EXPECT_EQ(errno, EINTR) << "with either";
      });
      std::this_thread::sleep_for(std::chrono::seconds(1));
      EXPECT_EQ(pthread_kill(waiter.native_handle(), SIGUSR1), 0);
      std::this_thread::sleep_for(std::chrono::seconds(1));
      if (flags != 0) {
        EXPECT_EQ(sem_post(&semaphore), 0);
      }
      std::this_thread::sleep_for(std::chrono::seconds(1));
      EXPECT_EQ(pthread_kill(waiter.native_handle(), SIGUSR1), 0);
      waiter.join();
      EXPECT_EQ(handled, 2);
      sem_destroy(&semaphore);
    });
  }
}

TEST(Signals, ALockIsWaitedForOnAfterIt) {
  Everywhere([] {
    Handle(SIGUSR1);
    std::mutex mutex;
    mutex.lock();
    bool locked = false;
    std::thread waiter([&] {
      const std::lock_guard<std::mutex> lock(mutex);
      locked = true;
    });
    std::this_thread::sleep_for(std::chrono::seconds(1));
    EXPECT_EQ(pthread_kill(waiter.native_handle(), SIGUSR1), 0);
    std::this_thread::sleep_for(std::chrono::seconds(1));
    EXPECT_EQ(handled, 1);
    EXPECT_FALSE(locked);
    mutex.unlock();
    waiter.join();
    EXPECT_TRUE(locked);
  });
}

TEST(Signals, AThreadWaitsForThem) {
  Everywhere([] {
    const Blocked blocked(SIGTERM);
    std::thread waiter([] {
      const sigset_t set = Only(SIGTERM);
      int signal = 0;
      EXPECT_EQ(sigwait(&set, &signal), 0);
      EXPECT_EQ(signal, SIGTERM);
      const timespec limit = {30, 0};
      const absl::Time start = Scheduler::Current()->now();
      EXPECT_EQ(sigtimedwait(&set, nullptr, &limit), -1);
      EXPECT_EQ(errno, EAGAIN);
      EXPECT_EQ(Scheduler::Current()->now() - start, absl::Seconds(30));
    });
    EXPECT_EQ(kill(getpid(), SIGTERM), 0);
    waiter.join();
  });
}

// Of all, the harness's own are left out.
TEST(Signals, AThreadWaitsForWhateverComes) {
  ExploreOptions options;
  options.runs = 2000;
  Explore(options, [] {
    sigset_t all;
    sigfillset(&all);
    sigset_t before;
    ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &all, &before), 0);
    std::thread waiter([&all] {
      int signal = 0;
      EXPECT_EQ(sigwait(&all, &signal), 0);
      EXPECT_EQ(signal, SIGTERM);
    });
    std::mutex mutex;
    for (int i = 0; i < 50; ++i) {
      const std::lock_guard<std::mutex> lock(mutex);
    }
    EXPECT_EQ(kill(getpid(), SIGTERM), 0);
    waiter.join();
    EXPECT_EQ(pthread_sigmask(SIG_SETMASK, &before, nullptr), 0);
  });
}

TEST(Signals, MainSuspendsItselfUntilOneComes) {
  Everywhere([] {
    Handle(SIGUSR1);
    const Blocked blocked(SIGUSR1);
    std::thread other([] { EXPECT_EQ(kill(getpid(), SIGUSR1), 0); });
    sigset_t none;
    sigemptyset(&none);
    EXPECT_EQ(sigsuspend(&none), -1);
    EXPECT_EQ(errno, EINTR);
    EXPECT_EQ(handled, 1);
    other.join();
  });
}

// A real child ends, and says so while it is waited for, and only then.
TEST(Signals, OneOfTheWorldIsLetThroughByWhoWaits) {
  using Wait = int (*)(const sigset_t* mask);
  constexpr Wait kWaits[] = {
      [](const sigset_t* mask) { return sigsuspend(mask); },
      [](const sigset_t* mask) { return ppoll(nullptr, 0, nullptr, mask); },
      [](const sigset_t* mask) {
        return pselect(0, nullptr, nullptr, nullptr, nullptr, mask);
      },
  };
  for (const Wait wait_with : kWaits) {
    Explore({.runs = 3, .early_sleeps = false}, [wait_with] {
      Handle(SIGCHLD);
      sigset_t none;
      sigemptyset(&none);
      const Blocked blocked(SIGCHLD);
      std::thread other(
          [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); });
      const pid_t child = fork();
      if (child == 0) {
        usleep(50'000);  // A real one.
        _exit(7);
      }
      while (handled == 0) {
        EXPECT_EQ(wait_with(&none), -1);
        EXPECT_EQ(errno, EINTR);
      }
      EXPECT_EQ(handled, 1);
      EXPECT_EQ(waitpid(child, nullptr, WNOHANG), child);
      other.join();
    });
  }
}

// As the kernel drops it.
TEST(Signals, OneThatIsIgnoredEndsNoWait) {
  Explore({.runs = 10, .early_sleeps = false}, [] {
    signal(SIGCHLD, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    const Blocked blocked(SIGCHLD);
    EXPECT_EQ(kill(getpid(), SIGCHLD), 0);
    const timespec limit = {1, 0};
    EXPECT_EQ(ppoll(nullptr, 0, &limit, &none), 0);
  });
}

// Its handler may itself wait for a while.
TEST(Signals, WhoWaitsForTheWorldDoesSoAfterAHandler) {
  Explore({.runs = 3, .early_sleeps = false}, [] {
    struct sigaction action {};
    action.sa_handler = [](int) { poll(nullptr, 0, 10); };
    action.sa_flags = SA_RESTART;
    ASSERT_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const FileDescriptor from(ends[0]);
    const FileDescriptor to(ends[1]);
    const pid_t child = fork();
    if (child == 0) {
      usleep(200'000);  // A real one.
      (void)!write(to.get(), "x", 1);
      _exit(7);
    }
    std::thread reader([&] {
      char byte;
      EXPECT_EQ(read(from.get(), &byte, 1), 1);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(pthread_kill(reader.native_handle(), SIGUSR1), 0);
    reader.join();
    EXPECT_EQ(waitpid(child, nullptr, 0), child);
  });
}

// One of its own, and not the test's.
TEST(Signals, ASimulatedProcessKillsItself) {
  Everywhere([] {
    auto child = Environment::Default().Fork({}, [] {
      kill(getpid(), SIGKILL);
      return 0;
    });
    ASSERT_TRUE(child.ok());
    const auto exit = (*child)->Wait(absl::InfiniteFuture());
    ASSERT_TRUE(exit.ok());
    EXPECT_EQ(exit->kind, ProcessExit::Kind::kSignaled);
    EXPECT_EQ(exit->value, SIGKILL);
  });
}

}  // namespace
}  // namespace ward::testing

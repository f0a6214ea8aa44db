// Real children of simulated threads: what handlers of pthread_atfork(3) lock,
// and what a child waits for that it has no thread for.

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/explore.h"
#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// What the child has returned. It is looked for in stacks.
[[gnu::noinline]] int RunInChild(absl::FunctionRef<int()> body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void ReallySleep() { poll(nullptr, 0, 2); }

std::mutex locked_at_forks;
// Set by the test whose forks are meant: handlers stay for ever.
bool has_handlers = false;
int handled = 0;

void HandleForks() {
  [[maybe_unused]] static const int kRegistered = pthread_atfork(
      [] {
        if (has_handlers) locked_at_forks.lock();
      },
      [] {
        if (!has_handlers) return;
        ++handled;
        locked_at_forks.unlock();
      },
      [] {
        if (has_handlers) locked_at_forks.unlock();
      });
  has_handlers = true;
}

TEST(Children, HandlersOfForksTakeLocksInTheSchedule) {
  HandleForks();
  const Exploration found = FindFailure({.runs = 300}, [] {
    handled = 0;
    const auto work = [] {
      for (int i = 0; i < 2; ++i) {
        const std::lock_guard<std::mutex> lock(locked_at_forks);
        std::this_thread::yield();
      }
    };
    const auto fork_one = [] {
      EXPECT_EQ(RunInChild([] {
                  const std::lock_guard<std::mutex> lock(locked_at_forks);
                  return 7;
                }),
                7);
    };
    std::thread worker(work);
    std::thread forker(fork_one);
    fork_one();
    worker.join();
    forker.join();
    EXPECT_EQ(handled, 2);
  });
  has_handlers = false;
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
  EXPECT_GT(found.schedules, 20u);
}

// Of a child that calls `wait` while a thread of its parent may be in `work`.
void ExpectDeadlockInChild(absl::FunctionRef<void()> work,
                           absl::FunctionRef<void()> wait,
                           const std::string& waiting) {
  const auto body = [&] {
    std::thread worker([&] { work(); });
    RunInChild([&] {
      wait();
      return 0;
    });
    worker.join();
  };
  ExploreOptions options;
  options.runs = 300;
  const Exploration found = FindFailure(options, body);
  ASSERT_TRUE(found.failure.has_value()) << waiting;
  EXPECT_TRUE(found.failure->replayed) << waiting;
  EXPECT_THAT(found.failure->what,
              AllOf(HasSubstr("deadlock in a child process: it is " + waiting),
                    HasSubstr("The child waits in:"), HasSubstr("RunInChild"),
                    HasSubstr("pthread_atfork(3)"), Not(HasSubstr("<+0x"))));
}

TEST(Children, WaitForALockThatAThreadOfTheirParentHasLeftLocked) {
  std::mutex mutex;
  const auto lock = [&] {
    const std::lock_guard<std::mutex> its(mutex);
    std::this_thread::yield();
  };
  ExpectDeadlockInChild(lock, lock, "waiting for a mutex");

  std::shared_mutex shared_mutex;
  const auto write = [&] {
    const std::lock_guard<std::shared_mutex> its(shared_mutex);
    std::this_thread::yield();
  };
  const auto read = [&] {
    const std::shared_lock<std::shared_mutex> its(shared_mutex);
    std::this_thread::yield();
  };
  ExpectDeadlockInChild(write, read,
                        "waiting to read under a reader-writer lock");
  ExpectDeadlockInChild(read, write,
                        "waiting to write under a reader-writer lock");

  mtx_t c11s;
  ASSERT_EQ(mtx_init(&c11s, mtx_plain), thrd_success);
  const auto lock_c11s = [&] {
    mtx_lock(&c11s);
    std::this_thread::yield();
    mtx_unlock(&c11s);
  };
  ExpectDeadlockInChild(lock_c11s, lock_c11s, "waiting for a mutex");
  mtx_destroy(&c11s);

  absl::Mutex abseils;
  const auto lock_abseils = [&] {
    const absl::MutexLock its(&abseils);
    std::this_thread::yield();
  };
  ExpectDeadlockInChild(lock_abseils, lock_abseils,
                        "waiting for a mutex, condition or notification");
}

TEST(Children, MayWaitForThreadsOfTheirOwn) {
  const Exploration found = FindFailure({.runs = 20}, [] {
    EXPECT_EQ(RunInChild([] {
                std::mutex mutex;
                std::condition_variable changed;
                absl::Mutex abseils;
                bool is_set = false;
                std::thread other([&] {
                  const absl::MutexLock its(&abseils);
                  const std::lock_guard<std::mutex> lock(mutex);
                  is_set = true;
                  changed.notify_one();
                });
                {
                  std::unique_lock<std::mutex> lock(mutex);
                  changed.wait(lock, [&] { return is_set; });
                }
                { const absl::MutexLock its(&abseils); }
                other.join();
                return 7;
              }),
              7);
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

TEST(Children, MayWaitForC11sThreadsOfTheirOwn) {
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    bool is_set = false;
  };
  const Exploration found = FindFailure({.runs = 20}, [] {
    EXPECT_EQ(RunInChild([] {
                Shared shared;
                thrd_t other;
                thrd_create(
                    &other,
                    [](void* argument) {
                      auto& its = *static_cast<Shared*>(argument);
                      ReallySleep();
                      const std::lock_guard<std::mutex> lock(its.mutex);
                      its.is_set = true;
                      its.changed.notify_one();
                      return 7;
                    },
                    &shared);
                {
                  std::unique_lock<std::mutex> lock(shared.mutex);
                  shared.changed.wait(lock, [&] { return shared.is_set; });
                }
                int result = 0;
                thrd_join(other, &result);
                return result;
              }),
              7);
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

[[noreturn]] void WaitForGood() {
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock<std::mutex> lock(mutex);
  while (true) never.wait(lock);
}

TEST(Children, MayWaitUntilTheyAreKilled) {
  const Exploration found = FindFailure({.runs = 20}, [] {
    const pid_t child = fork();
    if (child == 0) WaitForGood();
    // As long as it takes the child to wait, and not longer.
    std::this_thread::sleep_for(std::chrono::minutes(1));
    EXPECT_EQ(kill(child, SIGKILL), 0);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status));
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
  EXPECT_THAT(found.remarks,
              HasSubstr("a child that has ended while it waited for what no "
                        "thread of it gives"));
}

// Whatever its parent does meanwhile.
TEST(Children, ThatWaitForGoodAreToldOfOnceNobodyKillsThem) {
  using Await = void (*)(pid_t child, int from);
  constexpr Await kAwaits[] = {
      [](pid_t, int from) {
        char byte;
        (void)!read(from, &byte, 1);
      },
      [](pid_t child, int) {
        while (waitpid(child, nullptr, WNOHANG) == 0) usleep(10'000);
      },
      [](pid_t child, int) { waitpid(child, nullptr, 0); },
  };
  for (const Await await : kAwaits) {
    ExploreOptions options;
    options.runs = 1;
    options.max_steps = 1000;
    const Exploration found = FindFailure(options, [await] {
      std::array<int, 2> ends;
      ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
      const pid_t child = fork();
      if (child == 0) WaitForGood();
      close(ends[1]);
      await(child, ends[0]);
      waitpid(child, nullptr, 0);
      close(ends[0]);
    });
    ASSERT_TRUE(found.failure.has_value());
    EXPECT_THAT(found.failure->what,
                StartsWith("deadlock in a child process: it is waiting for a "
                           "condition"));
    EXPECT_FALSE(found.failure->hung);
  }
  sem_t never;
  ASSERT_EQ(sem_init(&never, /*pshared=*/0, 0), 0);
  ExpectDeadlockInChild([] {}, [&] { sem_wait(&never); },
                        "waiting for a semaphore");
}

// Which has none of its parent's either.
TEST(Children, AreForkedByOthers) {
  const Exploration found = FindFailure({.runs = 3}, [] {
    EXPECT_EQ(RunInChild([] {
                std::mutex mutex;
                absl::Notification locked;
                absl::Notification done;
                std::thread holder([&] {
                  const std::lock_guard<std::mutex> lock(mutex);
                  locked.Notify();
                  done.WaitForNotification();
                });
                locked.WaitForNotification();
                const int code = RunInChild([&] {
                  alarm(5);
                  const std::lock_guard<std::mutex> lock(mutex);
                  return 7;
                });
                done.Notify();
                holder.join();
                return code;
              }),
              1);
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_THAT(found.failure->what, StartsWith("deadlock in a child process"));
}

// In memory of this process and of those that it forks.
template <typename T>
class Shared {
 public:
  Shared()
      : memory_(static_cast<T*>(mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE,
                                     MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    EXPECT_NE(memory_, MAP_FAILED);
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { munmap(memory_, sizeof(T)); }

  T& operator*() const { return *memory_; }
  T* operator->() const { return memory_; }

 private:
  T* const memory_;
};

// Of whose end the simulation does not hear, as of a daemon's.
TEST(Children, OfChildrenMayWaitUntilTheyAreKilled) {
  const Exploration found = FindFailure({.runs = 1}, [] {
    EXPECT_EQ(RunInChild([] {
                const pid_t grandchild = fork();
                if (grandchild == 0) WaitForGood();
                usleep(50'000);
                kill(grandchild, SIGKILL);
                int status = 0;
                waitpid(grandchild, &status, 0);
                return WIFSIGNALED(status) ? 7 : 1;
              }),
              7);
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

sem_t posted_by_a_handler;

// sem_post(3) may be called by a handler, and signals come from elsewhere.
TEST(Children, MayWaitForASignalsHandlerToPostASemaphore) {
  ASSERT_EQ(sem_init(&posted_by_a_handler, /*pshared=*/0, 0), 0);
  const Exploration found = FindFailure({.runs = 3}, [] {
    EXPECT_EQ(RunInChild([] {
                signal(SIGALRM, [](int) { sem_post(&posted_by_a_handler); });
                ualarm(100'000, 0);
                while (sem_wait(&posted_by_a_handler) != 0) {
                }
                return 7;
              }),
              7);
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

// A child that says when it is about to wait for good, really: of a condition
// that nobody signals, once it is let.
class ChildToWait {
 public:
  ChildToWait() {
    EXPECT_EQ(sem_init(&*may_wait_, /*pshared=*/1, 0), 0);
    child_ = fork();
    if (child_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sem_wait(&*may_wait_);
    *waits_ = 1;
    WaitForGood();
  }

  // Not in the schedule: until it waits, or nearly.
  void Let() {
    sem_post(&*may_wait_);
    while (*static_cast<volatile int*>(&*waits_) == 0) ReallySleep();
    for (int i = 0; i < 50; ++i) ReallySleep();
  }

  pid_t pid() const { return child_; }

 private:
  Shared<sem_t> may_wait_;
  Shared<int> waits_;
  pid_t child_ = 0;
};

// As if it had written something after the last look.
TEST(Children, ThatWaitForGoodMayHaveLetTheirParentGoOnBefore) {
  const Exploration found = FindFailure({.runs = 1}, [] {
    ChildToWait child;
    int looks = 0;
    Scheduler::Current()->AwaitWorld(
        "waiting for a child",
        [&] {
          const bool has_come = looks > 1;
          if (++looks == 2) child.Let();
          return has_come;
        },
        absl::InfiniteFuture());
    EXPECT_EQ(kill(child.pid(), SIGKILL), 0);
    EXPECT_EQ(waitpid(child.pid(), nullptr, 0), child.pid());
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

// They are not judged, but said with what went wrong.
TEST(Children, ThatWaitForGoodAreSaidOfARunThatIsStuckForOthers) {
  ExploreOptions options;
  options.runs = 1;
  options.max_steps = 1000;
  const Exploration found = FindFailure(options, [] {
    ChildToWait child;
    const pid_t other = fork();
    if (other == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      pause();
      _exit(1);
    }
    bool has_let = false;
    Scheduler::Current()->AwaitWorld(
        "waiting for a child",
        [&] {
          if (!has_let) child.Let();
          return std::exchange(has_let, true);
        },
        absl::InfiniteFuture());
    while (true) std::this_thread::yield();
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_THAT(found.failure->what,
              AllOf(StartsWith("no end after 1000 steps"),
                    HasSubstr("deadlock in a child process: it is waiting for "
                              "a condition"),
                    Not(HasSubstr("<+0x"))));
}

struct Exchange {
  explicit Exchange(int type = PTHREAD_MUTEX_NORMAL) {
    EXPECT_EQ(sem_init(&*asked, /*pshared=*/1, 0), 0);
    EXPECT_EQ(sem_init(&*answered, /*pshared=*/1, 0), 0);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_settype(&attributes, type);
    EXPECT_EQ(pthread_mutex_init(&*mutex, &attributes), 0);
    pthread_mutexattr_destroy(&attributes);
  }

  Shared<sem_t> asked;
  Shared<sem_t> answered;
  Shared<pthread_mutex_t> mutex;
  Shared<int> value;
};

// A child gives what its parent waits for; the other threads go on meanwhile.
TEST(Children, GiveSemaphoresAndMutexesThatTheyShare) {
  for (const int type : {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE}) {
    const Exploration found = FindFailure({.runs = 20}, [type] {
      const Exchange shared(type);
      const pid_t child = fork();
      if (child == 0) {
        pthread_mutex_lock(&*shared.mutex);
        sem_post(&*shared.answered);
        sem_wait(&*shared.asked);
        ReallySleep();
        ++*shared.value;
        pthread_mutex_unlock(&*shared.mutex);
        ReallySleep();
        sem_post(&*shared.answered);
        _exit(0);
      }
      EXPECT_EQ(sem_wait(&*shared.answered), 0);
      int local = 0;
      std::mutex own;
      const auto work = [&] {
        const std::lock_guard<std::mutex> lock(own);
        ++local;
      };
      std::thread worker(work);
      sem_post(&*shared.asked);
      EXPECT_EQ(pthread_mutex_lock(&*shared.mutex), 0);
      EXPECT_EQ(*shared.value, 1);
      EXPECT_EQ(pthread_mutex_unlock(&*shared.mutex), 0);
      work();
      timespec limit;
      clock_gettime(CLOCK_REALTIME, &limit);
      limit.tv_sec += 100;
      EXPECT_EQ(sem_timedwait(&*shared.answered, &limit), 0);
      worker.join();
      EXPECT_EQ(local, 2);
      int status = 0;
      EXPECT_EQ(waitpid(child, &status, 0), child);
    });
    EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
  }
}

TEST(Children, SignalAConditionThatTheyShare) {
  const Exploration found = FindFailure({.runs = 20}, [] {
    const Exchange shared;
    const Shared<pthread_cond_t> changed;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    EXPECT_EQ(pthread_cond_init(&*changed, &attributes), 0);
    pthread_condattr_destroy(&attributes);
    const auto set = [&](int value) {
      pthread_mutex_lock(&*shared.mutex);
      *shared.value = value;
      pthread_cond_signal(&*changed);
      pthread_mutex_unlock(&*shared.mutex);
    };
    const auto await = [&](int value) {
      pthread_mutex_lock(&*shared.mutex);
      while (*shared.value != value) {
        pthread_cond_wait(&*changed, &*shared.mutex);
      }
      pthread_mutex_unlock(&*shared.mutex);
    };
    const pid_t child = fork();
    if (child == 0) {
      await(1);
      ReallySleep();
      set(2);
      _exit(0);
    }
    set(1);
    await(2);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(pthread_cond_destroy(&*changed), 0);
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

// It has ended, or another thread would have to give it.
TEST(Children, ThatGiveNothingLeaveADeadlock) {
  const Exploration ended = FindFailure({.runs = 1}, [] {
    const Exchange shared;
    const pid_t child = fork();
    if (child == 0) _exit(0);
    sem_wait(&*shared.answered);
    waitpid(child, nullptr, 0);
  });
  ASSERT_TRUE(ended.failure.has_value());
  EXPECT_THAT(ended.failure->what, HasSubstr("deadlock: all threads wait"));
  EXPECT_FALSE(ended.failure->hung);

  const Exploration locked = FindFailure({.runs = 1}, [] {
    const Exchange shared;
    EXPECT_EQ(RunInChild([&] {
                pthread_mutex_lock(&*shared.mutex);
                return 7;
              }),
              7);
    pthread_mutex_lock(&*shared.mutex);
  });
  ASSERT_TRUE(locked.failure.has_value());
  EXPECT_THAT(locked.failure->what, HasSubstr("deadlock: all threads wait"));
}

// A sleep that is to give it time is one.
TEST(Children, HaveTheTimeOfASleep) {
  constexpr auto kSleep = std::chrono::milliseconds(50);
  const auto time = [] {
    timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return absl::TimeFromTimespec(now);
  };
  const Exploration found = FindFailure({.runs = 5}, [&] {
    const pid_t child = fork();
    if (child == 0) {
      while (true) ReallySleep();
    }
    std::thread other([] {
      for (int i = 0; i < 5; ++i) std::this_thread::yield();
    });
    const absl::Time start = time();
    std::this_thread::sleep_for(kSleep);
    EXPECT_GE(time() - start, absl::FromChrono(kSleep));
    EXPECT_EQ(kill(child, SIGKILL), 0);
    EXPECT_EQ(waitpid(child, nullptr, 0), child);
    other.join();
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

// Whoever has locked it after that may give it up.
TEST(Children, ThatEndLeaveARobustMutexToOthers) {
  const Exploration found = FindFailure({.runs = 20}, [] {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    const Shared<pthread_mutex_t> mutex;
    pthread_mutex_init(&*mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    EXPECT_EQ(RunInChild([&] { return pthread_mutex_lock(&*mutex); }), 0);
    EXPECT_EQ(pthread_mutex_lock(&*mutex), EOWNERDEAD);
    EXPECT_EQ(pthread_mutex_unlock(&*mutex), 0);
    EXPECT_EQ(pthread_mutex_lock(&*mutex), ENOTRECOVERABLE);
    EXPECT_EQ(pthread_mutex_destroy(&*mutex), 0);
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

}  // namespace
}  // namespace ward::testing

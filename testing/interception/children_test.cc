// Real children of simulated threads: what handlers of pthread_atfork(3) lock,
// and what a child waits for that it has no thread for.

#include <pthread.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>

#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/explore.h"

namespace ward::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// What the child has returned.
int RunInChild(absl::FunctionRef<int()> body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

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
  EXPECT_THAT(
      found.failure->what,
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
                {
                  const absl::MutexLock its(&abseils);
                }
                other.join();
                return 7;
              }),
              7);
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

}  // namespace
}  // namespace ward::testing

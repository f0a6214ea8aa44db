// What the functions return that stand in front of the C library's, and that
// time and threads are the simulation's in them. Of what they find in a program
// standard_library_test tells.

#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <random>
#include <set>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/simulator/runner.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using namespace std::chrono_literals;  // NOLINT(google-build-using-namespace)

class InterceptionTest : public ::testing::Test {
 protected:
  static timespec In(absl::Duration time) {
    return absl::ToTimespec(absl::Now() + time);
  }
  absl::Duration Passed() const { return scheduler_.now() - start_; }

  SchedulerOptions Options() {
    SchedulerOptions options;
    options.on_fault = [this](const std::string& what) {
      faults_.push_back(what);
    };
    return options;
  }

  ReplayStrategy dull_{{}};
  std::vector<std::string> faults_;
  Scheduler scheduler_{dull_, Options()};
  const absl::Time start_ = scheduler_.now();
};

void* ReturnArgument(void* argument) { return argument; }

TEST_F(InterceptionTest, AThreadKnowsItsHandleAndReturnsItsResult) {
  pthread_t handle;
  struct Seen {
    pthread_t* handle;
    bool equal;
    int error_of_join;
  } seen = {&handle, false, 0};
  ASSERT_EQ(pthread_create(
                &handle, nullptr,
                [](void* argument) -> void* {
                  auto* const found = static_cast<Seen*>(argument);
                  found->equal =
                      pthread_equal(*found->handle, pthread_self()) != 0;
                  found->error_of_join = pthread_join(pthread_self(), nullptr);
                  return found;
                },
                &seen),
            0);
  void* result = nullptr;
  EXPECT_EQ(pthread_join(handle, &result), 0);
  EXPECT_EQ(result, &seen);
  EXPECT_TRUE(seen.equal);
  EXPECT_EQ(seen.error_of_join, EDEADLK);
}

// A handle stays another's until it was joined.
TEST_F(InterceptionTest, HandlesOfThreadsThatHaveEndedAreNotReused) {
  std::vector<std::thread> threads;
  std::vector<std::thread::id> ids;
  for (int i = 0; i < 5; ++i) {
    threads.emplace_back([] {});
    scheduler_.WaitUntilIdle();
    for (const std::thread::id id : ids) {
      EXPECT_NE(id, threads.back().get_id());
    }
    ids.push_back(threads.back().get_id());
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(InterceptionTest, AThreadMayExitAnywhere) {
  pthread_t handle;
  ASSERT_EQ(pthread_create(
                &handle, nullptr,
                [](void* argument) -> void* {
                  std::this_thread::sleep_for(1s);
                  pthread_exit(argument);
                },
                this),
            0);
  void* result = nullptr;
  EXPECT_EQ(pthread_join(handle, &result), 0);
  EXPECT_EQ(result, this);
}

TEST_F(InterceptionTest, WhatIsNoTimeIsRefused) {
  for (const timespec time :
       {timespec{0, 1'000'000'000}, timespec{0, -1}, timespec{-1, 0}}) {
    errno = 0;
    EXPECT_EQ(nanosleep(&time, nullptr), -1);
    EXPECT_EQ(errno, EINVAL);
    EXPECT_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr), EINVAL);
    errno = 0;
    EXPECT_EQ(ppoll(nullptr, 0, &time, nullptr), -1);
    EXPECT_EQ(errno, EINVAL);
    errno = 0;
    EXPECT_EQ(pselect(0, nullptr, nullptr, nullptr, &time, nullptr), -1);
    EXPECT_EQ(errno, EINVAL);
  }
  timeval negative = {-1, 0};
  errno = 0;
  EXPECT_EQ(select(0, nullptr, nullptr, nullptr, &negative), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(Passed(), absl::ZeroDuration());
}

struct Own {
  int number = 7;
  std::string text = "a text that is too long for the object itself";
};
thread_local Own own;
thread_local int uninitialised;

// The second has the stack of the first, which has been joined.
TEST_F(InterceptionTest, EachThreadBeginsAnew) {
  static pthread_key_t key;
  ASSERT_EQ(pthread_key_create(&key, nullptr), 0);
  int own_number = 0;
  const auto body = [&] {
    EXPECT_EQ(own.number, 7);
    EXPECT_EQ(own.text.size(), 45u);
    EXPECT_EQ(uninitialised, 0);
    EXPECT_EQ(errno, 0);
    EXPECT_EQ(fegetround(), FE_TONEAREST);
    EXPECT_EQ(uselocale(nullptr), LC_GLOBAL_LOCALE);
    own = {8, "another one"};
    uninitialised = 9;
    errno = EAGAIN;
    fesetround(FE_UPWARD);
    const locale_t locale = newlocale(LC_ALL_MASK, "C", nullptr);
    uselocale(locale);
    std::this_thread::sleep_for(1s);
    EXPECT_EQ(own.number, 8);
    EXPECT_EQ(uninitialised, 9);
    EXPECT_EQ(fegetround(), FE_UPWARD);
    uselocale(LC_GLOBAL_LOCALE);
    freelocale(locale);
    own_number = gettid();
  };
  own.number = 1;
  for (int i = 0; i < 3; ++i) {
    std::thread thread(body);
    std::this_thread::sleep_for(500ms);
    EXPECT_EQ(fegetround(), FE_TONEAREST);
    thread.join();
    EXPECT_NE(own_number, gettid());
  }
  EXPECT_EQ(own.number, 1);
  EXPECT_EQ(gettid(), syscall(SYS_gettid));
  pthread_key_delete(key);
}

TEST_F(InterceptionTest, WhoExitsLeavesWhatIsOnTheStack) {
  std::vector<std::string> left;
  struct Object {
    ~Object() { order.emplace_back("an object"); }
    std::vector<std::string>& order;
  };
  std::thread([&] {
    const Object object{left};
    try {
      pthread_exit(nullptr);
    } catch (...) {
      left.emplace_back("a handler");
      throw;
    }
  }).join();
  EXPECT_THAT(left, ElementsAre("a handler", "an object"));

  thrd_t thread;
  thrd_create(
      &thread, [](void*) -> int { thrd_exit(5); }, nullptr);
  int result = 0;
  EXPECT_EQ(thrd_join(thread, &result), thrd_success);
  EXPECT_EQ(result, 5);
}

TEST_F(InterceptionTest, AThreadMayHaveAStackOfItsOwnSize) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  constexpr size_t kSize = 32 << 20;
  pthread_attr_setstacksize(&attributes, kSize);
  for (int i = 0; i < 3; ++i) {
    pthread_t handle;
    ASSERT_EQ(pthread_create(
                  &handle, &attributes,
                  [](void*) -> void* {
                    std::array<volatile char, kSize - (1 << 20)> large;
                    large[0] = 1;
                    std::this_thread::sleep_for(1s);
                    return nullptr;
                  },
                  nullptr),
              0);
    EXPECT_EQ(pthread_join(handle, nullptr), 0);
  }
  pthread_attr_destroy(&attributes);
}

TEST_F(InterceptionTest, ThreadsMayBeDetachedFromTheirStartOn) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  static std::atomic<int> ran{0};
  for (int i = 0; i < 3; ++i) {
    pthread_t handle;
    ASSERT_EQ(pthread_create(
                  &handle, &attributes,
                  [](void*) -> void* {
                    ++ran;
                    return nullptr;
                  },
                  nullptr),
              0);
  }
  pthread_attr_destroy(&attributes);
  std::thread([] { ++ran; }).detach();
  scheduler_.WaitUntilIdle();
  EXPECT_EQ(ran, 4);
}

TEST_F(InterceptionTest, AJoinMayHaveALimit) {
  pthread_t handle;
  ASSERT_EQ(pthread_create(
                &handle, nullptr,
                [](void* argument) -> void* {
                  std::this_thread::sleep_for(10s);
                  return argument;
                },
                nullptr),
            0);
  EXPECT_EQ(pthread_tryjoin_np(handle, nullptr), EBUSY);
  timespec limit = In(absl::Seconds(4));
  EXPECT_EQ(pthread_timedjoin_np(handle, nullptr, &limit), ETIMEDOUT);
  EXPECT_EQ(Passed(), absl::Seconds(4));
  limit = In(absl::Seconds(7));
  EXPECT_EQ(pthread_clockjoin_np(handle, nullptr, CLOCK_MONOTONIC, &limit), 0);
  EXPECT_EQ(Passed(), absl::Seconds(10));
}

// They wait in the schedule, as everything else that a thread does.
TEST_F(InterceptionTest, DestructorsOfAThreadsOwnVariablesAreScheduled) {
  static std::mutex* const kMutex = new std::mutex;
  static std::vector<std::string>* const kOrder = new std::vector<std::string>;
  kOrder->clear();
  struct Own {
    ~Own() {
      const std::lock_guard<std::mutex> lock(*kMutex);
      kOrder->emplace_back("the thread's own");
    }
  };
  std::thread thread;
  {
    const std::lock_guard<std::mutex> lock(*kMutex);
    thread = std::thread([] {
      static thread_local const Own kOwn;
      (void)kOwn;
    });
    std::this_thread::sleep_for(1s);
    kOrder->emplace_back("another's");
  }
  thread.join();
  EXPECT_THAT(*kOrder, ElementsAre("another's", "the thread's own"));
}

TEST_F(InterceptionTest, DestructorsOfKeysMayUseAbseil) {
  static absl::Mutex* const kMutex = new absl::Mutex;
  static pthread_key_t key;
  ASSERT_EQ(pthread_key_create(
                &key, [](void*) { const absl::MutexLock lock(kMutex); }),
            0);
  std::thread thread;
  {
    const absl::MutexLock lock(kMutex);
    thread = std::thread([this] { pthread_setspecific(key, this); });
    absl::SleepFor(absl::Seconds(1));
  }
  thread.join();
  EXPECT_EQ(Passed(), absl::Seconds(1));
}

TEST_F(InterceptionTest, C11sKeysAreTheSame) {
  static std::vector<std::string>* const kEnds = new std::vector<std::string>;
  static tss_t key;
  ASSERT_EQ(tss_create(&key,
                       [](void* value) {
                         kEnds->push_back(*static_cast<std::string*>(value));
                       }),
            thrd_success);
  std::string first = "the first one's";
  std::string second = "the second one's";
  for (std::string* const own : {&first, &second}) {
    std::thread([own] {
      EXPECT_EQ(tss_get(key), nullptr);
      EXPECT_EQ(tss_set(key, own), thrd_success);
    }).join();
  }
  EXPECT_THAT(*kEnds, ElementsAre(first, second));
  tss_delete(key);
}

TEST_F(InterceptionTest, AFileIsLockedInTheSchedule) {
  FILE* const file = tmpfile();
  ASSERT_NE(file, nullptr);
  flockfile(file);
  flockfile(file);
  bool is_unlocked = false;
  std::thread other([&] {
    EXPECT_NE(ftrylockfile(file), 0);
    flockfile(file);
    EXPECT_TRUE(is_unlocked);
    funlockfile(file);
  });
  std::this_thread::sleep_for(1s);
  funlockfile(file);
  std::this_thread::sleep_for(1s);
  is_unlocked = true;
  funlockfile(file);
  other.join();
  EXPECT_EQ(ftrylockfile(file), 0);
  funlockfile(file);
  fclose(file);
  EXPECT_EQ(Passed(), absl::Seconds(2));
}

TEST_F(InterceptionTest, MutexesKeepTheirTypes) {
  std::recursive_mutex recursive;
  recursive.lock();
  recursive.lock();
  std::thread([&] { EXPECT_FALSE(recursive.try_lock()); }).join();
  recursive.unlock();
  recursive.unlock();
  std::thread([&] {
    EXPECT_TRUE(recursive.try_lock());
    recursive.unlock();
  }).join();

  pthread_mutexattr_t type;
  pthread_mutexattr_init(&type);
  pthread_mutexattr_settype(&type, PTHREAD_MUTEX_ERRORCHECK);
  pthread_mutex_t checking;
  pthread_mutex_init(&checking, &type);
  EXPECT_EQ(pthread_mutex_lock(&checking), 0);
  EXPECT_EQ(pthread_mutex_lock(&checking), EDEADLK);
  EXPECT_EQ(pthread_mutex_trylock(&checking), EBUSY);
#ifndef ABSL_HAVE_THREAD_SANITIZER  // Which reports it, too.
  EXPECT_THAT(faults_, IsEmpty());
  std::thread([&] {
    EXPECT_EQ(pthread_mutex_unlock(&checking), EPERM);
  }).join();
  EXPECT_THAT(faults_, ElementsAre(HasSubstr("does not have it")));
#endif
  EXPECT_EQ(pthread_mutex_unlock(&checking), 0);
  pthread_mutex_destroy(&checking);
}

// Where they come first (pthread_rwlockattr_setkind_np(3)).
TEST_F(InterceptionTest, WritersHoldUpReadersForAsLongAsTheyWait) {
  pthread_rwlockattr_t attributes;
  pthread_rwlockattr_init(&attributes);
  pthread_rwlockattr_setkind_np(&attributes,
                                PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  pthread_rwlock_t lock;
  pthread_rwlock_init(&lock, &attributes);
  pthread_rwlockattr_destroy(&attributes);
  EXPECT_EQ(pthread_rwlock_rdlock(&lock), 0);
  std::thread writer([&] {
    const timespec limit = In(absl::Seconds(1));
    EXPECT_EQ(pthread_rwlock_timedwrlock(&lock, &limit), ETIMEDOUT);
  });
  scheduler_.WaitUntilIdle();
  EXPECT_EQ(pthread_rwlock_tryrdlock(&lock), EBUSY);
  std::thread reader([&] {
    EXPECT_EQ(pthread_rwlock_rdlock(&lock), 0);
    EXPECT_EQ(Passed(), absl::Seconds(1));
    EXPECT_EQ(pthread_rwlock_unlock(&lock), 0);
  });
  reader.join();
  writer.join();
  EXPECT_EQ(pthread_rwlock_tryrdlock(&lock), 0);
  EXPECT_EQ(pthread_rwlock_unlock(&lock), 0);
  EXPECT_EQ(pthread_rwlock_unlock(&lock), 0);
  pthread_rwlock_destroy(&lock);
}

// Others may have seen it before the caller does the next thing.
TEST_F(InterceptionTest, UnlockingWritingAndClosingAreFollowedByPoints) {
  const auto points = [&](const std::function<void()>& call) {
    const size_t before = scheduler_.steps();
    call();
    return scheduler_.steps() - before;
  };
  std::array<int, 2> pipe{};
  ASSERT_EQ(pipe2(pipe.data(), O_CLOEXEC), 0);
  EXPECT_EQ(points([&] { EXPECT_EQ(write(pipe[1], "x", 1), 1); }), 2u);
  EXPECT_EQ(points([&] { EXPECT_EQ(close(pipe[1]), 0); }), 2u);
  EXPECT_EQ(points([&] { EXPECT_EQ(close(pipe[1]), -1); }), 1u)
      << "nothing has happened";
  EXPECT_EQ(close(pipe[0]), 0);
  std::mutex mutex;
  mutex.lock();
  EXPECT_EQ(points([&] { mutex.unlock(); }), 1u);
  // With the one before locking.
  absl::Mutex abseils;
  EXPECT_EQ(points([&] { const absl::MutexLock lock(&abseils); }), 2u);
  EXPECT_EQ(points([&] { const absl::ReaderMutexLock lock(&abseils); }), 2u);
  EXPECT_EQ(points([&] {
              absl::ReleasableMutexLock lock(&abseils);
              lock.Release();
            }),
            2u);
}

// All that may end for no reason does, and how often that was asked.
class WakeUps final : public Strategy {
 public:
  size_t Choose(const Choice& choice) override {
    if (choice.kind != ChoiceKind::kWakeUp) return 0;
    ++asked_;
    return 1;
  }
  int asked() const { return asked_; }

 private:
  int asked_ = 0;
};

TEST(Interception, WaitsThatMayEndForNoReasonEndInALoop) {
  for (const bool delays : {false, true}) {
    WakeUps strategy;
    SchedulerOptions options;
    options.delays = delays;
    const Scheduler scheduler(strategy, options);
    std::mutex mutex;
    std::condition_variable came;
    absl::Mutex abseils;
    absl::CondVar abseils_came;
    bool is_there = false;
    int waits = 0;
    int abseils_waits = 0;
    std::thread waiter([&] {
      {
        std::unique_lock<std::mutex> lock(mutex);
        while (!is_there) {
          came.wait(lock);
          ++waits;
        }
      }
      const absl::ReaderMutexLock lock(&abseils);
      while (is_there) {
        abseils_came.Wait(&abseils);
        ++abseils_waits;
      }
    });
    std::this_thread::sleep_for(1s);
    {
      const std::lock_guard<std::mutex> lock(mutex);
      is_there = true;
    }
    came.notify_all();
    std::this_thread::sleep_for(1s);
    {
      const absl::MutexLock lock(&abseils);
      is_there = false;
    }
    abseils_came.SignalAll();
    waiter.join();
    EXPECT_EQ(waits, delays ? 2 : 1);
    EXPECT_EQ(abseils_waits, delays ? 2 : 1);
    EXPECT_EQ(strategy.asked(), delays ? 2 : 0);
  }
}

TEST_F(InterceptionTest, LimitsAreOfSimulatedTime) {
  std::timed_mutex mutex;
  std::shared_timed_mutex shared;
  std::condition_variable never;
  sem_t empty;
  sem_init(&empty, 0, 0);
  mutex.lock();
  shared.lock();
  std::thread([&] {
    EXPECT_FALSE(mutex.try_lock_for(1s));
    EXPECT_FALSE(mutex.try_lock_until(std::chrono::system_clock::now() + 1s));
    EXPECT_FALSE(shared.try_lock_for(1s));
    EXPECT_FALSE(shared.try_lock_shared_for(1s));
    std::mutex own;
    std::unique_lock<std::mutex> lock(own);
    EXPECT_EQ(never.wait_for(lock, 1s), std::cv_status::timeout);
    timespec limit = In(absl::Seconds(1));
    EXPECT_EQ(sem_timedwait(&empty, &limit), -1);
    EXPECT_EQ(errno, ETIMEDOUT);
    limit = In(absl::Seconds(1));
    EXPECT_EQ(sem_clockwait(&empty, CLOCK_MONOTONIC, &limit), -1);
  }).join();
  EXPECT_EQ(Passed(), absl::Seconds(7));
  mutex.unlock();
  shared.unlock();
  sem_destroy(&empty);
}

TEST_F(InterceptionTest, LimitsThatAreNoTimesAreRefusedWhereTheyMatter) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  const timespec none = {0, 1'000'000'000};
  EXPECT_EQ(pthread_mutex_timedlock(&mutex, &none), 0);
  std::thread([&] {
    EXPECT_EQ(pthread_mutex_timedlock(&mutex, &none), EINVAL);
  }).join();
  pthread_cond_t never = PTHREAD_COND_INITIALIZER;
  EXPECT_EQ(pthread_cond_timedwait(&never, &mutex, &none), EINVAL);
  pthread_mutex_unlock(&mutex);
}

TEST_F(InterceptionTest, AReaderWriterLockRefusesItsOwnWriter) {
  pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
  EXPECT_EQ(pthread_rwlock_rdlock(&lock), 0);
  EXPECT_EQ(pthread_rwlock_tryrdlock(&lock), 0);
  EXPECT_EQ(pthread_rwlock_trywrlock(&lock), EBUSY);
  EXPECT_EQ(pthread_rwlock_unlock(&lock), 0);
  EXPECT_EQ(pthread_rwlock_unlock(&lock), 0);
  EXPECT_EQ(pthread_rwlock_wrlock(&lock), 0);
  EXPECT_EQ(pthread_rwlock_wrlock(&lock), EDEADLK);
  EXPECT_EQ(pthread_rwlock_rdlock(&lock), EDEADLK);
  EXPECT_EQ(pthread_rwlock_unlock(&lock), 0);
}

TEST_F(InterceptionTest, SpinLocksAndBarriersWait) {
  pthread_spinlock_t spin;
  pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, nullptr, 3);
  std::atomic<int> last{0};
  pthread_spin_lock(&spin);
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (int phase = 0; phase < 2; ++phase) {
        pthread_spin_lock(&spin);
        pthread_spin_unlock(&spin);
        // NOLINTNEXTLINE(bugprone-posix-return): this one may be negative.
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
          ++last;
        }
      }
    });
  }
  std::this_thread::sleep_for(1s);
  EXPECT_EQ(pthread_spin_trylock(&spin), EBUSY);
  EXPECT_EQ(last, 0);
  pthread_spin_unlock(&spin);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(last, 2);
  pthread_barrier_destroy(&barrier);
  pthread_spin_destroy(&spin);
}

TEST_F(InterceptionTest, WhatThrowsInCallOnceIsTriedAgain) {
#ifdef ABSL_HAVE_THREAD_SANITIZER
  GTEST_SKIP() << "Its pthread_once is underway for ever then.";
#endif
  std::once_flag flag;
  int tries = 0;
  const auto once = [&] {
    std::call_once(flag, [&] {
      std::this_thread::sleep_for(1s);
      if (++tries == 1) throw std::runtime_error("the first time");
    });
  };
  std::thread first([&] { EXPECT_THROW(once(), std::runtime_error); });
  std::thread second(once);
  first.join();
  second.join();
  once();
  EXPECT_EQ(tries, 2);
  EXPECT_EQ(Passed(), absl::Seconds(2));
}

struct Made {
  explicit Made(int& count) {
    std::this_thread::sleep_for(1s);
    if (++count == 1) throw std::runtime_error("the first time");
  }
};

TEST_F(InterceptionTest, AStaticVariableIsMadeOnceWhileOthersWait) {
  int count = 0;
  const auto use = [&count] { static const Made kMade(count); };
  std::thread first([&] { EXPECT_THROW(use(), std::runtime_error); });
  std::thread second(use);
  std::thread third(use);
  first.join();
  second.join();
  third.join();
  EXPECT_EQ(count, 2);
  EXPECT_EQ(Passed(), absl::Seconds(2));
}

TEST_F(InterceptionTest, C11sThreadsAreTheSame) {
  struct Shared {
    mtx_t mutex;
    cnd_t changed;
    bool ready;
  } shared{};
  mtx_init(&shared.mutex, mtx_timed);
  cnd_init(&shared.changed);
  thrd_t thread;
  ASSERT_EQ(thrd_create(
                &thread,
                [](void* argument) {
                  auto* const found = static_cast<Shared*>(argument);
                  const timespec second = {1, 0};
                  thrd_sleep(&second, nullptr);
                  mtx_lock(&found->mutex);
                  found->ready = true;
                  cnd_signal(&found->changed);
                  mtx_unlock(&found->mutex);
                  return 7;
                },
                &shared),
            thrd_success);
  mtx_lock(&shared.mutex);
  timespec limit = In(absl::Milliseconds(500));
  EXPECT_EQ(cnd_timedwait(&shared.changed, &shared.mutex, &limit),
            thrd_timedout);
  while (!shared.ready) cnd_wait(&shared.changed, &shared.mutex);
  mtx_unlock(&shared.mutex);
  int result = 0;
  EXPECT_EQ(thrd_join(thread, &result), thrd_success);
  EXPECT_EQ(result, 7);
  EXPECT_EQ(Passed(), absl::Seconds(1));
}

TEST(Interception, RandomnessIsTheSameInEachRun) {
  const auto draw = [] {
    ReplayStrategy dull({});
    const Scheduler scheduler(dull, {});
    std::vector<uint64_t> drawn(3);
    EXPECT_EQ(getrandom(drawn.data(), 7, 0), 7);
    EXPECT_EQ(getentropy(&drawn[1], sizeof(drawn[1])), 0);
    drawn[2] = std::random_device()();
    return drawn;
  };
  EXPECT_EQ(draw(), draw());
  EXPECT_NE(draw()[1], draw()[2]);
  EXPECT_NE(std::random_device()(), draw()[2]);
}

TEST(InterceptionDeathTest, CancellationIsRefusedInWords) {
  EXPECT_DEATH(
      {
        ReplayStrategy dull({});
        const Scheduler scheduler(dull, {});
        pthread_t handle;
        pthread_create(&handle, nullptr, &ReturnArgument, nullptr);
        pthread_cancel(handle);
      },
      "pthread_cancel\\(3\\) is not simulated");
}

// On threads that are not simulated, everything does what it always did.
// Nobody else could write, but it has all descriptors.
TEST(Interception, AThreadThatWasThereBeforeMayServe) {
  if (!Runner::AreFibers()) {
    GTEST_SKIP() << "Kernel threads do not tell which was there before.";
  }
  std::atomic<int> to{-1};
  std::thread before([&] {
    while (to < 0) poll(nullptr, 0, 1);
    poll(nullptr, 0, 100);
    EXPECT_EQ(write(to, "x", 1), 1);
  });
  std::array<int, 2> ends = {-1, -1};
  {
    ReplayStrategy dull({});
    const std::set<int> open_before;
    SchedulerOptions options;
    options.open_before = &open_before;
    const Scheduler scheduler(dull, options);
    ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
    to = ends[1];
    char byte = 0;
    EXPECT_EQ(read(ends[0], &byte, 1), 1);
  }
  before.join();
  for (const int end : ends) close(end);
}

TEST(Interception, LeavesOtherThreadsAlone) {
  std::mutex mutex;
  std::condition_variable changed;
  bool ready = false;
  std::thread waiter([&] {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return ready; });
  });
  {
    const std::lock_guard<std::mutex> lock(mutex);
    ready = true;
  }
  changed.notify_one();
  waiter.join();
  sem_t semaphore;
  sem_init(&semaphore, 0, 0);
  std::thread poster([&] { sem_post(&semaphore); });
  EXPECT_EQ(sem_wait(&semaphore), 0);
  poster.join();
  sem_destroy(&semaphore);
}

}  // namespace
}  // namespace ward::testing

// Bugs with what the C++ library and pthreads have for threads: each is found,
// and none in the same body once it is right. Nothing here knows of a
// simulation.

#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <queue>
#include <semaphore>
#include <shared_mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/explore.h"

namespace ward::testing {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;  // NOLINT(google-build-using-namespace)

constexpr uint64_t kRuns = 10000;

void InThreads(const std::vector<std::function<void()>>& bodies) {
  std::vector<std::thread> threads;
  threads.reserve(bodies.size());
  for (const auto& body : bodies) threads.emplace_back(body);
  for (std::thread& thread : threads) thread.join();
}

struct Case {
  const char* name;
  // What the report says.
  const char* symptom;
  // With the bug, or without it.
  void (*body)(bool bug);
  // See ExploreOptions.
  bool delays = false;
};

constexpr const char* kDeadlock = "deadlock: all threads wait";
constexpr const char* kFailed = "Expected equality of these values";

// Where writers come first, who reads does not read again while one waits.
void ReadsTwiceBehindAWriter(bool bug) {
  pthread_rwlockattr_t attributes;
  pthread_rwlockattr_init(&attributes);
  pthread_rwlockattr_setkind_np(
      &attributes, bug ? PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP
                       : PTHREAD_RWLOCK_PREFER_READER_NP);
  pthread_rwlock_t lock;
  pthread_rwlock_init(&lock, &attributes);
  pthread_rwlockattr_destroy(&attributes);
  InThreads({[&] {
               pthread_rwlock_rdlock(&lock);
               pthread_rwlock_rdlock(&lock);
               pthread_rwlock_unlock(&lock);
               pthread_rwlock_unlock(&lock);
             },
             [&] {
               pthread_rwlock_wrlock(&lock);
               pthread_rwlock_unlock(&lock);
             }});
  pthread_rwlock_destroy(&lock);
}

// Whoever is right has time limits that are long.
void SleepsInsteadOfWaiting(bool bug) {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::thread worker([&] {
    const std::lock_guard<std::mutex> lock(mutex);
    done = true;
    changed.notify_one();
  });
  if (bug) {
    std::this_thread::sleep_for(100ms);
  } else {
    const auto limit = std::chrono::steady_clock::now() + 1s;
    std::unique_lock<std::mutex> lock(mutex);
    for (int i = 0; !done && i < 2; ++i) changed.wait_until(lock, limit);
    while (!done && std::chrono::steady_clock::now() < limit) {
      lock.unlock();
      std::this_thread::sleep_for(10ms);
      lock.lock();
    }
  }
  {
    const std::lock_guard<std::mutex> lock(mutex);
    EXPECT_EQ(done, true);
  }
  worker.join();
}

// The second thread comes to sleep while the first does.
void SleepsTwiceInsteadOfWaiting(bool bug) {
  std::mutex mutex;
  std::vector<int> order;
  const auto add = [&](int number) {
    const std::lock_guard<std::mutex> lock(mutex);
    order.push_back(number);
  };
  std::promise<void> first;
  InThreads({[&] {
               std::this_thread::sleep_for(10ms);
               add(1);
               first.set_value();
             },
             [&] {
               std::this_thread::sleep_for(20ms);
               if (!bug) first.get_future().wait();
               add(2);
             }});
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

void LostUpdate(bool bug) {
  std::mutex mutex;
  int balance = 0;
  const auto deposit = [&] {
    std::unique_lock<std::mutex> lock(mutex);
    const int found = balance;
    if (bug) {
      lock.unlock();
      lock.lock();
    }
    balance = found + 1;
  };
  InThreads({deposit, deposit});
  EXPECT_EQ(balance, 2);
}

void LockOrder(bool bug) {
  std::mutex a;
  std::mutex b;
  const auto both = [](std::mutex& first, std::mutex& second) {
    const std::lock_guard<std::mutex> one(first);
    const std::lock_guard<std::mutex> other(second);
  };
  InThreads({[&] { both(a, b); }, [&] { bug ? both(b, a) : both(a, b); }});
}

void MissedWakeUp(bool bug) {
  std::mutex mutex;
  std::condition_variable changed;
  std::atomic<bool> ready{false};
  InThreads({[&] {
               if (bug) {
                 ready = true;
               } else {
                 const std::lock_guard<std::mutex> lock(mutex);
                 ready = true;
               }
               changed.notify_one();
             },
             [&] {
               std::unique_lock<std::mutex> lock(mutex);
               changed.wait(lock, [&] { return ready.load(); });
             }});
}

void AbseilsMissedWakeUp(bool bug) {
  absl::Mutex mutex;
  absl::CondVar changed;
  std::atomic<bool> ready{false};
  InThreads({[&] {
               if (bug) {
                 ready = true;
               } else {
                 absl::MutexLock lock(&mutex);
                 ready = true;
               }
               changed.Signal();
             },
             [&] {
               absl::MutexLock lock(&mutex);
               while (!ready) changed.Wait(&mutex);
             }});
}

// One is woken, and it may be the one who cannot go on.
void WrongOneIsWoken(bool bug) {
  std::mutex mutex;
  std::condition_variable changed;
  int turn = 0;
  const auto await = [&](int own) {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return turn == own; });
  };
  InThreads({[&] { await(1); },
             [&] {
               await(2);
               {
                 const std::lock_guard<std::mutex> lock(mutex);
                 turn = 1;
               }
               changed.notify_all();
             },
             [&] {
               {
                 const std::lock_guard<std::mutex> lock(mutex);
                 turn = 2;
               }
               bug ? changed.notify_one() : changed.notify_all();
             }});
}

void TimeLimitTakenForSuccess(bool bug) {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<int> value;
  InThreads({[&] {
               std::this_thread::sleep_for(bug ? 2s : 0s);
               const std::lock_guard<std::mutex> lock(mutex);
               value = 7;
               changed.notify_one();
             },
             [&] {
               std::unique_lock<std::mutex> lock(mutex);
               const bool came = changed.wait_for(
                   lock, 1s, [&] { return value.has_value(); });
               EXPECT_EQ(came, true);
             }});
}

void SharedMutexUpgrade(bool bug) {
  std::shared_mutex mutex;
  int value = 0;
  const auto add = [&] {
    if (bug) {
      mutex.lock_shared();
      const int found = value;
      mutex.unlock_shared();
      const std::unique_lock<std::shared_mutex> lock(mutex);
      value = found + 1;
    } else {
      const std::unique_lock<std::shared_mutex> lock(mutex);
      ++value;
    }
  };
  InThreads({add, add});
  EXPECT_EQ(value, 2);
}

void ReaderWaitsForWriterThatWaitsForIt(bool bug) {
  std::shared_mutex mutex;
  std::mutex other;
  InThreads({[&] {
               const std::shared_lock<std::shared_mutex> lock(mutex);
               const std::lock_guard<std::mutex> inner(other);
             },
             [&] {
               if (bug) {
                 const std::lock_guard<std::mutex> lock(other);
                 const std::unique_lock<std::shared_mutex> inner(mutex);
               } else {
                 const std::unique_lock<std::shared_mutex> lock(mutex);
                 const std::lock_guard<std::mutex> inner(other);
               }
             }});
}

void CallOnceDeadlock(bool bug) {
  std::once_flag one;
  std::once_flag other;
  const auto nested = [](std::once_flag& first, std::once_flag& second) {
    std::call_once(first, [&] { std::call_once(second, [] {}); });
  };
  InThreads({[&] { nested(one, other); },
             [&] { bug ? nested(other, one) : nested(one, other); }});
}

struct Registry {
  explicit Registry(std::recursive_mutex& mutex) {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
  }
};

// Once in a process, whoever comes first.
void StaticDeadlock(bool bug) {
  static auto* const kMutex = new std::recursive_mutex;
  const auto instance = [] {
    static const Registry kRegistry(*kMutex);
    (void)kRegistry;
  };
  InThreads({[&] {
               if (!bug) instance();
               const std::lock_guard<std::recursive_mutex> lock(*kMutex);
               instance();
             },
             instance});
}

void SemaphoreLosesAPermit(bool bug) {
  std::counting_semaphore<2> permits(2);
  std::atomic<int> inside{0};
  const auto work = [&] {
    permits.acquire();
    ++inside;
    --inside;
    permits.release();
    if (bug) permits.acquire();
  };
  InThreads({work, work, work});
}

void SemaphoreHandsOverTooEarly(bool bug) {
  sem_t filled;
  sem_init(&filled, 0, 0);
  std::mutex mutex;
  int value = 0;
  InThreads({[&] {
               if (bug) sem_post(&filled);
               {
                 const std::lock_guard<std::mutex> lock(mutex);
                 value = 7;
               }
               if (!bug) sem_post(&filled);
             },
             [&] {
               sem_wait(&filled);
               const std::lock_guard<std::mutex> lock(mutex);
               EXPECT_EQ(value, 7);
             }});
  sem_destroy(&filled);
}

void LatchOfOneTooMany(bool bug) {
  std::latch done(bug ? 3 : 2);
  InThreads({[&] { done.count_down(); }, [&] { done.arrive_and_wait(); }});
}

void BarrierPhaseIsLeftOut(bool bug) {
  std::barrier<> phases(2);
  std::mutex mutex;
  std::array<int, 2> written{};
  const auto work = [&](size_t own) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      written.at(own) = 1;
    }
    if (!bug) phases.arrive_and_wait();
    const std::lock_guard<std::mutex> lock(mutex);
    EXPECT_EQ(written.at(1 - own), 1);
  };
  InThreads({[&] { work(0); }, [&] { work(1); }});
}

void PromiseIsSetByNobody(bool bug) {
  std::promise<int> promise;
  std::future<int> future = promise.get_future();
  std::atomic<bool> claimed{false};
  std::mutex point;
  const auto fulfil = [&] {
    { const std::lock_guard<std::mutex> lock(point); }
    if (!claimed.exchange(true)) promise.set_value(7);
  };
  const auto leave = [&] {
    { const std::lock_guard<std::mutex> lock(point); }
    if (bug) claimed = true;
  };
  InThreads({fulfil, leave, [&] { EXPECT_EQ(future.get(), 7); }});
}

void AsyncIsNotAwaited(bool bug) {
  std::mutex mutex;
  int value = 0;
  std::future<void> done = std::async(std::launch::async, [&] {
    const std::lock_guard<std::mutex> lock(mutex);
    value = 7;
  });
  if (!bug) done.wait();
  {
    const std::lock_guard<std::mutex> lock(mutex);
    EXPECT_EQ(value, 7);
  }
}

void AtomicIsWaitedForWithoutWord(bool bug) {
  std::atomic<int> state{0};
  InThreads({[&] {
               state = 1;
               if (!bug) state.notify_all();
             },
             [&] { state.wait(0); }});
}

void StopIsNotHeard(bool bug) {
  std::mutex mutex;
  std::condition_variable_any changed;
  const std::jthread worker([&](const std::stop_token& stop) {
    std::unique_lock<std::mutex> lock(mutex);
    if (bug) {
      if (!stop.stop_requested()) changed.wait(lock);
    } else {
      changed.wait(lock, stop, [] { return false; });
    }
  });
}

void* AddUnderLock(void* argument) {
  auto& [mutex, value, bug] =
      *static_cast<std::tuple<pthread_mutex_t, int, bool>*>(argument);
  pthread_mutex_lock(&mutex);
  const int found = value;
  if (bug) {
    pthread_mutex_unlock(&mutex);
    pthread_mutex_lock(&mutex);
  }
  value = found + 1;
  pthread_mutex_unlock(&mutex);
  return nullptr;
}

void Pthreads(bool bug) {
  std::tuple<pthread_mutex_t, int, bool> shared(PTHREAD_MUTEX_INITIALIZER, 0,
                                                bug);
  std::array<pthread_t, 2> threads;
  for (pthread_t& thread : threads) {
    ASSERT_EQ(pthread_create(&thread, nullptr, &AddUnderLock, &shared), 0);
  }
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  EXPECT_EQ(std::get<int>(shared), 2);
}

void CheckThenUseAfterUnlock(bool bug) {
  std::mutex mutex;
  std::queue<int> queue;
  queue.push(1);
  const auto take = [&] {
    std::unique_lock<std::mutex> lock(mutex);
    const bool any = !queue.empty();
    if (bug) {
      lock.unlock();
      lock.lock();
    }
    if (any) {
      EXPECT_EQ(queue.size(), 1u);
      if (!queue.empty()) queue.pop();
    }
  };
  InThreads({take, take});
}

// Waits end for no reason.
void ConditionIsNotLookedAtAgain(bool bug) {
  std::mutex mutex;
  std::condition_variable came;
  bool is_there = false;
  const auto wait = [&] {
    std::unique_lock<std::mutex> lock(mutex);
    if (bug) {
      if (!is_there) came.wait(lock);
    } else {
      came.wait(lock, [&] { return is_there; });
    }
    EXPECT_EQ(is_there, true);
  };
  InThreads({wait, [&] {
               const std::lock_guard<std::mutex> lock(mutex);
               is_there = true;
               came.notify_one();
             }});
}

void NoTimeoutIsTakenForSuccess(bool bug) {
  std::mutex mutex;
  std::condition_variable came;
  bool is_there = false;
  const auto wait = [&] {
    std::unique_lock<std::mutex> lock(mutex);
    std::cv_status status = std::cv_status::no_timeout;
    while (!is_there && status == std::cv_status::no_timeout) {
      status = came.wait_for(lock, 1s);
      if (bug) break;
    }
    if (status == std::cv_status::no_timeout) {
      EXPECT_EQ(is_there, true);
    }
  };
  InThreads({wait, [&] {
               const std::lock_guard<std::mutex> lock(mutex);
               is_there = true;
               came.notify_one();
             }});
}

void AbseilsConditionIsNotLookedAtAgain(bool bug) {
  absl::Mutex mutex;
  absl::CondVar came;
  bool is_there = false;
  const auto wait = [&] {
    absl::MutexLock lock(&mutex);
    while (!is_there) {
      came.Wait(&mutex);
      if (bug) break;
    }
    EXPECT_EQ(is_there, true);
  };
  InThreads({wait, [&] {
               absl::MutexLock lock(&mutex);
               is_there = true;
               came.Signal();
             }});
}

void FutexIsNotLookedAtAgain(bool bug) {
  std::atomic<int> word = 0;
  const auto call = [&](int operation, int value) {
    return syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
  };
  const auto wait = [&] {
    while (word == 0) {
      call(FUTEX_WAIT_PRIVATE, 0);
      if (bug) break;
    }
    EXPECT_EQ(word, 1);
  };
  InThreads({wait, [&] {
               word = 1;
               call(FUTEX_WAKE_PRIVATE, 1);
             }});
}

// The last one to arrive goes on while the others are woken.
void BarrierIsNoEnd(bool bug) {
  pthread_barrier_t barrier;
  ASSERT_EQ(pthread_barrier_init(&barrier, nullptr, 2), 0);
  int shared = 1;
  int found = 1;
  const auto work = [&] {
    if (pthread_barrier_wait(&barrier) != 0) {  // The last one.
      if (bug) shared = 0;
    } else {
      found = shared;
    }
  };
  InThreads({work, work});
  // Either may be, and each must be found.
  if (bug) {
    EXPECT_EQ(found, 0);
  }
  EXPECT_EQ(pthread_barrier_destroy(&barrier), 0);
}

// FUTEX_WAKE_BITSET wakes those alone who wait for it.
void FutexWakesAnother(bool bug) {
  std::atomic<int> word = 0;
  const auto call = [&](int operation, int value, int bits) {
    return syscall(SYS_futex, &word, operation, value, nullptr, nullptr, bits);
  };
  const auto wait_for = [&](int bits) {
    while (word == 0) call(FUTEX_WAIT_BITSET_PRIVATE, 0, bits);
  };
  InThreads({[&] { wait_for(1); }, [&] { wait_for(2); },
             [&] {
               word = 1;
               call(FUTEX_WAKE_BITSET_PRIVATE, 1, 1);
               call(FUTEX_WAKE_BITSET_PRIVATE, 1, bug ? 1 : 2);
             }});
}

void PrintTo(const Case& tried, std::ostream* out) { *out << tried.name; }

class StandardLibraryTest : public ::testing::TestWithParam<Case> {};

TEST_P(StandardLibraryTest, ABugIsFoundAndReplayed) {
  ExploreOptions options;
  options.runs = kRuns;
  options.delays = GetParam().delays;
  const Exploration found =
      FindFailure(options, [] { GetParam().body(/*bug=*/true); });
  ASSERT_TRUE(found.failure.has_value()) << found.runs << " runs";
  EXPECT_THAT(found.failure->what, HasSubstr(GetParam().symptom));
  EXPECT_TRUE(found.failure->replayed);
  RecordProperty("runs", static_cast<int>(found.runs));
}

// The C++ library's atomics yield some times before they wait.
TEST(StandardLibrary, EverySearchFindsWhatComesAfterTheWaitForAnAtomic) {
  for (const Search search :
       {Search::kRandom, Search::kPct, Search::kDepthFirst}) {
    ExploreOptions options;
    options.runs = 1000;
    options.search = search;
    const Exploration found = FindFailure(options, [] {
      std::atomic<int> word = 0;
      bool is_set = false;
      InThreads({[&] {
                   word.wait(0);
                   EXPECT_EQ(is_set, true);
                 },
                 [&] {
                   word = 1;
                   word.notify_one();
                   is_set = true;  // Too late.
                 }});
    });
    EXPECT_TRUE(found.failure.has_value()) << static_cast<int>(search);
  }
}

struct Catalog {
  explicit Catalog(bool asks);
};
struct Prices {
  explicit Prices(bool asks);
};
void FindCatalog(bool asks) { static const Catalog kCatalog(asks); }
void FindPrices(bool asks) { static const Prices kPrices(asks); }
Catalog::Catalog(bool asks) {
  if (asks) FindPrices(/*asks=*/false);
}
Prices::Prices(bool asks) {
  if (asks) FindCatalog(/*asks=*/false);
}

TEST(StandardLibrary, StaticVariablesThatNeedEachOtherAreADeadlock) {
  ExploreOptions options;
  options.runs = 300;
  options.fresh_process = true;
  for (const bool bug : {true, false}) {
    const Exploration found = FindFailure(options, [bug] {
      InThreads({[] { FindCatalog(/*asks=*/true); },
                 [bug] { FindPrices(/*asks=*/bug); }});
    });
    ASSERT_EQ(found.failure.has_value(), bug);
    if (!bug) continue;
    EXPECT_THAT(found.failure->what, HasSubstr(kDeadlock));
    EXPECT_TRUE(found.failure->replayed);
  }
}

TEST_P(StandardLibraryTest, WithoutTheBugNothingIsFound) {
  for (const Search search :
       {Search::kPortfolio, Search::kRandom, Search::kPct}) {
    ExploreOptions options;
    options.runs = 300;  // Of each; more with WARD_RUNS.
    options.search = search;
    options.delays = GetParam().delays;
    const Exploration found =
        FindFailure(options, [] { GetParam().body(/*bug=*/false); });
    EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, StandardLibraryTest,
    ::testing::Values(
        Case{"LostUpdate", kFailed, LostUpdate},
        Case{"LockOrder", kDeadlock, LockOrder},
        Case{"MissedWakeUp", kDeadlock, MissedWakeUp},
        Case{"AbseilsMissedWakeUp", kDeadlock, AbseilsMissedWakeUp},
        Case{"WrongOneIsWoken", kDeadlock, WrongOneIsWoken},
        Case{"TimeLimitTakenForSuccess", kFailed, TimeLimitTakenForSuccess},
        Case{"SharedMutexUpgrade", kFailed, SharedMutexUpgrade},
        Case{"ReaderWaitsForWriterThatWaitsForIt", kDeadlock,
             ReaderWaitsForWriterThatWaitsForIt},
        Case{"CallOnceDeadlock", kDeadlock, CallOnceDeadlock},
        Case{"StaticDeadlock", kDeadlock, StaticDeadlock},
        Case{"SemaphoreLosesAPermit", kDeadlock, SemaphoreLosesAPermit},
        Case{"SemaphoreHandsOverTooEarly", kFailed, SemaphoreHandsOverTooEarly},
        Case{"LatchOfOneTooMany", kDeadlock, LatchOfOneTooMany},
        Case{"BarrierPhaseIsLeftOut", kFailed, BarrierPhaseIsLeftOut},
        Case{"PromiseIsSetByNobody", kDeadlock, PromiseIsSetByNobody},
        Case{"AsyncIsNotAwaited", kFailed, AsyncIsNotAwaited},
        Case{"AtomicIsWaitedForWithoutWord", kDeadlock,
             AtomicIsWaitedForWithoutWord},
        Case{"StopIsNotHeard", kDeadlock, StopIsNotHeard},
        Case{"Pthreads", kFailed, Pthreads},
        Case{"CheckThenUseAfterUnlock", kFailed, CheckThenUseAfterUnlock},
        Case{"ConditionIsNotLookedAtAgain", kFailed,
             ConditionIsNotLookedAtAgain, /*delays=*/true},
        Case{"NoTimeoutIsTakenForSuccess", kFailed, NoTimeoutIsTakenForSuccess,
             /*delays=*/true},
        Case{"AbseilsConditionIsNotLookedAtAgain", kFailed,
             AbseilsConditionIsNotLookedAtAgain, /*delays=*/true},
        Case{"FutexIsNotLookedAtAgain", kFailed, FutexIsNotLookedAtAgain,
             /*delays=*/true},
        Case{"BarrierIsNoEnd", kFailed, BarrierIsNoEnd},
        Case{"FutexWakesAnother", kDeadlock, FutexWakesAnother},
        Case{"ReadsTwiceBehindAWriter", kDeadlock, ReadsTwiceBehindAWriter},
        Case{"SleepsInsteadOfWaiting", kFailed, SleepsInsteadOfWaiting},
        Case{"SleepsTwiceInsteadOfWaiting", kFailed,
             SleepsTwiceInsteadOfWaiting}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace ward::testing

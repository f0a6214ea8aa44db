#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/call_once.h"
#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/barrier.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/schedules_for_test.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

using ::testing::IsEmpty;

TEST(AbslMutex, JoinsTheSchedule) {
  CheckJoinsTheSchedule(10, [](Scheduler& scheduler, Events& events) {
    absl::Mutex mutex;
    InThreads(scheduler, 3, [&](int thread) {
      for (int i = 0; i < 2; ++i) {
        absl::MutexLock lock(&mutex);
        const size_t size = events.size();
        scheduler.Point("holding the lock");
        ASSERT_EQ(events.size(), size) << "nobody else is in here";
        events.push_back(absl::StrCat(thread));
      }
    });
    ASSERT_EQ(events.size(), 6u);
  });
}

TEST(AbslMutex, SharesReadersInTheSchedule) {
  bool together = false;
  CheckJoinsTheSchedule(5, [&](Scheduler& scheduler, Events& events) {
    absl::Mutex mutex;
    int readers = 0;
    bool writing = false;
    InThreads(scheduler, 4, [&](int thread) {
      if (thread == 0) {
        absl::WriterMutexLock lock(&mutex);
        writing = true;
        scheduler.Point("writing");
        ASSERT_EQ(readers, 0);
        writing = false;
      } else {
        absl::ReaderMutexLock lock(&mutex);
        ++readers;
        scheduler.Point("reading");
        together |= readers > 1;
        ASSERT_FALSE(writing);
        --readers;
      }
      events.push_back(absl::StrCat(thread));
    });
  });
  EXPECT_TRUE(together);
}

TEST(AbslMutex, AwaitJoinsTheSchedule) {
  CheckJoinsTheSchedule(3, [](Scheduler& scheduler, Events& events) {
    absl::Mutex mutex;
    int turn = 0;
    InThreads(scheduler, 3, [&](int thread) {
      scheduler.Point("starting");
      events.push_back(absl::StrCat("ready ", thread));
      const auto is_my_turn = [&] { return turn == thread; };
      absl::MutexLock lock(&mutex, absl::Condition(&is_my_turn));
      events.push_back(absl::StrCat("turn ", thread));
      ASSERT_EQ(turn, thread);
      ++turn;
    });
    ASSERT_EQ(turn, 3);
  });
}

TEST(AbslMutex, AwaitWithTimeoutEndsOnTheVirtualClock) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const absl::Time start = scheduler.now();
  absl::Mutex mutex;
  bool ready = false;
  absl::MutexLock lock(&mutex);
  EXPECT_FALSE(
      mutex.AwaitWithTimeout(absl::Condition(&ready), absl::Hours(100)));
  EXPECT_EQ(scheduler.now(), start + absl::Hours(100));
  // What is due at once takes no time. Newer versions of Abseil count all that
  // is long past as if it was due now.
  EXPECT_FALSE(
      mutex.AwaitWithDeadline(absl::Condition(&ready), scheduler.now()));
  EXPECT_EQ(scheduler.now(), start + absl::Hours(100));
  const int thread = scheduler.Start("setter", kMain, [&] {
    absl::SleepFor(absl::Hours(1));
    absl::MutexLock its_lock(&mutex);
    ready = true;
  });
  EXPECT_TRUE(mutex.AwaitWithDeadline(absl::Condition(&ready),
                                      start + absl::Hours(200)));
  EXPECT_EQ(scheduler.now(), start + absl::Hours(101));
  mutex.Unlock();
  scheduler.Join(thread);
  mutex.Lock();
}

// Each way to lock is a scheduling point: without one between them, two threads
// that read and write under one lock each would never come between.
TEST(AbslMutex, LosesUpdatesHoweverItIsLocked) {
  const bool yes = true;
  const absl::Condition always(&yes);
  using Lock = std::function<void(absl::Mutex&)>;
  const Lock locks[] = {
      [](absl::Mutex& mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS { mutex.Lock(); },
      [](absl::Mutex& mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        while (!mutex.TryLock()) std::this_thread::yield();
      },
      [&](absl::Mutex& mutex)
          ABSL_NO_THREAD_SAFETY_ANALYSIS { mutex.LockWhen(always); },
      [&](absl::Mutex& mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        mutex.LockWhenWithTimeout(always, absl::Seconds(1));
      },
      [&](absl::Mutex& mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        mutex.LockWhenWithDeadline(always, absl::InfiniteFuture());
      },
  };
  for (const Lock& lock : locks) {
    CheckJoinsTheSchedule(2, [&](Scheduler& scheduler, Events& events) {
      absl::Mutex mutex;
      int count = 0;
      InThreads(scheduler, 2, [&](int) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        lock(mutex);
        const int was = count;
        mutex.Unlock();
        lock(mutex);
        count = was + 1;
        mutex.Unlock();
      });
      events.push_back(absl::StrCat(count));
    });
  }
}

TEST(AbslCallOnce, JoinsTheSchedule) {
  CheckJoinsTheSchedule(3, [](Scheduler& scheduler, Events& events) {
    absl::once_flag once;
    int calls = 0;
    InThreads(scheduler, 3, [&](int thread) {
      absl::call_once(once, [&] {
        ++calls;
        scheduler.Point("doing it once");
        events.push_back(absl::StrCat("called by ", thread));
      });
      ASSERT_EQ(calls, 1);
      events.push_back(absl::StrCat(thread));
    });
  });
}

TEST(AbslCondVar, JoinsTheSchedule) {
  CheckJoinsTheSchedule(4, [](Scheduler& scheduler, Events& events) {
    absl::Mutex mutex;
    absl::CondVar changed;
    std::vector<int> queue;
    InThreads(scheduler, 4, [&](int thread) {
      absl::MutexLock lock(&mutex);
      if (thread < 2) {
        while (queue.empty()) changed.Wait(&mutex);
        events.push_back(absl::StrCat(thread, " takes ", queue.back()));
        queue.pop_back();
      } else {
        queue.push_back(thread);
        if (thread == 2) {
          changed.Signal();
        } else {
          changed.SignalAll();
        }
      }
    });
    ASSERT_THAT(queue, IsEmpty());
  });
}

TEST(AbslCondVar, TimesOutOnTheVirtualClock) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const absl::Time start = scheduler.now();
  absl::Mutex mutex;
  absl::CondVar never;
  absl::MutexLock lock(&mutex);
  EXPECT_TRUE(never.WaitWithTimeout(&mutex, absl::Hours(100)));
  EXPECT_EQ(scheduler.now(), start + absl::Hours(100));
  EXPECT_TRUE(never.WaitWithDeadline(&mutex, start)) << "long past";
  EXPECT_EQ(scheduler.now(), start + absl::Hours(100));
}

TEST(AbslNotification, JoinsTheSchedule) {
  CheckJoinsTheSchedule(5, [](Scheduler& scheduler, Events& events) {
    absl::Notification go;
    InThreads(scheduler, 3, [&](int thread) {
      if (thread == 1) {
        scheduler.Point("about to notify");
        events.push_back("go");
        go.Notify();
        return;
      }
      events.push_back(absl::StrCat(thread, " waits"));
      go.WaitForNotification();
      events.push_back(absl::StrCat(thread, " goes"));
    });
  });
}

TEST(AbslNotification, TimesOutOnTheVirtualClock) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const absl::Time start = scheduler.now();
  absl::Notification never;
  EXPECT_FALSE(never.WaitForNotificationWithTimeout(absl::Hours(100)));
  EXPECT_EQ(scheduler.now(), start + absl::Hours(100));
  EXPECT_FALSE(never.WaitForNotificationWithTimeout(-absl::Hours(1)));
  EXPECT_EQ(scheduler.now(), start + absl::Hours(100));
}

TEST(AbslBarrier, JoinsTheSchedule) {
  CheckJoinsTheSchedule(5, [](Scheduler& scheduler, Events& events) {
    auto* const barrier = new absl::Barrier(3);
    size_t arrived = 0;
    InThreads(scheduler, 3, [&](int thread) {
      scheduler.Point("on the way");
      ++arrived;
      events.push_back(absl::StrCat(thread));
      const bool last = barrier->Block();
      ASSERT_EQ(arrived, 3u);
      if (last) delete barrier;
    });
  });
}

TEST(AbslBlockingCounter, JoinsTheSchedule) {
  CheckJoinsTheSchedule(5, [](Scheduler& scheduler, Events& events) {
    absl::BlockingCounter counter(3);
    std::vector<int> threads;
    for (int i = 0; i < 3; ++i) {
      threads.push_back(scheduler.Start("worker", kMain, [&, i] {
        scheduler.Point("working");
        events.push_back(absl::StrCat(i));
        counter.DecrementCount();
      }));
    }
    counter.Wait();
    ASSERT_EQ(events.size(), 3u);
    for (const int thread : threads) scheduler.Join(thread);
  });
}

}  // namespace
}  // namespace ward::testing

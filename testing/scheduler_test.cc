#include "ward/testing/scheduler.h"

#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/call_once.h"
#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/barrier.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/link_time_hooks.h"
#include "ward/testing/strategy.h"

namespace ward::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The group of the first thread.
constexpr int kMain = 1;

class RealTime {
 public:
  double Seconds() const { return Now() - start_; }

 private:
  // Outside of the simulation's clock, which clock_gettime(2) of these kinds
  // is not part of.
  static double Now() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return static_cast<double>(now.tv_sec) +
           1e-9 * static_cast<double>(now.tv_nsec);
  }
  double start_ = Now();
};

// What happened, in order.
using Events = std::vector<std::string>;

struct MadeRun {
  Events events;
  Deviations deviations;
};

// Makes one run of `body`.
MadeRun MakeRun(Strategy& strategy,
                absl::FunctionRef<void(Scheduler&, Events&)> body) {
  MadeRun run;
  uint32_t step = 0;
  SchedulerOptions options;
  options.on_choice = [&](const Choice&, size_t option) {
    if (option != 0) run.deviations[step] = static_cast<uint32_t>(option);
    ++step;
  };
  Scheduler scheduler(strategy, options);
  body(scheduler, run.events);
  return run;
}

// Under many schedules: `expected` different courses at least, and each the
// same again from its seed and from its deviations.
void CheckJoinsTheSchedule(size_t expected,
                           absl::FunctionRef<void(Scheduler&, Events&)> body) {
  std::set<Events> courses;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    RandomStrategy random(seed);
    const MadeRun run = MakeRun(random, body);
    RandomStrategy same(seed);
    ASSERT_EQ(MakeRun(same, body).events, run.events) << "seed " << seed;
    ReplayStrategy replay(run.deviations);
    ASSERT_EQ(MakeRun(replay, body).events, run.events) << "seed " << seed;
    courses.insert(run.events);
  }
  EXPECT_GE(courses.size(), expected);
}

// Starts `count` threads of `body`, and waits for them.
void InThreads(Scheduler& scheduler, int count,
               const std::function<void(int)>& body) {
  std::vector<int> threads;
  for (int i = 0; i < count; ++i) {
    threads.push_back(
        scheduler.Start(absl::StrCat("t", i), kMain, [&body, i] { body(i); }));
  }
  for (const int thread : threads) scheduler.Join(thread);
}

TEST(Scheduler, RunsOneThreadAtATime) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    RandomStrategy strategy(seed);
    Scheduler scheduler(strategy, {});
    // Not atomic, so that ThreadSanitizer looks, too.
    int running = 0;
    int steps = 0;
    InThreads(scheduler, 4, [&](int) {
      for (int i = 0; i < 10; ++i) {
        ASSERT_EQ(++running, 1);
        ++steps;
        --running;
        scheduler.Point("counting");
      }
    });
    EXPECT_EQ(steps, 40);
  }
}

TEST(Scheduler, InterleavesThreadsAndRepeatsItself) {
  CheckJoinsTheSchedule(80, [](Scheduler& scheduler, Events& events) {
    InThreads(scheduler, 3, [&](int thread) {
      for (int i = 0; i < 4; ++i) {
        events.push_back(absl::StrCat(thread, i));
        scheduler.Point("counting");
      }
    });
  });
}

TEST(Scheduler, GoesOnWithTheThreadThatRunsIfNothingElseIsChosen) {
  ReplayStrategy dull({});
  const MadeRun run = MakeRun(dull, [](Scheduler& scheduler, Events& events) {
    InThreads(scheduler, 2, [&](int thread) {
      for (int i = 0; i < 2; ++i) {
        events.push_back(absl::StrCat(thread, i));
        scheduler.Point("counting");
      }
    });
  });
  EXPECT_THAT(run.events, ElementsAre("00", "01", "10", "11"));
}

TEST(Scheduler, KnowsOnlyItsOwnThreads) {
  EXPECT_EQ(Scheduler::Current(), nullptr);
  ReplayStrategy dull({});
  {
    Scheduler scheduler(dull, {});
    EXPECT_EQ(Scheduler::Current(), &scheduler);
    InThreads(scheduler, 1, [&](int) {
      EXPECT_EQ(Scheduler::Current(), &scheduler);
      EXPECT_EQ(scheduler.group(), kMain);
    });
    const int other =
        scheduler.Start("other", 7, [&] { EXPECT_EQ(scheduler.group(), 7); });
    scheduler.Join(other);
  }
  EXPECT_EQ(Scheduler::Current(), nullptr);
}

// --- time ---

TEST(Scheduler, LeapsOverTimeInWhichNothingHappens) {
  const RealTime real;
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const absl::Time start = absl::Now();
  Events events;
  InThreads(scheduler, 3, [&](int thread) {
    absl::SleepFor(absl::Hours(100) * (3 - thread));
    events.push_back(absl::StrCat(thread, " at ",
                                  absl::FormatDuration(absl::Now() - start)));
  });
  EXPECT_THAT(events, ElementsAre("2 at 100h", "1 at 200h", "0 at 300h"));
  EXPECT_EQ(scheduler.now(), start + absl::Hours(300));
  EXPECT_LT(real.Seconds(), 60);
}

TEST(Scheduler, IsUnderAllClocks) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const auto system = std::chrono::system_clock::now();
  const auto steady = std::chrono::steady_clock::now();
  const absl::Time start = absl::Now();
  EXPECT_EQ(start, scheduler.now());
  EXPECT_EQ(absl::FromChrono(system), start);
  EXPECT_EQ(std::chrono::steady_clock::now(), steady) << "time stands still";
  absl::SleepFor(absl::Hours(100));
  EXPECT_EQ(absl::Now() - start, absl::Hours(100));
  EXPECT_EQ(std::chrono::system_clock::now() - system, std::chrono::hours(100));
  EXPECT_EQ(std::chrono::steady_clock::now() - steady, std::chrono::hours(100));
  EXPECT_EQ(absl::GetCurrentTimeNanos(), absl::ToUnixNanos(scheduler.now()));
  timeval now;
  gettimeofday(&now, nullptr);
  EXPECT_EQ(absl::TimeFromTimeval(now), scheduler.now());
}

TEST(Scheduler, IsUnderWhatTheStandardLibrarySleepsBy) {
  const RealTime real;
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const absl::Time start = scheduler.now();
  std::this_thread::sleep_for(std::chrono::hours(1));
  EXPECT_EQ(scheduler.now() - start, absl::Hours(1));
  std::this_thread::sleep_until(std::chrono::steady_clock::now() +
                                std::chrono::hours(1));
  std::this_thread::sleep_until(std::chrono::system_clock::now() +
                                std::chrono::hours(1));
  EXPECT_EQ(scheduler.now() - start, absl::Hours(3));
  const timespec end = absl::ToTimespec(scheduler.now() + absl::Hours(1));
  EXPECT_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, nullptr), 0);
  EXPECT_EQ(sleep(3600), 0u);
  EXPECT_EQ(usleep(500'000), 0);
  EXPECT_EQ(scheduler.now() - start, absl::Hours(5) + absl::Milliseconds(500));
  EXPECT_LT(real.Seconds(), 60);
}

// Abseil counts some from whole microseconds: who waits again for what is left
// would do so for ever, if the clock stood between two.
TEST(Scheduler, TimeLimitsBetweenTwoMicrosecondsEnd) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const absl::Time start = absl::Now();
  absl::Mutex mutex;
  const bool never = false;
  for (const absl::Duration odd :
       {absl::Nanoseconds(1), absl::Nanoseconds(999), absl::Nanoseconds(1001),
        absl::Nanoseconds(10'000'002), absl::Seconds(1) / 3}) {
    const absl::Time limit = absl::Now() + odd;
    int waits = 0;
    absl::MutexLock lock(&mutex);
    while (absl::Now() < limit) {
      ++waits;
      mutex.AwaitWithTimeout(absl::Condition(&never), limit - absl::Now());
    }
    EXPECT_LE(waits, 2) << odd;
    EXPECT_LT(absl::Now(), limit + absl::Microseconds(1)) << odd;
  }
  scheduler.Advance(absl::Nanoseconds(1));
  timeval now;
  gettimeofday(&now, nullptr);
  EXPECT_EQ(absl::TimeFromTimeval(now), absl::Now());
  EXPECT_EQ(absl::Now(), scheduler.now());
  EXPECT_GT(absl::Now(), start);
}

// Abseil cuts time limits to whole nanoseconds, and clocks show no others.
TEST(Scheduler, TimeLimitsOfLessThanANanosecondEnd) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  absl::Mutex mutex;
  absl::CondVar never;
  const absl::Time limit = absl::Now() + absl::Seconds(1) / 3;
  int waits = 0;
  {
    absl::MutexLock lock(&mutex);
    while (absl::Now() < limit) {
      ++waits;
      never.WaitWithDeadline(&mutex, limit);
    }
  }
  EXPECT_LE(waits, 2);
  absl::SleepFor(absl::Seconds(1) / 3);
  EXPECT_EQ(absl::Now(), scheduler.now());
}

TEST(Scheduler, LeavesTimeAloneElsewhere) {
  const absl::Time before = absl::Now();
  {
    ReplayStrategy dull({});
    Scheduler scheduler(dull, {});
    absl::SleepFor(absl::Hours(100));
  }
  EXPECT_GE(absl::Now(), before);
  EXPECT_LT(absl::Now(), before + absl::Hours(1));
  absl::SleepFor(absl::Milliseconds(1));
  absl::SleepFor(-absl::Seconds(1));
  EXPECT_GE(absl::Now(), before + absl::Milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  usleep(1000);
  EXPECT_EQ(sleep(0), 0u);
  std::this_thread::yield();
  const timespec wrong = {0, -1};
  EXPECT_EQ(nanosleep(&wrong, nullptr), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_GE(absl::Now(), before + absl::Milliseconds(3));
  CheckLinkTimeHooks();
}

TEST(Scheduler, AdvanceLetsEveryoneActAtTheirOwnTime) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    RandomStrategy strategy(seed);
    Scheduler scheduler(strategy, {});
    const absl::Time start = scheduler.now();
    Events events;
    const auto note = [&](std::string_view who) {
      events.push_back(
          absl::StrCat(who, absl::ToInt64Seconds(scheduler.now() - start)));
    };
    const int a = scheduler.Start("a", kMain, [&] {
      for (int i = 0; i < 3; ++i) {
        absl::SleepFor(absl::Seconds(2));
        note("a");
      }
    });
    const int b = scheduler.Start("b", kMain, [&] {
      absl::SleepFor(absl::Seconds(3));
      note("b");
    });
    scheduler.SetTimer(9, start + absl::Seconds(1), [&] { note("timer"); });
    scheduler.Advance(absl::Seconds(5));
    note("main");
    EXPECT_THAT(events, ElementsAre("timer1", "a2", "b3", "a4", "main5"));
    scheduler.Advance(absl::ZeroDuration());
    EXPECT_EQ(scheduler.now(), start + absl::Seconds(5));
    scheduler.Join(a);
    scheduler.Join(b);
    EXPECT_EQ(scheduler.now(), start + absl::Seconds(6));
  }
}

TEST(Scheduler, AdvanceCountsTheStepsOfEachPartOfTheTime) {
  SchedulerOptions options;
  options.max_steps = 1000;
  RandomStrategy strategy(1);
  Scheduler scheduler(strategy, options);
  int beats = 0;
  scheduler.Start("heart", 7, [&] {
    for (;; ++beats) absl::SleepFor(absl::Seconds(1));
  });
  scheduler.Advance(absl::Hours(2));
  EXPECT_EQ(beats, 7200);
  scheduler.Kill(7);
}

// Waits by asking again and again, as for an atomic that another thread sets,
// at a time of its own: in every search, the dull run among them.
TEST(Scheduler, ALoopThatYieldsLetsOthersRunAndTimePass) {
  const auto run = [](Strategy& strategy) {
    Scheduler scheduler(strategy, {});
    std::atomic<int> set = 0;
    absl::Mutex held;
    const int setter = scheduler.Start("setter", kMain, [&] {
      set = 1;
      absl::SleepFor(absl::Seconds(1));
      set = 2;
    });
    const int holder = scheduler.Start("holder", kMain, [&] {
      absl::MutexLock lock(&held);
      scheduler.Point("holding it");
    });
    while (set < 1) std::this_thread::yield();
    while (set < 2) std::this_thread::yield();
    while (!held.TryLock()) absl::SleepFor(absl::ZeroDuration());
    held.Unlock();
    scheduler.Join(setter);
    scheduler.Join(holder);
  };
  ReplayStrategy dull({});
  run(dull);
  for (uint64_t seed = 0; seed < 100; ++seed) {
    RandomStrategy random(seed, seed % 2 == 1);
    run(random);
    PctStrategy pct(seed, 1 + static_cast<int>(seed % 5), 20);
    run(pct);
  }
  DepthFirstStrategy all(2, 0, {});
  size_t runs = 0;
  do {
    run(all);
  } while (++runs < 2000 && all.NextRun());
  EXPECT_GT(runs, 50u);
}

TEST(Scheduler, WaitUntilIdleLetsNoTimePass) {
  RandomStrategy strategy(1);
  Scheduler scheduler(strategy, {});
  const absl::Time start = scheduler.now();
  int steps = 0;
  const int thread = scheduler.Start("worker", kMain, [&] {
    for (; steps < 10; ++steps) scheduler.Point("working");
    absl::SleepFor(absl::Seconds(1));
  });
  scheduler.WaitUntilIdle();
  EXPECT_EQ(steps, 10);
  EXPECT_EQ(scheduler.now(), start);
  scheduler.Join(thread);
}

TEST(Scheduler, TimersComeOnTimeAndAreTakenBack) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const absl::Time start = scheduler.now();
  Events events;
  const auto note = [&](std::string_view what) {
    return [&, what] {
      events.push_back(absl::StrCat(
          what, " at ", absl::FormatDuration(scheduler.now() - start)));
    };
  };
  scheduler.SetTimer(1, start + absl::Seconds(3), note("replaced"));
  scheduler.SetTimer(1, start + absl::Seconds(2), note("one"));
  scheduler.SetTimer(2, start + absl::Seconds(1), note("taken back"));
  scheduler.SetTimer(2, absl::InfiniteFuture(), nullptr);
  scheduler.SetTimer(3, start + absl::Seconds(1), note("three"));
  scheduler.SetTimer(4, start + absl::Seconds(1), note("killed"));
  scheduler.Kill(4);
  absl::SleepFor(absl::Seconds(9));
  EXPECT_THAT(events, ElementsAre("three at 1s", "one at 2s"));
}

TEST(Scheduler, DelaysLetADeadlineComeEarly) {
  // A thread is busy for no time at all, and yet a time limit may run out.
  bool timed_out = false;
  bool in_time = false;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    RandomStrategy strategy(seed);
    SchedulerOptions options;
    options.delays = true;
    Scheduler scheduler(strategy, options);
    absl::Notification done;
    const int thread = scheduler.Start("worker", kMain, [&] {
      for (int i = 0; i < 5; ++i) scheduler.Point("working");
      done.Notify();
    });
    (done.WaitForNotificationWithTimeout(absl::Seconds(1)) ? in_time
                                                           : timed_out) = true;
    scheduler.Join(thread);
  }
  EXPECT_TRUE(timed_out);
  EXPECT_TRUE(in_time);
}

// --- absl's synchronization ---

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

TEST(AbslSleepFor, JoinsTheSchedule) {
  CheckJoinsTheSchedule(2, [](Scheduler& scheduler, Events& events) {
    InThreads(scheduler, 2, [&](int thread) {
      absl::SleepFor(absl::Seconds(1));
      events.push_back(absl::StrCat(thread));
    });
  });
}

// --- groups ---

TEST(Scheduler, KilledGroupsNeverRunAgain) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    RandomStrategy strategy(seed);
    Scheduler scheduler(strategy, {});
    int steps = 0;
    int others = 0;
    for (int i = 0; i < 2; ++i) {
      scheduler.Start(absl::StrCat("victim", i), 7, [&] {
        while (true) {
          ++steps;
          absl::SleepFor(absl::Seconds(1));
        }
      });
    }
    scheduler.Start("never started", 7,
                    [&] { absl::SleepFor(absl::Hours(1)); });
    const int other = scheduler.Start("other", 8, [&] {
      for (; others < 100; ++others) absl::SleepFor(absl::Seconds(1));
    });
    scheduler.Advance(absl::Seconds(5));
    EXPECT_EQ(scheduler.LiveThreads(7).size(), 3u);
    scheduler.Kill(7);
    EXPECT_THAT(scheduler.LiveThreads(7), IsEmpty());
    EXPECT_EQ(scheduler.killed_threads(), 3u);
    const int before = steps;
    scheduler.Join(other);
    EXPECT_EQ(steps, before);
    EXPECT_EQ(others, 100);
  }
}

TEST(Scheduler, AThreadThatKillsItsOwnGroupStopsWhereItLeaves) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  Events events;
  scheduler.Start("suicide", 7, [&] {
    scheduler.LeaveIfKilled();
    events.push_back("alive");
    scheduler.Kill(7);
    events.push_back("goes on");
    scheduler.LeaveIfKilled();
    events.push_back("unreachable");
  });
  scheduler.Start("waits after its death", 8, [&] {
    scheduler.Kill(8);
    absl::SleepFor(absl::Seconds(1));
    events.push_back("unreachable");
  });
  scheduler.Advance(absl::Minutes(1));
  EXPECT_THAT(events, ElementsAre("alive", "goes on"));
}

TEST(Scheduler, JoiningAKilledThreadReturns) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const int thread =
      scheduler.Start("victim", 7, [] { absl::SleepFor(absl::Hours(1)); });
  scheduler.Kill(7);
  scheduler.Join(thread);
  EXPECT_EQ(scheduler.killed_threads(), 1u);
}

TEST(Scheduler, BlockUntilSaysWhatCameFirst) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const absl::Time start = scheduler.now();
  bool ready = false;
  const auto is_ready = [&] { return ready; };
  EXPECT_FALSE(scheduler.BlockUntil("waiting", is_ready, start))
      << "a deadline that has passed";
  const int thread = scheduler.Start("setter", kMain, [&] {
    absl::SleepFor(absl::Seconds(2));
    ready = true;
  });
  EXPECT_FALSE(
      scheduler.BlockUntil("waiting", is_ready, start + absl::Seconds(1)));
  EXPECT_TRUE(
      scheduler.BlockUntil("waiting", is_ready, start + absl::Seconds(3)));
  EXPECT_EQ(scheduler.now(), start + absl::Seconds(2));
  EXPECT_TRUE(scheduler.BlockUntil("waiting", is_ready, start))
      << "ready, and too late";
  scheduler.Join(thread);
}

// --- what cannot go on ---

void ExpectStuck(const SchedulerOptions& options, std::string_view why,
                 absl::FunctionRef<void(Scheduler&)> body) {
  EXPECT_EXIT(
      {
        SchedulerOptions stuck = options;
        stuck.on_stuck = [](const std::string& text) {
          fputs(text.c_str(), stderr);
          _exit(3);
        };
        RandomStrategy strategy(1);
        Scheduler scheduler(strategy, stuck);
        body(scheduler);
        _exit(0);
      },
      ::testing::ExitedWithCode(3), std::string(why));
}

TEST(SchedulerDeathTest, ReportsADeadlockAndWhoWaits) {
  ExpectStuck({},
              "deadlock: all threads wait(.|\n)*"
              "thread 0 of process 1, main: joining a thread(.|\n)*"
              "thread 1 of process 7, left: waiting for a mutex(.|\n)*"
              "thread 2 of process 7, right: waiting for a mutex",
              [](Scheduler& scheduler) {
                absl::Notification left;
                absl::Notification right;
                const int first = scheduler.Start("left", 7, [&] {
                  left.WaitForNotification();
                  right.Notify();
                });
                scheduler.Start("right", 7, [&] {
                  right.WaitForNotification();
                  left.Notify();
                });
                scheduler.Join(first);
              });
}

TEST(SchedulerDeathTest, ReportsAThreadThatSleepsForEver) {
  ExpectStuck({}, "deadlock(.|\n)*main: sleeping",
              [](Scheduler&) { absl::SleepFor(absl::InfiniteDuration()); });
}

TEST(SchedulerDeathTest, ReportsAnEndlessLoop) {
  SchedulerOptions options;
  options.max_steps = 1000;
  ExpectStuck(options,
              "no end after 1000 steps(.|\n)*main: polling(.|\n)*"
              "sleeper: sleeping, for 1h",
              [](Scheduler& scheduler) {
                scheduler.Start("sleeper", kMain,
                                [] { absl::SleepFor(absl::Hours(1)); });
                while (true) scheduler.Point("polling");
              });
}

TEST(SchedulerDeathTest, ReportsALoopThatYieldsForEver) {
  SchedulerOptions options;
  options.max_steps = 1000;
  ExpectStuck(options, "no end after 1000 steps", [](Scheduler&) {
    while (true) std::this_thread::yield();
  });
}

TEST(SchedulerDeathTest, ReportsALoopThatLetsTimePass) {
  SchedulerOptions options;
  options.max_steps = 1000;
  ExpectStuck(options, "no end after 1000 steps", [](Scheduler&) {
    while (true) absl::SleepFor(absl::Seconds(1));
  });
}

TEST(SchedulerDeathTest, RefusesCallsOfOtherThreads) {
  EXPECT_DEATH(
      {
        ReplayStrategy dull({});
        Scheduler scheduler(dull, {});
        std::thread([&] { scheduler.Point("calling"); }).join();
      },
      "not started through ward::Environment::StartThread calls a simulated");
}

TEST(SchedulerDeathTest, RefusesToBeWokenByOtherThreads) {
  EXPECT_DEATH(
      {
        ReplayStrategy dull({});
        Scheduler scheduler(dull, {});
        absl::Notification given;
        std::thread giver;
        const int waiter = scheduler.Start(
            "waiter", kMain, [&] { given.WaitForNotification(); });
        scheduler.WaitUntilIdle();
        giver = std::thread([&] { given.Notify(); });
        giver.join();
        scheduler.Join(waiter);
      },
      "not started through ward::Environment::StartThread wakes one");
}

TEST(SchedulerDeathTest, AbortsWithAllStacksIfNobodyElseIsTold) {
  EXPECT_DEATH(
      {
        ReplayStrategy dull({});
        Scheduler scheduler(dull, {});
        scheduler.Start("waiter", 7,
                        [] { absl::SleepFor(absl::InfiniteDuration()); });
        scheduler.Advance(absl::Hours(1));
        absl::Notification never;
        never.WaitForNotification();
      },
      "deadlock(.|\n)*thread [0-9]+:(.|\n)*Notification(.|\n)*"
      "thread [0-9]+:");
}

}  // namespace
}  // namespace ward::testing

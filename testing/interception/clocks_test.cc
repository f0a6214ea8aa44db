#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/testing/simulator/interception_check.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/schedules_for_test.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

TEST(Clocks, AreTheSchedulers) {
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
  timespec utc;
  EXPECT_EQ(timespec_get(&utc, TIME_UTC), TIME_UTC);
  EXPECT_EQ(absl::TimeFromTimespec(utc), scheduler.now());
}

TEST(Clocks, AreWhatTheStandardLibrarySleepsBy) {
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
TEST(Clocks, TimeLimitsBetweenTwoMicrosecondsEnd) {
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
TEST(Clocks, TimeLimitsOfLessThanANanosecondEnd) {
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

TEST(Clocks, AreLeftAloneElsewhere) {
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
  CheckInterception();
}

TEST(AbslSleepFor, JoinsTheSchedule) {
  CheckJoinsTheSchedule(2, [](Scheduler& scheduler, Events& events) {
    InThreads(scheduler, 2, [&](int thread) {
      absl::SleepFor(absl::Seconds(1));
      events.push_back(absl::StrCat(thread));
    });
  });
}

}  // namespace
}  // namespace ward::testing

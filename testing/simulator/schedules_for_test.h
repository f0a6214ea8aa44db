// Runs of a few threads under many schedules.

#ifndef WARD_TESTING_SIMULATOR_SCHEDULES_FOR_TEST_H_
#define WARD_TESTING_SIMULATOR_SCHEDULES_FOR_TEST_H_

#include <time.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

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
inline MadeRun MakeRun(Strategy& strategy,
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
inline void CheckJoinsTheSchedule(
    size_t expected, absl::FunctionRef<void(Scheduler&, Events&)> body) {
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
inline void InThreads(Scheduler& scheduler, int count,
                      const std::function<void(int)>& body) {
  std::vector<int> threads;
  for (int i = 0; i < count; ++i) {
    threads.push_back(
        scheduler.Start(absl::StrCat("t", i), kMain, [&body, i] { body(i); }));
  }
  for (const int thread : threads) scheduler.Join(thread);
}

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_SCHEDULES_FOR_TEST_H_

// A file of its own: the watchdog has 5 s of patience.

#include "ward/testing/simulator/watchdog.h"

#include <unistd.h>

#include <array>
#include <mutex>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// Neither inlined nor a tail call, so that the stacks name them.
[[gnu::noinline]] void SleepsInTheSchedule() {
  absl::SleepFor(absl::Hours(1));
  asm volatile("");
}

[[gnu::noinline]] void WaitsOutsideTheSchedule() {
  std::array<int, 2> ends;
  if (pipe(ends.data()) != 0) _exit(1);
  char byte;
  while (read(ends[0], &byte, 1) != 1) {
  }
  asm volatile("");
}

TEST(WatchdogDeathTest, ReportsAThreadThatWaitsOutsideTheSchedule) {
  EXPECT_DEATH(
      {
        ReplayStrategy dull({});
        Scheduler scheduler(dull, {});
        scheduler.Start("sleeper", 1, SleepsInTheSchedule);
        scheduler.Advance(absl::Seconds(1));
        WaitsOutsideTheSchedule();
      },
      "has not come to a scheduling point for 5 s(.|\n)*"
      "thread [0-9]+:\n(.|\n)*WaitsOutsideTheSchedule(.|\n)*"
      "thread [0-9]+:\n(.|\n)*SleepsInTheSchedule");
}

TEST(Watchdog, IsQuietWhenNoSimulationRuns) {
  for (int i = 0; i < 3; ++i) {
    ReplayStrategy dull({});
    Scheduler scheduler(dull, {});
    absl::SleepFor(absl::Hours(100));
  }
  absl::SleepFor(absl::Milliseconds(1100));
}

}  // namespace
}  // namespace ward::testing

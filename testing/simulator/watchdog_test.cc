// A file of its own: the watchdog has 5 s of patience.

#include "ward/testing/simulator/watchdog.h"

#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <ctime>

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
  while (true) syscall(SYS_pause);
}

[[gnu::noinline]] void Loops() {
  while (true) asm volatile("");
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
      "waits for something outside the schedule(.|\n)*"
      "thread [0-9]+:\n(.|\n)*WaitsOutsideTheSchedule(.|\n)*"
      "thread [0-9]+:\n(.|\n)*SleepsInTheSchedule");
}

TEST(WatchdogDeathTest, ReportsAThreadThatLoops) {
  EXPECT_DEATH(
      {
        ReplayStrategy dull({});
        const Scheduler scheduler(dull, {});
        Loops();
      },
      "it loops(.|\n)*thread [0-9]+:\n(.|\n)*Loops");
}

// As on a machine under load. It takes more than 5 s to get so much.
TEST(Watchdog, HasPatienceWithAThreadThatHardlyRuns) {
  ReplayStrategy dull({});
  const Scheduler scheduler(dull, {});
  cpu_set_t found;
  ASSERT_EQ(sched_getaffinity(0, sizeof(found), &found), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  std::array<pid_t, 2> others;
  for (pid_t& other : others) {
    other = fork();
    if (other == 0) Loops();
  }
  ASSERT_EQ(setpriority(PRIO_PROCESS, 0, 19), 0);
  const clock_t end = clock() + CLOCKS_PER_SEC / 25;
  while (clock() < end) {
  }
  for (const pid_t other : others) {
    kill(other, SIGKILL);
    waitpid(other, nullptr, 0);
  }
  sched_setaffinity(0, sizeof(found), &found);
}

TEST(Watchdog, IsQuietWhenNoSimulationRuns) {
  for (int i = 0; i < 3; ++i) {
    ReplayStrategy dull({});
    Scheduler scheduler(dull, {});
    absl::SleepFor(absl::Hours(100));
  }
  absl::SleepFor(absl::Milliseconds(1100));
}

TEST(Watchdog, IsQuietBetweenSimulationsThoughItStaysAwake) {
  Watchdog::StayAwake();
  {
    ReplayStrategy dull({});
    const Scheduler scheduler(dull, {});
  }
  absl::SleepFor(absl::Seconds(6));
}

}  // namespace
}  // namespace ward::testing

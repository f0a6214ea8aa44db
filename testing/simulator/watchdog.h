// Notices a simulated thread that waits for something outside the schedule,
// which nothing in the simulation could ever end, or loops. And a test of real
// threads that will run out of time.

#ifndef WARD_TESTING_SIMULATOR_WATCHDOG_H_
#define WARD_TESTING_SIMULATOR_WATCHDOG_H_

#include <signal.h>

#include <string_view>

namespace ward::testing {

// Uses SIGRTMAX while a simulation runs, or from LimitRealTest on, and SIGURG
// to print stacks, which servers' threads do not block. One simulation at a
// time. Does nothing in a process that a debugger holds.
class Watchdog {
 public:
  static void Start();
  static void Stop();

  // Does what is done once in a process before stacks are printed, and which
  // its forks then need not do each.
  static void PrepareStacks();

  // For a process that makes many runs: its timer goes on between them, and
  // nothing comes of it.
  static void StayAwake();

  // A step was made. After 5 s (Patience) of waiting, or of the processor's
  // time, without one, prints all stacks and aborts.
  static void Feed();

  // Something waits for another program or machine: patience is for a minute
  // until that has answered. As often as it is said.
  static void ExpectTheWorld();
  static void WorldHasAnswered();
  static bool ExpectsTheWorld();
  static int Patience();  // In seconds.

  // Instead of printing why it does so, has `function` told, unless it is null.
  // In signal context, as all of this.
  static void SetTold(void (*function)(std::string_view why));

  // In a process without a simulation: prints all stacks and aborts when this
  // test still runs in so many seconds. Again: from then on.
  static void LimitRealTest(int seconds);

  // From now on a thread of this process that crashes prints its stack, as does
  // the process when it is told to end. Sanitizers do that themselves.
  static void ShowStackOfCrash();

  // Whether it is that which does so.
  static bool ShowsCrash(const struct sigaction& action);

  // What each thread of this process is doing, to standard error.
  static void PrintStacks();
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_WATCHDOG_H_

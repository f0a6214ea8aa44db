// Notices a simulated thread that waits for something outside the schedule: a
// real socket, a std::mutex, a child process. Nothing in the simulation could
// ever end that wait.

#ifndef WARD_TESTING_WATCHDOG_H_
#define WARD_TESTING_WATCHDOG_H_

namespace ward::testing {

// Uses SIGRTMAX and SIGRTMAX-1 while a simulation runs; one at a time. Does
// nothing in a process that a debugger holds.
class Watchdog {
 public:
  static void Start();
  static void Stop();

  // A step was made. After 5 s without one, prints all stacks and aborts.
  static void Feed();

  // From now on a thread of this process that crashes prints its stack, as does
  // the process when it is told to end. Sanitizers do that themselves.
  static void ShowStackOfCrash();

  // What each thread of this process is doing, to standard error.
  static void PrintStacks();
};

}  // namespace ward::testing

#endif  // WARD_TESTING_WATCHDOG_H_

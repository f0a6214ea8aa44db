// What a simulated thread runs on: a stack, and thread-local storage.
//
// A kernel thread of its own; or, many times faster, those of a kernel thread
// that is asleep, borrowed by the one that runs the whole simulation (a fiber):
// to go from one to the other is to exchange the stack pointer and the FS base.
// The schedule is the same with both.

#ifndef WARD_TESTING_SIMULATOR_RUNNER_H_
#define WARD_TESTING_SIMULATOR_RUNNER_H_

#include <pthread.h>
#include <sys/types.h>

#include <memory>

namespace ward::testing {

class Runner {
 public:
  // Whether they are fibers: where the processor and the kernel let programs
  // write the FS base (x86-64's FSGSBASE, Linux 5.9). Not under sanitizers, nor
  // in a debugger, which know kernel threads only; nor where the environment
  // has WARD_KERNEL_THREADS. The same for all of a process's life.
  static bool AreFibers();

  // The calling thread, which runs.
  static std::unique_ptr<Runner> ForCallingThread();

  // One that calls `entry` when it is switched to for the first time. Null if
  // there can be no more threads; errno says why. `attributes` may be null.
  static std::unique_ptr<Runner> Create(const pthread_attr_t* attributes,
                                        void (*entry)(void*), void* argument);

  // The threads whose stacks nobody uses end now, as other simulations and
  // forks want none; unless this process makes many runs.
  static void EndParkedThreads();
  static void KeepParkedThreads();

  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  // Of one that has not left, and is not the calling thread: leaves it asleep
  // for ever, with its stack.
  virtual ~Runner() = default;

  // By this one, which runs: `next` goes on instead. Returns when somebody
  // switches to this one.
  virtual void SwitchTo(Runner& next) = 0;

  // The same, at the end of `entry`, which has nothing more to do then.
  virtual void LeaveTo(Runner& next) = 0;

  // By another one, after LeaveTo: returns when this one does nothing any more.
  virtual void AwaitEnd() = 0;

  pthread_t handle() const { return handle_; }
  // The kernel thread's, as stacks and debuggers have it.
  pid_t number() const { return number_; }

  // Calls `visit` on each fiber that waits for its turn, as if that had called
  // it: for stacks. Does nothing but on the thread that runs them. Safe in
  // signal handlers.
  static void VisitFibers(void (*visit)(pid_t number));
  // The fiber that runs on the calling kernel thread, or this thread.
  static pid_t CurrentNumber();
  // Whether the calling kernel thread runs, or has run, what is simulated.
  static bool IsInSchedule();
  // Whether the kernel's thread sleeps while others run its stack.
  static bool IsParked(pid_t number);

 protected:
  Runner() = default;

  pthread_t handle_{};
  pid_t number_ = 0;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_RUNNER_H_

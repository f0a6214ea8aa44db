// A process's signals, taken over for a while and put back exactly as found.
//
//   WARD_ASSIGN_OR_RETURN(
//       auto signals, environment.TakeSignals({{SIGTERM, SIGUSR1}, {SIGHUP}}));
//   poll(... signals->descriptor() ...);
//   while (const int signal = signals->Next()) { ... }   // ordinary code
//
// In signal context only a bit is set and a descriptor written; whoever asks
// Next() is in no signal handler and may do anything.
//
// Misuse: two owners. Dispositions belong to the process, so the second
// TakeSignals fails until the first has been destroyed.

#ifndef WARD_SERVER_SIGNALS_H_
#define WARD_SERVER_SIGNALS_H_

#include <signal.h>

#include <vector>

#include "absl/status/status.h"
#include "ward/channel/transport.h"

namespace ward {

// What becomes of each signal (signal(7)), by its number.
struct SignalPlan {
  // Come out of Next().
  std::vector<int> receive;
  // Are ignored, unless they are received.
  std::vector<int> ignore;
  // All others get their default action.
};

// The signals of a SignalPlan; readable when one has come. The destructor puts
// back dispositions and mask, on the thread that made it. One thread at a time.
class Signals : public Pollable {
 public:
  // A signal that has come and was not yet returned, or 0; never waits. A
  // signal that comes again before it is returned is returned once, as the
  // kernel's own standard signals are (signal(7)); one that comes again and
  // again keeps none of the others back. Ask until 0 before polling.
  virtual int Next() = 0;
};

// For a handler of messages that starts a program by posix_spawn(3), popen(3)
// or system(3), which give it the mask of their thread: while this exists, its
// thread blocks no signal. Without it the program cannot be ended by SIGTERM,
// and has SIGCHLD blocked if the server receives that. A fork(2) by such a
// thread needs none.
class UnblockedSignals {
 public:
  UnblockedSignals();
  UnblockedSignals(const UnblockedSignals&) = delete;
  UnblockedSignals& operator=(const UnblockedSignals&) = delete;
  ~UnblockedSignals();

 private:
  sigset_t found_;
};

// Why Environment::TakeSignals fails: kInvalidSignal if the plan is at fault.
absl::Status CheckSignalPlan(const SignalPlan& plan);

// kSignalsTaken, if they have an owner.
absl::Status SignalsTakenError();

}  // namespace ward

#endif  // WARD_SERVER_SIGNALS_H_

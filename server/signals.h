// A process's signals, taken over for a while and put back exactly as found.
//
//   WARD_ASSIGN_OR_RETURN(auto signals,
//                         ward::TakeSignals({{SIGTERM, SIGUSR1}, {SIGHUP}}));
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

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/transport.h"

namespace ward {

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
  // kernel's own standard signals are (signal(7)). Ask until 0 before polling.
  virtual int Next() = 0;
};

// Takes over all signals of this process, and unblocks them all on the calling
// thread: they may arrive on any thread that does not block them. Programs
// started meanwhile inherit what is ignored, and nothing else (execve(2)).
//
// Errors: kSignalsTaken; kInvalidSignal for SIGKILL, SIGSTOP, or a number
// that is no signal.
absl::StatusOr<std::unique_ptr<Signals>> TakeSignals(const SignalPlan& plan);

// Why TakeSignals fails: kInvalidSignal if the plan is at fault, and
// kSignalsTaken.
absl::Status CheckSignalPlan(const SignalPlan& plan);
absl::Status SignalsTakenError();

}  // namespace ward

#endif  // WARD_SERVER_SIGNALS_H_

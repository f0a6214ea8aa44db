// What ward's threads and children block.

#ifndef WARD_SERVER_POSIX_SIGNAL_MASK_H_
#define WARD_SERVER_POSIX_SIGNAL_MASK_H_

#include <signal.h>

namespace ward {

// All signals but those that a fault raises in the very thread that made it.
// When that thread blocks them, the kernel ends the process without asking
// anybody (force_sig(9)): no crash handler runs, nor a sanitizer's, a
// debugger's or seccomp's.
inline sigset_t AllSignalsButFaults() {
  sigset_t signals;
  sigfillset(&signals);
  for (const int fault :
       {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) {
    sigdelset(&signals, fault);
  }
  return signals;
}

}  // namespace ward

#endif  // WARD_SERVER_POSIX_SIGNAL_MASK_H_

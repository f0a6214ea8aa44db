// What threads block: ward's own, and its children.

#ifndef WARD_SERVER_POSIX_SIGNAL_MASK_H_
#define WARD_SERVER_POSIX_SIGNAL_MASK_H_

#include <pthread.h>
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

// While it exists, its thread blocks these signals and no others.
class ScopedSignalMask {
 public:
  explicit ScopedSignalMask(const sigset_t& blocked) {
    pthread_sigmask(SIG_SETMASK, &blocked, &found_);
  }
  ScopedSignalMask(const ScopedSignalMask&) = delete;
  ScopedSignalMask& operator=(const ScopedSignalMask&) = delete;
  ~ScopedSignalMask() { pthread_sigmask(SIG_SETMASK, &found_, nullptr); }

 private:
  sigset_t found_;
};

}  // namespace ward

#endif  // WARD_SERVER_POSIX_SIGNAL_MASK_H_

// Ends the system calls that threads wait in, for good, whatever they wait for.
//
//   ward::Interruption interruption;
//
//   // On any number of threads:
//   const ward::Interruption::Section section(interruption);
//   while (!interruption.requested()) {
//     if (accept4(...) >= 0 || errno != EINTR) break;
//   }
//
//   interruption.Request();  // On another one: all have left.
//
// By a signal to exactly those threads, whose handler does nothing and does not
// have calls restarted (sigaction(2), SA_RESTART). One that comes between the
// look at requested() and the call finds nothing to end: so it is sent again
// until the thread has left. The signal is SIGURG, which is ignored where it
// has no handler, so that one that is late harms nobody; and its disposition is
// the user's own but for the moment of Request(), in which a SIGURG of theirs
// is lost.
//
// Misuse: a thread that blocks SIGURG in a Section. Request() waits for it
// until its call ends by itself.

#ifndef WARD_SERVER_POSIX_INTERRUPTION_H_
#define WARD_SERVER_POSIX_INTERRUPTION_H_

#include <pthread.h>
#include <signal.h>

#include <atomic>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace ward {

// Thread-safe.
class Interruption {
 public:
  static constexpr int kSignal = SIGURG;

  // As long as it lives, calls that the thread that made it waits in can be
  // ended. It costs no system call.
  class Section {
   public:
    explicit Section(Interruption& interruption);
    Section(const Section&) = delete;
    Section& operator=(const Section&) = delete;
    ~Section();

   private:
    friend class Interruption;

    Interruption& interruption_;
    const pthread_t thread_ = pthread_self();
    Section* next_;
    Section* previous_ = nullptr;
  };

  bool requested() const { return requested_; }

  // Interrupts all Sections; returns when none is left. Those that are made
  // later find that it was requested.
  void Request();

 private:
  bool IsEmpty() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return first_ == nullptr;
  }

  std::atomic<bool> requested_{false};
  absl::Mutex mutex_;
  Section* first_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace ward

#endif  // WARD_SERVER_POSIX_INTERRUPTION_H_

#include "ward/server/posix/interruption.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "absl/base/attributes.h"
#include "absl/base/const_init.h"
#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ward {
namespace {

constexpr absl::Duration kAgain = absl::Milliseconds(1);

// Dispositions belong to the process, and several may be wanted at a time.
ABSL_CONST_INIT absl::Mutex disposition_mutex(absl::kConstInit);
int users ABSL_GUARDED_BY(disposition_mutex) = 0;
struct sigaction found ABSL_GUARDED_BY(disposition_mutex);

class HandlerInPlace {
 public:
  HandlerInPlace() {
    absl::MutexLock lock(&disposition_mutex);
    if (users++ > 0) return;
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigaction(Interruption::kSignal, &action, &found);
  }
  HandlerInPlace(const HandlerInPlace&) = delete;
  HandlerInPlace& operator=(const HandlerInPlace&) = delete;
  ~HandlerInPlace() {
    absl::MutexLock lock(&disposition_mutex);
    if (--users == 0) sigaction(Interruption::kSignal, &found, nullptr);
  }
};

}  // namespace

Interruption::Section::Section(Interruption& interruption)
    : interruption_(interruption) {
  absl::MutexLock lock(&interruption_.mutex_);
  next_ = interruption_.first_;
  if (next_ != nullptr) next_->previous_ = this;
  interruption_.first_ = this;
}

Interruption::Section::~Section() {
  bool was_sent;
  {
    absl::MutexLock lock(&interruption_.mutex_);
    (previous_ != nullptr ? previous_->next_ : interruption_.first_) = next_;
    if (next_ != nullptr) next_->previous_ = previous_;
    was_sent = interruption_.requested_;
  }
  // Takes a signal that has not come through yet, as any system call would, so
  // that it ends none of what the thread does next.
  if (was_sent) sched_yield();
}

void Interruption::Request() {
  const HandlerInPlace handler;
  absl::MutexLock lock(&mutex_);
  requested_ = true;
  do {
    // They cannot leave, and end, before this has the lock released.
    for (const Section* section = first_; section != nullptr;
         section = section->next_) {
      pthread_kill(section->thread_, kSignal);
    }
  } while (!mutex_.AwaitWithTimeout(
      absl::Condition(this, &Interruption::IsEmpty), kAgain));
}

}  // namespace ward

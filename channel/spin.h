// Looking again and again for what is about to come, for a short while, before
// a thread has the kernel put it to sleep and wake it: to wake up takes longer
// than many an answer.

#ifndef WARD_CHANNEL_SPIN_H_
#define WARD_CHANNEL_SPIN_H_

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"

namespace ward {

// How one thread at a time waits for one thing, such as the next message of one
// connection. It learns from each wait: each that was in vain doubles the
// number of the next ones that are left to the kernel, up to 1,023; one that
// was not ends that. And no more threads of a process spin at a time than leave
// one of its processors (sched_getaffinity(2)) to those that they wait for:
// with one processor, none.
class Spin {
 public:
  // Over 0.
  explicit Spin(absl::Duration longest) : longest_(longest) {}

  // Calls `comes` until it is true, `deadline` (MonotonicNow()) has passed, or
  // it has taken too long. Whether it came to be true; if not, the caller is to
  // wait as it would otherwise, if only because it is not worth it just now:
  // then `comes` may never have been called.
  bool Until(absl::Time deadline, absl::FunctionRef<bool()> comes);

 private:
  const absl::Duration longest_;
  // The last ones, and how many waits they still cost.
  int in_vain_ = 0;
  int left_to_kernel_ = 0;
};

}  // namespace ward

#endif  // WARD_CHANNEL_SPIN_H_

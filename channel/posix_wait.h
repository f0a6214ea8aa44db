// Waiting on descriptors against the monotonic clock.

#ifndef WARD_CHANNEL_POSIX_WAIT_H_
#define WARD_CHANNEL_POSIX_WAIT_H_

#include <poll.h>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace ward {

// CLOCK_MONOTONIC as an absl::Time: a point to count from, not a date. A step
// of the system's clock moves no deadline.
absl::Time MonotonicNow();

// ppoll(2) until one of `polled` has an event or `deadline` has passed; returns
// how many have one, 0 when time ran out. An interruption is waited through.
absl::StatusOr<int> PollUntil(absl::Span<pollfd> polled, absl::Time deadline);

}  // namespace ward

#endif  // WARD_CHANNEL_POSIX_WAIT_H_

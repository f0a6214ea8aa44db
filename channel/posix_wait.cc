#include "ward/channel/posix_wait.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"

namespace ward {

absl::Time MonotonicNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::TimeFromTimespec(now);
}

absl::StatusOr<int> PollUntil(absl::Span<pollfd> polled, absl::Time deadline) {
  while (true) {
    timespec timeout;
    timespec* limit = nullptr;
    if (deadline != absl::InfiniteFuture()) {
      const absl::Duration left = deadline - MonotonicNow();
      timeout = absl::ToTimespec(std::max(left, absl::ZeroDuration()));
      limit = &timeout;
    }
    const int ready = ppoll(polled.data(), polled.size(), limit, nullptr);
    if (ready >= 0) return ready;
    if (errno != EINTR) {
      return SystemError(errno, "wait for a descriptor (ppoll)");
    }
  }
}

}  // namespace ward

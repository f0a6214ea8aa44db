#include "ward/channel/transport.h"

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"

namespace ward {

absl::Status Transport::CheckTime(absl::Time deadline) const {
  if (deadline == absl::InfiniteFuture() || TimeNow() <= deadline) {
    return absl::OkStatus();
  }
  return MakeError(reason::kTimedOut,
                   "the peer was too slow: the time for the message is over");
}

}  // namespace ward

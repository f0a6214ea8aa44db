#include "ward/channel/transport.h"

#include <cerrno>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"

namespace ward {

absl::Status TransferError(int error_number, std::string_view attempt) {
  switch (error_number) {
    case EPIPE:
    case ECONNRESET:
      return MakeError(
          reason::kConnectionLost,
          absl::StrCat(attempt, ": the peer has closed the connection"));
    case ETOOMANYREFS:
      return MakeError(
          reason::kDescriptorsInFlight,
          absl::StrCat(attempt,
                       ": too many descriptors of this user are in flight "
                       "between processes (unix(7), ETOOMANYREFS); let the "
                       "receivers read, and try again, or raise the limit "
                       "(ulimit -n)"));
    default:
      return SystemError(error_number, attempt);
  }
}

absl::Status Transport::CheckTime(absl::Time deadline) const {
  if (deadline == absl::InfiniteFuture() || TimeNow() <= deadline) {
    return absl::OkStatus();
  }
  return MakeError(reason::kTimedOut,
                   "the peer was too slow: the time for the message is over");
}

absl::Status TooManyDescriptorsError(std::string_view attempt) {
  return MakeError(
      reason::kTooManyDescriptors,
      absl::StrCat(attempt, ": at most ", kMaxDescriptorsPerMessage,
                   " descriptors travel together"));
}

}  // namespace ward

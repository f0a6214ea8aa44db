#include "ward/server/method.h"

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"

namespace ward::internal {

absl::Status NotTheReply(const absl::Status& status) {
  return MakeError(
      reason::kUnexpectedFrame,
      absl::StrCat("what came is not the method's reply: ", status.message()));
}

void ReadEndBehindError(MessageChannel& channel) {
  if (channel.read_error() && channel.partly_read()) (void)channel.Read();
}

absl::Status ReadReply(MessageChannel& channel, bool has_reply,
                       std::optional<Message>& reply, bool* timed_out) {
  while (true) {
    absl::StatusOr<Message> next = channel.Read();
    if (next.ok() && has_reply && !reply.has_value()) {
      reply = *std::move(next);
    } else if (next.ok()) {
      return MakeError(
          reason::kUnexpectedFrame,
          has_reply ? "the handler wrote more than its method's one reply"
                    : "the handler wrote a reply, and its method has none");
    } else if (channel.end_was_said() ||
               (HasReason(next.status(), reason::kEndOfStream) &&
                channel.ended())) {
      if (reply.has_value() == has_reply) return absl::OkStatus();
      return MakeError(reason::kUnexpectedFrame,
                       "the handler has succeeded without the reply that its "
                       "method has");
    } else {
      if (timed_out != nullptr) *timed_out = channel.read_timed_out();
      ReadEndBehindError(channel);
      return next.status();
    }
  }
}

}  // namespace ward::internal

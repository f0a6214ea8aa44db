#include "ward/server/outgoing_buffer.h"

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"

namespace ward {

// It may have the password.
OutgoingBuffer::~OutgoingBuffer() {
  for (Piece& piece : left_) Wipe(piece.bytes.data(), piece.bytes.size());
}

absl::StatusOr<size_t> OutgoingBuffer::SendPieces(
    absl::Span<const std::string_view> pieces,
    absl::Span<const int> descriptors, absl::Time /*deadline*/) {
  if (left_.empty() && lost_.ok()) {
    WARD_ASSIGN_OR_RETURN(const size_t sent, SendNow(pieces, descriptors));
    if (sent > 0) return sent;
  }
  const std::string_view bytes = pieces.front();
  if (!lost_.ok()) return bytes.size();
  Piece piece;
  for (const int descriptor : descriptors) {
    WARD_ASSIGN_OR_RETURN(piece.descriptors.emplace_back(),
                          FileDescriptor::DuplicateOf(descriptor));
  }
  piece.bytes = std::string(bytes);
  left_.push_back(std::move(piece));
  return bytes.size();
}

absl::StatusOr<bool> OutgoingBuffer::Flush() {
  WARD_RETURN_IF_ERROR(lost_);
  while (!left_.empty()) {
    Piece& piece = left_.front();
    std::vector<int> descriptors;
    for (const FileDescriptor& descriptor : piece.descriptors) {
      descriptors.push_back(descriptor.get());
    }
    const std::string_view left =
        std::string_view(piece.bytes).substr(piece.sent);
    WARD_ASSIGN_OR_RETURN(const size_t sent,
                          SendNow(absl::MakeConstSpan(&left, 1), descriptors));
    WARD_RETURN_IF_ERROR(lost_);
    if (sent == 0) return false;
    piece.descriptors.clear();
    piece.sent += sent;
    if (piece.sent < piece.bytes.size()) continue;
    Wipe(piece.bytes.data(), piece.bytes.size());
    left_.pop_front();
  }
  return true;
}

absl::StatusOr<size_t> OutgoingBuffer::SendNow(
    absl::Span<const std::string_view> pieces,
    absl::Span<const int> descriptors) {
  absl::StatusOr<size_t> sent;
  do {
    sent = pieces.size() == 1 ? connection_->Send(pieces.front(), descriptors,
                                                  absl::InfinitePast())
                              : connection_->SendPieces(pieces, descriptors,
                                                        absl::InfinitePast());
  } while (sent.ok() && *sent == 0);  // Interrupted.
  if (HasReason(sent.status(), reason::kTimedOut)) return 0;
  if (!HasReason(sent.status(), reason::kConnectionLost)) return sent;
  lost_ = sent.status();
  return 0;
}

}  // namespace ward

#include "ward/channel/frame_reader.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/frame.h"
#include "ward/channel/receive_buffer.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/channel/unclaimed_descriptors.h"

namespace ward {
namespace {

// To copy so much takes longer than one more receive. For more than the second
// no buffer is kept, so that a string without memory serves as well.
constexpr size_t kLargeScalar = size_t{16} << 10;
constexpr size_t kVeryLargeScalar = size_t{256} << 10;

// "1 byte", "2 bytes".
std::string Counted(size_t count, std::string_view what) {
  return absl::StrCat(count, " ", what, count == 1 ? "" : "s");
}

// Each call has one: made once.
const absl::Status& EndError() {
  static const auto* const kError = new absl::Status(
      MakeError(reason::kEndOfStream, "the peer has said that it has ended"));
  return *kError;
}

absl::Status TooMany(size_t count, const ChannelLimits& limits) {
  return MakeError(
      reason::kTooManyDescriptors,
      absl::StrCat("the message came with ", count,
                   " descriptors, over the limit of ", limits.max_descriptors));
}

absl::Status TooManyHeld(std::string_view what) {
  return MakeError(reason::kServerFull,
                   absl::StrCat("the descriptors that came ", what,
                                "; try again, and send it whole at once, when "
                                "what was sent before has its answer"));
}

}  // namespace

absl::Status FrameReader::Read(Transport& transport, size_t max_bytes,
                               const ChannelLimits& limits, absl::Time deadline,
                               std::vector<FileDescriptor>& descriptors,
                               std::string* scalar_memory) {
  WARD_ASSIGN_OR_RETURN(
      const Extent extent,
      AwaitFrame(transport, max_bytes, limits, deadline, scalar_memory));
  absl::Status status = Parse(extent, limits);
  if (status.ok()) status = CheckPassword();
  if (status.ok()) status = CheckBeginning();
  if (!status.ok()) return Failed(status);
  if (!peer_knows_end_.has_value()) peer_knows_end_ = frame_.knows_end;
  frame_bytes_ = extent.frame_bytes;
  traffic_.bytes += frame_bytes_;
  buffer_.Consume(BufferedOf(frame_bytes_));
  scalar_ = buffer_.TakeScalar();
  const absl::Status claimed = ClaimDescriptors(limits, descriptors);
  KeepBehind();
  WARD_RETURN_IF_ERROR(claimed);
  if (frame_.content != Frame::Content::kEnd) return absl::OkStatus();
  ended_ = at_end_ = true;
  Refuse(std::exchange(descriptors, {}));
  // What has been allocated serves the next call, too.
  return status_ = EndError();
}

void FrameReader::TakeScalar(std::string& bytes) {
  if (scalar_ == nullptr) {
    bytes.assign(frame_.scalar);
  } else {
    scalar_->bytes.resize(scalar_->size);
    bytes = std::move(scalar_->bytes);
    scalar_->end = 0;
  }
  frame_.scalar = {};
}

void FrameReader::NextCall() {
  if (!at_end_) return;
  ended_ = at_end_ = false;
  status_ = absl::OkStatus();
  frame_ = Frame();
}

bool FrameReader::ReadError(Transport& transport, const ChannelLimits& limits,
                            absl::Time deadline) {
  if (expected_ != nullptr) return false;
  const absl::StatusOr<Extent> extent =
      AwaitFrame(transport, limits.max_frame_bytes, limits, deadline,
                 /*scalar_memory=*/nullptr);
  if (!extent.ok() || !Parse(*extent, limits).ok() ||
      frame_.content != Frame::Content::kError) {
    return false;
  }
  buffer_.Consume(extent->frame_bytes);
  return true;
}

absl::StatusOr<FrameReader::Extent> FrameReader::AwaitFrame(
    Transport& transport, size_t max_bytes, const ChannelLimits& limits,
    absl::Time deadline, std::string* scalar_memory) {
  WARD_RETURN_IF_ERROR(status_);
  if (lost_behind_) {
    return Failed(TooManyHeld(
        "behind a message had no room beside those of others until it was "
        "read"));
  }
  bool trickling = false;
  while (true) {
    Extent extent;
    if (buffer_.size() > 0) {
      WARD_ASSIGN_OR_RETURN(extent, ReadHeader(max_bytes));
    }
    const size_t available = this->available();
    const bool whole =
        extent.frame_bytes > 0 && available >= extent.frame_bytes;
    if (!whole || available == extent.frame_bytes) {
      WARD_RETURN_IF_ERROR(BoundArrivals(limits));
    }
    if (whole) {
      rest_until_ = absl::InfiniteFuture();
      return extent;
    }
    WARD_RETURN_IF_ERROR(CheckRefused());
    if (scalar_memory != nullptr && extent.frame_bytes > kLargeScalar) {
      ReceiveApart(extent, *scalar_memory);
    }
    if (!arrivals_.empty()) held_.Hold(unclaimed_descriptors());
    if (available > 0 && time_for_rest_ != absl::InfiniteDuration()) {
      if (rest_until_ == absl::InfiniteFuture()) {
        rest_until_ = transport.TimeNow() + time_for_rest_;
      }
      deadline = std::min(deadline, rest_until_);
    }
    // A peer that always has one byte more gets no more time. What fills the
    // room is no trickle: it was there before, and the rest may be there too.
    // Nor is it the peer's fault if this thread woke late: what came in time is
    // read.
    absl::Status status =
        trickling ? transport.CheckTime(deadline) : absl::OkStatus();
    if (status.ok()) {
      status = ReceiveMore(transport, extent.frame_bytes, deadline);
    }
    if (status.code() == absl::StatusCode::kDeadlineExceeded && available > 0) {
      const std::string came = extent.frame_bytes == 0
                                   ? Counted(available, "byte")
                                   : absl::StrCat(available, " of the ",
                                                  extent.frame_bytes, " bytes");
      return Annotate(status, absl::StrCat(came, " of a message came"));
    }
    WARD_RETURN_IF_ERROR(status);
    trickling = this->available() > available && !buffer_.room().empty();
  }
}

absl::StatusOr<FrameReader::Extent> FrameReader::ReadHeader(size_t max_bytes) {
  const Varint body = ReadVarint(buffer_.unread());
  if (body.size == 0) {
    if (buffer_.size() < kMaxVarintBytes) return Extent();
    return Failed(MakeError(reason::kMalformedFrame,
                            "the peer sent a length of over 64 bits"));
  }
  if (body.value > max_bytes) {
    return Failed(
        MakeError(reason::kFrameTooLarge,
                  absl::StrCat("the peer announced a message of ", body.value,
                               " bytes, over the limit of ", max_bytes)));
  }
  return Extent{body.size, body.size + static_cast<size_t>(body.value)};
}

void FrameReader::ReceiveApart(Extent extent, std::string& memory) {
  // While a password is due, whatever comes lies where it is wiped.
  if (buffer_.scalar() != nullptr || expected_ != nullptr) return;
  std::optional<ScalarPlace> place =
      FindScalar(buffer_.unread().substr(extent.header_bytes),
                 extent.frame_bytes - extent.header_bytes);
  if (!place.has_value()) return;
  place->tag += extent.header_bytes;
  place->begin += extent.header_bytes;
  if (place->begin + place->size < available() + kLargeScalar) return;
  if (place->size > kVeryLargeScalar || place->size <= memory.capacity()) {
    buffer_.ReceiveApart(*place, memory);
  }
}

absl::Status FrameReader::ReceiveMore(Transport& transport, size_t frame_bytes,
                                      absl::Time deadline) {
  const auto time_left = [&] {
    return deadline == absl::InfiniteFuture() ? absl::InfiniteDuration()
                                              : deadline - transport.TimeNow();
  };
  // Abseil's own waits may end early, where the time of day is set.
  while (!buffer_.Reserve(BufferedOf(frame_bytes), time_left)) {
    if (time_left() > absl::ZeroDuration()) continue;
    return MakeError(
        reason::kTimedOut,
        "other messages that are not whole yet have taken all that "
        "may be buffered (max_buffered_bytes)");
  }
  Arrival arrival;
  // With room for all that can come: they may be the next frame's, which may
  // have other limits.
  const absl::StatusOr<Transport::Received> received =
      transport.Receive(buffer_.room(), kMaxDescriptorsPerMessage,
                        arrival.descriptors.all(), deadline);
  if (!received.ok()) {
    if (!HasReason(received.status(), reason::kConnectionLost)) {
      return received.status();
    }
    return PeerEnded(received.status());
  }
  if (received->end_of_stream) {
    const size_t unread = available();
    return PeerEnded(
        unread == 0 ? MakeError(reason::kEndOfStream,
                                "the peer has closed the connection")
                    : MakeError(reason::kConnectionLost,
                                absl::StrCat("the peer closed the connection ",
                                             Counted(unread, "byte"),
                                             " into a message")));
  }
  buffer_.Received(received->bytes);
  if (!arrival.descriptors.empty() || received->descriptors_truncated) {
    arrival.count = arrival.descriptors.size();
    arrival.truncated = received->descriptors_truncated;
    arrivals_.push_back(std::move(arrival));
  }
  return absl::OkStatus();
}

absl::Status FrameReader::BoundArrivals(const ChannelLimits& limits) {
  if (arrivals_.empty()) return absl::OkStatus();
  if (arrivals_.size() > 1) {
    return Failed(MakeError(
        reason::kMalformedFrame,
        "the peer sent descriptors twice for one message, or for none"));
  }
  Arrival& arrival = arrivals_.front();
  if (arrival.count <= limits.max_descriptors) return absl::OkStatus();
  // They would be here as long as the peer likes to send the rest, and it has
  // not shown the password.
  if (keeps_refused_ && expected_ != nullptr) {
    return Failed(TooMany(arrival.count, limits));
  }
  Refuse(arrival.descriptors.Claim());
  return absl::OkStatus();
}

size_t FrameReader::unclaimed_descriptors() const {
  return refused_.size() + arrived_descriptors();
}

size_t FrameReader::arrived_descriptors() const {
  size_t count = 0;
  for (const Arrival& arrival : arrivals_) count += arrival.descriptors.size();
  return count;
}

absl::Status FrameReader::Parse(Extent extent, const ChannelLimits& limits) {
  const std::string_view body = buffer_.unread().substr(
      extent.header_bytes,
      BufferedOf(extent.frame_bytes) - extent.header_bytes);
  const ReceivedScalar* const scalar = buffer_.scalar();
  WARD_RETURN_IF_ERROR(
      scalar == nullptr ? ParseFrame(body, frame_)
                        : ParseFrameAround(scalar->received(), body, frame_));
  if (frame_.encoded_part_count > limits.max_parts) {
    return MakeError(
        reason::kFrameTooLarge,
        absl::StrCat("the peer sent a message of ", frame_.encoded_part_count,
                     " parts, over the limit of ", limits.max_parts));
  }
  return absl::OkStatus();
}

absl::Status FrameReader::CheckPassword() {
  const Secret* expected = std::exchange(expected_, nullptr);
  if (expected == nullptr && !frame_.password.has_value()) {
    return absl::OkStatus();
  }
  const std::string_view password = frame_.password.value_or("");
  const bool right = expected != nullptr && expected->Matches(password);
  buffer_.Wipe(password);
  buffer_.set_secret(false);
  if (expected == nullptr) {
    return MakeError(reason::kMalformedFrame,
                     "the peer sent a password, which belongs into a client's "
                     "first message alone");
  }
  if (!right) {
    return MakeError(reason::kInvalidPassword,
                     "the password is wrong or missing; use the one that the "
                     "server was made with");
  }
  is_first_ = true;
  return absl::OkStatus();
}

// Whatever reason it gives, this side must not take it for its own finding.
absl::Status FrameReader::CheckBeginning() {
  const bool begins =
      std::exchange(is_first_, false) || frame_.call.has_value();
  if (!begins || (frame_.content != Frame::Content::kError &&
                  frame_.content != Frame::Content::kEnd)) {
    return absl::OkStatus();
  }
  return MakeError(reason::kUnexpectedFrame,
                   "a call's first message asks for something; the peer sent "
                   "an error, or an end");
}

absl::Status FrameReader::ClaimDescriptors(
    const ChannelLimits& limits, std::vector<FileDescriptor>& descriptors) {
  const size_t declared = frame_.descriptors;
  descriptors.clear();
  if (declared == 0 && arrivals_.empty()) return absl::OkStatus();
  held_.Release();
  Arrival arrival;
  const absl::Cleanup refuse = [&] { Refuse(arrival.descriptors.Claim()); };
  if (declared > 0 && !arrivals_.empty()) {
    arrival = std::move(arrivals_.front());
    arrivals_.erase(arrivals_.begin());
  }
  // What is left must belong to bytes that are still unread.
  const bool none_stray = arrivals_.empty() || buffer_.size() > 0;
  // Those that found no room are the others of those declared.
  const bool as_declared =
      arrival.truncated ? arrival.count < declared : arrival.count == declared;
  if (!none_stray || !as_declared) {
    size_t came = arrival.count;
    bool more = arrival.truncated;
    if (!none_stray) {
      for (const Arrival& stray : arrivals_) {
        came += stray.count;
        more = more || stray.truncated;
      }
    }
    return Failed(
        MakeError(reason::kMalformedFrame,
                  absl::StrCat("the peer's message declares ",
                               Counted(declared, "descriptor"), ", and ",
                               more ? "more than " : "", came, " came")));
  }
  if (declared > limits.max_descriptors ||
      arrival.descriptors.size() < arrival.count) {
    return TooMany(declared, limits);
  }
  if (arrival.truncated) {
    return MakeError(
        reason::kDescriptorsTruncated,
        absl::StrCat("the message came with ", declared,
                     " descriptors, and this process's descriptor table had "
                     "room for ",
                     arrival.count,
                     "; close some, or raise the limit (ulimit -n), and ask "
                     "again"));
  }
  descriptors = arrival.descriptors.Claim();
  traffic_.descriptors += descriptors.size();
  return absl::OkStatus();
}

void FrameReader::KeepBehind() {
  const size_t behind = arrived_descriptors();
  if (behind == 0 || held_.Keep(behind)) return;
  for (Arrival& arrival : arrivals_) Refuse(arrival.descriptors.Claim());
  arrivals_.clear();
  lost_behind_ = true;
}

bool FrameReader::DiscardUnread(Transport& transport) {
  // First: then what there is has an end.
  transport.ShutDownReceiving();
  status_ =
      MakeError(reason::kChannelClosed, "what the peer has sent was discarded");
  buffer_ = ReceiveBuffer();
  std::array<char, 4096> bytes;
  while (unclaimed_descriptors() == 0) {
    const absl::StatusOr<Transport::Received> received =
        transport.Receive(absl::MakeSpan(bytes), kMaxDescriptorsPerMessage,
                          refused_.all(), transport.TimeNow());
    if (!received.ok() || received->end_of_stream) return true;
    // It may be a password.
    Wipe(bytes.data(), received->bytes);
  }
  return false;
}

void FrameReader::CloseUnclaimed() {
  arrivals_.clear();
  refused_.Close();
  held_.Release();
}

void FrameReader::set_keeps_refused(bool keeps) {
  keeps_refused_ = keeps;
  if (keeps || refused_.empty()) return;
  refused_.Close();
  if (arrivals_.empty()) held_.Release();
}

absl::Status FrameReader::CheckRefused() const {
  if (refused_.empty()) return absl::OkStatus();
  return MakeError(reason::kTimedOut,
                   "descriptors of what is not read are to be closed first");
}

void FrameReader::Refuse(std::vector<FileDescriptor> descriptors) {
  for (FileDescriptor& refused : descriptors) {
    refused_.all().push_back(std::move(refused));
  }
  if (!keeps_refused_) refused_.Close();
}

absl::Status FrameReader::PeerEnded(const absl::Status& how) {
  ended_ = true;
  if (held_.is_cut()) {
    return Failed(
        TooManyHeld("with a message were needed before it was whole"));
  }
  if (expects_end_ && peer_knows_end_.value_or(true) &&
      frame_.content != Frame::Content::kError) {
    return Failed(MakeError(
        reason::kCallCut,
        absl::StrCat("the server has not said how the call ended",
                     peer_knows_end_.has_value()
                         ? ""
                         : ", nor anything else (one from before ends were "
                           "said never does)",
                     ": ", how.message())));
  }
  return HasReason(how, reason::kEndOfStream) ? how : Failed(how);
}

absl::Status FrameReader::Failed(const absl::Status& status) {
  status_ = status;
  for (Arrival& arrival : arrivals_) Refuse(arrival.descriptors.Claim());
  arrivals_.clear();
  // Others wait until they are closed.
  if (refused_.empty()) held_.Release();
  buffer_ = ReceiveBuffer();
  return status;
}

}  // namespace ward

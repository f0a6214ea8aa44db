#include "ward/channel/message_channel.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/container/btree_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/argument.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/frame.h"
#include "ward/channel/frame_reader.h"
#include "ward/channel/frame_writer.h"
#include "ward/channel/message.h"
#include "ward/channel/secret.h"
#include "ward/channel/socket_transport.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"

namespace ward {
namespace {

// What a frame has beside a scalar's bytes, generously.
constexpr size_t kFrameOverhead = 64;

// How long a peer that reads no more, and is there still, may take to say why.
constexpr absl::Duration kLastWordTime = absl::Seconds(1);

constexpr size_t kMaxErrorText = size_t{4} << 10;
constexpr size_t kMaxErrorReason = 128;

absl::Status FromWire(const Frame::Error& error) {
  // The peer's word: a code that is none becomes kUnknown, OK would be a lie.
  constexpr auto kLast =
      static_cast<uint64_t>(absl::StatusCode::kUnauthenticated);
  const bool known = error.code > 0 && error.code <= kLast;
  return MakeError(known ? static_cast<absl::StatusCode>(error.code)
                         : absl::StatusCode::kUnknown,
                   error.reason, error.text);
}

absl::Status Unexpected(std::string_view wanted, std::string_view got) {
  return MakeError(reason::kUnexpectedFrame,
                   absl::StrCat("expected ", wanted, ", got ", got));
}

// Whether there is a frame, after a FrameReader::Read that has returned this.
bool HasCome(const absl::Status& status) {
  return status.ok() || HasReason(status, reason::kDescriptorsTruncated) ||
         HasReason(status, reason::kTooManyDescriptors);
}

absl::Status Closed() {
  return MakeError(reason::kChannelClosed,
                   "the channel is closed on this side");
}

}  // namespace

MessageChannel::MessageChannel(std::shared_ptr<Transport> transport)
    : transport_(std::move(transport)) {}

MessageChannel::MessageChannel(FileDescriptor socket)
    : MessageChannel(std::make_unique<SocketTransport>(std::move(socket))) {}

absl::StatusOr<std::pair<MessageChannel, MessageChannel>>
MessageChannel::CreatePair() {
  WARD_ASSIGN_OR_RETURN(auto ends, SocketTransport::CreatePair());
  return std::make_pair(MessageChannel(std::move(ends.first)),
                        MessageChannel(std::move(ends.second)));
}

// --- writing ---

absl::Status MessageChannel::WriteArguments(
    std::initializer_list<Argument> arguments, bool then_end) {
  internal::BorrowedMessage message;
  WARD_RETURN_IF_ERROR(internal::AddArguments(arguments, message));
  return WriteParts(message.parts, message.descriptors, then_end);
}

absl::Status MessageChannel::WriteMessage(const Message& message,
                                          bool then_end) {
  const absl::InlinedVector<std::string_view, 8> parts(message.parts().begin(),
                                                       message.parts().end());
  absl::InlinedVector<int, 8> descriptors;
  for (const FileDescriptor& descriptor : message.descriptors()) {
    descriptors.push_back(descriptor.get());
  }
  return WriteParts(parts, descriptors, then_end);
}

absl::Status MessageChannel::WriteMap(
    const absl::btree_map<std::string, std::string>& entries) {
  absl::InlinedVector<std::string_view, 8> parts;
  for (const auto& [key, value] : entries) {
    parts.push_back(key);
    parts.push_back(value);
  }
  return WriteParts(parts, {}, /*then_end=*/false);
}

absl::Status MessageChannel::WriteParts(
    absl::Span<const std::string_view> parts, absl::Span<const int> descriptors,
    bool then_end) {
  Frame frame;
  frame.content = Frame::Content::kArray;
  frame.parts = parts;
  return SendFrame(frame, descriptors, then_end);
}

absl::Status MessageChannel::WriteEnd() {
  if (end_written_) return absl::OkStatus();
  if (!reader_.peer_knows_end() && !reader_.expects_end()) {
    EndCall(/*kept=*/false);
    return absl::OkStatus();
  }
  Frame frame;
  frame.content = Frame::Content::kEnd;
  return SendFrame(frame, {}, /*is_last=*/true);
}

void MessageChannel::EndCall(bool kept) {
  end_written_ = true;
  keeps_ = kept;
}

void MessageChannel::BeginCall(Call call) {
  if (reader_.kept()) reader_.NextCall();
  end_written_ = false;
  begins_ = std::move(call);
}

absl::Status MessageChannel::WriteScalar(std::string_view bytes) {
  Frame frame;
  frame.content = Frame::Content::kScalar;
  frame.scalar = bytes;
  return SendFrame(frame, {});
}

absl::Status MessageChannel::WriteDescriptor(const FileDescriptor& descriptor) {
  return Write(descriptor);
}

absl::Status MessageChannel::SendError(const absl::Status& error,
                                       bool then_end) {
  // What the peer has done is told in other words than this side's Read has.
  absl::Status told = error;
  if (reader_.ended() && HasReason(error, reason::kEndOfStream)) {
    told = MakeError(reason::kUnexpectedFrame,
                     absl::StrCat("a message was due: ", error.message()));
  } else if (reader_.ended() && HasReason(error, reason::kConnectionLost)) {
    told = MakeError(reason::kMalformedFrame, error.message());
  }
  const std::string reason = ReasonOf(told);
  Frame frame;
  frame.content = Frame::Content::kError;
  frame.error.code = static_cast<uint64_t>(told.code());
  frame.error.reason = std::string_view(reason).substr(0, kMaxErrorReason);
  frame.error.text = told.message().substr(0, kMaxErrorText);
  return SendFrame(frame, {}, then_end);
}

absl::Status MessageChannel::SendFrame(Frame& frame,
                                       absl::Span<const int> descriptors,
                                       bool is_last) {
  WARD_ASSIGN_OR_RETURN(const absl::Time deadline, Begin());
  if (end_written_) {
    return MakeError(reason::kChannelClosed,
                     "this side has said that it has ended");
  }
  if (reader_.peer_knows_end()) writer_.SayKnowsEnd();
  if (begins_.has_value()) {
    CallHeader& call = frame.call.emplace();
    call.keep = begins_->keep;
    call.trace_id = begins_->trace_id;
    if (begins_->time_left != absl::InfiniteDuration()) {
      // 0 would be for ever.
      call.time_left = static_cast<uint64_t>(
          std::max(absl::ToInt64Microseconds(begins_->time_left), int64_t{1}));
    }
  }
  frame.end.kept = is_last && may_keep();
  const bool ends = is_last && reader_.peer_knows_end() &&
                    frame.content != Frame::Content::kEnd;
  absl::Status status = writer_.Send(*transport_, frame, descriptors, limits_,
                                     deadline, ends ? &frame.end : nullptr);
  if (status.ok()) {
    begins_.reset();
    if (is_last) EndCall(frame.end.kept);
    return status;
  }
  status = Explain(status, deadline);
  if (!HasReason(status, reason::kConnectionLost)) return status;
  // A server that refuses a client says why, and closes: that is in this socket
  // still. One that stops reads no more, and is about to say so.
  if (reader_.ReadError(
          *transport_, limits_,
          std::min(deadline, transport_->TimeNow() + kLastWordTime))) {
    // Reads return it, too: what is behind it is no answer.
    status = FromWire(reader_.frame().error);
    reader_.Fail(status);
    writer_.Fail(status);
  } else if (HasReason(reader_.status(), reason::kCallCut)) {
    status = reader_.status();
    writer_.Fail(status);
  }
  return status;
}

// --- reading ---

absl::StatusOr<Message> MessageChannel::Read() {
  // Filled where it is returned: to move its parts takes as long as to read
  // them.
  absl::StatusOr<Message> message(std::in_place);
  absl::Status status = ReceiveArray(message->descriptors_);
  if (status.ok()) {
    TakeParts(*message);
    reader_.Release();
  } else {
    message = std::move(status);
  }
  return message;
}

void MessageChannel::TakeParts(Message& message) const {
  EncodedParts parts(reader_.frame());
  message.max_bulk_bytes_ = limits_.max_bulk_bytes;
  message.parts_.resize(parts.left());
  for (std::string& part : message.parts_) part.assign(parts.Next());
}

absl::Status MessageChannel::ReceiveArray(
    std::vector<FileDescriptor>& descriptors) {
  WARD_RETURN_IF_ERROR(ReceiveFrame(limits_.max_frame_bytes, descriptors));
  if (reader_.frame().content == Frame::Content::kArray) {
    return absl::OkStatus();
  }
  reader_.Release();
  return Unexpected("an array message", "a scalar message");
}

absl::Status MessageChannel::ReadCall(Message& message,
                                      absl::Duration time_for_rest) {
  if (end_written_) {
    reader_.NextCall();
    awaits_call_ = true;
    left_over_ = 0;
    end_written_ = keeps_ = false;
    call_ = Call();
  }
  reader_.set_time_for_rest(time_for_rest);
  absl::Status status = ReceiveArray(message.descriptors_);
  reader_.set_time_for_rest(absl::InfiniteDuration());
  if (!status.ok()) {
    // What has come with a scalar, say, is nobody's.
    reader_.Refuse(std::exchange(message.descriptors_, {}));
    return status;
  }
  const absl::Cleanup release = [this] { reader_.Release(); };
  TakeParts(message);
  const std::optional<CallHeader>& call = reader_.frame().call;
  if (!call.has_value()) return status;
  was_moved_.value = false;
  call_.keep = call->keep;
  call_.trace_id = call->trace_id;
  if (call->time_left != 0) {
    constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();
    call_.time_left = absl::Microseconds(
        static_cast<int64_t>(std::min(call->time_left, kMost)));
  }
  awaits_call_ = false;
  return status;
}

absl::StatusOr<absl::btree_map<std::string, std::string>>
MessageChannel::ReadMap() {
  WARD_ASSIGN_OR_RETURN(const Message message, Read());
  if (message.size() % 2 != 0) {
    return MakeError(reason::kInvalidArguments,
                     absl::StrCat("a key/value message has an even number of "
                                  "parts, not ",
                                  message.size()));
  }
  absl::btree_map<std::string, std::string> entries;
  for (size_t i = 0; i < message.size(); i += 2) {
    entries.insert_or_assign(message[i], message[i + 1]);
  }
  return entries;
}

absl::Status MessageChannel::ReadScalar(std::string& bytes, size_t max_size) {
  size_t max_bytes = limits_.max_frame_bytes;
  if (max_size < max_bytes) {
    // Whatever the caller's maximum, the peer may have an error to tell.
    const size_t wanted = std::max(max_size, kMaxErrorText + kMaxErrorReason);
    const Secret* expected = reader_.expected_password();
    const size_t password = expected == nullptr ? 0 : expected->Expose().size();
    max_bytes = std::min(max_bytes, wanted + kFrameOverhead + password);
  }
  std::vector<FileDescriptor> descriptors;
  WARD_RETURN_IF_ERROR(ReceiveFrame(max_bytes, descriptors, &bytes));
  const absl::Cleanup release = [this] { reader_.Release(); };
  const Frame& frame = reader_.frame();
  if (frame.content != Frame::Content::kScalar) {
    return Unexpected("a scalar message", "an array message");
  }
  if (frame.scalar.size() > max_size) {
    return MakeError(
        reason::kFrameTooLarge,
        absl::StrCat("the scalar has ", frame.scalar.size(),
                     " bytes, over the ", max_size, " that are accepted here"));
  }
  reader_.TakeScalar(bytes);
  return absl::OkStatus();
}

absl::StatusOr<FileDescriptor> MessageChannel::ReadDescriptor() {
  WARD_ASSIGN_OR_RETURN(Message message, Read());
  if (message.size() != 0 || message.descriptors().size() != 1) {
    return MakeError(
        reason::kUnexpectedFrame,
        absl::StrCat("expected one descriptor alone, got ", message.size(),
                     " parts and ", message.descriptors().size(),
                     " descriptors"));
  }
  return std::move(message.descriptors().front());
}

absl::Status MessageChannel::ReceiveFrame(
    size_t max_bytes, std::vector<FileDescriptor>& descriptors,
    std::string* scalar_memory) {
  last_read_ = LastRead::kOther;
  const absl::StatusOr<absl::Time> begun = Begin();
  if (!begun.ok()) {
    if (HasReason(begun.status(), reason::kTimedOut)) {
      last_read_ = LastRead::kTimedOut;
    }
    return begun.status();
  }
  const absl::Time deadline = *begun;
  absl::Status status;
  bool is_left_over = false;
  do {
    reader_.Refuse(std::exchange(descriptors, {}));
    if (is_left_over && reader_.has_refused()) {
      last_read_ = LastRead::kTimedOut;
      return reader_.CheckRefused();
    }
    status = reader_.Read(*transport_, max_bytes, limits_, deadline,
                          descriptors, scalar_memory);
    is_left_over = awaits_call_ &&
                   (reader_.at_end() ||
                    (HasCome(status) && !reader_.frame().call.has_value()));
    if (is_left_over) ThrowAway();
  } while (is_left_over);
  if (!status.ok()) {
    // What is returned for ever may be a peer's.
    if (reader_.status().ok() && HasReason(status, reason::kTimedOut)) {
      last_read_ = LastRead::kTimedOut;
    }
    reader_.Release();  // Of a message that was lost; not of one under way.
    return Explain(status, deadline);
  }
  const Frame& frame = reader_.frame();
  if (frame.content != Frame::Content::kError) return absl::OkStatus();
  last_read_ = LastRead::kError;
  absl::Status error = FromWire(frame.error);
  reader_.Release();
  return error;
}

void MessageChannel::ThrowAway() {
  const size_t before =
      std::exchange(left_over_, left_over_ + reader_.frame_bytes());
  // No error: the peer may have called by now, and would take it for the
  // answer.
  if (before <= kMostLeftOver && left_over_ > kMostLeftOver) {
    transport_->ShutDownReceiving();
  }
  reader_.NextCall();
  reader_.Release();
  // No call is told that it has had it.
  (void)reader_.TakeTraffic();
}

// --- both ---

bool MessageChannel::DiscardUnread() {
  return !is_open() || reader_.DiscardUnread(*transport_);
}

void MessageChannel::ShutDown() {
  if (is_open()) transport_->ShutDown();
}

void MessageChannel::Close() {
  // Who shares the socket keeps its number from being reused, not the peer
  // waiting.
  if (transport_.use_count() > 1) transport_->ShutDown();
  transport_.reset();
  // With it go descriptors that have come and were not read, and a password
  // that came in part.
  closed_traffic_ = TakeTraffic();
  reader_ = FrameReader();
}

void MessageChannel::set_limits(const ChannelLimits& limits) {
  limits_ = limits;
  limits_.max_frame_bytes =
      std::min(limits.max_frame_bytes, ChannelLimits::kMostFrameBytes);
  limits_.max_descriptors =
      std::min(limits.max_descriptors, ChannelLimits::kMostDescriptors);
}

absl::StatusOr<absl::Time> MessageChannel::Begin() const {
  if (!is_open()) return Closed();
  if (timeout_ == absl::InfiniteDuration() &&
      deadline_ == absl::InfiniteFuture()) {
    return deadline_;
  }
  const absl::Time now = transport_->TimeNow();
  if (now >= deadline_) {
    return Explain(
        MakeError(reason::kTimedOut, "the channel's deadline has passed"),
        deadline_);
  }
  return std::min(deadline_, now + timeout_);
}

absl::Status MessageChannel::Explain(const absl::Status& status,
                                     absl::Time deadline) const {
  const Why& why = deadline == deadline_ ? deadline_why_ : timeout_why_;
  if (why.text == nullptr || !HasReason(status, reason::kTimedOut)) {
    return status;
  }
  if (why.time == absl::InfiniteDuration()) return Annotate(status, why.text);
  return Annotate(status,
                  absl::StrCat(why.text, " ", absl::FormatDuration(why.time)));
}

}  // namespace ward

#include "ward/channel/message_channel.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "ward/channel/argument.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/secret.h"
#include "ward/channel/socket_transport.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/proto/frame.pb.h"

namespace ward {
namespace {

using ::google::protobuf::io::CodedInputStream;
using ::google::protobuf::io::CodedOutputStream;
using ::google::protobuf::io::StringOutputStream;

// A first piece that holds most messages whole.
constexpr size_t kFirstPiece = 4096;

// Scratch space over this is given back after use.
constexpr size_t kKeptBytes = size_t{64} << 10;

// What a frame has beside a scalar's bytes, generously.
constexpr size_t kFrameOverhead = 64;

constexpr size_t kMaxErrorText = size_t{4} << 10;
constexpr size_t kMaxErrorReason = 128;

// The descriptors of this frame and of the next: a receive ends with the bytes
// that brought some.
constexpr size_t kMaxArrivals = 2;

// The longest varint of 64 bits.
constexpr size_t kMaxVarintBytes = 10;

// protobuf's wire types (protobuf.dev/programming-guides/encoding).
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// How many parts `in`'s frame (or, `in_array`, its array) would have once it is
// parsed; nothing if it is malformed. The parser must not be asked: it stores
// while it counts. Groups, which it would skip, are refused: nobody writes them.
std::optional<size_t> CountParts(CodedInputStream& in, bool in_array) {
  size_t parts = 0;
  while (const uint32_t tag = in.ReadTag()) {
    const uint32_t field = tag >> 3;
    uint64_t ignored;
    uint32_t length;
    switch (tag & 7) {
      case kVarint:
        if (!in.ReadVarint64(&ignored)) return std::nullopt;
        break;
      case kFixed64:
        if (!in.Skip(8)) return std::nullopt;
        break;
      case kFixed32:
        if (!in.Skip(4)) return std::nullopt;
        break;
      case kBytes:
        if (!in.ReadVarint32(&length) ||
            length > static_cast<uint32_t>(in.BytesUntilLimit())) {
          return std::nullopt;
        }
        if (!in_array && field == proto::Frame::kArrayFieldNumber) {
          const auto outer = in.PushLimit(static_cast<int>(length));
          const std::optional<size_t> inner = CountParts(in, true);
          if (!inner.has_value()) return std::nullopt;
          parts += *inner;
          in.PopLimit(outer);
          break;
        }
        if (in_array && field == proto::Array::kPartFieldNumber) ++parts;
        if (!in.Skip(static_cast<int>(length))) return std::nullopt;
        break;
      default:
        return std::nullopt;
    }
  }
  return in.ConsumedEntireMessage() ? std::make_optional(parts) : std::nullopt;
}

// The length of the UTF-8 character that `text` (not empty) begins with; 0 if it
// begins with none. RFC 3629: no overlong forms, no surrogates, none past
// U+10FFFF.
size_t Utf8Length(std::string_view text) {
  const auto at = [text](size_t i) -> uint32_t {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  };
  const auto follows = [at](size_t i) { return (at(i) & 0xC0) == 0x80; };
  if (at(0) < 0x80) return 1;
  if (at(0) >= 0xC2 && at(0) <= 0xDF) return follows(1) ? 2 : 0;
  if (at(0) >= 0xE0 && at(0) <= 0xEF) {
    const uint32_t point = (at(0) & 0x0F) << 12 | (at(1) & 0x3F) << 6;
    const bool fits = point >= 0x800 && (point < 0xD800 || point > 0xDFFF);
    return fits && follows(1) && follows(2) ? 3 : 0;
  }
  if (at(0) >= 0xF0 && at(0) <= 0xF4) {
    const uint32_t point = (at(0) & 0x07) << 18 | (at(1) & 0x3F) << 12;
    const bool fits = point >= 0x10000 && point <= 0x10FFFF;
    return fits && follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

std::optional<size_t> CountParts(std::string_view frame) {
  CodedInputStream in(reinterpret_cast<const uint8_t*>(frame.data()),
                      static_cast<int>(frame.size()));
  const auto whole = in.PushLimit(static_cast<int>(frame.size()));
  const std::optional<size_t> parts = CountParts(in, false);
  in.PopLimit(whole);
  return parts;
}

// `text` cut to `max_size`, as the UTF-8 that a proto3 string must be: a parser
// would refuse the whole frame otherwise.
std::string ToUtf8(std::string_view text, size_t max_size) {
  std::string out(text.substr(0, max_size));
  size_t i = 0;
  while (i < out.size()) {
    const size_t length = Utf8Length(std::string_view(out).substr(i));
    if (length == 0) out[i] = '?';
    i += std::max<size_t>(length, 1);
  }
  return out;
}

absl::Status FromWire(const proto::Error& error) {
  // The peer's word: a code that is none becomes kUnknown, OK would be a lie.
  const int code = error.code();
  const bool known = code >= static_cast<int>(absl::StatusCode::kCancelled) &&
                     code <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  return MakeError(known ? static_cast<absl::StatusCode>(code)
                         : absl::StatusCode::kUnknown,
                   error.reason(), error.text());
}

void WipePassword(proto::Frame& frame) {
  std::string& password = *frame.mutable_password();
  Wipe(password.data(), password.size());
  password.clear();
}

absl::Status Unexpected(std::string_view wanted, const proto::Frame& frame) {
  std::string_view got = "an empty frame";
  if (frame.has_array()) got = "an array message";
  if (frame.has_scalar()) got = "a scalar message";
  return MakeError(reason::kUnexpectedFrame,
                   absl::StrCat("expected ", wanted, ", got ", got));
}

absl::Status Closed() {
  return MakeError(reason::kChannelClosed,
                   "the channel is closed on this side");
}

}  // namespace

MessageChannel::MessageChannel()
    : MessageChannel(std::unique_ptr<Transport>()) {}

MessageChannel::MessageChannel(std::unique_ptr<Transport> transport)
    : transport_(std::move(transport)),
      out_(std::make_unique<proto::Frame>()),
      in_(std::make_unique<proto::Frame>()) {}

MessageChannel::MessageChannel(FileDescriptor socket)
    : MessageChannel(std::make_unique<SocketTransport>(std::move(socket))) {}

MessageChannel::MessageChannel(MessageChannel&&) noexcept = default;
MessageChannel& MessageChannel::operator=(MessageChannel&&) noexcept = default;

MessageChannel::~MessageChannel() {
  // A first frame that never became whole may hold most of a password.
  if (to_expect_ != nullptr && buffer_ != nullptr) Wipe(&buffer_[0], end_);
}

absl::StatusOr<std::pair<MessageChannel, MessageChannel>>
MessageChannel::CreatePair() {
  WARD_ASSIGN_OR_RETURN(auto ends, SocketTransport::CreatePair());
  return std::make_pair(MessageChannel(std::move(ends.first)),
                        MessageChannel(std::move(ends.second)));
}

// --- writing ---

absl::Status MessageChannel::WriteArguments(
    std::initializer_list<Argument> arguments) {
  if (!is_open()) return Closed();
  absl::InlinedVector<int, 8> descriptors;
  out_->Clear();
  proto::Array& array = *out_->mutable_array();
  for (const Argument& argument : arguments) {
    if (argument.descriptor() != nullptr) {
      descriptors.push_back(argument.descriptor()->get());
    } else {
      array.add_part(argument.view().data(), argument.view().size());
    }
  }
  return SendFrame(descriptors);
}

absl::Status MessageChannel::Write(const Message& message) {
  if (!is_open()) return Closed();
  absl::InlinedVector<int, 8> descriptors;
  out_->Clear();
  proto::Array& array = *out_->mutable_array();
  for (const std::string& part : message.parts()) array.add_part(part);
  for (const FileDescriptor& descriptor : message.descriptors()) {
    descriptors.push_back(descriptor.get());
  }
  return SendFrame(descriptors);
}

absl::Status MessageChannel::WriteMap(
    const absl::btree_map<std::string, std::string>& entries) {
  if (!is_open()) return Closed();
  out_->Clear();
  proto::Array& array = *out_->mutable_array();
  for (const auto& [key, value] : entries) {
    array.add_part(key);
    array.add_part(value);
  }
  return SendFrame({});
}

absl::Status MessageChannel::WriteScalar(std::string_view bytes) {
  if (!is_open()) return Closed();
  out_->Clear();
  out_->mutable_scalar()->assign(bytes);  // set_scalar() copies it twice.
  return SendFrame({});
}

absl::Status MessageChannel::WriteDescriptor(const FileDescriptor& descriptor) {
  return Write(descriptor);
}

absl::Status MessageChannel::WriteError(const absl::Status& error) {
  if (!is_open()) return Closed();
  out_->Clear();
  proto::Error& out = *out_->mutable_error();
  out.set_code(static_cast<int>(error.code()));
  out.set_reason(ToUtf8(ReasonOf(error), kMaxErrorReason));
  out.set_text(ToUtf8(error.message(), kMaxErrorText));
  return SendFrame({});
}

absl::Status MessageChannel::SendFrame(absl::Span<const int> descriptors) {
  if (!write_status_.ok()) return write_status_;
  if (descriptors.size() > limits_.max_descriptors) {
    return MakeError(
        reason::kTooManyDescriptors,
        absl::StrCat("one message carries at most ", limits_.max_descriptors,
                     " descriptors, not ", descriptors.size(),
                     "; send the rest in further messages"));
  }
  if (std::any_of(descriptors.begin(), descriptors.end(),
                  [](int fd) { return fd < 0; })) {
    return MakeError(reason::kInvalidArguments,
                     "a descriptor to send is closed already");
  }
  const size_t parts = static_cast<size_t>(out_->array().part_size());
  if (parts > limits_.max_parts) {
    return MakeError(reason::kFrameTooLarge,
                     absl::StrCat("a message has at most ", limits_.max_parts,
                                  " parts, not ", parts));
  }
  out_->set_descriptors(static_cast<uint32_t>(descriptors.size()));
  const bool has_password = to_present_ != nullptr;
  if (has_password) {
    // set_password() would copy it once more, and free that unwiped.
    out_->mutable_password()->assign(to_present_->Expose());
  }
  const size_t size = out_->ByteSizeLong();
  if (size > limits_.max_frame_bytes) {
    if (has_password) WipePassword(*out_);
    return MakeError(
        reason::kFrameTooLarge,
        absl::StrCat("a message may have ", limits_.max_frame_bytes,
                     " bytes on the wire, not ", size,
                     "; split it, send a descriptor to the data instead, or "
                     "raise max_frame_bytes on both sides"));
  }
  out_bytes_.clear();
  // Reserved at once: a string that grows would leave unwiped copies behind.
  out_bytes_.reserve(size + CodedOutputStream::VarintSize64(size));
  {
    StringOutputStream stream(&out_bytes_);
    CodedOutputStream coded(&stream);
    coded.WriteVarint64(size);
    out_->SerializeWithCachedSizes(&coded);
  }
  absl::Status status = SendBytes(out_bytes_, descriptors);
  if (has_password) {
    WipePassword(*out_);
    Wipe(out_bytes_.data(), out_bytes_.size());
  }
  if (out_bytes_.capacity() > kKeptBytes) {
    out_bytes_ = std::string();
    out_ = std::make_unique<proto::Frame>();
  }
  return status;
}

absl::Status MessageChannel::SendBytes(std::string_view bytes,
                                       absl::Span<const int> descriptors) {
  const absl::Time deadline = Deadline();
  const size_t size = bytes.size();
  while (!bytes.empty()) {
    const absl::StatusOr<size_t> sent =
        transport_->Send(bytes, descriptors, deadline);
    if (!sent.ok()) {
      if (HasReason(sent.status(), reason::kConnectionLost)) {
        return WriteFailed(sent.status());
      }
      // Nothing has left yet: the channel is in step, and may be used again.
      if (bytes.size() < size) write_status_ = sent.status();
      return sent.status();
    }
    if (*sent > 0) {
      bytes.remove_prefix(*sent);
      descriptors = {};
      to_present_ = nullptr;
    }
    // A peer that always makes room for one byte more gets no more time.
    if (!bytes.empty()) {
      absl::Status late = CheckTime(deadline);
      if (late.ok()) continue;
      if (bytes.size() < size) write_status_ = late;
      return late;
    }
  }
  return absl::OkStatus();
}

absl::Status MessageChannel::WriteFailed(const absl::Status& status) {
  write_status_ = status;
  // A server that refuses a client says why, and closes. What it said is in
  // this socket still, and no wait: nothing more can come.
  const absl::Duration timeout = std::exchange(timeout_, absl::ZeroDuration());
  const absl::Status left =
      ReceiveFrame(limits_.max_frame_bytes, kept_descriptors_);
  timeout_ = timeout;
  if (left.ok() && in_->has_error()) {
    write_status_ = FromWire(in_->error());
  } else if (!HasReason(left, reason::kTimedOut)) {
    kept_ = left;
  }
  return write_status_;
}

// --- reading ---

absl::StatusOr<Message> MessageChannel::Read() {
  std::vector<FileDescriptor> descriptors;
  WARD_RETURN_IF_ERROR(ReceiveFrame(limits_.max_frame_bytes, descriptors));
  if (in_->has_error()) return FromWire(in_->error());
  if (!in_->has_array()) return Unexpected("an array message", *in_);
  proto::Array& array = *in_->mutable_array();
  std::vector<std::string> parts;
  parts.reserve(static_cast<size_t>(array.part_size()));
  for (std::string& part : *array.mutable_part()) {
    parts.push_back(std::move(part));
  }
  return Message(std::move(parts), std::move(descriptors));
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
    const size_t password =
        to_expect_ == nullptr ? 0 : to_expect_->Expose().size();
    max_bytes = std::min(max_bytes, wanted + kFrameOverhead + password);
  }
  std::vector<FileDescriptor> descriptors;
  WARD_RETURN_IF_ERROR(ReceiveFrame(max_bytes, descriptors));
  if (in_->has_error()) return FromWire(in_->error());
  if (!in_->has_scalar()) return Unexpected("a scalar message", *in_);
  if (in_->scalar().size() > max_size) {
    return MakeError(reason::kFrameTooLarge,
                     absl::StrCat("the scalar has ", in_->scalar().size(),
                                  " bytes, over the ", max_size,
                                  " that are accepted here"));
  }
  bytes.assign(in_->scalar());
  return absl::OkStatus();
}

absl::StatusOr<FileDescriptor> MessageChannel::ReadDescriptor() {
  WARD_ASSIGN_OR_RETURN(Message message, Read());
  if (message.size() != 0 || message.descriptors().size() != 1) {
    return MakeError(reason::kUnexpectedFrame,
                     absl::StrCat("expected one descriptor alone, got ",
                                  message.size(), " parts and ",
                                  message.descriptors().size(),
                                  " descriptors"));
  }
  return std::move(message.descriptors().front());
}

absl::Status MessageChannel::ReceiveFrame(
    size_t max_bytes, std::vector<FileDescriptor>& descriptors) {
  if (!is_open()) return Closed();
  if (kept_.has_value()) {
    const absl::Status kept = *std::exchange(kept_, std::nullopt);
    descriptors = std::exchange(kept_descriptors_, {});
    return kept;
  }
  if (!read_status_.ok()) return read_status_;
  const absl::Time deadline = Deadline();
  bool trickling = false;
  while (true) {
    const auto* unread = reinterpret_cast<const uint8_t*>(buffer_.get() + begin_);
    const size_t available = end_ - begin_;
    size_t frame_bytes = 0;  // Unknown yet.
    if (available > 0) {
      CodedInputStream header(unread, static_cast<int>(std::min<size_t>(
                                          available, kMaxVarintBytes)));
      uint64_t body;
      if (header.ReadVarint64(&body)) {
        if (body > max_bytes) {
          return ReadFailed(MakeError(
              reason::kFrameTooLarge,
              absl::StrCat("the peer announced a message of ", body,
                           " bytes, over the limit of ", max_bytes)));
        }
        const auto header_bytes = static_cast<size_t>(header.CurrentPosition());
        frame_bytes = header_bytes + static_cast<size_t>(body);
        if (available >= frame_bytes) {
          const std::string_view frame(&buffer_[begin_ + header_bytes],
                                       static_cast<size_t>(body));
          const absl::Status parsed = Parse(frame);
          if (to_expect_ != nullptr) Wipe(&buffer_[begin_], frame_bytes);
          begin_ += frame_bytes;
          if (begin_ == end_) begin_ = end_ = 0;
          last_frame_bytes_ = frame_bytes;
          const absl::Status admitted = CheckPassword();
          WARD_RETURN_IF_ERROR(parsed);
          if (!admitted.ok()) return ReadFailed(admitted);
          return ClaimDescriptors(descriptors);
        }
      } else if (available >= kMaxVarintBytes) {
        return ReadFailed(MakeError(reason::kMalformedFrame,
                                    "the peer sent a length of over 10 bytes"));
      }
    }
    // A peer that always has one byte more gets no more time. What fills the
    // room is no trickle: it was there before, and the rest may be there too.
    if (trickling) WARD_RETURN_IF_ERROR(CheckTime(deadline));
    WARD_RETURN_IF_ERROR(ReceiveMore(frame_bytes, deadline));
    trickling = end_ < capacity_;
  }
}

absl::Status MessageChannel::ReceiveMore(size_t frame_bytes,
                                         absl::Time deadline) {
  Reserve(frame_bytes);
  const absl::Span<char> room(&buffer_[end_], capacity_ - end_);
  Arrival arrival;
  const absl::StatusOr<Transport::Received> received = transport_->Receive(
      room, limits_.max_descriptors, arrival.descriptors, deadline);
  if (!received.ok()) {
    // What has come stays: after a time-out the next call goes on with it.
    return HasReason(received.status(), reason::kConnectionLost)
               ? ReadFailed(received.status())
               : received.status();
  }
  if (received->end_of_stream) {
    return end_ == 0 ? MakeError(reason::kEndOfStream,
                                 "the peer has closed the connection")
                     : ReadFailed(MakeError(
                           reason::kConnectionLost,
                           absl::StrCat("the peer closed the connection ",
                                        end_, " bytes into a message")));
  }
  end_ += received->bytes;
  if (!arrival.descriptors.empty() || received->descriptors_truncated) {
    arrival.truncated = received->descriptors_truncated;
    arrivals_.push_back(std::move(arrival));
  }
  if (arrivals_.size() > kMaxArrivals) {
    return ReadFailed(
        MakeError(reason::kMalformedFrame,
                  "the peer sent descriptors that belong to no message"));
  }
  return absl::OkStatus();
}

absl::Status MessageChannel::Parse(std::string_view bytes) {
  const std::optional<size_t> parts = CountParts(bytes);
  if (parts.has_value() && *parts > limits_.max_parts) {
    return ReadFailed(MakeError(
        reason::kFrameTooLarge,
        absl::StrCat("the peer sent a message of ", *parts,
                     " parts, over the limit of ", limits_.max_parts)));
  }
  if (!parts.has_value() ||
      !in_->ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      in_->content_case() == proto::Frame::CONTENT_NOT_SET) {
    return ReadFailed(MakeError(
        reason::kMalformedFrame,
        absl::StrCat("the peer sent ", bytes.size(),
                     " bytes that are no frame of ward's protocol")));
  }
  return absl::OkStatus();
}

absl::Status MessageChannel::CheckPassword() {
  const Secret* expected = std::exchange(to_expect_, nullptr);
  const std::string& password = in_->password();
  const bool right = expected == nullptr ? password.empty()
                                         : expected->Matches(password);
  WipePassword(*in_);
  if (right) return absl::OkStatus();
  return expected == nullptr
             ? MakeError(reason::kMalformedFrame,
                         "the peer sent a password, which belongs into a "
                         "client's first message alone")
             : MakeError(reason::kInvalidPassword,
                         "the password is wrong or missing; use the one that "
                         "the server was made with");
}

absl::Status MessageChannel::ClaimDescriptors(
    std::vector<FileDescriptor>& descriptors) {
  const size_t declared = in_->descriptors();
  Arrival arrival;
  if (declared > 0 && !arrivals_.empty()) {
    arrival = std::move(arrivals_.front());
    arrivals_.erase(arrivals_.begin());
  }
  // What is left must belong to bytes that are still unread.
  const bool none_stray = arrivals_.empty() || begin_ < end_;
  if (none_stray && arrival.truncated) {
    return declared > limits_.max_descriptors
               ? MakeError(reason::kTooManyDescriptors,
                           absl::StrCat("the message came with ", declared,
                                        " descriptors, over the limit of ",
                                        limits_.max_descriptors))
               : MakeError(
                     reason::kDescriptorsTruncated,
                     absl::StrCat(
                         "the message came with ", declared,
                         " descriptors, and this process's descriptor table "
                         "has no room for them all; close some, or raise the "
                         "limit (ulimit -n), and ask again"));
  }
  if (none_stray && arrival.descriptors.size() == declared) {
    descriptors = std::move(arrival.descriptors);
    return absl::OkStatus();
  }
  return ReadFailed(
      MakeError(reason::kMalformedFrame,
                absl::StrCat("the peer's message declares ", declared,
                             " descriptors, and others came")));
}

absl::Status MessageChannel::ReadFailed(const absl::Status& status) {
  read_status_ = status;
  arrivals_.clear();
  return status;
}

void MessageChannel::Reserve(size_t frame_bytes) {
  if (begin_ > 0) {
    std::memmove(&buffer_[0], &buffer_[begin_], end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  // An empty buffer that large messages left behind is given back after the
  // first small one: not between two of a stream of large ones.
  const bool shrink = end_ == 0 && capacity_ > kKeptBytes &&
                      last_frame_bytes_ <= kKeptBytes;
  if (end_ < capacity_ && !shrink) return;
  // Doubled as bytes come, never sized by the length that the peer claims.
  const size_t capacity =
      shrink ? kFirstPiece
             : std::max(kFirstPiece, std::min(2 * capacity_, frame_bytes));
  std::unique_ptr<char[]> larger(new char[capacity]);
  if (end_ > 0) std::memcpy(&larger[0], &buffer_[0], end_);
  if (to_expect_ != nullptr) Wipe(buffer_.get(), end_);
  buffer_ = std::move(larger);
  capacity_ = capacity;
}

// --- both ---

void MessageChannel::ShutDown() {
  if (is_open()) transport_->ShutDown();
}

void MessageChannel::Close() {
  transport_.reset();
  arrivals_.clear();
  kept_descriptors_.clear();
}

void MessageChannel::set_limits(const ChannelLimits& limits) {
  limits_ = limits;
  limits_.max_frame_bytes =
      std::min(limits.max_frame_bytes, ChannelLimits::kMostFrameBytes);
  limits_.max_descriptors =
      std::min(limits.max_descriptors, ChannelLimits::kMostDescriptors);
}

absl::Time MessageChannel::Deadline() const {
  return timeout_ == absl::InfiniteDuration() ? absl::InfiniteFuture()
                                              : transport_->TimeNow() + timeout_;
}

absl::Status MessageChannel::CheckTime(absl::Time deadline) const {
  if (deadline == absl::InfiniteFuture() ||
      transport_->TimeNow() <= deadline) {
    return absl::OkStatus();
  }
  return MakeError(reason::kTimedOut,
                   "the peer was too slow: the time for the message is over");
}

}  // namespace ward

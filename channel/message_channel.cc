#include "ward/channel/message_channel.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
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

std::optional<size_t> CountParts(std::string_view frame) {
  CodedInputStream in(reinterpret_cast<const uint8_t*>(frame.data()),
                      static_cast<int>(frame.size()));
  const auto whole = in.PushLimit(static_cast<int>(frame.size()));
  const std::optional<size_t> parts = CountParts(in, false);
  in.PopLimit(whole);
  return parts;
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
  out_->set_scalar(bytes.data(), bytes.size());
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
  out.set_reason(ReasonOf(error));
  // A proto3 string is UTF-8, and a cut or a careless author is not: what is
  // not ASCII is replaced, so that readers in every language take the frame.
  std::string text(error.message().substr(0, kMaxErrorText));
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return static_cast<unsigned char>(c) > 126; }, '?');
  out.set_text(std::move(text));
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
  if (to_present_ != nullptr) {
    const std::string_view password = to_present_->Expose();
    out_->set_password(password.data(), password.size());
  }
  const size_t size = out_->ByteSizeLong();
  if (size > limits_.max_frame_bytes) {
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
  if (to_present_ != nullptr) {
    std::string& copy = *out_->mutable_password();
    Wipe(copy.data(), copy.size());
    Wipe(out_bytes_.data(), out_bytes_.size());
    to_present_ = nullptr;
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
    bytes.remove_prefix(*sent);
    if (*sent > 0) descriptors = {};
  }
  return absl::OkStatus();
}

absl::Status MessageChannel::WriteFailed(const absl::Status& status) {
  write_status_ = status;
  // A server that refuses a client says why, and closes. What it said is in
  // this socket still, and no wait: nothing more can come.
  const absl::Duration timeout = std::exchange(timeout_, absl::ZeroDuration());
  std::vector<FileDescriptor> descriptors;
  if (ReceiveFrame(limits_.max_frame_bytes, descriptors).ok() &&
      in_->has_error()) {
    write_status_ = FromWire(in_->error());
  }
  timeout_ = timeout;
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
  const size_t max_bytes =
      max_size < limits_.max_frame_bytes
          ? std::min(limits_.max_frame_bytes,
                     max_size + kFrameOverhead +
                         (to_expect_ ? to_expect_->Expose().size() : 0))
          : limits_.max_frame_bytes;
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
  if (!read_status_.ok()) return read_status_;
  // Lengths are ints in protobuf; a limit over 2 GiB must not become negative.
  max_bytes = std::min<size_t>(max_bytes, std::numeric_limits<int>::max() / 2);
  const absl::Time deadline = Deadline();
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
    Reserve(frame_bytes);
    const absl::StatusOr<Transport::Received> received = transport_->Receive(
        absl::MakeSpan(&buffer_[end_], capacity_ - end_),
        limits_.max_descriptors, arrived_, deadline);
    if (!received.ok()) {
      // What has come stays: after a time-out the next call goes on with it.
      return HasReason(received.status(), reason::kConnectionLost)
                 ? ReadFailed(received.status())
                 : received.status();
    }
    if (received->end_of_stream) {
      return available == 0
                 ? MakeError(reason::kEndOfStream,
                             "the peer has closed the connection")
                 : ReadFailed(MakeError(
                       reason::kConnectionLost,
                       absl::StrCat("the peer closed the connection ",
                                    available, " bytes into a message")));
    }
    end_ += received->bytes;
    some_truncated_ |= received->descriptors_truncated;
    // One receive ends with the bytes that brought descriptors, so an honest
    // peer's are at most this frame's and the next one's.
    if (arrived_.size() > 2 * limits_.max_descriptors) {
      arrived_.clear();
      return ReadFailed(
          MakeError(reason::kMalformedFrame,
                    "the peer sent descriptors that belong to no message"));
    }
  }
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
  std::string& password = *in_->mutable_password();
  const bool right = expected == nullptr ? password.empty()
                                         : expected->Matches(password);
  Wipe(password.data(), password.size());
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
  if (arrived_.size() < declared && some_truncated_) {
    arrived_.clear();
    some_truncated_ = false;
    return MakeError(
        reason::kDescriptorsTruncated,
        absl::StrCat("the message came with ", declared,
                     " descriptors, and this process could not take all of "
                     "them: its descriptor table is full, or it accepts only ",
                     limits_.max_descriptors,
                     " here; close some, raise the limit, and ask again"));
  }
  if (arrived_.size() >= declared) {
    const auto end = arrived_.begin() + static_cast<ptrdiff_t>(declared);
    descriptors.assign(std::make_move_iterator(arrived_.begin()),
                       std::make_move_iterator(end));
    arrived_.erase(arrived_.begin(), end);
    // What is left must belong to bytes that are still unread.
    const bool all_read = begin_ == end_;
    if (!all_read || (arrived_.empty() && !some_truncated_)) {
      return absl::OkStatus();
    }
  }
  descriptors.clear();
  arrived_.clear();
  return ReadFailed(
      MakeError(reason::kMalformedFrame,
                absl::StrCat("the peer's message declares ", declared,
                             " descriptors, and others came")));
}

absl::Status MessageChannel::ReadFailed(const absl::Status& status) {
  read_status_ = status;
  return status;
}

void MessageChannel::Reserve(size_t frame_bytes) {
  if (begin_ > 0) {
    std::memmove(&buffer_[0], &buffer_[begin_], end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  // An empty buffer that one large message left behind is given back.
  const bool shrink = end_ == 0 && capacity_ > kKeptBytes;
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
  arrived_.clear();
}

absl::Time MessageChannel::Deadline() const {
  return timeout_ == absl::InfiniteDuration() ? absl::InfiniteFuture()
                                              : transport_->TimeNow() + timeout_;
}

}  // namespace ward

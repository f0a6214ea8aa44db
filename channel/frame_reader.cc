#include "ward/channel/frame_reader.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "google/protobuf/io/coded_stream.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/proto/frame.pb.h"

namespace ward {
namespace {

using ::google::protobuf::io::CodedInputStream;

// A first piece that holds most messages whole.
constexpr size_t kFirstPiece = 4096;

// A larger buffer is given back after use.
constexpr size_t kKeptBytes = size_t{64} << 10;

// The descriptors of this frame and of the next: a receive ends with the bytes
// that brought some.
constexpr size_t kMaxArrivals = 2;

// The longest varint of 64 bits.
constexpr size_t kMaxVarintBytes = 10;

// protobuf's wire types (protobuf.dev/programming-guides/encoding).
enum WireType : uint32_t {
  kVarint = 0,
  kFixed64 = 1,
  kBytes = 2,
  kFixed32 = 5
};

// How many parts `in`'s frame (or, `in_array`, its array) would have once it is
// parsed; nothing if it is malformed. The parser must not be asked: it stores
// while it counts. Groups, which it would skip, are refused: nobody writes
// them.
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

}  // namespace

FrameReader::FrameReader() : frame_(std::make_unique<proto::Frame>()) {}
FrameReader::FrameReader(FrameReader&&) noexcept = default;
FrameReader& FrameReader::operator=(FrameReader&&) noexcept = default;

FrameReader::~FrameReader() {
  // A first frame that never became whole may hold most of a password.
  if (expected_ != nullptr && buffer_ != nullptr) Wipe(&buffer_[0], end_);
}

absl::Status FrameReader::Read(Transport& transport, size_t max_bytes,
                               const ChannelLimits& limits, absl::Time deadline,
                               std::vector<FileDescriptor>& descriptors) {
  WARD_ASSIGN_OR_RETURN(const Extent extent,
                        AwaitFrame(transport, max_bytes, limits, deadline));
  const absl::Status parsed = Parse(extent, limits);
  Consume(extent);
  const absl::Status admitted = CheckPassword();
  if (!parsed.ok()) return Failed(parsed);
  if (!admitted.ok()) return Failed(admitted);
  return ClaimDescriptors(limits, descriptors);
}

bool FrameReader::ReadError(Transport& transport, const ChannelLimits& limits) {
  if (expected_ != nullptr) return false;
  const absl::StatusOr<Extent> extent = AwaitFrame(
      transport, limits.max_frame_bytes, limits, absl::InfinitePast());
  if (!extent.ok() || !Parse(*extent, limits).ok() || !frame_->has_error()) {
    return false;
  }
  Consume(*extent);
  return true;
}

absl::StatusOr<FrameReader::Extent> FrameReader::AwaitFrame(
    Transport& transport, size_t max_bytes, const ChannelLimits& limits,
    absl::Time deadline) {
  WARD_RETURN_IF_ERROR(status_);
  bool trickling = false;
  while (true) {
    WARD_ASSIGN_OR_RETURN(const Extent extent, ReadHeader(max_bytes));
    if (extent.frame_bytes > 0 && end_ - begin_ >= extent.frame_bytes) {
      return extent;
    }
    // A peer that always has one byte more gets no more time. What fills the
    // room is no trickle: it was there before, and the rest may be there too.
    // Nor is it the peer's fault if this thread woke late: what came in time is
    // read.
    if (trickling) WARD_RETURN_IF_ERROR(transport.CheckTime(deadline));
    const size_t available = end_ - begin_;
    WARD_RETURN_IF_ERROR(
        ReceiveMore(transport, extent.frame_bytes, limits, deadline));
    trickling = end_ - begin_ > available && end_ < capacity_;
  }
}

absl::StatusOr<FrameReader::Extent> FrameReader::ReadHeader(size_t max_bytes) {
  const size_t available = end_ - begin_;
  if (available == 0) return Extent();
  CodedInputStream header(
      reinterpret_cast<const uint8_t*>(&buffer_[begin_]),
      static_cast<int>(std::min(available, kMaxVarintBytes)));
  uint64_t body;
  if (!header.ReadVarint64(&body)) {
    if (available < kMaxVarintBytes) return Extent();
    return Failed(MakeError(reason::kMalformedFrame,
                            "the peer sent a length of over 10 bytes"));
  }
  if (body > max_bytes) {
    return Failed(
        MakeError(reason::kFrameTooLarge,
                  absl::StrCat("the peer announced a message of ", body,
                               " bytes, over the limit of ", max_bytes)));
  }
  const auto header_bytes = static_cast<size_t>(header.CurrentPosition());
  return Extent{header_bytes, header_bytes + static_cast<size_t>(body)};
}

absl::Status FrameReader::ReceiveMore(Transport& transport, size_t frame_bytes,
                                      const ChannelLimits& limits,
                                      absl::Time deadline) {
  Reserve(frame_bytes);
  const absl::Span<char> room(&buffer_[end_], capacity_ - end_);
  Arrival arrival;
  const absl::StatusOr<Transport::Received> received = transport.Receive(
      room, limits.max_descriptors, arrival.descriptors, deadline);
  if (!received.ok()) {
    return HasReason(received.status(), reason::kConnectionLost)
               ? Failed(received.status())
               : received.status();
  }
  if (received->end_of_stream) {
    return end_ == 0 ? MakeError(reason::kEndOfStream,
                                 "the peer has closed the connection")
                     : Failed(MakeError(
                           reason::kConnectionLost,
                           absl::StrCat("the peer closed the connection ", end_,
                                        " bytes into a message")));
  }
  end_ += received->bytes;
  if (!arrival.descriptors.empty() || received->descriptors_truncated) {
    arrival.truncated = received->descriptors_truncated;
    arrivals_.push_back(std::move(arrival));
  }
  if (arrivals_.size() <= kMaxArrivals) return absl::OkStatus();
  return Failed(
      MakeError(reason::kMalformedFrame,
                "the peer sent descriptors that belong to no message"));
}

void FrameReader::Reserve(size_t frame_bytes) {
  if (begin_ > 0) {
    std::memmove(&buffer_[0], &buffer_[begin_], end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  // An empty buffer that large messages left behind is given back after the
  // first small one: not between two of a stream of large ones.
  const bool shrink =
      end_ == 0 && capacity_ > kKeptBytes && last_frame_bytes_ <= kKeptBytes;
  if (end_ < capacity_ && !shrink) return;
  // Doubled as bytes come, never sized by the length that the peer claims.
  const size_t capacity =
      shrink ? kFirstPiece
             : std::max(kFirstPiece, std::min(2 * capacity_, frame_bytes));
  std::unique_ptr<char[]> larger(new char[capacity]);
  if (end_ > 0) std::memcpy(&larger[0], &buffer_[0], end_);
  if (expected_ != nullptr) Wipe(buffer_.get(), end_);
  buffer_ = std::move(larger);
  capacity_ = capacity;
}

absl::Status FrameReader::Parse(Extent extent, const ChannelLimits& limits) {
  const std::string_view body(&buffer_[begin_ + extent.header_bytes],
                              extent.frame_bytes - extent.header_bytes);
  const std::optional<size_t> parts = CountParts(body);
  if (parts.has_value() && *parts > limits.max_parts) {
    return MakeError(
        reason::kFrameTooLarge,
        absl::StrCat("the peer sent a message of ", *parts,
                     " parts, over the limit of ", limits.max_parts));
  }
  if (!parts.has_value() ||
      !frame_->ParseFromArray(body.data(), static_cast<int>(body.size())) ||
      frame_->content_case() == proto::Frame::CONTENT_NOT_SET) {
    return MakeError(reason::kMalformedFrame,
                     absl::StrCat("the peer sent ", body.size(),
                                  " bytes that are no frame of ward's "
                                  "protocol"));
  }
  return absl::OkStatus();
}

void FrameReader::Consume(Extent extent) {
  if (expected_ != nullptr) Wipe(&buffer_[begin_], extent.frame_bytes);
  begin_ += extent.frame_bytes;
  if (begin_ == end_) begin_ = end_ = 0;
  last_frame_bytes_ = extent.frame_bytes;
}

absl::Status FrameReader::CheckPassword() {
  const Secret* expected = std::exchange(expected_, nullptr);
  std::string& password = *frame_->mutable_password();
  const bool right =
      expected == nullptr ? password.empty() : expected->Matches(password);
  Wipe(password.data(), password.size());
  password.clear();
  if (right) return absl::OkStatus();
  return expected == nullptr
             ? MakeError(reason::kMalformedFrame,
                         "the peer sent a password, which belongs into a "
                         "client's first message alone")
             : MakeError(reason::kInvalidPassword,
                         "the password is wrong or missing; use the one that "
                         "the server was made with");
}

absl::Status FrameReader::ClaimDescriptors(
    const ChannelLimits& limits, std::vector<FileDescriptor>& descriptors) {
  const size_t declared = frame_->descriptors();
  Arrival arrival;
  if (declared > 0 && !arrivals_.empty()) {
    arrival = std::move(arrivals_.front());
    arrivals_.erase(arrivals_.begin());
  }
  // What is left must belong to bytes that are still unread.
  const bool none_stray = arrivals_.empty() || begin_ < end_;
  if (none_stray && arrival.truncated) {
    return declared > limits.max_descriptors
               ? MakeError(reason::kTooManyDescriptors,
                           absl::StrCat("the message came with ", declared,
                                        " descriptors, over the limit of ",
                                        limits.max_descriptors))
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
  return Failed(MakeError(reason::kMalformedFrame,
                          absl::StrCat("the peer's message declares ", declared,
                                       " descriptors, and others came")));
}

absl::Status FrameReader::Failed(const absl::Status& status) {
  status_ = status;
  arrivals_.clear();
  return status;
}

}  // namespace ward

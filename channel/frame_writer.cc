#include "ward/channel/frame_writer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/error.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/proto/frame.pb.h"

namespace ward {
namespace {

using ::google::protobuf::io::CodedOutputStream;
using ::google::protobuf::io::StringOutputStream;

// Scratch space over this is given back after use.
constexpr size_t kKeptBytes = size_t{64} << 10;

}  // namespace

FrameWriter::FrameWriter() = default;
FrameWriter::FrameWriter(FrameWriter&&) noexcept = default;
FrameWriter& FrameWriter::operator=(FrameWriter&&) noexcept = default;
FrameWriter::~FrameWriter() = default;

proto::Frame& FrameWriter::NewFrame() {
  // None at first, after a move, and after a large one.
  if (frame_ == nullptr) frame_ = std::make_unique<proto::Frame>();
  frame_->Clear();
  return *frame_;
}

absl::Status FrameWriter::Send(Transport& transport,
                               absl::Span<const int> descriptors,
                               const ChannelLimits& limits,
                               absl::Time deadline) {
  WARD_RETURN_IF_ERROR(status_);
  frame_->set_descriptors(static_cast<uint32_t>(descriptors.size()));
  const bool has_password = to_present_ != nullptr;
  if (has_password) {
    // set_password() would copy it once more, and free that unwiped.
    frame_->mutable_password()->assign(to_present_->Expose());
  }
  const size_t size = frame_->ByteSizeLong();
  absl::Status status = Check(size, descriptors, limits);
  if (status.ok()) {
    bytes_.clear();
    // Reserved at once: a string that grows would leave unwiped copies behind.
    bytes_.reserve(size + CodedOutputStream::VarintSize64(size));
    {
      StringOutputStream stream(&bytes_);
      CodedOutputStream coded(&stream);
      coded.WriteVarint64(size);
      frame_->SerializeWithCachedSizes(&coded);
    }
    status = SendBytes(transport, bytes_, descriptors, deadline);
  }
  if (has_password) {
    Wipe(frame_->mutable_password()->data(), frame_->password().size());
    Wipe(bytes_.data(), bytes_.size());
  }
  if (bytes_.capacity() > kKeptBytes) {
    bytes_ = std::string();
    frame_.reset();
  }
  return status;
}

absl::Status FrameWriter::Check(size_t size, absl::Span<const int> descriptors,
                                const ChannelLimits& limits) const {
  if (descriptors.size() > limits.max_descriptors) {
    return MakeError(
        reason::kTooManyDescriptors,
        absl::StrCat("one message carries at most ", limits.max_descriptors,
                     " descriptors, not ", descriptors.size(),
                     "; send the rest in further messages"));
  }
  if (std::any_of(descriptors.begin(), descriptors.end(),
                  [](int fd) { return fd < 0; })) {
    return MakeError(reason::kInvalidArguments,
                     "a descriptor to send is closed already");
  }
  const auto parts = static_cast<size_t>(frame_->array().part_size());
  if (parts > limits.max_parts) {
    return MakeError(reason::kFrameTooLarge,
                     absl::StrCat("a message has at most ", limits.max_parts,
                                  " parts, not ", parts));
  }
  if (size > limits.max_frame_bytes) {
    return MakeError(
        reason::kFrameTooLarge,
        absl::StrCat("a message may have ", limits.max_frame_bytes,
                     " bytes on the wire, not ", size,
                     "; split it, send a descriptor to the data instead, or "
                     "raise max_frame_bytes on both sides"));
  }
  return absl::OkStatus();
}

absl::Status FrameWriter::SendBytes(Transport& transport,
                                    std::string_view bytes,
                                    absl::Span<const int> descriptors,
                                    absl::Time deadline) {
  bool begun = false;
  while (true) {
    const absl::StatusOr<size_t> sent =
        transport.Send(bytes, descriptors, deadline);
    absl::Status status = sent.status();
    if (sent.ok() && *sent > 0) {
      begun = true;
      bytes.remove_prefix(*sent);
      descriptors = {};
      to_present_ = nullptr;
    }
    if (bytes.empty()) return absl::OkStatus();
    // A peer that always makes room for one byte more gets no more time.
    if (sent.ok() && *sent > 0) status = transport.CheckTime(deadline);
    if (status.ok()) continue;
    // With nothing sent yet the stream is in step, and may be used again.
    if (begun || HasReason(status, reason::kConnectionLost)) status_ = status;
    return status;
  }
}

}  // namespace ward

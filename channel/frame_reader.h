// The receiving half of a channel: bytes and descriptors become frames.

#ifndef WARD_CHANNEL_FRAME_READER_H_
#define WARD_CHANNEL_FRAME_READER_H_

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"

namespace ward {

namespace proto {
class Frame;
}  // namespace proto

// Believes nothing: a frame's size is checked before it is buffered, its number
// of parts before it is parsed, its descriptors against what came. Not
// thread-safe.
class FrameReader {
 public:
  FrameReader();
  FrameReader(FrameReader&&) noexcept;
  FrameReader& operator=(FrameReader&&) noexcept;
  ~FrameReader();

  // Receives the next frame into frame(), and its descriptors.
  //
  // kEndOfStream between two frames; kDescriptorsTruncated, kTooManyDescriptors
  // (the frame is lost, the stream is in step); kTimedOut (what has come is
  // kept, and the next call goes on with it). After kConnectionLost,
  // kMalformedFrame, kFrameTooLarge and kInvalidPassword the same is returned
  // for ever.
  absl::Status Read(Transport& transport, size_t max_bytes,
                    const ChannelLimits& limits, absl::Time deadline,
                    std::vector<FileDescriptor>& descriptors);

  // Whether the next frame has come and is an error, which is then in frame().
  // Waits for nothing, and leaves any other frame where it is. False while a
  // password is expected.
  bool ReadError(Transport& transport, const ChannelLimits& limits);

  proto::Frame& frame() { return *frame_; }

  // Refuses the first frame unless it carries `password` (borrowed until then).
  void ExpectPassword(const Secret& password) { expected_ = &password; }
  const Secret* expected_password() const { return expected_; }

 private:
  // Where the next frame lies in the buffer.
  struct Extent {
    size_t header_bytes = 0;
    size_t frame_bytes = 0;  // With its header; 0: not known yet.
  };

  absl::StatusOr<Extent> AwaitFrame(Transport& transport, size_t max_bytes,
                                    const ChannelLimits& limits,
                                    absl::Time deadline);
  absl::StatusOr<Extent> ReadHeader(size_t max_bytes);
  absl::Status ReceiveMore(Transport& transport, size_t frame_bytes,
                           const ChannelLimits& limits, absl::Time deadline);
  // Makes room for at least one more byte of a frame of `frame_bytes`.
  void Reserve(size_t frame_bytes);
  absl::Status Parse(Extent extent, const ChannelLimits& limits);
  void Consume(Extent extent);
  absl::Status CheckPassword();
  absl::Status ClaimDescriptors(const ChannelLimits& limits,
                                std::vector<FileDescriptor>& descriptors);
  absl::Status Failed(const absl::Status& status);

  // Kept, so that a long conversation does not allocate.
  std::unique_ptr<proto::Frame> frame_;

  // Bytes received and not yet read: buffer_[begin_, end_).
  std::unique_ptr<char[]> buffer_;
  size_t capacity_ = 0;
  size_t begin_ = 0;
  size_t end_ = 0;
  size_t last_frame_bytes_ = 0;

  // The descriptors of one sendmsg(2), which the kernel never mixes with those
  // of another (unix(7)). Kept apart, so that of two frames in the buffer
  // neither is given the other's when some were lost.
  struct Arrival {
    std::vector<FileDescriptor> descriptors;
    bool truncated = false;
  };
  // Not yet claimed by a frame, the oldest first.
  std::vector<Arrival> arrivals_;

  const Secret* expected_ = nullptr;
  absl::Status status_;
};

}  // namespace ward

#endif  // WARD_CHANNEL_FRAME_READER_H_

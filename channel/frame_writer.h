// The sending half of a channel: frames become bytes.

#ifndef WARD_CHANNEL_FRAME_WRITER_H_
#define WARD_CHANNEL_FRAME_WRITER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"

namespace ward {

namespace proto {
class Frame;
}  // namespace proto

// Not thread-safe.
class FrameWriter {
 public:
  FrameWriter();
  FrameWriter(FrameWriter&&) noexcept;
  FrameWriter& operator=(FrameWriter&&) noexcept;
  ~FrameWriter();

  // An empty frame, to be filled in and sent. One at a time.
  proto::Frame& NewFrame();

  // Sends the frame, with `descriptors` attached.
  //
  // kFrameTooLarge, kTooManyDescriptors, kInvalidArguments, before anything was
  // sent; kConnectionLost; kTimedOut. When an error has left a frame half sent,
  // the same is returned for ever.
  absl::Status Send(Transport& transport, absl::Span<const int> descriptors,
                    const ChannelLimits& limits, absl::Time deadline);

  // Refuses to send from now on.
  void Fail(const absl::Status& status) { status_ = status; }

  // Puts `password` into the first frame. Borrowed until a byte of that frame
  // has left.
  void PresentPassword(const Secret& password) { to_present_ = &password; }

 private:
  // Whether the frame, of `size` bytes, may be sent.
  absl::Status Check(size_t size, absl::Span<const int> descriptors,
                     const ChannelLimits& limits) const;
  absl::Status SendBytes(Transport& transport, std::string_view bytes,
                         absl::Span<const int> descriptors,
                         absl::Time deadline);

  // Kept, so that a long conversation does not allocate.
  std::unique_ptr<proto::Frame> frame_;
  std::string bytes_;

  const Secret* to_present_ = nullptr;
  absl::Status status_;
};

}  // namespace ward

#endif  // WARD_CHANNEL_FRAME_WRITER_H_

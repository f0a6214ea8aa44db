// The sending half of a channel: frames become bytes.

#ifndef WARD_CHANNEL_FRAME_WRITER_H_
#define WARD_CHANNEL_FRAME_WRITER_H_

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/frame.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"

namespace ward {

// Large fields are sent from where they are: a writer that waits for its peer
// has no copy of them. Not thread-safe.
class FrameWriter {
 public:
  // Sends the content of `frame`, with `descriptors` attached and what is due
  // to be said in a first frame; then `end`, in the same system call, unless it
  // is null.
  //
  // kFrameTooLarge, kTooManyDescriptors, kInvalidArguments, before anything was
  // sent; kConnectionLost; kTimedOut. When an error has left a frame half sent,
  // the same is returned for ever.
  absl::Status Send(Transport& transport, const Frame& frame,
                    absl::Span<const int> descriptors,
                    const ChannelLimits& limits, absl::Time deadline,
                    const Frame::End* end = nullptr);

  // What was sent since this was last called.
  Traffic TakeTraffic() { return std::exchange(traffic_, {}); }

  // Refuses to send from now on.
  void Fail(const absl::Status& status) { status_ = status; }

  // Puts `password` into the first frame. Borrowed until a byte of that frame
  // has left.
  void PresentPassword(const Secret& password) { to_present_ = &password; }

  // Has the next frame say, unless one has, that ends are known here.
  void SayKnowsEnd() { knows_end_ = true; }

 private:
  // `what` would be sent, and was, or not.
  absl::Status Sent(Traffic what, bool begun, const absl::Status& status);

  // Kept, so that a long conversation does not allocate.
  std::string bytes_;

  const Secret* to_present_ = nullptr;
  bool knows_end_ = false;
  bool knows_end_said_ = false;
  absl::Status status_;
  Traffic traffic_;
};

}  // namespace ward

#endif  // WARD_CHANNEL_FRAME_WRITER_H_

// The receiving half of a channel: bytes and descriptors become frames.

#ifndef WARD_CHANNEL_FRAME_READER_H_
#define WARD_CHANNEL_FRAME_READER_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/buffer_budget.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/descriptor_budget.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/frame.h"
#include "ward/channel/receive_buffer.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"
#include "ward/channel/unclaimed_descriptors.h"

namespace ward {

// Believes nothing: a frame's size is checked before it is buffered, its form
// before anything of it is stored, its descriptors against what came. Not
// thread-safe.
class FrameReader {
 public:
  // Receives the next frame into frame(), and its descriptors.
  //
  // kEndOfStream between two frames, and after an End; kDescriptorsTruncated,
  // kTooManyDescriptors (the frame is lost, the stream is in step; frame() has
  // all but its descriptors); kTimedOut
  // (what has come is kept, and the next call goes on with it). After an End,
  // kConnectionLost, kCallCut (see ExpectEnd), kMalformedFrame, kFrameTooLarge,
  // kInvalidPassword and a call's first frame that is an error or an End
  // (kUnexpectedFrame) the same is returned for ever.
  //
  // `max_bytes` is ChannelLimits::kMostFrameBytes at most. `limits` are this
  // frame's alone. What comes in with it of the next one is
  // kept for that one's, descriptors included.
  //
  // With `scalar_memory`, a large scalar comes right into that, which is empty
  // then, also after an error: TakeScalar() has it.
  absl::Status Read(Transport& transport, size_t max_bytes,
                    const ChannelLimits& limits, absl::Time deadline,
                    std::vector<FileDescriptor>& descriptors,
                    std::string* scalar_memory = nullptr);

  // Moves or copies the scalar of frame(), which has none any more, to `bytes`.
  void TakeScalar(std::string& bytes);

  // Whether the next frame has come and is an error, which is then in frame().
  // Waits for it until `deadline`, and leaves any other frame where it is.
  // False while a password is expected.
  bool ReadError(Transport& transport, const ChannelLimits& limits,
                 absl::Time deadline);

  // Borrows this reader's buffer, until the next call of a member.
  const Frame& frame() const { return frame_; }

  // What it has on the wire, with its length.
  size_t frame_bytes() const { return frame_bytes_; }

  // What was read, with descriptors that somebody was given, since this was
  // last called.
  Traffic TakeTraffic() { return std::exchange(traffic_, {}); }

  // Refuses to read from now on.
  void Fail(const absl::Status& status) { (void)Failed(status); }

  // See MessageChannel.
  bool DiscardUnread(Transport& transport);
  void CloseUnclaimed();
  void set_keeps_refused(bool keeps);
  bool has_refused() const { return !refused_.empty(); }
  // kTimedOut while it has.
  absl::Status CheckRefused() const;

  // Nobody is to have them.
  void Refuse(std::vector<FileDescriptor> descriptors);

  // frame() is not needed any more: the memory of a large one is given back.
  void Release() {
    if (scalar_ != nullptr) scalar_.reset();
    buffer_.Release();
  }

  // How long the rest of a frame may take that has begun to come, whatever the
  // deadline.
  void set_time_for_rest(absl::Duration time) { time_for_rest_ = time; }

  // See ReceiveBuffer.
  void set_buffer_budget(const std::shared_ptr<BufferBudget>& budget) {
    buffer_.set_budget(budget);
  }

  // Of frames that are not whole, and of what has come behind the last one. One
  // that was cut off, or found no room, is kServerFull.
  void set_descriptor_budget(const std::shared_ptr<DescriptorBudget>& budget,
                             const std::shared_ptr<Transport>& transport,
                             pid_t process) {
    if (held_.budget() == budget) return;
    held_ = DescriptorBudget::Share(budget, transport, process);
    KeepBehind();
  }

  // What is returned for ever; OK while there is nothing of the kind.
  const absl::Status& status() const { return status_; }

  // Whether the peer's end has been reached, between two frames or inside one.
  bool ended() const { return ended_; }

  // Whether another call may follow: nothing is out of step, and the peer has
  // at most said its End; and whether that said so, too.
  bool in_step() const { return ended_ ? at_end_ : status_.ok(); }
  bool kept() const { return at_end_ && frame_.end.kept && !has_begun(); }
  bool at_end() const { return at_end_; }
  // One does; nothing, if the peer has not said its End.
  void NextCall();

  // Whether a part of the next frame, or all of it, has come already.
  bool has_begun() const { return buffer_.size() > 0; }

  // How many descriptors have come that no frame was given yet, or ever will
  // be.
  size_t unclaimed_descriptors() const;

  // What else would be kEndOfStream or kConnectionLost is kCallCut, unless the
  // last frame was an error or the first one of a peer that says no ends.
  void ExpectEnd() { expects_end_ = true; }
  bool expects_end() const { return expects_end_; }

  // Whether the peer's first frame has come and said that it knows ends.
  bool peer_knows_end() const { return peer_knows_end_.value_or(false); }

  // Refuses the first frame unless it carries `password` (borrowed until then).
  void ExpectPassword(const Secret& password) {
    expected_ = &password;
    buffer_.set_secret(true);
  }
  const Secret* expected_password() const { return expected_; }

 private:
  // Where the next frame lies in the buffer.
  struct Extent {
    size_t header_bytes = 0;
    size_t frame_bytes = 0;  // With its header; 0: not known yet.
  };

  absl::StatusOr<Extent> AwaitFrame(Transport& transport, size_t max_bytes,
                                    const ChannelLimits& limits,
                                    absl::Time deadline,
                                    std::string* scalar_memory);
  absl::StatusOr<Extent> ReadHeader(size_t max_bytes);
  // Has a scalar that is large, and comes next, come into `memory`.
  void ReceiveApart(Extent extent, std::string& memory);
  // Of unclaimed_descriptors(), those that may still be claimed.
  size_t arrived_descriptors() const;
  // How much has come that was not read.
  size_t available() const {
    const ReceivedScalar* const scalar = buffer_.scalar();
    return buffer_.size() + (scalar == nullptr ? 0 : scalar->wire_begin());
  }
  // How much of a frame that has come is in the buffer.
  size_t BufferedOf(size_t frame_bytes) const {
    const ReceivedScalar* const scalar = buffer_.scalar();
    return frame_bytes - (scalar == nullptr ? 0 : scalar->wire_bytes());
  }
  absl::Status ReceiveMore(Transport& transport, size_t frame_bytes,
                           absl::Time deadline);
  // For a frame that is not whole, or has nothing after it: what came belongs
  // to it. Keeps no more of that than it may have.
  absl::Status BoundArrivals(const ChannelLimits& limits);
  absl::Status Parse(Extent extent, const ChannelLimits& limits);
  absl::Status CheckPassword();
  absl::Status CheckBeginning();
  absl::Status ClaimDescriptors(const ChannelLimits& limits,
                                std::vector<FileDescriptor>& descriptors);
  // What has come behind the frame that was read has room, or is closed.
  void KeepBehind();
  // Nothing more comes, `how` tells why.
  absl::Status PeerEnded(const absl::Status& how);
  absl::Status Failed(const absl::Status& status);

  Frame frame_;
  size_t frame_bytes_ = 0;
  Traffic traffic_;

  ReceiveBuffer buffer_;
  // frame()'s, if it did not come there.
  std::unique_ptr<ReceivedScalar> scalar_;

  // The descriptors of one sendmsg(2), which the kernel never mixes with those
  // of another (unix(7)). Kept apart, so that of two frames in the buffer
  // neither is given the other's when some were lost.
  struct Arrival {
    // How many came, and those of them that are kept.
    size_t count = 0;
    UnclaimedDescriptors descriptors;
    bool truncated = false;
  };
  // Not yet claimed by a frame, the oldest first.
  std::vector<Arrival> arrivals_;
  // Of them, while the frame is not whole, and while nobody reads.
  DescriptorBudget::Share held_;
  // Those that were refused, and are not closed.
  UnclaimedDescriptors refused_;
  bool keeps_refused_ = false;
  // There was no room for them, and they are closed.
  bool lost_behind_ = false;

  absl::Duration time_for_rest_ = absl::InfiniteDuration();
  // Of the frame that has begun to come; infinite if none has.
  absl::Time rest_until_ = absl::InfiniteFuture();

  const Secret* expected_ = nullptr;
  // The frame that carried it is looked at.
  bool is_first_ = false;
  bool expects_end_ = false;
  std::optional<bool> peer_knows_end_;
  bool ended_ = false;
  // Of an End.
  bool at_end_ = false;
  absl::Status status_;
};

}  // namespace ward

#endif  // WARD_CHANNEL_FRAME_READER_H_

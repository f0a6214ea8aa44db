// What a channel sends and takes at most.

#ifndef WARD_CHANNEL_CHANNEL_LIMITS_H_
#define WARD_CHANNEL_CHANNEL_LIMITS_H_

#include <cstddef>

#include "ward/channel/transport.h"

namespace ward {

// Going over one is kFrameTooLarge or kTooManyDescriptors; a write is refused
// before anything was sent, a read before the frame was buffered.
struct ChannelLimits {
  // One frame, in bytes: all parts and about 6 bytes for each of them.
  size_t max_frame_bytes = size_t{16} << 20;

  // Parts in one frame. An empty part costs 2 bytes on the wire and 40 in
  // memory; this keeps a hostile peer from that lever.
  size_t max_parts = 4096;

  // Descriptors in one frame.
  size_t max_descriptors = kMaxDescriptorsPerMessage;

  // One Bulk that is received as memory, in bytes: kFrameTooLarge when it is
  // unpacked. It takes so many of this process's addresses, and a 512th for
  // page tables if all of it is read. The memory is an honest sender's; a
  // hostile one can see to it that pages which are read are charged to this
  // process.
  size_t max_bulk_bytes = size_t{1} << 30;

  // What the kernel and protobuf can do at all; set_limits() goes no further.
  static constexpr size_t kMostFrameBytes = size_t{1} << 30;
  static constexpr size_t kMostDescriptors = kMaxDescriptorsPerMessage;
};

}  // namespace ward

#endif  // WARD_CHANNEL_CHANNEL_LIMITS_H_

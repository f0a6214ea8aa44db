// Descriptors that a peer has sent and nobody has asked for yet.
//
// Those that stay are closed, and whose end that is nobody waits for: a socket
// with SO_LINGER (socket(7)) would have close(2) wait, for as long as the peer
// has set, until somebody of the peer's has read what is in it. So it lingers
// no more, where the peer has it, too.
//
// Misuse: closing a peer's descriptor in another way, before it is known that
// the peer may have this thread wait. A file of a file system that waits at its
// close (FUSE, NFS) waits here, too, and so does a socket in which others lie
// that linger: nothing can be done about that, but on another thread.

#ifndef WARD_CHANNEL_UNCLAIMED_DESCRIPTORS_H_
#define WARD_CHANNEL_UNCLAIMED_DESCRIPTORS_H_

#include <utility>
#include <vector>

#include "ward/channel/file_descriptor.h"

namespace ward {

// Move-only. Not thread-safe.
class UnclaimedDescriptors {
 public:
  UnclaimedDescriptors() = default;
  UnclaimedDescriptors(UnclaimedDescriptors&& other) noexcept
      : all_(std::exchange(other.all_, {})) {}
  UnclaimedDescriptors& operator=(UnclaimedDescriptors&& other) noexcept {
    std::swap(all_, other.all_);
    return *this;
  }
  ~UnclaimedDescriptors() { Close(); }

  // For Transport::Receive, which adds to them.
  std::vector<FileDescriptor>& all() { return all_; }
  size_t size() const { return all_.size(); }
  bool empty() const { return all_.empty(); }

  // They are the caller's from now on.
  std::vector<FileDescriptor> Claim() { return std::exchange(all_, {}); }

  void Close();

 private:
  std::vector<FileDescriptor> all_;
};

}  // namespace ward

#endif  // WARD_CHANNEL_UNCLAIMED_DESCRIPTORS_H_

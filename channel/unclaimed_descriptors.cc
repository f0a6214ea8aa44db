#include "ward/channel/unclaimed_descriptors.h"

#include <sys/socket.h>

#include "ward/channel/file_descriptor.h"

namespace ward {

void UnclaimedDescriptors::Close() {
  for (const FileDescriptor& one : all_) {
    // Fails for what is no socket.
    constexpr linger kNone{};
    (void)setsockopt(one.get(), SOL_SOCKET, SO_LINGER, &kNone, sizeof(kNone));
  }
  all_.clear();
}

}  // namespace ward

// Names of Unix sockets in the file system.

#ifndef WARD_SERVER_POSIX_SOCKET_PATH_H_
#define WARD_SERVER_POSIX_SOCKET_PATH_H_

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/file_descriptor.h"

namespace ward {

// The address of a path of any length. sun_path holds 107 bytes (unix(7));
// longer paths go through /proc/self/fd/<directory>, which stays open as long
// as this object.
class SocketAddress {
 public:
  // kPathTooLong if even the file name does not fit.
  static absl::StatusOr<SocketAddress> Of(const std::string& path);

  const sockaddr* get() const {
    return reinterpret_cast<const sockaddr*>(&address_);
  }
  socklen_t size() const { return sizeof(address_); }

 private:
  FileDescriptor directory_;
  sockaddr_un address_{};
};

// Which file a name stood for, to tell it from a successor of the same name.
struct FileIdentity {
  dev_t device = 0;
  ino_t inode = 0;
};

// Unlinks `path` if it still is the file `identity`, and leaves it alone
// otherwise. The file is moved aside and looked at before it is removed:
// between a look and an unlink(2) at the same name, another server could have
// put its own socket there. The caller holds the file open or bound, so that
// its inode cannot be reused.
absl::Status RemoveIfSame(const std::string& path, FileIdentity identity);

// Makes way at `path`: nothing there, or a socket that refuses connections,
// which is removed. kPathTaken otherwise.
absl::Status ClearStaleSocket(const std::string& path);

}  // namespace ward

#endif  // WARD_SERVER_POSIX_SOCKET_PATH_H_

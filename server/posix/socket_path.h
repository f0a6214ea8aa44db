// Names of Unix sockets in the file system.

#ifndef WARD_SERVER_POSIX_SOCKET_PATH_H_
#define WARD_SERVER_POSIX_SOCKET_PATH_H_

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/file_descriptor.h"

namespace ward {

// The address of a path of any length. sun_path holds 107 bytes (unix(7));
// longer paths go through /proc/self/fd/<directory>, which stays open as long
// as this object; /proc/net/unix then shows "/proc/self/fd/7/name", which says
// nothing to anybody.
class SocketAddress {
 public:
  // kPathTooLong if even the file name does not fit.
  static absl::StatusOr<SocketAddress> Of(const std::string& path);

  // Whether the address is `path` itself.
  static bool Fits(const std::string& path);

  const sockaddr* get() const {
    return reinterpret_cast<const sockaddr*>(&address_);
  }
  socklen_t size() const { return sizeof(address_); }

 private:
  FileDescriptor directory_;
  sockaddr_un address_{};
};

// Whether it is a Unix socket that was made by socketpair(2), or its like: the
// kernel names its maker as the peer (SO_PEERCRED). The peer of a connection is
// whoever listened, a stranger to who hands the connection on; one of its two
// ends has a name.
bool IsEndOfPair(int fd);

// Whether `path` leads to the very file that `file` is open for (O_PATH). Open,
// it keeps its inode's number from a successor; on FUSE it does not, but has no
// name any more there when a successor has its. System calls alone: in signal
// context, too.
bool LeadsTo(const std::string& path, const FileDescriptor& file);

// Keeps others of ward's processes from removing names in one directory, by
// flock(2) on the directory itself; dropped when destroyed. A process that
// holds it between its look at a name and its unlink(2) removes what it has
// seen. systemd-tmpfiles(8) takes the same lock.
class DirectoryLock {
 public:
  // Of the directory of `path`. Waits for `limit`, then kTimedOut: whoever may
  // read a directory may lock it for ever. A lock of nothing where nobody can
  // have one: the directory cannot be read, or its file system locks no
  // directories (NFS).
  static absl::StatusOr<DirectoryLock> Take(const std::string& path,
                                            absl::Duration limit);

  DirectoryLock(DirectoryLock&&) = default;
  DirectoryLock& operator=(DirectoryLock&&) = delete;
  ~DirectoryLock();

 private:
  explicit DirectoryLock(FileDescriptor directory)
      : directory_(std::move(directory)) {}

  FileDescriptor directory_;
};

// Unlinks `path` if it leads to `file`, and leaves it alone otherwise. Waits a
// second at most for the DirectoryLock, and goes on without: what has taken the
// name of a server that lives knows nothing of that lock.
absl::Status RemoveIfSame(const std::string& path, const FileDescriptor& file);

// Makes way at `path`: nothing there, or a socket that no process has open any
// more, which is removed. kPathTaken otherwise, for a socket that is bound and
// does not listen yet, too. kTimedOut when there is a dead socket, and another
// process holds the DirectoryLock for as long as `limit`.
absl::Status ClearStaleSocket(const std::string& path,
                              absl::Duration limit = absl::Seconds(10));

}  // namespace ward

#endif  // WARD_SERVER_POSIX_SOCKET_PATH_H_

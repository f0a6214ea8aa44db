#include "ward/server/posix/socket_path.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/posix_wait.h"
#include "ward/channel/status_macros.h"

namespace ward {
namespace {

constexpr size_t kMaxSunPath = sizeof(sockaddr_un::sun_path) - 1;

// How long a name stays for the sake of a DirectoryLock, which those who mean
// well hold for microseconds.
constexpr absl::Duration kRemoveLimit = absl::Seconds(1);

absl::Status Taken(const std::string& path, std::string_view by) {
  return MakeError(reason::kPathTaken,
                   absl::StrCat("the socket's path \"", path, "\" is taken: ",
                                by, "; choose another path, or remove it"));
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

// What connect(2) from a socket of `type` says: 0, or an error's number.
absl::StatusOr<int> Probe(const SocketAddress& address, int type) {
  const FileDescriptor probe = FileDescriptor::Opened(
      socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.is_open()) return SystemError(errno, "create a socket");
  return connect(probe.get(), address.get(), address.size()) == 0 ? 0 : errno;
}

// Whether there is a socket at `path` that no process has open any more. False
// if there is nothing; kPathTaken if it is anything else.
absl::StatusOr<bool> IsStale(const std::string& path) {
  // Held open, so that its inode cannot pass to a successor, and asked through
  // /proc, so that the answer is about this very file.
  const FileDescriptor file = FileDescriptor::Opened(
      open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!file.is_open()) {
    if (errno == ENOENT) return false;
    return SystemError(errno, absl::StrCat("look at \"", path, "\""));
  }
  struct stat found;
  if (fstat(file.get(), &found) != 0) {
    return SystemError(errno, absl::StrCat("look at \"", path, "\""));
  }
  if (!S_ISSOCK(found.st_mode)) return Taken(path, "it is not a socket");
  WARD_ASSIGN_OR_RETURN(
      const SocketAddress address,
      SocketAddress::Of(absl::StrCat("/proc/self/fd/", file.get())));
  // A connection from a datagram socket finds a stream socket that is bound,
  // even if it does not listen yet (EPROTOTYPE), and takes no place in its
  // queue. gVisor refuses it whatever is there, so that the same question is
  // put as a client would.
  for (const int type : {SOCK_DGRAM, SOCK_STREAM}) {
    WARD_ASSIGN_OR_RETURN(const int error, Probe(address, type));
    switch (error) {
      case ECONNREFUSED:
        continue;
      case 0:
      case EAGAIN:
      case EPERM:  // A datagram socket that is another one's peer.
      case EPROTOTYPE:
        return Taken(path, "a server has it");
      case EACCES:
        return Taken(path, "it is a socket that this user may not connect to");
      default:
        return SystemError(
            error, absl::StrCat("ask whether a server has \"", path, "\""));
    }
  }
  return true;
}

}  // namespace

bool SocketAddress::Fits(const std::string& path) {
  return path.size() <= kMaxSunPath;
}

absl::StatusOr<SocketAddress> SocketAddress::Of(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        "a socket's path must not be empty or contain a NUL byte");
  }
  SocketAddress address;
  address.address_.sun_family = AF_UNIX;
  if (Fits(path)) {
    path.copy(address.address_.sun_path, kMaxSunPath);
    return address;
  }
  const std::string file_name = path.substr(path.rfind('/') + 1);
  address.directory_ = FileDescriptor::Opened(
      open(DirectoryOf(path).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!address.directory_.is_open()) {
    return SystemError(
        errno, absl::StrCat("open the directory of socket \"", path, "\""));
  }
  const std::string name =
      absl::StrCat("/proc/self/fd/", address.directory_.get(), "/", file_name);
  if (!Fits(name)) {
    return MakeError(
        reason::kPathTooLong,
        absl::StrCat("the file name of socket \"", path, "\" has ",
                     file_name.size(), " bytes, over the ",
                     kMaxSunPath - (name.size() - file_name.size()),
                     " that fit a Unix socket's address; shorten it (its "
                     "directory may be of any length)"));
  }
  name.copy(address.address_.sun_path, kMaxSunPath);
  return address;
}

absl::StatusOr<DirectoryLock> DirectoryLock::Take(const std::string& path,
                                                  absl::Duration limit) {
  const std::string directory = DirectoryOf(path);
  FileDescriptor opened = FileDescriptor::Opened(
      open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened.is_open()) {
    if (errno == EACCES) return DirectoryLock(FileDescriptor());
    return SystemError(errno,
                       absl::StrCat("lock directory \"", directory, "\""));
  }
  // flock(2) waits without a limit or not at all.
  const absl::Time deadline = MonotonicNow() + limit;
  while (flock(opened.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return DirectoryLock(FileDescriptor());
    if (MonotonicNow() >= deadline) {
      return MakeError(reason::kTimedOut,
                       absl::StrCat("directory \"", directory,
                                    "\" has been locked by another "
                                    "process for ",
                                    absl::FormatDuration(limit),
                                    " (flock(2); lslocks(8) names it)"));
    }
    absl::SleepFor(absl::Milliseconds(1));
  }
  return DirectoryLock(std::move(opened));
}

DirectoryLock::~DirectoryLock() {
  // Not by closing alone: a process that another thread forks meanwhile has the
  // descriptor, too.
  if (directory_.is_open()) flock(directory_.get(), LOCK_UN);
}

bool IsEndOfPair(int fd) {
  sockaddr_un own{};
  sockaddr_un peer{};
  socklen_t own_size = sizeof(own);
  socklen_t peer_size = sizeof(peer);
  // Nameless, an address is its family alone (unix(7)).
  return getsockname(fd, reinterpret_cast<sockaddr*>(&own), &own_size) == 0 &&
         getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &peer_size) == 0 &&
         own.sun_family == AF_UNIX && own_size == sizeof(own.sun_family) &&
         peer_size == sizeof(peer.sun_family);
}

bool LeadsTo(const std::string& path, const FileDescriptor& file) {
  struct stat there;
  struct stat ours;
  return lstat(path.c_str(), &there) == 0 && fstat(file.get(), &ours) == 0 &&
         there.st_dev == ours.st_dev && there.st_ino == ours.st_ino &&
         ours.st_nlink > 0;
}

absl::Status RemoveIfSame(const std::string& path, const FileDescriptor& file) {
  if (!LeadsTo(path, file)) return absl::OkStatus();
  const auto lock = DirectoryLock::Take(path, kRemoveLimit);
  if (LeadsTo(path, file) && unlink(path.c_str()) != 0 && errno != ENOENT) {
    return SystemError(errno, absl::StrCat("remove socket \"", path, "\""));
  }
  return absl::OkStatus();
}

absl::Status ClearStaleSocket(const std::string& path, absl::Duration limit) {
  WARD_ASSIGN_OR_RETURN(bool stale, IsStale(path));
  if (!stale) return absl::OkStatus();
  const auto lock = DirectoryLock::Take(path, limit);
  if (!lock.ok()) {
    return Annotate(lock.status(),
                    absl::StrCat("replace the socket \"", path,
                                 "\" that a dead server has left"));
  }
  // Whoever had the lock may have replaced it.
  WARD_ASSIGN_OR_RETURN(stale, IsStale(path));
  if (stale && unlink(path.c_str()) != 0 && errno != ENOENT) {
    return SystemError(errno, absl::StrCat("remove socket \"", path, "\""));
  }
  return absl::OkStatus();
}

}  // namespace ward

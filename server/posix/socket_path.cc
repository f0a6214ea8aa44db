#include "ward/server/posix/socket_path.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"

namespace ward {
namespace {

constexpr size_t kMaxSunPath = sizeof(sockaddr_un::sun_path) - 1;

absl::Status Taken(const std::string& path, std::string_view by) {
  return MakeError(reason::kPathTaken,
                   absl::StrCat("the socket's path \"", path, "\" is taken: ",
                                by, "; choose another path, or remove it"));
}

bool IsSame(const struct stat& found, FileIdentity identity) {
  return found.st_dev == identity.device && found.st_ino == identity.inode;
}

}  // namespace

absl::StatusOr<SocketAddress> SocketAddress::Of(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        "a socket's path must not be empty or contain a NUL byte");
  }
  SocketAddress address;
  address.address_.sun_family = AF_UNIX;
  std::string name = path;
  if (name.size() > kMaxSunPath) {
    const size_t slash = path.rfind('/');
    const std::string directory =
        slash == std::string::npos ? "." : path.substr(0, slash + 1);
    address.directory_.Reset(
        open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!address.directory_.is_open()) {
      return SystemError(
          errno, absl::StrCat("open the directory of socket \"", path, "\""));
    }
    name = absl::StrCat("/proc/self/fd/", address.directory_.get(), "/",
                        path.substr(slash + 1));
    if (name.size() > kMaxSunPath) {
      return MakeError(
          reason::kPathTooLong,
          absl::StrCat("the file name of socket \"", path, "\" has ",
                       path.size() - slash - 1, " bytes, over the ",
                       kMaxSunPath - (name.size() - (path.size() - slash - 1)),
                       " that fit a Unix socket's address; shorten it (its "
                       "directory may be of any length)"));
    }
  }
  name.copy(address.address_.sun_path, kMaxSunPath);
  return address;
}

absl::Status RemoveIfSame(const std::string& path, FileIdentity identity) {
  struct stat found;
  if (lstat(path.c_str(), &found) != 0 || !IsSame(found, identity)) {
    return absl::OkStatus();
  }
  const std::string aside = absl::StrCat(path, ".", getpid(), "-");
  if (rename(path.c_str(), aside.c_str()) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return SystemError(errno, absl::StrCat("remove socket \"", path, "\""));
  }
  if (lstat(aside.c_str(), &found) == 0 && !IsSame(found, identity)) {
    // A successor's, after all. Back with it; link(2) replaces nothing that
    // has come meanwhile.
    if (link(aside.c_str(), path.c_str()) != 0 && errno != EEXIST) {
      return SystemError(
          errno, absl::StrCat("give \"", path, "\" back its name, now \"",
                              aside, "\""));
    }
  }
  unlink(aside.c_str());
  return absl::OkStatus();
}

absl::Status ClearStaleSocket(const std::string& path) {
  // Held open, so that its inode cannot pass to a successor, and asked through
  // /proc, so that the answer is about this very file.
  const FileDescriptor file(
      open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!file.is_open()) {
    if (errno == ENOENT) return absl::OkStatus();
    return SystemError(errno, absl::StrCat("look at \"", path, "\""));
  }
  struct stat found;
  if (fstat(file.get(), &found) != 0) {
    return SystemError(errno, absl::StrCat("look at \"", path, "\""));
  }
  if (!S_ISSOCK(found.st_mode)) return Taken(path, "it is not a socket");
  const FileDescriptor probe(
      socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.is_open()) return SystemError(errno, "create a socket");
  WARD_ASSIGN_OR_RETURN(
      const SocketAddress address,
      SocketAddress::Of(absl::StrCat("/proc/self/fd/", file.get())));
  if (connect(probe.get(), address.get(), address.size()) == 0 ||
      errno == EAGAIN || errno == EPROTOTYPE) {
    return Taken(path, "a server listens there");
  }
  if (errno != ECONNREFUSED) {
    return SystemError(
        errno, absl::StrCat("ask whether a server listens at \"", path, "\""));
  }
  return RemoveIfSame(path, {found.st_dev, found.st_ino});
}

}  // namespace ward

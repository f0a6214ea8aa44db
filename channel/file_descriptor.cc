#include "ward/channel/file_descriptor.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"

namespace ward {

namespace {

constexpr int kFirstAboveStandard = STDERR_FILENO + 1;

}  // namespace

FileDescriptor FileDescriptor::Opened(int fd) {
  FileDescriptor opened(fd);
  if (fd >= 0 && fd < kFirstAboveStandard) {
    opened.Reset(fcntl(fd, F_DUPFD_CLOEXEC, kFirstAboveStandard));
  }
  return opened;
}

absl::StatusOr<FileDescriptor> FileDescriptor::DuplicateOf(int fd) {
  FileDescriptor copy(fcntl(fd, F_DUPFD_CLOEXEC, kFirstAboveStandard));
  if (!copy.is_open()) {
    return SystemError(errno, absl::StrCat("duplicate descriptor ", fd));
  }
  return copy;
}

void FileDescriptor::Reset(int fd) {
  const int old = std::exchange(fd_, fd < 0 ? -1 : fd);
  if (old < 0) return;
  const int saved_errno = errno;
  close(old);
  errno = saved_errno;
}

}  // namespace ward

// An owned file descriptor.
//
//   absl::StatusOr<FileDescriptor> copy =
//   FileDescriptor::DuplicateOf(STDIN_FILENO); FileDescriptor log(open("log",
//   O_WRONLY | O_CLOEXEC));  // takes ownership write(log.get(), ...); // lends
//   it
//
// Misuse: wrapping a descriptor that something else closes too. The second
// close hits whatever has got that number meanwhile.

#ifndef WARD_CHANNEL_FILE_DESCRIPTOR_H_
#define WARD_CHANNEL_FILE_DESCRIPTOR_H_

#include <utility>

#include "absl/status/statusor.h"

namespace ward {

// Owns one descriptor, or none; closes it when destroyed. Move-only. As
// thread-safe as an int.
class FileDescriptor {
 public:
  FileDescriptor() = default;

  // Takes ownership of `fd`; a negative number owns nothing.
  explicit FileDescriptor(int fd) : fd_(fd < 0 ? -1 : fd) {}

  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.Release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) Reset(other.Release());
    return *this;
  }
  ~FileDescriptor() { Reset(); }

  // A new descriptor, close-on-exec, for what `fd` refers to (fcntl(2),
  // F_DUPFD_CLOEXEC).
  static absl::StatusOr<FileDescriptor> DuplicateOf(int fd);

  // The number, still owned by this object; -1 when there is none.
  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }

  // Gives the number away: the caller closes it.
  [[nodiscard]] int Release() { return std::exchange(fd_, -1); }

  // Closes what is owned, and owns `fd` instead. close(2) is called once and
  // never again after EINTR: Linux has freed the number by then. errno is
  // preserved.
  void Reset(int fd = -1);

 private:
  int fd_ = -1;
};

}  // namespace ward

#endif  // WARD_CHANNEL_FILE_DESCRIPTOR_H_

// An owned file descriptor.
//
//   FileDescriptor log(open("log", O_WRONLY | O_CLOEXEC));  // takes ownership
//   if (write(log.get(), ...) < 0) {                        // lends it
//     ...
//   }
//   absl::StatusOr<FileDescriptor> copy = FileDescriptor::DuplicateOf(0);
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

  // Takes ownership of what a system call has just opened, or of nothing when
  // it has failed. In a program that runs with 0, 1 or 2 closed the kernel
  // gives these out first (open(2): the lowest that is free), and what the
  // program writes to its standard output, or reads from its input, would go
  // there: such a one is moved to 3 or higher, close-on-exec. If the table has
  // no room for that, nothing is owned. errno tells of either failure. All that
  // ward opens comes through here.
  static FileDescriptor Opened(int fd);

  // A new descriptor, close-on-exec and 3 or higher, for what `fd` refers to
  // (fcntl(2), F_DUPFD_CLOEXEC).
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

// The descriptors that this process has open.

#ifndef WARD_SERVER_POSIX_OPEN_DESCRIPTORS_H_
#define WARD_SERVER_POSIX_OPEN_DESCRIPTORS_H_

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "ward/channel/file_descriptor.h"

namespace ward {

// All numbers of open descriptors are below; 0 if it is not known. (proc(5),
// /proc/PID/status.)
inline int TableSize() {
  const FileDescriptor file =
      FileDescriptor::Opened(open("/proc/self/status", O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> text;
  const ssize_t got = read(file.get(), text.data(), text.size() - 1);
  if (got <= 0) return 0;
  text[static_cast<size_t>(got)] = '\0';
  constexpr std::string_view kField = "\nFDSize:\t";
  const char* const field = strstr(text.data(), kField.data());
  return field == nullptr ? 0 : atoi(field + kField.size());
}

// Part of ForEachOpenDescriptor. False when there is no list, or not all of it.
template <typename Use>
bool ForEachListedDescriptor(Use& use) {
  const FileDescriptor list = FileDescriptor::Opened(
      open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!list.is_open()) return false;
  alignas(dirent64) std::array<char, 4096> entries;
  ssize_t size;
  while ((size = getdents64(list.get(), entries.data(), entries.size())) > 0) {
    for (ssize_t at = 0; at < size;) {
      const auto* const entry =
          reinterpret_cast<const dirent64*>(entries.data() + at);
      at += entry->d_reclen;
      int fd = 0;
      const char* digit = entry->d_name;
      for (; *digit >= '0' && *digit <= '9'; ++digit) {
        fd = 10 * fd + (*digit - '0');
      }
      // Not "." and "..".
      if (digit != entry->d_name && *digit == '\0' && fd != list.get()) use(fd);
    }
  }
  return size == 0;
}

// Calls `use` with the number of each, in their order, but for the one that it
// lists them by; `use` may close it, or put another in its place. Where there
// is no room for that one, or no /proc, it tries all numbers up to `most`, and
// may call `use` with one again. In the child of a fork, too: system calls
// alone.
template <typename Use>
void ForEachOpenDescriptor(rlim_t most, Use use) {
  // To be asked for each takes a tenth of the time that a list of them all
  // does.
  constexpr int kDense = 1 << 16;
  if (const int size = TableSize(); size > 0 && size <= kDense) {
    for (int fd = 0; fd < size; ++fd) {
      if (fcntl(fd, F_GETFD) >= 0) use(fd);
    }
    return;
  }
  if (ForEachListedDescriptor(use)) return;
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t end = std::min(limit.rlim_cur, most);
  for (int fd = 0; static_cast<rlim_t>(fd) < end; ++fd) {
    if (fcntl(fd, F_GETFD) >= 0) use(fd);
  }
}

}  // namespace ward

#endif  // WARD_SERVER_POSIX_OPEN_DESCRIPTORS_H_

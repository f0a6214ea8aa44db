// The descriptors that this process has open, to compare before and after.

#ifndef WARD_CHANNEL_OPEN_DESCRIPTORS_FOR_TEST_H_
#define WARD_CHANNEL_OPEN_DESCRIPTORS_FOR_TEST_H_

#include <dirent.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <map>
#include <string>

namespace ward {

// Each number with what it refers to ("socket:[4711]"), so that a descriptor
// that was closed and another that got its number do not look alike.
inline std::map<int, std::string> OpenDescriptors() {
  std::map<int, std::string> open;
  DIR* const directory = opendir("/proc/self/fd");
  if (directory == nullptr) abort();
  // Safe on a stream of its own (readdir(3)).
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  while (const dirent* entry = readdir(directory)) {
    const int fd = atoi(entry->d_name);
    if (entry->d_name[0] == '.' || fd == dirfd(directory)) continue;
    char target[256];
    const ssize_t size =
        readlinkat(dirfd(directory), entry->d_name, target, sizeof(target));
    open[fd] = std::string(target, size < 0 ? 0 : static_cast<size_t>(size));
  }
  closedir(directory);
  return open;
}

}  // namespace ward

#endif  // WARD_CHANNEL_OPEN_DESCRIPTORS_FOR_TEST_H_

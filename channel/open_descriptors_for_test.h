// The descriptors that this process has open, to compare before and after.

#ifndef WARD_CHANNEL_OPEN_DESCRIPTORS_FOR_TEST_H_
#define WARD_CHANNEL_OPEN_DESCRIPTORS_FOR_TEST_H_

#include <dirent.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <string>

namespace ward {

// Nothing: it is not known, as there is no /proc, or no descriptor to look at
// it with.
inline std::optional<std::set<int>> OpenNumbers() {
  DIR* const directory = opendir("/proc/self/fd");
  if (directory == nullptr) return std::nullopt;
  std::set<int> open;
  // Safe on a stream of its own (readdir(3)).
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  while (const dirent* entry = readdir(directory)) {
    const int fd = atoi(entry->d_name);
    if (entry->d_name[0] != '.' && fd != dirfd(directory)) open.insert(fd);
  }
  closedir(directory);
  return open;
}

// What it refers to: "socket:[4711]".
inline std::string TargetOf(int fd) {
  const std::string name = "/proc/self/fd/" + std::to_string(fd);
  char target[256];
  const ssize_t size = readlink(name.c_str(), target, sizeof(target));
  return {target, size < 0 ? 0 : static_cast<size_t>(size)};
}

// With the targets, so that a descriptor that was closed and another that got
// its number do not look alike. Where that is not known, it ends the process.
inline std::map<int, std::string> OpenDescriptors() {
  const std::optional<std::set<int>> numbers = OpenNumbers();
  if (!numbers.has_value()) abort();
  std::map<int, std::string> open;
  for (const int fd : *numbers) open[fd] = TargetOf(fd);
  return open;
}

}  // namespace ward

#endif  // WARD_CHANNEL_OPEN_DESCRIPTORS_FOR_TEST_H_

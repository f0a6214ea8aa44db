#include "ward/server/posix/holders.h"

#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"
#include "ward/server/process.h"

namespace ward {
namespace {

namespace fs = std::filesystem;

// Processes and descriptors come and go while they are looked at, and others
// are not for this user to see: whatever cannot be read is passed over.
bool Holds(const fs::path& process, const std::string& target) {
  std::error_code error;
  for (fs::directory_iterator entry(process / "fd", error), end;
       !error && entry != end; entry.increment(error)) {
    std::error_code gone;
    if (fs::read_symlink(entry->path(), gone) == target && !gone) return true;
  }
  return false;
}

std::string CommandOf(const fs::path& process) {
  constexpr size_t kLongest = 256;
  std::string command(kLongest, '\0');
  std::ifstream line(process / "cmdline", std::ios::binary);
  line.read(command.data(), kLongest);
  command.resize(static_cast<size_t>(line.gcount()));
  // Each argument ends with a NUL; whatever else is no text must not reach a
  // terminal.
  while (!command.empty() && command.back() == '\0') command.pop_back();
  for (char& c : command) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = ' ';
  }
  // Kernel threads, and those that have cleared their arguments, have none.
  if (command.empty()) std::getline(std::ifstream(process / "comm"), command);
  return command;
}

}  // namespace

absl::StatusOr<std::vector<ProcessInfo>> PosixHolders(uint64_t inode) {
  const std::string target = absl::StrCat("socket:[", inode, "]");
  std::vector<ProcessInfo> holders;
  std::error_code error;
  for (fs::directory_iterator process("/proc", error), end;
       !error && process != end; process.increment(error)) {
    pid_t pid;
    if (!absl::SimpleAtoi(process->path().filename().string(), &pid)) continue;
    if (!Holds(process->path(), target)) continue;
    holders.push_back({pid, CommandOf(process->path())});
  }
  if (error) return SystemError(error.value(), "list the processes in /proc");
  std::sort(
      holders.begin(), holders.end(),
      [](const ProcessInfo& a, const ProcessInfo& b) { return a.pid < b.pid; });
  return holders;
}

}  // namespace ward

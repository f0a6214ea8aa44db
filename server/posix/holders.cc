#include "ward/server/posix/holders.h"

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/server/process.h"

namespace ward {
namespace {

namespace fs = std::filesystem;

// Processes and descriptors come and go while they are looked at, and others
// are not for this user to see: these are passed over. Whatever else cannot be
// read, as with a full table of descriptors, would make the answer wrong.
bool IsPassedOver(const std::error_code& error) {
  return error == std::errc::no_such_file_or_directory ||
         error == std::errc::no_such_process ||
         error == std::errc::permission_denied ||
         error == std::errc::operation_not_permitted;
}

// The descriptors in `folder`: whether `target` is one, nothing if there are
// none.
absl::StatusOr<std::optional<bool>> Lists(const fs::path& folder,
                                          const std::string& target) {
  std::optional<bool> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code gone;
    found = fs::read_symlink(entry->path(), gone) == target && !gone;
    if (*found) return found;
  }
  if (!error || IsPassedOver(error)) return found;
  return SystemError(error.value(),
                     absl::StrCat("list the descriptors in ", folder.string()));
}

absl::StatusOr<bool> Holds(const fs::path& process, const std::string& target) {
  WARD_ASSIGN_OR_RETURN(std::optional<bool> found,
                        Lists(process / "fd", target));
  // A process whose main thread has ended (pthread_exit(3)) seems to have none.
  // One that has no other thread has none: its folder has a link for each, and
  // two of its own (proc(5)).
  const fs::path threads = process / "task";
  std::error_code error;
  if (!found.has_value() && fs::hard_link_count(threads, error) > 3 && !error) {
    for (fs::directory_iterator thread(threads, error), end;
         !error && thread != end && !found.has_value();
         thread.increment(error)) {
      WARD_ASSIGN_OR_RETURN(found, Lists(thread->path() / "fd", target));
    }
  }
  if (!error || IsPassedOver(error)) return found.value_or(false);
  return SystemError(error.value(), absl::StrCat("list the threads in ",
                                                 process.string(), "/task"));
}

absl::StatusOr<std::string> ReadSome(const fs::path& file) {
  constexpr size_t kLongest = 256;
  std::string text(kLongest, '\0');
  const FileDescriptor opened =
      FileDescriptor::Opened(open(file.c_str(), O_RDONLY | O_CLOEXEC));
  const ssize_t got =
      opened.is_open() ? read(opened.get(), text.data(), text.size()) : -1;
  if (got < 0) {
    const std::error_code error(errno, std::system_category());
    if (!IsPassedOver(error)) {
      return SystemError(error.value(), absl::StrCat("read ", file.string()));
    }
  }
  text.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return text;
}

absl::StatusOr<std::string> CommandOf(const fs::path& process) {
  WARD_ASSIGN_OR_RETURN(std::string command, ReadSome(process / "cmdline"));
  // Kernel threads, and those that have cleared their arguments, have none.
  if (command.find_first_not_of('\0') == std::string::npos) {
    WARD_ASSIGN_OR_RETURN(command, ReadSome(process / "comm"));
  }
  // Each argument ends with a NUL; whatever else is no text must not reach a
  // terminal.
  while (!command.empty() &&
         (command.back() == '\0' || command.back() == '\n')) {
    command.pop_back();
  }
  for (char& c : command) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = ' ';
  }
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
    WARD_ASSIGN_OR_RETURN(const bool holds, Holds(process->path(), target));
    if (!holds) continue;
    WARD_ASSIGN_OR_RETURN(std::string command, CommandOf(process->path()));
    holders.push_back({pid, std::move(command)});
  }
  if (error) return SystemError(error.value(), "list the processes in /proc");
  std::sort(
      holders.begin(), holders.end(),
      [](const ProcessInfo& a, const ProcessInfo& b) { return a.pid < b.pid; });
  return holders;
}

}  // namespace ward

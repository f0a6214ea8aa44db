#include "ward/tools/wardctl/find_servers.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/server/environment.h"

namespace ward::ctl {
namespace {

namespace fs = std::filesystem;

// Of a name over 107 bytes: what ward has bound it to instead (docs/names.md).
constexpr std::string_view kByDescriptor = "/proc/self/fd/";

// Listening stream sockets with a path, by inode. Whoever makes a socket may
// have any bytes in its name, such as a newline, and lines like others' behind
// it: where two lines have one inode, none of them is believed.
absl::StatusOr<std::map<uint64_t, std::string>> ListeningSockets() {
  std::ifstream table("/proc/net/unix");
  std::map<uint64_t, std::string> listening;
  std::set<uint64_t> seen;
  std::string line;
  if (!std::getline(table, line)) {
    return SystemError(ENOENT, "read /proc/net/unix");
  }
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    std::string slot;
    std::string path;
    uint32_t references = 0;
    uint32_t protocol = 0;
    uint32_t flags = 0;
    uint32_t type = 0;
    uint32_t state = 0;
    uint64_t inode = 0;
    fields >> slot >> std::hex >> references >> protocol >> flags >> type >>
        state >> std::dec >> inode;
    if (!fields) continue;
    if (!seen.insert(inode).second) {
      listening.erase(inode);
      continue;
    }
    fields.get();
    std::getline(fields, path);
    constexpr uint32_t kAccepts = 0x10000;  // __SO_ACCEPTCON of <linux/net.h>.
    if ((flags & kAccepts) != 0 && type == SOCK_STREAM &&
        absl::StartsWith(path, "/")) {
      listening.emplace(inode, std::move(path));
    }
  }
  return listening;
}

// Calls `use` with what each descriptor of `process` leads to.
template <typename Use>
void ForEachOpen(const fs::path& process, const Use& use) {
  std::error_code error;
  for (fs::directory_iterator entry(process / "fd", error), end;
       !error && entry != end; entry.increment(error)) {
    std::error_code gone;
    use(fs::read_symlink(entry->path(), gone).string());
  }
}

// The inodes of its sockets.
std::set<uint64_t> SocketsOf(const fs::path& process) {
  std::set<uint64_t> inodes;
  ForEachOpen(process, [&](std::string_view target) {
    uint64_t inode = 0;
    if (absl::ConsumePrefix(&target, "socket:[") &&
        absl::ConsumeSuffix(&target, "]") && absl::SimpleAtoi(target, &inode)) {
      inodes.insert(inode);
    }
  });
  return inodes;
}

// Whether the program of `process` has ward in it: the name of a message that
// every server answers.
class Programs {
 public:
  bool HaveWard(const fs::path& process) {
    const FileDescriptor program = FileDescriptor::Opened(
        open((process / "exe").c_str(), O_RDONLY | O_CLOEXEC));
    struct stat found {};
    if (!program.is_open() || fstat(program.get(), &found) != 0) return false;
    const auto [known, is_new] =
        known_.try_emplace({found.st_dev, found.st_ino}, false);
    if (is_new) {
      known->second = Contains(program, static_cast<size_t>(found.st_size));
    }
    return known->second;
  }

 private:
  static bool Contains(const FileDescriptor& file, size_t size) {
    constexpr std::string_view kOwnMessage = "ward.descriptor_set";
    void* const bytes =
        mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (bytes == MAP_FAILED) return false;
    const bool found =
        memmem(bytes, size, kOwnMessage.data(), kOwnMessage.size()) != nullptr;
    munmap(bytes, size);
    return found;
  }

  std::map<std::pair<dev_t, ino_t>, bool> known_;
};

// The name in the file system of a socket that is bound to `bound`. Where that
// says nothing it is the one that its server, `process`, has open; empty if it
// has none. No other file is looked at: its file system may keep one waiting.
std::string NameOf(const std::string& bound, const fs::path& process) {
  if (!absl::StartsWith(bound, kByDescriptor)) return bound;
  const fs::path file = fs::path(bound).filename();
  std::string name;
  ForEachOpen(process, [&](const std::string& target) {
    std::error_code error;
    if (fs::path(target).filename() == file && fs::is_socket(target, error)) {
      name = target;
    }
  });
  return name;
}

}  // namespace

absl::StatusOr<std::vector<FoundServer>> FindServers() {
  WARD_ASSIGN_OR_RETURN(const auto listening, ListeningSockets());
  Programs programs;
  // By inode.
  std::map<uint64_t, std::string> paths;
  std::error_code error;
  for (fs::directory_iterator process("/proc", error), end;
       !error && process != end; process.increment(error)) {
    pid_t pid = 0;
    if (!absl::SimpleAtoi(process->path().filename().string(), &pid)) continue;
    for (const uint64_t inode : SocketsOf(process->path())) {
      const auto socket = listening.find(inode);
      if (socket == listening.end() || !programs.HaveWard(process->path())) {
        continue;
      }
      const std::string path = NameOf(socket->second, process->path());
      if (!path.empty()) paths.emplace(inode, path);
    }
  }
  if (error) return SystemError(error.value(), "list the processes in /proc");
  std::vector<FoundServer> servers;
  for (const auto& [inode, path] : paths) {
    WARD_ASSIGN_OR_RETURN(std::vector<ProcessInfo> processes,
                          Environment::Default().Holders(inode));
    // It may have ended meanwhile.
    if (!processes.empty()) servers.push_back({path, std::move(processes)});
  }
  std::sort(servers.begin(), servers.end(),
            [](const FoundServer& a, const FoundServer& b) {
              return a.path < b.path;
            });
  return servers;
}

}  // namespace ward::ctl

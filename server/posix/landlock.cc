#include "ward/server/posix/landlock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/server/confinement.h"

namespace ward {
namespace {

// linux/landlock.h, which is older than the kernel on some machines, and not
// there on others.
constexpr long kCreateRuleset = 444;
constexpr long kAddRule = 445;
constexpr long kRestrictSelf = 446;

constexpr unsigned kAskVersion = 1;  // LANDLOCK_CREATE_RULESET_VERSION
constexpr int kPathBeneath = 1;      // LANDLOCK_RULE_PATH_BENEATH

// LANDLOCK_ACCESS_FS_...
constexpr uint64_t kExecute = 1 << 0;
constexpr uint64_t kWriteFile = 1 << 1;
constexpr uint64_t kReadFile = 1 << 2;
constexpr uint64_t kReadDir = 1 << 3;
constexpr uint64_t kRefer = 1 << 13;     // Since version 2.
constexpr uint64_t kTruncate = 1 << 14;  // 3
constexpr uint64_t kIoctlDev = 1 << 15;  // 5

constexpr uint64_t kAllOfVersion1 = (1 << 13) - 1;
constexpr uint64_t kOfFiles =
    kExecute | kWriteFile | kReadFile | kTruncate | kIoctlDev;
constexpr uint64_t kReading = kReadFile | kReadDir;

uint64_t AllOf(long version) {
  return kAllOfVersion1 | (version >= 2 ? kRefer : 0) |
         (version >= 3 ? kTruncate : 0) | (version >= 5 ? kIoctlDev : 0);
}

struct Ruleset {
  uint64_t handled_access_fs;
  uint64_t handled_access_net;  // Since version 4.
  uint64_t scoped;              // 6
};
// LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, LANDLOCK_SCOPE_SIGNAL: none of those to
// whom the process is not confined as well.
constexpr uint64_t kWithin = 3;

struct PathBeneath {
  uint64_t allowed_access;
  int32_t parent_fd;
} __attribute__((packed));

absl::Status Allow(const FileDescriptor& ruleset, const std::string& path,
                   uint64_t access) {
  const std::string attempt = absl::StrCat("confine the process to \"", path,
                                           "\" (Confinement::paths)");
  const FileDescriptor file =
      FileDescriptor::Opened(open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat found;
  if (!file.is_open() || fstat(file.get(), &found) != 0) {
    return SystemError(errno, attempt);
  }
  if (!S_ISDIR(found.st_mode)) access &= kOfFiles;
  const PathBeneath rule = {access, file.get()};
  if (syscall(kAddRule, ruleset.get(), kPathBeneath, &rule, 0U) != 0) {
    return SystemError(errno, attempt);
  }
  return absl::OkStatus();
}

// `version` is under 0 where there is none, and errno says why: ENOSYS, or
// EOPNOTSUPP where it was not chosen at boot.
absl::Status Lacks(long version, int least) {
  const std::string has =
      version > 0
          ? absl::StrCat("the kernel has version ", version, " of Landlock")
          : std::string(SystemError(errno, "Landlock").message());
  return absl::UnimplementedError(absl::StrCat(
      "confine the process to paths: ", has, ", and version ", least,
      " is needed; take a kernel that has it (CONFIG_SECURITY_LANDLOCK, and "
      "\"landlock\" in its lsm= option), or lower "
      "AllowedPaths::least_landlock_abi (0: as far as the kernel can do "
      "it)"));
}

}  // namespace

absl::StatusOr<FileDescriptor> OpenPaths(const AllowedPaths& paths) {
  const long version = syscall(kCreateRuleset, nullptr, size_t{0}, kAskVersion);
  if (std::max(version, 0L) < paths.least_landlock_abi) {
    return Lacks(version, paths.least_landlock_abi);
  }
  if (version < 1) return FileDescriptor();
  const Ruleset handled = {AllOf(version), 0, version >= 6 ? kWithin : 0};
  // A kernel refuses what it does not know.
  const size_t size =
      version >= 6 ? sizeof(handled) : sizeof(handled.handled_access_fs);
  FileDescriptor ruleset = FileDescriptor::Opened(
      static_cast<int>(syscall(kCreateRuleset, &handled, size, 0U)));
  if (!ruleset.is_open()) {
    return SystemError(
        errno, "confine the process to paths (landlock_create_ruleset)");
  }
  for (const std::string& path : paths.readable) {
    WARD_RETURN_IF_ERROR(Allow(ruleset, path, kReading));
  }
  for (const std::string& path : paths.writable) {
    WARD_RETURN_IF_ERROR(Allow(ruleset, path, AllOf(version) & ~kExecute));
  }
  for (const std::string& path : paths.executable) {
    WARD_RETURN_IF_ERROR(Allow(ruleset, path, kReading | kExecute));
  }
  return ruleset;
}

absl::Status RestrictToPaths(const FileDescriptor& ruleset) {
  if (syscall(kRestrictSelf, ruleset.get(), 0U) != 0) {
    return SystemError(errno,
                       "confine the process to paths (landlock_restrict_self)");
  }
  return absl::OkStatus();
}

}  // namespace ward

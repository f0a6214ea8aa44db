#include "ward/examples/file_broker/file_broker.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/confinement.h"

namespace {

// Clients are other users; it is the password that lets them in. Any of them
// may try to take the broker over: then it has its root, and opens files there,
// as without that, and where the kernel has Landlock nothing else.
ward::ServerOptions ForAnyUser(ward::ServerOptions options) {
  options.admit_peer = [](const ward::PeerCredentials&) { return true; };
  if (options.confinement.has_value() || options.arguments.empty()) {
    return options;
  }
  ward::Confinement& confinement = options.confinement.emplace();
  confinement.limits = {{RLIMIT_CORE, 0}};
  confinement.paths.emplace().writable = {options.arguments[0]};
  // A second wall, behind openat2: where the kernel has none, there is one.
  confinement.paths->least_landlock_abi = 0;
  confinement.system_calls.emplace().also = {SYS_openat2};
  return options;
}

// What the policy matches must be what the kernel opens, to the letter: so no
// second way to write a path, and no way out in it.
absl::Status CheckPath(std::string_view path) {
  const bool fits = !path.empty() && path.size() < PATH_MAX &&
                    path.find('\0') == std::string_view::npos;
  for (const std::string_view part : absl::StrSplit(path, '/')) {
    if (fits && !part.empty() && part != "." && part != "..") continue;
    return ward::MakeError(
        kInvalidPath,
        "a path here is relative to the broker's root, and has neither \".\", "
        "\"..\", an empty part, nor a NUL");
  }
  return absl::OkStatus();
}

// The kernel itself follows no link, and leaves `root` by no way, even if one
// is put there while it looks (openat2(2)). On failure errno tells.
ward::FileDescriptor OpenBeneath(const ward::FileDescriptor& root,
                                 const std::string& path, uint64_t flags,
                                 mode_t mode = 0) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return ward::FileDescriptor(static_cast<int>(
      syscall(SYS_openat2, root.get(), path.c_str(), &how, sizeof(how))));
}

absl::Status Denied() {
  return ward::MakeError(kDenied, "the broker's policy does not allow this");
}

}  // namespace

WARD_REGISTER_SERVER(FileBroker);

FileBroker::FileBroker(ward::ServerOptions options)
    : AbstractServer(ForAnyUser(std::move(options))) {
  Define(kOpen, &FileBroker::Open);
}

absl::Status FileBroker::InitializeServer() {
  const auto& arguments = options().arguments;
  if (arguments.size() != 2 || arguments[0].empty() ||
      arguments[0].front() != '/') {
    return absl::InvalidArgumentError(
        "a file broker's arguments are its root, an absolute path, and its "
        "policy");
  }
  WARD_ASSIGN_OR_RETURN(policy_, Policy::Parse(arguments[1]));
  // Opened once: whoever renames a directory above it later, or puts a link in
  // its place, changes nothing.
  root_.Reset(open(arguments[0].c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root_.is_open()) {
    return ward::SystemError(
        errno, absl::StrCat("open the broker's root \"", arguments[0], "\""));
  }
  // A client could not tell a sandbox that denies the call from a file that
  // nobody may open.
  if (!OpenBeneath(root_, ".", O_PATH | O_DIRECTORY).is_open()) {
    return ward::SystemError(
        errno,
        "openat2, which keeps the broker within its root, does not work here "
        "(it needs Linux 5.6, and a sandbox that allows it)");
  }
  return absl::OkStatus();
}

absl::StatusOr<ward::FileDescriptor> FileBroker::Open(std::string_view mode,
                                                      const std::string& path) {
  WARD_RETURN_IF_ERROR(CheckPath(path));
  uint64_t flags = 0;
  mode_t new_files_mode = 0;
  if (mode == "read") {
    flags = O_RDONLY;
  } else if (mode == "write") {
    flags = O_WRONLY;
  } else if (mode == "create") {
    flags = O_WRONLY | O_CREAT | O_EXCL;
    new_files_mode = 0600;
  } else {
    return ward::MakeError(ward::reason::kInvalidArguments,
                           "a mode is read, write or create");
  }
  const Policy::Access access =
      mode == "read" ? Policy::Access::kRead : Policy::Access::kWrite;
  // Before the file system is asked anything: what is denied and what is not
  // there look the same.
  if (!policy_.Allows(access, path)) return Denied();
  // No waiting for a FIFO's other end, no terminal that becomes this process's.
  ward::FileDescriptor file =
      OpenBeneath(root_, path, flags | O_NONBLOCK | O_NOCTTY, new_files_mode);
  if (!file.is_open()) {
    const bool led_elsewhere =
        errno == ELOOP || errno == EXDEV || errno == ENXIO;
    return led_elsewhere
               ? Denied()
               : ward::SystemError(
                     errno, absl::StrCat("open \"", path, "\" (openat2)"));
  }
  struct stat found {};
  if (fstat(file.get(), &found) != 0) {
    return ward::SystemError(errno, absl::StrCat("look at \"", path, "\""));
  }
  // Devices and FIFOs do things when they are used; and a file with a second
  // name may be one from elsewhere, which somebody has linked here (link(2)).
  if (!S_ISREG(found.st_mode) || found.st_nlink != 1) return Denied();
  return file;
}

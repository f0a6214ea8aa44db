#include "ward/server/confinement.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/server/posix/landlock.h"
#include "ward/server/posix/process.h"
#include "ward/server/posix/system_call_filter.h"

namespace ward {
namespace {

#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || \
    defined(ABSL_HAVE_MEMORY_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
constexpr bool kHasSanitizer = true;
#else
constexpr bool kHasSanitizer = false;
#endif

// Two words of 32 bits each since version 3 (capget(2)).
constexpr int kMostCapabilities = 64;
using Sets = std::array<__user_cap_data_struct, 2>;

__user_cap_data_struct& WordOf(Sets& sets, int capability) {
  return sets.at(static_cast<size_t>(capability) / 32);
}

uint32_t BitOf(int capability) {
  return uint32_t{1} << (static_cast<unsigned>(capability) % 32);
}

absl::Status CheckAlone() {
  // One that polls an io_uring keeps its rights, and is asked through memory.
  WARD_ASSIGN_OR_RETURN(const int others, OtherThreads(/*kernels=*/true));
  if (others == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "confine the process: it has ", others,
      " other threads (or the kernel has for it, as those of an io_uring), "
      "which would keep capabilities and paths of their own; "
      "confine it before they start (in InitializeServer: call "
      "ward::Confine first, and leave ServerOptions::confinement unset)"));
}

absl::Status Lower(const ResourceLimit& limit) {
  const auto attempt = [&limit] {
    return absl::StrCat("limit resource ", limit.resource, " to ", limit.most,
                        " (setrlimit)");
  };
  if (limit.resource < 0 || limit.resource >= RLIM_NLIMITS) {
    return absl::InvalidArgumentError(
        absl::StrCat("limit resource ", limit.resource,
                     ": there is no such one (RLIMIT_... of sys/resource.h)"));
  }
  const auto resource = static_cast<__rlimit_resource>(limit.resource);
  rlimit found;
  if (getrlimit(resource, &found) != 0) return SystemError(errno, attempt());
  const rlimit lowered = {std::min(found.rlim_cur, limit.most),
                          std::min(found.rlim_max, limit.most)};
  if (setrlimit(resource, &lowered) != 0) return SystemError(errno, attempt());
  return absl::OkStatus();
}

absl::Status UserError(const ProcessUser& user, std::string_view call) {
  const int error = errno;
  return SystemError(
      error,
      absl::StrCat(
          "become user ", user.user, " and group ", user.group, " (", call,
          error == EPERM    ? "; it takes CAP_SETUID and CAP_SETGID, as "
                              "root has them"
          : error == EINVAL ? "; a number that the user namespace does not map?"
                            : "",
          ")"));
}

bool HasGroups(std::vector<gid_t> wanted) {
  std::vector<gid_t> found(static_cast<size_t>(std::max(0, getgroups(0, {}))));
  if (getgroups(static_cast<int>(found.size()), found.data()) < 0) return false;
  std::sort(found.begin(), found.end());
  std::sort(wanted.begin(), wanted.end());
  return found == wanted;
}

// Groups first: the user may not change them any more.
absl::Status Become(const ProcessUser& user) {
  // setresuid(2) would leave it as it is.
  if (user.user == static_cast<uid_t>(-1) ||
      user.group == static_cast<gid_t>(-1)) {
    return absl::InvalidArgumentError(
        "become another user: ProcessUser needs a user and a group, and -1 is "
        "none");
  }
  // Who has them may not be allowed to say so.
  if (!HasGroups(user.groups) &&
      setgroups(user.groups.size(), user.groups.data()) != 0) {
    return UserError(user, "setgroups");
  }
  if (setresgid(user.group, user.group, user.group) != 0) {
    return UserError(user, "setresgid");
  }
  // Or the permitted ones would go with root's number (capabilities(7)).
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) {
    return UserError(user, "prctl, PR_SET_KEEPCAPS");
  }
  if (setresuid(user.user, user.user, user.user) != 0) {
    return UserError(user, "setresuid");
  }
  if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) != 0) {
    return UserError(user, "prctl, PR_SET_KEEPCAPS");
  }
  return absl::OkStatus();
}

// The bounding set may stay: it is for what an exec gives, which is nothing
// with no_new_privs. The ambient set goes with the inheritable one.
absl::Status KeepCapabilities(const std::vector<int>& kept) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  Sets found{};
  if (syscall(SYS_capget, &header, found.data()) != 0) {
    return SystemError(errno, "ask which capabilities there are (capget)");
  }
  Sets wanted{};
  std::vector<int> missing;
  for (const int capability : kept) {
    if (capability < 0 || capability >= kMostCapabilities) {
      return absl::InvalidArgumentError(absl::StrCat(
          "keep capability ", capability, ": there is no such one"));
    }
    if ((WordOf(found, capability).permitted & BitOf(capability)) == 0) {
      missing.push_back(capability);
    }
    WordOf(wanted, capability).permitted |= BitOf(capability);
    WordOf(wanted, capability).effective |= BitOf(capability);
  }
  if (!missing.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "keep capabilities ", absl::StrJoin(missing, ", "),
        " (linux/capability.h): the process does not have them; start it with "
        "them, as root or by AmbientCapabilities= of systemd"));
  }
  if (syscall(SYS_capset, &header, wanted.data()) != 0) {
    return SystemError(errno, "give up capabilities (capset)");
  }
  return absl::OkStatus();
}

}  // namespace

// Each step may need what a later one takes away.
absl::Status Confine(const Confinement& confinement) {
  WARD_RETURN_IF_ERROR(CheckAlone());
  // The paths are found with the rights that it still has.
  FileDescriptor paths;
  if (confinement.paths.has_value()) {
    WARD_ASSIGN_OR_RETURN(paths, OpenPaths(*confinement.paths));
  }
  std::vector<sock_filter> filter;
  if (confinement.system_calls.has_value()) {
    WARD_ASSIGN_OR_RETURN(filter, MakeFilter(*confinement.system_calls));
  }
  for (const ResourceLimit& limit : confinement.limits) {
    WARD_RETURN_IF_ERROR(Lower(limit));
  }
  if (confinement.user.has_value()) {
    WARD_RETURN_IF_ERROR(Become(*confinement.user));
  }
  WARD_RETURN_IF_ERROR(KeepCapabilities(confinement.capabilities));
  // Without it who is not root could restrict neither paths nor system calls:
  // a set-user-ID program would be restricted, too.
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return SystemError(errno, "give up rights by exec (PR_SET_NO_NEW_PRIVS)");
  }
  if (kHasSanitizer) return absl::OkStatus();
  if (paths.is_open()) WARD_RETURN_IF_ERROR(RestrictToPaths(paths));
  paths.Reset();
  // Last: none of the calls above is let through any more.
  return filter.empty() ? absl::OkStatus()
                        : RestrictSystemCalls(std::move(filter));
}

}  // namespace ward

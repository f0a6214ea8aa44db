// The system calls that a process may make (seccomp(2)).

#ifndef WARD_SERVER_POSIX_SYSTEM_CALL_FILTER_H_
#define WARD_SERVER_POSIX_SYSTEM_CALL_FILTER_H_

#include <linux/filter.h>

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ward/server/confinement.h"

namespace ward {

// What a call's arguments must be for it to be let through.
enum class Only {
  kAlways,
  // A new thread of this process: flags with CLONE_THREAD.
  kThreads,
  // The first one is this process's number.
  kThisProcess,
  // The same, or 0, which stands for it.
  kThisProcessOrZero,
  // The operation of prctl(2) is PR_SET_NAME, or PR_SET_VMA.
  kNaming,
  // The request of ioctl(2) is TCGETS.
  kAskingForTerminal,
  // The command of fcntl(2) does not name a process that is to have signals: it
  // could be any of the same user, and the signal SIGKILL.
  kNotOwner,
  // The flags of openat(2) neither write, nor create, nor truncate.
  kReading,
};

struct AllowedCall {
  std::string_view name;
  long number;
  Only only;
  // What ward, the C library or the C++ library makes it for.
  std::string_view what_for;
};

// What a server's process calls once it is confined, whatever its own handlers
// do. The most frequent ones come first.
absl::Span<const AllowedCall> WardsCalls();

// For the calling process: its number is in it. InvalidArgument for more calls
// than a filter has room for; Unimplemented for a machine that ward has no list
// for.
absl::StatusOr<std::vector<sock_filter>> MakeFilter(
    const AllowedSystemCalls& allowed);

// For the calling thread and what comes of it, for ever. Needs no_new_privs.
absl::Status RestrictSystemCalls(std::vector<sock_filter> filter);

}  // namespace ward

#endif  // WARD_SERVER_POSIX_SYSTEM_CALL_FILTER_H_

// Landlock: the files that a process may use (landlock(7)).

#ifndef WARD_SERVER_POSIX_LANDLOCK_H_
#define WARD_SERVER_POSIX_LANDLOCK_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/confinement.h"

namespace ward {

// A ruleset, which restricts nobody yet. Not open where the kernel has no
// Landlock and none is needed. Unimplemented as of Paths::least_landlock_abi.
absl::StatusOr<FileDescriptor> OpenPaths(const AllowedPaths& paths);

// For the calling thread and what comes of it, for ever. Needs no_new_privs.
absl::Status RestrictToPaths(const FileDescriptor& ruleset);

}  // namespace ward

#endif  // WARD_SERVER_POSIX_LANDLOCK_H_

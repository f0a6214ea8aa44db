// Processes that end with their owners, and whose children do not look like
// them.

#ifndef WARD_SERVER_POSIX_TIE_H_
#define WARD_SERVER_POSIX_TIE_H_

#include <sys/types.h>

#include "absl/status/status.h"
#include "ward/server/listener.h"

namespace ward {

// The contract is Environment::TieProcess's. `end` is a socket's descriptor.
absl::Status PosixTieProcess(int end, const Listener* listener);
absl::Status PosixUntieProcess(int end);

// fork(2), whose child has all that this process has: what it is to keep, its
// maker says.
pid_t ForkWithEverything();

// PosixTieProcess without a listener, for a child that has no program of its
// own yet: system calls alone. Returns 0, or what errno is.
int TieByKill(int end);

}  // namespace ward

#endif  // WARD_SERVER_POSIX_TIE_H_

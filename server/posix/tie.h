// Processes that end with their owners.

#ifndef WARD_SERVER_POSIX_TIE_H_
#define WARD_SERVER_POSIX_TIE_H_

#include "absl/status/status.h"
#include "ward/server/listener.h"

namespace ward {

// The contract is Environment::TieProcess's. `end` is a socket's descriptor.
absl::Status PosixTieProcess(int end, const Listener* listener);
absl::Status PosixUntieProcess(int end);

// PosixTieProcess without a listener, for a child that has no program of its
// own yet: system calls alone. Returns 0, or what errno is.
int TieByKill(int end);

}  // namespace ward

#endif  // WARD_SERVER_POSIX_TIE_H_

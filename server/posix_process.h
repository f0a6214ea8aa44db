// Forking, and waiting for what was forked.

#ifndef WARD_SERVER_POSIX_PROCESS_H_
#define WARD_SERVER_POSIX_PROCESS_H_

#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "ward/server/process.h"

namespace ward {

// The contract is Environment::Fork's.
absl::StatusOr<std::unique_ptr<Process>> PosixFork(
    const ForkOptions& options, absl::AnyInvocable<int()> child);

}  // namespace ward

#endif  // WARD_SERVER_POSIX_PROCESS_H_

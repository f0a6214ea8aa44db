// This process's signals.

#ifndef WARD_SERVER_POSIX_SIGNALS_H_
#define WARD_SERVER_POSIX_SIGNALS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "ward/server/signals.h"

namespace ward {

// The contract is Environment::TakeSignals's.
absl::StatusOr<std::unique_ptr<Signals>> PosixTakeSignals(
    const SignalPlan& plan);

}  // namespace ward

#endif  // WARD_SERVER_POSIX_SIGNALS_H_

// Zygotes of Linux.

#ifndef WARD_SERVER_POSIX_ZYGOTE_H_
#define WARD_SERVER_POSIX_ZYGOTE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "ward/server/zygote.h"

namespace ward {

// The contract is Environment::StartZygote's.
absl::StatusOr<std::unique_ptr<Zygote>> PosixStartZygote();

}  // namespace ward

#endif  // WARD_SERVER_POSIX_ZYGOTE_H_

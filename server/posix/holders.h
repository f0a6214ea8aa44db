// Who has a socket open, as /proc tells (proc(5)).

#ifndef WARD_SERVER_POSIX_HOLDERS_H_
#define WARD_SERVER_POSIX_HOLDERS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "ward/server/process.h"

namespace ward {

// The contract is Environment::Holders's; `inode` is the socket's (fstat(2)).
absl::StatusOr<std::vector<ProcessInfo>> PosixHolders(uint64_t inode);

}  // namespace ward

#endif  // WARD_SERVER_POSIX_HOLDERS_H_

// epoll(7) as a PollSet.

#ifndef WARD_SERVER_POSIX_POLL_SET_H_
#define WARD_SERVER_POSIX_POLL_SET_H_

#include <memory>

#include "absl/status/statusor.h"
#include "ward/server/poll_set.h"

namespace ward {

// The contract is Environment::CreatePollSet's.
absl::StatusOr<std::unique_ptr<PollSet>> CreatePosixPollSet();

}  // namespace ward

#endif  // WARD_SERVER_POSIX_POLL_SET_H_

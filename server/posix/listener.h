// Listening Unix sockets, and connecting to them.

#ifndef WARD_SERVER_POSIX_LISTENER_H_
#define WARD_SERVER_POSIX_LISTENER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/transport.h"
#include "ward/server/listener.h"

namespace ward {

// The contracts are Environment::Listen's and Environment::Connect's.
absl::StatusOr<std::unique_ptr<Listener>> PosixListen(
    const ListenOptions& options);
absl::StatusOr<std::unique_ptr<Listener>> PosixAdoptListener(
    ListenerParts parts, uid_t user);
absl::StatusOr<std::unique_ptr<Transport>> PosixConnect(const std::string& path,
                                                        absl::Time deadline);

}  // namespace ward

#endif  // WARD_SERVER_POSIX_LISTENER_H_

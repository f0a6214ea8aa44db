// Servers that systemd starts: with a socket that it listens at already, and
// told when they serve.
//
//   ward::ServerOptions options;
//   WARD_ASSIGN_OR_RETURN(options.password,
//                         ward::SystemdCredential("password"));
//   ...
//   HelloServer server(std::move(options));
//   return ward::ServeForSystemd(server);
//
// The unit files are in examples/systemd_server. What is spoken is
// sd_listen_fds(3) and sd_notify(3), without libsystemd.
//
// Misuse: starting such a server by hand. It has no socket then, and says so.

#ifndef WARD_SERVER_SYSTEMD_H_
#define WARD_SERVER_SYSTEMD_H_

#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/secret.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"

namespace ward {

// Runs the server in this process, on this thread, at the socket that systemd
// has passed, until SIGTERM or SIGINT: see AbstractServer::StartSynchronously.
// Notifies READY=1 when clients are served, and STOPPING=1 when they no more
// are. The socket and its name are systemd's, and stay: clients that connect
// when this has stopped wait in the socket's queue for the next service.
//
// A thread runs meanwhile: InitializeServer cannot fork. What the service
// manager could not be told is logged. Errors: those of SystemdListener and
// StartSynchronously.
absl::Status ServeForSystemd(AbstractServer& server,
                             Environment& environment = Environment::Default());

// The listening socket that was passed to this process, which must be one Unix
// stream socket with a path. Once: what tells of it is taken out of the
// process's environment. FailedPrecondition, and what to write into the unit,
// otherwise.
absl::StatusOr<std::unique_ptr<Listener>> SystemdListener(
    Environment& environment);

// Sends `state` ("READY=1", "STATUS=...") to the service manager; an error if
// its queue stays full for 2 s. OK, and nothing, if this process has none that
// wants to know.
absl::Status NotifySystemd(std::string_view state);

// The content of a file of LoadCredential=, less a newline at its end; at most
// 4 KiB. NotFound, and what to write into the unit, if there is none.
absl::StatusOr<Secret> SystemdCredential(std::string_view name);

}  // namespace ward

#endif  // WARD_SERVER_SYSTEMD_H_

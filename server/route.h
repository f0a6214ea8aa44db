// Where a server is, and what a connection to it takes. For AbstractServer.

#ifndef WARD_SERVER_ROUTE_H_
#define WARD_SERVER_ROUTE_H_

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/transport.h"
#include "ward/server/kept_connections.h"
#include "ward/server/lifecycle.h"
#include "ward/server/listener.h"
#include "ward/server/server_options.h"

namespace ward {

// How often a server's full queue is looked at by who has something else to
// look at meanwhile: nothing tells when there is room (connect(2), EAGAIN).
inline constexpr absl::Duration kConnectAgain = absl::Milliseconds(5);

// A server that was started or adopted. Calls under way have a share in it, so
// that it can be stopped beside them. As thread-safe as its parts.
struct StartedServer {
  // `until`: as of ServerProcess::CheckAlive.
  absl::Status CheckAlive(absl::Time until = absl::InfiniteFuture()) const;
  absl::Status CheckReachable(absl::Time until = absl::InfiniteFuture());

  std::shared_ptr<Listener> listener;
  std::unique_ptr<ServerProcess> process;
  KeptConnections kept;
  std::atomic<bool> stopping{false};
};

// What a connection to a server takes, without the server's object: that may
// go, as the server may, while it is used.
struct Route {
  std::shared_ptr<const ServerOptions> options;
  // Null if this process has neither started nor adopted it.
  std::shared_ptr<StartedServer> started;
  std::shared_ptr<KeptConnections> kept;
  // Whose server it is known to be.
  uid_t server_user;
  // Null unless this process is the server.
  std::shared_ptr<const std::string> served;

  // Empty if the server is not started.
  const std::string& path() const;

  // Errors: those of AbstractServer::Connect, not explained. Who may be
  // cancelled waits in many short waits, and others come in between; with
  // kTimedOut, once `is_cancelled`.
  absl::StatusOr<std::unique_ptr<Transport>> Connect(
      absl::Time deadline,
      const std::function<bool()>& is_cancelled = nullptr) const;

  // A client's, over `connection`.
  MessageChannel MakeChannel(std::unique_ptr<Transport> connection) const;

  // What `status`, of a connection or a call, comes to. A connection that broke
  // may mean that the server is dead, and one that came about with nobody, or
  // with somebody else, that its name is; or another thread stops it: that says
  // more. That a server is about to end is not waited for after `until`.
  absl::Status Explain(const absl::Status& status, absl::Time until) const;

 private:
  absl::Status CheckServer(const Transport& transport) const;
};

}  // namespace ward

#endif  // WARD_SERVER_ROUTE_H_

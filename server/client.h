// Calls of a server that somebody else has started.
//
//   ward::Client store({path, std::move(password)});
//   absl::StatusOr<FindReply> reply = store.Call(kFind, request);
//
// Whoever has the server's object calls it by that (AbstractServer::Call), or
// has a client made of it, for code that is to know no more than a client.

#ifndef WARD_SERVER_CLIENT_H_
#define WARD_SERVER_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"
#include "ward/proto/stats.pb.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/interceptor.h"
#include "ward/server/method.h"
#include "ward/server/owner_handle.h"
#include "ward/server/server_options.h"

namespace ward {

// Those of ServerOptions that concern a client.
struct ClientOptions {
  std::string socket_filename;
  Secret password;
  std::function<bool(const PeerCredentials&)> trust_server = nullptr;
  ChannelLimits limits = {};
  absl::Duration connect_timeout = absl::Seconds(10);
  Environment* environment = &Environment::Default();
  // client_spin_time.
  absl::Duration spin_time = absl::ZeroDuration();
  // client_interceptors.
  std::vector<std::shared_ptr<Interceptor>> interceptors = {};
};

// Thread-safe: calls made at once have a connection each, which the next ones
// use again. Move-only.
class Client {
 public:
  // Connects to nobody yet.
  explicit Client(ClientOptions options);

  // Of a server that this process has started or adopted, or will; borrowed.
  explicit Client(AbstractServer& server) : server_(&server) {}

  // One that owns the server, too: it lives as long as this client does, or
  // another owner. As AbstractServer::Adopt.
  static absl::StatusOr<Client> Own(
      OwnerHandle handle, Environment& environment = Environment::Default());

  // As those of AbstractServer.
  template <typename... Arguments>
  auto Call(const Arguments&... arguments) {
    return server_->Call(arguments...);
  }
  absl::StatusOr<std::vector<MethodInfo>> Methods(
      const CallOptions& options = {}) {
    return server_->Methods(options);
  }
  absl::StatusOr<std::string> DescriptorSet(const CallOptions& options = {}) {
    return server_->DescriptorSet(options);
  }
  absl::StatusOr<proto::ServerStats> Stats(const CallOptions& options = {}) {
    return server_->Stats(options);
  }
  absl::Status Connect(absl::FunctionRef<absl::Status(MessageChannel&)> use) {
    return server_->Connect(use);
  }

 private:
  friend class AsyncClient;

  explicit Client(std::unique_ptr<AbstractServer> server)
      : own_(std::move(server)), server_(own_.get()) {}

  // Never started; null if the server's object is another's.
  std::unique_ptr<AbstractServer> own_;
  AbstractServer* server_;
};

}  // namespace ward

#endif  // WARD_SERVER_CLIENT_H_

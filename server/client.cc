#include "ward/server/client.h"

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/owner_handle.h"
#include "ward/server/server_options.h"

namespace ward {

Client::Client(ClientOptions options) {
  ServerOptions all;
  all.socket_filename = std::move(options.socket_filename);
  all.password = std::move(options.password);
  all.trust_server = std::move(options.trust_server);
  all.limits = options.limits;
  all.connect_timeout = options.connect_timeout;
  all.environment = options.environment;
  all.client_spin_time = options.spin_time;
  all.client_interceptors = std::move(options.interceptors);
  own_ = std::make_unique<AbstractServer>(std::move(all));
  server_ = own_.get();
}

absl::StatusOr<Client> Client::Own(OwnerHandle handle,
                                   Environment& environment) {
  ServerOptions options;
  options.environment = &environment;
  auto server = std::make_unique<AbstractServer>(std::move(options));
  WARD_RETURN_IF_ERROR(server->Adopt(std::move(handle)));
  return Client(std::move(server));
}

}  // namespace ward

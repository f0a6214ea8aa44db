// The hello server as a service of systemd's.

#include <iostream>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/examples/hello/hello_server.h"
#include "ward/server/abstract_server.h"
#include "ward/server/systemd.h"

namespace {

absl::Status Run() {
  ward::ServerOptions options;
  WARD_ASSIGN_OR_RETURN(options.password, ward::SystemdCredential("password"));
  // Whoever may open the socket (SocketMode=) and knows the password.
  options.admit_peer = [](const ward::PeerCredentials&) { return true; };
  HelloServer server(std::move(options));
  return ward::ServeForSystemd(server);
}

}  // namespace

int main() {
  const absl::Status status = Run();
  if (!status.ok()) std::cerr << status.message() << "\n";
  return status.ok() ? 0 : 1;
}

// Says which processes keep a server alive.
//
//   ward_owners SOCKET [USER-ID] < PASSWORD
//
// The password is read from standard input, so that no list of processes shows
// it, and told to a server of this user, of root, or of the user named. A line
// for each owner: its pid, and its command.

#include <sys/types.h>
#include <unistd.h>

#include <iostream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"

int main(int argc, char** argv) {
  uid_t user = geteuid();
  if ((argc != 2 && argc != 3) ||
      (argc == 3 && !absl::SimpleAtoi(argv[2], &user))) {
    std::cerr << "usage: ward_owners SOCKET [USER-ID] < PASSWORD\n";
    return 2;
  }
  std::string password{std::istreambuf_iterator<char>(std::cin), {}};
  while (!password.empty() && password.back() == '\n') password.pop_back();
  ward::ServerOptions options;
  options.socket_filename = argv[1];
  options.password = ward::Secret(password);
  options.trust_server = [user](const ward::PeerCredentials& server) {
    return server.uid == user || server.uid == 0;
  };
  ward::Wipe(password.data(), password.size());
  ward::AbstractServer server(std::move(options));
  const absl::StatusOr<std::vector<ward::ProcessInfo>> owners = server.Owners();
  if (!owners.ok()) {
    std::cerr << "ward_owners: " << owners.status().message() << "\n";
    return 1;
  }
  for (const ward::ProcessInfo& owner : *owners) {
    std::cout << owner.pid << "  " << owner.command << "\n";
  }
  return 0;
}

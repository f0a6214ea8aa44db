#include <sys/types.h>

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/process.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/commands.h"
#include "ward/tools/wardctl/find_servers.h"
#include "ward/tools/wardctl/printable.h"

namespace ward::ctl {
namespace {

constexpr Option kPaths{"paths", "", "the sockets' paths alone, for scripts"};
constexpr Option kOptions[] = {kPaths};

// Who has called listen(2) for the socket, as a connection shows (SO_PEERCRED);
// or why there is none.
std::string StarterOf(const std::string& path) {
  const absl::StatusOr<std::unique_ptr<Transport>> connection =
      Environment::Default().Connect(path, absl::InfinitePast());
  if (!connection.ok()) {
    return absl::IsDeadlineExceeded(connection.status()) ? "busy" : "-";
  }
  const absl::StatusOr<PeerCredentials> peer = (*connection)->Peer();
  return peer.ok() ? absl::StrCat(peer->pid) : "-";
}

absl::Status Run(const CommandLine& line) {
  WARD_ASSIGN_OR_RETURN(const std::vector<FoundServer> servers, FindServers());
  if (line.Has(kPaths)) {
    for (const FoundServer& server : servers) {
      std::cout << Printable(server.path) << "\n";
    }
    return absl::OkStatus();
  }
  if (servers.empty()) return absl::OkStatus();
  size_t width = 6;
  for (const FoundServer& server : servers) {
    width = std::max(width, Printable(server.path).size());
  }
  const auto print = [width](const auto& pid, const std::string& starter,
                             const std::string& path,
                             const std::string& command) {
    std::cout << std::setw(7) << std::right << pid << "  " << std::setw(7)
              << starter << "  " << std::setw(static_cast<int>(width))
              << std::left << path << "  " << command << "\n";
  };
  print("PID", "STARTER", "SOCKET", "COMMAND");
  for (const FoundServer& server : servers) {
    const std::string starter = StarterOf(server.path);
    for (const ProcessInfo& process : server.processes) {
      print(process.pid, starter, Printable(server.path), process.command);
    }
  }
  return absl::OkStatus();
}

}  // namespace

constexpr Command kList = {
    "list",
    "",
    0,
    0,
    "show the servers that run here",
    "A line for each server, with its pid, that of the process which has "
    "started it, its socket, and its command. A server is found whatever its "
    "socket is called; one that several processes serve has a line for each of "
    "them. Who has started it a connection shows, over which nothing is said; "
    "\"busy\" where the server's queue is full, \"-\" where nobody listens. It "
    "asks whoever is at that path here: of a server in another mount namespace "
    "it may show another one's.\n\n"
    "Shown are servers of this user's processes, and to root those of all, in "
    "this network namespace. Their programs are told by what is in them: one "
    "that has ward in a shared library is not found.",
    kOptions,
    &Run,
};

}  // namespace ward::ctl

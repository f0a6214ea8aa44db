// Which of ward's servers run on this machine that this user may look into.

#ifndef WARD_TOOLS_WARDCTL_FIND_SERVERS_H_
#define WARD_TOOLS_WARDCTL_FIND_SERVERS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ward/server/process.h"

namespace ward::ctl {

struct FoundServer {
  std::string path;
  // Those that have the listening socket open, by pid: one, unless it is
  // shared, as with a service manager or siblings.
  std::vector<ProcessInfo> processes;
};

// A listening Unix socket in this network namespace with a process behind it
// whose program has been made with ward; by path. Nobody is asked or connected
// to: /proc/net/unix has sockets and names, /proc/PID/fd who has them, and
// programs are searched for what only ward has in them. So a program with ward
// in a shared library is not found, nor is what this user may not look into
// (proc(5)): other users' processes, unless it is root.
absl::StatusOr<std::vector<FoundServer>> FindServers();

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_FIND_SERVERS_H_

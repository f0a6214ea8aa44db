#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/server/environment.h"
#include "ward/server/process.h"
#include "ward/tools/wardctl/access.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/commands.h"
#include "ward/tools/wardctl/failure.h"
#include "ward/tools/wardctl/find_servers.h"

namespace ward::ctl {
namespace {

constexpr Option kKill{
    "kill", "",
    "if it has not ended by then, end it by SIGKILL: without FinalizeServer"};
constexpr Option kPid{"pid", "PID",
                      "which of several processes that serve at the socket"};
constexpr Option kOptions[] = {kTimeout, kKill, kPid};

// Whether both lead to one file. std::filesystem compares no sockets. The name
// of a socket may be gone, while it is served.
bool AreSame(const std::string& one, const std::string& other) {
  struct stat first {};
  struct stat second {};
  return one == other ||
         (stat(one.c_str(), &first) == 0 && stat(other.c_str(), &second) == 0 &&
          first.st_dev == second.st_dev && first.st_ino == second.st_ino);
}

// Whether `name`, as SocketOf has it, which made `path` of it, is `server`. A
// pid's is that alone: in another mount namespace, another server may be at the
// same path.
bool IsNamed(const FoundServer& server, const std::string& name,
             const std::string& path) {
  pid_t pid = 0;
  if (!absl::SimpleAtoi(name, &pid)) return AreSame(server.path, path);
  return std::any_of(
      server.processes.begin(), server.processes.end(),
      [pid](const ProcessInfo& process) { return process.pid == pid; });
}

// The processes of the servers of that name, or that of `only`.
absl::StatusOr<std::vector<ProcessInfo>> Serving(const std::string& name,
                                                 const std::string& path,
                                                 std::optional<pid_t> only) {
  WARD_ASSIGN_OR_RETURN(const std::vector<FoundServer> servers, FindServers());
  std::vector<ProcessInfo> serving;
  for (const FoundServer& server : servers) {
    if (!IsNamed(server, name, path)) continue;
    for (const ProcessInfo& process : server.processes) {
      if (!only.has_value() || process.pid == *only) serving.push_back(process);
    }
  }
  return serving;
}

absl::Status Run(const CommandLine& line) {
  WARD_ASSIGN_OR_RETURN(const absl::Duration timeout,
                        TimeoutOf(line, absl::Seconds(10)));
  std::optional<pid_t> only;
  if (const std::string* const pid = line.Find(kPid)) {
    only.emplace();
    if (!absl::SimpleAtoi(*pid, &*only)) {
      return UsageError(absl::StrCat("--pid: \"", *pid, "\" is no number"));
    }
  }
  const std::string& name = line.operands().front();
  WARD_ASSIGN_OR_RETURN(const std::string path, SocketOf(name));
  WARD_ASSIGN_OR_RETURN(std::vector<ProcessInfo> serving,
                        Serving(name, path, only));
  if (serving.empty()) {
    return MakeError(
        ward::reason::kServerUnreachable,
        absl::StrCat("no server of ward's is at ", path,
                     only.has_value() ? " in that process" : "",
                     ", as far as this user may see; wardctl list shows those "
                     "there are"));
  }
  if (serving.size() > 1) {
    return UsageError(absl::StrCat(
        "several processes serve at ", path, ": ",
        absl::StrJoin(serving, "; ",
                      [](std::string* text, const ProcessInfo& process) {
                        absl::StrAppend(text, process.pid, " (",
                                        process.command, ")");
                      }),
        "; have who started them stop them (such as systemctl stop), or say "
        "--pid"));
  }
  const pid_t pid = serving.front().pid;
  Environment& environment = Environment::Default();
  FileDescriptor opened = FileDescriptor::Opened(
      static_cast<int>(syscall(SYS_pidfd_open, pid, 0U)));
  if (!opened.is_open() && errno != ESRCH) {
    return SystemError(errno, absl::StrCat("open process ", pid));
  }
  // It may have ended, and another have got its number meanwhile.
  WARD_ASSIGN_OR_RETURN(serving, Serving(name, path, pid));
  if (!opened.is_open() || serving.empty()) {
    return MakeError(ward::reason::kServerUnreachable,
                     absl::StrCat("process ", pid, " has just ended"));
  }
  WARD_ASSIGN_OR_RETURN(
      const std::unique_ptr<Process> process,
      environment.AdoptProcess(std::move(opened), environment.UserId()));
  WARD_RETURN_IF_ERROR(process->Kill(SIGTERM));
  absl::Status ended = process->Wait(environment.TimeNow() + timeout).status();
  if (HasReason(ended, ward::reason::kTimedOut)) {
    if (!line.Has(kKill)) {
      return MakeError(
          ward::reason::kTimedOut,
          absl::StrCat("process ", pid, " has not ended within ",
                       absl::FormatDuration(timeout),
                       " of SIGTERM: its handlers or FinalizeServer run, or it "
                       "has a handler of its own for that; --kill ends it"));
    }
    WARD_RETURN_IF_ERROR(process->Kill(SIGKILL));
    ended = process->Wait(absl::InfiniteFuture()).status();
  }
  WARD_RETURN_IF_ERROR(ended);
  std::cout << "process " << pid << " has ended\n";
  return absl::OkStatus();
}

}  // namespace

constexpr Command kStop = {
    "stop",
    "SERVER",
    1,
    1,
    "have a server quit, and wait until it has",
    "The server's process gets SIGTERM: it refuses new clients, gives running "
    "calls its drain_time, and ends through FinalizeServer. No password is "
    "needed, but the right to end that process. Its owner finds it dead, and "
    "may start it again.",
    kOptions,
    &Run,
};

}  // namespace ward::ctl

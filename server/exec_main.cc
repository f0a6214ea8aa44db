#include "ward/server/exec_main.h"

#include <fcntl.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/base/log_severity.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/socket_transport.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/exec_entry.h"
#include "ward/server/posix/allocator.h"
#include "ward/server/posix/process.h"
#include "ward/server/posix/socket_path.h"
#include "ward/server/posix/streams.h"
#include "ward/server/process.h"

namespace ward {
namespace {

// The connection that was inherited as descriptor `fd`, or null. It must be of
// this process's user and group: if the program has the set-user-ID or
// set-group-ID bit, anybody may start it and hand it what he likes.
std::unique_ptr<Transport> Inherited(int fd) {
  if (!IsEndOfPair(fd) || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return nullptr;
  auto link = std::make_unique<SocketTransport>(FileDescriptor(fd));
  const absl::StatusOr<PeerCredentials> maker = link->Peer();
  if (!maker.ok() || maker->uid != geteuid() || maker->gid != getegid()) {
    return nullptr;
  }
  return link;
}

// Whether its program has given this process rights, and neither a user nor a
// group (getauxval(3), AT_SECURE). Of these the kernel does not tell whether
// the connections' maker has them, too.
bool HasGainedCapabilities() {
  return getauxval(AT_SECURE) != 0 && getuid() == geteuid() &&
         getgid() == getegid();
}

int Serve(const ExecRequest& request) {
  const std::string_view name = request.entry;
  Environment& environment = Environment::Posix();
  if (HasGainedCapabilities()) {
    environment.Log(
        absl::LogSeverity::kError,
        absl::StrCat(
            kExecArgument, name,
            ": a program with file capabilities serves nobody who starts it: "
            "he might not have them. Start its servers by fork, or give it its "
            "capabilities in another way (ambient ones, capabilities(7))."));
    return 2;
  }
  const absl::StatusOr<ExecEntry> entry = FindExecEntry(name);
  ExecLinks links = {Inherited(request.hand_over), Inherited(request.owner)};
  if (!entry.ok() || links.hand_over == nullptr || links.owner == nullptr) {
    environment.Log(
        absl::LogSeverity::kError,
        absl::StrCat(
            kExecArgument, name,
            " is how ward starts a server's process. It does not work by hand, "
            "nor for a starter of another user or group, nor where getsockopt, "
            "getsockname or getpeername is denied.",
            entry.ok() ? "" : " ", entry.status().message()));
    return 2;
  }
  for (const int fd : request.close) close(fd);
  ReseedRandom();
  ReturnFreeMemory();
  return (*entry)(environment, std::move(links));
}

}  // namespace

void ServeIfExeced(int argc, char** argv) {
  AllowExec();
  const std::optional<ExecRequest> request =
      ParseExecArgument(argc == 2 ? argv[1] : "");
  if (!request.has_value()) return;
  // Numbers of descriptors of another process are nothing to ps(1), nor to
  // whom Owners() shows this process's command line.
  if (char* const numbers = strrchr(argv[1], ':')) {
    std::memset(numbers, 0, strlen(numbers));
  }
  const int code = Serve(*request);
  FlushStreams();
  // As a forked server ends, too: nothing that a library or main() has set up
  // for the program's own end belongs to it.
  _exit(code);
}

}  // namespace ward

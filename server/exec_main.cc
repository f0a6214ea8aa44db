#include "ward/server/exec_main.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/socket_transport.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/exec_entry.h"
#include "ward/server/posix/allocator.h"
#include "ward/server/posix/process.h"
#include "ward/server/process.h"

namespace ward {
namespace {

// A connection that was inherited as descriptor `fd`, or null.
std::unique_ptr<Transport> Inherited(int fd) {
  int domain = 0;
  socklen_t size = sizeof(domain);
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 ||
      domain != AF_UNIX || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return nullptr;
  }
  return std::make_unique<SocketTransport>(FileDescriptor(fd));
}

int Serve(std::string_view name) {
  Environment& environment = Environment::Posix();
  const absl::StatusOr<ExecEntry> entry = FindExecEntry(name);
  ExecLinks links = {Inherited(kExecHandOver), Inherited(kExecOwner)};
  if (!entry.ok() || links.hand_over == nullptr || links.owner == nullptr) {
    environment.Log(absl::StrCat(
        kExecArgument, name,
        " is how ward starts a server's process. It does not work by hand."));
    return 2;
  }
  ReseedRandom();
  ReturnFreeMemory();
  return (*entry)(environment, std::move(links));
}

}  // namespace

void ServeIfExeced(int argc, char** argv) {
  AllowExec();
  std::string_view argument = argc == 2 ? argv[1] : "";
  if (!absl::ConsumePrefix(&argument, kExecArgument)) return;
  const int code = Serve(argument);
  FlushStreams();
  // As a forked server ends, too: nothing that a library or main() has set up
  // for the program's own end belongs to it.
  _exit(code);
}

}  // namespace ward

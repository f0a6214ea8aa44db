#include "ward/server/exec_main.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
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
#include "ward/server/posix/process.h"

namespace ward {
namespace {

int Serve(std::string_view name) {
  Environment& environment = Environment::Posix();
  const absl::StatusOr<ExecEntry> entry = FindExecEntry(name);
  int domain = 0;
  socklen_t size = sizeof(domain);
  const bool linked =
      getsockopt(kExecLink, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
      domain == AF_UNIX && fcntl(kExecLink, F_SETFD, FD_CLOEXEC) == 0;
  if (!entry.ok() || !linked) {
    environment.Log(absl::StrCat(
        kExecArgument, name,
        " is how ward starts a server's process. It does not work by hand."));
    return 2;
  }
  ReseedRandom();
  return (*entry)(environment,
                  std::make_unique<SocketTransport>(FileDescriptor(kExecLink)));
}

}  // namespace

void ServeIfExeced(int argc, char** argv) {
  AllowExec();
  std::string_view argument = argc == 2 ? argv[1] : "";
  if (!absl::ConsumePrefix(&argument, kExecArgument)) return;
  const int code = Serve(argument);
  std::fflush(nullptr);
  // As a forked server ends, too: nothing that a library or main() has set up
  // for the program's own end belongs to it.
  _exit(code);
}

}  // namespace ward

// Keeps a hello server running until standard input ends; kill it and see.

#include <unistd.h>

#include <iostream>
#include <string_view>

#include "absl/status/status.h"
#include "ward/channel/transport.h"
#include "ward/examples/hello/hello_server.h"
#include "ward/examples/supervisor/supervisor.h"
#include "ward/server/environment.h"

namespace {

class StandardInput : public ward::Pollable {
 public:
  int descriptor() const override { return STDIN_FILENO; }
};

}  // namespace

int main() {
  HelloServer server;
  Supervisor supervisor(
      ward::Environment::Posix(), server, RestartPolicy(),
      [](std::string_view what) { std::cout << what << std::endl; });
  const absl::Status status = supervisor.Run(StandardInput());
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}

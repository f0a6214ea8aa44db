// Keeps a hello server running until standard input ends; kill it and see.

#include <sys/types.h>
#include <unistd.h>

#include <iostream>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ward/channel/transport.h"
#include "ward/examples/hello/hello_server.h"
#include "ward/server/supervisor.h"

namespace {

class StandardInput : public ward::Pollable {
 public:
  int descriptor() const override { return STDIN_FILENO; }
};

}  // namespace

int main() {
  HelloServer server;
  ward::SupervisorOptions options;
  options.on_ready = [](pid_t pid) {
    std::cout << "serves, as process " << pid << std::endl;
  };
  options.on_exit = [](const absl::Status& how,
                       std::optional<absl::Duration> again_in) {
    std::cout << how.message();
    if (again_in.has_value()) std::cout << "; again in " << *again_in;
    std::cout << std::endl;
  };
  ward::Supervisor supervisor(server, std::move(options));
  const absl::Status status = supervisor.Run(StandardInput());
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}

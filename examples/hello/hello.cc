// Starts a HelloServer, asks it once, and stops it.

#include <iostream>

#include "absl/status/status.h"
#include "ward/channel/status_macros.h"
#include "ward/examples/hello/hello_server.h"

namespace {

absl::Status Run() {
  HelloServer server;
  WARD_RETURN_IF_ERROR(server.Start());
  WARD_ASSIGN_OR_RETURN(const auto reply, server.Call(kHello, "Joe", "Dalton"));
  const auto& [greeting, number] = reply;
  std::cout << "The server said: " << greeting << "\n"
            << "In addition, it sent this pointless number: " << number << "\n";
  return server.Stop();
}

}  // namespace

int main() {
  const absl::Status status = Run();
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}

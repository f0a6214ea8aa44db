// Starts a TallyServer, calls it, and stops it.

#include <cstdint>
#include <iostream>

#include "absl/status/status.h"
#include "tally/tally.h"
#include "tally/tally_server.h"
#include "ward/channel/status_macros.h"

namespace {

absl::Status Run() {
  TallyServer server;
  WARD_RETURN_IF_ERROR(server.Start());
  WARD_RETURN_IF_ERROR(server.Call(kAdd, "visits", 2).status());
  WARD_RETURN_IF_ERROR(server.Call(kAdd, "visits", 3).status());
  WARD_ASSIGN_OR_RETURN(const int64_t visits, server.Call(kTotal, "visits"));
  std::cout << "The server said: " << visits << " visits\n";
  return server.Stop();
}

}  // namespace

int main() {
  const absl::Status status = Run();
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}

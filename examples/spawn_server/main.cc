// Loads an application once, and has three workers forked from it, each of
// which works as soon as it comes.

#include <iostream>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/channel/status_macros.h"
#include "ward/examples/spawn_server/spawn_server.h"
#include "ward/examples/spawn_server/worker.h"
#include "ward/server/client.h"
#include "ward/server/owner_handle.h"

namespace {

absl::Status Run() {
  absl::Time start = absl::Now();
  const auto elapsed = [&start] {
    return absl::ToDoubleMilliseconds(absl::Now() - start);
  };
  SpawnServer server;
  WARD_RETURN_IF_ERROR(server.Start());
  std::cout << "the application was loaded in " << elapsed() << " ms\n";
  start = absl::Now();
  WARD_ASSIGN_OR_RETURN(auto spawned, server.Call(kSpawn, 3));
  std::vector<ward::Client> workers;
  while (std::optional<ward::OwnerHandle> handle = spawned.Next()) {
    const double came = elapsed();
    WARD_ASSIGN_OR_RETURN(ward::Client worker,
                          ward::Client::Own(*std::move(handle)));
    WARD_ASSIGN_OR_RETURN(const auto identity, worker.Call(kIdentify));
    WARD_ASSIGN_OR_RETURN(const bool prime, worker.Call(kIsPrime, 199'999));
    std::cout << "process " << std::get<int>(identity) << " came after " << came
              << " ms; it says that 199,999 is "
              << (prime ? "a prime\n" : "no prime\n");
    workers.push_back(std::move(worker));
  }
  WARD_RETURN_IF_ERROR(spawned.status());
  // They need the spawn server no more.
  WARD_RETURN_IF_ERROR(server.Stop());
  for (ward::Client& worker : workers) {
    WARD_RETURN_IF_ERROR(worker.Call(kIsPrime, 7).status());
  }
  std::cout << "the spawn server has stopped, they go on; now they quit\n";
  return absl::OkStatus();
}

}  // namespace

int main() {
  const absl::Status status = Run();
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}

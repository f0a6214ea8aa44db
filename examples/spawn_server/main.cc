// Loads an application once, and has three workers forked from it.

#include <array>
#include <iostream>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/channel/status_macros.h"
#include "ward/examples/spawn_server/spawn_server.h"
#include "ward/examples/spawn_server/worker.h"

namespace {

absl::Status Run() {
  absl::Time start = absl::Now();
  const auto elapsed = [&start] {
    return absl::ToDoubleMilliseconds(absl::Now() - start);
  };
  SpawnServer server;
  WARD_RETURN_IF_ERROR(server.Start());
  std::cout << "the application was loaded in " << elapsed() << " ms\n";
  std::array<Worker, 3> workers;
  for (Worker& worker : workers) {
    start = absl::Now();
    WARD_RETURN_IF_ERROR(server.Spawn(
        absl::StrCat("worker ", &worker - workers.data()), worker));
    const double spawned = elapsed();
    WARD_ASSIGN_OR_RETURN(const auto identity, worker.Call(kIdentify));
    const auto& [name, load_id, pid] = identity;
    WARD_ASSIGN_OR_RETURN(const bool prime, worker.Call(kIsPrime, 199'999));
    std::cout << name << ", process " << pid << ", took " << spawned
              << " ms; it says that 199,999 is "
              << (prime ? "a prime\n" : "no prime\n");
  }
  // They need the spawn server no more.
  WARD_RETURN_IF_ERROR(server.Stop());
  for (Worker& worker : workers) {
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

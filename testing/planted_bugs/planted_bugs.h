// Servers with one bug each, of the classical kinds, to measure how soon a
// search finds them, and that it finds nothing in the same server without it.
//
// What a client cannot see of a server, the server reports in a message: so the
// same body runs in a simulation and with real processes.

#ifndef WARD_TESTING_PLANTED_BUGS_PLANTED_BUGS_H_
#define WARD_TESTING_PLANTED_BUGS_PLANTED_BUGS_H_

#include <cstddef>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ward/testing/planted_bugs/planted_server.h"

namespace ward::testing {

struct PlantedBug {
  std::string_view name;

  // Starts the server, makes calls, and stops it. An error is the bug seen.
  absl::Status (*body)(const Trial& trial);

  // What it takes for the bug to show, see ExploreOptions.
  bool faults = false;
  bool delays = false;
  size_t max_steps = 100000;
};

// By what goes wrong; each in the file of that name.
absl::Span<const PlantedBug> AtomicityBugs();
absl::Span<const PlantedBug> WaitingBugs();
absl::Span<const PlantedBug> LifetimeBugs();
absl::Span<const PlantedBug> ErrorPathBugs();

std::vector<PlantedBug> PlantedBugs();

}  // namespace ward::testing

#endif  // WARD_TESTING_PLANTED_BUGS_PLANTED_BUGS_H_

#include "ward/testing/planted_bugs/planted_bugs.h"

#include <vector>

#include "absl/types/span.h"

namespace ward::testing {

std::vector<PlantedBug> PlantedBugs() {
  std::vector<PlantedBug> all;
  for (const absl::Span<const PlantedBug> bugs :
       {AtomicityBugs(), WaitingBugs(), LifetimeBugs(), ErrorPathBugs()}) {
    all.insert(all.end(), bugs.begin(), bugs.end());
  }
  return all;
}

}  // namespace ward::testing

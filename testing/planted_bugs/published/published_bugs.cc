#include "ward/testing/planted_bugs/published/published_bugs.h"

#include <vector>

#include "absl/types/span.h"

namespace ward::testing {

std::vector<PublishedBug> PublishedBugs() {
  std::vector<PublishedBug> all;
  for (const absl::Span<const PublishedBug> bugs :
       {OrderBugs(), LockBugs(), StructureBugs()}) {
    all.insert(all.end(), bugs.begin(), bugs.end());
  }
  return all;
}

}  // namespace ward::testing

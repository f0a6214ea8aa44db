// Programs like those on which papers measure searches of schedules, each with
// one bug, to set ward's searches beside the published ones.
//
// They are of the families of SCTBench (Thomson, Donaldson and Betts,
// "Concurrency Testing Using Schedule Bounding", PPoPP 2014), written anew from
// what is said of them: how many threads there are, what these share, and what
// goes wrong. So figures may be compared, but roughly: a program of ours has
// other scheduling points than the one that it is named for.

#ifndef WARD_TESTING_PLANTED_BUGS_PUBLISHED_PUBLISHED_BUGS_H_
#define WARD_TESTING_PLANTED_BUGS_PUBLISHED_PUBLISHED_BUGS_H_

#include <string_view>
#include <vector>

#include "absl/types/span.h"

namespace ward::testing {

struct PublishedBug {
  std::string_view name;

  // Runs the program, with the bug or repaired; whether all went right. It may
  // deadlock, too.
  bool (*run)(bool repaired);

  // In how many schedules the published searches found it: means.
  std::string_view published = std::string_view();
};

// By what goes wrong; each in the file of that name.
absl::Span<const PublishedBug> OrderBugs();
absl::Span<const PublishedBug> LockBugs();
absl::Span<const PublishedBug> StructureBugs();

std::vector<PublishedBug> PublishedBugs();

}  // namespace ward::testing

#endif  // WARD_TESTING_PLANTED_BUGS_PUBLISHED_PUBLISHED_BUGS_H_

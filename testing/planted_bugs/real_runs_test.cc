// How often the bugs show in real processes, on this machine: to be set against
// the runs that a search needs. Fails for nothing but a bug in a server that
// has none.

#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/testing/planted_bugs/planted_bugs.h"

namespace ward::testing {
namespace {

constexpr int kRuns = 1000;
constexpr int kRunsOfRepaired = 20;

TEST(PlantedBugs, InRealRuns) {
  for (const PlantedBug& bug : PlantedBugs()) {
    Trial trial;
    trial.patience = absl::Seconds(1);
    int failures = 0;
    std::string first;
    for (int run = 0; run < kRuns; ++run) {
      const absl::Status status = bug.body(trial);
      if (status.ok()) continue;
      if (failures++ == 0) first = status.ToString();
    }
    std::cout << bug.name << ": " << failures << " of " << kRuns
              << " real runs. " << first << std::endl;

    trial.repaired = true;
    trial.patience = absl::Seconds(30);
    for (int run = 0; run < kRunsOfRepaired; ++run) {
      const absl::Status status = bug.body(trial);
      EXPECT_TRUE(status.ok()) << bug.name << ": " << status;
    }
  }
}

}  // namespace
}  // namespace ward::testing

// How soon each search finds each bug, and that it finds nothing without one.
// With other seeds:
//   bazel test //testing/planted_bugs:planted_bugs_test --runs_per_test=5
//       --test_output=all

#include "ward/testing/planted_bugs/planted_bugs.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "ward/testing/explore.h"
#include "ward/testing/planted_bugs/searches_for_test.h"

namespace ward::testing {
namespace {

// About three times the most that it took with any of six seeds; depth first
// has no seed, and half as much again is for other compilers. (What ABA's
// operations are about, its scheduling points do not say.)
constexpr Bounds kBounds[] = {
    {"lost update", {120, 250, 750, 30, 50, 90}},
    {"unlocked counter", {160, 200, 500, 700, 40, 90}},
    {"lock order", {60, 250, 300, 100, 40, 80}},
    {"missed wake-up", {60, 250, 1500, 80, 70, 110}},
    {"notify one", {20, 1000, 20, 20, 20, 20}},
    {"use after free", {860, 14000, 1100, 370, 380, 100}},
    {"descriptor leak", {430, 350, 550, 330, 280, 90}},
    {"double close", {2500, 7500, 50000, 800, 1200, 11500}},
    {"order at start", {30, 170, 60, 30, 25, 50}},
    {"order at stop", {85, 350, 120, 95, 30, 20}},
    {"timeout race", {1000, 1500, 5500, 1700, 400, 13000}},
    {"check then act", {120, 250, 300, 30, 50, 80}},
    {"ABA", {1200, 30000, 1500, 0, 700, 110}},
    {"short read", {1500, 2200, 1800, 800, 600, 110}},
    {"failed start", {260, 500, 500, 430, 650, 100}},
    {"double-checked", {140, 220, 300, 280, 60, 80}},
    {"two locks", {250, 500, 450, 120, 50, 80}},
    {"livelock", {130, 200, 400, 700, 65, 80}},
    {"use after unlock", {370, 2000, 4000, 60, 700, 210}},
    {"closed descriptor", {610, 1500, 3000, 200, 720, 200}},
};

// What takes more runs is looked for at length.
constexpr uint64_t kQuick = 110;

Exploration LookFor(const PlantedBug& bug, Search search, uint64_t runs,
                    bool repaired) {
  ExploreOptions options;
  options.search = search;
  options.runs = runs;
  options.faults = bug.faults;
  options.delays = bug.delays;
  options.max_steps = bug.max_steps;
  return FindFailure(options, [&] {
    const absl::Status status = bug.body({repaired});
    EXPECT_TRUE(status.ok()) << status;
  });
}

class PlantedBugsTest : public ::testing::TestWithParam<PlantedBug> {};

TEST_P(PlantedBugsTest, IsFoundReplayedAndSimplified) {
  const PlantedBug& bug = GetParam();
  RunsOfSearches runs = BoundsOf(kBounds, bug.name);
  for (uint64_t& bound : runs) {
    if (!AtLength() && bound > kQuick) bound = 0;
  }
  ExpectFound(bug.name, runs, [&](Search search, uint64_t most) {
    return LookFor(bug, search, most, /*repaired=*/false);
  });
}

TEST_P(PlantedBugsTest, IsNotFoundWhereItIsRepaired) {
  const PlantedBug& bug = GetParam();
  RunsOfSearches runs = BoundsOf(kBounds, bug.name);
  constexpr uint64_t kFew = 5;
  for (uint64_t& bound : runs) {
    bound = AtLength() ? std::max<uint64_t>(bound, 1) : kFew;
  }
  ExpectNotFound(bug.name, runs, [&](Search search, uint64_t most) {
    return LookFor(bug, search, most, /*repaired=*/true);
  });
}

INSTANTIATE_TEST_SUITE_P(All, PlantedBugsTest,
                         ::testing::ValuesIn(PlantedBugs()),
                         [](const ::testing::TestParamInfo<PlantedBug>& info) {
                           std::string name(info.param.name);
                           name.erase(std::remove_if(name.begin(), name.end(),
                                                     [](unsigned char c) {
                                                       return !isalnum(c);
                                                     }),
                                      name.end());
                           return name;
                         });

}  // namespace
}  // namespace ward::testing

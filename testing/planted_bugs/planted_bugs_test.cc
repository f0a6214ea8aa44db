// How soon each search finds each bug, and that it finds nothing without one.
// With other seeds:
//   bazel test //testing/planted_bugs:planted_bugs_test --runs_per_test=5
//       --test_output=all

#include "ward/testing/planted_bugs/planted_bugs.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/explore.h"

namespace ward::testing {
namespace {

struct SearchName {
  Search search;
  const char* name;
};
constexpr std::array<SearchName, 3> kSearches = {{
    {Search::kRandom, "random"},
    {Search::kPct, "PCT"},
    {Search::kDepthFirst, "depth first"},
}};

// Within how many runs each search must find it: about three times the most
// that it took with any of six seeds; depth first has no seed, and half as much
// again is for other compilers.
struct Bounds {
  std::string_view bug;
  std::array<uint64_t, kSearches.size()> runs;
};
constexpr Bounds kBounds[] = {
    {"lost update", {250, 750, 90}},
    {"unlocked counter", {200, 500, 90}},
    {"lock order", {250, 300, 80}},
    {"missed wake-up", {250, 1500, 110}},
    {"notify one", {1000, 20, 20}},
    {"use after free", {14000, 1100, 100}},
    {"descriptor leak", {350, 550, 90}},
    {"double close", {7500, 50000, 11500}},
    {"order at start", {170, 60, 50}},
    {"order at stop", {350, 120, 20}},
    {"timeout race", {1500, 5500, 13000}},
    {"check then act", {250, 300, 80}},
    {"ABA", {30000, 1500, 110}},
    {"short read", {2200, 1800, 110}},
    {"failed start", {500, 500, 100}},
    {"double-checked", {220, 300, 80}},
    {"two locks", {500, 450, 80}},
    {"livelock", {200, 400, 80}},
    {"use after unlock", {2000, 4000, 210}},
    {"closed descriptor", {1500, 3000, 200}},
};

// What takes more runs than this is looked for with
// --test_env=WARD_AT_LENGTH=1, as .ci/run does.
uint64_t MostRuns() {
  constexpr uint64_t kQuick = 110;
  return EnvironmentNumber("WARD_AT_LENGTH", 0) != 0 ? UINT64_MAX : kQuick;
}

// At length as many as find the bug.
uint64_t RunsOfRepaired(uint64_t bound) {
  constexpr uint64_t kQuick = 5;
  return MostRuns() == UINT64_MAX ? bound : kQuick;
}

const Bounds& BoundsOf(const PlantedBug& bug) {
  const auto* const bounds =
      std::find_if(std::begin(kBounds), std::end(kBounds),
                   [&](const Bounds& entry) { return entry.bug == bug.name; });
  if (bounds == std::end(kBounds)) {
    std::cerr << "kBounds has no entry for \"" << bug.name << "\"" << std::endl;
    std::abort();
  }
  return *bounds;
}

Exploration Look(const PlantedBug& bug, Search search, uint64_t runs,
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
  const Bounds& bounds = BoundsOf(bug);
  bool looked = false;
  for (size_t i = 0; i < kSearches.size(); ++i) {
    std::cout << bug.name << ", " << kSearches[i].name << ": ";
    if (bounds.runs[i] > MostRuns()) {
      std::cout << "not looked for in so few runs" << std::endl;
      continue;
    }
    looked = true;
    const Exploration exploration =
        Look(bug, kSearches[i].search, bounds.runs[i], /*repaired=*/false);
    if (!exploration.failure.has_value()) {
      ADD_FAILURE() << bug.name << " was not found by " << kSearches[i].name
                    << " in " << exploration.runs << " runs";
      continue;
    }
    const Exploration::Failure& failure = *exploration.failure;
    std::cout << "found by run " << failure.run + 1 << ", with "
              << failure.found.size() << " deviations, simplified to "
              << failure.deviations.size() << std::endl;
    EXPECT_TRUE(failure.replayed) << bug.name << ", " << kSearches[i].name;
    EXPECT_LE(failure.deviations.size(), failure.found.size());
    EXPECT_NE(failure.what, "");
  }
  if (!looked) GTEST_SKIP() << "It takes more runs: WARD_AT_LENGTH=1";
}

TEST_P(PlantedBugsTest, IsNotFoundWhereItIsRepaired) {
  const PlantedBug& bug = GetParam();
  const Bounds& bounds = BoundsOf(bug);
  for (size_t i = 0; i < kSearches.size(); ++i) {
    const Exploration exploration =
        Look(bug, kSearches[i].search, RunsOfRepaired(bounds.runs[i]),
             /*repaired=*/true);
    if (!exploration.failure.has_value()) continue;
    ADD_FAILURE() << bug.name << ", repaired, " << kSearches[i].name << ": "
                  << exploration.failure->what << "\n"
                  << exploration.failure->transcript;
  }
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

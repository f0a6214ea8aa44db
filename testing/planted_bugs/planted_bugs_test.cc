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
#include "ward/testing/search/portfolio.h"

namespace ward::testing {
namespace {

constexpr std::array<Search, 6> kSearches = {
    Search::kRandom, Search::kPct,        Search::kPos,
    Search::kSurw,   Search::kDepthFirst, Search::kPortfolio};

// Within how many runs each search must find it: about three times the most
// that it took with any of six seeds; depth first has no seed, and half as much
// again is for other compilers. 0: it is not looked for. (What ABA's operations
// are about, its scheduling points do not say.)
struct Bounds {
  std::string_view bug;
  std::array<uint64_t, kSearches.size()> runs;
};
constexpr Bounds kBounds[] = {
    {"lost update", {250, 750, 30, 50, 90, 120}},
    {"unlocked counter", {200, 500, 700, 40, 90, 160}},
    {"lock order", {250, 300, 100, 40, 80, 60}},
    {"missed wake-up", {250, 1500, 80, 70, 110, 60}},
    {"notify one", {1000, 20, 20, 20, 20, 20}},
    {"use after free", {14000, 1100, 370, 380, 100, 860}},
    {"descriptor leak", {350, 550, 330, 280, 90, 430}},
    {"double close", {7500, 50000, 800, 1200, 11500, 2500}},
    {"order at start", {170, 60, 30, 25, 50, 30}},
    {"order at stop", {350, 120, 95, 30, 20, 85}},
    {"timeout race", {1500, 5500, 1700, 400, 13000, 1000}},
    {"check then act", {250, 300, 30, 50, 80, 120}},
    {"ABA", {30000, 1500, 0, 700, 110, 1200}},
    {"short read", {2200, 1800, 800, 600, 110, 1500}},
    {"failed start", {500, 500, 430, 650, 100, 260}},
    {"double-checked", {220, 300, 280, 60, 80, 140}},
    {"two locks", {500, 450, 120, 50, 80, 250}},
    {"livelock", {200, 400, 700, 65, 80, 130}},
    {"use after unlock", {2000, 4000, 60, 700, 210, 370}},
    {"closed descriptor", {1500, 3000, 200, 720, 200, 610}},
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
    const std::string_view search = NameOf(kSearches[i]);
    std::cout << bug.name << ", " << search << ": ";
    if (bounds.runs[i] == 0 || bounds.runs[i] > MostRuns()) {
      std::cout << "not looked for in so few runs" << std::endl;
      continue;
    }
    looked = true;
    const Exploration exploration =
        Look(bug, kSearches[i], bounds.runs[i], /*repaired=*/false);
    if (!exploration.failure.has_value()) {
      ADD_FAILURE() << bug.name << " was not found by " << search << " in "
                    << exploration.runs << " runs";
      continue;
    }
    const Exploration::Failure& failure = *exploration.failure;
    std::cout << "found by run " << failure.run + 1 << ", with "
              << failure.found.size() << " deviations, simplified to "
              << failure.deviations.size() << std::endl;
    EXPECT_TRUE(failure.replayed) << bug.name << ", " << search;
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
        Look(bug, kSearches[i],
             RunsOfRepaired(std::max<uint64_t>(bounds.runs[i], 1)),
             /*repaired=*/true);
    if (!exploration.failure.has_value()) continue;
    ADD_FAILURE() << bug.name << ", repaired, " << NameOf(kSearches[i]) << ": "
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

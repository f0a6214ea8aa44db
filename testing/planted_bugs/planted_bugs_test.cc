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

// Not looked for: it takes more runs than a test of this size can make.
// - At random: a thread has to stand still while others make several calls, and
//   each of their steps halves the chance.
// - "double close", PCT: it takes more switches than the default depth has.
// - Depth first: it takes two deviations or more, of which there are tens of
//   thousands, or, with delays, hundreds of thousands.
constexpr uint64_t kTooRare = 0;

// Within how many runs each search must find it: about three times the most
// that it took with any of several seeds.
struct Bounds {
  std::string_view bug;
  std::array<uint64_t, kSearches.size()> runs;
};
constexpr Bounds kBounds[] = {
    {"lost update", {60, 100, 600}},
    {"unlocked counter", {60, 700, 600}},
    {"lock order", {250, 550, 550}},
    {"missed wake-up", {150, 3000, 850}},
    {"notify one", {150, 2700, 10}},
    {"use after free", {kTooRare, 800, kTooRare}},
    {"descriptor leak", {100, 200, 270}},
    {"double close", {2500, kTooRare, kTooRare}},
    {"order at start", {6000, 50, 550}},
    {"order at stop", {kTooRare, 100, 3000}},
    {"timeout race", {1500, 4000, kTooRare}},
    {"check then act", {80, 250, 700}},
    {"ABA", {kTooRare, 6500, kTooRare}},
    {"short read", {300, 850, 500}},
    {"failed start", {100, 200, 300}},
    {"double-checked", {50, 50, 550}},
    {"two locks", {2700, 2000, kTooRare}},
    {"livelock", {60, 600, 550}},
};

// What takes more runs than this is looked for with --test_env=WARD_AT_LENGTH=1,
// as .ci/run does.
uint64_t MostRuns() {
  constexpr uint64_t kQuick = 100;
  return EnvironmentNumber("WARD_AT_LENGTH", 0) != 0 ? UINT64_MAX : kQuick;
}

uint64_t RunsOfRepaired() { return std::min<uint64_t>(MostRuns() / 10, 50); }

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
  const auto* const bounds =
      std::find_if(std::begin(kBounds), std::end(kBounds),
                   [&](const Bounds& entry) { return entry.bug == bug.name; });
  ASSERT_NE(bounds, std::end(kBounds)) << bug.name;
  for (size_t i = 0; i < kSearches.size(); ++i) {
    std::cout << bug.name << ", " << kSearches[i].name << ": ";
    if (bounds->runs[i] == kTooRare || bounds->runs[i] > MostRuns()) {
      std::cout << "not looked for" << std::endl;
      continue;
    }
    const Exploration exploration =
        Look(bug, kSearches[i].search, bounds->runs[i], /*repaired=*/false);
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
}

TEST_P(PlantedBugsTest, IsNotFoundWhereItIsRepaired) {
  const PlantedBug& bug = GetParam();
  for (const auto& [search, name] : kSearches) {
    const Exploration exploration =
        Look(bug, search, RunsOfRepaired(), /*repaired=*/true);
    if (!exploration.failure.has_value()) continue;
    ADD_FAILURE() << bug.name << ", repaired, " << name << ": "
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

// How soon each search finds the bug of each program, and that the portfolio
// finds nothing without it. As a table, of 20 seeds:
//   bazel test -c opt //testing/planted_bugs:programs_test --test_output=all
//       --test_env=WARD_AT_LENGTH=1

#include "ward/testing/planted_bugs/programs.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/search/exploration.h"
#include "ward/testing/search/make_runs.h"
#include "ward/testing/search/portfolio.h"

namespace ward::testing {
namespace {

constexpr std::array<Search, 6> kSearches = {
    Search::kRandom, Search::kPct,        Search::kPos,
    Search::kSurw,   Search::kDepthFirst, Search::kPortfolio};

// Within how many runs each search must find it, with some room: about three
// times the most that it took with any of 20 seeds. 0: it is not looked for, as
// it takes too many.
struct Bounds {
  std::string_view program;
  std::array<uint64_t, kSearches.size()> runs;
};
constexpr Bounds kBounds[] = {
    {"reorder_3", {130, 120, 85, 30, 25, 80}},
    {"reorder_5", {950, 800, 225, 40, 60, 80}},
    {"reorder_10", {6000, 6000, 7000, 100, 230, 230}},
    {"reorder_20", {0, 0, 0, 250, 900, 650}},
    {"reorder_50", {0, 0, 0, 900, 0, 2500}},
    {"reorder_100", {0, 0, 0, 2000, 0, 5000}},
    {"twostage_3", {140, 180, 75, 30, 35, 70}},
    {"twostage_20", {0, 0, 0, 170, 1500, 450}},
    {"twostage_100", {0, 0, 0, 2000, 0, 5000}},
    {"wronglock_2", {350, 200, 150, 120, 20, 200}},
    {"wronglock_8", {90, 400, 45, 90, 230, 85}},
    {"philosophers_3", {75, 330, 110, 30, 40, 70}},
    {"philosophers_5", {500, 4200, 1400, 30, 3800, 70}},
    {"close_twice", {150, 1000, 450, 240, 80, 300}},
    {"reused_slot", {140, 350, 560, 600, 520, 300}},
};

bool AtLength() { return EnvironmentNumber("WARD_AT_LENGTH", 0) != 0; }

const Bounds& BoundsOf(const Program& program) {
  const auto* const bounds = std::find_if(
      std::begin(kBounds), std::end(kBounds),
      [&](const Bounds& entry) { return entry.program == program.name; });
  if (bounds == std::end(kBounds)) {
    std::cerr << "kBounds has no entry for " << program.name << std::endl;
    std::abort();
  }
  return *bounds;
}

Exploration Look(const Program& program, Search search, uint64_t runs,
                 uint64_t seed, bool repaired) {
  ExploreOptions options;
  options.search = search;
  options.runs = runs;
  return MakeRuns(
      options, seed << 40,
      [](const Exploration::Failure&) { return std::string(); },
      [&] { program.body(repaired); });
}

class ProgramsTest : public ::testing::TestWithParam<Program> {};

TEST_P(ProgramsTest, IsFoundAndSimplified) {
  constexpr uint64_t kQuick = 500;
  // So that there are as many to make it simpler.
  constexpr uint64_t kRuns = 2500;
  const Program& program = GetParam();
  const Bounds& bounds = BoundsOf(program);
  bool looked = false;
  for (size_t i = 0; i < kSearches.size(); ++i) {
    if (bounds.runs[i] == 0 || (!AtLength() && bounds.runs[i] > kQuick)) {
      continue;
    }
    looked = true;
    const Search search = kSearches[i];
    // Depth first has no seed.
    const uint64_t seeds = search == Search::kDepthFirst ? 1
                           : AtLength()                  ? 20
                                                         : 1;
    std::vector<uint64_t> found;
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
      const Exploration exploration =
          Look(program, search, std::max(kRuns, bounds.runs[i]), seed,
               /*repaired=*/false);
      if (!exploration.failure.has_value()) {
        ADD_FAILURE() << program.name << " was not found by " << NameOf(search)
                      << " in " << exploration.runs << " runs, seed " << seed;
        continue;
      }
      const Exploration::Failure& failure = *exploration.failure;
      found.push_back(failure.run + 1);
      EXPECT_LE(found.back(), bounds.runs[i]) << NameOf(search) << " " << seed;
      EXPECT_TRUE(failure.replayed) << NameOf(search);
      EXPECT_LE(failure.deviations.size(), 3u) << NameOf(search);
      if (search == Search::kPortfolio) continue;
      EXPECT_EQ(failure.search, search);
    }
    if (found.empty()) continue;
    std::sort(found.begin(), found.end());
    std::cout << program.name << ", " << NameOf(search) << ": "
              << found[found.size() / 2] << " runs, at worst " << found.back()
              << std::endl;
  }
  if (!looked) GTEST_SKIP() << "It takes more runs: WARD_AT_LENGTH=1";
}

TEST_P(ProgramsTest, IsNotFoundWhereItIsRepaired) {
  const Exploration exploration =
      Look(GetParam(), Search::kPortfolio, AtLength() ? 500 : 16, /*seed=*/1,
           /*repaired=*/true);
  EXPECT_FALSE(exploration.failure.has_value()) << exploration.failure->what;
}

INSTANTIATE_TEST_SUITE_P(All, ProgramsTest, ::testing::ValuesIn(Programs()),
                         [](const ::testing::TestParamInfo<Program>& info) {
                           std::string name = info.param.name;
                           name.erase(
                               std::remove(name.begin(), name.end(), '_'),
                               name.end());
                           return name;
                         });

}  // namespace
}  // namespace ward::testing

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
constexpr Bounds kBounds[] = {BOUNDS};

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
          Look(program, search, bounds.runs[i], seed, /*repaired=*/false);
      if (!exploration.failure.has_value()) {
        ADD_FAILURE() << program.name << " was not found by " << NameOf(search)
                      << " in " << exploration.runs << " runs, seed " << seed;
        continue;
      }
      const Exploration::Failure& failure = *exploration.failure;
      found.push_back(failure.run + 1);
      EXPECT_TRUE(failure.replayed) << NameOf(search);
      EXPECT_LE(failure.deviations.size(), 3u) << NameOf(search);
      if (search != Search::kPortfolio) EXPECT_EQ(failure.search, search);
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
      Look(GetParam(), Search::kPortfolio, AtLength() ? 2000 : 40, /*seed=*/1,
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

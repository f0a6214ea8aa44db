// How soon each search finds each bug, and that it finds nothing in the same
// programs repaired. With other seeds: --runs_per_test=5. The table of
// docs/testing.md, of 20 seeds, with at most WARD_RUNS (default: 10,000) runs
// for each:
//   bazel test -c opt //testing/planted_bugs/published:published_bugs_test
//       --test_output=all --test_env=WARD_SEEDS=20 --test_filter='*Table*'
// With --test_env=WARD_SEARCH=SURW of that search alone.

#include "ward/testing/planted_bugs/published/published_bugs.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/explore.h"
#include "ward/testing/planted_bugs/searches_for_test.h"
#include "ward/testing/search/make_runs.h"
#include "ward/testing/search/portfolio.h"

namespace ward::testing {
namespace {

// About twice the most that it took with any of 20 seeds; depth first has no
// seed, and half as much again is for other compilers. 0: it is not known to
// find it.
constexpr Bounds kBounds[] = {
    {"reorder_5", {130, 1100, 600, 310, 50, 60}},
    {"reorder_10", {330, 9600, 7400, 0, 130, 230}},
    {"reorder_100", {2500, 0, 0, 0, 900, 0}},
    {"twostage_2", {70, 60, 60, 40, 50, 10}},
    {"twostage_20", {310, 0, 16000, 0, 120, 1500}},
    {"twostage_100", {2000, 0, 0, 0, 800, 0}},
    {"wronglock_3", {65, 45, 130, 35, 55, 60}},
    {"wronglock", {40, 20, 160, 25, 30, 230}},
    {"bluetooth_driver", {120, 700, 170, 180, 160, 10}},
    {"lazy", {5, 10, 5, 5, 5, 5}},
    {"token_ring", {60, 35, 70, 25, 30, 70}},
    {"account", {5, 10, 5, 5, 5, 5}},
    {"fsbench", {5, 20, 30, 10, 5, 25}},
    {"deadlock", {35, 25, 50, 40, 20, 10}},
    {"din_phil3", {60, 140, 110, 90, 20, 40}},
    {"din_phil7", {270, 3800, 0, 3000, 100, 0}},
    {"carter", {55, 30, 30, 20, 25, 10}},
    {"sync", {290, 80, 800, 180, 430, 260}},
    {"bounded_buffer", {90, 90, 190, 60, 35, 25}},
    {"stringbuffer", {300, 100, 0, 130, 150, 50}},
    {"circular_buffer", {25, 10, 30, 10, 5, 115}},
    {"queue", {40, 75, 40, 30, 35, 15}},
    {"stack", {25, 20, 30, 20, 25, 30}},
    {"work_stealing", {330, 90, 150, 120, 380, 55}},
    {"qsort_mt", {390, 10000, 820, 360, 470, 20}},
    {"safestack", {0, 0, 0, 0, 0, 0}},
    {"close_twice", {340, 150, 1000, 450, 240, 80}},
    {"reused_slot", {400, 140, 350, 560, 600, 520}},
};

Exploration LookFor(const PublishedBug& bug, Search search, uint64_t runs,
                    uint64_t seed, bool repaired) {
  ExploreOptions options;
  options.search = search;
  options.runs = runs;
  // As FindFailure() has them with --runs_per_test.
  constexpr int kRoomForRuns = 48;
  return MakeRuns(
      options, seed << kRoomForRuns,
      [](const Exploration::Failure& failure) {
        return absl::StrCat("run ", failure.run);
      },
      [&] { EXPECT_TRUE(bug.run(repaired)) << bug.name; });
}

class PublishedBugsTest : public ::testing::TestWithParam<PublishedBug> {};

// Not at length by the default search alone, which is the first; and what takes
// it many runs is not looked for.
TEST_P(PublishedBugsTest, IsFoundReplayedAndSimplified) {
  const PublishedBug& bug = GetParam();
  RunsOfSearches runs = BoundsOf(kBounds, bug.name);
  constexpr uint64_t kQuick = 300;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (!AtLength() && (i > 0 || runs[i] > kQuick)) runs[i] = 0;
  }
  ExpectFound(bug.name, runs, [&](Search search, uint64_t most) {
    return LookFor(bug, search, most, RunNumber(), /*repaired=*/false);
  });
}

TEST_P(PublishedBugsTest, IsNotFoundWhereItIsRepaired) {
  const PublishedBug& bug = GetParam();
  RunsOfSearches runs = BoundsOf(kBounds, bug.name);
  constexpr uint64_t kFewest = 500;
  constexpr uint64_t kQuick = 10;
  for (size_t i = 0; i < runs.size(); ++i) {
    runs[i] = AtLength() ? std::max(runs[i], kFewest) : i == 0 ? kQuick : 0;
  }
  ExpectNotFound(bug.name, runs, [&](Search search, uint64_t most) {
    return LookFor(bug, search, most, RunNumber(), /*repaired=*/true);
  });
}

uint64_t Seeds() { return EnvironmentNumber("WARD_SEEDS", 0); }

class PublishedBugsTable : public PublishedBugsTest {
 protected:
  static void SetUpTestSuite() {
    std::cout << "Runs to the bug, median and worst of " << Seeds()
              << " seeds; runs a second of the repaired program\n| program |";
    for (const Search search : kSearches) {
      if (IsAskedFor(search)) std::cout << " " << NameOf(search) << " |";
    }
    std::cout << " runs/s | published means |\n";
  }

  static uint64_t Limit() { return EnvironmentNumber("WARD_RUNS", 10000); }

  static uint64_t RunsToBug(const PublishedBug& bug, Search search,
                            uint64_t seed) {
    const Exploration found =
        LookFor(bug, search, Limit(), seed, /*repaired=*/false);
    return found.failure.has_value() ? found.failure->run + 1 : UINT64_MAX;
  }

  static std::string Show(uint64_t runs) {
    return runs == UINT64_MAX ? absl::StrCat("> ", Limit())
                              : absl::StrCat(runs);
  }
};

TEST_P(PublishedBugsTable, IsPrinted) {
  const PublishedBug& bug = GetParam();
  std::string row = absl::StrCat("| ", bug.name, " |");
  for (const Search search : kSearches) {
    if (!IsAskedFor(search)) continue;
    std::vector<uint64_t> runs;
    // Depth first has none.
    const uint64_t seeds = search == Search::kDepthFirst ? 1 : Seeds();
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
      runs.push_back(RunsToBug(bug, search, seed));
    }
    std::sort(runs.begin(), runs.end());
    absl::StrAppend(&row, " ", Show(runs[(runs.size() - 1) / 2]));
    if (seeds > 1) absl::StrAppend(&row, ", ", Show(runs.back()));
    absl::StrAppend(&row, " |");
  }
  const Exploration clean = LookFor(bug, ExploreOptions().search, Limit(),
                                    /*seed=*/1, /*repaired=*/true);
  EXPECT_FALSE(clean.failure.has_value()) << bug.name;
  const double rate =
      static_cast<double>(clean.runs) / absl::ToDoubleSeconds(clean.time);
  std::cout << row << " " << static_cast<uint64_t>(rate) << " | "
            << bug.published << " |" << std::endl;
}

std::string TestNameOf(const ::testing::TestParamInfo<PublishedBug>& info) {
  return std::string(info.param.name);
}

INSTANTIATE_TEST_SUITE_P(All, PublishedBugsTest,
                         ::testing::ValuesIn(PublishedBugs()), TestNameOf);
// It is printed only if it is asked for.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(PublishedBugsTable);
INSTANTIATE_TEST_SUITE_P(All, PublishedBugsTable,
                         ::testing::ValuesIn(Seeds() == 0
                                                 ? std::vector<PublishedBug>()
                                                 : PublishedBugs()),
                         TestNameOf);

}  // namespace
}  // namespace ward::testing

#include "ward/testing/search/portfolio.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "gtest/gtest.h"
#include "ward/testing/search/exploration.h"

namespace ward::testing {
namespace {

constexpr uint64_t kRuns = uint64_t{8} * 7 * 1000;

TEST(TurnOf, IsTheSearchsOwnIfItIsAskedForAlone) {
  for (const Search search : {Search::kRandom, Search::kDepthFirst}) {
    EXPECT_EQ(TurnOf(search, 17).search, search);
    EXPECT_EQ(TurnOf(search, 17).number, 17u);
  }
}

TEST(TurnOf, GivesEachSearchItsRunsOneAfterTheOther) {
  std::map<Search, uint64_t> next;
  for (uint64_t run = 0; run < kRuns; ++run) {
    const Turn turn = TurnOf(Search::kPortfolio, run);
    ASSERT_EQ(turn.number, next[turn.search]++);
  }
  EXPECT_EQ(next, (std::map<Search, uint64_t>{{Search::kDepthFirst, kRuns / 8},
                                              {Search::kRandom, kRuns / 4},
                                              {Search::kPct, kRuns / 8},
                                              {Search::kPos, kRuns / 8},
                                              {Search::kSurw, 3 * kRuns / 8}}));
}

TEST(TurnOf, BeginsWithTheDullRun) {
  EXPECT_EQ(TurnOf(Search::kPortfolio, 0).search, Search::kDepthFirst);
}

TEST(OwnerOf, SharesRunsEquallyButThoseThatAreDepthFirst) {
  for (size_t workers = 1; workers <= 8; ++workers) {
    for (const Search search : {Search::kRandom, Search::kPortfolio}) {
      std::vector<uint64_t> made(workers);
      for (uint64_t run = 0; run < kRuns; ++run) {
        const size_t owner = OwnerOf(search, run, workers);
        ASSERT_LT(owner, workers);
        ++made[owner];
        if (TurnOf(search, run).search == Search::kDepthFirst) {
          ASSERT_EQ(owner, 0u);
        }
      }
      for (const uint64_t runs : made) {
        EXPECT_NEAR(runs, 1.0 * kRuns / workers, 100) << workers << " workers";
      }
    }
  }
}

TEST(OwnerOf, LeavesTheFirstOneNothingElseWhereThereAreMany) {
  for (uint64_t run = 0; run < 1000; ++run) {
    EXPECT_EQ(OwnerOf(Search::kPortfolio, run, 20) == 0, run % 8 == 0);
  }
}

}  // namespace
}  // namespace ward::testing

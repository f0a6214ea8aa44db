#include "ward/testing/search/portfolio.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "ward/testing/search/exploration.h"
#include "ward/testing/search/pairs.h"

namespace ward::testing {
namespace {

// Rounds, times each number of workers.
constexpr uint64_t kRuns = uint64_t{16} * 60 * 60;

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
  EXPECT_EQ(next, (std::map<Search, uint64_t>{{Search::kDepthFirst, kRuns / 16},
                                              {Search::kRandom, kRuns / 16},
                                              {Search::kPct, kRuns / 16},
                                              {Search::kPos, kRuns / 16},
                                              {Search::kPairs, kRuns / 2},
                                              {Search::kSurw, kRuns / 4}}));
}

// It was made before, for a profile.
TEST(TurnOf, DoesNotBeginWithTheDullRun) {
  EXPECT_NE(TurnOf(Search::kPortfolio, 0).search, Search::kDepthFirst);
}

TEST(OwnerOf, SharesRunsEquallyAndGivesThoseThatGoByEarlierOnesToOne) {
  for (size_t workers = 1; workers <= 8; ++workers) {
    for (const Search search : {Search::kRandom, Search::kPortfolio}) {
      std::vector<uint64_t> made(workers);
      std::map<std::pair<Search, uint64_t>, size_t> owners;
      for (uint64_t run = 0; run < kRuns; ++run) {
        const size_t owner = OwnerOf(search, run, workers);
        ASSERT_LT(owner, workers);
        ++made[owner];
        const auto [own, number] = TurnOf(search, run);
        if (!GoesByEarlierRuns(own)) continue;
        const uint64_t lane = own == Search::kPairs ? number % kPairsLanes : 0;
        const std::pair<Search, uint64_t> of(own, lane);
        ASSERT_EQ(owners.try_emplace(of, owner).first->second, owner);
      }
      for (const uint64_t runs : made) {
        EXPECT_NEAR(runs, 1.0 * kRuns / workers, 100) << workers << " workers";
      }
    }
  }
}

TEST(OwnerOf, LeavesThatOneNothingElseWhereThereAreMany) {
  for (uint64_t run = 0; run < 1000; ++run) {
    EXPECT_EQ(OwnerOf(Search::kPortfolio, run, 20) < 1 + kPairsLanes,
              GoesByEarlierRuns(TurnOf(Search::kPortfolio, run).search));
  }
}

}  // namespace
}  // namespace ward::testing

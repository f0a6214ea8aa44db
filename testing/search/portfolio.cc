#include "ward/testing/search/portfolio.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ward/testing/search/exploration.h"
#include "ward/testing/search/pairs.h"

namespace ward::testing {
namespace {

// The more for a search the more it has found of what was looked for so far
// (docs/testing.md), and the sooner. The dull run, with which depth first
// begins, was made before.
constexpr std::array<Search, 16> kTurns = {
    Search::kPairs, Search::kSurw,   Search::kPairs, Search::kPairs,
    Search::kPos,   Search::kPairs,  Search::kPairs, Search::kSurw,
    Search::kPairs, Search::kRandom, Search::kPairs, Search::kPairs,
    Search::kSurw,  Search::kPct,    Search::kSurw,  Search::kDepthFirst};

// So many of a round's turns are the search's, before turn `end`.
constexpr size_t CountOf(Search search, size_t end) {
  size_t count = 0;
  for (size_t i = 0; i < end; ++i) count += kTurns[i] == search ? 1 : 0;
  return count;
}

// Those of searches that go by earlier runs.
constexpr size_t kOfDepthFirst = CountOf(Search::kDepthFirst, kTurns.size());
constexpr size_t kOfLane = CountOf(Search::kPairs, kTurns.size()) / kPairsLanes;
constexpr size_t kOthers =
    kTurns.size() - kOfDepthFirst - kPairsLanes * kOfLane;

// Who makes the runs of a lane; those that are depth first are worker 0's.
size_t OwnerOfLane(size_t lane, size_t workers) { return (1 + lane) % workers; }

}  // namespace

bool GoesByEarlierRuns(Search search) {
  return search == Search::kDepthFirst || search == Search::kPairs;
}

std::string_view NameOf(Search search) {
  switch (search) {
    case Search::kPortfolio:
      return "portfolio";
    case Search::kRandom:
      return "random";
    case Search::kPct:
      return "PCT";
    case Search::kPos:
      return "POS";
    case Search::kSurw:
      return "SURW";
    case Search::kPairs:
      return "pairs";
    case Search::kDepthFirst:
      return "depth first";
  }
  return "";
}

Turn TurnOf(Search search, uint64_t run) {
  if (search != Search::kPortfolio) return {search, run};
  const size_t turn = run % kTurns.size();
  const Search own = kTurns[turn];
  return {own, run / kTurns.size() * CountOf(own, kTurns.size()) +
                   CountOf(own, turn)};
}

size_t OwnerOf(Search search, uint64_t run, size_t workers) {
  if (search != Search::kPortfolio) return run % workers;
  const auto [own, number] = TurnOf(search, run);
  if (workers == 1 || own == Search::kDepthFirst) return 0;
  if (own == Search::kPairs) return OwnerOfLane(number % kPairsLanes, workers);
  // In so many rounds as there are workers, each makes as many runs as there
  // are turns: the first ones have some in each round already.
  const size_t turn = run % kTurns.size();
  const size_t before =
      turn - CountOf(Search::kDepthFirst, turn) - CountOf(Search::kPairs, turn);
  uint64_t place =
      (run / kTurns.size() * kOthers + before) % (kOthers * workers);
  const size_t have_some = std::min(workers, 1 + kPairsLanes);
  for (size_t worker = 0; worker < have_some; ++worker) {
    size_t has = worker == 0 ? kOfDepthFirst : 0;
    for (size_t lane = 0; lane < kPairsLanes; ++lane) {
      if (OwnerOfLane(lane, workers) == worker) has += kOfLane;
    }
    const size_t rest = kTurns.size() - std::min(workers * has, kTurns.size());
    if (place < rest) return worker;
    place -= rest;
  }
  return have_some == workers ? place % workers
                              : have_some + place % (workers - have_some);
}

}  // namespace ward::testing

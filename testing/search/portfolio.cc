#include "ward/testing/search/portfolio.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ward/testing/search/exploration.h"

namespace ward::testing {
namespace {

// The more for a search the more it has found of what was looked for so far
// (docs/testing.md). The first one's is kDepthFirst's, and no other.
constexpr std::array<Search, 8> kTurns = {
    Search::kDepthFirst, Search::kSurw, Search::kRandom, Search::kPos,
    Search::kSurw,       Search::kPct,  Search::kSurw,   Search::kRandom};

}  // namespace

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
    case Search::kDepthFirst:
      return "depth first";
  }
  return "";
}

Turn TurnOf(Search search, uint64_t run) {
  if (search != Search::kPortfolio) return {search, run};
  const size_t turn = run % kTurns.size();
  uint64_t before = 0;
  uint64_t each = 0;
  for (size_t i = 0; i < kTurns.size(); ++i) {
    if (kTurns[i] != kTurns[turn]) continue;
    ++each;
    if (i < turn) ++before;
  }
  return {kTurns[turn], run / kTurns.size() * each + before};
}

size_t OwnerOf(Search search, uint64_t run, size_t workers) {
  if (search != Search::kPortfolio) return run % workers;
  constexpr size_t kOthers = kTurns.size() - 1;
  const size_t turn = run % kTurns.size();
  if (turn == 0 || workers == 1) return 0;
  // In so many rounds as there are workers, each makes as many runs as there
  // are turns: the first one has one in each round already.
  const size_t of_first = workers < kTurns.size() ? kTurns.size() - workers : 0;
  const uint64_t place =
      (run / kTurns.size() * kOthers + turn - 1) % (kOthers * workers);
  if (place < of_first) return 0;
  return 1 + (place - of_first) % (workers - 1);
}

}  // namespace ward::testing

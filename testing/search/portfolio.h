// Whose turn it is among several searches. For this folder's sources.

#ifndef WARD_TESTING_SEARCH_PORTFOLIO_H_
#define WARD_TESTING_SEARCH_PORTFOLIO_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ward/testing/search/exploration.h"

namespace ward::testing {

// The search whose run it is, and which of its own runs.
struct Turn {
  Search search;
  uint64_t number;
};

// As reports call it.
std::string_view NameOf(Search search);

// Of run `run` of `search`, which may be kPortfolio.
Turn TurnOf(Search search, uint64_t run);

// Whether what a run is depends on those of the same search before it, which
// one process knows.
bool GoesByEarlierRuns(Search search);

// Which of `workers` makes it: all make as many runs, as far as those of a
// search that goes by earlier ones leave room for that: they are one worker's.
// So each run is the same however many there are.
size_t OwnerOf(Search search, uint64_t run, size_t workers);

}  // namespace ward::testing

#endif  // WARD_TESTING_SEARCH_PORTFOLIO_H_

// What measures the searches on this folder's bugs, and on those of published/.

#ifndef WARD_TESTING_PLANTED_BUGS_SEARCHES_FOR_TEST_H_
#define WARD_TESTING_PLANTED_BUGS_SEARCHES_FOR_TEST_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/search/exploration.h"
#include "ward/testing/search/portfolio.h"

namespace ward::testing {

// The default first.
inline constexpr std::array<Search, 7> kSearches = {
    Search::kPortfolio, Search::kRandom,     Search::kPct,  Search::kPos,
    Search::kSurw,      Search::kDepthFirst, Search::kPairs};

// Of each of these.
using RunsOfSearches = std::array<uint64_t, kSearches.size()>;

// Within how many runs each search must find a bug; 0: it does not look for it.
struct Bounds {
  std::string_view bug;
  RunsOfSearches runs;
};

// Those of `bug`, which must be among `all`.
inline const RunsOfSearches& BoundsOf(absl::Span<const Bounds> all,
                                      std::string_view bug) {
  const auto* const bounds =
      std::find_if(all.begin(), all.end(),
                   [&](const Bounds& entry) { return entry.bug == bug; });
  if (bounds == all.end()) {
    std::cerr << "There are no bounds for \"" << bug << "\"" << std::endl;
    std::abort();
  }
  return bounds->runs;
}

// Whether all is looked for that is known to be found, as .ci/run has it:
// --test_env=WARD_AT_LENGTH=1.
inline bool AtLength() { return EnvironmentNumber("WARD_AT_LENGTH", 0) != 0; }

// Whether it is to be tried: all are, or, with --test_env=WARD_SEARCH=SURW,
// that one alone.
inline bool IsAskedFor(Search search) {
  const std::string_view asked = EnvironmentVariable("WARD_SEARCH");
  return asked.empty() || asked == NameOf(search);
}

// Makes at most so many runs of a program.
using Look = absl::FunctionRef<Exploration(Search search, uint64_t runs)>;

// That each search which `runs` has runs for finds the bug in as many, that it
// can be replayed, and is not made worse by being simplified.
inline void ExpectFound(std::string_view bug, const RunsOfSearches& runs,
                        Look look) {
  bool looked = false;
  for (size_t i = 0; i < kSearches.size(); ++i) {
    if (runs[i] == 0 || !IsAskedFor(kSearches[i])) continue;
    looked = true;
    const std::string_view search = NameOf(kSearches[i]);
    const Exploration exploration = look(kSearches[i], runs[i]);
    if (!exploration.failure.has_value()) {
      ADD_FAILURE() << bug << " was not found by " << search << " in "
                    << exploration.runs << " runs";
      continue;
    }
    const Exploration::Failure& failure = *exploration.failure;
    std::cout << bug << ", " << search << ": found by run " << failure.run + 1
              << ", with " << failure.found.size()
              << " deviations, simplified to " << failure.deviations.size()
              << std::endl;
    EXPECT_TRUE(failure.replayed) << bug << ", " << search;
    EXPECT_LE(failure.deviations.size(), failure.found.size());
    EXPECT_NE(failure.what, "");
  }
  if (!looked) GTEST_SKIP() << "It takes more runs: WARD_AT_LENGTH=1";
}

// That none of them finds anything in the repaired program.
inline void ExpectNotFound(std::string_view bug, const RunsOfSearches& runs,
                           Look look) {
  for (size_t i = 0; i < kSearches.size(); ++i) {
    if (runs[i] == 0 || !IsAskedFor(kSearches[i])) continue;
    const Exploration exploration = look(kSearches[i], runs[i]);
    if (!exploration.failure.has_value()) continue;
    ADD_FAILURE() << bug << ", repaired, " << NameOf(kSearches[i]) << ": "
                  << exploration.failure->what << "\n"
                  << exploration.failure->transcript;
  }
}

}  // namespace ward::testing

#endif  // WARD_TESTING_PLANTED_BUGS_SEARCHES_FOR_TEST_H_

#include "ward/testing/realistic/survives.h"

#include <cstdint>
#include <set>

#include "absl/base/config.h"
#include "absl/functional/function_ref.h"
#include "gtest/gtest.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/explore.h"

namespace ward::testing {
namespace {

// A sanitizer sees in one run what it sees in the next.
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
constexpr uint64_t kRuns = 30;
#else
constexpr uint64_t kRuns = 100;
#endif

}  // namespace

void Survives(absl::FunctionRef<void()> body) {
  ExploreOptions options;
  options.runs = kRuns;  // Explore() asks for WARD_RUNS itself.
  for (const Search search :
       {Search::kPortfolio, Search::kRandom, Search::kPct}) {
    options.search = search;
    Explore(options, body);
  }

  // Not in the first run of a process, in which static variables are made.
  options.search = Search::kRandom;
  FingerprintOfRun(options, 0, body);
  const uint64_t compared = EnvironmentNumber("WARD_RUNS", options.runs) / 5;
  std::set<uint64_t> courses;
  for (uint64_t run = 0; run < compared; ++run) {
    const uint64_t course = FingerprintOfRun(options, run, body);
    EXPECT_EQ(FingerprintOfRun(options, run, body), course) << "run " << run;
    courses.insert(course);
  }
  EXPECT_GT(courses.size(), 1u) << "nothing that has an order is seen";
}

}  // namespace ward::testing

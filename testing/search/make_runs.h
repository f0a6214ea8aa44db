// A search: makes runs until one fails, and looks into that one.

#ifndef WARD_TESTING_SEARCH_MAKE_RUNS_H_
#define WARD_TESTING_SEARCH_MAKE_RUNS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "ward/testing/report/run_events.h"
#include "ward/testing/search/exploration.h"

namespace ward::testing {

// The command that makes a run again that has failed.
using ReplayCommand =
    absl::FunctionRef<std::string(const Exploration::Failure&)>;

// As FindFailure() of ward/testing/explore.h. The runs at random have the seeds
// from `seed` on. What makes no sense fails the calling test.
Exploration MakeRuns(const ExploreOptions& asked, uint64_t seed,
                     ReplayCommand command, absl::FunctionRef<void()> body);

// All that happens in the run that fails, which is made once more; null if it
// does not fail again.
std::unique_ptr<RunEvents> EventsOf(const ExploreOptions& options,
                                    const Exploration::Failure& failure,
                                    absl::FunctionRef<void()> body);

}  // namespace ward::testing

#endif  // WARD_TESTING_SEARCH_MAKE_RUNS_H_

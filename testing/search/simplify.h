// Fewer switches and faults for the same failure.

#ifndef WARD_TESTING_SEARCH_SIMPLIFY_H_
#define WARD_TESTING_SEARCH_SIMPLIFY_H_

#include "absl/functional/function_ref.h"
#include "ward/testing/search/exploration.h"
#include "ward/testing/search/worker.h"

namespace ward::testing {

// Makes `failure`, which can be replayed, as simple as it gets. `worker` makes
// the runs; `take` is called with it after each that fails in the same way with
// less, and puts what that was into `failure`. `announce` is called when it
// takes long.
void Simplify(const ExploreOptions& options, absl::FunctionRef<void()> body,
              const Exploration::Failure& failure, Worker& worker,
              absl::FunctionRef<void(Worker&)> take,
              absl::FunctionRef<void()> announce);

}  // namespace ward::testing

#endif  // WARD_TESTING_SEARCH_SIMPLIFY_H_

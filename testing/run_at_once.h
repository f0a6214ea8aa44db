// Several clients at the same time.
//
//   RunAtOnce([&] { EXPECT_THAT(CallServer(server, "add", 1), IsOk()); },
//             [&] { EXPECT_THAT(CallServer(server, "add", 2), IsOk()); });

#ifndef WARD_TESTING_RUN_AT_ONCE_H_
#define WARD_TESTING_RUN_AT_ONCE_H_

#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"

namespace ward::testing {

// Calls all of `bodies` at the same time, each on a thread of
// Environment::Default(), simulated or not, and returns when all have returned.
// A thread that cannot be started fails the test.
void RunAtOnce(std::vector<absl::AnyInvocable<void()>> bodies);

// The same, with one argument for each body.
template <typename... Bodies>
void RunAtOnce(Bodies... bodies) {
  std::vector<absl::AnyInvocable<void()>> all;
  (all.emplace_back(std::move(bodies)), ...);
  RunAtOnce(std::move(all));
}

}  // namespace ward::testing

#endif  // WARD_TESTING_RUN_AT_ONCE_H_

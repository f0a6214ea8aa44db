#include "ward/testing/run_at_once.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "ward/server/environment.h"

namespace ward::testing {

void RunAtOnce(std::vector<absl::AnyInvocable<void()>> bodies) {
  std::vector<std::unique_ptr<Thread>> threads;
  for (absl::AnyInvocable<void()>& body : bodies) {
    absl::StatusOr<std::unique_ptr<Thread>> thread =
        Environment::Default().StartThread(std::move(body));
    if (!thread.ok()) {
      ADD_FAILURE() << thread.status();
      continue;
    }
    threads.push_back(*std::move(thread));
  }
}

}  // namespace ward::testing

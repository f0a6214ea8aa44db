// What docs/testing.md shows of weak memory: a test that fails.

#include <atomic>
#include <thread>

#include "gtest/gtest.h"
#include "ward/testing/explore.h"

namespace {

using ::ward::testing::ExploreOptions;
using ::ward::testing::FindFailure;

// In the place of ward's, to whose callers it is the better match.
template <typename Body>
void Explore(const ExploreOptions& options, Body body) {
  EXPECT_TRUE(FindFailure(options, body).failure.has_value());
}

TEST(Mailbox, KeepsWhatIsPut) {
  ExploreOptions options;
  options.runs = 10000;
  options.weak_memory = true;
  Explore(options, [] {
    std::atomic<int> letter{0};
    std::atomic<bool> full{false};
    std::thread sender([&] {
      letter.store(42, std::memory_order_relaxed);
      full.store(true, std::memory_order_relaxed);  // Release is what it takes,
    });
    if (full.load(std::memory_order_relaxed)) {  // and acquire.
      EXPECT_EQ(letter.load(std::memory_order_relaxed), 42);
    }
    sender.join();
  });
}

}  // namespace

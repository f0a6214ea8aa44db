// Simulated owners that are killed at every step of a server's life. In a
// program of its own: the threads of those that are killed stay, and
// ThreadSanitizer has none of a fork's be where one of them was.

#include <signal.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/server/environment.h"
#include "ward/server/server_for_test.h"
#include "ward/server/server_options.h"
#include "ward/testing/call_server.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/explore.h"
#include "ward/testing/matchers.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulation.h"
#include "ward/testing/simulator/simulated_environment.h"

namespace ward {
namespace {

using testing::CallServer;
using testing::IsOk;

struct Hanging : Registered<Hanging> {
  using Registered::Registered;
  absl::Status InitializeServer() override {
    absl::SleepFor(absl::InfiniteDuration());
    return absl::OkStatus();
  }
};

// The owner is killed after `steps` steps of a random schedule. How long the
// server lives on.
absl::Duration OutlivesItsOwner(uint64_t seed, StartMode mode, bool hangs,
                                int steps) {
  testing::RandomStrategy strategy(seed);
  testing::Simulation simulation(strategy, {});
  testing::SimulatedEnvironment& environment = simulation.environment();
  ForkOptions share;
  share.keep_all_open = true;
  const auto owner = environment.Fork(share, [&] {
    ServerOptions options;
    options.start_mode = mode;
    // An owner that is killed never destroys it.
    TestServer* const server = hangs ? new Hanging(std::move(options))
                                     : new TestServer(std::move(options));
    if (server->Start().ok()) {
      (void)CallServer(*server, "echo", "x");
      (void)server->Stop();
    }
    delete server;
    return 0;
  });
  EXPECT_THAT(owner, IsOk());
  for (int i = 0; i < steps; ++i) testing::SchedulingPoint();
  environment.Raise((*owner)->pid(), SIGKILL);
  const absl::Time gone = environment.TimeNow();
  environment.AwaitDescendants((*owner)->pid());
  const absl::Duration lived = environment.TimeNow() - gone;
  EXPECT_THAT((*owner)->Wait(absl::InfiniteFuture()), IsOk());
  return lived;
}

// With --test_env=WARD_RUNS=1000 a thousand of each.
TEST(SimulatedOwnerDeath, EndsTheServerWithin100MillisecondsAtEveryStep) {
  const uint64_t runs = testing::EnvironmentNumber("WARD_RUNS", 100);
  for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
    absl::Duration longest = absl::ZeroDuration();
    for (uint64_t seed = 0; seed < runs && !HasFailure(); ++seed) {
      const absl::Duration lived = OutlivesItsOwner(
          seed, mode, /*hangs=*/seed % 2 == 0, static_cast<int>(seed % 101));
      EXPECT_LE(lived, absl::Milliseconds(100)) << "seed " << seed;
      longest = std::max(longest, lived);
    }
    std::cout << runs << " owners killed; gone after at most " << longest
              << "\n";
  }
}

}  // namespace
}  // namespace ward

// Calls and questions for statistics under every schedule, where they need the
// same place: sums add up, and nobody but who asks is served without one.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/proto/stats.pb.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/method.h"
#include "ward/server/server_options.h"
#include "ward/testing/explore.h"

namespace ward {
namespace {

using testing::Explore;
using testing::ExploreOptions;
using testing::Search;

constexpr Method<std::string, std::string> kRepeat{"repeat"};

constexpr uint64_t kCallers = 2;
constexpr uint64_t kCallsOfEach = 2;

class Server : public AbstractServer {
 public:
  explicit Server(ServerOptions options) : AbstractServer(std::move(options)) {
    Define(kRepeat,
           [this](const std::string& text) -> absl::StatusOr<std::string> {
             most = std::max(most.load(), ++here_);
             absl::SleepFor(absl::Milliseconds(1));
             --here_;
             return text;
           });
  }

  using AbstractServer::environment;

  // Simulated processes share memory.
  std::atomic<int> most{0};

 private:
  std::atomic<int> here_{0};
};

proto::MethodStats Repeat(const proto::ServerStats& stats) {
  for (const proto::MethodStats& method : stats.methods()) {
    if (method.name() == kRepeat.name) return method;
  }
  return {};
}

uint64_t Check(const absl::StatusOr<proto::ServerStats>& stats) {
  if (!stats.ok()) return 0;
  const proto::MethodStats repeat = Repeat(*stats);
  uint64_t ended = 0;
  for (const auto& bucket : repeat.latency().buckets()) ended += bucket.count();
  EXPECT_EQ(ended + repeat.running(), repeat.calls());
  EXPECT_LE(repeat.calls(), kCallers * kCallsOfEach);
  EXPECT_GE(repeat.bytes_in(), 10 * ended);
  EXPECT_LE(stats->clients().served(), 1u);
  EXPECT_LE(stats->clients().most_served(), 1u);
  return ended;
}

void CallAndAsk(bool all_well) {
  ServerOptions options;
  options.max_clients = 1;
  Server server(std::move(options));
  if (!server.Start().ok()) return;
  const auto call = [&] {
    for (uint64_t i = 0; i < kCallsOfEach; ++i) {
      const absl::Status status = server.Call(kRepeat, "0123456789").status();
      EXPECT_TRUE(status.ok() || !all_well) << status;
    }
  };
  const auto ask = [&] {
    uint64_t ended = 0;
    for (int i = 0; i < 2; ++i) {
      const absl::StatusOr<proto::ServerStats> stats = server.Stats();
      EXPECT_TRUE(stats.ok() || !all_well) << stats.status();
      const uint64_t now = Check(stats);
      if (stats.ok()) {
        EXPECT_GE(now, ended);
        ended = now;
      }
    }
  };
  {
    const auto first = server.environment().StartThread(call);
    const auto second = server.environment().StartThread(call);
    const auto third = server.environment().StartThread(ask);
    ask();
  }
  EXPECT_LE(server.most, 1);
  if (all_well) {
    // The last word is said before it is counted.
    while (Check(server.Stats()) < kCallers * kCallsOfEach) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    const absl::StatusOr<proto::ServerStats> last = server.Stats();
    EXPECT_TRUE(last.ok()) << last.status();
    if (last.ok()) {
      EXPECT_EQ(Repeat(*last).calls(), kCallers * kCallsOfEach);
    }
  }
  (void)server.Stop();
}

class StatsExplorationTest : public ::testing::TestWithParam<Search> {};

TEST_P(StatsExplorationTest, SumsAddUpInEveryOrder) {
  ExploreOptions options;
  options.search = GetParam();
  options.runs = 200;
  Explore(options, [] { CallAndAsk(/*all_well=*/true); });
}

TEST_P(StatsExplorationTest, NothingHangsThatFailsOrDies) {
  ExploreOptions options;
  options.search = GetParam();
  options.runs = 100;
  options.faults = true;
  options.deaths = true;
  options.deviations = 2;
  options.faults_per_run = 2;
  Explore(options, [] { CallAndAsk(/*all_well=*/false); });
}

INSTANTIATE_TEST_SUITE_P(
    Searches, StatsExplorationTest,
    ::testing::Values(Search::kPortfolio, Search::kPct),
    [](const ::testing::TestParamInfo<Search>& info) -> std::string {
      return info.param == Search::kPct ? "Pct" : "Portfolio";
    });

}  // namespace
}  // namespace ward

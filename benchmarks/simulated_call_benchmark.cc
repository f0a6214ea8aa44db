// How many requests, and switches of threads, the simulator makes in a second
// of real time: what a test that explores can afford.
//
//   bazel run -c opt //benchmarks:simulated_call_benchmark

#include <cstdint>
#include <string_view>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmark/benchmark.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/call_server.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulation.h"

namespace ward::testing {
namespace {

class EchoServer : public AbstractServer {
 public:
  EchoServer() {
    DefineMessageHandler("echo",
                         [](MessageChannel& channel, std::string_view text) {
                           return channel.Write(text);
                         });
  }
};

// Two threads that do nothing else.
void Switches(benchmark::State& state) {
  uint64_t switches = 0;
  for ([[maybe_unused]] auto _ : state) {
    RandomStrategy strategy(/*seed=*/1);
    Simulation simulation(strategy, {});
    const auto step = [&] {
      for (int i = 0; i < 100'000; ++i) {
        simulation.scheduler().Point("doing nothing");
      }
    };
    std::thread other(step);
    step();
    other.join();
    switches += simulation.scheduler().switches();
  }
  state.counters["switches"] = benchmark::Counter(static_cast<double>(switches),
                                                  benchmark::Counter::kIsRate);
}
BENCHMARK(Switches)->UseRealTime();

// One simulation has so many calls, as one of Explore's runs has a few: what it
// takes to start and stop a server is part of it for the first.
void SimulatedCalls(benchmark::State& state) {
  const int64_t calls = state.range(0);
  uint64_t switches = 0;
  for ([[maybe_unused]] auto _ : state) {
    RandomStrategy strategy(/*seed=*/1);
    SimulationOptions options;
    options.max_steps = SIZE_MAX;
    Simulation simulation(strategy, options);
    EchoServer server;
    absl::Status status = server.Start();
    for (int64_t i = 0; i < calls && status.ok(); ++i) {
      status = CallServer(server, "echo", "text").status();
    }
    status.Update(server.Stop());
    switches += simulation.scheduler().switches();
    if (!status.ok()) state.SkipWithError(status.ToString().c_str());
  }
  state.SetItemsProcessed(calls * static_cast<int64_t>(state.iterations()));
  state.counters["switches"] = benchmark::Counter(static_cast<double>(switches),
                                                  benchmark::Counter::kIsRate);
}
BENCHMARK(SimulatedCalls)->Arg(1)->Arg(4)->Arg(100)->UseRealTime();

}  // namespace
}  // namespace ward::testing

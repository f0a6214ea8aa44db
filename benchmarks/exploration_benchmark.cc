// How many runs an exploration makes in a second, on one processor.
//
//   bazel run -c opt //benchmarks:exploration_benchmark

#include <sched.h>

#include <cstdint>
#include <mutex>
#include <string_view>
#include <thread>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "benchmark/benchmark.h"
#include "ward/channel/message_channel.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/call_server.h"
#include "ward/testing/explore.h"

namespace ward::testing {
namespace {

void Explore(benchmark::State& state, absl::FunctionRef<void()> body) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  sched_setaffinity(0, sizeof(one), &one);
  ExploreOptions options;
  options.runs = static_cast<size_t>(state.range(0));
  for ([[maybe_unused]] auto _ : state) {
    if (FindFailure(options, body).failure.has_value()) {
      state.SkipWithError("a run failed");
    }
  }
  state.SetItemsProcessed(state.range(0) *
                          static_cast<int64_t>(state.iterations()));
}

void ThreeThreadsAndAMutex(benchmark::State& state) {
  Explore(state, [] {
    std::mutex mutex;
    int count = 0;
    const auto increment = [&] {
      const std::lock_guard<std::mutex> lock(mutex);
      ++count;
    };
    std::thread one(increment);
    std::thread two(increment);
    increment();
    one.join();
    two.join();
  });
}
BENCHMARK(ThreeThreadsAndAMutex)
    ->Arg(20000)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

class EchoServer : public AbstractServer {
 public:
  EchoServer() {
    DefineMessageHandler("echo",
                         [](MessageChannel& channel, std::string_view text) {
                           return channel.Write(text);
                         });
  }
};

void StartCallStop(benchmark::State& state) {
  Explore(state, [] {
    EchoServer server;
    if (!server.Start().ok()) return;
    (void)CallServer(server, "echo", "text");
    (void)server.Stop();
  });
}
BENCHMARK(StartCallStop)
    ->Arg(5000)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ward::testing

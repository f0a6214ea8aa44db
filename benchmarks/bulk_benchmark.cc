// A large reply as a Bulk, as a string, and by hand over a socket
// (benchmarks/floor): kept by the server, or made anew for each call; of which
// the client reads all, or only the ends. What counts are the ratios, in one
// run, pinned to a processor or not:
//
//   ./bazelw build -c opt //benchmarks:bulk_benchmark
//   taskset -c 0 bazel-bin/benchmarks/bulk_benchmark
//       --benchmark_repetitions=9 --benchmark_enable_random_interleaving
//       --benchmark_report_aggregates_only
//
// (the last three on one line). "By hand" receives into memory that is used
// again, which spares it the pages that a string takes anew.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmark/benchmark.h"
#include "ward/benchmarks/floor/connection.h"
#include "ward/benchmarks/floor/server.h"
#include "ward/channel/bulk.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/server_options.h"

namespace {

constexpr ward::Method<void, ward::Bulk> kKeptBulk{"kept bulk"};
constexpr ward::Method<void, ward::Bulk> kNewBulk{"new bulk"};
constexpr ward::Method<void, std::string> kNewString{"new string"};

// What all replies consist of, as the floor's does.
constexpr char kByte = 'x';

absl::StatusOr<ward::Bulk> MakeBulk(size_t size) {
  WARD_ASSIGN_OR_RETURN(ward::BulkBuffer buffer, ward::AllocateBulk(size));
  std::memset(buffer.bytes().data(), kByte, size);
  return std::move(buffer).Seal();
}

class BulkServer : public ward::AbstractServer {
 public:
  explicit BulkServer(size_t size)
      : AbstractServer(Options(size)), size_(size) {
    Define(kKeptBulk, [this]() -> absl::StatusOr<ward::Bulk> { return kept_; });
    Define(kNewBulk, [this] { return MakeBulk(size_); });
    Define(kNewString, [this]() -> absl::StatusOr<std::string> {
      return std::string(size_, kByte);
    });
  }

 private:
  static ward::ServerOptions Options(size_t size) {
    ward::ServerOptions options;
    // Room for the string, and what is around it.
    options.limits.max_frame_bytes = size + 1024;
    return options;
  }

  absl::Status InitializeServer() override {
    WARD_ASSIGN_OR_RETURN(kept_, MakeBulk(size_));
    return absl::OkStatus();
  }

  const size_t size_;
  ward::Bulk kept_;
};

// What a client does with a reply.
enum class Reads { kAll, kEnds };

uint64_t Read(std::string_view bytes, Reads reads) {
  if (reads == Reads::kEnds) return bytes.front() + bytes.back();
  uint64_t sum = 0;
  for (size_t i = 0; i + sizeof(sum) <= bytes.size(); i += sizeof(sum)) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, sizeof(word));
    sum += word;
  }
  return sum;
}

// `call` returns what it has Read of a reply.
void Measure(benchmark::State& state, Reads reads,
             absl::FunctionRef<absl::StatusOr<uint64_t>()> call) {
  const size_t size = static_cast<size_t>(state.range(0));
  const uint64_t expected = Read(std::string(size, kByte), reads);
  for ([[maybe_unused]] auto _ : state) {
    const absl::StatusOr<uint64_t> read = call();
    if (!read.ok() || *read != expected) {
      state.SkipWithError("another reply");
    }
  }
  state.SetBytesProcessed(static_cast<int64_t>(size) *
                          static_cast<int64_t>(state.iterations()));
}

template <typename Value>
void Ward(benchmark::State& state, const ward::Method<void, Value>& method,
          Reads reads) {
  BulkServer server(static_cast<size_t>(state.range(0)));
  if (!server.Start().ok()) std::abort();
  Measure(state, reads, [&]() -> absl::StatusOr<uint64_t> {
    WARD_ASSIGN_OR_RETURN(const Value reply, server.Call(method));
    if constexpr (std::is_same_v<Value, ward::Bulk>) {
      return Read(reply.bytes(), reads);
    } else {
      return Read(reply, reads);
    }
  });
  if (!server.Stop().ok()) std::abort();
}

void KeptBulk(benchmark::State& state, Reads reads) {
  Ward(state, kKeptBulk, reads);
}
void NewBulk(benchmark::State& state, Reads reads) {
  Ward(state, kNewBulk, reads);
}
void NewString(benchmark::State& state, Reads reads) {
  Ward(state, kNewString, reads);
}

void SocketByHand(benchmark::State& state, Reads reads) {
  ward::floor::Server server(static_cast<size_t>(state.range(0)));
  if (!server.Start()) std::abort();
  ward::floor::Connection connection(server.address(), /*keep=*/true);
  std::string bytes;
  Measure(state, reads, [&]() -> absl::StatusOr<uint64_t> {
    if (!connection.Scalar(bytes)) return absl::InternalError("by hand");
    return Read(bytes, reads);
  });
}

constexpr auto kSizes = [](auto* benchmark) {
  for (const int64_t size :
       {4 << 10, 32 << 10, 64 << 10, 1 << 20, 8 << 20, 64 << 20}) {
    benchmark->Arg(size);
  }
  benchmark->UseRealTime();
};

BENCHMARK_CAPTURE(SocketByHand, All, Reads::kAll)->Apply(kSizes);
BENCHMARK_CAPTURE(KeptBulk, All, Reads::kAll)->Apply(kSizes);
BENCHMARK_CAPTURE(NewBulk, All, Reads::kAll)->Apply(kSizes);
BENCHMARK_CAPTURE(NewString, All, Reads::kAll)->Apply(kSizes);
BENCHMARK_CAPTURE(SocketByHand, Ends, Reads::kEnds)->Apply(kSizes);
BENCHMARK_CAPTURE(KeptBulk, Ends, Reads::kEnds)->Apply(kSizes);

}  // namespace

BENCHMARK_MAIN();

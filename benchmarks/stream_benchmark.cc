// Streams of small elements, to the server, to the client, and both ways in one
// call, each beside a floor written by hand: a length and eight bytes to a
// message, a send(2) for each, as ward does it, since an element that somebody
// waits for may not be held back; and the reader takes what it finds in 64 KiB.
// What counts is the ratio of the two, in one run:
//
//   ./bazelw run -c opt //benchmarks:stream_benchmark --
//       --benchmark_filter=/100000/ --benchmark_repetitions=9
//       --benchmark_enable_random_interleaving
//       --benchmark_report_aggregates_only
//
// (on one line). The last floor holds messages back until it has 64 KiB of
// them: what a Stream costs whose elements nobody waits for; several to an
// element cost less.

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmark/benchmark.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"

namespace {

constexpr ward::Method<ward::Stream<int64_t>, int64_t> kSum{"sum"};
constexpr ward::Method<int64_t, ward::Stream<int64_t>> kCount{"count"};
constexpr ward::Method<ward::Stream<int64_t>, ward::Stream<int64_t>> kEcho{
    "echo"};

// How many elements the client is ahead of what it reads, where it writes and
// reads on one thread: a socket has room for some 270 that are sent one by one.
constexpr int64_t kAhead = 100;

constexpr int64_t SumBelow(int64_t count) { return count * (count - 1) / 2; }

class StreamServer : public ward::AbstractServer {
 public:
  StreamServer() {
    Define(kSum,
           [](ward::StreamReader<int64_t>& numbers) -> absl::StatusOr<int64_t> {
             int64_t sum = 0;
             while (const std::optional<int64_t> number = numbers.Next()) {
               sum += *number;
             }
             WARD_RETURN_IF_ERROR(numbers.status());
             return sum;
           });
    Define(kCount,
           [](int64_t count,
              ward::StreamWriter<int64_t>& numbers) -> absl::Status {
             for (int64_t i = 0; i < count; ++i) {
               WARD_RETURN_IF_ERROR(numbers.Write(i));
             }
             return absl::OkStatus();
           });
    Define(kEcho,
           [](ward::StreamReader<int64_t>& numbers,
              ward::StreamWriter<int64_t>& echoes) -> absl::Status {
             while (const std::optional<int64_t> number = numbers.Next()) {
               WARD_RETURN_IF_ERROR(echoes.Write(*number));
             }
             return numbers.status();
           });
  }

  absl::StatusOr<int64_t> ToServer(int64_t count) {
    WARD_ASSIGN_OR_RETURN(auto numbers, Call(kSum));
    for (int64_t i = 0; i < count; ++i) {
      WARD_RETURN_IF_ERROR(numbers.Write(i));
    }
    return numbers.Finish();
  }

  absl::StatusOr<int64_t> ToClient(int64_t count) {
    WARD_ASSIGN_OR_RETURN(auto numbers, Call(kCount, count));
    int64_t sum = 0;
    while (const std::optional<int64_t> number = numbers.Next()) sum += *number;
    WARD_RETURN_IF_ERROR(numbers.status());
    return sum;
  }

  absl::StatusOr<int64_t> BothWays(int64_t count) {
    WARD_ASSIGN_OR_RETURN(auto echo, Call(kEcho));
    int64_t sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      WARD_RETURN_IF_ERROR(echo.Write(i));
      if (i >= kAhead) sum += echo.Next().value_or(0);
    }
    WARD_RETURN_IF_ERROR(echo.EndWriting());
    while (const std::optional<int64_t> number = echo.Next()) sum += *number;
    WARD_RETURN_IF_ERROR(echo.status());
    return sum;
  }
};

// An iteration is one call, and its stream.
void Measure(benchmark::State& state,
             absl::FunctionRef<absl::StatusOr<int64_t>(int64_t)> call) {
  const int64_t count = state.range(0);
  for ([[maybe_unused]] auto _ : state) {
    const absl::StatusOr<int64_t> sum = call(count);
    if (!sum.ok() || *sum != SumBelow(count)) {
      state.SkipWithError("the sum is wrong");
    }
  }
  state.SetItemsProcessed(count * static_cast<int64_t>(state.iterations()));
}

template <absl::StatusOr<int64_t> (StreamServer::*kCall)(int64_t)>
void Ward(benchmark::State& state) {
  StreamServer server;
  if (!server.Start().ok()) std::abort();
  Measure(state, [&](int64_t count) { return (server.*kCall)(count); });
  if (!server.Stop().ok()) std::abort();
}

// One end of a connection by hand.
class EndByHand {
 public:
  // Messages are sent when there are `batch_bytes` of them.
  EndByHand(int socket, size_t batch_bytes)
      : socket_(socket), batch_bytes_(batch_bytes) {}

  void Write(int64_t number) {
    const uint32_t size = sizeof(number);
    std::memcpy(out_.data() + out_end_, &size, sizeof(size));
    std::memcpy(out_.data() + out_end_ + sizeof(size), &number, sizeof(number));
    out_end_ += kMessageBytes;
    if (out_end_ + kMessageBytes > batch_bytes_) Flush();
  }

  void Flush() {
    for (size_t begin = 0; begin < out_end_;) {
      const ssize_t sent =
          send(socket_, out_.data() + begin, out_end_ - begin, MSG_NOSIGNAL);
      if (sent <= 0) std::abort();
      begin += static_cast<size_t>(sent);
    }
    out_end_ = 0;
  }

  int64_t Read() {
    uint32_t size = 0;
    Await(sizeof(size));
    std::memcpy(&size, in_.data() + in_begin_, sizeof(size));
    int64_t number = 0;
    if (size != sizeof(number)) std::abort();
    Await(kMessageBytes);
    std::memcpy(&number, in_.data() + in_begin_ + sizeof(size), sizeof(number));
    in_begin_ += kMessageBytes;
    return number;
  }

 private:
  static constexpr size_t kMessageBytes = sizeof(uint32_t) + sizeof(int64_t);
  static constexpr size_t kBufferBytes = size_t{64} << 10;

  void Await(size_t bytes) {
    while (in_end_ - in_begin_ < bytes) {
      std::memmove(in_.data(), in_.data() + in_begin_, in_end_ - in_begin_);
      in_end_ -= std::exchange(in_begin_, 0);
      const ssize_t got =
          recv(socket_, in_.data() + in_end_, in_.size() - in_end_, 0);
      if (got <= 0) std::abort();
      in_end_ += static_cast<size_t>(got);
    }
  }

  const int socket_;
  const size_t batch_bytes_;
  std::array<char, kBufferBytes> out_;
  size_t out_end_ = 0;
  std::array<char, kBufferBytes> in_;
  size_t in_begin_ = 0;
  size_t in_end_ = 0;
};

// The last that is written. The sum is then the answer, if there is one.
constexpr int64_t kEnd = -1;

// `client` has one end of a connection, and `serve`, in another process, which
// serves for one call after the other, the other one.
void ByHand(benchmark::State& state, size_t batch_bytes,
            absl::FunctionRef<int64_t(EndByHand&, int64_t)> client,
            absl::FunctionRef<void(EndByHand&)> serve) {
  std::array<int, 2> ends;
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) != 0) std::abort();
  EndByHand here(ends[0], batch_bytes);
  // The number of calls is the client's to know.
  const pid_t process = fork();
  if (process == 0) {
    close(ends[0]);
    // As a server has that takes another client: with it, each system call
    // counts the references of its descriptor.
    std::thread(pause).detach();
    EndByHand there(ends[1], batch_bytes);
    char none;
    while (recv(ends[1], &none, 1, MSG_PEEK) > 0) serve(there);
    _exit(0);
  }
  close(ends[1]);
  Measure(state, [&](int64_t count) { return client(here, count); });
  close(ends[0]);
  waitpid(process, nullptr, 0);
}

// Up to kEnd.
int64_t Sum(EndByHand& end) {
  int64_t sum = 0;
  for (int64_t number = end.Read(); number != kEnd; number = end.Read()) {
    sum += number;
  }
  return sum;
}

void Count(EndByHand& end, int64_t count) {
  for (int64_t i = 0; i < count; ++i) end.Write(i);
}

void ToServerByHand(benchmark::State& state, size_t batch_bytes) {
  ByHand(
      state, batch_bytes,
      [](EndByHand& end, int64_t count) {
        Count(end, count);
        end.Write(kEnd);
        end.Flush();
        return end.Read();
      },
      [](EndByHand& end) {
        end.Write(Sum(end));
        end.Flush();
      });
}

void ToClientByHand(benchmark::State& state) {
  ByHand(
      state, /*batch_bytes=*/0,
      [](EndByHand& end, int64_t count) {
        end.Write(count);
        return Sum(end);
      },
      [](EndByHand& end) {
        Count(end, end.Read());
        end.Write(kEnd);
      });
}

void BothWaysByHand(benchmark::State& state) {
  ByHand(
      state, /*batch_bytes=*/0,
      [](EndByHand& end, int64_t count) {
        int64_t sum = 0;
        for (int64_t i = 0; i < count; ++i) {
          end.Write(i);
          if (i >= kAhead) sum += end.Read();
        }
        end.Write(kEnd);
        return sum + Sum(end);
      },
      [](EndByHand& end) {
        for (int64_t number = end.Read(); number != kEnd; number = end.Read()) {
          end.Write(number);
        }
        end.Write(kEnd);
      });
}

constexpr auto kCounts = [](auto* benchmark) {
  benchmark->Arg(100'000)->Arg(10'000'000)->UseRealTime();
};

BENCHMARK(Ward<&StreamServer::ToServer>)->Apply(kCounts);
BENCHMARK_CAPTURE(ToServerByHand, _, 0)->Apply(kCounts);
BENCHMARK(Ward<&StreamServer::ToClient>)->Apply(kCounts);
BENCHMARK(ToClientByHand)->Apply(kCounts);
BENCHMARK(Ward<&StreamServer::BothWays>)->Apply(kCounts);
BENCHMARK(BothWaysByHand)->Apply(kCounts);
BENCHMARK_CAPTURE(ToServerByHand, InBatches, size_t{64} << 10)->Apply(kCounts);

}  // namespace

BENCHMARK_MAIN();

// Counters of calls, for "ward.stats" (proto/stats.proto).
//
//   CallStats stats(methods);
//   CallStats::Counters& counters = stats.Of(method, client);
//   counters.Begin();
//   ...
//   counters.End(time, traffic, status);
//
// Memory and names are bounded whatever peers send: a method is a number, an
// error one of a fixed number of kinds, a time one of a fixed number of
// buckets.

#ifndef WARD_SERVER_CALL_STATS_H_
#define WARD_SERVER_CALL_STATS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "ward/channel/error.h"
#include "ward/channel/message_channel.h"
#include "ward/proto/stats.pb.h"

namespace ward {

// What an error is counted as: its reason, if that is one of ward's, or else
// its code. Handlers pass on errors of peers, who can call a reason what they
// like.
inline constexpr size_t kErrorKinds =
    std::size(reason::kAll) +
    static_cast<size_t>(absl::StatusCode::kUnauthenticated) + 1;
// Not of OK.
size_t ErrorKindOf(const absl::Status& error);
std::string_view ErrorKindName(size_t kind);

using ErrorCounts = std::array<uint64_t, kErrorKinds>;
void Describe(const ErrorCounts& counts,
              google::protobuf::RepeatedPtrField<proto::ErrorCount>& out);

// Of times in nanoseconds, as proto/stats.proto has them.
inline constexpr int kLeastPower = 10;
inline constexpr int kMostPower = 42;
inline constexpr int kStepsOfPower = 4;
inline constexpr size_t kLatencyBuckets =
    size_t{kMostPower - kLeastPower} * kStepsOfPower + 2;
size_t LatencyBucketOf(uint64_t nanoseconds);
// What is in it is less; 0 for the last one, which has no limit.
uint64_t LatencyBucketLimit(size_t bucket);

// Thread-safe, without locks.
class CallStats {
  struct Sums {
    uint64_t begun = 0;
    uint64_t ended = 0;
    uint64_t nanoseconds = 0;
    uint64_t bytes_in = 0;
    uint64_t bytes_out = 0;
    uint64_t descriptors_in = 0;
    uint64_t descriptors_out = 0;
    std::array<uint64_t, kLatencyBuckets> took{};
    ErrorCounts errors{};
  };

 public:
  // Of one method, by some of the clients.
  class alignas(64) Counters {
   public:
    void Begin() { Add(begun_, 1); }

    // Takes the reply's time, too: call it when that was written.
    void End(absl::Duration time, const MessageChannel::BothWays& traffic,
             const absl::Status& status);

   private:
    friend class CallStats;
    using Counter = std::atomic<uint64_t>;

    void AddTo(Sums& sums) const;

    static void Add(Counter& counter, uint64_t more) {
      counter.fetch_add(more, std::memory_order_relaxed);
    }

    Counter begun_{0};
    Counter nanoseconds_{0};
    Counter bytes_in_{0};
    Counter bytes_out_{0};
    Counter descriptors_in_{0};
    Counter descriptors_out_{0};
    std::array<Counter, kLatencyBuckets> took_{};
    std::array<Counter, kErrorKinds> errors_{};
  };

  // Methods are numbers from 0 up to `methods`.
  explicit CallStats(size_t methods);
  ~CallStats();
  CallStats(const CallStats&) = delete;
  CallStats& operator=(const CallStats&) = delete;

  // Those that a client is counted with. Two clients share them as seldom as
  // may be: each call of another thread would take them away from this one's
  // processor. The first call with each allocates them.
  Counters& Of(size_t method, uint64_t client);

  // The sums; all but the name.
  void Describe(size_t method, proto::MethodStats& out) const;

 private:
  static constexpr size_t kShards = 8;
  using Shards = std::array<std::atomic<Counters*>, kShards>;

  std::vector<Shards> methods_;
};

}  // namespace ward

#endif  // WARD_SERVER_CALL_STATS_H_

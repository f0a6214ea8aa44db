#include "ward/server/call_stats.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>

#include "absl/numeric/bits.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "ward/channel/error.h"
#include "ward/channel/message_channel.h"
#include "ward/proto/stats.pb.h"

namespace ward {
namespace {

constexpr size_t kReasons = std::size(reason::kAll);

// Of looking at counters while nobody changes them.
constexpr int kMostTries = 10;

// As absl::StatusCodeToString, which returns a string of its own.
constexpr std::string_view kCodes[] = {"OK",
                                       "CANCELLED",
                                       "UNKNOWN",
                                       "INVALID_ARGUMENT",
                                       "DEADLINE_EXCEEDED",
                                       "NOT_FOUND",
                                       "ALREADY_EXISTS",
                                       "PERMISSION_DENIED",
                                       "RESOURCE_EXHAUSTED",
                                       "FAILED_PRECONDITION",
                                       "ABORTED",
                                       "OUT_OF_RANGE",
                                       "UNIMPLEMENTED",
                                       "INTERNAL",
                                       "UNAVAILABLE",
                                       "DATA_LOSS",
                                       "UNAUTHENTICATED"};
static_assert(kReasons + std::size(kCodes) == kErrorKinds);

}  // namespace

size_t ErrorKindOf(const absl::Status& error) {
  const std::string name = ReasonOf(error);
  const auto* const found =
      std::find_if(std::begin(reason::kAll), std::end(reason::kAll),
                   [&](const Reason& known) { return known.name == name; });
  if (found != std::end(reason::kAll)) {
    return static_cast<size_t>(found - std::begin(reason::kAll));
  }
  // code() is one of these, whatever was put into the status.
  return kReasons + static_cast<size_t>(error.code());
}

std::string_view ErrorKindName(size_t kind) {
  return kind < kReasons ? reason::kAll[kind].name : kCodes[kind - kReasons];
}

void Describe(const ErrorCounts& counts,
              google::protobuf::RepeatedPtrField<proto::ErrorCount>& out) {
  for (size_t kind = 0; kind < counts.size(); ++kind) {
    if (counts[kind] == 0) continue;
    proto::ErrorCount& error = *out.Add();
    error.set_reason(std::string(ErrorKindName(kind)));
    error.set_count(counts[kind]);
  }
}

size_t LatencyBucketOf(uint64_t nanoseconds) {
  const int power = static_cast<int>(absl::bit_width(nanoseconds)) - 1;
  if (power < kLeastPower) return 0;
  if (power >= kMostPower) return kLatencyBuckets - 1;
  // The two bits behind the first.
  const uint64_t step = (nanoseconds >> (power - 2)) & (kStepsOfPower - 1);
  return static_cast<size_t>(power - kLeastPower) * kStepsOfPower + step + 1;
}

uint64_t LatencyBucketLimit(size_t bucket) {
  if (bucket == kLatencyBuckets - 1) return 0;
  const size_t power = kLeastPower + bucket / kStepsOfPower;
  return (kStepsOfPower + bucket % kStepsOfPower) << (power - 2);
}

void CallStats::Counters::End(absl::Duration time,
                              const MessageChannel::BothWays& traffic,
                              const absl::Status& status) {
  const auto nanoseconds = static_cast<uint64_t>(
      absl::ToInt64Nanoseconds(std::max(time, absl::ZeroDuration())));
  Add(nanoseconds_, nanoseconds);
  Add(bytes_in_, traffic.read.bytes);
  Add(bytes_out_, traffic.written.bytes);
  if (traffic.read.descriptors != 0) {
    Add(descriptors_in_, traffic.read.descriptors);
  }
  if (traffic.written.descriptors != 0) {
    Add(descriptors_out_, traffic.written.descriptors);
  }
  if (!status.ok()) Add(errors_[ErrorKindOf(status)], 1);
  // Last: who sees that the call has ended sees all the rest.
  took_[LatencyBucketOf(nanoseconds)].fetch_add(1, std::memory_order_release);
}

void CallStats::Counters::AddTo(Sums& sums) const {
  const auto get = [](const Counter& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  std::array<uint64_t, kLatencyBuckets> took;
  uint64_t ended = 0;
  uint64_t begun = begun_.load(std::memory_order_acquire);
  // Calls that begin and end while this thread looks, or sleeps, would seem to
  // run still. Seldom does one.
  for (int tries = 0; tries < kMostTries; ++tries) {
    const uint64_t before = begun;
    ended = 0;
    for (size_t i = 0; i < took.size(); ++i) {
      took[i] = took_[i].load(std::memory_order_acquire);
      ended += took[i];
    }
    // Behind them: what has ended has begun. So has all the rest of it.
    begun = begun_.load(std::memory_order_acquire);
    if (begun == before) break;
  }
  for (size_t i = 0; i < took.size(); ++i) sums.took[i] += took[i];
  for (size_t i = 0; i < errors_.size(); ++i) {
    sums.errors[i] += get(errors_[i]);
  }
  sums.begun += begun;
  sums.ended += ended;
  sums.nanoseconds += get(nanoseconds_);
  sums.bytes_in += get(bytes_in_);
  sums.bytes_out += get(bytes_out_);
  sums.descriptors_in += get(descriptors_in_);
  sums.descriptors_out += get(descriptors_out_);
}

CallStats::CallStats(size_t methods) : methods_(methods + 1) {}

CallStats::~CallStats() {
  for (const Shards& shards : methods_) {
    for (const std::atomic<Counters*>& shard : shards) delete shard.load();
  }
}

CallStats::Counters& CallStats::Of(size_t method, uint64_t client) {
  std::atomic<Counters*>& shard = methods_[method][client % kShards];
  Counters* counters = shard.load(std::memory_order_acquire);
  if (counters != nullptr) return *counters;
  auto made = std::make_unique<Counters>();
  // Another thread may have been faster.
  if (shard.compare_exchange_strong(counters, made.get(),
                                    std::memory_order_acq_rel)) {
    counters = made.release();
  }
  return *counters;
}

void CallStats::Describe(size_t method, proto::MethodStats& out) const {
  Sums sums;
  for (const std::atomic<Counters*>& shard : methods_[method]) {
    const Counters* const counters = shard.load(std::memory_order_acquire);
    if (counters != nullptr) counters->AddTo(sums);
  }
  out.set_calls(sums.begun);
  out.set_running(sums.begun - sums.ended);
  ward::Describe(sums.errors, *out.mutable_errors());
  proto::Latency& latency = *out.mutable_latency();
  latency.set_sum_ns(sums.nanoseconds);
  for (size_t i = 0; i < sums.took.size(); ++i) {
    if (sums.took[i] == 0) continue;
    proto::Latency::Bucket& bucket = *latency.add_buckets();
    bucket.set_under_ns(LatencyBucketLimit(i));
    bucket.set_count(sums.took[i]);
  }
  out.set_bytes_in(sums.bytes_in);
  out.set_bytes_out(sums.bytes_out);
  out.set_descriptors_in(sums.descriptors_in);
  out.set_descriptors_out(sums.descriptors_out);
}

}  // namespace ward

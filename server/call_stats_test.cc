#include "ward/server/call_stats.h"

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/message_channel.h"
#include "ward/proto/stats.pb.h"

namespace ward {
namespace {

using ::testing::IsEmpty;

constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();

TEST(LatencyBucketTest, EachTimeIsUnderItsLimitByAQuarterAtMost) {
  for (const uint64_t time :
       {uint64_t{0}, uint64_t{1}, uint64_t{1023}, uint64_t{1024},
        uint64_t{1279}, uint64_t{1280}, uint64_t{2047}, uint64_t{2048},
        uint64_t{123456789}, (uint64_t{1} << 42) - 1}) {
    const size_t bucket = LatencyBucketOf(time);
    const uint64_t limit = LatencyBucketLimit(bucket);
    EXPECT_LT(time, limit);
    if (bucket == 0) continue;
    EXPECT_GE(time, LatencyBucketLimit(bucket - 1)) << time;
    EXPECT_LE(limit, time + (time + 3) / 4) << time;
  }
  EXPECT_EQ(LatencyBucketLimit(LatencyBucketOf(uint64_t{1} << 42)), 0u);
  EXPECT_EQ(LatencyBucketLimit(LatencyBucketOf(kMost)), 0u);
}

TEST(LatencyBucketTest, EachLimitBeginsTheNextBucket) {
  for (size_t bucket = 0; bucket + 1 < kLatencyBuckets; ++bucket) {
    const uint64_t limit = LatencyBucketLimit(bucket);
    EXPECT_EQ(LatencyBucketOf(limit - 1), bucket);
    EXPECT_EQ(LatencyBucketOf(limit), bucket + 1);
  }
}

// A new reason that is not in reason::kAll would be counted as its code.
TEST(ErrorKindTest, KnowsEveryReasonOfWards) {
  std::ifstream header("channel/error.h");
  const std::string text((std::istreambuf_iterator<char>(header)),
                         std::istreambuf_iterator<char>());
  const std::vector<std::string_view> declared =
      absl::StrSplit(text, "inline constexpr Reason k");
  // Before the first of them; and kAll itself.
  EXPECT_EQ(declared.size() - 2, std::size(reason::kAll));
}

TEST(ErrorKindTest, EachHasItsNameAndNothingElseHasOne) {
  std::set<std::string_view> names;
  for (size_t kind = 0; kind < kErrorKinds; ++kind) {
    EXPECT_TRUE(names.insert(ErrorKindName(kind)).second);
  }
  for (const Reason& reason : reason::kAll) {
    const size_t kind = ErrorKindOf(MakeError(reason, "text"));
    EXPECT_EQ(ErrorKindName(kind), reason.name);
  }
  for (int code = 1; code <= 16; ++code) {
    const absl::Status error(static_cast<absl::StatusCode>(code), "text");
    EXPECT_EQ(ErrorKindName(ErrorKindOf(error)),
              absl::StatusCodeToString(error.code()));
  }
  EXPECT_EQ(ErrorKindName(ErrorKindOf(MakeError(absl::StatusCode::kInternal,
                                                "a peer's own reason", ""))),
            "INTERNAL");
  EXPECT_EQ(ErrorKindName(ErrorKindOf(
                absl::Status(static_cast<absl::StatusCode>(12345), "text"))),
            "UNKNOWN");
}

TEST(CallStatsTest, AddsUpOverClients) {
  CallStats stats(3);
  for (uint64_t client = 0; client < 100; ++client) {
    CallStats::Counters& counters = stats.Of(3, client);
    counters.Begin();
    counters.End(absl::Microseconds(client), {{client, 1}, {1, 0}},
                 absl::OkStatus());
  }
  stats.Of(3, 7).Begin();
  proto::MethodStats told;
  stats.Describe(3, told);
  EXPECT_EQ(told.calls(), 101u);
  EXPECT_EQ(told.running(), 1u);
  EXPECT_EQ(told.bytes_in(), 99u * 100 / 2);
  EXPECT_EQ(told.bytes_out(), 100u);
  EXPECT_EQ(told.descriptors_in(), 100u);
  EXPECT_EQ(told.descriptors_out(), 0u);
  EXPECT_EQ(told.latency().sum_ns(), 99u * 100 / 2 * 1000);
  proto::MethodStats other;
  stats.Describe(2, other);
  EXPECT_EQ(other.calls(), 0u);
}

TEST(CallStatsTest, WrapsRoundAndTakesAnyTime) {
  CallStats stats(0);
  CallStats::Counters& counters = stats.Of(0, 0);
  const MessageChannel::BothWays most{{kMost, kMost}, {kMost, kMost}};
  counters.Begin();
  counters.End(absl::InfiniteDuration(), most, absl::OkStatus());
  counters.Begin();
  counters.End(-absl::InfiniteDuration(), {{3, 2}, {2, 1}}, absl::OkStatus());
  proto::MethodStats told;
  stats.Describe(0, told);
  EXPECT_EQ(told.calls(), 2u);
  EXPECT_EQ(told.running(), 0u);
  EXPECT_EQ(told.bytes_in(), 2u);
  EXPECT_EQ(told.descriptors_in(), 1u);
  EXPECT_EQ(told.bytes_out(), 1u);
  EXPECT_EQ(told.descriptors_out(), 0u);
  ASSERT_EQ(told.latency().buckets_size(), 2);
  EXPECT_EQ(told.latency().buckets(0).under_ns(), 1024u);
  EXPECT_EQ(told.latency().buckets(1).under_ns(), 0u);
  EXPECT_THAT(told.errors(), IsEmpty());
}

TEST(CallStatsTest, ManyThreadsLoseNothing) {
  constexpr uint64_t kThreads = 8;
  constexpr uint64_t kCalls = 20000;
  CallStats stats(1);
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < kThreads; ++i) {
    // Two of them share their counters.
    threads.emplace_back([&, client = i / 2] {
      for (uint64_t j = 0; j < kCalls; ++j) {
        CallStats::Counters& counters = stats.Of(0, client);
        counters.Begin();
        counters.End(absl::Microseconds(1), {{1, 0}, {1, 0}},
                     absl::NotFoundError("text"));
        proto::MethodStats told;
        if (j % 100 == 0) stats.Describe(0, told);
        EXPECT_LE(told.running(), told.calls());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  proto::MethodStats told;
  stats.Describe(0, told);
  EXPECT_EQ(told.calls(), kThreads * kCalls);
  EXPECT_EQ(told.running(), 0u);
  EXPECT_EQ(told.bytes_in(), kThreads * kCalls);
  ASSERT_EQ(told.errors_size(), 1);
  EXPECT_EQ(told.errors(0).reason(), "NOT_FOUND");
  EXPECT_EQ(told.errors(0).count(), kThreads * kCalls);
}

}  // namespace
}  // namespace ward

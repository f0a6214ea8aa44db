#include "ward/tools/wardctl/stats_format.h"

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/proto/stats.pb.h"

namespace ward::ctl {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();

void AddBucket(uint64_t under, uint64_t count, proto::MethodStats& method) {
  proto::Latency::Bucket& bucket = *method.mutable_latency()->add_buckets();
  bucket.set_under_ns(under);
  bucket.set_count(count);
}

template <typename Errors>
void AddError(std::string_view reason, uint64_t count, Errors& errors) {
  proto::ErrorCount& error = *errors.Add();
  error.set_reason(std::string(reason));
  error.set_count(count);
}

// A server with one method that was called, and one that was not.
proto::ServerStats Some() {
  proto::ServerStats stats;
  stats.set_pid(4711);
  stats.set_uptime_us(90000000);
  stats.set_threads(3);
  stats.set_idle_threads(2);
  stats.set_max_buffered_bytes(uint64_t{256} << 20);
  stats.mutable_clients()->set_accepted(12);
  stats.mutable_clients()->set_served(2);
  stats.mutable_clients()->set_max_served(64);
  AddError("InvalidPassword", 3, *stats.mutable_clients()->mutable_refused());
  proto::MethodStats& method = *stats.add_methods();
  method.set_name("greet");
  method.set_calls(101);
  method.set_running(1);
  AddError("NOT_FOUND", 2, *method.mutable_errors());
  AddBucket(1280, 90, method);
  AddBucket(uint64_t{1} << 20, 10, method);
  method.mutable_latency()->set_sum_ns(1000000);
  method.set_bytes_in(4096);
  method.set_bytes_out(100);
  method.set_descriptors_out(7);
  stats.add_methods()->set_name("idle");
  return stats;
}

std::vector<std::string> Lines(const std::string& text) {
  return absl::StrSplit(text, '\n', absl::SkipEmpty());
}

// --- for people ---

TEST(StatsPageTest, ShowsWhatWasCalled) {
  const std::string page = StatsPage(Some(), nullptr, /*all=*/false);
  EXPECT_THAT(Lines(page), AllOf(Contains("process 4711, up 1m30s"),
                                 Contains("refused   InvalidPassword 3"),
                                 Contains("threads   3, 2 of them idle"),
                                 Contains("errors of greet: NOT_FOUND 2")));
  EXPECT_THAT(page, ContainsRegex("\ngreet +101 +1 +2 +10us +1.28us +1.04ms "
                                  "+4.0 KiB +100 +0 +7\n"));
  EXPECT_THAT(page, Not(HasSubstr("\nidle ")));
  EXPECT_THAT(page, Not(HasSubstr("owner")));
  EXPECT_THAT(page, Not(HasSubstr("cut")));
  EXPECT_THAT(StatsPage(Some(), nullptr, /*all=*/true),
              AllOf(ContainsRegex("\nidle +0 +0 +0 +- +- +- +0"),
                    ContainsRegex("\n\\(unknown\\) +0")));
}

TEST(StatsPageTest, ShowsRatesSinceTheLookBefore) {
  const proto::ServerStats before = Some();
  proto::ServerStats now = Some();
  now.set_uptime_us(before.uptime_us() + 500000);
  proto::MethodStats& greet = *now.mutable_methods(0);
  greet.set_calls(111);
  greet.set_bytes_in(4096 + 1024);
  greet.mutable_latency()->mutable_buckets(1)->set_count(20);
  greet.mutable_latency()->set_sum_ns(6000000);
  EXPECT_THAT(
      StatsPage(now, &before, /*all=*/false),
      AllOf(HasSubstr("CALLS/S"),
            ContainsRegex("\ngreet +20.0 +1 +2 +500us +1.04ms +1.04ms +2.0 "
                          "KiB +0 +0.0 +0.0\n")));
  // Nobody passes descriptors.
  proto::ServerStats without = Some();
  without.mutable_methods(0)->set_descriptors_out(0);
  EXPECT_THAT(StatsPage(without, nullptr, false),
              AllOf(Not(HasSubstr("FDS")), HasSubstr(" OUT\n")));
  // In another life of it nothing has happened before.
  now.set_uptime_us(before.uptime_us());
  EXPECT_EQ(StatsPage(now, &before, false), StatsPage(now, nullptr, false));
  now.set_uptime_us(before.uptime_us() + 1);
  now.set_pid(1);
  EXPECT_EQ(StatsPage(now, &before, false), StatsPage(now, nullptr, false));
}

TEST(StatsPageTest, CountersMayWrapRound) {
  proto::ServerStats before = Some();
  before.mutable_methods(0)->set_calls(kMost - 1);
  proto::ServerStats now = Some();
  now.set_uptime_us(before.uptime_us() + 1000000);
  now.mutable_methods(0)->set_calls(3);
  EXPECT_THAT(StatsPage(now, &before, /*all=*/false),
              ContainsRegex("\ngreet +5.0 "));
}

// --- hostile servers ---

proto::ServerStats Wild() {
  proto::ServerStats stats;
  stats.set_pid(-1);
  stats.set_uptime_us(kMost);
  stats.set_threads(UINT32_MAX);
  stats.set_buffered_bytes(kMost);
  stats.set_max_buffered_bytes(kMost);
  stats.set_owners(UINT32_MAX);
  for (int i = 0; i < 2; ++i) {
    proto::MethodStats& method = *stats.add_methods();
    method.set_name("a\"b\\c\nd\x1b[31m\xff");
    method.set_calls(kMost);
    method.set_running(kMost);
    method.set_bytes_in(kMost);
    method.mutable_latency()->set_sum_ns(kMost);
    AddBucket(0, kMost, method);
    AddBucket(5, kMost, method);
    AddBucket(kMost, 7, method);
    AddError("x\"}\n", kMost, *method.mutable_errors());
    AddError("x\"}\n", 5, *method.mutable_errors());
  }
  return stats;
}

TEST(WildStatsTest, AreShownAllTheSame) {
  const proto::ServerStats wild = Wild();
  proto::ServerStats before = Wild();
  before.set_uptime_us(kMost - 1);
  before.mutable_methods()->RemoveLast();
  for (const std::string& page :
       {StatsPage(wild, nullptr, true), StatsPage(wild, &before, true)}) {
    EXPECT_THAT(page, HasSubstr("a\"b\\\\c\\nd\\x1b[31m\\xff"));
    EXPECT_THAT(page, Not(HasSubstr("\x1b")));
  }
  // One without buckets that ended, or calls of no time.
  proto::ServerStats empty;
  empty.add_methods();
  EXPECT_NE(StatsPage(empty, nullptr, true), "");
  EXPECT_NE(StatsJson(empty), "");
}

TEST(WildStatsTest, AreEscapedInJson) {
  EXPECT_THAT(StatsJson(Wild()),
              AllOf(HasSubstr(R"({"name":"a\"b\\\\c\\nd\\x1b[31m\\xff",)"),
                    HasSubstr(R"("errors":{"x\"}\\n":4})")));
}

TEST(WildStatsTest, AreEscapedInLabels) {
  EXPECT_THAT(Lines(StatsPrometheus(Wild(), "/a \"b\"\n")),
              Contains("ward_calls_running{socket=\"/a \\\"b\\\"\\\\n\","
                       "method=\"a\\\"b\\\\\\\\c\\\\nd\\\\x1b[31m\\\\xff\"} "
                       "18446744073709551615"));
}

// --- JSON ---

TEST(StatsJsonTest, HasTheNamesOfTheMessage) {
  proto::ServerStats stats = Some();
  stats.set_owners(1);
  EXPECT_EQ(
      StatsJson(stats),
      R"({"pid":4711,"uptime_us":90000000,"methods":[)"
      R"({"name":"greet","calls":101,"running":1,"errors":{"NOT_FOUND":2},)"
      R"("latency":{"sum_ns":1000000,"buckets":[{"under_ns":1280,"count":90},)"
      R"({"under_ns":1048576,"count":10}]},"bytes_in":4096,"bytes_out":100,)"
      R"("descriptors_in":0,"descriptors_out":7},)"
      R"({"name":"idle","calls":0,"running":0,"errors":{},)"
      R"("latency":{"sum_ns":0,"buckets":[]},"bytes_in":0,"bytes_out":0,)"
      R"("descriptors_in":0,"descriptors_out":0}],)"
      R"("unknown_messages":{"name":"","calls":0,"running":0,"errors":{},)"
      R"("latency":{"sum_ns":0,"buckets":[]},"bytes_in":0,"bytes_out":0,)"
      R"("descriptors_in":0,"descriptors_out":0},)"
      R"("clients":{"accepted":12,"served":2,"idle":0,"most_served":0,)"
      R"("max_served":64,"waiting":0,"silent":0,)"
      R"("refused":{"InvalidPassword":3},"left":0,"cut":{},"dismissed":0},)"
      R"("threads":3,"idle_threads":2,"buffered_bytes":0,)"
      R"("max_buffered_bytes":268435456,"owners":1})"
      "\n");
}

// --- Prometheus ---

TEST(StatsPrometheusTest, HasCumulativeBuckets) {
  const std::string text = StatsPrometheus(Some(), "/run/s");
  const std::string name = "ward_call_duration_seconds";
  const std::string labels = "{socket=\"/run/s\",method=\"greet\"";
  EXPECT_THAT(
      Lines(text),
      AllOf(Contains("# TYPE " + name + " histogram"),
            Contains(name + "_bucket" + labels + ",le=\"1.024e-06\"} 0"),
            Contains(name + "_bucket" + labels + ",le=\"2.048e-06\"} 90"),
            Contains(name + "_bucket" + labels + ",le=\"0.000524288\"} 90"),
            Contains(name + "_bucket" + labels + ",le=\"0.001048576\"} 100"),
            Contains(name + "_bucket" + labels + ",le=\"68.719476736\"} 100"),
            Contains(name + "_bucket" + labels + ",le=\"+Inf\"} 100"),
            Contains(name + "_sum" + labels + "} 0.001"),
            Contains(name + "_count" + labels + "} 100")));
  // The same ones where nothing was counted.
  EXPECT_THAT(text, HasSubstr(name + "_bucket{socket=\"/run/s\",method=\"idle\""
                                     ",le=\"0.001048576\"} 0\n"));
}

// As the format has it: each metric's lines together, behind its HELP and TYPE,
// none twice, and all of them ward's.
TEST(StatsPrometheusTest, IsWellFormed) {
  std::set<std::string> metrics;
  std::set<std::string> series;
  std::string metric;
  const std::string text = StatsPrometheus(Some(), "/run/s");
  EXPECT_EQ(text.back(), '\n');
  for (const std::string& line : Lines(text)) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words[0] == "#") {
      ASSERT_GE(words.size(), 4u) << line;
      if (words[1] == "HELP") {
        metric = words[2];
        EXPECT_THAT(metric, ContainsRegex("^ward_[a-z_]+$"));
        EXPECT_TRUE(metrics.insert(metric).second) << line;
      } else {
        EXPECT_EQ(words[1], "TYPE");
        EXPECT_EQ(words[2], metric);
        const bool is_counter = words[3] == "counter";
        EXPECT_EQ(is_counter, metric.size() > 6 &&
                                  metric.substr(metric.size() - 6) == "_total");
      }
      continue;
    }
    EXPECT_THAT(line, ContainsRegex(absl::StrCat(
                          "^", metric, "(_bucket|_sum|_count)?",
                          "\\{[a-z]+=\"[^\"]*\"(,[a-z]+=\"[^\"]*\")*\\} "
                          "[0-9.e+-]+$")));
    EXPECT_TRUE(series.insert(line.substr(0, line.rfind(' '))).second) << line;
  }
  EXPECT_GT(metrics.size(), 20u);
}

}  // namespace
}  // namespace ward::ctl

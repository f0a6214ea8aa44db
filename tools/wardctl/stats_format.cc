#include "ward/tools/wardctl/stats_format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "ward/proto/stats.pb.h"
#include "ward/tools/wardctl/printable.h"

namespace ward::ctl {
namespace {

using Errors = google::protobuf::RepeatedPtrField<proto::ErrorCount>;
using proto::MethodStats;
using proto::ServerStats;

// With a server that says what it likes, sums wrap round as its counters do.
uint64_t Total(const Errors& errors) {
  uint64_t total = 0;
  for (const proto::ErrorCount& error : errors) total += error.count();
  return total;
}

uint64_t Ended(const MethodStats& method) {
  uint64_t ended = 0;
  for (const proto::Latency::Bucket& bucket : method.latency().buckets()) {
    ended += bucket.count();
  }
  return ended;
}

// As JSON, and a label of Prometheus's, have it between quotes.
std::string Quoted(std::string_view text) {
  return absl::StrCat(
      "\"",
      absl::StrReplaceAll(Printable(text), {{"\\", "\\\\"}, {"\"", "\\\""}}),
      "\"");
}

// --- for people ---

std::string Time(uint64_t nanoseconds) {
  constexpr uint64_t kMost = INT64_MAX;
  absl::Duration time =
      absl::Nanoseconds(static_cast<int64_t>(std::min(nanoseconds, kMost)));
  // Three digits of it.
  absl::Duration unit = absl::Nanoseconds(1);
  while (time / unit >= 1000) unit *= 10;
  return absl::FormatDuration(absl::Trunc(time, unit));
}

// What `share` of the calls took at most.
std::string Quantile(const proto::Latency& latency, uint64_t ended,
                     double share) {
  const double due = share * static_cast<double>(ended);
  uint64_t seen = 0;
  uint64_t limit = 0;
  for (const proto::Latency::Bucket& bucket : latency.buckets()) {
    if (bucket.count() == 0) continue;
    seen += bucket.count();
    if (bucket.under_ns() == 0) return absl::StrCat(">", Time(limit));
    limit = bucket.under_ns();
    if (static_cast<double>(seen) >= due) break;
  }
  return Time(limit);
}

std::string Bytes(double bytes) {
  constexpr std::string_view kUnits[] = {"",     " KiB", " MiB", " GiB",
                                         " TiB", " PiB", " EiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(kUnits); ++unit) bytes /= 1024;
  return absl::StrFormat("%.*f%s", unit == 0 ? 0 : 1, bytes, kUnits[unit]);
}

std::string Listed(const Errors& errors) {
  std::string list;
  for (const proto::ErrorCount& error : errors) {
    absl::StrAppend(&list, list.empty() ? "" : ", ", Printable(error.reason()),
                    " ", error.count());
  }
  return list;
}

// What has come to `now` since `before`.
MethodStats Since(const MethodStats& now, const MethodStats& before) {
  MethodStats since = now;
  since.set_calls(now.calls() - before.calls());
  since.set_bytes_in(now.bytes_in() - before.bytes_in());
  since.set_bytes_out(now.bytes_out() - before.bytes_out());
  since.set_descriptors_in(now.descriptors_in() - before.descriptors_in());
  since.set_descriptors_out(now.descriptors_out() - before.descriptors_out());
  since.mutable_latency()->set_sum_ns(now.latency().sum_ns() -
                                      before.latency().sum_ns());
  std::map<uint64_t, uint64_t> counted;
  for (const proto::Latency::Bucket& bucket : before.latency().buckets()) {
    counted[bucket.under_ns()] = bucket.count();
  }
  for (auto& bucket : *since.mutable_latency()->mutable_buckets()) {
    bucket.set_count(bucket.count() - counted[bucket.under_ns()]);
  }
  return since;
}

using Row = std::vector<std::string>;

// The first column to the left, the others to the right.
std::string Table(const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string table;
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string gap(widths[i] - row[i].size(), ' ');
      absl::StrAppend(&table, i == 0 ? "" : "  ", i == 0 ? row[i] : gap,
                      i == 0 ? gap : row[i]);
    }
    table += "\n";
  }
  return table;
}

// Those of descriptors are the last two, if any.
Row MethodRow(std::string name, const MethodStats& now,
              const MethodStats* before, double seconds, bool descriptors) {
  const MethodStats shown = before == nullptr ? now : Since(now, *before);
  const auto rate = [&](uint64_t count) {
    if (before == nullptr) return absl::StrCat(count);
    return absl::StrFormat("%.1f", static_cast<double>(count) / seconds);
  };
  const auto bytes = [&](uint64_t count) {
    return Bytes(static_cast<double>(count) /
                 (before == nullptr ? 1 : seconds));
  };
  Row row = {std::move(name), rate(shown.calls()), absl::StrCat(now.running()),
             absl::StrCat(Total(now.errors()))};
  const uint64_t ended = Ended(shown);
  if (ended == 0) {
    row.insert(row.end(), {"-", "-", "-"});
  } else {
    row.push_back(Time(shown.latency().sum_ns() / ended));
    row.push_back(Quantile(shown.latency(), ended, 0.5));
    row.push_back(Quantile(shown.latency(), ended, 0.99));
  }
  row.push_back(bytes(shown.bytes_in()));
  row.push_back(bytes(shown.bytes_out()));
  if (descriptors) {
    row.push_back(rate(shown.descriptors_in()));
    row.push_back(rate(shown.descriptors_out()));
  }
  return row;
}

}  // namespace

std::string StatsPage(const ServerStats& now, const ServerStats* before,
                      bool all) {
  if (before != nullptr &&
      (before->pid() != now.pid() || before->uptime_us() >= now.uptime_us() ||
       // It has counted anew, under the same number, as in a container.
       before->clients().accepted() > now.clients().accepted())) {
    before = nullptr;
  }
  const double seconds =
      before == nullptr
          ? 0
          : static_cast<double>(now.uptime_us() - before->uptime_us()) / 1e6;
  const proto::ClientStats& clients = now.clients();
  constexpr uint64_t kMostUptime = INT64_MAX / 1000000 * 1000000;
  const absl::Duration uptime = absl::Seconds(
      static_cast<int64_t>(std::min(now.uptime_us(), kMostUptime) / 1000000));
  std::string page = absl::StrCat("process ", now.pid(), ", up ",
                                  absl::FormatDuration(uptime));
  if (now.has_owners()) {
    absl::StrAppend(&page, ", ", now.owners(),
                    now.owners() == 1 ? " owner" : " owners");
  }
  absl::StrAppend(&page, "\nclients   ", clients.served(), " of ",
                  clients.max_served(), " places taken, ", clients.idle(),
                  " by idle ones, ", clients.most_served(), " at most; ",
                  clients.waiting(), " waiting, ", clients.silent(),
                  " silent\n          ", clients.accepted(), " came, ",
                  clients.left(), " left before they were served, ",
                  clients.dismissed(), " idle ones left for others\n");
  if (clients.refused_size() > 0) {
    absl::StrAppend(&page, "refused   ", Listed(clients.refused()), "\n");
  }
  if (clients.cut_size() > 0) {
    absl::StrAppend(&page, "cut       ", Listed(clients.cut()), "\n");
  }
  absl::StrAppend(&page, "threads   ", now.threads(), ", ", now.idle_threads(),
                  " of them idle\nbuffered  ",
                  Bytes(static_cast<double>(now.buffered_bytes())), " of ",
                  Bytes(static_cast<double>(now.max_buffered_bytes())), "\n\n");

  std::map<std::string_view, const MethodStats*> earlier;
  if (before != nullptr) {
    for (const MethodStats& method : before->methods()) {
      earlier[method.name()] = &method;
    }
  }
  const MethodStats none;
  // Few servers pass any, and a terminal is narrow.
  const bool descriptors = std::any_of(
      now.methods().begin(), now.methods().end(),
      [](const MethodStats& method) {
        return method.descriptors_in() != 0 || method.descriptors_out() != 0;
      });
  const bool is_rate = before != nullptr;
  std::vector<Row> rows = {
      {"METHOD", is_rate ? "CALLS/S" : "CALLS", "RUNNING", "ERRORS", "MEAN",
       "MEDIAN", "99 %", is_rate ? "IN/S" : "IN", is_rate ? "OUT/S" : "OUT"}};
  if (descriptors) {
    rows[0].push_back(is_rate ? "FDS IN/S" : "FDS IN");
    rows[0].push_back(is_rate ? "FDS OUT/S" : "FDS OUT");
  }
  std::string errors;
  const auto add = [&](const MethodStats& method, const MethodStats* then) {
    if (!all && method.calls() == 0) return;
    const std::string name = &method == &now.unknown_messages()
                                 ? "(unknown)"
                                 : Printable(method.name());
    rows.push_back(MethodRow(name, method, then, seconds, descriptors));
    if (method.errors_size() > 0) {
      absl::StrAppend(&errors, "\nerrors of ", name, ": ",
                      Listed(method.errors()));
    }
  };
  for (const MethodStats& method : now.methods()) {
    const auto found = earlier.find(method.name());
    add(method, before == nullptr        ? nullptr
                : found == earlier.end() ? &none
                                         : found->second);
  }
  add(now.unknown_messages(),
      before == nullptr ? nullptr : &before->unknown_messages());
  absl::StrAppend(&page, Table(rows), errors, errors.empty() ? "" : "\n");
  return page;
}

// --- JSON ---

namespace {

std::string Object(const Errors& errors) {
  // A reason twice would be a key twice.
  std::map<std::string, uint64_t> counts;
  for (const proto::ErrorCount& error : errors) {
    counts[Quoted(error.reason())] += error.count();
  }
  std::string object = "{";
  for (const auto& [reason, count] : counts) {
    absl::StrAppend(&object, object.size() == 1 ? "" : ",", reason, ":", count);
  }
  return object + "}";
}

std::string Object(const MethodStats& method) {
  std::string buckets;
  for (const proto::Latency::Bucket& bucket : method.latency().buckets()) {
    absl::StrAppend(&buckets, buckets.empty() ? "" : ",",
                    "{\"under_ns\":", bucket.under_ns(),
                    ",\"count\":", bucket.count(), "}");
  }
  return absl::StrCat(
      "{\"name\":", Quoted(method.name()), ",\"calls\":", method.calls(),
      ",\"running\":", method.running(),
      ",\"errors\":", Object(method.errors()),
      ",\"latency\":{\"sum_ns\":", method.latency().sum_ns(), ",\"buckets\":[",
      buckets, "]},\"bytes_in\":", method.bytes_in(),
      ",\"bytes_out\":", method.bytes_out(),
      ",\"descriptors_in\":", method.descriptors_in(),
      ",\"descriptors_out\":", method.descriptors_out(), "}");
}

}  // namespace

std::string StatsJson(const ServerStats& stats) {
  const proto::ClientStats& clients = stats.clients();
  std::string json =
      absl::StrCat("{\"pid\":", stats.pid(),
                   ",\"uptime_us\":", stats.uptime_us(), ",\"methods\":[");
  for (const MethodStats& method : stats.methods()) {
    absl::StrAppend(&json, &method == &stats.methods(0) ? "" : ",",
                    Object(method));
  }
  absl::StrAppend(
      &json, "],\"unknown_messages\":", Object(stats.unknown_messages()),
      ",\"clients\":{\"accepted\":", clients.accepted(),
      ",\"served\":", clients.served(), ",\"idle\":", clients.idle(),
      ",\"most_served\":", clients.most_served(),
      ",\"max_served\":", clients.max_served(),
      ",\"waiting\":", clients.waiting(), ",\"silent\":", clients.silent(),
      ",\"refused\":", Object(clients.refused()), ",\"left\":", clients.left(),
      ",\"cut\":", Object(clients.cut()),
      ",\"dismissed\":", clients.dismissed(), "},\"threads\":", stats.threads(),
      ",\"idle_threads\":", stats.idle_threads(),
      ",\"buffered_bytes\":", stats.buffered_bytes(),
      ",\"max_buffered_bytes\":", stats.max_buffered_bytes());
  if (stats.has_owners()) {
    absl::StrAppend(&json, ",\"owners\":", stats.owners());
  }
  return json + "}\n";
}

// --- Prometheus ---

namespace {

// In the shortest form that reads back as the same.
std::string Seconds(uint64_t nanoseconds) {
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(),
                                 static_cast<double>(nanoseconds) / 1e9);
  return {digits.data(), end.ptr};
}

class Exposition {
 public:
  explicit Exposition(std::string_view socket)
      : socket_(absl::StrCat("socket=", Quoted(socket))) {}

  void Begin(std::string_view name, std::string_view type,
             std::string_view help) {
    name_ = name;
    absl::StrAppend(&text_, "# HELP ", name, " ", help, "\n# TYPE ", name, " ",
                    type, "\n");
  }
  // Of what was begun last. `labels` are more of them, with a comma before
  // each; `part` belongs to the name.
  void Add(std::string_view labels, std::string_view value,
           std::string_view part = "") {
    absl::StrAppend(&text_, name_, part, "{", socket_, labels, "} ", value,
                    "\n");
  }
  void Add(std::string_view labels, uint64_t value) {
    Add(labels, absl::StrCat(value));
  }

  std::string text() && { return std::move(text_); }

 private:
  const std::string socket_;
  std::string_view name_;
  std::string text_;
};

std::string Label(std::string_view name, std::string_view value) {
  return absl::StrCat(",", name, "=", Quoted(value));
}

// Of those that a server has, which there are may change from one version of
// ward to the next: these are the powers of two, to about 69 s.
constexpr int kLeastPower = 10;
constexpr int kMostPower = 36;

void AddLatency(const MethodStats& method, Exposition& out) {
  const std::string label = Label("method", method.name());
  for (int power = kLeastPower; power <= kMostPower; ++power) {
    const uint64_t limit = uint64_t{1} << power;
    uint64_t count = 0;
    for (const proto::Latency::Bucket& bucket : method.latency().buckets()) {
      if (bucket.under_ns() != 0 && bucket.under_ns() <= limit) {
        count += bucket.count();
      }
    }
    out.Add(absl::StrCat(label, ",le=\"", Seconds(limit), "\""),
            absl::StrCat(count), "_bucket");
  }
  const std::string ended = absl::StrCat(Ended(method));
  out.Add(absl::StrCat(label, ",le=\"+Inf\""), ended, "_bucket");
  out.Add(label, Seconds(method.latency().sum_ns()), "_sum");
  out.Add(label, ended, "_count");
}

}  // namespace

std::string StatsPrometheus(const ServerStats& stats, std::string_view socket) {
  Exposition out(socket);
  const auto one = [&](std::string_view name, std::string_view type,
                       std::string_view help, uint64_t value) {
    out.Begin(name, type, help);
    out.Add("", value);
  };
  const auto by_reason = [&](std::string_view name, std::string_view help,
                             const Errors& errors) {
    out.Begin(name, "counter", help);
    for (const proto::ErrorCount& error : errors) {
      out.Add(Label("reason", error.reason()), error.count());
    }
  };
  const auto by_method =
      [&](std::string_view name, std::string_view type, std::string_view help,
          absl::FunctionRef<uint64_t(const MethodStats&)> value) {
        out.Begin(name, type, help);
        for (const MethodStats& method : stats.methods()) {
          out.Add(Label("method", method.name()), value(method));
        }
      };
  const proto::ClientStats& clients = stats.clients();

  out.Begin("ward_uptime_seconds", "gauge", "Since the server was ready.");
  out.Add("", Seconds(stats.uptime_us() * 1000));
  if (stats.has_owners()) {
    one("ward_owners", "gauge", "Processes that keep the server alive.",
        stats.owners());
  }
  one("ward_threads", "gauge", "Threads for clients.", stats.threads());
  one("ward_threads_idle", "gauge", "Of them, those that have nothing to do.",
      stats.idle_threads());
  one("ward_buffered_bytes", "gauge",
      "What messages take that are being received.", stats.buffered_bytes());
  one("ward_buffered_bytes_max", "gauge", "What they may take.",
      stats.max_buffered_bytes());
  one("ward_clients_served", "gauge", "Clients that have a place.",
      clients.served());
  one("ward_clients_idle", "gauge", "Of them, those that are between calls.",
      clients.idle());
  one("ward_clients_served_most", "gauge",
      "As many had a place at a time, at most.", clients.most_served());
  one("ward_clients_served_max", "gauge", "As many may have a place.",
      clients.max_served());
  one("ward_clients_waiting", "gauge", "Clients that wait for a place.",
      clients.waiting());
  one("ward_clients_silent", "gauge",
      "Clients whose first message has not come.", clients.silent());
  one("ward_clients_accepted_total", "counter", "Clients that came.",
      clients.accepted());
  one("ward_clients_left_total", "counter",
      "Clients that left before they were served.", clients.left());
  one("ward_clients_dismissed_total", "counter",
      "Idle clients that left for others.", clients.dismissed());
  by_reason("ward_clients_refused_total",
            "Clients that were turned away before they were served.",
            clients.refused());
  by_reason("ward_clients_cut_total",
            "Clients that were cut off before they were done.", clients.cut());

  by_method("ward_calls_total", "counter", "Calls that were begun.",
            [](const MethodStats& method) { return method.calls(); });
  by_method("ward_calls_running", "gauge", "Calls that have not ended.",
            [](const MethodStats& method) { return method.running(); });
  out.Begin("ward_call_errors_total", "counter", "Calls that have failed.");
  for (const MethodStats& method : stats.methods()) {
    for (const proto::ErrorCount& error : method.errors()) {
      out.Add(absl::StrCat(Label("method", method.name()),
                           Label("reason", error.reason())),
              error.count());
    }
  }
  by_method("ward_received_bytes_total", "counter", "Of clients' messages.",
            [](const MethodStats& method) { return method.bytes_in(); });
  by_method("ward_sent_bytes_total", "counter", "Of messages to clients.",
            [](const MethodStats& method) { return method.bytes_out(); });
  by_method("ward_received_descriptors_total", "counter",
            "That came with clients' messages.",
            [](const MethodStats& method) { return method.descriptors_in(); });
  by_method("ward_sent_descriptors_total", "counter",
            "That went with messages to clients.",
            [](const MethodStats& method) { return method.descriptors_out(); });
  one("ward_unknown_messages_total", "counter",
      "Messages that the server has no handler for.",
      stats.unknown_messages().calls());
  out.Begin("ward_call_duration_seconds", "histogram",
            "How long calls took that have ended.");
  for (const MethodStats& method : stats.methods()) AddLatency(method, out);
  return std::move(out).text();
}

}  // namespace ward::ctl

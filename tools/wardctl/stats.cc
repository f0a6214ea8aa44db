#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/proto/stats.pb.h"
#include "ward/server/environment.h"
#include "ward/server/outgoing_call.h"
#include "ward/tools/wardctl/access.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/commands.h"
#include "ward/tools/wardctl/failure.h"
#include "ward/tools/wardctl/password.h"
#include "ward/tools/wardctl/stats_format.h"

namespace ward::ctl {
namespace {

constexpr Option kWatch{"watch", "",
                        "again and again, with rates, until it is interrupted "
                        "or the server is gone"};
constexpr Option kInterval{"interval", "TIME",
                           "between two looks of --watch; default: 2s"};
constexpr Option kAll{"all", "", "methods that nobody has called, too"};
constexpr Option kJson{"json", "", "as JSON, on a line"};
constexpr Option kPrometheus{"prometheus", "",
                             "as Prometheus's text format, for scrapers"};
constexpr Option kAskTimeout{
    kTimeout.name, kTimeout.argument,
    "give up when the server has not answered for TIME, such as 500ms, 2s or "
    "1m30s; default: 10s"};
constexpr Option kOptions[] = {kWatch,        kInterval,   kAll,
                               kJson,         kPrometheus, kAskTimeout,
                               kPasswordFile, kPasswordFd, kServerUser};

// Over a connection of its own, which takes no place meanwhile.
absl::StatusOr<proto::ServerStats> Ask(Access& access, absl::Time deadline,
                                       bool with_owners) {
  std::optional<proto::ServerStats> stats;
  WARD_RETURN_IF_ERROR(access.Call(
      deadline, OutgoingCall::Over::kNew,
      [&](MessageChannel& channel) {
        return channel.Write("ward.stats", with_owners);
      },
      [&](MessageChannel& channel) {
        return ReadReplies(channel, [&](const Message& reply) -> absl::Status {
          if (reply.size() == 1 && stats.emplace().ParseFromString(reply[0])) {
            return absl::OkStatus();
          }
          return MakeError(ward::reason::kUnexpectedFrame,
                           "what the server has answered to ward.stats is no "
                           "ward.proto.ServerStats");
        });
      }));
  if (stats.has_value()) return *std::move(stats);
  return MakeError(ward::reason::kUnexpectedFrame,
                   "the server has answered ward.stats with nothing");
}

absl::Status Run(const CommandLine& line) {
  absl::Duration interval = absl::Seconds(2);
  if (const std::string* const text = line.Find(kInterval);
      text != nullptr && (!absl::ParseDuration(*text, &interval) ||
                          interval <= absl::ZeroDuration())) {
    return UsageError(absl::StrCat("--interval: \"", *text,
                                   "\" is no time such as 500ms or 2s"));
  }
  const bool watch = line.Has(kWatch);
  if (line.Has(kPrometheus) && (watch || line.Has(kJson))) {
    return UsageError("--prometheus goes with neither --watch nor --json");
  }
  WARD_ASSIGN_OR_RETURN(const std::unique_ptr<Access> access,
                        Access::Make(line));
  Environment& environment = Environment::Default();
  const bool clears = watch && !line.Has(kJson) && isatty(STDOUT_FILENO) != 0;
  std::optional<proto::ServerStats> before;
  absl::Time deadline = access->deadline();
  while (true) {
    WARD_ASSIGN_OR_RETURN(proto::ServerStats stats,
                          Ask(*access, deadline, /*with_owners=*/!watch));
    if (line.Has(kPrometheus)) {
      std::error_code error;
      const auto path = std::filesystem::absolute(access->path(), error);
      std::cout << StatsPrometheus(stats,
                                   error ? access->path() : path.string());
    } else if (line.Has(kJson)) {
      std::cout << StatsJson(stats);
    } else {
      if (clears) {
        std::cout << "\x1b[H\x1b[J";
      } else if (before.has_value()) {
        std::cout << "\n";
      }
      std::cout << StatsPage(stats, before.has_value() ? &*before : nullptr,
                             line.Has(kAll));
    }
    // What cannot be written main() tells.
    if (!watch || !std::cout.flush()) return absl::OkStatus();
    before = std::move(stats);
    absl::SleepFor(interval);
    deadline = environment.TimeNow() + access->timeout();
  }
}

}  // namespace

constexpr Command kStats = {
    "stats",
    "SERVER",
    1,
    1,
    "show what a server has done, and what it has to do",
    "Of the server: its clients, those that it has turned away or cut off, and "
    "why, its threads and owners. Of each method: how often it was called, "
    "failed, and "
    "how long it took: half of its calls the median at most, which is told too "
    "large by a quarter at most. The server answers also when it has no place "
    "for another client.\n\n"
    "With --watch, from the second look on, numbers of calls, bytes and "
    "descriptors (FDS) are those of a second, and times those of the calls "
    "that have ended since; owners are not looked for.\n\n"
    "Counters count from the server's start. In --json, and the names of the "
    "metrics, they are those of ward's proto/stats.proto; names have what is "
    "not printable escaped, as everywhere.",
    kOptions,
    &Run,
};

}  // namespace ward::ctl

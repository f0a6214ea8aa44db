#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iomanip>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/message.h"
#include "ward/channel/status_macros.h"
#include "ward/server/environment.h"
#include "ward/tools/wardctl/access.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/commands.h"
#include "ward/tools/wardctl/failure.h"
#include "ward/tools/wardctl/invocation.h"
#include "ward/tools/wardctl/messages.h"
#include "ward/tools/wardctl/password.h"
#include "ward/tools/wardctl/printable.h"

namespace ward::ctl {
namespace {

constexpr Option kClients{"clients", "N",
                          "how many call at once, 1 to 1000; default: 1"};
constexpr Option kTime{"time", "TIME", "for how long; default: 1s"};
constexpr Option kConnect{
    "connect", "",
    "a connection for each call, as one that has a stream takes in any case"};
constexpr Option kCallTimeout{
    kTimeout.name, kTimeout.argument,
    "a call has failed after TIME, such as 500ms, 2s or 1m30s; the server is "
    "told. Default: 10s"};
constexpr Option kOptions[] = {kClients,     kTime,         kConnect,
                               kCallTimeout, kPasswordFile, kPasswordFd,
                               kServerUser,  kDescriptorSet};

constexpr std::string_view kDefaultMethod = "ward.methods";

// What one client has seen.
struct Seen {
  std::vector<int64_t> nanoseconds;
  int64_t failed = 0;
  absl::Status first_failure;
};

// Calls until `end`, and once at least, over a connection that is kept, or over
// one for each.
void CallUntil(absl::Time end, Access& access, const Invocation& invocation,
               const Messages& messages, bool connect, Seen& seen) {
  Environment& environment = Environment::Default();
  absl::Time begin = environment.TimeNow();
  do {
    const absl::Status status = Invoke(
        access, begin + access.timeout(), /*may_be_kept=*/!connect, invocation,
        messages, [](const Message&) { return absl::OkStatus(); });
    const absl::Time now = environment.TimeNow();
    if (status.ok()) {
      seen.nanoseconds.push_back(absl::ToInt64Nanoseconds(now - begin));
    } else {
      if (seen.first_failure.ok()) seen.first_failure = status;
      ++seen.failed;
    }
    begin = now;
  } while (begin < end);
}

std::string Time(int64_t nanoseconds) {
  return absl::FormatDuration(
      absl::Trunc(absl::Nanoseconds(nanoseconds), absl::Microseconds(1)));
}

absl::Status Tell(const std::vector<Seen>& clients, absl::Duration time,
                  std::string_view method) {
  std::vector<int64_t> all;
  int64_t failed = 0;
  absl::Status failure;
  for (const Seen& seen : clients) {
    all.insert(all.end(), seen.nanoseconds.begin(), seen.nanoseconds.end());
    failed += seen.failed;
    if (failure.ok()) failure = seen.first_failure;
  }
  std::sort(all.begin(), all.end());
  std::cout << method << ", " << clients.size()
            << (clients.size() == 1 ? " client: " : " clients: ") << all.size()
            << " calls in " << absl::FormatDuration(time) << ", "
            << static_cast<int64_t>(static_cast<double>(all.size()) /
                                    absl::ToDoubleSeconds(time))
            << " a second";
  if (failed > 0) std::cout << "; " << failed << " failed";
  std::cout << "\n";
  if (!all.empty()) {
    const auto at = [&](double share) {
      return Time(all[static_cast<size_t>(
          share * static_cast<double>(all.size() - 1))]);
    };
    std::cout << "least " << at(0) << ", median " << at(0.5) << ", 90 % "
              << at(0.9) << ", 99 % " << at(0.99) << ", 99.9 % " << at(0.999)
              << ", most " << at(1) << "\n";
  }
  return failure;
}

absl::Status Run(const CommandLine& line) {
  int count = 1;
  if (const std::string* const text = line.Find(kClients);
      text != nullptr &&
      (!absl::SimpleAtoi(*text, &count) || count < 1 || count > 1000)) {
    return UsageError(
        absl::StrCat("--clients: \"", *text, "\" is no number from 1 to 1000"));
  }
  absl::Duration time = absl::Seconds(1);
  if (const std::string* const text = line.Find(kTime);
      text != nullptr &&
      (!absl::ParseDuration(*text, &time) || time <= absl::ZeroDuration())) {
    return UsageError(
        absl::StrCat("--time: \"", *text, "\" is no time such as 500ms or 2s"));
  }
  WARD_ASSIGN_OR_RETURN(const std::unique_ptr<Access> access,
                        Access::Make(line));
  std::vector<std::string> words(line.operands().begin() + 1,
                                 line.operands().end());
  if (words.empty()) words.emplace_back(kDefaultMethod);
  Messages messages;
  WARD_ASSIGN_OR_RETURN(const Invocation invocation,
                        Prepare(*access, line, words, messages));
  if (invocation.reads_input) {
    return UsageError(
        "a stream of standard input is read once: give its "
        "elements as arguments");
  }
  std::vector<Seen> clients(static_cast<size_t>(count));
  Environment& environment = Environment::Default();
  const absl::Time begin = environment.TimeNow();
  {
    std::vector<std::unique_ptr<Thread>> threads;
    for (Seen& seen : clients) {
      WARD_ASSIGN_OR_RETURN(std::unique_ptr<Thread> thread,
                            environment.StartThread([&, end = begin + time] {
                              CallUntil(end, *access, invocation, messages,
                                        line.Has(kConnect), seen);
                            }));
      threads.push_back(std::move(thread));
    }
  }
  return Tell(clients, environment.TimeNow() - begin, Printable(words.front()));
}

}  // namespace

constexpr Command kBench = {
    "bench",
    "SERVER [METHOD [ARGUMENT]...]",
    1,
    10000,
    "measure how fast a server answers",
    "Calls METHOD, with arguments as of wardctl call, again and again; by "
    "default ward.methods, which does nothing. Then it tells how many calls "
    "there were, and how long they took: half of them the median at most, and "
    "so "
    "on. It does not check what is replied. It fails as the first call that "
    "failed.",
    kOptions,
    &Run,
};

}  // namespace ward::ctl

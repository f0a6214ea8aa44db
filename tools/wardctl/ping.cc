#include <iostream>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/status_macros.h"
#include "ward/server/environment.h"
#include "ward/tools/wardctl/access.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/commands.h"
#include "ward/tools/wardctl/password.h"
#include "ward/tools/wardctl/printable.h"

namespace ward::ctl {
namespace {

constexpr Option kWait{
    "wait", "",
    "until --timeout, as long as no server is there, or it is full"};
constexpr Option kOptions[] = {kWait, kTimeout, kPasswordFile, kPasswordFd,
                               kServerUser};

// Between two attempts.
constexpr absl::Duration kPause = absl::Milliseconds(20);

absl::Status Run(const CommandLine& line) {
  WARD_ASSIGN_OR_RETURN(const std::unique_ptr<Access> access,
                        Access::Make(line));
  Environment& environment = Environment::Default();
  absl::Status status;
  absl::Duration took;
  while (true) {
    const absl::Time begin = absl::Now();
    // What every server answers, and at little cost.
    status = access->Ask("ward.methods",
                         [](const Message&) { return absl::OkStatus(); });
    took = absl::Now() - begin;
    const bool may_come = HasReason(status, ward::reason::kServerUnreachable) ||
                          HasReason(status, ward::reason::kServerFull) ||
                          HasReason(status, ward::reason::kServerStopping);
    const absl::Duration left = access->deadline() - environment.TimeNow();
    if (!line.Has(kWait) || !may_come || left <= kPause) break;
    absl::SleepFor(kPause);
  }
  WARD_RETURN_IF_ERROR(status);
  std::cout << Printable(access->path()) << " answers, in "
            << absl::FormatDuration(absl::Trunc(took, absl::Microseconds(1)))
            << "; process " << access->listener_pid() << " of user "
            << access->listener_uid() << " has started it\n";
  return absl::OkStatus();
}

}  // namespace

constexpr Command kPing = {
    "ping",
    "SERVER",
    1,
    1,
    "ask whether a server answers, and knows the password",
    "One call, over a connection of its own. Its time is that of all of it.",
    kOptions,
    &Run,
};

}  // namespace ward::ctl

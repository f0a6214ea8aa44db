#include "ward/examples/supervisor/supervisor.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"

std::optional<absl::Duration> RestartPolicy::OnDeath(absl::Time now) {
  while (!deaths_.empty() && deaths_.front() <= now - options_.window) {
    deaths_.pop_front();
  }
  if (deaths_.size() >= options_.most_restarts) return std::nullopt;
  const double factor = std::exp2(static_cast<double>(deaths_.size()));
  deaths_.push_back(now);
  return std::min(options_.first_delay * factor, options_.longest_delay);
}

absl::StatusOr<bool> Supervisor::Quits(const ward::Pollable& quit,
                                       const ward::Pollable* other,
                                       absl::Time deadline) {
  std::vector<const ward::Pollable*> polled = {&quit};
  if (other != nullptr) polled.push_back(other);
  const absl::StatusOr<size_t> ready = environment_.Poll(polled, deadline);
  if (ward::HasReason(ready.status(), ward::reason::kTimedOut)) return false;
  WARD_RETURN_IF_ERROR(ready.status());
  return *ready == 0;
}

absl::Status Supervisor::RunOnce(const ward::Pollable& quit) {
  constexpr absl::Time kNever = absl::InfiniteFuture();
  WARD_RETURN_IF_ERROR(server_.BeginStart());
  // An event loop would have this descriptor among its others.
  WARD_ASSIGN_OR_RETURN(bool quits,
                        Quits(quit, server_.pollable().get(), kNever));
  if (quits) return server_.Stop();
  WARD_RETURN_IF_ERROR(server_.WaitUntilReady());
  note_(absl::StrCat("serves, as process ", server_.server_pid()));
  WARD_ASSIGN_OR_RETURN(quits, Quits(quit, server_.pollable().get(), kNever));
  if (quits) return server_.Stop();
  absl::Status death = server_.CheckAlive();
  // Cleans up after it; how it ended is known.
  (void)server_.Stop();
  return death;
}

absl::Status Supervisor::Run(const ward::Pollable& quit) {
  while (true) {
    absl::Status status = RunOnce(quit);
    if (status.ok()) return status;
    const std::optional<absl::Duration> delay =
        policy_.OnDeath(environment_.TimeNow());
    if (!delay.has_value()) {
      note_("gives up");
      return status;
    }
    note_(absl::StrCat(status.message(), "; again in ",
                       absl::FormatDuration(*delay)));
    WARD_ASSIGN_OR_RETURN(
        const bool quits,
        Quits(quit, nullptr, environment_.TimeNow() + *delay));
    if (quits) return absl::OkStatus();
  }
}

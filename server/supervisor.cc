#include "ward/server/supervisor.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/poll_set.h"

namespace ward {

Supervisor::Supervisor(AbstractServer& server, SupervisorOptions options)
    : server_(server), options_(std::move(options)) {}

Supervisor::~Supervisor() { (void)Stop(); }

absl::Status Supervisor::Run(const Pollable& quit) {
  WARD_RETURN_IF_ERROR(Start());
  absl::Status status;
  while (status.ok()) {
    const Pollable* const polled[] = {&quit, events_.get()};
    const absl::StatusOr<size_t> ready =
        options_.environment->Poll(polled, absl::InfiniteFuture());
    if (ready.ok() && *ready == 0) return Stop();
    status = ready.ok() ? Continue() : ready.status();
  }
  (void)Stop();
  return status;
}

absl::Status Supervisor::Start() {
  if (state_ != State::kStopped) {
    return absl::FailedPreconditionError("the server is supervised already");
  }
  if (events_ == nullptr) {
    WARD_ASSIGN_OR_RETURN(events_, options_.environment->CreatePollSet());
  }
  return Begin();
}

absl::Status Supervisor::Begin() {
  const absl::Status begun = server_.BeginStart();
  return begun.ok() ? Watch(State::kStarting) : End(begun);
}

absl::Status Supervisor::Continue() {
  if (state_ == State::kStopped) return absl::OkStatus();
  const absl::Status due =
      events_->Wait(options_.environment->TimeNow()).status();
  if (HasReason(due, reason::kTimedOut)) return absl::OkStatus();
  WARD_RETURN_IF_ERROR(due);
  if (state_ == State::kWaiting) return Begin();
  Unwatch();
  if (state_ == State::kStarting) {
    const absl::Status ready = server_.WaitUntilReady();
    if (!ready.ok()) return End(ready);
    if (options_.on_ready != nullptr) options_.on_ready(server_.server_pid());
    return Watch(State::kServing);
  }
  const absl::Status death = server_.CheckAlive();
  if (death.ok()) return Watch(State::kServing);
  // Cleans up after it; how it ended is known.
  (void)server_.Stop();
  return End(death);
}

absl::Status Supervisor::Stop() {
  if (state_ == State::kStopped) return absl::OkStatus();
  Unwatch();
  const bool is_started =
      std::exchange(state_, State::kStopped) != State::kWaiting;
  const absl::Status unset = events_->WakeAt(absl::InfiniteFuture());
  return is_started ? server_.Stop() : unset;
}

absl::Status Supervisor::Watch(State state) {
  state_ = state;
  watched_ = server_.pollable();
  absl::Status status = events_->Add(1, *watched_, PollSet::Event::kReadable);
  if (!status.ok()) (void)Stop();
  return status;
}

void Supervisor::Unwatch() {
  if (watched_ != nullptr) events_->Remove(*watched_);
  watched_.reset();
}

absl::Status Supervisor::End(const absl::Status& how) {
  const std::optional<absl::Duration> delay = NextDelay();
  state_ = delay.has_value() ? State::kWaiting : State::kStopped;
  if (options_.on_exit != nullptr) options_.on_exit(how, delay);
  if (!delay.has_value()) return how;
  return events_->WakeAt(options_.environment->TimeNow() + *delay);
}

std::optional<absl::Duration> Supervisor::NextDelay() {
  const absl::Time now = options_.environment->TimeNow();
  while (!deaths_.empty() && deaths_.front() <= now - options_.window) {
    deaths_.pop_front();
  }
  if (deaths_.size() >= options_.most_restarts) return std::nullopt;
  const double factor = std::exp2(static_cast<double>(deaths_.size()));
  deaths_.push_back(now);
  return std::min(options_.first_delay * factor, options_.longest_delay);
}

}  // namespace ward

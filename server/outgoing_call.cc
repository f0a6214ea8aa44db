#include "ward/server/outgoing_call.h"

#include <functional>
#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/outgoing_buffer.h"

namespace ward {

absl::Status OutgoingCall::Begin(
    Route route, absl::FunctionRef<absl::Status(MessageChannel&)> write,
    Over over) {
  route_ = std::move(route);
  Environment& environment = *route_.options->environment;
  process_ = environment.ForkGeneration();
  const bool waits = waits_ == Waits::kYes;
  std::function<bool()> is_cancelled;
  if (limits_.MayBeCancelled()) {
    is_cancelled = [this] { return limits_.IsCancelled(); };
  }
  while (true) {
    if (limits_.IsCancelled()) {
      return MakeError(reason::kCallCancelled,
                       "the call was cancelled before its request was sent: "
                       "the handler has not run");
    }
    channel_ = over == Over::kKeptOrNew ? route_.kept->Take(process_) : nullptr;
    is_kept_ = channel_ != nullptr;
    if (!is_kept_) {
      absl::StatusOr<std::unique_ptr<Transport>> connection = route_.Connect(
          waits ? limits_.deadline : absl::InfinitePast(), is_cancelled);
      if (!connection.ok()) {
        if (limits_.IsCancelled()) continue;
        return Explain(connection.status());
      }
      channel_ = std::make_unique<MessageChannel>(route_.MakeChannel(
          waits ? *std::move(connection)
                : std::make_unique<OutgoingBuffer>(*std::move(connection))));
    }
    Offer();
    absl::Duration time_left = absl::InfiniteDuration();
    if (limits_.deadline != absl::InfiniteFuture()) {
      channel_->set_deadline(limits_.deadline, "the call's deadline");
      time_left = limits_.deadline - environment.TimeNow();
    }
    channel_->BeginCall({/*keep=*/true, time_left, limits_.trace_id});
    absl::Status status = write(*channel_);
    const bool is_cut = HasReason(status, reason::kConnectionLost) ||
                        HasReason(status, reason::kCallCut) ||
                        (!waits && buffer().is_lost());
    if (status.ok() && !(is_cut && is_kept_)) return status;
    if (!is_kept_ || !is_cut) return End(status);
    // The server has closed it since the last call: it has not read this one.
    Leave();
  }
}

OutgoingBuffer& OutgoingCall::buffer() {
  return const_cast<OutgoingBuffer&>(
      static_cast<const OutgoingBuffer&>(*channel_->transport()));
}

absl::Status OutgoingCall::End(const absl::Status& status) {
  const bool is_cancelled = Release();
  const bool end_was_said = channel().end_was_said();
  if (channel_->kept() && !is_cancelled) {
    channel_->set_deadline(absl::InfiniteFuture());
    route_.kept->Put(process_, std::move(channel_));
  }
  Leave();
  if (is_cancelled && !end_was_said) {
    return limits_.End(
        MakeError(reason::kCallCancelled,
                  "the call was cancelled while it was under way"));
  }
  return limits_.End(Explain(status));
}

absl::Status OutgoingCall::Explain(const absl::Status& status) const {
  return route_.Explain(
      status, waits_ == Waits::kYes ? limits_.deadline : absl::InfinitePast());
}

void OutgoingCall::Leave() {
  own_ = {};
  outer_ = {};
  if (!has_connection()) return;
  if (route_.options->environment->ForkGeneration() == process_) {
    channel_->ShutDown();
  }
  channel_->Close();
}

void OutgoingCall::Offer() {
  const auto shut_down = [this] { channel_->ShutDown(); };
  if (limits_.own != nullptr) own_ = limits_.own->OnCancelled(shut_down);
  if (limits_.outer != nullptr) {
    outer_ = limits_.outer->abandoned.OnCancelled(shut_down);
  }
}

bool OutgoingCall::Release() {
  own_ = {};
  outer_ = {};
  return limits_.IsCancelled();
}

}  // namespace ward

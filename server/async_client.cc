#include "ward/server/async_client.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/argument.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/kept_connections.h"
#include "ward/server/outgoing_buffer.h"
#include "ward/server/outgoing_call.h"
#include "ward/server/poll_set.h"
#include "ward/server/route.h"
#include "ward/server/stream.h"

namespace ward {
namespace {

absl::StatusOr<Message> Copy(std::initializer_list<Argument> arguments) {
  internal::BorrowedMessage message;
  WARD_RETURN_IF_ERROR(internal::AddArguments(arguments, message));
  std::vector<FileDescriptor> descriptors;
  for (const int descriptor : message.descriptors) {
    WARD_ASSIGN_OR_RETURN(descriptors.emplace_back(),
                          FileDescriptor::DuplicateOf(descriptor));
  }
  return Message(
      std::vector<std::string>(message.parts.begin(), message.parts.end()),
      std::move(descriptors));
}

}  // namespace

absl::StatusOr<std::unique_ptr<AsyncClient>> AsyncClient::Create(
    AbstractServer& server) {
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<PollSet> ready,
                        server.environment().CreatePollSet());
  // So that there is a timer, whatever becomes of the descriptor table.
  WARD_RETURN_IF_ERROR(ready->WakeAt(absl::InfiniteFuture()));
  return std::unique_ptr<AsyncClient>(
      new AsyncClient(server, std::move(ready)));
}

AsyncClient::~AsyncClient() {
  // What a fork has of it is the other process's.
  if (server_.environment().ForkGeneration() != process_) return;
  is_ending_ = true;
  while (!calls_.empty()) Cancel(*calls_.begin()->second);
  kept_->Close(process_);
}

std::shared_ptr<AsyncClient::Call> AsyncClient::Start(
    const CallOptions& options, std::initializer_list<Argument> request,
    bool has_reply) {
  auto call = std::make_shared<Call>();
  call->id = ++last_id_;
  absl::StatusOr<CallLimits> limits =
      server_.LimitsOf(request.begin()->view(), options);
  absl::Status status = limits.status();
  if (status.ok()) {
    call->outgoing->set_limits(*std::move(limits));
    call->request = Copy(request);
    status = call->request.status();
  }
  call->has_reply = has_reply;
  call->connect_until = TimeNow() + server_.options().connect_timeout;
  calls_.emplace(call->id, call);
  if (is_ending_) {
    call->is_unheard = true;
    Cancel(*call);
  } else if (status.ok()) {
    Advance(*call);
  } else {
    End(*call, status);
  }
  return call;
}

void AsyncClient::Progress() {
  // Whatever a callback throws.
  const absl::Cleanup set_timer = [this] { SetTimer(); };
  // Each once at most, whatever callbacks start.
  for (size_t left = calls_.size(); left > 0; --left) {
    const absl::StatusOr<uint64_t> ready = ready_->Wait(absl::InfinitePast());
    if (!ready.ok()) break;  // There is no more.
    if (*ready != 0) {
      Attend(*ready);
    } else {
      next_look_ = absl::InfiniteFuture();  // The timer is over.
    }
  }
  const absl::Time now = TimeNow();
  std::vector<uint64_t> due;
  for (const auto& [when, id] : looks_) {
    if (when > now) break;
    due.push_back(id);
  }
  for (const uint64_t id : due) Attend(id);
}

void AsyncClient::Attend(uint64_t id) {
  const auto found = calls_.find(id);
  if (found == calls_.end()) return;
  // It may end, and be forgotten by all others.
  const std::shared_ptr<Call> call = found->second;
  Advance(*call);
}

void AsyncClient::Advance(Call& call) {
  if (Send(call)) Receive(call);
}

bool AsyncClient::Send(Call& call) {
  while (!call.is_flushed) {
    OutgoingCall& outgoing = *call.outgoing;
    if (!outgoing.has_connection() && !Connect(call)) return false;
    OutgoingBuffer& buffer = outgoing.buffer();
    const absl::StatusOr<bool> flushed = buffer.Flush();
    if (flushed.ok() && !*flushed && TimeNow() < outgoing.limits().deadline) {
      Watch(call, PollSet::Event::kWritable);
      return false;
    }
    if (buffer.is_lost() && outgoing.is_kept()) {
      // The server has not read all of the request.
      Unwatch(call);
      outgoing.Leave();
      continue;
    }
    if (!flushed.ok() && !buffer.is_lost()) {
      End(call, flushed.status());
      return false;
    }
    // If the peer takes no more, what comes tells why.
    call.is_flushed = true;
    Watch(call, PollSet::Event::kReadable);
  }
  return !call.is_done;
}

bool AsyncClient::Connect(Call& call) {
  OutgoingCall& outgoing = *call.outgoing;
  const absl::Time deadline = outgoing.limits().deadline;
  const absl::Status status = outgoing.Begin(
      FindRoute(),
      [&](MessageChannel& channel) {
        channel.set_timeout(absl::InfiniteDuration());
        return channel.Write(*call.request);
      },
      OutgoingCall::Over::kKeptOrNew);
  const absl::Time now = TimeNow();
  if (HasReason(status, reason::kTimedOut) &&
      now < std::min(call.connect_until, deadline)) {
    Look(call, std::min({now + kConnectAgain, call.connect_until, deadline}));
    return false;
  }
  if (!status.ok()) {
    End(call, status);
    return false;
  }
  // What is read is what has come.
  outgoing.channel().set_timeout(absl::ZeroDuration());
  Look(call, deadline);
  return true;
}

Route AsyncClient::FindRoute() {
  Route route = server_.FindRoute();
  // Those of another server are of no use.
  if (route.started != started_.lock()) {
    kept_->Close(process_);
    kept_ = std::make_shared<KeptConnections>();
    started_ = route.started;
  }
  route.kept = kept_;
  return route;
}

void AsyncClient::Receive(Call& call) {
  bool timed_out = false;
  const absl::Status status = internal::ReadReply(
      call.outgoing->channel(), call.has_reply, call.reply, &timed_out);
  if (timed_out && TimeNow() < call.outgoing->limits().deadline) return;
  End(call, status);
}

void AsyncClient::Watch(Call& call, PollSet::Event event) {
  if (call.watched_for == event) return;
  Unwatch(call);
  const absl::Status status =
      ready_->Add(call.id, call.outgoing->buffer().connection(), event);
  if (status.ok()) {
    call.watched_for = event;
  } else {
    End(call, status);
  }
}

void AsyncClient::Look(Call& call, absl::Time when) {
  looks_.erase({call.next_look, call.id});
  call.next_look = when;
  if (when != absl::InfiniteFuture()) looks_.emplace(when, call.id);
  SetTimer();
}

void AsyncClient::SetTimer() {
  const absl::Time first =
      looks_.empty() ? absl::InfiniteFuture() : looks_.begin()->first;
  if (std::exchange(next_look_, first) != first) (void)ready_->WakeAt(first);
}

void AsyncClient::Unwatch(Call& call) {
  if (!call.watched_for.has_value()) return;
  ready_->Remove(call.outgoing->buffer().connection());
  call.watched_for.reset();
}

void AsyncClient::End(Call& call, const absl::Status& status) {
  Look(call, absl::InfiniteFuture());
  // From here on it is nobody's who might end it, too.
  const std::shared_ptr<Call> keep = calls_.extract(call.id).mapped();
  call.is_done = true;
  Unwatch(call);
  call.status = call.outgoing->has_connection()
                    ? call.outgoing->End(status)
                    : call.outgoing->limits().End(status);
  call.outgoing.reset();
  if (call.then != nullptr) std::exchange(call.then, nullptr)();
}

void AsyncClient::Cancel(Call& call) {
  End(call, MakeError(reason::kCallCancelled,
                      "the call was cancelled while it was under way"));
}

void AsyncClient::Wait(const Call& call) {
  while (!call.is_done) {
    const Pollable* const polled[] = {ready_.get()};
    (void)server_.environment().Poll(polled, absl::InfiniteFuture());
    Progress();
  }
}

}  // namespace ward

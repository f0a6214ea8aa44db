// A call that this process makes, until it has ended. For AbstractServer.

#ifndef WARD_SERVER_OUTGOING_CALL_H_
#define WARD_SERVER_OUTGOING_CALL_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ward/channel/message_channel.h"
#include "ward/server/cancellation.h"
#include "ward/server/interception.h"
#include "ward/server/outgoing_buffer.h"
#include "ward/server/route.h"

namespace ward {

// What ends a call, whatever the server does; and what else goes with it over
// whatever connection.
struct CallLimits {
  // On the environment's clock.
  absl::Time deadline = absl::InfiniteFuture();
  Cancellation* own = nullptr;
  // That of the call whose handler makes this one.
  std::shared_ptr<CallCancellation> outer;
  std::string trace_id;
  // Null if there are no interceptors.
  std::shared_ptr<Interception> interception;

  bool MayBeCancelled() const { return own != nullptr || outer != nullptr; }
  bool IsCancelled() const {
    return (own != nullptr && own->cancelled()) ||
           (outer != nullptr && outer->abandoned.cancelled());
  }
  // The call has, as `status` says, which is returned.
  absl::Status End(absl::Status status) const {
    if (interception != nullptr) interception->End(status);
    return status;
  }
};

// For one thread at a time.
class OutgoingCall {
 public:
  // Over which connection: a kept one may be shut down behind a call's first
  // frame, which is then served; what follows it is not read.
  enum class Over { kKeptOrNew, kNew };

  // One that does not wait runs over an OutgoingBuffer, as all of route.kept do
  // then.
  enum class Waits { kYes, kNo };

  explicit OutgoingCall(Waits waits = Waits::kYes) : waits_(waits) {}

  ~OutgoingCall() { Leave(); }

  OutgoingCall(const OutgoingCall&) = delete;
  OutgoingCall& operator=(const OutgoingCall&) = delete;

  // Before Begin.
  void set_limits(CallLimits limits) { limits_ = std::move(limits); }
  const CallLimits& limits() const { return limits_; }

  // Has `write` write the request: again on another connection, if the server
  // cannot have read it. An error is explained, and for CallLimits::End; to who
  // does not wait kTimedOut may mean that the server's queue is full. After
  // one, or after Leave, it may begin again.
  absl::Status Begin(Route route,
                     absl::FunctionRef<absl::Status(MessageChannel&)> write,
                     Over over);

  // Closed, unless has_connection().
  MessageChannel& channel() {
    if (channel_ == nullptr) channel_ = std::make_unique<MessageChannel>();
    return *channel_;
  }

  // Whether it has begun, and was not left and has not ended.
  bool has_connection() const {
    return channel_ != nullptr && channel_->is_open();
  }

  // Of one that does not wait.
  OutgoingBuffer& buffer();

  // Whether it runs over a connection that an earlier one has left.
  bool is_kept() const { return is_kept_; }

  // It has ended with `status`, which is explained. The connection is left to
  // the next call, or closed.
  absl::Status End(const absl::Status& status);

  // Closes the connection before the end: the server's handler is told, whoever
  // else has it open, such as a fork of this process. Nothing, if there is
  // none.
  void Leave();

 private:
  // From now on the channel may be shut down at any time.
  void Offer();
  // No longer; and whether it was.
  bool Release();
  absl::Status Explain(const absl::Status& status) const;

  Route route_;
  CallLimits limits_;
  const Waits waits_;
  int process_ = 0;  // Its ForkGeneration.
  bool is_kept_ = false;
  // From one call to the next it goes as it is.
  std::unique_ptr<MessageChannel> channel_;
  Cancellation::Registration own_;
  Cancellation::Registration outer_;
};

}  // namespace ward

#endif  // WARD_SERVER_OUTGOING_CALL_H_

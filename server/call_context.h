// What a handler can ask about the call that it serves.
//
//   absl::Status Watch(const ward::CallContext& context,
//                      ward::MessageChannel& channel) {
//     absl::MutexLock lock(&mutex_);
//     if (!context.Await(mutex_, absl::Condition(this, &Store::Changed))) {
//       return absl::CancelledError("given up");
//     }
//     ...
//
// If it is the time of the call that is over, its client is told that, and not
// that the handler was cancelled.
//
// A handler that computes asks cancelled() now and then; one that waits for
// something of its own has OnCancelled() end that, or polls pollable(). For
// these the server has one thread watch all clients that are served.

#ifndef WARD_SERVER_CALL_CONTEXT_H_
#define WARD_SERVER_CALL_CONTEXT_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/transport.h"
#include "ward/server/cancellation.h"
#include "ward/server/environment.h"

namespace ward {

// Thread-safe, but for the channel: not while another thread closes it. As long
// as the handler runs. Made and destroyed on the handler's thread.
class CallContext {
 public:
  // What it takes of its server, on any thread.
  class Host {
   public:
    virtual ~Host() = default;
    virtual Environment& environment() = 0;
    virtual bool stopping() = 0;
    // Has `cancellation` cancelled as soon as the client has left, or
    // `deadline` has passed, or the server stops; until the handler returns.
    virtual void Observe(
        absl::Time deadline,
        const std::shared_ptr<CallCancellation>& cancellation) = 0;
  };

  // All are borrowed.
  CallContext(const MessageChannel& channel, const PeerCredentials& peer,
              std::string_view method, Host& host)
      : channel_(channel),
        peer_(peer),
        method_(method),
        trace_id_(channel.call().trace_id),
        host_(host),
        deadline_(channel.deadline()),
        outer_(std::exchange(current_, this)) {}

  ~CallContext() { current_ = outer_; }

  CallContext(const CallContext&) = delete;
  CallContext& operator=(const CallContext&) = delete;

  // The server is about to quit: in ServerOptions::drain_time the channel is
  // cut. Nothing can be read from it any more but what has come already, and
  // the answer can still be written.
  bool stopping() const { return host_.stopping(); }

  // That of the call whose handler runs on this thread; null elsewhere.
  static const CallContext* Current() { return current_; }

  // When ServerOptions::call_timeout is over, or the client waits no longer, on
  // the clock of Environment::TimeNow(): from then on nothing can be read from
  // the channel, nor written. InfiniteFuture() if neither has a limit.
  absl::Time deadline() const { return deadline_; }

  // The same, from now on: also for calls by another clock.
  absl::Duration time_left() const;

  // The end of this call is of use to nobody: the server stops, the client has
  // closed its connection, or the handler has, or deadline() has passed. A
  // client that has merely ended its own sending (shutdown(2)) waits. Costs a
  // system call.
  bool cancelled() const;

  // Calls `callback` once that is so: at once, on this thread, if it is
  // already, and else on another, where it may neither wait nor throw. To be
  // destroyed before the handler returns. Where the system gives the server no
  // thread to watch its clients, which is logged, nothing is told before
  // another has nothing to do.
  [[nodiscard]] Cancellation::Registration OnCancelled(
      absl::AnyInvocable<void()> callback) const {
    return cancellation()->all.OnCancelled(std::move(callback));
  }

  // Waits, as absl::Mutex::Await, which `mutex` is to be locked for, until
  // `condition` is true; false if the call is cancelled before. `mutex` is
  // locked for writing; it may be unlocked in between. Who holds it while a
  // call is cancelled holds up a thread that tells: do not wait for others with
  // it.
  bool Await(absl::Mutex& mutex, const absl::Condition& condition) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  // The same, as absl::CondVar::Wait: it may return for no reason, as that may.
  bool Wait(absl::CondVar& changed, absl::Mutex& mutex) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  // Readable once the call is cancelled: for poll(2), epoll(7) or
  // Environment::Poll. The same all the time; of the context's. Errors: those
  // of Environment::CreateTransportPair.
  absl::StatusOr<const Pollable*> pollable() const ABSL_LOCKS_EXCLUDED(mutex_);

  // For calls that this handler makes, which may outlive it. From the first
  // time on, the client is watched.
  std::shared_ptr<CallCancellation> cancellation() const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Who the client is.
  const PeerCredentials& peer() const { return peer_; }

  // The name of the method, or of the message.
  std::string_view method() const { return method_; }

  // What the call belongs to, for logs and traces: what the client has said in
  // CallOptions::trace_id, any bytes, at most 128; empty if it has said
  // nothing. The calls that the handler makes have it, too.
  std::string_view trace_id() const { return trace_id_; }

 private:
  const MessageChannel& channel_;
  const PeerCredentials& peer_;
  const std::string_view method_;
  // The handler may do away with the channel.
  const std::string trace_id_;
  Host& host_;
  const absl::Time deadline_;
  const CallContext* const outer_;
  mutable absl::Mutex mutex_;
  // Null until somebody wants to be told.
  mutable std::shared_ptr<CallCancellation> cancellation_
      ABSL_GUARDED_BY(mutex_);
  // What is polled; its other end is shut down. Null until somebody polls.
  mutable std::unique_ptr<Transport> polled_ ABSL_GUARDED_BY(mutex_);
  mutable std::unique_ptr<Transport> other_end_ ABSL_GUARDED_BY(mutex_);
  mutable Cancellation::Registration shuts_down_ ABSL_GUARDED_BY(mutex_);
  inline static thread_local const CallContext* current_ = nullptr;
};

}  // namespace ward

#endif  // WARD_SERVER_CALL_CONTEXT_H_

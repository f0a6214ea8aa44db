// What a handler can ask about the call that it serves.
//
//   absl::Status Watch(const ward::CallContext& context,
//                      ward::MessageChannel& channel) {
//     absl::MutexLock lock(&mutex_);
//     const absl::Condition changed(this, &Store::Changed);
//     while (!mutex_.AwaitWithTimeout(changed, absl::Milliseconds(100))) {
//       if (context.cancelled()) return absl::CancelledError("given up");
//     }
//     ...
//
// If it is the time of the call that is over, its client is told that, and not
// that the handler was cancelled.
//
// Instead of asking, a handler can poll the channel (Environment::Poll, or
// poll(2) of its descriptor), until deadline(): that is readable when the
// server stops, when the client has left, and when it has sent something more,
// or can send no more; so ask cancelled() then.

#ifndef WARD_SERVER_CALL_CONTEXT_H_
#define WARD_SERVER_CALL_CONTEXT_H_

#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/transport.h"

namespace ward {

// Thread-safe, but for the channel: not while another thread closes it. As long
// as the handler runs. Made and destroyed on the handler's thread.
class CallContext {
 public:
  // All three are borrowed; `stopping` is called on any thread.
  CallContext(const MessageChannel& channel, const PeerCredentials& peer,
              absl::FunctionRef<bool()> stopping)
      : channel_(channel),
        peer_(peer),
        stopping_(stopping),
        deadline_(channel.deadline()),
        outer_(std::exchange(current_, this)) {}

  ~CallContext() { current_ = outer_; }

  CallContext(const CallContext&) = delete;
  CallContext& operator=(const CallContext&) = delete;

  // The server is about to quit: in ServerOptions::drain_time the channel is
  // cut. Nothing can be read from it any more but what has come already, and
  // the answer can still be written.
  bool stopping() const { return stopping_(); }

  // That of the call whose handler runs on this thread; null elsewhere.
  static const CallContext* Current() { return current_; }

  // When ServerOptions::call_timeout is over, or the client waits no longer, on
  // the clock of Environment::TimeNow(): from then on nothing can be read from
  // the channel, nor written. InfiniteFuture() if neither has a limit.
  absl::Time deadline() const { return deadline_; }

  // The end of this call is of use to nobody: the server stops, the client has
  // closed its connection, or the handler has, or deadline() has passed. A
  // client that has merely ended its own sending (shutdown(2)) waits. Costs a
  // system call.
  bool cancelled() const {
    const Transport* const connection = channel_.transport();
    return connection == nullptr || connection->HungUp() || stopping() ||
           (deadline_ != absl::InfiniteFuture() &&
            connection->TimeNow() >= deadline_);
  }

  // Who the client is.
  const PeerCredentials& peer() const { return peer_; }

 private:
  const MessageChannel& channel_;
  const PeerCredentials& peer_;
  const absl::FunctionRef<bool()> stopping_;
  const absl::Time deadline_;
  const CallContext* const outer_;
  inline static thread_local const CallContext* current_ = nullptr;
};

}  // namespace ward

#endif  // WARD_SERVER_CALL_CONTEXT_H_

// What is done around every call, and not in each handler: logs, metrics,
// authorisation, tracing.
//
//   class Log : public ward::Interceptor {
//    public:
//     void After(const ward::CallInfo& call) override {
//       LogLine(absl::CHexEscape(call.method), call.result, call.duration);
//     }
//   };
//
//   ward::ServerOptions options;
//   options.interceptors = {std::make_shared<Log>()};
//
// The same class is for either side: ServerOptions::interceptors are around the
// calls that a server serves, ServerOptions::client_interceptors and
// ClientOptions::interceptors around those that a client makes. Of several the
// first is the outermost: the first in Before, and the last in After.
//
// Misuse:
// - State without a lock: calls are made at the same time.
// - Taking After in the server for the moment at which the client learns the
//   result: it may know already, or not yet.
// - Calling, in a client's interceptor, by the same client: it is around that
//   call, too.
// - Believing `method` and `trace_id` in a server: they are what a client has
//   sent, any bytes. Escape them for a log.

#ifndef WARD_SERVER_INTERCEPTOR_H_
#define WARD_SERVER_INTERCEPTOR_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ward/channel/transport.h"

namespace ward {

// One call, to be copied and kept as one likes.
struct CallInfo {
  // The method's name, or the message's. Of one that the server has no handler
  // for (kUnknownMessage) no more than 64 bytes.
  std::string method;

  // What the call belongs to: CallOptions::trace_id, or that of the call that
  // this one was made in; empty for none. Before may set it on the client's
  // side: it is what is sent then.
  std::string trace_id;

  // On the server's side, who the client is. On the client's side nobody, whose
  // user is no one's, and not root: the kernel's word for a server is asked for
  // when a connection is made (ServerOptions::trust_server).
  PeerCredentials peer = {0, static_cast<uid_t>(-1), static_cast<gid_t>(-1)};

  // On the clock of Environment::TimeNow(); InfiniteFuture() for none.
  absl::Time deadline = absl::InfiniteFuture();

  // --- for After ---

  // On the server's side, what the client is told, or would be if the handler
  // had not ended the call itself before it failed. On the client's side, what
  // the caller gets; of a StartCall, before its reply is converted; of a stream
  // that is left before its end, kCallCancelled.
  absl::Status result;

  // From the first Before to the first After. On the client's side a call that
  // was sent again, on another connection, is one call.
  absl::Duration duration;
};

// Thread-safety: called on many threads at once, on those of the calls.
//
// On the server's side every call is seen that a message has come for: of
// methods, of DefineMessageHandler's messages, of ward's own, and those that
// nobody handles or whose arguments do not fit. Clients that are refused before
// (admit_peer, the password, limits) make no call. A stream is one call. What
// runs there is inside the call: CallContext::Current() is its context.
//
// On the client's side every Call is seen, of methods with streams too, and
// every StartCall (async_client.h); what is done with a Connect is not.
//
// An exception in Before is an error of it (kUserCodeThrew), one in After is
// logged.
class Interceptor {
 public:
  virtual ~Interceptor() = default;

  // An error refuses the call: neither the handler runs nor a further
  // interceptor's Before, and the client is told it; on the client's side
  // nothing is sent, and the caller gets it.
  virtual absl::Status Before(CallInfo& /*call*/) { return absl::OkStatus(); }

  // Once for each Before, when the call has ended; also where that has refused
  // it. A stream has when the handler has returned; on the client's side when
  // its end was read, or the StreamCall is destroyed.
  virtual void After(const CallInfo& /*call*/) {}
};

}  // namespace ward

#endif  // WARD_SERVER_INTERCEPTOR_H_

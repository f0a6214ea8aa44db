// Calls that are under way while their thread does other things: for event
// loops.
//
//   WARD_ASSIGN_OR_RETURN(auto calls, ward::AsyncClient::Create(store));
//   calls->StartCall(kFind, request).Then([](absl::StatusOr<FindReply> reply) {
//     ...
//   });
//   // Whenever calls->descriptor() is readable (poll(2), epoll(7)):
//   calls->Progress();
//
// Or without callbacks:
//
//   ward::PendingCall<FindReply> call = calls->StartCall(kFind, request);
//   while (!call.Done()) PollForReading(call.descriptor());
//   absl::StatusOr<FindReply> reply = call.Result();
//
// All calls of an AsyncClient have one descriptor: readable whenever there is
// something to do for one of them, whether its connection has moved or its time
// is over. Nothing but Result() waits, not for a connection either.
//
// Misuse:
// - A reply that never comes, because nobody calls Progress() or Done().
// - To use it in a fork of the process that has made it.
// - A callback that makes the same call again whenever it has failed: a server
//   that is not there fails it at once.

#ifndef WARD_SERVER_ASYNC_CLIENT_H_
#define WARD_SERVER_ASYNC_CLIENT_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/argument.h"
#include "ward/channel/message.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/client.h"
#include "ward/server/kept_connections.h"
#include "ward/server/method.h"
#include "ward/server/outgoing_call.h"
#include "ward/server/poll_set.h"
#include "ward/server/route.h"
#include "ward/server/stream.h"

namespace ward {

template <typename Reply>
class PendingCall;

// For one thread. Each call under way has a connection, which a later one uses
// again; beside them it has three descriptors.
class AsyncClient {
 public:
  // Of a server that this process has started or adopted, or that its options
  // say where it is; or of a client's. Borrowed. Errors: those of
  // Environment::CreatePollSet.
  static absl::StatusOr<std::unique_ptr<AsyncClient>> Create(
      AbstractServer& server);
  static absl::StatusOr<std::unique_ptr<AsyncClient>> Create(Client& client) {
    return Create(*client.server_);
  }

  // Ends what is under way with kCallCancelled, and what callbacks start then,
  // whose own callbacks are not called.
  ~AsyncClient();

  AsyncClient(const AsyncClient&) = delete;
  AsyncClient& operator=(const AsyncClient&) = delete;

  // As AbstractServer::Call, without its wait: what it would return is the
  // result. The arguments are copied, descriptors too (dup(2)). Not of a method
  // with streams: those are for a thread.
  template <typename Request, typename Reply, typename... Given>
  PendingCall<Reply> StartCall(const Method<Request, Reply>& method,
                               const Given&... arguments) {
    return StartCall(method, CallOptions(), arguments...);
  }
  template <typename Request, typename Reply, typename... Given>
  PendingCall<Reply> StartCall(const Method<Request, Reply>& method,
                               const CallOptions& options,
                               const Given&... arguments) {
    static_assert(
        !internal::kIsStream<Request> && !internal::kIsStream<Reply>,
        "a method with streams has AbstractServer::Call or Client::Call");
    static_assert(internal::kCalls<Request, std::decay_t<Given>...>,
                  "the arguments of this call are not the method's Request");
    return PendingCall<Reply>(
        *this, Start(options, {Argument(method.name), Argument(arguments)...},
                     !std::is_void_v<Reply>));
  }

  // Does what can be done without waiting, and calls the callbacks of what has
  // ended: these may start calls, but not destroy this object.
  void Progress();

  // How many calls have not ended.
  size_t under_way() const { return calls_.size(); }

  // Readable when Progress() has something to do.
  const Pollable& pollable() const { return *ready_; }
  int descriptor() const { return ready_->descriptor(); }

 private:
  template <typename Reply>
  friend class PendingCall;

  // A call, without its types.
  struct Call {
    uint64_t id = 0;
    absl::StatusOr<Message> request;
    bool has_reply = false;
    // Until when it may wait for a connection.
    absl::Time connect_until;
    // When it is looked at, though nothing comes.
    absl::Time next_look = absl::InfiniteFuture();
    // Empty once it is over.
    std::optional<OutgoingCall> outgoing{std::in_place,
                                         OutgoingCall::Waits::kNo};
    std::optional<PollSet::Event> watched_for;
    bool is_flushed = false;
    absl::Status status;
    std::optional<Message> reply;
    bool is_done = false;
    // It was begun when its client was about to end.
    bool is_unheard = false;
    absl::AnyInvocable<void()> then;
  };

  AsyncClient(AbstractServer& server, std::unique_ptr<PollSet> ready)
      : server_(server),
        process_(server.environment().ForkGeneration()),
        ready_(std::move(ready)) {}

  std::shared_ptr<Call> Start(const CallOptions& options,
                              std::initializer_list<Argument> request,
                              bool has_reply);
  // Goes on with the one that `id` stands for, if it is under way.
  void Attend(uint64_t id);
  void Advance(Call& call);
  // Whether its request has left.
  bool Send(Call& call);
  bool Connect(Call& call);
  Route FindRoute();
  void Receive(Call& call);
  void Watch(Call& call, PollSet::Event event);
  void Unwatch(Call& call);
  void Look(Call& call, absl::Time when);
  void SetTimer();
  void End(Call& call, const absl::Status& status);
  void Cancel(Call& call);
  void Wait(const Call& call);
  absl::Time TimeNow() const { return server_.environment().TimeNow(); }

  AbstractServer& server_;
  const int process_;  // Its ForkGeneration.
  // Those to which server.
  std::shared_ptr<KeptConnections> kept_ = std::make_shared<KeptConnections>();
  std::weak_ptr<StartedServer> started_;
  bool is_ending_ = false;
  const std::unique_ptr<PollSet> ready_;
  absl::btree_map<uint64_t, std::shared_ptr<Call>> calls_;
  uint64_t last_id_ = 0;
  // When those are looked at that are not heard of before; and the first.
  absl::btree_set<std::pair<absl::Time, uint64_t>> looks_;
  absl::Time next_look_ = absl::InfiniteFuture();
};

// A call of an AsyncClient's, which must outlive it until it is done. For the
// same thread. Move-only; destroyed before, it cancels the call.
template <typename Reply>
class [[nodiscard]] PendingCall {
 public:
  // absl::StatusOr of the method's reply; absl::Status, if it has none.
  using Value = typename internal::ValuesOf<Reply>::Result;

  PendingCall(PendingCall&&) noexcept = default;
  PendingCall& operator=(PendingCall&& from) noexcept {
    PendingCall(std::move(from)).Swap(*this);
    return *this;
  }
  ~PendingCall() { Cancel(); }

  // Whether it has ended. Calls Progress() if not.
  bool Done() {
    if (!call_->is_done) client_->Progress();
    return call_->is_done;
  }

  // What AbstractServer::Call would return; once. Waits for it, if it is not
  // done.
  Value Result() {
    if (!call_->is_done) client_->Wait(*call_);
    return Unpack(*call_);
  }

  // Ends it, with kCallCancelled; the handler is told. Nothing, if it is done.
  void Cancel() {
    if (call_ != nullptr && !call_->is_done) client_->Cancel(*call_);
  }

  // Has `callback` called with the result, in Progress(), or at once if it is
  // done; this object is not needed any more.
  void Then(absl::AnyInvocable<void(Value)> callback) && {
    const std::shared_ptr<AsyncClient::Call> call = std::move(call_);
    if (call->is_done) {
      if (!call->is_unheard) callback(Unpack(*call));
      return;
    }
    call->then = [call = call.get(), callback = std::move(callback)]() mutable {
      callback(Unpack(*call));
    };
  }

  // Of its client's, if that still is.
  int descriptor() const { return client_->descriptor(); }

 private:
  friend class AsyncClient;
  PendingCall(AsyncClient& client, std::shared_ptr<AsyncClient::Call> call)
      : client_(&client), call_(std::move(call)) {}

  void Swap(PendingCall& other) {
    std::swap(client_, other.client_);
    std::swap(call_, other.call_);
  }

  static Value Unpack(AsyncClient::Call& call) {
    return internal::UnpackReply<Reply>(call.status, call.reply);
  }

  AsyncClient* client_;
  // Null once it is another's, or its callback's.
  std::shared_ptr<AsyncClient::Call> call_;
};

}  // namespace ward

#endif  // WARD_SERVER_ASYNC_CLIENT_H_

// A base class for a server that lives beside the program that owns it: in a
// process of its own, behind a password-protected Unix socket, with a thread
// for each client, until the last of its owners is gone.
//
//   class HelloServer : public ward::AbstractServer {
//    public:
//     HelloServer() { DefineMessageHandler("hello", &HelloServer::HandleHello);
//     }
//
//     absl::Status Hello(std::string_view name) {
//       return Connect([&](ward::MessageChannel& channel) -> absl::Status {
//         WARD_RETURN_IF_ERROR(channel.Write("hello", name));
//         WARD_ASSIGN_OR_RETURN(ward::Message reply, channel.Read());
//         ...
//       });
//     }
//
//    private:
//     absl::Status HandleHello(ward::MessageChannel& channel,
//                              std::string_view name) {
//       return channel.Write(absl::StrCat("Hello ", name, ", how are you?"));
//     }
//   };
//
//   HelloServer server;
//   WARD_RETURN_IF_ERROR(server.Start());   // forks
//   WARD_RETURN_IF_ERROR(server.Hello("Joe"));
//   WARD_RETURN_IF_ERROR(server.Stop());
//
// One object, two processes. What the class stores before Start() is there in
// the server too (by exec or a zygote: what is in its options); what handlers
// change afterwards is the server's own, and the owner never sees it.
//
// Misuse:
// - Starting it in a program that already has threads: refused with
//   kForkWithThreads, since the child could inherit a locked lock. Start it
//   before them, or with StartMode::kExec or kZygote.
// - Handlers that share data without a lock: they run at the same time.
// - Descriptors opened before Start() are closed in the server, except 0, 1, 2
//   and those in ServerOptions::launch.fork.keep_open. Open them in
//   InitializeServer.
// - Using another server's object in a server's process, when that one was
//   started before: its descriptors were closed with the others. Connect works
//   (it opens its own), Stop would write to whatever has the number now.
// - A handler that forks (fork(2)) to answer its client in the child: the child
//   has neither the server's connections nor its listener, so that it does not
//   look like the server when that is gone. Environment::Fork gives it what is
//   named in keep_open.
// - Programs that a handler starts by posix_spawn, popen or system inherit its
//   thread's mask, which blocks nearly all signals: UnblockedSignals
//   (signals.h).
// - A server that changes its root directory or its user (chroot(2), setuid(2))
//   leaves its private directory behind when its owner is killed:
//   docs/names.md.
// - absl::BitGen draws from a pool that a fork duplicates; rand, random and
//   drand48 are seeded afresh, and std::random_device needs nothing.

#ifndef WARD_SERVER_ABSTRACT_SERVER_H_
#define WARD_SERVER_ABSTRACT_SERVER_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include "absl/base/log_severity.h"
#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/proto/stats.pb.h"
#include "ward/server/call_context.h"
#include "ward/server/cancellation.h"
#include "ward/server/client_pool.h"
#include "ward/server/environment.h"
#include "ward/server/exec_entry.h"
#include "ward/server/handler_faults.h"
#include "ward/server/interception.h"
#include "ward/server/kept_connections.h"
#include "ward/server/lifecycle.h"
#include "ward/server/message_handler.h"
#include "ward/server/method.h"
#include "ward/server/outgoing_call.h"
#include "ward/server/owner_handle.h"
#include "ward/server/route.h"
#include "ward/server/server_options.h"
#include "ward/server/sparse_log.h"
#include "ward/server/stream.h"
#include "ward/server/type_names.h"

namespace ward {

// Thread-safety: Connect, Call, Methods, DescriptorSet, Stats, CheckAlive,
// Stop, Owners, ShareOwnership, pollable, started, server_pid and
// socket_filename may be called from any thread at any time. So a thread that
// watches a server may stop it while others call it: each call ends with what
// its server answered, with kServerStopping, or with kServerNotStarted
// (kServerUnreachable, where ServerOptions::socket_filename says where it was).
// Start (and its halves) is for one thread at a time, beside Connects and
// CheckAlives of others, and not beside a Stop. All else is for one thread,
// while no other uses the object.
//
// The destructor may begin while other threads are in Connect, once their
// functions have been called: it stops the server, which ends what they wait
// for, and they return without the object. What their functions use is theirs
// to keep: a derived class's own members are destroyed first.
class AbstractServer {
 public:
  // The first has the options that ServerOptions says.
  AbstractServer();
  explicit AbstractServer(ServerOptions options);

  AbstractServer(const AbstractServer&) = delete;
  AbstractServer& operator=(const AbstractServer&) = delete;

  // Stops the server, if this process has started it and not stopped it; a
  // failure is logged. In a fork of that process, gives up its ownership.
  virtual ~AbstractServer();

  // Starts the server in a child process; clients can connect when this
  // returns.
  //
  // kServerAlreadyStarted; kForkWithThreads (StartMode::kFork); kPathTaken,
  // kPathTooLong; kTimedOut after LaunchOptions::start_timeout; kServerDied
  // when the child ends without a word; FailedPrecondition where a program or a
  // class is not made for StartMode::kExec or kZygote (and as of Zygote::Fork);
  // and whatever BeforeFork or InitializeServer return. After an error nothing
  // is left behind, and Start may be called again.
  absl::Status Start();

  // The two halves of Start, for programs with an event loop. BeginStart
  // returns when there is a process; WaitUntilReady, which must follow, when it
  // serves, or not; pollable() tells when it will not wait for that.
  absl::Status BeginStart();
  absl::Status WaitUntilReady();

  // For an event loop, while this object is the server's owner, and null
  // otherwise. Its descriptor, the same all the time, becomes readable when
  // WaitUntilReady has something to tell; after that, when the server has ended
  // or is about to, and CheckAlive tells how.
  //
  // Shared, so that what one thread waits for stays open when another stops the
  // server. It keeps this owner's end open: let go of it then, and before
  // Disown.
  std::shared_ptr<const Pollable> pollable() const;

  // OK while the server runs; kServerDied, which says how it ended;
  // kServerStopping when it has ended because Stop was called meanwhile;
  // kServerNotStarted.
  absl::Status CheckAlive();

  // The same, and whether the server's socket can be found: kServerUnreachable
  // when it lives, but its name was removed or leads to another file, or this
  // process has changed its root directory or user. No client reaches it then:
  // stop it, and start it again. kServerStopping while Stop is under way; that
  // another owner stops it, or a signal, is not known before it has ended.
  absl::Status CheckReachable();

  // Runs the server in this process and on this thread, until `owner` is
  // readable or closed, or SIGINT or SIGTERM comes. All hooks are called but
  // BeforeFork. Takes over the process's signals, and puts them back exactly
  // as found. A handler that does not return is waited for. Where others serve
  // at the same socket, or will, the listener must be without its name (see
  // ListenerParts): clients then wait in the queue for who serves them next.
  //
  // kServerAlreadyStarted, kSignalsTaken, and what the hooks return; what went
  // wrong before clients were served is also told to the owner.
  absl::Status StartSynchronously(std::unique_ptr<Listener> listener,
                                  std::unique_ptr<Transport> owner);

  // See WARD_REGISTER_SERVER.
  template <typename Server>
  static bool Register(std::string_view name) {
    static_assert(std::is_constructible_v<Server, ServerOptions>,
                  "a server that is started by exec needs a constructor from "
                  "ServerOptions");
    RegisterExecEntry(
        name, typeid(Server), [](Environment& environment, ExecLinks links) {
          return ServeExeced(
              environment, std::move(links),
              [](ServerOptions options) -> std::unique_ptr<AbstractServer> {
                return std::make_unique<Server>(std::move(options));
              });
        });
    return true;
  }

  // Stops the server and waits until it has quit: new clients are refused at
  // once, running handlers get drain_time, then their channels are cut, and
  // after StopOptions::kill_after comes SIGKILL. Any owner may: a fork of the
  // process that started it, too.
  //
  // kServerNotStarted. Otherwise the server is stopped when this returns, and
  // the status says how it had ended: see ServerProcess::Stop. On several
  // threads at once, each waits for that.
  absl::Status Stop();

  // One more share in the ownership of this server, to give away: see
  // owner_handle.h. kServerNotStarted.
  absl::StatusOr<OwnerHandle> ShareOwnership() const;

  // Takes a share in a running server, as if this object had started it; but it
  // is no parent: its destructor does not stop the server, and how the server
  // ended only its parent can tell. kServerAlreadyStarted; kInvalidArguments
  // if the handle's parts do not belong together.
  absl::Status Adopt(OwnerHandle handle);

  // Gives up this object's ownership without stopping the server, which quits
  // by itself if this was the last. Its process is returned: it is for its
  // parent to wait for (a zombie stays otherwise, wait(2)). kServerNotStarted.
  //
  // In a simulation, where a forked server uses this very object, keep the
  // object until the process has ended.
  absl::StatusOr<std::unique_ptr<Process>> Disown();

  // The processes that keep the server alive, with their commands: those that
  // hold an owner's end, as far as the server's user may see them (see
  // Environment::Holders); kOwnersUnknown if it sees none. Asks the server,
  // with the message "ward.owners", or, in a handler, finds out itself.
  absl::StatusOr<std::vector<ProcessInfo>> Owners();

  // The methods of the server, and the messages that it handles, by name,
  // ward's own among them: what it has, perhaps, that an older one has not.
  // Asks the server, with the method "ward.methods".
  absl::StatusOr<std::vector<MethodInfo>> Methods(
      const CallOptions& options = {});

  // The .proto files of the protobuf messages that Methods() names, and what
  // they import: a serialized google.protobuf.FileDescriptorSet, as "protoc
  // --descriptor_set_out" makes, and as a tool's DynamicMessageFactory wants.
  // Without messages of the lite runtime, which have no descriptors. Asks the
  // server, with the method "ward.descriptor_set".
  //
  // kUnknownMessage if its program does not link //server:descriptor_set, which
  // brings protobuf's full runtime; then the text says so.
  absl::StatusOr<std::string> DescriptorSet(const CallOptions& options = {});

  // What the server has done since it serves, and what it has now: calls,
  // errors and latencies of each method, and its clients. All but the owners.
  // Asks the server, with the method "ward.stats", which answers also when all
  // of its max_clients places are taken.
  absl::StatusOr<proto::ServerStats> Stats(const CallOptions& options = {});

  // Whether this object is the owner of a server that was started and not
  // stopped (it may have died meanwhile: Connect tells), or is that server.
  bool started() const {
    return running_in_ == environment().ForkGeneration() ||
           Current() != nullptr;
  }

  // The server's process; 0 when it is not started.
  pid_t server_pid() const;

  // Where the server listens, in it, too; empty when it is not started and
  // chooses a path itself.
  std::string socket_filename() const;

  // Connects to the server, calls `use` with the channel, and closes it. The
  // first message's name must be that of a handler; one connection serves one
  // handler's call, in which both sides may read and write as often as they
  // like. The password travels with the first message.
  //
  // A Read returns kEndOfStream when the handler has succeeded, the error with
  // which it failed, or kCallCut when the connection broke before either.
  //
  // Returns what `use` returns (a kCallCut with how the server died, if it
  // did); kServerNotStarted; kServerDied, saying how, when the server turns out
  // to be dead otherwise; kServerStopping when Stop was called meanwhile and
  // the connection broke; kServerUnreachable, and in an owner why, as of
  // CheckReachable; kServerNotTrusted when what listens there is not to be told
  // the password (ServerOptions::trust_server); kTimedOut.
  absl::Status Connect(absl::FunctionRef<absl::Status(MessageChannel&)> use);

  // Calls `method` of the server, and returns the reply, or the error that the
  // handler returned. Over a connection that an earlier call has left, if there
  // is one that no other thread uses: so a thread's calls connect once. Each of
  // them takes one of the server's places while it is idle, until somebody else
  // waits for it (client_pool.h). The server's old ones are of no harm: a call
  // that it cannot have read is made again, on a new connection.
  //
  // Errors are those of Connect, kTimedOut as of CallOptions::deadline, and
  // kUnexpectedFrame for what is not the method's reply. The
  // handler has not run after kServerNotStarted, kServerUnreachable,
  // kServerNotTrusted, kInvalidPassword, kPeerNotAllowed, kServerFull,
  // kUnknownMessage and kInvalidArguments, unless it has returned the like
  // itself, nor after a kCallCancelled whose text says so. After all others it
  // may have, or has.
  //
  // The request is held to ServerOptions::first_message_limits: the call may be
  // the first one on its connection.
  //
  // Of a method with streams it returns when the request has been sent, with a
  // StreamCall (stream.h).
  template <typename Request, typename Reply, typename... Given>
  auto Call(const Method<Request, Reply>& method, const Given&... arguments) {
    return Call(method, CallOptions(), arguments...);
  }
  template <typename Request, typename Reply, typename... Given>
  auto Call(const Method<Request, Reply>& method, const CallOptions& options,
            const Given&... arguments) {
    static_assert(internal::kCalls<Request, std::decay_t<Given>...>,
                  "the arguments of this call are not the method's Request");
    const auto write = [&](MessageChannel& channel) {
      return channel.Write(method.name, arguments...);
    };
    if constexpr (internal::kIsStream<Request> || internal::kIsStream<Reply>) {
      using Result = absl::StatusOr<StreamCall<Request, Reply>>;
      auto call = BeginStream(method.name, options, write,
                              internal::kIsStream<Request>
                                  ? OutgoingCall::Over::kNew
                                  : OutgoingCall::Over::kKeptOrNew);
      if (!call.ok()) return Result(call.status());
      return Result(StreamCall<Request, Reply>(*std::move(call)));
    } else if constexpr (std::is_void_v<Reply>) {
      return CallOnce(method.name, options, write, &internal::ReadReply<void>);
    } else {
      typename internal::ValuesOf<Reply>::Result reply;
      const absl::Status status =
          CallOnce(method.name, options, write, [&](MessageChannel& channel) {
            reply = internal::ReadReply<Reply>(channel);
            return reply.status();
          });
      if (!status.ok()) reply = status;
      return reply;
    }
  }

  const Secret& password() const { return options_.password; }

  // Whether wrong passwords are kept out of the log. Default: false, and the
  // 1st, 2nd, 4th, 8th, ... is logged with the peer's pid and user. The client
  // is told kInvalidPassword in any case.
  bool ignore_password_errors() const { return ignore_password_errors_; }
  void set_ignore_password_errors(bool ignore) {
    ignore_password_errors_ = ignore;
  }

  // For AbstractServerCollection: how long this server may be idle before it is
  // stopped; zero or infinite: for ever. From any thread.
  absl::Duration max_idle_time() const {
    const int64_t time = max_idle_time_;
    return time == kForEver ? absl::InfiniteDuration()
                            : absl::Nanoseconds(time);
  }
  void set_max_idle_time(absl::Duration time) {
    max_idle_time_ = absl::ToInt64Nanoseconds(time);
  }

  // For AbstractServerCollection: when this server is due, on
  // Environment::TimeNow's clock. From any thread.
  absl::Time next_cleaning_time() const {
    const int64_t time = next_cleaning_time_;
    return time == kForEver ? absl::InfiniteFuture()
                            : absl::FromUnixNanos(time);
  }
  void set_next_cleaning_time(absl::Time time) {
    next_cleaning_time_ = absl::ToUnixNanos(time);
  }

  // The messages that it has handlers for, by name, and what each of them has
  // beside its name. Before the server is started, or in any thread after.
  absl::btree_map<std::string, absl::Span<const ParameterKind>>
  handled_messages() const;

 protected:
  // Handles messages named `name` from now on with a member function of the
  // derived class, or with any callable; message_handler.h says what it may
  // look like. Before the server is started. A second definition replaces the
  // first.
  //
  // An error that the handler returns, and an exception that it throws, is
  // sent to the client.
  template <typename Handler>
  void DefineMessageHandler(std::string_view name, Handler handler) {
    if constexpr (internal::IsHandler<Handler>()) {
      AddMessageHandler({BindHandler(std::move(handler)),
                         ParametersOf<Handler>(),
                         internal::InfoOfHandler<Handler>(name)});
    }
  }

  // The same for a method of the server's interface. `handler` takes the
  // request's values, after a CallContext if it likes, and returns
  // absl::StatusOr of the reply, or absl::Status where that is void. Where
  // either is a Stream, a StreamReader& of the one, and a StreamWriter& of the
  // other, are its last parameters, and absl::Status its result if the reply is
  // one.
  template <typename Request, typename Reply, typename Handler>
  void Define(const Method<Request, Reply>& method, Handler handler) {
    if constexpr (!internal::kHandles<Handler, Request, Reply>) {
      static_assert(internal::kHandles<Handler, Request, Reply>,
                    "a handler's parameters are a CallContext, if it likes, "
                    "the method's Request (a StreamReader& comes last), and a "
                    "StreamWriter& for a Stream in reply; its result is "
                    "absl::StatusOr<Reply>, or absl::Status where that is void "
                    "or a Stream");
    } else {
      if constexpr (internal::kIsStream<Request> ||
                    internal::kIsStream<Reply>) {
        DefineMessageHandler(
            method.name, WithStreams<Request, Reply>(
                             std::move(handler),
                             typename internal::ValuesOf<Request>::Types()));
      } else {
        DefineMessageHandler(method.name, std::move(handler));
      }
      SetInfo(internal::InfoOfMethod<Request, Reply>(method.name));
    }
  }

  // Calls `handler` in the server when `signal` comes, on its main thread, as
  // ordinary code. Before the server is started. For SIGINT, SIGTERM and SIGHUP
  // it takes the place of quitting, and of ignoring. If the owners leave, or
  // stop the server, while it runs, it has StopOptions::kill_after to end. A
  // number that cannot have
  // a handler, or is that of a fault (SIGSEGV, SIGBUS, SIGFPE, SIGILL), fails
  // Start with kInvalidSignal.
  void DefineSignalHandler(int signal, absl::AnyInvocable<void()> handler);
  template <typename Server>
  void DefineSignalHandler(int signal, void (Server::*handler)()) {
    DefineSignalHandler(signal, [server = static_cast<Server*>(this), handler] {
      (server->*handler)();
    });
  }

  // Hooks. BeforeFork is called in the owner, just before there is another
  // process, however it is made; the others
  // in the server: before its first client, and after its last. What they
  // return other than OK is returned from Start (or StartSynchronously);
  // FinalizeServer's, from a process of its own, is logged and makes it exit
  // with 1. FinalizeServer is not called when InitializeServer failed.
  virtual absl::Status BeforeFork() { return absl::OkStatus(); }
  virtual absl::Status InitializeServer() { return absl::OkStatus(); }
  virtual absl::Status FinalizeServer() { return absl::OkStatus(); }

  Environment& environment() const { return *options_.environment; }

  const ServerOptions& options() const { return options_; }

 private:
  // A handler of messages that gives `handler` its streams.
  template <typename Request, typename Reply, typename Handler,
            typename... Values>
  auto WithStreams(Handler handler, internal::TypeList<Values...> /*types*/) {
    return [this, handler = std::move(handler)](
               const CallContext& context, MessageChannel& channel,
               Values... values) -> typename internal::ValuesOf<Reply>::Result {
      // A client that goes on writing is to learn that nobody reads it.
      const absl::Cleanup leave = [&channel] {
        if (internal::kIsStream<Request> && !channel.end_was_said()) {
          channel.KeepNoLonger();
        }
      };
      const auto call = [&](auto&... streams) {
        if constexpr (internal::Handling<typename internal::Signature<
                          Handler>::Parameters>::kHasContext) {
          return Invoke(handler, context, std::move(values)..., streams...);
        } else {
          return Invoke(handler, std::move(values)..., streams...);
        }
      };
      if constexpr (!internal::kIsStream<Reply>) {
        StreamReader<internal::ElementOf<Request>> in(channel);
        return call(in);
      } else if constexpr (!internal::kIsStream<Request>) {
        StreamWriter<internal::ElementOf<Reply>> out(channel);
        return call(out);
      } else {
        StreamReader<internal::ElementOf<Request>> in(channel);
        StreamWriter<internal::ElementOf<Reply>> out(channel);
        return call(in, out);
      }
    };
  }
  template <typename Handler, typename... Arguments>
  auto Invoke(const Handler& handler, Arguments&&... arguments) {
    if constexpr (std::is_member_function_pointer_v<Handler>) {
      using Server = typename internal::Signature<Handler>::Class;
      return (static_cast<Server*>(this)->*handler)(
          std::forward<Arguments>(arguments)...);
    } else {
      return handler(std::forward<Arguments>(arguments)...);
    }
  }

  template <typename Handler>
  MessageHandler BindHandler(Handler handler) {
    if constexpr (std::is_member_function_pointer_v<Handler>) {
      using Server = typename internal::Signature<Handler>::Class;
      return MakeMessageHandler(static_cast<Server*>(this), handler);
    } else {
      return MakeMessageHandler(std::move(handler));
    }
  }
  struct NamedHandler {
    MessageHandler call;
    absl::Span<const ParameterKind> parameters;
    MethodInfo info;
    // In the order in which they were defined; see CallStats.
    size_t number = 0;
  };
  void AddMessageHandler(NamedHandler handler);
  void SetInfo(MethodInfo info);

  // What a registered class's process does.
  using Maker = std::unique_ptr<AbstractServer> (*)(ServerOptions options);
  static int ServeExeced(Environment& environment, ExecLinks links,
                         Maker maker);

  // The server's life.
  absl::Status Run(Listener& listener, OwnerLink& owner);
  absl::Status ServeUntilTold(Listener& listener, OwnerLink& owner,
                              Signals& signals, OwnerWatch* watch);
  // Runs them until no signal is left; returns before, when the owner has a
  // word, or with `quit`.
  void RunSignalHandlers(Signals& signals, const OwnerLink& owner,
                         OwnerWatch* watch, bool& quit);

  // One client, on its own thread.
  absl::Status GreetClient(ClientPool::Client& client) const;
  absl::Status ReceiveRequest(ClientPool::Client& client, absl::Duration time);
  class Host;
  struct Serving;
  absl::Status ServeRequest(Serving& serving, ClientPool::Client& client) const;
  absl::StatusOr<Message> TellOwners();
  absl::StatusOr<proto::ServerStats> TellStats(const CallContext& context,
                                               bool with_owners);
  absl::Status TellDescriptorSet(StreamWriter<std::string>& files) const;
  // Says how the call has ended; what ServeRequest returns of that.
  absl::Status Answer(ClientPool::Client& client,
                      const absl::Status& status) const;
  absl::Status Intercept(const CallContext& context,
                         absl::FunctionRef<absl::Status()> handle) const;
  // Null where there is no handler.
  absl::Status Dispatch(const MessageHandler* handler,
                        const CallContext& context, MessageChannel& channel,
                        Message& request) const;
  absl::Status CheckPeer(const PeerCredentials& peer) const;

  absl::StatusOr<std::unique_ptr<ServerProcess>> Fork(
      const std::shared_ptr<Listener>& listener);
  absl::StatusOr<std::unique_ptr<ServerProcess>> Exec(const Listener& listener);

  // Null if there is none.
  std::shared_ptr<StartedServer> Current() const ABSL_LOCKS_EXCLUDED(mutex_);
  void SetCurrent(std::shared_ptr<StartedServer> started)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Forget(const std::shared_ptr<StartedServer>& started);

  // Where this process serves; null if it does not.
  std::shared_ptr<const std::string> ServedPath() const
      ABSL_LOCKS_EXCLUDED(mutex_);
  Route FindRoute() const;

  friend class AsyncClient;

  // The error of an interceptor that refuses the call. That one may take its
  // time: this object is not used after it.
  absl::StatusOr<CallLimits> LimitsOf(std::string_view method,
                                      const CallOptions& options) const;

  // Has `write` write the request.
  absl::Status BeginCall(OutgoingCall& call, std::string_view method,
                         const CallOptions& options,
                         absl::FunctionRef<absl::Status(MessageChannel&)> write,
                         OutgoingCall::Over over) const;
  absl::StatusOr<std::unique_ptr<OutgoingCall>> BeginStream(
      std::string_view method, const CallOptions& options,
      absl::FunctionRef<absl::Status(MessageChannel&)> write,
      OutgoingCall::Over over);
  // Has `read` read the reply, too.
  absl::Status CallOnce(std::string_view method, const CallOptions& options,
                        absl::FunctionRef<absl::Status(MessageChannel&)> write,
                        absl::FunctionRef<absl::Status(MessageChannel&)> read);

  absl::Status CheckNotStarted() const;
  absl::Status EnsurePassword();
  absl::StatusOr<std::shared_ptr<StartedServer>> CheckStarted(
      std::string_view attempt) const;

  // Calls under way have a share in the options, too.
  const std::shared_ptr<ServerOptions> shared_options_;
  ServerOptions& options_ = *shared_options_;
  // Null if there are none.
  const std::shared_ptr<Interceptors> interceptors_ =
      Interceptors::Make(options_.interceptors);
  const std::shared_ptr<Interceptors> client_interceptors_ =
      Interceptors::Make(options_.client_interceptors);
  // Those to a server that this object has neither started nor adopted.
  const std::shared_ptr<KeptConnections> kept_ =
      std::make_shared<KeptConnections>();
  absl::flat_hash_map<std::string, NamedHandler> message_handlers_;
  absl::flat_hash_map<int, absl::AnyInvocable<void()>> signal_handlers_;
  bool ignore_password_errors_ = false;
  // Nanoseconds, which a collection's cleaner reads while they are set.
  static constexpr int64_t kForEver = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> max_idle_time_{0};
  std::atomic<int64_t> next_cleaning_time_{kForEver};

  // In the owner, while the server is started.
  mutable absl::Mutex mutex_;
  std::shared_ptr<StartedServer> started_ ABSL_GUARDED_BY(mutex_);
  // In the server. In a simulation, one that was killed may leave it locked,
  // for which its owner must not wait.
  mutable absl::Mutex path_mutex_;
  std::shared_ptr<const std::string> served_path_ ABSL_GUARDED_BY(path_mutex_);
  // Who has started it.
  static constexpr uid_t kNobody = std::numeric_limits<uid_t>::max();
  std::atomic<uid_t> server_user_{kNobody};

  // In the server.
  // The ForkGeneration of the process that runs it, or 0. In a simulation,
  // owner and server share this object, and a server that was killed leaves it
  // as it is.
  std::atomic<int> running_in_{0};
  SparseLog wrong_passwords_{absl::LogSeverity::kWarning};
  mutable SparseLog late_failures_{absl::LogSeverity::kWarning};
  // While it runs.
  std::atomic<const OwnerLink*> owner_{nullptr};
  // For handlers, which end before.
  std::atomic<const Serving*> serving_{nullptr};
};

}  // namespace ward

// Lets servers of `Class` be started by exec: at namespace scope, once, in the
// .cc file of the class. It must have a constructor from ServerOptions, which
// gives them on to AbstractServer, and must not be abstract. That constructor
// makes the server's object in the new process; of the owner's object it knows
// what is in the options (but for admit_peer and interceptors, which it sets
// again itself), so put whatever else it needs into ServerOptions::arguments.
#define WARD_REGISTER_SERVER(Class)                                       \
  [[maybe_unused]] static const bool WARD_CONCAT_(ward_server_registered, \
                                                  __LINE__) =             \
      ::ward::AbstractServer::Register<Class>(#Class)

#endif  // WARD_SERVER_ABSTRACT_SERVER_H_

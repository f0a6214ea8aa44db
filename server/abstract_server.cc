#include "ward/server/abstract_server.h"

#include <signal.h>
#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <typeinfo>
#include <utility>
#include <vector>

#include "absl/base/log_severity.h"
#include "absl/cleanup/cleanup.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/channel/buffer_budget.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/descriptor_budget.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/proto/stats.pb.h"
#include "ward/server/call_context.h"
#include "ward/server/call_stats.h"
#include "ward/server/cancellation.h"
#include "ward/server/client_pool.h"
#include "ward/server/descriptor_source.h"
#include "ward/server/environment.h"
#include "ward/server/exec_entry.h"
#include "ward/server/hand_over.h"
#include "ward/server/interception.h"
#include "ward/server/interceptor.h"
#include "ward/server/kept_connections.h"
#include "ward/server/lifecycle.h"
#include "ward/server/message_handler.h"
#include "ward/server/method.h"
#include "ward/server/outgoing_call.h"
#include "ward/server/owner_handle.h"
#include "ward/server/process.h"
#include "ward/server/route.h"
#include "ward/server/server_options.h"
#include "ward/server/signals.h"
#include "ward/server/user_code.h"
#include "ward/server/user_name.h"

namespace ward {
namespace {

constexpr std::string_view kOwnersMessage = "ward.owners";

// Name, request, reply.
using MethodValues = Arguments<std::string, std::string, std::string>;
constexpr Method<void, Stream<MethodValues>> kMethods{"ward.methods"};

// Sets of a file each, of which one behind the other is one of all.
constexpr Method<void, Stream<std::string>> kDescriptorSet{
    "ward.descriptor_set"};

// Whether the owners are to be counted, too: that takes a look at each process
// of the machine.
constexpr Method<bool, proto::ServerStats> kStats{"ward.stats"};
constexpr absl::Duration kTimeForOwners = absl::Seconds(2);

// How long a server that was started by exec waits for what its owner, which
// has just started it, has to say.
constexpr absl::Duration kHandOverTimeout = absl::Seconds(60);

// A name from a peer, fit for an error text.
constexpr size_t kMostOfAName = 64;
std::string Quoted(std::string_view name) {
  return absl::StrCat("\"", absl::CHexEscape(name.substr(0, kMostOfAName)),
                      name.size() > kMostOfAName ? "...\"" : "\"");
}

absl::Status CheckOptions(const ServerOptions& options) {
  if (std::min({options.max_clients, options.max_waiting_clients,
                options.max_clients_per_process,
                options.max_clients_per_user}) < 1) {
    return absl::InvalidArgumentError(
        "max_clients, max_waiting_clients, max_clients_per_process and "
        "max_clients_per_user must be 1 or more: nobody would ever be served");
  }
  if (std::min({options.authentication_timeout, options.queue_timeout,
                options.call_timeout, options.idle_timeout}) <=
          absl::ZeroDuration() ||
      std::min({options.drain_time, options.spin_time,
                options.client_spin_time}) < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        "authentication_timeout, queue_timeout, call_timeout and idle_timeout "
        "must be over 0 (for ever: absl::InfiniteDuration()), and drain_time, "
        "spin_time and client_spin_time not under it");
  }
  return absl::OkStatus();
}

// How many letters must be put in, left out or changed to make one of the
// other.
size_t EditDistance(std::string_view one, std::string_view other) {
  std::vector<size_t> distances(other.size() + 1);
  std::iota(distances.begin(), distances.end(), size_t{0});
  for (const char letter : one) {
    size_t diagonal = distances[0]++;
    for (size_t j = 0; j < other.size(); ++j) {
      const size_t changed = diagonal + (letter == other[j] ? 0 : 1);
      diagonal = distances[j + 1];
      distances[j + 1] =
          std::min({changed, distances[j] + 1, distances[j + 1] + 1});
    }
  }
  return distances.back();
}

// The one of `known` that `name` may be a misspelling of; empty if there is
// none.
std::string_view Nearest(std::string_view name,
                         const std::vector<std::string>& known) {
  constexpr size_t kLongest = 100;  // It is a peer's.
  std::string_view nearest;
  size_t least = std::max(name.size() / 3, size_t{1}) + 1;
  if (name.size() > kLongest) return nearest;
  for (const std::string& other : known) {
    const size_t distance = EditDistance(name, other);
    if (distance >= least) continue;
    least = distance;
    nearest = other;
  }
  return nearest;
}

// What a server tells of itself has as many bytes, in all, as a message may
// have.
absl::Status CheckTold(size_t size, const ChannelLimits& limits) {
  if (size <= limits.max_frame_bytes) return absl::OkStatus();
  return MakeError(
      reason::kFrameTooLarge,
      absl::StrCat("the server tells more of itself than ",
                   limits.max_frame_bytes, " bytes (ServerOptions::limits)"));
}

}  // namespace

// Not a default argument, which each derived class would make and destroy anew;
// g++ 12, optimising, then warns of its members.
AbstractServer::AbstractServer() : AbstractServer(ServerOptions()) {}

AbstractServer::AbstractServer(ServerOptions options)
    : shared_options_(std::make_shared<ServerOptions>(std::move(options))) {
  // Without one nobody would be let in: a start says why there is none.
  (void)EnsurePassword();
  DefineMessageHandler(kOwnersMessage, &AbstractServer::TellOwners);
  Define(kMethods, [this](StreamWriter<MethodValues>& methods) -> absl::Status {
    for (const auto& [name, unused] : handled_messages()) {
      const MethodInfo& info = message_handlers_.at(name).info;
      WARD_RETURN_IF_ERROR(
          methods.Write(std::make_tuple(info.name, info.request, info.reply)));
    }
    return absl::OkStatus();
  });
  Define(kDescriptorSet, &AbstractServer::TellDescriptorSet);
  Define(kStats, &AbstractServer::TellStats);
}

AbstractServer::~AbstractServer() {
  kept_->Close(environment().ProcessId());
  const std::shared_ptr<StartedServer> started = Current();
  if (started == nullptr) return;
  started->kept.Close(environment().ForkGeneration());
  if (!started->process->launched_here()) return;
  const absl::Status status = Stop();
  if (!status.ok()) {
    environment().Log(absl::LogSeverity::kError, status.message());
  }
}

absl::Status AbstractServer::EnsurePassword() {
  if (!options_.password.empty()) return absl::OkStatus();
  WARD_ASSIGN_OR_RETURN(options_.password, Secret::Generate());
  return absl::OkStatus();
}

void AbstractServer::AddMessageHandler(NamedHandler handler) {
  const std::string name = handler.info.name;
  const auto [place, is_new] = message_handlers_.try_emplace(name);
  handler.number = is_new ? message_handlers_.size() - 1 : place->second.number;
  place->second = std::move(handler);
}

void AbstractServer::SetInfo(MethodInfo info) {
  const std::string name = info.name;
  message_handlers_.at(name).info = std::move(info);
}

absl::btree_map<std::string, absl::Span<const ParameterKind>>
AbstractServer::handled_messages() const {
  absl::btree_map<std::string, absl::Span<const ParameterKind>> handled;
  for (const auto& [name, handler] : message_handlers_) {
    handled[name] = handler.parameters;
  }
  return handled;
}

void AbstractServer::DefineSignalHandler(int signal,
                                         absl::AnyInvocable<void()> handler) {
  signal_handlers_.insert_or_assign(signal, std::move(handler));
}

// --- the owner's side ---

std::shared_ptr<StartedServer> AbstractServer::Current() const {
  absl::MutexLock lock(&mutex_);
  return started_;
}

void AbstractServer::SetCurrent(std::shared_ptr<StartedServer> started) {
  absl::MutexLock lock(&mutex_);
  started_.swap(started);
}

std::shared_ptr<const Pollable> AbstractServer::pollable() const {
  const std::shared_ptr<StartedServer> started = Current();
  if (started == nullptr) return nullptr;
  return {started, &started->process->pollable()};
}

absl::Status AbstractServer::CheckNotStarted() const {
  if (!started()) return absl::OkStatus();
  return MakeError(reason::kServerAlreadyStarted,
                   absl::StrCat("the server is started already, as process ",
                                server_pid(), "; stop it first"));
}

absl::StatusOr<std::shared_ptr<StartedServer>> AbstractServer::CheckStarted(
    std::string_view attempt) const {
  std::shared_ptr<StartedServer> started = Current();
  if (started != nullptr) return started;
  return MakeError(reason::kServerNotStarted,
                   absl::StrCat(attempt, ": the server is not started"));
}

absl::Status AbstractServer::Start() {
  WARD_RETURN_IF_ERROR(BeginStart());
  return WaitUntilReady();
}

absl::Status AbstractServer::BeginStart() {
  WARD_RETURN_IF_ERROR(CheckNotStarted());
  server_user_ = environment().UserId();
  WARD_RETURN_IF_ERROR(EnsurePassword());
  WARD_ASSIGN_OR_RETURN(
      std::shared_ptr<Listener> listener,
      environment().Listen({options_.socket_filename, options_.socket_mode}));
  // Close, and not only release: in a simulation, a child that was killed still
  // refers to it.
  absl::Cleanup give_up = [&listener] {
    listener->RemovePath();
    listener->Close();
  };
  WARD_RETURN_IF_ERROR(
      CallUserCode("BeforeFork", [this] { return BeforeFork(); }));
  auto started = std::make_shared<StartedServer>();
  WARD_ASSIGN_OR_RETURN(started->process,
                        options_.start_mode == StartMode::kFork
                            ? Fork(listener)
                            : Exec(*listener));
  std::move(give_up).Cancel();
  listener->Close();
  started->listener = std::move(listener);
  SetCurrent(std::move(started));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ServerProcess>> AbstractServer::Fork(
    const std::shared_ptr<Listener>& listener) {
  LaunchOptions launch = options_.launch;
  for (const int descriptor : listener->descriptors()) {
    launch.fork.keep_open.push_back(descriptor);
  }
  return ServerProcess::Fork(
      environment(), std::move(launch),
      [this, listener](OwnerLink& owner) { return Run(*listener, owner); });
}

absl::StatusOr<std::unique_ptr<ServerProcess>> AbstractServer::Exec(
    const Listener& listener) {
  if (!options_.launch.fork.keep_open.empty()) {
    return absl::InvalidArgumentError(
        "start by exec: LaunchOptions::fork.keep_open is for forks; open it in "
        "InitializeServer, or send it in a message");
  }
  const bool by_zygote = options_.start_mode == StartMode::kZygote;
  if (by_zygote && options_.zygote == nullptr) {
    return absl::InvalidArgumentError(
        "start by a zygote: ServerOptions::zygote is null; "
        "Environment::StartZygote() makes one, for all servers of the program");
  }
  WARD_ASSIGN_OR_RETURN(const std::string_view entry,
                        ExecEntryName(typeid(*this)));
  WARD_ASSIGN_OR_RETURN(const ListenerParts parts, listener.Share());
  return ServerProcess::Exec(
      environment(), options_.launch,
      by_zygote ? options_.zygote.get() : nullptr, std::string(entry),
      [&](MessageChannel& channel, uint64_t owners_end) {
        return WriteHandOver(channel, options_, ignore_password_errors_, parts,
                             owners_end);
      });
}

absl::Status AbstractServer::WaitUntilReady() {
  WARD_ASSIGN_OR_RETURN(const std::shared_ptr<StartedServer> started,
                        CheckStarted("wait until the server is ready"));
  absl::Status status = started->process->WaitUntilReady();
  if (!status.ok()) Forget(started);
  return status;
}

absl::Status AbstractServer::CheckAlive() {
  WARD_ASSIGN_OR_RETURN(const std::shared_ptr<StartedServer> started,
                        CheckStarted("look whether the server is alive"));
  return started->CheckAlive();
}

absl::Status AbstractServer::CheckReachable() {
  WARD_ASSIGN_OR_RETURN(const std::shared_ptr<StartedServer> started,
                        CheckStarted("look whether the server is reachable"));
  return started->CheckReachable();
}

// The server is gone. One that was killed could not remove its name.
void AbstractServer::Forget(const std::shared_ptr<StartedServer>& started) {
  {
    absl::MutexLock lock(&mutex_);
    if (started_ != started) return;  // Another thread has stopped it, too.
    started_.reset();
  }
  started->kept.Close(environment().ForkGeneration());
  started->listener->RemovePath();
}

absl::Status AbstractServer::Stop() {
  const std::shared_ptr<StartedServer> started = Current();
  if (started == nullptr) {
    return MakeError(reason::kServerNotStarted,
                     "the server is not started; there is nothing to stop");
  }
  started->stopping = true;
  absl::Status status = started->process->Stop(options_.stop);
  Forget(started);
  return status;
}

absl::StatusOr<OwnerHandle> AbstractServer::ShareOwnership() const {
  WARD_ASSIGN_OR_RETURN(const std::shared_ptr<StartedServer> started,
                        CheckStarted("share the server's ownership"));
  OwnerHandle handle;
  WARD_ASSIGN_OR_RETURN(handle.owners_end_, started->process->ShareOwnersEnd());
  WARD_ASSIGN_OR_RETURN(handle.process_, started->process->ShareProcess());
  WARD_ASSIGN_OR_RETURN(handle.listener_, started->listener->Share());
  handle.password_ = options_.password.Copy();
  return handle;
}

absl::Status AbstractServer::Adopt(OwnerHandle handle) {
  WARD_RETURN_IF_ERROR(CheckNotStarted());
  WARD_ASSIGN_OR_RETURN(
      std::unique_ptr<Transport> owners_end,
      environment().AdoptTransport(std::move(handle.owners_end_)));
  // Who has made the pair, and so the server.
  WARD_ASSIGN_OR_RETURN(const PeerCredentials maker, owners_end->Peer());
  WARD_ASSIGN_OR_RETURN(
      std::unique_ptr<Process> process,
      environment().AdoptProcess(std::move(handle.process_), maker.uid));
  auto started = std::make_shared<StartedServer>();
  WARD_ASSIGN_OR_RETURN(
      started->listener,
      environment().AdoptListener(std::move(handle.listener_), maker.uid));
  WARD_ASSIGN_OR_RETURN(started->process,
                        ServerProcess::Adopt(environment(), std::move(process),
                                             std::move(owners_end)));
  server_user_ = maker.uid;
  SetCurrent(std::move(started));
  options_.password = std::move(handle.password_);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Process>> AbstractServer::Disown() {
  WARD_ASSIGN_OR_RETURN(const std::shared_ptr<StartedServer> started,
                        CheckStarted("give up the server's ownership"));
  SetCurrent(nullptr);
  started->kept.Close(environment().ForkGeneration());
  return ServerProcess::Disown(std::move(started->process));
}

absl::StatusOr<std::vector<ProcessInfo>> AbstractServer::Owners() {
  if (running_in_ == environment().ForkGeneration()) {
    const OwnerLink* const owner = owner_;
    if (owner != nullptr) return owner->Owners();
  }
  std::vector<ProcessInfo> owners;
  WARD_RETURN_IF_ERROR(Connect([&](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write(kOwnersMessage));
    WARD_ASSIGN_OR_RETURN(const Message reply, channel.Read());
    for (size_t i = 0; i + 1 < reply.size(); i += 2) {
      ProcessInfo& owner = owners.emplace_back();
      if (!absl::SimpleAtoi(reply[i], &owner.pid)) {
        return MakeError(reason::kInvalidArguments,
                         "the server's answer has a pid that is no number");
      }
      owner.command = reply[i + 1];
    }
    return absl::OkStatus();
  }));
  return owners;
}

absl::StatusOr<Message> AbstractServer::TellOwners() {
  WARD_ASSIGN_OR_RETURN(const std::vector<ProcessInfo> owners, Owners());
  std::vector<std::string> parts;
  for (const ProcessInfo& owner : owners) {
    parts.push_back(absl::StrCat(owner.pid));
    parts.push_back(owner.command);
  }
  return Message(std::move(parts));
}

absl::Status AbstractServer::TellDescriptorSet(
    StreamWriter<std::string>& files) const {
  const internal::DescriptorSource source = internal::descriptor_source;
  if (source == nullptr) {
    return MakeError(
        reason::kUnknownMessage,
        "the server's program has no descriptors of its protobuf "
        "messages; have it depend on ward's //server:descriptor_set");
  }
  std::vector<std::string> types;
  for (const auto& [unused, handler] : message_handlers_) {
    for (std::string_view content :
         {handler.info.request, handler.info.reply}) {
      absl::ConsumePrefix(&content, "stream of ");
      for (const std::string_view type : absl::StrSplit(content, ", ")) {
        types.emplace_back(type);
      }
    }
  }
  // The same each time.
  std::sort(types.begin(), types.end());
  for (const std::string& file : source(types)) {
    WARD_RETURN_IF_ERROR(files.Write(file));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> AbstractServer::DescriptorSet(
    const CallOptions& options) {
  WARD_ASSIGN_OR_RETURN(auto files, Call(kDescriptorSet, options));
  std::string all;
  while (const std::optional<std::string> file = files.Next()) {
    all += *file;
    WARD_RETURN_IF_ERROR(CheckTold(all.size(), options_.limits));
  }
  WARD_RETURN_IF_ERROR(files.status());
  return all;
}

absl::StatusOr<std::vector<MethodInfo>> AbstractServer::Methods(
    const CallOptions& options) {
  WARD_ASSIGN_OR_RETURN(auto methods, Call(kMethods, options));
  std::vector<MethodInfo> all;
  size_t size = 0;
  while (auto method = methods.Next()) {
    auto& [name, request, reply] = *method;
    size += sizeof(MethodInfo) + name.size() + request.size() + reply.size();
    WARD_RETURN_IF_ERROR(CheckTold(size, options_.limits));
    all.push_back({std::move(name), std::move(request), std::move(reply)});
  }
  WARD_RETURN_IF_ERROR(methods.status());
  return all;
}

absl::StatusOr<proto::ServerStats> AbstractServer::Stats(
    const CallOptions& options) {
  return Call(kStats, options, /*with_owners=*/false);
}

pid_t AbstractServer::server_pid() const {
  if (running_in_ == environment().ForkGeneration()) {
    return environment().ProcessId();
  }
  const std::shared_ptr<StartedServer> started = Current();
  return started != nullptr ? started->process->pid() : 0;
}

std::shared_ptr<const std::string> AbstractServer::ServedPath() const {
  if (running_in_ != environment().ForkGeneration()) return nullptr;
  absl::MutexLock lock(&path_mutex_);
  return served_path_;
}

std::string AbstractServer::socket_filename() const {
  return Route{shared_options_, Current(), nullptr, kNobody, ServedPath()}
      .path();
}

Route AbstractServer::FindRoute() const {
  Route route = {shared_options_, nullptr, kept_, server_user_, nullptr};
  // To a handler its server is not one that it has started.
  if (CallContext::Current() != nullptr) route.served = ServedPath();
  if (route.served == nullptr) {
    route.started = Current();
    // Those of each server are its own: another may come to the same path.
    if (route.started != nullptr) {
      route.kept = {route.started, &route.started->kept};
    }
  }
  return route;
}

absl::Status AbstractServer::Connect(
    absl::FunctionRef<absl::Status(MessageChannel&)> use) {
  // From here on without this object.
  const Route route = FindRoute();
  absl::StatusOr<std::unique_ptr<Transport>> connection =
      route.Connect(absl::InfiniteFuture());
  if (!connection.ok()) {
    return route.Explain(connection.status(), absl::InfiniteFuture());
  }
  MessageChannel channel = route.MakeChannel(*std::move(connection));
  return route.Explain(use(channel), absl::InfiniteFuture());
}

absl::StatusOr<CallLimits> AbstractServer::LimitsOf(
    std::string_view method, const CallOptions& options) const {
  CallLimits limits;
  limits.own = options.cancellation;
  limits.trace_id = options.trace_id;
  if (options.deadline != absl::InfiniteFuture()) {
    limits.deadline =
        environment().TimeNow() + (options.deadline - absl::Now());
  }
  const CallContext* const outer = CallContext::Current();
  if (outer != nullptr && options.inherit) {
    limits.deadline = std::min(limits.deadline, outer->deadline());
    limits.outer = outer->cancellation();
    if (limits.trace_id.empty()) limits.trace_id = outer->trace_id();
  }
  if (client_interceptors_ == nullptr) return limits;
  CallInfo info;
  info.method = method;
  info.trace_id = limits.trace_id;
  info.deadline = limits.deadline;
  limits.interception = std::make_shared<Interception>(
      client_interceptors_, environment(), std::move(info));
  WARD_RETURN_IF_ERROR(limits.interception->Begin());
  limits.trace_id = limits.interception->trace_id();
  return limits;
}

absl::Status AbstractServer::BeginCall(
    OutgoingCall& call, std::string_view method, const CallOptions& options,
    absl::FunctionRef<absl::Status(MessageChannel&)> write,
    OutgoingCall::Over over) const {
  Route route = FindRoute();
  WARD_ASSIGN_OR_RETURN(CallLimits limits, LimitsOf(method, options));
  call.set_limits(std::move(limits));
  const absl::Status status = call.Begin(std::move(route), write, over);
  return status.ok() ? status : call.limits().End(status);
}

absl::StatusOr<std::unique_ptr<OutgoingCall>> AbstractServer::BeginStream(
    std::string_view method, const CallOptions& options,
    absl::FunctionRef<absl::Status(MessageChannel&)> write,
    OutgoingCall::Over over) {
  auto call = std::make_unique<OutgoingCall>();
  WARD_RETURN_IF_ERROR(BeginCall(*call, method, options, write, over));
  return call;
}

absl::Status AbstractServer::CallOnce(
    std::string_view method, const CallOptions& options,
    absl::FunctionRef<absl::Status(MessageChannel&)> write,
    absl::FunctionRef<absl::Status(MessageChannel&)> read) {
  OutgoingCall call;
  WARD_RETURN_IF_ERROR(
      BeginCall(call, method, options, write, OutgoingCall::Over::kKeptOrNew));
  return call.End(read(call.channel()));
}

// --- the server's side ---

absl::Status AbstractServer::StartSynchronously(
    std::unique_ptr<Listener> listener, std::unique_ptr<Transport> owner) {
  WARD_RETURN_IF_ERROR(CheckNotStarted());
  WARD_RETURN_IF_ERROR(EnsurePassword());
  OwnerLink link(std::move(owner));
  absl::Status status = Run(*listener, link);
  if (!status.ok()) link.ReportFailure(status);
  return status;
}

int AbstractServer::ServeExeced(Environment& environment, ExecLinks links,
                                Maker maker) {
  OwnerLink owner(environment, std::move(links.owner), kHandOverTimeout);
  // Its destructor may hang: its owner has heard of its failure by then.
  std::unique_ptr<AbstractServer> server;
  return owner.Serve([&](OwnerLink& link_to_owner) -> absl::Status {
    absl::StatusOr<HandOver> given = [&] {
      MessageChannel channel(std::move(links.hand_over));
      channel.set_timeout(kHandOverTimeout);
      return ReadHandOver(channel);
    }();
    if (!given.ok()) {
      return Annotate(given.status(),
                      "start by exec: what the owner has to hand over");
    }
    link_to_owner.set_owners_end(given->owners_end);
    ServerOptions& options = given->options;
    options.environment = &environment;
    link_to_owner.QuitWithin(options.launch.start_timeout);
    const Secret password = options.password.Copy();
    WARD_ASSIGN_OR_RETURN(const std::unique_ptr<Listener> listener,
                          environment.AdoptListener(std::move(given->listener),
                                                    environment.UserId()));
    WARD_RETURN_IF_ERROR(CallUserCode("the server's constructor", [&] {
      server = maker(std::move(options));
      return absl::OkStatus();
    }));
    if (!server->password().Matches(password.Expose())) {
      return absl::FailedPreconditionError(
          "start by exec: the constructor of the server's class does not give "
          "the ServerOptions that it gets on to AbstractServer");
    }
    if (given->admits_peers && server->options_.admit_peer == nullptr) {
      return absl::FailedPreconditionError(
          "start by exec: ServerOptions::admit_peer cannot be handed over; set "
          "it in the constructor of the server's class");
    }
    if (given->has_interceptors && server->options_.interceptors.empty()) {
      return absl::FailedPreconditionError(
          "start by exec: ServerOptions::interceptors cannot be handed over; "
          "set them in the constructor of the server's class");
    }
    server->ignore_password_errors_ = given->ignore_password_errors;
    return server->Run(*listener, link_to_owner);
  });
}

absl::Status AbstractServer::Run(Listener& listener, OwnerLink& owner) {
  {
    absl::MutexLock lock(&path_mutex_);
    served_path_ = std::make_shared<const std::string>(listener.path());
  }
  running_in_ = environment().ForkGeneration();
  owner_ = &owner;
  const absl::Cleanup stopped = [this, &listener] {
    listener.RemovePath();
    owner_ = nullptr;
    running_in_ = 0;
  };
  WARD_RETURN_IF_ERROR(CheckOptions(options_));
  SignalPlan plan{{SIGINT, SIGTERM}, {SIGHUP, SIGPIPE}};
  for (const auto& [signal, handler] : signal_handlers_) {
    plan.receive.push_back(signal);
  }
  WARD_ASSIGN_OR_RETURN(const std::unique_ptr<Signals> signals,
                        environment().TakeSignals(plan));
  owner.LeaveNoName(listener);
  std::unique_ptr<OwnerWatch> watch;
  if (!signal_handlers_.empty() && owner.has_process()) {
    WARD_ASSIGN_OR_RETURN(watch,
                          OwnerWatch::Create(environment(), owner, listener));
  }
  WARD_RETURN_IF_ERROR(
      CallUserCode("InitializeServer", [this] { return InitializeServer(); }));
  absl::Status status = options_.confinement.has_value()
                            ? environment().Confine(*options_.confinement)
                            : absl::OkStatus();
  if (status.ok()) {
    status = ServeUntilTold(listener, owner, *signals, watch.get());
  }
  status.Update(
      CallUserCode("FinalizeServer", [this] { return FinalizeServer(); }));
  return status;
}

// What there is while it serves.
struct AbstractServer::Serving {
  std::shared_ptr<BufferBudget> buffers;
  // As those of first messages (ServerOptions::max_waiting_clients).
  std::shared_ptr<DescriptorBudget> descriptors;
  CallStats calls;
  absl::Time since;
  ClientPool* pool = nullptr;
};

absl::Status AbstractServer::ServeUntilTold(Listener& listener,
                                            OwnerLink& owner, Signals& signals,
                                            OwnerWatch* watch) {
  Serving serving{
      std::make_shared<BufferBudget>(options_.max_buffered_bytes),
      std::make_shared<DescriptorBudget>(environment().MaxDescriptors() / 8),
      CallStats(message_handlers_.size()), environment().TimeNow()};
  using Client = ClientPool::Client;
  ClientPool pool(
      environment(), listener,
      {options_.max_clients, options_.max_waiting_clients,
       options_.max_clients_per_process, options_.max_clients_per_user,
       options_.authentication_timeout, options_.queue_timeout},
      {[this](Client& client) { return GreetClient(client); },
       [this](Client& client, absl::Duration time) {
         return ReceiveRequest(client, time);
       },
       [&serving](absl::Duration time) {
         return serving.descriptors->CutOne(time);
       },
       [](const Client& client) {
         // With a descriptor it may have its thread wait when that is closed.
         return client.request.name() == kStats.name &&
                client.request.descriptors().empty() &&
                client.channel.unclaimed_descriptors() == 0;
       },
       [this, &serving](Client& client) {
         client.channel.set_buffer_budget(serving.buffers);
         client.channel.set_descriptor_budget(serving.descriptors,
                                              client.peer->pid);
         return ServeRequest(serving, client);
       }});
  serving.pool = &pool;
  serving_ = &serving;
  const absl::Cleanup stopped = [this] { serving_ = nullptr; };
  absl::Status status = pool.Start();
  // An owner that is gone already is noticed below.
  if (status.ok()) (void)owner.ReportReady();
  bool quit = !status.ok();
  while (!quit) {
    // The owner first: no storm of signals or clients keeps it waiting.
    const Pollable* const polled[] = {&owner.pollable(), &signals};
    const absl::StatusOr<size_t> ready =
        environment().Poll(polled, absl::InfiniteFuture());
    if (!ready.ok()) status = ready.status();
    if (!ready.ok() || *ready == 0) break;
    RunSignalHandlers(signals, owner, watch, quit);
  }
  // First: the file system of the name may not answer.
  owner.QuitWithin(options_.stop.kill_after);
  // Then the name: who comes now finds nothing, not a dying server.
  listener.RemovePath();
  pool.Stop(options_.drain_time);
  return status;
}

void AbstractServer::RunSignalHandlers(Signals& signals, const OwnerLink& owner,
                                       OwnerWatch* watch, bool& quit) {
  while (const int signal = signals.Next()) {
    const auto defined = signal_handlers_.find(signal);
    if (defined == signal_handlers_.end()) {
      quit = true;  // SIGINT or SIGTERM.
      return;
    }
    const absl::Status status =
        CallUserCode(absl::StrCat("the handler of signal ", signal), [&] {
          if (watch == nullptr) {
            defined->second();
          } else {
            watch->Call(options_.stop.kill_after, [&] { defined->second(); });
          }
          return absl::OkStatus();
        });
    if (!status.ok()) {
      environment().Log(absl::LogSeverity::kError, status.message());
    }
    const Pollable* const polled[] = {&owner.pollable()};
    if (environment().Poll(polled, environment().TimeNow()).ok()) return;
  }
}

absl::Status AbstractServer::GreetClient(ClientPool::Client& client) const {
  if (client.on_reserve) {
    return MakeError(reason::kDescriptorTableFull,
                     "the server's descriptor table is full; close other "
                     "clients, or raise its limit (ulimit -n)");
  }
  WARD_RETURN_IF_ERROR(client.peer.status());
  WARD_RETURN_IF_ERROR(CheckPeer(*client.peer));
  ChannelLimits first = options_.first_message_limits;
  // Looked at by who unpacks it: when the password was right.
  first.max_bulk_bytes = options_.limits.max_bulk_bytes;
  client.channel.set_limits(first);
  client.channel.set_spin_time(options_.spin_time);
  client.channel.ExpectPassword(options_.password);
  return absl::OkStatus();
}

absl::Status AbstractServer::ReceiveRequest(ClientPool::Client& client,
                                            absl::Duration time) {
  client.channel.set_timeout(time);
  client.channel.set_deadline(absl::InfiniteFuture());
  // Between two calls there is all the time, but not within a message.
  const absl::Status status =
      client.channel.ReadCall(client.request, options_.authentication_timeout);
  if (!status.ok()) {
    if (HasReason(status, reason::kInvalidPassword) &&
        !ignore_password_errors_) {
      wrong_passwords_.Log(environment(), "wrong password from process ",
                           client.peer->pid, " of user ", client.peer->uid);
    }
    return Annotate(status, "the call's first message");
  }
  return absl::OkStatus();
}

class AbstractServer::Host final : public CallContext::Host {
 public:
  Host(const AbstractServer& server, ClientPool& pool,
       ClientPool::Client& client)
      : server_(server), pool_(pool), client_(client) {}

  Environment& environment() override { return server_.environment(); }
  bool stopping() override { return pool_.stopping(); }
  void Observe(absl::Time deadline,
               const std::shared_ptr<CallCancellation>& cancellation) override {
    pool_.Observe(client_, deadline, cancellation);
  }

 private:
  const AbstractServer& server_;
  ClientPool& pool_;
  ClientPool::Client& client_;
};

absl::StatusOr<proto::ServerStats> AbstractServer::TellStats(
    const CallContext& context, bool with_owners) {
  const Serving& serving = *serving_.load();
  proto::ServerStats stats;
  stats.set_pid(environment().ProcessId());
  stats.set_uptime_us(static_cast<uint64_t>(
      absl::ToInt64Microseconds(environment().TimeNow() - serving.since)));
  for (const auto& [name, unused] : handled_messages()) {
    proto::MethodStats& method = *stats.add_methods();
    method.set_name(name);
    serving.calls.Describe(message_handlers_.at(name).number, method);
  }
  serving.calls.Describe(message_handlers_.size(),
                         *stats.mutable_unknown_messages());
  const ClientPool::Counts counts = serving.pool->counts();
  proto::ClientStats& clients = *stats.mutable_clients();
  clients.set_accepted(counts.accepted);
  clients.set_served(static_cast<uint32_t>(counts.served));
  clients.set_idle(static_cast<uint32_t>(counts.idle));
  clients.set_most_served(static_cast<uint32_t>(counts.most_served));
  clients.set_max_served(static_cast<uint32_t>(options_.max_clients));
  clients.set_waiting(static_cast<uint32_t>(counts.waiting));
  clients.set_silent(static_cast<uint32_t>(counts.silent));
  Describe(counts.refused, *clients.mutable_refused());
  clients.set_left(counts.left);
  Describe(counts.cut, *clients.mutable_cut());
  clients.set_dismissed(counts.dismissed);
  stats.set_threads(static_cast<uint32_t>(counts.threads));
  stats.set_idle_threads(static_cast<uint32_t>(counts.idle_threads));
  stats.set_buffered_bytes(serving.buffers->used());
  stats.set_max_buffered_bytes(options_.max_buffered_bytes);
  // However many processes there are, the rest is told in time.
  if (with_owners && context.time_left() >= kTimeForOwners) {
    const auto owners = Owners();
    if (owners.ok()) stats.set_owners(static_cast<uint32_t>(owners->size()));
  }
  return stats;
}

absl::Status AbstractServer::ServeRequest(Serving& serving,
                                          ClientPool::Client& client) const {
  const absl::Time begin = environment().TimeNow();
  client.channel.set_limits(options_.limits);
  client.channel.set_timeout(options_.idle_timeout,
                             "ServerOptions::idle_timeout is",
                             options_.idle_timeout);
  const absl::Duration time_left = client.channel.call().time_left;
  const absl::Duration limit =
      std::min({time_left, options_.call_timeout, client.most_time});
  const char* const limit_name =
      limit == time_left               ? "the client has waited for"
      : limit == options_.call_timeout ? "ServerOptions::call_timeout is"
                                       : "a call without a place has";
  if (limit != absl::InfiniteDuration()) {
    client.channel.set_deadline(begin + limit, limit_name, limit);
  }
  Host host(*this, *serving.pool, client);
  const auto handler = message_handlers_.find(client.request.name());
  const bool is_known = handler != message_handlers_.end();
  CallStats::Counters& counters = serving.calls.Of(
      is_known ? handler->second.number : message_handlers_.size(),
      client.number);
  counters.Begin();
  // A handler may do away with its request, and the name in that.
  const CallContext context(client.channel, *client.peer,
                            is_known ? handler->first : client.request.name(),
                            host);
  const absl::Status status = Intercept(context, [&]() -> absl::Status {
    absl::Status result = Dispatch(is_known ? &handler->second.call : nullptr,
                                   context, client.channel, client.request);
    // One that has given up because of its context, or whose own call was,
    // knows no more than that.
    if (absl::IsCancelled(result) &&
        (ReasonOf(result).empty() ||
         HasReason(result, reason::kCallCancelled)) &&
        environment().TimeNow() >= context.deadline()) {
      return MakeError(
          reason::kTimedOut,
          absl::StrCat(limit_name, " ", absl::FormatDuration(limit), ": ",
                       result.message()));
    }
    return result;
  });
  // What the handler has not taken is not kept until the next call.
  client.request.Recycle();
  absl::Status told = Answer(client, status);
  counters.End(environment().TimeNow() - begin, client.channel.TakeTraffic(),
               status.ok() ? told : status);
  return told;
}

absl::Status AbstractServer::Answer(ClientPool::Client& client,
                                    const absl::Status& status) const {
  if (!status.ok()) {
    // The handler has said its last word before, perhaps, and the client may
    // have called again.
    if (client.channel.kept()) {
      late_failures_.Log(environment(), status.ToString(),
                         " (after the call's end: its client is not told)");
      return absl::OkStatus();
    }
    // A client that may call again is told in step with that.
    return client.channel.may_keep() &&
                   client.channel.WriteLastError(status).ok()
               ? absl::OkStatus()
               : status;
  }
  const absl::Status told = client.channel.WriteEnd();
  // If it fails otherwise, the client has gone, or the handler has closed the
  // channel.
  return HasReason(told, reason::kTimedOut) ? told : absl::OkStatus();
}

absl::Status AbstractServer::Intercept(
    const CallContext& context,
    absl::FunctionRef<absl::Status()> handle) const {
  if (interceptors_ == nullptr) return handle();
  CallInfo info;
  info.method = context.method();
  if (!message_handlers_.contains(info.method)) {
    info.method.resize(std::min(info.method.size(), kMostOfAName));
  }
  info.trace_id = context.trace_id();
  info.peer = context.peer();
  info.deadline = context.deadline();
  Interception interception(interceptors_, environment(), std::move(info));
  absl::Status status = interception.Begin();
  if (status.ok()) status = handle();
  interception.End(status);
  return status;
}

absl::Status AbstractServer::Dispatch(const MessageHandler* handler,
                                      const CallContext& context,
                                      MessageChannel& channel,
                                      Message& request) const {
  const std::string_view name = context.method();
  if (handler == nullptr) {
    std::vector<std::string> known;
    for (const auto& [name, unused] : message_handlers_) known.push_back(name);
    std::sort(known.begin(), known.end());
    const std::string_view nearest = Nearest(name, known);
    return MakeError(
        reason::kUnknownMessage,
        absl::StrCat("the server has no handler for message ", Quoted(name),
                     nearest.empty() ? "" : "; did you mean ", nearest,
                     "; it knows: ", absl::StrJoin(known, ", ")));
  }
  absl::Status status = CallUserCode(
      "the handler", [&] { return (*handler)(context, channel, request); });
  if (status.ok()) return status;
  return Annotate(status, absl::StrCat("message ", Quoted(name)));
}

absl::Status AbstractServer::CheckPeer(const PeerCredentials& peer) const {
  bool admitted = peer.uid == 0 || (peer.uid == environment().UserId() &&
                                    environment().KnowsUser(peer.uid));
  if (options_.admit_peer != nullptr) {
    WARD_RETURN_IF_ERROR(CallUserCode("admit_peer", [&] {
      admitted = options_.admit_peer(peer);
      return absl::OkStatus();
    }));
  }
  if (admitted) return absl::OkStatus();
  return MakeError(
      reason::kPeerNotAllowed,
      absl::StrCat("the server does not serve user ",
                   UserName(environment(), peer.uid),
                   "; ServerOptions::admit_peer decides who may connect"));
}

}  // namespace ward

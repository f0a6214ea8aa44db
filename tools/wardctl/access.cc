#include "ward/tools/wardctl/access.h"

#include <pwd.h>
#include <sys/types.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/kept_connections.h"
#include "ward/server/method.h"
#include "ward/server/outgoing_call.h"
#include "ward/server/process.h"
#include "ward/server/route.h"
#include "ward/server/server_options.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/failure.h"
#include "ward/tools/wardctl/find_servers.h"
#include "ward/tools/wardctl/password.h"

namespace ward::ctl {
namespace {

absl::StatusOr<uid_t> UserOf(const std::string& name) {
  uid_t user = 0;
  if (absl::SimpleAtoi(name, &user)) return user;
  // The only thread.
  const passwd* const entry =
      getpwnam(name.c_str());  // NOLINT(concurrency-mt-unsafe)
  if (entry != nullptr) return entry->pw_uid;
  return UsageError(absl::StrCat("--server-user: there is no user ", name));
}

// `status`, of a call that no handler has failed, for who has typed it.
absl::Status Explained(const absl::Status& status) {
  if (HasReason(status, ward::reason::kServerNotTrusted)) {
    return MakeError(
        ward::reason::kServerNotTrusted,
        absl::StrCat(status.message(), " (of wardctl: --server-user)"));
  }
  if (!absl::IsPermissionDenied(status) || !ReasonOf(status).empty()) {
    return status;
  }
  return MakeError(reason::kNotAllowed, status.message());
}

}  // namespace

absl::StatusOr<std::string> SocketOf(const std::string& server) {
  pid_t pid = 0;
  if (!absl::SimpleAtoi(server, &pid)) return server;
  WARD_ASSIGN_OR_RETURN(const std::vector<FoundServer> found, FindServers());
  std::vector<std::string> paths;
  for (const FoundServer& one : found) {
    for (const ProcessInfo& process : one.processes) {
      if (process.pid == pid) paths.push_back(one.path);
    }
  }
  if (paths.size() == 1) return paths.front();
  return MakeError(
      ward::reason::kServerUnreachable,
      paths.empty()
          ? absl::StrCat("process ", pid,
                         " has no server of ward's, as far as this user may "
                         "see; wardctl list shows those there are (a socket "
                         "whose name is a number: ./",
                         pid, ")")
          : absl::StrCat("process ", pid, " has ", paths.size(),
                         " servers: name the socket, such as ", paths.front()));
}

absl::StatusOr<absl::Duration> TimeoutOf(const CommandLine& line,
                                         absl::Duration otherwise) {
  const std::string* const text = line.Find(kTimeout);
  if (text == nullptr) return otherwise;
  absl::Duration timeout;
  if (absl::ParseDuration(*text, &timeout) && timeout > absl::ZeroDuration()) {
    return timeout;
  }
  return UsageError(absl::StrCat("--timeout: \"", *text,
                                 "\" is no time such as 500ms, 2s or 1m30s"));
}

absl::StatusOr<std::unique_ptr<Access>> Access::Make(const CommandLine& line,
                                                     absl::Duration timeout,
                                                     bool may_ask) {
  std::unique_ptr<Access> access(new Access());
  Environment& environment = Environment::Default();
  uid_t other = geteuid();
  if (const std::string* const name = line.Find(kServerUser)) {
    WARD_ASSIGN_OR_RETURN(other, UserOf(*name));
  }
  WARD_ASSIGN_OR_RETURN(access->timeout_, TimeoutOf(line, timeout));
  WARD_ASSIGN_OR_RETURN(access->path_, SocketOf(line.operands().front()));
  access->deadline_ = environment.TimeNow() + access->timeout_;
  bool is_typed = false;
  WARD_ASSIGN_OR_RETURN(
      const Secret password,
      FindPassword(line, may_ask, access->deadline_, is_typed));
  if (is_typed) access->deadline_ = environment.TimeNow() + access->timeout_;
  const auto options = [&, raw = access.get()] {
    ServerOptions made;
    made.socket_filename = raw->path_;
    made.password = password.Copy();
    // Each call has its deadline. Who waits for ever does not for a place in a
    // queue.
    if (raw->timeout_ != absl::InfiniteDuration()) {
      made.connect_timeout = absl::InfiniteDuration();
    }
    made.trust_server = [other, raw](const PeerCredentials& server) {
      raw->listener_pid_ = server.pid;
      raw->listener_uid_ = server.uid;
      // Where a number stands for all users that are not known, nobody is
      // trusted by it: see ServerOptions::trust_server.
      return server.uid == 0 ||
             ((server.uid == other || server.uid == geteuid()) &&
              Environment::Default().KnowsUser(server.uid));
    };
    return made;
  };
  access->route_ = {std::make_shared<const ServerOptions>(options()), nullptr,
                    std::make_shared<KeptConnections>(), other, nullptr};
  access->server_ = std::make_unique<AbstractServer>(options());
  return access;
}

Access::~Access() = default;

absl::Status Access::Call(
    absl::Time deadline, OutgoingCall::Over over,
    absl::FunctionRef<absl::Status(MessageChannel&)> write,
    absl::FunctionRef<absl::Status(MessageChannel&)> read) {
  CallLimits limits;
  limits.deadline = deadline;
  OutgoingCall call;
  call.set_limits(std::move(limits));
  bool connected = false;
  const absl::Status begun = call.Begin(
      route_,
      [&](MessageChannel& channel) {
        connected = !call.is_kept();
        channel.set_deadline(deadline, "--timeout");
        if (over == OutgoingCall::Over::kNew) {
          // No other one follows: the server need not wait for it.
          channel.BeginCall(
              {/*keep=*/false, deadline - Environment::Default().TimeNow()});
        }
        return write(channel);
      },
      over);
  if (!begun.ok()) return connected ? begun : Explained(begun);
  return call.End(read(call.channel()));
}

absl::Status Access::Ask(std::string_view method,
                         absl::FunctionRef<absl::Status(Message)> use) {
  return Call(
      deadline_, OutgoingCall::Over::kNew,
      [&](MessageChannel& channel) { return channel.Write(method); },
      [&](MessageChannel& channel) { return ReadReplies(channel, use); });
}

CallOptions Access::Options() const {
  CallOptions options;
  options.deadline =
      absl::Now() + (deadline_ - Environment::Default().TimeNow());
  return options;
}

absl::StatusOr<std::vector<Access::Method>> Access::Methods() {
  absl::StatusOr<std::vector<MethodInfo>> told = server_->Methods(Options());
  if (!told.ok()) return Explained(told.status());
  std::vector<Method> methods;
  for (MethodInfo& info : *told) {
    methods.push_back(
        {std::move(info.name), std::move(info.request), std::move(info.reply)});
  }
  return methods;
}

absl::StatusOr<Access::Method> Access::FindMethod(std::string_view name) {
  WARD_ASSIGN_OR_RETURN(std::vector<Method> methods, Methods());
  for (Method& method : methods) {
    if (method.name == name) return std::move(method);
  }
  // The server says it best: which ones there are, and which may be meant.
  WARD_RETURN_IF_ERROR(
      Ask(name, [](const Message&) { return absl::OkStatus(); }));
  return MakeError(ward::reason::kUnknownMessage,
                   absl::StrCat("the server has no method ", name));
}

absl::StatusOr<std::string> Access::DescriptorSet() {
  return server_->DescriptorSet(Options());
}

bool IsEnd(const MessageChannel& channel, const absl::Status& status) {
  return HasReason(status, ward::reason::kEndOfStream) && channel.ended();
}

absl::Status ReadReplies(MessageChannel& channel,
                         absl::FunctionRef<absl::Status(Message)> use) {
  while (true) {
    absl::StatusOr<Message> reply = channel.Read();
    if (IsEnd(channel, reply.status())) return absl::OkStatus();
    WARD_RETURN_IF_ERROR(reply.status());
    WARD_RETURN_IF_ERROR(use(*std::move(reply)));
  }
}

}  // namespace ward::ctl

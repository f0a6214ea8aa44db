// A server that is named on the command line, and how it is spoken to.

#ifndef WARD_TOOLS_WARDCTL_ACCESS_H_
#define WARD_TOOLS_WARDCTL_ACCESS_H_

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/transport.h"
#include "ward/server/method.h"
#include "ward/server/outgoing_call.h"
#include "ward/server/route.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/password.h"

namespace ward {
class AbstractServer;
}

namespace ward::ctl {

// Beside those of password.h.
inline constexpr Option kServerUser{
    "server-user", "USER",
    "tell the password to a server of USER, by name or number, too; to those "
    "of yourself and of root it is told in any case"};
inline constexpr Option kTimeout{
    "timeout", "TIME",
    "give up after TIME, such as 500ms, 2s or 1m30s; default: 10s"};

// The path that SERVER stands for: itself, or, where it is a number, that of
// the server of this pid, of those that `wardctl list` shows.
absl::StatusOr<std::string> SocketOf(const std::string& server);

// What `kTimeout` says; kUsage.
absl::StatusOr<absl::Duration> TimeoutOf(const CommandLine& line,
                                         absl::Duration otherwise);

// Thread-safe.
class Access {
 public:
  struct Method {
    std::string name;
    // As docs/protocol.md has it: "string, int32", "stream of double".
    std::string request;
    std::string reply;
  };

  // The server is the first operand; all of `line`'s options above count. Asks
  // for the password, if need be and `may_ask`.
  static absl::StatusOr<std::unique_ptr<Access>> Make(
      const CommandLine& line, absl::Duration timeout = absl::Seconds(10),
      bool may_ask = true);
  ~Access();
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;

  // Calls, as AbstractServer::Call does: `write` writes a call's first message,
  // again on another connection if the server cannot have read it, and `read`
  // does the rest. One of more than one message takes a connection of its own,
  // as OutgoingCall says: it is closed then. kNotAllowed beside
  // AbstractServer::Call's errors.
  absl::Status Call(absl::Time deadline, OutgoingCall::Over over,
                    absl::FunctionRef<absl::Status(MessageChannel&)> write,
                    absl::FunctionRef<absl::Status(MessageChannel&)> read);

  // Of all that is done once, counted from when this object was made. On
  // Environment::TimeNow's clock.
  absl::Time deadline() const { return deadline_; }
  // And what it comes of; for what is done again and again.
  absl::Duration timeout() const { return timeout_; }

  // Calls a method without arguments, for each message of its reply, over a
  // connection of its own.
  absl::Status Ask(std::string_view method,
                   absl::FunctionRef<absl::Status(Message)> use);

  absl::StatusOr<std::vector<Method>> Methods();
  absl::StatusOr<Method> FindMethod(std::string_view name);
  // As AbstractServer::DescriptorSet.
  absl::StatusOr<std::string> DescriptorSet();

  // Who listens there, as the last connection has shown.
  pid_t listener_pid() const { return listener_pid_; }
  uid_t listener_uid() const { return listener_uid_; }
  const std::string& path() const { return path_; }

 private:
  Access() = default;

  // With deadline_.
  CallOptions Options() const;

  std::string path_;
  absl::Duration timeout_ = absl::InfiniteDuration();
  absl::Time deadline_ = absl::InfiniteFuture();
  Route route_;
  std::unique_ptr<AbstractServer> server_;
  std::atomic<pid_t> listener_pid_{0};
  std::atomic<uid_t> listener_uid_{0};
};

// Whether `status`, of a Read, says that the call has succeeded.
bool IsEnd(const MessageChannel& channel, const absl::Status& status);

// The messages that come until the call's end, which is OK; see
// AbstractServer::Connect.
absl::Status ReadReplies(MessageChannel& channel,
                         absl::FunctionRef<absl::Status(Message)> use);

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_ACCESS_H_

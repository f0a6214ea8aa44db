#include "ward/server/route.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/spare_memory.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/server_options.h"
#include "ward/server/user_code.h"
#include "ward/server/user_name.h"

namespace ward {

absl::Status StartedServer::CheckAlive(absl::Time until) const {
  if (process == nullptr) {
    return MakeError(reason::kServerNotStarted,
                     "the server's ownership was given up (Disown)");
  }
  absl::Status status = process->CheckAlive(until);
  if (status.ok() || !stopping) return status;
  return MakeError(reason::kServerStopping, "the server was stopped");
}

absl::Status StartedServer::CheckReachable(absl::Time until) {
  WARD_RETURN_IF_ERROR(CheckAlive(until));
  const absl::Status found = listener->CheckPath();
  // Asked last: its name goes first.
  if (stopping) {
    return MakeError(reason::kServerStopping, "the server is being stopped");
  }
  return Annotate(found, absl::StrCat("the server, process ", process->pid(),
                                      ", lives, but is not reached"));
}

const std::string& Route::path() const {
  return served != nullptr    ? *served
         : started != nullptr ? started->listener->path()
                              : options->socket_filename;
}

absl::StatusOr<std::unique_ptr<Transport>> Route::Connect(
    absl::Time deadline, const std::function<bool()>& is_cancelled) const {
  if (path().empty()) {
    return MakeError(reason::kServerNotStarted,
                     "connect to the server: it is not started; call Start() "
                     "first");
  }
  Environment& environment = *options->environment;
  deadline =
      std::min(deadline, environment.TimeNow() + options->connect_timeout);
  const absl::Duration slice =
      is_cancelled != nullptr ? kConnectAgain : absl::InfiniteDuration();
  absl::StatusOr<std::unique_ptr<Transport>> connection;
  do {
    connection = environment.Connect(
        path(), std::min(deadline, environment.TimeNow() + slice));
  } while (HasReason(connection.status(), reason::kTimedOut) &&
           environment.TimeNow() < deadline &&
           !(is_cancelled != nullptr && is_cancelled()));
  WARD_RETURN_IF_ERROR(connection.status());
  const absl::Status trusted = CheckServer(**connection);
  if (trusted.ok()) return connection;
  return Annotate(trusted, absl::StrCat("connect to \"", path(), "\""));
}

MessageChannel Route::MakeChannel(std::unique_ptr<Transport> connection) const {
  MessageChannel channel(internal::Shared(std::move(connection)));
  channel.set_limits(options->limits);
  channel.PresentPassword(options->password);
  channel.set_spin_time(options->client_spin_time);
  channel.ExpectEnd();
  return channel;
}

absl::Status Route::Explain(const absl::Status& status,
                            absl::Time until) const {
  if (started == nullptr) return status;
  const bool elsewhere = HasReason(status, reason::kServerUnreachable) ||
                         HasReason(status, reason::kInvalidPassword);
  const bool broken = HasReason(status, reason::kServerUnreachable) ||
                      HasReason(status, reason::kConnectionLost) ||
                      HasReason(status, reason::kCallCut);
  if (!elsewhere && !broken) return status;
  if (broken && started->stopping) {
    return MakeError(reason::kServerStopping,
                     absl::StrCat("the server was stopped during the call: ",
                                  status.message()));
  }
  absl::Status found =
      elsewhere ? started->CheckReachable(until) : started->CheckAlive(until);
  if (found.ok()) return status;
  if (!HasReason(status, reason::kCallCut)) return found;
  return MakeError(reason::kCallCut,
                   absl::StrCat(found.message(), "; ", status.message()));
}

// Before a byte of the password is said. What is trusted by default is what
// could read the password anyway, from this process's memory or the server's.
absl::Status Route::CheckServer(const Transport& transport) const {
  WARD_ASSIGN_OR_RETURN(const PeerCredentials server, transport.Peer());
  Environment& environment = *options->environment;
  // This process's user is asked for last: it takes a system call.
  bool trusted =
      server.uid == 0 ||
      ((server.uid == server_user || server.uid == environment.UserId()) &&
       environment.KnowsUser(server.uid));
  if (options->trust_server != nullptr) {
    WARD_RETURN_IF_ERROR(CallUserCode("trust_server", [&] {
      trusted = options->trust_server(server);
      return absl::OkStatus();
    }));
  }
  if (trusted) return absl::OkStatus();
  return MakeError(
      reason::kServerNotTrusted,
      absl::StrCat("the server there is process ", server.pid, " of user ",
                   UserName(environment, server.uid),
                   ", which this client, of user ", environment.UserId(),
                   ", does not trust: it was not told the password; ",
                   environment.KnowsUser(server.uid)
                       ? "if it is the right one, say so in "
                         "ServerOptions::trust_server"
                       : "that number is anybody's here, and not to be "
                         "trusted: map the server's user in this namespace "
                         "(/proc/PID/uid_map, newuidmap(1)), or have both run "
                         "in one"));
}

}  // namespace ward

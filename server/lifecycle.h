// A server's process, and those who own it.
//
// Owner and server hold the two ends of a socket pair. The server's end tells
// the owner that the server is ready, or why it could not start; the owner's
// end tells the server to quit, by a message or by being closed: when the last
// process that holds it has closed it, or died however it died, the server
// reads the end of the stream. No pid is polled, and none can be mistaken.
//
// What a fork shares and an exec does not: the owner's end is close-on-exec,
// so a child that was forked owns the server too, and a program that was
// started does not.
//
// AbstractServer is built on this; use it directly for a process with an owner
// that is no AbstractServer.

#ifndef WARD_SERVER_LIFECYCLE_H_
#define WARD_SERVER_LIFECYCLE_H_

#include <sys/types.h>

#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"

namespace ward {

// The server's end: readable when the owners want the server to quit, or are
// all gone.
class OwnerLink {
 public:
  // For a server in a process that is not its own: no deadline ends it.
  explicit OwnerLink(std::unique_ptr<Transport> transport)
      : channel_(std::move(transport)) {}

  // For a process that was made for the server. From now on it has
  // `start_timeout` to get ready; see QuitWithin.
  OwnerLink(Environment& environment, std::unique_ptr<Transport> transport,
            absl::Duration start_timeout);

  // Tells the owner that clients are served from now on.
  absl::Status ReportReady();

  // An owner kills a server that has not quit within `limit` from now. If there
  // is no owner any more, the process does so to itself, a second later.
  void QuitWithin(absl::Duration limit);

  // Tells the owner why the server will not serve. After ReportReady there is
  // nobody who waits for it, and it does nothing.
  void ReportFailure(const absl::Status& status);

  bool ready() const { return ready_; }

  const Pollable& pollable() const { return *channel_.transport(); }

 private:
  void SetDeadline(absl::Duration left);

  Environment* environment_ = nullptr;
  MessageChannel channel_;
  bool ready_ = false;
};

struct LaunchOptions {
  ForkOptions fork;

  // How long the server may take to be ready; then it is killed.
  absl::Duration start_timeout = absl::Seconds(60);
};

struct StopOptions {
  // How long the server may take to quit before it gets SIGKILL. The
  // original's 4 s; the server's own drain time should be well below.
  absl::Duration kill_after = absl::Seconds(4);
};

// The owner's end: a server process that is ready.
//
// Thread-safe but for Stop. Destroying it without Stop closes this owner's end
// and leaves a zombie if the server was this process's child.
class ServerProcess {
 public:
  // Forks, runs `serve` in the child, and waits until it has reported that it
  // is ready. The child exits with 0 if `serve` returns OK and 1 otherwise; an
  // error after ReportReady goes to Environment::Log.
  //
  // When the child reports a failure, that very status is returned; when it
  // dies without a word, kServerDied; when its time runs out, kTimedOut. In
  // each case the child has been reaped.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Launch(
      Environment& environment, LaunchOptions options,
      absl::AnyInvocable<absl::Status(OwnerLink&)> serve);

  pid_t pid() const { return process_->pid(); }

  // Whether this is the process that launched the server, and not a fork of
  // it, which is an owner but no parent.
  bool launched_here() const;

  // Asks the server to quit and waits until it has, with SIGKILL at the end.
  // The server is gone afterwards, whatever is returned: OK if it quit by
  // itself with code 0, however long ago, kServerDied if it ended otherwise,
  // kServerKilled if it took SIGKILL.
  absl::Status Stop(const StopOptions& options);

  // OK while the server runs. When its end of the socket pair is closed, or it
  // has begun to end, waits for its last moment and returns kServerDied, which
  // says how it ended.
  absl::Status CheckAlive();

 private:
  ServerProcess(Environment& environment, std::unique_ptr<Process> process,
                MessageChannel owner);

  // kServerDied, how it ended, and what to do.
  absl::Status Died(const ProcessExit& exit) const;

  Environment& environment_;
  const std::unique_ptr<Process> process_;
  MessageChannel owner_;
  const pid_t launcher_;
};

}  // namespace ward

#endif  // WARD_SERVER_LIFECYCLE_H_

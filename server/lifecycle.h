// A server's process, and those who own it.
//
// Owner and server hold the two ends of a socket pair. The server's end tells
// the owner that the server is ready, or why it could not start; the owner's
// end tells the server to quit, by a message or by being closed: when the last
// process that holds it has closed it, or died however it died, the server
// reads the end of the stream. No pid is polled, and none can be mistaken.
//
// Until it is ready, the server is tied to its end (Environment::TieProcess):
// whether it is still in the program's main(), or hangs in InitializeServer, it
// is killed when its last owner is gone, or any owner wants it to quit. From
// then on it reads its end, and quits in its own time: see QuitWithin.
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

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/server/poll_set.h"
#include "ward/server/process.h"
#include "ward/server/zygote.h"

namespace ward {

// The server's end: readable when the owners want the server to quit, or are
// all gone.
class OwnerLink {
 public:
  // For a server in a process that is not its own: no deadline ends it.
  explicit OwnerLink(std::unique_ptr<Transport> transport)
      : channel_(std::move(transport)) {}

  // For a process that was made for the server. Ties it to `transport` until
  // it reports, and gives it `start_timeout` to do so; see QuitWithin.
  // `owners_end` is the SocketId of the other end.
  OwnerLink(Environment& environment, std::unique_ptr<Transport> transport,
            absl::Duration start_timeout, uint64_t owners_end = 0);

  // Runs a process that was made for the server: calls `serve`, and returns the
  // process's exit code, 0 for OK and 1 for anything else. That goes to the
  // owner; after ReportReady, to Environment::Log.
  int Serve(absl::AnyInvocable<absl::Status(OwnerLink&)> serve);

  // What it leaves behind when its owners end it before it is ready: not the
  // name of `listener` (borrowed until then). See Environment::TieProcess.
  void LeaveNoName(const Listener& listener);

  // Tells the owner that clients are served from now on. Poll pollable() from
  // now on: owners that are gone end the process no more.
  absl::Status ReportReady();

  // An owner kills a server that has not quit within `limit` from now. If there
  // is no owner any more, the process does so to itself, a second later.
  void QuitWithin(absl::Duration limit);

  // Tells the owner why the server will not serve. After ReportReady there is
  // nobody who waits for it, and it does nothing.
  void ReportFailure(const absl::Status& status);

  // The processes that own the server; see Environment::Holders.
  // kOwnersUnknown for a server in a process that is not its own, and where
  // there are some, but none is seen.
  absl::StatusOr<std::vector<ProcessInfo>> Owners() const;
  void set_owners_end(uint64_t owners_end) { owners_end_ = owners_end; }

  bool ready() const { return ready_; }

  // Whether the server has a process of its own.
  bool has_process() const { return environment_ != nullptr; }

  const Pollable& pollable() const { return *channel_.transport(); }

 private:
  void Tie(const Listener* listener);
  void Untie();
  void SetDeadline(absl::Duration left);

  Environment* environment_ = nullptr;
  MessageChannel channel_;
  uint64_t owners_end_ = 0;
  bool ready_ = false;
};

// Hears of the owners while code of the user's, which may hang, has the thread
// that polls for them.
class OwnerWatch {
 public:
  // For a server in a process of its own. All are borrowed. Made before the
  // process may be confined, and its descriptor table full: calls need only a
  // thread.
  static absl::StatusOr<std::unique_ptr<OwnerWatch>> Create(
      Environment& environment, OwnerLink& owner, Listener& listener);
  OwnerWatch(const OwnerWatch&) = delete;
  OwnerWatch& operator=(const OwnerWatch&) = delete;

  // Calls `body`. If meanwhile the owners want the server to quit, or are gone,
  // its name goes at once, and it is killed unless it quits, as by
  // QuitWithin(`limit`). Where no thread can be had (it is logged), `body` has
  // to come to its end.
  void Call(absl::Duration limit, absl::FunctionRef<void()> body);

 private:
  OwnerWatch(Environment& environment, OwnerLink& owner, Listener& listener,
             std::unique_ptr<PollSet> events);
  void Watch(absl::Duration limit);

  Environment& environment_;
  OwnerLink& owner_;
  Listener& listener_;
  const std::unique_ptr<PollSet> events_;
};

// How a server's process is made.
struct LaunchOptions {
  ForkOptions fork;

  // By default what is typed at the owner's terminal is for the owner alone.
  // Ctrl-C would otherwise end a server whose owner may have use for it while
  // it quits; the server still goes with its last owner, at once. With kParents
  // they are one to the terminal and to kill(-pgid), and the server may read
  // from the terminal, at which one with a group of its own is stopped
  // (SIGTTIN; writing is stopped by `stty tostop` alone).
  ProcessGroup process_group = ProcessGroup::kOwn;

  // How long the server may take to be ready; then it is killed. A zygote that
  // has to begin first is waited for in that time, in BeginStart already.
  absl::Duration start_timeout = absl::Seconds(60);
};

// How it is ended.
struct StopOptions {
  // How long the server may take to quit before it gets SIGKILL. The
  // original's 4 s; the server's own drain time should be well below.
  absl::Duration kill_after = absl::Seconds(4);
};

// The owner's end of a server process.
//
// Thread-safe but for WaitUntilReady. Destroying it closes this owner's end,
// and leaves a zombie if the server was this process's child and nobody has
// called Stop.
class ServerProcess {
 public:
  // Forks, and runs `serve` in the child: see OwnerLink::Serve.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Fork(
      Environment& environment, LaunchOptions options,
      absl::AnyInvocable<absl::Status(OwnerLink&)> serve);

  // Starts this program anew, at `entry` (see Environment::Exec; or has
  // `zygote` make a process of it, unless that is null), and calls `hand_over`
  // to write to it what it needs, with the SocketId of the owner's end: on a
  // channel of its own, since a word on the socket pair would end it.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Exec(
      Environment& environment, const LaunchOptions& options, Zygote* zygote,
      const std::string& entry,
      absl::FunctionRef<absl::Status(MessageChannel&, uint64_t owners_end)>
          hand_over);

  // One that runs already: `owner` is an owner's end.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Adopt(
      Environment& environment, std::unique_ptr<Process> process,
      std::unique_ptr<Transport> owner);

  // After Fork or Exec, once: waits until the server has reported that it is
  // ready, for at most LaunchOptions::start_timeout since then.
  //
  // When the server reports a failure, that very status is returned; when it
  // dies without a word, kServerDied; when its time runs out, kTimedOut. In
  // each case the child has been reaped.
  absl::Status WaitUntilReady();

  // Closes this owner's end, and returns the process, to be waited for.
  static std::unique_ptr<Process> Disown(
      std::unique_ptr<ServerProcess> server) {
    return std::move(server->process_);
  }

  pid_t pid() const { return process_->pid(); }

  // Readable when WaitUntilReady will not have to wait; after that, when the
  // server has ended or is about to: CheckAlive tells. It stands for the
  // server's end and for its process: a child of the server may have kept the
  // one open, and the other comes a moment later.
  const Pollable& pollable() const { return *news_; }

  // For another process that is to be an owner, too.
  absl::StatusOr<FileDescriptor> ShareOwnersEnd() const {
    return environment_.Share(*owner_.transport());
  }
  absl::StatusOr<FileDescriptor> ShareProcess() const {
    return environment_.Share(*process_);
  }

  // Whether this is the process that launched the server, and not a fork of
  // it, or another one that became an owner.
  bool launched_here() const;

  // Asks the server to quit and waits until it has, with SIGKILL at the end;
  // several threads may, and wait for the same end.
  // The server is gone afterwards, whatever is returned: OK if it quit by
  // itself with code 0, however long ago, kServerDied if it ended otherwise,
  // kServerKilled if it took SIGKILL. One that was not ready yet does not
  // finish what it is doing: it is killed at once, which is OK, too, before
  // WaitUntilReady.
  absl::Status Stop(const StopOptions& options);

  // OK while the server runs. When its end of the socket pair is closed, or it
  // has begun to end, waits for its last moment and returns kServerDied, which
  // says how it ended.
  // Where the server is about to end, that is waited for: not after `until`,
  // when it is alive as far as anybody knows.
  absl::Status CheckAlive(absl::Time until = absl::InfiniteFuture());

 private:
  ServerProcess(Environment& environment, std::unique_ptr<Process> process,
                std::unique_ptr<Transport> owner);

  static absl::StatusOr<std::unique_ptr<ServerProcess>> Launched(
      Environment& environment, std::unique_ptr<Process> process,
      std::unique_ptr<Transport> owner, absl::Duration start_timeout,
      absl::Time start_deadline);
  absl::Status Watch();
  void KillAndReap();

  // kServerDied, how it ended, and what to do, if anything is left to do.
  absl::Status Died(const ProcessExit& exit,
                    std::string_view advice = {}) const;

  Environment& environment_;
  std::unique_ptr<Process> process_;
  MessageChannel owner_;
  std::atomic<bool> asked_to_quit_{false};
  std::atomic<bool> killed_{false};
  std::unique_ptr<PollSet> news_;
  // The ForkGeneration of the process that launched the server; 0 if it was not
  // this one.
  int launcher_ = 0;
  absl::Duration start_timeout_ = absl::ZeroDuration();
  absl::Time start_deadline_ = absl::InfiniteFuture();
  // The server's start was waited for, or it runs already.
  bool waited_ = true;
};

}  // namespace ward

#endif  // WARD_SERVER_LIFECYCLE_H_

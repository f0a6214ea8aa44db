// What a server can be told before it starts. The defaults are made to be kept.

#ifndef WARD_SERVER_SERVER_OPTIONS_H_
#define WARD_SERVER_SERVER_OPTIONS_H_

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"
#include "ward/server/confinement.h"
#include "ward/server/environment.h"
#include "ward/server/interceptor.h"
#include "ward/server/lifecycle.h"
#include "ward/server/zygote.h"

namespace ward {

// How a server's process comes to be.
enum class StartMode {
  // As a fork of the owner's, which must not have other threads.
  kFork,
  // As the owner's own program, started anew: from any thread of any program
  // whose main() begins with ServeIfExeced (exec_main.h). The server's object
  // is made there by the constructor of its class, which must be registered:
  // see WARD_REGISTER_SERVER. It takes about 2 ms; a fork takes less than one,
  // and 20 where the owner has a gigabyte of memory (docs/starting.md).
  kExec,
  // As kExec, from a process that was started so before, once for all servers:
  // ServerOptions::zygote. However large the owner is, it takes little more
  // than a fork of a small one; see zygote.h for what its servers share.
  kZygote,
};

// What servers that were not told otherwise use: kFork, or what a test harness
// has put in its place.
StartMode DefaultStartMode();

// For test harnesses: of servers that are made from now on.
void SetDefaultStartModeForTesting(StartMode mode);

// A server does not start (InvalidArgument) if a limit on clients is under 1,
// one of queue_timeout, authentication_timeout, call_timeout and idle_timeout
// is not over 0, or drain_time is under it.
struct ServerOptions {
  // Where the socket appears. Empty: in a private directory that is made at
  // each start and removed at the end, see ListenOptions. A path that is set
  // can be connected to by an object in another process that has the same path
  // and password.
  std::string socket_filename;

  // Empty: 256 random bits.
  Secret password;

  // Who may be a client; asked before a byte of it is read, on the kernel's
  // word (SO_PEERCRED), and on many threads at once. Default: processes of the
  // server's own user and root. To widen it, widen socket_mode too.
  std::function<bool(const PeerCredentials&)> admit_peer;
  mode_t socket_mode = 0600;

  // For clients: who may be told the password; asked before a byte is sent, on
  // the kernel's word (SO_PEERCRED: who called listen(2), as what he was then;
  // for a socket of systemd's that is systemd), and on many threads at once. In
  // a directory where others may write, another user's socket can be at the
  // path. Default: processes of this process's own user and of root, and of the
  // user that started the server, if this object has started or adopted it.
  // Where 65534 stands for every user that this one's namespace does not know
  // (user_namespaces(7)), nobody of that number is among them: never trust it.
  std::function<bool(const PeerCredentials&)> trust_server;

  // Around each call that the server serves; the first is the outermost. A
  // server that is started by exec sets them in its class's constructor, as it
  // does admit_peer.
  std::vector<std::shared_ptr<Interceptor>> interceptors;

  // For clients: around each Call and StartCall (not Connect) by the server's
  // object.
  std::vector<std::shared_ptr<Interceptor>> client_interceptors;

  // Clients served at the same time, a thread each. More of them, once they
  // have shown the password, wait for a place; a refused password is answered
  // at once, and one at a time of those whose first message is "ward.stats"
  // (AbstractServer::Stats), without descriptors, for which the server has one
  // more thread, and a second: it tells of itself though all places are taken.
  // Those who ask meanwhile wait as others do, and nobody is heard while
  // max_waiting_clients wait. max_clients_per_process and max_clients_per_user
  // do not count the one that is served so.
  int max_clients = 64;

  // Connections that are not served yet: their first message has not come, or
  // they wait for a place. Each takes a descriptor and what has come of its
  // first message; so there are never more than half as many as the server may
  // have descriptors when it starts to serve (ulimit -n). More of them wait in
  // the listen queue; only if one process has over half of these, its oldest
  // that has sent nothing is refused with kServerFull. So whoever may connect
  // can slow the others down, to max_waiting_clients new ones in an
  // authentication_timeout, and never have them refused.
  //
  // Descriptors that came with first messages which are not whole yet are an
  // eighth of what the server may have, and those of one message more. Over it,
  // and when the table is full all the same, the oldest of these messages of
  // the process that has the most is refused with kServerFull.
  int max_waiting_clients = 512;

  // How long a client waits for a place before it is refused with kServerFull.
  // Its wait also ends when it leaves. Default: for ever.
  absl::Duration queue_timeout = absl::InfiniteDuration();

  // Clients of one process, and of one user, that are served or wait for a
  // place. As many more wait for one of them to leave, a second at most, and
  // are refused with kServerFull then; all others at once. Processes of other
  // pid namespaces, which are not seen from the server's, count as one together
  // (pid 0). Default: no limit.
  int max_clients_per_process = std::numeric_limits<int>::max();
  int max_clients_per_user = std::numeric_limits<int>::max();

  // From the connection to the last byte of the client's first message.
  absl::Duration authentication_timeout = absl::Seconds(2);

  // How long a call may take: when it is over, whatever a handler does with its
  // channel fails with kTimedOut, and CallContext::cancelled() is true. One
  // that does not ask is not interrupted. Default: for ever.
  absl::Duration call_timeout = absl::InfiniteDuration();

  // How long a handler waits for its client, each time that it reads or writes;
  // then that fails with kTimedOut. A handler may set another time on its
  // channel (MessageChannel::set_timeout). Default: for ever.
  absl::Duration idle_timeout = absl::InfiniteDuration();

  // What a client's first message may have: it is buffered before its password
  // can be checked. A Bulk is not, and has max_bulk_bytes of `limits` there,
  // too.
  ChannelLimits first_message_limits = {size_t{1} << 20, 4096, 16};

  // What all other messages may have.
  ChannelLimits limits;

  // What clients' messages may take while they are received, all together: over
  // it, handlers that read wait, and so do their clients. One message at a time
  // goes on all the same, so that none is too large to come through; the time
  // limit of the one that waits goes on, too. Messages of up to 256 KiB, first
  // messages, and what handlers have read already are not counted.
  size_t max_buffered_bytes = size_t{256} << 20;

  // How long a handler, or a connection that is kept, may look again and again
  // for its client's next message before it is put to sleep; and a client for
  // the server's. It spares the way into sleep and out of it, some 5 us of a
  // round trip and more where processors sleep deeply, and costs a processor at
  // work, and its energy, meanwhile: 20 to 50 us are sensible, for calls that
  // follow closely on one another. One that waits in vain soon stops, and never
  // do more threads of a process than leave it one processor: on one, none.
  // Default: never.
  absl::Duration spin_time = absl::ZeroDuration();
  absl::Duration client_spin_time = absl::ZeroDuration();

  // How long Connect waits for a place in the server's listen queue.
  absl::Duration connect_timeout = absl::Seconds(10);

  // When the server quits: how long running handlers get before their channels
  // are cut. One that waits for its client's next message is none of them: its
  // Read returns kEndOfStream at once, and its client is told kServerStopping.
  absl::Duration drain_time = absl::Seconds(2);

  StartMode start_mode = DefaultStartMode();

  // With StartMode::kZygote: Environment::StartZygote's, of this environment.
  std::shared_ptr<Zygote> zygote;

  // For the server's class to make of what it likes. With StartMode::kExec and
  // kZygote it is all that the object in the server is told of the one in the
  // owner beside these options; it is handed over privately, not on a command
  // line.
  std::vector<std::string> arguments;

  // What the server's process gives up when InitializeServer has succeeded,
  // before ward starts a thread in it and before its first client: what it has
  // opened by then it keeps. Where that fails, the server does not start. A
  // class that knows what its handlers need sets it in its constructor.
  // Default: nothing.
  //
  // With AbstractServer::StartSynchronously the process that calls it is
  // confined, and stays so; one that has threads, as with ServeForSystemd, is
  // refused: see docs/confinement.md.
  std::optional<Confinement> confinement;

  LaunchOptions launch;
  StopOptions stop;

  // Borrowed; outlives the server.
  Environment* environment = &Environment::Default();
};

}  // namespace ward

#endif  // WARD_SERVER_SERVER_OPTIONS_H_

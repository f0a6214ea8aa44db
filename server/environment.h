// All that ward takes from the operating system: time, threads, sockets,
// processes and signals.
//
// Environment::Posix() is the real one. A server gets its environment when it
// is made, and neither it nor ward calls around it: so a test can put a
// simulated one in its place without the server noticing.
//
// Linux 5.9 or later, and /proc.

#ifndef WARD_SERVER_ENVIRONMENT_H_
#define WARD_SERVER_ENVIRONMENT_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/log_severity.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"
#include "ward/server/confinement.h"
#include "ward/server/listener.h"
#include "ward/server/poll_set.h"
#include "ward/server/process.h"
#include "ward/server/signals.h"
#include "ward/server/zygote.h"

namespace ward {

// A running thread. The destructor joins it.
class Thread {
 public:
  virtual ~Thread() = default;
};

// Thread-safe.
class Environment {
 public:
  virtual ~Environment() = default;

  // The operating system. Never destroyed.
  static Environment& Posix();

  // What a server uses that was not told otherwise: Posix(), or what a test
  // harness has put in its place, with null to take it back. Not while a server
  // is being made on another thread.
  static Environment& Default();
  static void SetDefaultForTesting(Environment* environment);

  // --- time ---

  // The clock of all deadlines: monotonic, not the time of day.
  virtual absl::Time TimeNow() = 0;

  // --- threads ---

  // Runs `body` on a new thread that has all signals blocked but those that a
  // fault raises (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT),
  // and SIGURG, with which Listener::StopAccepting wakes it.
  virtual absl::StatusOr<std::unique_ptr<Thread>> StartThread(
      absl::AnyInvocable<void()> body) = 0;

  // What gdb, top and ps call the calling thread: 15 bytes at most (prctl(2),
  // PR_SET_NAME). Costs nothing where it has that name already.
  virtual void NameThread(const std::string& name) = 0;

  // --- sockets ---

  // Binds and listens; see ListenOptions. The socket is bound to that name and
  // to no other. One there that no process has open any more is replaced;
  // kPathTaken for anything else. Of those that start at the same time one wins
  // (where their directory can be read and locked by flock(2): not on NFS);
  // kTimedOut if another process keeps it locked. kPathTooLong when the file
  // name itself (not the path) is too long: over about 80 bytes.
  virtual absl::StatusOr<std::unique_ptr<Listener>> Listen(
      const ListenOptions& options) = 0;

  // Connects to the socket at `path`. kServerUnreachable when nobody listens
  // there; kTimedOut when its queue is full until `deadline`; kPathTooLong as
  // of Listen.
  virtual absl::StatusOr<std::unique_ptr<Transport>> Connect(
      const std::string& path, absl::Time deadline) = 0;

  // Two connected ends.
  virtual absl::StatusOr<
      std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>>>
  CreateTransportPair() = 0;

  // Waits until one of `polled` is readable, or at its end; returns the index
  // of the first that is. kTimedOut at `deadline`.
  virtual absl::StatusOr<size_t> Poll(absl::Span<const Pollable* const> polled,
                                      absl::Time deadline) = 0;

  // Empty. What is put into it is of this environment.
  virtual absl::StatusOr<std::unique_ptr<PollSet>> CreatePollSet() = 0;

  // --- processes ---

  // Runs `child`, which owns all it needs, in a new process, which ends with
  // the code that it returns (without atexit handlers; stdio is flushed on both
  // sides, and so are the standard streams). The child starts with all signals
  // blocked but those that a fault raises, only the named descriptors open,
  // /dev/null at what is closed, or close-on-exec and not named, of 0, 1 and 2,
  // and rand, random and drand48 freshly seeded. It starts when it is watched:
  // its end is seen, and Kill hits no other, though somebody else reaps it.
  //
  // kForkWithThreads if this process has other threads.
  virtual absl::StatusOr<std::unique_ptr<Process>> Fork(
      const ForkOptions& options, absl::AnyInvocable<int()> child) = 0;

  // Runs this process's own program anew, in a new process that has no
  // descriptors but 0, 1, 2 (/dev/null where this one has none, or one that is
  // close-on-exec) and those of `links`, and calls the function that is
  // registered there as `entry` (exec_entry.h). It is tied to `links.owner`
  // before its first instruction. From any thread, however many there are:
  // nothing of this process is copied.
  //
  // FailedPrecondition if the program's main() is not made for it
  // (exec_main.h); kServerDied if the program has ended, and somebody else has
  // reaped it, before it could be watched.
  virtual absl::StatusOr<std::unique_ptr<Process>> Exec(
      const std::string& entry, ExecLinks links, ProcessGroup group) = 0;

  // Starts this program anew, as Exec does, to make processes from: see
  // zygote.h. It warms up by itself, and what it is asked before that waits.
  // Of an environment without an own way, one whose Fork is Exec.
  //
  // Errors: as of Exec.
  virtual absl::StatusOr<std::unique_ptr<Zygote>> StartZygote();

  // Ties this process to `end`, whose other end others have: it ends by
  // SIGKILL, whatever its threads are doing then, when `end` becomes readable
  // or reaches its end of the stream; at once if it is or has. It holds for
  // this process alone, not for its children, and outlives an exec.
  //
  // With a `listener` its name is removed first, and from now on children that
  // are forked by fork(2) (not by Fork) have neither `end`, nor the listener's
  // socket, nor its connections: they would look like this process when it is
  // gone. In their places is /dev/null. To remove the name, the process
  // must let SIGIO come: it is caught, goes on to the handler that was there if
  // it came from elsewhere, and may be blocked on all threads but one. A
  // handler that is set meanwhile takes its place. Without a listener, nothing
  // of the process can hinder it; but the init of a pid namespace is ended
  // neither by this nor by SetProcessDeadline (pid_namespaces(7)): let another
  // process be that. Nor is one that has become another user since, where this
  // was root of a user namespace alone: the kernel asks whether who has called
  // this may signal it (fcntl(2), F_SETOWN). Until it is ready, its deadline
  // ends such a server.
  virtual absl::Status TieProcess(const Transport& end,
                                  const Listener* listener) = 0;
  virtual absl::Status UntieProcess(const Transport& end) = 0;

  // Ends this process with SIGKILL when `left` has passed, whatever its threads
  // are doing then; InfiniteDuration() takes that back. It holds for this
  // process alone, not for its children.
  virtual absl::Status SetProcessDeadline(absl::Duration left) = 0;

  // Confines this process for ever: see confinement.h. Where no process is its
  // servers' own, as in a test's, it does nothing.
  virtual absl::Status Confine(const Confinement& confinement) = 0;

  virtual pid_t ProcessId() = 0;

  // Never 0, and not the same in this process and in any that it is a fork of,
  // however that was made: whether an object is another process's. ProcessId
  // may be, since each pid namespace has an init of number 1
  // (pid_namespaces(7)).
  virtual int ForkGeneration() = 0;

  virtual uid_t UserId() = 0;

  // Whether `user` is one user, and not what this process's user namespace
  // calls all those that it does not know (overflowuid, user_namespaces(7)). It
  // may be one of them itself.
  virtual bool KnowsUser(uid_t user) = 0;

  // How many descriptors this process may have open, as of now (ulimit -n).
  virtual size_t MaxDescriptors() = 0;

  // --- from process to process ---

  // A descriptor for a connection's end, or a process, of this environment's:
  // to be attached to a message. Whoever gets it has that end open, too.
  virtual absl::StatusOr<FileDescriptor> Share(const Pollable& shared) = 0;

  // The other side of Share. `user` is whom the sender is known to act for:
  // what belongs to another user is refused with kInvalidArguments, unless
  // `user` is root, or the sender could have it killed, or removed, by this
  // process.
  virtual absl::StatusOr<std::unique_ptr<Transport>> AdoptTransport(
      FileDescriptor shared) = 0;
  virtual absl::StatusOr<std::unique_ptr<Process>> AdoptProcess(
      FileDescriptor shared, uid_t user) = 0;
  virtual absl::StatusOr<std::unique_ptr<Listener>> AdoptListener(
      ListenerParts parts, uid_t user) = 0;

  // A number that no other connection's end on this machine has while this one
  // is open anywhere.
  virtual absl::StatusOr<uint64_t> SocketId(const Transport& transport) = 0;

  // The processes that have the connection's end with this number open, by pid.
  // Of other users' processes only root learns (proc(5), /proc/pid/fd); not
  // seen, either, is an end that is on its way in a message.
  virtual absl::StatusOr<std::vector<ProcessInfo>> Holders(
      uint64_t socket_id) = 0;

  // --- signals ---

  // Takes over all signals of this process, and unblocks them all on the
  // calling thread: they may arrive on any thread that does not block them.
  // Children that are forked meanwhile (fork(2)) have them all at their
  // default, and so have programs, however they are started: what is ignored
  // here is not so by SIG_IGN, which they would inherit (execve(2)).
  //
  // Errors: kSignalsTaken; kInvalidSignal for SIGKILL, SIGSTOP, a number that
  // is no signal, and SIGSEGV, SIGBUS, SIGFPE and SIGILL: who has raised one
  // cannot go on, and its handler would be called for ever.
  virtual absl::StatusOr<std::unique_ptr<Signals>> TakeSignals(
      const SignalPlan& plan) = 0;

  // --- the last resort ---

  // Writes a line for the operator, where there is no caller left to return an
  // error to: to standard error, if 2 is that. It is not if it was closed when
  // the program started; nor if what it was then has been replaced by a socket,
  // or by something close-on-exec, which somebody has opened and not put there.
  // The line is lost then: better than in a client's stream, or a file. So it
  // is where nobody reads what is full (a pipe); and cut off behind PIPE_BUF
  // bytes, of which a pipe has room for all or none. A terminal that nobody
  // reads may have room for a part, and then this waits for it.
  // With SetLogFunction (log.h) it goes there instead.
  virtual void Log(absl::LogSeverity severity, std::string_view line) = 0;
};

}  // namespace ward

#endif  // WARD_SERVER_ENVIRONMENT_H_

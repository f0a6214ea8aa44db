// All that ward takes from the operating system: time, threads, sockets,
// processes and signals.
//
// Environment::Posix() is the real one. A server gets its environment when it
// is made, and neither it nor ward calls around it: so a test can put a
// simulated one in its place without the server noticing.
//
// Linux 5.9 or later: close_range(2), pidfd_open(2), and /proc.

#ifndef WARD_SERVER_ENVIRONMENT_H_
#define WARD_SERVER_ENVIRONMENT_H_

#include <sys/types.h>

#include <cstddef>
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
#include "absl/types/span.h"
#include "ward/channel/transport.h"
#include "ward/server/signals.h"

namespace ward {

// A running thread. The destructor joins it.
class Thread {
 public:
  virtual ~Thread() = default;
};

struct ListenOptions {
  // Where the socket appears. A relative path counts from the working
  // directory at this moment. Empty: "socket" in a new directory that only
  // this user may enter (mkdtemp(3), mode 0700), under XDG_RUNTIME_DIR, TMPDIR
  // or /tmp, whichever is the first that can be used.
  std::string path;

  // Who may connect (unix(7): write permission). The name never appears with
  // more than this.
  mode_t mode = 0600;
};

// A listening socket with a name in the file system. The destructor closes it
// and leaves the name. Accept and ShutDown may be called from any thread.
class Listener : public Pollable {
 public:
  struct Accepted {
    std::unique_ptr<Transport> transport;

    // The process's descriptor table is full, and this connection uses the
    // slot that was kept for that case: tell the client, and close it.
    bool on_reserve = false;
  };

  // Waits for a client. kServerStopping after ShutDown; kDescriptorTableFull
  // when not even the reserve is left: wait until something was closed.
  virtual absl::StatusOr<Accepted> Accept() = 0;

  // Refuses clients from now on, those in the queue too, and ends every Accept
  // under way. For all processes that share the socket.
  virtual void ShutDown() = 0;

  // Closes the socket in this process; path() and RemovePath() go on working.
  virtual void Close() = 0;

  // Absolute.
  virtual const std::string& path() const = 0;

  // Removes the socket's name, and the directory that was made for it. A name
  // that is not this socket's any more, since another server has replaced it,
  // is left alone. Calling it again does nothing.
  virtual void RemovePath() = 0;

  // Everything that must stay open in a forked child that is to accept.
  virtual std::vector<int> descriptors() const = 0;
};

// How a process ended.
struct ProcessExit {
  enum class Kind { kExited, kSignaled, kUnknown };
  Kind kind = Kind::kUnknown;
  int value = 0;  // The exit code, or the signal's number.

  bool clean() const { return kind == Kind::kExited && value == 0; }

  // "exited with code 3", "was killed by signal 9 (Killed)", "ended; its exit
  // code is not known, ...".
  std::string ToString() const;
};

// A process that Fork made; readable when it has ended. Thread-safe. The
// destructor does not wait: until Wait has succeeded, a zombie stays.
class Process : public Pollable {
 public:
  virtual pid_t pid() const = 0;

  // Waits for the end, and reaps. kTimedOut when it is still running at
  // `deadline`. Afterwards it returns the same at once. In a process that is
  // not the parent, and where SIGCHLD is ignored, the kind is kUnknown.
  virtual absl::StatusOr<ProcessExit> Wait(absl::Time deadline) = 0;

  // Never hits another process that has got the same number meanwhile
  // (pidfd_send_signal(2)). A process that has ended is no error.
  virtual absl::Status Kill(int signal) = 0;
};

struct ForkOptions {
  // Stay open in the child, beside 0, 1 and 2; all others are closed.
  std::vector<int> keep_open;

  // Fork although this process has other threads. In the child only the
  // calling thread goes on; a lock that another one held stays locked for
  // ever, the allocator's among them where the C library does not care for it
  // (fork(2)).
  bool allow_threads = false;
};

// Thread-safe.
class Environment {
 public:
  virtual ~Environment() = default;

  // The operating system. Never destroyed.
  static Environment& Posix();

  // --- time ---

  // The clock of all deadlines: monotonic, not the time of day.
  virtual absl::Time TimeNow() = 0;

  // --- threads ---

  // Runs `body` on a new thread that has all signals blocked.
  virtual absl::StatusOr<std::unique_ptr<Thread>> StartThread(
      absl::AnyInvocable<void()> body) = 0;

  // --- sockets ---

  // Binds and listens; see ListenOptions. The name appears when the socket
  // already listens. A socket there to which nobody listens any more is
  // replaced; kPathTaken for anything else. kPathTooLong when the file name
  // itself (not the path) is too long: over about 80 bytes.
  virtual absl::StatusOr<std::unique_ptr<Listener>> Listen(
      const ListenOptions& options) = 0;

  // Connects to the socket at `path`. kServerUnreachable when nobody listens
  // there; kTimedOut when its queue is full until `deadline`.
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

  // --- processes ---

  // Runs `child` in a new process, which ends with the code that it returns
  // (without atexit handlers; stdio is flushed on both sides). The child starts
  // with all signals blocked, only the named descriptors open, and rand,
  // random and drand48 freshly seeded.
  //
  // kForkWithThreads if this process has other threads.
  virtual absl::StatusOr<std::unique_ptr<Process>> Fork(
      const ForkOptions& options, absl::FunctionRef<int()> child) = 0;

  // Ends this process at once, as _exit(2) does.
  [[noreturn]] virtual void Exit(int code) = 0;

  virtual pid_t ProcessId() = 0;
  virtual uid_t UserId() = 0;

  // --- signals ---

  // See signals.h.
  virtual absl::StatusOr<std::unique_ptr<Signals>> TakeSignals(
      const SignalPlan& plan) = 0;

  // --- the last resort ---

  // Writes a line for the operator, where there is no caller left to return an
  // error to.
  virtual void Log(std::string_view line) = 0;
};

}  // namespace ward

#endif  // WARD_SERVER_ENVIRONMENT_H_

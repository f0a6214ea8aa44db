// A child process.

#ifndef WARD_SERVER_PROCESS_H_
#define WARD_SERVER_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/transport.h"

namespace ward {

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

// A process that Fork, Exec or AdoptProcess made; readable when it has ended.
// Thread-safe. The destructor does not wait: until Wait has succeeded, a zombie
// stays.
class Process : public Pollable {
 public:
  virtual pid_t pid() const = 0;

  // Waits for the end, and reaps, unless the process was adopted. kTimedOut
  // when it is still running at `deadline`. Afterwards it returns the same at
  // once. In a process that is not the parent, and where SIGCHLD is ignored,
  // the kind is kUnknown.
  virtual absl::StatusOr<ProcessExit> Wait(absl::Time deadline) = 0;

  // Whether it has begun to end, however far it has come: its descriptors are
  // closed one by one, in no order, and it can be waited for after the last.
  virtual bool Ending() const = 0;

  // Never hits another process that has got the same number meanwhile
  // (pidfd_send_signal(2)). A process that has ended is no error.
  virtual absl::Status Kill(int signal) = 0;
};

// What others can see of a process.
struct ProcessInfo {
  pid_t pid = 0;
  // Its name and arguments, with spaces between, at most 256 bytes.
  std::string command;
};

// Which process group a new process is in (setpgid(2)): what is typed at a
// terminal (Ctrl-C, Ctrl-\\, Ctrl-Z) and kill(2) with a negative pid reach all
// processes of one.
enum class ProcessGroup {
  // That of the process that makes it.
  kParents,
  // A new one, in which it is alone.
  kOwn,
};

// What of its parent a forked process has.
struct ForkOptions {
  // Stay open in the child, beside 0, 1 and 2; all others are closed. Their
  // numbers, up to half as many as the child may have (RLIMIT_NOFILE), are not
  // free, though: they lead to nothing (/dev/null). A library may have kept one
  // of which nobody else knows, as syslog(3) does. In the child it goes on to
  // write there, or closes it, and must not hit what has come there since: a
  // client's connection, or ward's own event.
  std::vector<int> keep_open;

  // All stay open, as after fork(2): the child owns the servers that this
  // process owns.
  bool keep_all_open = false;

  // Are closed in the child whatever else is said here: what it must see the
  // end of.
  std::vector<int> close = {};

  // Fork although this process has other threads. In the child only the
  // calling thread goes on; a lock that another one held stays locked for
  // ever, the allocator's among them where the C library does not care for it
  // (fork(2)).
  bool allow_threads = false;

  // A connection's end that stays open, or -1: the child is tied to it before
  // all else; see Environment::TieProcess. ServerProcess::Fork sets it.
  int tie = -1;

  // For a server, LaunchOptions::process_group is what counts.
  ProcessGroup process_group = ProcessGroup::kParents;
};

// What a process has that was started by exec.
struct ExecLinks {
  // It is told there what it is to do.
  std::unique_ptr<Transport> hand_over;
  // Its end of its owner's socket pair, to which it is tied; see
  // Environment::TieProcess.
  std::unique_ptr<Transport> owner;
};

// Why a process with `others` threads beside the calling one is not forked.
absl::Status ForkWithThreadsError(int others);

}  // namespace ward

#endif  // WARD_SERVER_PROCESS_H_

// A process that stands by to become servers: how a program of any size, with
// any number of threads, starts one in less than a millisecond.
//
//   int main(int argc, char** argv) {
//     ward::ServeIfExeced(argc, argv);
//     absl::StatusOr<std::shared_ptr<ward::Zygote>> zygote =
//         ward::Environment::Default().StartZygote();
//     ...
//     ward::ServerOptions options;
//     options.start_mode = ward::StartMode::kZygote;
//     options.zygote = *zygote;
//     HelloServer server(std::move(options));
//     absl::Status status = server.Start();
//
// It is the program itself, started anew, which has come to ServeIfExeced and
// waits there: small, with one thread, and nothing of its owner's. Asked for a
// server, it makes a copy of itself, which makes the server's object as one
// that was started by exec does, and is told the same. What exec spends on each
// server, the loader's work and static initialisation, was done once.
//
// The server is the owner's own child, not the zygote's: who waits for it, how
// it ended, and that it ends with its owners, is as with every other start.
//
// Misuse:
// - Starting it before the program has given up rights, or entered a sandbox:
//   its servers have what the program, or the thread of it that started the
//   zygote, had then, in rights (capabilities(7)), resource limits, nice value,
//   scheduling policy, CPU affinity (sched(7)), cgroup, working directory,
//   root, namespaces, system calls that are denied, and environment variables.
//   A change of the user, the groups or the session alone is seen: another
//   zygote takes its place then. 0, 1, 2 and the umask are those of the
//   server's start.
// - A zygote in another pid namespace than the program's (unshare(2),
//   CLONE_NEWPID), where processes have other numbers: it makes no servers.
// - Relying on pthread_atfork(3): what a library has told it before
//   ServeIfExeced does not run for these servers. fork(2) cannot make a
//   sibling, and clone(2) calls none of that.
// - Secrets, or seeds, that static initialisation makes: servers of one zygote
//   have the same, and the same layout of memory. With StartMode::kExec each
//   has its own.
// - Threads of static initialisation: kForkWithThreads, as at any fork.
// - Waiting for all children (wait(2)) while it is there: it is one of them.
// - Letting go of the object in the hope that this ends its process: it is
//   there until the last ServerOptions that has it is gone, too, also those in
//   a server's object.

#ifndef WARD_SERVER_ZYGOTE_H_
#define WARD_SERVER_ZYGOTE_H_

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/server/process.h"

namespace ward {

// Environment::StartZygote makes it. Thread-safe. Its process ends, by SIGKILL,
// with this object, which is when the last server's object or ServerOptions
// that has it is gone; and with the program, however that ends, as soon as no
// fork of the program has it any more. A fork that asks it for a process gets a
// zygote of its own.
class Zygote {
 public:
  virtual ~Zygote() = default;

  // Its process, this process's child; 0 where a server's process is no copy of
  // one: in a simulation, on an s390, and in a program with ThreadSanitizer,
  // which has a thread. Another one after the first has died, when it is asked
  // next.
  virtual pid_t pid() const = 0;

  // As Environment::Exec, from any thread, but it waits for the zygote: for the
  // first process until it has come to ServeIfExeced, and until `deadline`
  // (Environment::TimeNow) at most.
  //
  // kTimedOut: one that has answered before was stopped (SIGSTOP), and is
  // ended; another may be on its way still, and stays. kServerDied if the
  // zygote died, and the one that was started in its place, too.
  // FailedPrecondition where it cannot make siblings that this process knows by
  // their numbers: it is in another pid namespace, or a sandbox denies what it
  // takes.
  virtual absl::StatusOr<std::unique_ptr<Process>> Fork(
      const std::string& entry, ExecLinks links, ProcessGroup group,
      absl::Time deadline) = 0;
};

}  // namespace ward

#endif  // WARD_SERVER_ZYGOTE_H_

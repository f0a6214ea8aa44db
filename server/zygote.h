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
//     WARD_RETURN_IF_ERROR(server.Start());
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
//   its servers have what the program had when the zygote was started, in
//   rights, limits, working directory, root, namespaces, system calls that are
//   denied, and environment variables. Of these a change of the user, group or
//   session alone is seen: another zygote takes its place then.
// - Relying on pthread_atfork(3): what a library has told it before
//   ServeIfExeced does not run for these servers. fork(2) cannot make a
//   sibling, and clone(2) calls none of that.
// - Secrets, or seeds, that static initialisation makes: servers of one zygote
//   have the same, and the same layout of memory. With StartMode::kExec each
//   has its own.
// - Threads of static initialisation: kForkWithThreads, as at any fork.
// - Waiting for all children (wait(2)) while it is there: it is one of them.

#ifndef WARD_SERVER_ZYGOTE_H_
#define WARD_SERVER_ZYGOTE_H_

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "ward/server/process.h"

namespace ward {

// Environment::StartZygote makes it. Thread-safe. Its process ends, by SIGKILL,
// with this object, and with the program, however that ends, as soon as no fork
// of the program has it any more. A fork that asks it for a process gets a
// zygote of its own.
class Zygote {
 public:
  virtual ~Zygote() = default;

  // Its process, this process's child; 0 where a server's process is no copy of
  // one: in a simulation, and in a program with ThreadSanitizer, which has a
  // thread. Another one after the first has died, when it is asked next.
  virtual pid_t pid() const = 0;

  // As Environment::Exec, from any thread. kServerDied if the zygote died, and
  // the one that was started in its place, too; kTimedOut if it was stopped
  // (SIGSTOP) for a minute, after which it is ended; FailedPrecondition where
  // it cannot make siblings: it is the init of a pid namespace, or a sandbox
  // denies what it takes.
  virtual absl::StatusOr<std::unique_ptr<Process>> Fork(
      const std::string& entry, ExecLinks links, ProcessGroup group) = 0;
};

}  // namespace ward

#endif  // WARD_SERVER_ZYGOTE_H_

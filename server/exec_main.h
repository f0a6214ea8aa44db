// For programs whose servers are started by exec.
//
//   int main(int argc, char** argv) {
//     ward::ServeIfExeced(argc, argv);
//     ...
//   }
//
// A server that is started by StartMode::kExec is this same program in a new
// process, which begins at main() as any other. This call is where it turns
// into a server; in all other processes it does nothing.
//
// Misuse:
// - In a program with file capabilities (capabilities(7)): its servers cannot
//   be started by exec. Whoever started it could have it serve what he likes.
//   One with the set-user-ID or set-group-ID bit serves that user and group
//   alone.
// - Anything before it that starts threads, opens files or reads the arguments:
//   the server's process does it, too. And until then its owner's files are
//   open in it (sockets and pipes are not, nor anything of an owner that is not
//   dumpable, PR_SET_DUMPABLE of prctl(2)), not close-on-exec, and their locks
//   held: a file system that does not answer when one is closed then holds up
//   the server, which its owner gives up, and not its owner.

#ifndef WARD_SERVER_EXEC_MAIN_H_
#define WARD_SERVER_EXEC_MAIN_H_

namespace ward {

// Returns, unless ward has started this process as a server: then it serves,
// and ends the process. From now on this program's servers can be started by
// exec; without this call, Start fails with FailedPrecondition and says so.
void ServeIfExeced(int argc, char** argv);

}  // namespace ward

#endif  // WARD_SERVER_EXEC_MAIN_H_

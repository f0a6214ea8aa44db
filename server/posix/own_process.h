// What this process is, told from those that it is a fork of.

#ifndef WARD_SERVER_POSIX_OWN_PROCESS_H_
#define WARD_SERVER_POSIX_OWN_PROCESS_H_

#include <sys/types.h>

namespace ward {

// getpid(2), asked once in a process: each call of a server's asks.
pid_t OwnProcessId();

// Not the same in a process and in any that it is a fork of. Their numbers may
// be: each pid namespace has an init of number 1 (pid_namespaces(7)).
int ForkGeneration();

}  // namespace ward

#endif  // WARD_SERVER_POSIX_OWN_PROCESS_H_

// This process, told from those that it is a fork of.

#ifndef WARD_SERVER_POSIX_OWN_PROCESS_H_
#define WARD_SERVER_POSIX_OWN_PROCESS_H_

namespace ward {

// See Environment::ForkGeneration. Once it was asked for in a process, a
// handler of signals may ask there, too.
int ForkGeneration();

}  // namespace ward

#endif  // WARD_SERVER_POSIX_OWN_PROCESS_H_

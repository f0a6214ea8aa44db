// Forking, and waiting for what was forked.

#ifndef WARD_SERVER_POSIX_PROCESS_H_
#define WARD_SERVER_POSIX_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/process.h"

namespace ward {

// The contract is Environment::Fork's.
absl::StatusOr<std::unique_ptr<Process>> PosixFork(
    const ForkOptions& options, absl::AnyInvocable<int()> child);
absl::StatusOr<std::unique_ptr<Process>> PosixExec(const std::string& entry,
                                                   const ExecLinks& links,
                                                   ProcessGroup group);
absl::StatusOr<std::unique_ptr<Process>> PosixAdoptProcess(FileDescriptor pidfd,
                                                           uid_t user);

// Why a process or thread cannot be started.
absl::Status StartError(int error, std::string_view attempt);

// Why a file in /proc cannot be had: it may not be mounted.
absl::Status ProcError(int error, std::string_view attempt);

// Lets PosixExec start this program: its main() knows of kExecArgument.
void AllowExec();

// Where the program that was started by PosixExec finds its ExecLinks.
inline constexpr int kExecHandOver = 3;
inline constexpr int kExecOwner = 4;

// What its second argument begins with; the entry's name follows.
inline constexpr std::string_view kExecArgument = "--ward-serve=";

// Writes what C's and C++'s streams have buffered. Otherwise both processes
// would after a fork, and neither at the end of one that runs no destructors.
void FlushStreams();

// Seeds rand, random and drand48 with fresh numbers, for this process.
void ReseedRandom();

}  // namespace ward

#endif  // WARD_SERVER_POSIX_PROCESS_H_

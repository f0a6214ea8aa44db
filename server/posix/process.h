// Forking, and waiting for what was forked.

#ifndef WARD_SERVER_POSIX_PROCESS_H_
#define WARD_SERVER_POSIX_PROCESS_H_

#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

// Of a child by exec, or by a zygote, which nothing holds back: its program may
// have ended before its main(), somebody who waits for all children may have
// reaped it, and what has its number now must not be taken for it.
absl::StatusOr<std::unique_ptr<Process>> WatchProgram(pid_t pid);

// How many threads this process has beside the calling one, without those of
// a sanitizer; with those that the kernel runs for it, as for io_uring, if
// `kernels`.
absl::StatusOr<int> OtherThreads(bool kernels = false);

inline constexpr std::array<int, 3> kStandardDescriptors = {
    STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};

// Whether it is there for new programs, too. What is close-on-exec somebody has
// opened for this one alone, and got the number because it was free.
bool IsInherited(int fd);

// Reads as empty, and makes nothing of what is written.
absl::StatusOr<FileDescriptor> OpenNothing();

// Why a process or thread cannot be started.
absl::Status StartError(int error, std::string_view attempt);

// Why a file in /proc cannot be had: it may not be mounted.
absl::Status ProcError(int error, std::string_view attempt);

// Lets PosixExec start this program: its main() knows of kExecArgument.
void AllowExec();

// What the second argument begins with of a program that was started by
// PosixExec.
inline constexpr std::string_view kExecArgument = "--ward-serve=";

// All of it: the entry's name, and the numbers that its ExecLinks have. They
// are those that they had in its owner: to give them others would close what
// has these, and wait for a file system that may not answer. Those of its
// owner's files follow, each behind a comma: the program closes them.
std::string ExecArgument(std::string_view entry, int hand_over, int owner);

// What was found in it. The numbers are -1 where it does not name two, or any
// of all is under 3, or one of the two is there twice.
struct ExecRequest {
  std::string_view entry;
  int hand_over = -1;
  int owner = -1;
  std::vector<int> close;
};
std::optional<ExecRequest> ParseExecArgument(std::string_view argument);

// Seeds rand, random and drand48 with fresh numbers, for this process.
void ReseedRandom();

}  // namespace ward

#endif  // WARD_SERVER_POSIX_PROCESS_H_

#include "ward/server/posix/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/posix_wait.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/posix/signal_mask.h"
#include "ward/server/posix/tie.h"
#include "ward/server/process.h"

#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define WARD_THREAD_SANITIZER
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define WARD_THREAD_SANITIZER
#endif

namespace ward {
namespace {

// ThreadSanitizer has a thread of its own, which knows how to survive a fork.
#ifdef WARD_THREAD_SANITIZER
constexpr int kMaxRuntimeThreads = 1;
#else
constexpr int kMaxRuntimeThreads = 0;
#endif

// Whether the process or thread of this file has begun to end; it runs no code
// of its own any more. Field 9 is the kernel's flags (proc(5)), set before its
// first descriptor is closed. Field 2, the name, may hold anything but ends
// with the last parenthesis.
bool IsExiting(const std::string& stat_file) {
  constexpr unsigned kExiting = 0x4;  // PF_EXITING
  const FileDescriptor file(open(stat_file.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 1024> stat;
  const ssize_t got = read(file.get(), stat.data(), stat.size() - 1);
  if (got <= 0) return false;
  stat[static_cast<size_t>(got)] = '\0';
  const char* const name_end = strrchr(stat.data(), ')');
  unsigned flags = 0;
  return name_end != nullptr &&
         sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 &&
         (flags & kExiting) != 0;
}

// How many threads this process has beside the calling one, without those of
// a sanitizer.
absl::StatusOr<int> OtherThreads() {
  constexpr std::string_view kTasks = "/proc/self/task";
  constexpr int kExpected = 1 + kMaxRuntimeThreads;
  // A directory's link count is 2 and one for each directory in it, and this
  // one has a directory for each thread (proc(5)): one call instead of a scan.
  struct stat found;
  if (stat(kTasks.data(), &found) != 0) {
    return SystemError(errno, "count the threads in /proc/self/task");
  }
  int threads = static_cast<int>(found.st_nlink) - 2;
  if (threads <= kExpected) return 0;
  // pthread_join(3) returns a moment before the kernel forgets a thread: those
  // at their end, or gone meanwhile, do not count.
  DIR* const tasks = opendir(kTasks.data());
  if (tasks == nullptr) {
    return SystemError(errno, "list the threads in /proc/self/task");
  }
  threads = 0;
  // Safe in glibc, as each DIR has one user (readdir(3)).
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  while (const dirent* const task = readdir(tasks)) {
    if (task->d_name[0] == '.') continue;
    const std::string folder = absl::StrCat(kTasks, "/", task->d_name);
    if (!IsExiting(folder + "/stat") && access(folder.c_str(), F_OK) == 0) {
      ++threads;
    }
  }
  closedir(tasks);
  return std::max(0, threads - kExpected);
}

// Closes all descriptors from 3 on but `keep` (sorted). In the child of a fork:
// no allocation, no lock.
void CloseAllBut(absl::Span<const int> keep) {
  int next = 3;
  for (const int kept : keep) {
    if (kept < next) continue;  // -1, too: what was closed already.
    if (kept > next) syscall(SYS_close_range, next, kept - 1, 0U);
    next = kept + 1;
  }
  syscall(SYS_close_range, next, UINT_MAX, 0U);
}

class PosixProcess final : public Process {
 public:
  // One that was adopted is left for somebody else to reap.
  PosixProcess(pid_t pid, FileDescriptor pidfd, bool adopted = false)
      : pid_(pid), pidfd_(std::move(pidfd)), adopted_(adopted) {}

  int descriptor() const override { return pidfd_.get(); }
  pid_t pid() const override { return pid_; }

  absl::StatusOr<ProcessExit> Wait(absl::Time deadline) override {
    {
      absl::MutexLock lock(&mutex_);
      if (exit_.has_value()) return *exit_;
    }
    pollfd polled{pidfd_.get(), POLLIN, 0};
    WARD_ASSIGN_OR_RETURN(const int ready,
                          PollUntil(absl::MakeSpan(&polled, 1), deadline));
    if (ready == 0) {
      return MakeError(reason::kTimedOut,
                       absl::StrCat("process ", pid_, " is still running"));
    }
    absl::MutexLock lock(&mutex_);
    if (!exit_.has_value()) exit_ = Reap();
    return *exit_;
  }

  bool Ending() const override {
    {
      absl::MutexLock lock(&mutex_);
      if (exit_.has_value()) return true;
    }
    return IsExiting(absl::StrCat("/proc/", pid_, "/stat"));
  }

  absl::Status Kill(int signal) override {
    if (syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0U) ==
            0 ||
        errno == ESRCH) {
      return absl::OkStatus();
    }
    return SystemError(errno,
                       absl::StrCat("send signal ", signal, " to ", pid_));
  }

 private:
  ProcessExit Reap() const {
    siginfo_t info{};
    int result;
    do {
      result = waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info,
                      WEXITED | (adopted_ ? WNOWAIT : 0));
    } while (result != 0 && errno == EINTR);
    // ECHILD: another process's child, or SIGCHLD is ignored (waitpid(2)).
    if (result != 0) return {};
    return {info.si_code == CLD_EXITED ? ProcessExit::Kind::kExited
                                       : ProcessExit::Kind::kSignaled,
            info.si_status};
  }

  const pid_t pid_;
  const FileDescriptor pidfd_;
  const bool adopted_;
  mutable absl::Mutex mutex_;
  std::optional<ProcessExit> exit_ ABSL_GUARDED_BY(mutex_);
};

std::atomic<bool> exec_allowed{false};

struct Program {
  const char* path;
  char* const* arguments;
  int hand_over;
  int owner;
  ProcessGroup group;
};

// In a child that has no program of its own yet: system calls alone. Returns
// what errno is.
int Become(const Program& program) {
  if (program.group == ProcessGroup::kOwn) setpgid(0, 0);
  if (const int error = TieByKill(program.owner)) return error;
  // An exec keeps what is ignored.
  for (int signal = 1; signal <= SIGRTMAX; ++signal) {
    struct sigaction action;
    if (sigaction(signal, nullptr, &action) != 0) continue;
    if ((action.sa_flags & SA_SIGINFO) == 0 && action.sa_handler == SIG_DFL) {
      continue;
    }
    action = {};
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);
  }
  if (dup2(program.hand_over, kExecHandOver) < 0 ||
      dup2(program.owner, kExecOwner) < 0) {
    return errno;
  }
  // What is not close-on-exec is not for the server either.
  closefrom(kExecOwner + 1);
  execve(program.path, program.arguments, environ);
  return errno;
}

// The child has this process's memory, and its thread waits, until it has
// become the program (vfork(2)): no page is copied, and none of the locks that
// other threads hold is taken. So does posix_spawn(3), but it cannot tie.
// `error` is what went wrong.
pid_t Start(const Program& program, volatile int& error) {
  const pid_t pid = vfork();  // NOLINT(clang-analyzer-*)
  if (pid == 0) {
    error = Become(program);  // NOLINT(clang-analyzer-*)
    _exit(127);
  }
  return pid;
}

// Of a child that was just made. It cannot be another one's pid: nobody has
// waited for the child yet.
absl::StatusOr<std::unique_ptr<Process>> WatchChild(pid_t pid) {
  FileDescriptor pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.is_open()) {
    const absl::Status status = SystemError(
        errno, absl::StrCat("watch process ", pid, " (pidfd_open)"));
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return status;
  }
  return std::make_unique<PosixProcess>(pid, std::move(pidfd));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Process>> PosixFork(
    const ForkOptions& options, absl::AnyInvocable<int()> child) {
  WARD_ASSIGN_OR_RETURN(const int others, OtherThreads());
  if (others > 0 && !options.allow_threads) {
    return ForkWithThreadsError(others);
  }
  std::vector<int> keep = options.keep_open;
  std::sort(keep.begin(), keep.end());
  // What is buffered now would otherwise be written by both processes.
  std::fflush(nullptr);

  // No handler of this process's may run in the child.
  const sigset_t blocked = AllSignalsButFaults();
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, &blocked, &mask);
  const pid_t pid = fork();
  if (pid == 0) {
    if (options.process_group == ProcessGroup::kOwn) setpgid(0, 0);
    if (!options.keep_all_open) CloseAllBut(keep);
    ReseedRandom();
    // An exception must not unwind into the copy of the parent's stack.
    const auto run = [&child]() noexcept { return child(); };
    const int code = run();
    std::fflush(nullptr);
    _exit(code);
  }
  const int fork_error = errno;
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  if (pid < 0) return SystemError(fork_error, "fork the server's process");

  return WatchChild(pid);
}

void AllowExec() { exec_allowed = true; }

absl::StatusOr<std::unique_ptr<Process>> PosixExec(const std::string& entry,
                                                   const ExecLinks& links,
                                                   ProcessGroup group) {
  if (!exec_allowed) {
    return absl::FailedPreconditionError(
        "start by exec: this program's main() does not begin with "
        "ward::ServeIfExeced(argc, argv) (ward/server/exec_main.h), so that a "
        "new process of it would not become a server");
  }
  std::string name = program_invocation_name;
  std::string argument = absl::StrCat(kExecArgument, entry);
  const std::array<char*, 3> arguments = {name.data(), argument.data(),
                                          nullptr};
  // Where neither takes the other's place in the child.
  const auto duplicate = [](const Transport& link) {
    return FileDescriptor(
        fcntl(link.descriptor(), F_DUPFD_CLOEXEC, kExecOwner + 1));
  };
  const FileDescriptor hand_over = duplicate(*links.hand_over);
  const FileDescriptor owner = duplicate(*links.owner);
  if (!hand_over.is_open() || !owner.is_open()) {
    return SystemError(errno, "start the server's program: duplicate a socket");
  }
  // The program that runs, whatever stands at its path by now (proc(5)).
  const Program program = {"/proc/self/exe", arguments.data(), hand_over.get(),
                           owner.get(), group};
  // No handler of this process's may run in the child.
  const sigset_t blocked = AllSignalsButFaults();
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, &blocked, &mask);
  volatile int error = 0;
  const pid_t pid = Start(program, error);
  if (pid < 0) error = errno;
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  if (error == 0) return WatchChild(pid);
  if (pid > 0) waitpid(pid, nullptr, 0);
  return SystemError(error, "start the server's program (/proc/self/exe)");
}

absl::StatusOr<std::unique_ptr<Process>> PosixAdoptProcess(FileDescriptor pidfd,
                                                           uid_t user) {
  // Whoever sent it must not have another user's process killed by this one.
  const auto refused = [&](std::string_view why) {
    return MakeError(reason::kInvalidArguments,
                     absl::StrCat("the descriptor that came is that of no "
                                  "process of user ",
                                  user, ": ", why));
  };
  std::ifstream info(absl::StrCat("/proc/self/fdinfo/", pidfd.get()));
  pid_t pid = 0;
  for (std::string line; std::getline(info, line);) {
    // "Pid:" with a tab and the number; -1 when the process is gone.
    std::string_view rest = line;
    if (absl::ConsumePrefix(&rest, "Pid:") && !absl::SimpleAtoi(rest, &pid)) {
      pid = 0;
    }
  }
  if (pid == 0) return refused("it is no process's (fdinfo has no Pid)");
  struct stat found;
  // Of one that is gone there is nothing to protect: it cannot be killed.
  const bool there =
      pid > 0 && stat(absl::StrCat("/proc/", pid).c_str(), &found) == 0;
  if (there && user != 0 && found.st_uid != user) {
    return refused(absl::StrCat("it is of user ", found.st_uid));
  }
  return std::make_unique<PosixProcess>(pid, std::move(pidfd),
                                        /*adopted=*/true);
}

// Each child draws numbers of its own (the original called srand).
void ReseedRandom() {
  std::array<unsigned short, 6> seed{};
  [[maybe_unused]] const ssize_t got =
      getrandom(seed.data(), sizeof(seed), GRND_NONBLOCK);
  unsigned int whole;
  std::memcpy(&whole, seed.data(), sizeof(whole));
  // The child has one thread yet. NOLINTBEGIN(concurrency-mt-unsafe)
  srand(whole);
  srandom(whole);
  seed48(&seed[3]);
  // NOLINTEND(concurrency-mt-unsafe)
}

}  // namespace ward

#include "ward/server/posix/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/posix_wait.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/posix/allocator.h"
#include "ward/server/posix/open_descriptors.h"
#include "ward/server/posix/own_process.h"
#include "ward/server/posix/signal_mask.h"
#include "ward/server/posix/streams.h"
#include "ward/server/posix/tie.h"
#include "ward/server/process.h"

namespace ward {
namespace {

// ThreadSanitizer has a thread of its own, which knows how to survive a fork.
#ifdef ABSL_HAVE_THREAD_SANITIZER
constexpr int kMaxRuntimeThreads = 1;
#else
constexpr int kMaxRuntimeThreads = 0;
#endif

// Flags of processes and threads (the kernel's linux/sched.h). The first is set
// before its first descriptor is closed. The others are of threads that the
// kernel runs, of io_uring's and, since Linux 6.4, of all such: none of them
// holds a lock of the program's.
constexpr unsigned kExiting = 0x4;        // PF_EXITING
constexpr unsigned kKernelsOwn = 0x4010;  // PF_IO_WORKER, PF_USER_WORKER

// What `stat_file` says of a process or thread: fields 3 and 9 (proc(5)). Field
// 2, the name, may hold anything but ends with the last parenthesis.
struct Stat {
  char state = '?';
  unsigned flags = 0;
};
Stat ReadStat(const std::string& stat_file) {
  const FileDescriptor file =
      FileDescriptor::Opened(open(stat_file.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 1024> text;
  const ssize_t got = read(file.get(), text.data(), text.size() - 1);
  Stat stat;
  if (got <= 0) return stat;
  text[static_cast<size_t>(got)] = '\0';
  const char* const name_end = strrchr(text.data(), ')');
  if (name_end == nullptr || sscanf(name_end + 1, " %c %*d %*d %*d %*d %*d %u",
                                    &stat.state, &stat.flags) != 2) {
    return {};
  }
  return stat;
}

bool HasFlag(const std::string& stat_file, unsigned wanted) {
  return (ReadStat(stat_file).flags & wanted) != 0;
}

// Why a process does nothing that is asked of it, if the kernel knows.
std::string WhyItHangs(pid_t pid) {
  const std::string folder = absl::StrCat("/proc/", pid, "/task");
  std::error_code error;
  for (std::filesystem::directory_iterator thread(folder, error), end;
       !error && thread != end; thread.increment(error)) {
    const std::string file = thread->path() / "stat";
    const char state = ReadStat(file).state;
    if (state == 'T' || state == 't') {
      return absl::StrCat(": a signal, or a debugger, has stopped it (", file,
                          " says ", std::string(1, state),
                          "); SIGCONT lets it go on");
    }
    if (state == 'D') {
      return absl::StrCat(
          ": it waits in the kernel, for a disk or a file "
          "system, where no signal reaches it (",
          file, " says D)");
    }
  }
  return "";
}

}  // namespace

absl::StatusOr<int> OtherThreads(bool kernels) {
  constexpr std::string_view kTasks = "/proc/self/task";
  constexpr int kExpected = 1 + kMaxRuntimeThreads;
  // A directory's link count is 2 and one for each directory in it, and this
  // one has a directory for each thread (proc(5)): one call instead of a scan.
  struct stat found;
  if (stat(kTasks.data(), &found) != 0) {
    return ProcError(errno, "count the threads in /proc/self/task");
  }
  int threads = static_cast<int>(found.st_nlink) - 2;
  if (threads <= kExpected) return 0;
  // pthread_join(3) returns a moment before the kernel forgets a thread: those
  // at their end, or gone meanwhile, do not count.
  const unsigned not_counted = kExiting | (kernels ? 0 : kKernelsOwn);
  DIR* const tasks = opendir(kTasks.data());
  if (tasks == nullptr) {
    return ProcError(errno, "list the threads in /proc/self/task");
  }
  threads = 0;
  // Safe in glibc, as each DIR has one user (readdir(3)).
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  while (const dirent* const task = readdir(tasks)) {
    if (task->d_name[0] == '.') continue;
    const std::string folder = absl::StrCat(kTasks, "/", task->d_name);
    if (!HasFlag(folder + "/stat", not_counted) &&
        access(folder.c_str(), F_OK) == 0) {
      ++threads;
    }
  }
  closedir(tasks);
  return std::max(0, threads - kExpected);
}

bool IsInherited(int fd) {
  const int flags = fcntl(fd, F_GETFD);
  return flags >= 0 && (flags & FD_CLOEXEC) == 0;
}

absl::StatusOr<FileDescriptor> OpenNothing() {
  FileDescriptor nothing =
      FileDescriptor::Opened(open("/dev/null", O_RDWR | O_CLOEXEC));
  // In a jail without it: a pipe that nobody writes to, and nobody can.
  std::array<int, 2> ends;
  if (!nothing.is_open() && pipe2(ends.data(), O_CLOEXEC) == 0) {
    nothing = FileDescriptor::Opened(ends[0]);
    close(ends[1]);
  }
  if (!nothing.is_open()) {
    return SystemError(errno, "open /dev/null, or a pipe in its place");
  }
  return nothing;
}

namespace {

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

// What ends at once when it is closed, and whose end others wait for. Asks no
// file system.
bool IsSocketOrPipe(int fd) {
  int type;
  socklen_t size = sizeof(type);
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 ||
         fcntl(fd, F_GETPIPE_SZ) >= 0;
}

// What the child of a fork does with its copy of the descriptors, all prepared
// before: the child must neither allocate nor lock.
class Descriptors {
 public:
  static absl::StatusOr<Descriptors> Prepare(const ForkOptions& options) {
    Descriptors descriptors(options);
    WARD_ASSIGN_OR_RETURN(descriptors.nothing_, OpenNothing());
    descriptors.watched_ = FileDescriptor::Opened(eventfd(0, EFD_CLOEXEC));
    if (!descriptors.watched_.is_open()) {
      return SystemError(errno, "fork the server's process (eventfd)");
    }
    return descriptors;
  }

  // In the parent: for the descriptor that it watches the child by.
  void MakeRoomInParent() { nothing_.Reset(); }

  // In the parent.
  void LetChildGoOn() { (void)eventfd_write(watched_.get(), 1); }

  void SortOutInChild() {
    for (const int fd : kStandardDescriptors) {
      if (!IsInherited(fd) && !(IsKept(fd) && IsOpen(fd))) {
        dup2(nothing_.get(), fd);
      }
    }
    // First: among them are those whose end it must see while it waits.
    for (const int fd : options_.close) {
      if (options_.keep_all_open) {
        close(fd);
      } else {
        Leave(fd);
      }
    }
    WaitUntilWatched();
    if (!options_.keep_all_open) LeaveAllButKept();
    nothing_.Reset();
  }

 private:
  explicit Descriptors(const ForkOptions& options)
      : options_(options), keep_(options.keep_open) {
    for (const int fd : options.close) {
      keep_.erase(std::remove(keep_.begin(), keep_.end(), fd), keep_.end());
    }
    std::sort(keep_.begin(), keep_.end());
    getrlimit(RLIMIT_NOFILE, &limit_);
  }

  // A child that ends before its parent has a descriptor of it may be reaped by
  // whoever waits for all children, or by the kernel, where SIGCHLD is ignored:
  // its number is anybody's then. One whose owner is gone is ended by its tie;
  // should that have failed, it goes on and finds out.
  void WaitUntilWatched() {
    std::array<pollfd, 2> polled = {
        {{watched_.get(), POLLIN, 0}, {options_.tie, POLLIN, 0}}};
    while (poll(polled.data(), polled.size(), -1) < 0 && errno == EINTR) {
    }
    watched_.Reset();
  }

  // In the order of their numbers: low ones are those that the kernel gives out
  // first. However full the table is, there is the room of `watched_`.
  void LeaveAllButKept() {
    // First what others may wait for the end of: a file's last system may not
    // answer.
    ForEachOpenDescriptor(INT_MAX, [this](int fd) {
      if (IsLeft(fd) && IsSocketOrPipe(fd)) dup3(nothing_.get(), fd, O_CLOEXEC);
    });
    ForEachOpenDescriptor(INT_MAX, [this](int fd) { Leave(fd); });
  }

  bool IsKept(int fd) const {
    return options_.keep_all_open ||
           std::binary_search(keep_.begin(), keep_.end(), fd);
  }

  bool IsLeft(int fd) const {
    return fd > STDERR_FILENO && fd != nothing_.get() && !IsKept(fd);
  }

  void Leave(int fd) {
    if (!IsLeft(fd)) return;
    if (parked_ < limit_.rlim_cur / 2 &&
        dup3(nothing_.get(), fd, O_CLOEXEC) >= 0) {
      ++parked_;
    } else {
      close(fd);
    }
  }

  const ForkOptions& options_;
  std::vector<int> keep_;
  FileDescriptor nothing_;
  FileDescriptor watched_;  // An event: the child may go on.
  rlimit limit_{};
  rlim_t parked_ = 0;
};

// pidfd_send_signal(2), EINVAL.
constexpr std::string_view kOtherNamespace =
    ", which is in a pid namespace that cannot be seen from here: only an "
    "owner "
    "there can";

class PosixProcess final : public Process {
 public:
  // One that was adopted is left for somebody else to reap.
  PosixProcess(pid_t pid, FileDescriptor pidfd, bool adopted = false)
      : pid_(pid),
        pidfd_(std::move(pidfd)),
        adopted_(adopted),
        parent_(adopted ? 0 : ForkGeneration()) {}

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
                       absl::StrCat("process ", pid_, " has not ended",
                                    pid_ > 0 ? WhyItHangs(pid_) : ""));
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
    // Gone, it is not in /proc, whoever has reaped it; nor is it while it lives
    // in a pid namespace that this process does not see.
    return (pid_ > 0 &&
            HasFlag(absl::StrCat("/proc/", pid_, "/stat"), kExiting)) ||
           HasEnded();
  }

  absl::Status Kill(int signal) override {
    if (syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0U) ==
            0 ||
        errno == ESRCH || KillChild(signal)) {
      return absl::OkStatus();
    }
    return SystemError(
        errno, absl::StrCat("send signal ", signal, " to process ", pid_,
                            " (pidfd_send_signal)",
                            errno == EINVAL ? kOtherNamespace : ""));
  }

 private:
  bool HasEnded() const {
    pollfd polled{pidfd_.get(), POLLIN, 0};
    return poll(&polled, 1, 0) > 0;
  }

  // Where a sandbox denies the other call: nobody else gets the number of this
  // process's own child before it has ended, and was reaped.
  bool KillChild(int signal) {
    const int saved_errno = errno;
    absl::MutexLock lock(&mutex_);
    const bool killed =
        parent_ == ForkGeneration() &&
        (exit_.has_value() || HasEnded() || kill(pid_, signal) == 0);
    errno = saved_errno;
    return killed;
  }

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
  const int parent_;  // Its ForkGeneration; 0 if it was adopted.
  mutable absl::Mutex mutex_;
  std::optional<ProcessExit> exit_ ABSL_GUARDED_BY(mutex_);
};

// Returns in the parent alone.
pid_t ForkAndRun(const ForkOptions& options, Descriptors& descriptors,
                 absl::AnyInvocable<int()>& child) {
  // No handler of this process's may run in the child.
  const ScopedSignalMask mask(AllSignalsButFaults());
  const pid_t pid = ForkWithEverything();
  if (pid != 0) return pid;
  if (options.process_group == ProcessGroup::kOwn) setpgid(0, 0);
  // Before anything that could hang, such as a lock of the C library's.
  if (options.tie >= 0) (void)TieByKill(options.tie);
  descriptors.SortOutInChild();
  ReseedRandom();
  ReturnFreeMemory();
  DropInChild();
  // An exception must not unwind into the copy of the parent's stack.
  const auto run = [&child]() noexcept { return child(); };
  const int code = run();
  FlushStreams();
  _exit(code);
}

void ReapChild(pid_t pid) {
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::atomic<bool> exec_allowed{false};

// Whether this program was started as "ld-linux.so program": the kernel has
// loaded no interpreter (getauxval(3), AT_BASE), though the program names one.
bool RunByLoader() {
  bool names_one = false;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t /*size*/, void* result) {
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          if (info->dlpi_phdr[i].p_type != PT_INTERP) continue;
          *static_cast<bool*>(result) = true;
        }
        return 1;  // The first is the program itself.
      },
      &names_one);
  return names_one && getauxval(AT_BASE) == 0;
}

// Bytes of the numbers of what a program is to close, of some ten thousand
// files; the rest is closed before. Half of what one argument may have
// (execve(2)).
constexpr ptrdiff_t kMaxLeft = ptrdiff_t{64} << 10;

struct Program {
  const char* path;
  // Behind the last of them there is room for kMaxLeft and a zero.
  char* argument_end;
  char* const* arguments;
  int hand_over;
  int owner;
  int nothing;
  ProcessGroup group;
};

// What is close-on-exec or not: none of it is for the server. A file's last
// system may not answer when it is closed, and then neither its owner, which
// waits, nor who asks /proc for a process that is between two programs, would
// get any further: the program closes it, which its owner can give up on. But
// that of an owner whom nobody of its user may look into (PR_SET_DUMPABLE) is
// gone when the program is there, into which they may.
void LeaveToProgram(const Program& program) {
  constexpr ptrdiff_t kMostDigits = 10;
  const bool is_private = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 1;
  char* at = program.argument_end;
  char* const last = at + kMaxLeft;
  ForEachOpenDescriptor(INT_MAX, [&](int fd) {
    if (fd <= STDERR_FILENO || fd == program.hand_over || fd == program.owner) {
      return;
    }
    const bool is_left = !IsSocketOrPipe(fd) && last - at > 1 + kMostDigits;
    if (!is_left || fcntl(fd, F_SETFD, is_private ? FD_CLOEXEC : 0) != 0) {
      close(fd);
      return;
    }
    if (is_private) return;
    *at++ = ',';
    at = std::to_chars(at, last, fd).ptr;
  });
  *at = '\0';
}

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
  // The only ones that are closed, where they are its owner's own.
  for (const int fd : kStandardDescriptors) {
    if (!IsInherited(fd) && dup2(program.nothing, fd) < 0) return errno;
  }
  LeaveToProgram(program);
  if (fcntl(program.hand_over, F_SETFD, 0) != 0 ||
      fcntl(program.owner, F_SETFD, 0) != 0) {
    return errno;
  }
  execve(program.path, program.arguments, environ);
  return errno;
}

// The child has this process's memory, and its thread waits, until it has
// become the program (vfork(2)): no page is copied, and none of the locks that
// other threads hold is taken. So does posix_spawn(3), but it cannot tie.
// `error` is what went wrong.
pid_t Start(const Program& program, volatile int& error) {
  // No handler of this process's may run in the child; nor may it unwind this
  // thread's stack, where another one cancels that (pthreads(7)).
  const ScopedSignalMask mask(AllSignalsButFaults());
  int cancelable;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancelable);
  const pid_t pid = vfork();  // NOLINT(clang-analyzer-*)
  if (pid == 0) {
    error = Become(program);  // NOLINT(clang-analyzer-*)
    _exit(127);
  }
  pthread_setcancelstate(cancelable, nullptr);
  return pid;
}

// A child that somebody else has reaped.
absl::Status GoneError(pid_t pid) {
  return MakeError(
      reason::kServerDied,
      absl::StrCat("the server (pid ", pid, ") ", ProcessExit().ToString()));
}

// Of a child that was just made.
absl::StatusOr<std::unique_ptr<Process>> WatchChild(pid_t pid) {
  FileDescriptor pidfd =
      FileDescriptor::Opened(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.is_open()) {
    if (errno == ESRCH) return GoneError(pid);
    const absl::Status status = SystemError(
        errno, absl::StrCat("watch process ", pid, " (pidfd_open)"));
    // Unless somebody else has reaped it, and the number is another's.
    siginfo_t info;
    if (waitid(P_PID, static_cast<id_t>(pid), &info,
               WEXITED | WNOHANG | WNOWAIT) == 0) {
      kill(pid, SIGKILL);
      ReapChild(pid);
    }
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
  WARD_ASSIGN_OR_RETURN(Descriptors descriptors, Descriptors::Prepare(options));
  FlushStreams();

  const pid_t pid = ForkAndRun(options, descriptors, child);
  if (pid < 0) return StartError(errno, "fork the server's process (clone)");
  descriptors.MakeRoomInParent();
  absl::StatusOr<std::unique_ptr<Process>> process = WatchChild(pid);
  descriptors.LetChildGoOn();
  return process;
}

absl::StatusOr<std::unique_ptr<Process>> WatchProgram(pid_t pid) {
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<Process> process, WatchChild(pid));
  siginfo_t info;
  if (waitid(P_PIDFD, static_cast<id_t>(process->descriptor()), &info,
             WEXITED | WNOHANG | WNOWAIT) != 0 &&
      errno == ECHILD) {
    return GoneError(pid);
  }
  return process;
}

absl::Status StartError(int error, std::string_view attempt) {
  absl::Status status = SystemError(error, attempt);
  if (error != EAGAIN && error != ENOMEM) return status;
  return {
      status.code(),
      absl::StrCat(status.message(),
                   "; end processes or threads of this user, or raise their "
                   "limit (ulimit -u; pids.max of its cgroup), or see whether "
                   "memory is short; a SCHED_DEADLINE thread starts none "
                   "without SCHED_FLAG_RESET_ON_FORK (sched(7))")};
}

absl::Status ProcError(int error, std::string_view attempt) {
  const bool is_mounted = access("/proc/self", F_OK) == 0;
  return SystemError(
      error, is_mounted ? std::string(attempt)
                        : absl::StrCat(attempt,
                                       " (there is no /proc here: mount it "
                                       "with `mount -t proc proc /proc`)"));
}

std::string ExecArgument(std::string_view entry, int hand_over, int owner) {
  return absl::StrCat(kExecArgument, entry, ":", hand_over, ",", owner);
}

std::optional<ExecRequest> ParseExecArgument(std::string_view argument) {
  if (!absl::ConsumePrefix(&argument, kExecArgument)) return std::nullopt;
  // A name may have colons, too.
  const size_t end = argument.rfind(':');
  ExecRequest request;
  request.entry = argument.substr(0, end);
  if (end == std::string_view::npos) return request;
  std::vector<int> numbers;
  for (const std::string_view text :
       absl::StrSplit(argument.substr(end + 1), ',')) {
    int number;
    if (!absl::SimpleAtoi(text, &number) || number <= STDERR_FILENO) {
      return request;
    }
    // One that is to be closed may be there twice.
    if (!numbers.empty() && number == numbers[0]) return request;
    if (numbers.size() >= 2 && number == numbers[1]) return request;
    numbers.push_back(number);
  }
  if (numbers.size() < 2) return request;
  request.hand_over = numbers[0];
  request.owner = numbers[1];
  request.close.assign(numbers.begin() + 2, numbers.end());
  return request;
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
  if (RunByLoader()) {
    return absl::FailedPreconditionError(
        "start by exec: this program was started as an argument of the dynamic "
        "loader (ld.so(8)), so that /proc/self/exe is the loader; start the "
        "program's own file, or start its servers by fork");
  }
  std::string name = program_invocation_name;
  const int hand_over = links.hand_over->descriptor();
  const int owner = links.owner->descriptor();
  const std::string request = ExecArgument(entry, hand_over, owner);
  const std::unique_ptr<char[]> argument(
      new char[request.size() + kMaxLeft + 1]);
  char* const argument_end =
      std::copy(request.begin(), request.end(), argument.get());
  const std::array<char*, 3> arguments = {name.data(), argument.get(), nullptr};
  WARD_ASSIGN_OR_RETURN(const FileDescriptor nothing, OpenNothing());
  // The program that runs, whatever stands at its path by now (proc(5)).
  const Program program = {
      "/proc/self/exe", argument_end, arguments.data(), hand_over, owner,
      nothing.get(),    group};
  volatile int error = 0;
  const pid_t pid = Start(program, error);
  if (pid < 0) error = errno;
  if (error == 0) return WatchProgram(pid);
  if (pid > 0) ReapChild(pid);
  constexpr std::string_view kAttempt =
      "start the server's program (/proc/self/exe)";
  return error == ENOENT ? ProcError(error, kAttempt)
                         : StartError(error, kAttempt);
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
  std::optional<pid_t> pid;
  for (std::string line; std::getline(info, line);) {
    // "Pid:" with a tab and the number; -1 when the process is gone, 0 when it
    // is in a pid namespace that /proc does not show.
    std::string_view rest = line;
    pid_t number;
    if (absl::ConsumePrefix(&rest, "Pid:") && absl::SimpleAtoi(rest, &number)) {
      pid = number;
    }
  }
  if (!pid.has_value()) {
    return refused("it is no process's (fdinfo has no Pid)");
  }
  // One that cannot be seen can neither be killed from here.
  if (*pid == 0 && user != 0 &&
      !(syscall(SYS_pidfd_send_signal, pidfd.get(), 0, nullptr, 0U) != 0 &&
        errno == EINVAL)) {
    return refused("whose it is cannot be seen in /proc");
  }
  struct stat found;
  // Of one that is gone there is nothing to protect: it cannot be killed.
  const bool there =
      *pid > 0 && stat(absl::StrCat("/proc/", *pid).c_str(), &found) == 0;
  if (there && user != 0 && found.st_uid != user) {
    return refused(absl::StrCat("it is of user ", found.st_uid));
  }
  return std::make_unique<PosixProcess>(*pid, std::move(pidfd),
                                        /*adopted=*/true);
}

// Each child draws numbers of its own (the original called srand).
void ReseedRandom() {
  std::array<unsigned short, 6> seed{};
  if (!FillWithRandom(seed.data(), sizeof(seed))) {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    const std::array<uint32_t, 3> other = {static_cast<uint32_t>(now.tv_nsec),
                                           static_cast<uint32_t>(getpid()),
                                           static_cast<uint32_t>(now.tv_sec)};
    static_assert(sizeof(other) == sizeof(seed));
    std::memcpy(seed.data(), other.data(), sizeof(seed));
  }
  unsigned int whole;
  std::memcpy(&whole, seed.data(), sizeof(whole));
  // The child has one thread yet. NOLINTBEGIN(concurrency-mt-unsafe)
  srand(whole);
  srandom(whole);
  seed48(&seed[3]);
  // NOLINTEND(concurrency-mt-unsafe)
}

}  // namespace ward

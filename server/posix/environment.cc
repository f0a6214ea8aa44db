#include "ward/server/environment.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/base/log_severity.h"
#include "absl/base/thread_annotations.h"
#include "absl/container/inlined_vector.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/posix_wait.h"
#include "ward/channel/socket_transport.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/confinement.h"
#include "ward/server/log.h"
#include "ward/server/posix/holders.h"
#include "ward/server/posix/interruption.h"
#include "ward/server/posix/listener.h"
#include "ward/server/posix/own_process.h"
#include "ward/server/posix/poll_set.h"
#include "ward/server/posix/process.h"
#include "ward/server/posix/signal_mask.h"
#include "ward/server/posix/signals.h"
#include "ward/server/posix/socket_path.h"
#include "ward/server/posix/tie.h"
#include "ward/server/posix/zygote.h"
#include "ward/server/process.h"
#include "ward/server/signals.h"
#include "ward/server/zygote.h"

namespace ward {
namespace {

sigset_t BlockedByThreads() {
  sigset_t blocked = AllSignalsButFaults();
  sigdelset(&blocked, Interruption::kSignal);
  return blocked;
}

// A signal that is at its default is told to nobody, and can stay unblocked: a
// shell that a handler starts with system(3) or popen(3) has its thread's mask,
// and dash waits for SIGCHLD with that. Where this thread blocks it, somebody
// may wait for it, too (signalfd(2)), and would lose it to one that does not.
sigset_t BlockedByNewThread() {
  sigset_t blocked = BlockedByThreads();
  sigset_t mask;
  struct sigaction action;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  if (sigismember(&mask, SIGCHLD) == 0 &&
      sigaction(SIGCHLD, nullptr, &action) == 0 &&
      (action.sa_flags & SA_SIGINFO) == 0 && action.sa_handler == SIG_DFL) {
    sigdelset(&blocked, SIGCHLD);
  }
  return blocked;
}

// In the child of a fork: what a thread of ward's has forked is a program of
// its own, and blocks what a program does. It may have had another mask set.
void UnblockInChild() {
  const sigset_t blocked = BlockedByThreads();
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  for (int signal = 1; signal <= SIGRTMAX; ++signal) {
    // Which cannot be blocked, and are not in the mask that is found.
    if (signal == SIGKILL || signal == SIGSTOP) continue;
    if (signal == SIGCHLD) continue;  // As it was found: BlockedByNewThread.
    if (sigismember(&mask, signal) != sigismember(&blocked, signal)) return;
  }
  sigemptyset(&mask);
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
}

class PosixThread final : public Thread {
 public:
  // pthread_create, not std::thread: that one reports failure by exception.
  absl::Status Start(absl::AnyInvocable<void()> body) {
    body_ = std::move(body);
    [[maybe_unused]] static const int kAtFork =
        pthread_atfork(nullptr, nullptr, &UnblockInChild);
    // A new thread has its creator's mask from its first instruction on.
    const ScopedSignalMask mask(BlockedByNewThread());
    const int error = pthread_create(&thread_, nullptr, &Run, this);
    started_ = error == 0;
    return started_ ? absl::OkStatus()
                    : StartError(error, "start a thread (clone)");
  }

  ~PosixThread() override {
    if (started_) pthread_join(thread_, nullptr);
  }

 private:
  static void* Run(void* self) {
    static_cast<PosixThread*>(self)->body_();
    return nullptr;
  }

  absl::AnyInvocable<void()> body_;
  pthread_t thread_{};
  bool started_ = false;
};

// What 2 was when the program started, before anything else could be opened.
struct FoundStandardError {
  FoundStandardError() : open(fstat(STDERR_FILENO, &file) == 0) {}

  struct stat file {};
  const bool open;
};
__attribute__((init_priority(101))) const FoundStandardError kFoundAtStart;

// Whether 2 is still that, or something else has been put there on purpose.
bool HasStandardError() {
  struct stat now;
  const int flags = fcntl(STDERR_FILENO, F_GETFD);
  if (!kFoundAtStart.open || flags < 0 || fstat(STDERR_FILENO, &now) != 0) {
    return false;
  }
  if (now.st_dev == kFoundAtStart.file.st_dev &&
      now.st_ino == kFoundAtStart.file.st_ino) {
    return true;
  }
  // dup2(2) and freopen(3) leave it open for programs that are started.
  return (flags & FD_CLOEXEC) == 0 && !S_ISSOCK(now.st_mode);
}

// How the kernel calls a user that a namespace does not know.
uid_t OverflowUser() {
  static const uid_t kUser = [] {
    std::ifstream file("/proc/sys/kernel/overflowuid");
    uid_t number;
    return file >> number ? number : 65534;
  }();
  return kUser;
}

// Whether this process's user namespace has a user of this number.
bool IsMapped(uid_t user) {
  errno = 0;
  std::ifstream map("/proc/self/uid_map");
  // In a jail without /proc it cannot be asked. That is seen more often than a
  // process without a user.
  if (!map.is_open()) return errno == ENOENT;
  uint64_t first;
  uint64_t outside;
  uint64_t count;
  while (map >> first >> outside >> count) {
    if (user >= first && user - first < count) return true;
  }
  return false;
}

class PosixEnvironment final : public Environment {
 public:
  absl::Time TimeNow() override { return MonotonicNow(); }

  absl::StatusOr<std::unique_ptr<Thread>> StartThread(
      absl::AnyInvocable<void()> body) override {
    auto thread = std::make_unique<PosixThread>();
    WARD_RETURN_IF_ERROR(thread->Start(std::move(body)));
    return thread;
  }

  void NameThread(const std::string& name) override {
    thread_local std::array<char, 16> current{};
    if (name == current.data()) return;
    current = {};
    name.copy(current.data(), current.size() - 1);
    // Where it is denied, the thread has the process's name.
    prctl(PR_SET_NAME, current.data());
  }

  absl::StatusOr<std::unique_ptr<Listener>> Listen(
      const ListenOptions& options) override {
    return PosixListen(options);
  }

  absl::StatusOr<std::unique_ptr<Transport>> Connect(
      const std::string& path, absl::Time deadline) override {
    return PosixConnect(path, deadline);
  }

  absl::StatusOr<
      std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>>>
  CreateTransportPair() override {
    return SocketTransport::CreatePair();
  }

  absl::StatusOr<size_t> Poll(absl::Span<const Pollable* const> polled,
                              absl::Time deadline) override {
    absl::InlinedVector<pollfd, 4> entries;
    for (const Pollable* pollable : polled) {
      entries.push_back({pollable->descriptor(), POLLIN, 0});
    }
    WARD_ASSIGN_OR_RETURN(const int ready,
                          PollUntil(absl::MakeSpan(entries), deadline));
    for (size_t i = 0; ready > 0 && i < entries.size(); ++i) {
      if (entries[i].revents != 0) return i;
    }
    return MakeError(reason::kTimedOut, "nothing happened in time");
  }

  absl::StatusOr<std::unique_ptr<PollSet>> CreatePollSet() override {
    return CreatePosixPollSet();
  }

  absl::StatusOr<std::unique_ptr<Process>> Fork(
      const ForkOptions& options, absl::AnyInvocable<int()> child) override {
    return PosixFork(options, std::move(child));
  }

  absl::StatusOr<std::unique_ptr<Process>> Exec(const std::string& entry,
                                                ExecLinks links,
                                                ProcessGroup group) override {
    return PosixExec(entry, links, group);
  }

// ThreadSanitizer has a thread of its own, which knows of fork(2) alone; and on
// an s390 clone(2) has another order.
#if !defined(ABSL_HAVE_THREAD_SANITIZER) && !defined(__s390__)
  absl::StatusOr<std::unique_ptr<Zygote>> StartZygote() override {
    return PosixStartZygote();
  }
#endif

  absl::Status TieProcess(const Transport& end,
                          const Listener* listener) override {
    return PosixTieProcess(end.descriptor(), listener);
  }
  absl::Status UntieProcess(const Transport& end) override {
    return PosixUntieProcess(end.descriptor());
  }

  absl::StatusOr<FileDescriptor> Share(const Pollable& shared) override {
    return FileDescriptor::DuplicateOf(shared.descriptor());
  }

  absl::StatusOr<std::unique_ptr<Transport>> AdoptTransport(
      FileDescriptor shared) override {
    if (!IsEndOfPair(shared.get())) {
      return MakeError(reason::kInvalidArguments,
                       "the descriptor that came is no socket of a pair "
                       "(socketpair(2))");
    }
    return std::make_unique<SocketTransport>(std::move(shared));
  }

  absl::StatusOr<std::unique_ptr<Process>> AdoptProcess(FileDescriptor shared,
                                                        uid_t user) override {
    return PosixAdoptProcess(std::move(shared), user);
  }

  absl::StatusOr<std::unique_ptr<Listener>> AdoptListener(ListenerParts parts,
                                                          uid_t user) override {
    return PosixAdoptListener(std::move(parts), user);
  }

  absl::StatusOr<uint64_t> SocketId(const Transport& transport) override {
    struct stat found;
    if (fstat(transport.descriptor(), &found) != 0) {
      return SystemError(errno, "look at a socket (fstat)");
    }
    return found.st_ino;
  }

  absl::StatusOr<std::vector<ProcessInfo>> Holders(
      uint64_t socket_id) override {
    return PosixHolders(socket_id);
  }

  absl::Status SetProcessDeadline(absl::Duration left) override {
    absl::MutexLock lock(&mutex_);
    if (deadline_process_ !=
        ward::ForkGeneration()) {  // Timers do not survive a fork.
      sigevent event{};
      event.sigev_notify = SIGEV_SIGNAL;
      event.sigev_signo = SIGKILL;
      if (timer_create(CLOCK_MONOTONIC, &event, &deadline_) != 0) {
        return SystemError(
            errno, "make a timer for the process's deadline (timer_create)");
      }
      deadline_process_ = ward::ForkGeneration();
    }
    itimerspec setting{};  // Zero takes it back.
    if (left != absl::InfiniteDuration()) {
      setting.it_value = absl::ToTimespec(std::max(left, absl::Nanoseconds(1)));
    }
    if (timer_settime(deadline_, 0, &setting, nullptr) != 0) {
      return SystemError(errno, "set the process's deadline (timer_settime)");
    }
    return absl::OkStatus();
  }

  absl::Status Confine(const Confinement& confinement) override {
    return ward::Confine(confinement);
  }

  pid_t ProcessId() override { return getpid(); }
  int ForkGeneration() override { return ward::ForkGeneration(); }
  uid_t UserId() override { return geteuid(); }
  size_t MaxDescriptors() override {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
  }
  bool KnowsUser(uid_t user) override {
    return user != OverflowUser() || IsMapped(user);
  }

  absl::StatusOr<std::unique_ptr<Signals>> TakeSignals(
      const SignalPlan& plan) override {
    return PosixTakeSignals(plan);
  }

  void Log(absl::LogSeverity severity, std::string_view line) override {
    if (const LogFunction log = GetLogFunction()) {
      log(severity, line);
      return;
    }
    if (!HasStandardError()) return;
    // One write, so that lines of several processes do not mix, of what a pipe
    // has room for if it is writable (pipe(7)): whoever does not read it holds
    // nobody up, and misses a line.
    constexpr std::string_view kCut = "...\n";
    std::string text = absl::StrCat("ward[", getpid(), "]: ", line, "\n");
    if (text.size() > PIPE_BUF) {
      text.replace(PIPE_BUF - kCut.size(), std::string::npos, kCut);
    }
    pollfd polled{STDERR_FILENO, POLLOUT, 0};
    if (poll(&polled, 1, 0) != 1) return;
    [[maybe_unused]] const ssize_t ignored =
        write(STDERR_FILENO, text.data(), text.size());
  }

 private:
  absl::Mutex mutex_;
  timer_t deadline_ ABSL_GUARDED_BY(mutex_) = {};
  int deadline_process_ ABSL_GUARDED_BY(mutex_) = 0;
};

class ExecZygote final : public Zygote {
 public:
  explicit ExecZygote(Environment& environment) : environment_(environment) {}

  pid_t pid() const override { return 0; }
  absl::StatusOr<std::unique_ptr<Process>> Fork(
      const std::string& entry, ExecLinks links, ProcessGroup group,
      absl::Time /*deadline*/) override {
    return environment_.Exec(entry, std::move(links), group);
  }

 private:
  Environment& environment_;
};

Environment* default_environment = nullptr;

}  // namespace

absl::StatusOr<std::unique_ptr<Zygote>> Environment::StartZygote() {
  return std::make_unique<ExecZygote>(*this);
}

Environment& Environment::Posix() {
  static Environment& environment = *new PosixEnvironment();
  return environment;
}

Environment& Environment::Default() {
  return default_environment == nullptr ? Posix() : *default_environment;
}

void Environment::SetDefaultForTesting(Environment* environment) {
  default_environment = environment;
}

}  // namespace ward

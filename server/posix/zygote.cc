#include "ward/server/posix/zygote.h"

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/posix_wait.h"
#include "ward/channel/socket_transport.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/exec_entry.h"
#include "ward/server/posix/own_process.h"
#include "ward/server/posix/process.h"
#include "ward/server/posix/socket_path.h"
#include "ward/server/posix/streams.h"
#include "ward/server/posix/tie.h"
#include "ward/server/process.h"

namespace ward {
namespace {

constexpr std::string_view kEntry = "ward.zygote";

// How long a process may take from SIGKILL to its end.
constexpr absl::Duration kLastMoment = absl::Seconds(30);

bool HasEnded(const absl::Status& status) {
  return HasReason(status, reason::kEndOfStream) ||
         HasReason(status, reason::kConnectionLost);
}

// --- in the zygote ---

// What an owner asks for: the entry; what the process is to have, a umask (none
// if it is under 0), its ExecLinks, and 0, 1 and 2; and where to answer, with
// the new process's number or an error, on a connection of its own for each
// request. The zygote and the new process both say the number, and one word is
// enough: if the other one is killed, the parent still knows of its child.
struct Request {
  std::string entry;
  int umask = -1;
  FileDescriptor answer;
  FileDescriptor hand_over;
  FileDescriptor owner;
  std::array<FileDescriptor, 3> standard;
};

absl::StatusOr<Request> ReadRequest(MessageChannel& requests) {
  using Fd = FileDescriptor;
  WARD_ASSIGN_OR_RETURN(
      auto values,
      (requests.ReadUnpacked<std::string, int, Fd, Fd, Fd, Fd, Fd, Fd>()));
  Request request;
  std::tie(request.entry, request.umask, request.answer, request.hand_over,
           request.owner, request.standard[0], request.standard[1],
           request.standard[2]) = std::move(values);
  for (const Fd* const end :
       {&request.answer, &request.hand_over, &request.owner}) {
    if (!IsEndOfPair(end->get())) {
      return MakeError(reason::kInvalidArguments,
                       "what came with a request is no socket of a pair");
    }
  }
  return request;
}

constexpr std::string_view kAdvice = "; start the server by fork or by exec";

// fork(2), but that the child is this process's sibling, for which the C
// library has no call. In a process of one thread there is little else that its
// fork() does; that is done here, but for the functions of pthread_atfork(3),
// which nobody else can call. Returns 0 in the child.
absl::StatusOr<pid_t> ForkSibling() {
  // Where the C library has the thread's number: the kernel writes the child's
  // there, too (set_tid_address(2)).
  pid_t* number = nullptr;
  if (prctl(PR_GET_TID_ADDRESS, &number, 0, 0, 0) != 0) {
    const absl::Status status = SystemError(
        errno, "fork a server from a zygote (prctl, PR_GET_TID_ADDRESS)");
    return absl::FailedPreconditionError(
        absl::StrCat(status.message(), kAdvice));
  }
  if (number == nullptr || *number != gettid()) {
    return absl::FailedPreconditionError(
        absl::StrCat("fork a server from a zygote: this C library does not "
                     "keep the thread's number where a zygote needs it",
                     kAdvice));
  }
  // Mutexes that others are told of when their thread ends; a child has none of
  // its parent's lists (get_robust_list(2)).
  robust_list_head* robust = nullptr;
  size_t size = 0;
  if (syscall(SYS_get_robust_list, 0, &robust, &size) != 0) robust = nullptr;
  // Its last two arguments have another order on some processors (clone(2)).
  // One of them is not looked at.
  const auto pid = static_cast<pid_t>(syscall(
      SYS_clone,
      CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD,
      nullptr, nullptr, number, number));
  if (pid == 0 && robust != nullptr) {
    syscall(SYS_set_robust_list, robust, size);
  }
  if (pid >= 0) return pid;
  const int error = errno;
  const absl::Status status =
      StartError(error, "fork a server from a zygote (clone, CLONE_PARENT)");
  const bool can_never = error == EINVAL || error == EPERM || error == ENOSYS;
  if (!can_never) return status;
  return absl::FailedPreconditionError(absl::StrCat(status.message(), kAdvice));
}

// In the new process, which has nothing of the zygote's connections.
[[noreturn]] void Become(Environment& environment, ExecEntry main,
                         Request request) {
  (void)TieByKill(request.owner.get());
  if (request.umask >= 0) umask(static_cast<mode_t>(request.umask));
  for (const int fd : kStandardDescriptors) {
    dup2(request.standard[static_cast<size_t>(fd)].get(), fd);
  }
  ExecLinks links = {
      std::make_unique<SocketTransport>(std::move(request.hand_over)),
      std::make_unique<SocketTransport>(std::move(request.owner))};
  // An owner that is gone has ended this process.
  (void)MessageChannel(std::move(request.answer)).Write(getpid());
  request = {};
  ReseedRandom();
  // An exception must not unwind into the zygote's code.
  const auto run = [&]() noexcept {
    return main(environment, std::move(links));
  };
  const int code = run();
  FlushStreams();
  _exit(code);
}

absl::StatusOr<pid_t> Fork(const std::string& entry, ExecEntry& main) {
  WARD_ASSIGN_OR_RETURN(main, FindExecEntry(entry));
  // The parent then has no number here (getppid(2)), and knows the new process
  // by another one than this process does. So it is for the init of a pid
  // namespace, too, which has no siblings (clone(2)).
  if (getppid() == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "fork a server from a zygote: it is in another pid namespace than the "
        "process that started it (unshare(2), CLONE_NEWPID)",
        kAdvice));
  }
  WARD_ASSIGN_OR_RETURN(const int others, OtherThreads());
  if (others > 0) {
    return Annotate(ForkWithThreadsError(others),
                    absl::StrCat("the zygote (pid ", getpid(),
                                 "), before ward::ServeIfExeced"));
  }
  return ForkSibling();
}

// The owner's standard descriptors are nothing to it: what a server is to have
// comes with the request for it.
void LeaveStandardDescriptors() {
  FlushStreams();
  const absl::StatusOr<FileDescriptor> nothing = OpenNothing();
  for (const int fd : kStandardDescriptors) {
    if (nothing.ok()) dup2(nothing->get(), fd);
  }
}

// Tied to its owner, it never returns but where an owner talks nonsense.
int ServeZygote(Environment& environment, ExecLinks links) {
  LeaveStandardDescriptors();
  MessageChannel requests(std::move(links.hand_over));
  while (true) {
    absl::StatusOr<Request> request = ReadRequest(requests);
    if (!request.ok()) {
      if (HasEnded(request.status())) return 0;
      // Where to answer may not have come.
      (void)MessageChannel(std::move(links.owner)).WriteError(request.status());
      return 1;
    }
    ExecEntry main = nullptr;
    const absl::StatusOr<pid_t> pid = Fork(request->entry, main);
    if (pid.ok() && *pid == 0) {
      requests.Close();
      links.owner.reset();
      Become(environment, main, *std::move(request));
    }
    MessageChannel answer(std::move(request->answer));
    (void)(pid.ok() ? answer.Write(*pid) : answer.WriteError(pid.status()));
  }
}

[[maybe_unused]] const bool kIsRegistered = [] {
  RegisterExecEntry(kEntry, typeid(Zygote), &ServeZygote);
  return true;
}();

// --- in the owner ---

std::vector<gid_t> Groups() {
  std::vector<gid_t> groups(
      static_cast<size_t>(std::max(0, getgroups(0, nullptr))));
  const int count = getgroups(static_cast<int>(groups.size()), groups.data());
  groups.resize(static_cast<size_t>(std::max(0, count)));
  return groups;
}

// What a process is, and its forks and programs: of another one no zygote is
// right.
struct Identity {
  int process = ForkGeneration();
  pid_t session = getsid(0);
  uid_t user = geteuid();
  gid_t group = getegid();
  std::vector<gid_t> groups = Groups();

  bool operator==(const Identity& other) const {
    return process == other.process && session == other.session &&
           user == other.user && group == other.group && groups == other.groups;
  }
};

// This thread's, or -1. umask(2) tells it only to who sets it: for a moment, in
// which other threads may make files.
int Umask() {
  std::ifstream status("/proc/thread-self/status");
  for (std::string line; std::getline(status, line);) {
    unsigned mask;
    if (std::sscanf(line.c_str(), "Umask: %o", &mask) == 1) {
      return static_cast<int>(mask);
    }
  }
  return -1;
}

absl::StatusOr<FileDescriptor> StandardDescriptor(int fd) {
  return IsInherited(fd) ? FileDescriptor::DuplicateOf(fd) : OpenNothing();
}

// A zygote's process.
class Warm {
 public:
  static absl::StatusOr<std::shared_ptr<Warm>> Start() {
    WARD_ASSIGN_OR_RETURN(auto requests, SocketTransport::CreatePair());
    WARD_ASSIGN_OR_RETURN(auto ties, SocketTransport::CreatePair());
    WARD_ASSIGN_OR_RETURN(
        std::unique_ptr<Process> process,
        PosixExec(std::string(kEntry),
                  {std::move(requests.second), std::move(ties.second)},
                  ProcessGroup::kOwn));
    return std::make_shared<Warm>(std::move(process), std::move(requests.first),
                                  std::move(ties.first));
  }

  Warm(std::unique_ptr<Process> process, std::unique_ptr<Transport> requests,
       std::unique_ptr<Transport> tie)
      : process_(std::move(process)),
        requests_(std::move(requests)),
        tie_(std::move(tie)) {}
  Warm(const Warm&) = delete;
  Warm& operator=(const Warm&) = delete;

  ~Warm() {
    // A fork has a copy of an end, and no child to wait for.
    if (owner_.process == ForkGeneration()) (void)End();
  }

  bool Fits() const { return owner_ == Identity(); }
  pid_t pid() const { return process_->pid(); }

  // Ends it, and says how it ended. A word on what it is tied to kills it
  // though this process has changed its user; one that is the init of a pid
  // namespace only its parent can kill.
  absl::StatusOr<ProcessExit> End() {
    const absl::Time last_moment = MonotonicNow() + kLastMoment;
    (void)tie_->Send("!", {}, last_moment);
    (void)process_->Kill(SIGKILL);
    absl::StatusOr<ProcessExit> exit = process_->Wait(last_moment);
    EndLateProcesses(kLastMoment);
    return exit;
  }

  // kEndOfStream or kConnectionLost when the zygote ends, and has made no
  // process.
  absl::StatusOr<std::unique_ptr<Process>> Fork(const std::string& entry,
                                                const ExecLinks& links,
                                                ProcessGroup group,
                                                absl::Time deadline) {
    EndLateProcesses(absl::ZeroDuration());
    MessageChannel answer;
    const absl::StatusOr<pid_t> pid = Ask(entry, links, deadline, answer);
    if (pid.ok() || answer.read_error()) has_answered_ = true;
    if (HasReason(pid.status(), reason::kTimedOut)) {
      return Late(pid.status(), std::move(answer));
    }
    if (!pid.ok()) return pid.status();
    WARD_ASSIGN_OR_RETURN(std::unique_ptr<Process> process, WatchProgram(*pid));
    // It waits to be told what to do.
    (void)setpgid(*pid, group == ProcessGroup::kOwn ? *pid : getpgrp());
    return process;
  }

  // How it ended, when Fork has said that it does.
  std::string HowItEnded(absl::Time deadline) {
    (void)process_->Wait(std::min(deadline, MonotonicNow() + kLastMoment));
    const absl::StatusOr<ProcessExit> exit = End();
    absl::MutexLock lock(&mutex_);
    MessageChannel last_word(tie_);
    last_word.set_timeout(absl::ZeroDuration());
    const absl::Status why = last_word.Read().status();
    return absl::StrCat(
        (exit.ok() ? *exit : ProcessExit()).ToString(),
        last_word.read_error() ? absl::StrCat(" (", why.message(), ")") : "");
  }

  std::string WhoIsAsked() const {
    return absl::StrCat("the zygote (pid ", pid(),
                        ") was asked for the server's process");
  }

 private:
  // The new process's number. Answers come on `answer`.
  absl::StatusOr<pid_t> Ask(const std::string& entry, const ExecLinks& links,
                            absl::Time deadline, MessageChannel& answer) {
    WARD_ASSIGN_OR_RETURN(auto ends, SocketTransport::CreatePair());
    answer = MessageChannel(std::move(ends.first));
    WARD_RETURN_IF_ERROR(
        Send(entry,
             {ends.second->descriptor(), links.hand_over->descriptor(),
              links.owner->descriptor()},
             deadline));
    ends.second.reset();
    answer.set_timeout(deadline - MonotonicNow());
    WARD_ASSIGN_OR_RETURN(const auto pid, answer.ReadUnpacked<pid_t>());
    return std::get<0>(pid);
  }

  absl::Status Send(const std::string& entry, const std::array<int, 3>& links,
                    absl::Time deadline) {
    std::array<FileDescriptor, 3> sent;
    std::array<FileDescriptor, 3> standard;
    for (size_t i = 0; i < sent.size(); ++i) {
      WARD_ASSIGN_OR_RETURN(sent[i], FileDescriptor::DuplicateOf(links[i]));
      WARD_ASSIGN_OR_RETURN(standard[i],
                            StandardDescriptor(kStandardDescriptors[i]));
    }
    const int umask = Umask();
    absl::MutexLock lock(&mutex_);
    requests_.set_timeout(deadline - MonotonicNow());
    return requests_.Write(entry, umask, sent[0], sent[1], sent[2], standard[0],
                           standard[1], standard[2]);
  }

  // `status`, and what becomes of a zygote that has not answered in time.
  absl::Status Late(const absl::Status& status, MessageChannel answer) {
    {
      absl::MutexLock lock(&mutex_);
      late_.push_back(std::move(answer));
    }
    if (!has_answered_) {
      return Annotate(
          status,
          absl::StrCat(WhoIsAsked(),
                       ", and has answered nothing yet: what this program does "
                       "before ward::ServeIfExeced, such as static "
                       "initialisation, takes longer than "
                       "LaunchOptions::start_timeout, or so does a file of its "
                       "owner's to be closed, or a signal, or a debugger, has "
                       "stopped it"));
    }
    (void)End();
    return Annotate(
        status, absl::StrCat(WhoIsAsked(),
                             ", and has not answered this time: look for "
                             "what has stopped it (SIGSTOP, a debugger); it "
                             "was ended, and the next start has another"));
  }

  // Those that were made when nobody waited for them any more. Tied to owners
  // that are gone, they die, and are this process's children.
  void EndLateProcesses(absl::Duration patience) {
    std::vector<MessageChannel> late;
    {
      absl::MutexLock lock(&mutex_);
      late.swap(late_);
    }
    for (MessageChannel& answer : late) {
      answer.set_timeout(patience);
      const auto pid = answer.ReadUnpacked<pid_t>();
      if (pid.ok()) {
        const auto process = WatchProgram(std::get<0>(*pid));
        if (!process.ok()) continue;
        (void)(*process)->Kill(SIGKILL);
        (void)(*process)->Wait(MonotonicNow() + kLastMoment);
      } else if (answer.read_timed_out()) {
        absl::MutexLock lock(&mutex_);
        late_.push_back(std::move(answer));
      }
    }
  }

  const Identity owner_;
  const std::unique_ptr<Process> process_;
  std::atomic<bool> has_answered_{false};
  absl::Mutex mutex_;
  MessageChannel requests_ ABSL_GUARDED_BY(mutex_);
  // Where answers may come that nobody waits for any more.
  std::vector<MessageChannel> late_ ABSL_GUARDED_BY(mutex_);
  // On which it says, at its end, why what came is no request.
  const std::shared_ptr<Transport> tie_;
};

class PosixZygote final : public Zygote {
 public:
  explicit PosixZygote(std::shared_ptr<Warm> warm) : warm_(std::move(warm)) {}

  pid_t pid() const override {
    absl::MutexLock lock(&mutex_);
    return warm_->pid();
  }

  absl::StatusOr<std::unique_ptr<Process>> Fork(const std::string& entry,
                                                ExecLinks links,
                                                ProcessGroup group,
                                                absl::Time deadline) override {
    WARD_ASSIGN_OR_RETURN(std::shared_ptr<Warm> warm, Other(nullptr));
    auto process = warm->Fork(entry, links, group, deadline);
    if (!HasEnded(process.status())) return process;
    WARD_ASSIGN_OR_RETURN(warm, Other(warm.get()));
    process = warm->Fork(entry, links, group, deadline);
    if (!HasEnded(process.status())) return process;
    return MakeError(
        reason::kServerDied,
        absl::StrCat(warm->WhoIsAsked(), ", and it ",
                     warm->HowItEnded(deadline),
                     ", as did another before: look for what kills it, or for "
                     "what ends this program before ward::ServeIfExeced"));
  }

 private:
  // One that is not `dead`, and fits.
  absl::StatusOr<std::shared_ptr<Warm>> Other(const Warm* dead)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (warm_.get() == dead || !warm_->Fits()) {
      WARD_ASSIGN_OR_RETURN(warm_, Warm::Start());
    }
    return warm_;
  }

  mutable absl::Mutex mutex_;
  std::shared_ptr<Warm> warm_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Zygote>> PosixStartZygote() {
  WARD_ASSIGN_OR_RETURN(std::shared_ptr<Warm> warm, Warm::Start());
  return std::make_unique<PosixZygote>(std::move(warm));
}

}  // namespace ward

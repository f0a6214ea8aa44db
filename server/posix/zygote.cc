#include "ward/server/posix/zygote.h"

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

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
#include "ward/server/posix/process.h"
#include "ward/server/posix/socket_path.h"
#include "ward/server/posix/tie.h"
#include "ward/server/process.h"

namespace ward {
namespace {

constexpr std::string_view kEntry = "ward.zygote";

// Which a zygote that runs needs a millisecond of.
constexpr absl::Duration kPatience = absl::Seconds(60);

// How long a process may take from SIGKILL to its end.
constexpr absl::Duration kLastMoment = absl::Seconds(30);

bool HasEnded(const absl::Status& status) {
  return HasReason(status, reason::kEndOfStream) ||
         HasReason(status, reason::kConnectionLost);
}

// --- in the zygote ---

// What an owner asks for: the entry, the process group (0: one of its own), and
// where to answer, with the new process's number or an error; what the process
// is to have: its ExecLinks, and 0, 1 and 2. On a connection of its own for
// each request, an answer comes from the new process itself, so that a zygote
// that is killed meanwhile leaves none that its parent knows nothing of.
struct Request {
  std::string entry;
  pid_t group = 0;
  FileDescriptor answer;
  FileDescriptor hand_over;
  FileDescriptor owner;
  std::array<FileDescriptor, 3> standard;
};

absl::StatusOr<Request> ReadRequest(MessageChannel& requests) {
  using Fd = FileDescriptor;
  WARD_ASSIGN_OR_RETURN(
      auto values,
      (requests.ReadUnpacked<std::string, pid_t, Fd, Fd, Fd, Fd, Fd, Fd>()));
  Request request;
  std::tie(request.entry, request.group, request.answer, request.hand_over,
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

// fork(2), but that the child is this process's sibling, for which the C
// library has no call. In a process of one thread there is little else that its
// fork() does; that is done here, but for the functions of pthread_atfork(3),
// which nobody else can call. Returns 0 in the child.
absl::StatusOr<pid_t> ForkSibling() {
  constexpr std::string_view kAdvice = "; start the server by fork or by exec";
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
  return absl::FailedPreconditionError(
      absl::StrCat(status.message(),
                   error == EINVAL ? " (the init of a pid namespace has no "
                                     "siblings, clone(2))"
                                   : "",
                   kAdvice));
}

// In the new process, which has nothing of the zygote's connections.
[[noreturn]] void Become(Environment& environment, ExecEntry main,
                         Request request) {
  (void)setpgid(0, request.group);
  (void)TieByKill(request.owner.get());
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

// Answers only if there is no new process.
absl::StatusOr<pid_t> Fork(const std::string& entry, ExecEntry& main) {
  WARD_ASSIGN_OR_RETURN(main, FindExecEntry(entry));
  WARD_ASSIGN_OR_RETURN(const int others, OtherThreads());
  if (others > 0) return ForkWithThreadsError(others);
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
    if (!request.ok()) return HasEnded(request.status()) ? 0 : 1;
    ExecEntry main = nullptr;
    const absl::StatusOr<pid_t> pid = Fork(request->entry, main);
    if (!pid.ok()) {
      (void)MessageChannel(std::move(request->answer)).WriteError(pid.status());
    } else if (*pid == 0) {
      requests.Close();
      links.owner.reset();
      Become(environment, main, *std::move(request));
    }
  }
}

[[maybe_unused]] const bool kIsRegistered = [] {
  RegisterExecEntry(kEntry, typeid(Zygote), &ServeZygote);
  return true;
}();

// --- in the owner ---

// What a process is, and its forks and programs: of another one no zygote is
// right.
struct Identity {
  pid_t process = getpid();
  pid_t session = getsid(0);
  uid_t user = geteuid();
  gid_t group = getegid();

  bool operator==(const Identity& other) const {
    return process == other.process && session == other.session &&
           user == other.user && group == other.group;
  }
};

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
        tie_(std::move(tie)) {
    requests_.set_timeout(kPatience);
  }
  Warm(const Warm&) = delete;
  Warm& operator=(const Warm&) = delete;

  ~Warm() {
    // A fork has a copy of an end, and no child to wait for.
    if (owner_.process == getpid()) (void)End();
  }

  bool Fits() const { return owner_ == Identity(); }
  pid_t pid() const { return process_->pid(); }

  // Ends it, and says how it ended. A word on what it is tied to kills it
  // though this process has changed its user; one that is the init of a pid
  // namespace only its parent can kill.
  absl::StatusOr<ProcessExit> End() {
    (void)tie_->Send("!", {}, MonotonicNow() + kPatience);
    (void)process_->Kill(SIGKILL);
    return process_->Wait(MonotonicNow() + kLastMoment);
  }

  // kEndOfStream or kConnectionLost when the zygote has died, and has made no
  // process.
  absl::StatusOr<pid_t> Fork(const std::string& entry, const ExecLinks& links,
                             ProcessGroup group) {
    WARD_ASSIGN_OR_RETURN(auto ends, SocketTransport::CreatePair());
    WARD_RETURN_IF_ERROR(
        Ask(entry, group == ProcessGroup::kOwn ? 0 : getpgrp(),
            {ends.second->descriptor(), links.hand_over->descriptor(),
             links.owner->descriptor()}));
    ends.second.reset();
    MessageChannel answer(std::move(ends.first));
    answer.set_timeout(kPatience);
    const auto pid = answer.ReadUnpacked<pid_t>();
    if (pid.ok()) return std::get<0>(*pid);
    if (HasEnded(pid.status()) && !process_->Ending()) {
      return MakeError(reason::kServerDied,
                       "the server's process, which a zygote made, was killed "
                       "before it had begun");
    }
    return pid.status();
  }

 private:
  absl::Status Ask(const std::string& entry, pid_t group,
                   const std::array<int, 3>& links) {
    std::array<FileDescriptor, 3> sent;
    std::array<FileDescriptor, 3> standard;
    for (size_t i = 0; i < sent.size(); ++i) {
      WARD_ASSIGN_OR_RETURN(sent[i], FileDescriptor::DuplicateOf(links[i]));
      WARD_ASSIGN_OR_RETURN(standard[i],
                            StandardDescriptor(kStandardDescriptors[i]));
    }
    absl::MutexLock lock(&mutex_);
    return requests_.Write(entry, group, sent[0], sent[1], sent[2], standard[0],
                           standard[1], standard[2]);
  }

  const Identity owner_;
  const std::unique_ptr<Process> process_;
  absl::Mutex mutex_;
  MessageChannel requests_ ABSL_GUARDED_BY(mutex_);
  const std::unique_ptr<Transport> tie_;
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
                                                ProcessGroup group) override {
    WARD_ASSIGN_OR_RETURN(std::shared_ptr<Warm> warm, Other(nullptr));
    absl::StatusOr<pid_t> pid = warm->Fork(entry, links, group);
    if (HasEnded(pid.status())) {
      WARD_ASSIGN_OR_RETURN(warm, Other(warm.get()));
      pid = warm->Fork(entry, links, group);
    }
    if (pid.ok()) return WatchProgram(*pid);
    const bool is_late = HasReason(pid.status(), reason::kTimedOut);
    if (!is_late && !HasEnded(pid.status())) return pid.status();
    const absl::StatusOr<ProcessExit> exit = warm->End();
    if (is_late) return Annotate(pid.status(), WhoIsAsked(*warm));
    return MakeError(
        reason::kServerDied,
        absl::StrCat(WhoIsAsked(*warm), ", and it ",
                     (exit.ok() ? *exit : ProcessExit()).ToString(),
                     ", as did another before: look for what kills it, or for "
                     "what ends this program before ward::ServeIfExeced"));
  }

 private:
  static std::string WhoIsAsked(const Warm& warm) {
    return absl::StrCat("the zygote (pid ", warm.pid(),
                        ") was asked for the server's process");
  }

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

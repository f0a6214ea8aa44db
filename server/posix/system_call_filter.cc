#include "ward/server/posix/system_call_filter.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/bpf_common.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/server/confinement.h"

namespace ward {
namespace {

// Other kinds of calls have other numbers for the same, as those of 32 bits on
// a machine of 64 have.
#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kArchitecture = 0;
#endif

// faccessat2(2). Ward needs no newer kernel than 5.9, and neither does a C
// library, as long as it is told that this is one.
constexpr uint32_t kNewestOfLinux59 = 439;

constexpr uint32_t kSetVma = 0x53564d41;  // PR_SET_VMA of linux/prctl.h.
constexpr uint32_t kSetOwnerEx = 15;      // F_SETOWN_EX of linux/fcntl.h.

constexpr uint32_t kNoSuchCall = SECCOMP_RET_ERRNO | ENOSYS;

#define WARD_CALL(name, only, what_for) \
  { #name, SYS_##name, Only::only, what_for }

constexpr AllowedCall kWardsCalls[] = {
    // The round trip of a call.
    WARD_CALL(recvmsg, kAlways, "what clients and the owner send"),
    WARD_CALL(sendto, kAlways, "replies"),
    WARD_CALL(sendmsg, kAlways,
              "replies with descriptors, or in several parts"),
    WARD_CALL(futex, kAlways, "locks, threads that wait"),
    WARD_CALL(ppoll, kAlways, "waiting for clients, owner and signals"),
    // A client's coming and going.
    WARD_CALL(accept4, kAlways, "clients that come"),
    WARD_CALL(close, kAlways, "clients that leave"),
    WARD_CALL(epoll_ctl, kAlways, "connections that wait"),
#ifdef SYS_epoll_wait
    WARD_CALL(epoll_wait, kAlways, "the same"),
#else
    WARD_CALL(epoll_pwait, kAlways, "the same"),
#endif
    WARD_CALL(getsockopt, kAlways, "who a client is (SO_PEERCRED)"),
    WARD_CALL(setsockopt, kAlways, "how long a send may wait"),
    WARD_CALL(shutdown, kAlways, "connections that are cut"),
    WARD_CALL(fcntl, kNotOwner,
              "descriptors' flags and copies, seals of memory"),
#ifdef SYS_poll
    WARD_CALL(poll, kAlways, "whether there is news, without waiting"),
#endif
    // Files that are open, and memory.
    WARD_CALL(read, kAlways, "events, files in /proc and /sys"),
    WARD_CALL(write, kAlways, "events, the log"),
    WARD_CALL(fstat, kAlways, "what a descriptor is"),
    WARD_CALL(newfstatat, kAlways,
              "the same; whether the socket's name leads to it"),
    WARD_CALL(lseek, kAlways, "stdio at the process's end"),
    WARD_CALL(mmap, kAlways, "memory, threads' stacks"),
    WARD_CALL(munmap, kAlways, "the same"),
    WARD_CALL(mprotect, kAlways, "the same"),
    WARD_CALL(madvise, kAlways, "the same"),
    WARD_CALL(mremap, kAlways, "the same"),
    WARD_CALL(brk, kAlways, "the same"),
    WARD_CALL(memfd_create, kAlways, "large replies (`Bulk`)"),
    WARD_CALL(ftruncate, kAlways, "the same"),
    WARD_CALL(fallocate, kAlways, "the same"),
    WARD_CALL(pwrite64, kAlways, "the same, where a child has their memory"),
    WARD_CALL(fstatfs, kAlways, "the same"),
    WARD_CALL(sysinfo, kAlways, "the same: whether there is room"),
    // Threads, time and signals.
    WARD_CALL(clone, kThreads, "a thread for each client"),
    WARD_CALL(set_robust_list, kAlways, "a thread's begin"),
    WARD_CALL(rseq, kAlways, "the same"),
    WARD_CALL(prctl, kNaming, "a thread's name, and memory's"),
    WARD_CALL(exit, kAlways, "a thread's end"),
    WARD_CALL(gettid, kAlways, "a thread's number, for `abort`"),
    WARD_CALL(getpid, kAlways, "the process's"),
    WARD_CALL(geteuid, kAlways, "whether a client is the server's own user"),
    WARD_CALL(sched_yield, kAlways, "locks that spin"),
    WARD_CALL(sched_getaffinity, kAlways, "how many processors there are"),
    WARD_CALL(sched_getparam, kAlways,
              "priorities of threads that wait (Abseil's `Mutex`)"),
    WARD_CALL(sched_getscheduler, kAlways, "the same"),
    WARD_CALL(clock_gettime, kAlways,
              "the time, on machines where it takes a call"),
    WARD_CALL(clock_nanosleep, kAlways, "`absl::SleepFor`"),
    WARD_CALL(restart_syscall, kAlways,
              "waiting that a SIGCONT has interrupted"),
    WARD_CALL(rt_sigprocmask, kAlways, "signals that a thread lets come"),
    WARD_CALL(rt_sigaction, kAlways, "signals put back at the end"),
    WARD_CALL(rt_sigreturn, kAlways, "the end of a signal's handler"),
    WARD_CALL(tgkill, kThisProcess, "a thread that is woken; `abort`"),
    WARD_CALL(kill, kThisProcess,
              "the end, where the owner is gone before it is ready"),
    WARD_CALL(timer_settime, kAlways, "the time that it has to stop"),
    WARD_CALL(timerfd_create, kAlways,
              "calls of other servers (`AsyncClient`)"),
    WARD_CALL(timerfd_settime, kAlways, "the same"),
    // Beginning to serve, and the end.
    WARD_CALL(epoll_create1, kAlways, "connections that wait"),
    WARD_CALL(eventfd2, kAlways, "threads that are woken by an event"),
    WARD_CALL(prlimit64, kThisProcessOrZero,
              "how many descriptors it may have; how large stacks are"),
    WARD_CALL(getrandom, kAlways, "hash tables, memory"),
    WARD_CALL(openat, kReading,
              "/proc (`Owners`), /sys, the socket's directory"),
    WARD_CALL(getdents64, kAlways, "/proc (`Owners`)"),
#ifdef SYS_readlink
    WARD_CALL(readlink, kAlways, "/proc (`Owners`)"),
#else
    WARD_CALL(readlinkat, kAlways, "/proc (`Owners`)"),
#endif
    WARD_CALL(flock, kAlways, "the removal of the socket's name"),
#ifdef SYS_unlink
    WARD_CALL(unlink, kAlways, "the same"),
    WARD_CALL(rmdir, kAlways, "the same, with its private directory"),
#else
    WARD_CALL(unlinkat, kAlways, "the same, with its private directory"),
#endif
    WARD_CALL(ioctl, kAskingForTerminal, "stdio, before its first line"),
    WARD_CALL(writev, kAlways, "the C library's last words"),
    WARD_CALL(pread64, kAlways, "the stack of a failed check"),
    WARD_CALL(exit_group, kAlways, "the process's end"),
};

#undef WARD_CALL

void Append(std::vector<sock_filter>& filter, uint16_t code, uint32_t k,
            uint8_t if_true = 0, uint8_t if_false = 0) {
  filter.push_back({code, if_true, if_false, k});
}

constexpr uint16_t kLoad = BPF_LD | BPF_W | BPF_ABS;
constexpr uint16_t kIfEqual = BPF_JMP | BPF_JEQ | BPF_K;
constexpr uint16_t kIfGreater = BPF_JMP | BPF_JGT | BPF_K;
constexpr uint16_t kAnd = BPF_ALU | BPF_AND | BPF_K;
constexpr uint16_t kReturn = BPF_RET | BPF_K;

// The lower half of an argument, which is all that these have.
uint32_t Argument(int index) {
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
  return static_cast<uint32_t>(offsetof(seccomp_data, args) +
                               sizeof(uint64_t) * static_cast<size_t>(index));
}

// What comes behind the number's comparison: an end, for either outcome.
std::vector<sock_filter> Verdict(Only only, uint32_t denied) {
  std::vector<sock_filter> verdict;
  const auto let_through = [&verdict](uint32_t value) {
    Append(verdict, kIfEqual, value, 0, 1);
    Append(verdict, kReturn, SECCOMP_RET_ALLOW);
  };
  switch (only) {
    case Only::kAlways:
      Append(verdict, kReturn, SECCOMP_RET_ALLOW);
      return verdict;
    case Only::kNotOwner:
      Append(verdict, kLoad, Argument(1));
      Append(verdict, kIfEqual, F_SETOWN, 2, 0);
      Append(verdict, kIfEqual, kSetOwnerEx, 1, 0);
      Append(verdict, kReturn, SECCOMP_RET_ALLOW);
      break;
    case Only::kThreads:
      Append(verdict, kLoad, Argument(0));
      Append(verdict, kAnd, CLONE_THREAD);
      let_through(CLONE_THREAD);
      break;
    case Only::kThisProcess:
    case Only::kThisProcessOrZero:
      Append(verdict, kLoad, Argument(0));
      let_through(static_cast<uint32_t>(getpid()));
      if (only == Only::kThisProcessOrZero) let_through(0);
      break;
    case Only::kNaming:
      Append(verdict, kLoad, Argument(0));
      let_through(PR_SET_NAME);
      let_through(kSetVma);
      break;
    case Only::kAskingForTerminal:
      Append(verdict, kLoad, Argument(1));
      let_through(TCGETS);
      break;
    case Only::kReading:
      Append(verdict, kLoad, Argument(2));
      Append(verdict, kAnd, O_ACCMODE | O_CREAT | O_TRUNC | O_TMPFILE);
      let_through(O_RDONLY);
      // O_TMPFILE has the bit of O_DIRECTORY.
      let_through(O_DIRECTORY);
      break;
  }
  Append(verdict, kReturn, denied);
  return verdict;
}

}  // namespace

absl::Span<const AllowedCall> WardsCalls() { return kWardsCalls; }

absl::StatusOr<std::vector<sock_filter>> MakeFilter(
    const AllowedSystemCalls& allowed) {
  if (kArchitecture == 0) {
    return absl::UnimplementedError(
        "restrict the system calls of the process: ward has no list of its own "
        "for this machine, only for x86-64 and arm64; leave "
        "Confinement::system_calls unset");
  }
  const uint32_t denied =
      allowed.when_denied == AllowedSystemCalls::WhenDenied::kFail
          ? SECCOMP_RET_ERRNO | EPERM
          : SECCOMP_RET_KILL_PROCESS;
  std::vector<sock_filter> filter;
  Append(filter, kLoad, offsetof(seccomp_data, arch));
  Append(filter, kIfEqual, kArchitecture, 1, 0);
  Append(filter, kReturn, SECCOMP_RET_KILL_PROCESS);
  Append(filter, kLoad, offsetof(seccomp_data, nr));
  const auto add = [&](long number, Only only) {
    const std::vector<sock_filter> verdict = Verdict(only, denied);
    Append(filter, kIfEqual, static_cast<uint32_t>(number), 0,
           static_cast<uint8_t>(verdict.size()));
    filter.insert(filter.end(), verdict.begin(), verdict.end());
  };
  // The user's first: what he names he has without a condition.
  for (const long number : allowed.also) add(number, Only::kAlways);
  for (const AllowedCall& call : kWardsCalls) add(call.number, call.only);
  // Its flags are in memory, where a filter cannot look. The C library starts
  // threads by clone(2) where there is none.
  Append(filter, kIfEqual, SYS_clone3, 0, 1);
  Append(filter, kReturn, kNoSuchCall);
  Append(filter, kIfGreater, kNewestOfLinux59, 0, 1);
  Append(filter, kReturn, kNoSuchCall);
  Append(filter, kReturn, denied);
  if (filter.size() > BPF_MAXINSNS) {
    return absl::InvalidArgumentError(absl::StrCat(
        "restrict the system calls of the process: AllowedSystemCalls::"
        "also has ",
        allowed.also.size(), " calls, for which a filter has no room"));
  }
  return filter;
}

absl::Status RestrictSystemCalls(std::vector<sock_filter> filter) {
  const sock_fprog program = {static_cast<uint16_t>(filter.size()),
                              filter.data()};
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) {
    return SystemError(errno,
                       "restrict the system calls of the process (prctl, "
                       "PR_SET_SECCOMP; it takes a kernel with "
                       "CONFIG_SECCOMP_FILTER)");
  }
  return absl::OkStatus();
}

}  // namespace ward

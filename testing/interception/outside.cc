#include "ward/testing/interception/outside.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/interception/timers.h"
#include "ward/testing/interception/world.h"
#include "ward/testing/simulator/foreign_threads.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/scheduler.h"

WARD_REAL(waitid);

namespace ward::testing {
namespace {

struct Outside {
  bool is_asked = false;
};

template <typename Value>
Value OptionOf(int socket, int level, int option, Value none = {}) {
  Value value{};
  socklen_t size = sizeof(value);
  return getsockopt(socket, level, option, &value, &size) == 0 ? value : none;
}

bool IsAnonymous(const struct stat& about) {
  return (about.st_mode & S_IFMT) == 0;
}

// Or one that refers to the same file. Of those that have no inode of their own
// (eventfd(2), epoll(7)) only the kernel knows, and may not tell.
bool WasOpenBefore(const Scheduler& scheduler, int descriptor,
                   const struct stat& about) {
  const std::set<int>* const before = scheduler.open_before();
  if (before == nullptr || before->count(descriptor) > 0) return true;
  const auto is_same = [&](int other) {
    struct stat found {};
    if (fstat(other, &found) != 0 || found.st_dev != about.st_dev ||
        found.st_ino != about.st_ino) {
      return false;
    }
    return !IsAnonymous(about) || (TargetOf(other) == TargetOf(descriptor) &&
                                   syscall(SYS_kcmp, getpid(), getpid(),
                                           KCMP_FILE, descriptor, other) <= 0);
  };
  return std::any_of(before->begin(), before->end(), is_same);
}

// A file that an epoll watches, whatever becomes of the number by which it was
// asked to (epoll(7)).
struct Watched {
  int number = -1;
  // Of those that have the same number.
  unsigned place = 0;
  ino_t inode = 0;
};

// Those of `epoll` (proc(5)).
std::vector<Watched> WatchedBy(int epoll) {
  std::ifstream about(absl::StrCat("/proc/self/fdinfo/", epoll));
  std::vector<Watched> all;
  std::string word;
  while (about >> word) {
    Watched watched;
    std::string_view inode = word;
    if (word == "tfd:" && about >> watched.number) {
      watched.place = static_cast<unsigned>(
          std::count_if(all.begin(), all.end(), [&](const Watched& other) {
            return other.number == watched.number;
          }));
      all.push_back(watched);
    } else if (!all.empty() && absl::ConsumePrefix(&inode, "ino:")) {
      (void)absl::SimpleHexAtoi(inode, &all.back().inode);
    }
  }
  return all;
}

// Whether the descriptor `number` refers to it, or may. Where the kernel does
// not tell, all that have no inode of their own may but the epoll itself.
bool MayBe(int number, const Watched& watched, int epoll) {
  struct stat about {};
  if (number == epoll || fstat(number, &about) != 0 ||
      about.st_ino != watched.inode) {
    return false;
  }
  kcmp_epoll_slot slot{};
  slot.efd = static_cast<unsigned>(epoll);
  slot.tfd = static_cast<unsigned>(watched.number);
  slot.toff = watched.place;
  return syscall(SYS_kcmp, getpid(), getpid(), KCMP_EPOLL_TFD, number, &slot) <=
         0;
}

// As proc(5) has it: "OFDLCK", "WRITE", "0", "EOF".
struct FileLock {
  std::string kind;
  std::string mode;
  std::string begin;
  std::string end;
};

// Those that were made by `descriptor`, or a duplicate.
std::vector<FileLock> LocksOf(int descriptor) {
  std::ifstream about(absl::StrCat("/proc/self/fdinfo/", descriptor));
  std::vector<FileLock> locks;
  for (std::string word; about >> word;) {
    if (word != "lock:") continue;
    FileLock lock;
    std::string skipped;
    about >> skipped >> lock.kind >> skipped >> lock.mode >> skipped >>
        skipped >> lock.begin >> lock.end;
    if (about) locks.push_back(std::move(lock));
  }
  return locks;
}

// Whether the run has one on the same file as `file`, but not by that, of which
// `is_asked_for`.
bool HasLock(const Scheduler& scheduler, int file,
             absl::FunctionRef<bool(const FileLock&)> is_asked_for) {
  struct stat about {};
  const std::optional<std::set<int>> numbers = OpenNumbers();
  if (fstat(file, &about) != 0 || !numbers.has_value()) return false;
  return std::any_of(numbers->begin(), numbers->end(), [&](int number) {
    struct stat found {};
    if (fstat(number, &found) != 0 || found.st_dev != about.st_dev ||
        found.st_ino != about.st_ino ||
        syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, number, file) <= 0 ||
        WasOpenBefore(scheduler, number, found)) {
      return false;
    }
    const std::vector<FileLock> locks = LocksOf(number);
    return std::any_of(locks.begin(), locks.end(), is_asked_for);
  });
}

int StateOf(int socket) {
  return OptionOf<tcp_info>(socket, IPPROTO_TCP, TCP_INFO).tcpi_state;
}

bool IsTcp(int socket) {
  const int domain = OptionOf(socket, SOL_SOCKET, SO_DOMAIN, -1);
  return (domain == AF_INET || domain == AF_INET6) &&
         OptionOf(socket, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP;
}

in_port_t PortOf(const sockaddr_storage& name) {
  // At the same place in both (ipv6(7)).
  sockaddr_in found;
  std::memcpy(&found, &name, sizeof(found));
  return found.sin_port;
}

// Whether all that was sent has arrived, and the peer is a socket of this
// process, be it one that was not accepted yet.
bool IsOurs(int connection) {
  sockaddr_storage peer{};
  socklen_t size = sizeof(peer);
  auto* const address = reinterpret_cast<sockaddr*>(&peer);
  if (getpeername(connection, address, &size) != 0 ||
      IsElsewhere(address, size)) {
    return false;
  }
  const std::optional<std::set<int>> numbers = OpenNumbers();
  if (!numbers.has_value()) return false;
  bool has_peer = false;
  for (const int other : *numbers) {
    if (!IsTcp(other)) continue;
    int unsent = 0;
    const int state = StateOf(other);
    if (state == TCP_SYN_SENT || state == TCP_SYN_RECV ||
        (state != TCP_LISTEN && ioctl(other, TIOCOUTQ, &unsent) == 0 &&
         unsent > 0)) {
      return false;
    }
    sockaddr_storage own{};
    size = sizeof(own);
    getsockname(other, reinterpret_cast<sockaddr*>(&own), &size);
    has_peer |= PortOf(own) == PortOf(peer);
  }
  return has_peer;
}

// Of a Unix socket: of who listens, or has made the pair.
bool HasOtherPeer(int socket) {
  const pid_t peer =
      OptionOf<ucred>(socket, SOL_SOCKET, SO_PEERCRED, {-1, 0, 0}).pid;
  if (peer != 0) return peer != getpid();
  // It is not connected, or is one of datagrams, which know no peer's process,
  // or this pid namespace does not.
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  return OptionOf(socket, SOL_SOCKET, SO_TYPE, -1) == SOCK_DGRAM ||
         getpeername(socket, reinterpret_cast<sockaddr*>(&name), &size) == 0;
}

// The kernel serves what is asked by these, as an eventfd.
bool HasRings(const std::set<int>& numbers) {
  return std::any_of(numbers.begin(), numbers.end(), [](int number) {
    return TargetOf(number) == "anon_inode:[io_uring]";
  });
}

bool OthersMayServeSocket(int socket) {
  switch (OptionOf(socket, SOL_SOCKET, SO_DOMAIN, -1)) {
    case AF_UNIX:
      return HasOtherPeer(socket);
    case AF_INET:
    case AF_INET6:
      return !IsTcp(socket) ||
             (StateOf(socket) != TCP_LISTEN && !IsOurs(socket));
    default:
      return true;
  }
}

// Of a Unix socket. What follows a path is none of it; a name that begins with
// a zero is all that there is (unix(7)).
std::string_view NameOf(const sockaddr* address, socklen_t size) {
  constexpr size_t kBegin = offsetof(sockaddr_un, sun_path);
  if (size <= kBegin) return "";
  const std::string_view name(reinterpret_cast<const char*>(address) + kBegin,
                              size - kBegin);
  return name.front() == '\0' ? name : name.substr(0, name.find('\0'));
}

// `epolls` are those that were looked at, or are being: where the kernel does
// not tell, each may seem to watch the other.
bool OthersMayServe(const Scheduler& scheduler, int descriptor,
                    std::set<int>& epolls) {
  struct stat about {};
  // It says so at once.
  if (fstat(descriptor, &about) != 0) return false;
  const std::optional<std::set<int>> numbers = OpenNumbers();
  if (!numbers.has_value() || WasOpenBefore(scheduler, descriptor, about)) {
    return true;
  }
  const std::string target = TargetOf(descriptor);
  if (S_ISFIFO(about.st_mode)) return !absl::StartsWith(target, "pipe:");
  if (S_ISSOCK(about.st_mode)) return OthersMayServeSocket(descriptor);
  if (target == "anon_inode:[eventpoll]") {
    if (!epolls.insert(descriptor).second) return false;
    const std::vector<Watched> all = WatchedBy(descriptor);
    return std::any_of(all.begin(), all.end(), [&](const Watched& watched) {
      bool is_open = false;
      for (const int number : *numbers) {
        if (!MayBe(number, watched, descriptor)) continue;
        if (OthersMayServe(scheduler, number, epolls)) return true;
        is_open = true;
      }
      // Others have it.
      return !is_open;
    });
  }
  if (target == "anon_inode:[eventfd]") return HasRings(*numbers);
  return target != "anon_inode:[signalfd]";
}

std::string KindOfSocket(int socket) {
  const bool listens = OptionOf(socket, SOL_SOCKET, SO_ACCEPTCONN, 0) != 0;
  const int domain = OptionOf(socket, SOL_SOCKET, SO_DOMAIN, -1);
  return absl::StrCat("a ", listens ? "listening " : "",
                      domain == AF_UNIX ? "Unix "
                      : IsTcp(socket)   ? "TCP "
                                        : "",
                      "socket");
}

}  // namespace

void AskOutside(Scheduler& scheduler) {
  const NoSchedulingPoints quiet;
  scheduler.Kept<Outside>().is_asked = true;
}

void MeetPeer(Scheduler& scheduler, int socket) {
  if (OptionOf(socket, SOL_SOCKET, SO_DOMAIN, -1) == AF_UNIX &&
      HasOtherPeer(socket)) {
    AskOutside(scheduler);
  }
}

bool OthersMayAct(Scheduler& scheduler) {
  if (scheduler.Kept<Outside>().is_asked || !ForeignThreads().empty()) {
    return true;
  }
  siginfo_t about{};
  return real_waitid(P_ALL, 0, &about, WEXITED | WNOHANG | WNOWAIT | __WALL) ==
             0 ||
         errno != ECHILD;
}

bool OthersMayServe(Scheduler& scheduler, int descriptor) {
  std::set<int> epolls;
  return OthersMayServe(scheduler, descriptor, epolls);
}

bool IsInTheWay(Scheduler& scheduler, int file, bool exclusive) {
  return HasLock(scheduler, file, [&](const FileLock& lock) {
    return lock.kind == "FLOCK" && (exclusive || lock.mode == "WRITE");
  });
}

bool IsInTheWay(Scheduler& scheduler, int file, const struct flock& lock) {
  // Of another process, which F_GETLK names; of an open file it does not.
  const bool is_of_process = lock.l_pid == getpid();
  if (lock.l_type == F_UNLCK || (lock.l_pid != -1 && !is_of_process)) {
    return false;
  }
  const std::string begin = absl::StrCat(lock.l_start);
  const std::string end =
      lock.l_len == 0 ? "EOF" : absl::StrCat(lock.l_start + lock.l_len - 1);
  return HasLock(scheduler, file, [&](const FileLock& own) {
    return own.kind == (is_of_process ? "POSIX" : "OFDLCK") &&
           own.begin == begin && own.end == end &&
           own.mode == (lock.l_type == F_WRLCK ? "WRITE" : "READ");
  });
}

bool ListensAt(const sockaddr* address, socklen_t size) {
  const NoSchedulingPoints quiet;
  const std::optional<std::set<int>> numbers = OpenNumbers();
  if (!numbers.has_value()) return false;
  return std::any_of(numbers->begin(), numbers->end(), [&](int number) {
    sockaddr_storage found{};
    auto* const own = reinterpret_cast<sockaddr*>(&found);
    socklen_t own_size = sizeof(found);
    return OptionOf(number, SOL_SOCKET, SO_ACCEPTCONN, 0) != 0 &&
           getsockname(number, own, &own_size) == 0 &&
           own->sa_family == AF_UNIX &&
           NameOf(own, own_size) == NameOf(address, size);
  });
}

std::string KindOf(Scheduler& scheduler, int descriptor) {
  struct stat about {};
  if (fstat(descriptor, &about) != 0) return "which is not open";
  if (S_ISFIFO(about.st_mode)) {
    const bool reads = (fcntl(descriptor, F_GETFL) & O_ACCMODE) == O_RDONLY;
    return reads ? "a pipe's reading end" : "a pipe's writing end";
  }
  if (S_ISSOCK(about.st_mode)) return KindOfSocket(descriptor);
  if (IsTimer(scheduler, descriptor)) return "a timer";
  std::string target = TargetOf(descriptor);
  if (target == "anon_inode:[eventfd]") return "an eventfd";
  if (target == "anon_inode:[signalfd]") return "a signalfd";
  if (target != "anon_inode:[eventpoll]") return target;
  const std::vector<Watched> watched = WatchedBy(descriptor);
  if (watched.empty()) return "an epoll of nothing";
  const auto add = [](std::string* text, const Watched& one) {
    absl::StrAppend(text, one.number);
  };
  return absl::StrCat("an epoll of ", absl::StrJoin(watched, ", ", add));
}

}  // namespace ward::testing

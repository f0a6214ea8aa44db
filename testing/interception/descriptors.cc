// What waits for real descriptors: read(2), write(2) and their relatives, which
// other simulated threads may serve.
//
// A call that would have to wait does so in the schedule, until poll(2) says
// that it need not. What takes several waits, such as to write more than there
// is room for, is made in pieces. Who has written something, or unlocked a
// file, is at a point again before it goes on: others may have seen that. Calls
// that the C library makes itself, as of a FILE, are not seen.

// Or the C library's headers define some of them, inline.
#undef _FORTIFY_SOURCE

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string_view>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/testing/interception/faults.h"
#include "ward/testing/interception/held_files.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/outside.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/interception/signals.h"
#include "ward/testing/interception/world.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

// Since version 2.35 of the C library.
// NOLINTNEXTLINE(readability-redundant-declaration)
extern "C" int epoll_pwait2(int epoll, epoll_event* events, int most,
                            const timespec* limit, const sigset_t* mask);

WARD_REAL(read);
WARD_REAL(readv);
WARD_REAL(recv);
WARD_REAL(recvfrom);
WARD_REAL(recvmsg);
WARD_REAL(write);
WARD_REAL(writev);
WARD_REAL(send);
WARD_REAL(sendto);
WARD_REAL(sendmsg);
WARD_REAL(connect);
WARD_REAL(setsockopt);
WARD_REAL(socketpair);
WARD_REAL(accept);
WARD_REAL(accept4);
WARD_REAL(poll);
WARD_REAL(ppoll);
WARD_REAL(select);
WARD_REAL(pselect);
WARD_REAL(epoll_ctl);
WARD_REAL(epoll_wait);
WARD_REAL(epoll_pwait);
WARD_REAL(epoll_pwait2);
WARD_REAL(flock);
WARD_REAL(wait);
WARD_REAL(wait3);
WARD_REAL(wait4);
WARD_REAL(waitid);
WARD_REAL(waitpid);

namespace ward::testing {
namespace {

// They read a third argument, as the C library's do, whether there is one.
using RealFcntl = Real<int, int, int, void*>;
RealFcntl real_fcntl("fcntl", nullptr);
RealFcntl real_fcntl64("fcntl64", nullptr);
Real<int, int, unsigned long, void*> real_ioctl("ioctl", nullptr);

constexpr const char* kWriting = "writing a descriptor";

// What a call has returned that others may have seen.
template <typename Result>
Result Done(Result result, const char* doing) {
  if (result < 0) return result;
  if (Scheduler* const scheduler = Intercepting()) {
    scheduler->PointAfter(doing, &kDescriptors);
  }
  return result;
}

// `look` is a call of the kernel that has no time to wait, and that a signal
// still ends if it finds nothing (poll(2)): one from outside the schedule, as
// the watchdog's are. It has said nothing yet.
int Look(absl::FunctionRef<int()> look) { return TEMP_FAILURE_RETRY(look()); }

bool IsReady(int descriptor, short events) {
  pollfd polled{descriptor, events, 0};
  return Look([&] { return real_poll(&polled, 1, 0); }) != 0;
}

bool IsUnix(int socket) {
  int domain = 0;
  socklen_t size = sizeof(domain);
  return getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
         domain == AF_UNIX;
}

bool IsOpen(int descriptor) {
  return real_fcntl(descriptor, F_GETFD, nullptr) >= 0;
}

// Whether one piece after the other comes to the same as all at once.
bool IsStream(int descriptor) {
  struct stat found;
  if (fstat(descriptor, &found) != 0) return false;
  int type = 0;
  socklen_t size = sizeof(type);
  return S_ISFIFO(found.st_mode) ||
         (S_ISSOCK(found.st_mode) &&
          getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
          type == SOCK_STREAM);
}

// What SO_RCVTIMEO or SO_SNDTIMEO say (socket(7)).
absl::Duration LimitOfSocket(int descriptor, int option) {
  timeval limit{};
  socklen_t size = sizeof(limit);
  const bool none =
      getsockopt(descriptor, SOL_SOCKET, option, &limit, &size) != 0 ||
      (limit.tv_sec == 0 && limit.tv_usec == 0);
  return none ? absl::InfiniteDuration() : absl::DurationFromTimeval(limit);
}

// By the number of one of its sockets, who is connected to whom by
// socketpair(2), which nothing says later.
class SocketPairs {
 public:
  void Add(ino_t one, ino_t other) { first_[one] = first_[other] = one; }
  // 0: it is not of a pair.
  ino_t FirstOf(ino_t socket) const {
    const auto found = first_.find(socket);
    return found == first_.end() ? 0 : found->second;
  }

 private:
  std::map<ino_t, ino_t> first_;
};

size_t HashOf(const sockaddr_storage& name, socklen_t size) {
  return std::hash<std::string_view>{}(
      {reinterpret_cast<const char*>(&name), size});
}

// What the ends of a connection have in common: both names, whichever is its
// own. 0: it has none.
size_t NamesOf(int socket) {
  sockaddr_storage own{};
  sockaddr_storage peer{};
  socklen_t own_size = sizeof(own);
  socklen_t peer_size = sizeof(peer);
  const auto address = [](sockaddr_storage& name) {
    return reinterpret_cast<sockaddr*>(&name);
  };
  if (getsockname(socket, address(own), &own_size) != 0 ||
      getpeername(socket, address(peer), &peer_size) != 0 ||
      std::max(own_size, peer_size) <= sizeof(sa_family_t)) {
    return 0;
  }
  return HashOf(own, own_size) + HashOf(peer, peer_size);
}

// The pipe, connection or event that a descriptor refers to, which its
// duplicates and its other end do, too, as an object of the schedule: an
// address at which nothing is. Null: it is not known. Clients of one Unix
// socket, who have no names, are one; so are, of other descriptors that wait,
// those that have had one number.
const void* ConnectionOf(Scheduler& scheduler, int descriptor) {
  const NoSchedulingPoints quiet;
  struct stat about {};
  if (fstat(descriptor, &about) != 0) return nullptr;
  uint64_t number = 0;
  if (S_ISFIFO(about.st_mode)) {
    number = about.st_ino;
  } else if (S_ISSOCK(about.st_mode)) {
    number = scheduler.Kept<SocketPairs>().FirstOf(about.st_ino);
    if (number == 0) number = NamesOf(descriptor);
  } else if ((about.st_mode & S_IFMT) == 0) {
    // All have the same inode.
    number = static_cast<uint64_t>(descriptor) + 1;
  }
  if (number == 0) return nullptr;
  constexpr uint64_t kNowhere = uint64_t{1} << 63;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): nobody looks there.
  return reinterpret_cast<const void*>(kNowhere | number << 4 |
                                       (about.st_mode & S_IFMT) >> 12);
}

// A scheduling point before something is done with one of them.
void PointAt(Scheduler& scheduler, int descriptor, const char* doing) {
  const void* const connection = ConnectionOf(scheduler, descriptor);
  if (connection == nullptr) {
    scheduler.Point(doing, &kDescriptors);
  } else {
    scheduler.Point(doing, connection, Use::kWrite, &kDescriptors);
  }
}

// What a call reads or writes: a descriptor, and, once the call has waited for
// it or done a part of its work, the file that this was then, see HeldFiles;
// and until when.
class CalledFile {
 public:
  explicit CalledFile(int descriptor) : descriptor_(descriptor) {}

  int descriptor() const { return descriptor_; }

  // Until the end of the call.
  const HeldFiles& Hold(Scheduler& scheduler) {
    if (!held_.has_value()) {
      held_.emplace(scheduler, absl::MakeSpan(&descriptor_, 1));
    }
    return *held_;
  }

  // Of a wait that begins. What `limit` says, which is SO_RCVTIMEO or
  // SO_SNDTIMEO, is for the whole call; but a Unix socket's writer has it for
  // each piece.
  absl::Time Deadline(const Scheduler& scheduler, int limit) {
    if (!deadline_.has_value() ||
        (limit == SO_SNDTIMEO && IsUnix(descriptor_))) {
      deadline_ = scheduler.now() + LimitOfSocket(descriptor_, limit);
    }
    return *deadline_;
  }

 private:
  int descriptor_;
  std::optional<HeldFiles> held_;
  std::optional<absl::Time> deadline_;
};

// Whether a read would not wait that takes `least` bytes at once; 0: what
// poll(2) says, who on TCP waits for SO_RCVLOWAT, however few are asked for.
bool HasInput(int descriptor, size_t least) {
  if (least == 0) return IsReady(descriptor, POLLIN);
  int come = 0;
  return IsReady(descriptor, POLLRDHUP) ||
         real_ioctl(descriptor, FIONREAD, &come) != 0 ||
         static_cast<size_t>(come) >= least;
}

// Whether a read of a socket asks for what it does not wait for (tcp(7),
// ip(7)).
bool AsksForWhatIsThere(int socket, int flags) {
  return ((flags & MSG_OOB) != 0 && IsStream(socket)) ||
         ((flags & MSG_ERRQUEUE) != 0 && !IsUnix(socket));
}

// A scheduling point, and a wait unless the call itself would not wait. False
// if the descriptor's own limit has come, or a signal.
bool Await(Scheduler& scheduler, CalledFile& file, short events, size_t least,
           int flags, int limit, const char* doing) {
  PointAt(scheduler, file.descriptor(), doing);
  if ((flags & MSG_DONTWAIT) != 0 ||
      (events == POLLIN && AsksForWhatIsThere(file.descriptor(), flags))) {
    return true;
  }
  const int status = fcntl(file.descriptor(), F_GETFL);
  if (status < 0 || (status & O_NONBLOCK) != 0) return true;
  const auto is_there = [&] {
    return events == POLLIN ? HasInput(file.descriptor(), least)
                            : IsReady(file.descriptor(), events);
  };
  if (is_there()) return true;
  const absl::Time deadline = file.Deadline(scheduler, limit);
  // One with a limit is not started anew, whatever sigaction(2) has
  // (signal(7)).
  const auto interruption = deadline == absl::InfiniteFuture()
                                ? &Interruptions::without_restart
                                : &Interruptions::all;
  if (Interrupts(scheduler, interruption)) {
    errno = EINTR;
    return false;
  }
  const HeldFiles& held = file.Hold(scheduler);
  const Interruptions& now = scheduler.interruptions();
  const int before = now.*interruption;
  bool is_ready = false;
  scheduler.AwaitWorld(
      doing,
      [&] {
        is_ready = is_there();
        return is_ready || now.*interruption != before;
      },
      deadline, &held);
  if (!is_ready) errno = now.*interruption != before ? EINTR : EAGAIN;
  return is_ready;
}

using Call = absl::FunctionRef<ssize_t(int descriptor)>;

ssize_t CallWithInput(CalledFile& file, size_t least, int flags, Call call) {
  Scheduler* const scheduler = Intercepting();
  const bool goes_on =
      scheduler == nullptr || Await(*scheduler, file, POLLIN, least, flags,
                                    SO_RCVTIMEO, "reading a descriptor");
  Order::Acquire(&kDescriptors);
  return goes_on ? call(file.descriptor()) : -1;
}

ssize_t CallWithInput(int descriptor, Call call) {
  CalledFile file(descriptor);
  return CallWithInput(file, 0, 0, call);
}

ssize_t CallWithRoom(CalledFile& file, int flags, Call call) {
  Scheduler* const scheduler = Intercepting();
  const bool goes_on =
      scheduler == nullptr ||
      Await(*scheduler, file, POLLOUT, 0, flags, SO_SNDTIMEO, kWriting);
  Order::Release(&kDescriptors);
  return goes_on ? call(file.descriptor()) : -1;
}

// As connect(2) that waits: 1, or -1 and why not; 0: it is not known yet.
int IsConnected(int socket) {
  if (!IsReady(socket, POLLOUT)) return 0;
  int error = 0;
  socklen_t size = sizeof(error);
  if (getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return -1;
  return error == 0 ? 1 : Failed(error);
}

using Buffers = absl::InlinedVector<iovec, 8>;

// 0 if there is none, or the call is to say what is wrong with them.
size_t SizeOf(const iovec* buffers, size_t count) {
  if (buffers == nullptr || count > IOV_MAX) return 0;
  size_t size = 0;
  for (size_t i = 0; i < count; ++i) size += buffers[i].iov_len;
  return size;
}

Buffers PartOf(const iovec* buffers, size_t count, size_t from, size_t size) {
  Buffers part;
  for (size_t i = 0; i < count && size > 0; ++i) {
    const size_t skipped = std::min(from, buffers[i].iov_len);
    from -= skipped;
    const size_t taken = std::min(size, buffers[i].iov_len - skipped);
    if (taken == 0) continue;
    part.push_back({static_cast<char*>(buffers[i].iov_base) + skipped, taken});
    size -= taken;
  }
  return part;
}

// What a message has along of that type (unix(7)), or null.
const cmsghdr* FindAlong(msghdr message, int type) {
  cmsghdr* along = CMSG_FIRSTHDR(&message);
  while (along != nullptr &&
         (along->cmsg_level != SOL_SOCKET || along->cmsg_type != type)) {
    along = CMSG_NXTHDR(&message, along);
  }
  return along;
}

// Who has sent it; pid -1: it does not say so.
ucred SenderOf(const msghdr& message) {
  ucred sender{-1, 0, 0};
  const cmsghdr* const said = FindAlong(message, SCM_CREDENTIALS);
  if (said != nullptr) std::memcpy(&sender, CMSG_DATA(said), sizeof(sender));
  return sender;
}

// Whether who has sent `message` has sent what comes next there.
bool ComesFromSame(int socket, const msghdr& message) {
  const ucred sender = SenderOf(message);
  if (sender.pid < 0) return true;
  char byte;
  iovec buffer{&byte, 1};
  // No room for descriptors, which would be opened.
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred))> control;
  msghdr next{};
  next.msg_iov = &buffer;
  next.msg_iovlen = 1;
  next.msg_control = control.data();
  next.msg_controllen = control.size();
  if (real_recvmsg(socket, &next, MSG_PEEK | MSG_DONTWAIT) <= 0) return true;
  const ucred found = SenderOf(next);
  return found.pid == sender.pid && found.uid == sender.uid &&
         found.gid == sender.gid;
}

// Descriptors have come, or are about to be sent, by `socket`.
void ExchangeDescriptors(int socket) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler != nullptr && OthersMayServe(*scheduler, socket)) {
    AskOutside(*scheduler);
  }
}

// Whether this process has set SO_RCVLOWAT anywhere.
std::atomic<bool> has_least{false};

// How many bytes a read of a stream waits for, if not for whatever there is: 0.
size_t WaitsFor(int descriptor, size_t size, int flags) {
  const bool all = (flags & MSG_WAITALL) != 0;
  if (size == 0 || (!all && !has_least)) return 0;
  int least = 0;
  socklen_t size_of_least = sizeof(least);
  if (getsockopt(descriptor, SOL_SOCKET, SO_RCVLOWAT, &least, &size_of_least) !=
          0 ||
      (!all && least <= 1) || !IsStream(descriptor)) {
    return 0;
  }
  return all ? size : std::min(size, static_cast<size_t>(least));
}

// Of a call that reads or writes nothing, which a stream does not wait for,
// other than recv(2).
int FlagsFor(int descriptor, size_t size) {
  return size == 0 && IsStream(descriptor) ? MSG_DONTWAIT : 0;
}

// Whether a socket that is none of Unix has an error, and nothing before that.
bool HasOnlyAnError(int socket) {
  pollfd polled{socket, POLLIN, 0};
  int come = 0;
  return !IsUnix(socket) &&
         Look([&] { return real_poll(&polled, 1, 0); }) > 0 &&
         (polled.revents & POLLERR) != 0 &&
         real_ioctl(socket, FIONREAD, &come) == 0 && come == 0;
}

// Reads with `read_some`: what there is; or, with MSG_WAITALL, all, and with
// SO_RCVLOWAT as much as that, which never waits in the kernel: in pieces, of
// which one is the last if `ends` says so then.
ssize_t ReadInSchedule(int descriptor, size_t size, int flags,
                       absl::FunctionRef<ssize_t(int descriptor, size_t from,
                                                 size_t size, int flags)>
                           read_some,
                       const bool* ends = nullptr) {
  const bool peeks = (flags & MSG_PEEK) != 0;
  const size_t awaited =
      Intercepting() == nullptr ? 0 : WaitsFor(descriptor, size, flags);
  const bool in_pieces = awaited > 0 && !peeks;
  // Who peeks takes nothing, and so waits until all is there; on a Unix socket,
  // until something is.
  const size_t least =
      in_pieces || (awaited > 0 && IsUnix(descriptor)) ? 1 : awaited;
  const int flags_of_piece =
      in_pieces ? (flags & ~MSG_WAITALL) | MSG_DONTWAIT : flags;
  CalledFile file(descriptor);
  size_t got = 0;
  do {
    const ssize_t result = CallWithInput(file, least, flags, [&](int number) {
      // It stays there for the next call, as in the kernel (tcp(7)).
      if (got > 0 && HasOnlyAnError(number)) return ssize_t{0};
      return read_some(number, got,
                       in_pieces ? size - got
                       : peeks   ? size
                                 : CutInput(number, size),
                       flags_of_piece);
    });
    if (peeks) {
      KeepWhole(file.descriptor(), result);
    } else {
      HasRead(file.descriptor(), result);
    }
    if (result <= 0) return got > 0 ? static_cast<ssize_t>(got) : result;
    got += static_cast<size_t>(result);
    if (!in_pieces || got >= awaited || (ends != nullptr && *ends)) break;
    file.Hold(*Intercepting());
  } while (true);
  return static_cast<ssize_t>(got);
}

// Writes all with `write_some`, in pieces that there is room for: a pipe has it
// for so much when poll(2) says that it has any (pipe(7)), and so has a socket.
ssize_t WriteInSchedule(
    int descriptor, size_t size, int flags,
    absl::FunctionRef<ssize_t(int descriptor, size_t from, size_t size)>
        write_some) {
  Scheduler* const scheduler = Intercepting();
  const bool whole = scheduler == nullptr || !IsStream(descriptor);
  CalledFile file(descriptor);
  size_t written = 0;
  do {
    const size_t left = size - written;
    const ssize_t result = CallWithRoom(file, flags, [&](int number) {
      return write_some(number, written,
                        whole ? left : std::min<size_t>(left, PIPE_BUF));
    });
    if (result < 0 && written == 0) return -1;
    if (result < 0) break;
    written += static_cast<size_t>(result);
    if (result == 0 || whole || written == size) break;
    file.Hold(*scheduler);
    const bool must_wait = !IsReady(file.descriptor(), POLLOUT);
    if (CutsOutput(*scheduler, file.descriptor(), must_wait)) break;
  } while (true);
  return Done(static_cast<ssize_t>(written), kWriting);
}

struct Wait {
  // It has their files from its scheduling point on.
  absl::Span<int> descriptors;
  absl::Duration limit = absl::InfiniteDuration();
  // The signals that it blocks; null: those that are blocked.
  const sigset_t* mask = nullptr;
  // Counts those that end it (signal(7)).
  int Interruptions::*interruption = &Interruptions::all;
  // What it waits for may come from outside, whatever these are.
  bool is_of_others = false;
  // Or if this says so of one of them; see HeldFiles.
  const OthersMay* others_may = nullptr;
  // Whether there may be something to find, which it leaves there: whoever of
  // several goes on first finds it. Null: the call leaves what it finds.
  const absl::FunctionRef<bool()>* is_there = nullptr;
};

// `look` returns what the call returns, without waiting: 0 if it would. Its
// last look is when its time has come.
int LookInSchedule(
    Scheduler& scheduler, const char* doing, const Wait& wait,
    absl::FunctionRef<int(const HeldFiles& files, bool is_last)> look) {
  scheduler.Point(doing, &kDescriptors);
  const HeldFiles files(scheduler, wait.descriptors, wait.others_may);
  const absl::Time deadline = scheduler.now() + wait.limit;
  const auto interruption = wait.interruption;
  const WaitingMask waiting(wait.mask);
  const Interruptions& now = scheduler.interruptions();
  const int before = now.*interruption;
  int result = 0;
  int error = 0;
  const auto look_once = [&] {
    result = Look([&] { return look(files, scheduler.now() >= deadline); });
    error = errno;
  };
  const auto is_over = [&] {
    if (result == 0 && wait.is_there == nullptr) look_once();
    if (result == 0 && wait.is_there != nullptr && (*wait.is_there)()) {
      return true;
    }
    if (result == 0 &&
        (now.*interruption != before || waiting.HasLetThrough())) {
      result = -1;
      error = EINTR;
    }
    return result != 0;
  };
  if (wait.is_there != nullptr) look_once();
  if (scheduler.has_faults() && wait.limit > absl::ZeroDuration() &&
      !is_over() && Interrupts(scheduler, interruption, wait.mask)) {
    return Failed(EINTR);
  }
  while (true) {
    scheduler.AwaitWorld(doing, is_over, deadline,
                         wait.is_of_others ? nullptr : &files);
    if (result != 0 || wait.is_there == nullptr) break;
    look_once();
    // Another one may have been there first.
    if (result != 0 || scheduler.now() >= deadline) break;
  }
  Order::Acquire(&kDescriptors);
  if (result < 0 && error == EINTR) waiting.Deliver();
  errno = error;
  return result;
}

int AwaitEvents(Scheduler& scheduler, int epoll, epoll_event* events, int most,
                absl::Duration limit, const sigset_t* mask) {
  const auto is_one_ready = [&] { return IsReady(epoll, POLLIN); };
  const absl::FunctionRef<bool()> is_there = is_one_ready;
  Wait wait{absl::MakeSpan(&epoll, 1), limit, mask};
  wait.is_there = &is_there;
  return LookInSchedule(
      scheduler, "waiting at an epoll", wait, [&](const HeldFiles&, bool) {
        return real_epoll_pwait(epoll, events, most, 0, nullptr);
      });
}

// What a call that polls waits for; most have a few.
using Polled = absl::InlinedVector<int, 8>;

// Whether it looks at its descriptors by their numbers. The kernel does so when
// the call begins, when one of the files has woken it, and when its time has
// come: what was closed meanwhile is closed then, and not before.
bool IsWoken(const HeldFiles& files, bool is_last,
             absl::FunctionRef<bool()> is_one_ready) {
  return is_last || !files.is_changed() || is_one_ready();
}

int PollInSchedule(Scheduler& scheduler, pollfd* polled, nfds_t count,
                   absl::Duration limit, const sigset_t* mask) {
  // None of what is not there: the call itself says so.
  const auto asked = absl::MakeConstSpan(polled, polled == nullptr ? 0 : count);
  Polled numbers;
  for (const pollfd& one : asked) numbers.push_back(one.fd);
  const auto is_one_ready = [&] {
    for (size_t i = 0; i < asked.size(); ++i) {
      if (IsReady(numbers[i], asked[i].events)) return true;
    }
    return false;
  };
  return LookInSchedule(scheduler, "polling descriptors",
                        {absl::MakeSpan(numbers), limit, mask},
                        [&](const HeldFiles& files, bool is_last) {
                          return IsWoken(files, is_last, is_one_ready)
                                     ? real_poll(polled, count, 0)
                                     : 0;
                        });
}

// For reading, for writing and what is exceptional, as select(2) has them.
using Sets = std::array<fd_set*, 3>;
constexpr short kEventsOfSets[] = {POLLIN, POLLOUT, POLLPRI};

int SelectInSchedule(Scheduler& scheduler, int count, Sets sets,
                     absl::Duration limit, const sigset_t* mask) {
  // They are asked for and answered in the same sets.
  std::array<fd_set, 3> wanted{};
  Polled numbers;
  Polled events;
  for (size_t i = 0; i < sets.size(); ++i) {
    if (sets[i] == nullptr) continue;
    wanted[i] = *sets[i];
    for (int fd = 0; fd < std::min(count, FD_SETSIZE); ++fd) {
      if (!FD_ISSET(fd, sets[i])) continue;
      numbers.push_back(fd);
      events.push_back(kEventsOfSets[i]);
    }
  }
  const Polled asked = numbers;
  return LookInSchedule(
      scheduler, "selecting descriptors",
      {absl::MakeSpan(numbers), limit, mask},
      [&](const HeldFiles& files, bool is_last) {
        const bool is_woken = IsWoken(files, is_last, [&] {
          for (size_t i = 0; i < numbers.size(); ++i) {
            if (IsReady(numbers[i], static_cast<short>(events[i]))) return true;
          }
          return false;
        });
        if (!is_woken) return 0;
        for (size_t i = 0; i < sets.size(); ++i) {
          if (sets[i] != nullptr) *sets[i] = wanted[i];
        }
        // Those that were closed meanwhile are passed over.
        for (size_t i = 0; i < numbers.size(); ++i) {
          if (numbers[i] == asked[i] || IsOpen(asked[i])) continue;
          for (fd_set* const set : sets) {
            if (set != nullptr) FD_CLR(asked[i], set);
          }
        }
        const timespec now = {0, 0};
        return real_pselect(count, sets[0], sets[1], sets[2], &now, nullptr);
      });
}

// `look` returns which child has ended, without waiting: 0 if none has.
pid_t AwaitChild(absl::FunctionRef<pid_t()> look, bool without_waiting) {
  Scheduler& scheduler = *Intercepting();
  pid_t ended = without_waiting ? look() : GiveTimeToChild(scheduler, look);
  if (ended == 0 && !without_waiting) {
    Wait wait;
    wait.interruption = &Interruptions::without_restart;
    wait.is_of_others = true;
    ended = LookInSchedule(scheduler, "waiting for a child process", wait,
                           [&](const HeldFiles&, bool) { return look(); });
  }
  if (ended > 0) ChildHasEnded(scheduler, ended);
  return ended;
}

// `lock` locks a file, or unlocks it, and waits if it is told to; `others_may`:
// whether others may unlock it, while it waits.
int LockInSchedule(int file, bool waits, bool unlocks,
                   const OthersMay& others_may,
                   absl::FunctionRef<int(int file, bool wait)> lock) {
  constexpr const char* kLocking = "locking a file";
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return lock(file, waits);
  if (unlocks) {
    Order::Release(&kDescriptors);
    return Done(lock(file, false), "unlocking a file");
  }
  if (!waits) {
    scheduler->Point(kLocking, &kDescriptors);
    Order::Acquire(&kDescriptors);
    return lock(file, false);
  }
  Wait wait;
  wait.descriptors = absl::MakeSpan(&file, 1);
  wait.interruption = &Interruptions::without_restart;
  wait.others_may = &others_may;
  const int result =
      LookInSchedule(*scheduler, kLocking, wait, [&](const HeldFiles&, bool) {
        if (lock(file, false) == 0) return 1;
        return errno == EAGAIN || errno == EACCES ? 0 : -1;
      });
  return result > 0 ? 0 : -1;
}

int Control(RealFcntl& real, int fd, int operation, void* argument) {
  int at_once = operation;
  int to_ask = operation;
  switch (operation) {
    case F_SETLKW:
      at_once = F_SETLK;
      to_ask = F_GETLK;
      break;
    case F_OFD_SETLKW:
      at_once = F_OFD_SETLK;
      to_ask = F_OFD_GETLK;
      break;
    case F_SETLK:
    case F_OFD_SETLK:
      break;
    default:
      return real(fd, operation, argument);
  }
  // The type stands at the same place in those of 64 bits.
  const auto* const part = static_cast<const struct flock*>(argument);
  const OthersMay others_may = [&](Scheduler& scheduler, int file) {
    struct flock in_the_way = *part;
    return real(file, to_ask, &in_the_way) != 0 ||
           !IsInTheWay(scheduler, file, in_the_way);
  };
  return LockInSchedule(
      fd, at_once != operation, part != nullptr && part->l_type == F_UNLCK,
      others_may, [&](int file, bool wait) {
        return real(file, wait ? operation : at_once, argument);
      });
}

absl::Duration LimitOf(int milliseconds) {
  return milliseconds < 0 ? absl::InfiniteDuration()
                          : absl::Milliseconds(milliseconds);
}
absl::Duration LimitOf(const timespec* time) {
  return time == nullptr ? absl::InfiniteDuration()
                         : absl::DurationFromTimespec(*time);
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::Buffers;
using ::ward::testing::CallWithInput;
using ::ward::testing::Done;
using ::ward::testing::Failed;
using ::ward::testing::FlagsFor;
using ::ward::testing::HeldFiles;
using ::ward::testing::Intercepting;
using ::ward::testing::Interruptions;
using ::ward::testing::IsValidLength;
using ::ward::testing::kDescriptors;
using ::ward::testing::LimitOf;
using ::ward::testing::LookInSchedule;
using ::ward::testing::OpenInSchedule;
using ::ward::testing::Order;
using ::ward::testing::OthersMay;
using ::ward::testing::PartOf;
using ::ward::testing::ReadInSchedule;
using ::ward::testing::Scheduler;
using ::ward::testing::SizeOf;
using ::ward::testing::WriteInSchedule;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

// Those with flags are of sockets.
ssize_t read(int fd, void* buffer, size_t size) {
  return ReadInSchedule(fd, size, FlagsFor(fd, size),
                        [&](int file, size_t from, size_t part, int flags) {
                          auto* const to = static_cast<char*>(buffer) + from;
                          return flags == 0 || size == 0
                                     ? real_read(file, to, part)
                                     : real_recv(file, to, part, flags);
                        });
}

ssize_t readv(int fd, const iovec* buffers, int count) {
  const size_t size = SizeOf(buffers, static_cast<size_t>(count));
  return ReadInSchedule(
      fd, size, FlagsFor(fd, size),
      [&](int file, size_t from, size_t part, int flags) {
        if (size == 0 || (part == size && flags == 0)) {
          return real_readv(file, buffers, count);
        }
        Buffers some = PartOf(buffers, static_cast<size_t>(count), from, part);
        if (flags == 0) {
          return real_readv(file, some.data(), static_cast<int>(some.size()));
        }
        msghdr message{};
        message.msg_iov = some.data();
        message.msg_iovlen = some.size();
        return real_recvmsg(file, &message, flags);
      });
}

ssize_t recv(int fd, void* buffer, size_t size, int flags) {
  return ReadInSchedule(
      fd, size, flags, [&](int file, size_t from, size_t part, int its_flags) {
        return real_recv(file, static_cast<char*>(buffer) + from, part,
                         its_flags);
      });
}

ssize_t recvfrom(int fd, void* buffer, size_t size, int flags, sockaddr* from,
                 socklen_t* from_size) {
  const socklen_t room = from_size == nullptr ? 0 : *from_size;
  return ReadInSchedule(
      fd, size, flags, [&](int file, size_t at, size_t part, int its_flags) {
        // Each piece has all the room, and says how much it would have taken.
        socklen_t name_size = room;
        const ssize_t result = real_recvfrom(
            file, static_cast<char*>(buffer) + at, part, its_flags, from,
            from_size == nullptr ? nullptr : &name_size);
        if (from_size != nullptr && (result > 0 || (result == 0 && at == 0))) {
          *from_size = name_size;
        }
        return result;
      });
}

// What comes along is that of the last piece; one with descriptors is the last,
// and none is of another sender than the first (unix(7)).
ssize_t recvmsg(int fd, msghdr* message, int flags) {
  const size_t size =
      message == nullptr ? 0 : SizeOf(message->msg_iov, message->msg_iovlen);
  const size_t room = message == nullptr ? 0 : message->msg_controllen;
  const socklen_t name_room = message == nullptr ? 0 : message->msg_namelen;
  bool ends = false;
  const auto receive = [&](int file, size_t from, size_t part, int its_flags) {
    ssize_t result = -1;
    if (part == size) {
      result = real_recvmsg(file, message, its_flags);
    } else {
      Buffers some = PartOf(message->msg_iov, message->msg_iovlen, from, part);
      absl::InlinedVector<char, 128> control(room);
      msghdr piece = *message;
      piece.msg_iov = some.data();
      piece.msg_iovlen = some.size();
      piece.msg_namelen = name_room;
      if (from > 0 && room > 0) {
        if (!ward::testing::ComesFromSame(file, *message)) return ssize_t{0};
        piece.msg_control = control.data();
        piece.msg_controllen = room;
      }
      result = real_recvmsg(file, &piece, its_flags);
      if (result < 0 || (result == 0 && from > 0)) return result;
      if (piece.msg_control != message->msg_control) {
        std::copy_n(control.data(), piece.msg_controllen,
                    static_cast<char*>(message->msg_control));
      }
      message->msg_namelen = piece.msg_namelen;
      message->msg_controllen = piece.msg_controllen;
      message->msg_flags = piece.msg_flags;
    }
    if (result < 0 || message->msg_control == nullptr) return result;
    // Without room for them they are dropped.
    ends = (message->msg_flags & MSG_CTRUNC) != 0;
    if (ward::testing::FindAlong(*message, SCM_RIGHTS) != nullptr) {
      ends = true;
      ward::testing::ExchangeDescriptors(file);
    }
    return result;
  };
  return ReadInSchedule(fd, size, flags, receive, &ends);
}

ssize_t write(int fd, const void* buffer, size_t size) {
  return WriteInSchedule(
      fd, size, FlagsFor(fd, size), [&](int file, size_t from, size_t piece) {
        return real_write(file, static_cast<const char*>(buffer) + from, piece);
      });
}

ssize_t writev(int fd, const iovec* buffers, int count) {
  const size_t size = SizeOf(buffers, static_cast<size_t>(count));
  return WriteInSchedule(
      fd, size, FlagsFor(fd, size), [&](int file, size_t from, size_t part) {
        if (part == size) return real_writev(file, buffers, count);
        const Buffers some =
            PartOf(buffers, static_cast<size_t>(count), from, part);
        return real_writev(file, some.data(), static_cast<int>(some.size()));
      });
}

ssize_t send(int fd, const void* buffer, size_t size, int flags) {
  return WriteInSchedule(
      fd, size, flags, [&](int file, size_t from, size_t piece) {
        return real_send(file, static_cast<const char*>(buffer) + from, piece,
                         flags);
      });
}

ssize_t sendto(int fd, const void* buffer, size_t size, int flags,
               const sockaddr* to, socklen_t to_size) {
  return WriteInSchedule(
      fd, size, flags, [&](int file, size_t from, size_t piece) {
        return real_sendto(file, static_cast<const char*>(buffer) + from, piece,
                           flags, to, to_size);
      });
}

// What is sent along goes with the first piece.
ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  const size_t size =
      message == nullptr ? 0 : SizeOf(message->msg_iov, message->msg_iovlen);
  const bool has_descriptors =
      message != nullptr &&
      ward::testing::FindAlong(*message, SCM_RIGHTS) != nullptr;
  return WriteInSchedule(
      fd, size, flags, [&](int file, size_t from, size_t part) {
        if (has_descriptors) ward::testing::ExchangeDescriptors(file);
        if (part == size) return real_sendmsg(file, message, flags);
        Buffers some =
            PartOf(message->msg_iov, message->msg_iovlen, from, part);
        msghdr piece = *message;
        piece.msg_iov = some.data();
        piece.msg_iovlen = some.size();
        if (from > 0) {
          piece.msg_control = nullptr;
          piece.msg_controllen = 0;
        }
        return real_sendmsg(file, &piece, flags);
      });
}

// As the C library has them, whose own are not seen.
int eventfd_read(int fd, eventfd_t* value) {
  return read(fd, value, sizeof(*value)) == ssize_t{sizeof(*value)} ? 0 : -1;
}

int eventfd_write(int fd, eventfd_t value) {
  return write(fd, &value, sizeof(value)) == ssize_t{sizeof(value)} ? 0 : -1;
}

int accept(int fd, sockaddr* address, socklen_t* size) {
  return static_cast<int>(CallWithInput(fd, [&](int file) {
    return OpenInSchedule([&] { return real_accept(file, address, size); });
  }));
}

int accept4(int fd, sockaddr* address, socklen_t* size, int flags) {
  return static_cast<int>(CallWithInput(fd, [&](int file) {
    return OpenInSchedule(
        [&] { return real_accept4(file, address, size, flags); });
  }));
}

// On this machine it waits for who accepts, if the queue is full (unix(7)), or
// the kernel takes its time (tcp(7)).
int connect(int fd, const sockaddr* address, socklen_t size) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr || address == nullptr ||
      size < sizeof(address->sa_family)) {
    return real_connect(fd, address, size);
  }
  if (ward::testing::IsElsewhere(address, size)) {
    return ward::testing::ConnectElsewhere(fd, address, size);
  }
  Order::Release(&ward::testing::kDescriptors);
  constexpr const char* kConnecting = "connecting a socket";
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & O_NONBLOCK) != 0) {
    scheduler->Point(kConnecting, &kDescriptors);
    const int result = real_connect(fd, address, size);
    if (result == 0) ward::testing::MeetPeer(*scheduler, fd);
    return Done(result, kConnecting);
  }
  ward::testing::Wait wait;
  wait.descriptors = absl::MakeSpan(&fd, 1);
  wait.limit = ward::testing::LimitOfSocket(fd, SO_SNDTIMEO);
  wait.interruption = &Interruptions::without_restart;
  wait.is_of_others =
      address->sa_family == AF_UNIX && !ward::testing::ListensAt(address, size);
  bool has_begun = false;
  const int result = LookInSchedule(
      *scheduler, kConnecting, wait, [&](const HeldFiles&, bool) {
        if (has_begun) return ward::testing::IsConnected(fd);
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
        const bool connected = real_connect(fd, address, size) == 0;
        const int error = errno;
        fcntl(fd, F_SETFL, flags);
        errno = error;
        if (connected) return 1;
        has_begun = error == EINPROGRESS || error == EALREADY;
        if (has_begun) return ward::testing::IsConnected(fd);
        return error == EAGAIN ? 0 : -1;
      });
  if (result == 0) return Failed(has_begun ? EINPROGRESS : EAGAIN);
  if (result < 0) return -1;
  ward::testing::MeetPeer(*scheduler, fd);
  return Done(0, kConnecting);
}

int socketpair(int domain, int type, int protocol, int ends[2]) noexcept {
  const int first = OpenInSchedule([&] {
    return real_socketpair(domain, type, protocol, ends) == 0 ? ends[0] : -1;
  });
  if (first < 0) return -1;
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return 0;
  scheduler->TellOpened(ends[1]);
  const ward::testing::NoSchedulingPoints quiet;
  struct stat one {};
  struct stat other {};
  if (fstat(ends[0], &one) == 0 && fstat(ends[1], &other) == 0) {
    scheduler->Kept<ward::testing::SocketPairs>().Add(one.st_ino, other.st_ino);
  }
  return 0;
}

int poll(pollfd* polled, nfds_t count, int limit) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_poll(polled, count, limit);
  return ward::testing::PollInSchedule(*scheduler, polled, count,
                                       LimitOf(limit), nullptr);
}

int ppoll(pollfd* polled, nfds_t count, const timespec* limit,
          const sigset_t* mask) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_ppoll(polled, count, limit, mask);
  if (!IsValidLength(limit)) return Failed(EINVAL);
  return ward::testing::PollInSchedule(*scheduler, polled, count,
                                       LimitOf(limit), mask);
}

int epoll_wait(int epoll, epoll_event* events, int most, int limit) {
  if (Intercepting() == nullptr) {
    return real_epoll_wait(epoll, events, most, limit);
  }
  return epoll_pwait(epoll, events, most, limit, nullptr);
}

int epoll_pwait(int epoll, epoll_event* events, int most, int limit,
                const sigset_t* mask) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return real_epoll_pwait(epoll, events, most, limit, mask);
  }
  return ward::testing::AwaitEvents(*scheduler, epoll, events, most,
                                    LimitOf(limit), mask);
}

int epoll_pwait2(int epoll, epoll_event* events, int most,
                 const timespec* limit, const sigset_t* mask) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return real_epoll_pwait2(epoll, events, most, limit, mask);
  }
  if (!IsValidLength(limit)) return Failed(EINVAL);
  return ward::testing::AwaitEvents(*scheduler, epoll, events, most,
                                    LimitOf(limit), mask);
}

int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) noexcept {
  constexpr const char* kChanging = "changing an epoll";
  if (Scheduler* const scheduler = Intercepting()) {
    scheduler->Point(kChanging, &kDescriptors);
  }
  Order::Release(&kDescriptors);
  const int result = real_epoll_ctl(epoll, operation, fd, event);
  if (result == 0 && operation != EPOLL_CTL_DEL &&
      (event->events & EPOLLET) != 0) {
    ward::testing::KeepWhole(fd);
  }
  return Done(result, kChanging);
}

int pselect(int count, fd_set* readable, fd_set* writable, fd_set* exceptional,
            const timespec* limit, const sigset_t* mask) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return real_pselect(count, readable, writable, exceptional, limit, mask);
  }
  if (!IsValidLength(limit)) return Failed(EINVAL);
  return ward::testing::SelectInSchedule(*scheduler, count,
                                         {readable, writable, exceptional},
                                         LimitOf(limit), mask);
}

int select(int count, fd_set* readable, fd_set* writable, fd_set* exceptional,
           timeval* limit) {
  if (Intercepting() == nullptr) {
    return real_select(count, readable, writable, exceptional, limit);
  }
  timespec time{};
  if (limit != nullptr) {
    if (limit->tv_sec < 0 || limit->tv_usec < 0) return Failed(EINVAL);
    time = absl::ToTimespec(absl::DurationFromTimeval(*limit));
  }
  return pselect(count, readable, writable, exceptional,
                 limit == nullptr ? nullptr : &time, nullptr);
}

int setsockopt(int fd, int level, int option, const void* value,
               socklen_t size) noexcept {
  if (level == SOL_SOCKET && option == SO_RCVLOWAT) {
    ward::testing::has_least = true;
  }
  return real_setsockopt(fd, level, option, value, size);
}

// Others' requests than this one tell nothing of what others do.
int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  Scheduler* const scheduler = request == FIONREAD ? Intercepting() : nullptr;
  if (scheduler == nullptr) {
    return ward::testing::real_ioctl(fd, request, argument);
  }
  ward::testing::PointAt(*scheduler, fd, "asking what there is to read");
  Order::Acquire(&kDescriptors);
  const int result = ward::testing::real_ioctl(fd, request, argument);
  if (result == 0) {
    ward::testing::KeepWhole(fd, *static_cast<const int*>(argument));
  }
  return result;
}

int flock(int fd, int operation) noexcept {
  const int at_once = operation | LOCK_NB;
  const OthersMay others_may = [&](Scheduler& scheduler, int file) {
    return !ward::testing::IsInTheWay(scheduler, file,
                                      (operation & LOCK_SH) == 0);
  };
  return ward::testing::LockInSchedule(
      fd, /*waits=*/operation != at_once,
      /*unlocks=*/(at_once ^ LOCK_NB) == LOCK_UN, others_may,
      [&](int file, bool wait) {
        return real_flock(file, wait ? operation : at_once);
      });
}

int fcntl(int fd, int operation, ...) {
  va_list arguments;
  va_start(arguments, operation);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  return ward::testing::Control(ward::testing::real_fcntl, fd, operation,
                                argument);
}

int fcntl64(int fd, int operation, ...) {
  va_list arguments;
  va_start(arguments, operation);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  return ward::testing::Control(ward::testing::real_fcntl64, fd, operation,
                                argument);
}

pid_t wait4(pid_t process, int* status, int options, rusage* usage) noexcept {
  if (Intercepting() == nullptr) {
    return real_wait4(process, status, options, usage);
  }
  return ward::testing::AwaitChild(
      [&] { return real_wait4(process, status, options | WNOHANG, usage); },
      (options & WNOHANG) != 0);
}

pid_t wait3(int* status, int options, rusage* usage) noexcept {
  if (Intercepting() == nullptr) return real_wait3(status, options, usage);
  return wait4(-1, status, options, usage);
}

pid_t waitpid(pid_t process, int* status, int options) {
  if (Intercepting() == nullptr) return real_waitpid(process, status, options);
  return wait4(process, status, options, nullptr);
}

pid_t wait(int* status) {
  if (Intercepting() == nullptr) return real_wait(status);
  return wait4(-1, status, 0, nullptr);
}

int waitid(idtype_t type, id_t id, siginfo_t* about, int options) {
  if (Intercepting() == nullptr) return real_waitid(type, id, about, options);
  siginfo_t found{};
  const pid_t ended = ward::testing::AwaitChild(
      [&] {
        const int error = real_waitid(type, id, &found, options | WNOHANG);
        return error == 0 ? found.si_pid : -1;
      },
      (options & WNOHANG) != 0);
  if (ended < 0) return -1;
  if (about != nullptr) *about = found;
  return 0;
}

// --- what code that is compiled with _FORTIFY_SOURCE calls in their place ---

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
[[noreturn]] void __chk_fail();

ssize_t __read_chk(int fd, void* buffer, size_t size, size_t room) {
  if (size > room) __chk_fail();
  return read(fd, buffer, size);
}

ssize_t __recv_chk(int fd, void* buffer, size_t size, size_t room, int flags) {
  if (size > room) __chk_fail();
  return recv(fd, buffer, size, flags);
}

ssize_t __recvfrom_chk(int fd, void* buffer, size_t size, size_t room,
                       int flags, sockaddr* from, socklen_t* from_size) {
  if (size > room) __chk_fail();
  return recvfrom(fd, buffer, size, flags, from, from_size);
}

int __poll_chk(pollfd* polled, nfds_t count, int limit, size_t room) {
  if (count > room / sizeof(*polled)) __chk_fail();
  return poll(polled, count, limit);
}

int __ppoll_chk(pollfd* polled, nfds_t count, const timespec* limit,
                const sigset_t* mask, size_t room) {
  if (count > room / sizeof(*polled)) __chk_fail();
  return ppoll(polled, count, limit, mask);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

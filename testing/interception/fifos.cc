// open(2) of a FIFO: who opens one end waits until another one opens the other
// (fifo(7)).
//
// It is made without waiting, which for who reads it is done at once, and for
// who writes once there is a reader; so a reader waits here until there is, or
// was, a writer. Nobody else knows of its name but who is told: what else may
// open it is not known.

// Or the C library's headers define some of them, inline.
#undef _FORTIFY_SOURCE

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "ward/channel/file_descriptor.h"
#include "ward/testing/interception/faults.h"
#include "ward/testing/interception/held_files.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {
namespace {

// They read a mode, as the C library's do, whether there is one.
Real<int, const char*, int, mode_t> real_open("open", nullptr);
Real<int, const char*, int, mode_t> real_open64("open64", nullptr);
Real<int, int, const char*, int, mode_t> real_openat("openat", nullptr);
Real<int, int, const char*, int, mode_t> real_openat64("openat64", nullptr);

constexpr const char* kOpening = "opening a FIFO";

bool IsFifoThatWaits(int directory, const char* path, int flags) {
  if ((flags & O_ACCMODE) == O_RDWR ||
      (flags & (O_NONBLOCK | O_PATH | O_DIRECTORY)) != 0) {
    return false;
  }
  struct stat about {};
  return fstatat(directory, path, &about,
                 (flags & O_NOFOLLOW) != 0 ? AT_SYMLINK_NOFOLLOW : 0) == 0 &&
         S_ISFIFO(about.st_mode);
}

// A descriptor that a call has open until it returns, see HeldFiles::Take.
class OwnDescriptor {
 public:
  explicit OwnDescriptor(Scheduler& scheduler) : scheduler_(scheduler) {}
  OwnDescriptor(const OwnDescriptor&) = delete;
  OwnDescriptor& operator=(const OwnDescriptor&) = delete;
  // Leaves errno as it is.
  ~OwnDescriptor() {
    const NoSchedulingPoints quiet;
    const int error = errno;
    const FileDescriptor closed(Release());
    errno = error;
  }

  int get() const { return descriptor_; }
  bool is_open() const { return descriptor_ >= 0; }

  // Once. Negative: it is not open.
  void Set(int descriptor) {
    descriptor_ = descriptor;
    if (is_open()) HeldFiles::Take(scheduler_, descriptor);
  }
  int Release() {
    HeldFiles::Give(scheduler_, descriptor_);
    return std::exchange(descriptor_, -1);
  }

 private:
  Scheduler& scheduler_;
  int descriptor_ = -1;
};

// Looks whether a FIFO that was opened to be read has a writer, or has had one
// since: by tee(2), which takes nothing.
class WriterFinder {
 public:
  explicit WriterFinder(Scheduler& scheduler)
      : reading_(scheduler), writing_(scheduler) {
    const NoSchedulingPoints quiet;
    std::array<int, 2> ends;
    if (pipe2(ends.data(), O_CLOEXEC) != 0) return;
    reading_.Set(Moved(ends[0]));
    writing_.Set(Moved(ends[1]));
  }

  // Else errno says why not.
  bool is_made() const { return writing_.is_open(); }

  bool Finds(int fifo) const {
    const NoSchedulingPoints quiet;
    // Something was written, or whoever might have has gone.
    pollfd polled{fifo, POLLIN, 0};
    if (poll(&polled, 1, 0) > 0) return true;
    return tee(fifo, writing_.get(), 1, SPLICE_F_NONBLOCK) < 0 &&
           errno == EAGAIN;
  }

 private:
  // To where the program's own do not come, as in held_files.cc, if there is
  // room.
  static int Moved(int end) {
    constexpr int kFirst = 768;
    const int moved = fcntl(end, F_DUPFD_CLOEXEC, kFirst);
    if (moved < 0) return end;
    close(end);
    return moved;
  }

  OwnDescriptor reading_;
  OwnDescriptor writing_;
};

// `open_it` opens it, with other flags than `flags`.
int OpenFifo(Scheduler& scheduler, int flags,
             absl::FunctionRef<int(int flags)> open_it) {
  scheduler.Point(kOpening, &kDescriptors);
  Order::Release(&kDescriptors);
  const bool writes = (flags & O_ACCMODE) == O_WRONLY;
  OwnDescriptor opened(scheduler);
  int error = 0;
  const auto try_to_open = [&] {
    // Until it is opened, no program that is started has it.
    opened.Set(open_it(flags | O_NONBLOCK | O_CLOEXEC));
    error = errno;
  };
  std::optional<WriterFinder> writers;
  if (!writes) {
    try_to_open();
    if (!opened.is_open()) return -1;
    writers.emplace(scheduler);
    if (!writers->is_made()) return -1;
  }
  bool is_open = false;
  const auto is_over = [&] {
    if (writes && !opened.is_open()) try_to_open();
    is_open = writes ? opened.is_open() || error != ENXIO
                     : writers->Finds(opened.get());
    return is_open;
  };
  const Interruptions& now = scheduler.interruptions();
  const int before = now.without_restart;
  if (is_over() || !Interrupts(scheduler, &Interruptions::without_restart)) {
    scheduler.AwaitWorld(
        kOpening, [&] { return is_over() || now.without_restart != before; },
        absl::InfiniteFuture());
  }
  if (!is_open) return Failed(EINTR);
  if (!opened.is_open()) return Failed(error);
  Order::Acquire(&kDescriptors);
  const NoSchedulingPoints quiet;
  fcntl(opened.get(), F_SETFL, fcntl(opened.get(), F_GETFL) & ~O_NONBLOCK);
  if ((flags & O_CLOEXEC) == 0) fcntl(opened.get(), F_SETFD, 0);
  return opened.Release();
}

// `real` opens it, with these flags.
int OpenPath(int directory, const char* path, int flags,
             absl::FunctionRef<int(int flags)> real) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr || !IsFifoThatWaits(directory, path, flags)) {
    return real(flags);
  }
  const int opened =
      OpenInSchedule([&] { return OpenFifo(*scheduler, flags, real); });
  if (opened >= 0) scheduler->PointAfter(kOpening, &kDescriptors);
  return opened;
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::OpenPath;

// Of a function's arguments, the one after `last`.
#define WARD_MODE(mode, last)                  \
  va_list arguments;                           \
  va_start(arguments, last);                   \
  const auto mode = va_arg(arguments, mode_t); \
  va_end(arguments)

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int open(const char* path, int flags, ...) {
  WARD_MODE(mode, flags);
  return OpenPath(AT_FDCWD, path, flags, [&](int its_flags) {
    return ward::testing::real_open(path, its_flags, mode);
  });
}

int open64(const char* path, int flags, ...) {
  WARD_MODE(mode, flags);
  return OpenPath(AT_FDCWD, path, flags, [&](int its_flags) {
    return ward::testing::real_open64(path, its_flags, mode);
  });
}

int openat(int directory, const char* path, int flags, ...) {
  WARD_MODE(mode, flags);
  return OpenPath(directory, path, flags, [&](int its_flags) {
    return ward::testing::real_openat(directory, path, its_flags, mode);
  });
}

int openat64(int directory, const char* path, int flags, ...) {
  WARD_MODE(mode, flags);
  return OpenPath(directory, path, flags, [&](int its_flags) {
    return ward::testing::real_openat64(directory, path, its_flags, mode);
  });
}

// --- what code that is compiled with _FORTIFY_SOURCE calls in their place ---

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
int __open_2(const char* path, int flags) { return open(path, flags); }
int __open64_2(const char* path, int flags) { return open64(path, flags); }
int __openat_2(int directory, const char* path, int flags) {
  return openat(directory, path, flags);
}
int __openat64_2(int directory, const char* path, int flags) {
  return openat64(directory, path, flags);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

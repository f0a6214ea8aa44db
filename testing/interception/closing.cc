// What closes a descriptor, or has another one take its number.
//
// Its number may be another's by now, or soon, and who has the other end may
// have seen it: a point before, and one after.

#include <fcntl.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "absl/functional/function_ref.h"
#include "ward/testing/interception/held_files.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/interception/timers.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"

WARD_REAL(close);
WARD_REAL(close_range);
WARD_REAL(closefrom);
WARD_REAL(dup2);
WARD_REAL(dup3);
WARD_REAL(fclose);
WARD_REAL(freopen);
WARD_REAL(freopen64);
WARD_REAL(shutdown);

namespace ward::testing {
namespace {

// `close_them` returns whether those from `first` to `last` are closed, or may
// be. None if `first` is greater.
void CloseInSchedule(Scheduler& scheduler, int first, int last,
                     absl::FunctionRef<bool()> close_them) {
  constexpr const char* kClosing = "closing a descriptor";
  scheduler.Point(kClosing, &kDescriptors);
  Order::Release(&kDescriptors);
  HeldFiles::Keep(scheduler, first, last);
  if (!close_them()) return;
  ForgetTimers(scheduler, first, last);
  scheduler.PointAfter(kClosing, &kDescriptors);
}

// The same of `fd` with a system call; kNone: it closes no descriptor.
constexpr int kNone = -1;
template <typename... Parameters, typename... Arguments>
int CloseInSchedule(int fd, Real<int, Parameters...>& close_it,
                    Arguments... arguments) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return close_it(arguments...);
  int result = -1;
  CloseInSchedule(*scheduler, std::max(fd, 0), fd, [&] {
    result = close_it(arguments...);
    return result >= 0;
  });
  return result;
}

// What dup2(2) closes, if anything: not one that it leaves as it is.
int Replaced(int fd, int number) {
  return fd == number || fcntl(fd, F_GETFD) < 0 ? kNone : number;
}

// The same of what `file` has. It has no descriptor if it is only memory.
template <typename Result, typename... Parameters, typename... Arguments>
Result CloseFileInSchedule(FILE* file, Real<Result, Parameters...>& close_it,
                           Arguments... arguments) {
  Scheduler* const scheduler = Intercepting();
  const int fd = scheduler == nullptr ? -1 : fileno_unlocked(file);
  if (fd < 0) return close_it(arguments...);
  Result result{};
  CloseInSchedule(*scheduler, fd, fd, [&] {
    result = close_it(arguments...);
    return true;  // Though it may have failed to write what was left.
  });
  return result;
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::CloseFileInSchedule;
using ::ward::testing::CloseInSchedule;
using ::ward::testing::HeldFiles;
using ::ward::testing::Intercepting;
using ::ward::testing::kNone;
using ::ward::testing::Replaced;
using ::ward::testing::Scheduler;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int close(int fd) { return CloseInSchedule(fd, real_close, fd); }

int shutdown(int fd, int how) noexcept {
  return CloseInSchedule(kNone, real_shutdown, fd, how);
}

int dup2(int fd, int number) noexcept {
  return CloseInSchedule(Replaced(fd, number), real_dup2, fd, number);
}

int dup3(int fd, int number, int flags) noexcept {
  return CloseInSchedule(Replaced(fd, number), real_dup3, fd, number, flags);
}

int close_range(unsigned first, unsigned last, int flags) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_close_range(first, last, flags);
  int result = -1;
  const bool closes = (flags & CLOSE_RANGE_CLOEXEC) == 0;
  CloseInSchedule(*scheduler, static_cast<int>(first),
                  !closes          ? kNone
                  : last > INT_MAX ? INT_MAX
                                   : static_cast<int>(last),
                  [&] {
                    result = HeldFiles::CloseOthers(
                        *scheduler, first, last,
                        [flags](unsigned from, unsigned to) {
                          return real_close_range(from, to, flags);
                        });
                    return result == 0;
                  });
  return result;
}

void closefrom(int first) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_closefrom(first);
  CloseInSchedule(*scheduler, first, INT_MAX, [&] {
    HeldFiles::CloseOthers(*scheduler,
                           static_cast<unsigned>(std::max(first, 0)), UINT_MAX,
                           [](unsigned from, unsigned to) {
                             return real_close_range(from, to, 0);
                           });
    return true;
  });
}

int fclose(FILE* file) { return CloseFileInSchedule(file, real_fclose, file); }

FILE* freopen(const char* name, const char* mode, FILE* file) {
  return CloseFileInSchedule(file, real_freopen, name, mode, file);
}

FILE* freopen64(const char* name, const char* mode, FILE* file) {
  return CloseFileInSchedule(file, real_freopen64, name, mode, file);
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

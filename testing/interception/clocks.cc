// The clock, and what lets its time pass: the C library's functions, and those
// of Abseil's that do not go by way of them.

#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <ctime>

#include "absl/base/config.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/simulator/scheduler.h"

using ::ward::testing::Interruptions;
using ::ward::testing::Scheduler;

namespace {

bool IsSimulated(clockid_t clock_id) {
  return clock_id == CLOCK_REALTIME || clock_id == CLOCK_MONOTONIC ||
         clock_id == CLOCK_REALTIME_COARSE ||
         clock_id == CLOCK_MONOTONIC_COARSE || clock_id == CLOCK_BOOTTIME;
}

// A thread that sleeps for no time waits for the others. Returns what is left
// when a signal's handler has ended it.
absl::Duration Sleep(Scheduler& scheduler, absl::Duration duration) {
  if (duration <= absl::ZeroDuration()) {
    scheduler.Yield("yielding");
    return absl::ZeroDuration();
  }
  const absl::Time end = scheduler.now() + duration;
  const Interruptions& now = scheduler.interruptions();
  const int before = now.all;
  return scheduler.Sleep([&] { return now.all != before; }, end)
             ? std::max(end - scheduler.now(), absl::ZeroDuration())
             : absl::ZeroDuration();
}

}  // namespace

extern "C" {

// Under absl::Now(), std::chrono and time limits of waits.
int clock_gettime(clockid_t clock_id, struct timespec* tp) noexcept {
  if (IsSimulated(clock_id)) {
    if (const Scheduler* const scheduler = Scheduler::Current()) {
      *tp = absl::ToTimespec(scheduler->now());
      return 0;
    }
  }
  return static_cast<int>(syscall(SYS_clock_gettime, clock_id, tp));
}

int gettimeofday(struct timeval* tv, void*) noexcept {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *tv = {now.tv_sec, now.tv_nsec / 1000};
  return 0;
}

int timespec_get(struct timespec* ts, int base) noexcept {
  if (base != TIME_UTC) return 0;
  return clock_gettime(CLOCK_REALTIME, ts) == 0 ? base : 0;
}

time_t time(time_t* timer) noexcept {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (timer != nullptr) *timer = now.tv_sec;
  return now.tv_sec;
}

// Under std::this_thread::sleep_for() and sleep_until().
int clock_nanosleep(clockid_t clock_id, int flags, const struct timespec* req,
                    struct timespec* rem) {
  Scheduler* const scheduler =
      IsSimulated(clock_id) ? Scheduler::Current() : nullptr;
  if (scheduler == nullptr) {
    return syscall(SYS_clock_nanosleep, clock_id, flags, req, rem) == 0 ? 0
                                                                        : errno;
  }
  if (!ward::testing::IsValidLength(req)) return EINVAL;
  const bool absolute = (flags & TIMER_ABSTIME) != 0;
  const absl::Duration left = Sleep(
      *scheduler, absolute ? absl::TimeFromTimespec(*req) - scheduler->now()
                           : absl::DurationFromTimespec(*req));
  if (left == absl::ZeroDuration()) return 0;
  if (!absolute && rem != nullptr) *rem = absl::ToTimespec(left);
  return EINTR;
}

int nanosleep(const struct timespec* requested_time,
              struct timespec* remaining) {
  const int error =
      clock_nanosleep(CLOCK_MONOTONIC, 0, requested_time, remaining);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

int usleep(useconds_t useconds) {
  const timespec time = absl::ToTimespec(absl::Microseconds(useconds));
  return nanosleep(&time, nullptr);
}

unsigned sleep(unsigned seconds) {
  timespec left = absl::ToTimespec(absl::Seconds(seconds));
  return nanosleep(&left, &left) == 0 ? 0 : static_cast<unsigned>(left.tv_sec);
}

// Under std::this_thread::yield().
int sched_yield() noexcept {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr) return static_cast<int>(syscall(SYS_sched_yield));
  scheduler->Yield("yielding");
  return 0;
}

void ABSL_INTERNAL_C_SYMBOL(AbslInternalSleepFor)(absl::Duration duration) {
  if (Scheduler* const scheduler = Scheduler::Current()) {
    do {
      duration = Sleep(*scheduler, duration);
    } while (duration > absl::ZeroDuration());
    return;
  }
  if (duration <= absl::ZeroDuration()) return;
  timespec left = absl::ToTimespec(duration);
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

}  // extern "C"

// absl::Now() interpolates between calls of clock_gettime() by counting the
// processor's cycles, which no simulation can hold back.
namespace absl {
ABSL_NAMESPACE_BEGIN

int64_t GetCurrentTimeNanos() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

Time Now() { return FromUnixNanos(GetCurrentTimeNanos()); }

ABSL_NAMESPACE_END
}  // namespace absl

// Puts the simulation in the place of the clock, of Abseil's sleep, and of the
// semaphore under all of Abseil's synchronization, by defining the functions
// anew: weak ones in Abseil, three of the C library's. In threads that are not
// simulated they do what they always did.
//
// A library that was linked dynamically with Abseil keeps its own. So this is
// checked when a simulation starts: see CheckLinkTimeHooks.

#include "ward/testing/link_time_hooks.h"

#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <iostream>

#include "absl/base/config.h"
#include "absl/base/internal/thread_identity.h"
#include "absl/base/options.h"
#include "absl/synchronization/internal/create_thread_identity.h"
#include "absl/synchronization/internal/per_thread_sem.h"
#include "absl/synchronization/internal/waiter.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/testing/scheduler.h"
#include "ward/testing/strategy.h"

using ::absl::base_internal::ThreadIdentity;
using ::absl::synchronization_internal::KernelTimeout;
using ::absl::synchronization_internal::Waiter;
using ::ward::testing::NoBranchPoints;
using ::ward::testing::Scheduler;

extern "C" {

// Under absl::Now(), std::chrono and time limits of waits.
int clock_gettime(clockid_t clock_id, struct timespec* tp) noexcept {
  const bool simulated =
      clock_id == CLOCK_REALTIME || clock_id == CLOCK_MONOTONIC ||
      clock_id == CLOCK_REALTIME_COARSE || clock_id == CLOCK_MONOTONIC_COARSE ||
      clock_id == CLOCK_BOOTTIME;
  if (simulated) {
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

time_t time(time_t* timer) noexcept {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (timer != nullptr) *timer = now.tv_sec;
  return now.tv_sec;
}

void ABSL_INTERNAL_C_SYMBOL(AbslInternalPerThreadSemPost)(
    ThreadIdentity* identity) {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler != nullptr && scheduler->PostSemaphore(identity)) return;
  Waiter::GetWaiter(identity)->Post();
}

bool ABSL_INTERNAL_C_SYMBOL(AbslInternalPerThreadSemWait)(
    KernelTimeout timeout) {
  if (Scheduler* const scheduler = Scheduler::Current()) {
    return scheduler->WaitSemaphore(
        timeout.has_timeout()
            ? absl::TimeFromTimespec(timeout.MakeAbsTimespec())
            : absl::InfiniteFuture());
  }
  ThreadIdentity* const identity =
      absl::synchronization_internal::GetOrCreateCurrentThreadIdentity();
  return Waiter::GetWaiter(identity)->Wait(timeout);
}

void ABSL_INTERNAL_C_SYMBOL(AbslInternalMutexYield)() {
  if (Scheduler* const scheduler = Scheduler::Current()) {
    scheduler->Point("trying to lock a mutex");
  } else {
    sched_yield();
  }
}

void ABSL_INTERNAL_C_SYMBOL(AbslInternalSleepFor)(absl::Duration duration) {
  if (Scheduler* const scheduler = Scheduler::Current()) {
    scheduler->BlockUntil(
        "sleeping", [] { return false; }, scheduler->now() + duration);
    return;
  }
  if (duration <= absl::ZeroDuration()) return;
  timespec left = absl::ToTimespec(duration);
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

// --- locking a mutex, free or not ---
//
// Abseil has no hook there. The linker takes each call of, say, absl::Mutex's
// Lock for one of __wrap_..., and of __real_... for that of Lock: -Wl,--wrap=,
// see mutex_symbols.bzl. Names with their namespace in it are only known to the
// compiler, and to that list.

#define WARD_STRING(x) WARD_STRING_(x)
#define WARD_STRING_(x) #x
#if ABSL_OPTION_USE_INLINE_NAMESPACE == 1
// Lengths are part of such a name.
static_assert(sizeof(WARD_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME)) == 13,
              "Abseil's inline namespace is not called lts_YYYYMMDD");
#define WARD_MUTEX \
  "_ZN4absl12" WARD_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME) "5Mutex"
#else
#define WARD_MUTEX "_ZN4absl5Mutex"
#endif

// `symbol` is the function's own part of its name. The real one is weak: which
// of these there are depends on Abseil's version.
#define WARD_WRAP(result, name, symbol)                   \
  result WardReal##name(absl::Mutex* mutex) __asm__(      \
      "__real_" WARD_MUTEX symbol) __attribute__((weak)); \
  result WardWrap##name(absl::Mutex* mutex) __asm__(      \
      "__wrap_" WARD_MUTEX symbol);                       \
  result WardWrap##name(absl::Mutex* mutex) {             \
    PointBeforeLock();                                    \
    return WardReal##name(mutex);                         \
  }

void PointBeforeLock() {
  if (NoBranchPoints::Exist()) return;
  if (Scheduler* const scheduler = Scheduler::Current()) {
    scheduler->Point("locking a mutex");
  }
}

WARD_WRAP(void, Lock, "4LockEv")
WARD_WRAP(void, ReaderLock, "10ReaderLockEv")
WARD_WRAP(bool, TryLock, "7TryLockEv")
WARD_WRAP(bool, ReaderTryLock, "13ReaderTryLockEv")
// As they are called since 2025, with those above for inline functions.
WARD_WRAP(void, LowerLock, "4lockEv")
WARD_WRAP(void, LockShared, "11lock_sharedEv")
WARD_WRAP(bool, LowerTryLock, "8try_lockEv")
WARD_WRAP(bool, TryLockShared, "15try_lock_sharedEv")

// Called at every branch of code that is compiled with
// -fsanitize-coverage=trace-pc.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming)
void __sanitizer_cov_trace_pc() {
  if (NoBranchPoints::Exist()) return;
  const NoBranchPoints quiet;
  if (Scheduler* const scheduler = Scheduler::Current()) {
    scheduler->Point("running");
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

namespace ward::testing {
namespace {

// Whether Abseil's time is the scheduler's.
bool InEffect() {
  ReplayStrategy strategy({});
  Scheduler scheduler(strategy, {});
  const absl::Time start = scheduler.now();
  if (absl::Now() != start) return false;
  absl::Mutex mutex;
  const bool never = false;
  // Short, for the case that it is really waited for.
  const absl::Duration time = absl::Milliseconds(1);
  mutex.LockWhenWithTimeout(absl::Condition(&never), time);
  mutex.Unlock();
  absl::SleepFor(time);
  return scheduler.now() == start + 2 * time;
}

// Whether locking a free mutex is a scheduling point.
bool LocksArePoints() {
  ReplayStrategy strategy({});
  const Scheduler scheduler(strategy, {});
  const size_t steps = scheduler.steps();
  absl::Mutex mutex;
  const absl::MutexLock lock(&mutex);
  return scheduler.steps() == steps + 1;
}

}  // namespace

void CheckLinkTimeHooks() {
  static const bool kInEffect = InEffect();
  static const bool kLocksArePoints = kInEffect && LocksArePoints();
  if (kLocksArePoints) return;
  if (kInEffect) {
    std::cerr
        << "ward's simulator does not see when a mutex is locked: it does "
           "not know this version of Abseil. Add to the test's cc_test "
           "(and tell ward's authors): linkopts = "
           "[\"-Wl,--wrap=" WARD_MUTEX "4LockEv\", \"-Wl,--wrap=" WARD_MUTEX
           "4lockEv\"]\n";
    abort();
  }
  std::cerr << "ward's simulator cannot take the place of Abseil's mutexes and "
               "clock: Abseil is in a shared library here. Link the test "
               "statically: `linkstatic = True` in its cc_test, or "
               "ward_server_test of @ward//testing:defs.bzl; and not with "
               "--dynamic_mode=fully.\n";
  abort();
}

}  // namespace ward::testing

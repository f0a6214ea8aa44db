// Puts the simulation in the place of the clock, of Abseil's sleep, and of the
// semaphore under all of Abseil's synchronization, by defining the functions
// anew: weak ones in Abseil, and what the C library has for the time and for
// letting it pass. In threads that are not simulated they do what they always
// did.
//
// A library that was linked dynamically with Abseil keeps its own. So this is
// checked when a simulation starts: see CheckLinkTimeHooks.

#include "ward/testing/link_time_hooks.h"

#include <dlfcn.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <iostream>

#include "absl/base/attributes.h"
#include "absl/base/config.h"
#include "absl/base/internal/scheduling_mode.h"
#include "absl/base/internal/thread_identity.h"
#include "absl/base/options.h"
#include "absl/functional/function_ref.h"
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

namespace {

bool IsSimulated(clockid_t clock_id) {
  return clock_id == CLOCK_REALTIME || clock_id == CLOCK_MONOTONIC ||
         clock_id == CLOCK_REALTIME_COARSE ||
         clock_id == CLOCK_MONOTONIC_COARSE || clock_id == CLOCK_BOOTTIME;
}

// A thread that sleeps for no time waits for the others.
void Sleep(Scheduler& scheduler, absl::Duration duration) {
  if (duration <= absl::ZeroDuration()) {
    scheduler.Yield("yielding");
  } else {
    scheduler.BlockUntil(
        "sleeping", [] { return false; }, scheduler.now() + duration);
  }
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
  Sleep(*scheduler, (flags & TIMER_ABSTIME) != 0
                        ? absl::TimeFromTimespec(*req) - scheduler->now()
                        : absl::DurationFromTimespec(*req));
  return 0;
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

void ABSL_INTERNAL_C_SYMBOL(AbslInternalPerThreadSemPost)(
    ThreadIdentity* identity) {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr) {
    Scheduler::CheckForeignPost(identity);
  } else if (scheduler->PostSemaphore(identity)) {
    return;
  }
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

void ABSL_INTERNAL_C_SYMBOL(AbslInternalMutexYield)() { sched_yield(); }

// Under absl::call_once() and SpinLock.
void ABSL_INTERNAL_C_SYMBOL(AbslInternalSpinLockDelay)(
    std::atomic<uint32_t>* word, uint32_t value, int /*loop*/,
    absl::base_internal::SchedulingMode /*mode*/) {
  if (Scheduler* const scheduler = Scheduler::Current()) {
    scheduler->Yield("waiting for absl::call_once or a SpinLock");
    return;
  }
  const int found = errno;
  syscall(SYS_futex, word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, value, nullptr);
  errno = found;
}

void ABSL_INTERNAL_C_SYMBOL(AbslInternalSleepFor)(absl::Duration duration) {
  if (Scheduler* const scheduler = Scheduler::Current()) {
    Sleep(*scheduler, duration);
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
#define WARD_ABSL "NS0_"
#else
#define WARD_MUTEX "_ZN4absl5Mutex"
#define WARD_ABSL "NS_"
#endif

// `symbol` is the function's own part of its name. The real one is weak: which
// of these there are depends on Abseil's version.
#define WARD_WRAP_(result, name, symbol, parameters, arguments)          \
  result WardReal##name parameters __asm__("__real_" WARD_MUTEX symbol)  \
      __attribute__((weak));                                             \
  result WardWrap##name parameters __asm__("__wrap_" WARD_MUTEX symbol); \
  result WardWrap##name parameters {                                     \
    PointBeforeLock();                                                   \
    return WardReal##name arguments;                                     \
  }
#define WARD_WRAP(result, name, symbol) \
  WARD_WRAP_(result, name, symbol "Ev", (absl::Mutex * mutex), (mutex))
#define WARD_WRAP_WHEN(result, name, symbol)                          \
  WARD_WRAP_(result, name, symbol "ERK" WARD_ABSL "9ConditionE",      \
             (absl::Mutex * mutex, const absl::Condition& condition), \
             (mutex, condition))
#define WARD_WRAP_WITHIN(name, symbol, type, type_symbol)                     \
  WARD_WRAP_(                                                                 \
      bool, name, symbol "ERK" WARD_ABSL "9ConditionE" WARD_ABSL type_symbol, \
      (absl::Mutex * mutex, const absl::Condition& condition, type limit),    \
      (mutex, condition, limit))

void PointBeforeLock() {
  if (NoBranchPoints::Exist()) return;
  if (Scheduler* const scheduler = Scheduler::Current()) {
    scheduler->Point("locking a mutex");
  }
}

WARD_WRAP(void, Lock, "4Lock")
WARD_WRAP(void, ReaderLock, "10ReaderLock")
WARD_WRAP(bool, TryLock, "7TryLock")
WARD_WRAP(bool, ReaderTryLock, "13ReaderTryLock")
// As they are called since 2025, with those above for inline functions.
WARD_WRAP(void, LowerLock, "4lock")
WARD_WRAP(void, LockShared, "11lock_shared")
WARD_WRAP(bool, LowerTryLock, "8try_lock")
WARD_WRAP(bool, TryLockShared, "15try_lock_shared")

WARD_WRAP_WHEN(void, LockWhen, "8LockWhen")
WARD_WRAP_WHEN(void, ReaderLockWhen, "14ReaderLockWhen")
WARD_WRAP_WITHIN(LockWhenWithTimeout, "19LockWhenWithTimeout", absl::Duration,
                 "8DurationE")
WARD_WRAP_WITHIN(ReaderLockWhenWithTimeout, "25ReaderLockWhenWithTimeout",
                 absl::Duration, "8DurationE")
WARD_WRAP_WITHIN(LockWhenWithDeadline, "20LockWhenWithDeadline", absl::Time,
                 "4TimeE")
WARD_WRAP_WITHIN(ReaderLockWhenWithDeadline, "26ReaderLockWhenWithDeadline",
                 absl::Time, "4TimeE")
// Under all of these since 2023, which are inline.
WARD_WRAP_(bool, LockWhenCommon,
           "14LockWhenCommonERK" WARD_ABSL "9ConditionE" WARD_ABSL
           "24synchronization_internal13KernelTimeoutEb",
           (absl::Mutex * mutex, const absl::Condition& condition,
            KernelTimeout limit, bool write),
           (mutex, condition, limit, write))

// Called at every branch of code that is compiled with
// -fsanitize-coverage=trace-pc. Weak: libFuzzer brings one that does nothing.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming)
ABSL_ATTRIBUTE_WEAK void __sanitizer_cov_trace_pc() {
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

// Whether locking a free mutex, in whichever way, is a scheduling point.
bool LocksArePoints() {
  ReplayStrategy strategy({});
  const Scheduler scheduler(strategy, {});
  absl::Mutex mutex;
  const bool yes = true;
  const auto is_point = [&](absl::FunctionRef<void()> lock) {
    const size_t steps = scheduler.steps();
    lock();
    return scheduler.steps() > steps;
  };
  const absl::Condition always(&yes);
  const absl::Duration time = absl::Seconds(1);
  return is_point([&] { const absl::MutexLock lock(&mutex); }) &&
         is_point([&] { const absl::ReaderMutexLock lock(&mutex); }) &&
         is_point([&] { const absl::MutexLock lock(&mutex, always); }) &&
         is_point([&] { const absl::ReaderMutexLock lock(&mutex, always); }) &&
         is_point([&] {
           mutex.LockWhenWithTimeout(always, time);
           mutex.Unlock();
         }) &&
         is_point([&] {
           mutex.ReaderLockWhenWithDeadline(always, scheduler.now() + time);
           mutex.ReaderUnlock();
         });
}

// Whether Abseil is in the same file as this. Otherwise the code under test is
// in shared libraries of its own, too, which are linked without -Wl,--wrap: its
// locks would go unseen, whatever LocksArePoints() finds here.
bool IsLinkedStatically() {
  Dl_info own;
  Dl_info abseil;
  return dladdr(reinterpret_cast<void*>(&CheckLinkTimeHooks), &own) != 0 &&
         dladdr(reinterpret_cast<void*>(&absl::SetMutexDeadlockDetectionMode),
                &abseil) != 0 &&
         own.dli_fbase == abseil.dli_fbase;
}

}  // namespace

void CheckLinkTimeHooks() {
  static const bool kIsLinkedStatically = IsLinkedStatically();
  static const bool kAreInEffect =
      kIsLinkedStatically && InEffect() && LocksArePoints();
  if (kAreInEffect) return;
  if (kIsLinkedStatically) {
    std::cerr
        << "ward's simulator does not see when a mutex is locked: it does "
           "not know this release of Abseil, whose names begin with " WARD_MUTEX
           ". Add it to _RELEASES in ward's testing/mutex_symbols.bzl (and "
           "tell ward's authors).\n";
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

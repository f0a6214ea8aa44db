#include "ward/testing/simulator/interception_check.h"

#include <dlfcn.h>

#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <mutex>

#include "absl/base/options.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

// What begins the names of absl::Mutex's functions, for the linker.
#if ABSL_OPTION_USE_INLINE_NAMESPACE == 1
#define WARD_STRING(x) WARD_STRING_(x)
#define WARD_STRING_(x) #x
#define WARD_MUTEX \
  "_ZN4absl12" WARD_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME) "5Mutex"
#else
#define WARD_MUTEX "_ZN4absl5Mutex"
#endif

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

// Whether //testing/interception is linked at all.
bool IsThere() {
  ReplayStrategy strategy({});
  const Scheduler scheduler(strategy, {});
  std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  return scheduler.steps() > 0;
}

// Whether locking a free mutex, in whichever way, is a scheduling point, and
// unlocking it is another.
bool LocksArePoints() {
  ReplayStrategy strategy({});
  const Scheduler scheduler(strategy, {});
  absl::Mutex mutex;
  const bool yes = true;
  const auto is_point = [&](absl::FunctionRef<void()> lock) {
    const size_t steps = scheduler.steps();
    lock();
    return scheduler.steps() == steps + 2;
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
  return dladdr(reinterpret_cast<void*>(&CheckInterception), &own) != 0 &&
         dladdr(reinterpret_cast<void*>(&absl::SetMutexDeadlockDetectionMode),
                &abseil) != 0 &&
         own.dli_fbase == abseil.dli_fbase;
}

}  // namespace

void CheckInterception() {
  static const bool kIsThere = IsThere();
  if (!kIsThere) {
    std::cerr << "ward's simulator does not see pthread_mutex_lock(3), nor "
                 "anything else that waits: //testing/interception is not "
                 "linked. Depend on //testing:explore, //testing:server_test "
                 "or //testing:simulation, and not on what is behind them.\n";
    abort();
  }
  static const bool kIsLinkedStatically = IsLinkedStatically();
  static const bool kAreInEffect =
      kIsLinkedStatically && InEffect() && LocksArePoints();
  if (kAreInEffect) return;
  if (kIsLinkedStatically) {
    std::cerr
        << "ward's simulator does not see when a mutex is locked or unlocked: "
           "it does not know this release of Abseil, whose names begin "
           "with " WARD_MUTEX
           ". Add it to _RELEASES in ward's "
           "testing/interception/mutex_symbols.bzl (and "
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

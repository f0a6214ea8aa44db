// What Abseil orders threads by without a mutex: absl::Notification,
// absl::BlockingCounter, and what is under absl::call_once(). As in
// absl_mutex.cc the linker takes their functions for these. (What they wait
// with is a mutex, as any other.)

#include <atomic>
#include <cstdint>

#include "absl/base/options.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "ward/testing/simulator/order.h"

using ::ward::testing::Order;

namespace {

// The flag of a notification, which HasBeenNotified() reads in the header.
const void* FlagOf(const absl::Notification* notification) {
  return reinterpret_cast<const char*>(notification) + sizeof(absl::Mutex);
}

}  // namespace

// So that the linker takes Abseil's own in, as in absl_mutex.cc.
[[gnu::used]] static void (absl::Notification::*const kAbseilsNotification)() =
    &absl::Notification::Notify;
[[gnu::used]] static void (absl::BlockingCounter::*const kAbseilsCounter)() =
    &absl::BlockingCounter::Wait;

extern "C" {

#define WARD_STRING(x) WARD_STRING_(x)
#define WARD_STRING_(x) #x
#if ABSL_OPTION_USE_INLINE_NAMESPACE == 1
#define WARD_NAMESPACE "4absl12" WARD_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME)
#define WARD_ABSL "NS0_"
#define WARD_BASE_INTERNAL "NS1_"
#else
#define WARD_NAMESPACE "4absl"
#define WARD_ABSL "NS_"
#define WARD_BASE_INTERNAL "NS0_"
#endif

#define WARD_WRAP(result, name, kind, symbol, parameters)          \
  result WardReal##name parameters __asm__(                        \
      "__real_" kind WARD_NAMESPACE symbol) __attribute__((weak)); \
  result WardWrap##name parameters __asm__(                        \
      "__wrap_" kind WARD_NAMESPACE symbol);                       \
  result WardWrap##name parameters

WARD_WRAP(void, Notify, "_ZN", "12Notification6NotifyEv",
          (absl::Notification * notification)) {
  Order::Release(FlagOf(notification));
  WardRealNotify(notification);
}

WARD_WRAP(void, WaitForNotification, "_ZNK",
          "12Notification19WaitForNotificationEv",
          (const absl::Notification* notification)) {
  WardRealWaitForNotification(notification);
  Order::Acquire(FlagOf(notification));
}

WARD_WRAP(bool, WaitForNotificationWithTimeout, "_ZNK",
          "12Notification30WaitForNotificationWithTimeoutE" WARD_ABSL
          "8DurationE",
          (const absl::Notification* notification, absl::Duration limit)) {
  const bool notified =
      WardRealWaitForNotificationWithTimeout(notification, limit);
  if (notified) Order::Acquire(FlagOf(notification));
  return notified;
}

WARD_WRAP(bool, WaitForNotificationWithDeadline, "_ZNK",
          "12Notification31WaitForNotificationWithDeadlineE" WARD_ABSL "4TimeE",
          (const absl::Notification* notification, absl::Time end)) {
  const bool notified =
      WardRealWaitForNotificationWithDeadline(notification, end);
  if (notified) Order::Acquire(FlagOf(notification));
  return notified;
}

WARD_WRAP(bool, DecrementCount, "_ZN", "15BlockingCounter14DecrementCountEv",
          (absl::BlockingCounter * counter)) {
  Order::Uses(counter);
  Order::Release(counter);
  return WardRealDecrementCount(counter);
}

WARD_WRAP(void, WaitForCounter, "_ZN", "15BlockingCounter4WaitEv",
          (absl::BlockingCounter * counter)) {
  WardRealWaitForCounter(counter);
  Order::Acquire(counter);
}

// Who finds that another thread calls, or has called, comes here; all else of
// absl::call_once() is inline.
WARD_WRAP(uint32_t, SpinLockWait, "_ZN",
          "13base_internal12SpinLockWaitEPSt6atomicIjEiPK" WARD_BASE_INTERNAL
          "22SpinLockWaitTransitionE" WARD_BASE_INTERNAL "14SchedulingModeE",
          (std::atomic<uint32_t> * word, int count, const void* transitions,
           int mode)) {
  const uint32_t before = WardRealSpinLockWait(word, count, transitions, mode);
  Order::Acquire(word);
  return before;
}

#ifdef NDEBUG
// Newer Abseil has a body for it only if it is itself compiled with
// -fsanitize=thread, or is not optimised; code that is compiled so calls it.
void WardMutexDtor(absl::Mutex*) __asm__("_ZN" WARD_NAMESPACE "5Mutex4DtorEv")
    __attribute__((weak));
void WardMutexDtor(absl::Mutex* /*mutex*/) {}
#endif

}  // extern "C"

// Locking an absl::Mutex, free or not, and unlocking it; waits at a CondVar,
// which may end for no reason; and signals to it.
//
// Abseil has no hook there. The linker takes each call of, say, absl::Mutex's
// Lock for one of __wrap_..., and of __real_... for that of Lock: -Wl,--wrap=,
// see mutex_symbols.bzl. Names with their namespace in it are only known to the
// compiler, and to that list.

#include "absl/base/options.h"
#include "absl/synchronization/internal/create_thread_identity.h"
#include "absl/synchronization/internal/kernel_timeout.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"

using ::absl::synchronization_internal::KernelTimeout;
using ::ward::testing::Intercepting;
using ::ward::testing::NoSchedulingPoints;
using ::ward::testing::Order;
using ::ward::testing::Scheduler;
using ::ward::testing::Use;

// So that the linker takes Abseil's own in: to those that are wrapped, there
// are none but weak references.
[[gnu::used]] static void (*const kAbseilsMutex)(absl::OnDeadlockCycle) =
    &absl::SetMutexDeadlockDetectionMode;

namespace ward::testing {
namespace {

// While a thread is in a function of Abseil's that was called from outside.
// Some call another one of these, and lld, unlike others, has even those calls
// come here: they are part of the first.
class InAbseil {
 public:
  InAbseil() { is_so_ = true; }
  InAbseil(const InAbseil&) = delete;
  InAbseil& operator=(const InAbseil&) = delete;
  ~InAbseil() { is_so_ = false; }

  static bool IsSo() { return is_so_; }

 private:
  // Whoever unlocks a mutex looks whether others may go on, which is theirs.
  const Order::Unseen unseen_;
  static thread_local bool is_so_;
};

thread_local bool InAbseil::is_so_ = false;

// Tells Order, at its end, that a mutex is locked, if the simulation is to
// know.
class Locking {
 public:
  Locking(const absl::Mutex* mutex, Order::Lock lock)
      : mutex_(Intercepting() == nullptr ? nullptr : mutex), lock_(lock) {}
  Locking(const absl::Mutex* mutex, Use use)
      : Locking(mutex, use == Use::kRead ? Order::Lock::kShared
                                         : Order::Lock::kExclusive) {}
  Locking(const Locking&) = delete;
  Locking& operator=(const Locking&) = delete;
  ~Locking() {
    if (mutex_ != nullptr) Order::Locked(mutex_, lock_);
  }

  // What a function returned that may not have locked it.
  bool Tried(bool locked) {
    if (!locked) mutex_ = nullptr;
    return locked;
  }

 private:
  const absl::Mutex* mutex_;
  const Order::Lock lock_;
};

// A mutex that is given back for a while: at the end it is locked as it was.
class Waiting {
 public:
  explicit Waiting(const absl::Mutex* mutex)
      : locking_(mutex, Intercepting() == nullptr ? Order::Lock::kExclusive
                                                  : Order::Unlocked(mutex)) {}

 private:
  const Locking locking_;
};

const absl::Mutex* MutexOf(const absl::Mutex* mutex) { return mutex; }
// It has but the address of its mutex.
const absl::Mutex* MutexOf(const absl::ReleasableMutexLock* lock) {
  return *reinterpret_cast<const absl::Mutex* const*>(lock);
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::InAbseil;
using ::ward::testing::Locking;
using ::ward::testing::MutexOf;
using ::ward::testing::Waiting;

extern "C" {

#define WARD_STRING(x) WARD_STRING_(x)
#define WARD_STRING_(x) #x
#if ABSL_OPTION_USE_INLINE_NAMESPACE == 1
// Lengths are part of such a name.
static_assert(sizeof(WARD_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME)) == 13,
              "Abseil's inline namespace is not called lts_YYYYMMDD");
#define WARD_NAMESPACE \
  "_ZN4absl12" WARD_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME)
#define WARD_ABSL "NS0_"
#else
#define WARD_NAMESPACE "_ZN4absl"
#define WARD_ABSL "NS_"
#endif

// `symbol` is the function's own part of its name. The real one is weak: which
// of these there are depends on Abseil's version.
#define WARD_DECLARE(result, name, symbol, parameters)                      \
  result WardReal##name parameters __asm__("__real_" WARD_NAMESPACE symbol) \
      __attribute__((weak));                                                \
  result WardWrap##name parameters __asm__("__wrap_" WARD_NAMESPACE symbol);

// Does `before`, and calls it.
#define WARD_WRAP_(result, name, symbol, parameters, arguments, returned, \
                   before)                                                \
  WARD_DECLARE(result, name, "5Mutex" symbol, parameters)                 \
  result WardWrap##name parameters {                                      \
    if (InAbseil::IsSo()) return WardReal##name arguments;                \
    before;                                                               \
    const InAbseil here;                                                  \
    return returned(WardReal##name arguments);                            \
  }

#define WARD_WRAP_LOCK_(result, name, symbol, use, parameters, arguments, \
                        returned)                                         \
  WARD_WRAP_(result, name, symbol, parameters, arguments, returned,       \
             PointBeforeLock(mutex, use);                                 \
             [[maybe_unused]] Locking locking(mutex, use))
#define WARD_WRAP_LOCK(name, symbol, use, result, returned)              \
  WARD_WRAP_LOCK_(result, name, symbol "Ev", use, (absl::Mutex * mutex), \
                  (mutex), returned)
#define WARD_WRAP_WHEN(name, symbol, use, result)                          \
  WARD_WRAP_LOCK_(result, name, symbol "ERK" WARD_ABSL "9ConditionE", use, \
                  (absl::Mutex * mutex, const absl::Condition& condition), \
                  (mutex, condition), )
#define WARD_WRAP_WITHIN(name, symbol, use, type, type_symbol)                \
  WARD_WRAP_LOCK_(                                                            \
      bool, name, symbol "ERK" WARD_ABSL "9ConditionE" WARD_ABSL type_symbol, \
      use,                                                                    \
      (absl::Mutex * mutex, const absl::Condition& condition, type limit),    \
      (mutex, condition, limit), )

// One of these, of who writes and of who reads.
#define WARD_EACH_USE(wrap, name, symbol, reader_symbol, ...) \
  wrap(name, symbol, Use::kWrite, __VA_ARGS__)                \
      wrap(Reader##name, reader_symbol, Use::kRead, __VA_ARGS__)

void PointBeforeLock(const absl::Mutex* mutex, Use use) {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr) return;
  // Whatever is waited for, a mutex is locked before.
  scheduler->SetIdentity(
      absl::synchronization_internal::GetOrCreateCurrentThreadIdentity());
  if (NoSchedulingPoints::Exist()) return;
  scheduler->Point("locking a mutex", mutex, use);
  Order::Uses(mutex);
}

WARD_EACH_USE(WARD_WRAP_LOCK, Lock, "4Lock", "10ReaderLock", void, )
WARD_EACH_USE(WARD_WRAP_LOCK, TryLock, "7TryLock", "13ReaderTryLock", bool,
              locking.Tried)
// As they are called since 2025, with those above for inline functions.
WARD_EACH_USE(WARD_WRAP_LOCK, LowerLock, "4lock", "11lock_shared", void, )
WARD_EACH_USE(WARD_WRAP_LOCK, LowerTryLock, "8try_lock", "15try_lock_shared",
              bool, locking.Tried)

// Who checks under the lock may use what was found after it. Who has woken
// another one was at a point just now.
#define WARD_WRAP_UNLOCK(type, name, symbol)                            \
  WARD_DECLARE(void, name, symbol "Ev", (absl::type * lock))            \
  void WardWrap##name(absl::type* lock) {                               \
    if (InAbseil::IsSo()) return WardReal##name(lock);                  \
    Scheduler* const scheduler = Intercepting();                        \
    const size_t steps = scheduler == nullptr ? 0 : scheduler->steps(); \
    if (scheduler != nullptr) Order::Unlocked(MutexOf(lock));           \
    {                                                                   \
      const InAbseil here;                                              \
      WardReal##name(lock);                                             \
    }                                                                   \
    if (scheduler == nullptr || scheduler->steps() != steps) return;    \
    scheduler->PointAfter("unlocking a mutex");                         \
  }

WARD_WRAP_UNLOCK(Mutex, Unlock, "5Mutex6Unlock")
WARD_WRAP_UNLOCK(Mutex, ReaderUnlock, "5Mutex12ReaderUnlock")
WARD_WRAP_UNLOCK(Mutex, LowerUnlock, "5Mutex6unlock")
WARD_WRAP_UNLOCK(Mutex, UnlockShared, "5Mutex13unlock_shared")
WARD_WRAP_UNLOCK(ReleasableMutexLock, Release, "19ReleasableMutexLock7Release")

// `early` waits until `past`.
#define WARD_WRAP_WAIT(result, name, symbol, parameters, arguments, early)    \
  WARD_DECLARE(result, name, "7CondVar" symbol, parameters)                   \
  result WardWrap##name parameters {                                          \
    if (InAbseil::IsSo()) return WardReal##name arguments;                    \
    Scheduler* const scheduler = Intercepting();                              \
    /* As in condition.cc. */                                                 \
    if (scheduler != nullptr) {                                               \
      scheduler->Point("waiting for a condition", condition, Use::kNothing);  \
    }                                                                         \
    Order::Uses(condition);                                                   \
    const Waiting waiting(mutex);                                             \
    const bool wakes = scheduler != nullptr && scheduler->WakesForNoReason(); \
    const InAbseil here;                                                      \
    if (!wakes) return WardReal##name arguments;                              \
    /* As if its limit had come, but for what it returns. */                  \
    const absl::Time past = scheduler->now() - absl::Seconds(1);              \
    early;                                                                    \
    return result();                                                          \
  }

WARD_WRAP_WAIT(bool, WaitWithDeadline,
               "16WaitWithDeadlineEP" WARD_ABSL "5MutexE" WARD_ABSL "4TimeE",
               (absl::CondVar * condition, absl::Mutex* mutex, absl::Time end),
               (condition, mutex, end),
               WardRealWaitWithDeadline(condition, mutex, past))
WARD_WRAP_WAIT(bool, WaitWithTimeout,
               "15WaitWithTimeoutEP" WARD_ABSL "5MutexE" WARD_ABSL "8DurationE",
               (absl::CondVar * condition, absl::Mutex* mutex,
                absl::Duration limit),
               (condition, mutex, limit),
               WardRealWaitWithDeadline(condition, mutex, past))
WARD_WRAP_WAIT(void, Wait, "4WaitEP" WARD_ABSL "5MutexE",
               (absl::CondVar * condition, absl::Mutex* mutex),
               (condition, mutex),
               WardRealWaitWithDeadline(condition, mutex, past))
// Under all of these since 2023, which are inline.
WARD_WRAP_WAIT(bool, WaitCommon,
               "10WaitCommonEP" WARD_ABSL "5MutexE" WARD_ABSL
               "24synchronization_internal13KernelTimeoutE",
               (absl::CondVar * condition, absl::Mutex* mutex,
                KernelTimeout limit),
               (condition, mutex, limit),
               WardRealWaitCommon(condition, mutex, KernelTimeout(past)))

#define WARD_WRAP_SIGNAL(name, symbol)             \
  WARD_DECLARE(void, name, "7CondVar" symbol "Ev", \
               (absl::CondVar * condition))        \
  void WardWrap##name(absl::CondVar* condition) {  \
    Order::Uses(condition);                        \
    WardReal##name(condition);                     \
  }

WARD_WRAP_SIGNAL(Signal, "6Signal")
WARD_WRAP_SIGNAL(SignalAll, "9SignalAll")

WARD_EACH_USE(WARD_WRAP_WHEN, LockWhen, "8LockWhen", "14ReaderLockWhen", void)
WARD_EACH_USE(WARD_WRAP_WITHIN, LockWhenWithTimeout, "19LockWhenWithTimeout",
              "25ReaderLockWhenWithTimeout", absl::Duration, "8DurationE")
WARD_EACH_USE(WARD_WRAP_WITHIN, LockWhenWithDeadline, "20LockWhenWithDeadline",
              "26ReaderLockWhenWithDeadline", absl::Time, "4TimeE")
// Under all of these since 2023, which are inline.
WARD_WRAP_LOCK_(bool, LockWhenCommon,
                "14LockWhenCommonERK" WARD_ABSL "9ConditionE" WARD_ABSL
                "24synchronization_internal13KernelTimeoutEb",
                write ? Use::kWrite : Use::kRead,
                (absl::Mutex * mutex, const absl::Condition& condition,
                 KernelTimeout limit, bool write),
                (mutex, condition, limit, write), )

// For these there was no point before, nor is there one now: whoever waits has
// the mutex.
#define WARD_WRAP_AWAIT(result, name, symbol, parameters, arguments) \
  WARD_WRAP_(result, name, symbol, parameters, arguments, ,          \
             const Waiting waiting(mutex))

WARD_WRAP_AWAIT(void, Await, "5AwaitERK" WARD_ABSL "9ConditionE",
                (absl::Mutex * mutex, const absl::Condition& condition),
                (mutex, condition))
WARD_WRAP_AWAIT(bool, AwaitWithTimeout,
                "16AwaitWithTimeoutERK" WARD_ABSL "9ConditionE" WARD_ABSL
                "8DurationE",
                (absl::Mutex * mutex, const absl::Condition& condition,
                 absl::Duration limit),
                (mutex, condition, limit))
WARD_WRAP_AWAIT(bool, AwaitWithDeadline,
                "17AwaitWithDeadlineERK" WARD_ABSL "9ConditionE" WARD_ABSL
                "4TimeE",
                (absl::Mutex * mutex, const absl::Condition& condition,
                 absl::Time end),
                (mutex, condition, end))
// Under all of these since 2023, which are inline.
WARD_WRAP_AWAIT(bool, AwaitCommon,
                "11AwaitCommonERK" WARD_ABSL "9ConditionE" WARD_ABSL
                "24synchronization_internal13KernelTimeoutE",
                (absl::Mutex * mutex, const absl::Condition& condition,
                 KernelTimeout limit),
                (mutex, condition, limit))

}  // extern "C"

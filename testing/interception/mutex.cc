// pthread_mutex_t of all types, and pthread_spinlock_t: under std::mutex and
// its relatives. The objects themselves say who has them, so that one that was
// locked before the simulation, or by code that it does not see, is known.

#include "ward/testing/interception/mutex.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/types.h>
#include <time.h>

#include <cerrno>
#include <climits>

#include "ward/testing/interception/children.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/runner.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

WARD_REAL(pthread_mutex_lock);
WARD_REAL(pthread_mutex_trylock);
WARD_REAL(pthread_mutex_timedlock);
WARD_REAL(pthread_mutex_clocklock);
WARD_REAL(pthread_mutex_unlock);
WARD_REAL(pthread_spin_lock);
WARD_REAL(pthread_spin_trylock);
WARD_REAL(pthread_spin_unlock);

namespace ward::testing {
namespace {

bool IsShared(const pthread_mutex_t* mutex) {
  constexpr int kSharedBit = 128;
  return (mutex->__data.__kind & kSharedBit) != 0;
}

bool IsElsewhere(const Scheduler& scheduler, const void* object) {
  const auto* const mutex = static_cast<const pthread_mutex_t*>(object);
  return IsShared(mutex) && scheduler.FindByNumber(mutex->__data.__owner) < 0;
}

// By this process or another one.
bool IsFree(const void* object) {
  const auto& data = static_cast<const pthread_mutex_t*>(object)->__data;
  const auto lock =
      static_cast<unsigned>(__atomic_load_n(&data.__lock, __ATOMIC_RELAXED));
  return lock == 0 || (lock & FUTEX_OWNER_DIED) != 0;
}

constexpr Names kMutex = {"locking a mutex",   "waiting for a mutex",
                          "unlocking a mutex", Use::kWrite,
                          &IsElsewhere,        &IsFree};
constexpr Names kSpinLock = {"locking a spin lock", "waiting for a spin lock",
                             "unlocking a spin lock"};

constexpr int kTypeBits = 3;

// pthread_mutex_trylock says no more of such a mutex than that it is locked.
bool IsErrorCheckingAndOwn(const pthread_mutex_t* mutex) {
  return (mutex->__data.__kind & kTypeBits) == PTHREAD_MUTEX_ERRORCHECK_NP &&
         mutex->__data.__owner == Runner::CurrentNumber();
}

int TryToLock(pthread_mutex_t* mutex) {
  const int error = real_pthread_mutex_trylock(mutex);
  return error == EBUSY && IsErrorCheckingAndOwn(mutex) ? EDEADLK : error;
}

int LockInChild(pthread_mutex_t* mutex) {
  if (IsShared(mutex)) return real_pthread_mutex_lock(mutex);
  const int error = TryToLock(mutex);
  if (error != EBUSY) return error;
  const WaitInChild wait(kMutex.waiting, mutex->__data.__owner);
  return real_pthread_mutex_lock(mutex);
}

void FailUnlock(Scheduler& scheduler, const pthread_mutex_t* mutex) {
  const int type = mutex->__data.__kind & kTypeBits;
  const bool is_refused =
      type == PTHREAD_MUTEX_RECURSIVE_NP || type == PTHREAD_MUTEX_ERRORCHECK_NP;
  const pid_t owner = mutex->__data.__owner;
  FailUnlock(scheduler, mutex, "a mutex", owner,
             !is_refused  ? ", which is undefined"
             : owner == 0 ? " (EPERM)"
                          : ", and so stays locked (EPERM)");
}

int LockWithin(Scheduler& scheduler, pthread_mutex_t* mutex,
               const timespec& limit) {
  return Locked(mutex, TakeInSchedule(
                           scheduler, mutex, kMutex,
                           [mutex] { return TryToLock(mutex); }, EBUSY, limit));
}

}  // namespace

int LockInSchedule(Scheduler& scheduler, pthread_mutex_t* mutex) {
  return Locked(mutex, TakeInSchedule(
                           scheduler, mutex, kMutex,
                           [mutex] { return TryToLock(mutex); }, EBUSY));
}

int UnlockInSchedule(Scheduler& scheduler, pthread_mutex_t* mutex) {
  // A robust one whose owner has died has none until somebody makes it
  // consistent; who has locked it may also give it up (pthread_mutex_consistent
  // (3)).
  constexpr pid_t kInconsistent = INT_MAX;
  const pid_t owner = mutex->__data.__owner;
  if (owner != kInconsistent && !scheduler.Runs(owner)) {
    FailUnlock(scheduler, mutex);
  }
  const int error = real_pthread_mutex_unlock(mutex);
  if (error != 0) return error;
  Order::Unlocked(mutex);
  scheduler.WakeAt(mutex);
  return 0;
}

}  // namespace ward::testing

using ::ward::testing::Intercepting;
using ::ward::testing::Order;
using ::ward::testing::Scheduler;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return ward::testing::IsChild() ? ward::testing::LockInChild(mutex)
                                    : real_pthread_mutex_lock(mutex);
  }
  return ward::testing::LockInSchedule(*scheduler, mutex);
}

int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_pthread_mutex_trylock(mutex);
  scheduler->Point(ward::testing::kMutex.taking, mutex);
  return ward::testing::Locked(mutex, real_pthread_mutex_trylock(mutex));
}

int pthread_mutex_timedlock(pthread_mutex_t* mutex,
                            const timespec* limit) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_pthread_mutex_timedlock(mutex, limit);
  return ward::testing::LockWithin(*scheduler, mutex, *limit);
}

int pthread_mutex_clocklock(pthread_mutex_t* mutex, clockid_t clock,
                            const timespec* limit) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return real_pthread_mutex_clocklock(mutex, clock, limit);
  }
  return ward::testing::LockWithin(*scheduler, mutex, *limit);
}

int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_pthread_mutex_unlock(mutex);
  const int error = ward::testing::UnlockInSchedule(*scheduler, mutex);
  // Who checks under the lock may use what was found after it.
  if (error == 0) {
    scheduler->PointAfter(ward::testing::kMutex.giving, mutex);
  }
  return error;
}

int pthread_spin_lock(pthread_spinlock_t* lock) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_pthread_spin_lock(lock);
  return ward::testing::Locked(
      const_cast<const int*>(lock),
      ward::testing::TakeInSchedule(
          *scheduler, const_cast<const int*>(lock), ward::testing::kSpinLock,
          [lock] { return real_pthread_spin_trylock(lock); }, EBUSY));
}

int pthread_spin_trylock(pthread_spinlock_t* lock) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_pthread_spin_trylock(lock);
  scheduler->Point(ward::testing::kSpinLock.taking,
                   const_cast<const int*>(lock));
  return ward::testing::Locked(const_cast<const int*>(lock),
                               real_pthread_spin_trylock(lock));
}

int pthread_spin_unlock(pthread_spinlock_t* lock) noexcept {
  const int error = real_pthread_spin_unlock(lock);
  if (Scheduler* const scheduler = Intercepting()) {
    Order::Unlocked(const_cast<const int*>(lock));
    ward::testing::GiveInSchedule(*scheduler, const_cast<const int*>(lock),
                                  ward::testing::kSpinLock);
  }
  return error;
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

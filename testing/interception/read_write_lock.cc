// pthread_rwlock_t: under std::shared_mutex and std::shared_timed_mutex.

#include <pthread.h>
#include <sys/types.h>
#include <time.h>

#include <cerrno>

#include "ward/testing/interception/children.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/runner.h"
#include "ward/testing/simulator/scheduler.h"

WARD_REAL(pthread_rwlock_rdlock);
WARD_REAL(pthread_rwlock_tryrdlock);
WARD_REAL(pthread_rwlock_timedrdlock);
WARD_REAL(pthread_rwlock_clockrdlock);
WARD_REAL(pthread_rwlock_wrlock);
WARD_REAL(pthread_rwlock_trywrlock);
WARD_REAL(pthread_rwlock_timedwrlock);
WARD_REAL(pthread_rwlock_clockwrlock);
WARD_REAL(pthread_rwlock_unlock);

namespace ward::testing {
namespace {

constexpr Names kReading = {"locking a reader-writer lock to read",
                            "waiting to read under a reader-writer lock",
                            "unlocking a reader-writer lock", Use::kRead};
constexpr Names kWriting = {"locking a reader-writer lock to write",
                            "waiting to write under a reader-writer lock",
                            "unlocking a reader-writer lock"};

// The thread that waits would wait for itself (pthread_rwlock_wrlock(3p)).
int Explain(int error, const pthread_rwlock_t& lock) {
  const bool own = lock.__data.__cur_writer == Runner::CurrentNumber();
  return error == EBUSY && own ? EDEADLK : error;
}

// Nobody reads behind a writer that waits, where they come first
// (pthread_rwlockattr_setkind_np(3)). Those wait in the schedule alone, and so
// the lock itself does not know of them.
int TryToRead(const Scheduler& scheduler, pthread_rwlock_t* lock) {
  const bool prefers_writers =
      lock->__data.__flags == PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP;
  if (prefers_writers && scheduler.IsWaitedFor(lock, kWriting.waiting)) {
    return EBUSY;
  }
  return real_pthread_rwlock_tryrdlock(lock);
}

// With a limit, or without one.
template <typename... Limit>
int Read(Scheduler& scheduler, pthread_rwlock_t* lock, const Limit&... limit) {
  return Locked(lock,
                TakeInSchedule(
                    scheduler, lock, kReading,
                    [&] { return Explain(TryToRead(scheduler, lock), *lock); },
                    EBUSY, limit...),
                Order::Lock::kShared);
}

template <typename... Limit>
int Write(Scheduler& scheduler, pthread_rwlock_t* lock, const Limit&... limit) {
  const int error = TakeInSchedule(
      scheduler, lock, kWriting,
      [lock] { return Explain(real_pthread_rwlock_trywrlock(lock), *lock); },
      EBUSY, limit...);
  // It may have held up some that read.
  if (error == ETIMEDOUT) scheduler.WakeAt(lock);
  return Locked(lock, error);
}

// Of those who read it does not say who they are.
void CheckUnlock(Scheduler& scheduler, const pthread_rwlock_t& lock) {
  constexpr unsigned kReaderShift = 3;
  const pid_t writer = lock.__data.__cur_writer;
  const bool is_locked =
      writer != 0 || lock.__data.__readers >> kReaderShift != 0;
  if (is_locked && (writer == 0 || scheduler.Runs(writer))) return;
  FailUnlock(scheduler, &lock, "a reader-writer lock", writer,
             ", which is undefined");
}

// `lock_it` waits, as `names` say, and `try_to` does not.
template <typename Function>
int LockInChild(pthread_rwlock_t* lock, const Names& names, Function& try_to,
                Function& lock_it) {
  if (!IsChild() || lock->__data.__shared != 0) return lock_it(lock);
  const int error = Explain(try_to(lock), *lock);
  if (error != EBUSY) return error;
  const WaitInChild wait(names.waiting, lock->__data.__cur_writer);
  return lock_it(lock);
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::Intercepting;
using ::ward::testing::Order;
using ::ward::testing::Scheduler;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int pthread_rwlock_rdlock(pthread_rwlock_t* lock) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return ward::testing::LockInChild(lock, ward::testing::kReading,
                                      real_pthread_rwlock_tryrdlock,
                                      real_pthread_rwlock_rdlock);
  }
  return ward::testing::Read(*scheduler, lock);
}

int pthread_rwlock_timedrdlock(pthread_rwlock_t* lock,
                               const timespec* limit) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return real_pthread_rwlock_timedrdlock(lock, limit);
  }
  return ward::testing::Read(*scheduler, lock, *limit);
}

int pthread_rwlock_clockrdlock(pthread_rwlock_t* lock, clockid_t clock,
                               const timespec* limit) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return real_pthread_rwlock_clockrdlock(lock, clock, limit);
  }
  return ward::testing::Read(*scheduler, lock, *limit);
}

int pthread_rwlock_tryrdlock(pthread_rwlock_t* lock) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_pthread_rwlock_tryrdlock(lock);
  scheduler->Point(ward::testing::kReading.taking, lock,
                   ward::testing::kReading.use);
  return ward::testing::Locked(lock, ward::testing::TryToRead(*scheduler, lock),
                               Order::Lock::kShared);
}

int pthread_rwlock_wrlock(pthread_rwlock_t* lock) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return ward::testing::LockInChild(lock, ward::testing::kWriting,
                                      real_pthread_rwlock_trywrlock,
                                      real_pthread_rwlock_wrlock);
  }
  return ward::testing::Write(*scheduler, lock);
}

int pthread_rwlock_timedwrlock(pthread_rwlock_t* lock,
                               const timespec* limit) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return real_pthread_rwlock_timedwrlock(lock, limit);
  }
  return ward::testing::Write(*scheduler, lock, *limit);
}

int pthread_rwlock_clockwrlock(pthread_rwlock_t* lock, clockid_t clock,
                               const timespec* limit) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return real_pthread_rwlock_clockwrlock(lock, clock, limit);
  }
  return ward::testing::Write(*scheduler, lock, *limit);
}

int pthread_rwlock_trywrlock(pthread_rwlock_t* lock) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_pthread_rwlock_trywrlock(lock);
  scheduler->Point(ward::testing::kWriting.taking, lock);
  return ward::testing::Locked(lock, real_pthread_rwlock_trywrlock(lock));
}

int pthread_rwlock_unlock(pthread_rwlock_t* lock) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler != nullptr) ward::testing::CheckUnlock(*scheduler, *lock);
  const int error = real_pthread_rwlock_unlock(lock);
  if (scheduler != nullptr && error == 0) {
    Order::Unlocked(lock);
    ward::testing::GiveInSchedule(*scheduler, lock, ward::testing::kReading);
  }
  return error;
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

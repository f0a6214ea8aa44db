// pthread_cond_t: under std::condition_variable, and with a mutex under
// std::condition_variable_any and std::promise.

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "absl/time/time.h"
#include "ward/testing/interception/children.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/mutex.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/interception/world.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"

WARD_REAL(pthread_cond_wait);
WARD_REAL(pthread_cond_timedwait);
WARD_REAL(pthread_cond_clockwait);
WARD_REAL(pthread_cond_signal);
WARD_REAL(pthread_cond_broadcast);

namespace ward::testing {
namespace {

bool IsShared(const pthread_cond_t* condition) {
  constexpr unsigned kSharedBit = 1;
  return (condition->__data.__wrefs & kSharedBit) != 0;
}

int WaitInSchedule(Scheduler& scheduler, pthread_cond_t* condition,
                   pthread_mutex_t* mutex, absl::Time deadline) {
  // Who signals without the mutex may do so here, between the look at what is
  // waited for and the wait. After it nobody comes between, and is heard.
  scheduler.Point("waiting for a condition", condition, Use::kNothing);
  Order::Uses(condition);
  if (const int error = UnlockInSchedule(scheduler, mutex)) return error;
  // The signal of another process is not seen: such a wait ends soon, for no
  // reason, as any may.
  const bool is_asked_again = IsShared(condition) && HasChildren(scheduler);
  const absl::Time end =
      is_asked_again
          ? std::min(deadline, scheduler.now() + absl::Milliseconds(1))
          : deadline;
  const bool woken =
      scheduler.WakesForNoReason() ||
      scheduler.WaitAt(condition, "waiting for a condition", end);
  if (const int error = LockInSchedule(scheduler, mutex)) return error;
  return woken || end < deadline ? 0 : ETIMEDOUT;
}

int WaitInSchedule(Scheduler& scheduler, pthread_cond_t* condition,
                   pthread_mutex_t* mutex, const timespec& limit) {
  if (!IsValid(limit)) return EINVAL;
  return WaitInSchedule(scheduler, condition, mutex, DeadlineOf(limit));
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::Intercepting;
using ::ward::testing::Order;
using ::ward::testing::Scheduler;
using ::ward::testing::Use;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    std::optional<ward::testing::WaitInChild> wait;
    if (!ward::testing::IsShared(condition)) {
      wait.emplace("waiting for a condition");
    }
    return real_pthread_cond_wait(condition, mutex);
  }
  return ward::testing::WaitInSchedule(*scheduler, condition, mutex,
                                       absl::InfiniteFuture());
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const timespec* limit) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return real_pthread_cond_timedwait(condition, mutex, limit);
  }
  return ward::testing::WaitInSchedule(*scheduler, condition, mutex, *limit);
}

int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           clockid_t clock, const timespec* limit) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return real_pthread_cond_clockwait(condition, mutex, clock, limit);
  }
  return ward::testing::WaitInSchedule(*scheduler, condition, mutex, *limit);
}

// Threads that are not simulated may wait, too.
int pthread_cond_signal(pthread_cond_t* condition) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_pthread_cond_signal(condition);
  Order::Uses(condition);
  const bool woken = scheduler->WakeAt(condition, 1) > 0;
  const int error = woken ? 0 : real_pthread_cond_signal(condition);
  scheduler->Point("signalling a condition", condition, Use::kNothing);
  return error;
}

int pthread_cond_broadcast(pthread_cond_t* condition) noexcept {
  Order::Uses(condition);
  const int error = real_pthread_cond_broadcast(condition);
  if (Scheduler* const scheduler = Intercepting()) {
    scheduler->WakeAt(condition);
    scheduler->Point("signalling a condition to all", condition, Use::kNothing);
  }
  return error;
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

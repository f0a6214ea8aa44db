// sem_t.

#include <semaphore.h>
#include <time.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>

#include "absl/time/time.h"
#include "ward/testing/interception/children.h"
#include "ward/testing/interception/faults.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

WARD_REAL(sem_wait);
WARD_REAL(sem_trywait);
WARD_REAL(sem_timedwait);
WARD_REAL(sem_clockwait);
WARD_REAL(sem_post);

namespace ward::testing {
namespace {

// As glibc has it, whose sem_t says no more than its size: of a semaphore that
// processes share, a flag of futex(2) comes after its value.
bool IsShared(const void* object) {
  struct Semaphore {
    uint64_t value;
    int shared;
  };
  static_assert(sizeof(sem_t) >= sizeof(Semaphore));
  Semaphore found;
  std::memcpy(&found, object, sizeof(found));
  return found.shared != 0;
}

bool IsElsewhere(const Scheduler& /*scheduler*/, const void* object) {
  return IsShared(object);
}

bool IsFree(const void* object) {
  int value = 0;
  auto* const semaphore = static_cast<sem_t*>(const_cast<void*>(object));
  return sem_getvalue(semaphore, &value) == 0 && value > 0;
}

constexpr Names kSemaphore = {"taking a semaphore",  "waiting for a semaphore",
                              "posting a semaphore", Use::kWrite,
                              &IsElsewhere,          &IsFree};

// As a function of semaphore.h returns it.
template <typename Limit>
int Take(Scheduler& scheduler, sem_t* semaphore, const Limit& limit,
         int Interruptions::*interruption) {
  const int errno_before = errno;
  const auto try_to_take = [semaphore] {
    return real_sem_trywait(semaphore) == 0 ? 0 : errno;
  };
  const int error = TakeInSchedule(scheduler, semaphore, kSemaphore,
                                   try_to_take, EAGAIN, limit, interruption);
  errno = error == 0 ? errno_before : error;
  if (error != 0) return -1;
  Order::Acquire(semaphore);
  return 0;
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::Intercepting;
using ::ward::testing::Interruptions;
using ::ward::testing::Order;
using ::ward::testing::Scheduler;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int sem_wait(sem_t* semaphore) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    std::optional<ward::testing::WaitInChild> wait;
    // A signal's handler may post it (signal-safety(7)).
    if (ward::testing::IsChild() && !ward::testing::IsShared(semaphore) &&
        !ward::testing::IsFree(semaphore) &&
        !ward::testing::CanBeInterrupted(&Interruptions::all)) {
      wait.emplace(ward::testing::kSemaphore.waiting);
    }
    return real_sem_wait(semaphore);
  }
  return ward::testing::Take(*scheduler, semaphore, absl::InfiniteFuture(),
                             &Interruptions::without_restart);
}

int sem_timedwait(sem_t* semaphore, const timespec* limit) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_sem_timedwait(semaphore, limit);
  // The kernel does not start it anew, whatever sigaction(2) has.
  return ward::testing::Take(*scheduler, semaphore, *limit,
                             &Interruptions::all);
}

int sem_clockwait(sem_t* semaphore, clockid_t clock, const timespec* limit) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_sem_clockwait(semaphore, clock, limit);
  return ward::testing::Take(*scheduler, semaphore, *limit,
                             &Interruptions::all);
}

int sem_trywait(sem_t* semaphore) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_sem_trywait(semaphore);
  scheduler->Point(ward::testing::kSemaphore.taking, semaphore);
  const int result = real_sem_trywait(semaphore);
  if (result == 0) Order::Acquire(semaphore);
  return result;
}

int sem_post(sem_t* semaphore) noexcept {
  Order::Uses(semaphore);
  const int result = real_sem_post(semaphore);
  Scheduler* const scheduler = result == 0 ? Intercepting() : nullptr;
  if (scheduler != nullptr) {
    Order::Release(semaphore);
    ward::testing::GiveInSchedule(*scheduler, semaphore,
                                  ward::testing::kSemaphore);
  }
  return result;
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

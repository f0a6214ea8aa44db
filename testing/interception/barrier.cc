// pthread_barrier_t.

#include <pthread.h>

#include <cerrno>
#include <map>

#include "absl/base/attributes.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"

WARD_REAL(pthread_barrier_init);
WARD_REAL(pthread_barrier_destroy);
WARD_REAL(pthread_barrier_wait);

namespace ward::testing {
namespace {

struct Barrier {
  unsigned count;
  unsigned arrived = 0;
};

// Of those that simulated threads have made: nothing else tells how many a
// barrier is for.
ABSL_CONST_INIT std::map<const pthread_barrier_t*, Barrier>* barriers = nullptr;

void Keep(const pthread_barrier_t* barrier, unsigned count) {
  const NoSchedulingPoints quiet;
  if (barriers == nullptr) {
    barriers = new std::map<const pthread_barrier_t*, Barrier>;
  }
  (*barriers)[barrier] = {count};
}

Barrier* Find(const pthread_barrier_t* barrier) {
  const NoSchedulingPoints quiet;
  if (barriers == nullptr) return nullptr;
  const auto found = barriers->find(barrier);
  return found == barriers->end() ? nullptr : &found->second;
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::Intercepting;
using ::ward::testing::NoSchedulingPoints;
using ::ward::testing::Order;
using ::ward::testing::Scheduler;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int pthread_barrier_init(pthread_barrier_t* barrier,
                         const pthread_barrierattr_t* attributes,
                         unsigned count) noexcept {
  const int error = real_pthread_barrier_init(barrier, attributes, count);
  if (error == 0 && Intercepting() != nullptr) {
    ward::testing::Keep(barrier, count);
  }
  return error;
}

int pthread_barrier_destroy(pthread_barrier_t* barrier) noexcept {
  if (ward::testing::Find(barrier) != nullptr) {
    const NoSchedulingPoints quiet;
    ward::testing::barriers->erase(barrier);
  }
  return real_pthread_barrier_destroy(barrier);
}

int pthread_barrier_wait(pthread_barrier_t* barrier) noexcept {
  Scheduler* const scheduler = Intercepting();
  ward::testing::Barrier* const known =
      scheduler == nullptr ? nullptr : ward::testing::Find(barrier);
  if (known == nullptr) return real_pthread_barrier_wait(barrier);
  scheduler->Point("arriving at a barrier", barrier);
  Order::Uses(barrier);
  Order::Release(barrier);
  if (++known->arrived < known->count) {
    scheduler->WaitAt(barrier, "waiting at a barrier");
    Order::Acquire(barrier);
    return 0;
  }
  Order::Acquire(barrier);
  known->arrived = 0;
  scheduler->WakeAt(barrier);
  scheduler->PointAfter("opening a barrier", barrier);
  return PTHREAD_BARRIER_SERIAL_THREAD;
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

// pthread_once(3), under std::call_once; and what the compiler calls around the
// initialisation of a static variable in a function.
//
// No scheduling points where nobody has to wait: a static variable outlives a
// run, and what only the first one does would change its schedule. But within
// another initialisation, which may have points anyway: two that need each
// other, of two threads, wait for ever.
//
// The latter are wrapped by the linker, as exit() is (exits.cc): Clang's
// ThreadSanitizer has functions of these names in the program, too, which must
// be called for it to know that what was initialised may be read.

#include <cxxabi.h>
#include <pthread.h>

#include <set>

#include "absl/base/attributes.h"
#include "absl/cleanup/cleanup.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"

using Guard = __cxxabiv1::__guard;
extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
int __real___cxa_guard_acquire(Guard* guard);
void __real___cxa_guard_release(Guard* guard) noexcept;
void __real___cxa_guard_abort(Guard* guard) noexcept;
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}

WARD_REAL(pthread_once);

namespace ward::testing {
namespace {

// What simulated threads are initialising now, by their addresses. Not a static
// variable of a function, which would need what stands here.
ABSL_CONST_INIT std::set<const void*>* underway = nullptr;

// How many this thread is in.
ABSL_CONST_INIT thread_local int depth = 0;

// Waits for the others, and has them wait for this thread.
void Begin(Scheduler& scheduler, const void* object, const char* doing) {
  if (depth > 0) scheduler.Point(doing);
  const NoSchedulingPoints quiet;
  if (underway == nullptr) underway = new std::set<const void*>;
  while (!underway->insert(object).second) scheduler.WaitAt(object, doing);
  ++depth;
  Order::Acquire(object);
  Order::Begun(object);
}

// `initialised`: or has tried to.
void End(Scheduler& scheduler, const void* object, bool initialised) {
  const NoSchedulingPoints quiet;
  --depth;
  Order::Ended(object);
  if (initialised) Order::Release(object);
  underway->erase(object);
  scheduler.WakeAt(object);
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::Intercepting;
using ::ward::testing::Order;
using ::ward::testing::Scheduler;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int pthread_once(pthread_once_t* control, void (*initialise)()) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_pthread_once(control, initialise);
  Order::Uses(control);
  ward::testing::Begin(*scheduler, control, "waiting for std::call_once");
  constexpr pthread_once_t kDone = 2;  // glibc's nptl/pthread_once.c.
  const bool initialises = *control != kDone;
  // It may throw.
  const absl::Cleanup end = [&] {
    ward::testing::End(*scheduler, control, initialises);
  };
  return real_pthread_once(control, initialise);
}

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
int __wrap___cxa_guard_acquire(Guard* guard) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return __real___cxa_guard_acquire(guard);
  ward::testing::Begin(*scheduler, guard,
                       "waiting for a static variable's initialisation");
  const int initialise = __real___cxa_guard_acquire(guard);
  if (initialise == 0) ward::testing::End(*scheduler, guard, false);
  return initialise;
}

void __wrap___cxa_guard_release(Guard* guard) noexcept {
  __real___cxa_guard_release(guard);
  if (Scheduler* const scheduler = Intercepting()) {
    ward::testing::End(*scheduler, guard, true);
  }
}

void __wrap___cxa_guard_abort(Guard* guard) noexcept {
  __real___cxa_guard_abort(guard);
  if (Scheduler* const scheduler = Intercepting()) {
    ward::testing::End(*scheduler, guard, true);
  }
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

// Abseil's waits, through the weak functions that it has for this: the
// semaphore under all of its synchronization, and what spins.

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <optional>

#include "absl/base/config.h"
#include "absl/base/internal/scheduling_mode.h"
#include "absl/base/internal/thread_identity.h"
#include "absl/synchronization/internal/create_thread_identity.h"
#include "absl/synchronization/internal/per_thread_sem.h"
#include "absl/synchronization/internal/waiter.h"
#include "absl/time/time.h"
#include "ward/testing/interception/children.h"
#include "ward/testing/simulator/scheduler.h"

using ::absl::base_internal::ThreadIdentity;
using ::absl::synchronization_internal::KernelTimeout;
using ::absl::synchronization_internal::Waiter;
using ::ward::testing::Scheduler;

extern "C" {

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
  std::optional<ward::testing::WaitInChild> wait;
  if (!timeout.has_timeout()) {
    wait.emplace("waiting for a mutex, condition or notification");
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

}  // extern "C"

#include "ward/testing/simulator/runner.h"

#include <pthread.h>
#include <sys/auxv.h>
#include <sys/types.h>

#include <cstdlib>
#include <memory>
#include <utility>

#include "absl/base/config.h"
#include "ward/testing/simulator/fiber.h"
#include "ward/testing/simulator/kernel_thread.h"
#include "ward/testing/simulator/parked_thread.h"
#include "ward/testing/simulator/traced.h"

namespace ward::testing {

bool Runner::AreFibers() {
#if !defined(__x86_64__) || defined(ABSL_HAVE_ADDRESS_SANITIZER) || \
    defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_MEMORY_SANITIZER)
  return false;
#else
  constexpr unsigned long kFsGsBase = 2;  // HWCAP2_FSGSBASE
  static const bool kCan = (getauxval(AT_HWCAP2) & kFsGsBase) != 0 &&
                           // NOLINTNEXTLINE(concurrency-mt-unsafe)
                           getenv("WARD_KERNEL_THREADS") == nullptr &&
                           !IsTraced();
  return kCan;
#endif
}

std::unique_ptr<Runner> Runner::ForCallingThread() {
  if (AreFibers()) return std::make_unique<Fiber>();
  return std::make_unique<KernelThread>();
}

std::unique_ptr<Runner> Runner::Create(const pthread_attr_t* attributes,
                                       void (*entry)(void*), void* argument) {
  if (!AreFibers()) {
    auto thread = std::make_unique<KernelThread>(attributes, entry, argument);
    if (!thread->has_thread()) return nullptr;
    return thread;
  }
  // One that was asked for with a stack of its own is nobody else's.
  const bool is_pooled = attributes == nullptr;
  std::unique_ptr<ParkedThread> thread = is_pooled
                                             ? ParkedThreads::Only().Take()
                                             : ParkedThread::Start(attributes);
  if (thread == nullptr) return nullptr;
  return std::make_unique<Fiber>(std::move(thread), is_pooled, entry, argument);
}

void Runner::EndParkedThreads() { ParkedThreads::Only().End(); }

void Runner::KeepParkedThreads() { ParkedThreads::Only().Keep(); }

void Runner::VisitFibers(void (*visit)(pid_t number)) {
  Fiber::VisitAll(visit);
}

pid_t Runner::CurrentNumber() { return Fiber::CurrentNumber(); }

bool Runner::IsInSchedule() {
  return AreFibers() ? Fiber::RunOnThisThread() : KernelThread::IsThisThread();
}

bool Runner::IsParked(pid_t number) { return ParkedThread::Has(number); }

}  // namespace ward::testing

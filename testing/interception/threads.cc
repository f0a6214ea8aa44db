// pthread_create(3) and what becomes of threads: under std::thread and
// std::async, whoever starts them.

#include <pthread.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <iostream>

#include "absl/time/time.h"
#include "ward/testing/interception/children.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/runner.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/thread_exit.h"

WARD_REAL(pthread_create);
WARD_REAL(pthread_join);
WARD_REAL(pthread_tryjoin_np);
WARD_REAL(pthread_timedjoin_np);
WARD_REAL(pthread_clockjoin_np);
WARD_REAL(pthread_detach);
WARD_REAL(pthread_exit);
WARD_REAL(gettid);
WARD_REAL(pthread_cancel);

namespace ward::testing {
namespace {

int StartInSchedule(Scheduler& scheduler, pthread_t* handle,
                    const pthread_attr_t* attributes, void* (*start)(void*),
                    void* argument) {
  // The scheduler itself waits for its end.
  pthread_attr_t joinable;
  bool detached = false;
  if (attributes != nullptr) {
    int state;
    pthread_attr_getdetachstate(attributes, &state);
    detached = state == PTHREAD_CREATE_DETACHED;
    joinable = *attributes;
    pthread_attr_setdetachstate(&joinable, PTHREAD_CREATE_JOINABLE);
  }
  // Before it runs: it may ask for it.
  const int thread = scheduler.StartJoinable(
      scheduler.group(), attributes == nullptr ? nullptr : &joinable, handle,
      [start, argument] { return start(argument); });
  if (detached) scheduler.Detach(thread);
  return 0;
}

// One that the scheduler knows, or -1.
int Find(const Scheduler* scheduler, pthread_t handle) {
  return scheduler == nullptr ? -1 : scheduler->Joinable(handle);
}

int JoinInSchedule(Scheduler& scheduler, int thread, pthread_t handle,
                   void** result, absl::Time deadline) {
  if (pthread_equal(handle, pthread_self()) != 0) return EDEADLK;
  if (!scheduler.Join(thread, deadline)) return ETIMEDOUT;
  void* const returned = scheduler.TakeResult(thread);
  if (result != nullptr) *result = returned;
  return 0;
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::Find;
using ::ward::testing::Intercepting;
using ::ward::testing::Runner;
using ::ward::testing::Scheduler;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int pthread_create(pthread_t* handle, const pthread_attr_t* attributes,
                   void* (*start)(void*), void* argument) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    ward::testing::ChildHasThreads();
    return real_pthread_create(handle, attributes, start, argument);
  }
  return ward::testing::StartInSchedule(*scheduler, handle, attributes, start,
                                        argument);
}

int pthread_join(pthread_t handle, void** result) {
  Scheduler* const scheduler = Intercepting();
  const int thread = Find(scheduler, handle);
  if (thread < 0) return real_pthread_join(handle, result);
  return ward::testing::JoinInSchedule(*scheduler, thread, handle, result,
                                       absl::InfiniteFuture());
}

int pthread_tryjoin_np(pthread_t handle, void** result) noexcept {
  Scheduler* const scheduler = Intercepting();
  const int thread = Find(scheduler, handle);
  if (thread < 0) return real_pthread_tryjoin_np(handle, result);
  const int error = ward::testing::JoinInSchedule(*scheduler, thread, handle,
                                                  result, absl::InfinitePast());
  return error == ETIMEDOUT ? EBUSY : error;
}

int pthread_timedjoin_np(pthread_t handle, void** result,
                         const timespec* limit) {
  Scheduler* const scheduler = Intercepting();
  const int thread = Find(scheduler, handle);
  if (thread < 0) return real_pthread_timedjoin_np(handle, result, limit);
  if (!ward::testing::IsValid(*limit)) return EINVAL;
  return ward::testing::JoinInSchedule(*scheduler, thread, handle, result,
                                       ward::testing::DeadlineOf(*limit));
}

int pthread_clockjoin_np(pthread_t handle, void** result, clockid_t clock,
                         const timespec* limit) {
  if (Find(Intercepting(), handle) >= 0) {
    return pthread_timedjoin_np(handle, result, limit);
  }
  return real_pthread_clockjoin_np(handle, result, clock, limit);
}

int pthread_detach(pthread_t handle) noexcept {
  Scheduler* const scheduler = Intercepting();
  const int thread = Find(scheduler, handle);
  if (thread < 0) return real_pthread_detach(handle);
  scheduler->Detach(thread);
  return 0;
}

void pthread_exit(void* result) {
  if (Scheduler::Current() != nullptr) ward::testing::ExitThread(result);
  real_pthread_exit(result);
  __builtin_unreachable();
}

// That of the one kernel thread would be the same in all of them.
pid_t gettid() noexcept {
  return Intercepting() == nullptr ? real_gettid() : Runner::CurrentNumber();
}

// It would end the thread at a wait inside the C library, where a simulated one
// never is.
int pthread_cancel(pthread_t handle) {
  if (Intercepting() == nullptr) return real_pthread_cancel(handle);
  std::cerr
      << "pthread_cancel(3) is not simulated. Tell the thread to end by a "
         "flag or std::stop_token.\n";
  std::abort();
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

// threads.h, whose functions call those of pthreads inside the C library, where
// nothing comes between. Its types are theirs, too (C11, 7.26; glibc's
// nptl/thrd_priv.h).

#include <pthread.h>
#include <sched.h>
#include <threads.h>
#include <time.h>

#include <cerrno>
#include <cstdint>
#include <memory>

#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"

WARD_REAL(thrd_create);
WARD_REAL(thrd_join);
WARD_REAL(thrd_detach);
WARD_REAL(thrd_exit);
WARD_REAL(mtx_lock);
WARD_REAL(mtx_timedlock);
WARD_REAL(mtx_trylock);
WARD_REAL(mtx_unlock);
WARD_REAL(cnd_wait);
WARD_REAL(cnd_timedwait);
WARD_REAL(cnd_signal);
WARD_REAL(cnd_broadcast);
WARD_REAL(call_once);

namespace ward::testing {
namespace {

static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t));
static_assert(sizeof(cnd_t) == sizeof(pthread_cond_t));
static_assert(sizeof(once_flag) == sizeof(pthread_once_t));

pthread_mutex_t* Mutex(mtx_t* mutex) {
  return reinterpret_cast<pthread_mutex_t*>(mutex);
}
pthread_cond_t* Condition(cnd_t* condition) {
  return reinterpret_cast<pthread_cond_t*>(condition);
}

int FromError(int error) {
  switch (error) {
    case 0:
      return thrd_success;
    case EBUSY:
      return thrd_busy;
    case ETIMEDOUT:
      return thrd_timedout;
    case ENOMEM:
      return thrd_nomem;
    default:
      return thrd_error;
  }
}

struct Start {
  thrd_start_t function;
  void* argument;
};

void* Run(void* argument) {
  const std::unique_ptr<Start> start(static_cast<Start*>(argument));
  const intptr_t result = start->function(start->argument);
  return reinterpret_cast<void*>(result);  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::Condition;
using ::ward::testing::FromError;
using ::ward::testing::Intercepting;
using ::ward::testing::Mutex;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int thrd_create(thrd_t* thread, thrd_start_t function, void* argument) {
  if (Intercepting() == nullptr) {
    return real_thrd_create(thread, function, argument);
  }
  return FromError(
      pthread_create(thread, nullptr, &ward::testing::Run,
                     new ward::testing::Start{function, argument}));
}

int thrd_join(thrd_t thread, int* result) {
  if (Intercepting() == nullptr) return real_thrd_join(thread, result);
  void* returned = nullptr;
  const int error = pthread_join(thread, &returned);
  if (result != nullptr) {
    *result = static_cast<int>(reinterpret_cast<intptr_t>(returned));
  }
  return FromError(error);
}

int thrd_detach(thrd_t thread) {
  if (Intercepting() == nullptr) return real_thrd_detach(thread);
  return FromError(pthread_detach(thread));
}

void thrd_exit(int result) {
  if (Intercepting() == nullptr) {
    real_thrd_exit(result);
    __builtin_unreachable();
  }
  // NOLINTNEXTLINE(performance-no-int-to-ptr): see Run.
  pthread_exit(reinterpret_cast<void*>(static_cast<intptr_t>(result)));
}

int mtx_lock(mtx_t* mutex) {
  if (Intercepting() == nullptr) return real_mtx_lock(mutex);
  return FromError(pthread_mutex_lock(Mutex(mutex)));
}

int mtx_timedlock(mtx_t* mutex, const timespec* limit) {
  if (Intercepting() == nullptr) return real_mtx_timedlock(mutex, limit);
  return FromError(pthread_mutex_timedlock(Mutex(mutex), limit));
}

int mtx_trylock(mtx_t* mutex) {
  if (Intercepting() == nullptr) return real_mtx_trylock(mutex);
  return FromError(pthread_mutex_trylock(Mutex(mutex)));
}

int mtx_unlock(mtx_t* mutex) {
  if (Intercepting() == nullptr) return real_mtx_unlock(mutex);
  return FromError(pthread_mutex_unlock(Mutex(mutex)));
}

int cnd_wait(cnd_t* condition, mtx_t* mutex) {
  if (Intercepting() == nullptr) return real_cnd_wait(condition, mutex);
  return FromError(pthread_cond_wait(Condition(condition), Mutex(mutex)));
}

int cnd_timedwait(cnd_t* condition, mtx_t* mutex, const timespec* limit) {
  if (Intercepting() == nullptr) {
    return real_cnd_timedwait(condition, mutex, limit);
  }
  return FromError(
      pthread_cond_timedwait(Condition(condition), Mutex(mutex), limit));
}

int cnd_signal(cnd_t* condition) {
  if (Intercepting() == nullptr) return real_cnd_signal(condition);
  return FromError(pthread_cond_signal(Condition(condition)));
}

void call_once(once_flag* flag, void (*function)()) {
  if (Intercepting() == nullptr) return real_call_once(flag, function);
  pthread_once(reinterpret_cast<pthread_once_t*>(flag), function);
}

int thrd_sleep(const timespec* time, timespec* left) {
  return nanosleep(time, left);
}

void thrd_yield() { sched_yield(); }

int cnd_broadcast(cnd_t* condition) {
  if (Intercepting() == nullptr) return real_cnd_broadcast(condition);
  return FromError(pthread_cond_broadcast(Condition(condition)));
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

// threads.h: its functions do what those of pthreads do, whose types they have
// (C11, 7.26; glibc's nptl/thrd_priv.h). The C library's own call them inside
// it, where nothing comes between; these call ours, on any thread.

#include <pthread.h>
#include <sched.h>
#include <threads.h>
#include <time.h>

#include <cerrno>
#include <cstdint>
#include <memory>

namespace ward::testing {
namespace {

static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t));
static_assert(sizeof(cnd_t) == sizeof(pthread_cond_t));
static_assert(sizeof(once_flag) == sizeof(pthread_once_t));
static_assert(sizeof(tss_t) == sizeof(pthread_key_t));

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
using ::ward::testing::Mutex;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int thrd_create(thrd_t* thread, thrd_start_t function, void* argument) {
  auto start = std::make_unique<ward::testing::Start>(
      ward::testing::Start{function, argument});
  const int error =
      pthread_create(thread, nullptr, &ward::testing::Run, start.get());
  if (error == 0) (void)start.release();
  return FromError(error);
}

int thrd_join(thrd_t thread, int* result) {
  void* returned = nullptr;
  const int error = pthread_join(thread, &returned);
  if (result != nullptr) {
    *result = static_cast<int>(reinterpret_cast<intptr_t>(returned));
  }
  return FromError(error);
}

int thrd_detach(thrd_t thread) { return FromError(pthread_detach(thread)); }

void thrd_exit(int result) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr): see Run.
  pthread_exit(reinterpret_cast<void*>(static_cast<intptr_t>(result)));
}

int mtx_lock(mtx_t* mutex) {
  return FromError(pthread_mutex_lock(Mutex(mutex)));
}

int mtx_timedlock(mtx_t* mutex, const timespec* limit) {
  return FromError(pthread_mutex_timedlock(Mutex(mutex), limit));
}

int mtx_trylock(mtx_t* mutex) {
  return FromError(pthread_mutex_trylock(Mutex(mutex)));
}

int mtx_unlock(mtx_t* mutex) {
  return FromError(pthread_mutex_unlock(Mutex(mutex)));
}

int cnd_wait(cnd_t* condition, mtx_t* mutex) {
  return FromError(pthread_cond_wait(Condition(condition), Mutex(mutex)));
}

int cnd_timedwait(cnd_t* condition, mtx_t* mutex, const timespec* limit) {
  return FromError(
      pthread_cond_timedwait(Condition(condition), Mutex(mutex), limit));
}

int cnd_signal(cnd_t* condition) {
  return FromError(pthread_cond_signal(Condition(condition)));
}

int cnd_broadcast(cnd_t* condition) {
  return FromError(pthread_cond_broadcast(Condition(condition)));
}

void call_once(once_flag* flag, void (*function)()) {
  pthread_once(reinterpret_cast<pthread_once_t*>(flag), function);
}

int tss_create(tss_t* key, tss_dtor_t destructor) {
  return FromError(pthread_key_create(key, destructor));
}

void tss_delete(tss_t key) { pthread_key_delete(key); }

int thrd_sleep(const timespec* time, timespec* left) {
  return nanosleep(time, left);
}

void thrd_yield() { sched_yield(); }

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

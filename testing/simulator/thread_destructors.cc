#include "ward/testing/simulator/thread_destructors.h"

#include <limits.h>
#include <pthread.h>

#include <cstddef>
#include <utility>

#include "absl/base/config.h"

namespace ward::testing {
namespace {

struct Object {
  void (*destructor)(void*);
  void* object;
  Object* earlier;
};

thread_local bool has_begun = false;
thread_local Object* last = nullptr;

using Destructor = void (*)(void*);

// Keys are made before anything is initialised, by sanitizers before even they
// are: nothing that they watch may be used for them.
// NOLINTNEXTLINE(modernize-avoid-c-arrays): at() is a function.
Destructor keys[PTHREAD_KEYS_MAX];
size_t end_of_keys = 0;

}  // namespace

#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
// They have keys of their own, and forget the thread in the last rounds.
const int ThreadDestructors::kRounds = PTHREAD_DESTRUCTOR_ITERATIONS - 2;
#else
const int ThreadDestructors::kRounds = PTHREAD_DESTRUCTOR_ITERATIONS;
#endif

void ThreadDestructors::Begin() { has_begun = true; }

bool ThreadDestructors::Add(void (*destructor)(void*), void* object) {
  if (!has_begun) return false;
  last = new Object{destructor, object, last};
  return true;
}

WARD_NOT_SANITIZED void ThreadDestructors::AddKey(pthread_key_t key,
                                                  void (*destructor)(void*)) {
  if (key >= PTHREAD_KEYS_MAX) return;
  __atomic_store_n(&keys[key], destructor, __ATOMIC_RELEASE);
  size_t end = __atomic_load_n(&end_of_keys, __ATOMIC_RELAXED);
  while (end <= key &&
         !__atomic_compare_exchange_n(&end_of_keys, &end, key + 1, false,
                                      __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
  }
}

void ThreadDestructors::RemoveKey(pthread_key_t key) { AddKey(key, nullptr); }

void ThreadDestructors::RunForObjects() {
  while (last != nullptr) {
    const Object object = *last;
    delete std::exchange(last, object.earlier);
    object.destructor(object.object);
  }
}

bool ThreadDestructors::RunForKeys() {
  bool were_any = false;
  const size_t end = __atomic_load_n(&end_of_keys, __ATOMIC_ACQUIRE);
  for (size_t i = 0; i < end; ++i) {
    const Destructor destructor = __atomic_load_n(&keys[i], __ATOMIC_ACQUIRE);
    if (destructor == nullptr) continue;
    const auto key = static_cast<pthread_key_t>(i);
    void* const value = pthread_getspecific(key);
    if (value == nullptr) continue;
    pthread_setspecific(key, nullptr);
    were_any = true;
    destructor(value);
  }
  return were_any;
}

}  // namespace ward::testing

#include "ward/testing/simulator/thread_destructors.h"

#include <limits.h>
#include <pthread.h>

#include <array>
#include <atomic>
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

// Keys are made before anything is initialised, too.
std::array<std::atomic<void (*)(void*)>, PTHREAD_KEYS_MAX> keys{};
std::atomic<size_t> end_of_keys{0};

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

void ThreadDestructors::AddKey(pthread_key_t key, void (*destructor)(void*)) {
  keys.at(key) = destructor;
  size_t end = end_of_keys;
  while (end <= key && !end_of_keys.compare_exchange_weak(end, key + 1)) {
  }
}

void ThreadDestructors::RemoveKey(pthread_key_t key) {
  if (key < keys.size()) keys.at(key) = nullptr;
}

void ThreadDestructors::RunForObjects() {
  while (last != nullptr) {
    const Object object = *last;
    delete std::exchange(last, object.earlier);
    object.destructor(object.object);
  }
}

bool ThreadDestructors::RunForKeys() {
  bool were_any = false;
  for (size_t i = 0; i < end_of_keys; ++i) {
    const auto destructor = keys.at(i).load();
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

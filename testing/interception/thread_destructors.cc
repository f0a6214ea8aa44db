// What has a thread's end call something: thread_local objects, whose compiled
// code registers them with the C++ library, and that with the C library; and
// keys.

#include "ward/testing/simulator/thread_destructors.h"

#include <dlfcn.h>
#include <pthread.h>

#include "ward/testing/interception/real.h"

// NOLINTNEXTLINE: of the Itanium C++ ABI.
extern "C" int __cxa_thread_atexit_impl(void (*destructor)(void*), void* object,
                                        void* library) noexcept;

WARD_REAL(__cxa_thread_atexit_impl);
WARD_REAL(pthread_key_delete);

using ::ward::testing::ThreadDestructors;

// See ThreadDestructors::AddKey: not by WARD_REAL.
WARD_NOT_SANITIZED static int RealKeyCreate(pthread_key_t* key,
                                            void (*destructor)(void*)) {
  static decltype(&pthread_key_create) found;  // Null at first.
  if (found == nullptr) {
    found = reinterpret_cast<decltype(&pthread_key_create)>(
        dlsym(RTLD_NEXT, "pthread_key_create"));
  }
  return found(key, destructor);
}

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

// NOLINTNEXTLINE: of the Itanium C++ ABI.
int __cxa_thread_atexit_impl(void (*destructor)(void*), void* object,
                             void* library) noexcept {
  if (ThreadDestructors::Add(destructor, object)) return 0;
  return real___cxa_thread_atexit_impl(destructor, object, library);
}

WARD_NOT_SANITIZED int pthread_key_create(pthread_key_t* key,
                                          void (*destructor)(void*)) noexcept {
  const int error = RealKeyCreate(key, destructor);
  if (error == 0) ThreadDestructors::AddKey(*key, destructor);
  return error;
}

int pthread_key_delete(pthread_key_t key) noexcept {
  ThreadDestructors::RemoveKey(key);
  return real_pthread_key_delete(key);
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

// What runs at the end of a simulated thread: the destructors of its
// thread_local objects, and of keys (pthread_key_create(3)), which belong to
// the schedule.

#ifndef WARD_TESTING_SIMULATOR_THREAD_DESTRUCTORS_H_
#define WARD_TESTING_SIMULATOR_THREAD_DESTRUCTORS_H_

#include <pthread.h>

#include "absl/base/attributes.h"

// Of what sanitizers call before they can be called themselves. Clang's other
// attributes leave what keeps ThreadSanitizer's stack of calls.
#if ABSL_HAVE_ATTRIBUTE(disable_sanitizer_instrumentation)
#define WARD_NOT_SANITIZED __attribute__((disable_sanitizer_instrumentation))
#else
#define WARD_NOT_SANITIZED \
  ABSL_ATTRIBUTE_NO_SANITIZE_THREAD ABSL_ATTRIBUTE_NO_SANITIZE_ADDRESS
#endif

namespace ward::testing {

class ThreadDestructors {
 public:
  // By a thread: its objects are noted here from now on.
  static void Begin();

  // False: not here, Begin was not called.
  static bool Add(void (*destructor)(void*), void* object);

  // Of all threads. The destructor may be null.
  static void AddKey(pthread_key_t key, void (*destructor)(void*));
  static void RemoveKey(pthread_key_t key);

  // By a thread after Begin: those of its objects, the last one first.
  static void RunForObjects();

  // Those of keys that have a value on this thread, which they may set again.
  // Returns whether there were any.
  static bool RunForKeys();

  // How often RunForKeys is called at most.
  static const int kRounds;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_THREAD_DESTRUCTORS_H_

// The functions that ours stand in front of.
//
//   WARD_REAL(sem_post);
//
//   int sem_post(sem_t* semaphore) noexcept { ... real_sem_post(semaphore) ...
//   }

#ifndef WARD_TESTING_INTERCEPTION_REAL_H_
#define WARD_TESTING_INTERCEPTION_REAL_H_

#include <dlfcn.h>

#include <atomic>

namespace ward::testing {

// Of a function that the program defines, and so has in the place of another
// one: that other one. May be called before anything is initialised.
template <typename Result, typename... Parameters>
class Real {
 public:
  using Function = Result(Parameters...);

  // `sanitizer` is that of a sanitizer's runtime, which knows of threads and
  // locks by it, or null.
  constexpr Real(const char* name, Function* sanitizer)
      : name_(name), sanitizer_(sanitizer) {}

  Result operator()(Parameters... parameters) { return Find()(parameters...); }

  Function* Find() {
    if (sanitizer_ != nullptr) return sanitizer_;
    Function* found = found_.load(std::memory_order_relaxed);
    if (found == nullptr) {
      found = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name_));
      found_.store(found, std::memory_order_relaxed);
    }
    return found;
  }

 private:
  const char* const name_;
  Function* const sanitizer_;
  std::atomic<Function*> found_{nullptr};
};

}  // namespace ward::testing

// Declares real_FUNCTION.
#define WARD_REAL(function)                                           \
  extern "C" decltype(function) __interceptor_##function /* NOLINT */ \
      __attribute__((weak));                                          \
  static ::ward::testing::Real real_##function(#function,             \
                                               &__interceptor_##function)

#endif  // WARD_TESTING_INTERCEPTION_REAL_H_

// What the functions have in common that instrumented code calls.

#ifndef WARD_TESTING_ACCESSES_LOOK_H_
#define WARD_TESTING_ACCESSES_LOOK_H_

#include <unwind.h>

#include <cstddef>
#include <cstdint>

#include "ward/testing/accesses/checker.h"
#include "ward/testing/simulator/no_scheduling_points.h"

// In a function: what called it, and where the stack of that ends while it
// calls.
#define WARD_CALLER reinterpret_cast<uintptr_t>(__builtin_return_address(0))
#define WARD_STACK reinterpret_cast<uintptr_t>(__builtin_dwarf_cfa())

// A function of a library, which instrumented code calls: the linker takes each
// call of, say, memcpy for one of __wrap_memcpy, and of __real_memcpy for that
// of memcpy (-Wl,--wrap=memcpy, see library_calls.bzl). In C.
#define WARD_WRAP(result, function, parameters) \
  result __real_##function parameters;          \
  result __wrap_##function parameters

namespace ward::testing {

// An access by the thread that runs, if it is looked at.
inline void Look(const volatile void* address, size_t size, uint8_t flags,
                 uintptr_t caller) {
  CheckedThread* const self = AccessChecker::Looking();
  if (self == nullptr) return;
  const AccessChecker::Working working(*self);
  AccessChecker::Only().Check(*self, reinterpret_cast<uintptr_t>(address), size,
                              flags, caller);
}

// Of a function that anybody may call: whether its caller is instrumented, and
// called it itself. What others do may be ordered by what is not seen.
inline bool IsInstrumented(uintptr_t stack) {
  const CheckedThread* const self = AccessChecker::Looking();
  return self != nullptr && !self->frames.empty() &&
         self->frames.back().stack == stack;
}

// As IsInstrumented, of a function some of whose arguments may lie on the
// stack: its caller's stack ends behind these.
inline bool IsInstrumentedWithArguments(uintptr_t stack, uintptr_t caller) {
  if (IsInstrumented(stack)) return true;
  const CheckedThread* const self = AccessChecker::Looking();
  if (self == nullptr || self->frames.empty()) return false;
  const CheckedThread::Frame& frame = self->frames.back();
  if (stack > frame.stack) return false;
  const NoSchedulingPoints quiet;
  const auto function_of = [](uintptr_t place) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): it takes a pointer.
    return _Unwind_FindEnclosingFunction(reinterpret_cast<void*>(place));
  };
  const void* const function = function_of(caller);
  return function != nullptr && function == function_of(frame.place);
}

}  // namespace ward::testing

#endif  // WARD_TESTING_ACCESSES_LOOK_H_

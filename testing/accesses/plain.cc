// What -fsanitize=thread has code call when it accesses memory, and at the
// beginning and the end of functions: by g++ and by Clang, whose names differ.
// It is here instead of ThreadSanitizer's runtime, which is not linked.

#include <cstddef>
#include <cstdint>

#include "ward/testing/accesses/checker.h"

using ::ward::testing::AccessChecker;
using ::ward::testing::CheckedThread;
using ::ward::testing::kRead;
using ::ward::testing::kWrite;

namespace {

inline uintptr_t Caller(void* returns_to) {
  return reinterpret_cast<uintptr_t>(returns_to);
}

inline void Look(const volatile void* address, size_t size, uint8_t flags,
                 void* returns_to) {
  CheckedThread* const self = AccessChecker::Looking();
  if (self == nullptr) return;
  const AccessChecker::Working working(*self);
  AccessChecker::Only().Check(*self, reinterpret_cast<uintptr_t>(address), size,
                              flags, Caller(returns_to));
}

// Of a function that the compiler may call, or the C library's headers: whether
// its caller is instrumented, and called it itself. The others may be ordered
// by what is not seen.
bool IsInstrumented(uintptr_t stack) {
  const CheckedThread* const self = AccessChecker::Looking();
  return self != nullptr && !self->frames.empty() &&
         self->frames.back().stack == stack;
}

}  // namespace

#define WARD_CALLER __builtin_return_address(0)
// Where the stack of the caller ends, while it calls.
#define WARD_STACK reinterpret_cast<uintptr_t>(__builtin_dwarf_cfa())

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)

void __tsan_init() {}

void __tsan_func_entry(void* caller) {
  CheckedThread* const self = AccessChecker::Looking();
  if (self == nullptr) return;
  const AccessChecker::Working working(*self);
  AccessChecker::Only().Enter(*self, Caller(caller), Caller(WARD_CALLER),
                              WARD_STACK);
}

void __tsan_func_exit() {
  CheckedThread* const self = AccessChecker::Looking();
  if (self == nullptr) return;
  const AccessChecker::Working working(*self);
  AccessChecker::Only().Leave(*self, WARD_STACK);
}

#define WARD_ACCESS(name, size, flags)       \
  void __tsan_##name##size(void* address) {  \
    Look(address, size, flags, WARD_CALLER); \
  }
// volatile orders nothing ([intro.races]).
#define WARD_ACCESSES(size)                         \
  WARD_ACCESS(read, size, kRead)                    \
  WARD_ACCESS(write, size, kWrite)                  \
  WARD_ACCESS(unaligned_read, size, kRead)          \
  WARD_ACCESS(unaligned_write, size, kWrite)        \
  WARD_ACCESS(read_write, size, kWrite)             \
  WARD_ACCESS(unaligned_read_write, size, kWrite)   \
  WARD_ACCESS(volatile_read, size, kRead)           \
  WARD_ACCESS(volatile_write, size, kWrite)         \
  WARD_ACCESS(unaligned_volatile_read, size, kRead) \
  WARD_ACCESS(unaligned_volatile_write, size, kWrite)
WARD_ACCESSES(1)
WARD_ACCESSES(2)
WARD_ACCESSES(4)
WARD_ACCESSES(8)
WARD_ACCESSES(16)

void __tsan_read_range(void* address, unsigned long size) {
  Look(address, size, kRead, WARD_CALLER);
}

void __tsan_write_range(void* address, unsigned long size) {
  Look(address, size, kWrite, WARD_CALLER);
}

void __tsan_vptr_read(void** address) {
  Look(address, sizeof(*address), kRead, WARD_CALLER);
}

// A destructor of a base class writes what is there already: no more than a
// read.
void __tsan_vptr_update(void** address, void* value) {
  Look(address, sizeof(*address), *address == value ? kRead : kWrite,
       WARD_CALLER);
}

// The linker takes each call of memcpy for one of __wrap_memcpy, see BUILD:
// g++ does not instrument those that it leaves as calls, and Clang calls these,
// from version 15 on, by names of their own.
void* __real_memcpy(void* to, const void* from, size_t size);
void* __real_memmove(void* to, const void* from, size_t size);
void* __real_memset(void* to, int byte, size_t size);

void* __wrap_memcpy(void* to, const void* from, size_t size) {
  if (IsInstrumented(WARD_STACK)) {
    Look(from, size, kRead, WARD_CALLER);
    Look(to, size, kWrite, WARD_CALLER);
  }
  return __real_memcpy(to, from, size);
}

void* __wrap_memmove(void* to, const void* from, size_t size) {
  if (IsInstrumented(WARD_STACK)) {
    Look(from, size, kRead, WARD_CALLER);
    Look(to, size, kWrite, WARD_CALLER);
  }
  return __real_memmove(to, from, size);
}

void* __wrap_memset(void* to, int byte, size_t size) {
  if (IsInstrumented(WARD_STACK)) Look(to, size, kWrite, WARD_CALLER);
  return __real_memset(to, byte, size);
}

void* __tsan_memcpy(void* to, const void* from, size_t size) {
  Look(from, size, kRead, WARD_CALLER);
  Look(to, size, kWrite, WARD_CALLER);
  return __real_memcpy(to, from, size);
}

void* __tsan_memmove(void* to, const void* from, size_t size) {
  Look(from, size, kRead, WARD_CALLER);
  Look(to, size, kWrite, WARD_CALLER);
  return __real_memmove(to, from, size);
}

void* __tsan_memset(void* to, int byte, size_t size) {
  Look(to, size, kWrite, WARD_CALLER);
  return __real_memset(to, byte, size);
}

// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}  // extern "C"

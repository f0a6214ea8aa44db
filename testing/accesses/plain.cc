// What -fsanitize=thread has code call when it accesses memory, and at the
// beginning and the end of functions: by g++ and by Clang, whose names differ.
// It is here instead of ThreadSanitizer's runtime, which is not linked.

#include <cstddef>
#include <cstdint>

#include "ward/testing/accesses/checker.h"
#include "ward/testing/accesses/look.h"

using ::ward::testing::AccessChecker;
using ::ward::testing::CheckedThread;
using ::ward::testing::kRead;
using ::ward::testing::kWrite;
using ::ward::testing::Look;

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)

void __tsan_init() {}

void __tsan_func_entry(void* caller) {
  CheckedThread* const self = AccessChecker::Looking();
  if (self == nullptr) return;
  const AccessChecker::Working working(*self);
  AccessChecker::Only().Enter(*self, reinterpret_cast<uintptr_t>(caller),
                              WARD_CALLER, WARD_STACK);
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

// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}  // extern "C"

// Memory that is handed out, and given back: the C library's functions, which
// C++'s operators call.
//
// What simulated threads give back is kept until the end of the run, up to a
// limit, so that whoever still uses it is found, and nobody is taken for the
// next one to have that address.

#include <malloc.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#include "absl/base/attributes.h"
#include "ward/testing/accesses/checker.h"
#include "ward/testing/accesses/look.h"

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming):
// glibc's own names of these.
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* memory);
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}

namespace ward::testing {
namespace {

// What others have done to it does not matter any more.
void* HandedOut(void* memory, size_t size) {
  if (memory != nullptr) AccessChecker::HandedOut(memory, size);
  return memory;
}

// `stack` is where the stack of the caller ends.
void GiveBack(void* memory, uintptr_t caller, uintptr_t stack) {
  if (memory == nullptr) return;
  CheckedThread* const self = AccessChecker::Looking();
  if (self == nullptr) {
    __libc_free(memory);
    return;
  }
  const bool is_instrumented = IsInstrumented(stack);
  const AccessChecker::Working working(*self);
  AccessChecker::Only().Free(*self, memory, malloc_usable_size(memory), caller,
                             is_instrumented);
}

}  // namespace

void AccessChecker::ReallyFree(void* memory) { __libc_free(memory); }

}  // namespace ward::testing

using ::ward::testing::GiveBack;
using ::ward::testing::HandedOut;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

void* malloc(size_t size) noexcept {
  return HandedOut(__libc_malloc(size), size);
}

void* calloc(size_t count, size_t size) noexcept {
  return HandedOut(__libc_calloc(count, size), count * size);
}

void* memalign(size_t alignment, size_t size) noexcept {
  return HandedOut(__libc_memalign(alignment, size), size);
}

void* aligned_alloc(size_t alignment, size_t size) noexcept {
  return memalign(alignment, size);
}

int posix_memalign(void** memory, size_t alignment, size_t size) noexcept {
  if (alignment < sizeof(void*) || (alignment & (alignment - 1)) != 0) {
    return EINVAL;
  }
  void* const made = memalign(alignment, size);
  if (made == nullptr) return ENOMEM;
  *memory = made;
  return 0;
}

void free(void* memory) noexcept { GiveBack(memory, WARD_CALLER, WARD_STACK); }

void* realloc(void* memory, size_t size) noexcept {
  if (memory == nullptr) return malloc(size);
  if (ward::testing::AccessChecker::Looking() == nullptr) {
    const size_t before = malloc_usable_size(memory);
    void* const moved = __libc_realloc(memory, size);
    if (moved != memory) return HandedOut(moved, size);
    // Where it stays, what was done to it stays, too.
    if (size > before) {
      HandedOut(static_cast<char*>(memory) + before, size - before);
    }
    return moved;
  }
  if (size == 0) {
    GiveBack(memory, WARD_CALLER, WARD_STACK);
    return nullptr;
  }
  void* const moved = malloc(size);
  if (moved == nullptr) return nullptr;
  __builtin_memcpy(moved, memory, std::min(size, malloc_usable_size(memory)));
  GiveBack(memory, WARD_CALLER, WARD_STACK);
  return moved;
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

// As the C++ library has them, to know who calls. Weak: the program may have
// its own.
#define WARD_DELETE(parameters)                                    \
  ABSL_ATTRIBUTE_WEAK void operator delete parameters noexcept {   \
    GiveBack(memory, WARD_CALLER, WARD_STACK);                     \
  }                                                                \
  ABSL_ATTRIBUTE_WEAK void operator delete[] parameters noexcept { \
    GiveBack(memory, WARD_CALLER, WARD_STACK);                     \
  }

// NOLINTBEGIN(misc-new-delete-overloads): those of the library take theirs from
// malloc.
WARD_DELETE((void* memory))
WARD_DELETE((void* memory, size_t))
WARD_DELETE((void* memory, std::align_val_t))
WARD_DELETE((void* memory, size_t, std::align_val_t))
WARD_DELETE((void* memory, const std::nothrow_t&))
WARD_DELETE((void* memory, std::align_val_t, const std::nothrow_t&))
// NOLINTEND(misc-new-delete-overloads)

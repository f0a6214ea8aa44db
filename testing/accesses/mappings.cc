// Memory that the kernel hands out, and takes back: what others have done to it
// does not matter any more. The C library's own calls do not come here; what it
// hands out on, comes in memory.cc.

#include <sys/mman.h>
#include <sys/types.h>

#include <algorithm>
#include <cstdarg>
#include <cstddef>
#include <cstdint>

#include "ward/testing/accesses/checker.h"

using ::ward::testing::AccessChecker;

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming):
// the linker's names, see library_calls.bzl.

void* __real_mmap(void* at, size_t size, int access, int flags, int fd,
                  off_t offset);
void* __real_mmap64(void* at, size_t size, int access, int flags, int fd,
                    off64_t offset);
int __real_munmap(void* memory, size_t size);
void* __real_mremap(void* memory, size_t size, size_t new_size, int flags,
                    void* at);
void* __real_sbrk(intptr_t more);
int __real_brk(void* end);

void* __wrap_mmap(void* at, size_t size, int access, int flags, int fd,
                  off_t offset) {
  void* const mapped = __real_mmap(at, size, access, flags, fd, offset);
  if (mapped != MAP_FAILED) AccessChecker::HandedOut(mapped, size);
  return mapped;
}

void* __wrap_mmap64(void* at, size_t size, int access, int flags, int fd,
                    off64_t offset) {
  void* const mapped = __real_mmap64(at, size, access, flags, fd, offset);
  if (mapped != MAP_FAILED) AccessChecker::HandedOut(mapped, size);
  return mapped;
}

// Whoever has it next may be one that is not seen.
int __wrap_munmap(void* memory, size_t size) {
  const int error = __real_munmap(memory, size);
  if (error == 0) AccessChecker::HandedOut(memory, size);
  return error;
}

// It reads a fifth argument only if flags say that there is one.
void* __wrap_mremap(void* memory, size_t size, size_t new_size, int flags,
                    ...) {
  va_list arguments;
  va_start(arguments, flags);
  void* const at = va_arg(arguments, void*);
  va_end(arguments);
  void* const moved = __real_mremap(memory, size, new_size, flags, at);
  if (moved == MAP_FAILED) return moved;
  // Where it stays, what was done to it stays, too.
  const size_t stays = moved == memory ? std::min(size, new_size) : 0;
  AccessChecker::HandedOut(static_cast<char*>(memory) + stays, size - stays);
  AccessChecker::HandedOut(static_cast<char*>(moved) + stays, new_size - stays);
  return moved;
}

void* __wrap_sbrk(intptr_t more) {
  void* const end = __real_sbrk(more);
  // NOLINTNEXTLINE(performance-no-int-to-ptr): as it is specified, sbrk(2).
  if (end == reinterpret_cast<void*>(-1)) return end;
  AccessChecker::HandedOut(
      static_cast<char*>(end) + std::min<intptr_t>(more, 0),
      static_cast<size_t>(more < 0 ? -more : more));
  return end;
}

int __wrap_brk(void* end) {
  auto* const before = static_cast<char*>(__real_sbrk(0));
  const int error = __real_brk(end);
  if (error != 0) return error;
  auto* const after = static_cast<char*>(end);
  AccessChecker::HandedOut(
      std::min(before, after),
      static_cast<size_t>(before < after ? after - before : before - after));
  return error;
}

// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}  // extern "C"

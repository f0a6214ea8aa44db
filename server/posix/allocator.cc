#include "ward/server/posix/allocator.h"

#include <malloc.h>
#include <sched.h>

#include <cstdlib>

namespace ward {
namespace {

// Blocks of at least this size are mappings of their own, which munmap(2) gives
// back. Unset, glibc raises it to the largest block that was ever freed, up to
// 32 MiB: smaller ones then lie in arenas.
constexpr int kMappedBytes = 1 << 20;

// What an arena keeps at its end. Unset, twice the largest block again.
constexpr int kKeptBytes = 1 << 20;

#ifdef __GLIBC__
void Set(int parameter, const char* variable, int value) {
  // No other thread runs yet. NOLINTNEXTLINE(concurrency-mt-unsafe)
  if (std::getenv(variable) == nullptr) mallopt(parameter, value);
}
#endif

}  // namespace

void ReturnFreeMemory() {
#ifdef __GLIBC__
  Set(M_MMAP_THRESHOLD, "MALLOC_MMAP_THRESHOLD_", kMappedBytes);
  Set(M_TRIM_THRESHOLD, "MALLOC_TRIM_THRESHOLD_", kKeptBytes);
  // Each arena keeps its own, and there are eight for each processor, unless
  // said otherwise: one is enough for the threads that run at the same time.
  cpu_set_t processors;
  if (sched_getaffinity(0, sizeof(processors), &processors) == 0) {
    Set(M_ARENA_MAX, "MALLOC_ARENA_MAX", CPU_COUNT(&processors));
  }
#endif
}

}  // namespace ward

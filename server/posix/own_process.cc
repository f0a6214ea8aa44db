#include "ward/server/posix/own_process.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <new>

namespace ward {
namespace {

// 0: not asked yet.
using Known = std::atomic<int>;

// A fork finds its page empty, however it was made (madvise(2),
// MADV_WIPEONFORK). Null where the kernel does not know that.
Known* OfThisProcess() {
  static Known* const kPage = []() -> Known* {
    const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void* const found = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) return nullptr;
    if (madvise(found, size, MADV_WIPEONFORK) == 0) return new (found) Known(0);
    munmap(found, size);
    return nullptr;
  }();
  return kPage;
}

// A fork goes on from there.
std::atomic<int> last_generation{0};

}  // namespace

int ForkGeneration() {
  Known* const known = OfThisProcess();
  if (known == nullptr) return getpid();
  int generation = known->load();
  if (generation != 0) return generation;
  // Of threads that ask at once, the first one's counts.
  const int next = ++last_generation;
  return known->compare_exchange_strong(generation, next) ? next : generation;
}

}  // namespace ward

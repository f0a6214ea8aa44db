#include "ward/server/posix/own_process.h"

#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <new>

namespace ward {
namespace {

// 0: not asked yet.
struct Known {
  std::atomic<pid_t> process{0};
  std::atomic<int> generation{0};
};

// A fork finds its page empty, however it was made (madvise(2),
// MADV_WIPEONFORK). Null where the kernel does not know that.
Known* OfThisProcess() {
  static Known* const kPage = []() -> Known* {
    const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void* const found = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) return nullptr;
    if (madvise(found, size, MADV_WIPEONFORK) == 0) return new (found) Known;
    munmap(found, size);
    return nullptr;
  }();
  return kPage;
}

// A fork goes on from there.
std::atomic<int> last_generation{0};

}  // namespace

pid_t OwnProcessId() {
  Known* const known = OfThisProcess();
  if (known == nullptr) return getpid();
  const pid_t process = known->process.load(std::memory_order_relaxed);
  if (process != 0) return process;
  const pid_t own = getpid();
  known->process.store(own, std::memory_order_relaxed);
  return own;
}

int ForkGeneration() {
  Known* const known = OfThisProcess();
  if (known == nullptr) return getpid();
  int generation = known->generation;
  if (generation != 0) return generation;
  // Of threads that ask at once, the first one's counts.
  const int next = ++last_generation;
  return known->generation.compare_exchange_strong(generation, next)
             ? next
             : generation;
}

}  // namespace ward

#include "ward/channel/spin.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "ward/channel/posix_wait.h"

namespace ward {
namespace {

constexpr int kMostInVain = 10;

// One may be left with no processor that it may use, or the call denied: then
// it is as with one.
int CountProcessors() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

// Threads of this process that spin.
std::atomic<int> spinning = 0;

// False if they are as many as may be.
bool BeginSpinning() {
  static const int kMost = [] {
    // Its parent's are not in a fork.
    pthread_atfork(nullptr, nullptr, [] { spinning = 0; });
    return CountProcessors() - 1;
  }();
  if (spinning.fetch_add(1, std::memory_order_relaxed) < kMost) return true;
  spinning.fetch_sub(1, std::memory_order_relaxed);
  return false;
}

}  // namespace

bool Spin::Until(absl::Time deadline, absl::FunctionRef<bool()> comes) {
  if (left_to_kernel_ > 0) {
    --left_to_kernel_;
    return false;
  }
  if (!BeginSpinning()) return false;
  const absl::Time end = std::min(deadline, MonotonicNow() + longest_);
  bool came = comes();
  while (!came && MonotonicNow() < end) came = comes();
  spinning.fetch_sub(1, std::memory_order_relaxed);
  in_vain_ = came ? 0 : std::min(in_vain_ + 1, kMostInVain);
  left_to_kernel_ = (1 << in_vain_) - 1;
  return came;
}

}  // namespace ward

// What a run takes longer for what is looked at: not part of //..., as it
// measures. This file is compiled with -fsanitize=thread.
//
//   bazel test -c opt --test_output=all //testing/accesses:cost_test

#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <functional>
#include <mutex>

#include "gtest/gtest.h"
#include "ward/testing/explore.h"

namespace ward::testing {
namespace {

constexpr int kTimes = 200'000;

// Of this thread, whoever else has the processor; a system call of its own, as
// clocks are simulated.
double Nanoseconds() {
  timespec time;
  syscall(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &time);
  return 1e9 * static_cast<double>(time.tv_sec) +
         static_cast<double>(time.tv_nsec);
}

// Runs are made in other processes.
double& Result() {
  static double& result = *static_cast<double*>(
      mmap(nullptr, sizeof(double), PROT_READ | PROT_WRITE,
           MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  return result;
}

// The least of some runs, each of kTimes operations.
void Measure(const char* what, const std::function<void()>& operations) {
  Result() = 1e9;
  ExploreOptions options;
  options.runs = 5;
  options.max_steps = size_t{10} * kTimes;
  const Exploration exploration = FindFailure(options, [&operations] {
    const double begin = Nanoseconds();
    operations();
    Result() = std::min(Result(), (Nanoseconds() - begin) / kTimes);
  });
  EXPECT_FALSE(exploration.failure.has_value()) << exploration.failure->what;
  std::printf("%s: %.0f ns\n", what, Result());
}

TEST(Cost, OfOneOperation) {
  Measure("a plain access", [] {
    static int volatile numbers[1024];
    // One of them to read, and one to write.
    for (int i = 0; i < kTimes / 2; ++i) {
      numbers[i % 1024] = numbers[(i + 7) % 1024];
    }
  });
  Measure("an operation of an atomic", [] {
    std::atomic<int> counter{0};
    for (int i = 0; i < kTimes; ++i) counter.fetch_add(1);
  });
  Measure("a store to an atomic", [] {
    std::atomic<int> last{0};
    for (int i = 0; i < kTimes; ++i) last.store(i);
  });
  Measure("locking and unlocking", [] {
    std::mutex mutex;
    for (int i = 0; i < kTimes; ++i) {
      const std::lock_guard<std::mutex> lock(mutex);
    }
  });
}

}  // namespace
}  // namespace ward::testing

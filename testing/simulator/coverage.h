// Which operations on one object came one after the other, in many runs: what
// was interleaved, and what was not.
//
// An operation is what a thread does after a scheduling point that says what it
// is about (Scheduler::Point): a lock, an atomic object, the descriptors. Its
// place is the calls that lead to it. When another thread's, on the same
// object, comes next of those whose order matters, the two were seen in this
// order. They come in the order in which threads go on from their points: who
// has to wait for a lock then has come to it all the same.

#ifndef WARD_TESTING_SIMULATOR_COVERAGE_H_
#define WARD_TESTING_SIMULATOR_COVERAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

// The operations on one object that the next one is to be set beside.
class LastOperations {
 public:
  // Thread `thread` is at `place`, not 0, now; tells `see` the place of each
  // that it comes after.
  template <typename F>
  void Add(int thread, Use use, uint32_t place, F see) {
    if (write_.place != 0 && write_.thread != thread) see(write_.place);
    const Operation now = {thread, place};
    if (use == Use::kRead) {
      if (reads_[0].thread != thread) reads_[1] = reads_[0];
      reads_[0] = now;
      return;
    }
    for (Operation& read : reads_) {
      if (read.place != 0 && read.thread != thread) see(read.place);
      read = {};
    }
    write_ = now;
  }

 private:
  struct Operation {
    int thread = -1;
    uint32_t place = 0;
  };
  Operation write_;
  // Of two threads, since then.
  std::array<Operation, 2> reads_;
};

// Of all runs that one process after another makes. As it lies in shared
// memory, it is of a fixed size, and begins as zeros.
class Coverage {
 public:
  // Some are the simulator's own, and, unoptimised, the C++ library's.
  static constexpr size_t kMostCalls = 9;
  static constexpr size_t kMostPlaces = size_t{1} << 12;
  static constexpr size_t kMostOrders = size_t{1} << 15;

  // Where the calls return to, the innermost first; 0: there are no more.
  using Calls = std::array<uintptr_t, kMostCalls>;

  // From 1 on, as they come up; 0 if there are too many. `hash` is of `calls`.
  uint32_t PlaceOf(const Calls& calls, uint64_t hash);
  const Calls& CallsOf(uint32_t place) const { return calls_[place - 1]; }
  uint64_t HashOf(uint32_t place) const { return hashes_[place - 1]; }

  void Add(uint32_t first, uint32_t second);

  // Calls visit(first, second) for each two that were seen in this order.
  template <typename F>
  void ForEach(F visit) const {
    for (const uint32_t order : orders_) {
      if (order != 0) visit(order >> kBits, order & ((1U << kBits) - 1));
    }
  }

 private:
  static constexpr unsigned kBits = 16;

  uint32_t places_;
  uint32_t number_of_orders_;
  std::array<uint16_t, 2 * kMostPlaces> index_;
  std::array<uint64_t, kMostPlaces> hashes_;
  std::array<Calls, kMostPlaces> calls_;
  std::array<uint32_t, kMostOrders> orders_;
};

// Fills it, run by run.
class CoverageRecorder {
 public:
  // The stack that the runs' first thread is on ends at `stack_end`: see
  // StackEnd().
  CoverageRecorder(Coverage& coverage, uintptr_t stack_end)
      : coverage_(coverage), stack_end_(stack_end) {}

  // Of the calling thread; 0 if it cannot be known. It takes some 50 us.
  static uintptr_t StackEnd();

  uintptr_t stack_end() const { return stack_end_; }

  void BeginRun() { ++run_; }

  // The place of the operation whose point has the stack frame `frame`, of a
  // stack that ends at `end`. Code that is compiled without frame pointers
  // (Bazel compiles with them) has no calls in it.
  uint32_t PlaceOf(const void* frame, uintptr_t end);

  // It happens.
  void Add(int thread, const void* object, Use use, uint32_t place);

 private:
  struct Entry {
    const void* object = nullptr;
    uint64_t run = 0;
    LastOperations last;
  };

  Coverage& coverage_;
  const uintptr_t stack_end_;
  uint64_t run_ = 1;
  std::array<Entry, 1024> entries_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_COVERAGE_H_

// Which operations on one object came one after the other, in many runs: what
// was interleaved, and what was not.
//
// An operation is what a thread does after a scheduling point that says what it
// is about (Scheduler::Point): a lock, an atomic object, a connection. Its
// place is the calls that lead to it, from the body or the thread's beginning
// on. When another thread's, on the same object, comes next of those whose
// order matters, the two were seen in this order. They come in the order in
// which threads go on from their points: who has to wait for a lock then has
// come to it all the same.

#ifndef WARD_TESTING_SIMULATOR_COVERAGE_H_
#define WARD_TESTING_SIMULATOR_COVERAGE_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

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

// Of each object of a run, by the objects' numbers. The first few take no more
// memory: a point may be in a handler of a signal.
class OperationsOfRun {
 public:
  OperationsOfRun() { objects_.reserve(256); }

  void Clear() { objects_.clear(); }

  // As LastOperations has it: thread `thread` does `now`.
  template <typename F>
  void Add(int thread, const Operation& now, F see) {
    const auto last = static_cast<size_t>(std::max(now.object, now.whole));
    if (last >= objects_.size()) objects_.resize(last + 1);
    Object& object = ObjectAt(now.object);
    if (now.whole >= 0) {
      Object& whole = ObjectAt(now.whole);
      if (object.seen != whole.uses) {
        // All else that was done with this part was before that.
        object.last = whole.last;
        object.seen = whole.uses;
        object.next_part = std::exchange(whole.first_part, now.object);
      }
    }
    for (int part = std::exchange(object.first_part, -1); part >= 0;
         part = ObjectAt(part).next_part) {
      ObjectAt(part).last.Add(thread, now.use, now.place, see);
    }
    object.last.Add(thread, now.use, now.place, see);
    ++object.uses;
  }

 private:
  struct Object {
    LastOperations last;
    // How often it was used, and one more. Of a part: what that was of the
    // whole when the part was used last.
    uint64_t uses = 1;
    uint64_t seen = 0;
    // A list of those that were used since it was itself.
    int first_part = -1;
    int next_part = -1;
  };

  Object& ObjectAt(int number) { return objects_[static_cast<size_t>(number)]; }

  std::vector<Object> objects_;
};

// Numbers, each once, in the order in which they came; 0 is none of them. As it
// lies in shared memory, it is of a fixed size, and begins as zeros; what is
// not used of it costs nothing.
template <typename Number, size_t kMost>
class Numbers {
  static_assert((kMost & (kMost - 1)) == 0, "slots are found by a mask");

 public:
  // NOLINTNEXTLINE(bugprone-dynamic-static-initializers): it is a constant.
  static constexpr size_t kNone = kMost;

  size_t size() const { return size_; }
  Number operator[](size_t at) const { return numbers_[at]; }

  // Where `number` is now, and whether it was not there before. kNone: it is
  // not, and there is no more room.
  std::pair<size_t, bool> Insert(Number number) {
    if (2 * size_ >= slots_ && slots_ < index_.size()) Grow();
    uint32_t& slot = SlotOf(number);
    if (slot != 0) return {slot - 1, false};
    if (size_ == kMost) return {kNone, false};
    numbers_[size_] = number;
    slot = static_cast<uint32_t>(++size_);
    return {size_ - 1, true};
  }

 private:
  // Its own, or the one that it would have. Half of them are empty.
  uint32_t& SlotOf(Number number) {
    constexpr uint64_t kSpread = 0x9e3779b97f4a7c15;
    for (size_t i = number * kSpread >> 32;; ++i) {
      uint32_t& slot = index_[i & (slots_ - 1)];
      if (slot == 0 || numbers_[slot - 1] == number) return slot;
    }
  }

  void Grow() {
    constexpr size_t kFirst = 1024;
    std::fill_n(index_.begin(), slots_, 0);
    slots_ = std::min(std::max(2 * slots_, kFirst), index_.size());
    for (size_t i = 0; i < size_; ++i) {
      SlotOf(numbers_[i]) = static_cast<uint32_t>(i + 1);
    }
  }

  size_t size_;
  size_t slots_;
  std::array<Number, kMost> numbers_;
  // By their hashes, where they are, and 1. So many are in use as `slots_`.
  std::array<uint32_t, 2 * kMost> index_;
};

// Of all runs that one process after another makes; in shared memory.
class Coverage {
 public:
  // The innermost, which are to be shown.
  static constexpr size_t kMostCalls = 12;
  static constexpr size_t kMostPlaces = size_t{1} << 14;
  static constexpr size_t kMostOrders = size_t{1} << 16;

  // Where the calls return to, the innermost first; 0: there are no more.
  using Calls = std::array<uintptr_t, kMostCalls>;

  void Name(uint32_t place, const Calls& calls) {
    const auto [at, is_new] = places_.Insert(place);
    if (is_new) calls_[at] = calls;
  }
  void Add(uint32_t first, uint32_t second) {
    if (orders_.Insert(uint64_t{first} << 32 | second).first ==
        decltype(orders_)::kNone) {
      is_full_ = true;
    }
  }

  // There were more orders than it has room for.
  bool is_full() const { return is_full_; }

  // Calls visit(place, calls) for each that was named.
  template <typename F>
  void ForEachName(F visit) const {
    for (size_t i = 0; i < places_.size(); ++i) visit(places_[i], calls_[i]);
  }

  // Calls visit(first, second) for each two that were seen in this order, as
  // they came.
  template <typename F>
  void ForEach(F visit) const {
    for (size_t i = 0; i < orders_.size(); ++i) {
      visit(static_cast<uint32_t>(orders_[i] >> 32),
            static_cast<uint32_t>(orders_[i]));
    }
  }

 private:
  bool is_full_;
  Numbers<uint32_t, kMostPlaces> places_;
  std::array<Calls, kMostPlaces> calls_;
  Numbers<uint64_t, kMostOrders> orders_;
};

// Fills it, run by run.
class CoverageRecorder {
 public:
  // With `names` places are named.
  CoverageRecorder(Coverage& coverage, bool names)
      : coverage_(coverage), names_(names) {}

  // The run's body is called by a function with the stack frame `frame`.
  void BeginRun(const void* frame);

  // Where the stack of the runs' first thread ends, as far as it is the body's.
  uintptr_t stack_end() const { return stack_end_; }

  // The place of the operation whose point has the stack frame `frame`, of a
  // stack that ends at `end`; 0: it is not known. It is a hash of the calls
  // that lead there, and the same in all processes of a program. Code that is
  // compiled without frame pointers (Bazel compiles with them) has no calls in
  // it.
  uint32_t PlaceOf(const void* frame, uintptr_t end);

  // It happens.
  void Add(int thread, const Operation& now);

 private:
  Coverage& coverage_;
  const bool names_;
  uintptr_t stack_end_ = 0;
  OperationsOfRun operations_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_COVERAGE_H_

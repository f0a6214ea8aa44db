// A vector clock: of each thread, how much of what it did has been seen, which
// is what happens before ([intro.races]); and what the fences of seq_cst among
// that make visible beyond it.

#ifndef WARD_TESTING_ACCESSES_CLOCK_H_
#define WARD_TESTING_ACCESSES_CLOCK_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ward::testing {

class Clock {
 public:
  uint32_t Of(size_t thread) const {
    return thread < ticks_.size() ? ticks_[thread].count : 0;
  }

  void Advance(size_t thread) {
    if (thread >= ticks_.size()) ticks_.resize(thread + 1);
    ++ticks_[thread].count;
  }

  // The memory stays, for the next one.
  void Clear() {
    ticks_.clear();
    visible_.clear();
    last_fence_ = 0;
  }

  void Join(const Clock& other) {
    if (ticks_.size() < other.ticks_.size()) ticks_.resize(other.ticks_.size());
    for (size_t i = 0; i < other.ticks_.size(); ++i) {
      if (ticks_[i].count < other.ticks_[i].count) ticks_[i] = other.ticks_[i];
    }
    // A later one makes all visible that an earlier one does.
    if (last_fence_ < other.last_fence_) {
      last_fence_ = other.last_fence_;
      visible_ = other.visible_;
    }
  }

  bool is_empty() const { return ticks_.empty(); }

  // A fence of seq_cst, whose place in the one order of all seq_cst operations
  // is `place`. What happens before those so far is in `published`, to which
  // its own is added.
  void PassFence(Clock& published, uint32_t place) {
    published.Join(*this);
    visible_ = published.ticks_;
    last_fence_ = place;
  }
  // Of the last one that has been seen: its place, or 0, and how much of what a
  // thread did happens before it, or before an earlier one of any thread.
  uint32_t last_fence() const { return last_fence_; }
  uint32_t VisibleOf(size_t thread) const {
    return thread < visible_.size() ? visible_[thread].count : 0;
  }

 private:
  // A type of its own, so that no code of others shares the vector's.
  struct Tick {
    uint32_t count = 0;
  };

  std::vector<Tick> ticks_;
  std::vector<Tick> visible_;
  uint32_t last_fence_ = 0;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_ACCESSES_CLOCK_H_

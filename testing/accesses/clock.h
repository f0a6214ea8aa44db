// A vector clock: of each thread, how much of what it did has been seen.

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

  void Join(const Clock& other) {
    if (ticks_.size() < other.ticks_.size()) ticks_.resize(other.ticks_.size());
    for (size_t i = 0; i < other.ticks_.size(); ++i) {
      if (ticks_[i].count < other.ticks_[i].count) ticks_[i] = other.ticks_[i];
    }
  }

  void Clear() { ticks_.clear(); }

 private:
  // A type of its own, so that no code of others shares the vector's.
  struct Tick {
    uint32_t count = 0;
  };

  std::vector<Tick> ticks_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_ACCESSES_CLOCK_H_

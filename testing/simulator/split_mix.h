// Numbers at random, the same for the same seed on every machine.

#ifndef WARD_TESTING_SIMULATOR_SPLIT_MIX_H_
#define WARD_TESTING_SIMULATOR_SPLIT_MIX_H_

#include <cstdint>
#include <limits>

namespace ward::testing {

// A UniformRandomBitGenerator: SplitMix64 (Steele, Lea, Flood: "Fast Splittable
// Pseudorandom Number Generators", OOPSLA 2014). To seed a std::mt19937_64
// costs as much as a whole short run; those that cost nothing, of the standard
// library, begin alike with seeds that follow each other.
class SplitMix {
 public:
  using result_type = uint64_t;

  explicit SplitMix(uint64_t seed = 0) : state_(seed) {}

  uint64_t operator()() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
  }

  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() {
    return std::numeric_limits<uint64_t>::max();
  }

 private:
  uint64_t state_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_SPLIT_MIX_H_

#include "ward/testing/search/strategies.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ward/testing/simulator/split_mix.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// One in this many chances for something to go wrong is taken.
constexpr uint64_t kRarity = 32;

bool IsAmongThreads(const Choice& choice) {
  return choice.kind == ChoiceKind::kThread ||
         choice.kind == ChoiceKind::kWaiter;
}

// Modulo, and not std::uniform_int_distribution, whose results differ from one
// C++ library to the next. The bias is of no consequence here.
size_t Below(SplitMix& random, size_t bound) {
  return static_cast<size_t>(random() % bound);
}

// Of a deviation, in DepthFirstStrategy's levels.
constexpr int kCost = 2;
constexpr int kCostAfter = 3;

bool IsAfter(const Choice& choice) { return choice.after >= 0; }

int CostOf(const Choice& choice) {
  return IsAfter(choice) ? kCostAfter : kCost;
}

size_t ChooseFault(SplitMix& random, const Choice& choice) {
  if (Below(random, kRarity) != 0) return 0;
  return 1 + Below(random, choice.options - 1);
}

// How often threads may yield before those come to run that have fallen: the
// C++ library's atomics yield four times before they wait.
constexpr int kFewYields = 16;

// More than there are yields in a run.
constexpr int64_t kRoomForYields = int64_t{1} << 32;

}  // namespace

uint64_t& RandomStrategy::Weight(int thread) {
  constexpr size_t kWeights = 5;  // 1, 8, 64, 512, 4096.
  const auto [known, added] = weights_.try_emplace(thread, 0);
  if (added) known->second = uint64_t{1} << (3 * Below(random_, kWeights));
  return known->second;
}

size_t RandomStrategy::Choose(const Choice& choice) {
  if (!IsAmongThreads(choice)) return ChooseFault(random_, choice);
  if (weighted_ && choice.yielded >= 0) {
    uint64_t& weight = Weight(choice.yielded);
    weight = std::max<uint64_t>(weight / 2, 1);
  }
  if (IsAfter(choice) && !after_) {
    return static_cast<size_t>(
        std::find(choice.threads.begin(), choice.threads.end(), choice.after) -
        choice.threads.begin());
  }
  if (!weighted_) return Below(random_, choice.options);
  uint64_t sum = 0;
  for (const int thread : choice.threads) sum += Weight(thread);
  // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): each has a weight.
  uint64_t point = random_() % sum;
  for (size_t i = 0; i < choice.options; ++i) {
    const uint64_t weight = Weight(choice.threads[i]);
    if (point < weight) return i;
    point -= weight;
  }
  return 0;
}

PctStrategy::PctStrategy(uint64_t seed, int depth, size_t length, bool after)
    : random_(seed) {
  for (int i = 1; i < depth; ++i) {
    drops_.push_back({Below(random_, std::max<size_t>(length, 1))});
  }
  if (after && depth > 1) drops_[Below(random_, drops_.size())].after = true;
}

size_t PctStrategy::Choose(const Choice& choice) {
  if (!IsAmongThreads(choice)) return ChooseFault(random_, choice);
  const auto priority = [this](int thread) -> int64_t& {
    const auto [known, added] = priorities_.try_emplace(thread, 0);
    // Above those of who has yielded a few times, above those of the drops,
    // above those of who has yielded more often.
    if (added) {
      known->second = kRoomForYields + static_cast<int64_t>(random_() >> 2);
    }
    return known->second;
  };
  const auto has_fallen = [&](int thread) {
    return priority(thread) < static_cast<int64_t>(drops_.size());
  };
  for (const int thread : choice.threads) priority(thread);
  if (choice.yielded >= 0) {
    priority(choice.yielded) =
        ++yields_ > kFewYields || has_fallen(choice.yielded)
            ? --lowest_
            : kRoomForYields - ++last_yield_;
  }
  const auto highest = [&] {
    return static_cast<size_t>(
        std::max_element(
            choice.threads.begin(), choice.threads.end(),
            [&](int a, int b) { return priority(a) < priority(b); }) -
        choice.threads.begin());
  };
  if (choice.kind == ChoiceKind::kWaiter) return highest();
  for (size_t i = 0; i < drops_.size(); ++i) {
    Drop& drop = drops_[i];
    if (drop.done || drop.step > step_ || drop.after != IsAfter(choice)) {
      continue;
    }
    priority(choice.threads[highest()]) = static_cast<int64_t>(i);
    drop.done = true;
  }
  step_ += IsAfter(choice) ? 0 : 1;
  const size_t chosen = highest();
  if (has_fallen(choice.threads[chosen])) yields_ = 0;
  return chosen;
}

// Not if others could not make up the rest of the level: such a run is one of
// another level's.
bool DepthFirstStrategy::MayDeviate(const Choice& choice) const {
  if (deviations_ == max_deviations_) return false;
  if (!IsAmongThreads(choice) && faults_ == max_faults_) return false;
  const int rest = position_.level - cost_ - CostOf(choice);
  const int most = kCostAfter * (max_deviations_ - deviations_ - 1);
  return rest == 0 || (rest >= kCost && rest <= most);
}

size_t DepthFirstStrategy::Choose(const Choice& choice) {
  std::vector<Branch>& path = position_.path;
  if (depth_ == path.size()) {
    path.push_back({MayDeviate(choice) ? choice.options : 1});
  }
  const Branch& branch = path[depth_++];
  if (branch.chosen != 0) {
    ++deviations_;
    cost_ += CostOf(choice);
    faults_ += IsAmongThreads(choice) ? 0 : 1;
  }
  // There are fewer options than last time if the run depends on more than its
  // schedule.
  return branch.chosen < choice.options ? branch.chosen : 0;
}

bool DepthFirstStrategy::NextRun() {
  std::vector<Branch>& path = position_.path;
  path.resize(depth_);
  while (!path.empty() && path.back().chosen + 1 >= path.back().options) {
    path.pop_back();
  }
  depth_ = 0;
  deviations_ = 0;
  cost_ = 0;
  faults_ = 0;
  if (!path.empty()) {
    ++path.back().chosen;
    return true;
  }
  // There is none of half a deviation.
  position_.level = std::max(position_.level + 1, kCost);
  return position_.level <= kCostAfter * max_deviations_;
}

}  // namespace ward::testing

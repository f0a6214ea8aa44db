#include "ward/testing/search/strategies.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ward/testing/simulator/split_mix.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// One in this many chances for something to go wrong is taken.
constexpr uint64_t kRarity = 32;

// Of 16 loads that may return an older value than the last, so many do.
constexpr std::array<uint64_t, 3> kOldValues = {2, 8, 14};

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

// How often threads may yield before those come to run that have fallen: the
// C++ library's atomics yield four times before they wait.
constexpr int kFewYields = 16;

// More than there are yields in a run.
constexpr int64_t kRoomForYields = int64_t{1} << 32;

}  // namespace

size_t OddChoices::Choose(SplitMix& random, const Choice& choice) {
  if (choice.kind != ChoiceKind::kLoad) {
    if (Below(random, kRarity) != 0) return 0;
  } else {
    if (old_values_ == 0) {
      old_values_ = kOldValues[Below(random, kOldValues.size())];
    }
    if (Below(random, 16) >= old_values_) return 0;
  }
  return 1 + Below(random, choice.options - 1);
}

uint64_t& RandomStrategy::Weight(int thread) {
  constexpr size_t kWeights = 5;  // 1, 8, 64, 512, 4096.
  const auto [known, added] = weights_.try_emplace(thread, 0);
  if (added) known->second = uint64_t{1} << (3 * Below(random_, kWeights));
  return known->second;
}

size_t RandomStrategy::Choose(const Choice& choice) {
  if (!IsAmongThreads(choice)) return odd_choices_.Choose(random_, choice);
  if (weighted_ && choice.yielded >= 0) {
    uint64_t& weight = Weight(choice.yielded);
    weight = std::max<uint64_t>(weight / 2, 1);
  }
  if (IsAfter(choice) && !after_) return choice.OptionOf(choice.after);
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
  if (!IsAmongThreads(choice)) return odd_choices_.Choose(random_, choice);
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

DepthFirstStrategy::Branch DepthFirstStrategy::BranchOf(
    const Choice& choice) const {
  Branch branch = {choice.options, 0, kCost, kCost,
                   !IsAmongThreads(choice) && choice.kind != ChoiceKind::kLoad};
  if (IsAfter(choice)) {
    branch.cost = branch.cost_of_others = kCostAfter;
  } else if (choice.kind == ChoiceKind::kThread) {
    branch.cost_of_others = kCostAfter;
    // Whoever holds back a thread that others have nothing to do with holds it
    // back before what it does next as well.
    const auto matters = [&](const Operation& held) {
      return held.use == Use::kAnything ||
             (held.use != Use::kNothing &&
              (profile_->MayBeShared(held.object) ||
               (held.whole >= 0 && profile_->MayBeShared(held.whole))));
    };
    if (!choice.next.empty() && choice.threads[0] == choice.running &&
        !matters(choice.next[0])) {
      branch.cost = kCostAfter;
    }
  }
  return branch;
}

int DepthFirstStrategy::CostOf(const Branch& branch, size_t option) {
  if (option == 0) return 0;
  return option == 1 ? branch.cost : branch.cost_of_others;
}

// Not if others could not make up the rest of the level: such a run is one of
// another level's.
bool DepthFirstStrategy::MayTake(const Branch& branch, size_t option) const {
  if (deviations_ == max_deviations_) return false;
  if (branch.is_fault && faults_ == max_faults_) return false;
  const int rest = position_.level - cost_ - CostOf(branch, option);
  const int most = kCostAfter * (max_deviations_ - deviations_ - 1);
  return rest == 0 || (rest >= kCost && rest <= most);
}

void DepthFirstStrategy::Count(const Branch& branch, int times) {
  if (branch.chosen == 0) return;
  deviations_ += times;
  cost_ += times * CostOf(branch, branch.chosen);
  faults_ += branch.is_fault ? times : 0;
}

size_t DepthFirstStrategy::Choose(const Choice& choice) {
  std::vector<Branch>& path = position_.path;
  if (depth_ == path.size()) path.push_back(BranchOf(choice));
  const Branch& branch = path[depth_++];
  Count(branch, 1);
  // There are fewer options than last time if the run depends on more than its
  // schedule.
  return branch.chosen < choice.options ? branch.chosen : 0;
}

bool DepthFirstStrategy::NextRun() {
  std::vector<Branch>& path = position_.path;
  path.resize(depth_);
  depth_ = 0;
  for (; !path.empty(); path.pop_back()) {
    Branch& last = path.back();
    Count(last, -1);
    size_t option = last.chosen + 1;
    while (option < last.options && !MayTake(last, option)) ++option;
    if (option == last.options) continue;
    last.chosen = option;
    // They are counted again.
    deviations_ = cost_ = faults_ = 0;
    return true;
  }
  // There is none of half a deviation.
  position_.level = std::max(position_.level + 1, kCost);
  return position_.level <= kCostAfter * max_deviations_;
}

// --- what a run tells of others ---

bool Profile::MayBeShared(int object) const {
  if (object < 0 || object >= static_cast<int>(kMostObjects)) return true;
  const uint64_t bit = uint64_t{1} << object;
  return (used & bit) == 0 || (used_by_more & written & bit) != 0;
}

std::vector<int> Profile::SharedObjects() const {
  std::vector<int> shared;
  for (size_t object = 0; object < kMostObjects; ++object) {
    if ((used_by_more & written & uint64_t{1} << object) != 0) {
      shared.push_back(static_cast<int>(object));
    }
  }
  return shared;
}

void ProfilingStrategy::Know(int thread, int parent) {
  const auto number = static_cast<size_t>(thread);
  if (number >= Profile::kMostThreads) return;
  for (; profile_.known <= number; ++profile_.known) {
    profile_.threads[profile_.known].parent = parent;
  }
}

size_t ProfilingStrategy::Choose(const Choice& choice) {
  if (choice.kind != ChoiceKind::kThread) return 0;
  // Who starts one is at a point then, with the new one among the candidates.
  for (const int thread : choice.threads) {
    Know(thread, thread == choice.running ? -1 : choice.running);
  }
  if (!IsAfter(choice)) ++profile_.length;
  return 0;
}

void ProfilingStrategy::Arrives(int thread, const Operation& next) {
  Know(thread, -1);
  const auto number = static_cast<size_t>(thread);
  if (next.use == Use::kNothing || number >= Profile::kMostThreads) return;
  Profile::Thread& known = profile_.threads[number];
  ++known.all;
  const auto object = static_cast<size_t>(next.object);
  if (next.object < 0 || object >= Profile::kMostObjects) return;
  ++known.operations[object];
  const uint64_t bit = uint64_t{1} << object;
  if ((profile_.used & bit) == 0) profile_.first_user[object] = thread;
  profile_.used |= bit;
  if (profile_.first_user[object] != thread) profile_.used_by_more |= bit;
  if (next.use == Use::kWrite) profile_.written |= bit;
}

// --- POS ---

void PosStrategy::SetPriority(int thread, uint64_t priority) {
  const auto number = static_cast<size_t>(thread);
  if (number >= priorities_.size()) priorities_.resize(number + 1);
  priorities_[number] = priority;
}

uint64_t PosStrategy::PriorityOf(int thread) {
  const auto number = static_cast<size_t>(thread);
  if (number >= priorities_.size() || priorities_[number] == 0) {
    SetPriority(thread, random_() | 1);
  }
  return priorities_[number];
}

void PosStrategy::Arrives(int thread, const Operation& /*next*/) {
  SetPriority(thread, 0);
}

size_t PosStrategy::Choose(const Choice& choice) {
  if (!IsAmongThreads(choice)) return odd_choices_.Choose(random_, choice);
  if (choice.kind == ChoiceKind::kWaiter) {
    return Below(random_, choice.options);
  }
  if (IsAfter(choice) && !after_) return choice.OptionOf(choice.after);
  // Whoever else there is comes first.
  if (choice.yielded >= 0) SetPriority(choice.yielded, 1);
  size_t chosen = 0;
  for (size_t i = 1; i < choice.options; ++i) {
    if (PriorityOf(choice.threads[i]) > PriorityOf(choice.threads[chosen])) {
      chosen = i;
    }
  }
  for (size_t i = 0; i < choice.options; ++i) {
    if (i == chosen || choice.next[i].ConflictsWith(choice.next[chosen])) {
      SetPriority(choice.threads[i], 0);
    }
  }
  return chosen;
}

// --- SURW ---

SurwStrategy::SurwStrategy(uint64_t seed, const Profile& profile, bool after)
    : random_(seed), after_(after) {
  constexpr size_t kInterestedInAll = 4;  // One run in so many.
  const std::vector<int> shared = profile.SharedObjects();
  if (!shared.empty() && Below(random_, kInterestedInAll) != 0) {
    interest_ = shared[Below(random_, shared.size())];
  }
  for (size_t i = 0; i < profile.known; ++i) {
    const Profile::Thread& known = profile.threads[i];
    Thread& thread = Of(static_cast<int>(i));
    thread.parent = known.parent;
    thread.left = thread.total =
        interest_ < 0 ? known.all
                      : known.operations[static_cast<size_t>(interest_)];
  }
  // Who is started has a higher number than who starts it.
  for (size_t i = threads_.size(); i-- > 0;) {
    Thread& thread = threads_[i];
    thread.total += thread.to_start;
    if (thread.parent >= 0 && static_cast<size_t>(thread.parent) < i) {
      threads_[static_cast<size_t>(thread.parent)].to_start += thread.total;
    }
  }
}

SurwStrategy::Thread& SurwStrategy::Of(int thread) {
  const auto number = static_cast<size_t>(thread);
  if (number >= threads_.size()) threads_.resize(number + 1);
  return threads_[number];
}

bool SurwStrategy::IsOfInterest(const Operation& operation) const {
  if (interest_ < 0) return operation.use != Use::kNothing;
  return operation.use != Use::kNothing && operation.object == interest_;
}

// What is left to it is no longer its parent's.
void SurwStrategy::See(int thread) {
  Thread& seen = Of(thread);
  if (std::exchange(seen.seen, true)) return;
  seen.priority = random_() | 1;
  if (seen.parent < 0) return;
  Thread& parent = Of(seen.parent);
  // What was drawn is that it is one of these.
  const uint64_t drawn_from = parent.left + parent.to_start;
  if (next_ == seen.parent &&
      random_() % std::max<uint64_t>(drawn_from, 1) < seen.total) {
    next_ = thread;
  }
  parent.to_start -= std::min(parent.to_start, seen.total);
}

void SurwStrategy::HasBegun(int thread) {
  Thread& of = Of(thread);
  of.at_one = false;
  if (of.left > 0) --of.left;
  if (next_ == thread) next_ = -1;
}

void SurwStrategy::Arrives(int thread, const Operation& next) {
  // It went on without a choice.
  if (Of(thread).at_one) HasBegun(thread);
  Of(thread).at_one = IsOfInterest(next);
  Of(thread).priority = random_() | 1;
}

int SurwStrategy::DrawNext(const Choice& choice) {
  const auto weight = [&](size_t i) -> uint64_t {
    if (choice.threads[i] == choice.yielded) return 0;
    const Thread& thread = Of(choice.threads[i]);
    const uint64_t left = thread.left + thread.to_start;
    // It has more than was expected.
    return left == 0 && IsOfInterest(choice.next[i]) ? 1 : left;
  };
  uint64_t sum = 0;
  for (size_t i = 0; i < choice.options; ++i) sum += weight(i);
  if (sum == 0) return -1;
  uint64_t point = random_() % sum;
  for (size_t i = 0; i < choice.options; ++i) {
    if (point < weight(i)) return choice.threads[i];
    point -= weight(i);
  }
  return -1;
}

size_t SurwStrategy::Choose(const Choice& choice) {
  if (!IsAmongThreads(choice)) return odd_choices_.Choose(random_, choice);
  if (choice.kind == ChoiceKind::kWaiter) {
    return Below(random_, choice.options);
  }
  for (const int thread : choice.threads) See(thread);
  if (IsAfter(choice) && !after_) return choice.OptionOf(choice.after);
  if (choice.yielded >= 0) {
    // Whoever else there is comes first. It may wait for what others are held
    // back from, and nobody comes to that while it asks again and again.
    Of(choice.yielded).priority = 1;
    const bool can_come =
        next_ != choice.yielded &&
        std::find(choice.threads.begin(), choice.threads.end(), next_) !=
            choice.threads.end();
    if (!can_come) next_ = -1;
  }
  if (next_ < 0) next_ = DrawNext(choice);
  const auto must_wait = [&](size_t i) {
    return choice.threads[i] != next_ && IsOfInterest(choice.next[i]);
  };
  size_t chosen = choice.options;
  for (int attempt = 0; attempt < 2 && chosen == choice.options; ++attempt) {
    // The one that is to be next waits for one of these.
    if (attempt > 0) next_ = DrawNext(choice);
    for (size_t i = 0; i < choice.options; ++i) {
      if (must_wait(i)) continue;
      if (chosen == choice.options || Of(choice.threads[i]).priority >
                                          Of(choice.threads[chosen]).priority) {
        chosen = i;
      }
    }
  }
  if (chosen == choice.options) chosen = 0;
  if (IsOfInterest(choice.next[chosen])) HasBegun(choice.threads[chosen]);
  return chosen;
}

// --- deviations by their places ---

PlacedDeviation Places::Place(const Choice& choice, size_t option) {
  Last& last = last_[static_cast<size_t>(choice.kind)];
  if (last.thread != choice.running || last.point != choice.point) {
    last = {choice.running, choice.point, 0};
  }
  const size_t chosen = IsAmongThreads(choice)
                            ? static_cast<size_t>(choice.threads[option])
                            : option;
  return {choice.kind, choice.running, choice.point, last.count++,
          static_cast<uint32_t>(chosen)};
}

PlacedStrategy::PlacedStrategy(const std::vector<PlacedDeviation>& deviations) {
  for (const auto& [kind, thread, point, nth, chosen] : deviations) {
    chosen_[{kind, thread, point, nth}] = chosen;
  }
}

size_t PlacedStrategy::Choose(const Choice& choice) {
  const PlacedDeviation here = places_.Place(choice, 0);
  const auto found =
      chosen_.find({here.kind, here.thread, here.point, here.nth});
  if (found == chosen_.end()) return 0;
  if (IsAmongThreads(choice)) {
    return choice.OptionOf(static_cast<int>(found->second));
  }
  return found->second < choice.options ? found->second : 0;
}

}  // namespace ward::testing

#include "ward/testing/search/pairs.h"

#include <cstddef>
#include <cstdint>
#include <limits>

#include "ward/testing/search/strategies.h"
#include "ward/testing/simulator/coverage.h"
#include "ward/testing/simulator/split_mix.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// At so many choices of a run somebody may be held back; one that yields counts
// for many, as it may wait for who is held back.
constexpr int kPatience = 2000;
constexpr int kOfYield = 100;

// Of neighbours one is seldom another's reverse. Of those beginnings that were
// tried 3 was good for the published bugs.
uint64_t Mixed(uint64_t number) {
  return (number + 3) * 0x9e3779b97f4a7c15 >> 40;
}

constexpr uint64_t kHighest = std::numeric_limits<uint64_t>::max();

}  // namespace

PairsStrategy::PairsStrategy(KnownOrders& known, size_t lane,
                             const Coverage* dull)
    : known_(known), lane_(lane) {
  for (size_t i = 0; i < known_.size; ++i) {
    index_.try_emplace({known_.orders[i].first, known_.orders[i].second}, i);
  }
  if (known_.size > 0 || dull == nullptr) return;
  is_dull_ = true;
  dull->ForEach(
      [this](uint32_t first, uint32_t second) { See(first, second); });
  is_dull_ = false;
}

void PairsStrategy::BeginRun(uint64_t seed) {
  random_ = SplitMix(seed);
  odd_choices_ = {};
  after_ = random_() % 2 == 0;
  patience_ = kPatience;
  wanted_.clear();
  priorities_.clear();
  operations_.Clear();
  has_new_priorities_ = false;
  while (known_.next < known_.size) {
    // Whether it can be is not known: it is tried once, alone.
    const KnownOrders::Order& order = known_.orders[known_.next++];
    if (order.seen || order.is_others) continue;
    wanted_.push_back({order.first, order.second, 0});
    return;
  }
  has_new_priorities_ = random_() % 2 == 0;
  if (known_.size == 0) return;
  for (uint64_t more = 1 + random_() % 3; more > 0; --more) {
    const KnownOrders::Order& order = known_.orders[random_() % known_.size];
    Wanted wanted{order.first, order.second, 0};
    // Most often the first time.
    while (random_() % 4 == 0) ++wanted.skipped;
    wanted_.push_back(wanted);
  }
}

size_t PairsStrategy::Know(uint32_t first, uint32_t second) {
  const auto found = index_.find({first, second});
  if (found != index_.end()) return found->second;
  if (known_.size == KnownOrders::kMost) return KnownOrders::kMost;
  // What the dull run has seen all lanes know at the same place, which does not
  // go by where the linker has put the code, as a place does.
  const uint64_t share = is_dull_ ? Mixed(known_.size) : first + 3 * second;
  known_.orders[known_.size] = {first, second, share % kPairsLanes != lane_,
                                false};
  index_[{first, second}] = known_.size;
  return known_.size++;
}

void PairsStrategy::See(uint32_t first, uint32_t second) {
  // One place has no order with itself.
  if (first == second) return;
  const size_t order = Know(first, second);
  if (order < KnownOrders::kMost) known_.orders[order].seen = true;
  // NOLINTNEXTLINE(readability-suspicious-call-argument): the other way round.
  Know(second, first);
}

void PairsStrategy::SetPriority(int thread, uint64_t priority) {
  const auto number = static_cast<size_t>(thread);
  if (number >= priorities_.size()) priorities_.resize(number + 1);
  priorities_[number] = priority;
}

uint64_t PairsStrategy::PriorityOf(int thread) {
  const auto number = static_cast<size_t>(thread);
  if (number >= priorities_.size() || priorities_[number] == 0) {
    SetPriority(thread, (random_() >> 1) | 1);
  }
  return priorities_[number];
}

void PairsStrategy::Arrives(int thread, const Operation& /*next*/) {
  if (has_new_priorities_) SetPriority(thread, 0);
}

void PairsStrategy::GoesOn(int thread, const Operation& now) {
  if (now.place == 0 || now.object < 0) return;
  for (Wanted& wanted : wanted_) {
    if (wanted.done) continue;
    if (now.place == wanted.second && IsReady(wanted, thread, now)) {
      wanted.thread = -1;
      wanted.done = wanted.skipped == 0;
      if (!wanted.done) --wanted.skipped;
    }
    if (now.place == wanted.first) {
      wanted.thread = thread;
      wanted.has_done = now;
    }
  }
  operations_.Add(thread, now,
                  [this, &now](uint32_t before) { See(before, now.place); });
}

// Whether the first of the two was done, so that this one comes next.
bool PairsStrategy::IsReady(const Wanted& wanted, int thread,
                            const Operation& next) const {
  return wanted.thread >= 0 && wanted.thread != thread &&
         wanted.has_done.SharesObjectWith(next);
}

size_t PairsStrategy::Choose(const Choice& choice) {
  if (choice.kind == ChoiceKind::kWaiter) return random_() % choice.options;
  if (choice.kind != ChoiceKind::kThread) {
    return odd_choices_.Choose(random_, choice);
  }
  if (choice.after >= 0 && !after_) return choice.OptionOf(choice.after);
  // Whoever else there is comes first.
  if (choice.yielded >= 0) SetPriority(choice.yielded, 1);
  size_t chosen = choice.options;
  uint64_t highest = 0;
  bool holds = false;
  for (size_t i = 0; i < choice.options; ++i) {
    const int thread = choice.threads[i];
    const Operation& next = choice.next[i];
    uint64_t priority = PriorityOf(thread);
    bool held = false;
    for (const Wanted& wanted : wanted_) {
      if (wanted.done || next.place == 0 || next.place != wanted.second) {
        continue;
      }
      if (!IsReady(wanted, thread, next)) {
        held = patience_ > 0;
      } else if (wanted.skipped == 0 && thread != choice.yielded) {
        priority = kHighest;
      }
    }
    holds |= held;
    if (held || priority <= highest) continue;
    chosen = i;
    highest = priority;
  }
  if (holds) patience_ -= choice.yielded >= 0 ? kOfYield : 1;
  // All are held back: what was wanted cannot be, here.
  // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): there is always an option.
  if (chosen == choice.options) chosen = random_() % choice.options;
  for (size_t i = 0; i < choice.options && has_new_priorities_; ++i) {
    if (i == chosen || choice.next[i].ConflictsWith(choice.next[chosen])) {
      SetPriority(choice.threads[i], 0);
    }
  }
  return chosen;
}

}  // namespace ward::testing

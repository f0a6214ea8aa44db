#include "ward/testing/search/strategies.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/base/attributes.h"
#include "absl/base/optimization.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/search/pairs.h"
#include "ward/testing/simulator/coverage.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

// A run as a list of what was chosen.
using Course = std::vector<size_t>;

// Borrows them.
Choice Among(absl::Span<const int> threads) {
  return {ChoiceKind::kThread, threads.size(), threads};
}

// --- random ---

TEST(RandomStrategy, MakesTheSameRunFromTheSameSeed) {
  const auto course = [](uint64_t seed) {
    RandomStrategy strategy(seed);
    Course made;
    for (int i = 0; i < 1000; ++i) {
      made.push_back(strategy.Choose(Among({0, 1, 2})));
      made.push_back(strategy.Choose({ChoiceKind::kFault, 4, {}}));
    }
    return made;
  };
  EXPECT_EQ(course(7), course(7));
  EXPECT_NE(course(7), course(8));
}

TEST(RandomStrategy, TakesEveryOptionInTime) {
  RandomStrategy strategy(1);
  std::set<std::pair<ChoiceKind, size_t>> taken;
  for (int i = 0; i < 2000; ++i) {
    taken.emplace(ChoiceKind::kThread, strategy.Choose(Among({4, 5, 6})));
    for (const ChoiceKind kind :
         {ChoiceKind::kDelay, ChoiceKind::kFault, ChoiceKind::kDeath}) {
      taken.emplace(kind, strategy.Choose({kind, 3, {}}));
    }
  }
  EXPECT_EQ(taken.size(), 4u * 3u);
}

TEST(RandomStrategy, LetsLittleGoWrong) {
  RandomStrategy strategy(1);
  int faults = 0;
  for (int i = 0; i < 10000; ++i) {
    faults += strategy.Choose({ChoiceKind::kFault, 5, {}}) == 0 ? 0 : 1;
  }
  EXPECT_GT(faults, 100);
  EXPECT_LT(faults, 1000);
}

// In some runs hardly ever, in some nearly always.
TEST(RandomStrategy, LoadsOldValuesAsOftenAsTheRunHasDrawn) {
  std::set<int> shares;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    RandomStrategy strategy(seed);
    std::vector<int> taken(3);
    for (int i = 0; i < 16000; ++i) {
      ++taken[strategy.Choose({ChoiceKind::kLoad, 3, {}})];
    }
    EXPECT_NEAR(taken[1], taken[2], 500);
    shares.insert((16000 - taken[0] + 500) / 1000);
  }
  EXPECT_THAT(shares, ElementsAre(2, 8, 14));
}

TEST(RandomStrategy, LetsSomeThreadsStandStillWhenWeighted) {
  // The longest row of turns that thread 1 of two has to wait, in many runs.
  const auto longest_wait = [](bool weighted) {
    int longest = 0;
    for (uint64_t seed = 0; seed < 50; ++seed) {
      RandomStrategy strategy(seed, weighted);
      int wait = 0;
      for (int i = 0; i < 1000; ++i) {
        const bool waits = strategy.Choose(Among({0, 1})) == 0;
        wait = waits ? wait + 1 : 0;
        longest = std::max(longest, wait);
      }
    }
    return longest;
  };
  EXPECT_LT(longest_wait(false), 40);
  EXPECT_GT(longest_wait(true), 500);
}

// Those that wait by asking again and again would keep one that has work to do
// from it for as long as a run lasts.
TEST(RandomStrategy, WhoYieldsWeighsLessFromThenOn) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    RandomStrategy strategy(seed, /*weighted=*/true);
    const std::vector<int> threads = {0, 1, 2};
    int work = 0;
    int steps = 0;
    for (; work < 20 && steps < 2000; ++steps) {
      Choice choice = Among(threads);
      const size_t chosen = strategy.Choose(choice);
      work += chosen == 2 ? 1 : 0;
      if (chosen == 2) continue;
      choice.yielded = static_cast<int>(chosen);
      work += strategy.Choose(choice) == 2 ? 1 : 0;
    }
    EXPECT_LT(steps, 2000) << seed;
  }
}

// --- PCT ---

TEST(PctStrategy, WithoutDropsRunsThreadsInOneOrderThroughout) {
  std::set<std::vector<int>> orders;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    PctStrategy strategy(seed, /*depth=*/1, /*length=*/30);
    std::vector<int> order;
    std::vector<int> left = {0, 1, 2};
    while (!left.empty()) {
      const int first = left[strategy.Choose(Among(left))];
      // The order of the candidates does not matter.
      for (int i = 0; i < 10; ++i) {
        std::rotate(left.begin(), left.begin() + 1, left.end());
        ASSERT_EQ(left[strategy.Choose(Among(left))], first);
      }
      order.push_back(first);
      left.erase(std::find(left.begin(), left.end(), first));
    }
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 6u) << "each order comes up";
}

TEST(PctStrategy, DropsTheRunningThreadAtItsChangePoint) {
  constexpr size_t kLength = 20;
  std::set<size_t> moments;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    PctStrategy strategy(seed, /*depth=*/2, kLength);
    const size_t first = strategy.Choose(Among({0, 1}));
    size_t last = first;
    size_t changes = 0;
    for (size_t step = 1; step < 2 * kLength; ++step) {
      const size_t chosen = strategy.Choose(Among({0, 1}));
      if (chosen != last) {
        ++changes;
        moments.insert(step);
      }
      last = chosen;
    }
    ASSERT_LE(changes, 1u);
  }
  // All but 0, where it shows in the first choice already.
  EXPECT_EQ(moments.size(), kLength - 1);
  EXPECT_EQ(*moments.rbegin(), kLength - 1);
}

TEST(PctStrategy, PutsWhatIsDroppedBelowThreadsThatComeLater) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    PctStrategy strategy(seed, /*depth=*/2, /*length=*/1);
    // The drop is at the first choice.
    const size_t first = strategy.Choose(Among({0, 1}));
    const int dropped = first == 0 ? 1 : 0;
    ASSERT_EQ(strategy.Choose(Among({dropped, 9})), 1u);
  }
}

// It would be the first to wait for what the dropped one does late.
TEST(PctStrategy, WhoYieldsStaysAboveWhatIsDroppedForAWhile) {
  constexpr int kDropped = 0;
  constexpr int kYields = 1;
  int stayed = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    PctStrategy strategy(seed, /*depth=*/2, /*length=*/1);
    if (strategy.Choose(Among({kDropped, kYields})) != kYields) continue;
    const std::vector<int> threads = {kDropped, kYields};
    Choice choice = Among(threads);
    choice.yielded = kYields;
    size_t yields = 0;
    while (yields < 100 && strategy.Choose(choice) == kYields) ++yields;
    ASSERT_GE(yields, 4u);
    ASSERT_LT(yields, 100u);
    ASSERT_EQ(strategy.Choose(Among({kYields, kDropped})), 1u);
    ASSERT_EQ(strategy.Choose(Among({kYields, kDropped, 9})), 2u);
    ++stayed;
  }
  EXPECT_GT(stayed, 50);
}

// Two threads of ten steps each; the failure is that the second one's first
// step comes between the first one's 5th and 6th, and so takes two ordered
// pairs of steps.
TEST(PctStrategy, FindsADepthTwoOrderingAtTheGuaranteedRate) {
  constexpr size_t kSteps = 10;
  constexpr size_t kLength = 2 * kSteps;
  constexpr int kSeeds = 1000;
  int found = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    PctStrategy strategy(seed, /*depth=*/2, kLength);
    size_t done[2] = {0, 0};
    bool hit = false;
    while (done[0] < kSteps || done[1] < kSteps) {
      std::vector<int> ready;
      for (int i = 0; i < 2; ++i) {
        if (done[i] < kSteps) ready.push_back(i);
      }
      const int next =
          ready.size() == 1 ? ready[0] : ready[strategy.Choose(Among(ready))];
      hit |= next == 1 && done[1] == 0 && done[0] == 5;
      ++done[next];
    }
    found += hit ? 1 : 0;
  }
  // 1/(threads * length^(depth-1)), less what chance may take.
  constexpr double kGuaranteed = 1.0 / (2.0 * kLength);
  EXPECT_GE(found, 0.6 * kGuaranteed * kSeeds);
}

TEST(PctStrategy, TakesARunOfNoLength) {
  PctStrategy strategy(3, 3, 0);
  for (int i = 0; i < 10; ++i) EXPECT_LT(strategy.Choose(Among({0, 1})), 2u);
}

// --- what a search knows of operations ---

// Threads that the first one starts, each of which makes its operations in a
// row; as a scheduler would run them.
class World {
 public:
  explicit World(std::vector<std::vector<Operation>> threads) {
    threads_.emplace_back();  // Has only to start them.
    for (auto& operations : threads) threads_.push_back(std::move(operations));
  }

  // Who made the operations, in order.
  std::vector<int> Run(Strategy& strategy) const {
    std::vector<int> order;
    std::vector<size_t> done(threads_.size());
    std::vector<Operation> at(threads_.size(), Operation{Use::kNothing, -1});
    std::vector<bool> begun(threads_.size());
    size_t started = 1;
    int running = 0;
    uint64_t point = 0;
    while (true) {
      std::vector<int> ready;
      std::vector<Operation> next;
      for (size_t i = 0; i < started; ++i) {
        const bool can_run = i == 0 ? started < threads_.size()
                                    : done[i] < threads_[i].size() || !begun[i];
        if (!can_run) continue;
        ready.push_back(static_cast<int>(i));
        next.push_back(at[i]);
      }
      if (ready.empty()) return order;
      size_t chosen = 0;
      if (ready.size() > 1) {
        Choice choice{ChoiceKind::kThread, ready.size(), ready};
        choice.running = running;
        choice.point = ++point;
        choice.next = next;
        chosen = strategy.Choose(choice);
      }
      running = ready[chosen];
      const auto thread = static_cast<size_t>(running);
      if (thread == 0) {
        ++started;
        strategy.Arrives(0, at[0]);
        continue;
      }
      if (begun[thread]) {
        strategy.GoesOn(running, at[thread]);
        order.push_back(running);
        ++done[thread];
      }
      begun[thread] = true;
      if (done[thread] == threads_[thread].size()) continue;
      at[thread] = threads_[thread][done[thread]];
      strategy.Arrives(running, at[thread]);
    }
  }

  Profile ProfileOf() const {
    Profile profile = {};
    ProfilingStrategy strategy(profile);
    Run(strategy);
    return profile;
  }

 private:
  std::vector<std::vector<Operation>> threads_;
};

// How often each of them came up.
using Frequencies = std::map<std::vector<int>, int>;

// That each of `orders` came up, and none of them less often than `least` or
// more often than `most` times what is its share.
void ExpectShares(const Frequencies& found, size_t orders, double least,
                  double most) {
  int sum = 0;
  for (const auto& [order, count] : found) sum += count;
  EXPECT_EQ(found.size(), orders);
  const double share = sum / static_cast<double>(orders);
  for (const auto& [order, count] : found) {
    EXPECT_GE(count, least * share) << ::testing::PrintToString(order);
    EXPECT_LE(count, most * share) << ::testing::PrintToString(order);
  }
}

constexpr Operation kReadFirst{Use::kRead, 0};
constexpr Operation kWriteFirst{Use::kWrite, 0};
constexpr Operation kWriteSecond{Use::kWrite, 1};
constexpr Operation kOwn{Use::kWrite, 2};

TEST(Profile, TellsWhatThreadsDoAndShare) {
  const World world({{kWriteFirst, kWriteFirst, kOwn},
                     {kReadFirst, Operation{}, {Use::kNothing, -1}},
                     {{Use::kRead, 3}},
                     {{Use::kRead, 3}}});
  const Profile profile = world.ProfileOf();
  ASSERT_EQ(profile.known, 5u);
  EXPECT_EQ(profile.threads[0].parent, -1);
  EXPECT_EQ(profile.threads[4].parent, 0);
  EXPECT_EQ(profile.threads[1].operations[0], 2u);
  EXPECT_EQ(profile.threads[1].all, 3u);
  EXPECT_EQ(profile.threads[2].operations[0], 1u);
  EXPECT_EQ(profile.threads[2].all, 2u);
  EXPECT_THAT(profile.SharedObjects(), ElementsAre(0));
  EXPECT_TRUE(profile.MayBeShared(0));
  EXPECT_FALSE(profile.MayBeShared(2)) << "one thread uses it";
  EXPECT_FALSE(profile.MayBeShared(3)) << "nobody writes it";
  EXPECT_TRUE(profile.MayBeShared(7)) << "it has not come up";
  EXPECT_TRUE(profile.MayBeShared(1000));
}

TEST(Profile, IsSilentOfMoreThanItHasRoomFor) {
  Profile profile = {};
  ProfilingStrategy strategy(profile);
  strategy.Arrives(1000000, kWriteFirst);
  strategy.Arrives(1, {Use::kWrite, 1000000});
  EXPECT_EQ(profile.known, 2u);
  EXPECT_EQ(profile.threads[1].all, 1u);
  EXPECT_EQ(profile.used, 0u);
}

// --- POS ---

// Random search, too, comes to every order; but when one thread has much to do
// that is no matter of the other's before what they share, the order of what
// they share is nearly always the same.
TEST(PosStrategy, OrdersWhatConflictsWhateverLiesBefore) {
  std::vector<Operation> longer(20, kOwn);
  longer.push_back(kWriteFirst);
  const World world({{kWriteFirst}, longer});
  const auto last_is_first = [&](auto make) {
    int count = 0;
    for (uint64_t seed = 0; seed < 1000; ++seed) {
      auto strategy = make(seed);
      if (world.Run(strategy).back() == 1) ++count;
    }
    return count;
  };
  EXPECT_LT(last_is_first([](uint64_t seed) { return RandomStrategy(seed); }),
            5);
  EXPECT_GT(last_is_first([](uint64_t seed) { return PosStrategy(seed); }), 20);
}

// Two threads of two operations each on one object: the six orders of the four.
TEST(PosStrategy, ComesToEachOrderOfWhatConflicts) {
  const World world({{kWriteFirst, kWriteFirst}, {kWriteFirst, kWriteFirst}});
  Frequencies found;
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    PosStrategy strategy(seed);
    ++found[world.Run(strategy)];
  }
  ExpectShares(found, 6, 0.2, 3);
}

// Both orders of the two are as likely when each thread has an object of its
// own besides: with `n` orders of all operations, there are 2 partial orders.
TEST(PosStrategy, IsFairToPartialOrders) {
  const World world({{kWriteSecond, kWriteFirst}, {kOwn, kWriteFirst}});
  int first = 0;
  constexpr int kRuns = 2000;
  for (uint64_t seed = 0; seed < kRuns; ++seed) {
    PosStrategy strategy(seed);
    first += world.Run(strategy).back() == 2 ? 1 : 0;
  }
  EXPECT_NEAR(first, 0.5 * kRuns, 0.1 * kRuns);
}

TEST(PosStrategy, LetsOthersComeBeforeOneThatYields) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    PosStrategy strategy(seed);
    const std::vector<int> threads = {0, 1};
    const std::vector<Operation> next = {{}, kWriteFirst};
    Choice choice = Among(threads);
    choice.next = next;
    choice.yielded = 0;
    ASSERT_EQ(strategy.Choose(choice), 1u);
  }
}

// --- SURW ---

TEST(SurwStrategy, IsUniformOverInterleavings) {
  // Twelve operations of one thread and one of the other: 13 interleavings.
  const World world({std::vector<Operation>(12, kWriteFirst), {kWriteFirst}});
  const Profile profile = world.ProfileOf();
  Frequencies found;
  for (uint64_t seed = 0; seed < 13000; ++seed) {
    SurwStrategy strategy(seed, profile);
    ++found[world.Run(strategy)];
  }
  ExpectShares(found, 13, 0.85, 1.15);

  Frequencies random;
  for (uint64_t seed = 0; seed < 13000; ++seed) {
    RandomStrategy strategy(seed);
    ++random[world.Run(strategy)];
  }
  std::vector<int> last(12, 1);
  last.push_back(2);
  EXPECT_LT(random[last], 13000 / 13 / 5) << "which a walk at random is not";
}

TEST(SurwStrategy, IsUniformOverThreadsThatAreYetToStart) {
  const World world(
      {{kWriteFirst}, {kWriteFirst}, {kWriteFirst}, {kWriteFirst}});
  const Profile profile = world.ProfileOf();
  Frequencies found;
  for (uint64_t seed = 0; seed < 12000; ++seed) {
    SurwStrategy strategy(seed, profile);
    ++found[world.Run(strategy)];
  }
  ExpectShares(found, 24, 0.75, 1.25);
}

// What is of no interest in a run does not change how the rest falls out.
TEST(SurwStrategy, IsNotBiasedByWhatIsOfNoInterest) {
  std::vector<Operation> longer(20, kOwn);
  longer.push_back(kWriteFirst);
  const World world({{kWriteFirst}, longer});
  const Profile profile = world.ProfileOf();
  constexpr int kRuns = 2000;
  int last = 0;
  for (uint64_t seed = 0; seed < kRuns; ++seed) {
    SurwStrategy strategy(seed, profile);
    last += world.Run(strategy).back() == 1 ? 1 : 0;
  }
  // Half of those, three in four, that are interested in what they share.
  EXPECT_GT(last, kRuns * 3 / 4 / 2 * 8 / 10);
}

TEST(SurwStrategy, DoesWithoutAProfileAndWithAWrongOne) {
  const World world({{kWriteFirst, kWriteSecond}, {kWriteSecond, kWriteFirst}});
  const World other({{kWriteFirst}, {}, {kOwn, kOwn}, {kWriteSecond}});
  for (const Profile& profile : {Profile{}, other.ProfileOf()}) {
    Frequencies found;
    for (uint64_t seed = 0; seed < 2000; ++seed) {
      SurwStrategy strategy(seed, profile);
      ++found[world.Run(strategy)];
    }
    EXPECT_EQ(found.size(), 6u) << "each comes up";
  }
}

// --- pairs ---

// The n-th run of a search.
class PairsSearch {
 public:
  std::vector<int> NextRun(const World& world) {
    strategy_.BeginRun(seed_++);
    return world.Run(strategy_);
  }
  const KnownOrders& known() const { return *known_; }

 private:
  std::unique_ptr<KnownOrders> known_ = std::make_unique<KnownOrders>();
  PairsStrategy strategy_{*known_, 0, nullptr};
  uint64_t seed_ = 0;
};

// Places of which lane 0 tries all orders.
uint32_t Place(uint32_t number) {
  return static_cast<uint32_t>(kPairsLanes) * number;
}

Operation At(Use use, int object, uint32_t place) {
  return {use, object, Place(place)};
}

// A check and a use, with what makes it wrong in between: the first run in
// which another order is wanted than the one that was seen has it.
TEST(PairsStrategy, BreaksWhatIsNotAtomicInAFewRuns) {
  const World world({{At(Use::kWrite, 0, 1), At(Use::kWrite, 0, 2)},
                     {kOwn, kOwn, kOwn, kOwn, At(Use::kWrite, 0, 3)}});
  PairsSearch search;
  int runs = 0;
  bool found = false;
  while (!found && ++runs < 100) {
    const std::vector<int> order = search.NextRun(world);
    const auto other = std::find(order.rbegin(), order.rend(), 2);
    found = std::count(other, order.rend(), 1) == 1;
  }
  EXPECT_LE(runs, 6);
}

// Of 100 threads that write a and then b, and one that reads them, whether this
// reads what one has written to a, and what was in b before. Each of the other
// searches takes the more runs the more threads there are.
TEST(PairsStrategy, DoesNotMindHowManyThreadsDoTheSame) {
  constexpr int kWriters = 100;
  std::vector<std::vector<Operation>> threads(
      kWriters, {At(Use::kWrite, 0, 1), At(Use::kWrite, 1, 2)});
  threads.push_back({At(Use::kRead, 0, 3), At(Use::kRead, 1, 4)});
  const World world(std::move(threads));
  PairsSearch search;
  int found = 0;
  constexpr int kRuns = 500;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<int> done(kWriters + 2);
    bool a = false;
    bool b = false;
    bool has_read_a = false;
    for (const int thread : search.NextRun(world)) {
      const bool first = done[static_cast<size_t>(thread)]++ == 0;
      if (thread <= kWriters) {
        (first ? a : b) = true;
      } else if (first) {
        has_read_a = a;
      } else if (has_read_a && !b) {
        ++found;
      }
    }
  }
  EXPECT_GT(found, kRuns / 100);
}

TEST(PairsStrategy, KnowsTheOrdersThatItHasSeenAndThoseThatItHasNot) {
  PairsSearch search;
  search.NextRun(World({{At(Use::kWrite, 0, 1)}}));
  EXPECT_EQ(search.known().size, 0u);
  for (int run = 0; run < 20; ++run) {
    search.NextRun(World({{At(Use::kWrite, 0, 1)}, {At(Use::kRead, 0, 2)}}));
  }
  ASSERT_EQ(search.known().size, 2u);
  EXPECT_TRUE(search.known().orders[0].seen);
  EXPECT_TRUE(search.known().orders[1].seen);
}

// Those that wait for what is held back ask again and again.
TEST(PairsStrategy, HoldsNobodyBackForEver) {
  auto known = std::make_unique<KnownOrders>();
  known->size = 1;
  known->orders[0] = {Place(1), Place(2), false, false};
  PairsStrategy strategy(*known, 0, nullptr);
  strategy.BeginRun(0);
  const std::vector<int> threads = {0, 1};
  const std::vector<Operation> next = {{}, At(Use::kWrite, 0, 2)};
  Choice choice = Among(threads);
  choice.next = next;
  EXPECT_EQ(strategy.Choose(choice), 0u);
  choice.yielded = 0;
  int yields = 0;
  while (yields < 1000 && strategy.Choose(choice) == 0) ++yields;
  EXPECT_LT(yields, 100);
}

TEST(LastOperations, AreThoseThatTheNextOneConflictsWith) {
  LastOperations last;
  std::vector<uint32_t> before;
  const auto add = [&](int thread, Use use, uint32_t place) {
    before.clear();
    last.Add(thread, use, place,
             [&](uint32_t other) { before.push_back(other); });
    return before;
  };
  EXPECT_THAT(add(1, Use::kWrite, 10), ElementsAre());
  EXPECT_THAT(add(1, Use::kRead, 11), ElementsAre()) << "by the same thread";
  EXPECT_THAT(add(2, Use::kRead, 20), ElementsAre(10));
  EXPECT_THAT(add(3, Use::kRead, 30), ElementsAre(10)) << "two that read";
  EXPECT_THAT(add(2, Use::kWrite, 21), ElementsAre(10, 30));
  EXPECT_THAT(add(3, Use::kWrite, 31), ElementsAre(21)) << "nobody has read";
}

// Objects 1 and 2 are parts of object 0.
TEST(OperationsOfRun, OfAWholeAreOfEachOfItsParts) {
  OperationsOfRun operations;
  const auto add = [&](int thread, int object, uint32_t place) {
    std::vector<uint32_t> before;
    operations.Add(thread, {Use::kWrite, object, place, object == 0 ? -1 : 0},
                   [&](uint32_t other) { before.push_back(other); });
    return before;
  };
  EXPECT_THAT(add(1, 1, 10), ElementsAre());
  EXPECT_THAT(add(2, 2, 20), ElementsAre()) << "another part";
  EXPECT_THAT(add(3, 0, 30), UnorderedElementsAre(10, 20));
  EXPECT_THAT(add(1, 1, 11), ElementsAre(30));
  EXPECT_THAT(add(2, 1, 21), ElementsAre(11)) << "not the whole again";
  EXPECT_THAT(add(4, 0, 40), UnorderedElementsAre(21, 30)) << "as of part 2";
  EXPECT_THAT(add(2, 2, 22), ElementsAre(40));
  operations.Clear();
  EXPECT_THAT(add(1, 0, 12), ElementsAre());
}

TEST(Operation, ConflictsWithThoseOnTheWholeAndNotOnOtherParts) {
  const Operation whole = {Use::kWrite, 0};
  const Operation part = {Use::kWrite, 1, 0, 0};
  const Operation other = {Use::kWrite, 2, 0, 0};
  EXPECT_TRUE(part.ConflictsWith(whole));
  EXPECT_TRUE(whole.ConflictsWith(part));
  EXPECT_TRUE(part.ConflictsWith(part));
  EXPECT_FALSE(part.ConflictsWith(other));
}

// --- coverage ---

using Orders = std::vector<std::pair<uint32_t, uint32_t>>;

Orders OrdersOf(const Coverage& coverage) {
  Orders orders;
  coverage.ForEach([&orders](uint32_t first, uint32_t second) {
    orders.emplace_back(first, second);
  });
  return orders;
}

TEST(Coverage, KeepsEachOrderOnceAsTheyComeUntilItIsFullAndThenSaysSo) {
  const auto coverage = std::make_unique<Coverage>();
  Orders all;
  for (uint32_t i = 0; i < Coverage::kMostOrders; ++i) {
    all.emplace_back(i + 1, i % 7);
    coverage->Add(i + 1, i % 7);
    coverage->Add(1, 0);
  }
  EXPECT_EQ(OrdersOf(*coverage), all);
  EXPECT_FALSE(coverage->is_full());
  coverage->Add(1, 1);
  EXPECT_TRUE(coverage->is_full());
  EXPECT_EQ(OrdersOf(*coverage), all);
}

TEST(CoverageRecorder, KnowsHoweverManyObjectsThereAreInARun) {
  constexpr int kObjects = 20000;
  const auto coverage = std::make_unique<Coverage>();
  CoverageRecorder recorder(*coverage, /*names=*/false);
  Orders all;
  for (int run = 0; run < 2; ++run) {
    recorder.BeginRun(nullptr);
    for (int i = 0; i < kObjects; ++i) recorder.Add(1, {Use::kWrite, i, 1});
    for (int i = 0; i < kObjects; ++i) {
      const auto place = static_cast<uint32_t>(i + 2);
      if (run == 0) all.emplace_back(1, place);
      recorder.Add(2, {Use::kWrite, i, place});
    }
    EXPECT_EQ(OrdersOf(*coverage), all) << "those of run 0 alone";
  }
}

// The place of a point in a function, with the calls from `end` on.
ABSL_ATTRIBUTE_NOINLINE uint32_t Here(const void* end) {
  static const auto kCoverage = std::make_unique<Coverage>();
  static auto& recorder = *new CoverageRecorder(*kCoverage, /*names=*/true);
  const uint32_t place = recorder.PlaceOf(__builtin_frame_address(0),
                                          reinterpret_cast<uintptr_t>(end));
  ABSL_BLOCK_TAIL_CALL_OPTIMIZATION();
  return place;
}

template <int kDepth>
ABSL_ATTRIBUTE_NOINLINE uint32_t Deep(const void* end) {
  uint32_t place = 0;
  if constexpr (kDepth > 0) {
    place = Deep<kDepth - 1>(end);
  } else {
    place = Here(end);
  }
  ABSL_BLOCK_TAIL_CALL_OPTIMIZATION();
  return place;
}

TEST(CoverageRecorder, TellsPlacesApartByCallsHoweverFarOut) {
  const void* const end = __builtin_frame_address(0);
  const uint32_t one = Deep<30>(end);
  const uint32_t other = Deep<30>(end);
  EXPECT_NE(one, 0u);
  EXPECT_NE(other, 0u);
  EXPECT_NE(one, other);
}

ABSL_ATTRIBUTE_NOINLINE uint32_t Again(int times, const void* end);

ABSL_ATTRIBUTE_NOINLINE uint32_t ByAnother(int times, const void* end) {
  const uint32_t place = Again(times - 1, end);
  ABSL_BLOCK_TAIL_CALL_OPTIMIZATION();
  return place;
}

uint32_t Again(int times, const void* end) {
  const uint32_t place = times == 0 ? Here(end) : ByAnother(times, end);
  ABSL_BLOCK_TAIL_CALL_OPTIMIZATION();
  return place;
}

ABSL_ATTRIBUTE_NOINLINE uint32_t PlaceAfter(int times) {
  const uint32_t place = Again(times, __builtin_frame_address(0));
  ABSL_BLOCK_TAIL_CALL_OPTIMIZATION();
  return place;
}

TEST(CoverageRecorder, DoesNotCountHowOftenAFunctionHasCalledItself) {
  EXPECT_NE(PlaceAfter(0), PlaceAfter(1));
  EXPECT_EQ(PlaceAfter(1), PlaceAfter(2));
  EXPECT_EQ(PlaceAfter(1), PlaceAfter(9));
}

// --- depth first ---

struct Enumeration {
  std::vector<Course> runs;
  // The level each was made at.
  std::vector<int> levels;
};

// `run` makes its choices, and returns what they were.
Enumeration Enumerate(DepthFirstStrategy& strategy,
                      const std::function<Course(Strategy&)>& run,
                      size_t most = 100000) {
  Enumeration all;
  do {
    all.levels.push_back(strategy.position().level);
    all.runs.push_back(run(strategy));
  } while (all.runs.size() < most && strategy.NextRun());
  return all;
}

std::vector<Course> AtLevel(int level, const Enumeration& all) {
  std::vector<Course> made;
  for (size_t i = 0; i < all.runs.size(); ++i) {
    if (all.levels[i] == level) made.push_back(all.runs[i]);
  }
  return made;
}

Course FourBinaryChoices(Strategy& strategy) {
  Course course;
  for (int i = 0; i < 4; ++i) course.push_back(strategy.Choose(Among({0, 1})));
  return course;
}

int DeviationsIn(const Course& course) {
  return static_cast<int>(course.size() -
                          std::count(course.begin(), course.end(), 0u));
}

TEST(DepthFirstStrategy, MakesTheDullRunFirstThenThoseWithMoreDeviations) {
  DepthFirstStrategy strategy(/*switches=*/1, /*faults=*/0, {});
  EXPECT_THAT(
      Enumerate(strategy, FourBinaryChoices).runs,
      ElementsAre(Course{0, 0, 0, 0}, Course{0, 0, 0, 0}, Course{0, 0, 0, 1},
                  Course{0, 0, 1, 0}, Course{0, 1, 0, 0}, Course{1, 0, 0, 0},
                  // There is nothing for one after something.
                  Course{0, 0, 0, 0}));
}

TEST(DepthFirstStrategy, MakesEveryRunWithinItsBoundsOnceAtEachLevel) {
  for (int bound = 0; bound <= 4; ++bound) {
    DepthFirstStrategy strategy(bound, /*faults=*/0, {});
    const Enumeration all = Enumerate(strategy, FourBinaryChoices);
    ASSERT_TRUE(std::is_sorted(all.levels.begin(), all.levels.end()));
    for (int deviations = 0; deviations <= bound; ++deviations) {
      std::vector<Course> expected;
      for (size_t bits = 0; bits < 16; ++bits) {
        const Course course = {bits >> 3 & 1, bits >> 2 & 1, bits >> 1 & 1,
                               bits & 1};
        if (DeviationsIn(course) <= deviations) expected.push_back(course);
      }
      EXPECT_THAT(AtLevel(2 * deviations, all),
                  ::testing::ElementsAreArray(expected))
          << deviations << " of " << bound;
    }
  }
}

Course FourOfWhichTwoAreAfter(Strategy& strategy) {
  Course course;
  for (const bool after : {false, true, true, false}) {
    const std::vector<int> threads = {0, 1};
    Choice choice = Among(threads);
    choice.after = after ? 0 : -1;
    course.push_back(strategy.Choose(choice));
  }
  return course;
}

TEST(DepthFirstStrategy, ComesLaterToDeviationsAfterSomething) {
  DepthFirstStrategy strategy(/*switches=*/3, /*faults=*/0, {});
  const Enumeration all = Enumerate(strategy, FourOfWhichTwoAreAfter);
  for (size_t bits = 0; bits < 16; ++bits) {
    const Course course = {bits >> 3 & 1, bits >> 2 & 1, bits >> 1 & 1,
                           bits & 1};
    const auto found = std::find(all.runs.begin(), all.runs.end(), course);
    if (DeviationsIn(course) > 3) {
      EXPECT_EQ(found, all.runs.end());
      continue;
    }
    ASSERT_NE(found, all.runs.end()) << bits;
    const auto cost = 2 * (course[0] + course[3]) + 3 * (course[1] + course[2]);
    EXPECT_LE(static_cast<size_t>(
                  all.levels[static_cast<size_t>(found - all.runs.begin())]),
              cost)
        << bits;
  }
  EXPECT_THAT(
      std::vector<Course>(all.runs.begin(), all.runs.begin() + 7),
      ElementsAre(Course{0, 0, 0, 0}, Course{0, 0, 0, 0}, Course{0, 0, 0, 1},
                  Course{1, 0, 0, 0}, Course{0, 0, 0, 0}, Course{0, 0, 1, 0},
                  Course{0, 1, 0, 0}));
}

// To hold back the first of three threads, or the first two, at two points, of
// which the second is before what only one thread uses.
TEST(DepthFirstStrategy, ComesLaterToWhatHoldsBackSeveralOrIsOfNoMatter) {
  const World world({{kWriteFirst, kOwn}, {kWriteFirst}});
  const Profile profile = world.ProfileOf();
  DepthFirstStrategy strategy(/*switches=*/1, /*faults=*/0, {}, &profile);
  const Enumeration all = Enumerate(strategy, [](Strategy& chooser) {
    Course course;
    for (const Operation& operation : {kWriteFirst, kOwn}) {
      const std::vector<int> threads = {0, 1, 2};
      const std::vector<Operation> next(3, operation);
      Choice choice = Among(threads);
      choice.running = 0;
      choice.next = next;
      course.push_back(chooser.Choose(choice));
    }
    return course;
  });
  EXPECT_THAT(AtLevel(2, all), ElementsAre(Course{0, 0}, Course{1, 0}));
  EXPECT_THAT(AtLevel(3, all), ElementsAre(Course{0, 0}, Course{0, 1},
                                           Course{0, 2}, Course{2, 0}));
}

// The second choice has more options after one way than after the other, and
// one way ends early.
Course Uneven(Strategy& strategy) {
  Course course = {strategy.Choose(Among({0, 1, 2}))};
  if (course[0] == 0) course.push_back(strategy.Choose(Among({0, 1})));
  if (course[0] == 1) course.push_back(strategy.Choose(Among({0, 1, 2, 3})));
  return course;
}

TEST(DepthFirstStrategy, FollowsATreeWhoseBranchesDiffer) {
  DepthFirstStrategy strategy(/*switches=*/2, /*faults=*/0, {4, {}});
  const Enumeration all = Enumerate(strategy, Uneven);
  EXPECT_THAT(AtLevel(4, all), ElementsAre(Course{0, 0}, Course{0, 1},
                                           Course{1, 0}, Course{1, 1}));
  // Those that hold back two at once or three.
  EXPECT_THAT(AtLevel(5, all),
              ElementsAre(Course{0, 0}, Course{0, 1}, Course{1, 0},
                          Course{1, 2}, Course{1, 3}, Course{2}));
}

Course ThreadsAndFaults(Strategy& strategy) {
  return {strategy.Choose({ChoiceKind::kFault, 3, {}}),
          strategy.Choose(Among({0, 1})),
          strategy.Choose({ChoiceKind::kDeath, 2, {}})};
}

TEST(DepthFirstStrategy, BoundsFaultsAndDeathsOfTheirOwn) {
  DepthFirstStrategy strategy(/*switches=*/3, /*faults=*/1, {6, {}});
  EXPECT_THAT(AtLevel(6, Enumerate(strategy, ThreadsAndFaults)),
              ElementsAre(Course{0, 0, 0}, Course{0, 0, 1}, Course{0, 1, 0},
                          Course{0, 1, 1}, Course{1, 0, 0}, Course{1, 1, 0},
                          Course{2, 0, 0}, Course{2, 1, 0}));
}

// An old value is as usual, where there are any, as a switch.
TEST(DepthFirstStrategy, CountsOldValuesNotAsFaults) {
  DepthFirstStrategy strategy(/*switches=*/2, /*faults=*/0, {4, {}});
  const Enumeration all = Enumerate(strategy, [](Strategy& taken) {
    return Course{taken.Choose({ChoiceKind::kLoad, 2, {}}),
                  taken.Choose({ChoiceKind::kFault, 2, {}}),
                  taken.Choose({ChoiceKind::kLoad, 2, {}})};
  });
  EXPECT_THAT(AtLevel(4, all), ElementsAre(Course{0, 0, 0}, Course{0, 0, 1},
                                           Course{1, 0, 0}, Course{1, 0, 1}));
}

TEST(DepthFirstStrategy, GoesOnFromAPosition) {
  DepthFirstStrategy whole(2, 1, {});
  const std::vector<Course> all = Enumerate(whole, ThreadsAndFaults).runs;
  for (size_t cut = 1; cut < all.size(); ++cut) {
    DepthFirstStrategy first(2, 1, {});
    std::vector<Course> made;
    for (size_t i = 0; i < cut; ++i) {
      made.push_back(ThreadsAndFaults(first));
      ASSERT_TRUE(first.NextRun());
    }
    DepthFirstStrategy second(2, 1, first.position());
    for (const Course& run : Enumerate(second, ThreadsAndFaults).runs) {
      made.push_back(run);
    }
    EXPECT_EQ(made, all) << "cut after " << cut;
  }
}

TEST(DepthFirstStrategy, EndsWhenThereIsNothingToChoose) {
  DepthFirstStrategy strategy(3, 1, {});
  EXPECT_EQ(Enumerate(strategy, [](Strategy&) { return Course{}; }).runs.size(),
            9u)
      << "one at each level, of which there is none of half a deviation";
}

TEST(DepthFirstStrategy, StaysWithinTheOptionsOfARunThatDiffers) {
  DepthFirstStrategy strategy(1, 0, {2, {}});
  EXPECT_EQ(strategy.Choose(Among({0, 1, 2})), 0u);
  ASSERT_TRUE(strategy.NextRun());
  EXPECT_EQ(strategy.Choose(Among({0, 1, 2})), 1u);
  ASSERT_TRUE(strategy.NextRun());
  EXPECT_EQ(strategy.Choose(Among({0, 1})), 0u);
}

// --- replay ---

TEST(ReplayStrategy, MakesAnyRunAgainFromItsDeviations) {
  const auto run = [](Strategy& strategy, Deviations* deviations) {
    Course course;
    for (uint32_t i = 0; i < 500; ++i) {
      const size_t chosen = i % 3 == 0
                                ? strategy.Choose({ChoiceKind::kFault, 3, {}})
                                : strategy.Choose(Among({0, 1, 2}));
      course.push_back(chosen);
      if (chosen != 0 && deviations != nullptr) {
        (*deviations)[i] = static_cast<uint32_t>(chosen);
      }
    }
    return course;
  };
  for (uint64_t seed = 0; seed < 20; ++seed) {
    RandomStrategy random(seed);
    Deviations deviations;
    const Course course = run(random, &deviations);
    ReplayStrategy replay(*ParseDeviations(FormatDeviations(deviations)));
    EXPECT_EQ(run(replay, nullptr), course);
  }
}

// --- deviations by their places ---

// What `first` chooses shifts all later choices of the run, and none of those
// of thread 2 in its own course.
TEST(PlacedStrategy, FindsItsPlaceWhateverOthersDo) {
  const std::vector<int> threads = {2, 1};
  const auto choice = [&](int running, uint64_t point) {
    Choice made = Among(threads);
    made.running = running;
    made.point = point;
    return made;
  };
  PlacedStrategy strategy(
      {{ChoiceKind::kThread, 2, 5, 0, 1}, {ChoiceKind::kFault, 2, 5, 1, 3}});
  EXPECT_EQ(strategy.Choose(choice(1, 5)), 0u);
  EXPECT_EQ(strategy.Choose(choice(2, 4)), 0u);
  EXPECT_EQ(strategy.Choose(choice(2, 5)), 1u);
  Choice fault{ChoiceKind::kFault, 4};
  fault.running = 2;
  fault.point = 5;
  EXPECT_EQ(strategy.Choose(fault), 0u);
  EXPECT_EQ(strategy.Choose(fault), 3u);
  EXPECT_EQ(strategy.Choose(fault), 0u);
}

TEST(PlacedStrategy, LeavesOutWhatCannotBe) {
  PlacedStrategy strategy(
      {{ChoiceKind::kThread, 0, 1, 0, 7}, {ChoiceKind::kFault, 0, 1, 0, 3}});
  const std::vector<int> threads = {0, 1};
  Choice choice = Among(threads);
  choice.running = 0;
  choice.point = 1;
  EXPECT_EQ(strategy.Choose(choice), 0u);
  Choice fault{ChoiceKind::kFault, 2};
  fault.running = 0;
  fault.point = 1;
  EXPECT_EQ(strategy.Choose(fault), 0u);
}

}  // namespace
}  // namespace ward::testing

#include "ward/testing/search/strategies.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

using ::testing::ElementsAre;

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
  EXPECT_THAT(AtLevel(4, Enumerate(strategy, Uneven)),
              ElementsAre(Course{0, 0}, Course{0, 1}, Course{1, 0},
                          Course{1, 1}, Course{1, 2}, Course{1, 3}, Course{2}));
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

}  // namespace
}  // namespace ward::testing

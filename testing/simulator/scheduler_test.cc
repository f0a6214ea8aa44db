#include "ward/testing/simulator/scheduler.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/search/pairs.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulator/coverage.h"
#include "ward/testing/simulator/schedules_for_test.h"
#include "ward/testing/simulator/strategy.h"

namespace {

// What operator new has given, to whatever thread.
std::atomic<int64_t> allocations{0};

}  // namespace

void* operator new(size_t size) {
  ++allocations;
  void* const memory = malloc(size);
  if (memory == nullptr) abort();
  return memory;
}
void operator delete(void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }

namespace ward::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;

TEST(Scheduler, RunsOneThreadAtATime) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    RandomStrategy strategy(seed);
    Scheduler scheduler(strategy, {});
    // Not atomic, so that ThreadSanitizer looks, too.
    int running = 0;
    int steps = 0;
    InThreads(scheduler, 4, [&](int) {
      for (int i = 0; i < 10; ++i) {
        ASSERT_EQ(++running, 1);
        ++steps;
        --running;
        scheduler.Point("counting");
      }
    });
    EXPECT_EQ(steps, 40);
  }
}

TEST(Scheduler, InterleavesThreadsAndRepeatsItself) {
  CheckJoinsTheSchedule(80, [](Scheduler& scheduler, Events& events) {
    InThreads(scheduler, 3, [&](int thread) {
      for (int i = 0; i < 4; ++i) {
        events.push_back(absl::StrCat(thread, i));
        scheduler.Point("counting");
      }
    });
  });
}

TEST(Scheduler, GoesOnWithTheThreadThatRunsIfNothingElseIsChosen) {
  ReplayStrategy dull({});
  const MadeRun run = MakeRun(dull, [](Scheduler& scheduler, Events& events) {
    InThreads(scheduler, 2, [&](int thread) {
      for (int i = 0; i < 2; ++i) {
        events.push_back(absl::StrCat(thread, i));
        scheduler.Point("counting");
      }
    });
  });
  EXPECT_THAT(run.events, ElementsAre("00", "01", "10", "11"));
}

// Looks ahead, and takes what is dull.
class Onlooker final : public Strategy {
 public:
  size_t Choose(const Choice& choice) override {
    if (choice.kind != ChoiceKind::kThread) return 0;
    for (size_t i = 0; i < choice.options; ++i) {
      const Operation& next = choice.next[i];
      seen_.insert({choice.threads[i], next.use, next.object});
    }
    points_.emplace(choice.running, choice.point);
    return 0;
  }
  bool LooksAhead() const override { return true; }

  using Seen = std::tuple<int, Use, int>;
  const std::set<Seen>& seen() const { return seen_; }
  const std::set<std::pair<int, uint64_t>>& points() const { return points_; }

 private:
  std::set<Seen> seen_;
  std::set<std::pair<int, uint64_t>> points_;
};

TEST(Scheduler, SaysWhatEachCandidateDoesNext) {
  Onlooker onlooker;
  MakeRun(onlooker, [](Scheduler& scheduler, Events&) {
    const char first = 0;
    const char second = 0;
    InThreads(scheduler, 2, [&](int thread) {
      if (thread == 0) {
        scheduler.Point("writing", &second);
        scheduler.Point("reading", &first, Use::kRead);
        scheduler.Point("doing what nobody knows");
        scheduler.PointAfter("done", &first);
      }
    });
  });
  EXPECT_THAT(onlooker.seen(),
              ElementsAre(Onlooker::Seen{0, Use::kNothing, -1},
                          Onlooker::Seen{1, Use::kAnything, -1},
                          Onlooker::Seen{1, Use::kNothing, -1},
                          Onlooker::Seen{1, Use::kRead, 1},
                          Onlooker::Seen{1, Use::kWrite, 0},
                          Onlooker::Seen{2, Use::kNothing, -1}));
  EXPECT_THAT(
      onlooker.points(),
      IsSupersetOf(
          {std::make_pair(0, uint64_t{1}), std::make_pair(0, uint64_t{2}),
           std::make_pair(1, uint64_t{1}), std::make_pair(1, uint64_t{4})}));
}

TEST(Operation, ConflictsWithWhatItsOrderMattersTo) {
  const Operation read{Use::kRead, 1};
  const Operation write{Use::kWrite, 1};
  const Operation elsewhere{Use::kWrite, 2};
  const Operation nothing{Use::kNothing, -1};
  const Operation unknown{};
  EXPECT_FALSE(read.ConflictsWith(read));
  EXPECT_TRUE(read.ConflictsWith(write));
  EXPECT_TRUE(write.ConflictsWith(read));
  EXPECT_TRUE(write.ConflictsWith(write));
  EXPECT_FALSE(write.ConflictsWith(elsewhere));
  EXPECT_TRUE(unknown.ConflictsWith(elsewhere));
  EXPECT_FALSE(unknown.ConflictsWith(nothing));
}

TEST(Scheduler, KnowsOnlyItsOwnThreads) {
  EXPECT_EQ(Scheduler::Current(), nullptr);
  ReplayStrategy dull({});
  {
    Scheduler scheduler(dull, {});
    EXPECT_EQ(Scheduler::Current(), &scheduler);
    InThreads(scheduler, 1, [&](int) {
      EXPECT_EQ(Scheduler::Current(), &scheduler);
      EXPECT_EQ(scheduler.group(), kMain);
    });
    const int other =
        scheduler.Start("other", 7, [&] { EXPECT_EQ(scheduler.group(), 7); });
    scheduler.Join(other);
  }
  EXPECT_EQ(Scheduler::Current(), nullptr);
}

// --- time ---

TEST(Scheduler, LeapsOverTimeInWhichNothingHappens) {
  const RealTime real;
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const absl::Time start = absl::Now();
  Events events;
  InThreads(scheduler, 3, [&](int thread) {
    absl::SleepFor(absl::Hours(100) * (3 - thread));
    events.push_back(absl::StrCat(thread, " at ",
                                  absl::FormatDuration(absl::Now() - start)));
  });
  EXPECT_THAT(events, ElementsAre("2 at 100h", "1 at 200h", "0 at 300h"));
  EXPECT_EQ(scheduler.now(), start + absl::Hours(300));
  EXPECT_LT(real.Seconds(), 60);
}

TEST(Scheduler, AdvanceLetsEveryoneActAtTheirOwnTime) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    RandomStrategy strategy(seed);
    Scheduler scheduler(strategy, {});
    const absl::Time start = scheduler.now();
    Events events;
    const auto note = [&](std::string_view who) {
      events.push_back(
          absl::StrCat(who, absl::ToInt64Seconds(scheduler.now() - start)));
    };
    const int a = scheduler.Start("a", kMain, [&] {
      for (int i = 0; i < 3; ++i) {
        absl::SleepFor(absl::Seconds(2));
        note("a");
      }
    });
    const int b = scheduler.Start("b", kMain, [&] {
      absl::SleepFor(absl::Seconds(3));
      note("b");
    });
    scheduler.SetTimer(9, start + absl::Seconds(1), [&] { note("timer"); });
    scheduler.Advance(absl::Seconds(5));
    note("main");
    EXPECT_THAT(events, ElementsAre("timer1", "a2", "b3", "a4", "main5"));
    scheduler.Advance(absl::ZeroDuration());
    EXPECT_EQ(scheduler.now(), start + absl::Seconds(5));
    scheduler.Join(a);
    scheduler.Join(b);
    EXPECT_EQ(scheduler.now(), start + absl::Seconds(6));
  }
}

TEST(Scheduler, AdvanceCountsTheStepsOfEachPartOfTheTime) {
  SchedulerOptions options;
  options.max_steps = 1000;
  RandomStrategy strategy(1);
  Scheduler scheduler(strategy, options);
  int beats = 0;
  scheduler.Start("heart", 7, [&] {
    for (;; ++beats) absl::SleepFor(absl::Seconds(1));
  });
  scheduler.Advance(absl::Hours(2));
  EXPECT_EQ(beats, 7200);
  scheduler.Kill(7);
}

// Chooses one thread whenever it can.
class Prefer final : public Strategy {
 public:
  explicit Prefer(int preferred) : preferred_(preferred) {}

  size_t Choose(const Choice& choice) override {
    return choice.OptionOf(preferred_);
  }

 private:
  const int preferred_;
};

// A signal's handler may be at one, where nothing may be allocated.
TEST(Scheduler, AllocatesNothingAtAChoiceOnceThreadsAndObjectsAreKnown) {
  const auto coverage = std::make_unique<Coverage>();
  const auto orders = std::make_unique<KnownOrders>();
  const Profile profile = {};
  const auto pairs = [&] {
    auto strategy =
        std::make_unique<PairsStrategy>(*orders, 0, /*dull=*/nullptr);
    strategy->BeginRun(1);
    return strategy;
  };
  const std::unique_ptr<Strategy> strategies[] = {
      std::make_unique<ReplayStrategy>(Deviations()),
      std::make_unique<RandomStrategy>(1),
      std::make_unique<RandomStrategy>(1, /*weighted=*/true),
      std::make_unique<PctStrategy>(1, /*depth=*/5, /*length=*/1000),
      std::make_unique<PosStrategy>(1),
      std::make_unique<SurwStrategy>(1, profile),
      pairs(),
      std::make_unique<DepthFirstStrategy>(3, 1,
                                           DepthFirstStrategy::Position()),
      std::make_unique<PlacedStrategy>(std::vector<PlacedDeviation>()),
  };
  for (const auto& strategy : strategies) {
    CoverageRecorder recorder(*coverage, /*names=*/true);
    SchedulerOptions options;
    options.delays = true;
    options.coverage = &recorder;
    Scheduler scheduler(*strategy, options);
    const std::array<char, 4> objects = {};
    constexpr int kRounds = 300;
    bool done = false;
    const auto wait = [&] {
      while (!done) scheduler.WaitAt(&done, "waiting");
    };
    std::vector<int> threads;
    for (int i = 0; i < 3; ++i) {
      threads.push_back(scheduler.Start("waiter", kMain, wait));
    }
    int64_t before = 0;
    for (int i = 0; i < 2 * kRounds; ++i) {
      if (i == kRounds) before = allocations;
      scheduler.Point("using", &objects[static_cast<size_t>(i) % 4]);
      scheduler.WakeAt(&done, 1);
      scheduler.WakesForNoReason();
      scheduler.Choose(ChoiceKind::kLoad, 3);
    }
    const int64_t after = allocations;
    done = true;
    scheduler.WakeAt(&done);
    for (const int thread : threads) scheduler.Join(thread);
    EXPECT_EQ(after, before)
        << "strategy " << &strategy - std::begin(strategies);
  }
}

// A loop holds another thread back, the less long the more often; of each part
// of the time, as if it were the first.
TEST(Scheduler, AdvanceHoldsThreadsBackAfreshInEachPartOfTheTime) {
  SchedulerOptions options;
  options.max_steps = 10000;
  Prefer strategy(1);
  Scheduler scheduler(strategy, options);
  int steps = 0;
  std::vector<int> held;
  const auto every_hour = [&](const std::function<void()>& act) {
    return [act] {
      for (int i = 0; i < 3; ++i) {
        absl::SleepFor(absl::Hours(1));
        act();
      }
    };
  };
  scheduler.Start("holds", 7, every_hour([&] {
                    for (steps = 0; steps < 5000; ++steps) {
                      scheduler.Point("counting");
                    }
                  }));
  scheduler.Start("is held", 7, every_hour([&] {
                    held.push_back(steps);
                    scheduler.Point("counting");
                    held.push_back(steps);
                  }));
  scheduler.Advance(absl::Hours(4));
  ASSERT_EQ(held.size(), 6U);
  for (size_t i = 0; i < held.size(); i += 2) {
    EXPECT_GT(held[i], 1000);
    EXPECT_EQ(held[i], held[0]);
    EXPECT_LT(held[i + 1] - held[i], 1000);
  }
}

// Waits by asking again and again, as for an atomic that another thread sets,
// at a time of its own: in every search, the dull run among them.
TEST(Scheduler, ALoopThatYieldsLetsOthersRunAndTimePass) {
  const auto run = [](Strategy& strategy) {
    Scheduler scheduler(strategy, {});
    std::atomic<int> set = 0;
    absl::Mutex held;
    const int setter = scheduler.Start("setter", kMain, [&] {
      set = 1;
      absl::SleepFor(absl::Seconds(1));
      set = 2;
    });
    const int holder = scheduler.Start("holder", kMain, [&] {
      absl::MutexLock lock(&held);
      scheduler.Point("holding it");
    });
    while (set < 1) std::this_thread::yield();
    while (set < 2) std::this_thread::yield();
    while (!held.TryLock()) absl::SleepFor(absl::ZeroDuration());
    held.Unlock();
    scheduler.Join(setter);
    scheduler.Join(holder);
  };
  ReplayStrategy dull({});
  run(dull);
  for (uint64_t seed = 0; seed < 100; ++seed) {
    RandomStrategy random(seed, seed % 2 == 1);
    run(random);
    PctStrategy pct(seed, 1 + static_cast<int>(seed % 5), 20);
    run(pct);
  }
  DepthFirstStrategy all(2, 0, {});
  size_t runs = 0;
  do {
    run(all);
  } while (++runs < 2000 && all.NextRun());
  EXPECT_GT(runs, 50u);
}

TEST(Scheduler, WaitUntilIdleLetsNoTimePass) {
  RandomStrategy strategy(1);
  Scheduler scheduler(strategy, {});
  const absl::Time start = scheduler.now();
  int steps = 0;
  const int thread = scheduler.Start("worker", kMain, [&] {
    for (; steps < 10; ++steps) scheduler.Point("working");
    absl::SleepFor(absl::Seconds(1));
  });
  scheduler.WaitUntilIdle();
  EXPECT_EQ(steps, 10);
  EXPECT_EQ(scheduler.now(), start);
  scheduler.Join(thread);
}

TEST(Scheduler, TimersComeOnTimeAndAreTakenBack) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const absl::Time start = scheduler.now();
  Events events;
  const auto note = [&](std::string_view what) {
    return [&, what] {
      events.push_back(absl::StrCat(
          what, " at ", absl::FormatDuration(scheduler.now() - start)));
    };
  };
  scheduler.SetTimer(1, start + absl::Seconds(3), note("replaced"));
  scheduler.SetTimer(1, start + absl::Seconds(2), note("one"));
  scheduler.SetTimer(2, start + absl::Seconds(1), note("taken back"));
  scheduler.SetTimer(2, absl::InfiniteFuture(), nullptr);
  scheduler.SetTimer(3, start + absl::Seconds(1), note("three"));
  scheduler.SetTimer(4, start + absl::Seconds(1), note("killed"));
  scheduler.Kill(4);
  absl::SleepFor(absl::Seconds(9));
  EXPECT_THAT(events, ElementsAre("three at 1s", "one at 2s"));
}

TEST(Scheduler, DelaysLetADeadlineComeEarly) {
  // A thread is busy for no time at all, and yet a time limit may run out.
  bool timed_out = false;
  bool in_time = false;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    RandomStrategy strategy(seed);
    SchedulerOptions options;
    options.delays = true;
    Scheduler scheduler(strategy, options);
    absl::Notification done;
    const int thread = scheduler.Start("worker", kMain, [&] {
      for (int i = 0; i < 5; ++i) scheduler.Point("working");
      done.Notify();
    });
    (done.WaitForNotificationWithTimeout(absl::Seconds(1)) ? in_time
                                                           : timed_out) = true;
    scheduler.Join(thread);
  }
  EXPECT_TRUE(timed_out);
  EXPECT_TRUE(in_time);
}

// --- groups ---

TEST(Scheduler, KilledGroupsNeverRunAgain) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    RandomStrategy strategy(seed);
    Scheduler scheduler(strategy, {});
    int steps = 0;
    int others = 0;
    for (int i = 0; i < 2; ++i) {
      scheduler.Start(absl::StrCat("victim", i), 7, [&] {
        while (true) {
          ++steps;
          absl::SleepFor(absl::Seconds(1));
        }
      });
    }
    scheduler.Start("never started", 7,
                    [&] { absl::SleepFor(absl::Hours(1)); });
    const int other = scheduler.Start("other", 8, [&] {
      for (; others < 100; ++others) absl::SleepFor(absl::Seconds(1));
    });
    scheduler.Advance(absl::Seconds(5));
    EXPECT_EQ(scheduler.LiveThreads(7).size(), 3u);
    scheduler.Kill(7);
    EXPECT_THAT(scheduler.LiveThreads(7), IsEmpty());
    EXPECT_EQ(scheduler.killed_threads(), 3u);
    const int before = steps;
    scheduler.Join(other);
    EXPECT_EQ(steps, before);
    EXPECT_EQ(others, 100);
  }
}

// Lets time pass whenever it can.
class PassTime final : public Strategy {
 public:
  explicit PassTime(int preferred) : prefer_(preferred) {}

  size_t Choose(const Choice& choice) override {
    if (choice.kind == ChoiceKind::kDelay) return 1;
    if (choice.after >= 0) {
      EXPECT_THAT(choice.threads, Contains(choice.after));
    }
    return prefer_.Choose(choice);
  }

 private:
  Prefer prefer_;
};

TEST(Scheduler, NobodyIsAtAPointWhomATimerKillsThere) {
  PassTime strategy(/*preferred=*/2);
  SchedulerOptions options;
  options.delays = true;
  Scheduler scheduler(strategy, options);
  bool killed = false;
  scheduler.Start("other", 8, [&] { scheduler.Point("doing nothing"); });
  const int victim = scheduler.Start("victim", 7, [&] {
    scheduler.SetTimer(7, scheduler.now() + absl::Seconds(1), [&] {
      killed = true;
      scheduler.Kill(7);
    });
    scheduler.PointAfter("done");
    ADD_FAILURE() << "it lives";
  });
  scheduler.Join(victim);
  EXPECT_TRUE(killed);
}

TEST(Scheduler, AThreadThatKillsItsOwnGroupStopsWhereItLeaves) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  Events events;
  scheduler.Start("suicide", 7, [&] {
    scheduler.LeaveIfKilled();
    events.push_back("alive");
    scheduler.Kill(7);
    events.push_back("goes on");
    scheduler.LeaveIfKilled();
    events.push_back("unreachable");
  });
  scheduler.Start("waits after its death", 8, [&] {
    scheduler.Kill(8);
    absl::SleepFor(absl::Seconds(1));
    events.push_back("unreachable");
  });
  scheduler.Advance(absl::Minutes(1));
  EXPECT_THAT(events, ElementsAre("alive", "goes on"));
}

TEST(Scheduler, JoiningAKilledThreadReturns) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const int thread =
      scheduler.Start("victim", 7, [] { absl::SleepFor(absl::Hours(1)); });
  scheduler.Kill(7);
  scheduler.Join(thread);
  EXPECT_EQ(scheduler.killed_threads(), 1u);
}

TEST(Scheduler, BlockUntilSaysWhatCameFirst) {
  ReplayStrategy dull({});
  Scheduler scheduler(dull, {});
  const absl::Time start = scheduler.now();
  bool ready = false;
  const auto is_ready = [&] { return ready; };
  EXPECT_FALSE(scheduler.BlockUntil("waiting", is_ready, start))
      << "a deadline that has passed";
  const int thread = scheduler.Start("setter", kMain, [&] {
    absl::SleepFor(absl::Seconds(2));
    ready = true;
  });
  EXPECT_FALSE(
      scheduler.BlockUntil("waiting", is_ready, start + absl::Seconds(1)));
  EXPECT_TRUE(
      scheduler.BlockUntil("waiting", is_ready, start + absl::Seconds(3)));
  EXPECT_EQ(scheduler.now(), start + absl::Seconds(2));
  EXPECT_TRUE(scheduler.BlockUntil("waiting", is_ready, start))
      << "ready, and too late";
  scheduler.Join(thread);
}

// --- what cannot go on ---

void ExpectStuck(const SchedulerOptions& options, std::string_view why,
                 absl::FunctionRef<void(Scheduler&)> body) {
  EXPECT_EXIT(
      {
        SchedulerOptions stuck = options;
        stuck.on_stuck = [](const std::string& text) {
          fputs(text.c_str(), stderr);
          _exit(3);
        };
        RandomStrategy strategy(1);
        Scheduler scheduler(strategy, stuck);
        body(scheduler);
        _exit(0);
      },
      ::testing::ExitedWithCode(3), std::string(why));
}

TEST(SchedulerDeathTest, ReportsADeadlockAndWhoWaits) {
  ExpectStuck({},
              "deadlock: all threads wait(.|\n)*"
              "thread 0 of process 1, main: joining a thread(.|\n)*"
              "thread 1 of process 7, left: waiting for a mutex(.|\n)*"
              "thread 2 of process 7, right: waiting for a mutex",
              [](Scheduler& scheduler) {
                absl::Notification left;
                absl::Notification right;
                const int first = scheduler.Start("left", 7, [&] {
                  left.WaitForNotification();
                  right.Notify();
                });
                scheduler.Start("right", 7, [&] {
                  right.WaitForNotification();
                  left.Notify();
                });
                scheduler.Join(first);
              });
}

TEST(SchedulerDeathTest, ReportsAThreadThatSleepsForEver) {
  ExpectStuck({}, "deadlock(.|\n)*main: sleeping",
              [](Scheduler&) { absl::SleepFor(absl::InfiniteDuration()); });
}

TEST(SchedulerDeathTest, ReportsAnEndlessLoop) {
  SchedulerOptions options;
  options.max_steps = 1000;
  ExpectStuck(options,
              "no end after 1000 steps(.|\n)*main: polling(.|\n)*"
              "sleeper: sleeping, for 1h",
              [](Scheduler& scheduler) {
                scheduler.Start("sleeper", kMain,
                                [] { absl::SleepFor(absl::Hours(1)); });
                while (true) scheduler.Point("polling");
              });
}

TEST(SchedulerDeathTest, ReportsALoopThatYieldsForEver) {
  SchedulerOptions options;
  options.max_steps = 1000;
  ExpectStuck(options, "no end after 1000 steps", [](Scheduler&) {
    while (true) std::this_thread::yield();
  });
}

TEST(SchedulerDeathTest, ReportsALoopThatLetsTimePass) {
  SchedulerOptions options;
  options.max_steps = 1000;
  ExpectStuck(options, "no end after 1000 steps", [](Scheduler&) {
    while (true) absl::SleepFor(absl::Seconds(1));
  });
}

TEST(SchedulerDeathTest, RefusesCallsOfOtherThreads) {
  EXPECT_DEATH(
      {
        std::atomic<Scheduler*> called{nullptr};
        std::thread caller([&] {
          while (called == nullptr) {
          }
          called.load()->Point("calling");
        });
        ReplayStrategy dull({});
        Scheduler scheduler(dull, {});
        called = &scheduler;
        caller.join();
      },
      "was there before the simulation calls a simulated");
}

// In a program whose accesses are not checked.
TEST(SchedulerDeathTest, RefusesWeakMemoryThatNobodySimulates) {
  SchedulerOptions options;
  options.weak_memory = true;
  ReplayStrategy dull({});
  EXPECT_DEATH(Scheduler(dull, options), "must have accesses = True");
}

TEST(SchedulerDeathTest, RefusesToBeWokenByOtherThreads) {
  EXPECT_DEATH(
      {
        absl::Notification given;
        std::atomic<bool> gives{false};
        std::thread giver([&] {
          while (!gives) {
          }
          given.Notify();
        });
        ReplayStrategy dull({});
        Scheduler scheduler(dull, {});
        const int waiter = scheduler.Start(
            "waiter", kMain, [&] { given.WaitForNotification(); });
        scheduler.WaitUntilIdle();
        gives = true;
        giver.join();
        scheduler.Join(waiter);
      },
      "was there before the simulation wakes one");
}

TEST(SchedulerDeathTest, AbortsWithAllStacksIfNobodyElseIsTold) {
  EXPECT_DEATH(
      {
        ReplayStrategy dull({});
        Scheduler scheduler(dull, {});
        scheduler.Start("waiter", 7,
                        [] { absl::SleepFor(absl::InfiniteDuration()); });
        scheduler.Advance(absl::Hours(1));
        absl::Notification never;
        never.WaitForNotification();
      },
      "deadlock(.|\n)*thread [0-9]+:(.|\n)*Notification(.|\n)*"
      "thread [0-9]+:");
}

}  // namespace
}  // namespace ward::testing

// Programs that are right only where memory is sequentially consistent, and
// their right twins, with ExploreOptions::weak_memory; what C++20 forbids, and
// what of the rest is not simulated. This file is compiled with
// -fsanitize=thread.

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <future>
#include <iostream>
#include <latch>
#include <memory>
#include <mutex>
#include <semaphore>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/explore.h"
#include "ward/testing/simulator/split_mix.h"

namespace ward::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;
using Order = std::memory_order;

constexpr Order kRelaxed = std::memory_order_relaxed;
constexpr Order kAcquire = std::memory_order_acquire;
constexpr Order kRelease = std::memory_order_release;
constexpr Order kAcqRel = std::memory_order_acq_rel;
constexpr Order kSeqCst = std::memory_order_seq_cst;

// What is there is found in so many runs, and most of it in a few.
constexpr uint64_t kMostRuns = 10000;
// With WARD_RUNS more.
constexpr uint64_t kRunsOfTwins = 1000;

ExploreOptions Weak(uint64_t runs) {
  ExploreOptions options;
  options.runs = runs;
  options.weak_memory = true;
  return options;
}

void InThreads(const std::vector<std::function<void()>>& bodies) {
  std::vector<std::thread> threads;
  threads.reserve(bodies.size());
  for (const auto& body : bodies) threads.emplace_back(body);
  for (std::thread& thread : threads) thread.join();
}

// Whether it came to what is asked about.
using Program = std::function<bool()>;

Exploration FindOutcome(const ExploreOptions& options, const Program& program) {
  return FindFailure(options,
                     [&] { EXPECT_FALSE(program()) << "it came to that"; });
}

void ExpectFound(const Program& program) {
  const Exploration exploration = FindOutcome(Weak(kMostRuns), program);
  ASSERT_TRUE(exploration.failure.has_value()) << "no run failed";
  const Exploration::Failure& failure = *exploration.failure;
  std::cout << "run " << failure.run << ", " << failure.deviations.size()
            << " deviations" << std::endl;
  EXPECT_THAT(failure.what, HasSubstr("it came to that"));
  EXPECT_TRUE(failure.replayed);
  // 20 and more before old values were left out one by one. Which run is found,
  // and so what is left of it, goes by where the linker has put the code.
  EXPECT_LE(failure.deviations.size(), 12U);
}

void ExpectNever(const Program& program) {
  const Exploration exploration = FindOutcome(Weak(kRunsOfTwins), program);
  EXPECT_FALSE(exploration.failure.has_value())
      << exploration.failure->what << exploration.failure->transcript;
}

void ExpectOnlyWithWeakMemory(const Program& program) {
  ExpectFound(program);
  ExploreOptions strong = Weak(kRunsOfTwins);
  strong.weak_memory = false;
  EXPECT_FALSE(FindOutcome(strong, program).failure.has_value());
}

void ExpectRace(const std::function<void()>& body) {
  const Exploration exploration = FindFailure(Weak(kMostRuns), body);
  ASSERT_TRUE(exploration.failure.has_value()) << "no run failed";
  EXPECT_THAT(exploration.failure->what, StartsWith("a data race: "));
  EXPECT_TRUE(exploration.failure->replayed);
}

void ExpectClean(const std::function<void()>& body) {
  const Exploration exploration = FindFailure(Weak(kRunsOfTwins), body);
  EXPECT_FALSE(exploration.failure.has_value())
      << exploration.failure->what << exploration.failure->transcript;
}

void Fence(Order order) {
  if (order != kRelaxed) std::atomic_thread_fence(order);
}

// --- store buffering: each looks for the other one before that has come ---

// With `fence`, unless it is relaxed, between the store and the load.
Program StoreBuffering(Order store, Order load, Order fence = kRelaxed,
                       Order other_fence = kRelaxed) {
  return [=] {
    std::atomic<int> x{0};
    std::atomic<int> y{0};
    int first = 1;
    int second = 1;
    InThreads({[&] {
                 x.store(1, store);
                 Fence(fence);
                 first = y.load(load);
               },
               [&] {
                 y.store(1, store);
                 Fence(other_fence);
                 second = x.load(load);
               }});
    return first == 0 && second == 0;
  };
}

TEST(WeakMemory, BuffersStores) {
  ExpectOnlyWithWeakMemory(StoreBuffering(kRelaxed, kRelaxed));
  ExpectFound(StoreBuffering(kRelease, kAcquire));
  ExpectFound(StoreBuffering(kSeqCst, kAcquire));
  ExpectFound(StoreBuffering(kRelaxed, kRelaxed, kAcqRel, kAcqRel));
  ExpectFound(StoreBuffering(kRelaxed, kRelaxed, kSeqCst, kAcqRel));
}

TEST(WeakMemory, BuffersNoStoresOfSeqCst) {
  ExpectNever(StoreBuffering(kSeqCst, kSeqCst));
  ExpectNever(StoreBuffering(kRelaxed, kRelaxed, kSeqCst, kSeqCst));
}

// Operations of seq_cst of one thread, and a fence of the other's.
TEST(WeakMemory, PutsFencesAndOperationsInOneOrder) {
  const auto program = [](Order fence) {
    return [fence] {
      std::atomic<int> x{0};
      std::atomic<int> y{0};
      int first = 1;
      int second = 1;
      InThreads({[&] {
                   x.store(1, kSeqCst);
                   first = y.load(kSeqCst);
                 },
                 [&] {
                   y.store(1, kRelaxed);
                   std::atomic_thread_fence(fence);
                   second = x.load(kRelaxed);
                 }});
      return first == 0 && second == 0;
    };
  };
  ExpectNever(program(kSeqCst));
  ExpectFound(program(kAcqRel));
}

// A fence counts for what happens after it in other threads, too.
TEST(WeakMemory, HandsFencesOn) {
  const auto program = [](Order store, Order load) {
    return [=] {
      std::atomic<int> x{0};
      std::atomic<int> y{0};
      std::atomic<int> passed{0};
      int first = 1;
      int second = 1;
      InThreads({[&] {
                   x.store(1, kRelaxed);
                   std::atomic_thread_fence(kSeqCst);
                   first = y.load(kRelaxed);
                 },
                 [&] {
                   y.store(1, kRelaxed);
                   std::atomic_thread_fence(kSeqCst);
                   passed.store(1, store);
                 },
                 [&] {
                   if (passed.load(load) == 1) second = x.load(kRelaxed);
                 }});
      return first == 0 && second == 0;
    };
  };
  ExpectNever(program(kRelease, kAcquire));
  ExpectFound(program(kRelaxed, kRelaxed));
}

// Peterson's lock, whose threads spin.
std::function<void()> Peterson(Order store, Order load) {
  return [=] {
    std::atomic<bool> wants[2] = {false, false};
    std::atomic<int> waits{0};
    int counter = 0;
    const auto count = [&](int self) {
      wants[self].store(true, store);
      waits.store(self, store);
      while (wants[1 - self].load(load) && waits.load(load) == self) {
      }
      ++counter;
      wants[self].store(false, kRelease);
    };
    InThreads({[&] { count(0); }, [&] { count(1); }});
    EXPECT_EQ(counter, 2);
  };
}

TEST(WeakMemory, OpensPetersonsLock) {
  ExpectRace(Peterson(kRelease, kAcquire));
  ExpectClean(Peterson(kSeqCst, kSeqCst));
}

// --- message passing ---

Program MessagePassing(Order store, Order load, Order store_fence = kRelaxed,
                       Order load_fence = kRelaxed) {
  return [=] {
    std::atomic<int> data{0};
    std::atomic<bool> done{false};
    bool seen = false;
    int found = 0;
    InThreads({[&] {
                 data.store(42, kRelaxed);
                 Fence(store_fence);
                 done.store(true, store);
               },
               [&] {
                 seen = done.load(load);
                 Fence(load_fence);
                 found = data.load(kRelaxed);
               }});
    return seen && found == 0;
  };
}

TEST(WeakMemory, LosesWhatIsPassedRelaxed) {
  ExpectOnlyWithWeakMemory(MessagePassing(kRelaxed, kRelaxed));
  ExpectFound(MessagePassing(kRelease, kRelaxed));
  ExpectFound(MessagePassing(kRelaxed, kAcquire));
  ExpectFound(MessagePassing(kRelaxed, kRelaxed, kRelease));
  ExpectFound(MessagePassing(kRelaxed, kRelaxed, kRelaxed, kAcquire));
  ExpectFound(MessagePassing(kRelaxed, kRelaxed, kAcquire, kRelease));
}

TEST(WeakMemory, KeepsWhatIsPassed) {
  ExpectNever(MessagePassing(kRelease, kAcquire));
  ExpectNever(MessagePassing(kSeqCst, kSeqCst));
  ExpectNever(MessagePassing(kRelaxed, kRelaxed, kRelease, kAcquire));
  ExpectNever(MessagePassing(kRelaxed, kAcquire, kAcqRel));
  ExpectNever(MessagePassing(kRelease, kRelaxed, kRelaxed, kSeqCst));
}

// From one to the next, and to a third one.
Program Causality(Order store, Order load) {
  return [=] {
    std::atomic<int> x{0};
    std::atomic<int> y{0};
    int first = 0;
    int second = 0;
    int third = 1;
    InThreads({[&] { x.store(1, kRelaxed); },
               [&] {
                 first = x.load(kRelaxed);
                 y.store(1, store);
               },
               [&] {
                 second = y.load(load);
                 third = x.load(kRelaxed);
               }});
    return first == 1 && second == 1 && third == 0;
  };
}

TEST(WeakMemory, KeepsWhatWasRead) {
  ExpectNever(Causality(kRelease, kAcquire));
  ExpectFound(Causality(kRelaxed, kRelaxed));
}

// Where the data are no atomics, the same is a race, found by the clock of the
// store that was in fact read: here the second one of two, or the first.
TEST(WeakMemory, FindsRacesByTheStoreThatWasRead) {
  const auto program = [](Order second) {
    return [second] {
      std::atomic<int> step{0};
      int data = 0;
      InThreads({[&] {
                   data = 1;
                   step.store(1, kRelease);
                   step.store(2, second);
                 },
                 [&] {
                   if (step.load(kAcquire) != 0) {
                     EXPECT_EQ(data, 1);
                   }
                 }});
    };
  };
  ExpectRace(program(kRelaxed));
  ExpectClean(program(kRelease));
}

TEST(WeakMemory, GoesOnWithReleaseSequences) {
  const auto program = [](bool in_one) {
    return [in_one] {
      std::atomic<int> data{0};
      std::atomic<int> step{0};
      int seen = 0;
      int found = 1;
      InThreads({[&] {
                   data.store(1, kRelaxed);
                   step.store(1, kRelease);
                 },
                 [&] {
                   if (in_one) {
                     int one = 1;
                     step.compare_exchange_strong(one, 2, kRelaxed);
                   } else if (step.load(kRelaxed) == 1) {
                     step.store(2, kRelaxed);
                   }
                 },
                 [&] {
                   seen = step.load(kAcquire);
                   found = data.load(kRelaxed);
                 }});
      return seen == 2 && found == 0;
    };
  };
  ExpectNever(program(true));
  ExpectFound(program(false));
}

// --- independent reads of independent writes ---

Program IndependentReads(Order store, Order load, Order fence = kRelaxed) {
  return [=] {
    std::atomic<int> x{0};
    std::atomic<int> y{0};
    int seen[4] = {};
    InThreads({[&] { x.store(1, store); }, [&] { y.store(1, store); },
               [&] {
                 seen[0] = x.load(load);
                 Fence(fence);
                 seen[1] = y.load(load);
               },
               [&] {
                 seen[2] = y.load(load);
                 Fence(fence);
                 seen[3] = x.load(load);
               }});
    return seen[0] == 1 && seen[1] == 0 && seen[2] == 1 && seen[3] == 0;
  };
}

TEST(WeakMemory, LetsReadersDisagree) {
  ExpectOnlyWithWeakMemory(IndependentReads(kRelease, kAcquire));
  ExpectFound(IndependentReads(kSeqCst, kAcquire));
  ExpectFound(IndependentReads(kRelaxed, kRelaxed, kAcqRel));
}

TEST(WeakMemory, LetsNoReadersOfSeqCstDisagree) {
  ExpectNever(IndependentReads(kSeqCst, kSeqCst));
  ExpectNever(IndependentReads(kRelaxed, kRelaxed, kSeqCst));
}

TEST(WeakMemory, IsToldInWords) {
  const auto body = [] { EXPECT_FALSE(MessagePassing(kRelaxed, kRelaxed)()); };
  const ExploreOptions options = Weak(kMostRuns);
  const Exploration exploration = FindFailure(options, body);
  ASSERT_TRUE(exploration.failure.has_value());
  const std::string told = ExplainFailure(options, *exploration.failure, body);
  std::cout << told << std::endl;
  EXPECT_THAT(told, HasSubstr(" read not the last value, but number 1 of those "
                              "before it, accessing "));
}

// --- what a failure is made simpler to ---

bool LosesAnUpdate() {
  std::atomic<int> count{0};
  const auto add = [&] { count.store(count.load() + 1); };
  InThreads({add, add});
  return count.load() == 1;
}

// More has to happen than a search finds that has but a few deviations. Of what
// is passed it must then be an old value that is read, any of them; before that
// the reader may wait for the flag, and load old values of it many times.
Program LateMessagePassing(bool waits) {
  return [waits] {
    constexpr int kStores = 4;
    // NOLINTNEXTLINE(misc-redundant-expression): each does it anew.
    const bool is_late = LosesAnUpdate() && LosesAnUpdate();
    std::atomic<int> passed{0};
    std::atomic<int> flag{0};
    bool is_old = false;
    InThreads({[&] {
                 for (int i = 1; i <= kStores; ++i) passed.store(i, kRelaxed);
                 flag.store(1, kRelaxed);
               },
               [&] {
                 do {
                   if (flag.load(kRelaxed) == 1) {
                     is_old = passed.load(kRelaxed) != kStores;
                     return;
                   }
                   std::this_thread::yield();
                 } while (waits);
               }});
    return is_late && is_old;
  };
}

TEST(WeakMemory, IsSimplifiedToOneValueThatIsAsNewAsMayBe) {
  for (const bool waits : {false, true}) {
    ExploreOptions options = Weak(kMostRuns);
    options.search = Search::kRandom;
    const Program program = LateMessagePassing(waits);
    const auto body = [&] { EXPECT_FALSE(program()); };
    const Exploration found = FindFailure(options, body);
    ASSERT_TRUE(found.failure.has_value());
    const std::string told = ExplainFailure(options, *found.failure, body);
    const std::string decided = told.substr(0, told.find("Step by step:"));
    const std::vector<std::string> old_values =
        absl::StrSplit(decided, "read not the last value, but ");
    ASSERT_THAT(old_values, SizeIs(2)) << decided;
    EXPECT_THAT(old_values[1], StartsWith("number 1 of those before it"));
    // An update takes one or two to be lost.
    EXPECT_LE(found.failure->deviations.size(), 5U) << decided;
  }
}

// --- coherence: what nothing but atomic objects gives ---

TEST(WeakMemory, IsCoherent) {
  // Read, read: also where another thread has read before, which says so.
  ExpectNever([] {
    std::atomic<int> x{0};
    bool back = false;
    const auto read = [&] {
      int last = 0;
      for (int i = 0; i < 3; ++i) {
        const int now = x.load(kRelaxed);
        back = back || now < last;
        last = now;
      }
    };
    InThreads({[&] {
                 x.store(1, kRelaxed);
                 x.store(2, kRelaxed);
               },
               read});
    return back;
  });
  ExpectNever([] {
    std::atomic<int> x{0};
    std::atomic<bool> said{false};
    int first = 0;
    int second = 1;
    InThreads({[&] { x.store(1, kRelaxed); },
               [&] {
                 first = x.load(kRelaxed);
                 said.store(true, kRelease);
               },
               [&] {
                 if (said.load(kAcquire)) second = x.load(kRelaxed);
               }});
    return first == 1 && second == 0;
  });
  // Write, read; read, write; write, write.
  ExpectNever([] {
    std::atomic<int> x{0};
    int before = 0;
    int after = 0;
    InThreads({[&] { x.store(1, kRelaxed); },
               [&] {
                 before = x.load(kRelaxed);
                 x.store(2, kRelaxed);
                 after = x.load(kRelaxed);
               }});
    const int last = x.load(kRelaxed);
    return after == 0 || (after == 1 && last == 2) ||
           (before == 1 && last == 1) || before == 2 || last == 0;
  });
}

TEST(WeakMemory, LosesNoReadModifyWrite) {
  ExpectNever([] {
    std::atomic<int> counter{0};
    const auto count = [&] {
      counter.fetch_add(1, kRelaxed);
      int now = counter.load(kRelaxed);
      while (!counter.compare_exchange_strong(now, now + 1, kRelaxed)) {
      }
    };
    InThreads({count, count});
    return counter.load(kRelaxed) != 4;
  });
}

// One that fails is a load.
TEST(WeakMemory, MayFailAnExchangeByAnOldValue) {
  ExpectOnlyWithWeakMemory([] {
    std::atomic<int> x{0};
    std::atomic<int> y{0};
    const auto exchange = [](std::atomic<int>& mine, std::atomic<int>& other,
                             bool& failed) {
      mine.store(1, kRelaxed);
      int expected = 1;
      failed = !other.compare_exchange_strong(expected, 2, kRelaxed);
    };
    bool failed[2] = {};
    InThreads({[&] { exchange(x, y, failed[0]); },
               [&] { exchange(y, x, failed[1]); }});
    return failed[0] && failed[1];
  });
}

// --- double-checked locking ---

std::function<void()> DoubleCheck(Order store, Order load) {
  return [=] {
    struct Config {
      int port = 80;
    };
    std::mutex mutex;
    std::atomic<Config*> made{nullptr};
    Config config;
    const auto get = [&] {
      Config* found = made.load(load);
      if (found == nullptr) {
        const std::lock_guard<std::mutex> lock(mutex);
        found = made.load(kRelaxed);
        if (found == nullptr) {
          config.port = 8080;
          found = &config;
          made.store(found, store);
        }
      }
      EXPECT_EQ(found->port, 8080);
    };
    InThreads({get, get});
  };
}

TEST(WeakMemory, FindsDoubleCheckOfRelaxedFlag) {
  ExpectRace(DoubleCheck(kRelaxed, kRelaxed));
  ExpectRace(DoubleCheck(kRelease, kRelaxed));
  ExpectClean(DoubleCheck(kRelease, kAcquire));
}

// A lock keeps what is stored under it, however relaxed.
TEST(WeakMemory, KeepsWhatIsStoredUnderALock) {
  ExpectNever([] {
    std::mutex mutex;
    std::atomic<int> counter{0};
    const auto count = [&] {
      const std::lock_guard<std::mutex> lock(mutex);
      counter.store(counter.load(kRelaxed) + 1, kRelaxed);
    };
    InThreads({count, count});
    return counter.load(kRelaxed) != 2;
  });
}

// --- a sequence lock ---
// Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?"
// (MSPC 2012).

enum class Fences { kNone, kOfReader, kBoth };

// Whether a reader has taken halves of two values for one.
Program SequenceLock(Fences fences) {
  return [fences] {
    std::atomic<unsigned> sequence{0};
    std::atomic<int> first{0};
    std::atomic<int> second{0};
    bool torn = false;
    InThreads({[&] {
                 const unsigned before = sequence.load(kRelaxed);
                 sequence.store(before + 1, kRelaxed);
                 if (fences == Fences::kBoth) {
                   std::atomic_thread_fence(kRelease);
                 }
                 first.store(1, kRelaxed);
                 second.store(1, kRelaxed);
                 sequence.store(before + 2, kRelease);
               },
               [&] {
                 const unsigned before = sequence.load(kAcquire);
                 const int one = first.load(kRelaxed);
                 const int other = second.load(kRelaxed);
                 if (fences != Fences::kNone) {
                   std::atomic_thread_fence(kAcquire);
                 }
                 const unsigned after = sequence.load(
                     fences == Fences::kNone ? kAcquire : kRelaxed);
                 torn = before == after && before % 2 == 0 && one != other;
               }});
    return torn;
  };
}

TEST(WeakMemory, TearsValuesOfASequenceLock) {
  ExpectOnlyWithWeakMemory(SequenceLock(Fences::kNone));
  ExpectFound(SequenceLock(Fences::kOfReader));
  ExpectNever(SequenceLock(Fences::kBoth));
}

// --- how old ---

// Loops that wait for another thread end.
TEST(WeakMemory, ShowsEveryStoreInTheEnd) {
  ExpectClean([] {
    std::atomic<int> turn{0};
    std::atomic<int> other{0};
    InThreads({[&] {
                 turn.store(1, kRelaxed);
                 while (turn.load(kRelaxed) != 2) {
                 }
               },
               [&] {
                 while (turn.load(kRelaxed) != 1 || other.load(kRelaxed) != 0) {
                 }
                 turn.store(2, kRelaxed);
               }});
  });
}

TEST(WeakMemory, KnowsTheLastSixteenStores) {
  constexpr int kStores = 40;
  const auto program = [](int asked) {
    return [asked] {
      std::atomic<int> x{-1};
      std::atomic<bool> done{false};
      bool over = false;
      int found = 0;
      InThreads({[&] {
                   for (int i = 0; i < kStores; ++i) x.store(i, kRelaxed);
                   done.store(true, kRelaxed);
                 },
                 [&] {
                   over = done.load(kRelaxed);
                   found = x.load(kRelaxed);
                 }});
      return over && (asked < 0 ? found < kStores - 16 : found == asked);
    };
  };
  ExpectFound(program(kStores - 16));
  ExpectNever(program(-1));
}

// Memory that is handed out anew has no past, though nothing orders who has it
// with who had it, and it has the same value.
TEST(WeakMemory, ForgetsWhatWasThereBefore) {
  ExpectNever([] {
    constexpr size_t kSize = 4096;
    const auto map = [](void* at, int fixed) {
      return static_cast<int*>(mmap(at, kSize, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1,
                                    0));
    };
    int* const memory = map(nullptr, 0);
    std::atomic<bool> left{false};
    int found = 0;
    InThreads({[&] {
                 const std::atomic_ref<int> x(*memory);
                 x.store(1, kRelaxed);
                 x.store(0, kRelaxed);
                 left.store(true, kRelaxed);
               },
               [&] {
                 if (!left.load(kRelaxed)) return;
                 map(memory, MAP_FIXED);
                 found = std::atomic_ref<int>(*memory).load(kRelaxed);
               }});
    munmap(memory, kSize);
    return found != 0;
  });
}

// So that loops end that wait for the new one.
TEST(WeakMemory, ReadsAnOldStoreSoOftenAtMost) {
  // Shared with those who make the runs.
  auto* const most =
      static_cast<int*>(mmap(nullptr, sizeof(int), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(most, MAP_FAILED);
  const auto run = [most] {
    std::atomic<int> x{0};
    std::atomic<int> stored{0};
    int old = 0;
    InThreads({[&] {
                 x.store(1, kRelaxed);
                 stored.store(1, kRelaxed);
               },
               [&] {
                 // Which returns the last one.
                 while (stored.fetch_add(0, kRelaxed) == 0) {
                 }
                 while (x.load(kRelaxed) == 0) ++old;
               }});
    *most = std::max(*most, old);
  };
  EXPECT_FALSE(FindFailure(Weak(kMostRuns / 2), run).failure.has_value());
  EXPECT_EQ(*most, 32);
  munmap(most, sizeof(int));
}

// --- what is not simulated, though C++20 allows it ---

TEST(WeakMemory, LoadsNothingThatIsStoredLater) {
  ExpectNever([] {
    std::atomic<int> x{0};
    std::atomic<int> y{0};
    int first = 0;
    int second = 0;
    InThreads({[&] {
                 first = x.load(kRelaxed);
                 y.store(1, kRelaxed);
               },
               [&] {
                 second = y.load(kRelaxed);
                 x.store(1, kRelaxed);
               }});
    return first == 1 && second == 1;
  });
  // Nor out of thin air.
  ExpectNever([] {
    std::atomic<int> x{0};
    std::atomic<int> y{0};
    InThreads({[&] { y.store(x.load(kRelaxed), kRelaxed); },
               [&] { x.store(y.load(kRelaxed), kRelaxed); }});
    return x.load(kRelaxed) != 0 || y.load(kRelaxed) != 0;
  });
}

TEST(WeakMemory, TakesStoresInTheOrderOfTheRun) {
  ExpectNever([] {
    std::atomic<int> x{0};
    std::atomic<int> y{0};
    InThreads({[&] {
                 x.store(1, kRelaxed);
                 y.store(2, kRelaxed);
               },
               [&] {
                 y.store(1, kRelaxed);
                 x.store(2, kRelaxed);
               }});
    return x.load(kRelaxed) == 1 && y.load(kRelaxed) == 1;
  });
}

// --- against the standard's own words ---

struct Op {
  enum class Kind { kLoad, kStore, kExchange, kFence };

  int thread;
  Kind kind;
  int location;
  Order order;
};

// Of a few threads; each one's operations in their order, and each store's
// value is the number of the operation plus 1.
using Litmus = std::vector<Op>;
constexpr size_t kLocations = 2;
constexpr size_t kMostOps = 7;

// What its loads and exchanges have read, in 3 bits each.
using Outcome = uint32_t;
constexpr Outcome kOutcomes = 1 << (3 * kMostOps);

Outcome Of(size_t op, size_t value) {
  return static_cast<Outcome>(value << (3 * op));
}

bool Acquires(Order order) {
  return order == kAcquire || order == kAcqRel || order == kSeqCst;
}

bool Releases(Order order) {
  return order == kRelease || order == kAcqRel || order == kSeqCst;
}

// All outcomes that [intro.races] and [atomics.order] allow, where the order of
// modifications, and that of seq_cst, are that of the run, and loads read what
// came before them in it.
class Standard {
 public:
  explicit Standard(const Litmus& litmus)
      : litmus_(litmus), size_(kLocations + litmus.size()) {}

  std::set<Outcome> Outcomes() {
    // The first stores come before all else.
    for (size_t i = 0; i < kLocations; ++i) run_.push_back(i);
    GoOn();
    return outcomes_;
  }

 private:
  static constexpr size_t kMostEvents = kLocations + kMostOps;
  using Relation = std::array<std::bitset<kMostEvents>, kMostEvents>;

  bool IsFirst(size_t event) const { return event < kLocations; }
  const Op& At(size_t event) const { return litmus_[event - kLocations]; }
  bool IsFence(size_t event) const {
    return !IsFirst(event) && At(event).kind == Op::Kind::kFence;
  }
  bool Reads(size_t event) const {
    return !IsFirst(event) && (At(event).kind == Op::Kind::kLoad ||
                               At(event).kind == Op::Kind::kExchange);
  }
  bool Writes(size_t event) const {
    return IsFirst(event) || At(event).kind == Op::Kind::kStore ||
           At(event).kind == Op::Kind::kExchange;
  }
  size_t LocationOf(size_t event) const {
    return IsFirst(event) ? event : static_cast<size_t>(At(event).location);
  }
  Order OrderOf(size_t event) const {
    return IsFirst(event) ? kRelaxed : At(event).order;
  }
  bool IsSequencedBefore(size_t a, size_t b) const {
    if (IsFirst(b)) return false;
    return IsFirst(a) || (a < b && At(a).thread == At(b).thread);
  }
  bool ComesBefore(size_t a, size_t b) const { return place_[a] < place_[b]; }

  void GoOn() {
    if (run_.size() == size_) {
      for (size_t i = 0; i < size_; ++i) place_[run_[i]] = i;
      if (IsAllowed()) outcomes_.insert(OutcomeOfRun());
      return;
    }
    for (size_t event = kLocations; event < size_; ++event) {
      const auto is_made = [&](size_t other) {
        return std::find(run_.begin(), run_.end(), other) != run_.end();
      };
      bool is_next = !is_made(event);
      for (size_t before = kLocations; before < event; ++before) {
        if (IsSequencedBefore(before, event) && !is_made(before)) {
          is_next = false;
        }
      }
      if (!is_next) continue;
      if (Reads(event)) {
        const std::vector<size_t> latest_first(run_.rbegin(), run_.rend());
        bool is_last = true;
        for (const size_t store : latest_first) {
          if (!Writes(store) || LocationOf(store) != LocationOf(event)) {
            continue;
          }
          read_[event] = store;
          if (is_last || At(event).kind == Op::Kind::kLoad) Make(event);
          is_last = false;
        }
      } else {
        Make(event);
      }
    }
  }

  void Make(size_t event) {
    run_.push_back(event);
    GoOn();
    run_.pop_back();
  }

  Outcome OutcomeOfRun() const {
    Outcome outcome = 0;
    for (size_t event = kLocations; event < size_; ++event) {
      if (Reads(event) && !IsFirst(read_[event])) {
        outcome |= Of(event - kLocations, read_[event] - kLocations + 1);
      }
    }
    return outcome;
  }

  void Close(Relation& relation) const {
    for (size_t by = 0; by < size_; ++by) {
      for (size_t from = 0; from < size_; ++from) {
        if (relation[from][by]) relation[from] |= relation[by];
      }
    }
  }

  // What `read` synchronizes with, by itself or by fences.
  void Synchronize(size_t read, Relation& before) const {
    for (size_t head = read_[read];; head = read_[head]) {
      for (size_t from = kLocations; from < size_; ++from) {
        const bool releases =
            Releases(OrderOf(from)) &&
            (from == head || (IsFence(from) && IsSequencedBefore(from, head)));
        for (size_t to = kLocations; releases && to < size_; ++to) {
          if (Acquires(OrderOf(to)) &&
              (to == read || (IsFence(to) && IsSequencedBefore(read, to)))) {
            before[from].set(to);
          }
        }
      }
      // A release sequence goes on with read-modify-writes alone.
      if (!Reads(head)) return;
    }
  }

  bool IsAllowed() const {
    Relation happens_before{};
    Relation coherence{};
    for (size_t a = 0; a < size_; ++a) {
      if (Reads(a)) Synchronize(a, happens_before);
      for (size_t b = 0; b < size_; ++b) {
        if (IsSequencedBefore(a, b)) happens_before[a].set(b);
        if (a == b || IsFence(a) || IsFence(b) ||
            LocationOf(a) != LocationOf(b)) {
          continue;
        }
        const bool reads_it = Reads(b) && read_[b] == a;
        const bool is_modified_before =
            Writes(a) && Writes(b) && ComesBefore(a, b);
        const bool reads_before =
            Reads(a) && Writes(b) && ComesBefore(read_[a], b);
        if (reads_it || is_modified_before || reads_before) {
          coherence[a].set(b);
        }
      }
    }
    Close(happens_before);
    Close(coherence);
    for (size_t a = 0; a < size_; ++a) {
      for (size_t b = 0; b < size_; ++b) {
        if (!coherence[a][b]) continue;
        if (happens_before[b][a] || a == b) return false;
        for (size_t x = 0; x < size_; ++x) {
          for (size_t y = 0; y < size_; ++y) {
            if (OrderOf(x) == kSeqCst && OrderOf(y) == kSeqCst &&
                (x == a || (IsFence(x) && happens_before[x][a])) &&
                (y == b || (IsFence(y) && happens_before[b][y])) &&
                !ComesBefore(x, y)) {
              return false;
            }
          }
        }
      }
    }
    return true;
  }

  const Litmus& litmus_;
  const size_t size_;
  // By events: the first stores, then the operations.
  std::vector<size_t> run_;
  std::array<size_t, kMostEvents> place_{};
  std::array<size_t, kMostEvents> read_{};
  std::set<Outcome> outcomes_;
};

Litmus RandomLitmus(SplitMix& random) {
  const auto below = [&](size_t bound) {
    return static_cast<size_t>(random() % bound);
  };
  const auto one_of = [&](const std::vector<Order>& orders) {
    return orders[below(orders.size())];
  };
  // How many operations each thread has.
  const std::vector<std::vector<int>> shapes = {
      {3, 3}, {3, 4}, {2, 2, 2}, {1, 3, 3}, {2, 2, 3}, {1, 1, 2, 2}};
  const std::vector<int>& shape = shapes[below(shapes.size())];
  Litmus litmus;
  for (size_t thread = 0; thread < shape.size(); ++thread) {
    for (int i = 0; i < shape[thread]; ++i) {
      Op op = {static_cast<int>(thread), Op::Kind::kLoad,
               static_cast<int>(below(kLocations)), kRelaxed};
      const size_t kind = below(8);
      if (kind < 3) {
        op.order = one_of({kRelaxed, kAcquire, kSeqCst});
      } else if (kind < 6) {
        op.kind = Op::Kind::kStore;
        op.order = one_of({kRelaxed, kRelease, kSeqCst});
      } else if (kind < 7) {
        op.kind = Op::Kind::kExchange;
        op.order = one_of({kRelaxed, kAcquire, kRelease, kAcqRel, kSeqCst});
      } else {
        op.kind = Op::Kind::kFence;
        op.order = one_of({kAcquire, kRelease, kAcqRel, kSeqCst, kSeqCst});
      }
      litmus.push_back(op);
    }
  }
  return litmus;
}

Outcome RunOnce(const Litmus& litmus) {
  std::atomic<unsigned> objects[kLocations] = {};
  std::array<unsigned, kMostOps> read{};
  std::vector<std::function<void()>> bodies;
  for (int thread = 0; thread <= litmus.back().thread; ++thread) {
    bodies.emplace_back([&, thread] {
      for (size_t i = 0; i < litmus.size(); ++i) {
        if (litmus[i].thread != thread) continue;
        const auto value = static_cast<unsigned>(i + 1);
        std::atomic<unsigned>& object = objects[litmus[i].location];
        const Order order = litmus[i].order;
        switch (litmus[i].kind) {
          case Op::Kind::kLoad:
            read[i] = object.load(order);
            break;
          case Op::Kind::kStore:
            object.store(value, order);
            break;
          case Op::Kind::kExchange:
            read[i] = object.exchange(value, order);
            break;
          case Op::Kind::kFence:
            std::atomic_thread_fence(order);
            break;
        }
      }
    });
  }
  InThreads(bodies);
  Outcome outcome = 0;
  for (size_t i = 0; i < litmus.size(); ++i) outcome |= Of(i, read[i]);
  return outcome;
}

std::string TextOf(const Litmus& litmus) {
  std::string text;
  for (const Op& op : litmus) {
    absl::StrAppend(&text, "thread ", op.thread, ": ",
                    op.kind == Op::Kind::kLoad       ? "load "
                    : op.kind == Op::Kind::kStore    ? "store "
                    : op.kind == Op::Kind::kExchange ? "exchange "
                                                     : "fence ",
                    op.kind == Op::Kind::kFence ? ""
                    : op.location == 0          ? "x "
                                                : "y ",
                    op.order == kRelaxed   ? "relaxed"
                    : op.order == kAcquire ? "acquire"
                    : op.order == kRelease ? "release"
                    : op.order == kAcqRel  ? "acq_rel"
                                           : "seq_cst",
                    "\n");
  }
  return text;
}

// Random programs come to nothing that is not allowed, and to nearly all that
// is.
TEST(WeakMemory, DoesWhatTheStandardSays) {
  const bool at_length = EnvironmentNumber("WARD_AT_LENGTH", 0) != 0;
  const int programs = at_length ? 400 : 20;
  // Shared with those who make the runs.
  void* const memory = mmap(nullptr, kOutcomes, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* const came = static_cast<char*>(memory);
  // The same ones each time, as what comes is known by chance alone.
  SplitMix random(at_length ? RunNumber() : 1);
  size_t all = 0;
  size_t missed = 0;
  for (int i = 0; i < programs; ++i) {
    const Litmus litmus = RandomLitmus(random);
    const std::set<Outcome> allowed = Standard(litmus).Outcomes();
    memset(came, 0, kOutcomes);
    const auto run = [&] { came[RunOnce(litmus)] = 1; };
    EXPECT_FALSE(
        FindFailure(Weak(at_length ? 2000 : 500), run).failure.has_value());
    for (Outcome outcome = 0; outcome < kOutcomes; ++outcome) {
      if (came[outcome] == 0) continue;
      EXPECT_EQ(allowed.count(outcome), 1U)
          << TextOf(litmus) << "came to " << std::oct << outcome;
    }
    for (const Outcome outcome : allowed) {
      ++all;
      if (came[outcome] == 0) ++missed;
    }
  }
  munmap(memory, kOutcomes);
  std::cout << missed << " of " << all << " outcomes did not come" << std::endl;
  EXPECT_LE(missed, all / (at_length ? 50 : 10));
}

// --- a library's ---

// What a library's headers do is compiled as the rest of the program is.
TEST(WeakMemory, FindsNothingInWhatIsRight) {
  ExpectClean([] {
    std::promise<int> promise;
    int other = 0;
    InThreads({[&] {
                 other = 1;
                 promise.set_value(42);
               },
               [&] {
                 EXPECT_EQ(promise.get_future().get(), 42);
                 EXPECT_EQ(other, 1);
               }});
  });
  ExpectClean([] {
    std::atomic<int> step{0};
    int data = 0;
    InThreads({[&] {
                 data = 1;
                 step.store(1, kRelease);
                 step.notify_one();
               },
               [&] {
                 step.wait(0, kAcquire);
                 EXPECT_EQ(data, 1);
               }});
  });
  ExpectClean([] {
    std::latch latch(2);
    int data[2] = {};
    const auto meet = [&](int self) {
      data[self] = 1;
      latch.arrive_and_wait();
      EXPECT_EQ(data[1 - self], 1);
    };
    InThreads({[&] { meet(0); }, [&] { meet(1); }});
  });
  ExpectClean([] {
    auto shared = std::make_shared<std::pair<int, int>>();
    InThreads({[&, copy = shared]() mutable {
                 copy->first = 1;
                 copy.reset();
               },
               [&, copy = shared]() mutable {
                 copy->second = 1;
                 copy.reset();
               },
               [&] { shared.reset(); }});
  });
  ExpectClean([] {
    std::once_flag once;
    int data = 0;
    const auto get = [&] {
      std::call_once(once, [&] { data = 1; });
      EXPECT_EQ(data, 1);
    };
    InThreads({get, get});
  });
  ExpectClean([] {
    int data = 0;
    std::stop_source source;
    std::thread stopped([&, token = source.get_token()] {
      while (!token.stop_requested()) std::this_thread::yield();
      EXPECT_EQ(data, 1);
    });
    data = 1;
    source.request_stop();
    stopped.join();
  });
}

// libstdc++'s semaphore waits for the value that it had read before it began to
// spin: GCC's bug 104928. In sequentially consistent runs, too.
#if defined(__GLIBCXX__) && _GLIBCXX_RELEASE == 12 && __GLIBCXX__ < 20240620
TEST(WeakMemory, FindsLostWakeUpOfSemaphore) {
  const Exploration exploration = FindFailure(Weak(kMostRuns), [] {
    std::counting_semaphore<1> semaphore(1);
    int counter = 0;
    const auto count = [&] {
      semaphore.acquire();
      ++counter;
      semaphore.release();
    };
    InThreads({count, count});
  });
  ASSERT_TRUE(exploration.failure.has_value()) << "no run failed";
  std::cout << "run " << exploration.failure->run << std::endl;
  EXPECT_THAT(exploration.failure->what, HasSubstr("waiting at a futex"));
  EXPECT_TRUE(exploration.failure->replayed);
}
#endif

}  // namespace
}  // namespace ward::testing

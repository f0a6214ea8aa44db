#include "ward/testing/explore.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/attributes.h"
#include "absl/base/config.h"
#include "absl/base/log_severity.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/process.h"
#include "ward/testing/search/doom.h"
#include "ward/testing/search/portfolio.h"
#include "ward/testing/simulation.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

// What its functions are called is told of a run, in an optimised program, too:
// not inlined, and not among ward's own, which nobody looks for.
namespace shop {
namespace {

std::mutex mutex;
int items;
int* item;

ABSL_ATTRIBUTE_NOINLINE int Items() {
  const std::lock_guard<std::mutex> lock(mutex);
  return items;
}

ABSL_ATTRIBUTE_NOINLINE void SetItems(int count) {
  const std::lock_guard<std::mutex> lock(mutex);
  items = count;
}

ABSL_ATTRIBUTE_NOINLINE void SellsOne() {
  const int before = Items();
  SetItems(before - 1);
}

void SellsTwo() {
  SetItems(2);
  std::thread other(SellsOne);
  SellsOne();
  other.join();
}

void SellsAll() {
  SellsTwo();
  EXPECT_EQ(Items(), 0);
}

ABSL_ATTRIBUTE_NOINLINE bool HasItem() {
  const std::lock_guard<std::mutex> lock(mutex);
  return item != nullptr;
}

ABSL_ATTRIBUTE_NOINLINE void TakesItem() {
  const std::lock_guard<std::mutex> lock(mutex);
  EXPECT_NE(item, nullptr);
}

ABSL_ATTRIBUTE_NOINLINE void Closes() {
  const std::lock_guard<std::mutex> lock(mutex);
  item = nullptr;
}

// Fails if it closes after there was an item, and before it is taken.
void TakesAnItemIfThereIsOne() {
  int one = 1;
  item = &one;
  std::thread other(Closes);
  if (HasItem()) TakesItem();
  other.join();
}

ABSL_ATTRIBUTE_NOINLINE void Locks(std::mutex& first, std::mutex& second) {
  const std::lock_guard<std::mutex> outer(first);
  const std::lock_guard<std::mutex> inner(second);
}

void LocksInTwoOrders() {
  // Outlive the run that gets stuck.
  auto* const first = new std::mutex;
  auto* const second = new std::mutex;
  std::thread other([=] { Locks(*second, *first); });
  Locks(*first, *second);
  other.join();
  delete first;
  delete second;
}

}  // namespace
}  // namespace shop

namespace ward::testing {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::ContainsRegex;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

// What the body writes here is seen by the test, which its runs' process is
// not.
template <typename T>
class Shared {
 public:
  Shared()
      : memory_(mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED) std::abort();
    new (memory_) T{};
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { munmap(memory_, sizeof(T)); }
  T& operator*() const { return *static_cast<T*>(memory_); }
  T* operator->() const { return static_cast<T*>(memory_); }

 private:
  void* const memory_;
};

// Sets an environment variable for a while.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    const char* const found = std::getenv(name);
    if (found != nullptr) found_ = found;
    setenv(name, value.c_str(), 1);
  }
  ~Variable() {
    if (found_.has_value()) {
      setenv(name_, found_->c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }

 private:
  const char* const name_;
  std::optional<std::string> found_;
};

ExploreOptions Runs(uint64_t runs) {
  ExploreOptions options;
  options.runs = runs;
  return options;
}

void InTwoThreads(absl::FunctionRef<void()> body) {
  const auto thread = Environment::Default().StartThread([body] { body(); });
  ASSERT_TRUE(thread.ok());
  body();
}

// How many threads have come between a read and its write; 0 if none has.
int LostUpdates() {
  int count = 0;
  InTwoThreads([&] {
    const int was = count;
    SchedulingPoint();
    count = was + 1;
  });
  return 2 - count;
}

// Finds `bad` to happen sometimes and by a few deviations, and again.
void ExpectFound(std::string_view what, absl::FunctionRef<void()> bad,
                 ExploreOptions options = {}) {
  const Exploration found = FindFailure(options, [&] {
    if (LostUpdates() > 0) bad();
  });
  ASSERT_TRUE(found.failure.has_value());
  const Exploration::Failure& failure = *found.failure;
  EXPECT_TRUE(failure.replayed);
  EXPECT_THAT(failure.what, HasSubstr(what));
  EXPECT_THAT(failure.deviations, SizeIs(1)) << "one switch at the right place";
  EXPECT_GE(failure.found.size(), failure.deviations.size());
}

// --- what a failure is ---

TEST(FindFailure, FindsAFailedAssertion) {
  ExpectFound("the values differ", [] { FAIL() << "the values differ"; });
}

TEST(FindFailure, FindsACrash) {
  ExpectFound("signal 9", [] { raise(SIGKILL); });
}

TEST(FindFailure, FindsAnExit) {
  // Not _exit, where ThreadSanitizer would complain of the simulated threads.
  ExpectFound("exited with code 7", [] { syscall(SYS_exit_group, 7); });
}

TEST(FindFailure, SaysWhatCallsExit) {
  ExpectFound("exit(0) is called in the test's own process",
              [] { std::exit(0); });  // NOLINT(concurrency-mt-unsafe)
  ExpectFound("_exit(3) is called in the test's own process", [] { _exit(3); });
}

TEST(FindFailure, FindsAnException) {
  ExpectFound("the body threw: no luck",
              [] { throw std::runtime_error("no luck"); });
}

TEST(FindFailure, FindsWhatIsThrownAndIsNoException) {
  ExpectFound("threw something that is no std::exception", [] { throw 42; });
}

TEST(FindFailure, BeginsEachRunWithTheSameRandomNumbers) {
  const int number = [] {
    srandom(1);
    return rand();  // NOLINT(concurrency-mt-unsafe)
  }();
  const Exploration found = FindFailure(Runs(100), [number] {
    EXPECT_EQ(rand(), number);  // NOLINT(concurrency-mt-unsafe)
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

TEST(FindFailure, FindsADescriptorThatIsLeftOpen) {
  ExpectFound("is left open: /dev/null",
              [] { (void)open("/dev/null", O_RDONLY | O_CLOEXEC); });
}

TEST(FindFailure, FindsADeadlock) {
  ExpectFound("deadlock", [] {
    absl::Notification never;
    never.WaitForNotification();
  });
}

TEST(FindFailure, FindsAnEndlessLoop) {
  ExploreOptions options;
  options.max_steps = 2000;
  ExpectFound(
      "no end after 2000 steps",
      [] {
        while (true) SchedulingPoint();
      },
      options);
}

// Neither inlined nor a tail call, so that the stacks name it.
[[gnu::noinline]] void WaitsOutsideTheSchedule() {
  while (true) syscall(SYS_pause);
}

// A pipe's end. The first call, which opens it, is to be in no run.
int OpenedBefore() {
  static const int kEnd = [] {
    std::array<int, 2> ends{};
    EXPECT_EQ(pipe(ends.data()), 0);
    return ends[0];
  }();
  return kEnd;
}

void ReadWhatNobodyWrites() {
  char byte;
  (void)!read(OpenedBefore(), &byte, 1);
}

// Each attempt to make it simpler would take 5 s more; the rest is for a
// machine that is busy, on which the stacks take more than a second.
TEST(FindFailure, SaysOnceAndSoonWhyARunHangs) {
#ifdef ABSL_HAVE_THREAD_SANITIZER
  GTEST_SKIP() << "It withholds the signal that prints a stack.";
#endif
  const struct {
    void (*hang)();
    const char* why;
    const char* where;
  } hangs[] = {
      {WaitsOutsideTheSchedule,
       "A simulated thread waits for something outside the schedule",
       "WaitsOutsideTheSchedule"},
      {ReadWhatNobodyWrites,
       "all threads wait, one of them for something outside",
       "ReadWhatNobodyWrites"},
  };
  OpenedBefore();
  for (const auto& [hang, why, where] : hangs) {
    const absl::Time start = absl::Now();
    const Exploration found = FindFailure({}, [hang = hang] {
      if (LostUpdates() == 0) return;
      Environment::Default().Log(absl::LogSeverity::kError, "now");
      hang();
    });
    // 5 s and a half on a machine that does nothing else. To make it again and
    // again took ten times as long.
    EXPECT_LT(absl::Now() - start, absl::Seconds(45));
    ASSERT_TRUE(found.failure.has_value());
    EXPECT_TRUE(found.failure->hung);
    EXPECT_THAT(found.failure->what, StartsWith(why));
    EXPECT_EQ(found.failure->what.find(why, 1), std::string::npos)
        << found.failure->what;
    EXPECT_THAT(found.failure->what, HasSubstr(where));
    EXPECT_THAT(found.failure->what, HasSubstr("of process 1, main: "));
    EXPECT_THAT(found.failure->what, Not(HasSubstr("a crash")));
    EXPECT_THAT(found.failure->transcript, HasSubstr("log: now"));
  }
}

TEST(FindFailure, NamesThreadsThatWereThereBefore) {
#if defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_ADDRESS_SANITIZER)
  GTEST_SKIP() << "Theirs look the same.";
#endif
  absl::Notification done;
  std::thread thread([&] {
    pthread_setname_np(pthread_self(), "indexer");
    done.WaitForNotification();
  });
  while (FindFailure(Runs(1), [] {}).remarks.find(": indexer.") ==
         std::string::npos) {
    std::this_thread::yield();
  }
  done.Notify();
  thread.join();
}

TEST(FindFailure, FindsAProcessThatIsLeft) {
  ExpectFound("is still running", [] {
    (void)Environment::Default().Fork({}, [] {
      absl::SleepFor(absl::InfiniteDuration());
      return 0;
    });
  });
}

TEST(FindFailure, FindsALockThatIsTakenInTwoOrders) {
  const Exploration found = FindFailure({}, [] {
    // Abseil would notice the order before it does harm.
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    // Outlive the run that gets stuck.
    auto* const first = new absl::Mutex;
    auto* const second = new absl::Mutex;
    {
      const auto thread = Environment::Default().StartThread([&] {
        second->Lock();
        SchedulingPoint();
        first->Lock();
        first->Unlock();
        second->Unlock();
      });
      first->Lock();
      SchedulingPoint();
      second->Lock();
      second->Unlock();
      first->Unlock();
    }
    delete first;
    delete second;
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_TRUE(found.failure->replayed);
  // ThreadSanitizer sees the order, too, and is not told to be quiet about it.
  EXPECT_THAT(found.failure->what,
              AnyOf(HasSubstr("deadlock: all threads wait"),
                    HasSubstr("ThreadSanitizer: lock-order-inversion")));
}

TEST(FindFailure, FindsNothingWhereNothingIs) {
  const Exploration found = FindFailure(Runs(300), [] {
    absl::Mutex mutex;
    int count = 0;
    InTwoThreads([&] {
      absl::MutexLock lock(&mutex);
      const int was = count;
      SchedulingPoint();
      count = was + 1;
    });
    EXPECT_EQ(count, 2);
  });
  EXPECT_FALSE(found.failure.has_value());
  EXPECT_EQ(found.runs, 300u);
  EXPECT_GT(found.switches, 300u);
}

constexpr Search kSearches[] = {
    Search::kPortfolio, Search::kRandom, Search::kPct,       Search::kPos,
    Search::kSurw,      Search::kPairs,  Search::kDepthFirst};

TEST(FindFailure, FindsWhatAlwaysFailsWithNoDeviation) {
  for (const Search search : kSearches) {
    ExploreOptions options;
    options.search = search;
    const Exploration found =
        FindFailure(options, [] { FAIL() << LostUpdates(); });
    ASSERT_TRUE(found.failure.has_value());
    EXPECT_TRUE(found.failure->replayed);
    EXPECT_THAT(found.failure->deviations, IsEmpty());
  }
}

TEST(FindFailure, FindsALostUpdateByEverySearch) {
  for (const Search search : kSearches) {
    ExploreOptions options;
    options.search = search;
    const Exploration found =
        FindFailure(options, [] { EXPECT_EQ(LostUpdates(), 0); });
    ASSERT_TRUE(found.failure.has_value());
    EXPECT_TRUE(found.failure->replayed);
    EXPECT_THAT(found.failure->deviations, SizeIs(1));
    if (search == Search::kPortfolio) continue;
    EXPECT_EQ(found.failure->search, search);
  }
}

// --- coverage ---

// Whatever the processors, and the processes that have made the runs.
TEST(FindFailure, CountsThePairsOfOperationsThatItHasSeenInBothOrders) {
  for (const Search search : kSearches) {
    ExploreOptions options = Runs(200);
    options.search = search;
    const Exploration exploration = FindFailure(options, [] {
      std::mutex one;
      std::mutex other;
      int together = 0;
      std::thread thread([&] {
        const std::lock_guard<std::mutex> lock(one);
        ++together;
      });
      {
        const std::lock_guard<std::mutex> lock(one);
        ++together;
      }
      // Nobody else locks it.
      const std::lock_guard<std::mutex> lock(other);
      thread.join();
    });
    EXPECT_EQ(exploration.pairs, 1u) << NameOf(search);
    EXPECT_EQ(exploration.pairs_in_both_orders, 1u) << NameOf(search);
    EXPECT_EQ(exploration.pairs_in_one_order, "");
  }
}

// Of two connections, of each of which main and a thread take turns. What is
// done with the one is no pair with what is with the other.
void TakeTurns(absl::FunctionRef<void(size_t of)> send,
               absl::FunctionRef<void(size_t of)> receive) {
  send(0);
  receive(0);
  send(1);
  receive(1);
  std::thread sender([&] { send(0); });
  std::thread other_sender([&] { send(1); });
  sender.join();
  other_sender.join();
  receive(0);
  receive(1);
}

TEST(FindFailure, CountsThePairsOfEachConnection) {
  const auto expect_pairs = [](std::string_view what,
                               absl::FunctionRef<void()> body) {
    const Exploration exploration = FindFailure(Runs(200), body);
    EXPECT_FALSE(exploration.failure.has_value()) << what;
    EXPECT_EQ(exploration.pairs, 4u) << what;
    EXPECT_EQ(exploration.pairs_in_both_orders, 0u) << what;
  };
  using Ends = std::array<int, 2>;
  const struct {
    std::string_view what;
    int (*open)(Ends& ends);
  } kinds[] = {
      {"pipes", [](Ends& ends) { return pipe(ends.data()); }},
      {"sockets",
       [](Ends& ends) {
         return socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data());
       }},
      {"events",
       [](Ends& ends) {
         ends[0] = ends[1] = eventfd(0, 0);
         return ends[0];
       }},
  };
  for (const auto& kind : kinds) {
    expect_pairs(kind.what, [&] {
      std::array<Ends, 2> ends;
      ASSERT_GE(kind.open(ends[0]), 0);
      ASSERT_GE(kind.open(ends[1]), 0);
      TakeTurns(
          [&](size_t of) {
            const uint64_t value = 1;
            EXPECT_EQ(write(ends[of][1], &value, sizeof(value)), 8);
          },
          [&](size_t of) {
            uint64_t value = 0;
            EXPECT_EQ(read(ends[of][0], &value, sizeof(value)), 8);
          });
      for (const int end :
           std::set<int>{ends[0][0], ends[0][1], ends[1][0], ends[1][1]}) {
        close(end);
      }
    });
  }
  expect_pairs("ward's own", [] {
    using Transports =
        std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>>;
    std::array<Transports, 2> ends;
    for (Transports& pair : ends) {
      auto made = Environment::Default().CreateTransportPair();
      ASSERT_TRUE(made.ok());
      pair = *std::move(made);
    }
    TakeTurns(
        [&](size_t of) {
          EXPECT_TRUE(
              ends[of].first->Send("a", {}, absl::InfiniteFuture()).ok());
        },
        [&](size_t of) {
          std::array<char, 1> buffer;
          std::vector<FileDescriptor> descriptors;
          EXPECT_TRUE(ends[of]
                          .second
                          ->Receive(absl::MakeSpan(buffer), 0, descriptors,
                                    absl::InfiniteFuture())
                          .ok());
        });
  });
}

TEST(FindFailure, TellsThePairsThatItHasSeenInOneOrderAlone) {
  const Variable variable("WARD_COVERAGE", "1");
  const Exploration exploration = FindFailure(Runs(50), [] {
    std::mutex mutex;
    { const std::lock_guard<std::mutex> before(mutex); }
    std::thread thread([&] { const std::lock_guard<std::mutex> after(mutex); });
    thread.join();
  });
  EXPECT_EQ(exploration.pairs, 1u);
  EXPECT_EQ(exploration.pairs_in_both_orders, 0u);
  // By file and line, if it is compiled with these.
  EXPECT_THAT(exploration.pairs_in_one_order, HasSubstr(" before "));
  EXPECT_THAT(exploration.pairs_in_one_order, Not(HasSubstr("<+0x")));
}

// What a command prints.
std::string OutputOf(const std::string& command) {
  FILE* const output = popen(command.c_str(), "r");
  std::string text;
  std::array<char, 1000> part;
  for (size_t size; (size = fread(part.data(), 1, part.size(), output)) > 0;) {
    text.append(part.data(), size);
  }
  EXPECT_EQ(pclose(output), 0) << text;
  return text;
}

// Two threads' locks, which no run of one process has in both orders.
TEST(FindFailure, KeepsThePairsOfShardsAndRunsToBeAddedUp) {
  const std::string logs =
      absl::StrCat(::testing::TempDir(), "/testlogs.", getpid());
  OutputOf(absl::StrCat("rm -rf ", logs));
  const auto explore = [&logs](std::string_view part, bool swaps) {
    const std::string folder =
        absl::StrCat(logs, "/account_test/", part, "/test.outputs");
    OutputOf(absl::StrCat("mkdir -p ", folder));
    const Variable tells("WARD_COVERAGE", "1");
    const Variable outputs("TEST_UNDECLARED_OUTPUTS_DIR", folder);
    const Variable target("TEST_TARGET", "//my:account_test");
    const Exploration exploration = FindFailure(Runs(20), [swaps] {
      std::mutex mutex;
      const auto deposits = [&] { const std::lock_guard lock(mutex); };
      const auto closes = [&] { const std::lock_guard lock(mutex); };
      if (swaps) std::thread(closes).join();
      std::thread(deposits).join();
      if (!swaps) std::thread(closes).join();
    });
    EXPECT_EQ(exploration.pairs, 1u);
    EXPECT_EQ(exploration.pairs_in_both_orders, 0u);
    return exploration.pairs_in_one_order;
  };
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody sets it.
  const char* const tool = std::getenv("WARD_PAIRS");
  ASSERT_NE(tool, nullptr);
  const std::string add_up = absl::StrCat(tool, " ", logs);

  const std::string one_order = explore("shard_1_of_2_run_1_of_2", false);
  EXPECT_EQ(OutputOf(add_up),
            absl::StrCat("//my:account_test: 0 of 1 pairs of operations on one "
                         "object were seen in both orders, in 1 shards and "
                         "runs\nIn one order alone:\n",
                         one_order));

  // Bazel packs them, or does not. One that was made with another build stays.
  explore("shard_2_of_2_run_1_of_2", true);
  OutputOf(absl::StrCat(
      "cd ", logs,
      "/account_test/shard_2_of_2_run_1_of_2/test.outputs && "
      "python3 -m zipfile -c outputs.zip ward_pairs.txt && "
      "rm ward_pairs.txt && mkdir ../../shard_9_of_9 && cd ../../shard_9_of_9 "
      "&& echo 'program 123 //my:account_test' >ward_pairs.txt && "
      "touch -d '1 day ago' ward_pairs.txt"));
  EXPECT_EQ(OutputOf(add_up),
            "//my:account_test: 1 of 1 pairs of operations on one object were "
            "seen in both orders, in 2 shards and runs\n"
            "Left out: 1 of other builds of it, which are older.\n");
}

// What it has seen is its own: other searches' runs do not change it, nor does
// who makes them.
TEST(FindFailure, IsGuidedByCoverageToTheSameRunEachTime) {
  const auto first_run = [](Search search) {
    ExploreOptions options = Runs(2000);
    options.search = search;
    const Exploration exploration = FindFailure(options, [] {
      // All that the others do comes between two locks of one of them.
      std::mutex mutex;
      int turns = 0;
      const auto twice = [&] {
        int before = 0;
        {
          const std::lock_guard<std::mutex> lock(mutex);
          before = turns++;
        }
        const std::lock_guard<std::mutex> lock(mutex);
        EXPECT_LT(turns++, before + 5);
      };
      std::thread one(twice);
      std::thread other(twice);
      twice();
      one.join();
      other.join();
    });
    EXPECT_TRUE(exploration.failure.has_value()) << NameOf(search);
    return exploration.failure.has_value() ? exploration.failure->run : 0;
  };
  for (const Search search : {Search::kPairs, Search::kPortfolio}) {
    EXPECT_EQ(first_run(search), first_run(search)) << NameOf(search);
  }
}

// Not even by a search that holds others back for the one that loops.
TEST(FindFailure, TakesNoLoopForEndlessThatAsksAgainAndAgain) {
  for (const Search search : kSearches) {
    ExploreOptions options = Runs(200);
    options.search = search;
    const Exploration found = FindFailure(options, [] {
      absl::Mutex mutex;
      std::atomic<bool> done = false;
      std::thread asks([&] {
        while (!done) std::this_thread::yield();
        const absl::MutexLock lock(&mutex);
      });
      for (int i = 0; i < 3; ++i) const absl::MutexLock lock(&mutex);
      done = true;
      asks.join();
    });
    EXPECT_FALSE(found.failure.has_value())
        << NameOf(search) << ": " << found.failure->what;
    // Nor for one that waits.
    const Exploration others = FindFailure(options, [] {
      absl::Mutex mutex;
      std::atomic<bool> done = false;
      std::thread asks([&] {
        while (!done) std::this_thread::yield();
      });
      std::thread works([&] {
        { const absl::MutexLock lock(&mutex); }
        done = true;
      });
      asks.join();
      works.join();
      const absl::MutexLock lock(&mutex);
    });
    EXPECT_FALSE(others.failure.has_value())
        << NameOf(search) << ": " << others.failure->what;
  }
}

// A search may hold back the one that others wait for, but not for ever: these
// may do so by asking again and again.
TEST(FindFailure, LetsOnWhoIsWaitedForWithoutAYield) {
  for (const Search search : kSearches) {
    ExploreOptions options = Runs(300);
    options.search = search;
    options.max_steps = 4000;
    const Exploration found = FindFailure(options, [] {
      std::atomic<int> steps{0};
      absl::Mutex mutex;
      bool done = false;
      const auto work = [&] {
        for (int i = 0; i < 3; ++i) {
          SchedulingPoint();
          ++steps;
        }
        const absl::MutexLock lock(&mutex);
        done = true;
      };
      const auto ask = [&] {
        while (steps < 3) SchedulingPoint();
      };
      const auto ask_under_lock = [&] {
        while (true) {
          const absl::MutexLock lock(&mutex);
          if (done) return;
        }
      };
      std::vector<std::thread> threads;
      threads.emplace_back(ask);
      threads.emplace_back(ask);
      threads.emplace_back(ask_under_lock);
      threads.emplace_back(work);
      for (std::thread& thread : threads) thread.join();
    });
    EXPECT_FALSE(found.failure.has_value())
        << NameOf(search) << ", run " << found.failure->run << ": "
        << found.failure->what;
  }
}

TEST(FindFailure, SaysWhenAFailureCannotBeReplayed) {
  Shared<std::atomic<int>> calls;
  const Exploration found =
      FindFailure(Runs(100), [&] { EXPECT_NE(calls->fetch_add(1), 5); });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_FALSE(found.failure->replayed);
}

TEST(FindFailure, ShowsTheTranscriptHoweverTheRunFailed) {
  const std::function<void()> failures[] = {
      [] { FAIL() << "no luck"; },
      [] { throw std::runtime_error("no luck"); },
      [] { absl::SleepFor(absl::InfiniteDuration()); },
      [] { raise(SIGKILL); },
  };
  for (const std::function<void()>& fail : failures) {
    const Exploration found = FindFailure(Runs(10), [&] {
      Environment::Default().Log(absl::LogSeverity::kError,
                                 "all was well until here");
      InTwoThreads([] { SchedulingPoint(); });
      fail();
    });
    ASSERT_TRUE(found.failure.has_value());
    EXPECT_THAT(found.failure->transcript, HasSubstr("all was well until here"))
        << found.failure->what;
    EXPECT_GE(found.runs, 1u);
  }
}

// What is left of a failure is that failure, and not another that takes less,
// of which there may be many on the way to it.
TEST(FindFailure, SimplifiesToTheSameFailure) {
  const Exploration found = FindFailure(Runs(2000), [] {
    for (int i = 0; i < 10; ++i) InTwoThreads([] { SchedulingPoint(); });
    const size_t taken = Simulation::Current()->deviations().size();
    if (taken == 1) FAIL() << "quite another failure";
    // To leave out one after the other does not lead from many to two.
    if (taken == 2 || taken > 7) FAIL() << "two, or many";
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_TRUE(found.failure->replayed);
  const bool two = absl::StrContains(found.failure->what, "two, or many");
  EXPECT_EQ(found.failure->deviations.size(), two ? 2u : 1u)
      << found.failure->found.size() << " before";
  EXPECT_TRUE(two || found.failure->found.size() == 1);
}

TEST(FindFailure, ShowsWhatTheRunThatFailedHasPrinted) {
  const Exploration found = FindFailure(Runs(1000), [] {
    std::cout << "lost: " << LostUpdates()
              << ", and much more: " << std::string(100'000, 'x')
              << "the end\n";
    EXPECT_EQ(LostUpdates(), 0);
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_THAT(found.failure->what, HasSubstr("lost: "));
  EXPECT_THAT(found.failure->what, HasSubstr("bytes are left out"));
  EXPECT_THAT(found.failure->what, HasSubstr("the end"));
  EXPECT_LT(found.failure->what.size(), 50'000u);
}

// One late switch is enough to fail. What comes before it in a random run is
// more than a few thousand others.
TEST(FindFailure, ReplaysLongRuns) {
  ExploreOptions options = Runs(1);
  options.search = Search::kRandom;
  const Exploration found = FindFailure(options, [] {
    constexpr int kSteps = 37000;
    constexpr int kLate = 36000;
    int steps = 0;
    bool switched_late = false;
    InTwoThreads([&] {
      while (++steps < kSteps) {
        const bool late = steps > kLate;
        const uint64_t before = Scheduler::Current()->switches();
        SchedulingPoint();
        if (late && Scheduler::Current()->switches() != before) {
          switched_late = true;
        }
      }
    });
    EXPECT_FALSE(switched_late);
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_GT(found.failure->found.size(), size_t{1} << 14);
  EXPECT_TRUE(found.failure->replayed);
}

// --- which runs are made ---

// Of two threads with a point each, at most so many runs.
Exploration LookDepthFirst(uint64_t runs) {
  ExploreOptions options;
  options.search = Search::kDepthFirst;
  options.runs = runs;
  options.deviations = 2;
  return FindFailure(options, [] { InTwoThreads([] { SchedulingPoint(); }); });
}

TEST(FindFailure, FindsAllSchedulesDepthFirst) {
  const Exploration found = LookDepthFirst(100000);
  EXPECT_FALSE(found.failure.has_value());
  EXPECT_TRUE(found.exhausted);
  EXPECT_GT(found.runs, 5u);
  EXPECT_FALSE(LookDepthFirst(found.runs - 1).exhausted);
}

// A body that leaves a process dead in each of its runs.
void KillAChild() {
  const auto child = Environment::Default().Fork({}, [] {
    absl::SleepFor(absl::InfiniteDuration());
    return 0;
  });
  ASSERT_TRUE(child.ok());
  ASSERT_TRUE((*child)->Kill(SIGKILL).ok());
  ASSERT_TRUE((*child)->Wait(absl::InfiniteFuture()).ok());
}

TEST(FindFailure, MakesAllRunsThoughKilledThreadsStay) {
  for (const Search search : {Search::kRandom, Search::kPct, Search::kPos,
                              Search::kSurw, Search::kPortfolio}) {
    ExploreOptions options = Runs(1500);
    options.search = search;
    Shared<std::atomic<int>> bodies;
    const Exploration found = FindFailure(options, [&] {
      ++*bodies;
      KillAChild();
    });
    EXPECT_FALSE(found.failure.has_value());
    EXPECT_EQ(found.runs, 1500u);
    // And the dull one, for those that look ahead.
    EXPECT_EQ(*bodies, search == Search::kRandom ? 1500 : 1501);
  }
}

TEST(FindFailure, MakesAllRunsThoughDescriptorsOfTheKilledStay) {
  rlimit found_limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &found_limit), 0);
  rlimit low = found_limit;
  low.rlim_cur = 256;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  const Exploration found = FindFailure(Runs(100), [] {
    const auto child = Environment::Default().Fork({}, [] {
      std::vector<FileDescriptor> own;
      for (int i = 0; i < 20; ++i) {
        own.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
        EXPECT_TRUE(own.back().is_open());
      }
      absl::SleepFor(absl::InfiniteDuration());
      return 0;
    });
    ASSERT_TRUE(child.ok());
    absl::SleepFor(absl::Seconds(1));
    ASSERT_TRUE((*child)->Kill(SIGKILL).ok());
    ASSERT_TRUE((*child)->Wait(absl::InfiniteFuture()).ok());
  });
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &found_limit), 0);
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
  EXPECT_EQ(found.runs, 100u);
}

TEST(FindFailure, MakesASingleRunOnce) {
  const Shared<std::atomic<int>> made;
  for (const Search search :
       {Search::kPortfolio, Search::kRandom, Search::kDepthFirst}) {
    *made = 0;
    ExploreOptions options = Runs(1);
    options.search = search;
    const Exploration found = FindFailure(options, [&made] { ++*made; });
    EXPECT_EQ(found.runs, 1u);
    EXPECT_EQ(*made, 1);
  }
}

TEST(FindFailure, SaysThatARunDeviatesMoreOftenThanIsKept) {
#if defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_ADDRESS_SANITIZER)
  GTEST_SKIP() << "Threads are the kernel's, and a million switches take long.";
#endif
  ExploreOptions options = Runs(1);
  options.search = Search::kRandom;
  options.max_steps = 4000000;
  const Exploration found = FindFailure(options, [] {
    const auto go_on = [] {
      for (int i = 0; i < 600000; ++i) SchedulingPoint();
    };
    std::thread other(go_on);
    go_on();
    other.join();
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
  EXPECT_THAT(found.remarks, HasSubstr("more than 524288 times"));
}

// What a static variable's initialisation does happens there alone.
TEST(FindFailure, MakesFirstRunsOfProcessesAgainAndAgain) {
  const Shared<std::atomic<int>> first;
  const auto body = [&first] {
    static bool used = false;
    if (!std::exchange(used, true)) ++*first;
  };
  for (const Search search : {Search::kRandom, Search::kPct, Search::kPos,
                              Search::kSurw, Search::kPortfolio}) {
    *first = 0;
    ExploreOptions options = Runs(1000);
    options.search = search;
    EXPECT_FALSE(FindFailure(options, body).failure.has_value());
    EXPECT_GE(*first, 1000 / 128);
    EXPECT_LE(*first, 100);
  }
}

TEST(FindFailure, MakesEachRunInAProcessOfItsOwnIfAsked) {
  for (const Search search : kSearches) {
    ExploreOptions options = Runs(100);
    options.fresh_process = true;
    options.search = search;
    const Exploration exploration = FindFailure(options, [] {
      static int runs = 0;
      EXPECT_EQ(++runs, 1);
      LostUpdates();
    });
    EXPECT_FALSE(exploration.failure.has_value());
    EXPECT_GT(exploration.runs, 2u);
  }
}

// Fails if an update is lost, and has an initialisation before that, which
// takes choices, in the first run of a process.
void LoseUpdatesLater() {
  static bool used = false;
  if (std::exchange(used, true)) {
    EXPECT_EQ(LostUpdates(), 0);
  } else {
    LostUpdates();
  }
}

TEST(FindFailure, ReplaysWhatAProcessDoesNotDoFirst) {
  const Exploration found = FindFailure({}, LoseUpdatesLater);
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_TRUE(found.failure->replayed);
  EXPECT_TRUE(found.failure->warm);
  EXPECT_THAT(found.failure->deviations, SizeIs(1));
}

TEST(FindFailure, EndsWithTheTest) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  const Shared<std::atomic<int>> runs;
  const pid_t test = fork();
  if (test == 0) {
    (void)FindFailure(Runs(100'000'000), [&] { ++*runs; });
    _exit(0);
  }
  while (*runs < 10) std::this_thread::yield();
  ASSERT_EQ(kill(test, SIGKILL), 0);
  // Its workers come to this process, and would go on for hours.
  while (waitpid(-1, nullptr, 0) > 0) {
  }
  EXPECT_EQ(errno, ECHILD);
}

TEST(FindFailure, RefusesToMakeNoRuns) {
  EXPECT_NONFATAL_FAILURE((void)FindFailure(Runs(0), [] {}), "no runs");
}

TEST(FindFailure, RefusesToRunInASimulation) {
  ReplayStrategy dull({});
  const Simulation simulation(dull, {});
  EXPECT_NONFATAL_FAILURE((void)FindFailure(Runs(10), [] {}),
                          "makes simulations of its own");
}

TEST(FindFailure, GoesOnDepthFirstThoughKilledThreadsStay) {
  ExploreOptions options;
  options.search = Search::kDepthFirst;
  options.deviations = 2;
  options.runs = 100000;
  Shared<std::atomic<int>> deviating;
  const Exploration found = FindFailure(options, [&] {
    for (int i = 0; i < 10; ++i) KillAChild();
    if (!Simulation::Current()->deviations().empty()) ++*deviating;
  });
  EXPECT_TRUE(found.exhausted);
  EXPECT_GT(found.runs, 100u);
  // The dull run, once for each level: none was lost, none made twice.
  EXPECT_EQ(found.runs - static_cast<uint64_t>(*deviating), 6u);
}

TEST(FindFailure, TakesItsSeedsFromTheNumberOfTheTestsRun) {
  std::set<std::string> courses;
  for (const char* number : {"1", "2", "3"}) {
    const Variable variable("TEST_RUN_NUMBER", number);
    const ExploreOptions options = Runs(1);
    std::string fingerprints;
    for (uint64_t run = 0; run < 20; ++run) {
      absl::StrAppend(
          &fingerprints,
          FingerprintOfRun(
              options, run,
              [] {
                InTwoThreads([] {
                  auto& all = Environment::Default();
                  SchedulingPoint();
                  all.Log(absl::LogSeverity::kError,
                          absl::StrCat(Scheduler::Current()->switches()));
                });
              }),
          " ");
    }
    courses.insert(fingerprints);
  }
  EXPECT_THAT(courses, SizeIs(3));
}

TEST(FindFailure, MakesAsManyRunsAsItIsTold) {
  const Variable variable("WARD_RUNS", "17");
  EXPECT_EQ(FindFailure(Runs(5000), [] {}).runs, 17u);
}

// Its thread ends; the others go on, and then the run ends.
TEST(FindFailure, LetsTheBodyEndByPthreadExit) {
  static std::string left;
  const auto exit_with = [](bool bug) {
    struct Object {
      ~Object() { left += "an object"; }
    };
    left.clear();
    std::thread([bug] {
      absl::SleepFor(absl::Seconds(1));
      EXPECT_EQ(left, bug ? "" : "an object");
    }).detach();
    const Object object;
    pthread_exit(nullptr);
  };
  ExploreOptions options = Runs(200);
  options.early_sleeps = false;
  const Exploration right = FindFailure(options, [&] { exit_with(false); });
  EXPECT_FALSE(right.failure.has_value()) << right.failure->what;
  EXPECT_EQ(right.runs, 200u);
  const Exploration wrong = FindFailure(options, [&] { exit_with(true); });
  ASSERT_TRUE(wrong.failure.has_value());
  EXPECT_TRUE(wrong.failure->replayed);
  EXPECT_THAT(wrong.failure->what, HasSubstr("Which is: \"an object\""));
}

// So does a process, with its last thread.
TEST(FindFailure, LetsAProcessEndByPthreadExit) {
  const Exploration found = FindFailure(Runs(200), [] {
    static bool has_ended;
    has_ended = false;
    Environment& environment = Environment::Default();
    const auto child = environment.Fork({}, []() -> int {
      std::thread([] {
        absl::SleepFor(absl::Seconds(1));
        has_ended = true;
      }).detach();
      pthread_exit(nullptr);
    });
    ASSERT_TRUE(child.ok()) << child.status();
    const auto exit = (*child)->Wait(absl::InfiniteFuture());
    ASSERT_TRUE(exit.ok()) << exit.status();
    EXPECT_TRUE(exit->clean()) << exit->ToString();
    EXPECT_TRUE(has_ended);
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

// --- replay ---

// They are no processes that say something to each other.
TEST(FingerprintOfRun, TellsSchedulesOfBareThreadsApart) {
  const auto course = [](uint64_t run) {
    return FingerprintOfRun({}, run, [] {
      std::thread other([] { SchedulingPoint(); });
      SchedulingPoint();
      other.join();
    });
  };
  std::set<uint64_t> courses;
  for (uint64_t run = 0; run < 20; ++run) {
    courses.insert(course(run));
    EXPECT_EQ(course(run), course(run));
  }
  EXPECT_THAT(courses, SizeIs(Gt(1)));
}

TEST(Explore, ReplaysExactlyTheRunInThisProcess) {
  const Exploration found =
      FindFailure({}, [] { EXPECT_EQ(LostUpdates(), 0); });
  ASSERT_TRUE(found.failure.has_value());
  const Variable variable("WARD_REPLAY",
                          FormatDeviations(found.failure->deviations));
  static int bodies;
  static int lost;
  static pid_t process;
  bodies = 0;
  Explore({}, [] {
    ++bodies;
    process = getpid();
    lost = LostUpdates();
  });
  EXPECT_EQ(bodies, 1);
  EXPECT_EQ(lost, 1);
  EXPECT_EQ(process, getpid());
}

TEST(Explore, ReplaysTheDullRun) {
  const Variable variable("WARD_REPLAY", "");
  int bodies = 0;
  Explore({}, [&] {
    ++bodies;
    EXPECT_EQ(LostUpdates(), 0);
    EXPECT_THAT(Simulation::Current()->deviations(), IsEmpty());
  });
  EXPECT_EQ(bodies, 1);
}

TEST(Explore, RefusesTextThatIsNoRun) {
  const Variable variable("WARD_REPLAY", "nonsense");
  EXPECT_FATAL_FAILURE({ Explore({}, [] { std::abort(); }); },
                       "WARD_REPLAY is no list");
}

// What becomes of a test that does `explore`, and what it prints.
struct Outcome {
  bool failed = false;
  bool skipped = false;
  std::string text;
};

Outcome OutcomeOf(absl::FunctionRef<void()> explore) {
  const FileDescriptor output(memfd_create("output", MFD_CLOEXEC));
  const pid_t child = fork();
  if (child == 0) {
    dup2(output.get(), STDOUT_FILENO);
    explore();
    std::fflush(stdout);
    std::cout.flush();
    _exit((::testing::Test::HasFailure() ? 1 : 0) +
          (::testing::Test::IsSkipped() ? 2 : 0));
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  std::string text(10000, '\0');
  text.resize(static_cast<size_t>(
      std::max<ssize_t>(pread(output.get(), text.data(), text.size(), 0), 0)));
  return {(WEXITSTATUS(status) & 1) != 0, (WEXITSTATUS(status) & 2) != 0,
          std::move(text)};
}

TEST(Explore, FailsTheTestWithTheCommandThatReplays) {
  const Outcome outcome =
      OutcomeOf([] { Explore({}, [] { EXPECT_EQ(LostUpdates(), 0); }); });
  EXPECT_TRUE(outcome.failed);
  EXPECT_THAT(outcome.text,
              HasSubstr("It fails in the same way with 1 of them"));
  EXPECT_THAT(outcome.text, ::testing::ContainsRegex("WARD_REPLAY=[0-9]+=1\n"));
}

// What WARD_REPLAY is to be.
std::string ReplayIn(std::string_view text) {
  constexpr std::string_view kName = "WARD_REPLAY=";
  const size_t at = text.find(kName);
  if (at == std::string_view::npos) return "none";
  text.remove_prefix(at + kName.size());
  return std::string(text.substr(0, text.find('\n')));
}

TEST(Explore, ReplaysTheOneOfSeveralThatHasFailed) {
  const Outcome outcome = OutcomeOf([] {
    Explore(Runs(20), [] { LostUpdates(); });
    Explore({}, [] { EXPECT_EQ(LostUpdates(), 0); });
  });
  EXPECT_TRUE(outcome.failed);
  const std::string replay = ReplayIn(outcome.text);
  EXPECT_THAT(replay, StartsWith("2:"));
  const Outcome replayed = OutcomeOf([&] {
    const Variable variable("WARD_REPLAY", replay);
    Explore(Runs(20), [] { ADD_FAILURE() << "the first one"; });
    Explore({}, [] { EXPECT_EQ(LostUpdates(), 0) << "the second one"; });
  });
  EXPECT_TRUE(replayed.failed);
  EXPECT_THAT(replayed.text, Not(HasSubstr("the first one")));
  EXPECT_THAT(replayed.text, HasSubstr("the second one"));
  EXPECT_THAT(replayed.text, HasSubstr("Not replayed"));
}

TEST(Explore, ReplaysWhatAProcessDoesNotDoFirst) {
  const Outcome outcome = OutcomeOf([] { Explore({}, LoseUpdatesLater); });
  EXPECT_TRUE(outcome.failed);
  EXPECT_THAT(outcome.text, HasSubstr("not in the first run of a process"));
  const std::string replay = ReplayIn(outcome.text);
  EXPECT_THAT(replay, StartsWith("warm:"));
  const Outcome replayed = OutcomeOf([&] {
    const Variable variable("WARD_REPLAY", replay);
    Explore({}, LoseUpdatesLater);
  });
  EXPECT_TRUE(replayed.failed);
  EXPECT_THAT(replayed.text, HasSubstr("LostUpdates()"));
}

// So that a test which runs out of time has said what it found.
TEST(Explore, SaysWhatHasFailedBeforeItLooksForLongForASimplerOne) {
  ExploreOptions options;
  options.doom_runs = 0;
  const Outcome outcome = OutcomeOf([&] {
    Explore(options, [] {
      bool lost = false;
      for (int i = 0; i < 3; ++i) {
        lost = (LostUpdates() > 0) && (lost || i == 0);
      }
      // Some sixty runs are made to find a simpler one. Not of simulated time.
      const timespec moment = {0, 125'000'000};
      syscall(SYS_nanosleep, &moment, nullptr);
      EXPECT_FALSE(lost);
    });
  });
  EXPECT_TRUE(outcome.failed);
  EXPECT_THAT(outcome.text, HasSubstr("While a simpler one is looked for"));
}

// --- where a run was doomed ---

ExploreOptions FewEnds() {
  ExploreOptions options;
  options.doom_runs = 300;
  return options;
}

// Of the first run of `body` that fails.
Doom DoomOf(const ExploreOptions& options, absl::FunctionRef<void()> body) {
  const Exploration found = FindFailure(options, body);
  if (!found.failure.has_value()) {
    ADD_FAILURE() << "nothing was found";
    return {};
  }
  return FindDoom(options, *found.failure, body);
}

void ExpectThatADecisionDooms(const Doom& doom) {
  ASSERT_TRUE(doom.is_found()) << doom.ToText();
  EXPECT_EQ(doom.curve[doom.after].decisions,
            doom.curve[doom.before].decisions + 1);
  EXPECT_GT(doom.curve[doom.after].chance(), doom.curve[doom.before].chance());
}

// Until the other one has read, what was read may still be written in time.
TEST(FindDoom, NamesTheReadThatLosesAnUpdate) {
  const Doom doom = DoomOf(FewEnds(), shop::SellsAll);
  ExpectThatADecisionDooms(doom);
  EXPECT_GT(doom.curve[doom.after].chance(), 0.9) << doom.ToText();
  EXPECT_THAT(
      doom.decided,
      AllOf(ContainsRegex("thread [01] .* goes on, and not thread [01] "),
            ContainsRegex("thread [01]:\n  shop::[^\n]*Items\\(\\)[^\n]*\n"
                          "  shop::[^\n]*SellsOne(.|\n)*"
                          "thread [01]:\n  shop::[^\n]*SetItems\\(")))
      << doom.ToText();
}

TEST(FindDoom, NamesWhatComesBetweenACheckAndItsUse) {
  const Doom doom = DoomOf(FewEnds(), shop::TakesAnItemIfThereIsOne);
  ExpectThatADecisionDooms(doom);
  EXPECT_THAT(doom.decided,
              ContainsRegex("thread 1:\n  shop::[^\n]*Closes(.|\n)*"
                            "thread 0:\n  shop::[^\n]*TakesItem"))
      << doom.ToText();
}

TEST(FindDoom, NamesTheLockThatMakesADeadlock) {
  const Doom doom = DoomOf(FewEnds(), shop::LocksInTwoOrders);
  ExpectThatADecisionDooms(doom);
  EXPECT_GT(doom.curve[doom.after].chance(), 0.9) << doom.ToText();
  EXPECT_THAT(doom.decided,
              ContainsRegex("thread [01]:\n  shop::[^\n]*Locks\\((.|\n)*"
                            "thread [01]:\n  shop::[^\n]*Locks\\("))
      << doom.ToText();
}

TEST(FindDoom, NamesWhatLeadsToADeath) {
  const Doom doom = DoomOf(FewEnds(), [] {
    shop::SellsTwo();
    if (shop::Items() != 0) raise(SIGKILL);
  });
  ExpectThatADecisionDooms(doom);
  EXPECT_GT(doom.curve[doom.after].chance(), 0.9) << doom.ToText();
}

// Where somebody has a time limit, none ends early.
TEST(FindDoom, HasTheSleepsOfItsSearch) {
  const auto body = [] {
    std::mutex mutex;
    std::condition_variable changed;
    int value = 0;
    bool is_checked = false;
    const auto increment = [&] {
      const int found = value;
      SchedulingPoint();
      value = found + 1;
    };
    std::thread one(increment);
    std::thread other(increment);
    std::thread checker([&] {
      std::this_thread::sleep_for(std::chrono::seconds(1));
      EXPECT_EQ(value, 2);
      const std::lock_guard<std::mutex> lock(mutex);
      is_checked = true;
      changed.notify_one();
    });
    {
      std::unique_lock<std::mutex> lock(mutex);
      changed.wait_for(lock, std::chrono::seconds(10),
                       [&] { return is_checked; });
    }
    for (std::thread* const thread : {&one, &other, &checker}) thread->join();
  };
  ExploreOptions options = FewEnds();
  const Exploration found = FindFailure(options, body);
  ASSERT_TRUE(found.failure.has_value());
  const Doom doom = FindDoom(options, *found.failure, body);
  options.early_sleeps = false;
  EXPECT_EQ(doom.ToText(), FindDoom(options, *found.failure, body).ToText());
}

TEST(FindDoom, SaysThatItFailsInEachRun) {
  const Doom doom = DoomOf(FewEnds(), [] {
    LostUpdates();
    FAIL() << "no luck";
  });
  EXPECT_FALSE(doom.is_found());
  EXPECT_THAT(doom.ToText(), HasSubstr("Each of 60 runs at random fails"));
}

// What it compares are other numbers in other schedules.
TEST(FindDoom, TakesFailuresOfOneAssertionForTheSame) {
  for (const bool near : {false, true}) {
    const Doom doom = DoomOf(FewEnds(), [near] {
      const int lost = LostUpdates();
      if (near) {
        EXPECT_NEAR(lost, -9, 1);
      } else {
        EXPECT_LT(lost, 0);
      }
    });
    EXPECT_THAT(doom.ToText(), HasSubstr("Each of 60 runs at random fails"));
  }
}

// As many as were looked at would make what is steep by chance look steeper.
TEST(FindDoom, ReportsOtherEndsThanItHasChosenBy) {
  const Doom doom = DoomOf(FewEnds(), shop::SellsAll);
  ExpectThatADecisionDooms(doom);
  uint64_t reported = 0;
  for (const Doom::Point& point : doom.curve) reported += point.ends;
  EXPECT_EQ(doom.curve[doom.before].ends, 60u) << doom.ToText();
  // At each of the two there were some.
  EXPECT_GE(doom.runs, reported + 8) << doom.ToText();
}

// The run that fails ends at once, and its ends do not.
TEST(FindDoom, MakesFewOfEndsThatAreLong) {
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
  GTEST_SKIP() << "They are ten million steps.";
#endif
  const Doom doom = DoomOf(FewEnds(), [] {
    ASSERT_EQ(LostUpdates(), 0);
    constexpr int kMany = 60'000;
    for (int i = 0; i < kMany; ++i) SchedulingPoint();
  });
  ExpectThatADecisionDooms(doom);
  // Else they were some two hundred.
  EXPECT_LE(doom.runs, 140u);
}

TEST(FindDoom, SaysHowManyEndsHadNone) {
  ExploreOptions options = FewEnds();
  options.max_steps = 2000;
  bool loops = false;
  const auto body = [&] {
    const bool is_lost = LostUpdates() > 0;
    const bool is_lost_again = LostUpdates() > 0;
    if (is_lost && !is_lost_again) FAIL();
    if (!loops || !is_lost_again) return;
    while (true) SchedulingPoint();
  };
  const Exploration found = FindFailure(options, body);
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_THAT(FindDoom(options, *found.failure, body).ToText(),
              Not(HasSubstr("had no end")));
  loops = true;
  const Doom doom = FindDoom(options, *found.failure, body);
  EXPECT_GT(doom.looped, 0u);
  EXPECT_THAT(doom.ToText(),
              ContainsRegex("\nOf the [0-9]+ runs that were made for this, "
                            "[0-9]+ had no end, which is another failure: "));
}

TEST(FindDoom, SaysThatTooManyHung) {
  Doom doom;
  EXPECT_EQ(doom.ToText(), "");
  doom.runs = 40;
  doom.hung = 2;
  EXPECT_THAT(doom.ToText(), HasSubstr("not known: of 40 runs that were made "
                                       "for that, 2 hung"));
}

TEST(FindDoom, SaysThatThereIsNothingToDecide) {
  const Doom doom = DoomOf(FewEnds(), [] { FAIL() << "no luck"; });
  EXPECT_FALSE(doom.is_found());
  EXPECT_THAT(doom.ToText(), HasSubstr("nothing to decide"));
}

// Be there as many processors as there are, or one.
TEST(FindDoom, MakesSoManyRunsAndSaysTheSameEachTime) {
  const Shared<std::atomic<uint64_t>> runs;
  const auto body = [&runs] {
    ++*runs;
    shop::SellsAll();
  };
  const Exploration found = FindFailure({}, body);
  ASSERT_TRUE(found.failure.has_value());
  std::set<std::string> said;
  cpu_set_t processors;
  ASSERT_EQ(sched_getaffinity(0, sizeof(processors), &processors), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  for (const cpu_set_t& allowed : {processors, one}) {
    ASSERT_EQ(sched_setaffinity(0, sizeof(allowed), &allowed), 0);
    *runs = 0;
    const Doom doom = FindDoom(FewEnds(), *found.failure, body);
    // What is found is shown by two more, which are no ends at random.
    EXPECT_LE(*runs, FewEnds().doom_runs + 2);
    EXPECT_EQ(*runs, doom.runs);
    said.insert(doom.ToText() + doom.ToJson() + doom.transcript);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof(processors), &processors), 0);
  EXPECT_THAT(said, SizeIs(1));
  ExploreOptions none;
  none.doom_runs = 0;
  *runs = 0;
  EXPECT_EQ(FindDoom(none, *found.failure, body).ToText(), "");
  EXPECT_EQ(*runs, 0u);
}

TEST(FindDoom, FindsOneDecisionOfMany) {
  const Doom doom = DoomOf(FewEnds(), [] {
    constexpr int kRounds = 200;
    InTwoThreads([] {
      for (int i = 0; i < kRounds; ++i) SchedulingPoint();
    });
    shop::TakesAnItemIfThereIsOne();
  });
  ExpectThatADecisionDooms(doom);
  EXPECT_GT(doom.decision(), 200u);
  EXPECT_LT(doom.curve.size(), 60u);
  EXPECT_THAT(doom.decided, HasSubstr("Closes")) << doom.ToText();
}

// One that is replayed after another run in its process takes two runs each.
TEST(FindDoom, CountsTheRunsBefore) {
  const Shared<std::atomic<uint64_t>> runs;
  const auto body = [&runs] {
    ++*runs;
    LoseUpdatesLater();
  };
  const Exploration found = FindFailure({}, body);
  ASSERT_TRUE(found.failure.has_value() && found.failure->warm);
  *runs = 0;
  const Doom doom = FindDoom(FewEnds(), *found.failure, body);
  ExpectThatADecisionDooms(doom);
  EXPECT_LE(*runs, FewEnds().doom_runs + 4);
}

TEST(Explore, SaysWhereItWasDoomedAndMarksItInTheTranscript) {
  const Outcome outcome = OutcomeOf([] {
    Explore(FewEnds(), [] {
      Environment::Default().Log(absl::LogSeverity::kError, "opens");
      shop::TakesAnItemIfThereIsOne();
    });
  });
  EXPECT_TRUE(outcome.failed);
  EXPECT_THAT(outcome.text,
              ContainsRegex("Decision [0-9]+ of [0-9]+ dooms it: "));
  EXPECT_THAT(outcome.text, HasSubstr("\n  100 % |"));
  EXPECT_THAT(outcome.text, HasSubstr("* doomed from here on (decision "));
  // Of two decisions at its lock it is one or the other.
  EXPECT_THAT(outcome.text,
              ContainsRegex("  >>  doomed from here on .decision [0-9]+.\n"
                            "[^\n]*locking [^\n]*Closes|"
                            "locking [^\n]*Closes[^\n]*\n"
                            "  >>  doomed from here on .decision [0-9]+.\n"));
}

TEST(Explore, SkipsATestAllOfWhoseRunsAreSkipped) {
  const Outcome all =
      OutcomeOf([] { Explore(Runs(20), [] { GTEST_SKIP(); }); });
  EXPECT_TRUE(all.skipped);
  EXPECT_FALSE(all.failed);
  const Outcome some = OutcomeOf([] {
    Explore(Runs(20), [] {
      if (LostUpdates() > 0) {
        GTEST_SKIP();
      }
    });
  });
  EXPECT_FALSE(some.skipped);
  EXPECT_FALSE(some.failed);
}

// --- what is said of what passes ---

TEST(Explore, SaysInALineWhatWasMade) {
  const Outcome outcome =
      OutcomeOf([] { Explore(Runs(200), [] { LostUpdates(); }); });
  EXPECT_FALSE(outcome.failed);
  EXPECT_THAT(outcome.text,
              ::testing::ContainsRegex(
                  "None of 200 runs failed: [0-9]+ different schedules, [0-9]+ "
                  "scheduling points, [0-9.]+ s; .*not seen: accesses to "
                  "memory, atomic ones among them[.]\n"));
  EXPECT_EQ(std::count(outcome.text.begin(), outcome.text.end(), '\n'), 1)
      << outcome.text;
}

TEST(Explore, ReturnsWhatWasMade) {
  const Exploration made = Explore(Runs(200), [] { LostUpdates(); });
  EXPECT_EQ(made.runs, 200u);
  EXPECT_GT(made.schedules, 2u);
  EXPECT_LT(made.schedules, 200u) << "they are few, and come again and again";
  EXPECT_GT(made.points, 5 * made.runs);
  EXPECT_FALSE(made.sees_accesses);
  EXPECT_THAT(made.unseen, IsEmpty());
}

TEST(Explore, SaysWhichTimeLimitsItHasKept) {
  constexpr const char* kNotTried = "not tried: time limits, and sleeps beside";
  const auto waits = [] {
    absl::Mutex mutex;
    bool is_set = false;
    std::thread other([&] {
      const absl::MutexLock lock(&mutex);
      is_set = true;
    });
    {
      const absl::MutexLock lock(&mutex);
      EXPECT_TRUE(
          mutex.AwaitWithTimeout(absl::Condition(&is_set), absl::Seconds(1)));
    }
    other.join();
    absl::SleepFor(absl::Seconds(2));
  };
  const Outcome kept = OutcomeOf([&] { Explore(Runs(20), waits); });
  EXPECT_FALSE(kept.failed);
  EXPECT_THAT(kept.text, HasSubstr(kNotTried));
  EXPECT_THAT(kept.text, HasSubstr("(ExploreOptions::delays)"));
  const Outcome none = OutcomeOf(
      [&] { Explore(Runs(20), [] { absl::SleepFor(absl::Seconds(1)); }); });
  EXPECT_THAT(none.text, Not(HasSubstr(kNotTried)));
  ExploreOptions delays = Runs(2000);
  delays.delays = true;
  EXPECT_TRUE(FindFailure(delays, waits).failure.has_value());
}

TEST(Explore, NamesWhatNoScheduleDecides) {
  const Outcome outcome = OutcomeOf([] {
    Explore(Runs(20), [] {
      LostUpdates();
      alarm(100);
      alarm(0);
    });
  });
  EXPECT_THAT(outcome.text, HasSubstr("not seen: alarm; accesses to memory"));
}

// All that there are is one.
TEST(Explore, TellsThatNothingWasToChoose) {
  const Outcome outcome = OutcomeOf([] {
    ExploreOptions options = Runs(20);
    options.search = Search::kRandom;
    Explore(options, [] {});
  });
  EXPECT_THAT(outcome.text, HasSubstr("20 runs failed: 1 different schedule,"));
  EXPECT_THAT(outcome.text,
              HasSubstr("; perhaps nothing was to choose in it;"));
}

// It makes some of them more than once, as the dull one for each number of
// deviations.
TEST(FindFailure, CountsDifferentSchedules) {
  const Exploration found = LookDepthFirst(100000);
  EXPECT_TRUE(found.exhausted);
  EXPECT_LT(found.schedules, found.runs);
  EXPECT_GT(found.schedules, 3u);
}

}  // namespace
}  // namespace ward::testing

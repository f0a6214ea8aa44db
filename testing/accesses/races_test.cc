// Programs with data races, or that use memory that was given back, and their
// right twins. This file is compiled with -fsanitize=thread.

#include <fcntl.h>
#include <pthread.h>
#include <sanitizer/tsan_interface.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <threads.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <functional>
#include <future>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <regex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/attributes.h"
#include "absl/base/dynamic_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/barrier.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/accesses/races_for_test.h"
#include "ward/testing/explore.h"

namespace ward::testing {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// --- a counter ---

TEST(Races, FindsUnlockedCounter) {
  const Exploration::Failure failure = Failure([] {
    int counter = 0;
    InTwoThreads([&] { ++counter; }, [&] { ++counter; });
  });
  EXPECT_THAT(failure.what, StartsWith("a data race: "));
  EXPECT_TRUE(failure.replayed);
  EXPECT_EQ(failure.deviations.size(), 0U);
}

TEST(Races, FindsNoneInLockedCounter) {
  ExpectNone([] {
    int counter = 0;
    std::mutex mutex;
    const auto count = [&] {
      const std::lock_guard<std::mutex> lock(mutex);
      ++counter;
    };
    InTwoThreads(count, count);
    EXPECT_EQ(counter, 2);
  });
}

TEST(Races, FindsNoneInAtomicCounter) {
  ExpectNone([] {
    std::atomic<int> counter{0};
    const auto count = [&] { counter.fetch_add(1, std::memory_order_relaxed); };
    InTwoThreads(count, count);
    EXPECT_EQ(counter, 2);
  });
}

TEST(Races, FindsAccessUnderAnotherLock) {
  ExpectRace([] {
    int counter = 0;
    std::mutex mutex;
    std::mutex other;
    InTwoThreads(
        [&] {
          const std::lock_guard<std::mutex> lock(mutex);
          ++counter;
        },
        [&] {
          const std::lock_guard<std::mutex> lock(other);
          ++counter;
        });
  });
}

// Neighbours in one word are no race.
TEST(Races, TellsBytesApart) {
  ExpectNone([] {
    char bytes[8] = {};
    InTwoThreads([&] { ++bytes[3]; }, [&] { ++bytes[4]; });
  });
}

// --- a flag ---

TEST(Races, FindsFlagWithoutAtomic) {
  ExpectRace([] {
    bool done = false;
    int result = 0;
    InTwoThreads(
        [&] {
          result = 42;
          done = true;
        },
        [&] {
          if (done) {
            EXPECT_EQ(result, 42);
          }
        });
  });
}

void Hand(std::memory_order store, std::memory_order load) {
  std::atomic<bool> done{false};
  int result = 0;
  InTwoThreads(
      [&] {
        result = 42;
        done.store(true, store);
      },
      [&] {
        if (done.load(load)) {
          EXPECT_EQ(result, 42);
        }
      });
}

TEST(Races, FindsWhatIsReleasedByNobody) {
  ExpectRace(
      [] { Hand(std::memory_order_relaxed, std::memory_order_acquire); });
}

TEST(Races, FindsWhatIsAcquiredByNobody) {
  ExpectRace(
      [] { Hand(std::memory_order_release, std::memory_order_relaxed); });
}

TEST(Races, FindsNoneInWhatIsReleasedAndAcquired) {
  ExpectNone(
      [] { Hand(std::memory_order_release, std::memory_order_acquire); });
}

void HandByFences(bool release, bool acquire) {
  std::atomic<bool> done{false};
  int result = 0;
  InTwoThreads(
      [&] {
        result = 42;
        if (release) std::atomic_thread_fence(std::memory_order_release);
        done.store(true, std::memory_order_relaxed);
      },
      [&] {
        if (!done.load(std::memory_order_relaxed)) return;
        if (acquire) std::atomic_thread_fence(std::memory_order_acquire);
        EXPECT_EQ(result, 42);
      });
}

// What is written lies in the same eight bytes.
TEST(Races, KnowsAtomicsBesideWhatIsWritten) {
  ExpectNone([] {
    struct alignas(8) {
      std::atomic<int> ready{0};
      int state = 0;
    } both;
    int data = 0;
    InTwoThreads(
        [&] {
          data = 1;
          both.ready.store(1, std::memory_order_release);
          both.state = 5;
        },
        [&] {
          if (both.ready.load(std::memory_order_acquire) == 1) {
            EXPECT_EQ(data, 1);
          }
        });
  });
}

TEST(Races, KnowsFences) {
  ExpectNone([] { HandByFences(true, true); });
  ExpectRace([] { HandByFences(false, true); });
  ExpectRace([] { HandByFences(true, false); });
}

// A read-modify-write goes on with what was released before it.
TEST(Races, KnowsReleaseSequences) {
  ExpectNone([] {
    std::atomic<int> stage{0};
    int result = 0;
    std::thread first([&] {
      result = 42;
      stage.store(1, std::memory_order_release);
    });
    std::thread second([&] { stage.fetch_add(1, std::memory_order_relaxed); });
    if (stage.load(std::memory_order_acquire) == 2) {
      EXPECT_EQ(result, 42);
    }
    first.join();
    second.join();
  });
}

// --- maps, and what else is bigger than a word ---

TEST(Races, FindsUnlockedMap) {
  ExpectRace([] {
    std::map<int, std::string> names;
    InTwoThreads([&] { names[1] = "Joe"; }, [&] { names[2] = "Jack"; });
  });
}

TEST(Races, FindsNoneInLockedMap) {
  ExpectNone([] {
    std::map<int, std::string> names;
    absl::Mutex mutex;
    const auto add = [&](int number, const char* name) {
      const absl::MutexLock lock(&mutex);
      names[number] = name;
    };
    InTwoThreads([&] { add(1, "Joe"); }, [&] { add(2, "Jack"); });
    EXPECT_EQ(names.size(), 2U);
  });
}

// A look-up, and iterators, see of a map what another thread changes; its links
// are changed, and followed, in the C++ library.
using Numbers = std::map<int, int>;

Numbers TwentyNumbers() {
  Numbers numbers;
  for (int i = 0; i < 20; ++i) numbers[10 * i] = i;
  return numbers;
}

void InsertBeside(absl::FunctionRef<void(Numbers&)> other) {
  Numbers numbers = TwentyNumbers();
  InTwoThreads([&] { numbers.emplace(5, 0); }, [&] { other(numbers); });
}

void EraseBeside(absl::FunctionRef<void(Numbers&)> other) {
  Numbers numbers = TwentyNumbers();
  InTwoThreads([&] { numbers.erase(10); }, [&] { other(numbers); });
}

void Find(Numbers& numbers) { EXPECT_EQ(numbers.count(6), 0U); }

void GoThrough(Numbers& numbers) {
  for (const auto& [number, value] : numbers) EXPECT_GE(number + value, 0);
}

void GoBackThrough(Numbers& numbers) {
  for (auto it = numbers.rbegin(); it != numbers.rend(); ++it) {
    EXPECT_GE(it->first, 0);
  }
}

TEST(Races, FindsChangesOfAMapThatIsLookedAt) {
  for (const auto& look : {Find, GoThrough, GoBackThrough}) {
    ExpectRace([&] { InsertBeside(look); });
    ExpectRace([&] { EraseBeside(look); });
  }
}

TEST(Races, FindsNoneInAMapThatTwoLookAt) {
  ExpectNone([] {
    Numbers numbers = TwentyNumbers();
    const auto look = [&] {
      Find(numbers);
      GoThrough(numbers);
      GoBackThrough(numbers);
    };
    InTwoThreads(look, look);
  });
}

// Of any shape: balancing turns what lies on the way to the root.
TEST(Races, FindsNoneInAMapThatIsLockedAndChanges) {
  ExpectNone([] {
    Numbers numbers = TwentyNumbers();
    std::mutex mutex;
    const auto change = [&](int first) {
      for (int turn = 0; turn < 2; ++turn) {
        const std::lock_guard<std::mutex> lock(mutex);
        for (int i = 0; i < 20; ++i) {
          numbers.emplace(first + 7 * i + turn, i);
          numbers.erase(first + 3 * i);
        }
        GoThrough(numbers);
      }
    };
    InTwoThreads([&] { change(1); }, [&] { change(2); });
  });
}

TEST(Races, FindsChangesOfAListThatIsLookedAt) {
  const auto beside = [](absl::FunctionRef<void(std::list<int>&)> change) {
    ExpectRace([&] {
      std::list<int> items = {3, 1, 2};
      InTwoThreads([&] { change(items); },
                   [&] {
                     for (const int item : items) EXPECT_GT(item, 0);
                   });
    });
  };
  beside([](std::list<int>& items) { items.push_back(4); });
  beside([](std::list<int>& items) { items.erase(std::next(items.begin())); });
  beside([](std::list<int>& items) { items.reverse(); });
  beside([](std::list<int>& items) { items.sort(); });
  beside([](std::list<int>& items) {
    items.splice(items.end(), items, items.begin());
  });
}

TEST(Races, FindsAHashOfAStringThatChanges) {
  ExpectRace([] {
    std::string name = "a name that is longer than its object";
    InTwoThreads([&] { EXPECT_NE(std::hash<std::string>()(name), 0U); },
                 [&] { name[30] = 'x'; });
  });
}

TEST(Races, FindsUnlockedString) {
  ExpectRace([] {
    std::string log;
    InTwoThreads([&] { log += "one"; }, [&] { log += "two"; });
  });
}

TEST(Races, FindsUnlockedVector) {
  ExpectRace([] {
    std::vector<int> items;
    InTwoThreads([&] { items.push_back(1); }, [&] { items.push_back(2); });
  });
}

// The C++ library's locale remembers which characters it has been asked of;
// each thread finds the same.
TEST(Races, FindsNoneInExpressionsThatTwoMake) {
  ExpectNone(
      [] {
        const auto match = [] {
          EXPECT_TRUE(std::regex_match("a17b", std::regex("a[0-9]+b")));
        };
        InTwoThreads(match, match);
      },
      10);
}

struct Big {
  char bytes[300];
};

TEST(Races, FindsCopyOfWhatIsWritten) {
  ExpectRace([] {
    auto big = std::make_unique<Big>();
    auto copy = std::make_unique<Big>();
    InTwoThreads([&] { big->bytes[200] = 1; },
                 [&] { std::memcpy(copy.get(), big.get(), sizeof(Big)); });
  });
}

// --- what the C library writes ---

// Runs it in two threads: what it uses is not for two at once, but for one
// after the other.
void ExpectToNeedALock(void (*use)()) {
  ExpectRace([use] { InTwoThreads(use, use); });
  ExpectNone(
      [use] {
        std::mutex mutex;
        const auto locked = [&mutex, use] {
          const std::lock_guard<std::mutex> lock(mutex);
          use();
        };
        InTwoThreads(locked, locked);
      },
      100);
}

char line[32];

int Print(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int size = vsnprintf(line, sizeof(line), format, arguments);
  va_end(arguments);
  return size;
}

int PrintUnbounded(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int size = vsprintf(line, format, arguments);
  va_end(arguments);
  return size;
}

TEST(Races, FindsWhatIsPrintedToOneLine) {
  ExpectToNeedALock(
      [] { EXPECT_EQ(snprintf(line, sizeof(line), "%d", 42), 2); });
  ExpectToNeedALock([] { EXPECT_EQ(sprintf(line, "%d", 42), 2); });
  ExpectToNeedALock([] { EXPECT_EQ(Print("%d", 42), 2); });
  ExpectToNeedALock([] { EXPECT_EQ(PrintUnbounded("%d", 42), 2); });
  // Some of the arguments are on the stack.
  ExpectToNeedALock([] {
    EXPECT_EQ(snprintf(line, sizeof(line), "%d %d %d %d %d", 1, 2, 3, 4, 5), 9);
  });
}

TEST(Races, FindsAFormatThatChanges) {
  ExpectRace([] {
    std::string format = "numbers: %d";
    InTwoThreads(
        [&] {
          char text[32];
          EXPECT_GT(snprintf(text, sizeof(text), format.c_str(), 42), 0);
        },
        [&] { format[7] = ';'; });
  });
}

// What comes after the text, and after the end of it, is another's.
TEST(Races, KnowsHowMuchIsPrinted) {
  for (const size_t size : {4, 3}) {
    const auto print = [size] {
      EXPECT_EQ(snprintf(line, size, "%d", size == 4 ? 142 : 1142),
                size == 4 ? 3 : 4);
    };
    ExpectNone([&] { InTwoThreads(print, [size] { line[size] = 'x'; }); }, 300);
    ExpectRace([&] { InTwoThreads(print, [size] { line[size - 1] = 'x'; }); });
  }
}

// NOLINTBEGIN(concurrency-mt-unsafe): so it is.

TEST(Races, FindsTimesInOnePlace) {
  ExpectToNeedALock([] {
    const time_t now = 1000;
    EXPECT_EQ(gmtime(&now)->tm_min, 16);
  });
  ExpectToNeedALock([] {
    const time_t now = 1000;
    EXPECT_EQ(localtime(&now)->tm_sec, 40);
  });
  ExpectToNeedALock([] {
    const tm day = {};
    EXPECT_EQ(asctime(&day)[0], 'S');
  });
  ExpectToNeedALock([] {
    const time_t now = 1000;
    EXPECT_NE(ctime(&now)[0], '\0');
  });
  ExpectRace([] {
    const time_t now = 1000;
    InTwoThreads([&] { EXPECT_EQ(localtime(&now)->tm_sec, 40); },
                 [&] { EXPECT_NE(ctime(&now), nullptr); });
  });
}

TEST(Races, FindsTimesThatTwoHaveWritten) {
  static tm day;
  static char text[32];
  ExpectToNeedALock([] {
    const time_t now = 1000;
    EXPECT_NE(gmtime_r(&now, &day), nullptr);
  });
  ExpectToNeedALock([] {
    const time_t now = 1000;
    EXPECT_NE(localtime_r(&now, &day), nullptr);
  });
  ExpectToNeedALock([] {
    const tm other = {};
    EXPECT_NE(asctime_r(&other, text), nullptr);
  });
  ExpectToNeedALock([] {
    const time_t now = 1000;
    EXPECT_NE(ctime_r(&now, text), nullptr);
  });
  ExpectToNeedALock(
      [] { EXPECT_EQ(strerror_r(-1, text, sizeof(text)), text); });
  ExpectNone(
      [] {
        const auto use = [] {
          const time_t now = 1000;
          tm mine;
          char my_text[32];
          EXPECT_EQ(asctime_r(gmtime_r(&now, &mine), my_text)[0], 'T');
          EXPECT_EQ(mine.tm_sec, 40);
        };
        InTwoThreads(use, use);
      },
      300);
}

TEST(Races, FindsStringsThatAreCutAtOnce) {
  ExpectToNeedALock([] {
    char words[] = "two words";
    EXPECT_STREQ(strtok(words, " "), "two");
    EXPECT_STREQ(strtok(nullptr, " "), "words");
    EXPECT_EQ(strtok(nullptr, " "), nullptr);
  });
  ExpectNone(
      [] {
        const auto cut = [] {
          char words[] = "two words";
          char* rest = nullptr;
          EXPECT_STREQ(strtok_r(words, " ", &rest), "two");
          EXPECT_STREQ(strtok_r(nullptr, " ", &rest), "words");
          EXPECT_EQ(strtok_r(nullptr, " ", &rest), nullptr);
        };
        InTwoThreads(cut, cut);
      },
      300);
}

// A character is written where a word ends, but not at the end of all.
TEST(Races, KnowsWhatIsCut) {
  const auto look_beside_cut = [](size_t at) {
    return [at] {
      char words[] = "two words";
      char* rest = nullptr;
      InTwoThreads(
          [&] {
            EXPECT_STREQ(strtok_r(words, " ", &rest), "two");
            EXPECT_STREQ(strtok_r(nullptr, " ", &rest), "words");
          },
          [&] { EXPECT_NE(words[at], 'x'); });
    };
  };
  ExpectNone(look_beside_cut(0), 300);
  ExpectRace(look_beside_cut(3));
  ExpectNone(look_beside_cut(9), 300);
  ExpectRace([] {
    char words[] = "two words";
    InTwoThreads(
        [&] {
          char* rest = nullptr;
          EXPECT_STREQ(strtok_r(words, " ", &rest), "two");
        },
        [&] { words[1] = 'o'; });
  });
}

TEST(Races, FindsAnEnvironmentThatChanges) {
  const auto beside = [](void (*change)()) {
    ExpectRace([change] {
      InTwoThreads(change, [] { EXPECT_EQ(getenv("WARD_NONE"), nullptr); });
    });
  };
  beside([] { EXPECT_EQ(setenv("WARD_SOME", "1", /*replace=*/1), 0); });
  static char some[] = "WARD_SOME=2";
  beside([] { EXPECT_EQ(putenv(some), 0); });
  beside([] { EXPECT_EQ(unsetenv("WARD_SOME"), 0); });
  ExpectNone(
      [] {
        const auto look = [] { EXPECT_EQ(getenv("WARD_NONE"), nullptr); };
        InTwoThreads(look, look);
      },
      300);
}

// NOLINTEND(concurrency-mt-unsafe)

// --- publication ---

struct Config {
  int port = 80;
};

TEST(Races, FindsPublicationWithoutOrder) {
  ExpectRace([] {
    std::atomic<Config*> current{nullptr};
    Config config;
    InTwoThreads(
        [&] {
          config.port = 8080;
          current.store(&config, std::memory_order_relaxed);
        },
        [&] {
          if (const Config* const found = current.load()) {
            EXPECT_EQ(found->port, 8080);
          }
        });
  });
}

TEST(Races, FindsNoneInPublication) {
  ExpectNone([] {
    std::atomic<Config*> current{nullptr};
    Config config;
    InTwoThreads(
        [&] {
          config.port = 8080;
          current.store(&config, std::memory_order_release);
        },
        [&] {
          if (const Config* const found =
                  current.load(std::memory_order_acquire)) {
            EXPECT_EQ(found->port, 8080);
          }
        });
  });
}

TEST(Races, FindsDoubleCheckWithoutAtomic) {
  ExpectRace([] {
    std::mutex mutex;
    Config* made = nullptr;
    Config config;
    const auto get = [&] {
      if (made == nullptr) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (made == nullptr) {
          config.port = 8080;
          made = &config;
        }
      }
      EXPECT_EQ(made->port, 8080);
    };
    InTwoThreads(get, get);
  });
}

// --- what orders threads ---

TEST(Races, KnowsSharedLocks) {
  ExpectNone([] {
    std::shared_mutex mutex;
    int value = 0;
    InTwoThreads(
        [&] {
          const std::shared_lock<std::shared_mutex> lock(mutex);
          EXPECT_GE(value, 0);
        },
        [&] {
          const std::lock_guard<std::shared_mutex> lock(mutex);
          ++value;
        });
  });
  ExpectRace([] {
    std::shared_mutex mutex;
    int value = 0;
    const auto count = [&] {
      const std::shared_lock<std::shared_mutex> lock(mutex);
      ++value;
    };
    InTwoThreads(count, count);
  });
}

TEST(Races, KnowsAbseilsSharedLocks) {
  ExpectNone([] {
    absl::Mutex mutex;
    int value = 0;
    InTwoThreads(
        [&] {
          const absl::ReaderMutexLock lock(&mutex);
          EXPECT_GE(value, 0);
        },
        [&] {
          const absl::MutexLock lock(&mutex);
          ++value;
        });
  });
  ExpectRace([] {
    absl::Mutex mutex;
    int value = 0;
    const auto count = [&] {
      const absl::ReaderMutexLock lock(&mutex);
      ++value;
    };
    InTwoThreads(count, count);
  });
}

TEST(Races, KnowsConditions) {
  ExpectNone([] {
    std::mutex mutex;
    std::condition_variable condition;
    bool ready = false;
    int result = 0;
    InTwoThreads(
        [&] {
          result = 42;
          const std::lock_guard<std::mutex> lock(mutex);
          ready = true;
          condition.notify_one();
        },
        [&] {
          std::unique_lock<std::mutex> lock(mutex);
          condition.wait(lock, [&] { return ready; });
          EXPECT_EQ(result, 42);
        });
  });
}

TEST(Races, KnowsAbseilsConditions) {
  ExpectNone([] {
    absl::Mutex mutex;
    bool ready = false;
    bool taken = false;
    int result = 0;
    InTwoThreads(
        [&] {
          result = 42;
          absl::MutexLock lock(&mutex);
          ready = true;
          mutex.Await(absl::Condition(&taken));
          EXPECT_EQ(result, 43);
        },
        [&] {
          const absl::MutexLock lock(&mutex, absl::Condition(&ready));
          EXPECT_EQ(result, 42);
          result = 43;
          taken = true;
        });
  });
}

TEST(Races, KnowsAbseilsCondVar) {
  ExpectNone([] {
    absl::Mutex mutex;
    absl::CondVar condition;
    bool ready = false;
    int result = 0;
    InTwoThreads(
        [&] {
          result = 42;
          const absl::MutexLock lock(&mutex);
          ready = true;
          condition.SignalAll();
        },
        [&] {
          const absl::MutexLock lock(&mutex);
          while (!ready) condition.Wait(&mutex);
          EXPECT_EQ(result, 42);
        });
  });
}

TEST(Races, KnowsNotifications) {
  ExpectNone([] {
    absl::Notification done;
    int result = 0;
    InTwoThreads(
        [&] {
          result = 42;
          done.Notify();
        },
        [&] {
          if (done.HasBeenNotified()) {
            EXPECT_EQ(result, 42);
          }
          done.WaitForNotification();
          EXPECT_EQ(result, 42);
        });
  });
}

TEST(Races, KnowsBlockingCounters) {
  ExpectNone([] {
    absl::BlockingCounter counter(2);
    int results[2] = {};
    std::thread first([&] {
      results[0] = 1;
      counter.DecrementCount();
    });
    std::thread second([&] {
      results[1] = 1;
      counter.DecrementCount();
    });
    counter.Wait();
    EXPECT_EQ(results[0] + results[1], 2);
    first.join();
    second.join();
  });
}

TEST(Races, KnowsBarriers) {
  ExpectNone([] {
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, nullptr, 2);
    int results[2] = {};
    const auto run = [&](int self) {
      for (int round = 1; round < 3; ++round) {
        results[self] = round;
        pthread_barrier_wait(&barrier);
        EXPECT_EQ(results[1 - self], round);
        pthread_barrier_wait(&barrier);
      }
    };
    InTwoThreads([&] { run(0); }, [&] { run(1); });
    pthread_barrier_destroy(&barrier);
  });
}

TEST(Races, KnowsSemaphores) {
  ExpectNone([] {
    sem_t semaphore;
    sem_init(&semaphore, 0, 0);
    int result = 0;
    InTwoThreads(
        [&] {
          result = 42;
          sem_post(&semaphore);
        },
        [&] {
          sem_wait(&semaphore);
          EXPECT_EQ(result, 42);
        });
    sem_destroy(&semaphore);
  });
}

TEST(Races, KnowsCallOnce) {
  ExpectNone([] {
    std::once_flag once;
    int result = 0;
    const auto get = [&] {
      std::call_once(once, [&] { result = 42; });
      EXPECT_EQ(result, 42);
    };
    InTwoThreads(get, get);
  });
}

// Who comes to it does not release what it did before.
TEST(Races, FindsWhatCallOnceDoesNotOrder) {
  ExpectRace([] {
    std::once_flag once;
    int other = 0;
    std::call_once(once, [] {});
    const auto run = [&] {
      std::call_once(once, [] {});
      ++other;
      std::call_once(once, [] {});
    };
    InTwoThreads(run, run);
  });
}

TEST(Races, KnowsFutures) {
  ExpectNone([] {
    int other = 0;
    std::promise<int> promise;
    std::future<int> future = promise.get_future();
    InTwoThreads(
        [&] {
          other = 1;
          promise.set_value(42);
        },
        [&] {
          EXPECT_EQ(future.get(), 42);
          EXPECT_EQ(other, 1);
        });
  });
}

TEST(Races, KnowsSharedPointers) {
  ExpectNone([] {
    auto shared = std::make_shared<Config>();
    std::thread thread([shared] { EXPECT_EQ(shared->port, 80); });
    shared.reset();
    thread.join();
  });
}

TEST(Races, FindsWhatSharedPointersDoNotOrder) {
  ExpectRace([] {
    auto shared = std::make_shared<Config>();
    std::thread thread([shared] { ++shared->port; });
    ++shared->port;
    shared.reset();
    thread.join();
  });
}

// A spin lock, whose loops wait for the other thread without a word.
TEST(Races, KnowsSpinLocks) {
  ExpectNone([] {
    std::atomic_flag taken = ATOMIC_FLAG_INIT;
    int counter = 0;
    const auto count = [&] {
      while (taken.test_and_set(std::memory_order_acquire)) {
      }
      ++counter;
      taken.clear(std::memory_order_release);
    };
    InTwoThreads(count, count);
    EXPECT_EQ(counter, 2);
  });
}

// Threads that come after another one have its stack, and its variables.
TEST(Races, ForgetsEndedThreads) {
  ExpectNone([] {
    static thread_local int own = 0;
    for (int i = 0; i < 3; ++i) {
      std::thread([] {
        std::vector<int> items;
        int local = ++own;
        const std::function<void()> write = [&] { items.push_back(++local); };
        write();
      }).detach();
      std::this_thread::sleep_for(std::chrono::seconds(1));
    }
  });
}

TEST(Races, KnowsPipes) {
  ExpectNone([] {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    int result = 0;
    InTwoThreads(
        [&] {
          result = 42;
          EXPECT_EQ(write(ends[1], "x", 1), 1);
        },
        [&] {
          char byte;
          EXPECT_EQ(read(ends[0], &byte, 1), 1);
          EXPECT_EQ(result, 42);
        });
    close(ends[0]);
    close(ends[1]);
  });
}

// Each end is opened after what was done before the other was.
TEST(Races, KnowsFifos) {
  ExpectNone([] {
    const std::string path =
        absl::StrCat(std::getenv("TEST_TMPDIR"), "/fifo.", int{getpid()});
    unlink(path.c_str());
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    int one = 0;
    int other = 0;
    InTwoThreads(
        [&] {
          one = 42;
          const int end = open(path.c_str(), O_WRONLY);
          EXPECT_EQ(other, 43);
          close(end);
        },
        [&] {
          other = 43;
          const int end = open(path.c_str(), O_RDONLY);
          EXPECT_EQ(one, 42);
          close(end);
        });
    unlink(path.c_str());
  });
}

// --- atomics as points ---

TEST(Atomics, AreSchedulingPoints) {
  const Exploration::Failure failure = Failure([] {
    std::atomic<int> counter{0};
    const auto count = [&] { counter = counter + 1; };
    InTwoThreads(count, count);
    EXPECT_EQ(counter, 2);
  });
  EXPECT_THAT(failure.what, HasSubstr("Expected equality"));
  EXPECT_LE(failure.deviations.size(), 2U);
}

TEST(Atomics, MayFailForNoReasonIfWeak) {
  const auto exchange = [] {
    std::atomic<int> number{0};
    int expected = 0;
    EXPECT_TRUE(number.compare_exchange_weak(expected, 1));
  };
  ExpectNone(exchange);
  ExploreOptions options = Runs();
  options.delays = true;
#ifdef __clang__  // Says of none that it is weak.
  constexpr bool kIsTold = false;
#else
  constexpr bool kIsTold = true;
#endif
  EXPECT_EQ(FindFailure(options, exchange).failure.has_value(), kIsTold);
  // Not twice in a row.
  EXPECT_FALSE(FindFailure(options, [] {
                 std::atomic<int> number{0};
                 int expected = 0;
                 while (!number.compare_exchange_weak(expected, 1)) {
                 }
               }).failure.has_value());
}

TEST(Atomics, MayHaveSixteenBytes) {
  ExpectNone([] {
    std::atomic<unsigned __int128> both{0};
    int result = 0;
    InTwoThreads(
        [&] {
          result = 42;
          both.store(1, std::memory_order_release);
        },
        [&] {
          if (both.load(std::memory_order_acquire) == 1) {
            EXPECT_EQ(result, 42);
          }
        });
  });
}

// --- memory that was given back ---

// Looks under the lock whether it is still there.
void UseAndDelete(bool use_under_lock) {
  std::mutex mutex;
  auto* config = new Config;
  InTwoThreads(
      [&] {
        std::unique_lock<std::mutex> lock(mutex);
        const Config* const found = config;
        if (!use_under_lock) lock.unlock();
        if (found != nullptr) {
          EXPECT_EQ(found->port, 80);
        }
      },
      [&] {
        const Config* old = nullptr;
        {
          const std::lock_guard<std::mutex> lock(mutex);
          old = std::exchange(config, nullptr);
        }
        delete old;
      });
}

TEST(Lifetimes, FindsUseAfterCheck) {
  ExpectFailure("a use after free: ", [] { UseAndDelete(false); });
}

TEST(Lifetimes, FindsNoneUnderLock) {
  ExpectNone([] { UseAndDelete(true); });
}

void DeleteTwice(bool under_lock) {
  std::mutex mutex;
  auto* config = new Config;
  const auto end = [&] {
    std::unique_lock<std::mutex> lock(mutex);
    const Config* const found = config;
    if (under_lock) config = nullptr;
    lock.unlock();
    delete found;
    lock.lock();
    config = nullptr;
  };
  InTwoThreads(end, end);
}

TEST(Lifetimes, FindsDoubleFree) {
  ExpectFailure("a double free: ", [] { DeleteTwice(false); });
}

TEST(Lifetimes, FindsNoDoubleFree) {
  ExpectNone([] { DeleteTwice(true); });
}

TEST(Lifetimes, FindsUseOfWhatAVectorHasLeft) {
  ExpectFailure("a use after free: ", [] {
    std::vector<int> items = {1};
    std::mutex mutex;
    InTwoThreads(
        [&] {
          const int* first = nullptr;
          {
            const std::lock_guard<std::mutex> lock(mutex);
            first = items.data();
          }
          EXPECT_EQ(*first, 1);
        },
        [&] {
          const std::lock_guard<std::mutex> lock(mutex);
          items.push_back(2);
        });
  });
}

// --- what orders threads lies in memory, too ---

struct Request {
  std::mutex mutex;
  std::condition_variable changed;
  bool is_done = false;
};

void NotifyAfterUnlock(bool unlocks) {
  auto* const request = new Request;
  InTwoThreads(
      [request, unlocks] {
        std::unique_lock<std::mutex> lock(request->mutex);
        request->is_done = true;
        if (unlocks) lock.unlock();
        request->changed.notify_one();
      },
      [request] {
        {
          std::unique_lock<std::mutex> lock(request->mutex);
          request->changed.wait(lock, [&] { return request->is_done; });
        }
        delete request;
      });
}

// Of the condition, which was destroyed and freed.
TEST(Lifetimes, FindsNotificationOfWhatTheWaiterDeletes) {
  ExpectFailure("a use after ", [] { NotifyAfterUnlock(true); });
}

TEST(Lifetimes, FindsNoneInNotificationUnderLock) {
  ExpectNone([] { NotifyAfterUnlock(false); });
}

struct AbseilsRequest {
  absl::Mutex mutex;
  absl::CondVar changed;
  bool is_done = false;
};

void SignalAfterUnlock(bool unlocks) {
  auto* const request = new AbseilsRequest;
  InTwoThreads(
      [request, unlocks] {
        {
          absl::MutexLock lock(&request->mutex);
          request->is_done = true;
          if (!unlocks) request->changed.Signal();
        }
        if (unlocks) request->changed.Signal();
      },
      [request] {
        {
          absl::MutexLock lock(&request->mutex);
          while (!request->is_done) request->changed.Wait(&request->mutex);
        }
        delete request;
      });
}

TEST(Lifetimes, FindsSignalOfWhatTheWaiterDeletes) {
  ExpectFailure("a use after free: ", [] { SignalAfterUnlock(true); });
}

TEST(Lifetimes, FindsNoneInSignalUnderLock) {
  ExpectNone([] { SignalAfterUnlock(false); });
}

// Runs `use` of an object while, or before, that is deleted.
template <typename T>
void DeleteWhileUsed(void (*use)(T&), bool waits) {
  auto* const object = new T();  // A semaphore of 0.
  std::thread thread([object, use] { use(*object); });
  if (waits) thread.join();
  delete object;
  if (!waits) thread.join();
}

template <typename T>
void ExpectUseAfterFree(void (*use)(T&)) {
  ExpectFailure("a use after free: ",
                [use] { DeleteWhileUsed(use, /*waits=*/false); });
  ExpectNone([use] { DeleteWhileUsed(use, /*waits=*/true); }, 300);
}

TEST(Lifetimes, FindsDeletionsOfWhatIsLocked) {
  ExpectUseAfterFree<std::mutex>(
      [](std::mutex& mutex) { const std::lock_guard lock(mutex); });
  ExpectUseAfterFree<std::shared_mutex>(
      [](std::shared_mutex& mutex) { const std::shared_lock lock(mutex); });
  ExpectUseAfterFree<absl::Mutex>(
      [](absl::Mutex& mutex) { absl::MutexLock lock(&mutex); });
}

TEST(Lifetimes, FindsDeletionsOfWhatIsWaitedFor) {
  ExpectUseAfterFree<std::condition_variable>(
      [](std::condition_variable& changed) { changed.notify_all(); });
  ExpectUseAfterFree<absl::CondVar>(
      [](absl::CondVar& changed) { changed.SignalAll(); });
  ExpectUseAfterFree<absl::Notification>(
      [](absl::Notification& notification) { notification.Notify(); });
  ExpectUseAfterFree<std::once_flag>(
      [](std::once_flag& once) { std::call_once(once, [] {}); });
  ExpectUseAfterFree<sem_t>([](sem_t& semaphore) { sem_post(&semaphore); });
}

// --- what orders threads has an end where it is not freed, too ---

// As a latch on a stack.
class Latch {
 public:
  void Open(bool unlocks) {
    std::unique_lock<std::mutex> lock(mutex_);
    is_open_ = true;
    if (unlocks) lock.unlock();
    changed_.notify_one();
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return is_open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_open_ = false;
};

void OpenLatch(bool unlocks) {
  std::thread thread;
  {
    Latch latch;
    thread = std::thread([&latch, unlocks] { latch.Open(unlocks); });
    latch.Wait();
  }
  thread.join();
}

TEST(Lifetimes, FindsNotificationOfWhatTheWaiterDestroys) {
  const Exploration::Failure failure = Failure([] { OpenLatch(true); });
  EXPECT_THAT(failure.what, AllOf(StartsWith("a use after destruction: "),
                                  HasSubstr("a destruction at ")));
  EXPECT_TRUE(failure.replayed);
}

TEST(Lifetimes, FindsNoneInNotificationOfALatchUnderLock) {
  ExpectNone([] { OpenLatch(false); }, 1000);
}

// Where who has signalled to all destroys the condition, others may be on their
// way out of it.
TEST(Lifetimes, FindsNoneInDestructionAfterASignalToAll) {
  ExpectNone(
      [] {
        std::mutex mutex;
        auto changed = std::make_unique<std::condition_variable>();
        bool waits = false;
        bool is_done = false;
        InTwoThreads(
            [&] {
              std::unique_lock<std::mutex> lock(mutex);
              waits = true;
              while (!is_done) changed->wait(lock);
            },
            [&] {
              const std::lock_guard<std::mutex> lock(mutex);
              if (waits) changed->notify_all();
              if (waits) changed.reset();
              is_done = true;
            });
      },
      1000);
}

// Runs `use` of an object of C while, or before, that is destroyed.
template <typename T>
void ExpectUseAfterDestruction(int (*make)(T*), int (*use)(T*),
                               int (*destroy)(T*)) {
  const auto run = [=](bool waits) {
    T object;
    EXPECT_EQ(make(&object), 0);
    std::thread thread([&object, use] { EXPECT_EQ(use(&object), 0); });
    if (waits) thread.join();
    destroy(&object);
    if (!waits) thread.join();
  };
  ExpectFailure("a use after destruction: ", [run] { run(/*waits=*/false); });
  ExpectNone([run] { run(/*waits=*/true); }, 100);
}

TEST(Lifetimes, FindsEndsOfWhatIsUsed) {
  ExpectUseAfterDestruction<pthread_mutex_t>(
      [](pthread_mutex_t* mutex) { return pthread_mutex_init(mutex, nullptr); },
      [](pthread_mutex_t* mutex) {
        return pthread_mutex_lock(mutex) + pthread_mutex_unlock(mutex);
      },
      [](pthread_mutex_t* mutex) { return pthread_mutex_destroy(mutex); });
  ExpectUseAfterDestruction<pthread_cond_t>(
      [](pthread_cond_t* changed) {
        return pthread_cond_init(changed, nullptr);
      },
      [](pthread_cond_t* changed) { return pthread_cond_signal(changed); },
      [](pthread_cond_t* changed) { return pthread_cond_destroy(changed); });
  ExpectUseAfterDestruction<pthread_rwlock_t>(
      [](pthread_rwlock_t* lock) { return pthread_rwlock_init(lock, nullptr); },
      [](pthread_rwlock_t* lock) {
        return pthread_rwlock_rdlock(lock) + pthread_rwlock_unlock(lock);
      },
      [](pthread_rwlock_t* lock) { return pthread_rwlock_destroy(lock); });
  ExpectUseAfterDestruction<pthread_barrier_t>(
      [](pthread_barrier_t* barrier) {
        return pthread_barrier_init(barrier, nullptr, 1);
      },
      [](pthread_barrier_t* barrier) {
        // NOLINTNEXTLINE(bugprone-posix-return): this one is -1.
        return pthread_barrier_wait(barrier) == PTHREAD_BARRIER_SERIAL_THREAD
                   ? 0
                   : -1;
      },
      [](pthread_barrier_t* barrier) {
        return pthread_barrier_destroy(barrier);
      });
  ExpectUseAfterDestruction<pthread_spinlock_t>(
      [](pthread_spinlock_t* lock) { return pthread_spin_init(lock, 0); },
      [](pthread_spinlock_t* lock) {
        return pthread_spin_lock(lock) + pthread_spin_unlock(lock);
      },
      [](pthread_spinlock_t* lock) { return pthread_spin_destroy(lock); });
  ExpectUseAfterDestruction<sem_t>(
      [](sem_t* semaphore) { return sem_init(semaphore, 0, 0); },
      [](sem_t* semaphore) { return sem_post(semaphore); },
      [](sem_t* semaphore) { return sem_destroy(semaphore); });
}

TEST(Lifetimes, FindsEndsOfWhatCUses) {
  ExpectUseAfterDestruction<mtx_t>(
      [](mtx_t* mutex) { return mtx_init(mutex, mtx_plain); },
      [](mtx_t* mutex) { return mtx_lock(mutex) + mtx_unlock(mutex); },
      [](mtx_t* mutex) {
        mtx_destroy(mutex);
        return 0;
      });
  ExpectUseAfterDestruction<cnd_t>(
      [](cnd_t* changed) { return cnd_init(changed); },
      [](cnd_t* changed) { return cnd_signal(changed); },
      [](cnd_t* changed) {
        cnd_destroy(changed);
        return 0;
      });
}

// What is waited for may be deleted, by who has waited.
TEST(Lifetimes, FindsNoneInDeletionsAfterTheWait) {
  ExpectNone([] {
    auto* const notification = new absl::Notification;
    InTwoThreads([notification] { notification->Notify(); },
                 [notification] {
                   notification->WaitForNotification();
                   delete notification;
                 });
  });
  ExpectNone([] {
    auto* const counter = new absl::BlockingCounter(2);
    std::thread thread([counter] { counter->DecrementCount(); });
    InTwoThreads([counter] { counter->DecrementCount(); },
                 [counter] {
                   counter->Wait();
                   delete counter;
                 });
    thread.join();
  });
  ExpectNone([] {
    auto* const done = new sem_t;
    sem_init(done, 0, 0);
    InTwoThreads([done] { sem_post(done); },
                 [done] {
                   sem_wait(done);
                   delete done;
                 });
  });
  ExpectNone([] {
    auto* const mutex = new std::mutex;
    bool is_last = false;
    const auto leave = [&, mutex] {
      mutex->lock();
      const bool deletes = std::exchange(is_last, true);
      mutex->unlock();
      if (deletes) delete mutex;
    };
    InTwoThreads(leave, leave);
  });
}

TEST(Lifetimes, KnowsMemoryThatIsHandedOutAgain) {
  ExpectNone([] {
    for (int i = 0; i < 3; ++i) {
      auto number = std::make_unique<int>(i);
      std::thread thread([&] { ++*number; });
      thread.join();
      EXPECT_EQ(*number, i + 1);
      void* const moved = std::realloc(std::malloc(10), 1000);
      std::memset(moved, 0, 1000);
      std::free(moved);
    }
  });
}

// As much as there is room for, whatever the process's runs before have had.
TEST(Races, HasTheSameRoomInEachRun) {
  constexpr size_t kPage = 4096;
  static int runs = 0;
  const auto run = [] {
    if (runs == 2) return;
    // The first two of a process, elsewhere each time.
    const size_t size = (runs++ == 0 ? size_t{15} : size_t{28}) << 20;
    void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    auto* const bytes = static_cast<char*>(memory);
    for (size_t i = 0; i < size; i += kPage) ++bytes[i];
    if (runs == 1) return;
    InTwoThreads([&] { ++bytes[size - 1]; }, [&] { ++bytes[size - 1]; });
  };
  EXPECT_TRUE(FindFailure(Runs(100), run).failure.has_value());
}

// --- what a report says ---

constexpr int kLockedLine = __LINE__ + 3;
ABSL_ATTRIBUTE_NOINLINE void LockedInc(std::mutex& mutex, int& counter) {
  const std::lock_guard<std::mutex> lock(mutex);
  ++counter;
}

constexpr int kBareLine = __LINE__ + 1;
ABSL_ATTRIBUTE_NOINLINE void BareInc(int& counter) { ++counter; }

TEST(Reports, HaveBothStacksAndLocks) {
  const Exploration::Failure failure = Failure([] {
    int counter = 0;
    std::mutex mutex;
    InTwoThreads([&] { LockedInc(mutex, counter); }, [&] { BareInc(counter); });
  });
  const std::string locked = absl::StrCat("races_test.cc:", kLockedLine);
  const std::string bare = absl::StrCat("races_test.cc:", kBareLine);
  EXPECT_THAT(failure.what.substr(0, failure.what.find('\n')),
              AllOf(HasSubstr(locked), HasSubstr(bare)));
  EXPECT_THAT(failure.what,
              AllOf(HasSubstr("LockedInc"), HasSubstr("BareInc"),
                    HasSubstr("It held lock 1"), HasSubstr("It held no lock"),
                    HasSubstr("thread 1 of process 1")));
}

TEST(Reports, StandAmongTheStepsOfTheRun) {
  const auto body = [] {
    int counter = 0;
    InTwoThreads([&] { BareInc(counter); }, [&] { BareInc(counter); });
  };
  const std::string told = ExplainFailure(Runs(), Failure(body), body);
  EXPECT_THAT(told.substr(told.find("Step by step:")),
              ContainsRegex(absl::StrCat(
                  "  thread [01][^\n]*: FAILS: a data race: a [a-z]+ at [^\n]*"
                  "races_test.cc:",
                  kBareLine)))
      << told;
}

// By two calls, so that no two ways to its innermost ones are the same.
ABSL_ATTRIBUTE_NOINLINE void CallTwice(int depth, int& count) {
  ++count;
  if (depth == 0) return;
  CallTwice(depth - 1, count);
  CallTwice(depth - 1, count);
}

TEST(Reports, TakeNoMoreMemoryForMoreCalls) {
  const auto resident = [] {
    rusage used{};
    EXPECT_EQ(getrusage(RUSAGE_SELF, &used), 0);
    return used.ru_maxrss;  // In KB.
  };
  ExpectNone(
      [&] {
        const auto before = resident();
        int count = 0;
        CallTwice(21, count);
        EXPECT_EQ(count, (1 << 22) - 1);
        EXPECT_LT(resident() - before, 64 << 10);
      },
      1);
}

// The same ones again and again, and then others.
TEST(Reports, TakeNoMoreMemoryForMoreLocks) {
  const auto resident = [] {
    rusage used{};
    EXPECT_EQ(getrusage(RUSAGE_SELF, &used), 0);
    return used.ru_maxrss;  // In KB.
  };
  ExploreOptions options = Runs(1);
  options.max_steps = size_t{1} << 22;
  const Exploration exploration = FindFailure(options, [&] {
    constexpr size_t kLocks = 8;
    constexpr int kRounds = 30000;
    std::array<std::mutex, kLocks> mutexes;
    const auto before = resident();
    for (int i = 0; i < kRounds; ++i) {
      for (std::mutex& mutex : mutexes) mutex.lock();
      for (std::mutex& mutex : mutexes) mutex.unlock();
    }
    EXPECT_LT(resident() - before, 16 << 10);
  });
  EXPECT_FALSE(exploration.failure.has_value()) << exploration.failure->what;
}

// --- annotations ---

TEST(Races, LeavesAloneWhatIsSaidToBeBenign) {
  ExpectNone([] {
    int counter = 0;
    ABSL_ANNOTATE_BENIGN_RACE(&counter, "statistics");
    InTwoThreads([&] { ++counter; }, [&] { ++counter; });
  });
}

// In the same eight bytes.
TEST(Races, FindsRacesBesideWhatIsSaidToBeBenign) {
  struct alignas(8) Both {
    int value = 0;
    int hits = 0;
  };
  ExpectRace([] {
    Both both;
    ABSL_ANNOTATE_BENIGN_RACE(&both.hits, "statistics");
    InTwoThreads([&] { ++both.value; }, [&] { ++both.value; });
  });
  ExpectRace([] {
    Both both;
    ABSL_ANNOTATE_BENIGN_RACE(&both.value, "statistics");
    InTwoThreads([&] { ++both.hits; }, [&] { ++both.hits; });
  });
  ExpectNone([] {
    Both both;
    ABSL_ANNOTATE_BENIGN_RACE(&both.hits, "statistics");
    InTwoThreads([&] { ++both.hits; }, [&] { ++both.hits; });
  });
}

// Memory that is handed out there, or handed out again.
void* Map(void* at) {
  void* const memory = mmap(
      at, 4096, PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS | (at == nullptr ? 0 : MAP_FIXED), -1, 0);
  EXPECT_NE(memory, MAP_FAILED);
  return memory;
}

TEST(Races, ForgetsWhatWasBenignWithItsMemory) {
  constexpr uint64_t kFew = 100;
  auto* const number = static_cast<int*>(Map(nullptr));
  const auto race = [number] {
    InTwoThreads([&] { ++*number; }, [&] { ++*number; });
  };
  // Said, and handed out again, outside a run,
  ABSL_ANNOTATE_BENIGN_RACE(number, "statistics");
  ExpectNone(race, kFew);
  Map(number);
  ExpectRace(race);
  // in one,
  ABSL_ANNOTATE_BENIGN_RACE(number, "statistics");
  ExpectNone(race, kFew);
  ExpectRace([&] {
    Map(number);
    race();
  });
  // and both in one.
  ExpectRace([&] {
    ABSL_ANNOTATE_BENIGN_RACE(number, "statistics");
    Map(number);
    race();
  });
  munmap(number, 4096);
}

// What is said of an address holds, whatever is written there then.
TEST(Races, KnowsOrderThatIsSaid) {
  constexpr uint64_t kSome = 1000;
  ExpectNone(
      [] {
        bool ready = false;
        ABSL_ANNOTATE_BENIGN_RACE(&ready, "what orders it is said");
        int data = 0;
        InTwoThreads(
            [&] {
              data = 1;
              __tsan_release(&ready);
              ready = true;
            },
            [&] {
              if (ready) {
                __tsan_acquire(&ready);
                EXPECT_EQ(data, 1);
              }
            });
      },
      kSome);
  struct Node {
    Node* next = nullptr;
    int value = 0;
  };
  ExpectNone(
      [] {
        Node node;
        std::atomic<Node*> first{nullptr};
        InTwoThreads(
            [&] {
              node.value = 1;
              __tsan_release(&node);
              node.next = first.load(std::memory_order_relaxed);
              first.store(&node, std::memory_order_relaxed);
            },
            [&] {
              if (Node* const found = first.load(std::memory_order_relaxed)) {
                __tsan_acquire(found);
                EXPECT_EQ(found->value, 1);
              }
            });
      },
      kSome);
  ExpectNone(
      [] {
        std::atomic<bool> ready{false};
        int data = 0;
        InTwoThreads(
            [&] {
              data = 1;
              __tsan_release(&ready);
              ready.store(true, std::memory_order_relaxed);
            },
            [&] {
              if (ready.load(std::memory_order_relaxed)) {
                __tsan_acquire(&ready);
                EXPECT_EQ(data, 1);
              }
            });
      },
      kSome);
  // But not when the memory is another's.
  ExpectRace([] {
    void* const memory = Map(nullptr);
    std::atomic<bool> ready{false};
    int data = 0;
    InTwoThreads(
        [&] {
          data = 1;
          __tsan_release(memory);
          Map(memory);
          ready.store(true, std::memory_order_relaxed);
        },
        [&] {
          if (ready.load(std::memory_order_relaxed)) {
            __tsan_acquire(memory);
            EXPECT_EQ(data, 1);
          }
        });
    munmap(memory, 4096);
  });
}

// Who is the last to have it destroys what was thrown, whatever was written
// there.
TEST(Races, KnowsExceptionsThatAreWritten) {
  struct Error {
    Error() = default;
    Error(const Error&) {}
    Error& operator=(const Error&) = delete;
    ~Error() { code = 0; }

    int count = 0;
    volatile int code = 1;
  };
  ExpectNone([] {
    std::exception_ptr first = std::make_exception_ptr(Error());
    std::exception_ptr second = first;
    std::atomic<int> any{0};
    InTwoThreads(
        [&] {
          try {
            std::rethrow_exception(std::exchange(first, nullptr));
          } catch (const Error& error) {
            EXPECT_EQ(error.code, 1);
          }
        },
        [&] {
          try {
            std::rethrow_exception(std::exchange(second, nullptr));
          } catch (Error& error) {
            // The other one may come in between.
            any.load(std::memory_order_relaxed);
            ++error.count;
          }
        });
  });
}

// Inlined, Clang does not instrument it.
[[gnu::noinline]] void MakeAnew(std::atomic<int>& number) {
  new (&number) std::atomic<int>(2);
}

// An atomic that is made anew has not been written by who is not seen.
TEST(Races, FindsRacesBesideAtomicsThatAreMadeAnew) {
  ExpectRace([] {
    std::atomic<int> number{0};
    number.store(1);
    MakeAnew(number);
    std::atomic<bool> done{false};
    int other = 0;
    InTwoThreads(
        [&] {
          other = 1;
          done.store(true, std::memory_order_relaxed);
        },
        [&] {
          while (!done.load(std::memory_order_relaxed)) {
          }
          EXPECT_EQ(number.load(std::memory_order_acquire), 2);
          EXPECT_EQ(other, 1);
        });
  });
}

}  // namespace
}  // namespace ward::testing

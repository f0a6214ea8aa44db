// What libraries order threads by, and what they access: a program of each kind
// that has no race, and with what is told of a kind that it is found. This file
// is compiled with -fsanitize=thread.

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <future>
#include <iostream>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <semaphore>
#include <shared_mutex>
#include <sstream>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/attributes.h"
#include "absl/base/call_once.h"
#include "absl/base/dynamic_annotations.h"
#include "absl/synchronization/barrier.h"
#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/accesses/races_for_test.h"

namespace ward::testing {
namespace {

// Of one kind that is right; each is small.
constexpr uint64_t kFew = 500;

void ExpectOrder(const std::function<void()>& body) { ExpectNone(body, kFew); }

// `tell` is called once `data` is written, and `hear` before it is read.
template <typename Tell, typename Hear>
void Hand(Tell tell, Hear hear) {
  int data = 0;
  InTwoThreads(
      [&] {
        data = 42;
        tell();
      },
      [&] {
        hear();
        EXPECT_EQ(data, 42);
      });
}

// --- Abseil ---

// Who comes meanwhile waits in Abseil.
TEST(Abseil, OrdersByCallOnce) {
  ExpectOrder([] {
    absl::once_flag once;
    std::mutex mutex;
    int result = 0;
    const auto get = [&] {
      absl::call_once(once, [&] {
        const std::lock_guard<std::mutex> lock(mutex);
        result = 42;
      });
      EXPECT_EQ(result, 42);
    };
    std::thread other(get);
    InTwoThreads(get, get);
    other.join();
  });
}

TEST(Abseil, OrdersNotWhatIsBesideCallOnce) {
  ExpectRace([] {
    absl::once_flag once;
    int other = 0;
    const auto run = [&] {
      absl::call_once(once, [] {});
      ++other;
    };
    InTwoThreads(run, run);
  });
}

TEST(Abseil, OrdersByBarrier) {
  ExpectOrder([] {
    auto* const barrier = new absl::Barrier(2);
    int results[2] = {};
    const auto run = [&](int self) {
      results[self] = 1;
      const bool last = barrier->Block();
      EXPECT_EQ(results[1 - self], 1);
      if (last) delete barrier;
    };
    InTwoThreads([&] { run(0); }, [&] { run(1); });
  });
}

// --- the C++ library ---

TEST(StandardLibrary, OrdersByStaticVariables) {
  ExpectOrder([] {
    const auto get = [] {
      static const std::vector<int> kItems = {1, 2, 3};
      EXPECT_EQ(kItems.size(), 3U);
    };
    InTwoThreads(get, get);
  });
}

TEST(StandardLibrary, OrdersByMutexesOfEachKind) {
  const auto count = [](auto& mutex) {
    int counter = 0;
    const auto run = [&] {
      mutex.lock();
      ++counter;
      mutex.unlock();
      if (mutex.try_lock()) {
        ++counter;
        mutex.unlock();
      }
    };
    InTwoThreads(run, run);
  };
  ExpectOrder([&] {
    std::recursive_mutex mutex;
    count(mutex);
  });
  ExpectOrder([&] {
    std::timed_mutex mutex;
    count(mutex);
  });
  ExpectOrder([&] {
    std::shared_timed_mutex mutex;
    count(mutex);
  });
}

TEST(StandardLibrary, OrdersByConditionVariableAny) {
  ExpectOrder([] {
    std::shared_mutex mutex;
    std::condition_variable_any condition;
    bool ready = false;
    Hand(
        [&] {
          const std::lock_guard<std::shared_mutex> lock(mutex);
          ready = true;
          condition.notify_all();
        },
        [&] {
          std::shared_lock<std::shared_mutex> lock(mutex);
          condition.wait(lock, [&] { return ready; });
        });
  });
}

TEST(StandardLibrary, OrdersByThreadsEndThatNotifies) {
  ExpectOrder([] {
    std::mutex mutex;
    std::condition_variable condition;
    bool ready = false;
    Hand(
        [&] {
          std::unique_lock<std::mutex> lock(mutex);
          ready = true;
          std::notify_all_at_thread_exit(condition, std::move(lock));
        },
        [&] {
          std::unique_lock<std::mutex> lock(mutex);
          condition.wait(lock, [&] { return ready; });
        });
  });
}

TEST(StandardLibrary, OrdersByFutures) {
  ExpectOrder([] {
    int data = 0;
    std::future<std::string> made = std::async(std::launch::async, [&] {
      data = 42;
      return std::string(100, 'x');
    });
    EXPECT_EQ(made.get().size(), 100U);
    EXPECT_EQ(data, 42);
  });
  ExpectOrder([] {
    std::promise<void> promise;
    const std::shared_future<void> future = promise.get_future();
    Hand([&] { promise.set_value(); }, [future] { future.wait(); });
  });
  ExpectOrder([] {
    int data = 0;
    std::packaged_task<int()> task([&] { return data = 42; });
    std::future<int> future = task.get_future();
    std::thread thread(std::move(task));
    EXPECT_EQ(future.get(), data);
    thread.join();
  });
}

class Error : public std::exception {
 public:
  explicit Error(std::string text) : text_(std::move(text)) {}
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

// Whoever comes last destroys what was thrown.
TEST(StandardLibrary, OrdersByExceptions) {
  ExpectOrder([] {
    std::promise<void> promise;
    const std::shared_future<void> future = promise.get_future();
    const auto wait = [](const std::shared_future<void>& result) {
      try {
        result.get();
        ADD_FAILURE() << "nothing thrown";
      } catch (const Error& error) {
        EXPECT_EQ(std::strlen(error.what()), 50U);
      }
    };
    std::thread first(wait, future);
    std::thread second(wait, future);
    promise.set_exception(std::make_exception_ptr(Error(std::string(50, 'x'))));
    promise = std::promise<void>();
    first.join();
    second.join();
  });
  ExpectOrder([] {
    std::exception_ptr thrown =
        std::make_exception_ptr(Error(std::string(50, 'x')));
    const auto look = [](std::exception_ptr mine) {
      try {
        std::rethrow_exception(std::move(mine));
      } catch (const Error& error) {
        EXPECT_STREQ(error.what(), std::string(50, 'x').c_str());
      }
    };
    std::thread first(look, thrown);
    std::thread second(look, std::move(thrown));
    first.join();
    second.join();
  });
}

TEST(StandardLibrary, OrdersBySemaphores) {
  ExpectOrder([] {
    std::binary_semaphore semaphore(0);
    Hand([&] { semaphore.release(); }, [&] { semaphore.acquire(); });
  });
  ExpectOrder([] {
    std::counting_semaphore<8> semaphore(0);
    Hand([&] { semaphore.release(2); },
         [&] {
           while (!semaphore.try_acquire()) std::this_thread::yield();
         });
  });
}

TEST(StandardLibrary, OrdersByLatchesAndBarriers) {
  ExpectOrder([] {
    std::latch latch(1);
    Hand([&] { latch.count_down(); }, [&] { latch.wait(); });
  });
  ExpectOrder([] {
    int results[2] = {};
    int sum = 0;
    // By whoever comes last.
    const auto add = [&]() noexcept { sum = results[0] + results[1]; };
    std::barrier barrier(2, add);
    const auto run = [&](int self) {
      for (int round = 1; round < 3; ++round) {
        results[self] = round;
        barrier.arrive_and_wait();
        EXPECT_EQ(sum, 2 * round);
      }
    };
    InTwoThreads([&] { run(0); }, [&] { run(1); });
  });
}

TEST(StandardLibrary, OrdersByAtomicsThatAreWaitedFor) {
  ExpectOrder([] {
    std::atomic<int> stage{0};
    Hand(
        [&] {
          stage.store(1);
          stage.notify_all();
        },
        [&] { stage.wait(0); });
  });
  ExpectOrder([] {
    std::atomic_flag flag;
    Hand(
        [&] {
          flag.test_and_set();
          flag.notify_one();
        },
        [&] { flag.wait(false); });
  });
}

TEST(StandardLibrary, OrdersByStopTokens) {
  ExpectOrder([] {
    int data = 0;
    std::jthread thread([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) std::this_thread::yield();
      EXPECT_EQ(data, 42);
    });
    data = 42;
  });
  ExpectOrder([] {
    int data = 0;
    std::jthread thread([&](const std::stop_token& stop) {
      const std::stop_callback called(stop, [&] { EXPECT_EQ(data, 42); });
    });
    data = 42;
    thread.request_stop();
  });
}

TEST(StandardLibrary, OrdersByWeakPointers) {
  ExpectOrder([] {
    auto shared = std::make_shared<std::string>("text");
    const std::weak_ptr<std::string> weak = shared;
    InTwoThreads([&] { shared.reset(); },
                 [weak] {
                   if (const auto found = weak.lock()) {
                     EXPECT_EQ(*found, "text");
                   }
                 });
  });
}

// As a lock of them is one bit of a pointer; GCC's own load() unlocks it
// relaxed, so what it has read is not put before what a store() writes: a race
// of the library's, which is told.
TEST(StandardLibrary, OrdersByAtomicSharedPointers) {
  ExpectOrder([] {
    std::atomic<std::shared_ptr<std::string>> current;
    InTwoThreads([&] { current.store(std::make_shared<std::string>("text")); },
                 [&] {
                   if (const auto found = current.exchange(nullptr)) {
                     EXPECT_EQ(*found, "text");
                   }
                 });
  });
}

TEST(StandardLibrary, OrdersByStreams) {
  ExpectOrder([] {
    const auto write = [] {
      std::ostringstream text;
      text << 1 << ' ' << 2.5 << std::string(3, 'x') << std::endl;
      EXPECT_EQ(text.str(), "1 2.5xxx\n");
      std::clog << std::string() << "" << std::flush;
      const std::locale locale = std::locale::classic();
      EXPECT_EQ(locale.name(), "C");
    };
    InTwoThreads(write, write);
  });
}

// Destroyed when its thread ends.
struct Own {
  ~Own() {
    if (sum == nullptr) return;
    const std::lock_guard<std::mutex> lock(*mutex);
    *sum += value;
  }
  int value = 0;
  int* sum = nullptr;
  std::mutex* mutex = nullptr;
};
thread_local Own own;

TEST(StandardLibrary, OrdersByThreadsOwnObjects) {
  ExpectOrder([] {
    int sum = 0;
    std::mutex mutex;
    const auto run = [&] {
      own.sum = &sum;
      own.mutex = &mutex;
      ++own.value;
    };
    std::thread first(run);
    std::thread second(run);
    first.join();
    second.join();
    EXPECT_EQ(sum, 2);
  });
}

// --- atomics that are functions of a library ---

struct Triple {
  uint64_t a = 0;
  uint64_t b = 0;
  uint64_t c = 0;
};

template <typename T>
void HandBig(const T& value, std::memory_order store) {
  std::atomic<T> big{T{}};
  int data = 0;
  InTwoThreads(
      [&] {
        data = 42;
        big.store(value, store);
      },
      [&] {
        T expected = value;
        if (big.compare_exchange_strong(expected, T{},
                                        std::memory_order_acquire,
                                        std::memory_order_relaxed)) {
          EXPECT_EQ(data, 42);
        }
        const T found = big.exchange(value, std::memory_order_relaxed);
        EXPECT_TRUE(found.a == 0 || found.a == value.a);
      });
}

struct Odd {
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;
};

struct Pair {
  uint64_t a = 0;
  uint64_t b = 0;
};

TEST(BigAtomics, Order) {
  ExpectOrder([] { HandBig(Triple{1, 2, 3}, std::memory_order_release); });
  ExpectOrder([] { HandBig(Odd{1, 2, 3}, std::memory_order_release); });
  ExpectOrder([] { HandBig(Pair{1, 2}, std::memory_order_release); });
}

TEST(BigAtomics, OrderNothingIfRelaxed) {
  ExpectRace([] { HandBig(Triple{1, 2, 3}, std::memory_order_relaxed); });
  ExpectRace([] { HandBig(Odd{1, 2, 3}, std::memory_order_relaxed); });
  ExpectRace([] { HandBig(Pair{1, 2}, std::memory_order_relaxed); });
}

// Others come between a load and a store.
TEST(BigAtomics, ArePoints) {
  ExpectFailure("", [] {
    std::atomic<Triple> big{Triple{}};
    const auto count = [&] {
      Triple now = big.load();
      ++now.a;
      big.store(now);
    };
    InTwoThreads(count, count);
    EXPECT_EQ(big.load().a, 2U);
  });
}

TEST(BigAtomics, RaceWithPlainAccesses) {
  ExpectRace([] {
    std::atomic<Triple> big{Triple{}};
    auto& bare = reinterpret_cast<Triple&>(big);
    InTwoThreads([&] { bare.c = 1; }, [&] { big.store(Triple{1, 2, 3}); });
  });
}

// --- memory that the kernel hands out ---

void* Map(size_t size) {
  void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return memory;
}

// Nothing orders who had it with who has it next.
TEST(Mappings, AreForgotten) {
  constexpr size_t kSize = 1 << 20;
  ExpectOrder([] {
    const auto use = [] {
      auto* const bytes = static_cast<char*>(Map(kSize));
      bytes[100] = 1;
      bytes[kSize - 1] = 1;
      EXPECT_EQ(munmap(bytes, kSize), 0);
    };
    InTwoThreads(use, use);
  });
  ExpectOrder([] {
    const auto use = [] {
      auto* bytes = static_cast<char*>(Map(kSize));
      bytes[100] = 1;
      bytes =
          static_cast<char*>(mremap(bytes, kSize, 2 * kSize, MREMAP_MAYMOVE));
      bytes[100] = 1;
      bytes[2 * kSize - 1] = 1;
      bytes = static_cast<char*>(mremap(bytes, 2 * kSize, kSize, 0));
      EXPECT_EQ(munmap(bytes, kSize), 0);
    };
    InTwoThreads(use, use);
  });
}

TEST(Mappings, AreCheckedWhileTheyAreThere) {
  ExpectRace([] {
    constexpr size_t kSize = 1 << 20;
    auto* const bytes = static_cast<char*>(Map(kSize));
    InTwoThreads([&] { bytes[100] = 1; }, [&] { bytes[100] = 2; });
    EXPECT_EQ(munmap(bytes, kSize), 0);
  });
}

// --- memory that was given back ---

struct Config {
  int port = 80;
};

ABSL_ATTRIBUTE_NOINLINE int PortOf(const Config* config) {
  return config->port;
}
ABSL_ATTRIBUTE_NOINLINE void Delete(const Config* config) { delete config; }

TEST(Deletions, ComeBeforeNoUseOfTheSameThread) {
  ExpectFailure("a use after free: ", [] {
    const Config* volatile config = new Config;
    std::thread([&] {
      Delete(config);
      EXPECT_NE(PortOf(config), 12345);
    }).join();
  });
}

// Which came first does not matter.
TEST(Deletions, RaceWithUnorderedUses) {
  const Exploration::Failure failure = Failure([] {
    auto* const config = new Config;
    std::atomic<bool> used{false};
    InTwoThreads(
        [&] {
          EXPECT_EQ(PortOf(config), 80);
          used.store(true, std::memory_order_relaxed);
        },
        [&] {
          while (!used.load(std::memory_order_relaxed)) {
          }
          Delete(config);
        });
  });
  EXPECT_THAT(
      failure.what,
      ::testing::AllOf(::testing::StartsWith("a use after free: a deletion"),
                       ::testing::HasSubstr("PortOf"),
                       ::testing::HasSubstr("which nothing puts in order")));
}

TEST(Deletions, DoNotRaceWithOrderedUses) {
  ExpectOrder([] {
    auto* const config = new Config;
    std::atomic<bool> used{false};
    InTwoThreads(
        [&] {
          EXPECT_EQ(PortOf(config), 80);
          used.store(true, std::memory_order_release);
        },
        [&] {
          while (!used.load(std::memory_order_acquire)) {
          }
          Delete(config);
        });
  });
}

// --- annotations ---

int statistics = 0;
ABSL_ANNOTATE_BENIGN_RACE_STATIC(statistics, "said before main()");

TEST(Annotations, HoldForAllRunsOutsideOfOne) {
  ExpectOrder([] { InTwoThreads([] { ++statistics; }, [] { ++statistics; }); });
  int local = 0;
  ABSL_ANNOTATE_BENIGN_RACE(&local, "said outside a run");
  ExpectOrder([&] { InTwoThreads([&] { ++local; }, [&] { ++local; }); });
}

// What the first run alone says.
TEST(Annotations, HoldForVariablesOfTheProgram) {
  ExpectOrder([] {
    static int counter = 0;
    static const bool kIsSaid = [] {
      ABSL_ANNOTATE_BENIGN_RACE(&counter, "said once");
      return true;
    }();
    EXPECT_TRUE(kIsSaid);
    InTwoThreads([] { ++counter; }, [] { ++counter; });
  });
}

// --- functions of the C library that access memory ---

constexpr size_t kText = 40;

// `call` accesses what another thread writes, unordered.
void ExpectAccess(const std::function<void(char* text)>& call) {
  ExpectRace([&] {
    auto* const text = static_cast<char*>(std::malloc(kText));
    std::memset(text, 'x', kText);
    text[kText - 1] = '\0';
    InTwoThreads([&] { text[kText - 2] = 'x'; }, [&] { call(text); });
    std::free(text);
  });
}

// So that compilers do not know what is there.
const char* Same() {
  static const std::string& text = *new std::string(kText - 1, 'x');
  return text.c_str();
}

TEST(LibraryCalls, ReadMemory) {
  ExpectAccess(
      [](char* text) { EXPECT_EQ(std::memcmp(text, Same(), kText), 0); });
  ExpectAccess(
      [](char* text) { EXPECT_NE(std::memchr(text, '\0', kText), nullptr); });
  ExpectAccess([](char* text) { EXPECT_EQ(std::strlen(text), kText - 1); });
  ExpectAccess([](char* text) { EXPECT_EQ(strnlen(text, kText), kText - 1); });
  ExpectAccess([](char* text) { EXPECT_EQ(std::strcmp(text, Same()), 0); });
  ExpectAccess(
      [](char* text) { EXPECT_EQ(std::strncmp(Same(), text, kText), 0); });
  ExpectAccess([](char* text) {
    char copy[2 * kText] = "";
    std::strcpy(copy, text);
    std::strcat(copy, text);
    EXPECT_EQ(copy[2 * kText - 3], 'x');
  });
}

TEST(LibraryCalls, WriteMemory) {
  ExpectAccess([](char* text) { std::strcpy(text, Same()); });
  ExpectAccess([](char* text) { std::strncpy(text, Same(), kText - 1); });
  ExpectAccess([](char* text) { EXPECT_NE(stpcpy(text, Same()), nullptr); });
}

TEST(LibraryCalls, ReadNoMoreThanTheyHaveTo) {
  ExpectOrder([] {
    char text[kText] = "one";
    InTwoThreads([&] { text[20] = 'x'; },
                 [&] {
                   EXPECT_EQ(std::strlen(text), 3U);
                   EXPECT_NE(std::memcmp(text, Same(), kText), 0);
                   EXPECT_NE(std::strcmp(text, Same()), 0);
                   EXPECT_NE(std::memchr(text, 'e', kText), nullptr);
                 });
  });
}

// A pipe, or two sockets, with something to read.
class Ends {
 public:
  explicit Ends(bool sockets) {
    const int error =
        sockets ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends_) : pipe(ends_);
    if (error != 0 || ::write(ends_[1], Same(), kText) != ssize_t{kText}) {
      std::abort();
    }
  }
  Ends(const Ends&) = delete;
  Ends& operator=(const Ends&) = delete;
  ~Ends() {
    for (const int end : ends_) close(end);
  }
  int read() const { return ends_[0]; }
  int write() const { return ends_[1]; }

 private:
  int ends_[2];
};

// One of so many bytes, opened before any run.
int File() {
  static const int kFile = [] {
    std::FILE* const made = std::tmpfile();
    EXPECT_EQ(ftruncate(fileno(made), kText), 0);
    return fileno(made);
  }();
  return kFile;
}

TEST(LibraryCalls, FillBuffers) {
  File();
  ExpectAccess([](char* text) {
    EXPECT_EQ(read(Ends(false).read(), text, kText), ssize_t{kText});
  });
  ExpectAccess([](char* text) {
    EXPECT_EQ(pread(File(), text, kText, 0), ssize_t{kText});
  });
  ExpectAccess([](char* text) {
    EXPECT_EQ(pread64(File(), text, kText, 0), ssize_t{kText});
  });
  ExpectAccess([](char* text) {
    EXPECT_EQ(recv(Ends(true).read(), text, kText, 0), ssize_t{kText});
  });
  ExpectAccess([](char* text) {
    iovec pieces[] = {{text, 10}, {text + 10, kText - 10}};
    EXPECT_EQ(readv(Ends(true).read(), pieces, 2), ssize_t{kText});
  });
  ExpectAccess([](char* text) {
    iovec pieces[] = {{text, 10}, {text + 10, kText - 10}};
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = 2;
    EXPECT_EQ(recvmsg(Ends(true).read(), &message, 0), ssize_t{kText});
  });
}

TEST(LibraryCalls, SendBuffers) {
  File();
  ExpectAccess([](char* text) {
    EXPECT_EQ(write(Ends(false).write(), text, kText), ssize_t{kText});
  });
  ExpectAccess([](char* text) {
    EXPECT_EQ(pwrite(File(), text, kText, 0), ssize_t{kText});
  });
  ExpectAccess([](char* text) {
    EXPECT_EQ(pwrite64(File(), text, kText, 0), ssize_t{kText});
  });
  ExpectAccess([](char* text) {
    EXPECT_EQ(send(Ends(true).write(), text, kText, 0), ssize_t{kText});
  });
  // NOLINTNEXTLINE(readability-non-const-parameter): an iovec takes no other.
  ExpectAccess([](char* text) {
    const iovec piece = {text, kText};
    EXPECT_EQ(writev(Ends(true).write(), &piece, 1), ssize_t{kText});
  });
}

// What was sent is read by then, and what was received is there.
TEST(LibraryCalls, AreOrderedByWhatTheyCarry) {
  ExpectOrder([] {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    char sent[4] = "one";
    InTwoThreads([&] { EXPECT_EQ(write(ends[0], sent, sizeof(sent)), 4); },
                 [&] {
                   char received[4];
                   EXPECT_EQ(read(ends[1], received, sizeof(received)), 4);
                   sent[0] = received[0];
                 });
    close(ends[0]);
    close(ends[1]);
  });
}

}  // namespace
}  // namespace ward::testing

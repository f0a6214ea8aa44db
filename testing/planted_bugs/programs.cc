#include "ward/testing/planted_bugs/programs.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// A variable each access to which is a scheduling point, as one would be of
// code that is compiled for it.
class Variable {
 public:
  explicit Variable(int value = 0) : value_(value) {}
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

  int Get() const {
    Scheduler::Current()->Point("reading a variable", this, Use::kRead);
    return value_;
  }
  void Set(int value) {
    Scheduler::Current()->Point("writing a variable", this, Use::kWrite);
    value_ = value;
  }

 private:
  int value_;
};

// Locks only if told to.
using Lock = std::unique_lock<std::mutex>;
Lock LockIf(bool condition, std::mutex& mutex) {
  return condition ? Lock(mutex) : Lock(mutex, std::defer_lock);
}

class Threads {
 public:
  Threads() = default;
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
  ~Threads() {
    for (std::thread& thread : threads_) thread.join();
  }
  void Start(std::function<void()> body) {
    threads_.emplace_back(std::move(body));
  }

 private:
  std::vector<std::thread> threads_;
};

// Many set two variables, one after the other; one looks at both, and must see
// either both or none set: all have to be late with the second.
void Reorder(int threads, bool repaired) {
  std::mutex mutex;
  Variable a;
  Variable b;
  Threads all;
  for (int i = 1; i < threads; ++i) {
    all.Start([&] {
      const Lock lock = LockIf(repaired, mutex);
      a.Set(1);
      b.Set(-1);
    });
  }
  all.Start([&] {
    const Lock lock = LockIf(repaired, mutex);
    const int first = a.Get();
    const int second = b.Get();
    EXPECT_TRUE((first == 0 && second == 0) || (first == 1 && second == -1))
        << "half of the two was seen";
  });
}

// Two variables under a mutex each, the second of which follows from the first:
// who reads both finds the second late.
void TwoStage(int threads, bool repaired) {
  std::mutex mutex_a;
  std::mutex mutex_b;
  std::mutex whole;
  int a = 0;
  int b = 0;
  Threads all;
  for (int i = 1; i < threads; ++i) {
    all.Start([&] {
      const Lock lock = LockIf(repaired, whole);
      {
        const Lock lock_a(mutex_a);
        a = 1;
      }
      const Lock lock_b(mutex_b);
      b = a + 1;
    });
  }
  all.Start([&] {
    const Lock lock = LockIf(repaired, whole);
    int first = 0;
    {
      const Lock lock_a(mutex_a);
      if (a == 0) return;
      first = a;
    }
    const Lock lock_b(mutex_b);
    EXPECT_EQ(b, first + 1) << "the second stage was not there";
  });
}

// One counts under a lock, others under another one.
void WrongLock(int threads, bool repaired) {
  std::mutex right;
  std::mutex wrong;
  Variable count;
  Threads all;
  all.Start([&] {
    const Lock lock(right);
    const int before = count.Get();
    count.Set(before + 1);
    EXPECT_EQ(count.Get(), before + 1) << "somebody else has counted";
  });
  for (int i = 1; i < threads; ++i) {
    all.Start([&] {
      const Lock lock(repaired ? right : wrong);
      count.Set(count.Get() + 1);
    });
  }
}

// Each takes its own lock and then the next one's.
void Philosophers(int threads, bool repaired) {
  std::vector<std::mutex> forks(static_cast<size_t>(threads));
  Threads all;
  for (int i = 0; i < threads; ++i) {
    all.Start([&forks, repaired, i, threads] {
      auto first = static_cast<size_t>(i);
      auto second = static_cast<size_t>((i + 1) % threads);
      if (repaired && first > second) std::swap(first, second);
      const Lock one(forks[first]);
      const Lock other(forks[second]);
    });
  }
}

// One closes a descriptor twice; another one has opened its number meanwhile,
// and uses it.
void CloseTwice(bool repaired) {
  const int shared = open("/dev/null", O_RDWR | O_CLOEXEC);
  Threads all;
  all.Start([&] {
    close(shared);
    if (!repaired) close(shared);
  });
  for (int i = 0; i < 2; ++i) {
    all.Start([] {
      const int own = open("/dev/null", O_RDWR | O_CLOEXEC);
      EXPECT_EQ(write(own, "1", 1), 1) << "it was closed";
      close(own);
    });
  }
}

// Who asks takes a slot for the answer, and gives it back if it will not wait.
// The answer to its question then lands with who has the slot next.
void ReusedSlot(bool repaired) {
  struct Slot {
    int question = 0;
    std::optional<int> answer;
  };
  std::mutex mutex;
  std::array<Slot, 2> slots;
  std::vector<std::pair<size_t, int>> asked;
  const auto ask = [&](int question) -> std::optional<size_t> {
    const Lock lock(mutex);
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots[i].question != 0) continue;
      slots[i] = {question, std::nullopt};
      asked.emplace_back(i, question);
      return i;
    }
    return std::nullopt;
  };
  Threads all;
  for (int i = 0; i < 2; ++i) {
    all.Start([&] {
      for (int round = 0; round < 2; ++round) {
        std::pair<size_t, int> taken;
        {
          const Lock lock(mutex);
          if (asked.empty()) return;
          taken = asked.front();
          asked.erase(asked.begin());
        }
        // It works on it.
        const Lock lock(mutex);
        Slot& slot = slots[taken.first];
        if (repaired && slot.question != taken.second) continue;
        if (slot.question != 0) slot.answer = taken.second;
      }
    });
  }
  for (int i = 1; i <= 3; ++i) {
    all.Start([&, i] {
      const std::optional<size_t> own = ask(i);
      if (!own.has_value()) return;
      for (int patience = 0; patience < 2; ++patience) {
        const Lock lock(mutex);
        if (!slots[*own].answer.has_value()) continue;
        EXPECT_EQ(*slots[*own].answer, i) << "an answer to somebody else";
        break;
      }
      const Lock lock(mutex);
      slots[*own] = {};
    });
  }
}

}  // namespace

std::vector<Program> Programs() {
  std::vector<Program> all;
  const auto add = [&all](const char* family, int threads,
                          void (*body)(int, bool)) {
    all.push_back({absl::StrCat(family, "_", threads),
                   [=](bool repaired) { body(threads, repaired); }});
  };
  for (const int threads : {3, 5, 10, 20, 50, 100}) {
    add("reorder", threads, Reorder);
  }
  for (const int threads : {3, 20, 100}) add("twostage", threads, TwoStage);
  for (const int threads : {2, 8}) add("wronglock", threads, WrongLock);
  for (const int threads : {3, 5}) add("philosophers", threads, Philosophers);
  all.push_back({"close_twice", CloseTwice});
  all.push_back({"reused_slot", ReusedSlot});
  return all;
}

}  // namespace ward::testing

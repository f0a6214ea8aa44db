// What waits for ever, or goes on too soon.

#include <pthread.h>
#include <semaphore.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <vector>

#include "absl/types/span.h"
#include "ward/testing/planted_bugs/published/program.h"
#include "ward/testing/planted_bugs/published/published_bugs.h"

namespace ward::testing {
namespace {

// --- deadlock: two locks, in two orders ---

bool Deadlock(bool repaired) {
  pthread_mutex_t a = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_t b = PTHREAD_MUTEX_INITIALIZER;
  int counter = 0;
  const auto count = [&](pthread_mutex_t& first, pthread_mutex_t& second) {
    pthread_mutex_lock(&first);
    pthread_mutex_lock(&second);
    ++counter;
    pthread_mutex_unlock(&second);
    pthread_mutex_unlock(&first);
  };
  Threads threads;
  threads.Start([&] { count(a, b); });
  threads.Start([&] { repaired ? count(a, b) : count(b, a); });
  threads.Join();
  return counter == 2;
}

// --- din_phil: each philosopher has one fork, and waits for the other ---

template <size_t kPhilosophers>
bool DiningPhilosophers(bool repaired) {
  std::array<sem_t, kPhilosophers> forks;
  for (sem_t& fork : forks) sem_init(&fork, /*pshared=*/0, 1);
  std::array<int, kPhilosophers> meals = {};
  Threads threads;
  for (size_t i = 0; i < kPhilosophers; ++i) {
    threads.Start([&, i] {
      const size_t left = i;
      const size_t right = (i + 1) % kPhilosophers;
      // In the order of their numbers, nobody waits for himself by way of
      // others.
      sem_t& first = forks[repaired ? std::min(left, right) : left];
      sem_t& second = forks[repaired ? std::max(left, right) : right];
      sem_wait(&first);
      sem_wait(&second);
      ++meals[i];
      sem_post(&second);
      sem_post(&first);
    });
  }
  threads.Join();
  for (sem_t& fork : forks) sem_destroy(&fork);
  return std::all_of(meals.begin(), meals.end(), [](int n) { return n == 1; });
}

// --- carter: the first of a class takes the room for all of it, and waits for
// that with the lock that those need who leave ---

class Room {
 public:
  explicit Room(bool repaired) : repaired_(repaired) {}

  void Enter(int& of_class) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (repaired_) {
      left_.wait(lock, [&] { return of_class > 0 || !taken_; });
      ++of_class;
      taken_ = true;
      return;
    }
    if (++of_class == 1) room_.lock();
  }

  void Leave(int& of_class) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--of_class > 0) return;
    if (repaired_) {
      taken_ = false;
      left_.notify_all();
    } else {
      room_.unlock();
    }
  }

 private:
  const bool repaired_;
  std::mutex mutex_;
  std::mutex room_;
  std::condition_variable left_;
  bool taken_ = false;
};

bool Carter(bool repaired) {
  Room room(repaired);
  int as = 0;
  int bs = 0;
  Threads threads;
  for (int* const of_class : {&as, &bs}) {
    threads.Start([&, of_class] {
      room.Enter(*of_class);
      room.Leave(*of_class);
    });
  }
  threads.Join();
  return as == 0 && bs == 0;
}

// --- sync: who is woken does not look again ---

bool Sync(bool repaired) {
  std::mutex mutex;
  std::condition_variable filled;
  int items = 0;
  bool right = true;
  Threads threads;
  for (int i = 0; i < 2; ++i) {
    threads.Start([&] {
      std::unique_lock<std::mutex> lock(mutex);
      if (items == 0) filled.wait(lock);
      if (repaired) filled.wait(lock, [&] { return items > 0; });
      right = right && items > 0;
      --items;
    });
  }
  for (int i = 0; i < 2; ++i) {
    threads.Start([&] {
      const std::lock_guard<std::mutex> lock(mutex);
      ++items;
      filled.notify_one();
    });
  }
  threads.Join();
  return right;
}

// --- bounded buffer: one condition for two kinds of waiters, of whom the wrong
// one is woken ---

class BoundedBuffer {
 public:
  explicit BoundedBuffer(bool repaired) : repaired_(repaired) {}

  void Put(int item) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return items_.empty(); });
    items_.push_back(item);
    Wake();
  }

  int Take() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return !items_.empty(); });
    const int item = items_.front();
    items_.pop_front();
    Wake();
    return item;
  }

 private:
  void Wake() { repaired_ ? changed_.notify_all() : changed_.notify_one(); }

  const bool repaired_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // One at most.
  std::deque<int> items_;
};

bool ProducersAndConsumers(bool repaired) {
  constexpr int kItems = 2;
  BoundedBuffer buffer(repaired);
  Atomic<int> sum = 0;
  Threads threads;
  for (int i = 0; i < 2; ++i) {
    threads.Start([&] {
      for (int item = 1; item <= kItems; ++item) buffer.Put(item);
    });
    threads.Start([&] {
      for (int item = 1; item <= kItems; ++item) sum.fetch_add(buffer.Take());
    });
  }
  threads.Join();
  return sum.load() == kItems * (kItems + 1);
}

}  // namespace

absl::Span<const PublishedBug> LockBugs() {
  static constexpr PublishedBug kBugs[] = {
      {"deadlock", &Deadlock},
      {"din_phil3", &DiningPhilosophers<3>},
      {"din_phil7", &DiningPhilosophers<7>},
      {"carter", &Carter},
      {"sync", &Sync},
      {"bounded_buffer", &ProducersAndConsumers},
  };
  return kBugs;
}

}  // namespace ward::testing

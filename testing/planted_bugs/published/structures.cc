// Structures of data that threads share, and that do not hold.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "ward/testing/planted_bugs/published/program.h"
#include "ward/testing/planted_bugs/published/published_bugs.h"

namespace ward::testing {
namespace {

// --- string buffer: each method has the lock, and a method calls two of
// another buffer's ---

class StringBuffer {
 public:
  explicit StringBuffer(std::string text) : text_(std::move(text)) {}

  size_t Size() {
    const std::lock_guard<std::recursive_mutex> lock(mutex_);
    return text_.size();
  }

  // False if there are not so many.
  bool CopyFirst(size_t size, std::string& to) {
    const std::lock_guard<std::recursive_mutex> lock(mutex_);
    if (size > text_.size()) return false;
    to.append(text_, 0, size);
    return true;
  }

  bool Append(StringBuffer& other, bool repaired) {
    const std::lock_guard<std::recursive_mutex> lock(mutex_);
    const auto others =
        repaired ? std::unique_lock<std::recursive_mutex>(other.mutex_)
                 : std::unique_lock<std::recursive_mutex>();
    return other.CopyFirst(other.Size(), text_);
  }

  void Append(std::string_view text) {
    const std::lock_guard<std::recursive_mutex> lock(mutex_);
    text_ += text;
  }

  void Erase() {
    const std::lock_guard<std::recursive_mutex> lock(mutex_);
    text_.clear();
  }

 private:
  std::recursive_mutex mutex_;
  std::string text_;
};

bool AppendWhileErased(bool repaired) {
  StringBuffer buffer("abc");
  Threads threads;
  threads.Start([&] {
    buffer.Erase();
    buffer.Append("abc");
  });
  StringBuffer all("");
  const bool right = all.Append(buffer, repaired);
  threads.Join();
  return right;
}

// --- circular buffer: who cannot go on yet skips an item ---

bool CircularBuffer(bool repaired) {
  constexpr int kItems = 7;
  std::mutex mutex;
  std::condition_variable turn;
  int item = 0;
  bool full = false;
  bool right = true;
  Threads threads;
  threads.Start([&] {
    for (int i = 0; i < kItems; ++i) {
      std::unique_lock<std::mutex> lock(mutex);
      if (repaired) turn.wait(lock, [&] { return !full; });
      if (full) continue;
      item = i;
      full = true;
      turn.notify_one();
    }
  });
  threads.Start([&] {
    for (int i = 0; i < kItems; ++i) {
      std::unique_lock<std::mutex> lock(mutex);
      if (repaired) turn.wait(lock, [&] { return full; });
      if (!full) continue;
      right = right && item == i;
      full = false;
      turn.notify_one();
    }
  });
  threads.Join();
  return right;
}

// --- queue: an item is said to be there before it is ---

bool Queue(bool repaired) {
  constexpr int kItems = 4;
  std::array<Atomic<int>, kItems> items;
  Atomic<int> end = 0;
  bool right = true;
  Threads threads;
  threads.Start([&] {
    for (int i = 0; i < kItems; ++i) {
      if (!repaired) end.store(i + 1);
      items[i].store(i + 1);
      if (repaired) end.store(i + 1);
    }
  });
  threads.Start([&] {
    for (int i = 0; i < kItems && i < end.load(); ++i) {
      right = right && items[i].load() == i + 1;
    }
  });
  threads.Join();
  return right;
}

// --- stack: that something was pushed once is taken for that it is there ---

bool Stack(bool repaired) {
  constexpr int kItems = 5;
  std::mutex mutex;
  std::vector<int> items;
  bool pushed = false;
  bool right = true;
  Threads threads;
  threads.Start([&] {
    for (int i = 0; i < kItems; ++i) {
      const std::lock_guard<std::mutex> lock(mutex);
      items.push_back(i);
      pushed = true;
    }
  });
  threads.Start([&] {
    for (int i = 0; i < kItems; ++i) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (repaired ? items.empty() : !pushed) continue;
      if (items.empty()) {
        right = false;
        return;
      }
      items.pop_back();
    }
  });
  threads.Join();
  return right;
}

// --- work-stealing queue: the owner looks where the thieves are before it says
// what it takes ---

// The THE protocol of Cilk: the owner works at the tail, and takes the lock
// only for the last item; thieves take from the head, with the lock.
class WorkStealingQueue {
 public:
  explicit WorkStealingQueue(bool repaired) : repaired_(repaired) {}

  void Push(int item) {
    const int tail = tail_.load();
    items_[tail].store(item);
    tail_.store(tail + 1);
  }

  // -1: there is none.
  int Pop() {
    const int last = tail_.load() - 1;
    int head = repaired_ ? 0 : head_.load();
    tail_.store(last);
    if (repaired_) head = head_.load();
    if (head <= last) return items_[last].load();
    tail_.store(last + 1);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (head_.load() > last) return -1;
    tail_.store(last);
    return items_[last].load();
  }

  int Steal() {
    const std::lock_guard<std::mutex> lock(mutex_);
    const int head = head_.load();
    head_.store(head + 1);
    if (head < tail_.load()) return items_[head].load();
    head_.store(head);
    return -1;
  }

 private:
  const bool repaired_;
  std::mutex mutex_;
  Atomic<int> head_ = 0;
  Atomic<int> tail_ = 0;
  std::array<Atomic<int>, 4> items_;
};

bool WorkStealing(bool repaired) {
  constexpr int kItems = 4;
  constexpr int kThieves = 2;
  constexpr int kAttempts = 2;
  WorkStealingQueue queue(repaired);
  std::array<Atomic<int>, kItems> done;
  const auto work = [&done](int item) {
    if (item >= 0) done[item].fetch_add(1);
  };
  Threads threads;
  for (int i = 0; i < kThieves; ++i) {
    threads.Start([&] {
      for (int attempt = 0; attempt < kAttempts; ++attempt) work(queue.Steal());
    });
  }
  for (int i = 0; i < kItems; i += 2) {
    queue.Push(i);
    queue.Push(i + 1);
    work(queue.Pop());
  }
  for (int i = 0; i < kItems / 2; ++i) work(queue.Pop());
  threads.Join();
  return std::all_of(done.begin(), done.end(),
                     [](const Atomic<int>& n) { return n.load() == 1; });
}

// --- qsort_mt: a thread of the pool is marked as working, and may see it,
// before it is told on what; that is then never sorted ---

class Sorter {
 public:
  Sorter(std::vector<int>& numbers, bool repaired)
      : numbers_(numbers), repaired_(repaired) {
    for (auto& worker : workers_) worker = std::make_unique<Worker>();
  }

  void Sort() {
    Threads threads;
    for (auto& worker : workers_) {
      threads.Start([this, &worker = *worker] { Work(worker); });
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    --idle_;
    Worker& first = *workers_[0];
    const std::lock_guard<std::mutex> its_lock(first.mutex);
    first.state.store(State::kWorks);
    HandTo(first, {0, numbers_.size()});
  }

 private:
  enum class State { kIdle, kWorks, kEnds };
  struct Range {
    size_t begin = 0;
    size_t end = 0;
  };
  struct Worker {
    std::mutex mutex;
    std::condition_variable changed;
    Atomic<State> state = State::kIdle;
    // Of what it is to sort.
    Atomic<size_t> begin = 0;
    Atomic<size_t> end = 0;
  };

  static constexpr size_t kFewest = 4;

  // Has the worker's lock.
  static void HandTo(Worker& worker, Range range) {
    worker.begin.store(range.begin);
    worker.end.store(range.end);
    worker.changed.notify_one();
  }

  // If there is one that is idle.
  bool HandOver(Range range) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (auto& worker : workers_) {
      if (worker->state.load() != State::kIdle) continue;
      --idle_;
      if (!repaired_) worker->state.store(State::kWorks);
      const std::lock_guard<std::mutex> its_lock(worker->mutex);
      if (repaired_) worker->state.store(State::kWorks);
      lock.unlock();
      HandTo(*worker, range);
      return true;
    }
    return false;
  }

  void Work(Worker& self) {
    while (true) {
      {
        std::unique_lock<std::mutex> lock(self.mutex);
        self.changed.wait(lock,
                          [&] { return self.state.load() != State::kIdle; });
      }
      if (self.state.load() == State::kEnds) return;
      const size_t begin = self.begin.load();
      Sort({begin, self.end.load()});
      const std::lock_guard<std::mutex> lock(mutex_);
      self.state.store(State::kIdle);
      if (++idle_ < workers_.size()) continue;
      for (auto& worker : workers_) {
        if (worker.get() == &self) continue;
        const std::lock_guard<std::mutex> its_lock(worker->mutex);
        worker->state.store(State::kEnds);
        worker->changed.notify_one();
      }
      return;
    }
  }

  // Quicksort, one half of which others may do.
  void Sort(Range range) {
    while (range.begin + kFewest < range.end) {
      const size_t middle = Partition(range);
      const Range left = {range.begin, middle};
      const Range right = {middle + 1, range.end};
      const bool few = left.end - left.begin <= kFewest ||
                       right.end - right.begin <= kFewest;
      if (few || !HandOver(left)) Sort(left);
      range = right;
    }
    // Of what a thread was told half there may be less than nothing.
    if (range.begin < range.end) std::sort(At(range.begin), At(range.end));
  }

  // Around the one in the middle; where that is then.
  size_t Partition(Range range) {
    std::iter_swap(At((range.begin + range.end) / 2), At(range.end - 1));
    const auto last = At(range.end - 1);
    const auto middle =
        std::partition(At(range.begin), last, [&](int n) { return n < *last; });
    std::iter_swap(middle, last);
    return static_cast<size_t>(middle - numbers_.begin());
  }

  std::vector<int>::iterator At(size_t index) {
    return numbers_.begin() + static_cast<std::ptrdiff_t>(index);
  }

  std::vector<int>& numbers_;
  const bool repaired_;
  std::mutex mutex_;
  std::array<std::unique_ptr<Worker>, 2> workers_;
  size_t idle_ = 2;
};

bool QuickSort(bool repaired) {
  constexpr int kNumbers = 32;
  std::vector<int> numbers(kNumbers);
  // In no order: 5 and 32 have no divisor in common.
  std::generate(numbers.begin(), numbers.end(),
                [n = 0]() mutable { return n = (n + 5) % kNumbers; });
  Sorter(numbers, repaired).Sort();
  return std::is_sorted(numbers.begin(), numbers.end());
}

// --- SafeStack (D. Vyukov): an item comes back to the top while another thread
// is about to take it ---

class SafeStack {
 public:
  static constexpr int kItems = 3;

  explicit SafeStack(bool repaired) : repaired_(repaired) {
    for (int i = 0; i < kItems; ++i) {
      next_[i].store(i + 1 < kItems ? i + 1 : -1);
    }
  }

  // -1: there is none to spare.
  int Pop() {
    const auto lock = Lock();
    while (count_.load() > 1) {
      const int top = top_.load();
      // Nobody else can take it from here on.
      const int next = next_[top].exchange(-1);
      if (next >= 0) {
        int expected = top;
        if (top_.compare_exchange_strong(expected, next)) {
          count_.fetch_add(-1);
          return top;
        }
        next_[top].exchange(next);
      }
      std::this_thread::yield();
    }
    return -1;
  }

  void Push(int item) {
    const auto lock = Lock();
    int top = top_.load();
    do {
      next_[item].store(top);
    } while (!top_.compare_exchange_strong(top, item));
    count_.fetch_add(1);
  }

 private:
  std::unique_lock<std::mutex> Lock() {
    return repaired_ ? std::unique_lock<std::mutex>(mutex_)
                     : std::unique_lock<std::mutex>();
  }

  const bool repaired_;
  std::mutex mutex_;
  Atomic<int> top_ = 0;
  Atomic<int> count_ = kItems;
  std::array<Atomic<int>, kItems> next_;
};

bool PopAndPush(bool repaired) {
  constexpr int kThreads = 3;
  constexpr int kTimes = 2;
  SafeStack stack(repaired);
  std::array<Atomic<int>, SafeStack::kItems> owner;
  Atomic<bool> right = true;
  Threads threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.Start([&, i] {
      for (int time = 0; time < kTimes; ++time) {
        int item = stack.Pop();
        while (item < 0) {
          std::this_thread::yield();
          item = stack.Pop();
        }
        owner[item].store(i);
        if (owner[item].load() != i) right.store(false);
        stack.Push(item);
      }
    });
  }
  threads.Join();
  return right.load();
}

// --- a descriptor is closed twice, and its number reused in between (ours) ---

bool CloseTwice(bool repaired) {
  const int shared = open("/dev/null", O_RDWR | O_CLOEXEC);
  std::array<bool, 2> written{};
  Threads threads;
  threads.Start([&] {
    close(shared);
    if (!repaired) close(shared);
  });
  for (bool& own_written : written) {
    threads.Start([&] {
      const int own = open("/dev/null", O_RDWR | O_CLOEXEC);
      own_written = write(own, "1", 1) == 1;
      close(own);
    });
  }
  threads.Join();
  return written[0] && written[1];
}

// --- an answer goes to a slot that its question has given up (ours) ---

bool ReusedSlot(bool repaired) {
  struct Slot {
    int question = 0;
    int answer = 0;
  };
  std::mutex mutex;
  std::array<Slot, 2> slots;
  std::vector<std::pair<Slot*, int>> asked;
  bool right = true;
  const auto ask = [&](int question) -> Slot* {
    const std::lock_guard<std::mutex> lock(mutex);
    for (Slot& slot : slots) {
      if (slot.question != 0) continue;
      slot = {question, 0};
      asked.emplace_back(&slot, question);
      return &slot;
    }
    return nullptr;
  };
  const auto answer_one = [&] {
    std::pair<Slot*, int> taken;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (asked.empty()) return;
      taken = asked.front();
      asked.erase(asked.begin());
    }
    const std::lock_guard<std::mutex> lock(mutex);
    const int question = taken.first->question;
    if (question != 0 && (!repaired || question == taken.second)) {
      taken.first->answer = taken.second;
    }
  };
  Threads threads;
  for (int i = 0; i < 2; ++i) {
    threads.Start([&] {
      answer_one();
      answer_one();
    });
  }
  for (int question = 1; question <= 3; ++question) {
    threads.Start([&, question] {
      Slot* const own = ask(question);
      if (own == nullptr) return;
      // It waits no longer than this.
      for (int patience = 0; patience < 2; ++patience) {
        const std::lock_guard<std::mutex> lock(mutex);
        right = right && (own->answer == 0 || own->answer == question);
      }
      const std::lock_guard<std::mutex> lock(mutex);
      *own = {};
    });
  }
  threads.Join();
  return right;
}

}  // namespace

absl::Span<const PublishedBug> StructureBugs() {
  static constexpr PublishedBug kBugs[] = {
      {"stringbuffer", &AppendWhileErased, "SURW 8, POS 23, PCT 280"},
      {"circular_buffer", &CircularBuffer},
      {"queue", &Queue},
      {"stack", &Stack},
      {"work_stealing", &WorkStealing, "SURW 6, POS 6, PCT 842"},
      {"qsort_mt", &QuickSort, "about 3,000 each"},
      {"safestack", &PopAndPush, "SURW 204,070"},
      {"close_twice", &CloseTwice},
      {"reused_slot", &ReusedSlot},
  };
  return kBugs;
}

}  // namespace ward::testing

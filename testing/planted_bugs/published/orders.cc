// What goes wrong when threads come in another order than was thought of.

#include <array>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <set>
#include <vector>

#include "absl/types/span.h"
#include "ward/testing/planted_bugs/published/program.h"
#include "ward/testing/planted_bugs/published/published_bugs.h"

namespace ward::testing {
namespace {

// One lock for the steps of a thread where the program with the bug has none.
std::unique_lock<std::mutex> LockIf(bool repaired, std::mutex& mutex) {
  return repaired ? std::unique_lock<std::mutex>(mutex)
                  : std::unique_lock<std::mutex>();
}

// --- reorder: one thread sees the first of two writes of another ---

template <int kThreads>
bool Reorder(bool repaired) {
  Atomic<int> a = 0;
  Atomic<int> b = 0;
  std::mutex both;
  bool right = true;
  Threads threads;
  for (int i = 0; i < kThreads - 1; ++i) {
    threads.Start([&] {
      const auto lock = LockIf(repaired, both);
      a.store(1);
      b.store(-1);
    });
  }
  threads.Start([&] {
    const auto lock = LockIf(repaired, both);
    right =
        (a.load() == 0 && b.load() == 0) || (a.load() == 1 && b.load() == -1);
  });
  threads.Join();
  return right;
}

// --- twostage: two variables, each with its lock, that belong together ---

template <int kThreads>
bool TwoStage(bool repaired) {
  std::mutex first_mutex;
  std::mutex second_mutex;
  int first = 0;
  int second = 0;
  bool right = true;
  Threads threads;
  for (int i = 0; i < kThreads - 1; ++i) {
    threads.Start([&] {
      std::unique_lock<std::mutex> lock(first_mutex);
      first = 1;
      const int next = first + 1;
      if (!repaired) lock.unlock();
      const std::lock_guard<std::mutex> second_lock(second_mutex);
      second = next;
    });
  }
  threads.Start([&] {
    int seen = 0;
    {
      const std::lock_guard<std::mutex> lock(first_mutex);
      if (first == 0) return;
      seen = first;
    }
    const std::lock_guard<std::mutex> lock(second_mutex);
    right = second == seen + 1;
  });
  threads.Join();
  return right;
}

// --- wronglock: some threads count under another lock ---

template <int kOthers>
bool WrongLock(bool repaired) {
  std::mutex its;
  std::mutex other;
  Atomic<int> data = 0;
  bool right = true;
  Threads threads;
  threads.Start([&] {
    const std::lock_guard<std::mutex> lock(its);
    const int before = data.load();
    data.store(data.load() + 1);
    right = data.load() == before + 1;
  });
  for (int i = 0; i < kOthers; ++i) {
    threads.Start([&] {
      const std::lock_guard<std::mutex> lock(repaired ? its : other);
      data.store(data.load() + 1);
    });
  }
  threads.Join();
  return right;
}

// --- bluetooth driver: it is stopped between a request's check and its
// beginning ---

class Driver {
 public:
  explicit Driver(bool repaired) : repaired_(repaired) {}

  // Whether the driver was there for as long as the request needed it.
  bool Request() {
    if (!Begin()) return true;
    const bool right = !stopped_.load();
    End();
    return right;
  }

  void Stop() {
    stopping_.store(true);
    End();
    if (idle_.load()) stopped_.store(true);
  }

 private:
  bool Begin() {
    if (repaired_) {
      pending_.fetch_add(1);
      if (!stopping_.load()) return true;
      End();
      return false;
    }
    if (stopping_.load()) return false;
    pending_.fetch_add(1);
    return true;
  }
  void End() {
    if (pending_.fetch_add(-1) == 1) idle_.store(true);
  }

  const bool repaired_;
  // Its own one is ended by Stop().
  Atomic<int> pending_ = 1;
  Atomic<bool> stopping_ = false;
  Atomic<bool> idle_ = false;
  Atomic<bool> stopped_ = false;
};

bool BluetoothDriver(bool repaired) {
  Driver driver(repaired);
  Threads threads;
  threads.Start([&] { driver.Stop(); });
  const bool right = driver.Request();
  threads.Join();
  return right;
}

// --- lazy: the thread that looks is not thought to be the last ---

bool Lazy(bool repaired) {
  std::mutex mutex;
  int data = 0;
  bool right = true;
  Threads threads;
  for (const int more : {1, 2}) {
    threads.Start([&, more] {
      const std::lock_guard<std::mutex> lock(mutex);
      data += more;
    });
  }
  if (repaired) threads.Join();
  threads.Start([&] {
    const std::lock_guard<std::mutex> lock(mutex);
    right = repaired ? data == 3 : data < 3;
  });
  threads.Join();
  return right;
}

// --- token ring: each passes on what the one before has, if that has it yet
// ---

bool TokenRing(bool repaired) {
  std::mutex mutex;
  std::condition_variable passed;
  std::array<int, 3> tokens = {1, 2, 1};
  std::array<bool, 3> done = {};
  bool right = true;
  Threads threads;
  for (size_t i = 0; i < tokens.size(); ++i) {
    threads.Start([&, i] {
      std::unique_lock<std::mutex> lock(mutex);
      if (repaired) passed.wait(lock, [&] { return i == 0 || done[i - 1]; });
      tokens[i] = i == 0 ? tokens[2] + 1 : tokens[i - 1];
      done[i] = true;
      passed.notify_all();
    });
  }
  threads.Start([&] {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!done[0] || !done[1] || !done[2]) return;
    right = tokens[0] == tokens[1] && tokens[1] == tokens[2];
  });
  threads.Join();
  return right;
}

// --- account: what is checked is wrong, if it comes to be checked ---

bool Account(bool repaired) {
  constexpr int kBefore = 1;
  constexpr int kDeposit = 2;
  constexpr int kWithdrawal = 4;
  std::mutex mutex;
  int balance = kBefore;
  bool deposited = false;
  bool withdrawn = false;
  bool right = true;
  Threads threads;
  threads.Start([&] {
    const std::lock_guard<std::mutex> lock(mutex);
    balance += kDeposit;
    deposited = true;
  });
  threads.Start([&] {
    const std::lock_guard<std::mutex> lock(mutex);
    balance -= kWithdrawal;
    withdrawn = true;
  });
  threads.Start([&] {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!deposited || !withdrawn) return;
    const int deposit = repaired ? kDeposit : -kDeposit;
    right = balance == kBefore + deposit - kWithdrawal;
  });
  threads.Join();
  return right;
}

// --- fsbench: each file takes a block that is free ---

// In the published program the bug is one of its bounds, and shows in each
// schedule. In ours a block is found to be free before it is locked.
bool FileSystem(bool repaired) {
  constexpr size_t kFiles = 26;
  struct Block {
    std::mutex mutex;
    Atomic<bool> taken = false;
  };
  std::vector<Block> blocks(kFiles);
  std::vector<size_t> block_of(kFiles);
  Threads threads;
  for (size_t file = 0; file < kFiles; ++file) {
    threads.Start([&, file] {
      for (size_t i = 2 * file;; ++i) {
        Block& block = blocks[i % kFiles];
        if (!repaired && block.taken.load()) continue;
        const std::lock_guard<std::mutex> lock(block.mutex);
        if (repaired && block.taken.load()) continue;
        block.taken.store(true);
        block_of[file] = i % kFiles;
        return;
      }
    });
  }
  threads.Join();
  return std::set<size_t>(block_of.begin(), block_of.end()).size() == kFiles;
}

}  // namespace

absl::Span<const PublishedBug> OrderBugs() {
  static constexpr PublishedBug kBugs[] = {
      {"reorder_5", &Reorder<5>, "SURW 9, PCT-3 646, POS 2,169"},
      {"reorder_10", &Reorder<10>},
      {"reorder_100", &Reorder<100>, "SURW 193, others never"},
      {"twostage_2", &TwoStage<2>},
      {"twostage_20", &TwoStage<20>},
      {"twostage_100", &TwoStage<100>, "SURW 453"},
      {"wronglock_3", &WrongLock<3>},
      {"wronglock", &WrongLock<7>, "SURW 6, POS 10, PCT 50"},
      {"bluetooth_driver", &BluetoothDriver},
      {"lazy", &Lazy},
      {"token_ring", &TokenRing},
      {"account", &Account},
      {"fsbench", &FileSystem},
  };
  return kBugs;
}

}  // namespace ward::testing

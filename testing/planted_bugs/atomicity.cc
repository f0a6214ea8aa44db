// What was not meant to be interrupted is.

#include <array>
#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ward/channel/status_macros.h"
#include "ward/testing/explore.h"
#include "ward/testing/planted_bugs/planted_bugs.h"
#include "ward/testing/planted_bugs/planted_server.h"

namespace ward::testing {
namespace {

// --- lost update: read, unlock, lock, write ---

class Account : public PlantedServer {
 public:
  explicit Account(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("deposit", &Account::Deposit);
    DefineMessageHandler("balance", &Account::Balance);
  }

 private:
  absl::StatusOr<int> Deposit() {
    if (repaired()) {
      absl::MutexLock lock(&mutex_);
      return ++balance_;
    }
    const int balance = *Balance();
    absl::MutexLock lock(&mutex_);
    return balance_ = balance + 1;
  }
  absl::StatusOr<int> Balance() {
    absl::MutexLock lock(&mutex_);
    return balance_;
  }

  absl::Mutex mutex_;
  int balance_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status LostUpdate(const Trial& trial) {
  return Drive<Account>(trial, [](Account& server) -> absl::Status {
    const auto deposit = [&] { return server.Call("deposit").status(); };
    WARD_RETURN_IF_ERROR(server.AtOnce({deposit, deposit}));
    WARD_ASSIGN_OR_RETURN(const int balance, server.Call("balance"));
    return Expect(balance == 2, "a deposit is lost");
  });
}

// --- lost update without a lock ---

class HitCounter : public PlantedServer {
 public:
  explicit HitCounter(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("hit", &HitCounter::Hit);
    DefineMessageHandler("hits", &HitCounter::Hits);
  }

 private:
  absl::StatusOr<int> Hit() {
    if (repaired()) return ++hits_;
    const int hits = hits_;
    if (hits == INT_MAX) return hits;
    SchedulingPoint();
    hits_ = hits + 1;
    return hits + 1;
  }
  absl::StatusOr<int> Hits() { return hits_.load(); }

  std::atomic<int> hits_ = 0;
};

absl::Status UnlockedCounter(const Trial& trial) {
  return Drive<HitCounter>(trial, [](HitCounter& server) -> absl::Status {
    const auto hit = [&] { return server.Call("hit").status(); };
    WARD_RETURN_IF_ERROR(server.AtOnce({hit, hit}));
    WARD_ASSIGN_OR_RETURN(const int hits, server.Call("hits"));
    return Expect(hits == 2, "a hit is lost");
  });
}

// --- a name that was free when it was looked up ---

class Registry : public PlantedServer {
 public:
  explicit Registry(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("register", &Registry::Register);
  }

 private:
  // Whether the name is the caller's now.
  absl::StatusOr<int> Register(const std::string& name) {
    if (repaired()) {
      absl::MutexLock lock(&mutex_);
      return names_.emplace(name, 1).second ? 1 : 0;
    }
    if (IsTaken(name)) return 0;
    absl::MutexLock lock(&mutex_);
    names_[name] = 1;
    return 1;
  }
  bool IsTaken(const std::string& name) {
    absl::MutexLock lock(&mutex_);
    return names_.count(name) > 0;
  }

  absl::Mutex mutex_;
  std::map<std::string, int> names_ ABSL_GUARDED_BY(mutex_);
};

absl::Status CheckThenAct(const Trial& trial) {
  return Drive<Registry>(trial, [](Registry& server) -> absl::Status {
    std::atomic<int> owners = 0;
    const auto claim = [&]() -> absl::Status {
      WARD_ASSIGN_OR_RETURN(const int mine, server.Call("register", {"joe"}));
      owners += mine;
      return absl::OkStatus();
    };
    WARD_RETURN_IF_ERROR(server.AtOnce({claim, claim}));
    return Expect(owners == 1, "a name has two owners");
  });
}

// --- what was checked under the lock is used after it ---

class Purse : public PlantedServer {
 public:
  explicit Purse(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("pay", &Purse::Pay);
    DefineMessageHandler("left", &Purse::Left);
  }

 private:
  absl::StatusOr<int> Pay(int amount) {
    if (repaired()) {
      absl::MutexLock lock(&mutex_);
      if (coins_ < amount) return 0;
      return coins_ -= amount;
    }
    {
      absl::MutexLock lock(&mutex_);
      if (coins_ < amount) return 0;
    }
    return coins_ -= amount;
  }
  absl::StatusOr<int> Left() {
    absl::MutexLock lock(&mutex_);
    return coins_.load();
  }

  absl::Mutex mutex_;
  std::atomic<int> coins_ = 10;
};

absl::Status UseAfterUnlock(const Trial& trial) {
  return Drive<Purse>(trial, [](Purse& server) -> absl::Status {
    const auto pay = [&] { return server.Call("pay", {"10"}).status(); };
    WARD_RETURN_IF_ERROR(server.AtOnce({pay, pay}));
    WARD_ASSIGN_OR_RETURN(const int left, server.Call("left"));
    return Expect(left >= 0, "more is paid than there was");
  });
}

// --- ABA: the head of a free list is the same again, the rest is not ---

class FreeList : public PlantedServer {
 public:
  explicit FreeList(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("take", &FreeList::Take);
    DefineMessageHandler("release", &FreeList::Release);
  }

 private:
  static constexpr int kSlots = 3;
  // Aligned to be lock-free.
  struct alignas(uint64_t) Head {
    int slot = 0;
    uint32_t version = 0;
  };

  Head Next(const Head& head, int slot) const {
    return {slot, head.version + (repaired() ? 1 : 0)};
  }
  absl::StatusOr<int> Take() {
    Head head = head_;
    Head next;
    do {
      if (head.slot == kSlots) {
        return absl::ResourceExhaustedError("no slot is free");
      }
      const int slot = next_.at(static_cast<size_t>(head.slot));
      if (slot == kSlots) ran_low_ = true;
      next = Next(head, slot);
      SchedulingPoint();
    } while (!head_.compare_exchange_strong(head, next));
    if (taken_.at(static_cast<size_t>(head.slot)).exchange(true)) {
      return absl::InternalError("a slot has two holders");
    }
    return head.slot;
  }
  absl::StatusOr<int> Release(int slot) {
    taken_.at(static_cast<size_t>(slot)) = false;
    Head head = head_;
    do {
      next_.at(static_cast<size_t>(slot)) = head.slot;
    } while (!head_.compare_exchange_strong(head, Next(head, slot)));
    return 0;
  }

  std::atomic<Head> head_ = Head();
  std::array<std::atomic<int>, kSlots> next_ = {1, 2, kSlots};
  std::array<std::atomic<bool>, kSlots> taken_ = {};
  std::atomic<bool> ran_low_ = false;
};

absl::Status Aba(const Trial& trial) {
  return Drive<FreeList>(trial, [](FreeList& server) -> absl::Status {
    const auto take = [&] { return server.Call("take").status(); };
    WARD_RETURN_IF_ERROR(server.AtOnce(
        {take, [&]() -> absl::Status {
           WARD_ASSIGN_OR_RETURN(const int slot, server.Call("take"));
           WARD_RETURN_IF_ERROR(take());
           return server.Call("release", {absl::StrCat(slot)}).status();
         }}));
    return take();
  });
}

// --- double-checked initialisation, whose flag comes first ---

class LazyTable : public PlantedServer {
 public:
  explicit LazyTable(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("size", &LazyTable::Size);
  }

 private:
  absl::StatusOr<int> Size() {
    if (!ready_) Build();
    const std::vector<int>* const table = table_;
    if (table == nullptr) return absl::InternalError("there is no table yet");
    return static_cast<int>(table->size());
  }
  void Build() {
    absl::MutexLock lock(&mutex_);
    if (ready_) return;
    if (!repaired()) ready_ = true;
    SchedulingPoint();
    for (int i = 0; i < 3; ++i) numbers_.push_back(i);
    table_ = &numbers_;
    ready_ = true;
  }

  std::atomic<bool> ready_ = false;
  std::atomic<const std::vector<int>*> table_ = nullptr;
  absl::Mutex mutex_;
  std::vector<int> numbers_;
};

absl::Status DoubleChecked(const Trial& trial) {
  return Drive<LazyTable>(trial, [](LazyTable& server) {
    const auto size = [&] { return server.Call("size").status(); };
    return server.AtOnce({size, size});
  });
}

// --- what two locks guard is looked at under one after the other ---

class Stock : public PlantedServer {
 public:
  explicit Stock(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("move", &Stock::Move);
    DefineMessageHandler("total", &Stock::Total);
  }

 private:
  absl::StatusOr<int> Move(int amount) {
    if (repaired()) {
      absl::MutexLock store_lock(&store_mutex_);
      absl::MutexLock shop_lock(&shop_mutex_);
      store_ -= amount;
      shop_ += amount;
      return 1;
    }
    {
      absl::MutexLock lock(&store_mutex_);
      if (store_ < amount) return absl::OutOfRangeError("too few");
      store_ -= amount;
    }
    absl::MutexLock lock(&shop_mutex_);
    shop_ += amount;
    return 1;
  }
  absl::StatusOr<int> Total() {
    absl::MutexLock store_lock(&store_mutex_);
    absl::MutexLock shop_lock(&shop_mutex_);
    return store_ + shop_;
  }

  absl::Mutex store_mutex_;
  int store_ ABSL_GUARDED_BY(store_mutex_) = 10;
  absl::Mutex shop_mutex_ ABSL_ACQUIRED_AFTER(store_mutex_);
  int shop_ ABSL_GUARDED_BY(shop_mutex_) = 0;
};

absl::Status TwoLocks(const Trial& trial) {
  return Drive<Stock>(trial, [](Stock& server) {
    return server.AtOnce({
        [&] { return server.Call("move", {"1"}).status(); },
        [&]() -> absl::Status {
          WARD_ASSIGN_OR_RETURN(const int total, server.Call("total"));
          return Expect(total == 10, "one is neither here nor there");
        },
    });
  });
}

constexpr PlantedBug kBugs[] = {
    {"lost update", LostUpdate},          {"unlocked counter", UnlockedCounter},
    {"check then act", CheckThenAct},     {"ABA", Aba},
    {"double-checked", DoubleChecked},    {"two locks", TwoLocks},
    {"use after unlock", UseAfterUnlock},
};

}  // namespace

absl::Span<const PlantedBug> AtomicityBugs() { return kBugs; }

}  // namespace ward::testing

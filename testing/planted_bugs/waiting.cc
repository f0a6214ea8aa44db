// A thread waits for what does not come, or not any more.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/testing/explore.h"
#include "ward/testing/planted_bugs/planted_bugs.h"
#include "ward/testing/planted_bugs/planted_server.h"

namespace ward::testing {
namespace {

// --- two locks, taken in two orders ---

class Bank : public PlantedServer {
 public:
  explicit Bank(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("transfer", &Bank::Transfer);
  }

 private:
  struct Account {
    absl::Mutex mutex;
    int balance = 10;
  };

  absl::StatusOr<int> Transfer(size_t from, size_t to) {
    Account& source = accounts_.at(from);
    Account& target = accounts_.at(to);
    if (repaired() && to < from) {
      absl::MutexLock second(&target.mutex);
      absl::MutexLock first(&source.mutex);
      return Move(source, target);
    }
    absl::MutexLock first(&source.mutex);
    if (source.balance == 0) return absl::FailedPreconditionError("no money");
    absl::MutexLock second(&target.mutex);
    return Move(source, target);
  }
  static int Move(Account& source, Account& target) {
    ++target.balance;
    return --source.balance;
  }

  std::array<Account, 2> accounts_;
};

absl::Status LockOrder(const Trial& trial) {
  return Drive<Bank>(trial, [](Bank& server) {
    return server.AtOnce({[&] {
                            return server.Call("transfer", {"0", "1"}).status();
                          },
                          [&] {
                            return server.Call("transfer", {"1", "0"}).status();
                          }});
  });
}

// --- a wake-up missed between the check and the wait ---

class Gate : public PlantedServer {
 public:
  explicit Gate(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("pass", &Gate::Pass);
    DefineMessageHandler("open", &Gate::Open);
  }

 private:
  absl::StatusOr<int> Pass() {
    if (!repaired()) {
      if (IsOpen()) return 1;
      absl::MutexLock lock(&mutex_);
      opened_.Wait(&mutex_);
      return 1;
    }
    absl::MutexLock lock(&mutex_);
    while (!open_) opened_.Wait(&mutex_);
    return 1;
  }
  absl::StatusOr<int> Open() {
    absl::MutexLock lock(&mutex_);
    open_ = true;
    opened_.SignalAll();
    return 1;
  }
  bool IsOpen() {
    absl::MutexLock lock(&mutex_);
    return open_;
  }

  absl::Mutex mutex_;
  absl::CondVar opened_;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
};

absl::Status MissedWakeUp(const Trial& trial) {
  return Drive<Gate>(trial, [](Gate& server) {
    return server.AtOnce({[&] { return server.Call("pass").status(); },
                          [&] { return server.Call("open").status(); }});
  });
}

// --- one is woken where it may be the wrong one ---

class Shelf : public PlantedServer {
 public:
  explicit Shelf(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("put", &Shelf::Put);
    DefineMessageHandler("take", &Shelf::Take);
  }

 private:
  absl::StatusOr<int> Put() { return Change(true); }
  absl::StatusOr<int> Take() { return Change(false); }

  int Change(bool full) {
    absl::MutexLock lock(&mutex_);
    while (full_ == full) changed_.Wait(&mutex_);
    full_ = full;
    if (repaired()) {
      changed_.SignalAll();
    } else {
      changed_.Signal();
    }
    return 1;
  }

  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool full_ ABSL_GUARDED_BY(mutex_) = false;
};

absl::Status NotifyOne(const Trial& trial) {
  return Drive<Shelf>(trial, [](Shelf& server) {
    const auto take = [&] { return server.Call("take").status(); };
    const auto put = [&] { return server.Call("put").status(); };
    return server.AtOnce({take, take, put, put});
  });
}

// --- a letter is handed over just as the wait for it times out ---

class Mailbox : public PlantedServer {
 public:
  explicit Mailbox(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("give", &Mailbox::Give);
    DefineMessageHandler("take", &Mailbox::Take);
    DefineMessageHandler("left", &Mailbox::Left);
  }

 private:
  struct Waiter {
    absl::CondVar came;
    int letters = 0;
  };

  absl::StatusOr<int> Give() {
    absl::MutexLock lock(&mutex_);
    if (waiters_.empty()) return ++letters_;
    ++waiters_.back()->letters;
    waiters_.back()->came.Signal();
    waiters_.pop_back();
    return 0;
  }
  absl::StatusOr<int> Take() {
    absl::MutexLock lock(&mutex_);
    if (letters_ > 0) {
      --letters_;
      return 1;
    }
    Waiter waiter;
    waiters_.push_back(&waiter);
    const bool timed_out =
        waiter.came.WaitWithTimeout(&mutex_, absl::Milliseconds(1));
    waiters_.erase(std::remove(waiters_.begin(), waiters_.end(), &waiter),
                   waiters_.end());
    if (timed_out && !repaired()) return 0;
    return waiter.letters;
  }
  absl::StatusOr<int> Left() {
    absl::MutexLock lock(&mutex_);
    return letters_;
  }

  absl::Mutex mutex_;
  int letters_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Waiter*> waiters_ ABSL_GUARDED_BY(mutex_);
};

absl::Status TimeoutRace(const Trial& trial) {
  return DriveThroughFaults<Mailbox>(trial, [](Mailbox& server) {
    absl::StatusOr<int> taken;
    const absl::Status status = server.AtOnce({
        [&] {
          taken = server.Call("take");
          return taken.status();
        },
        [&] { return server.Call("give").status(); },
    });
    const absl::StatusOr<int> left = server.Call("left");
    if (!status.ok() || !left.ok()) return absl::OkStatus();
    return Expect(*taken + *left == 1, "a letter is lost");
  });
}

// --- two readers that each wait for the other to leave ---

class Document : public PlantedServer {
 public:
  explicit Document(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("edit", &Document::Edit);
  }

 private:
  absl::StatusOr<int> Edit() {
    const auto pause = [] { absl::SleepFor(absl::Milliseconds(1)); };
    if (repaired()) {
      while (editing_.exchange(true)) pause();
    }
    ++readers_;
    SchedulingPoint();
    // A writer is a reader who is alone.
    while (readers_ > 1) pause();
    ++edits_;
    --readers_;
    editing_ = false;
    return edits_.load();
  }

  std::atomic<bool> editing_ = false;
  std::atomic<int> readers_ = 0;
  std::atomic<int> edits_ = 0;
};

absl::Status Livelock(const Trial& trial) {
  return Drive<Document>(trial, [](Document& server) {
    const auto edit = [&] { return server.Call("edit").status(); };
    return server.AtOnce({edit, edit});
  });
}

constexpr PlantedBug kBugs[] = {
    {"lock order", LockOrder},
    {"missed wake-up", MissedWakeUp},
    {"notify one", NotifyOne},
    {"timeout race", TimeoutRace, /*faults=*/false, /*delays=*/true},
    {"livelock", Livelock, /*faults=*/false, /*delays=*/false,
     /*max_steps=*/3000},
};

}  // namespace

absl::Span<const PlantedBug> WaitingBugs() { return kBugs; }

}  // namespace ward::testing

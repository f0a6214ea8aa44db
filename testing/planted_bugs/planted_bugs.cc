#include "ward/testing/planted_bugs/planted_bugs.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/testing/explore.h"
#include "ward/testing/planted_bugs/planted_server.h"

namespace ward::testing {
namespace {

absl::Status Expect(bool holds, std::string_view what) {
  return holds ? absl::OkStatus() : absl::InternalError(what);
}

template <typename Server>
absl::Status Drive(const Trial& trial,
                   absl::FunctionRef<absl::Status(Server&)> body) {
  Server server(trial);
  WARD_RETURN_IF_ERROR(server.Start());
  absl::Status status = body(server);
  status.Update(server.Stop());
  return status;
}

// Where calls may fail that are none of the bug's: only what `body` says
// counts.
template <typename Server>
absl::Status DriveThroughFaults(const Trial& trial,
                                absl::FunctionRef<absl::Status(Server&)> body) {
  Server server(trial);
  if (!server.Start().ok()) return absl::OkStatus();
  absl::Status status = body(server);
  (void)server.Stop();
  return status;
}

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

// --- use after free: of a desk that has the next guest's things by then ---

class Desks : public PlantedServer {
 public:
  explicit Desks(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("enter", &Desks::Enter);
    DefineMessageHandler("leave", &Desks::Leave);
    DefineMessageHandler("write", &Desks::Write);
    DefineMessageHandler("written", &Desks::Written);
  }

 private:
  struct Desk {
    std::string guest;
    std::string text;
  };

  absl::StatusOr<int> Enter(std::string guest) {
    absl::MutexLock lock(&mutex_);
    Desk* const desk = Find("");
    if (desk == nullptr) return absl::ResourceExhaustedError("no desk");
    *desk = {std::move(guest), ""};
    return 1;
  }
  absl::StatusOr<int> Leave(std::string_view guest) {
    absl::MutexLock lock(&mutex_);
    Desk* const desk = Find(guest);
    if (desk == nullptr) return absl::NotFoundError("no such guest");
    *desk = {};
    return 1;
  }
  absl::StatusOr<int> Write(std::string_view guest, std::string_view text) {
    if (repaired()) {
      absl::MutexLock lock(&mutex_);
      return Append(Find(guest), text);
    }
    Desk* desk;
    {
      absl::MutexLock lock(&mutex_);
      desk = Find(guest);
    }
    if (desk == nullptr) return absl::NotFoundError("no such guest");
    absl::MutexLock lock(&mutex_);
    return Append(desk, text);
  }
  absl::StatusOr<int> Written(std::string_view guest) {
    absl::MutexLock lock(&mutex_);
    const Desk* const desk = Find(guest);
    if (desk == nullptr) return absl::NotFoundError("no such guest");
    return static_cast<int>(desk->text.size());
  }

  static absl::StatusOr<int> Append(Desk* desk, std::string_view text) {
    if (desk == nullptr) return absl::NotFoundError("no such guest");
    absl::StrAppend(&desk->text, text);
    return 1;
  }
  Desk* Find(std::string_view guest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (Desk& desk : desks_) {
      if (desk.guest == guest) return &desk;
    }
    return nullptr;
  }

  absl::Mutex mutex_;
  std::array<Desk, 1> desks_ ABSL_GUARDED_BY(mutex_);
};

absl::Status UseAfterFree(const Trial& trial) {
  return Drive<Desks>(trial, [](Desks& server) -> absl::Status {
    WARD_RETURN_IF_ERROR(server.Call("enter", {"ann"}).status());
    WARD_RETURN_IF_ERROR(server.AtOnce({
        [&] {
          (void)server.Call("write", {"ann", "secret"});  // She may have left.
          return absl::OkStatus();
        },
        [&]() -> absl::Status {
          WARD_RETURN_IF_ERROR(server.Call("leave", {"ann"}).status());
          return server.Call("enter", {"bob"}).status();
        },
    }));
    WARD_ASSIGN_OR_RETURN(const int written, server.Call("written", {"bob"}));
    return Expect(written == 0, "bob has ann's secret");
  });
}

// --- a descriptor is not closed where an error returns early ---

constexpr char kCounted[] = "/dev/zero";

int OpenDescriptors() {
  int count = 0;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/self/fd")) {
    // One may be closed by now.
    count +=
        std::filesystem::read_symlink(entry.path(), error) == kCounted ? 1 : 0;
  }
  return count;
}

class Inspector : public PlantedServer {
 public:
  explicit Inspector(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("inspect", &Inspector::Inspect);
    DefineMessageHandler("leaked", &Inspector::Leaked);
  }

 private:
  absl::Status InitializeServer() override {
    // A simulated server shares them with those of earlier runs.
    open_before_ = OpenDescriptors();
    return absl::OkStatus();
  }
  absl::Status Inspect(MessageChannel& channel) {
    {
      absl::MutexLock lock(&mutex_);
      ++running_;
    }
    const absl::Cleanup done = [this] {
      absl::MutexLock lock(&mutex_);
      --running_;
    };
    const int device = open(kCounted, O_RDONLY | O_CLOEXEC);
    const FileDescriptor owner(repaired() ? device : -1);
    WARD_RETURN_IF_ERROR(channel.Write(1));
    if (!repaired()) close(device);
    return absl::OkStatus();
  }
  absl::StatusOr<int> Leaked() {
    absl::MutexLock lock(&mutex_,
                         absl::Condition(
                             // NOLINTNEXTLINE(readability-non-const-parameter)
                             +[](int* n) { return *n == 0; }, &running_));
    return OpenDescriptors() - open_before_;
  }

  int open_before_ = 0;
  absl::Mutex mutex_;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status DescriptorLeak(const Trial& trial) {
  return DriveThroughFaults<Inspector>(trial, [](Inspector& server) {
    (void)server.Call("inspect");
    (void)server.Call("inspect");
    const absl::StatusOr<int> leaked = server.Call("leaked");
    return Expect(!leaked.ok() || *leaked == 0, "a descriptor is left open");
  });
}

// --- a number is closed twice, and is another's by then ---

class Rotator : public PlantedServer {
 public:
  explicit Rotator(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("rotate", &Rotator::Rotate);
    DefineMessageHandler("copy", &Rotator::Copy);
  }

 private:
  absl::Status InitializeServer() override {
    log_ = open("/dev/null", O_WRONLY | O_CLOEXEC);
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override { return Rotate().status(); }

  absl::StatusOr<int> Rotate() {
    if (repaired()) {
      const FileDescriptor closed(log_.exchange(-1));
      return 1;
    }
    const int log = log_;
    if (log < 0) return 0;
    SchedulingPoint();
    close(log);
    log_ = -1;
    return 1;
  }
  absl::StatusOr<int> Copy() {
    const int copy = open("/dev/null", O_WRONLY | O_CLOEXEC);
    for (int i = 0; i < 3; ++i) {
      SchedulingPoint();
      if (write(copy, "x", 1) != 1) {
        return absl::InternalError("the copy is closed");
      }
    }
    close(copy);
    return 1;
  }

  std::atomic<int> log_ = -1;
};

absl::Status DoubleClose(const Trial& trial) {
  return Drive<Rotator>(trial, [](Rotator& server) {
    const auto rotate = [&] { return server.Call("rotate").status(); };
    return server.AtOnce(
        {rotate, rotate, [&] { return server.Call("copy").status(); }});
  });
}

// --- clients come before what they need ---

class Dictionary : public PlantedServer {
 public:
  explicit Dictionary(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("look up", &Dictionary::LookUp);
  }

 private:
  absl::Status InitializeServer() override {
    WARD_ASSIGN_OR_RETURN(loader_,
                          environment().StartThread([this] { Load(); }));
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override {
    loader_.reset();
    return absl::OkStatus();
  }

  void Load() {
    for (const char* word : {"one", "two", "three"}) {
      absl::MutexLock lock(&mutex_);
      numbers_.emplace(word, static_cast<int>(numbers_.size()) + 1);
    }
    loaded_.Notify();
  }
  absl::StatusOr<int> LookUp(const std::string& word) {
    if (repaired()) loaded_.WaitForNotification();
    absl::MutexLock lock(&mutex_);
    const auto found = numbers_.find(word);
    if (found == numbers_.end()) return absl::NotFoundError("no such word");
    return found->second;
  }

  std::unique_ptr<Thread> loader_;
  absl::Notification loaded_;
  absl::Mutex mutex_;
  std::map<std::string, int> numbers_ ABSL_GUARDED_BY(mutex_);
};

absl::Status StartOrder(const Trial& trial) {
  return Drive<Dictionary>(trial, [](Dictionary& server) {
    return server.Call("look up", {"three"}).status();
  });
}

// --- the end comes before what was promised ---

class Journal : public PlantedServer {
 public:
  explicit Journal(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("append", &Journal::Append);
  }

 private:
  absl::Status InitializeServer() override {
    WARD_ASSIGN_OR_RETURN(writer_,
                          environment().StartThread([this] { WriteAll(); }));
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    writer_.reset();
    absl::MutexLock lock(&mutex_);
    return Expect(written_ == accepted_, "an entry was not written");
  }

  absl::StatusOr<int> Append() {
    absl::MutexLock lock(&mutex_);
    return ++accepted_;
  }
  void WriteAll() {
    absl::MutexLock lock(&mutex_);
    while (true) {
      mutex_.Await(absl::Condition(this, &Journal::HasWork));
      if (stopping_ && (!repaired() || written_ == accepted_)) return;
      ++written_;
    }
  }
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || written_ < accepted_;
  }

  std::unique_ptr<Thread> writer_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int accepted_ ABSL_GUARDED_BY(mutex_) = 0;
  int written_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status StopOrder(const Trial& trial) {
  return Drive<Journal>(trial, [](Journal& server) -> absl::Status {
    WARD_RETURN_IF_ERROR(server.Call("append").status());
    return server.Call("append").status();
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

// --- a short read is taken for the whole ---

class Relay : public PlantedServer {
 public:
  explicit Relay(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("relay", &Relay::Pass);
    DefineMessageHandler("torn", &Relay::Torn);
  }

 private:
  absl::StatusOr<int> Pass(std::string_view text) {
    WARD_ASSIGN_OR_RETURN(const auto ends, environment().CreateTransportPair());
    for (size_t sent = 0; sent < text.size();) {
      WARD_ASSIGN_OR_RETURN(
          const size_t more,
          ends.first->Send(text.substr(sent), {}, absl::InfiniteFuture()));
      sent += more;
    }
    std::string got(text.size(), '\0');
    std::vector<FileDescriptor> none;
    size_t size = 0;
    do {
      WARD_ASSIGN_OR_RETURN(
          const Transport::Received more,
          ends.second->Receive(absl::MakeSpan(got).subspan(size), 0, none,
                               absl::InfiniteFuture()));
      size += more.bytes;
    } while (repaired() ? size < got.size() : size == 0);
    if (got != text) ++torn_;
    return 1;
  }
  absl::StatusOr<int> Torn() { return torn_.load(); }

  std::atomic<int> torn_ = 0;
};

absl::Status ShortRead(const Trial& trial) {
  return DriveThroughFaults<Relay>(trial, [](Relay& server) {
    (void)server.Call("relay", {"some bytes"});
    const absl::StatusOr<int> torn = server.Call("torn");
    return Expect(!torn.ok() || *torn == 0, "bytes are missing");
  });
}

// --- a thread that was counted was never started ---

class Workshop : public PlantedServer {
 public:
  explicit Workshop(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("work", &Workshop::Work);
    DefineMessageHandler("working", &Workshop::Working);
  }

 private:
  absl::StatusOr<int> Work() {
    Add(1);
    const absl::StatusOr<std::unique_ptr<Thread>> worker =
        environment().StartThread([this] { Add(-1); });
    if (worker.ok()) return 1;
    if (repaired()) Add(-1);
    return worker.status();
  }
  absl::StatusOr<int> Working() {
    absl::MutexLock lock(&mutex_);
    // As one that stops would wait, but not for ever.
    mutex_.AwaitWithTimeout(
        absl::Condition(
            // NOLINTNEXTLINE(readability-non-const-parameter)
            +[](int* n) { return *n == 0; }, &working_),
        absl::Minutes(1));
    return working_;
  }
  void Add(int n) {
    absl::MutexLock lock(&mutex_);
    working_ += n;
  }

  absl::Mutex mutex_;
  int working_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status FailedStart(const Trial& trial) {
  return DriveThroughFaults<Workshop>(trial, [](Workshop& server) {
    (void)server.Call("work");
    const absl::StatusOr<int> working = server.Call("working");
    return Expect(!working.ok() || *working == 0, "one works for ever");
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
    {"lost update", LostUpdate},
    {"unlocked counter", UnlockedCounter},
    {"lock order", LockOrder},
    {"missed wake-up", MissedWakeUp},
    {"notify one", NotifyOne},
    {"use after free", UseAfterFree},
    {"descriptor leak", DescriptorLeak, /*faults=*/true},
    {"double close", DoubleClose},
    {"order at start", StartOrder},
    {"order at stop", StopOrder},
    {"timeout race", TimeoutRace, /*faults=*/false, /*delays=*/true},
    {"check then act", CheckThenAct},
    {"ABA", Aba},
    {"short read", ShortRead, /*faults=*/true},
    {"failed start", FailedStart, /*faults=*/true},
    {"double-checked", DoubleChecked},
    {"two locks", TwoLocks},
    {"livelock", Livelock, /*faults=*/false, /*delays=*/false,
     /*max_steps=*/3000},
};

}  // namespace

absl::Span<const PlantedBug> PlantedBugs() { return kBugs; }

}  // namespace ward::testing

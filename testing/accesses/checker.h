// Finds data races in simulated runs, by what happens before what: vector
// clocks of threads, and of the objects that order them (Lamport; Mattern;
// FastTrack: Flanagan and Freund, PLDI 2009). Accesses are those of code that
// is compiled with -fsanitize=thread; the compiler has that call the functions
// in plain.cc and atomics.cc.
//
// Two accesses to one byte race if one of them writes, not both are atomic, and
// neither happens before the other: so it does not matter which came first in
// this run. What uninstrumented code does is not seen, but for what it tells
// Order.
//
// With weak memory (SchedulerOptions) an atomic load may return an older value
// than the last: that of any store which C++20 allows, if stores are modified
// in the order in which they are made. Each atomic object keeps its last
// stores, and who has written and read them; what else orders threads is the
// same.

#ifndef WARD_TESTING_ACCESSES_CHECKER_H_
#define WARD_TESTING_ACCESSES_CHECKER_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "ward/testing/accesses/clock.h"
#include "ward/testing/accesses/shadow.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {

// What a simulated thread has, while it runs.
struct CheckedThread {
  size_t number = 0;
  int group = 0;
  Clock clock;
  // By fences: what later relaxed stores release, and what was read relaxed.
  Clock fence;
  Clock pending;
  bool has_fence = false;

  // What is under way; see AccessChecker::Node.
  uint32_t calls = 0;
  // Of each function that is under way, where its stack ends, and a place in
  // it.
  struct Frame {
    uintptr_t stack;
    uintptr_t place;
    // What was under way when it was called.
    uint32_t calls;
  };
  std::vector<Frame> frames;

  struct Held {
    const void* object;
    Order::Lock lock;
    // Where it was locked: what was under way, and a place in the innermost.
    uint32_t calls;
    uintptr_t place;

    bool operator==(const Held& other) const {
      return object == other.object && lock == other.lock &&
             calls == other.calls && place == other.place;
    }
  };
  std::vector<Held> held;
  uint32_t locks = 0;

  // > 0: what it does is not looked at.
  int unseen = 0;
  // The same of reads and of writes, by annotations.
  int unseen_reads = 0;
  int unseen_writes = 0;

  // The last operations on atomics that changed nothing, since one did.
  struct Seen {
    const volatile void* address;
    uint64_t value;
  };
  std::array<Seen, 4> seen{};
  size_t next_seen = 0;
  int idle = 0;
};

class AccessChecker final : public Order::Listener {
 public:
  static AccessChecker& Only();

  // The thread that runs, if what it does now is looked at; or null.
  static CheckedThread* Looking() {
    CheckedThread* const self = self_;
    return self == nullptr || self->unseen > 0 || NoSchedulingPoints::Exist()
               ? nullptr
               : self;
  }

  // While the checker works: it is itself made of templates, of which the
  // linker may keep an instrumented copy.
  class Working {
   public:
    explicit Working(CheckedThread& self) : self_(self) { ++self_.unseen; }
    Working(const Working&) = delete;
    Working& operator=(const Working&) = delete;
    ~Working() { --self_.unseen; }

   private:
    CheckedThread& self_;
  };

  void RunBegins(Scheduler& scheduler) override;
  void RunEnds() override;
  void ThreadBegins(int thread, int group) override;
  void ThreadEnds() override;
  void Acquire(const void* object) override;
  void Release(const void* object) override;
  void Locked(const void* object, Order::Lock lock) override;
  Order::Lock Unlocked(const void* object) override;
  void Uses(const void* object) override;
  void Pause() override;
  void Resume() override;

  // As Release, of an address whatever is written there until the memory is
  // another's: what annotations say.
  static void ReleaseAddress(const void* address);

  // The rest is by a thread that is Looking, and Working.

  // A function that was called from `caller`, of which `place` is a part, and
  // whose stack ends at `stack` while it calls others.
  void Enter(CheckedThread& self, uintptr_t caller, uintptr_t place,
             uintptr_t stack);
  void Leave(CheckedThread& self, uintptr_t stack);

  // `at` is the address of the code.
  void Check(CheckedThread& self, uintptr_t address, size_t size, uint8_t flags,
             uintptr_t at);

  // A thread that has written a store, or read it.
  struct Witness {
    size_t thread;
    // When it did first.
    uint32_t tick;
    // The same, in the one order of all seq_cst operations; 0 if it never did
    // as one of them.
    uint32_t place;
    // How often it has read the store while there was a newer one.
    int old_reads;
  };

  struct Store {
    // What is seen by who reads it.
    Clock clock;
    unsigned __int128 value = 0;
    // With weak memory.
    std::vector<Witness> witnesses;
  };

  // An object that orders threads: what Release and Locked were told of, and
  // every atomic one, which is its own last store.
  struct Object : Store {
    // Release was told of it since the value was last known.
    bool is_told = false;
    // What ReleaseAddress was told of.
    Clock said;
    // Of an atomic one: 0 if it is none, or was not met yet.
    size_t size = 0;
    // With weak memory the stores before, the oldest first; see kMostStores.
    std::vector<Store> past;

    // By how many there are after it.
    Store& At(size_t back) {
      return back == 0 ? *this : past[past.size() - back];
    }
  };
  // That at an address where the atomic value is now, which code that is not
  // instrumented may have written.
  Object& FindAtomic(CheckedThread& self, uintptr_t address, size_t size,
                     unsigned __int128 value);

  // --- weak memory ---

  bool is_weak() const { return is_weak_; }

  // Of an atomic object so many can be read: the last ones.
  static constexpr size_t kMostStores = 16;

  // How many older stores than the last one a load may read. Coherence: none
  // that is older than one that was written or read by what happens before, or
  // comes before in the one order of seq_cst operations ([atomics.order]/4).
  // And so that loops end, none that was read too often.
  size_t CountOlder(const CheckedThread& self, Object& object,
                    bool is_seq_cst) const;
  // The store is written or read by `self`.
  void AddWitness(const CheckedThread& self, Store& store, bool is_seq_cst,
                  bool is_old);
  // There will be another last store.
  static void KeepLast(Object& object);
  // A fence of seq_cst.
  void PassFence(CheckedThread& self) {
    self.clock.PassFence(published_, ++last_place_);
  }

  // --- memory ---

  // It was handed out; by any thread.
  static void HandedOut(void* memory, size_t size) {
    const auto begin = reinterpret_cast<uintptr_t>(memory);
    if (self_ == nullptr) {
      if (has_benign_memory_) ForgetBenign(begin, begin + size);
      return;
    }
    const Working working(*self_);
    Only().Forget(begin, size);
  }
  // It was given back, and belongs to this object from now on. `is_access`: so
  // it is one of who has given it back, whose order with others' is known.
  void Free(CheckedThread& self, void* memory, size_t size, uintptr_t at,
            bool is_access);

  // Races there are as they should be: in this run; in all of them, if it is a
  // variable of the program, or said outside a run, by any thread. Of other
  // memory it holds until that is given back, or handed out again.
  static void AddBenign(const volatile void* address, size_t size);

 private:
  // What is under way in a thread: a function was called at `at`, in what
  // `parent` has.
  struct Node {
    uint32_t parent;
    uint32_t first_child;
    uint32_t next;
    uintptr_t at;
  };
  // What was locked last, and before that.
  struct LockSet {
    uint32_t parent;
    CheckedThread::Held held;

    bool operator==(const LockSet& other) const {
      return parent == other.parent && held == other.held;
    }
    struct Hash {
      size_t operator()(const LockSet& set) const;
    };
  };

  struct Freed {
    void* memory;
    size_t size;
  };

  // From where to where; no two have an address in common.
  using Ranges = std::map<uintptr_t, uintptr_t>;

  AccessChecker();

  static void ReallyFree(void* memory);
  static bool IsSame(const Object& object, size_t size,
                     unsigned __int128 value);
  // Whether nothing older than the store may be read.
  bool IsOldest(const CheckedThread& self, const Store& store,
                bool is_seq_cst) const;
  void Forget(uintptr_t address, size_t size);
  uint32_t Call(uint32_t parent, uintptr_t at);
  void SetLocks(CheckedThread& self);
  uint32_t WithLock(uint32_t locks, const CheckedThread::Held& held);
  Object& FindObject(const void* address);
  // Those that begin in its cell.
  void ForgetObjects(uintptr_t address);
  // Other ones are made at `bytes` of its cell, see Access. Whether something
  // is left there of which ReleaseAddress was told.
  bool MakeObjectsAnew(uintptr_t address, uint8_t bytes);
  void ReleaseTo(CheckedThread& self, Object& object);
  bool Races(const CheckedThread& self, const Access& before,
             const Access& now) const;
  void CheckCell(CheckedThread& self, uintptr_t address, Cell& cell,
                 const Access& access);
  void Report(uintptr_t address, const Access& before, const Access& now);
  // Whether all of these bytes of the cell are.
  bool IsBenign(uintptr_t cell, uint8_t bytes);
  static void ForgetBenign(uintptr_t begin, uintptr_t end);
  static Ranges::const_iterator FirstThatEndsAfter(const Ranges& ranges,
                                                   uintptr_t address);
  static void AddRange(Ranges& ranges, Ranges::node_type range);
  // All of those that have part of it: it is that of all of a block.
  static void RemoveRanges(Ranges& ranges, uintptr_t begin, uintptr_t end);
  // Takes what is in `ranges` out of the bytes of a cell.
  static void TakeOut(const Ranges& ranges, uintptr_t cell, uint8_t& bytes);
  std::string Places(std::string innermost, uint32_t calls, size_t most) const;
  std::string Places(const Access& access, size_t most) const;
  // `names` has the locks that were named so far.
  std::string Locks(const Access& access,
                    std::vector<const void*>& names) const;

  static inline thread_local CheckedThread* self_ = nullptr;

  Scheduler* scheduler_ = nullptr;
  bool is_weak_ = false;
  // The last place in the one order of all seq_cst operations, which is that of
  // the run; and what happens before the fences among them.
  uint32_t last_place_ = 0;
  Clock published_;
  // By their numbers. Kept for the next run: one that was killed is never seen
  // again, but its memory may be.
  std::vector<std::unique_ptr<CheckedThread>> threads_;
  size_t threads_of_run_ = 0;
  Shadow shadow_;
  std::unordered_map<uintptr_t, Object> objects_;
  std::vector<Node> calls_;
  // Each once, however often it is locked so.
  std::vector<LockSet> lock_sets_;
  std::unordered_map<LockSet, uint32_t, LockSet::Hash> number_of_locks_;
  Ranges benign_;
  // These outlive runs, and any thread has them, under a lock for which nobody
  // waits long, and that takes no memory: who hands out memory takes it.
  class BenignLock;
  std::atomic_flag benign_lock_ = ATOMIC_FLAG_INIT;
  Ranges benign_variables_;
  Ranges benign_memory_;
  // Mostly there is none.
  static inline std::atomic<bool> has_benign_memory_{false};
  // The oldest first.
  std::deque<Freed> freed_;
  size_t size_of_freed_ = 0;
  struct Reported {
    uintptr_t cell;
    // The addresses of the code.
    uintptr_t before;
    uintptr_t now;
  };
  std::vector<Reported> reported_;
  bool said_full_ = false;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_ACCESSES_CHECKER_H_

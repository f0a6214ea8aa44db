#include "ward/testing/accesses/checker.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <iterator>
#include <locale>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ward/testing/report/places.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {
namespace {

// Deeper ones are left out of stacks.
constexpr size_t kMostFrames = 1024;

constexpr size_t kMostShown = 64;

// So many calls from an access there is one of the program's own, most likely.
constexpr size_t kMostOfPlace = 4;

// What is called otherwise than so many calls before is left out of stacks. If
// a process's runs had half as many, they are begun anew.
constexpr size_t kMostCalls = size_t{1} << 20;

// What is locked otherwise than so many times before in a run is left out of
// reports, too.
constexpr size_t kMostLockSets = size_t{1} << 18;

// What a run is worth telling: the first is what there is to mend.
constexpr size_t kMostReports = 4;

// Of memory that was given back this much is kept, and of each block this much
// is known to be so.
constexpr size_t kMostFreed = size_t{16} << 20;
constexpr size_t kMostOfFreed = size_t{64} << 10;

// With weak memory, so often a thread may read one that is not the last.
constexpr int kMostOldReads = 32;

using Wide = unsigned __int128;

constexpr size_t kMostThreads = size_t{1} << 16;

// A shared lock is released to who locks alone, by an address of its own.
const void* OfReaders(const void* lock) {
  return static_cast<const char*>(lock) + 1;
}

uintptr_t AddressOf(const void* object) {
  return reinterpret_cast<uintptr_t>(object);
}

// What the linker calls the ends of the program's code, and of its variables.
extern "C" const char etext;  // NOLINT(readability-identifier-naming)
extern "C" const char end;    // NOLINT(readability-identifier-naming)

bool IsVariable(uintptr_t address) {
  return address > AddressOf(&etext) && address < AddressOf(&end);
}

// What is added of a call to what is in < > for report/places.h, by where it
// returns to. Libraries, which call threads and main(), are elsewhere each
// time.
std::string Place(uintptr_t returns_to) {
  return returns_to > AddressOf(&etext) ? "" : PlaceOf(returns_to - 1);
}

bool Conflict(uint8_t a, uint8_t b) {
  return ((a | b) & kWrite) != 0 && (a & b & kAtomic) == 0;
}

// Whether what races with `other` races with `one`, too.
bool StandsFor(const Access& one, const Access& other) {
  return (other.bytes & ~one.bytes) == 0 &&
         ((one.flags & kWrite) != 0 || (other.flags & kWrite) == 0) &&
         ((one.flags & kAtomic) == 0 || (other.flags & kAtomic) != 0);
}

// Of what orders threads.
bool IsDestruction(uint8_t flags) {
  return (flags & kCalled) != 0 && (flags & kWrite) != 0;
}

std::string_view NameOf(uint8_t flags) {
  if ((flags & kFreed) != 0) return "a deletion";
  if (IsDestruction(flags)) return "a destruction";
  if ((flags & kCalled) != 0) return "a synchronisation";
  if ((flags & kAtomic) != 0) {
    return (flags & kWrite) != 0 ? "an atomic write" : "an atomic read";
  }
  return (flags & kWrite) != 0 ? "a write" : "a read";
}

}  // namespace

// Before any simulation.
[[maybe_unused]] static const bool kIsListening = [] {
  Order::SetListener(AccessChecker::Only());
  return true;
}();

AccessChecker& AccessChecker::Only() {
  static auto& only = *new AccessChecker;
  return only;
}

AccessChecker::AccessChecker() : calls_(1), lock_sets_(1) {
  // Its narrow(), which is inline, keeps what it has found, the same for all
  // threads: std::regex asks it of each character.
  const auto& characters =
      std::use_facet<std::ctype<char>>(std::locale::classic());
  const uintptr_t begin = AddressOf(&characters);
  benign_variables_.emplace(begin, begin + sizeof(characters));
}

// --- threads, and what orders them ---

void AccessChecker::RunBegins(Scheduler& scheduler) {
  scheduler_ = &scheduler;
  is_weak_ = scheduler.has_weak_memory();
  last_place_ = 0;
  published_.Clear();
  threads_of_run_ = 0;
  shadow_.BeginRun();
  objects_.clear();
  lock_sets_.resize(1);
  number_of_locks_.clear();
  if (calls_.size() > kMostCalls / 2) {
    calls_.resize(1);
    calls_[0] = {};
  }
  benign_.clear();
  reported_.clear();
  ThreadBegins(scheduler.thread(), scheduler.group());
}

void AccessChecker::RunEnds() {
  self_ = nullptr;
  scheduler_ = nullptr;
  for (const Freed& freed : freed_) ReallyFree(freed.memory);
  freed_.clear();
  size_of_freed_ = 0;
  if (shadow_.is_full() && !said_full_) {
    said_full_ = true;
    std::cerr << "A run has accessed or freed more than 32 MB of memory: what "
                 "came after that was not checked.\n";
  }
}

void AccessChecker::ThreadBegins(int thread, int group) {
  const auto number = static_cast<size_t>(thread);
  if (number >= kMostThreads) return;
  while (threads_.size() <= number) {
    threads_.push_back(std::make_unique<CheckedThread>());
  }
  // Those that were killed before they began have no record of this run.
  for (; threads_of_run_ <= number; ++threads_of_run_) {
    *threads_[threads_of_run_] = CheckedThread();
  }
  CheckedThread& self = *threads_[number];
  self = CheckedThread();
  self.number = number;
  self.group = group;
  self.clock.Advance(number);
  self_ = &self;
  // Others have had this stack, and these variables.
  if (number == 0) return;
  const Working working(self);
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
  void* stack = nullptr;
  size_t size = 0;
  pthread_attr_getstack(&attributes, &stack, &size);
  pthread_attr_destroy(&attributes);
  Forget(AddressOf(stack), size);
}

void AccessChecker::ThreadEnds() { self_ = nullptr; }

void AccessChecker::ReleaseTo(CheckedThread& self, Object& object) {
  object.clock.Join(self.clock);
  self.clock.Advance(self.number);
}

AccessChecker::Object& AccessChecker::FindObject(const void* address) {
  if (Cell* const cell = shadow_.Find(AddressOf(address))) {
    cell->has_object = true;
  }
  return objects_[AddressOf(address)];
}

void AccessChecker::Acquire(const void* object) {
  if (self_ == nullptr) return;
  const Working working(*self_);
  const auto found = objects_.find(AddressOf(object));
  if (found == objects_.end()) return;
  self_->clock.Join(found->second.clock);
  self_->clock.Join(found->second.said);
}

void AccessChecker::Release(const void* object) {
  if (self_ == nullptr) return;
  const Working working(*self_);
  Object& released = FindObject(object);
  ReleaseTo(*self_, released);
  released.is_told = true;
}

void AccessChecker::ReleaseAddress(const void* address) {
  if (self_ == nullptr) return;
  const Working working(*self_);
  Object& released = Only().FindObject(address);
  released.said.Join(self_->clock);
  Only().ReleaseTo(*self_, released);
  released.is_told = true;
}

void AccessChecker::Locked(const void* object, Order::Lock lock) {
  if (self_ == nullptr) return;
  Acquire(object);
  if (lock == Order::Lock::kExclusive) Acquire(OfReaders(object));
  Uses(object);
  const Working working(*self_);
  const auto& frames = self_->frames;
  self_->held.push_back(
      {object, lock, self_->calls, frames.empty() ? 0 : frames.back().place});
  self_->locks = WithLock(self_->locks, self_->held.back());
}

Order::Lock AccessChecker::Unlocked(const void* object) {
  if (self_ == nullptr) return Order::Lock::kExclusive;
  Uses(object);
  auto& held = self_->held;
  const auto found = std::find_if(
      held.rbegin(), held.rend(),
      [object](const auto& lock) { return lock.object == object; });
  // One that was locked by another thread, or before the simulation, may be
  // either.
  const bool is_known = found != held.rend();
  if (!is_known || found->lock == Order::Lock::kExclusive) Release(object);
  if (!is_known || found->lock == Order::Lock::kShared) {
    Release(OfReaders(object));
  }
  if (!is_known) return Order::Lock::kExclusive;
  const Working working(*self_);
  const Order::Lock lock = found->lock;
  held.erase(std::next(found).base());
  SetLocks(*self_);
  return lock;
}

size_t AccessChecker::LockSet::Hash::operator()(const LockSet& set) const {
  size_t hash = set.parent;
  for (const size_t part :
       {AddressOf(set.held.object), static_cast<size_t>(set.held.lock),
        static_cast<size_t>(set.held.calls), set.held.place}) {
    hash = (hash ^ part) * 0x9e3779b97f4a7c15;
    hash ^= hash >> 32;
  }
  return hash;
}

uint32_t AccessChecker::WithLock(uint32_t locks,
                                 const CheckedThread::Held& held) {
  const LockSet more = {locks, held};
  const auto found = number_of_locks_.find(more);
  if (found != number_of_locks_.end()) return found->second;
  if (lock_sets_.size() == kMostLockSets) return locks;
  const auto made = static_cast<uint32_t>(lock_sets_.size());
  lock_sets_.push_back(more);
  number_of_locks_.emplace(more, made);
  return made;
}

// As an atomic read of its first byte: whoever deletes it, or makes another one
// there, must come before or after. What threads do that run no instrumented
// code may be ordered by what is not seen.
void AccessChecker::Uses(const void* object) {
  CheckedThread* const self = Looking();
  if (self == nullptr || self->frames.empty()) return;
  const Working working(*self);
  Check(*self, AddressOf(object), 1, kRead | kAtomic | kCalled,
        self->frames.back().place);
}

void AccessChecker::SetLocks(CheckedThread& self) {
  self.locks = 0;
  for (const CheckedThread::Held& held : self.held) {
    self.locks = WithLock(self.locks, held);
  }
}

void AccessChecker::Pause() {
  if (self_ != nullptr) ++self_->unseen;
}

void AccessChecker::Resume() {
  if (self_ != nullptr) --self_->unseen;
}

// Whether an atomic that was met with another size has the value that it had,
// as far as both have it; of little-endian machines.
bool AccessChecker::IsSame(const Object& object, size_t size, Wide value) {
  const size_t bits = 8 * std::min(object.size, size);
  const Wide differs = object.value ^ value;
  return object.size != size && (differs & ~(~Wide{0} << bits)) == 0;
}

AccessChecker::Object& AccessChecker::FindAtomic(CheckedThread& self,
                                                 uintptr_t address, size_t size,
                                                 Wide value) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr): it was one.
  Object& object = FindObject(reinterpret_cast<const void*>(address));
  const bool was_met = object.size != 0;
  if (was_met && object.size == size && object.value == value) return object;
  // What was stored otherwise, or as another number of bytes, has no past.
  object.past.clear();
  object.witnesses.clear();
  if (was_met && IsSame(object, size, value)) {
    // As std::shared_ptr has it, which reads both of its counters at once.
    for (size_t i = object.size; i < size; ++i) {
      const auto other = objects_.find(address + i);
      if (other != objects_.end()) object.clock.Join(other->second.clock);
    }
    object.size = size;
    object.value = value;
    return object;
  }
  // Written by code that is not instrumented, and that says nothing of it: as
  // if all had released it. (Where it was not met before, the value is most
  // likely its first one.)
  if (was_met && !object.is_told) {
    for (size_t i = 0; i < threads_of_run_; ++i) {
      CheckedThread& thread = *threads_[i];
      if (thread.group == self.group) ReleaseTo(thread, object);
    }
  }
  object.is_told = false;
  object.size = size;
  object.value = value;
  return object;
}

// --- weak memory ---

// A load that reads an older store comes before what has written or read this
// one, in the coherence order: so that must not be before the load by other
// rules. The one order of seq_cst operations is that of the run; what it says
// of others, it says by fences, which come before the load or after the other.
bool AccessChecker::IsOldest(const CheckedThread& self, const Store& store,
                             bool is_seq_cst) const {
  return std::any_of(store.witnesses.begin(), store.witnesses.end(),
                     [&](const Witness& witness) {
                       if (witness.tick <= self.clock.Of(witness.thread)) {
                         return true;
                       }
                       if (is_seq_cst) {
                         return witness.place != 0 ||
                                witness.tick <= published_.Of(witness.thread);
                       }
                       return (witness.place != 0 &&
                               witness.place < self.clock.last_fence()) ||
                              witness.tick <=
                                  self.clock.VisibleOf(witness.thread);
                     });
}

size_t AccessChecker::CountOlder(const CheckedThread& self, Object& object,
                                 bool is_seq_cst) const {
  const auto was_read_too_often = [&](const Store& store) {
    return std::any_of(store.witnesses.begin(), store.witnesses.end(),
                       [&](const Witness& witness) {
                         return witness.thread == self.number &&
                                witness.old_reads == kMostOldReads;
                       });
  };
  size_t count = 0;
  while (count < object.past.size() &&
         !IsOldest(self, object.At(count), is_seq_cst) &&
         !was_read_too_often(object.At(count + 1))) {
    ++count;
  }
  return count;
}

void AccessChecker::AddWitness(const CheckedThread& self, Store& store,
                               bool is_seq_cst, bool is_old) {
  auto known = std::find_if(
      store.witnesses.begin(), store.witnesses.end(),
      [&](const Witness& other) { return other.thread == self.number; });
  if (known == store.witnesses.end()) {
    known = store.witnesses.insert(
        known, {self.number, self.clock.Of(self.number), 0, 0});
  }
  if (is_seq_cst) {
    ++last_place_;
    if (known->place == 0) known->place = last_place_;
  }
  if (is_old) ++known->old_reads;
}

void AccessChecker::KeepLast(Object& object) {
  if (object.past.size() == kMostStores - 1) {
    object.past.erase(object.past.begin());
  }
  object.past.push_back(static_cast<const Store&>(object));
  object.witnesses.clear();
}

// --- what is under way ---

uint32_t AccessChecker::Call(uint32_t parent, uintptr_t at) {
  uint32_t before = 0;
  for (uint32_t i = calls_[parent].first_child; i != 0;
       before = i, i = calls_[i].next) {
    if (calls_[i].at != at) continue;
    // The next to be looked for is likely the same.
    if (before != 0) {
      calls_[before].next = calls_[i].next;
      calls_[i].next = calls_[parent].first_child;
      calls_[parent].first_child = i;
    }
    return i;
  }
  if (calls_.size() == kMostCalls) return parent;
  const auto made = static_cast<uint32_t>(calls_.size());
  calls_.push_back({parent, 0, calls_[parent].first_child, at});
  calls_[parent].first_child = made;
  return made;
}

// What has ended was further down; it may have ended otherwise than by
// returning.
void AccessChecker::Leave(CheckedThread& self, uintptr_t stack) {
  while (!self.frames.empty() && self.frames.back().stack <= stack) {
    self.calls = self.frames.back().calls;
    self.frames.pop_back();
  }
}

void AccessChecker::Enter(CheckedThread& self, uintptr_t caller,
                          uintptr_t place, uintptr_t stack) {
  Leave(self, stack);
  if (self.frames.size() == kMostFrames) return;
  self.frames.push_back({stack, place, self.calls});
  self.calls = Call(self.calls, caller);
}

// --- accesses ---

void AccessChecker::Check(CheckedThread& self, uintptr_t address, size_t size,
                          uint8_t flags, uintptr_t at) {
  if (((flags & kWrite) != 0 ? self.unseen_writes : self.unseen_reads) > 0) {
    return;
  }
  Access access;
  access.tick = self.clock.Of(self.number);
  access.thread = static_cast<uint16_t>(self.number);
  access.flags = flags;
  access.calls = self.calls;
  access.locks = self.locks;
  access.address = at;
  while (size > 0) {
    const size_t offset = address % Shadow::kCellSize;
    const size_t part = std::min(Shadow::kCellSize - offset, size);
    access.bytes = static_cast<uint8_t>(((1U << part) - 1) << offset);
    if (Cell* const cell = shadow_.Find(address)) {
      CheckCell(self, address, *cell, access);
    }
    address += part;
    size -= part;
  }
}

bool AccessChecker::Races(const CheckedThread& self, const Access& before,
                          const Access& now) const {
  if (threads_[before.thread]->group != self.group ||
      (before.bytes & now.bytes) == 0) {
    return false;
  }
  return (before.flags & kFreed) != 0 ||
         (before.tick > self.clock.Of(before.thread) &&
          Conflict(before.flags, now.flags));
}

void AccessChecker::CheckCell(CheckedThread& self, uintptr_t address,
                              Cell& cell, const Access& access) {
  // An atomic object is made anew, or a lock.
  if (cell.has_object && (access.flags & (kWrite | kAtomic)) == kWrite) {
    const bool is_left = MakeObjectsAnew(address, access.bytes);
    cell.has_object = is_left || access.bytes != kAllBytes;
  }
  const size_t size = cell.size();
  // Nobody else can have come between who does not race with the first.
  for (size_t i = 0; i < size; ++i) {
    const Access& old = cell[i];
    if (old.thread == access.thread && old.tick == access.tick &&
        (old.flags & kFreed) == 0 && StandsFor(old, access)) {
      return;
    }
  }
  size_t kept = 0;
  for (size_t i = 0; i < size; ++i) {
    const Access old = cell[i];
    const bool ours = threads_[old.thread]->group == self.group;
    const bool before = old.tick <= self.clock.Of(old.thread);
    if (Races(self, old, access)) {
      Report(address, old, access);
      if ((old.flags & kFreed) != 0) return;
    }
    if (!(ours && before && StandsFor(access, old))) cell[kept++] = old;
  }
  cell.Resize(kept);
  cell.Append(access);
}

void AccessChecker::ForgetObjects(uintptr_t address) {
  address -= address % Shadow::kCellSize;
  for (size_t i = 0; i < Shadow::kCellSize; ++i) objects_.erase(address + i);
}

bool AccessChecker::MakeObjectsAnew(uintptr_t address, uint8_t bytes) {
  address -= address % Shadow::kCellSize;
  bool is_left = false;
  for (size_t i = 0; i < Shadow::kCellSize; ++i) {
    if ((bytes >> i & 1) == 0) continue;
    const auto found = objects_.find(address + i);
    if (found == objects_.end()) continue;
    if (found->second.said.is_empty()) {
      objects_.erase(found);
      continue;
    }
    Object anew;
    anew.said = std::move(found->second.said);
    found->second = std::move(anew);
    is_left = true;
  }
  return is_left;
}

// --- memory ---

void AccessChecker::Forget(uintptr_t address, size_t size) {
  ForgetBenign(address, address + size);
  shadow_.ForEach(address, address + size, [this](uintptr_t at, Cell& cell) {
    if (cell.has_object) ForgetObjects(at);
    cell.has_object = false;
    cell.Resize(0);
  });
}

void AccessChecker::Free(CheckedThread& self, void* memory, size_t size,
                         uintptr_t at, bool is_access) {
  Access access;
  access.tick = self.clock.Of(self.number);
  access.thread = static_cast<uint16_t>(self.number);
  access.bytes = kAllBytes;
  access.flags = kWrite | kFreed;
  access.calls = self.calls;
  access.locks = self.locks;
  access.address = at;
  const uintptr_t begin = AddressOf(memory);
  if (Cell* const first = shadow_.Find(begin)) {
    if (first->size() > 0 && ((*first)[0].flags & kFreed) != 0) {
      if (threads_[(*first)[0].thread]->group == self.group) {
        Report(begin, (*first)[0], access);
      }
      return;
    }
  }
  const uintptr_t end = begin + std::min(size, kMostOfFreed);
  for (uintptr_t i = begin; i < end; i += Shadow::kCellSize) {
    Cell* const cell = shadow_.Find(i);
    if (cell == nullptr) break;
    for (size_t j = 0; is_access && j < cell->size(); ++j) {
      if (Races(self, (*cell)[j], access)) Report(i, (*cell)[j], access);
    }
    if (cell->has_object) ForgetObjects(i);
    cell->has_object = false;
    cell->Resize(0);
    cell->Append(access);
  }
  ForgetBenign(begin, begin + size);
  freed_.push_back({memory, size});
  size_of_freed_ += size;
  while (size_of_freed_ > kMostFreed) {
    const Freed oldest = freed_.front();
    freed_.pop_front();
    size_of_freed_ -= oldest.size;
    // Whoever has it next may be one that is not seen.
    Forget(AddressOf(oldest.memory), oldest.size);
    ReallyFree(oldest.memory);
  }
}

class AccessChecker::BenignLock {
 public:
  BenignLock() {
    while (Only().benign_lock_.test_and_set(std::memory_order_acquire)) {
    }
  }
  BenignLock(const BenignLock&) = delete;
  BenignLock& operator=(const BenignLock&) = delete;
  ~BenignLock() { Only().benign_lock_.clear(std::memory_order_release); }
};

AccessChecker::Ranges::const_iterator AccessChecker::FirstThatEndsAfter(
    const Ranges& ranges, uintptr_t address) {
  const auto next = ranges.upper_bound(address);
  if (next == ranges.begin()) return next;
  const auto before = std::prev(next);
  return before->second > address ? before : next;
}

void AccessChecker::AddRange(Ranges& ranges, Ranges::node_type range) {
  auto i = FirstThatEndsAfter(ranges, range.key());
  while (i != ranges.end() && i->first < range.mapped()) {
    range.key() = std::min(range.key(), i->first);
    range.mapped() = std::max(range.mapped(), i->second);
    i = ranges.erase(i);
  }
  ranges.insert(std::move(range));
}

void AccessChecker::RemoveRanges(Ranges& ranges, uintptr_t begin,
                                 uintptr_t end) {
  auto i = FirstThatEndsAfter(ranges, begin);
  while (i != ranges.end() && i->first < end) i = ranges.erase(i);
}

void AccessChecker::TakeOut(const Ranges& ranges, uintptr_t cell,
                            uint8_t& bytes) {
  for (auto range = FirstThatEndsAfter(ranges, cell);
       range != ranges.end() && range->first < cell + Shadow::kCellSize;
       ++range) {
    for (size_t i = 0; i < Shadow::kCellSize; ++i) {
      if (cell + i >= range->first && cell + i < range->second) {
        bytes = static_cast<uint8_t>(bytes & ~(1U << i));
      }
    }
  }
}

void AccessChecker::AddBenign(const volatile void* address, size_t size) {
  if (size == 0) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  AccessChecker& only = Only();
  CheckedThread* const self = Looking();
  if (self != nullptr) ++self->unseen;
  {
    // Its memory, before the ranges are touched: that may be one of them.
    Ranges made = {{begin, begin + size}};
    Ranges::node_type range = made.extract(made.begin());
    if (self != nullptr && !IsVariable(begin)) {
      AddRange(only.benign_, std::move(range));
    } else {
      const BenignLock lock;
      AddRange(IsVariable(begin) ? only.benign_variables_ : only.benign_memory_,
               std::move(range));
      has_benign_memory_ = !only.benign_memory_.empty();
    }
  }
  if (self != nullptr) --self->unseen;
}

void AccessChecker::ForgetBenign(uintptr_t begin, uintptr_t end) {
  AccessChecker& only = Only();
  if (self_ != nullptr) RemoveRanges(only.benign_, begin, end);
  if (!has_benign_memory_) return;
  const BenignLock lock;
  RemoveRanges(only.benign_memory_, begin, end);
  has_benign_memory_ = !only.benign_memory_.empty();
}

bool AccessChecker::IsBenign(uintptr_t cell, uint8_t bytes) {
  TakeOut(benign_, cell, bytes);
  const BenignLock lock;
  TakeOut(benign_variables_, cell, bytes);
  TakeOut(benign_memory_, cell, bytes);
  return bytes == 0;
}

// --- reports ---

std::string AccessChecker::Places(std::string innermost, uint32_t calls,
                                  size_t most) const {
  for (uint32_t i = calls; i != 0 && most > 0; i = calls_[i].parent, --most) {
    absl::StrAppend(&innermost, Place(calls_[i].at));
  }
  return innermost.empty() ? "a library" : absl::StrCat("<", innermost, ">");
}

std::string AccessChecker::Places(const Access& access, size_t most) const {
  return Places(Place(access.address), access.calls, most);
}

std::string AccessChecker::Locks(const Access& access,
                                 std::vector<const void*>& names) const {
  if (access.locks == 0) return "  It held no lock.\n";
  std::string text = "  It held";
  for (uint32_t i = access.locks; i != 0; i = lock_sets_[i].parent) {
    const CheckedThread::Held& held = lock_sets_[i].held;
    auto named = std::find(names.begin(), names.end(), held.object);
    if (named == names.end()) named = names.insert(named, held.object);
    absl::StrAppend(&text, i == access.locks ? " " : ", ", "lock ",
                    named - names.begin() + 1,
                    held.lock == Order::Lock::kShared ? " (shared)" : "");
    if (held.place != 0) {
      absl::StrAppend(&text, ", taken in the function at ",
                      Places(Place(held.place), held.calls, kMostOfPlace));
    }
  }
  return text + ".\n";
}

void AccessChecker::Report(uintptr_t address, const Access& before,
                           const Access& now) {
  if (scheduler_ == nullptr || IsBenign(address - address % Shadow::kCellSize,
                                        before.bytes & now.bytes)) {
    return;
  }
  // Of what follows from the first one, as `++n` is a read and a write, nothing
  // is to be learnt.
  const Reported reported = {address / Shadow::kCellSize, before.address,
                             now.address};
  if (reported_.size() == kMostReports ||
      std::any_of(reported_.begin(), reported_.end(),
                  [&](const Reported& other) {
                    return other.cell == reported.cell ||
                           (other.before == reported.before &&
                            other.now == reported.now);
                  })) {
    return;
  }
  reported_.push_back(reported);
  const NoSchedulingPoints quiet;
  std::vector<const void*> names;
  std::string text = absl::StrCat(
      (before.flags & now.flags & kFreed) != 0     ? "a double free: "
      : ((before.flags | now.flags) & kFreed) != 0 ? "a use after free: "
      : IsDestruction(before.flags) || IsDestruction(now.flags)
          ? "a use after destruction: "
          : "a data race: ",
      NameOf(now.flags), " at ", Places(now, kMostOfPlace), " and ",
      NameOf(before.flags), " at ", Places(before, kMostOfPlace),
      (before.flags & kFreed) == 0 ? ", which nothing puts in order\n" : "\n");
  for (const bool is_now : {true, false}) {
    const Access& access = is_now ? now : before;
    absl::StrAppend(&text, is_now ? "  Now, " : "  Before, ",
                    NameOf(access.flags), " by ",
                    scheduler_->Describe(access.thread), ":\n    ",
                    Places(access, kMostShown), "\n", Locks(access, names));
  }
  scheduler_->Fault(text);
}

}  // namespace ward::testing

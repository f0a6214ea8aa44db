// What -fsanitize=thread has code call instead of atomic operations. Each is a
// scheduling point, and orders threads as C++20 has it (in which a release
// sequence has no stores but read-modify-writes, [intro.races]/5).

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

#include "ward/testing/accesses/checker.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

using Wide = unsigned __int128;

bool Acquires(int order) {
  return order != __ATOMIC_RELAXED && order != __ATOMIC_RELEASE;
}

bool Releases(int order) {
  return order == __ATOMIC_RELEASE || order == __ATOMIC_ACQ_REL ||
         order == __ATOMIC_SEQ_CST;
}

// So often may a thread find the same again, without any other operation of an
// atomic that changes something, before it is taken for one that waits for
// another one.
constexpr int kMostIdle = 8;

// One operation at one address, by the thread that runs; null if it is as ever.
class Operation {
 public:
  Operation(const volatile void* address, Use use, void* returns_to)
      : self_(AccessChecker::Looking()),
        address_(address),
        returns_to_(reinterpret_cast<uintptr_t>(returns_to)) {
    Scheduler* const scheduler = Scheduler::Current();
    if (scheduler == nullptr) self_ = nullptr;
    if (self_ == nullptr) return;
    if (self_->idle >= kMostIdle) {
      scheduler->Yield("waiting for an atomic object to change");
    } else {
      scheduler->Point("accessing an atomic object",
                       const_cast<const void*>(address), use);
    }
    ++self_->unseen;
  }
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;
  ~Operation() {
    if (self_ != nullptr) --self_->unseen;
  }

  bool is_seen() const { return self_ != nullptr; }

  // How much older than the last value, which the memory has `now`, that is
  // which a load reads: the schedule's choice among those that it may read, but
  // for `unwanted`. 0: it reads the last one.
  template <typename T>
  size_t ChooseOlder(T now, int order, std::optional<T> unwanted = {}) const {
    AccessChecker& checker = AccessChecker::Only();
    if (!checker.is_weak()) return 0;
    AccessChecker::Object& object = checker.FindAtomic(
        *self_, reinterpret_cast<uintptr_t>(address_), sizeof(T), Wide{now});
    std::array<size_t, AccessChecker::kMostStores> options{};
    size_t count = 1;
    const size_t oldest =
        checker.CountOlder(*self_, object, order == __ATOMIC_SEQ_CST);
    for (size_t back = 1; back <= oldest; ++back) {
      if (static_cast<T>(object.At(back).value) != unwanted) {
        options[count++] = back;
      }
    }
    return options[Scheduler::Current()->Choose(ChoiceKind::kLoad, count)];
  }

  // All reads come here. `now` is what the memory has; returns what is read.
  template <typename T>
  T Read(T now, int order, uint8_t flags = kRead, size_t back = 0) {
    AccessChecker& checker = AccessChecker::Only();
    object_ = &Find(now, flags);
    AccessChecker::Store& store = object_->At(back);
    if (Acquires(order)) {
      self_->clock.Join(store.clock);
    } else {
      self_->pending.Join(store.clock);
    }
    if (checker.is_weak()) {
      checker.AddWitness(*self_, store, order == __ATOMIC_SEQ_CST, back > 0);
    }
    return back == 0 ? now : static_cast<T>(store.value);
  }

  // A store, or, after Read, the rest of a read-modify-write, which goes on
  // with what was released before.
  template <typename T>
  void Write(T before, T value, int order) {
    const bool continues = object_ != nullptr;
    AccessChecker::Object& object = continues ? *object_ : Find(before, kWrite);
    AccessChecker& checker = AccessChecker::Only();
    if (checker.is_weak()) {
      AccessChecker::KeepLast(object);
      checker.AddWitness(*self_, object, order == __ATOMIC_SEQ_CST, false);
    }
    if (!continues) object.clock.Clear();
    if (Releases(order)) {
      object.clock.Join(self_->clock);
    } else if (self_->has_fence) {
      object.clock.Join(self_->fence);
    }
    self_->clock.Advance(self_->number);
    object.value = Wide{value};
    if (value == before) {
      // As of a spin lock that is taken.
      NoteIdle(static_cast<uint64_t>(value));
    } else {
      self_->seen = {};
      self_->idle = 0;
    }
  }

  // Of an object of `size` bytes, of which Read or Write has seen the first.
  void CheckRest(size_t size, uint8_t flags) {
    AccessChecker::Only().Check(
        *self_, reinterpret_cast<uintptr_t>(address_) + 1, size - 1,
        static_cast<uint8_t>(flags | kAtomic), returns_to_);
  }

  // It changed nothing.
  void NoteIdle(uint64_t value) {
    for (const CheckedThread::Seen& seen : self_->seen) {
      if (seen.address == address_ && seen.value == value) {
        ++self_->idle;
        return;
      }
    }
    self_->seen[self_->next_seen++ % self_->seen.size()] = {address_, value};
    self_->idle = 0;
  }

  // Whether a compare-exchange that may, fails for no reason.
  static bool Fails() { return Scheduler::Current()->WakesForNoReason(); }

 private:
  template <typename T>
  AccessChecker::Object& Find(T now, uint8_t flags) {
    AccessChecker& checker = AccessChecker::Only();
    const auto address = reinterpret_cast<uintptr_t>(address_);
    checker.Check(*self_, address, sizeof(T),
                  static_cast<uint8_t>(flags | kAtomic), returns_to_);
    return checker.FindAtomic(*self_, address, sizeof(T), Wide{now});
  }

  CheckedThread* self_;
  const volatile void* const address_;
  const uintptr_t returns_to_;
  AccessChecker::Object* object_ = nullptr;
};

// The memory itself.
template <typename T>
bool ReallyExchange(volatile T* at, T& expected, T value) {
  return __atomic_compare_exchange_n(at, &expected, value, false,
                                     __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

#ifndef __x86_64__
#error "It takes the processor's instruction: add that of this one."
#endif
// Compilers call a library for it, which may not be linked.
// NOLINTNEXTLINE(readability-non-const-parameter): it is written.
bool ReallyExchange(volatile Wide* at, Wide& expected, Wide value) {
  auto low = static_cast<uint64_t>(expected);
  auto high = static_cast<uint64_t>(expected >> 64);
  bool done = false;
  asm volatile("lock cmpxchg16b %1"
               : "=@ccz"(done), "+m"(*at), "+a"(low), "+d"(high)
               : "b"(static_cast<uint64_t>(value)),
                 "c"(static_cast<uint64_t>(value >> 64))
               : "memory");
  expected = (Wide{high} << 64) | low;
  return done;
}

template <typename T>
T ReallyLoad(const volatile T* at) {
  if constexpr (sizeof(T) <= sizeof(uint64_t)) {
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);
  } else {
    T found = 0;
    ReallyExchange(const_cast<volatile T*>(at), found, T{0});
    return found;
  }
}

template <typename T, typename F>
T ReallyChange(volatile T* at, F change) {
  T found = ReallyLoad(at);
  while (!ReallyExchange(at, found, change(found))) {
  }
  return found;
}

template <typename T>
T Load(const volatile T* at, int order, void* returns_to) {
  Operation operation(at, Use::kRead, returns_to);
  const T now = ReallyLoad(at);
  if (!operation.is_seen()) return now;
  const T read =
      operation.Read(now, order, kRead, operation.ChooseOlder(now, order));
  operation.NoteIdle(static_cast<uint64_t>(read));
  return read;
}

template <typename T>
void Store(volatile T* at, T value, int order, void* returns_to) {
  Operation operation(at, Use::kWrite, returns_to);
  const T before = ReallyChange(at, [value](T) { return value; });
  if (operation.is_seen()) operation.Write(before, value, order);
}

template <typename T, typename F>
T Change(volatile T* at, int order, void* returns_to, F change) {
  Operation operation(at, Use::kWrite, returns_to);
  const T before = ReallyChange(at, change);
  if (!operation.is_seen()) return before;
  operation.Read(before, order, kWrite);
  operation.Write(before, static_cast<T>(change(before)), order);
  return before;
}

template <typename T>
bool Exchange(volatile T* at, T* expected, T value, int order, int order_if_not,
              bool weak, void* returns_to) {
  Operation operation(at, Use::kWrite, returns_to);
  if (!operation.is_seen()) return ReallyExchange(at, *expected, value);
  const T wanted = *expected;
  const T now = ReallyLoad(at);
  if (now == wanted && weak && Operation::Fails()) {
    operation.Read(now, order_if_not);
    return false;
  }
  // One that fails is a load; the others read the last value ([atomics.order]).
  const size_t back =
      operation.ChooseOlder(now, order_if_not, std::optional<T>(wanted));
  if (back == 0 && ReallyExchange(at, *expected, value)) {
    operation.Read(now, order, kWrite);
    operation.Write(now, value, order);
    return true;
  }
  *expected = operation.Read(now, order_if_not, kRead, back);
  operation.NoteIdle(static_cast<uint64_t>(*expected));
  return false;
}

void Fence(int order) {
  CheckedThread* const self = AccessChecker::Looking();
  Scheduler* const scheduler = Scheduler::Current();
  if (self == nullptr || scheduler == nullptr) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return;
  }
  scheduler->Point("at a fence", nullptr, Use::kAnything);
  const AccessChecker::Working working(*self);
  if (Acquires(order)) self->clock.Join(self->pending);
  AccessChecker& checker = AccessChecker::Only();
  if (order == __ATOMIC_SEQ_CST && checker.is_weak()) checker.PassFence(*self);
  if (Releases(order)) {
    self->fence = self->clock;
    self->has_fence = true;
    self->clock.Advance(self->number);
  }
}

// Calls `f` with a zero of the integer type of that size, if there is one to
// which the memory is aligned; or returns false.
template <typename F>
bool AsInteger(size_t size, const volatile void* at, F f) {
  if (size == 0 || reinterpret_cast<uintptr_t>(at) % size != 0) return false;
  switch (size) {
    case 1:
      f(uint8_t{0});
      return true;
    case 2:
      f(uint16_t{0});
      return true;
    case 4:
      f(uint32_t{0});
      return true;
    case 8:
      f(uint64_t{0});
      return true;
    case 16:
      f(Wide{0});
      return true;
    default:
      return false;
  }
}

// An operation of what the processor has no instruction for: under a lock, as
// libatomic has it. In a simulated run nobody waits for that: no point comes
// while it is held.
class BigOperation {
 public:
  BigOperation(const volatile void* at, size_t size, Use use, void* returns_to)
      : operation_(at, use, returns_to),
        at_(const_cast<void*>(at)),
        size_(size) {
    while (lock_.test_and_set(std::memory_order_acquire)) {
    }
  }
  BigOperation(const BigOperation&) = delete;
  BigOperation& operator=(const BigOperation&) = delete;
  ~BigOperation() { lock_.clear(std::memory_order_release); }

  bool Is(const void* expected) const {
    return std::memcmp(at_, expected, size_) == 0;
  }

  void Load(void* to, int order) {
    std::memcpy(to, at_, size_);
    if (!operation_.is_seen()) return;
    operation_.Read(Digest(), order);
    operation_.CheckRest(size_, kRead);
    operation_.NoteIdle(Digest());
  }

  // `before` takes what was there, if it is not null.
  void Store(const void* value, void* before, int order) {
    const uint8_t digest = Digest();
    // It may be the same memory.
    if (before != nullptr && operation_.is_seen()) {
      operation_.Read(digest, order, kWrite);
    }
    auto* const at = static_cast<char*>(at_);
    for (size_t i = 0; i < size_; ++i) {
      const char old = at[i];
      at[i] = static_cast<const char*>(value)[i];
      if (before != nullptr) static_cast<char*>(before)[i] = old;
    }
    if (!operation_.is_seen()) return;
    operation_.Write(digest, Digest(), order);
    operation_.CheckRest(size_, kWrite);
  }

 private:
  // What tells most values apart: that it was changed by others is known by it.
  uint8_t Digest() const {
    uint32_t digest = 2166136261;  // FNV-1a.
    for (size_t i = 0; i < size_; ++i) {
      digest = (digest ^ static_cast<const uint8_t*>(at_)[i]) * 16777619;
    }
    return static_cast<uint8_t>(digest >> 24);
  }

  Operation operation_;
  void* const at_;
  const size_t size_;
  static inline std::atomic_flag lock_ = ATOMIC_FLAG_INIT;
};

}  // namespace
}  // namespace ward::testing

using ::ward::testing::Use;

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)

#define WARD_CALLER __builtin_return_address(0)
#define WARD_CHANGE(bits, T, name, result)                                   \
  T __tsan_atomic##bits##_##name(volatile T* at, T value, int order) {       \
    return ::ward::testing::Change(                                          \
        at, order, WARD_CALLER,                                              \
        [value]([[maybe_unused]] T old) { return static_cast<T>(result); }); \
  }
#define WARD_ATOMIC(bits, T)                                                   \
  T __tsan_atomic##bits##_load(const volatile T* at, int order) {              \
    return ::ward::testing::Load(at, order, WARD_CALLER);                      \
  }                                                                            \
  void __tsan_atomic##bits##_store(volatile T* at, T value, int order) {       \
    ::ward::testing::Store(at, value, order, WARD_CALLER);                     \
  }                                                                            \
  WARD_CHANGE(bits, T, exchange, value)                                        \
  WARD_CHANGE(bits, T, fetch_add, old + value)                                 \
  WARD_CHANGE(bits, T, fetch_sub, old - value)                                 \
  WARD_CHANGE(bits, T, fetch_and, old& value)                                  \
  WARD_CHANGE(bits, T, fetch_or, old | value)                                  \
  WARD_CHANGE(bits, T, fetch_xor, old ^ value)                                 \
  WARD_CHANGE(bits, T, fetch_nand, ~(old & value))                             \
  int __tsan_atomic##bits##_compare_exchange_strong(                           \
      volatile T* at, T* expected, T value, int order, int order_if_not) {     \
    return ::ward::testing::Exchange(at, expected, value, order, order_if_not, \
                                     false, WARD_CALLER);                      \
  }                                                                            \
  int __tsan_atomic##bits##_compare_exchange_weak(                             \
      volatile T* at, T* expected, T value, int order, int order_if_not) {     \
    return ::ward::testing::Exchange(at, expected, value, order, order_if_not, \
                                     true, WARD_CALLER);                       \
  }                                                                            \
  T __tsan_atomic##bits##_compare_exchange_val(                                \
      volatile T* at, T expected, T value, int order, int order_if_not) {      \
    ::ward::testing::Exchange(at, &expected, value, order, order_if_not,       \
                              false, WARD_CALLER);                             \
    return expected;                                                           \
  }

WARD_ATOMIC(8, uint8_t)
WARD_ATOMIC(16, uint16_t)
WARD_ATOMIC(32, uint32_t)
WARD_ATOMIC(64, uint64_t)
WARD_ATOMIC(128, unsigned __int128)

void __tsan_atomic_thread_fence(int order) { ::ward::testing::Fence(order); }

// For signals' handlers, which run on the same thread.
void __tsan_atomic_signal_fence(int) {}

// --- libatomic's, which compilers call for what is too big, or may not be
// aligned. By other names here: compilers know theirs. ---

#define WARD_LIBRARY(result, name, function, parameters)            \
  result WardAtomic##name parameters __asm__("__atomic_" function); \
  result WardAtomic##name parameters

WARD_LIBRARY(void, Load, "load",
             (size_t size, const volatile void* at, void* to, int order)) {
  void* const caller = WARD_CALLER;
  if (!::ward::testing::AsInteger(size, at, [&](auto zero) {
        using T = decltype(zero);
        const T read = ::ward::testing::Load(static_cast<const volatile T*>(at),
                                             order, caller);
        std::memcpy(to, &read, sizeof(T));
      })) {
    ::ward::testing::BigOperation(at, size, Use::kRead, caller).Load(to, order);
  }
}

WARD_LIBRARY(void, Store, "store",
             (size_t size, volatile void* at, const void* from, int order)) {
  void* const caller = WARD_CALLER;
  if (!::ward::testing::AsInteger(size, at, [&](auto value) {
        std::memcpy(&value, from, sizeof(value));
        ::ward::testing::Store(static_cast<volatile decltype(value)*>(at),
                               value, order, caller);
      })) {
    ::ward::testing::BigOperation(at, size, Use::kWrite, caller)
        .Store(from, nullptr, order);
  }
}

WARD_LIBRARY(void, Exchange, "exchange",
             (size_t size, volatile void* at, const void* from, void* to,
              int order)) {
  void* const caller = WARD_CALLER;
  if (!::ward::testing::AsInteger(size, at, [&](auto value) {
        using T = decltype(value);
        std::memcpy(&value, from, sizeof(T));
        const T before =
            ::ward::testing::Change(static_cast<volatile T*>(at), order, caller,
                                    [value](T) { return value; });
        std::memcpy(to, &before, sizeof(T));
      })) {
    ::ward::testing::BigOperation(at, size, Use::kWrite, caller)
        .Store(from, to, order);
  }
}

WARD_LIBRARY(bool, CompareExchange, "compare_exchange",
             (size_t size, volatile void* at, void* expected, const void* from,
              int order, int order_if_not)) {
  void* const caller = WARD_CALLER;
  bool done = false;
  if (!::ward::testing::AsInteger(size, at, [&](auto value) {
        using T = decltype(value);
        T before = 0;
        std::memcpy(&before, expected, sizeof(T));
        std::memcpy(&value, from, sizeof(T));
        done = ::ward::testing::Exchange(static_cast<volatile T*>(at), &before,
                                         value, order, order_if_not, false,
                                         caller);
        std::memcpy(expected, &before, sizeof(T));
      })) {
    ::ward::testing::BigOperation operation(at, size, Use::kWrite, caller);
    done = operation.Is(expected);
    if (done) {
      operation.Store(from, expected, order);
    } else {
      operation.Load(expected, order_if_not);
    }
  }
  return done;
}

// Those of 16 bytes: Clang calls them, unless it may take the processor's.
using Wide = unsigned __int128;

WARD_LIBRARY(Wide, Load16, "load_16", (const volatile Wide* at, int order)) {
  return ::ward::testing::Load(at, order, WARD_CALLER);
}
WARD_LIBRARY(void, Store16, "store_16",
             (volatile Wide * at, Wide value, int order)) {
  ::ward::testing::Store(at, value, order, WARD_CALLER);
}
WARD_LIBRARY(bool, CompareExchange16, "compare_exchange_16",
             (volatile Wide * at, Wide* expected, Wide value, int order,
              int order_if_not)) {
  return ::ward::testing::Exchange(at, expected, value, order, order_if_not,
                                   false, WARD_CALLER);
}
#define WARD_LIBRARY_CHANGE(name, result)                             \
  WARD_LIBRARY(Wide, name##16, #name "_16",                           \
               (volatile Wide * at, Wide value, int order)) {         \
    return ::ward::testing::Change(                                   \
        at, order, WARD_CALLER,                                       \
        [value]([[maybe_unused]] Wide old) { return Wide{result}; }); \
  }
WARD_LIBRARY_CHANGE(exchange, value)
WARD_LIBRARY_CHANGE(fetch_add, old + value)
WARD_LIBRARY_CHANGE(fetch_sub, old - value)
WARD_LIBRARY_CHANGE(fetch_and, old& value)
WARD_LIBRARY_CHANGE(fetch_or, old | value)
WARD_LIBRARY_CHANGE(fetch_xor, old ^ value)
WARD_LIBRARY_CHANGE(fetch_nand, ~(old& value))

// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}  // extern "C"

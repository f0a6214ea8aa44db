#include "ward/testing/simulator/coverage.h"

#include <pthread.h>

#include <cstddef>
#include <cstdint>

#include "absl/base/attributes.h"
#include "absl/base/config.h"
#include "ward/testing/simulator/strategy.h"

// What the linker calls the program's beginning, and the end of its code.
extern "C" {
extern const char __executable_start;  // NOLINT
extern const char etext;               // NOLINT(readability-identifier-naming)
}

namespace ward::testing {
namespace {

// How many calls tell a place. Unoptimised, as what is tested is under
// ThreadSanitizer, too, what the C++ library is made of are calls.
#if defined(__OPTIMIZE__) && !defined(ABSL_HAVE_THREAD_SANITIZER)
constexpr size_t kCalls = 4;
#else
constexpr size_t kCalls = Coverage::kMostCalls;
#endif

// Of which those in libraries do not count.
constexpr int kMostFrames = 16;

// No function's frame is larger, nor is what is taken for one.
constexpr uintptr_t kLargestFrame = size_t{1} << 16;

uint64_t Mix(uint64_t hash) {
  hash *= 0x9e3779b97f4a7c15;
  return hash ^ hash >> 29;
}

// A function's frame: its caller's, and where it returns to.
struct Frame {
  uintptr_t caller;
  uintptr_t returns_to;
};

}  // namespace

uint32_t Coverage::PlaceOf(const Calls& calls, uint64_t hash) {
  for (size_t i = hash;; ++i) {
    uint16_t& number = index_[i % index_.size()];
    if (number != 0 && hashes_[number - 1] != hash) continue;
    if (number != 0 || places_ == kMostPlaces) return number;
    hashes_[places_] = hash;
    calls_[places_] = calls;
    number = static_cast<uint16_t>(++places_);
    return number;
  }
}

void Coverage::Add(uint32_t first, uint32_t second) {
  const uint32_t order = first << kBits | second;
  for (size_t i = Mix(order);; ++i) {
    uint32_t& entry = orders_[i % kMostOrders];
    if (entry == order) return;
    if (entry != 0) continue;
    // It never fills up, so that there is always an end.
    if (number_of_orders_ + 1 == kMostOrders) return;
    ++number_of_orders_;
    entry = order;
    return;
  }
}

uintptr_t CoverageRecorder::StackEnd() {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return 0;
  void* stack = nullptr;
  size_t size = 0;
  pthread_attr_getstack(&attributes, &stack, &size);
  pthread_attr_destroy(&attributes);
  return reinterpret_cast<uintptr_t>(stack) + size;
}

ABSL_ATTRIBUTE_NO_SANITIZE_ADDRESS ABSL_ATTRIBUTE_NO_SANITIZE_THREAD
    ABSL_ATTRIBUTE_NO_SANITIZE_UNDEFINED uint32_t
    CoverageRecorder::PlaceOf(const void* frame, uintptr_t end) {
  const auto begin = reinterpret_cast<uintptr_t>(&__executable_start);
  const uintptr_t size = reinterpret_cast<uintptr_t>(&etext) - begin;
  Coverage::Calls calls{};
  size_t count = 0;
  uint64_t hash = 0;
  auto address = reinterpret_cast<uintptr_t>(frame);
  for (int i = 0; i < kMostFrames; ++i) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): of the stack.
    const auto [caller, returns_to] = *reinterpret_cast<const Frame*>(address);
    // Libraries, which may have no frame pointers, are left out, as is what a
    // function does when it calls itself.
    if (returns_to - begin < size &&
        (count == 0 || calls[count - 1] != returns_to)) {
      calls[count++] = returns_to;
      // The same wherever the program is loaded to.
      hash = Mix(hash ^ (returns_to - begin));
      if (count == kCalls) break;
    }
    // Where a function keeps something else in the register, there is no more
    // to know.
    if (caller <= address || caller - address > kLargestFrame ||
        caller % alignof(Frame) != 0 || caller + sizeof(Frame) > end) {
      break;
    }
    address = caller;
  }
  return count == 0 ? 0 : coverage_.PlaceOf(calls, hash);
}

void CoverageRecorder::Add(int thread, const void* object, Use use,
                           uint32_t place) {
  constexpr size_t kAttempts = 8;
  const uint64_t hash = Mix(reinterpret_cast<uintptr_t>(object)) >> 32;
  for (size_t i = 0; i < kAttempts; ++i) {
    Entry& entry = entries_[(hash + i) % entries_.size()];
    if (entry.run != run_) entry = {object, run_, {}};
    if (entry.object != object) continue;
    entry.last.Add(thread, use, place, [this, place](uint32_t before) {
      coverage_.Add(before, place);
    });
    return;
  }
}

}  // namespace ward::testing

#include "ward/testing/simulator/coverage.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/base/attributes.h"
#include "ward/testing/simulator/strategy.h"

// What the linker calls the program's beginning, and the end of its code.
extern "C" {
extern const char __executable_start;  // NOLINT
extern const char etext;               // NOLINT(readability-identifier-naming)
}

namespace ward::testing {
namespace {

// Of a deeper stack, the innermost.
constexpr size_t kMostFrames = 64;

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

void CoverageRecorder::BeginRun(const void* frame) {
  stack_end_ = reinterpret_cast<uintptr_t>(frame);
  operations_.Clear();
}

ABSL_ATTRIBUTE_NO_SANITIZE_ADDRESS ABSL_ATTRIBUTE_NO_SANITIZE_THREAD
    ABSL_ATTRIBUTE_NO_SANITIZE_UNDEFINED uint32_t
    CoverageRecorder::PlaceOf(const void* frame, uintptr_t end) {
  const auto begin = reinterpret_cast<uintptr_t>(&__executable_start);
  const uintptr_t size = reinterpret_cast<uintptr_t>(&etext) - begin;
  std::array<uintptr_t, kMostFrames> calls;
  size_t count = 0;
  // A bit for each of them, which others may have, too.
  uint64_t bits = 0;
  uint64_t hash = 0;
  auto address = reinterpret_cast<uintptr_t>(frame);
  for (size_t i = 0; i < kMostFrames; ++i) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): of the stack.
    const auto [caller, returns_to] = *reinterpret_cast<const Frame*>(address);
    // The same wherever the program is loaded to.
    const uintptr_t offset = returns_to - begin;
    // Libraries, which may have no frame pointers, are left out, as is what a
    // function does when it calls itself, be it by others.
    if (offset < size) {
      const uint64_t bit = uint64_t{1} << (Mix(offset) >> 58);
      if ((bits & bit) == 0 ||
          std::count(calls.begin(), calls.begin() + count, returns_to) == 0) {
        bits |= bit;
        calls[count++] = returns_to;
        hash = Mix(hash ^ offset);
      }
    }
    // Where a function keeps something else in the register, there is no more
    // to know.
    if (caller <= address || caller - address > kLargestFrame ||
        caller % alignof(Frame) != 0 || caller + sizeof(Frame) > end) {
      break;
    }
    address = caller;
  }
  if (count == 0) return 0;
  const auto place =
      std::max(static_cast<uint32_t>(hash ^ hash >> 32), uint32_t{1});
  if (names_) {
    Coverage::Calls innermost{};
    std::copy_n(calls.begin(), std::min(count, innermost.size()),
                innermost.begin());
    coverage_.Name(place, innermost);
  }
  return place;
}

void CoverageRecorder::Add(int thread, const Operation& now) {
  operations_.Add(thread, now, [this, &now](uint32_t before) {
    coverage_.Add(before, now.place);
  });
}

}  // namespace ward::testing

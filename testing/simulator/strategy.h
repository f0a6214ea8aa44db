// Who goes on, and what goes wrong: the choices of a simulated run.
//
// A run is a sequence of choices, each among a few options. Option 0 is always
// the dull one: the thread that runs goes on running, nothing fails. So a run
// is told by the choices that were not dull, its Deviations; they are short,
// can be printed and replayed, and a failure is made simpler by leaving some
// out.

#ifndef WARD_TESTING_SIMULATOR_STRATEGY_H_
#define WARD_TESTING_SIMULATOR_STRATEGY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/types/span.h"

namespace ward::testing {

enum class ChoiceKind {
  kThread,  // Who goes on.
  kWaiter,  // Who is woken, of those that wait for the same thing.
  kDelay,   // 1: time passes first, to the next deadline.
  kFault,   // Which of the call's faults happens, from 1 on.
  kDeath,   // 1: the calling process is killed here.
  kWakeUp,  // 1: the wait that begins here ends for no reason.
};

struct Choice {
  ChoiceKind kind;
  size_t options;
  // Of kThread and kWaiter: the candidates' numbers. Of kThread: which of them
  // has just yielded (Scheduler::Yield), or -1.
  absl::Span<const int> threads = {};
  int yielded = -1;
  // Of kThread and kDelay: the thread that is at a point after something
  // (Scheduler::PointAfter), or -1. It is one of the candidates.
  int after = -1;
};

// The choices, by their number in the run, that were not 0.
using Deviations = absl::btree_map<uint32_t, uint32_t>;

// "12=1,40=2"; empty for none.
std::string FormatDeviations(const Deviations& deviations);
std::optional<Deviations> ParseDeviations(std::string_view text);

class Strategy {
 public:
  virtual ~Strategy() = default;

  // Less than `choice.options`, which is at least 2.
  virtual size_t Choose(const Choice& choice) = 0;
};

// A run that is known.
class ReplayStrategy final : public Strategy {
 public:
  explicit ReplayStrategy(Deviations deviations)
      : deviations_(std::move(deviations)) {}
  size_t Choose(const Choice& choice) override;

 private:
  const Deviations deviations_;
  uint32_t step_ = 0;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_STRATEGY_H_

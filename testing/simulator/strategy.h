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
  kLoad,    // Which value an atomic load returns: the last, or one before it.
};

// How a thread uses the object of its next operation.
enum class Use : unsigned char {
  kAnything,  // It is not known: any other may be about the same.
  kNothing,   // None that others use.
  kRead,      // As others may at the same time: their order does not matter.
  kWrite,     // Or locks it, signals it, closes it.
};

// What a thread does next, at a scheduling point. Objects have small numbers,
// in the order in which they come up in the run; one that is made where another
// was has that one's.
struct Operation {
  Use use = Use::kAnything;
  int object = -1;
  // The same for the same place in the code, in all runs of a program; 0: not
  // known. See CoverageRecorder.
  uint32_t place = 0;
  // The object that this one is a part of, or -1: what is done with that is
  // done with each of its parts.
  int whole = -1;

  // Whether they are about the same, as far as that is known.
  bool SharesObjectWith(const Operation& other) const {
    return object >= 0 && other.object >= 0 &&
           (object == other.object || object == other.whole ||
            whole == other.object);
  }

  // Whether their order matters.
  bool ConflictsWith(const Operation& other) const {
    if (use == Use::kNothing || other.use == Use::kNothing) return false;
    if (use == Use::kAnything || other.use == Use::kAnything) return true;
    return SharesObjectWith(other) &&
           (use == Use::kWrite || other.use == Use::kWrite);
  }
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
  // The thread that has come to the choice, or ends; and how many scheduling
  // points it has come to, which tells where it is whatever others have done.
  int running = -1;
  uint64_t point = 0;
  // Of kThread, for a strategy that looks ahead: what each candidate does next.
  absl::Span<const Operation> next = {};
  // Of kFault: what each option but 0 sets errno to.
  absl::Span<const int> errors = {};

  // Which option `thread` is; 0 if it is none.
  size_t OptionOf(int thread) const;
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

  // Whether it asks for Choice::next, and is told of each scheduling point that
  // a thread has come to, be there a choice or not: which takes a moment.
  // Always the same.
  virtual bool LooksAhead() const { return false; }
  virtual void Arrives(int /*thread*/, const Operation& /*next*/) {}
  // The same, when it goes on.
  virtual void GoesOn(int /*thread*/, const Operation& /*now*/) {}
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

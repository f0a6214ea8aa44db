// What a run that failed did, in words.
//
//   const Explanation explained = Explain(events);
//   std::cout << explained.stuck << explained.deviations << explained.steps;
//
// Where something happened are the user's own functions, with file and line if
// they were compiled with -g1; what ward, Abseil and the C++ library do inside
// is left out. A mutex, or whatever else is locked or waited for, goes by its
// variable's name if that is a global or static one. A member of an object has
// no name that is known: such have numbers, in the order in which the run came
// to them. (Their addresses are others in each process.)

#ifndef WARD_TESTING_REPORT_EXPLANATION_H_
#define WARD_TESTING_REPORT_EXPLANATION_H_

#include <cstdint>
#include <optional>
#include <string>

#include "ward/testing/report/run_events.h"

namespace ward::testing {

struct Explanation {
  // Of a run that cannot go on, why: first those who wait for one another, if
  // any do, what each of them has and where it took that; then the others,
  // those that wait alike in one line. Less than 40 lines. Empty for others.
  // Empty, too, of a run of which not all events were kept: who waits for whom
  // at its end is not known then.
  std::string stuck;

  // What `stuck` is about, as the scheduler says it.
  std::string why;

  // Of a fault that is about a lock, who has that and where it was taken.
  std::string locked;

  // What was decided otherwise than by default, a paragraph each; those that
  // are left of a failure that was made simpler are what it takes.
  std::string deviations;

  // The run, a line for each step of a thread and for each message, with the
  // numbers that `deviations` has: its end, and what is around these.
  std::string steps;
};

// Words that are to stand in `steps` after a decision of the run.
struct StepMark {
  int64_t decision;
  std::string text;
};

Explanation Explain(const RunEvents& events,
                    std::optional<StepMark> mark = std::nullopt);

// RunEvents::ToJson for a picture, with what `steps` would say of each step of
// a thread, in their order, so that both have the same names and numbers:
// {..., "says": ["locking mutex 1", ...], "of": [number in `says`, ...],
// "objects": {"3": "mutex 1", ...}}, of the objects of events.
std::string EventsInWords(const RunEvents& events);

}  // namespace ward::testing

#endif  // WARD_TESTING_REPORT_EXPLANATION_H_

// Where a run that fails was doomed: from which of its decisions on it could
// hardly end well any more, or, if there is none such, was likelier to fail.
// For this folder's sources, and Explore's.
//
// What comes before a decision is made again, with ends at random, and how many
// of these fail in the same way is counted: a point of a curve that begins at
// how likely any run is to fail, and ends at 1. Where it rises most is what to
// look at: what was decided later did not matter, nor much what was before. The
// ends that are reported of it are others than those that it was chosen by.

#ifndef WARD_TESTING_SEARCH_DOOM_H_
#define WARD_TESTING_SEARCH_DOOM_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "ward/testing/search/exploration.h"

namespace ward::testing {

struct Doom {
  struct Point {
    // So many of the run's decisions were made as it has made them.
    uint32_t decisions = 0;
    // Runs that went on at random from there, and those that failed so.
    uint64_t ends = 0;
    uint64_t failed = 0;

    // From 0 to 1.
    double chance() const {
      return ends == 0
                 ? 0
                 : static_cast<double>(failed) / static_cast<double>(ends);
    }
  };

  // Of the run.
  uint32_t decisions = 0;
  // In order, from none to all of them; none alone if each run fails. Empty: it
  // was not looked for, or the run did not fail again.
  std::vector<Point> curve;
  // Which of `curve` come right before and after what dooms it, one decision
  // but in a long run that there were not enough ends for. The same: none does,
  // as the chance is nowhere much greater than before.
  size_t before = 0;
  size_t after = 0;
  // How many were made in all; and of the ends, those that hung, or looped, and
  // the run does not. Of those that hang there are but a few: then it is looked
  // no further, and there is no curve.
  uint64_t runs = 0;
  uint64_t hung = 0;
  uint64_t looped = 0;
  // What was decided there, in words, with the places in the program at which
  // the threads were that it is about; the one that then goes on.
  std::string decided;
  int thread = -1;
  // The run's, in which this is marked; empty if there is none.
  std::string transcript;

  bool is_found() const { return before != after; }
  // Nearly all ends fail then; else it is only that more of them do.
  bool IsDoom() const { return is_found() && curve[after].chance() >= 0.9; }
  // The last of the decisions that it can be, by its number in the run.
  uint32_t decision() const { return curve[after].decisions - 1; }

  // What stands where it was doomed, without and with the decision; and what
  // makes it so, with the share of ends: "Decision 7 of 26 dooms it: ...".
  std::string_view Words() const;
  std::string Mark() const;
  std::string Verdict() const;
  // Verdict(), what was decided, the curve, and how many ends had none: lines;
  // empty if nothing was found out.
  std::string ToText() const;
  // For the picture: {"decision": 7, "thread": 1, "mark": "...", "says": "...",
  // "curve": [[decisions, ends, failed], ...]}, where what is not known is -1;
  // "null" without a curve.
  std::string ToJson() const;
};

// Makes as many runs as ExploreOptions::doom_runs has. With the same options
// and failure it says the same on any machine. A failure that could not be
// replayed, or hung, has no curve. Calls `announce` once it has taken long.
Doom FindDoom(
    const ExploreOptions& options, const Exploration::Failure& failure,
    absl::FunctionRef<void()> body, absl::FunctionRef<void()> announce = [] {});

}  // namespace ward::testing

#endif  // WARD_TESTING_SEARCH_DOOM_H_

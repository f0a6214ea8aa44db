// The strategies of searches.

#ifndef WARD_TESTING_SEARCH_STRATEGIES_H_
#define WARD_TESTING_SEARCH_STRATEGIES_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "ward/testing/simulator/split_mix.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

// Of points after something (Scheduler::PointAfter) there are as many as of
// others, and most of what they find those that come next find, too: so no
// strategy spends more than half of its runs on them.

// Each choice at random; what goes wrong does so once in a while. Without
// `after`, who is at a point after something goes on.
//
// All threads are equally likely to go on; or, weighted, each has a weight that
// is drawn for the run, from 1 to 4,096: some threads stand still while others
// make whole calls, which takes a long row of luck where all are equal. Each
// time that one yields, it weighs half as much from then on.
class RandomStrategy final : public Strategy {
 public:
  explicit RandomStrategy(uint64_t seed, bool weighted = false,
                          bool after = true)
      : random_(seed), weighted_(weighted), after_(after) {}
  size_t Choose(const Choice& choice) override;

 private:
  uint64_t& Weight(int thread);

  SplitMix random_;
  const bool weighted_;
  const bool after_;
  absl::flat_hash_map<int, uint64_t> weights_;
};

// Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of
// Finding Bugs" (ASPLOS 2010): threads have random priorities, the highest
// goes on, and at depth-1 random moments the one that runs falls to the bottom.
// One that yields comes after all others but these, and after these, too, when
// it keeps them waiting. A bug that takes `depth` ordered steps is found with
// probability at least 1/(threads * length^(depth-1)) in each run.
class PctStrategy final : public Strategy {
 public:
  // `length`: how many choices of threads a run has, about, but for those after
  // something. With `after` one of the moments is at one of these.
  PctStrategy(uint64_t seed, int depth, size_t length, bool after = false);
  size_t Choose(const Choice& choice) override;

 private:
  struct Drop {
    size_t step;
    bool after = false;
    bool done = false;
  };

  SplitMix random_;
  std::vector<Drop> drops_;
  absl::flat_hash_map<int, int64_t> priorities_;
  int64_t lowest_ = 0;
  int64_t last_yield_ = 0;
  // Since a thread went on that had fallen.
  int yields_ = 0;
  size_t step_ = 0;
};

// Every run with at most `switches` deviations, of which `faults` are not of
// kThread: first the dull one, then those with one deviation, and so on; each
// depth first. One after something counts for one and a half. (Delay-bounded
// scheduling: Emmi, Qadeer and Rakamaric, POPL 2011. A bound on preemptions
// alone leaves too many runs of a server, where most switches are from a thread
// that waits.)
class DepthFirstStrategy final : public Strategy {
 public:
  struct Branch {
    size_t options;
    size_t chosen = 0;
  };

  // Where it is: what the deviations come to now, in halves of one, and what
  // was chosen.
  struct Position {
    int level = 0;
    std::vector<Branch> path;
  };

  DepthFirstStrategy(int switches, int faults, Position start)
      : max_deviations_(switches),
        max_faults_(faults),
        position_(std::move(start)) {}
  size_t Choose(const Choice& choice) override;

  // Goes back to the start, for another run; false when all were made.
  bool NextRun();

  const Position& position() const { return position_; }

 private:
  bool MayDeviate(const Choice& choice) const;

  const int max_deviations_;
  const int max_faults_;
  Position position_;
  int deviations_ = 0;
  int cost_ = 0;
  int faults_ = 0;
  size_t depth_ = 0;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SEARCH_STRATEGIES_H_

// The strategies of searches.

#ifndef WARD_TESTING_SEARCH_STRATEGIES_H_
#define WARD_TESTING_SEARCH_STRATEGIES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "ward/testing/simulator/split_mix.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

// What the dull run of a body tells of its other runs, about: a search may be
// wrong in it. Of more threads and objects than these it has nothing. As it
// lies in shared memory, it is of a fixed size.
struct Profile {
  static constexpr size_t kMostThreads = 256;
  static constexpr size_t kMostObjects = 64;
  struct Thread {
    // The thread that has started it, or -1.
    int parent;
    // How many of its operations are about each object; and all that are about
    // something, be it known or not.
    std::array<uint32_t, kMostObjects> operations;
    uint32_t all;
  };

  // How many choices of threads there were, but for those after something.
  uint64_t length;
  // Those that there were have the numbers below this.
  size_t known;
  std::array<Thread, kMostThreads> threads;
  // As bits, the objects that have come up, that more than one thread uses, and
  // that are written.
  uint64_t used;
  uint64_t used_by_more;
  uint64_t written;
  std::array<int, kMostObjects> first_user;

  // Whether two threads use it, one of which writes; objects that have not come
  // up may be.
  bool MayBeShared(int object) const;
  // Those that are known to be.
  std::vector<int> SharedObjects() const;
};

// The dull run, of which `profile`, which must be zero, then tells.
class ProfilingStrategy final : public Strategy {
 public:
  explicit ProfilingStrategy(Profile& profile) : profile_(profile) {}
  size_t Choose(const Choice& choice) override;
  bool LooksAhead() const override { return true; }
  void Arrives(int thread, const Operation& next) override;

 private:
  void Know(int thread, int parent);

  Profile& profile_;
};

// Of points after something (Scheduler::PointAfter) there are as many as of
// others, and most of what they find those that come next find, too: so no
// strategy spends more than half of its runs on them.

// The choices of a run at random that are not among threads: what goes wrong
// does so once in a while; and of the loads that may, each returns an older
// value than the last with a probability that is drawn for the run, low, even
// or high: some bugs take one, some take many.
class OddChoices {
 public:
  size_t Choose(SplitMix& random, const Choice& choice);

 private:
  // Of 16; 0: not drawn.
  uint64_t old_values_ = 0;
};

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
  // That of run `run` of a search whose first one has `seed`: of four in a row
  // each way to choose has one.
  static RandomStrategy OfRun(uint64_t seed, uint64_t run) {
    return RandomStrategy(seed + run, /*weighted=*/run % 2 == 1,
                          /*after=*/run / 2 % 2 == 1);
  }
  size_t Choose(const Choice& choice) override;

 private:
  uint64_t& Weight(int thread);

  SplitMix random_;
  OddChoices odd_choices_;
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
  OddChoices odd_choices_;
  std::vector<Drop> drops_;
  absl::flat_hash_map<int, int64_t> priorities_;
  int64_t lowest_ = 0;
  int64_t last_yield_ = 0;
  // Since a thread went on that had fallen.
  int yields_ = 0;
  size_t step_ = 0;
};

// Yuan, Yang and Gu, "Partial Order Aware Concurrency Sampling" (CAV 2018):
// what each thread does next has a random priority, and the highest goes on;
// what conflicts with it gets a new one. So each order of operations that
// conflict has its chance, whatever lies between them.
class PosStrategy final : public Strategy {
 public:
  // Without `after`, who is at a point after something goes on.
  explicit PosStrategy(uint64_t seed, bool after = false)
      : random_(seed), after_(after) {}
  size_t Choose(const Choice& choice) override;
  bool LooksAhead() const override { return true; }
  void Arrives(int thread, const Operation& next) override;

 private:
  uint64_t PriorityOf(int thread);
  void SetPriority(int thread, uint64_t priority);

  SplitMix random_;
  OddChoices odd_choices_;
  const bool after_;
  // By thread; 0: to be drawn.
  std::vector<uint64_t> priorities_;
};

// Zhao, Wolff, Mathur and Roychoudhury, "Selectively Uniform Concurrency
// Testing" (ASPLOS 2025): each run is interested in the operations on one
// object that threads share, or, some runs, in all; each interleaving of these
// is as likely as any other. Which thread comes next to one is drawn by how
// many each has left, with those of the threads that it will start; others wait
// before theirs. What is of no interest happens meanwhile in an order of random
// priorities. How many each will have, `profile` tells.
class SurwStrategy final : public Strategy {
 public:
  SurwStrategy(uint64_t seed, const Profile& profile, bool after = false);
  size_t Choose(const Choice& choice) override;
  bool LooksAhead() const override { return true; }
  void Arrives(int thread, const Operation& next) override;

 private:
  struct Thread {
    // Its own operations of interest, and those of threads that it has yet to
    // start.
    uint64_t left = 0;
    uint64_t to_start = 0;
    // In all, when it starts.
    uint64_t total = 0;
    int parent = -1;
    bool seen = false;
    // It is at one of interest, that has not begun.
    bool at_one = false;
    uint64_t priority = 0;
  };

  bool IsOfInterest(const Operation& operation) const;
  Thread& Of(int thread);
  void See(int thread);
  void HasBegun(int thread);
  // -1: none has anything left.
  int DrawNext(const Choice& choice);

  SplitMix random_;
  OddChoices odd_choices_;
  const bool after_;
  // -1: all.
  int interest_ = -1;
  std::vector<Thread> threads_;
  // Who comes next to an operation of interest; -1: to be drawn.
  int next_ = -1;
};

// Every run with at most `switches` deviations, of which `faults` are not of
// kThread: first the dull one, then those with one deviation, and so on; each
// depth first. One counts for one and a half after something; before what no
// other thread cares for, as `profile` has it; and if it holds back several
// threads at once, of which there may be many. (Delay-bounded scheduling: Emmi,
// Qadeer and Rakamaric, POPL 2011. A bound on preemptions alone leaves too many
// runs of a server, where most switches are from a thread that waits.)
class DepthFirstStrategy final : public Strategy {
 public:
  struct Branch {
    size_t options;
    size_t chosen = 0;
    // In halves of a deviation: of option 1, and of others.
    int cost = 0;
    int cost_of_others = 0;
    bool is_fault = false;
  };

  // Where it is: what the deviations come to now, in halves of one, and what
  // was chosen.
  struct Position {
    int level = 0;
    std::vector<Branch> path;
  };

  // `profile` may be null, and must otherwise outlive it, and be the same from
  // the first run of a search on.
  DepthFirstStrategy(int switches, int faults, Position start,
                     const Profile* profile = nullptr)
      : max_deviations_(switches),
        max_faults_(faults),
        profile_(profile),
        position_(std::move(start)) {
    position_.path.reserve(kUsualChoices);
  }
  size_t Choose(const Choice& choice) override;
  bool LooksAhead() const override { return profile_ != nullptr; }

  // Goes back to the start, for another run; false when all were made.
  bool NextRun();

  const Position& position() const { return position_; }

 private:
  // A choice may be in a signal's handler, where nothing may be allocated.
  static constexpr size_t kUsualChoices = 4096;

  Branch BranchOf(const Choice& choice) const;
  static int CostOf(const Branch& branch, size_t option);
  // Whether `option` of a branch may be taken after what was before it.
  bool MayTake(const Branch& branch, size_t option) const;
  // Adds what was chosen to what the run has come to, `times` 1 or -1.
  void Count(const Branch& branch, int times);

  const int max_deviations_;
  const int max_faults_;
  const Profile* const profile_;
  Position position_;
  int deviations_ = 0;
  int cost_ = 0;
  int faults_ = 0;
  size_t depth_ = 0;
};

// A deviation by its place in the course of its own thread, which stays where
// it is when others are left out.
struct PlacedDeviation {
  ChoiceKind kind;
  // The thread that has come to it, where, and which choice of this kind it is
  // there.
  int thread;
  uint64_t point;
  uint32_t nth;
  // Of kThread and kWaiter a thread, of others an option.
  uint32_t chosen;
};

// Tells the choices of a kind at one point apart.
class Places {
 public:
  // `choice` as a deviation to `option`; called once for each choice of a run.
  PlacedDeviation Place(const Choice& choice, size_t option);

 private:
  struct Last {
    int thread = -1;
    uint64_t point = 0;
    uint32_t count = 0;
  };
  std::array<Last, 8> last_;
};

// The dull run, but for these. One that does not come up is left out.
class PlacedStrategy final : public Strategy {
 public:
  explicit PlacedStrategy(const std::vector<PlacedDeviation>& deviations);
  size_t Choose(const Choice& choice) override;

 private:
  using Place = std::tuple<ChoiceKind, int, uint64_t, uint32_t>;

  absl::flat_hash_map<Place, uint32_t> chosen_;
  Places places_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SEARCH_STRATEGIES_H_

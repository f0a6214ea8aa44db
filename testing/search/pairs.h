// The search that coverage guides.

#ifndef WARD_TESTING_SEARCH_PAIRS_H_
#define WARD_TESTING_SEARCH_PAIRS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulator/coverage.h"
#include "ward/testing/simulator/split_mix.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

// The search is made of so many, each of which goes by its own runs and the
// dull one alone: so several processes can make it, and it is the same whatever
// else these make. Each tries other orders.
constexpr size_t kPairsLanes = 4;

// What the runs of one of them have seen. In shared memory, as Coverage is.
struct KnownOrders {
  // What is seen in the runs, or in the dull one, can all be known, each order
  // and its reverse.
  static constexpr size_t kMost = 4 * Coverage::kMostOrders;

  // Of two operations, by their places; one that was seen the other way round
  // alone is known, too.
  struct Order {
    uint32_t first;
    uint32_t second;
    // It is another one's to try.
    bool is_others;
    bool seen;
  };

  size_t size;
  std::array<Order, kMost> orders;
  // Those before were seen, or tried.
  size_t next;
};

// Each run wants one or more orders of two operations on one object, known by
// their places in the code alone: whoever comes to the second of them is held
// back until another thread has done the first, and then goes on at once. As
// long as there are some that were not seen or tried, it is one of these; then,
// several at random. Else threads have random priorities, for the whole run or,
// then, in every other run, anew for each operation, as PosStrategy has them.
// So it does not matter how many threads do the same, or how much lies between
// the two. (Yu et al., "Maple", OOPSLA 2012, looks for untested orders so;
// several at once are ours.)
class PairsStrategy final : public Strategy {
 public:
  // Has one life for all runs of lane `lane` that one process makes. `dull`
  // tells what the dull run has seen, and may be null.
  PairsStrategy(KnownOrders& known, size_t lane, const Coverage* dull);
  void BeginRun(uint64_t seed);

  size_t Choose(const Choice& choice) override;
  bool LooksAhead() const override { return true; }
  void Arrives(int thread, const Operation& next) override;
  void GoesOn(int thread, const Operation& now) override;

 private:
  struct Wanted {
    uint32_t first;
    uint32_t second;
    // It is not the first time that is meant, but the one after so many.
    uint64_t skipped;
    // Who has done the first, which was this.
    int thread = -1;
    Operation has_done = {};
    bool done = false;
  };

  void See(uint32_t first, uint32_t second);
  size_t Know(uint32_t first, uint32_t second);
  bool IsReady(const Wanted& wanted, int thread, const Operation& next) const;
  uint64_t PriorityOf(int thread);
  void SetPriority(int thread, uint64_t priority);

  KnownOrders& known_;
  const size_t lane_;
  // What is seen was by the dull run.
  bool is_dull_ = false;
  absl::flat_hash_map<std::pair<uint32_t, uint32_t>, size_t> index_;

  // Of this run.
  SplitMix random_;
  OddChoices odd_choices_;
  bool after_ = false;
  bool has_new_priorities_ = false;
  std::vector<Wanted> wanted_;
  // Choices at which somebody was held back.
  int patience_ = 0;
  // By thread; 0: to be drawn.
  std::vector<uint64_t> priorities_;
  OperationsOfRun operations_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SEARCH_PAIRS_H_

// What Explore() is to look for, and what came of it; ward/testing/explore.h
// has this.

#ifndef WARD_TESTING_SEARCH_EXPLORATION_H_
#define WARD_TESTING_SEARCH_EXPLORATION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

// How schedules are chosen.
enum class Search {
  // All of those below, in turn: what one of them comes to late another finds
  // soon. Of sixteen runs eight are kPairs', four kSurw's, and one each of the
  // others'.
  kPortfolio,
  // Any thread may go on at any point; in every other run some are less likely
  // to than others, see RandomStrategy.
  kRandom,
  // Few switches, at random moments: see PctStrategy. Often finds what takes a
  // thread to be late by far.
  kPct,
  // Each order of two operations on the same object is as likely as the other,
  // about: see PosStrategy.
  kPos,
  // Each interleaving of the operations on one object is as likely as any
  // other, about: see SurwStrategy. Finds what takes one order of many.
  kSurw,
  // Orders of two operations on one object that were not seen yet; then several
  // at once: see PairsStrategy. How many threads do the same does not matter.
  kPairs,
  // All schedules with few deviations from the dull one: see
  // DepthFirstStrategy.
  kDepthFirst,
};

// What to look for, where, and for how long.
struct ExploreOptions {
  Search search = Search::kPortfolio;
  uint64_t runs = 1000;

  // Calls of the Environment may fail: see SimulationFaults; and those for real
  // descriptors that a run has opened: see docs/testing.md.
  bool faults = false;
  // Processes other than the test's own may be killed at each of their calls.
  bool deaths = false;
  // Deadlines may come while threads could still run, and waits for conditions
  // end for no reason.
  bool delays = false;
  // A sleep may end while threads could still run, a few times in a run: so
  // that one that is to give them time is found. Not where somebody waits with
  // a time limit in the first run, as all do who call servers: it might be over
  // then. (kRandom alone has no such run to know it by.) False for a body in
  // which sleeps are to say who comes first, or that looks at how much time
  // something takes.
  bool early_sleeps = true;

  // Atomic loads may return older values than the last, as the memory of C++20
  // and of processors other than x86-64 may: for tests with accesses = True,
  // see docs/testing.md, which says what of that there is. Of what is not
  // compiled for such a test, loads return the last value.
  bool weak_memory = false;

  // kPct, and its part of kPortfolio: how many steps must happen in the right
  // order, at most; the runs have each depth up to this in turn.
  int depth = 5;
  // kDepthFirst, and its part of kPortfolio: at most this many deviations from
  // the dull schedule, of which this many are faults, deaths, delays or
  // wake-ups (old values that are loaded are none of these). Each more takes
  // about a hundred times as many runs.
  int deviations = 3;
  int faults_per_run = 1;

  // Each run has a process of its own, and with it static variables of its own.
  // It takes a millisecond; without it, some runs have.
  bool fresh_process = false;

  // Of one run; more are taken for an endless loop.
  size_t max_steps = 100000;

  // Explore() makes so many more of a run that has failed, at most, to find the
  // decision that doomed it; 0: it does not look for that. Not more than
  // `runs`, nor than take 10,000,000 steps, but for a hundred.
  uint64_t doom_runs = 2000;
};

// What became of the runs.
struct Exploration {
  // The last one may have failed.
  uint64_t runs = 0;
  // Of these, those whose body has called GTEST_SKIP().
  uint64_t skipped = 0;
  uint64_t switches = 0;
  // How many different ones they had among them; of more than a million runs
  // of one process, as many as are known of.
  uint64_t schedules = 0;
  // The scheduling points that threads came to, in all of them.
  uint64_t points = 0;
  absl::Duration time;
  // kDepthFirst has made all schedules within its bounds, there are no more.
  bool exhausted = false;
  // Accesses to memory were looked at, and each operation of an atomic was a
  // scheduling point (ward_explore_test's `accesses`), in the code that this
  // is for.
  bool sees_accesses = false;
  // The functions that runs called and that no schedule decides: what waits or
  // wakes beside it, and what asks the world. Where that was, `remarks` has.
  std::vector<std::string> unseen;

  // What the runs had that other options of theirs would have tried.
  std::vector<std::string> not_tried;

  // Pairs of operations on one object, by different threads, of which one
  // came next after the other in some run, and of these those that were seen in
  // both orders. An operation is a place in the code, with the calls that lead
  // there; the order of those that are at one place is not known. See Coverage.
  uint64_t pairs = 0;
  uint64_t pairs_in_both_orders = 0;
  // One process has seen more than are counted, which may be others on another
  // machine. It takes 65,536 orders of two operations.
  bool has_more_pairs = false;
  // Those that were seen in one order alone, a line each; if the environment
  // has WARD_COVERAGE=1.
  std::string pairs_in_one_order;

  // What runs could not see, and what they asked the world, each once, with
  // the stack of the call.
  std::string remarks;

  // The run that failed, with which the search has ended.
  struct Failure {
    // Which run it was, counted from 0, and what has found it: one of
    // kPortfolio's.
    uint64_t run = 0;
    Search search = Search::kRandom;
    // What makes it happen, as found and as simplified.
    Deviations found;
    Deviations deviations;
    // It takes another run before, in the same process: the first one has done
    // something for good, such as initialise a static variable.
    bool warm = false;
    // It waited for something outside of the schedule, or looped, for as long
    // as the watchdog's patience. As each more would take as long, it was not
    // made again.
    bool hung = false;
    // Sleeps might end early in it: ExploreOptions::early_sleeps, unless some
    // time limit was kept.
    bool early_sleeps = false;
    // The same deviations have made it fail again, in the same way.
    bool replayed = false;
    // Why it failed, and then what it has printed.
    std::string what;
    std::string printed;
    // If it was stuck: of all threads.
    std::string stacks;
    // What its processes said to each other.
    std::string transcript;
  };
  std::optional<Failure> failure;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SEARCH_EXPLORATION_H_

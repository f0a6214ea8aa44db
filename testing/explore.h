// Runs a test's body under thousands of schedules, with calls that fail and
// processes that die, until one of the runs fails.
//
//   TEST(Account, LosesNoUpdate) {
//     Explore({.runs = 10000}, [] {
//       AccountServer server;
//       ASSERT_THAT(server.Start(), IsOk());
//       ...
//     });
//   }
//
// What can be asked for is ExploreOptions, in search/exploration.h.
//
// A run fails by a failed assertion, a deadlock, a crash, an endless loop, or
// by something that it leaves behind. The failure is made simpler, by leaving
// out as many of its switches and faults as it can do without, and told in
// words, with the command that runs it again, and with the decision that doomed
// it; a picture of the run is put beside the test's outputs, for a browser. A
// test all of whose runs were skipped is skipped.
//
// Runs are made in child processes, one for each processor, so that a crash
// ends one run and not the search. What the body changes outside itself is not
// seen by the test.
//
// Environment variables, for `bazel test --test_env=...`:
//   WARD_RUNS=n       this many runs, instead of what the test asks for
//   WARD_REPLAY=...   only this run, in the test's own process, for a debugger
//                     (in which there is no watchdog)
//   WARD_COVERAGE=1   where nothing fails, list the pairs of operations that
//                     were seen in one order alone; and keep what was seen for
//                     tools/ward_pairs.py, which adds up shards and runs
// The number of the run, of --runs_per_test, and the shard choose the seeds.
//
// Misuse:
// - A body whose course depends on something else than its schedule: the
//   address of an object (the order of a hash table's elements may), a file, a
//   static variable that each run sets to something else (for these there is
//   ExploreOptions::fresh_process). Its failures cannot be replayed; the report
//   says so.
// - A file that has the same name in all runs: several processes make them at
//   once. Have getpid() in it.
// - A descriptor that the body opens once for all runs: to the first it is one
//   that is left open. Open it before.
// - Explore() in a test of a ServerTest fixture, which is a simulation itself.

#ifndef WARD_TESTING_EXPLORE_H_
#define WARD_TESTING_EXPLORE_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "ward/testing/search/exploration.h"  // IWYU pragma: export

namespace ward::testing {

// Looks for a run of `body` that fails.
Exploration FindFailure(const ExploreOptions& options,
                        absl::FunctionRef<void()> body);

// The same, and fails the calling test if there is one. If there is none, a
// line says what was made: how many runs, how many of them had different
// schedules, and what no schedule decided. Nothing is in what it returns of a
// replay.
Exploration Explore(const ExploreOptions& options,
                    absl::FunctionRef<void()> body);

// What that run did, in words, which Explore() prints: who waits for whom in a
// deadlock, what was decided otherwise than by default, each with the stacks of
// those whom it is about, and the steps around that. The run is made once more;
// empty if it does not fail again.
std::string ExplainFailure(const ExploreOptions& options,
                           const Exploration::Failure& failure,
                           absl::FunctionRef<void()> body);

// The fingerprint of run `run` of Search::kRandom, of all its choices and of
// its transcript, which is made here and now: to show that a body depends on
// nothing but its schedule.
uint64_t FingerprintOfRun(const ExploreOptions& options, uint64_t run,
                          absl::FunctionRef<void()> body);

// A place at which another thread may go on: for code under test that calls
// neither Environment nor Abseil. Code that is compiled with
// -fsanitize-coverage=trace-pc has one at every branch.
void SchedulingPoint();

}  // namespace ward::testing

#endif  // WARD_TESTING_EXPLORE_H_

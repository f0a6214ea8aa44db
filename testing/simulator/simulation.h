// One simulated run: from now on the calling thread is in it, and the servers
// that it makes are.

#ifndef WARD_TESTING_SIMULATOR_SIMULATION_H_
#define WARD_TESTING_SIMULATOR_SIMULATION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "ward/testing/report/transcript.h"
#include "ward/testing/simulator/coverage.h"
#include "ward/testing/simulator/exit_guard.h"
#include "ward/testing/simulator/run_listener.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/simulated_environment.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

// What a simulation is to have.
struct SimulationOptions {
  SimulationFaults faults;
  bool delays = false;
  SchedulerOptions::EarlySleeps early_sleeps =
      SchedulerOptions::EarlySleeps::kNone;
  bool weak_memory = false;
  size_t max_steps = 1000000;

  // See SchedulerOptions. The number of the choice is counted from 0.
  std::function<void(uint32_t step, const Choice&, size_t option)> on_choice;
  std::function<void(const std::string& why)> on_stuck;
  std::function<void(const std::string& what)> on_fault;
  const std::set<int>* open_before = nullptr;
  RunListener* listener = nullptr;
  CoverageRecorder* coverage = nullptr;
};

// One at a time in a process: a second fails the program.
class Simulation {
 public:
  // Fails the program if //testing/interception is not in effect.
  Simulation(Strategy& strategy, SimulationOptions options);

  // Threads and processes that are still there stop for ever.
  ~Simulation();

  // Lets two minutes pass, in which what was started may end by itself, and
  // returns what is left (SimulatedEnvironment::Leftovers).
  std::vector<std::string> Settle();

  // For a process that makes many, one after the other, and nothing else: what
  // each of them needs of the process stays.
  static void ExpectMany();

  // The one under way, or null.
  static Simulation* Current();

  // For the watchdog, in signal context: has `tell` look at the one under way,
  // in a copy of this process. Where it hangs, it may hold locks that are
  // needed for that. Waits for a second at most.
  static void TellOfHang(absl::FunctionRef<void(Simulation& hanging)> tell);

  Scheduler& scheduler() { return scheduler_; }
  SimulatedEnvironment& environment() { return environment_; }
  Transcript& transcript() { return transcript_; }

  // The choices so far that were not 0.
  Deviations deviations() const {
    return {deviations_.begin(), deviations_.end()};
  }

 private:
  SchedulerOptions ForScheduler();

  const ExitGuard guard_;
  const SimulationOptions options_;
  std::vector<std::pair<uint32_t, uint32_t>> deviations_;
  uint32_t choices_ = 0;
  Transcript transcript_;
  Scheduler scheduler_;
  SimulatedEnvironment environment_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_SIMULATION_H_

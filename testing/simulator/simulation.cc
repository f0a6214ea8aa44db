#include "ward/testing/simulator/simulation.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "ward/server/environment.h"
#include "ward/testing/simulator/interception_check.h"
#include "ward/testing/simulator/runner.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"
#include "ward/testing/simulator/watchdog.h"

namespace ward::testing {
namespace {

Simulation* current_simulation = nullptr;

}  // namespace

Simulation::Simulation(Strategy& strategy, SimulationOptions options)
    : options_((CheckInterception(), std::move(options))),
      scheduler_(strategy, ForScheduler()),
      environment_(scheduler_, options_.faults, transcript_) {
  if (current_simulation != nullptr) {
    std::cerr << "There is a simulation already, of a ServerTest fixture or of "
                 "Explore(): a test has one at a time.\n";
    std::abort();
  }
  current_simulation = this;
  Environment::SetDefaultForTesting(&environment_);
}

Simulation::~Simulation() {
  Environment::SetDefaultForTesting(nullptr);
  current_simulation = nullptr;
}

std::vector<std::string> Simulation::Settle() {
  scheduler_.Advance(absl::Minutes(2));
  return environment_.Leftovers();
}

void Simulation::ExpectMany() {
  Runner::KeepParkedThreads();
  Watchdog::StayAwake();
}

Simulation* Simulation::Current() { return current_simulation; }

void Simulation::TellOfHang(absl::FunctionRef<void(Simulation& hanging)> tell) {
  if (current_simulation == nullptr) return;
  const long child = syscall(SYS_clone, 0, 0, 0, 0, 0);
  if (child == 0) {
    tell(*current_simulation);
    syscall(SYS_exit_group, 0);
  }
  if (child < 0) return;
  const auto process = static_cast<pid_t>(child);
  constexpr timespec kNap = {0, 10'000'000};
  for (int naps = 0; naps < 100; ++naps) {
    if (waitpid(process, nullptr, __WALL | WNOHANG) != 0) return;
    syscall(SYS_nanosleep, &kNap, nullptr);
  }
  syscall(SYS_kill, process, SIGKILL);
  waitpid(process, nullptr, __WALL);
}

SchedulerOptions Simulation::ForScheduler() {
  // A signal's handler may be at a choice, and nothing may be allocated there,
  // which ThreadSanitizer looks after: this is enough for most runs.
  constexpr size_t kUsualDeviations = 4096;
  deviations_.reserve(kUsualDeviations);
  SchedulerOptions options;
  options.delays = options_.delays;
  options.early_sleeps = options_.early_sleeps;
  options.weak_memory = options_.weak_memory;
  options.max_steps = options_.max_steps;
  options.on_choice = [this](const Choice& choice, size_t option) {
    const uint32_t step = choices_++;
    if (option != 0) {
      deviations_.emplace_back(step, static_cast<uint32_t>(option));
    }
    if (options_.on_choice) options_.on_choice(step, choice, option);
  };
  options.on_stuck = options_.on_stuck;
  options.on_fault = options_.on_fault;
  options.faults = options_.faults.faults;
  options.open_before = options_.open_before;
  options.listener = options_.listener;
  options.coverage = options_.coverage;
  return options;
}

}  // namespace ward::testing

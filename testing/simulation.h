// The simulated run that a test is in, if it is in one: for what a fixture of
// ServerTest and a body of Explore() have no word for.
//
//   if (auto* const simulation = Simulation::Current()) {
//     simulation->environment().Raise(pid, SIGKILL);
//   } else {
//     kill(pid, SIGKILL);
//   }

#ifndef WARD_TESTING_SIMULATION_H_
#define WARD_TESTING_SIMULATION_H_

#include "ward/testing/simulator/simulation.h"  // IWYU pragma: export

#endif  // WARD_TESTING_SIMULATION_H_

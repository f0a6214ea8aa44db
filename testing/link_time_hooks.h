// See link_time_hooks.cc.

#ifndef WARD_TESTING_LINK_TIME_HOOKS_H_
#define WARD_TESTING_LINK_TIME_HOOKS_H_

namespace ward::testing {

// Ends the program, and says what to write in the BUILD file, if the simulation
// is not in the place of Abseil's waits and clock. Looks once per process.
void CheckLinkTimeHooks();

}  // namespace ward::testing

#endif  // WARD_TESTING_LINK_TIME_HOOKS_H_

// See //testing/interception, which this library cannot depend on.

#ifndef WARD_TESTING_SIMULATOR_INTERCEPTION_CHECK_H_
#define WARD_TESTING_SIMULATOR_INTERCEPTION_CHECK_H_

namespace ward::testing {

// Ends the program, and says what to write in the BUILD file, if the simulation
// is not in the place of Abseil's waits and clock. Looks once per process.
void CheckInterception();

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_INTERCEPTION_CHECK_H_

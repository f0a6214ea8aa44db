// Whether a debugger holds this process.

#ifndef WARD_TESTING_SIMULATOR_TRACED_H_
#define WARD_TESTING_SIMULATOR_TRACED_H_

namespace ward::testing {

// Safe in signal handlers.
bool IsTraced();

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_TRACED_H_

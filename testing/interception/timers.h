// Which descriptors are timers. For this folder's sources.

#ifndef WARD_TESTING_INTERCEPTION_TIMERS_H_
#define WARD_TESTING_INTERCEPTION_TIMERS_H_

#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {

// After descriptors from `first` to `last`, some of which may have been timers,
// were closed.
void ForgetTimers(Scheduler& scheduler, int first, int last);

// Whether it is one of the run's timers.
bool IsTimer(Scheduler& scheduler, int descriptor);

}  // namespace ward::testing

#endif  // WARD_TESTING_INTERCEPTION_TIMERS_H_

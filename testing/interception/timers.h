// What closes a descriptor tells those that are timers. For this folder's
// sources.

#ifndef WARD_TESTING_INTERCEPTION_TIMERS_H_
#define WARD_TESTING_INTERCEPTION_TIMERS_H_

#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {

// Before `descriptor`, which may be one, is closed.
void ForgetTimer(Scheduler& scheduler, int descriptor);

}  // namespace ward::testing

#endif  // WARD_TESTING_INTERCEPTION_TIMERS_H_

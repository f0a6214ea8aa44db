// What a wait for a child process tells those that started it. For this
// folder's sources.

#ifndef WARD_TESTING_INTERCEPTION_WORLD_H_
#define WARD_TESTING_INTERCEPTION_WORLD_H_

#include <sys/types.h>

#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {

// A child process has been waited for; another program may have run in it.
void ChildHasEnded(Scheduler& scheduler, pid_t child);

}  // namespace ward::testing

#endif  // WARD_TESTING_INTERCEPTION_WORLD_H_

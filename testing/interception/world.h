// What a wait for a child process tells those that started it. For this
// folder's sources.

#ifndef WARD_TESTING_INTERCEPTION_WORLD_H_
#define WARD_TESTING_INTERCEPTION_WORLD_H_

#include <sys/socket.h>
#include <sys/types.h>

#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {

// Whether connect(2) would go to another machine, and that.
bool IsElsewhere(const sockaddr* address, socklen_t size);
int ConnectElsewhere(int fd, const sockaddr* address, socklen_t size);

// A child process has been waited for; another program may have run in it.
void ChildHasEnded(Scheduler& scheduler, pid_t child);

}  // namespace ward::testing

#endif  // WARD_TESTING_INTERCEPTION_WORLD_H_

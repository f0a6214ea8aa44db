// What a wait for a child process tells those that started it. For this
// folder's sources.

#ifndef WARD_TESTING_INTERCEPTION_WORLD_H_
#define WARD_TESTING_INTERCEPTION_WORLD_H_

#include <sys/socket.h>
#include <sys/types.h>

#include "absl/functional/function_ref.h"
#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {

// Whether connect(2) would go to another machine, and that.
bool IsElsewhere(const sockaddr* address, socklen_t size);
int ConnectElsewhere(int fd, const sockaddr* address, socklen_t size);

// Really waits for what a child does by itself, such as to end, once nobody
// else can go on: so it takes none of the simulated time, and comes at the same
// place in each run. Returns what `look` does, as soon as that is not 0; 0
// after half a second: the child may wait for one of us.
pid_t GiveTimeToChild(Scheduler& scheduler, absl::FunctionRef<pid_t()> look);

// Whether there are some that fork(2) has made, or posix_spawn(3), and that
// have not ended.
bool HasChildren(Scheduler& scheduler);

// A child process has been waited for; another program may have run in it.
void ChildHasEnded(Scheduler& scheduler, pid_t child);

}  // namespace ward::testing

#endif  // WARD_TESTING_INTERCEPTION_WORLD_H_

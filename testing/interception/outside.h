// Whether what threads wait for in the kernel may come from outside of the
// simulation, when none of them can go on. For this folder's sources.
//
// It may not if only the run has it: its pipes, Unix sockets and connections to
// itself, events, timers, and epolls of these, as long as it has started no
// other process, and has called nothing that is not in the schedule. A socket
// at which it listens is for its own clients: who else should know of it? What
// has not arrived yet on a connection of TCP comes in the kernel's time. Other
// machines and processes, threads that were there before, files that were open
// before, terminals, messages of UDP, and locks of files that the run does not
// have itself may have others behind them; so may all that there is once
// descriptors were sent to others, or came from them. Of threads that were
// there before nothing is known where simulated ones are kernel threads
// (Runner), nor of what this process opens of another one's by /proc.

#ifndef WARD_TESTING_INTERCEPTION_OUTSIDE_H_
#define WARD_TESTING_INTERCEPTION_OUTSIDE_H_

#include <fcntl.h>
#include <sys/socket.h>

#include <string>

#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {

// Others may act now, for the rest of the run: it has asked the world, or what
// is not in the schedule.
void AskOutside(Scheduler& scheduler);

// Whether somebody may: that, or this process has children, or other threads.
bool OthersMayAct(Scheduler& scheduler);

// Whether somebody may have part in what `descriptor` refers to.
bool OthersMayServe(Scheduler& scheduler, int descriptor);

// `socket` was connected: if it is a Unix socket, to another process, that may
// act for the rest of the run. It may even be sent what only the run has.
void MeetPeer(Scheduler& scheduler, int socket);

// Whether what is in the way of who waits to lock `file` is a lock that the run
// has there by another file that it has opened: nobody else can give it up.
// `exclusive`: how it is to be locked by flock(2); `lock`: the one in the way,
// as F_GETLK has it.
bool IsInTheWay(Scheduler& scheduler, int file, bool exclusive);
bool IsInTheWay(Scheduler& scheduler, int file, const struct flock& lock);

// Whether a Unix socket of this process listens at `address`.
bool ListensAt(const sockaddr* address, socklen_t size);

// "a pipe's reading end".
std::string KindOf(Scheduler& scheduler, int descriptor);

}  // namespace ward::testing

#endif  // WARD_TESTING_INTERCEPTION_OUTSIDE_H_

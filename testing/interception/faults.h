// What may go wrong with real descriptors, where a search has faults
// (ExploreOptions::faults). For this folder's sources.
//
// Nothing that could not be so on Linux, whatever the program does:
// - What a stream of a socket has for a reader comes in pieces, of any size
//   (tcp(7), unix(7)). Messages, events and timers come whole; so do those that
//   are written to a pipe at once, of up to PIPE_BUF bytes, and longer ones
//   come in pieces in any case (WriteInSchedule).
// - What is written to a stream ends between two such pieces, if it must not
//   wait for room, or if a signal may come then.
// - A wait ends with EINTR if there is a handler of a signal that the thread
//   does not block, without SA_RESTART where that matters (signal(7)). That
//   handler does not run: it is as if it had done nothing. Whoever has none is
//   never interrupted.
// - What makes a descriptor fails with EMFILE.
// Not with those that were open before the run, such as standard output, but
// for EINTR. And nothing comes in pieces of what is watched with EPOLLET, which
// may take fewer bytes than it has asked for to be all that there are
// (epoll(7)), or where more is asked for (MSG_WAITALL, SO_RCVLOWAT). What
// MSG_PEEK has shown, or FIONREAD has counted, is there: who then asks for it
// gets at least that, from a stream of either kind, as long as nobody else
// reads there (unix_inq_len(), tcp_inq()); what has come later may be cut off.
// Pipes, and what has messages, are never cut, whatever FIONREAD says of them.

#ifndef WARD_TESTING_INTERCEPTION_FAULTS_H_
#define WARD_TESTING_INTERCEPTION_FAULTS_H_

#include <signal.h>
#include <sys/types.h>

#include <cstddef>

#include "absl/functional/function_ref.h"
#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {

// Of so many bytes that are to be read from a descriptor, how many are: a
// choice, if fewer may be and more than that have come.
size_t CutInput(int descriptor, size_t size);

// Whether what is written ends here, after the first piece of several. Where it
// `must_wait` for the next one, a signal may come.
bool CutsOutput(Scheduler& scheduler, int descriptor, bool must_wait);

// What `descriptor` has comes whole, for the rest of the run; or the next
// `bytes` do, which are there. Fewer than 1: none are.
void KeepWhole(int descriptor);
void KeepWhole(int descriptor, ssize_t bytes);
// So many were read there.
void HasRead(int descriptor, ssize_t bytes);

// Whether there is a handler of a signal that is not blocked, and that
// `interruption` counts. `mask`: those that are blocked; null: those that the
// calling thread blocks.
bool CanBeInterrupted(int Interruptions::*interruption,
                      const sigset_t* mask = nullptr);

// Whether a wait that begins ends, by a signal that `interruption` counts.
// `mask`: those that it blocks; null: those that are blocked.
bool Interrupts(Scheduler& scheduler, int Interruptions::*interruption,
                const sigset_t* mask = nullptr);

// -1 and EMFILE, or what `open` returns: a descriptor, of which reports say
// where it was opened, or -1.
int OpenInSchedule(absl::FunctionRef<int()> open);

}  // namespace ward::testing

#endif  // WARD_TESTING_INTERCEPTION_FAULTS_H_

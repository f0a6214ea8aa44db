// What C's and C++'s streams have buffered.

#ifndef WARD_SERVER_POSIX_STREAMS_H_
#define WARD_SERVER_POSIX_STREAMS_H_

namespace ward {

// Writes what the streams have buffered. Otherwise both processes would after a
// fork, and neither at the end of one that runs no destructors.
//
// Waits as long as a write(2) does, and at most 0.1 s in all for streams that
// other threads use at that moment: one that another thread has for ever, as
// who reads a pipe to which nobody writes has its stream, keeps nobody waiting.
// Where the C library is not glibc, it does, as in exit(3).
void FlushStreams();

}  // namespace ward

#endif  // WARD_SERVER_POSIX_STREAMS_H_

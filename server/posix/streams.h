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
// But one that is stuck in fclose(3), or in fflush(nullptr), does: it has all
// of them. Where the C library is not glibc, the former does, too, as in
// exit(3).
void FlushStreams();

// In the child of a fork: what is still to be written, as another thread was
// writing it, is the parent's.
void DropInChild();

}  // namespace ward

#endif  // WARD_SERVER_POSIX_STREAMS_H_

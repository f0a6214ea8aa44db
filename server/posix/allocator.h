// How a server's process holds memory that is free.

#ifndef WARD_SERVER_POSIX_ALLOCATOR_H_
#define WARD_SERVER_POSIX_ALLOCATOR_H_

namespace ward {

// Has glibc's allocator give back to the system what large messages took, as
// soon as they are freed: else a server has, for ever, the size of its busiest
// second. For a process that is a server and nothing else, before it has
// threads; it costs a message of a megabyte or more its page faults. What an
// operator has set in the environment (mallopt(3), MALLOC_ARENA_MAX, ...)
// stays, and InitializeServer may call mallopt after this. Nothing with another
// allocator.
void ReturnFreeMemory();

}  // namespace ward

#endif  // WARD_SERVER_POSIX_ALLOCATOR_H_

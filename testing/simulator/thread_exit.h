// pthread_exit(3) of a simulated thread.

#ifndef WARD_TESTING_SIMULATOR_THREAD_EXIT_H_
#define WARD_TESTING_SIMULATOR_THREAD_EXIT_H_

#include "absl/functional/function_ref.h"

namespace ward::testing {

// Returns what `body` does, or what it gave to ExitThread.
void* CallUntilExit(absl::FunctionRef<void*()> body);

// Ends the calling thread's CallUntilExit, and what is on the stack until
// there, as pthread_exit(3) does: destructors run, `catch (...)` is entered.
// Returns if there is none.
void ExitThread(void* result);

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_THREAD_EXIT_H_

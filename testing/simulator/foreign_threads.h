// Threads of this process that no simulation has started.

#ifndef WARD_TESTING_SIMULATOR_FOREIGN_THREADS_H_
#define WARD_TESTING_SIMULATOR_FOREIGN_THREADS_H_

#include <string>
#include <vector>

namespace ward::testing {

// The names of those beside the calling one, as top(1) shows them. None where
// simulated threads are kernel threads (Runner), which look the same, as do
// those of sanitizers.
std::vector<std::string> ForeignThreads();

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_FOREIGN_THREADS_H_

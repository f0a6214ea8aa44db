// Where the lines go that ward has nobody to return to.

#ifndef WARD_SERVER_LOG_H_
#define WARD_SERVER_LOG_H_

#include <string_view>

#include "absl/base/log_severity.h"

namespace ward {

// Gets each line, without an end of line. kError: something that was to be done
// is not done, and nobody else is told. kWarning: a peer was wrong, or the
// machine is short of something. Lines name processes, users and paths, and
// quote what handlers and peers have said; no password is among them.
//
// It is called on any thread of ward's, sometimes with locks of ward's held: it
// must not call ward, nor wait for a thread that does, and while it waits, for
// a disk say, clients may. Nor must it throw. It is a plain function since the
// child of a fork has it, too: what it uses must be whole there, whatever the
// parent's other threads were doing (fork(2)). With Abseil's log:
//
//   ward::SetLogFunction(+[](absl::LogSeverity severity, std::string_view line)
//   {
//     LOG(LEVEL(severity)) << line;
//   });
using LogFunction = void (*)(absl::LogSeverity severity, std::string_view line);

// For this process, from now on, and for those that it forks. A server by exec
// has it if main() sets it before ServeIfExeced. Null, as at first: lines go to
// standard error (Environment::Log). In a simulation they are in the transcript
// instead. Thread-safe.
void SetLogFunction(LogFunction function);

// What was set, or null. Thread-safe.
LogFunction GetLogFunction();

}  // namespace ward

#endif  // WARD_SERVER_LOG_H_

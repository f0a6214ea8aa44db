// What a program does instead of its main() when ward has started it.
//
// Names and functions, registered before main(): a process that starts its own
// program anew passes a name, and the new one looks it up. AbstractServer does
// both for classes that are named by WARD_REGISTER_SERVER.

#ifndef WARD_SERVER_EXEC_ENTRY_H_
#define WARD_SERVER_EXEC_ENTRY_H_

#include <memory>
#include <string_view>
#include <typeindex>

#include "absl/status/statusor.h"
#include "ward/server/process.h"

namespace ward {

class Environment;

// Returns the process's exit code.
using ExecEntry = int (*)(Environment& environment, ExecLinks links);

// `name` is a literal. Ends the program if it is registered for another type.
void RegisterExecEntry(std::string_view name, std::type_index type,
                       ExecEntry entry);

// FailedPrecondition if there is none.
absl::StatusOr<ExecEntry> FindExecEntry(std::string_view name);

// FailedPrecondition, and what to write, if `type` is not registered.
absl::StatusOr<std::string_view> ExecEntryName(std::type_index type);

}  // namespace ward

#endif  // WARD_SERVER_EXEC_ENTRY_H_

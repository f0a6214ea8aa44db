// All commands of wardctl.

#ifndef WARD_TOOLS_WARDCTL_COMMANDS_H_
#define WARD_TOOLS_WARDCTL_COMMANDS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "ward/tools/wardctl/command.h"

namespace ward::ctl {

extern const Command kBench;
extern const Command kCall;
extern const Command kCompletion;
extern const Command kList;
extern const Command kManual;
extern const Command kMethods;
extern const Command kOwners;
extern const Command kPing;
extern const Command kStats;
extern const Command kStop;

// In the order in which help has them.
absl::Span<const Command* const> Commands();

// Null if there is none.
const Command* FindCommand(std::string_view name);

// What `wardctl --help` prints.
std::string Overview();

// What the last of `words`, which stand behind "wardctl", may become; nothing
// where it is a file's name, or anything. Asks the server for its methods if
// its password is at hand.
std::vector<std::string> Complete(absl::Span<const std::string> words);

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_COMMANDS_H_

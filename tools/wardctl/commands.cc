#include "ward/tools/wardctl/commands.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/failure.h"

namespace ward::ctl {
namespace {

constexpr std::array<const Command*, 10> kCommands = {
    &kList,  &kPing, &kMethods, &kCall,       &kOwners,
    &kStats, &kStop, &kBench,   &kCompletion, &kManual,
};

}  // namespace

absl::Span<const Command* const> Commands() { return kCommands; }

const Command* FindCommand(std::string_view name) {
  const auto* const found = std::find_if(
      kCommands.begin(), kCommands.end(),
      [&](const Command* command) { return command->name == name; });
  return found == kCommands.end() ? nullptr : *found;
}

std::string Overview() {
  constexpr size_t kColumn = 16;
  std::string text =
      "usage: wardctl COMMAND [OPTION]... [OPERAND]...\n\n"
      "Looks at servers of ward's on this machine, and calls them.\n\n";
  for (const Command* const command : Commands()) {
    text += Entry(command->name, command->summary, kColumn);
  }
  text +=
      Entry("help COMMAND", "what COMMAND takes, as COMMAND --help", kColumn);
  text += Entry("--version", "the version of ward that wardctl is of", kColumn);
  absl::StrAppend(&text, "\nIt exits with\n\n");
  for (const ExitCode& exit : ExitCodes()) {
    text += Entry(absl::StrCat(exit.code), exit.meaning, kColumn);
  }
  return text;
}

}  // namespace ward::ctl

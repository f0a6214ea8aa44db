// Looks at servers of ward's on this machine, and calls them.
//
//   wardctl list
//   wardctl call --password-file key /run/store/socket get colour
//
// Each command is in a file of its own, which has its help, too; `wardctl
// manual` prints all of it. A new one goes into commands.h as well.

#include <iostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/commands.h"
#include "ward/tools/wardctl/failure.h"
#include "ward/tools/wardctl/version.h"

namespace ward::ctl {
namespace {

absl::Status Run(absl::Span<const std::string> words) {
  if (words.empty()) {
    std::cerr << Overview();
    return UsageError("no command is named");
  }
  const std::string& name = words[0];
  words.remove_prefix(1);
  // For completion.cc's scripts.
  if (name == "complete") {
    for (const std::string& word : Complete(words)) std::cout << word << "\n";
    return absl::OkStatus();
  }
  if (name == "--version" && words.empty()) {
    std::cout << "wardctl of ward " << kVersion << "\n";
    return absl::OkStatus();
  }
  const bool is_help = name == "help" || name == "--help" || name == "-h";
  if (is_help && words.empty()) {
    std::cout << Overview();
    return absl::OkStatus();
  }
  const std::string& of = is_help ? words[0] : name;
  const Command* const command = FindCommand(of);
  if (command == nullptr) {
    return UsageError(
        absl::StrCat("there is no command ", of, "; see wardctl --help"));
  }
  WARD_ASSIGN_OR_RETURN(
      const CommandLine line,
      is_help ? CommandLine::Parse(*command, std::vector<std::string>{"--help"})
              : CommandLine::Parse(*command, words));
  if (line.wants_help()) {
    std::cout << HelpOf(*command);
    return absl::OkStatus();
  }
  return command->run(line);
}

}  // namespace
}  // namespace ward::ctl

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  absl::Status status = ward::ctl::Run(words);
  if (!std::cout.flush() && status.ok()) {
    status = ward::MakeError(ward::ctl::reason::kOutputLost,
                             "standard output does not take what came");
  }
  if (!status.ok()) {
    std::cerr << "wardctl: " << ward::ctl::Described(status) << "\n";
  }
  return ward::ctl::ExitCodeOf(status);
}

#include <sys/types.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/server/process.h"
#include "ward/tools/wardctl/access.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/commands.h"
#include "ward/tools/wardctl/failure.h"
#include "ward/tools/wardctl/find_servers.h"
#include "ward/tools/wardctl/printable.h"

namespace ward::ctl {
namespace {

// `wardctl complete` knows what a word may become; these hand its answer on, or
// have the shell complete a file's name.
constexpr std::string_view kBash = R"sh(# Completion of wardctl in bash.
_wardctl() {
  local word
  COMPREPLY=()
  while IFS= read -r word; do
    COMPREPLY+=("$(printf %q "$word")")
  done < <("$1" complete "${COMP_WORDS[@]:1:COMP_CWORD}" </dev/null 2>/dev/null)
}
complete -o bashdefault -o default -F _wardctl wardctl
)sh";

constexpr std::string_view kZsh = R"sh(#compdef wardctl
# Completion of wardctl in zsh.
_wardctl() {
  local -a found
  found=("${(@f)$("${words[1]}" complete "${(@)words[2,CURRENT]}" </dev/null 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then
    compadd -a found
  else
    _files
  fi
}
if [[ "${funcstack[1]}" == _wardctl ]]; then
  _wardctl "$@"
else
  compdef _wardctl wardctl
fi
)sh";

// How long a server that is asked keeps who types waiting.
constexpr absl::Duration kPatience = absl::Seconds(1);

std::vector<std::string> Servers() {
  std::vector<std::string> words;
  const absl::StatusOr<std::vector<FoundServer>> servers = FindServers();
  if (!servers.ok()) return words;
  for (const FoundServer& server : *servers) {
    words.push_back(server.path);
    for (const ProcessInfo& process : server.processes) {
      words.push_back(absl::StrCat(process.pid));
    }
  }
  return words;
}

std::vector<std::string> MethodsOf(const CommandLine& line) {
  std::vector<std::string> words;
  const absl::StatusOr<std::unique_ptr<Access>> access =
      Access::Make(line, kPatience, /*may_ask=*/false);
  if (!access.ok()) return words;
  const auto methods = (*access)->Methods();
  if (!methods.ok()) return words;
  for (const Access::Method& method : *methods) words.push_back(method.name);
  return words;
}

std::vector<std::string> Candidates(absl::Span<const std::string> words) {
  std::vector<std::string> candidates;
  if (words.size() == 1) {
    for (const Command* const command : Commands()) {
      candidates.emplace_back(command->name);
    }
    candidates.insert(candidates.end(), {"help", "--help", "--version"});
    return candidates;
  }
  const bool is_help = words[0] == "help";
  const Command* const command = FindCommand(words[0]);
  if (is_help) return Candidates(words.subspan(1, 1));
  if (command == nullptr) return candidates;
  words.remove_prefix(1);
  const auto before = words.first(words.size() - 1);
  const size_t options = CountOptions(*command, before);
  if (options == before.size()) {
    const Option* const option =
        before.empty() ? nullptr : FindOption(*command, before.back());
    if (option != nullptr && !option->argument.empty()) return candidates;
    if (absl::StartsWith(words.back(), "-")) {
      for (const Option& one : command->options) {
        candidates.push_back(absl::StrCat("--", one.name));
      }
      candidates.emplace_back("--help");
      return candidates;
    }
  }
  const size_t operand = before.size() - options;
  if (command == &kCompletion && operand == 0) return {"bash", "zsh"};
  if (!absl::StartsWith(command->operands, "SERVER")) return candidates;
  if (operand == 0) return Servers();
  const bool is_method =
      command == &kMethods ||
      (operand == 1 && absl::StrContains(command->operands, "METHOD"));
  // What is there so far makes a command, if it is read as that of methods.
  const absl::StatusOr<CommandLine> line =
      CommandLine::Parse({command->name, command->operands, 1, 100, "", "",
                          command->options, command->run},
                         before);
  return is_method && line.ok() ? MethodsOf(*line) : candidates;
}

absl::Status Run(const CommandLine& line) {
  const std::string& shell = line.operands().front();
  if (shell != "bash" && shell != "zsh") {
    return UsageError(
        absl::StrCat("completion: there is one for bash and one for zsh, not "
                     "for ",
                     shell));
  }
  std::cout << (shell == "bash" ? kBash : kZsh);
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> Complete(absl::Span<const std::string> words) {
  if (words.empty()) return {};
  std::vector<std::string> candidates = Candidates(words);
  const std::string& begun = words.back();
  candidates.erase(std::remove_if(candidates.begin(), candidates.end(),
                                  [&](const std::string& candidate) {
                                    // A line each; and no shell is shown what
                                    // it, or its terminal, could take for
                                    // anything else.
                                    return !absl::StartsWith(candidate,
                                                             begun) ||
                                           Printable(candidate) != candidate;
                                  }),
                   candidates.end());
  return candidates;
}

constexpr Command kCompletion = {
    "completion",
    "SHELL",
    1,
    1,
    "print completion for bash or zsh",
    "For this shell, and for good:\n\n"
    "  source <(wardctl completion bash)\n"
    "  wardctl completion bash >~/.local/share/bash-completion/completions/"
    "wardctl\n\n"
    "  wardctl completion zsh >~/.zfunc/_wardctl    (a directory of fpath)\n\n"
    "Commands, options and servers are completed, and methods, where the "
    "password is at hand without asking.",
    {},
    &Run,
};

}  // namespace ward::ctl

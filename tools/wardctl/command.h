// What wardctl's commands are made of: their options, their help, and what was
// typed.

#ifndef WARD_TOOLS_WARDCTL_COMMAND_H_
#define WARD_TOOLS_WARDCTL_COMMAND_H_

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ward::ctl {

struct Option {
  // Without its dashes.
  std::string_view name;
  // What it takes, as help calls it; empty: nothing.
  std::string_view argument;
  std::string_view help;
};

class CommandLine;

// The texts are what help and the manual say; completion knows no more either.
struct Command {
  std::string_view name;
  std::string_view operands;
  size_t least_operands;
  size_t most_operands;
  // A line, without a full stop.
  std::string_view summary;
  // Paragraphs, with an empty line between. A line that begins with a space
  // stays as it is.
  std::string_view description;
  absl::Span<const Option> options;
  // OK, or what went wrong, which main() tells: see failure.h.
  absl::Status (*run)(const CommandLine& line);
};

// What stands behind a command's name: options, then operands. An operand may
// begin with a dash, as negative numbers do, once one was there; "--" ends the
// options before that.
class CommandLine {
 public:
  // kUsage for what is no option of the command's, or too many operands.
  static absl::StatusOr<CommandLine> Parse(const Command& command,
                                           absl::Span<const std::string> words);

  // --help was asked for. Then nothing else is checked.
  bool wants_help() const { return wants_help_; }

  bool Has(const Option& option) const { return Find(option) != nullptr; }
  // The last of that name; null without one.
  const std::string* Find(const Option& option) const;
  std::vector<std::string> All(const Option& option) const;

  const std::vector<std::string>& operands() const { return operands_; }

 private:
  std::vector<std::pair<std::string_view, std::string>> options_;
  std::vector<std::string> operands_;
  bool wants_help_ = false;
};

// How many of `words` are options, with their arguments, or "--".
size_t CountOptions(const Command& command,
                    absl::Span<const std::string> words);

// Whether `word`, the last of these, is the argument of the one before.
const Option* FindOption(const Command& command, std::string_view word);

// A summary as a sentence.
std::string Sentence(std::string_view summary);

// What --help prints.
std::string HelpOf(const Command& command);

// "  LEFT   RIGHT": RIGHT in lines of 80 columns at most, which begin behind
// `column`.
std::string Entry(std::string_view left, std::string_view right, size_t column);

// `text`, as Command::description, in lines of 80 columns at most.
std::string Filled(std::string_view text);

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_COMMAND_H_

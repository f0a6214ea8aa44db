#include "ward/tools/wardctl/command.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "ward/tools/wardctl/failure.h"

namespace ward::ctl {
namespace {

constexpr size_t kWidth = 80;
constexpr std::string_view kHelp = "help";

bool IsOption(std::string_view word) {
  return word.size() > 1 && word.front() == '-';
}

// Adds the words of `text` to `filled`, in lines that begin with `indent`
// spaces; the last line of it has `used` columns.
void Fill(std::string_view text, size_t indent, size_t used,
          std::string& filled) {
  bool begins = true;
  for (const std::string_view word :
       absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
    if (!begins && used + 1 + word.size() > kWidth) {
      absl::StrAppend(&filled, "\n", std::string(indent, ' '));
      used = indent;
      begins = true;
    }
    if (!begins) filled += ' ';
    filled += word;
    used += word.size() + (begins ? 0 : 1);
    begins = false;
  }
  filled += '\n';
}

}  // namespace

const Option* FindOption(const Command& command, std::string_view word) {
  if (!absl::ConsumePrefix(&word, "--")) return nullptr;
  const auto* const found =
      std::find_if(command.options.begin(), command.options.end(),
                   [&](const Option& option) { return option.name == word; });
  return found == command.options.end() ? nullptr : found;
}

size_t CountOptions(const Command& command,
                    absl::Span<const std::string> words) {
  size_t i = 0;
  while (i < words.size() && IsOption(words[i])) {
    const std::string& word = words[i++];
    if (word == "--") break;
    const Option* const option = FindOption(command, word);
    if (option != nullptr && !option->argument.empty()) ++i;
  }
  return std::min(i, words.size());
}

absl::StatusOr<CommandLine> CommandLine::Parse(
    const Command& command, absl::Span<const std::string> words) {
  CommandLine line;
  const auto wrong = [&](std::string_view why) {
    return UsageError(absl::StrCat(command.name, ": ", why, "; see wardctl ",
                                   command.name, " --help"));
  };
  const size_t options = CountOptions(command, words);
  for (size_t i = 0; i < options && words[i] != "--"; ++i) {
    const std::pair<std::string_view, std::string_view> parts =
        absl::StrSplit(words[i], absl::MaxSplits('=', 1));
    if (words[i] == "-h" || parts.first == "--help") {
      line.wants_help_ = true;
      return line;
    }
    const Option* const option = FindOption(command, parts.first);
    if (option == nullptr) {
      return wrong(absl::StrCat("there is no option ", parts.first));
    }
    const bool has_value = parts.first.size() < words[i].size();
    if (option->argument.empty()) {
      if (has_value) return wrong(absl::StrCat(parts.first, " takes nothing"));
      line.options_.emplace_back(option->name, "");
    } else if (has_value) {
      line.options_.emplace_back(option->name, parts.second);
    } else if (i + 1 < words.size()) {
      line.options_.emplace_back(option->name, words[++i]);
    } else {
      return wrong(absl::StrCat(parts.first, " needs ", option->argument));
    }
  }
  line.operands_.assign(words.begin() + static_cast<std::ptrdiff_t>(options),
                        words.end());
  if (line.operands_.size() < command.least_operands ||
      line.operands_.size() > command.most_operands) {
    return wrong(command.operands.empty()
                     ? absl::StrCat("it takes no \"", line.operands_[0], "\"")
                     : absl::StrCat("it takes ", command.operands));
  }
  return line;
}

const std::string* CommandLine::Find(const Option& option) const {
  const std::string* found = nullptr;
  for (const auto& [name, value] : options_) {
    if (name == option.name) found = &value;
  }
  return found;
}

std::vector<std::string> CommandLine::All(const Option& option) const {
  std::vector<std::string> all;
  for (const auto& [name, value] : options_) {
    if (name == option.name) all.push_back(value);
  }
  return all;
}

std::string Entry(std::string_view left, std::string_view right,
                  size_t column) {
  std::string entry = absl::StrCat("  ", left);
  if (entry.size() + 2 > column) {
    absl::StrAppend(&entry, "\n");
    entry.append(column, ' ');
  } else {
    entry.append(column - entry.size(), ' ');
  }
  Fill(right, column, column, entry);
  return entry;
}

std::string Filled(std::string_view text) {
  std::string filled;
  for (const std::string_view paragraph : absl::StrSplit(text, "\n\n")) {
    if (!filled.empty()) filled += '\n';
    if (absl::StartsWith(paragraph, " ")) {
      absl::StrAppend(&filled, paragraph, "\n");
    } else {
      Fill(paragraph, 0, 0, filled);
    }
  }
  return filled;
}

std::string Sentence(std::string_view summary) {
  std::string sentence = absl::StrCat(summary, ".");
  sentence[0] = absl::ascii_toupper(static_cast<unsigned char>(sentence[0]));
  return sentence;
}

std::string HelpOf(const Command& command) {
  constexpr size_t kColumn = 24;
  std::string help = absl::StrCat(
      "usage: wardctl ", command.name, " [OPTION]...",
      command.operands.empty() ? "" : " ", command.operands, "\n\n");
  Fill(Sentence(command.summary), 0, 0, help);
  absl::StrAppend(&help, "\n", Filled(command.description), "\n");
  for (const Option& option : command.options) {
    help +=
        Entry(absl::StrCat("--", option.name,
                           option.argument.empty() ? "" : " ", option.argument),
              option.help, kColumn);
  }
  help += Entry(absl::StrCat("--", kHelp), "this", kColumn);
  return help;
}

}  // namespace ward::ctl

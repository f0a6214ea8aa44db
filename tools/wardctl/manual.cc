#include <iostream>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/commands.h"
#include "ward/tools/wardctl/failure.h"
#include "ward/tools/wardctl/password.h"
#include "ward/tools/wardctl/version.h"

namespace ward::ctl {
namespace {

// Text as roff has it: a backslash and a hyphen are escaped, and no line begins
// with a request.
std::string Roff(std::string_view text) {
  std::string roff = absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}});
  if (absl::StartsWith(roff, ".") || absl::StartsWith(roff, "'")) {
    roff.insert(0, "\\&");
  }
  return roff;
}

std::string Section(std::string_view title) {
  return absl::StrCat(".SH ", title, "\n");
}

// A term and what it means.
std::string Term(std::string_view term, std::string_view meaning) {
  return absl::StrCat(".TP\n.B ", Roff(term), "\n", Roff(meaning), "\n");
}

std::string Description(std::string_view text) {
  std::string roff;
  for (const std::string_view paragraph : absl::StrSplit(text, "\n\n")) {
    if (!absl::StartsWith(paragraph, " ")) {
      absl::StrAppend(&roff, ".PP\n", Roff(paragraph), "\n");
      continue;
    }
    absl::StrAppend(&roff, ".PP\n.nf\n");
    for (const std::string_view line : absl::StrSplit(paragraph, '\n')) {
      absl::StrAppend(&roff, Roff(line), "\n");
    }
    absl::StrAppend(&roff, ".fi\n");
  }
  return roff;
}

std::string OfCommand(const Command& command) {
  std::string roff = absl::StrCat(
      ".SS \"", Roff(command.name), " [OPTION]...",
      command.operands.empty() ? "" : " ", Roff(command.operands), "\"\n",
      Roff(Sentence(command.summary)), "\n", Description(command.description));
  for (const Option& option : command.options) {
    roff +=
        Term(absl::StrCat("--", option.name, option.argument.empty() ? "" : " ",
                          option.argument),
             option.help);
  }
  return roff;
}

absl::Status Run(const CommandLine& /*line*/) {
  std::string roff = absl::StrCat(
      ".TH WARDCTL 1 \"\" \"ward ", kVersion, "\" \"User Commands\"\n",
      Section("NAME"),
      "wardctl \\- look at servers of ward's on this machine, and call them\n",
      Section("SYNOPSIS"), ".B wardctl\nCOMMAND [OPTION]... [OPERAND]...\n",
      Section("DESCRIPTION"),
      Description(
          "Servers that are made with ward listen at a Unix socket, and answer "
          "who knows their password. SERVER is the path of that socket; or, "
          "where it is a number, the pid of a server that wardctl list shows. "
          "Options stand before the operands: what comes behind the first "
          "operand is one, whatever it begins with.\n\n"
          "What a server has said is printed on standard output, what went "
          "wrong on standard error, as a line with the reason in brackets."),
      Section("COMMANDS"));
  for (const Command* const command : Commands()) roff += OfCommand(*command);
  absl::StrAppend(
      &roff,
      ".SS \"help [COMMAND]\"\nPrint what wardctl, or COMMAND, takes, as ",
      Roff("--help.\n"), ".SS \"", Roff("--version"),
      "\"\nPrint the version of ward that wardctl is of.\n",
      Section("PASSWORDS"),
      Description(absl::StrCat(
          "A password on a command line would be everybody's to read (ps). It "
          "is taken from the first of these that there is: --password-file, "
          "--password-fd, the variable ",
          kPasswordVariable,
          ", the terminal. Who starts a server for others hands it to them as "
          "ward hands it on: by a descriptor, in a message, or with "
          "LoadCredential= of systemd. It is told to a server of this user, of "
          "root, or of --server-user alone, as the kernel names who listens.")),
      Section("ENVIRONMENT"),
      Term(
          kPasswordVariable,
          "The server's password, if no option says where it is. Root, and "
          "this user's processes, may read it while wardctl begins; then it is "
          "wiped."),
      Section("EXIT STATUS"));
  for (const ExitCode& exit : ExitCodes()) {
    roff += Term(absl::StrCat(exit.code), exit.meaning);
  }
  roff += Description(
      "A method whose own failure has a reason of ward's exits as that does.");
  absl::StrAppend(
      &roff, Section("EXAMPLES"), ".PP\n.nf\n",
      Roff("wardctl list\n"
           "wardctl methods --password-file key /run/store/socket find\n"
           "wardctl call --password-file key /run/store/socket find "
           "'name: \"bolt\"'\n"
           "wardctl call --password-fd 3 --output copy 4711 file colour 3<key\n"
           "wardctl ping --wait --timeout 30s /run/store/socket\n"),
      ".fi\n");
  std::cout << roff;
  return absl::OkStatus();
}

}  // namespace

constexpr Command kManual = {
    "manual",
    "",
    0,
    0,
    "print the manual page",
    "To be read, or installed:\n\n"
    "  wardctl manual | man -l -\n"
    "  wardctl manual >/usr/local/share/man/man1/wardctl.1",
    {},
    &Run,
};

}  // namespace ward::ctl

#include "ward/tools/wardctl/password.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/tools/wardctl/failure.h"
#include "ward/tools/wardctl/files.h"
#include "ward/tools/wardctl/time_limit.h"

namespace ward::ctl {
namespace {

constexpr size_t kMost = 4096;

// To the end of it, or of a line if `line`. Typing takes what time it takes.
absl::StatusOr<Secret> ReadSecret(int fd, bool line, std::string_view from,
                                  absl::Time deadline, bool& is_typed) {
  is_typed = isatty(fd) != 0;
  const TimeLimit limit(is_typed ? absl::InfiniteFuture() : deadline);
  const std::string attempt = absl::StrCat("read the password from ", from);
  std::array<char, kMost + 2> bytes;
  const absl::Cleanup wipe = [&bytes] { Wipe(bytes.data(), bytes.size()); };
  size_t size = 0;
  while (size < bytes.size() &&
         !(line && size > 0 && bytes[size - 1] == '\n')) {
    const ssize_t got = read(fd, bytes.data() + size, bytes.size() - size);
    if (got < 0) {
      const absl::Status again = limit.MayTryAgain(attempt);
      if (again.ok()) continue;
      return HasReason(again, ward::reason::kTimedOut)
                 ? again
                 : UsageError(again.message());
    }
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  std::string_view content(bytes.data(), size);
  if (absl::EndsWith(content, "\n")) content.remove_suffix(1);
  if (content.empty() || content.size() > kMost) {
    return MakeError(reason::kNoPassword,
                     absl::StrCat("the password from ", from,
                                  " has no byte, or over ", kMost));
  }
  return Secret(content);
}

// Taken out, and wiped: /proc/PID/environ, and programs that are started, would
// show it for as long as this runs. With one thread.
// NOLINTBEGIN(concurrency-mt-unsafe)
absl::StatusOr<Secret> TakeFromEnvironment() {
  char* const value = std::getenv(kPasswordVariable);
  if (value == nullptr) return Secret();
  const std::string_view content(value);
  if (content.empty() || content.size() > kMost) {
    return MakeError(reason::kNoPassword,
                     absl::StrCat("the password in ", kPasswordVariable,
                                  " has no byte, or over ", kMost));
  }
  Secret secret(content);
  Wipe(value, content.size());
  unsetenv(kPasswordVariable);
  return secret;
}
// NOLINTEND(concurrency-mt-unsafe)

// At a terminal that shows nothing of it. What is typed to end this program
// (Ctrl-C) does so once the terminal is as it was.
absl::StatusOr<Secret> Ask(const FileDescriptor& terminal, bool& is_typed) {
  constexpr std::string_view kPrompt = "Password: ";
  termios before{};
  if (tcgetattr(terminal.get(), &before) != 0) {
    return UsageError(
        SystemError(errno, "ask for the password at /dev/tty").message());
  }
  sigset_t ending;
  sigset_t mask;
  sigemptyset(&ending);
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP}) {
    sigaddset(&ending, signal);
  }
  // The only thread.
  sigprocmask(SIG_BLOCK, &ending, &mask);  // NOLINT(concurrency-mt-unsafe)
  const absl::Cleanup restore = [&] {
    tcsetattr(terminal.get(), TCSAFLUSH, &before);
    (void)!write(terminal.get(), "\n", 1);
    sigprocmask(SIG_SETMASK, &mask, nullptr);  // NOLINT(concurrency-mt-unsafe)
  };
  const FileDescriptor signals =
      FileDescriptor::Opened(signalfd(-1, &ending, SFD_CLOEXEC));
  termios silent = before;
  silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  tcsetattr(terminal.get(), TCSAFLUSH, &silent);
  (void)!write(terminal.get(), kPrompt.data(), kPrompt.size());
  std::array<pollfd, 2> either = {
      {{terminal.get(), POLLIN, 0}, {signals.get(), POLLIN, 0}}};
  while (poll(either.data(), either.size(), -1) < 0 && errno == EINTR) {
  }
  if (either[0].revents == 0) {
    return MakeError(reason::kNoPassword, "no password was typed");
  }
  return ReadSecret(terminal.get(), /*line=*/true, "the terminal",
                    absl::InfiniteFuture(), is_typed);
}

// Whether to read it changes nothing, and takes no time.
bool IsAtHand(const std::string& file) {
  std::error_code error;
  return file != "-" && std::filesystem::is_regular_file(file, error);
}

}  // namespace

absl::StatusOr<Secret> FindPassword(const CommandLine& line, bool may_ask,
                                    absl::Time deadline, bool& is_typed) {
  is_typed = false;
  const std::string* const file = line.Find(kPasswordFile);
  const std::string* const number = line.Find(kPasswordFd);
  if (!may_ask && (file != nullptr ? !IsAtHand(*file) : number != nullptr)) {
    return MakeError(reason::kNoPassword,
                     "the password is in no file that is at hand");
  }
  if (file != nullptr) {
    if (*file == "-") {
      return ReadSecret(STDIN_FILENO, /*line=*/false, "standard input",
                        deadline, is_typed);
    }
    WARD_ASSIGN_OR_RETURN(const FileDescriptor opened,
                          OpenFile(*file, O_RDONLY, deadline));
    return ReadSecret(opened.get(), /*line=*/false, *file, deadline, is_typed);
  }
  if (number != nullptr) {
    int fd = -1;
    if (!absl::SimpleAtoi(*number, &fd) || fd < 0) {
      return UsageError(
          absl::StrCat("--password-fd: \"", *number, "\" is no descriptor"));
    }
    return ReadSecret(fd, /*line=*/false, absl::StrCat("descriptor ", fd),
                      deadline, is_typed);
  }
  WARD_ASSIGN_OR_RETURN(Secret secret, TakeFromEnvironment());
  if (!secret.empty()) return secret;
  const FileDescriptor terminal = FileDescriptor::Opened(
      may_ask ? open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY) : -1);
  if (terminal.is_open()) return Ask(terminal, is_typed);
  return MakeError(reason::kNoPassword,
                   absl::StrCat("there is no password: give it by "
                                "--password-file, --password-fd or ",
                                kPasswordVariable, ", or at a terminal"));
}

}  // namespace ward::ctl

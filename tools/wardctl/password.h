// Where wardctl has a server's password from. Never from its command line,
// which every user sees (ps(1)).

#ifndef WARD_TOOLS_WARDCTL_PASSWORD_H_
#define WARD_TOOLS_WARDCTL_PASSWORD_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/secret.h"
#include "ward/tools/wardctl/command.h"

namespace ward::ctl {

inline constexpr Option kPasswordFile{
    "password-file", "FILE",
    "the server's password is what FILE has, less a newline at its end; \"-\" "
    "is standard input"};
inline constexpr Option kPasswordFd{
    "password-fd", "N", "the same, of descriptor N, read to its end"};

// Its name in the environment.
inline constexpr char kPasswordVariable[] = "WARD_PASSWORD";

// From the first of these that there is: the options above, the environment,
// from which it is then gone, and the terminal. At most 4 KiB. Unless `may_ask`
// it is neither asked for nor waited for, nor taken out of a pipe. kNoPassword;
// kUsage if an option names what cannot be read; kTimedOut if it is not there
// by `deadline`, on Environment::TimeNow's clock. To type it, which `is_typed`
// tells, may take longer. With one thread.
absl::StatusOr<Secret> FindPassword(const CommandLine& line, bool may_ask,
                                    absl::Time deadline, bool& is_typed);

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_PASSWORD_H_

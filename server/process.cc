#include "ward/server/process.h"

#include <signal.h>

#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"

namespace ward {

absl::Status ForkWithThreadsError(int others) {
  return MakeError(
      reason::kForkWithThreads,
      absl::StrCat(
          "this process has ", others,
          others == 1 ? " other thread" : " other threads",
          "; a fork would copy its locks but not the threads, and the server "
          "could hang at the first lock it takes (fork(2)). Start the server "
          "before the threads, or start it by exec of the same binary"));
}

std::string ProcessExit::ToString() const {
  switch (kind) {
    case Kind::kExited:
      return absl::StrCat("exited with code ", value);
    case Kind::kSignaled: {
      const char* const description = sigdescr_np(value);  // No real-time ones.
      return absl::StrCat("was killed by signal ", value, " (",
                          description != nullptr ? description : "real-time",
                          value == SIGSYS ? ", which a sandbox denies, as "
                                            "Confinement::system_calls does; "
                                            "the kernel's log has its number"
                                          : "",
                          ")");
    }
    case Kind::kUnknown:
      break;
  }
  return "ended; how is not known: this process is not its parent, ignores "
         "SIGCHLD (SIG_IGN, SA_NOCLDWAIT), or another thread or a signal "
         "handler of it waits for any child (waitpid(-1)) and was told; have "
         "those wait for children of their own alone";
}

}  // namespace ward

#include "ward/server/signals.h"

#include <pthread.h>
#include <signal.h>

#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"

namespace ward {
namespace {

// Returned from, its handler is called again at once, and for ever.
bool IsOfAFault(int signal) {
  return signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE ||
         signal == SIGILL;
}

}  // namespace

UnblockedSignals::UnblockedSignals() {
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, &found_);
}

UnblockedSignals::~UnblockedSignals() {
  pthread_sigmask(SIG_SETMASK, &found_, nullptr);
}

absl::Status SignalsTakenError() {
  return MakeError(reason::kSignalsTaken,
                   "a server that runs in this process has its signals "
                   "already; run one server at a time here, or start them as "
                   "processes of their own");
}

absl::Status CheckSignalPlan(const SignalPlan& plan) {
  for (const int signal : plan.receive) {
    struct sigaction found;
    const bool is_known = sigaction(signal, nullptr, &found) == 0;
    if (!is_known && errno != EINVAL) {
      return SystemError(errno, absl::StrCat("ask what signal ", signal,
                                             " does (rt_sigaction)"));
    }
    if (signal == SIGKILL || signal == SIGSTOP || !is_known) {
      return MakeError(reason::kInvalidSignal,
                       absl::StrCat("signal ", signal,
                                    " cannot have a handler (sigaction(2))"));
    }
    if (IsOfAFault(signal)) {
      return MakeError(
          reason::kInvalidSignal,
          absl::StrCat("signal ", signal,
                       " is raised by a thread that cannot go on, and is "
                       "nothing for another one to handle later; install a "
                       "handler of your own in InitializeServer "
                       "(sigaction(2)), as "
                       "absl::InstallFailureSignalHandler does"));
    }
  }
  return absl::OkStatus();
}

}  // namespace ward

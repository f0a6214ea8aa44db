#include "ward/tools/wardctl/time_limit.h"

#include <signal.h>
#include <time.h>

#include <cerrno>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/server/environment.h"

namespace ward::ctl {
namespace {

// After the first time: it may have come just before the system call.
constexpr long kAgainNanoseconds = 10'000'000;

}  // namespace

TimeLimit::TimeLimit(absl::Time deadline) : deadline_(deadline) {
  if (deadline == absl::InfiniteFuture()) return;
  // Not SIGALRM: whoever has started this program may have set an alarm(2).
  const int signal = SIGRTMIN;
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = signal;
  has_timer_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
  if (!has_timer_) return;
  // Without SA_RESTART.
  struct sigaction action {};
  action.sa_handler = [](int /*signal*/) {};
  sigaction(signal, &action, &action_before_);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, signal);
  pthread_sigmask(SIG_UNBLOCK, &mask, &mask_before_);
  const itimerspec times = {{0, kAgainNanoseconds}, absl::ToTimespec(deadline)};
  timer_settime(timer_, TIMER_ABSTIME, &times, nullptr);
}

TimeLimit::~TimeLimit() {
  if (!has_timer_) return;
  // One that is pending comes here, while there is a handler.
  timer_delete(timer_);
  pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
  sigaction(SIGRTMIN, &action_before_, nullptr);
}

absl::Status TimeLimit::Check(std::string_view attempt) const {
  if (Environment::Default().TimeNow() < deadline_) return absl::OkStatus();
  return MakeError(ward::reason::kTimedOut,
                   absl::StrCat("--timeout: ", attempt, ": time is over"));
}

absl::Status TimeLimit::MayTryAgain(std::string_view attempt) const {
  return errno == EINTR ? Check(attempt) : SystemError(errno, attempt);
}

}  // namespace ward::ctl

// Signals that a program sends to itself, and waits for.
//
// POSIX has any thread that does not block it take a signal that is sent to the
// process; here it is the sender, if it may be, and it has done so when kill(2)
// returns. Another one takes it when it next goes on. One that all block stays
// with the kernel, for signalfd(2) and sigwait(3). raise(3) needs nothing of
// this: it is the caller's own, at once.

#include "ward/testing/interception/signals.h"

#include <pthread.h>
#include <signal.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "absl/time/time.h"
#include "ward/testing/interception/held_files.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"

WARD_REAL(kill);
WARD_REAL(pthread_kill);
WARD_REAL(pthread_sigmask);
WARD_REAL(sigprocmask);
WARD_REAL(sigtimedwait);
WARD_REAL(sigwaitinfo);
WARD_REAL(sigwait);
WARD_REAL(sigsuspend);
WARD_REAL(pause);

namespace ward::testing {
namespace {

// The watchdog's is none of the program's, as the C library has some of its
// own: where it is blocked nobody watches, and sigwait would return it.
sigset_t WithoutTheWatchdogs(const sigset_t& signals) {
  sigset_t others = signals;
  sigdelset(&others, SIGRTMAX);
  return others;
}

// Its handler may run before the sender goes on.
void Send(Scheduler& scheduler, int thread, int signal) {
  scheduler.SendSignal(thread, signal);
  scheduler.PointAfter("sending a signal");
}

// As sigtimedwait(2).
int AwaitSignal(Scheduler& scheduler, const sigset_t* signals, siginfo_t* about,
                absl::Time deadline) {
  scheduler.Point("waiting for a signal");
  const sigset_t waited_for = WithoutTheWatchdogs(*signals);
  const Interruptions& now = scheduler.interruptions();
  const int before = now.all;
  int signal = -1;
  const HeldFiles none(scheduler, {});
  scheduler.AwaitWorld(
      "waiting for a signal",
      [&] {
        const timespec none = {0, 0};
        if (signal < 0) signal = real_sigtimedwait(&waited_for, about, &none);
        return signal >= 0 || now.all != before;
      },
      deadline, &none);
  Order::Acquire(&kDescriptors);
  if (signal >= 0) return signal;
  return Failed(now.all != before ? EINTR : EAGAIN);
}

// Until a handler has returned.
int PauseInSchedule(Scheduler& scheduler, const sigset_t* mask) {
  scheduler.Point("waiting for a signal");
  const WaitingMask waiting(mask);
  const Interruptions& now = scheduler.interruptions();
  const int before = now.all;
  const HeldFiles none(scheduler, {});
  scheduler.AwaitWorld(
      "waiting for a signal",
      [&] { return now.all != before || waiting.HasLetThrough(); },
      absl::InfiniteFuture(), &none);
  waiting.Deliver();
  return Failed(EINTR);
}

// Whether the kernel drops it.
bool IsIgnored(int signal) {
  struct sigaction action;
  if (sigaction(signal, nullptr, &action) != 0) return true;
  if (action.sa_handler != SIG_DFL) return action.sa_handler == SIG_IGN;
  return signal == SIGCHLD || signal == SIGCONT || signal == SIGURG ||
         signal == SIGWINCH;  // signal(7).
}

}  // namespace

WaitingMask::WaitingMask(const sigset_t* mask) : mask_(mask) {
  if (mask == nullptr) return;
  pthread_sigmask(SIG_BLOCK, nullptr, &found_);
  if (Scheduler* const scheduler = Intercepting()) {
    scheduler->SetWaitingMask(*mask);
  }
}

WaitingMask::~WaitingMask() {
  if (mask_ != nullptr) pthread_sigmask(SIG_SETMASK, &found_, nullptr);
}

bool WaitingMask::HasLetThrough() const {
  if (mask_ == nullptr) return false;
  sigset_t pending;
  sigpending(&pending);
  for (int signal = 1; signal < NSIG; ++signal) {
    if (sigismember(&pending, signal) == 1 && sigismember(mask_, signal) == 0 &&
        !IsIgnored(signal)) {
      return true;
    }
  }
  return false;
}

void WaitingMask::Deliver() const {
  if (mask_ != nullptr) pthread_sigmask(SIG_SETMASK, mask_, nullptr);
}

}  // namespace ward::testing

using ::ward::testing::Intercepting;
using ::ward::testing::Order;
using ::ward::testing::Scheduler;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int kill(pid_t process, int signal) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr || process != getpid() || signal == 0) {
    return real_kill(process, signal);
  }
  scheduler->Point("sending a signal to its own process");
  if (scheduler->TakesSignal(signal)) return 0;
  const int thread = scheduler->ThreadForSignal(signal);
  if (thread < 0) {
    Order::Release(&ward::testing::kDescriptors);
    return real_kill(process, signal);
  }
  if (thread == scheduler->thread()) {
    return real_pthread_kill(pthread_self(), signal) == 0 ? 0 : -1;
  }
  ward::testing::Send(*scheduler, thread, signal);
  return 0;
}

int pthread_kill(pthread_t handle, int signal) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_pthread_kill(handle, signal);
  scheduler->Point("sending a signal to a thread");
  const int thread = scheduler->Find(handle);
  if (thread < 0 || thread == scheduler->thread() || signal <= 0 ||
      signal >= NSIG) {
    return real_pthread_kill(handle, signal);
  }
  ward::testing::Send(*scheduler, thread, signal);
  return 0;
}

// Those that this lets through are taken before it returns: a point after it
// shows others what they did.
int pthread_sigmask(int how, const sigset_t* set, sigset_t* old) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr || set == nullptr) {
    return real_pthread_sigmask(how, set, old);
  }
  const sigset_t changed =
      how == SIG_UNBLOCK ? *set : ward::testing::WithoutTheWatchdogs(*set);
  const int error = real_pthread_sigmask(how, &changed, old);
  if (error != 0) return error;
  sigset_t mask;
  real_pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  scheduler->SetSignalMask(mask);
  return 0;
}

int sigprocmask(int how, const sigset_t* set, sigset_t* old) noexcept {
  if (Intercepting() == nullptr) return real_sigprocmask(how, set, old);
  const int error = pthread_sigmask(how, set, old);
  return error == 0 ? 0 : ward::testing::Failed(error);
}

int sigtimedwait(const sigset_t* signals, siginfo_t* about,
                 const timespec* limit) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return real_sigtimedwait(signals, about, limit);
  }
  if (limit != nullptr && !ward::testing::IsValid(*limit)) {
    return ward::testing::Failed(EINVAL);
  }
  return ward::testing::AwaitSignal(
      *scheduler, signals, about,
      limit == nullptr ? absl::InfiniteFuture()
                       : scheduler->now() + absl::DurationFromTimespec(*limit));
}

int sigwaitinfo(const sigset_t* signals, siginfo_t* about) {
  if (Intercepting() == nullptr) return real_sigwaitinfo(signals, about);
  return sigtimedwait(signals, about, nullptr);
}

int sigwait(const sigset_t* signals, int* signal) {
  if (Intercepting() == nullptr) return real_sigwait(signals, signal);
  // It is not interrupted (sigwait(3)).
  do {
    *signal = sigtimedwait(signals, nullptr, nullptr);
  } while (*signal < 0 && errno == EINTR);
  return *signal < 0 ? errno : 0;
}

int sigsuspend(const sigset_t* mask) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_sigsuspend(mask);
  return ward::testing::PauseInSchedule(*scheduler, mask);
}

int pause() {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_pause();
  return ward::testing::PauseInSchedule(*scheduler, nullptr);
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

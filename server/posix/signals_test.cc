#include "ward/server/posix/signals.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/transport.h"
#include "ward/server/signals.h"

namespace ward {
namespace {

void Ignore(int /*signal*/, siginfo_t* /*info*/, void* /*context*/) {}

std::unique_ptr<Signals> Take(const SignalPlan& plan) {
  absl::StatusOr<std::unique_ptr<Signals>> signals = PosixTakeSignals(plan);
  EXPECT_TRUE(signals.ok()) << signals.status();
  return *std::move(signals);
}

bool IsReadable(const Pollable& pollable) {
  pollfd polled{pollable.descriptor(), POLLIN, 0};
  return poll(&polled, 1, 0) == 1;
}

auto DispositionOf(int signal) {
  struct sigaction found;
  EXPECT_EQ(sigaction(signal, nullptr, &found), 0);
  return found.sa_handler;
}

// The C library sets this one whenever it sets an action, and does not show
// its name.
constexpr int kSaRestorer = 0x04000000;

// Everything about this process's signals that can be seen.
struct SignalState {
  std::vector<struct sigaction> actions;
  sigset_t mask;

  static SignalState Current() {
    SignalState state;
    for (int signal = 1; signal <= SIGRTMAX; ++signal) {
      struct sigaction action;
      std::memset(&action, 0, sizeof(action));
      sigaction(signal, nullptr, &action);
      state.actions.push_back(action);
    }
    pthread_sigmask(SIG_SETMASK, nullptr, &state.mask);
    return state;
  }

  void ExpectEqual(const SignalState& other) const {
    for (int signal = 1; signal <= SIGRTMAX; ++signal) {
      const struct sigaction& a = actions[static_cast<size_t>(signal) - 1];
      const struct sigaction& b =
          other.actions[static_cast<size_t>(signal) - 1];
      EXPECT_EQ(a.sa_handler, b.sa_handler) << "signal " << signal;
      EXPECT_EQ(a.sa_flags & ~kSaRestorer, b.sa_flags & ~kSaRestorer)
          << "signal " << signal;
      EXPECT_EQ(sigismember(&mask, signal), sigismember(&other.mask, signal))
          << "signal " << signal;
    }
  }
};

TEST(Signals, ReturnsEachSignalThatCameOnce) {
  const auto signals = Take({{SIGUSR1, SIGRTMAX}, {}});
  EXPECT_FALSE(IsReadable(*signals));
  raise(SIGRTMAX);
  raise(SIGUSR1);
  raise(SIGUSR1);
  EXPECT_TRUE(IsReadable(*signals));
  EXPECT_EQ(signals->Next(), SIGUSR1);
  EXPECT_EQ(signals->Next(), SIGRTMAX);
  EXPECT_EQ(signals->Next(), 0);
  EXPECT_FALSE(IsReadable(*signals));
}

TEST(Signals, ReceivesWhatAnotherThreadOfTheProcessCaught) {
  const auto signals = Take({{SIGUSR2}, {}});
  std::thread([] { raise(SIGUSR2); }).join();
  EXPECT_TRUE(IsReadable(*signals));
  EXPECT_EQ(signals->Next(), SIGUSR2);
}

TEST(Signals, AreDefaultOrIgnoredUnlessReceived) {
  signal(SIGUSR2, SIG_IGN);
  signal(SIGQUIT, SIG_IGN);
  {
    const auto signals = Take({{SIGHUP}, {SIGHUP, SIGPIPE}});
    EXPECT_EQ(DispositionOf(SIGUSR2), SIG_DFL);
    EXPECT_EQ(DispositionOf(SIGQUIT), SIG_DFL);
    EXPECT_NE(DispositionOf(SIGPIPE), SIG_IGN) << "programs would inherit it";
    raise(SIGPIPE);
    raise(SIGHUP);
    EXPECT_EQ(signals->Next(), SIGHUP) << "received goes before ignored";
  }
  signal(SIGUSR2, SIG_DFL);
  signal(SIGQUIT, SIG_DFL);
}

TEST(Signals, ArePutBackExactlyAsFound) {
  struct sigaction own {};
  own.sa_sigaction = Ignore;
  own.sa_flags = SA_SIGINFO | SA_NODEFER;
  ASSERT_EQ(sigaction(SIGUSR1, &own, nullptr), 0);
  signal(SIGTERM, SIG_IGN);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);

  const SignalState before = SignalState::Current();
  {
    const auto signals = Take({{SIGTERM, SIGINT}, {SIGHUP, SIGPIPE}});
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    EXPECT_FALSE(sigismember(&mask, SIGUSR2)) << "unblocked while taken";
  }
  SignalState::Current().ExpectEqual(before);

  pthread_sigmask(SIG_UNBLOCK, &blocked, nullptr);
  signal(SIGTERM, SIG_DFL);
  signal(SIGUSR1, SIG_DFL);
}

TEST(Signals, CannotBeTakenTwiceAtATime) {
  auto first = Take({{SIGUSR1}, {}});
  const SignalState before = SignalState::Current();
  const auto second = PosixTakeSignals({{SIGUSR2}, {}});
  EXPECT_TRUE(HasReason(second.status(), reason::kSignalsTaken))
      << second.status();
  SignalState::Current().ExpectEqual(before);
  first.reset();
  EXPECT_TRUE(PosixTakeSignals({{SIGUSR2}, {}}).ok());
}

TEST(Signals, RefusesNumbersThatCannotHaveAHandler) {
  const SignalState before = SignalState::Current();
  for (const int signal : {SIGKILL, SIGSTOP, 0, -1, 1000}) {
    const auto signals = PosixTakeSignals({{signal}, {}});
    EXPECT_TRUE(HasReason(signals.status(), reason::kInvalidSignal))
        << signal << ": " << signals.status();
  }
  SignalState::Current().ExpectEqual(before);
}

TEST(Signals, AreAtTheirDefaultInAForkedChild) {
  const auto signals = Take({{SIGUSR1}, {SIGHUP}});
  const pid_t child = fork();
  if (child == 0) {
    _exit(DispositionOf(SIGUSR1) == SIG_DFL && DispositionOf(SIGHUP) == SIG_DFL
              ? 0
              : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_NE(DispositionOf(SIGUSR1), SIG_DFL);
}

TEST(Signals, AreUnblockedForAWhile) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  sigset_t mask;
  {
    const UnblockedSignals unblocked;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    EXPECT_FALSE(sigismember(&mask, SIGUSR2));
  }
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_TRUE(sigismember(&mask, SIGUSR2));
  pthread_sigmask(SIG_UNBLOCK, &blocked, nullptr);
}

TEST(Signals, OfAForkedChildAreItsOwn) {
  const auto signals = Take({{SIGUSR1}, {}});
  const pid_t child = fork();
  if (child == 0) {
    const auto own = PosixTakeSignals({{SIGUSR1}, {}});
    raise(SIGUSR1);
    _exit(own.ok() && (*own)->Next() == SIGUSR1 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_FALSE(IsReadable(*signals))
      << "the child's signal is not the parent's";
  EXPECT_EQ(signals->Next(), 0);
}

}  // namespace
}  // namespace ward

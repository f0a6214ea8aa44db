#include "ward/server/posix/signals.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/numeric/bits.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/server/posix/own_process.h"
#include "ward/server/signals.h"

namespace ward {
namespace {

// What the handler touches. It may still be about to run on another thread when
// its Signals object has gone, so the event's descriptor lives as long as the
// process. A child that was forked has state of its own: see OwnEvent.
std::atomic<uint64_t> pending{0};
std::atomic<int> event{-1};
static_assert(std::atomic<uint64_t>::is_always_lock_free,
              "what is not lock-free may not be used in a signal handler");

// The processes, by their ForkGeneration, for which `event` was made and
// signals are taken: after a fork these are the parent's, and the child may
// begin anew.
std::atomic<int> event_process{0};
std::atomic<int> taken_by{0};

constexpr uint64_t Bit(int signal) { return uint64_t{1} << (signal - 1); }

void Note(int signal) {
  const int saved_errno = errno;
  pending.fetch_or(Bit(signal));
  const uint64_t one = 1;
  // Can only fail when it is readable already (EAGAIN): no news to bring.
  [[maybe_unused]] const ssize_t ignored = write(event, &one, sizeof(one));
  errno = saved_errno;
}

// A signal that has a handler is at its default in a program (execve(2)), one
// that is ignored is ignored there, too.
void Ignore(int /*signal*/) {}

// In the child of a fork: nobody there asks for what is noted.
void GiveBackInChild() {
  for (int signal = 1; signal <= SIGRTMAX; ++signal) {
    struct sigaction action;
    if (sigaction(signal, nullptr, &action) != 0 ||
        (action.sa_flags & SA_SIGINFO) != 0 ||
        (action.sa_handler != Note && action.sa_handler != Ignore)) {
      continue;
    }
    action = {};
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);
  }
}

absl::Status OwnEvent() {
  if (event_process == ForkGeneration()) return absl::OkStatus();
  FileDescriptor made =
      FileDescriptor::Opened(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!made.is_open()) {
    return SystemError(errno, "create an event for signals (eventfd)");
  }
  event = made.Release();
  event_process = ForkGeneration();
  return absl::OkStatus();
}

class PosixSignals final : public Signals {
 public:
  PosixSignals() { pthread_sigmask(SIG_SETMASK, nullptr, &found_mask_); }
  ~PosixSignals() override {
    for (const auto& [signal, action] : found_) {
      sigaction(signal, &action, nullptr);
    }
    pthread_sigmask(SIG_SETMASK, &found_mask_, nullptr);
    taken_by = 0;
  }

  void Take(const SignalPlan& plan) {
    for (int signal = 1; signal <= SIGRTMAX; ++signal) {
      struct sigaction found;
      // Fails for those that the C library keeps to itself.
      if (sigaction(signal, nullptr, &found) != 0) continue;
      const auto wanted = Wanted(plan, signal);
      if ((found.sa_flags & SA_SIGINFO) == 0 && found.sa_handler == wanted) {
        continue;
      }
      struct sigaction action {};
      action.sa_handler = wanted;
      action.sa_flags = SA_RESTART;
      // Fails for SIGKILL and SIGSTOP, which are at their default anyway.
      if (sigaction(signal, &action, nullptr) == 0) {
        found_.emplace_back(signal, found);
      }
    }
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, nullptr);
  }

  int descriptor() const override { return event; }

  int Next() override {
    if (taken_ == 0) {
      uint64_t ignored;
      // Read first: a signal that comes in between makes it readable again.
      [[maybe_unused]] const ssize_t drained =
          read(event, &ignored, sizeof(ignored));
      taken_ = pending.exchange(0);
    }
    if (taken_ == 0) return 0;
    const int signal = absl::countr_zero(taken_) + 1;
    taken_ &= taken_ - 1;
    return signal;
  }

 private:
  static void (*Wanted(const SignalPlan& plan, int signal))(int) {
    const auto has = [signal](const std::vector<int>& signals) {
      return std::find(signals.begin(), signals.end(), signal) != signals.end();
    };
    if (has(plan.receive)) return Note;
    return has(plan.ignore) ? Ignore : SIG_DFL;
  }

  std::vector<std::pair<int, struct sigaction>> found_;
  sigset_t found_mask_;
  uint64_t taken_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Signals>> PosixTakeSignals(
    const SignalPlan& plan) {
  WARD_RETURN_IF_ERROR(CheckSignalPlan(plan));
  int holder = taken_by;
  if (holder == ForkGeneration() ||
      !taken_by.compare_exchange_strong(holder, ForkGeneration())) {
    return SignalsTakenError();
  }
  [[maybe_unused]] static const int kAtFork =
      pthread_atfork(nullptr, nullptr, &GiveBackInChild);
  // From here on the destructor gives the signals back.
  auto signals = std::make_unique<PosixSignals>();
  WARD_RETURN_IF_ERROR(OwnEvent());
  pending = 0;
  signals->Take(plan);
  return signals;
}

}  // namespace ward

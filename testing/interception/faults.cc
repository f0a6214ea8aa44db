#include "ward/testing/interception/faults.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <set>

#include "absl/functional/function_ref.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"
#include "ward/testing/simulator/watchdog.h"

namespace ward::testing {
namespace {

bool IsOwn(const Scheduler& scheduler, int descriptor) {
  const std::set<int>* const before = scheduler.open_before();
  return before == nullptr || before->count(descriptor) == 0;
}

// As the simulated sockets have it, EMSGSIZE is for what is cut.
bool Fails(Scheduler& scheduler, int error) {
  return scheduler.Choose(ChoiceKind::kFault, 2, {error}) != 0;
}

// Not those that a fault of the thread itself raises, or that are the
// simulator's.
bool MayInterrupt(int signal, bool restarts_count) {
  switch (signal) {
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
    case SIGSYS:
    case SIGABRT:
    case SIGURG:
    case SIGPIPE:
    case SIGXFSZ:
      return false;
    default:
      break;
  }
  struct sigaction action;
  return signal != SIGRTMAX && sigaction(signal, nullptr, &action) == 0 &&
         action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN &&
         (restarts_count || (action.sa_flags & SA_RESTART) == 0) &&
         !Watchdog::ShowsCrash(action);
}

bool CanBeInterrupted(int Interruptions::*interruption,
                      const sigset_t* mask = nullptr) {
  sigset_t blocked;
  if (mask != nullptr) {
    blocked = *mask;
  } else {
    pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
  }
  for (int signal = 1; signal < NSIG; ++signal) {
    if (sigismember(&blocked, signal) == 0 &&
        MayInterrupt(signal, interruption == &Interruptions::all)) {
      return true;
    }
  }
  return false;
}

// Descriptors, by their numbers.
struct Whole {
  std::set<int> numbers;
};

bool ComesWhole(Scheduler& scheduler, int descriptor) {
  return !IsOwn(scheduler, descriptor) ||
         scheduler.Kept<Whole>().numbers.count(descriptor) > 0;
}

}  // namespace

void KeepWhole(int descriptor) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr || !scheduler->has_faults()) return;
  const NoSchedulingPoints quiet;
  scheduler->Kept<Whole>().numbers.insert(descriptor);
}

size_t CutInput(int descriptor, size_t size) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr || !scheduler->has_faults() ||
      ComesWhole(*scheduler, descriptor)) {
    return size;
  }
  int type = 0;
  socklen_t size_of_type = sizeof(type);
  int least = 0;
  socklen_t size_of_least = sizeof(least);
  int come = 0;
  if (getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size_of_type) != 0 ||
      type != SOCK_STREAM ||
      getsockopt(descriptor, SOL_SOCKET, SO_RCVLOWAT, &least, &size_of_least) !=
          0 ||
      least > 1 || ioctl(descriptor, FIONREAD, &come) != 0) {
    return size;
  }
  const size_t whole = std::min(size, static_cast<size_t>(std::max(come, 0)));
  return whole > 1 && Fails(*scheduler, EMSGSIZE) ? (whole + 3) / 4 : size;
}

bool CutsOutput(Scheduler& scheduler, int descriptor, bool must_wait) {
  return scheduler.has_faults() && !ComesWhole(scheduler, descriptor) &&
         ((fcntl(descriptor, F_GETFL) & O_NONBLOCK) != 0 ||
          (must_wait && CanBeInterrupted(&Interruptions::all))) &&
         Fails(scheduler, EMSGSIZE);
}

bool Interrupts(Scheduler& scheduler, int Interruptions::*interruption,
                const sigset_t* mask) {
  return scheduler.has_faults() && CanBeInterrupted(interruption, mask) &&
         Fails(scheduler, EINTR);
}

int OpenInSchedule(absl::FunctionRef<int()> open) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return open();
  if (scheduler->has_faults() && Fails(*scheduler, EMFILE)) {
    return Failed(EMFILE);
  }
  const int opened = open();
  if (opened >= 0) scheduler->TellOpened(opened);
  return opened;
}

}  // namespace ward::testing

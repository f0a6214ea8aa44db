#include "ward/testing/interception/faults.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <limits>
#include <map>
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

// Not those that a fault of the thread itself raises, that are the simulator's,
// or the C library's own, of which sigaction(2) knows nothing: it would set
// errno in the midst of a wait that succeeds.
bool MayInterrupt(int signal, bool restarts_count) {
  if (signal > SIGSYS && signal < SIGRTMIN) return false;
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

constexpr size_t kAll = std::numeric_limits<size_t>::max();

// How many bytes come whole, by the files that have them, of which duplicates
// have the same.
class Whole {
 public:
  size_t& operator[](int descriptor) {
    struct stat about {};
    // One that is not open has none.
    return bytes_[fstat(descriptor, &about) == 0 ? about.st_ino : 0];
  }

 private:
  std::map<ino_t, size_t> bytes_;
};

// Null where nothing is cut.
size_t* WholeOf(int descriptor) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr || !scheduler->has_faults()) return nullptr;
  const NoSchedulingPoints quiet;
  return &scheduler->Kept<Whole>()[descriptor];
}

// How many bytes there are to be read; not in the schedule.
int HasCome(int descriptor, int& bytes) {
  const NoSchedulingPoints quiet;
  return ioctl(descriptor, FIONREAD, &bytes);
}

}  // namespace

void KeepWhole(int descriptor) {
  if (size_t* const whole = WholeOf(descriptor)) *whole = kAll;
}

void KeepWhole(int descriptor, ssize_t bytes) {
  if (bytes < 1) return;
  size_t* const whole = WholeOf(descriptor);
  if (whole != nullptr) *whole = std::max(*whole, static_cast<size_t>(bytes));
}

void HasRead(int descriptor, ssize_t bytes) {
  if (bytes < 1) return;
  size_t* const whole = WholeOf(descriptor);
  if (whole == nullptr || *whole == kAll) return;
  *whole -= std::min(*whole, static_cast<size_t>(bytes));
}

size_t CutInput(int descriptor, size_t size) {
  Scheduler* const scheduler = Intercepting();
  const size_t* const known = WholeOf(descriptor);
  if (known == nullptr || !IsOwn(*scheduler, descriptor)) return size;
  int type = 0;
  socklen_t size_of_type = sizeof(type);
  int least = 0;
  socklen_t size_of_least = sizeof(least);
  int come = 0;
  if (getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size_of_type) != 0 ||
      type != SOCK_STREAM ||
      getsockopt(descriptor, SOL_SOCKET, SO_RCVLOWAT, &least, &size_of_least) !=
          0 ||
      least > 1 || HasCome(descriptor, come) != 0) {
    return size;
  }
  const size_t whole = std::min(size, static_cast<size_t>(std::max(come, 0)));
  const size_t part = std::max((whole + 3) / 4, *known);
  return part < whole && Fails(*scheduler, EMSGSIZE) ? part : size;
}

bool CutsOutput(Scheduler& scheduler, int descriptor, bool must_wait) {
  return scheduler.has_faults() && IsOwn(scheduler, descriptor) &&
         *WholeOf(descriptor) != kAll &&
         ((fcntl(descriptor, F_GETFL) & O_NONBLOCK) != 0 ||
          (must_wait && CanBeInterrupted(&Interruptions::all))) &&
         Fails(scheduler, EMSGSIZE);
}

bool CanBeInterrupted(int Interruptions::*interruption, const sigset_t* mask) {
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

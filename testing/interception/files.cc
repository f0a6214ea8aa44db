// flockfile(3) and its like. What the C library locks itself, in each call that
// has a FILE, is not seen: whoever calls one while another thread has locked
// the FILE by these waits outside of the schedule.

#include <stdio.h>

#include <cerrno>

#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"

WARD_REAL(flockfile);
WARD_REAL(ftrylockfile);
WARD_REAL(funlockfile);

namespace ward::testing {
namespace {

constexpr Names kFile = {"locking a FILE", "waiting for a FILE",
                         "unlocking a FILE"};

int TryToLock(FILE* file) { return real_ftrylockfile(file) == 0 ? 0 : EBUSY; }

}  // namespace
}  // namespace ward::testing

using ::ward::testing::Intercepting;
using ::ward::testing::kFile;
using ::ward::testing::Locked;
using ::ward::testing::Order;
using ::ward::testing::Scheduler;
using ::ward::testing::TryToLock;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

void flockfile(FILE* file) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    real_flockfile(file);
    return;
  }
  Locked(file, ward::testing::TakeInSchedule(
                   *scheduler, file, kFile, [file] { return TryToLock(file); },
                   EBUSY));
}

int ftrylockfile(FILE* file) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_ftrylockfile(file);
  scheduler->Point(kFile.taking, file);
  return Locked(file, TryToLock(file)) == 0 ? 0 : 1;
}

void funlockfile(FILE* file) noexcept {
  real_funlockfile(file);
  if (Scheduler* const scheduler = Intercepting()) {
    Order::Unlocked(file);
    ward::testing::GiveInSchedule(*scheduler, file, kFile);
  }
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

#include "ward/testing/interception/interception.h"

#include <execinfo.h>
#include <sys/types.h>
#include <time.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ward/testing/interception/world.h"
#include "ward/testing/report/places.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {
namespace {

// Until it is not taken any more, or no child is left that would give it. As
// WaitToBeWoken.
int WaitForChildren(Scheduler& scheduler, const void* object,
                    const Names& names, absl::Time deadline,
                    int Interruptions::*interruption) {
  const Interruptions before = scheduler.interruptions();
  const auto is_interrupted = [&] {
    return interruption != nullptr &&
           scheduler.interruptions().*interruption != before.*interruption;
  };
  const auto is_over = [&] {
    return names.is_free(object) || !HasChildren(scheduler);
  };
  if (GiveTimeToChild(scheduler, [&] { return is_over() ? 1 : 0; }) != 0 ||
      scheduler.AwaitWorld(
          names.waiting, [&] { return is_over() || is_interrupted(); },
          deadline)) {
    return is_over() ? 0 : EINTR;
  }
  return ETIMEDOUT;
}

}  // namespace

const char kDescriptors = 0;

Scheduler* Intercepting() {
  return NoSchedulingPoints::Exist() ? nullptr : Scheduler::Current();
}

bool IsValid(const timespec& time) {
  return time.tv_nsec >= 0 && time.tv_nsec < 1'000'000'000;
}

bool IsValidLength(const timespec* time) {
  return time == nullptr || (time->tv_sec >= 0 && IsValid(*time));
}

absl::Time DeadlineOf(const timespec& time) {
  return absl::TimeFromTimespec(time);
}

int Failed(int error) {
  errno = error;
  return -1;
}

int WaitToBeWoken(Scheduler& scheduler, const void* object, const char* waiting,
                  absl::Time deadline, int Interruptions::*interruption,
                  uint32_t bits) {
  const Interruptions before = scheduler.interruptions();
  if (scheduler.WaitAt(object, waiting, deadline, interruption, bits)) return 0;
  const bool interrupted =
      interruption != nullptr &&
      scheduler.interruptions().*interruption != before.*interruption;
  return interrupted ? EINTR : ETIMEDOUT;
}

int TakeInSchedule(Scheduler& scheduler, const void* object, const Names& names,
                   absl::FunctionRef<int()> try_to_take, int busy,
                   absl::Time deadline, int Interruptions::*interruption) {
  scheduler.Point(names.taking, object, names.use);
  while (true) {
    Order::Uses(object);
    int error = try_to_take();
    if (error != busy) return error;
    const bool is_elsewhere = names.is_elsewhere != nullptr &&
                              names.is_elsewhere(scheduler, object) &&
                              HasChildren(scheduler);
    error = is_elsewhere ? WaitForChildren(scheduler, object, names, deadline,
                                           interruption)
                         : WaitToBeWoken(scheduler, object, names.waiting,
                                         deadline, interruption);
    if (error != 0) return error;
  }
}

int TakeInSchedule(Scheduler& scheduler, const void* object, const Names& names,
                   absl::FunctionRef<int()> try_to_take, int busy,
                   const timespec& limit, int Interruptions::*interruption) {
  if (IsValid(limit)) {
    return TakeInSchedule(scheduler, object, names, try_to_take, busy,
                          DeadlineOf(limit), interruption);
  }
  scheduler.Point(names.taking, object, names.use);
  const int error = try_to_take();
  return error == busy ? EINVAL : error;
}

int Locked(const void* object, int error, Order::Lock lock) {
  if (error == 0 || error == EOWNERDEAD) Order::Locked(object, lock);
  return error;
}

std::string StackHere() {
  const NoSchedulingPoints quiet;
  constexpr int kMostFrames = 40;
  std::array<void*, kMostFrames> frames;
  const int depth = backtrace(frames.data(), kMostFrames);
  std::string places;
  // The first is this function. Where a call returns to may be another line.
  for (int i = 1; i < depth; ++i) {
    const auto address =
        reinterpret_cast<uintptr_t>(frames[static_cast<size_t>(i)]) - 1;
    places += PlaceOf(address);
  }
  return absl::StrCat("    <", places, ">\n");
}

void FailUnlock(Scheduler& scheduler, const void* object, const char* what,
                pid_t owner, const char* comes_to) {
  const NoSchedulingPoints quiet;
  const int has = owner == 0 ? -1 : scheduler.FindByNumber(owner);
  scheduler.Fault(
      absl::StrCat(
          what, " is unlocked ",
          owner == 0 ? "that nobody has" : "by a thread that does not have it",
          comes_to, "\n  By ", scheduler.Describe(scheduler.thread()),
          ", in:\n", StackHere(),
          has < 0 ? ""
                  : absl::StrCat("  ", scheduler.Describe(has), ", has it.\n")),
      object);
}

void GiveInSchedule(Scheduler& scheduler, const void* object,
                    const Names& names) {
  scheduler.WakeAt(object);
  scheduler.PointAfter(names.giving, object);
}

}  // namespace ward::testing

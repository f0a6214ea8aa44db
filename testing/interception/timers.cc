// timerfd_create(2) and what sets such a timer: it goes by the simulated time.
//
// In its place the program gets an eventfd(2), to which the scheduler adds the
// expirations when their time has come: that can be read, polled and
// duplicated as a timer's descriptor can.

#include "ward/testing/interception/timers.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/testing/interception/faults.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"

WARD_REAL(timerfd_create);
WARD_REAL(timerfd_settime);
WARD_REAL(timerfd_gettime);

namespace ward::testing {
namespace {

struct Timer {
  // One of those that refer to it.
  int descriptor;
  int group;
  // InfiniteFuture(): it is not set.
  absl::Time next = absl::InfiniteFuture();
  absl::Duration interval = absl::ZeroDuration();
};

// Which eventfd(2) a descriptor refers to (proc(5)), or -1: none. Whichever of
// its duplicates it is, and for as long as one of them is open. kNotKnown:
// there is no descriptor to look at it with, or no /proc.
constexpr int kNotKnown = -2;
int EventNumber(int descriptor) {
  std::ifstream about(absl::StrCat("/proc/self/fdinfo/", descriptor));
  if (!about.is_open() && fcntl(descriptor, F_GETFD) >= 0) return kNotKnown;
  std::string word;
  while (about >> word) {
    int number;
    if (word == "eventfd-id:" && about >> number) return number;
  }
  return -1;
}

// Those of a run, by the number of their eventfd(2).
class Timers {
 public:
  void Add(int descriptor, int group) {
    timers_[EventNumber(descriptor)] = {descriptor, group};
  }

  // Null: it is none.
  Timer* Find(int descriptor) {
    if (timers_.empty()) return nullptr;
    const auto found = timers_.find(EventNumber(descriptor));
    return found == timers_.end() ? nullptr : &found->second;
  }

  void Set(Scheduler& scheduler, int descriptor, absl::Time next,
           absl::Duration interval) {
    const int number = EventNumber(descriptor);
    Timer& timer = timers_[number];
    timer.descriptor = descriptor;
    timer.next = next;
    timer.interval = interval;
    if (next <= scheduler.now()) {
      Expire(scheduler, number);
    } else {
      Wait(scheduler, number);
    }
  }

  void Closed(Scheduler& scheduler, int first, int last) {
    for (auto next = timers_.begin(); next != timers_.end();) {
      const auto& [number, timer] = *next++;
      if (timer.descriptor >= first && timer.descriptor <= last) {
        IsOpen(scheduler, number);
      }
    }
  }

 private:
  // False, and it is forgotten: none refers to it.
  bool IsOpen(Scheduler& scheduler, int number) {
    Timer& timer = timers_[number];
    const int found = EventNumber(timer.descriptor);
    if (found == number || found == kNotKnown) return true;
    const std::optional<std::set<int>> numbers = OpenNumbers();
    if (!numbers.has_value()) return true;
    for (const int other : *numbers) {
      if (EventNumber(other) != number) continue;
      timer.descriptor = other;
      return true;
    }
    scheduler.SetTimer(timer.group, absl::InfiniteFuture(), nullptr,
                       number + 1);
    timers_.erase(number);
    return false;
  }

  void Wait(Scheduler& scheduler, int number) {
    const Timer& timer = timers_[number];
    // 0 is the time limit of the process itself.
    scheduler.SetTimer(
        timer.group, timer.next,
        [this, &scheduler, number] { Expire(scheduler, number); }, number + 1);
  }

  void Expire(Scheduler& scheduler, int number) {
    Timer& timer = timers_[number];
    // It may have been closed by what is not seen.
    if (!IsOpen(scheduler, number)) return;
    uint64_t count = 1;
    if (timer.interval > absl::ZeroDuration()) {
      count += static_cast<uint64_t>((scheduler.now() - timer.next) /
                                     timer.interval);
      timer.next += static_cast<int64_t>(count) * timer.interval;
    } else {
      timer.next = absl::InfiniteFuture();
    }
    eventfd_write(timer.descriptor, count);
    Wait(scheduler, number);
  }

  std::map<int, Timer> timers_;
};

itimerspec Left(const Scheduler& scheduler, const Timer& timer) {
  itimerspec left{};
  left.it_interval = absl::ToTimespec(timer.interval);
  if (timer.next != absl::InfiniteFuture()) {
    left.it_value = absl::ToTimespec(
        std::max(timer.next - scheduler.now(), absl::Nanoseconds(1)));
  }
  return left;
}

// What has expired is not to be read any more.
void Reset(int descriptor) {
  // So that there is something, and the call does not wait.
  eventfd_write(descriptor, 1);
  eventfd_t read;
  eventfd_read(descriptor, &read);
}

}  // namespace

void ForgetTimers(Scheduler& scheduler, int first, int last) {
  const NoSchedulingPoints quiet;
  scheduler.Kept<Timers>().Closed(scheduler, first, last);
}

bool IsTimer(Scheduler& scheduler, int descriptor) {
  const NoSchedulingPoints quiet;
  return scheduler.Kept<Timers>().Find(descriptor) != nullptr;
}

}  // namespace ward::testing

using ::ward::testing::Failed;
using ::ward::testing::Intercepting;
using ::ward::testing::NoSchedulingPoints;
using ::ward::testing::Order;
using ::ward::testing::Scheduler;
using ::ward::testing::Timer;
using ::ward::testing::Timers;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int timerfd_create(clockid_t clock, int flags) noexcept {
  return ward::testing::OpenInSchedule([&] {
    Scheduler* const scheduler = Intercepting();
    const int timer = real_timerfd_create(clock, flags);
    if (scheduler == nullptr || timer < 0) return timer;
    const NoSchedulingPoints quiet;
    close(timer);
    // Their flags are the same (timerfd_create(2), eventfd(2)).
    const int event = eventfd(0, flags);
    if (event >= 0) scheduler->Kept<Timers>().Add(event, scheduler->group());
    return event;
  });
}

int timerfd_settime(int fd, int flags, const itimerspec* setting,
                    itimerspec* old) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) {
    return real_timerfd_settime(fd, flags, setting, old);
  }
  scheduler->Point("setting a timer", &ward::testing::kDescriptors);
  Order::Release(&ward::testing::kDescriptors);
  const NoSchedulingPoints quiet;
  const Timer* const timer = scheduler->Kept<Timers>().Find(fd);
  if (timer == nullptr) return real_timerfd_settime(fd, flags, setting, old);
  if ((flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)) != 0 ||
      !ward::testing::IsValid(setting->it_value) ||
      !ward::testing::IsValid(setting->it_interval)) {
    return Failed(EINVAL);
  }
  if (old != nullptr) *old = ward::testing::Left(*scheduler, *timer);
  ward::testing::Reset(fd);
  absl::Time next = absl::InfiniteFuture();
  if (setting->it_value.tv_sec != 0 || setting->it_value.tv_nsec != 0) {
    next =
        (flags & TFD_TIMER_ABSTIME) != 0
            ? ward::testing::DeadlineOf(setting->it_value)
            : scheduler->now() + absl::DurationFromTimespec(setting->it_value);
  }
  scheduler->Kept<Timers>().Set(
      *scheduler, fd, next, absl::DurationFromTimespec(setting->it_interval));
  return 0;
}

int timerfd_gettime(int fd, itimerspec* setting) noexcept {
  Scheduler* const scheduler = Intercepting();
  if (scheduler != nullptr) {
    const NoSchedulingPoints quiet;
    if (const Timer* const timer = scheduler->Kept<Timers>().Find(fd)) {
      *setting = ward::testing::Left(*scheduler, *timer);
      return 0;
    }
  }
  return real_timerfd_gettime(fd, setting);
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

// syscall(2), for gettid(2), and for futex(2); others that wait are said. Under
// std::atomic's wait(), std::future, std::latch, std::barrier and
// std::counting_semaphore.

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/base/attributes.h"
#include "absl/time/time.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/outside.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/remarks.h"
#include "ward/testing/simulator/scheduler.h"

static ward::testing::Real<long, long, long, long, long, long, long, long>
    real_syscall("syscall", nullptr);

namespace ward::testing {
namespace {

using Arguments = std::array<long, 6>;

// What waits, and is in the schedule by its own function alone.
struct Waiting {
  long number;
  const char* why;
};
#define WARD_WAITING(name) \
  Waiting { SYS_##name, "with SYS_" #name ", which is not in the schedule" }
constexpr Waiting kWaiting[] = {
    WARD_WAITING(read),
    WARD_WAITING(readv),
    WARD_WAITING(recvfrom),
    WARD_WAITING(recvmsg),
    WARD_WAITING(recvmmsg),
    WARD_WAITING(accept4),
    WARD_WAITING(ppoll),
    WARD_WAITING(pselect6),
    WARD_WAITING(epoll_pwait),
    WARD_WAITING(wait4),
    WARD_WAITING(waitid),
    WARD_WAITING(nanosleep),
    WARD_WAITING(clock_nanosleep),
    WARD_WAITING(rt_sigtimedwait),
    WARD_WAITING(io_getevents),
    WARD_WAITING(io_uring_enter),
    WARD_WAITING(futex),
    // These start what does.
    WARD_WAITING(clone),
    WARD_WAITING(clone3),
#ifdef SYS_poll  // Those that new kinds of processors do not have.
    WARD_WAITING(accept),
    WARD_WAITING(poll),
    WARD_WAITING(select),
    WARD_WAITING(epoll_wait),
    WARD_WAITING(pause),
#endif
};

// Nothing: another operation than those that the C++ library makes.
std::optional<long> FutexInSchedule(Scheduler& scheduler,
                                    const Arguments& arguments) {
  // NOLINTBEGIN(performance-no-int-to-ptr): so the call has them.
  const auto* const word = reinterpret_cast<const uint32_t*>(arguments[0]);
  const auto* const limit = reinterpret_cast<const timespec*>(arguments[3]);
  // NOLINTEND(performance-no-int-to-ptr)
  const auto operation = static_cast<int>(arguments[1]) & FUTEX_CMD_MASK;
  const uint32_t bits =
      operation == FUTEX_WAIT_BITSET || operation == FUTEX_WAKE_BITSET
          ? static_cast<uint32_t>(arguments[5])
          : FUTEX_BITSET_MATCH_ANY;
  if (bits == 0) return Failed(EINVAL);
  switch (operation) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET: {
      scheduler.Point("waiting at a futex", word);
      if (__atomic_load_n(word, __ATOMIC_SEQ_CST) !=
          static_cast<uint32_t>(arguments[2])) {
        return Failed(EAGAIN);
      }
      absl::Time deadline = absl::InfiniteFuture();
      if (limit != nullptr) {
        if (!IsValid(*limit)) return Failed(EINVAL);
        // FUTEX_WAIT's is relative (futex(2)).
        deadline = operation == FUTEX_WAIT
                       ? scheduler.now() + absl::DurationFromTimespec(*limit)
                       : DeadlineOf(*limit);
      }
      if (scheduler.WakesForNoReason()) return 0;
      // One with a limit is not started anew, whatever sigaction(2) has
      // (signal(7)).
      const int error =
          WaitToBeWoken(scheduler, word, "waiting at a futex", deadline,
                        limit == nullptr ? &Interruptions::without_restart
                                         : &Interruptions::all,
                        bits);
      return error == 0 ? 0 : Failed(error);
    }
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET: {
      const auto count = static_cast<size_t>(arguments[2]);
      const auto woken = static_cast<long>(scheduler.WakeAt(word, count, bits));
      scheduler.Point("waking at a futex", word, Use::kNothing);
      return woken;
    }
    default:
      return std::nullopt;
  }
}

}  // namespace
}  // namespace ward::testing

// It may have fewer arguments: what lies in their place on the caller's stack
// is handed on, and never looked at.
// NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name)
extern "C" ABSL_ATTRIBUTE_NO_SANITIZE_ADDRESS long syscall(long number,
                                                           ...) noexcept {
  ward::testing::Arguments a;
  va_list list;
  va_start(list, number);
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  if (number == SYS_futex) {
    if (ward::testing::Scheduler* const scheduler =
            ward::testing::Intercepting()) {
      const std::optional<long> result =
          ward::testing::FutexInSchedule(*scheduler, a);
      if (result.has_value()) return *result;
    }
  }
  // The kernel goes on with what it is asked to do; and others have what comes
  // from them.
  if (number == SYS_io_submit || number == SYS_io_uring_setup ||
      number == SYS_pidfd_getfd) {
    if (ward::testing::Scheduler* const scheduler =
            ward::testing::Intercepting()) {
      ward::testing::AskOutside(*scheduler);
    }
  }
  for (const auto& [waiting, why] : ward::testing::kWaiting) {
    if (number != waiting) continue;
    if (ward::testing::Scheduler* const scheduler =
            ward::testing::Intercepting()) {
      ward::testing::AskOutside(*scheduler);
      ward::testing::Remarks::Add("syscall", why);
    }
  }
  if (number == SYS_gettid) return gettid();
  return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

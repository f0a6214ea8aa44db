// What opens a descriptor, as far as it may fail: see faults.h.

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/functional/function_ref.h"
#include "ward/testing/interception/faults.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/scheduler.h"

WARD_REAL(dup);
WARD_REAL(epoll_create);
WARD_REAL(epoll_create1);
WARD_REAL(eventfd);
WARD_REAL(pipe);
WARD_REAL(pipe2);
WARD_REAL(signalfd);
WARD_REAL(socket);

namespace ward::testing {
namespace {

int OpenPipe(int ends[2], absl::FunctionRef<int()> open) {
  const int reading =
      OpenInSchedule([&] { return open() == 0 ? ends[0] : -1; });
  if (reading < 0) return -1;
  if (Scheduler* const scheduler = Intercepting()) {
    scheduler->TellOpened(ends[1]);
  }
  return 0;
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::OpenInSchedule;
using ::ward::testing::OpenPipe;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int dup(int fd) noexcept {
  return OpenInSchedule([&] { return real_dup(fd); });
}

int epoll_create(int size) noexcept {
  return OpenInSchedule([&] { return real_epoll_create(size); });
}

int epoll_create1(int flags) noexcept {
  return OpenInSchedule([&] { return real_epoll_create1(flags); });
}

int eventfd(unsigned count, int flags) noexcept {
  return OpenInSchedule([&] { return real_eventfd(count, flags); });
}

int pipe(int ends[2]) noexcept {
  return OpenPipe(ends, [&] { return real_pipe(ends); });
}

int pipe2(int ends[2], int flags) noexcept {
  return OpenPipe(ends, [&] { return real_pipe2(ends, flags); });
}

int signalfd(int fd, const sigset_t* signals, int flags) noexcept {
  // One that is changed is there already.
  if (fd >= 0) return real_signalfd(fd, signals, flags);
  return OpenInSchedule([&] { return real_signalfd(fd, signals, flags); });
}

int socket(int domain, int type, int protocol) noexcept {
  return OpenInSchedule([&] { return real_socket(domain, type, protocol); });
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

#include "ward/server/posix/poll_set.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/posix_wait.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/poll_set.h"

namespace ward {
namespace {

class PosixPollSet final : public PollSet {
 public:
  PosixPollSet(FileDescriptor epoll, FileDescriptor wake)
      : epoll_(std::move(epoll)), wake_(std::move(wake)) {}

  int descriptor() const override { return epoll_.get(); }

  absl::Status Watch(uint64_t id, int descriptor, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor, &event) == 0) {
      return absl::OkStatus();
    }
    return SystemError(errno, "watch a descriptor (epoll_ctl)");
  }

  absl::Status Add(uint64_t id, const Pollable& pollable,
                   Event event) override {
    // A hang-up is reported whether it was asked for or not.
    uint32_t events = 0;
    if (event == Event::kReadable) events = EPOLLIN;
    if (event == Event::kWritable) events = EPOLLOUT;
    return Watch(id, pollable.descriptor(), events);
  }

  void Remove(const Pollable& pollable) override {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, pollable.descriptor(), nullptr);
  }

  absl::StatusOr<uint64_t> Wait(absl::Time deadline) override {
    while (true) {
      epoll_event event;
      const int ready = epoll_wait(epoll_.get(), &event, 1, 0);
      if (ready < 0 && errno != EINTR) {
        return SystemError(errno, "wait for one of many (epoll_wait)");
      }
      if (ready > 0) {
        const uint64_t id = event.data.u64;  // A packed field.
        if (id == 0) ClearWake();
        return id;
      }
      // epoll_wait counts in milliseconds; an epoll can itself be polled.
      pollfd polled{epoll_.get(), POLLIN, 0};
      WARD_ASSIGN_OR_RETURN(const int any,
                            PollUntil(absl::MakeSpan(&polled, 1), deadline));
      if (any == 0) {
        return MakeError(reason::kTimedOut, "nothing happened in time");
      }
    }
  }

  void Wake() override {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t ignored =
        write(wake_.get(), &one, sizeof(one));
  }

  absl::Status WakeAt(absl::Time time) override {
    if (!timer_.is_open()) {
      FileDescriptor timer = FileDescriptor::Opened(
          timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
      if (!timer.is_open()) {
        return SystemError(errno, "create a timer (timerfd_create)");
      }
      WARD_RETURN_IF_ERROR(Watch(0, timer.get(), EPOLLIN));
      timer_ = std::move(timer);
    }
    itimerspec when{};
    if (time != absl::InfiniteFuture()) {
      // None is 0, which would disarm it.
      when.it_value = absl::ToTimespec(
          std::max(time, absl::UnixEpoch() + absl::Nanoseconds(1)));
    }
    if (timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr) == 0) {
      return absl::OkStatus();
    }
    return SystemError(errno, "set a timer (timerfd_settime)");
  }

 private:
  void ClearWake() {
    for (const int source : {wake_.get(), timer_.get()}) {
      uint64_t count;
      [[maybe_unused]] const ssize_t ignored =
          read(source, &count, sizeof(count));
    }
  }

  const FileDescriptor epoll_;
  const FileDescriptor wake_;
  FileDescriptor timer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PollSet>> CreatePosixPollSet() {
  FileDescriptor epoll = FileDescriptor::Opened(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.is_open()) {
    return SystemError(errno, "wait for many (epoll_create1)");
  }
  FileDescriptor wake =
      FileDescriptor::Opened(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.is_open()) return SystemError(errno, "create an event (eventfd)");
  const int event = wake.get();
  auto set = std::make_unique<PosixPollSet>(std::move(epoll), std::move(wake));
  WARD_RETURN_IF_ERROR(set->Watch(0, event, EPOLLIN));
  return set;
}

}  // namespace ward

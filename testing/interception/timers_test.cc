// timerfd_create(2): a timer that is a descriptor goes by the simulated time.

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <thread>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/testing/explore.h"
#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {
namespace {

FileDescriptor MakeTimer(int flags = 0) {
  FileDescriptor timer(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | flags));
  EXPECT_TRUE(timer.is_open());
  return timer;
}

void Set(const FileDescriptor& timer, absl::Duration first,
         absl::Duration interval = absl::ZeroDuration()) {
  const itimerspec setting{absl::ToTimespec(interval), absl::ToTimespec(first)};
  EXPECT_EQ(timerfd_settime(timer.get(), 0, &setting, nullptr), 0);
}

absl::Duration Left(const FileDescriptor& timer) {
  itimerspec setting;
  EXPECT_EQ(timerfd_gettime(timer.get(), &setting), 0);
  return absl::DurationFromTimespec(setting.it_value);
}

// How often it has expired since it was last read; 0 if that is to be waited
// for and it is told not to.
uint64_t Read(const FileDescriptor& timer) {
  uint64_t count = 0;
  if (read(timer.get(), &count, sizeof(count)) < 0) {
    EXPECT_EQ(errno, EAGAIN);
    return 0;
  }
  return count;
}

absl::Time Now() { return Scheduler::Current()->now(); }

FileDescriptor Watch(const FileDescriptor& watched, uint32_t events) {
  FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = events;
  EXPECT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, watched.get(), &event), 0);
  return epoll;
}

TEST(Timers, ALoopWithATickerRunsForThousandsOfSeconds) {
  const auto body = [] {
    const FileDescriptor ticker = MakeTimer(TFD_NONBLOCK);
    Set(ticker, absl::Seconds(1), absl::Seconds(1));
    const FileDescriptor epoll = Watch(ticker, EPOLLIN);
    const absl::Time start = Now();
    std::thread other([] {
      for (int i = 0; i < 10; ++i) {
        std::this_thread::sleep_for(std::chrono::seconds(7));
      }
    });
    uint64_t ticks = 0;
    while (ticks < 3000) {
      epoll_event event;
      ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, -1), 1);
      ticks += Read(ticker);
    }
    EXPECT_EQ(Now() - start, absl::Seconds(3000));
    other.join();
  };
  Explore({.runs = 10}, body);
  for (uint64_t run = 0; run < 3; ++run) {
    EXPECT_EQ(FingerprintOfRun({}, run, body), FingerprintOfRun({}, run, body));
  }
}

TEST(Timers, AReadWaitsAndCounts) {
  Explore({.runs = 100}, [] {
    const FileDescriptor timer = MakeTimer();
    const absl::Time start = Now();
    Set(timer, absl::Seconds(10), absl::Seconds(2));
    EXPECT_EQ(Left(timer), absl::Seconds(10));
    EXPECT_EQ(Read(timer), 1u);
    EXPECT_EQ(Now() - start, absl::Seconds(10));
    std::this_thread::sleep_for(std::chrono::seconds(7));
    EXPECT_EQ(Left(timer), absl::Seconds(1));
    EXPECT_EQ(Read(timer), 3u);
    EXPECT_EQ(Read(timer), 1u);
    EXPECT_EQ(Now() - start, absl::Seconds(18));
  });
}

TEST(Timers, APointInTimeOfAnyClock) {
  Explore({.runs = 10}, [] {
    for (const clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC}) {
      const FileDescriptor timer(
          timerfd_create(clock, TFD_CLOEXEC | TFD_NONBLOCK));
      timespec now;
      clock_gettime(clock, &now);
      itimerspec setting{};
      setting.it_value = {now.tv_sec + 5, now.tv_nsec};
      ASSERT_EQ(
          timerfd_settime(timer.get(), TFD_TIMER_ABSTIME, &setting, nullptr),
          0);
      std::this_thread::sleep_for(std::chrono::milliseconds(4999));
      EXPECT_EQ(Read(timer), 0u);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      EXPECT_EQ(Read(timer), 1u);
      EXPECT_EQ(Left(timer), absl::ZeroDuration());
      // One that is over has expired at once, and so often.
      setting.it_value = now;
      setting.it_interval.tv_sec = 2;
      ASSERT_EQ(
          timerfd_settime(timer.get(), TFD_TIMER_ABSTIME, &setting, nullptr),
          0);
      EXPECT_EQ(Read(timer), 3u);
    }
  });
}

TEST(Timers, IsSetAnewAndTakenBack) {
  Explore({.runs = 10}, [] {
    const FileDescriptor timer = MakeTimer(TFD_NONBLOCK);
    Set(timer, absl::Seconds(1));
    std::this_thread::sleep_for(std::chrono::seconds(2));
    const itimerspec setting{{0, 0}, {9, 0}};
    itimerspec old;
    EXPECT_EQ(timerfd_settime(timer.get(), 0, &setting, &old), 0);
    EXPECT_EQ(old.it_value.tv_sec, 0);
    EXPECT_EQ(Read(timer), 0u) << "of before";
    Set(timer, absl::ZeroDuration());
    std::this_thread::sleep_for(std::chrono::seconds(20));
    EXPECT_EQ(Read(timer), 0u);
    const itimerspec wrong{{0, 0}, {0, 1'000'000'000}};
    EXPECT_EQ(timerfd_settime(timer.get(), 0, &wrong, nullptr), -1);
    EXPECT_EQ(errno, EINVAL);
  });
}

TEST(Timers, EachExpirationIsAnEdge) {
  Explore({.runs = 10}, [] {
    const FileDescriptor ticker = MakeTimer();
    Set(ticker, absl::Seconds(1), absl::Seconds(1));
    const FileDescriptor epoll = Watch(ticker, EPOLLIN | EPOLLET);
    const absl::Time start = Now();
    for (int i = 0; i < 100; ++i) {
      epoll_event event;
      ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, -1), 1);
    }
    EXPECT_EQ(Now() - start, absl::Seconds(100));
  });
}

TEST(Timers, LivesForAsLongAsADuplicate) {
  Explore({.runs = 10}, [] {
    FileDescriptor timer = MakeTimer();
    Set(timer, absl::Seconds(1), absl::Seconds(1));
    const FileDescriptor same(dup(timer.get()));
    timer.Reset();
    // In its place, and no timer.
    const FileDescriptor other(epoll_create1(EPOLL_CLOEXEC));
    EXPECT_EQ(Read(same), 1u);
    EXPECT_EQ(Left(same), absl::Seconds(1));
  });
}

TEST(Timers, LivesForAsLongAsADuplicateWhateverClosesIt) {
  void (*const closings[])(int fd) = {
      [](int fd) { EXPECT_EQ(dup2(STDERR_FILENO, fd), fd); },
      [](int fd) { EXPECT_EQ(dup3(STDERR_FILENO, fd, O_CLOEXEC), fd); },
      [](int fd) {
        const auto number = static_cast<unsigned>(fd);
        EXPECT_EQ(close_range(number, number, 0), 0);
      },
      [](int fd) { EXPECT_EQ(fclose(fdopen(fd, "r")), 0); },
  };
  for (void (*const close_it)(int fd) : closings) {
    Explore({.runs = 10}, [close_it] {
      FileDescriptor timer = MakeTimer();
      Set(timer, absl::Seconds(1), absl::Seconds(1));
      // It is not closed by that.
      EXPECT_EQ(dup2(timer.get(), timer.get()), timer.get());
      EXPECT_EQ(Read(timer), 1u);
      {
        const FileDescriptor same(dup(timer.get()));
        close_it(timer.get());
        EXPECT_EQ(Read(same), 1u);
      }
      if (fcntl(timer.get(), F_GETFD) < 0) (void)timer.Release();
    });
  }
}

TEST(Timers, OneThatNobodyReadsHidesNoDeadlock) {
  const Exploration found = FindFailure({.runs = 10}, [] {
    const FileDescriptor ticker = MakeTimer();
    Set(ticker, absl::Seconds(1), absl::Seconds(1));
    const FileDescriptor never = MakeTimer();
    Read(never);
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_EQ(found.failure->what.rfind("deadlock", 0), 0u)
      << found.failure->what;
}

}  // namespace
}  // namespace ward::testing

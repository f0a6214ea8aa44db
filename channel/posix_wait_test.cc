#include "ward/channel/posix_wait.h"

#include <poll.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using testing::IsOk;

class PosixWaitTest : public ::testing::Test {
 protected:
  PosixWaitTest() {
    int ends[2];
    if (pipe(ends) != 0) abort();
    read_.Reset(ends[0]);
    write_.Reset(ends[1]);
    polled_ = {read_.get(), POLLIN, 0};
  }

  absl::StatusOr<int> Poll(absl::Time deadline) {
    return PollUntil(absl::MakeSpan(&polled_, 1), deadline);
  }

  FileDescriptor read_;
  FileDescriptor write_;
  pollfd polled_;
};

TEST_F(PosixWaitTest, ReturnsAtOnceWhatIsReady) {
  ASSERT_EQ(write(write_.get(), "x", 1), 1);
  for (const absl::Time deadline :
       {absl::InfiniteFuture(), absl::InfinitePast(), MonotonicNow()}) {
    ASSERT_OK_AND_ASSIGN(const int ready, Poll(deadline));
    EXPECT_EQ(ready, 1);
    EXPECT_EQ(polled_.revents, POLLIN);
  }
}

TEST_F(PosixWaitTest, ReportsTheEndOfAPipe) {
  write_.Reset();
  ASSERT_OK_AND_ASSIGN(const int ready, Poll(absl::InfiniteFuture()));
  EXPECT_EQ(ready, 1);
  EXPECT_EQ(polled_.revents, POLLHUP);
}

TEST_F(PosixWaitTest, WaitsNotLongerThanItsDeadlineAndNotLess) {
  for (const absl::Time deadline :
       {absl::InfinitePast(), MonotonicNow() - absl::Seconds(1),
        MonotonicNow() + absl::Milliseconds(2)}) {
    ASSERT_OK_AND_ASSIGN(const int ready, Poll(deadline));
    EXPECT_EQ(ready, 0);
    EXPECT_GE(MonotonicNow(), deadline);
  }
}

TEST_F(PosixWaitTest, WaitsThroughInterruptions) {
  // A signal each millisecond, without SA_RESTART.
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  struct sigaction before;
  ASSERT_EQ(sigaction(SIGALRM, &action, &before), 0);
  const itimerval often = {{0, 1000}, {0, 1000}};
  ASSERT_EQ(setitimer(ITIMER_REAL, &often, nullptr), 0);
  const absl::Time deadline = MonotonicNow() + absl::Milliseconds(10);
  const absl::StatusOr<int> ready = Poll(deadline);
  const absl::Time now = MonotonicNow();
  const itimerval never = {};
  setitimer(ITIMER_REAL, &never, nullptr);
  sigaction(SIGALRM, &before, nullptr);
  ASSERT_THAT(ready, IsOk());
  EXPECT_EQ(*ready, 0);
  EXPECT_GE(now, deadline);
}

}  // namespace
}  // namespace ward

#include "ward/server/poll_set.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using testing::MovesClock;

// Simulated as by the kernel.
class PollSetTest : public ModesTest {
 protected:
  void TearDown() override {
    set_.reset();
    ModesTest::TearDown();
  }

  struct Connection {
    std::unique_ptr<Transport> here;
    std::unique_ptr<Transport> there;
  };

  void SetUp() override {
    auto set = environment().CreatePollSet();
    ASSERT_THAT(set, IsOk());
    set_ = *std::move(set);
  }

  Connection Connect() {
    auto ends = environment().CreateTransportPair();
    EXPECT_THAT(ends, IsOk());
    return {std::move(ends->first), std::move(ends->second)};
  }

  static void Send(Transport& transport) {
    EXPECT_THAT(transport.Send("x", {}, absl::InfiniteFuture()),
                IsOkAndHolds(1u));
  }

  absl::StatusOr<uint64_t> Look() { return set_->Wait(absl::InfinitePast()); }

  std::unique_ptr<PollSet> set_;
};

TEST_F(PollSetTest, TellsWhatIsReadableForAsLongAsItIs) {
  const Connection one = Connect();
  const Connection two = Connect();
  ASSERT_THAT(set_->Add(1, *one.here, PollSet::Event::kReadable), IsOk());
  ASSERT_THAT(set_->Add(2, *two.here, PollSet::Event::kReadable), IsOk());
  EXPECT_THAT(Look(), FailsWith(reason::kTimedOut));
  Send(*two.there);
  EXPECT_THAT(set_->Wait(absl::InfiniteFuture()), IsOkAndHolds(2u));
  EXPECT_THAT(Look(), IsOkAndHolds(2u));
  // Each has its turn.
  Send(*one.there);
  const absl::StatusOr<uint64_t> first = Look();
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(Look(), IsOkAndHolds(3 - *first));
  EXPECT_THAT(Look(), IsOkAndHolds(*first));
  set_->Remove(*two.here);
  EXPECT_THAT(Look(), IsOkAndHolds(1u));
  set_->Remove(*one.here);
  EXPECT_THAT(Look(), FailsWith(reason::kTimedOut));
}

TEST_F(PollSetTest, TellsWhoHasHungUpAndNotWhoHasSent) {
  Connection one = Connect();
  ASSERT_THAT(set_->Add(1, *one.here, PollSet::Event::kHangUp), IsOk());
  Send(*one.there);
  EXPECT_THAT(Look(), FailsWith(reason::kTimedOut));
  one.there.reset();
  EXPECT_THAT(Look(), IsOkAndHolds(1u));
  set_->Remove(*one.here);
  EXPECT_THAT(Look(), FailsWith(reason::kTimedOut));
}

TEST_F(PollSetTest, TheEndIsReadable) {
  Connection one = Connect();
  ASSERT_THAT(set_->Add(1, *one.here, PollSet::Event::kReadable), IsOk());
  one.there.reset();
  EXPECT_THAT(Look(), IsOkAndHolds(1u));
  set_->Remove(*one.here);
}

TEST_F(PollSetTest, TellsWhereThereIsRoom) {
  Connection one = Connect();
  ASSERT_THAT(set_->Add(1, *one.here, PollSet::Event::kWritable), IsOk());
  EXPECT_THAT(Look(), IsOkAndHolds(1u));
  const std::string page(4096, 'x');
  while (one.here->Send(page, {}, absl::InfinitePast()).ok()) continue;
  EXPECT_THAT(Look(), FailsWith(reason::kTimedOut));
  // What comes is another thing.
  Send(*one.there);
  EXPECT_THAT(Look(), FailsWith(reason::kTimedOut));
  std::string room(4096, ' ');
  std::vector<FileDescriptor> none;
  while (true) {
    const auto received =
        one.there->Receive(absl::MakeSpan(room), 0, none, absl::InfinitePast());
    if (!received.ok()) break;
  }
  EXPECT_THAT(Look(), IsOkAndHolds(1u));
  one.there.reset();
  EXPECT_THAT(Look(), IsOkAndHolds(1u));
  set_->Remove(*one.here);
}

TEST_F(PollSetTest, WakesAtItsTime) {
  EXPECT_THAT(set_->WakeAt(absl::InfiniteFuture()), IsOk());
  EXPECT_THAT(Look(), FailsWith(reason::kTimedOut));
  const Stopwatch watch;
  const absl::Time start = environment().TimeNow();
  EXPECT_THAT(set_->WakeAt(start + absl::Hours(1)), IsOk());
  EXPECT_THAT(Look(), FailsWith(reason::kTimedOut));
  EXPECT_THAT(set_->WakeAt(start + absl::Milliseconds(20)), IsOk());
  // For who waits elsewhere, too.
  const Pollable* const polled[] = {set_.get()};
  EXPECT_THAT(environment().Poll(polled, absl::InfiniteFuture()), IsOk());
  EXPECT_GE(watch.Elapsed(), absl::Milliseconds(20));
  EXPECT_THAT(set_->Wait(absl::InfiniteFuture()), IsOkAndHolds(0u));
  // Once.
  EXPECT_THAT(Look(), FailsWith(reason::kTimedOut));
  EXPECT_THAT(set_->WakeAt(environment().TimeNow() + absl::Milliseconds(20)),
              IsOk());
  EXPECT_THAT(set_->Wait(absl::InfiniteFuture()), IsOkAndHolds(0u));
  EXPECT_GE(watch.Elapsed(), absl::Milliseconds(40));
  if (MovesClock()) {
    EXPECT_EQ(watch.Elapsed(), absl::Milliseconds(40));
  }
  // A time that has passed is now, and one that was taken back never.
  EXPECT_THAT(set_->WakeAt(absl::InfinitePast()), IsOk());
  EXPECT_THAT(Look(), IsOkAndHolds(0u));
  EXPECT_THAT(set_->WakeAt(environment().TimeNow() + absl::Milliseconds(1)),
              IsOk());
  EXPECT_THAT(set_->WakeAt(absl::InfiniteFuture()), IsOk());
  EXPECT_THAT(set_->Wait(environment().TimeNow() + absl::Milliseconds(5)),
              FailsWith(reason::kTimedOut));
}

TEST_F(PollSetTest, WakeEndsOneWait) {
  set_->Wake();
  set_->Wake();
  EXPECT_THAT(Look(), IsOkAndHolds(0u));
  EXPECT_THAT(Look(), FailsWith(reason::kTimedOut));
  RunAtOnce(
      [&] {
        EXPECT_THAT(set_->Wait(absl::InfiniteFuture()), IsOkAndHolds(0u));
      },
      [&] { set_->Wake(); });
}

TEST_F(PollSetTest, WhatIsAddedMeanwhileIsWaitedFor) {
  const Connection one = Connect();
  RunAtOnce(
      [&] {
        EXPECT_THAT(set_->Wait(absl::InfiniteFuture()), IsOkAndHolds(1u));
      },
      [&] {
        EXPECT_THAT(set_->Add(1, *one.here, PollSet::Event::kReadable), IsOk());
        Send(*one.there);
      });
  set_->Remove(*one.here);
}

TEST_F(PollSetTest, WhatIsInItAlreadyIsNotAddedAgain) {
  const Connection one = Connect();
  ASSERT_THAT(set_->Add(1, *one.here, PollSet::Event::kReadable), IsOk());
  EXPECT_FALSE(set_->Add(2, *one.here, PollSet::Event::kReadable).ok());
  set_->Remove(*one.here);
}

TEST_F(PollSetTest, AWaitEndsAtItsDeadline) {
  const Stopwatch watch;
  EXPECT_THAT(set_->Wait(environment().TimeNow() + absl::Microseconds(12'345)),
              FailsWith(reason::kTimedOut));
  EXPECT_GE(watch.Elapsed(), absl::Microseconds(12'345));
  if (MovesClock()) {
    EXPECT_EQ(watch.Elapsed(), absl::Microseconds(12'345));
  }
}

}  // namespace
}  // namespace ward

#include "ward/channel/descriptor_budget.h"

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/socket_transport.h"
#include "ward/channel/transport.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

constexpr size_t kMax = 10;

// One that holds descriptors of a peer's.
struct Holder {
  Holder(const std::shared_ptr<DescriptorBudget>& budget, pid_t process) {
    auto ends = SocketTransport::CreatePair();
    EXPECT_THAT(ends, testing::IsOk());
    here = std::move(ends->first);
    there = std::move(ends->second);
    share = DescriptorBudget::Share(budget, here, process);
  }

  // Whether nothing more can be received.
  bool IsShutDown() const {
    char byte;
    std::vector<FileDescriptor> none;
    const auto received =
        here->Receive(absl::MakeSpan(&byte, 1), 0, none, absl::InfinitePast());
    return received.ok() && received->end_of_stream;
  }

  std::shared_ptr<Transport> here;
  std::unique_ptr<Transport> there;
  DescriptorBudget::Share share;
};

TEST(DescriptorBudgetTest, TheOldestOfWhoHasMostIsCutOffForOthers) {
  const auto budget = std::make_shared<DescriptorBudget>(kMax);
  Holder honest(budget, 1);
  Holder first(budget, 2);
  Holder second(budget, 2);
  Holder third(budget, 2);
  honest.share.Hold(4);
  first.share.Hold(3);
  second.share.Hold(3);
  EXPECT_EQ(budget->held(), kMax);
  // It is the one message that may be on top.
  third.share.Hold(253);
  EXPECT_FALSE(first.share.is_cut());
  Holder next(budget, 3);
  next.share.Hold(1);
  EXPECT_TRUE(first.share.is_cut());
  EXPECT_TRUE(first.IsShutDown());
  EXPECT_TRUE(second.share.is_cut());
  EXPECT_TRUE(third.share.is_cut());
  EXPECT_FALSE(honest.share.is_cut());
  EXPECT_FALSE(honest.IsShutDown());
  EXPECT_EQ(budget->held(), 5);
  // What was cut off is not counted twice when it lets go.
  first.share.Release();
  EXPECT_EQ(budget->held(), 5);
  honest.share.Release();
  EXPECT_EQ(budget->held(), 1);
}

TEST(DescriptorBudgetTest, RoomIsThereWhenOneHasLetGo) {
  const auto budget = std::make_shared<DescriptorBudget>(kMax);
  EXPECT_FALSE(budget->CutOne(absl::InfiniteDuration()));
  Holder holder(budget, 1);
  holder.share.Hold(4);
  EXPECT_FALSE(budget->CutOne(absl::ZeroDuration()));
  EXPECT_TRUE(holder.share.is_cut());
  // Not a second time.
  EXPECT_FALSE(budget->CutOne(absl::InfiniteDuration()));
  Holder other(budget, 1);
  other.share.Hold(4);
  std::thread lets_go([&] {
    char byte;
    std::vector<FileDescriptor> none;
    (void)other.here->Receive(absl::MakeSpan(&byte, 1), 0, none,
                              absl::InfiniteFuture());
    other.share.Release();
  });
  EXPECT_TRUE(budget->CutOne(absl::InfiniteDuration()));
  lets_go.join();
  EXPECT_EQ(budget->held(), 0);
}

TEST(DescriptorBudgetTest, WhatLiesBehindAMessageHasRoomOrNone) {
  const auto budget = std::make_shared<DescriptorBudget>(kMax);
  Holder first(budget, 1);
  Holder second(budget, 2);
  // One message may have more.
  EXPECT_TRUE(first.share.Keep(253));
  EXPECT_FALSE(second.share.Keep(DescriptorBudget::kAlways + 1));
  // A few of another process have room whatever there is.
  EXPECT_TRUE(second.share.Keep(DescriptorBudget::kAlways - 1));
  EXPECT_FALSE(second.share.Keep(2));
  EXPECT_TRUE(second.share.Keep(1));
  second.share.Release();
  first.share.Release();
  EXPECT_TRUE(second.share.Keep(2 * kMax - 1));
  EXPECT_TRUE(first.share.Keep(1));
  // It is not cut off for others, and cuts off none.
  EXPECT_FALSE(budget->CutOne(absl::InfiniteDuration()));
  EXPECT_EQ(budget->held(), 0);
  Holder third(budget, 1);
  EXPECT_FALSE(third.share.Keep(DescriptorBudget::kAlways));
  first.share = DescriptorBudget::Share();
  EXPECT_TRUE(third.share.Keep(1));
  // That is one of the other kind now.
  second.share.Hold(1);
  EXPECT_TRUE(third.share.Keep(2 * kMax - 1));
}

TEST(DescriptorBudgetTest, ASharesMoveIsNoRelease) {
  const auto budget = std::make_shared<DescriptorBudget>(kMax);
  Holder holder(budget, 1);
  holder.share.Hold(4);
  DescriptorBudget::Share moved = std::move(holder.share);
  EXPECT_EQ(budget->held(), 4);
  moved = DescriptorBudget::Share();
  EXPECT_EQ(budget->held(), 0);
}

}  // namespace
}  // namespace ward

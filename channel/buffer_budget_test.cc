#include "ward/channel/buffer_budget.h"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/receive_buffer.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using testing::FailsWith;
using testing::IsOk;

constexpr absl::Duration kAtOnce = absl::ZeroDuration();
constexpr absl::Duration kForEver = absl::InfiniteDuration();

TEST(BufferBudgetTest, CountsWhatSharesHave) {
  const auto budget = std::make_shared<BufferBudget>(100);
  {
    BufferBudget::Share a(budget);
    BufferBudget::Share b(budget);
    EXPECT_TRUE(a.GrowTo(30, kAtOnce));
    EXPECT_TRUE(a.GrowTo(60, kAtOnce));
    EXPECT_TRUE(a.GrowTo(10, kAtOnce));  // It has more.
    EXPECT_TRUE(b.GrowTo(40, kAtOnce));
    EXPECT_EQ(budget->used(), 100u);
    a.Release();
    EXPECT_EQ(budget->used(), 40u);
    a.Release();
    EXPECT_EQ(budget->used(), 40u);
    BufferBudget::Share c = std::move(b);
    b = BufferBudget::Share();
    EXPECT_EQ(budget->used(), 40u);
    c = BufferBudget::Share(budget);
    EXPECT_EQ(budget->used(), 0u);
    EXPECT_TRUE(c.GrowTo(70, kAtOnce));
  }
  EXPECT_EQ(budget->used(), 0u);
}

TEST(BufferBudgetTest, OneAtATimeMayGoOver) {
  const auto budget = std::make_shared<BufferBudget>(100);
  BufferBudget::Share a(budget);
  BufferBudget::Share b(budget);
  BufferBudget::Share c(budget);
  EXPECT_TRUE(a.GrowTo(60, kAtOnce));
  EXPECT_TRUE(b.GrowTo(60, kAtOnce));
  EXPECT_TRUE(b.GrowTo(1000, kAtOnce));
  EXPECT_FALSE(a.GrowTo(61, kAtOnce));
  EXPECT_FALSE(c.GrowTo(1, absl::Milliseconds(1)));
  EXPECT_EQ(budget->used(), 1060u);
  // The right to it goes with the share, and ends with the message.
  BufferBudget::Share d = std::move(b);
  EXPECT_TRUE(d.GrowTo(1001, kAtOnce));
  d.Release();
  EXPECT_TRUE(c.GrowTo(40, kAtOnce));
  EXPECT_TRUE(a.GrowTo(2000, kAtOnce));
  EXPECT_FALSE(d.GrowTo(1, kAtOnce));
}

TEST(BufferBudgetTest, WhoeverWaitsGoesOnWhenThereIsRoom) {
  const auto budget = std::make_shared<BufferBudget>(100);
  BufferBudget::Share a(budget);
  BufferBudget::Share b(budget);
  EXPECT_TRUE(a.GrowTo(100, kAtOnce));
  EXPECT_TRUE(b.GrowTo(100, kAtOnce));
  std::vector<std::thread> waiting;
  std::atomic<int> gone_on = 0;
  for (int i = 0; i < 4; ++i) {
    waiting.emplace_back([&] {
      BufferBudget::Share share(budget);
      EXPECT_TRUE(share.GrowTo(300, kForEver));
      EXPECT_LE(budget->used(), 400u);
      ++gone_on;
    });
  }
  EXPECT_EQ(gone_on, 0);
  b.Release();
  for (std::thread& thread : waiting) thread.join();
  EXPECT_EQ(budget->used(), 100u);
}

TEST(BufferBudgetTest, WithoutOneThereIsNoLimit) {
  BufferBudget::Share share;
  EXPECT_TRUE(share.GrowTo(size_t{1} << 60, kAtOnce));
  share.Release();
}

// --- channels ---

TEST(BufferBudgetTest, ManyLargeMessagesComeThroughALittleBudget) {
  // Each is larger than the budget: no two of them may wait for each other.
  constexpr int kChannels = 8;
  constexpr size_t kSize = 4 << 20;
  const auto budget = std::make_shared<BufferBudget>(3 << 20);
  std::vector<std::thread> threads;
  for (int i = 0; i < kChannels; ++i) {
    threads.emplace_back([&budget, i] {
      ASSERT_OK_AND_ASSIGN(auto ends, MessageChannel::CreatePair());
      auto& [here, there] = ends;
      there.set_buffer_budget(budget);
      const std::string sent(kSize, static_cast<char>('a' + i));
      std::thread writer([&here = here, &sent] {
        for (int n = 0; n < 3; ++n) EXPECT_THAT(here.WriteScalar(sent), IsOk());
      });
      for (int n = 0; n < 3; ++n) {
        std::string got;
        EXPECT_THAT(there.ReadScalar(got), IsOk());
        EXPECT_TRUE(got == sent);
        EXPECT_LE(budget->used(), (size_t{3} << 20) + kSize + 100);
      }
      writer.join();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(budget->used(), 0u);
}

TEST(BufferBudgetTest, ASmallMessageNeverWaits) {
  const auto budget = std::make_shared<BufferBudget>(0);
  BufferBudget::Share all(budget);
  ASSERT_TRUE(all.GrowTo(1, kAtOnce));
  ASSERT_OK_AND_ASSIGN(auto ends, MessageChannel::CreatePair());
  auto& [here, there] = ends;
  there.set_buffer_budget(budget);
  there.set_timeout(kAtOnce);
  ASSERT_THAT(here.WriteScalar(std::string(150'000, 'x')), IsOk());
  std::string got;
  EXPECT_THAT(there.ReadScalar(got), IsOk());
}

TEST(BufferBudgetTest, AReaderThatWaitsSaysForWhatAndGoesOnLater) {
  const auto budget = std::make_shared<BufferBudget>(0);
  BufferBudget::Share other(budget);
  ASSERT_TRUE(other.GrowTo(1, kAtOnce));
  ASSERT_OK_AND_ASSIGN(auto ends, MessageChannel::CreatePair());
  auto& [here, there] = ends;
  there.set_buffer_budget(budget);
  there.set_timeout(absl::Milliseconds(20));
  std::thread writer([&here = here] {
    EXPECT_THAT(here.WriteScalar(std::string(1 << 20, 'x')), IsOk());
  });
  std::string got;
  absl::Status status;
  // Some time goes by before so much has come that it must wait.
  do {
    status = there.ReadScalar(got);
    ASSERT_THAT(status, FailsWith(reason::kTimedOut));
  } while (status.message().find("max_buffered_bytes") ==
           std::string_view::npos);
  EXPECT_EQ(budget->used(), 1u);
  other.Release();
  there.set_timeout(kForEver);
  EXPECT_THAT(there.ReadScalar(got), IsOk());
  EXPECT_EQ(got.size(), size_t{1} << 20);
  writer.join();
}

TEST(BufferBudgetTest, AChannelThatFailsGivesItsShareBack) {
  // Of an array, and of a scalar.
  for (const std::string_view start :
       {"\x84\x80\x40\x1a\x80\x80\x40", "\x84\x80\x40\x22\x80\x80\x40"}) {
    const auto budget = std::make_shared<BufferBudget>(0);
    ASSERT_OK_AND_ASSIGN(auto ends, MessageChannel::CreatePair());
    auto& [here, there] = ends;
    there.set_buffer_budget(budget);
    there.set_timeout(kAtOnce);
    std::thread writer([&here = here, &start] {
      // Half of what is announced.
      const std::string half = absl::StrCat(start, std::string(1 << 19, 'x'));
      EXPECT_EQ(
          send(here.transport()->descriptor(), half.data(), half.size(), 0),
          static_cast<ssize_t>(half.size()));
    });
    std::string got;
    // Until so much has come.
    do {
      EXPECT_THAT(there.ReadScalar(got), FailsWith(reason::kTimedOut));
    } while (budget->used() <= size_t{1} << 19);
    writer.join();
    EXPECT_LE(budget->used(), (size_t{1} << 20) + 10);
    here.Close();
    there.set_timeout(kForEver);
    EXPECT_THAT(there.ReadScalar(got), FailsWith(reason::kConnectionLost));
    // Although it is still open.
    EXPECT_EQ(budget->used(), 0u);
  }
}

TEST(BufferBudgetTest, AMessageThatIsLostGivesItsShareBack) {
  const auto budget = std::make_shared<BufferBudget>(0);
  ASSERT_OK_AND_ASSIGN(auto ends, MessageChannel::CreatePair());
  auto& [here, there] = ends;
  there.set_buffer_budget(budget);
  ChannelLimits limits;
  limits.max_descriptors = 0;
  there.set_limits(limits);
  std::thread writer([&here = here] {
    ASSERT_OK_AND_ASSIGN(const FileDescriptor descriptor,
                         FileDescriptor::DuplicateOf(0));
    EXPECT_THAT(here.Write(std::string(1 << 20, 'x'), descriptor), IsOk());
  });
  EXPECT_THAT(there.Read(), FailsWith(reason::kTooManyDescriptors));
  writer.join();
  EXPECT_EQ(budget->used(), 0u);
}

// --- a buffer ---

TEST(BufferBudgetTest, ABufferThatShrinksGivesItsShareBack) {
  constexpr size_t kLarge = 1 << 20;
  constexpr size_t kSmall = 10;
  const auto at_once = [] { return kAtOnce; };
  const auto budget = std::make_shared<BufferBudget>(0);
  ReceiveBuffer buffer;
  buffer.set_budget(budget);
  // Nobody releases it in between.
  for (const size_t size : {kLarge, kSmall}) {
    while (buffer.size() < size) {
      ASSERT_TRUE(buffer.Reserve(size, at_once));
      buffer.Received(std::min(buffer.room().size(), size - buffer.size()));
    }
    buffer.Consume(size);
    EXPECT_GE(budget->used(), kLarge);
  }
  ASSERT_TRUE(buffer.Reserve(kSmall, at_once));
  EXPECT_LT(buffer.room().size(), kLarge);
  EXPECT_EQ(budget->used(), 0u);
}

}  // namespace
}  // namespace ward

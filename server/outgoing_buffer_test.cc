#include "ward/server/outgoing_buffer.h"

#include <cstddef>
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
#include "ward/channel/socket_transport.h"
#include "ward/channel/transport.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

class OutgoingBufferTest : public NothingLeftTest {
 protected:
  void SetUp() override {
    NothingLeftTest::SetUp();
    auto ends = SocketTransport::CreatePair();
    ASSERT_THAT(ends, IsOk());
    buffer_ = std::make_unique<OutgoingBuffer>(std::move(ends->first));
    peer_ = std::move(ends->second);
  }
  void TearDown() override {
    buffer_.reset();
    descriptors_.clear();
    peer_.reset();
    NothingLeftTest::TearDown();
  }

  absl::StatusOr<size_t> Send(const std::string& bytes,
                              absl::Span<const int> descriptors = {}) {
    return buffer_->Send(bytes, descriptors, absl::InfiniteFuture());
  }

  // All that has come, and its descriptors.
  std::string Received() {
    std::string all;
    std::string some(1 << 16, ' ');
    while (true) {
      const auto received =
          peer_->Receive(absl::MakeSpan(some), kMaxDescriptorsPerMessage,
                         descriptors_, absl::InfinitePast());
      if (!received.ok() || received->end_of_stream) return all;
      all += some.substr(0, received->bytes);
    }
  }

  std::unique_ptr<OutgoingBuffer> buffer_;
  std::unique_ptr<Transport> peer_;
  std::vector<FileDescriptor> descriptors_;
};

TEST_F(OutgoingBufferTest, WhatFindsRoomIsSentAtOnce) {
  EXPECT_THAT(Send("abc"), IsOkAndHolds(3u));
  EXPECT_EQ(Received(), "abc");
  EXPECT_THAT(buffer_->Flush(), IsOkAndHolds(true));
}

TEST_F(OutgoingBufferTest, WhatFindsNoRoomIsSentInOrder) {
  const std::string large(4 << 20, 'x');
  std::string sent;
  while (sent.size() < large.size()) {
    const auto some = Send(large.substr(sent.size()));
    ASSERT_THAT(some, IsOk());
    sent += large.substr(0, *some);
  }
  // Behind it, with a descriptor that may be closed then.
  {
    const Pipe pipe = MakePipe();
    EXPECT_THAT(Send("y", {pipe.write.get()}), IsOkAndHolds(1u));
    EXPECT_THAT(Send("z"), IsOkAndHolds(1u));
  }
  std::string came;
  int flushes = 0;
  while (true) {
    const auto flushed = buffer_->Flush();
    ASSERT_THAT(flushed, IsOk());
    ++flushes;
    if (*flushed) break;
    came += Received();
  }
  EXPECT_GT(flushes, 1);
  came += Received();
  EXPECT_TRUE(came == large + "yz");
  ASSERT_EQ(descriptors_.size(), 1u);
}

TEST_F(OutgoingBufferTest, APeerThatHasGoneIsToldOfByFlush) {
  EXPECT_THAT(Send("abc"), IsOkAndHolds(3u));
  EXPECT_FALSE(buffer_->is_lost());
  peer_.reset();
  EXPECT_THAT(Send("def"), IsOkAndHolds(3u));
  EXPECT_TRUE(buffer_->is_lost());
  EXPECT_THAT(buffer_->Flush(), FailsWith(reason::kConnectionLost));
}

TEST_F(OutgoingBufferTest, ADescriptorThatIsNoneIsAnError) {
  while (Send(std::string(1 << 16, 'x')).value() == 1 << 16) {
    if (!buffer_->Flush().value()) break;
  }
  EXPECT_FALSE(Send("x", {-1}).ok());
}

}  // namespace
}  // namespace ward

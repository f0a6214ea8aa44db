// Channels byte by byte: what a peer can send, in every way that a socket can
// cut it, over a transport whose clock and interruptions are the test's.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "gtest/gtest.h"
#include "ward/channel/buffer_budget.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/channel/scripted_transport_for_test.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"
#include "ward/proto/frame.pb.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using testing::FailsWith;
using testing::IsOk;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// A descriptor that IsFile() knows again.
FileDescriptor Open(const char* path) {
  return FileDescriptor(open(path, O_RDONLY | O_CLOEXEC));
}

bool IsFile(const FileDescriptor& descriptor, const char* path) {
  struct stat of_descriptor;
  struct stat of_path;
  return fstat(descriptor.get(), &of_descriptor) == 0 &&
         stat(path, &of_path) == 0 && of_descriptor.st_ino == of_path.st_ino &&
         of_descriptor.st_rdev == of_path.st_rdev;
}

constexpr const char* kNull = "/dev/null";
constexpr const char* kZero = "/dev/zero";

std::vector<FileDescriptor> Descriptors(const std::vector<const char*>& paths) {
  std::vector<FileDescriptor> descriptors;
  for (const char* path : paths) descriptors.push_back(Open(path));
  return descriptors;
}

std::string Varint(uint64_t value) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.WriteVarint64(value);
  coded.Trim();
  return bytes;
}

// `body` behind its length.
std::string Delimited(std::string_view body) {
  return absl::StrCat(Varint(body.size()), body);
}

std::string Delimited(const proto::Frame& frame) {
  return Delimited(frame.SerializeAsString());
}

std::string ArrayFrame(const std::vector<std::string>& parts,
                       uint32_t descriptors = 0) {
  proto::Frame frame;
  frame.set_descriptors(descriptors);
  frame.mutable_array();
  for (const std::string& part : parts) frame.mutable_array()->add_part(part);
  return Delimited(frame);
}

std::string ScalarFrame(const std::string& scalar, uint32_t descriptors = 0) {
  proto::Frame frame;
  if (descriptors > 0) frame.set_descriptors(descriptors);
  frame.set_scalar(scalar);
  return Delimited(frame);
}

class WireTest : public ::testing::Test {
 protected:
  WireTest() : open_before_(OpenDescriptors()) { Restart(); }

  // A new channel, with nothing in its past.
  void Restart() {
    script_ = std::make_shared<Script>();
    channel_ = MessageChannel(std::make_unique<ScriptedTransport>(script_));
  }

  void TearDown() override {
    channel_.Close();
    script_.reset();
    EXPECT_EQ(OpenDescriptors(), open_before_);
  }

  void Comes(std::string bytes, const std::vector<const char*>& paths = {},
             bool truncated = false) {
    script_->incoming.push_back(
        {std::move(bytes), Descriptors(paths), truncated, 0});
  }

  // Lets `bytes` come alone, and reads.
  absl::Status ReadOf(std::string bytes) {
    Restart();
    Comes(std::move(bytes));
    return channel_.Read().status();
  }

  // The parts of the next message; a failure is one part that tells it.
  std::vector<std::string> Read() {
    const absl::StatusOr<Message> message = channel_.Read();
    if (!message.ok()) return {message.status().ToString()};
    return {message->parts().begin(), message->parts().end()};
  }

  std::shared_ptr<Script> script_;
  MessageChannel channel_;

 private:
  const std::map<int, std::string> open_before_;
};

// --- short reads and writes, interruptions ---

TEST_F(WireTest, ReadsWhateverPiecesAndInterruptionsBytesComeIn) {
  const std::string first = ArrayFrame({"hello", "Joe", ""});
  const std::string second = ArrayFrame({std::string(300, 'x')}, 1);
  const std::string bytes = first + second;
  for (size_t cut = 1; cut < bytes.size(); ++cut) {
    for (const bool interruptions : {false, true}) {
      Restart();
      script_->interruptions = interruptions;
      Comes(bytes.substr(0, cut));
      Comes(bytes.substr(cut));
      // The kernel ends a receive with the piece that brought descriptors.
      script_->incoming[cut <= first.size() ? 1 : 0].descriptors =
          Descriptors({kNull});
      ASSERT_THAT(Read(), ElementsAre("hello", "Joe", "")) << cut;
      ASSERT_OK_AND_ASSIGN(const Message message, channel_.Read());
      ASSERT_EQ(message.name().size(), 300u) << cut;
      ASSERT_THAT(message.descriptors(), SizeIs(1)) << cut;
      ASSERT_THAT(channel_.Read(), FailsWith(reason::kEndOfStream)) << cut;
    }
  }
}

TEST_F(WireTest, ReadsOneByteAtATime) {
  script_->interruptions = true;
  script_->most_received = 1;
  Comes(ArrayFrame({"none"}));
  Comes(ArrayFrame({"two"}, 2), {kNull, kZero});
  Comes(ArrayFrame({"one"}, 1), {kZero});
  EXPECT_THAT(Read(), ElementsAre("none"));
  ASSERT_OK_AND_ASSIGN(const Message two, channel_.Read());
  ASSERT_THAT(two.descriptors(), SizeIs(2));
  EXPECT_TRUE(IsFile(two.descriptors()[0], kNull));
  EXPECT_TRUE(IsFile(two.descriptors()[1], kZero));
  ASSERT_OK_AND_ASSIGN(const Message one, channel_.Read());
  ASSERT_THAT(one.descriptors(), SizeIs(1));
  EXPECT_TRUE(IsFile(one.descriptors()[0], kZero));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kEndOfStream));
}

TEST_F(WireTest, WritesTheSameBytesHoweverFewGoOutAtOnce) {
  const FileDescriptor null = Open(kNull);
  const std::string first = ArrayFrame({"hello", "Joe"}, 1);
  const std::string second = ArrayFrame({std::string(300, 'x')});
  for (size_t most = 1; most <= second.size(); ++most) {
    for (const bool interruptions : {false, true}) {
      Restart();
      script_->most_sent = most;
      script_->interruptions = interruptions;
      ASSERT_THAT(channel_.Write("hello", null, "Joe"), IsOk());
      ASSERT_THAT(channel_.Write(std::string(300, 'x')), IsOk());
      ASSERT_EQ(script_->sent, first + second) << most;
      // Once, with the first byte of its frame.
      ASSERT_THAT(script_->attached,
                  ElementsAre(std::make_pair(0, std::vector<int>{null.get()})));
    }
  }
}

TEST_F(WireTest, WritesTheSameBytesFromHoweverManyPlaces) {
  // Those of 16 KiB are sent from where they are, and there are more of them
  // than go out at once.
  std::vector<std::string> parts;
  for (int i = 0; i < 12; ++i) {
    parts.emplace_back(i % 5, 's');
    parts.emplace_back((16 << 10) - i % 2, static_cast<char>('a' + i));
  }
  const std::string first = ArrayFrame(parts, 1);
  const std::string second = ScalarFrame(std::string(100'000, 'x'));
  const FileDescriptor null = Open(kNull);
  for (const size_t most :
       {size_t{1000}, size_t{16 << 10}, size_t{65'537}, SIZE_MAX}) {
    Restart();
    script_->most_sent = most;
    script_->interruptions = most != SIZE_MAX;
    ASSERT_THAT(channel_.Write(Message(parts, Descriptors({kNull}))), IsOk());
    ASSERT_THAT(channel_.WriteScalar(std::string(100'000, 'x')), IsOk());
    ASSERT_TRUE(script_->sent == first + second) << most;
    ASSERT_THAT(script_->attached, SizeIs(1));
    ASSERT_EQ(script_->attached.front().first, 0u);
  }
  // The last ones had all that they have to send taken at once.
  EXPECT_LE(script_->sends, 4u);
}

TEST_F(WireTest, AttachesDescriptorsToTheirOwnFramesFirstByte) {
  const FileDescriptor null = Open(kNull);
  script_->most_sent = 3;
  ASSERT_THAT(channel_.Write("before"), IsOk());
  const size_t start = script_->sent.size();
  ASSERT_THAT(channel_.Write("x", null, null), IsOk());
  EXPECT_THAT(script_->attached,
              ElementsAre(std::make_pair(
                  start, std::vector<int>{null.get(), null.get()})));
}

TEST_F(WireTest, TellsAnEndInsideAMessageAtEveryByte) {
  const std::string bytes = ArrayFrame({"hello", std::string(200, 'x')}, 1);
  for (size_t size = 0; size < bytes.size(); ++size) {
    Restart();
    if (size > 0) Comes(bytes.substr(0, size), {kNull});
    const absl::Status status = channel_.Read().status();
    ASSERT_THAT(status, FailsWith(size == 0 ? reason::kEndOfStream
                                            : reason::kConnectionLost))
        << size;
    ASSERT_EQ(channel_.Read().status(), status);
  }
}

TEST_F(WireTest, AConnectionLostWhileReadingStaysLost) {
  Comes(ArrayFrame({"hello"}));
  script_->after_last = MakeError(reason::kConnectionLost, "reset");
  EXPECT_THAT(Read(), ElementsAre("hello"));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kConnectionLost));
  Comes(ArrayFrame({"late"}));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kConnectionLost));
}

TEST_F(WireTest, AFailureOfTheMomentLosesNothing) {
  const std::string bytes = ArrayFrame({"hello"});
  Comes(bytes.substr(0, 4));
  script_->after_last = absl::ResourceExhaustedError("no memory");
  EXPECT_EQ(channel_.Read().status(), script_->after_last);
  Comes(bytes.substr(4));
  EXPECT_THAT(Read(), ElementsAre("hello"));
}

// --- time ---

TEST_F(WireTest, ATrickleOfBytesHasTheTimeOfOneOperation) {
  const std::string bytes = ArrayFrame({std::string(100, 'x')});
  Comes(bytes);
  script_->most_received = 1;
  script_->call_time = absl::Seconds(1);
  channel_.set_timeout(absl::Seconds(10));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kTimedOut));
  EXPECT_LE(script_->now, absl::UnixEpoch() + absl::Seconds(11));
  // What has come was kept: the rest makes it whole.
  channel_.set_timeout(absl::InfiniteDuration());
  EXPECT_THAT(Read(), ElementsAre(std::string(100, 'x')));
}

TEST_F(WireTest, WhatCameInTimeIsReadHoweverLateThisThreadWakes) {
  Comes(ArrayFrame({"hello"}));
  script_->interruptions = true;
  script_->call_time = absl::Seconds(11);
  channel_.set_timeout(absl::Seconds(10));
  EXPECT_THAT(Read(), ElementsAre("hello"));
}

// Its clock goes on, and it never waits: as when each byte is there in time for
// a receive that does not block.
class NeverWaiting final : public Transport {
 public:
  explicit NeverWaiting(std::string bytes) : bytes_(std::move(bytes)) {}

  int descriptor() const override { return -1; }
  absl::StatusOr<size_t> Send(std::string_view, absl::Span<const int>,
                              absl::Time) override {
    now_ += absl::Seconds(1);
    return 1;
  }
  absl::StatusOr<Received> Receive(absl::Span<char> buffer, size_t,
                                   std::vector<FileDescriptor>&,
                                   absl::Time) override {
    now_ += absl::Seconds(1);
    buffer[0] = bytes_[next_++ % bytes_.size()];
    Received received;
    received.bytes = 1;
    return received;
  }
  void ShutDown() override {}
  void ShutDownReceiving() override {}
  bool HungUp() const override { return false; }
  absl::StatusOr<PeerCredentials> Peer() const override {
    return PeerCredentials();
  }
  absl::Time TimeNow() const override { return now_; }

 private:
  const std::string bytes_;
  size_t next_ = 0;
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(WireTest, ATrickleThatIsAlwaysReadyIsTimedToo) {
  const std::string bytes = ArrayFrame({std::string(100, 'x')});
  MessageChannel channel(std::make_unique<NeverWaiting>(bytes));
  channel.set_timeout(absl::Seconds(10));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kTimedOut));
  EXPECT_EQ(channel.transport()->TimeNow(),
            absl::UnixEpoch() + absl::Seconds(11));
  channel.set_timeout(absl::Seconds(1000));
  EXPECT_THAT(channel.Read(), IsOk());
}

TEST_F(WireTest, APeerThatTakesOneByteAtATimeIsTimedToo) {
  MessageChannel channel(std::make_unique<NeverWaiting>("x"));
  channel.set_timeout(absl::Seconds(10));
  EXPECT_THAT(channel.WriteScalar(std::string(100, 'x')),
              FailsWith(reason::kTimedOut));
  EXPECT_EQ(channel.transport()->TimeNow(),
            absl::UnixEpoch() + absl::Seconds(11));
  EXPECT_THAT(channel.WriteScalar("x"), FailsWith(reason::kTimedOut));
}

TEST_F(WireTest, NothingIsReadOrWrittenOnceTheDeadlineHasPassed) {
  Comes(ArrayFrame({"hello"}));
  channel_.set_deadline(script_->now);
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kTimedOut));
  std::string scalar;
  EXPECT_THAT(channel_.ReadScalar(scalar), FailsWith(reason::kTimedOut));
  EXPECT_THAT(channel_.Write("hello"), FailsWith(reason::kTimedOut));
  EXPECT_THAT(channel_.WriteError(absl::CancelledError("no")),
              FailsWith(reason::kTimedOut));
  EXPECT_EQ(script_->receives, 0u);
  EXPECT_THAT(script_->sent, IsEmpty());
  // Nothing is lost by it.
  channel_.set_deadline(script_->now + absl::Nanoseconds(1));
  EXPECT_THAT(channel_.Write("hello"), IsOk());
  EXPECT_THAT(Read(), ElementsAre("hello"));
}

TEST_F(WireTest, WhoHasSetTheLimitIsSaidWhereItEndsSomething) {
  const auto times_out = [this](const char* why) {
    script_->after_last = MakeError(reason::kTimedOut, "silence");
    EXPECT_THAT(channel_.Read(), FailsWith(reason::kTimedOut, why));
  };
  channel_.set_timeout(absl::Seconds(1), "the patience is 1s");
  channel_.set_deadline(script_->now + absl::Seconds(2), "the term is 2s");
  times_out("the patience is 1s: silence");
  script_->now += absl::Seconds(1.5);
  times_out("the term is 2s: silence");
  script_->now += absl::Seconds(1);
  times_out("the term is 2s: the channel's deadline has passed");
  channel_.set_deadline(absl::InfiniteFuture());
  channel_.set_timeout(absl::Seconds(1));
  EXPECT_EQ(channel_.Read().status().message(), "silence");
  // What the peer has found is its own.
  channel_.set_timeout(absl::Seconds(1), "the patience is 1s");
  proto::Frame error;
  error.mutable_error()->set_code(4);
  error.mutable_error()->set_reason("TimedOut");
  error.mutable_error()->set_text("too late");
  Comes(Delimited(error));
  EXPECT_EQ(channel_.Read().status().message(), "too late");
}

TEST_F(WireTest, AWriteThatTimedOutBeforeItsFirstByteCanBeRepeated) {
  const FileDescriptor null = Open(kNull);
  const Secret password("open sesame");
  channel_.PresentPassword(password);
  channel_.set_timeout(absl::Seconds(1));
  script_->call_time = absl::Seconds(2);
  EXPECT_THAT(channel_.Write("hello", null), FailsWith(reason::kTimedOut));
  EXPECT_THAT(script_->attached, IsEmpty());
  script_->call_time = absl::ZeroDuration();
  ASSERT_THAT(channel_.Write("hello", null), IsOk());
  // With all that was to go with it.
  EXPECT_THAT(script_->attached, SizeIs(1));
  EXPECT_THAT(script_->sent, HasSubstr("open sesame"));
  ASSERT_THAT(channel_.Write("again"), IsOk());
  EXPECT_EQ(script_->sent.rfind("open sesame"),
            script_->sent.find("open sesame"));
}

TEST_F(WireTest, AWriteThatFailedHalfWayFailsForGood) {
  script_->sendable = 5;
  script_->send_error = absl::ResourceExhaustedError("no memory");
  EXPECT_EQ(channel_.Write("hello"), script_->send_error);
  script_->sendable = SIZE_MAX;
  EXPECT_EQ(channel_.Write("hello"), script_->send_error);
  EXPECT_THAT(script_->sent, SizeIs(5));
}

TEST_F(WireTest, AWriteThatFailedBeforeItsFirstByteCanBeRepeated) {
  const Secret password("open sesame");
  channel_.PresentPassword(password);
  script_->interruptions = true;
  script_->sendable = 0;
  script_->send_error = absl::ResourceExhaustedError("no memory");
  EXPECT_EQ(channel_.Write("hello"), script_->send_error);
  script_->sendable = SIZE_MAX;
  EXPECT_THAT(channel_.Write("hello"), IsOk());
  proto::Frame frame;
  frame.set_password("open sesame");
  frame.mutable_array()->add_part("hello");
  EXPECT_EQ(script_->sent, Delimited(frame));
}

TEST_F(WireTest, AfterAFailedWriteWhatThePeerSaysIsRead) {
  script_->sendable = 0;
  script_->send_error = MakeError(reason::kConnectionLost, "reset");
  script_->after_last = MakeError(reason::kTimedOut, "nothing there");
  EXPECT_THAT(channel_.Write("hello"), FailsWith(reason::kConnectionLost));
  // Only writing has failed: what the peer says later is read.
  Comes(ArrayFrame({"later"}));
  EXPECT_THAT(Read(), ElementsAre("later"));
}

// A peer that is there still may take a moment to say why it reads no more.
class LastWordTest : public WireTest {
 protected:
  // A Send takes 10 ms, and so does each piece that comes.
  void SetUp() override {
    script_->sendable = 0;
    script_->send_error = MakeError(reason::kConnectionLost, "reset");
    script_->call_time = absl::Milliseconds(10);
  }

  // In about `pieces` pieces.
  void Comes(size_t pieces, size_t text_size = 1000) {
    proto::Frame frame;
    frame.mutable_error()->set_code(
        static_cast<uint32_t>(absl::StatusCode::kUnavailable));
    frame.mutable_error()->set_reason(
        std::string(reason::kServerStopping.name));
    frame.mutable_error()->set_text(std::string(text_size, '!'));
    const std::string bytes = Delimited(frame);
    script_->most_received = bytes.size() / pieces + 1;
    WireTest::Comes(bytes);
  }

  // How long Write takes, which fails with `why`.
  absl::Duration FailsToWrite(const Reason& why) {
    const absl::Time start = script_->now;
    EXPECT_THAT(channel_.Write("hello"), FailsWith(why));
    return script_->now - start;
  }
};

TEST_F(LastWordTest, IsWaitedForHoweverManyPiecesItComesIn) {
  Comes(20);
  EXPECT_LE(FailsToWrite(reason::kServerStopping), absl::Milliseconds(220));
  // For good.
  EXPECT_THAT(channel_.Write("hello"), FailsWith(reason::kServerStopping));
}

TEST_F(LastWordTest, IsNotWaitedForLongerThanASecond) {
  Comes(1000);
  EXPECT_LE(FailsToWrite(reason::kConnectionLost), absl::Milliseconds(1020));
}

TEST_F(LastWordTest, IsNotWaitedForLongerThanTheWriteMayTake) {
  Comes(20);
  channel_.set_timeout(absl::Milliseconds(100));
  // Most of its time goes by before it fails.
  script_->sendable = 8;
  script_->most_sent = 1;
  EXPECT_LE(FailsToWrite(reason::kConnectionLost), absl::Milliseconds(120));
}

TEST_F(LastWordTest, GivesItsShareOfTheBudgetBack) {
  const auto budget = std::make_shared<BufferBudget>(0);
  channel_.set_buffer_budget(budget);
  Comes(20, size_t{1} << 20);
  FailsToWrite(reason::kServerStopping);
  EXPECT_EQ(budget->used(), 0u);
  channel_.Close();
}

TEST_F(WireTest, AFailedWriteKeepsEveryOtherResultForTheNextRead) {
  script_->sendable = 0;
  script_->send_error = MakeError(reason::kConnectionLost, "reset");
  Comes(ArrayFrame({"lost"}, 1), {}, /*truncated=*/true);
  Comes(ArrayFrame({"next"}));
  EXPECT_THAT(channel_.Write("hello"), FailsWith(reason::kConnectionLost));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kDescriptorsTruncated));
  EXPECT_THAT(Read(), ElementsAre("next"));
}

TEST_F(WireTest, ClosingForgetsWhatAFailedWriteKept) {
  script_->sendable = 0;
  script_->send_error = MakeError(reason::kConnectionLost, "reset");
  Comes(ArrayFrame({"kept"}, 1), {kNull});
  EXPECT_THAT(channel_.Write("hello"), FailsWith(reason::kConnectionLost));
  channel_.Close();
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kChannelClosed));
}

// --- sizes ---

TEST_F(WireTest, RefusesAnAnnouncedLengthBeforeItTakesAnyMemory) {
  const size_t limit = channel_.limits().max_frame_bytes;
  for (const uint64_t size :
       {uint64_t{limit} + 1, uint64_t{1} << 31, (uint64_t{1} << 32) - 1,
        uint64_t{1} << 32, (uint64_t{1} << 32) + 5, uint64_t{1} << 63,
        UINT64_MAX}) {
    EXPECT_THAT(ReadOf(Varint(size) + std::string(4000, 'x')),
                FailsWith(reason::kFrameTooLarge))
        << size;
    EXPECT_LE(script_->largest_room, 4096u);
    EXPECT_EQ(script_->receives, 1u);
    EXPECT_THAT(channel_.Read(), FailsWith(reason::kFrameTooLarge));
    EXPECT_EQ(script_->receives, 1u);
  }
}

TEST_F(WireTest, RefusesALengthThatNeverEnds) {
  EXPECT_THAT(ReadOf(std::string(10, '\x80')),
              FailsWith(reason::kMalformedFrame));
  EXPECT_THAT(ReadOf(std::string(10, '\xff') + "\x01"),
              FailsWith(reason::kMalformedFrame));
  // 64 bits end with the lowest of the tenth byte.
  EXPECT_THAT(ReadOf("\x85" + std::string(8, '\x80') + "\x02" +
                     ArrayFrame({"x"}).substr(1)),
              FailsWith(reason::kMalformedFrame));
  Restart();
  script_->most_received = 1;
  Comes(std::string(100, '\x80'));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kMalformedFrame));
  EXPECT_EQ(script_->receives, 10u);
}

TEST_F(WireTest, TakesALengthLongerThanItNeedsToBe) {
  const std::string body = ArrayFrame({"x"}).substr(1);
  ASSERT_EQ(body.size(), 5u);
  EXPECT_THAT(
      ReadOf("\x85" + std::string(8, '\x80') + std::string(1, '\0') + body),
      IsOk());
}

TEST_F(WireTest, TakesNoMoreMemoryThanThePeerHasSentDouble) {
  // Sixteen megabytes announced, 10,000 bytes sent.
  const size_t size = channel_.limits().max_frame_bytes;
  Comes(Varint(size) + std::string(10'000, 'x'));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kConnectionLost));
  EXPECT_LE(script_->largest_room, 20'000u);
}

TEST_F(WireTest, TakesAFrameOfExactlyTheLimit) {
  ChannelLimits limits;
  limits.max_frame_bytes = 5000;
  for (const size_t excess : {0, 1}) {
    Restart();
    channel_.set_limits(limits);
    // Tag and length of the array, then of the part.
    Comes(ArrayFrame({std::string(5000 - 6 + excess, 'x')}));
    EXPECT_EQ(channel_.Read().ok(), excess == 0);
  }
}

TEST_F(WireTest, RefusesMorePartsThanTheLimitBeforeTheyAreStored) {
  ChannelLimits limits;
  limits.max_parts = 10;
  channel_.set_limits(limits);
  Comes(ArrayFrame(std::vector<std::string>(10)));
  EXPECT_THAT(Read(), SizeIs(10));
  Comes(ArrayFrame(std::vector<std::string>(11)));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kFrameTooLarge));
}

TEST_F(WireTest, AScalarFarOverTheCallersMaximumIsNotReadAtAll) {
  proto::Frame frame;
  frame.set_scalar(std::string(100'000, 'x'));
  Comes(Delimited(frame));
  std::string scalar;
  EXPECT_THAT(channel_.ReadScalar(scalar, 99),
              FailsWith(reason::kFrameTooLarge));
  EXPECT_EQ(script_->receives, 1u);
}

TEST_F(WireTest, KeepsItsMemoryBetweenLargeMessagesAndGivesItBackAfter) {
  const std::string large = ArrayFrame({std::string(200'000, 'x')});
  for (int i = 0; i < 3; ++i) Comes(large);
  Comes(ArrayFrame({"small"}));
  Comes(ArrayFrame({"small"}));
  ASSERT_THAT(channel_.Read(), IsOk());
  const size_t receives = script_->receives;
  ASSERT_THAT(channel_.Read(), IsOk());
  ASSERT_THAT(channel_.Read(), IsOk());
  EXPECT_EQ(script_->receives, receives + 2);
  EXPECT_THAT(Read(), ElementsAre("small"));
  script_->largest_room = 0;
  EXPECT_THAT(Read(), ElementsAre("small"));
  EXPECT_LE(script_->largest_room, 4096u);
}

// --- large scalars, which are received where they are to be ---

class LargeScalarTest : public WireTest {
 protected:
  // For smaller ones memory must be there.
  static constexpr size_t kSize = 300'000;

  static std::string Numbered(size_t size) {
    std::string bytes(size, ' ');
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i % 251);
    return bytes;
  }

  // In front of a scalar of `size` bytes, and its frame's other fields.
  static std::string Head(size_t size, std::string_view before,
                          std::string_view behind) {
    const std::string head = absl::StrCat(before, "\x22", Varint(size));
    return absl::StrCat(Varint(head.size() + size + behind.size()), head);
  }
};

TEST_F(LargeScalarTest, IsTheSameInWhateverPiecesItComes) {
  for (const size_t size : {size_t{20'000}, kSize}) {
    const std::string scalar = Numbered(size);
    const std::string head = Head(size, "\x08\x01", "\x40\x01");
    const std::string bytes = head + scalar + "\x40\x01" + ArrayFrame({"next"});
    const size_t end = head.size() + size;
    for (const size_t cut :
         {size_t{1}, head.size() - 1, head.size(), head.size() + 1,
          size_t{4096}, size_t{4097}, size_t{10'000}, end - 1, end, end + 1,
          end + 2, end + 3}) {
      for (const size_t had : {size_t{0}, size_t{1}, size, 2 * size}) {
        Restart();
        script_->interruptions = had == size;
        script_->most_received = had == 0 ? 7000 : SIZE_MAX;
        Comes(bytes.substr(0, cut), {kNull});
        Comes(bytes.substr(cut));
        std::string got(had, 'h');
        ASSERT_THAT(channel_.ReadScalar(got), IsOk()) << cut << " " << had;
        ASSERT_TRUE(got == scalar) << cut << " " << had;
        ASSERT_THAT(Read(), ElementsAre("next")) << cut << " " << had;
        ASSERT_THAT(channel_.Read(), FailsWith(reason::kEndOfStream));
      }
    }
  }
}

TEST_F(LargeScalarTest, StaysInTheCallersMemory) {
  std::string got(2 * kSize, 'h');
  const char* const memory = got.data();
  for (const size_t size : {kSize, kSize + 1, size_t{20'000}}) {
    Comes(ScalarFrame(Numbered(size)));
    ASSERT_THAT(channel_.ReadScalar(got), IsOk());
    EXPECT_TRUE(got == Numbered(size));
    EXPECT_EQ(got.data(), memory);
  }
}

TEST_F(LargeScalarTest, WhatIsAroundItIsHeldToTheSame) {
  const std::vector<std::pair<std::string, std::string>> around = {
      {"", ""},
      {std::string("\x08\x00", 2), ""},
      {"", "\x40\x01"},
      {"", "\x4a\x02\x08\x01"},
      // Fields that are not known.
      {"", "\x30\x01\x32\x01x"},
      {"", "\x32\xac\x02" + std::string(300, 'x')},
      // Descriptors that did not come, and more than travel together.
      {"\x08\x01", ""},
      {"\x08\xfe\x01", ""},
      {"", "\x08\xfe\x01"},
      // Twice; before it, behind it, around it.
      {std::string("\x08\x00\x08\x00", 4), ""},
      {"", "\x40\x01\x40\x01"},
      {std::string("\x08\x00", 2), std::string("\x08\x00", 2)},
      {"", "\x22\x01x"},
      {"", std::string("\x1a\x00", 2)},
      {"", std::string("\x3a\x00", 2)},
      {std::string("\x1a\x00", 2), ""},
      // A late password, a group, another wire type, a field that is cut off.
      {"", "\x12\x01x"},
      {"", "\x33\x34"},
      {"", "\x20\x01"},
      {"", "\x40"},
      {"", "\x32\x02x"},
      {"", std::string("\x00", 1)}};
  const std::string scalar = Numbered(kSize);
  for (const auto& [before, behind] : around) {
    const std::string frame =
        absl::StrCat(Head(kSize, before, behind), scalar, behind);
    absl::Status as_it_is = ReadOf(frame);
    if (HasReason(as_it_is, reason::kUnexpectedFrame)) {
      as_it_is = absl::OkStatus();
    }
    Restart();
    Comes(frame);
    std::string got;
    EXPECT_EQ(channel_.ReadScalar(got), as_it_is)
        << absl::CHexEscape(before) << " " << absl::CHexEscape(behind);
    EXPECT_TRUE(got == (as_it_is.ok() ? scalar : ""));
  }
}

TEST_F(LargeScalarTest, ThatIsLongerThanItsFrameIsRefused) {
  for (const size_t more : {size_t{1}, kSize, size_t{UINT32_MAX} - kSize}) {
    Restart();
    const std::string head = absl::StrCat("\x22", Varint(kSize + more));
    Comes(absl::StrCat(Varint(head.size() + kSize), head,
                       std::string(kSize, 'x')));
    std::string got;
    EXPECT_THAT(channel_.ReadScalar(got), FailsWith(reason::kMalformedFrame));
  }
}

TEST_F(LargeScalarTest, TakesNoMoreMemoryThanThePeerHasSentDouble) {
  const size_t size = channel_.limits().max_frame_bytes - 100;
  Comes(Head(size, "", "") + std::string(10'000, 'x'));
  std::string got;
  EXPECT_THAT(channel_.ReadScalar(got), FailsWith(reason::kConnectionLost));
  EXPECT_LE(script_->largest_room, 20'000u);
}

TEST_F(LargeScalarTest, IsReadOnAfterItTimedOut) {
  const std::string scalar = Numbered(kSize);
  const std::string frame = ScalarFrame(scalar);
  for (const size_t came : {size_t{5000}, kSize}) {
    // By whom, in the end.
    for (const bool as_scalar : {true, false}) {
      Restart();
      Comes(frame.substr(0, came));
      script_->after_last = MakeError(reason::kTimedOut, "time is over");
      std::string first(2 * kSize, 'h');
      const absl::Status status = channel_.ReadScalar(first);
      EXPECT_THAT(status, FailsWith(reason::kTimedOut));
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr(absl::StrCat(came, " of the ", frame.size())));
      EXPECT_EQ(first, "");
      EXPECT_TRUE(channel_.partly_read());
      // It is no error, and stays where it is.
      script_->sendable = 0;
      script_->send_error = MakeError(reason::kConnectionLost, "gone");
      EXPECT_THAT(channel_.Write("hello"), FailsWith(reason::kConnectionLost));
      Comes(frame.substr(came) + ArrayFrame({"next"}));
      EXPECT_THAT(channel_.Write("hello"), FailsWith(reason::kConnectionLost));
      std::string second = "before";
      if (as_scalar) {
        EXPECT_THAT(channel_.ReadScalar(second), IsOk());
        EXPECT_TRUE(second == scalar);
      } else {
        EXPECT_THAT(channel_.Read(), FailsWith(reason::kUnexpectedFrame));
      }
      EXPECT_THAT(Read(), ElementsAre("next"));
    }
  }
}

TEST_F(LargeScalarTest, IsNotTakenWithAPasswordThatIsDue) {
  const Secret password("open sesame");
  for (const bool has_it : {true, false}) {
    Restart();
    proto::Frame frame;
    if (has_it) frame.set_password("open sesame");
    frame.set_scalar(Numbered(kSize));
    channel_.ExpectPassword(password);
    Comes(Delimited(frame));
    std::string got;
    EXPECT_EQ(channel_.ReadScalar(got).ok(), has_it);
    EXPECT_EQ(got.size(), has_it ? kSize : 0);
  }
}

TEST_F(WireTest, SaysHowMuchOfAMessageCameInTime) {
  const std::string bytes = ArrayFrame({std::string(78, 'x')});
  ASSERT_EQ(bytes.size(), 83u);
  const std::map<size_t, std::string> texts = {
      {0, "the script's time is over"},
      {1, "1 of the 83 bytes of a message"},
      {82, "82 of the 83 bytes of a message"}};
  for (const auto& [came, text] : texts) {
    Restart();
    if (came > 0) Comes(bytes.substr(0, came));
    script_->after_last =
        MakeError(reason::kTimedOut, "the script's time is over");
    const absl::Status status = channel_.Read().status();
    EXPECT_THAT(status, FailsWith(reason::kTimedOut)) << came;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  }
}

TEST_F(WireTest, SaysHowMuchOfAMessageThePeerReadInTime) {
  script_->sendable = 3;
  script_->send_error =
      MakeError(reason::kTimedOut, "the script's time is over");
  const absl::Status status = channel_.WriteScalar("ward");
  EXPECT_THAT(status, FailsWith(reason::kTimedOut));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("3 of the 7 bytes of a message"));
}

// --- frames ---

TEST_F(WireTest, RefusesWhatIsNoFrame) {
  const std::map<std::string, std::string> bodies = {
      {"empty", ""},
      {"no content, only descriptors", std::string("\x08\x00", 2)},
      {"an unknown field alone", "\xf8\x01\x01"},
      {"a tag without a value", "\x1a"},
      {"a length past the frame", "\x22\x05hell"},
      {"a length past the array", "\x1a\x03\x0a\x02x"},
      {"a length of 4 GiB", "\x22\xff\xff\xff\xff\x0f"},
      {"field number 0", "\x02\x01x\x22\x01x"},
      {"tag 0", std::string("\x22\x01x\0", 4)},
      {"a group", "\x22\x01x\x0b\x0c"},
      {"the end of a group", "\x22\x01x\x0c"},
      {"wire type 6", "\x22\x01x\x0e"},
      {"a varint of 11 bytes", "\x08" + std::string(10, '\xff') + "\x01"},
      {"surplus bits in a varint's tenth byte",
       "\xf8\x01" + std::string(9, '\x80') + "\x02\x22\x01x"},
      {"a tag over 32 bits", "\x88\x80\x80\x80\x10\x01\x22\x01x"},
      {"a tag of 6 bytes",
       std::string("\xf8\x81\x80\x80\x80\x00\x01\x22\x01x", 10)},
      {"a field's length of 6 bytes",
       std::string("\x22\x81\x80\x80\x80\x80\x00x", 8)},
      {"a part's length of 6 bytes",
       std::string("\x1a\x08\x0a\x81\x80\x80\x80\x80\x00x", 10)},
      {"a fixed number that is cut off", "\x22\x01x\x0d\x01"},
      {"descriptors twice", std::string("\x08\x00\x08\x00\x22\x01x", 7)},
      {"descriptors as bytes", "\x0a\x01\x01\x22\x01x"},
      {"254 descriptors", "\x08\xfe\x01\x22\x01x"},
      {"a scalar twice", "\x22\x01x\x22\x01x"},
      {"an array twice", std::string("\x1a\x00\x1a\x00", 4)},
      {"an array and a scalar", std::string("\x1a\x00\x22\x01x", 5)},
      {"a scalar and an error", std::string("\x22\x01x\x2a\x02\x08\x05", 7)},
      {"a scalar as a varint", "\x1a\x03\x0a\x01x\x20\x01"},
      {"a part as a varint", "\x1a\x02\x08\x01"},
      {"an error's code twice", "\x2a\x04\x08\x05\x08\x05"},
      {"an error's code as bytes", "\x2a\x03\x0a\x01x"},
      {"an error's text twice", "\x2a\x06\x1a\x01x\x1a\x01x"},
      {"an error's reason as a fixed number", "\x2a\x05\x15xxxx"},
      {"an error that is cut off", "\x2a\x02\x1a\x05"},
      {"a password", "\x12\x01x\x22\x01x"},
      {"an empty password", std::string("\x12\x00\x22\x01x", 5)},
  };
  for (const auto& [name, body] : bodies) {
    EXPECT_THAT(ReadOf(Delimited(body)), FailsWith(reason::kMalformedFrame))
        << name;
    Comes(ArrayFrame({"next"}));
    EXPECT_THAT(channel_.Read(), FailsWith(reason::kMalformedFrame)) << name;
  }
}

TEST_F(WireTest, IgnoresFieldsThatItDoesNotKnow) {
  // Numbers 31 and 100, of every wire type, in the frame and in the array.
  const std::string unknown = "\xf8\x01\x7f" + std::string("\xa1\x06") +
                              std::string(8, 'x') + "\xa2\x06\x03new" +
                              std::string("\xa5\x06") + "xxxx";
  const std::string array = "\x0a\x01p" + unknown;
  EXPECT_THAT(
      ReadOf(Delimited(unknown + "\x1a" + Varint(array.size()) + array)),
      IsOk());
}

TEST_F(WireTest, AnErrorsCodeIsNeverTakenForOkOrForOneThatIsNone) {
  for (const int code : {0, 17, -1, 1 << 30}) {
    proto::Frame frame;
    frame.mutable_error()->set_code(code);
    frame.mutable_error()->set_reason("Reason");
    const absl::Status status = ReadOf(Delimited(frame));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnknown) << code;
    EXPECT_EQ(ReasonOf(status), "Reason");
  }
  // 5, and one more bit than protobuf's parsers keep.
  EXPECT_EQ(ReadOf(Delimited("\x2a\x06\x08\x85\x80\x80\x80\x10")).code(),
            absl::StatusCode::kUnknown);
  for (int code = 1; code <= 16; ++code) {
    proto::Frame frame;
    frame.mutable_error()->set_code(code);
    EXPECT_EQ(static_cast<int>(ReadOf(Delimited(frame)).code()), code);
  }
}

// --- the password ---

TEST_F(WireTest, LeavesNoPasswordInWhatTheCallerGets) {
  const Secret password("open sesame");
  proto::Frame frame;
  frame.set_password("open sesame");
  frame.mutable_array()->add_part("hello");
  channel_.ExpectPassword(password);
  Comes(Delimited(frame));
  EXPECT_THAT(Read(), ElementsAre("hello"));
}

TEST_F(WireTest, AdmitsAPasswordInWhateverPiecesItComes) {
  const Secret password("open sesame");
  proto::Frame frame;
  frame.set_password("open sesame");
  frame.mutable_array()->add_part(std::string(10'000, 'x'));
  const std::string bytes = Delimited(frame);
  for (size_t cut = 1; cut < 40; ++cut) {
    Restart();
    channel_.ExpectPassword(password);
    Comes(bytes.substr(0, cut));
    Comes(bytes.substr(cut));
    EXPECT_THAT(channel_.Read(), IsOk());
  }
}

TEST_F(WireTest, AMalformedFirstFrameIsNoAdmission) {
  const Secret password("open sesame");
  channel_.ExpectPassword(password);
  Comes(Delimited(""));
  Comes(ArrayFrame({"hello"}));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kMalformedFrame));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kMalformedFrame));
}

TEST_F(WireTest, AnErrorIsNoFirstFrame) {
  // Whatever reason it gives: it is the peer's word, not this side's finding.
  const Secret password("open sesame");
  proto::Frame frame;
  frame.set_password("open sesame");
  frame.mutable_error()->set_code(7);
  frame.mutable_error()->set_reason("InvalidPassword");
  std::string scalar;
  channel_.ExpectPassword(password);
  Comes(Delimited(frame));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kUnexpectedFrame));
  Restart();
  channel_.ExpectPassword(password);
  Comes(Delimited(frame));
  EXPECT_THAT(channel_.ReadScalar(scalar), FailsWith(reason::kUnexpectedFrame));
  // Without the password it is not even read.
  frame.set_password("open barley");
  Restart();
  channel_.ExpectPassword(password);
  Comes(Delimited(frame));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kInvalidPassword));
}

TEST_F(WireTest, AWrongPasswordClosesTheDescriptorsThatCameWithIt) {
  const Secret password("open sesame");
  const std::map<int, std::string> before = OpenDescriptors();
  channel_.ExpectPassword(password);
  Comes(ArrayFrame({"hello"}, 2), {kNull, kZero});
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kInvalidPassword));
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(WireTest, ThePasswordIsStillDueAfterARefusedWrite) {
  const Secret password("open sesame");
  channel_.PresentPassword(password);
  EXPECT_THAT(channel_.WriteScalar(std::string(17 << 20, 'x')),
              FailsWith(reason::kFrameTooLarge));
  ASSERT_THAT(channel_.Write("hello"), IsOk());
  EXPECT_THAT(script_->sent, HasSubstr("open sesame"));
  ASSERT_THAT(channel_.Write("again"), IsOk());
  EXPECT_THAT(script_->sent.substr(script_->sent.find("again")),
              Not(HasSubstr("open sesame")));
}

// --- descriptors ---

// What a hostile peer sends, and nothing stays open of it even while the
// channel lives.
class HostileDescriptorsTest : public WireTest {
 protected:
  void ExpectMalformed(const char* text = "") {
    // The pieces that were not received yet hold descriptors of their own.
    EXPECT_THAT(channel_.Read(), FailsWith(reason::kMalformedFrame, text));
    script_->incoming.clear();
    EXPECT_EQ(OpenDescriptors(), before_);
  }

  const std::map<int, std::string> before_ = OpenDescriptors();
};

TEST_F(HostileDescriptorsTest, UndeclaredOnesAreRefused) {
  Comes(ArrayFrame({"hello"}, 0), {kNull});
  ExpectMalformed("declares 0 descriptors, and 1 came");
}

TEST_F(HostileDescriptorsTest, MoreThanDeclaredAreRefused) {
  Comes(ArrayFrame({"hello"}, 1), {kNull, kZero});
  ExpectMalformed("declares 1 descriptor, and 2 came");
}

TEST_F(HostileDescriptorsTest, FewerThanDeclaredAreRefused) {
  Comes(ArrayFrame({"hello"}, 3), {kNull, kZero});
  ExpectMalformed("declares 3 descriptors, and 2 came");
}

TEST_F(HostileDescriptorsTest, DeclaredOnesThatNeverCameAreRefused) {
  Comes(ArrayFrame({"hello"}, 1));
  ExpectMalformed("declares 1 descriptor, and 0 came");
}

TEST_F(HostileDescriptorsTest, MoreDeclaredThanAnyMessageCarriesAreRefused) {
  Comes(ArrayFrame({"hello"}, UINT32_MAX), {kNull});
  ExpectMalformed();
}

TEST_F(HostileDescriptorsTest, SomeOfThemInASecondSendAreRefused) {
  const std::string bytes = ArrayFrame({"hello"}, 2);
  Comes(bytes.substr(0, 4), {kNull});
  Comes(bytes.substr(4), {kZero});
  ExpectMalformed();
}

TEST_F(HostileDescriptorsTest, UndeclaredOnesBeforeAnotherMessageAreRefused) {
  Comes(ArrayFrame({"hello"}) + ArrayFrame({"next"}), {kNull});
  EXPECT_THAT(Read(), ElementsAre("hello"));
  ExpectMalformed("declares 0 descriptors, and 1 came");
}

TEST_F(HostileDescriptorsTest, DoNotAccumulateOverATrickle) {
  const std::string bytes = ArrayFrame({std::string(50, 'x')}, 50);
  for (const char byte : bytes) Comes(std::string(1, byte), {kNull});
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kMalformedFrame));
  EXPECT_EQ(script_->receives, 2u);
  script_->incoming.clear();
  EXPECT_EQ(OpenDescriptors(), before_);
}

TEST_F(HostileDescriptorsTest, OverTheLimitAreNotKeptForTheRestOfTheirFrame) {
  // 253 of them would wait in the server for each peer that never goes on.
  ChannelLimits limits;
  limits.max_descriptors = 2;
  channel_.set_limits(limits);
  const std::string bytes = ArrayFrame({"hello"}, 3);
  Comes(bytes.substr(0, 4), {kNull, kNull, kNull});
  script_->after_last = MakeError(reason::kTimedOut, "time is over");
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kTimedOut));
  EXPECT_EQ(OpenDescriptors(), before_);
  Comes(bytes.substr(4));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kTooManyDescriptors));
}

TEST_F(HostileDescriptorsTest, OverTheLimitAreRefusedAtOnceWhereTheyAreKept) {
  ChannelLimits limits;
  limits.max_descriptors = 2;
  channel_.set_limits(limits);
  const Secret password("open sesame");
  channel_.ExpectPassword(password);
  channel_.set_keeps_refused(true);
  Comes(ArrayFrame({"hello"}, 3).substr(0, 4), {kNull, kNull, kNull});
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kTooManyDescriptors));
  EXPECT_EQ(script_->receives, 1u);
  EXPECT_EQ(channel_.unclaimed_descriptors(), 3u);
  channel_.CloseUnclaimed();
  EXPECT_EQ(OpenDescriptors(), before_);
}

// Of who has shown the password, or needs none.
TEST_F(HostileDescriptorsTest, OverTheLimitAreKeptUntilTheyMayBeClosed) {
  ChannelLimits limits;
  limits.max_descriptors = 2;
  channel_.set_limits(limits);
  channel_.set_keeps_refused(true);
  const std::string bytes = ArrayFrame({"hello"}, 3);
  Comes(bytes.substr(0, 4), {kNull, kNull, kNull});
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kTimedOut));
  // At once: it is not waited for the rest with them.
  EXPECT_EQ(script_->receives, 1u);
  EXPECT_TRUE(channel_.has_refused());
  EXPECT_EQ(channel_.unclaimed_descriptors(), 3u);
  channel_.set_keeps_refused(false);
  EXPECT_FALSE(channel_.has_refused());
  EXPECT_EQ(OpenDescriptors(), before_);
  Comes(bytes.substr(4) + ArrayFrame({"next"}));
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kTooManyDescriptors));
  EXPECT_THAT(Read(), ElementsAre("next"));
}

// They are closed when this thread says so, not where it waits for a call.
TEST_F(HostileDescriptorsTest, OfWhatACallHasLeftAreKeptUntilTheyMayBeClosed) {
  const auto call = [](const std::string& name) {
    proto::Frame frame;
    frame.set_knows_end(true);
    frame.mutable_array()->add_part(name);
    frame.mutable_call()->set_keep(true);
    return Delimited(frame);
  };
  Comes(call("first"));
  Message message;
  ASSERT_THAT(channel_.ReadCall(message), IsOk());
  ASSERT_THAT(channel_.WriteEnd(), IsOk());
  channel_.set_keeps_refused(true);
  Comes(ArrayFrame({"left"}, 1), {kNull});
  Comes(ArrayFrame({"left, too"}));
  Comes(call("second"));
  EXPECT_THAT(channel_.ReadCall(message), FailsWith(reason::kTimedOut));
  EXPECT_TRUE(channel_.has_refused());
  EXPECT_EQ(channel_.unclaimed_descriptors(), 1u);
  channel_.set_keeps_refused(false);
  EXPECT_EQ(OpenDescriptors(), before_);
  channel_.set_keeps_refused(true);
  ASSERT_THAT(channel_.ReadCall(message), IsOk());
  EXPECT_THAT(message.parts(), ElementsAre("second"));
  EXPECT_FALSE(channel_.has_refused());
}

TEST_F(HostileDescriptorsTest, OtherThanDeclaredAreNoFaultOfThisProcesss) {
  // Whether they are over the limit, or found no room, or both: fewer were
  // declared than came.
  ChannelLimits limits;
  limits.max_descriptors = 2;
  for (const bool truncated : {false, true}) {
    for (const uint32_t declared : {1, 2, 3}) {
      Restart();
      channel_.set_limits(limits);
      Comes(ArrayFrame({"hello"}, declared),
            std::vector<const char*>(declared + !truncated, kNull), truncated);
      ExpectMalformed(truncated ? "and more than" : "came");
    }
  }
}

TEST_F(WireTest, DescriptorsOfTheNextFrameAreTakenUnderItsOwnLimits) {
  // One receive brings two frames; between them the limits are raised.
  const Secret password("open sesame");
  proto::Frame first;
  first.set_password("open sesame");
  first.mutable_array()->add_part("hello");
  ChannelLimits tight;
  tight.max_descriptors = 16;
  for (const size_t count : {17, 100, 253}) {
    Restart();
    channel_.set_limits(tight);
    channel_.ExpectPassword(password);
    const std::string bytes = Delimited(first);
    Comes(bytes + ArrayFrame({"next"}, static_cast<uint32_t>(count)),
          std::vector<const char*>(count, kNull));
    script_->incoming.front().at = bytes.size();
    EXPECT_THAT(Read(), ElementsAre("hello"));
    channel_.set_limits({});
    ASSERT_OK_AND_ASSIGN(const Message next, channel_.Read());
    EXPECT_THAT(next.descriptors(), SizeIs(count));
    EXPECT_EQ(script_->receives, 1u);
  }
}

TEST_F(HostileDescriptorsTest, GoWithAMessageOfAnotherKind) {
  proto::Frame frame;
  frame.set_descriptors(1);
  frame.set_scalar("x");
  Comes(Delimited(frame), {kNull});
  frame.mutable_error()->set_text("sorry");
  frame.mutable_error()->set_code(3);
  Comes(Delimited(frame), {kNull});
  std::string scalar;
  EXPECT_THAT(channel_.ReadScalar(scalar), IsOk());
  EXPECT_EQ(channel_.Read().status(), absl::InvalidArgumentError("sorry"));
  EXPECT_EQ(OpenDescriptors(), before_);
}

TEST_F(WireTest, DescriptorsMayComeWithAnyByteOfTheirFrame) {
  // A receiver cannot tell: a receive may begin before and go on past it.
  const std::string bytes = ArrayFrame({"hello"}, 1);
  for (size_t cut = 1; cut < bytes.size(); ++cut) {
    Restart();
    Comes(bytes.substr(0, cut));
    Comes(bytes.substr(cut), {kNull});
    ASSERT_OK_AND_ASSIGN(const Message message, channel_.Read());
    EXPECT_THAT(message.descriptors(), SizeIs(1));
  }
}

TEST_F(WireTest, LosesTheMessageWhoseDescriptorsWereTruncatedAndNoOther) {
  for (const size_t arrived : {0, 1, 2}) {
    Restart();
    Comes(ArrayFrame({"before"}, 1), {kNull});
    Comes(ArrayFrame({"lost"}, 3), std::vector<const char*>(arrived, kNull),
          /*truncated=*/true);
    Comes(ArrayFrame({"none"}));
    Comes(ArrayFrame({"after"}, 1), {kZero});
    EXPECT_THAT(Read(), ElementsAre("before"));
    EXPECT_THAT(channel_.Read(), FailsWith(reason::kDescriptorsTruncated));
    EXPECT_THAT(Read(), ElementsAre("none"));
    ASSERT_OK_AND_ASSIGN(const Message after, channel_.Read());
    ASSERT_THAT(after.descriptors(), SizeIs(1));
    EXPECT_TRUE(IsFile(after.descriptors()[0], kZero));
  }
}

TEST_F(WireTest, NeverGivesAMessageTheNextOnesDescriptorsForThoseItLost) {
  // The table was full for the first message's, and free again when one receive
  // brought its last byte with the whole of the next.
  const std::string lost = ArrayFrame({"lost"}, 2);
  const std::string next = ArrayFrame({"next"}, 2);
  Comes(lost.substr(0, 5), {kNull}, /*truncated=*/true);
  Comes(lost.substr(5) + next, {kZero, kZero});
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kDescriptorsTruncated));
  ASSERT_OK_AND_ASSIGN(const Message message, channel_.Read());
  EXPECT_THAT(message.parts(), ElementsAre("next"));
  ASSERT_THAT(message.descriptors(), SizeIs(2));
  EXPECT_TRUE(IsFile(message.descriptors()[0], kZero));
  EXPECT_TRUE(IsFile(message.descriptors()[1], kZero));
}

TEST_F(WireTest, DescriptorsTruncatedWithoutBeingDeclaredAreRefused) {
  Comes(ArrayFrame({"hello"}), {}, /*truncated=*/true);
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kMalformedFrame));
}

TEST_F(WireTest, DescriptorsStayWithAMessageThatTimedOutHalfWay) {
  const std::string bytes = ArrayFrame({"hello"}, 1);
  Comes(bytes.substr(0, 4), {kNull});
  script_->after_last = MakeError(reason::kTimedOut, "time is over");
  EXPECT_THAT(channel_.Read(), FailsWith(reason::kTimedOut));
  Comes(bytes.substr(4));
  ASSERT_OK_AND_ASSIGN(const Message message, channel_.Read());
  EXPECT_THAT(message.descriptors(), SizeIs(1));
}

TEST_F(WireTest, ShutDownReachesTheTransport) {
  channel_.ShutDown();
  EXPECT_TRUE(script_->shut_down);
  EXPECT_EQ(channel_.transport()->TimeNow(), script_->now);
}

}  // namespace
}  // namespace ward

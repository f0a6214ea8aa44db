// Channels over real sockets. What single bytes do: message_channel_wire_test.

#include "ward/channel/message_channel.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using testing::FailsWith;
using testing::IsOk;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Two ends of a conversation, `here_` and `there_`. Each test must leave the
// descriptors of the process as it found them.
class MessageChannelTest : public ::testing::Test {
 protected:
  MessageChannelTest() : open_before_(OpenDescriptors()) {}

  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(auto ends, MessageChannel::CreatePair());
    here_ = std::move(ends.first);
    there_ = std::move(ends.second);
  }

  void TearDown() override {
    here_.Close();
    there_.Close();
    EXPECT_EQ(OpenDescriptors(), open_before_);
  }

  // What `there_` reads next; a failure is one part that tells it.
  std::vector<std::string> ReadThere() {
    const absl::StatusOr<Message> message = there_.Read();
    if (!message.ok()) return {message.status().ToString()};
    return {message->parts().begin(), message->parts().end()};
  }

  MessageChannel here_;
  MessageChannel there_;

 private:
  const std::map<int, std::string> open_before_;
};

// Two connected sockets without a channel.
std::array<FileDescriptor, 2> SocketPair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) abort();
  return {FileDescriptor(ends[0]), FileDescriptor(ends[1])};
}

// The two ends of a pipe: `read` and `write`.
struct Pipe {
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) abort();
    read.Reset(ends[0]);
    write.Reset(ends[1]);
  }

  FileDescriptor read;
  FileDescriptor write;
};

std::string ReadAll(int fd) {
  std::string all;
  char piece[256];
  ssize_t got;
  while ((got = read(fd, piece, sizeof(piece))) > 0) {
    all.append(piece, static_cast<size_t>(got));
  }
  return all;
}

bool IsSameFile(int a, int b) {
  struct stat of_a;
  struct stat of_b;
  return fstat(a, &of_a) == 0 && fstat(b, &of_b) == 0 &&
         of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

// Runs `body` in a forked process, whose exit status says whether it returned
// true.
pid_t Fork(const std::function<bool()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body() ? 0 : 1);
  return child;
}

bool Succeeded(pid_t child) {
  int status = -1;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

// Lets `free_descriptors` more be opened, until it is destroyed.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t free_descriptors) {
    getrlimit(RLIMIT_NOFILE, &before_);
    // The lowest free number: all below it are taken.
    const int lowest = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
    if (lowest < 0) abort();
    close(lowest);
    rlimit lowered = before_;
    lowered.rlim_cur = static_cast<rlim_t>(lowest) + free_descriptors;
    if (setrlimit(RLIMIT_NOFILE, &lowered) != 0) abort();
  }
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;
  ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_;
};

// --- twins of the original's own tests, with their numbers ---

TEST_F(MessageChannelTest, CarriesAnArrayMessage) {  // 21
  ASSERT_THAT(here_.Write("hello", "world", "!"), IsOk());
  EXPECT_THAT(ReadThere(), ElementsAre("hello", "world", "!"));
}

TEST_F(MessageChannelTest, CarriesAnArrayMessageWithSpaces) {  // 22
  ASSERT_THAT(here_.Write("hello world", "! "), IsOk());
  EXPECT_THAT(ReadThere(), ElementsAre("hello world", "! "));
}

TEST_F(MessageChannelTest, CountsWhatGoesThroughWhole) {
  auto [socket, peer] = SocketPair();
  MessageChannel channel(std::move(socket));
  const FileDescriptor null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_THAT(channel.Write("small"), IsOk());
  ASSERT_THAT(channel.Write(std::string(100000, 'x'), null, null), IsOk());
  ASSERT_THAT(channel.WriteScalar("bytes"), IsOk());
  int in_socket = 0;
  ASSERT_EQ(ioctl(peer.get(), FIONREAD, &in_socket), 0);
  const MessageChannel::BothWays sent = channel.TakeTraffic();
  EXPECT_EQ(sent.written.bytes, static_cast<uint64_t>(in_socket));
  EXPECT_EQ(sent.written.descriptors, 2u);
  EXPECT_EQ(sent.read.bytes, 0u);

  MessageChannel reader(std::move(peer));
  std::string scalar;
  ASSERT_THAT(reader.Read(), IsOk());
  ASSERT_THAT(reader.Read(), IsOk());
  const MessageChannel::BothWays before = reader.TakeTraffic();
  EXPECT_LT(before.read.bytes, sent.written.bytes);
  EXPECT_EQ(before.read.descriptors, 2u);
  ASSERT_THAT(reader.ReadScalar(scalar), IsOk());
  ASSERT_THAT(channel.Write("more"), IsOk());
  ASSERT_THAT(reader.Read(), IsOk());
  const uint64_t more = channel.TakeTraffic().written.bytes;
  // What was read is known also when the channel is closed.
  reader.Close();
  const MessageChannel::BothWays got = reader.TakeTraffic();
  EXPECT_GT(got.read.bytes, more);
  EXPECT_EQ(got.read.descriptors, 0u);
  EXPECT_EQ(got.written.bytes, 0u);
  EXPECT_EQ(reader.TakeTraffic().read.bytes, 0u);
  // One that did not go through, and never will, is none.
  EXPECT_FALSE(channel.Write("lost").ok());
  EXPECT_EQ(channel.TakeTraffic().written.bytes, 0u);
}

TEST_F(MessageChannelTest, CarriesOneEmptyStringAsAMessage) {  // 23
  ASSERT_THAT(here_.Write(""), IsOk());
  EXPECT_THAT(ReadThere(), ElementsAre(""));
}

TEST_F(MessageChannelTest, CarriesEmptyArgumentsWhereverTheyStand) {  // 24
  ASSERT_THAT(here_.Write("hello", "", ""), IsOk());
  ASSERT_THAT(here_.Write("", "hello", ""), IsOk());
  ASSERT_THAT(here_.Write("", "", "hello"), IsOk());
  EXPECT_THAT(ReadThere(), ElementsAre("hello", "", ""));
  EXPECT_THAT(ReadThere(), ElementsAre("", "hello", ""));
  EXPECT_THAT(ReadThere(), ElementsAre("", "", "hello"));
}

TEST_F(MessageChannelTest, SaysThatTheStreamEndsWhereAnArrayIsDue) {  // 25
  here_.Close();
  EXPECT_THAT(there_.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_THAT(there_.Read(), FailsWith(reason::kEndOfStream));
}

TEST_F(MessageChannelTest, CarriesAMapOfKeysAndValues) {  // 26
  const absl::btree_map<std::string, std::string> entries = {
      {"hello", "world"}, {"", "empty key"}, {"empty value", ""}};
  ASSERT_THAT(here_.WriteMap(entries), IsOk());
  ASSERT_THAT(here_.WriteMap({}), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto got, there_.ReadMap());
  EXPECT_EQ(got, entries);
  ASSERT_OK_AND_ASSIGN(const auto none, there_.ReadMap());
  EXPECT_THAT(none, IsEmpty());
}

TEST_F(MessageChannelTest, RefusesAMapOfAnOddNumberOfParts) {  // 27
  ASSERT_THAT(here_.Write("hello", "world", "oops"), IsOk());
  ASSERT_THAT(here_.Write("key", "first", "key", "second"), IsOk());
  EXPECT_THAT(there_.ReadMap(), FailsWith(reason::kInvalidArguments));
  ASSERT_OK_AND_ASSIGN(auto got, there_.ReadMap());
  EXPECT_EQ(got["key"], "second");
}

TEST_F(MessageChannelTest, CarriesAScalarOfAnyBytes) {  // 28
  const std::string bytes("hello\0world\xff\n", 13);
  ASSERT_THAT(here_.WriteScalar(bytes), IsOk());
  std::string got;
  ASSERT_THAT(there_.ReadScalar(got), IsOk());
  EXPECT_EQ(got, bytes);
}

TEST_F(MessageChannelTest, CarriesAnEmptyScalar) {  // 29
  ASSERT_THAT(here_.WriteScalar(""), IsOk());
  std::string got = "before";
  ASSERT_THAT(there_.ReadScalar(got), IsOk());
  EXPECT_EQ(got, "");
}

TEST_F(MessageChannelTest, SaysThatTheStreamEndsWhereAScalarIsDue) {  // 30
  here_.Close();
  std::string got = "before";
  EXPECT_THAT(there_.ReadScalar(got), FailsWith(reason::kEndOfStream));
  EXPECT_EQ(got, "before");
}

TEST_F(MessageChannelTest, ReadsAScalarIntoTheCallersMemory) {  // 31
  std::string got;
  got.reserve(1000);
  const char* const memory = got.data();
  ASSERT_THAT(here_.WriteScalar(std::string(500, 'x')), IsOk());
  ASSERT_THAT(there_.ReadScalar(got), IsOk());
  EXPECT_EQ(got, std::string(500, 'x'));
  EXPECT_EQ(got.data(), memory);
}

TEST_F(MessageChannelTest, RefusesAScalarOverTheCallersMaximum) {  // 32
  std::string got = "before";
  ASSERT_THAT(here_.WriteScalar(std::string(100, 'x')), IsOk());
  ASSERT_THAT(here_.WriteScalar(std::string(100, 'y')), IsOk());
  EXPECT_THAT(there_.ReadScalar(got, 99), FailsWith(reason::kFrameTooLarge));
  EXPECT_EQ(got, "before");
  // It came whole, so the next one can be read.
  ASSERT_THAT(there_.ReadScalar(got, 100), IsOk());
  EXPECT_EQ(got, std::string(100, 'y'));
}

TEST_F(MessageChannelTest, EchoesBetweenTwoProcesses) {  // 33
  const pid_t child = Fork([this] {
    here_.Close();
    absl::StatusOr<Message> message = there_.Read();
    return message.ok() && there_.Write(*message).ok();
  });
  there_.Close();
  ASSERT_THAT(here_.Write("hello", "my!", "name", "is \0"), IsOk());
  ASSERT_OK_AND_ASSIGN(const Message echo, here_.Read());
  EXPECT_THAT(echo.parts(), ElementsAre("hello", "my!", "name", "is "));
  EXPECT_THAT(here_.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_TRUE(Succeeded(child));
}

TEST_F(MessageChannelTest, CarriesThreeBinaryFiles) {  // 34
  std::vector<std::string> files;
  for (size_t i = 0; i < 3; ++i) {
    std::string file;
    // All values of a byte in changing neighbourhoods, larger than the socket's
    // buffer.
    for (size_t j = 0; j < 300'000 + i; ++j) {
      file.push_back(static_cast<char>(j * (2 * i + 1) + j / 256));
    }
    files.push_back(std::move(file));
  }
  std::thread writer([&] {
    for (const std::string& file : files) {
      EXPECT_THAT(here_.WriteScalar(file), IsOk());
    }
  });
  std::vector<std::string> got(3);
  for (std::string& file : got) EXPECT_THAT(there_.ReadScalar(file), IsOk());
  writer.join();
  EXPECT_TRUE(got == files);
}

TEST_F(MessageChannelTest, PassesADescriptorToAnotherProcess) {  // 35
  const Pipe from_child;
  const pid_t child = Fork([this] {
    here_.Close();
    absl::StatusOr<FileDescriptor> passed = there_.ReadDescriptor();
    return passed.ok() && write(passed->get(), "hello", 5) == 5;
  });
  ASSERT_THAT(here_.WriteDescriptor(from_child.write), IsOk());
  char got[6] = {};
  EXPECT_EQ(read(from_child.read.get(), got, 5), 5);
  EXPECT_STREQ(got, "hello");
  EXPECT_TRUE(Succeeded(child));
}

TEST_F(MessageChannelTest, ReadsValuesAsAMessageHasThem) {
  const Pipe pipe;
  const std::string text(200, 'x');
  for (int i = 0; i < 2; ++i) {
    ASSERT_THAT(here_.Write(text, pipe.read, 42, ""), IsOk());
    ASSERT_THAT(here_.Write("one", "two"), IsOk());
    ASSERT_THAT(here_.WriteScalar("one"), IsOk());
  }
  ASSERT_OK_AND_ASSIGN(
      const auto values,
      (there_.ReadUnpacked<std::string, FileDescriptor, int, std::string>()));
  EXPECT_EQ(std::get<0>(values), text);
  EXPECT_TRUE(std::get<1>(values).is_open());
  EXPECT_EQ(std::get<2>(values), 42);
  EXPECT_EQ(std::get<3>(values), "");
  const auto unfit = there_.ReadUnpacked<std::string, int>();
  const auto scalar = there_.ReadUnpacked<std::string>();
  EXPECT_THAT(unfit, FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(scalar, FailsWith(reason::kUnexpectedFrame));

  ASSERT_OK_AND_ASSIGN(Message message, there_.Read());
  EXPECT_THAT((message.Unpack<std::string, FileDescriptor, int, std::string>()),
              IsOk());
  ASSERT_OK_AND_ASSIGN(message, there_.Read());
  EXPECT_EQ((message.Unpack<std::string, int>()).status(), unfit.status());
  EXPECT_EQ(there_.Read().status(), scalar.status());
}

TEST_F(MessageChannelTest, CarriesAThousandMessagesOf3072Bytes) {  // 36
  const std::string text(3072, 'x');
  std::thread writer([&] {
    for (int i = 0; i < 1000; ++i) {
      EXPECT_THAT(here_.Write(i, text), IsOk());
    }
  });
  for (int i = 0; i < 1000; ++i) {
    absl::StatusOr<Message> message = there_.Read();
    EXPECT_THAT(message, IsOk());
    if (!message.ok()) break;
    auto values = message->Unpack<int, std::string_view>();
    EXPECT_TRUE(values.ok() && *values == std::make_tuple(i, text));
  }
  writer.join();
  here_.Close();
  EXPECT_THAT(there_.Read(), FailsWith(reason::kEndOfStream));
}

TEST_F(MessageChannelTest, KeepsKindsInOrderThereAndBack) {  // 37
  const Pipe pipe;
  const pid_t child = Fork([&] {
    here_.Close();
    std::string first;
    std::string second;
    absl::StatusOr<Message> array = there_.Read();
    if (!array.ok() || !there_.ReadScalar(first).ok()) return false;
    absl::StatusOr<FileDescriptor> passed = there_.ReadDescriptor();
    if (!passed.ok() || !there_.ReadScalar(second).ok()) return false;
    return there_.WriteScalar(second).ok() &&
           there_.WriteDescriptor(*passed).ok() &&
           there_.WriteScalar(first).ok() && there_.Write(*array).ok();
  });
  ASSERT_THAT(here_.Write("hello", "world"), IsOk());
  ASSERT_THAT(here_.WriteScalar("foo"), IsOk());
  ASSERT_THAT(here_.WriteDescriptor(pipe.read), IsOk());
  ASSERT_THAT(here_.WriteScalar("bar"), IsOk());
  std::string got;
  ASSERT_THAT(here_.ReadScalar(got), IsOk());
  EXPECT_EQ(got, "bar");
  ASSERT_OK_AND_ASSIGN(const FileDescriptor returned, here_.ReadDescriptor());
  EXPECT_TRUE(IsSameFile(returned.get(), pipe.read.get()));
  ASSERT_THAT(here_.ReadScalar(got), IsOk());
  EXPECT_EQ(got, "foo");
  ASSERT_OK_AND_ASSIGN(const Message array, here_.Read());
  EXPECT_THAT(array.parts(), ElementsAre("hello", "world"));
  EXPECT_TRUE(Succeeded(child));
}

// --- the ends of a conversation ---

TEST_F(MessageChannelTest, ReadsWhatWasWrittenBeforeThePeerClosed) {
  ASSERT_THAT(here_.Write("last words"), IsOk());
  here_.Close();
  EXPECT_THAT(ReadThere(), ElementsAre("last words"));
  EXPECT_THAT(there_.Read(), FailsWith(reason::kEndOfStream));
}

TEST_F(MessageChannelTest, TellsAnEndInsideAMessageFromOneBetweenTwo) {
  auto [raw, socket] = SocketPair();
  MessageChannel channel(std::move(socket));
  ASSERT_EQ(write(raw.get(), "\x05\x1a", 2), 2);
  raw.Reset();
  EXPECT_THAT(channel.Read(), FailsWith(reason::kConnectionLost));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kConnectionLost));
}

TEST_F(MessageChannelTest, IsClosedFromTheStartWithoutASocket) {
  MessageChannel none;
  std::string scalar;
  EXPECT_FALSE(none.is_open());
  EXPECT_EQ(none.transport(), nullptr);
  EXPECT_THAT(none.Write("hello"), FailsWith(reason::kChannelClosed));
  EXPECT_THAT(none.Write(Message()), FailsWith(reason::kChannelClosed));
  EXPECT_THAT(none.WriteMap({}), FailsWith(reason::kChannelClosed));
  EXPECT_THAT(none.WriteScalar(""), FailsWith(reason::kChannelClosed));
  EXPECT_THAT(none.WriteError(absl::InternalError("x")),
              FailsWith(reason::kChannelClosed));
  EXPECT_THAT(none.Read(), FailsWith(reason::kChannelClosed));
  EXPECT_THAT(none.ReadMap(), FailsWith(reason::kChannelClosed));
  EXPECT_THAT(none.ReadScalar(scalar), FailsWith(reason::kChannelClosed));
  EXPECT_THAT(none.ReadDescriptor(), FailsWith(reason::kChannelClosed));
  none.ShutDown();
  none.Close();
}

TEST_F(MessageChannelTest, IsClosedAfterItWasMovedFrom) {
  ASSERT_THAT(there_.Write("a"), IsOk());
  ASSERT_THAT(there_.Write("b"), IsOk());
  ASSERT_THAT(here_.Read(), IsOk());  // "b" is in here_'s buffer now.
  MessageChannel moved = std::move(here_);
  EXPECT_THAT(here_.Write("x"), FailsWith(reason::kChannelClosed));
  EXPECT_THAT(here_.Read(), FailsWith(reason::kChannelClosed));
  here_.ShutDown();
  here_.Close();
  ASSERT_OK_AND_ASSIGN(const Message message, moved.Read());
  EXPECT_EQ(message.name(), "b");
  here_ = std::move(moved);
  ASSERT_THAT(here_.Write("c"), IsOk());
  EXPECT_THAT(ReadThere(), ElementsAre("c"));
}

TEST_F(MessageChannelTest, ClosesItsSocketWhenAnotherIsMovedIn) {
  here_ = MessageChannel();
  EXPECT_THAT(there_.Read(), FailsWith(reason::kEndOfStream));
}

TEST_F(MessageChannelTest, RefusesEverythingAfterItWasClosedHere) {
  here_.Close();
  EXPECT_THAT(here_.Write("hello"), FailsWith(reason::kChannelClosed));
  EXPECT_THAT(here_.Read(), FailsWith(reason::kChannelClosed));
}

TEST_F(MessageChannelTest, WritingToAClosedPeerIsAnErrorAndNoSignal) {
  const auto before = signal(SIGPIPE, SIG_DFL);
  there_.Close();
  EXPECT_THAT(here_.Write("hello"), FailsWith(reason::kConnectionLost));
  EXPECT_THAT(here_.Write("hello"), FailsWith(reason::kConnectionLost));
  signal(SIGPIPE, before);
}

TEST_F(MessageChannelTest, ShutDownEndsAReadUnderWayInAnotherThread) {
  std::thread reader(
      [&] { EXPECT_THAT(there_.Read(), FailsWith(reason::kEndOfStream)); });
  there_.ShutDown();
  reader.join();
  EXPECT_THAT(here_.Read(), FailsWith(reason::kEndOfStream));
}

TEST_F(MessageChannelTest, ShutDownEndsAWriteUnderWayInAnotherThread) {
  // More than the socket takes: without the ShutDown it would block for ever.
  std::thread writer([&] {
    EXPECT_THAT(here_.WriteScalar(std::string(8 << 20, 'x')),
                FailsWith(reason::kConnectionLost));
  });
  here_.ShutDown();
  writer.join();
}

// --- time ---

TEST_F(MessageChannelTest, ReadingFromASilentPeerTimesOut) {
  there_.set_timeout(absl::Milliseconds(1));
  EXPECT_THAT(there_.Read(), FailsWith(reason::kTimedOut));
  std::string scalar;
  EXPECT_THAT(there_.ReadScalar(scalar), FailsWith(reason::kTimedOut));
  // Nothing is lost by it.
  ASSERT_THAT(here_.Write("hello"), IsOk());
  EXPECT_THAT(ReadThere(), ElementsAre("hello"));
}

TEST_F(MessageChannelTest, ReadsWhatIsThereWithoutAnyTime) {
  ASSERT_THAT(here_.Write("hello"), IsOk());
  there_.set_timeout(absl::ZeroDuration());
  EXPECT_THAT(ReadThere(), ElementsAre("hello"));
  EXPECT_THAT(there_.Read(), FailsWith(reason::kTimedOut));
  there_.set_timeout(absl::Seconds(-1));
  EXPECT_THAT(there_.Read(), FailsWith(reason::kTimedOut));
}

TEST_F(MessageChannelTest, WritingToAPeerThatDoesNotReadTimesOutForGood) {
  here_.set_timeout(absl::Milliseconds(1));
  EXPECT_THAT(here_.WriteScalar(std::string(8 << 20, 'x')),
              FailsWith(reason::kTimedOut));
  // Half a message is out: another one would be taken for its rest.
  here_.set_timeout(absl::InfiniteDuration());
  EXPECT_THAT(here_.Write("hello"), FailsWith(reason::kTimedOut));
  // The other direction is in step.
  ASSERT_THAT(there_.Write("hello"), IsOk());
  EXPECT_THAT(here_.Read(), IsOk());
}

// --- sizes ---

TEST_F(MessageChannelTest, CarriesTheLargestMessagesBothWays) {
  // 5 bytes of the frame are the scalar's tag and its length.
  const std::string there(here_.limits().max_frame_bytes - 5, 'a');
  const std::string back(here_.limits().max_frame_bytes - 5, 'b');
  std::thread peer([&] {
    std::string got;
    EXPECT_THAT(there_.ReadScalar(got), IsOk());
    EXPECT_TRUE(got == there);
    EXPECT_THAT(there_.WriteScalar(back), IsOk());
  });
  EXPECT_THAT(here_.WriteScalar(there + "a"),
              FailsWith(reason::kFrameTooLarge));
  EXPECT_THAT(here_.WriteScalar(there), IsOk());
  std::string got;
  EXPECT_THAT(here_.ReadScalar(got), IsOk());
  EXPECT_TRUE(got == back);
  peer.join();
}

TEST_F(MessageChannelTest, RefusesToWriteOverTheLimitsAndStaysInStep) {
  ChannelLimits limits;
  limits.max_frame_bytes = 1000;
  limits.max_parts = 3;
  limits.max_descriptors = 1;
  here_.set_limits(limits);
  const Pipe pipe;
  EXPECT_THAT(here_.WriteScalar(std::string(998, 'x')),
              FailsWith(reason::kFrameTooLarge));
  EXPECT_THAT(here_.Write("1", "2", "3", "4"),
              FailsWith(reason::kFrameTooLarge));
  EXPECT_THAT(here_.Write("two", pipe.read, pipe.write),
              FailsWith(reason::kTooManyDescriptors));
  ASSERT_THAT(here_.WriteScalar(std::string(997, 'x')), IsOk());
  ASSERT_THAT(here_.Write("1", "2", "3", pipe.read), IsOk());
  std::string scalar;
  ASSERT_THAT(there_.ReadScalar(scalar), IsOk());
  EXPECT_EQ(scalar.size(), 997u);
  EXPECT_THAT(ReadThere(), ElementsAre("1", "2", "3"));
}

// However it came to stay here, or in the socket.
TEST_F(MessageChannelTest, ClosesWhatAPeerHasAttachedWhenItIsTold) {
  ChannelLimits limits;
  limits.max_descriptors = 1;
  there_.set_limits(limits);
  there_.set_keeps_refused(true);
  const Pipe pipe;
  ASSERT_THAT(here_.Write("refused", pipe.read, pipe.write), IsOk());
  ASSERT_THAT(here_.Write("unread"), IsOk());
  ASSERT_THAT(here_.Write("unread", pipe.read), IsOk());
  ASSERT_THAT(here_.Write("unread"), IsOk());
  ASSERT_THAT(here_.Write("unread", pipe.write), IsOk());
  EXPECT_THAT(there_.Read(), FailsWith(reason::kTooManyDescriptors));
  size_t closed = 0;
  while (!there_.DiscardUnread()) {
    // Again and again, until they are closed.
    EXPECT_FALSE(there_.DiscardUnread());
    closed += there_.unclaimed_descriptors();
    there_.CloseUnclaimed();
    EXPECT_EQ(there_.unclaimed_descriptors(), 0u);
  }
  EXPECT_EQ(closed, 4u);
  EXPECT_THAT(there_.Read(), FailsWith(reason::kChannelClosed));
  // It can still be written to.
  ASSERT_THAT(there_.Write("sorry"), IsOk());
  ASSERT_OK_AND_ASSIGN(const Message sorry, here_.Read());
  EXPECT_THAT(sorry.parts(), ElementsAre("sorry"));
}

TEST_F(MessageChannelTest, TakesNoLimitThatTheKernelOrProtobufCannotHold) {
  ChannelLimits limits;
  limits.max_frame_bytes = SIZE_MAX;
  limits.max_descriptors = SIZE_MAX;
  here_.set_limits(limits);
  there_.set_limits(limits);
  EXPECT_EQ(here_.limits().max_frame_bytes, ChannelLimits::kMostFrameBytes);
  EXPECT_EQ(here_.limits().max_descriptors, 253u);
  const Pipe pipe;
  std::vector<FileDescriptor> too_many;
  for (int i = 0; i < 254; ++i) {
    ASSERT_OK_AND_ASSIGN(FileDescriptor copy,
                         FileDescriptor::DuplicateOf(pipe.read.get()));
    too_many.push_back(std::move(copy));
  }
  Message message({"many"}, std::move(too_many));
  EXPECT_THAT(here_.Write(message), FailsWith(reason::kTooManyDescriptors));
  message.descriptors().pop_back();
  ASSERT_THAT(here_.Write(message), IsOk());
  ASSERT_OK_AND_ASSIGN(const Message got, there_.Read());
  EXPECT_THAT(got.descriptors(), SizeIs(253));
}

// --- errors ---

TEST_F(MessageChannelTest, ReturnsThePeersErrorWithCodeReasonAndText) {
  constexpr Reason kNoSuchDevice{"NoSuchDevice", absl::StatusCode::kNotFound};
  ASSERT_THAT(here_.WriteError(MakeError(kNoSuchDevice, "no düvice ☃ 𝄞")),
              IsOk());
  ASSERT_THAT(here_.WriteError(absl::DataLossError("")), IsOk());
  const absl::Status error = there_.Read().status();
  EXPECT_THAT(error, FailsWith(kNoSuchDevice));
  EXPECT_EQ(error.message(), "no düvice ☃ 𝄞");
  std::string scalar;
  EXPECT_EQ(there_.ReadScalar(scalar), absl::DataLossError(""));
  ASSERT_THAT(here_.Write("in step"), IsOk());
  EXPECT_THAT(ReadThere(), ElementsAre("in step"));
}

TEST_F(MessageChannelTest, AnErrorComesThroughWhereATinyScalarIsDue) {
  ASSERT_THAT(here_.WriteError(absl::InternalError(std::string(4096, 'x'))),
              IsOk());
  std::string scalar;
  EXPECT_EQ(there_.ReadScalar(scalar, 1),
            absl::InternalError(std::string(4096, 'x')));
}

TEST_F(MessageChannelTest, TellsAnEndThatWasSaid) {
  here_.ExpectEnd();
  ASSERT_THAT(here_.Write("call"), IsOk());
  ASSERT_THAT(there_.Read(), IsOk());
  ASSERT_THAT(there_.Write("reply"), IsOk());
  ASSERT_THAT(there_.WriteEnd(), IsOk());
  // Once is enough.
  ASSERT_THAT(there_.WriteEnd(), IsOk());
  EXPECT_THAT(there_.Write("more"), FailsWith(reason::kChannelClosed));
  EXPECT_THAT(here_.Read(), IsOk());
  EXPECT_THAT(here_.Read(), FailsWith(reason::kEndOfStream));
  there_.Close();
  EXPECT_THAT(here_.Read(), FailsWith(reason::kEndOfStream));
}

TEST_F(MessageChannelTest, AnEndThatWasNotSaidIsACut) {
  here_.ExpectEnd();
  ASSERT_THAT(here_.Write("call"), IsOk());
  ASSERT_THAT(there_.Read(), IsOk());
  ASSERT_THAT(there_.Write("reply"), IsOk());
  there_.Close();
  EXPECT_THAT(here_.Read(), IsOk());
  EXPECT_THAT(here_.Read(), FailsWith(reason::kCallCut));
  EXPECT_THAT(here_.Read(), FailsWith(reason::kCallCut));
}

TEST_F(MessageChannelTest, WhoWritesIsToldOfACut) {
  here_.ExpectEnd();
  ASSERT_THAT(here_.Write("call"), IsOk());
  there_.Close();
  EXPECT_THAT(here_.Write("more"), FailsWith(reason::kCallCut));
  EXPECT_THAT(here_.Write("more"), FailsWith(reason::kCallCut));
  EXPECT_THAT(here_.Read(), FailsWith(reason::kCallCut));
}

TEST_F(MessageChannelTest, WhoWritesAfterTheEndCanReadIt) {
  here_.ExpectEnd();
  ASSERT_THAT(here_.Write("call"), IsOk());
  ASSERT_THAT(there_.Read(), IsOk());
  ASSERT_THAT(there_.WriteEnd(), IsOk());
  there_.Close();
  EXPECT_THAT(here_.Write("more"), FailsWith(reason::kConnectionLost));
  EXPECT_THAT(here_.Read(), FailsWith(reason::kEndOfStream));
}

// The kernel tells it in another way.
TEST_F(MessageChannelTest, ACutOfWhatWasNotReadIsOne) {
  here_.ExpectEnd();
  ASSERT_THAT(here_.Write("call"), IsOk());
  there_.Close();
  EXPECT_THAT(here_.Read(), FailsWith(reason::kCallCut));
}

TEST_F(MessageChannelTest, WhatIsLastIsLastForEveryPeer) {
  ASSERT_THAT(here_.Write("call"), IsOk());
  ASSERT_THAT(there_.Read(), IsOk());
  ASSERT_THAT(there_.WriteLast("reply"), IsOk());
  ASSERT_THAT(there_.WriteEnd(), IsOk());
  EXPECT_THAT(there_.Write("more"), FailsWith(reason::kChannelClosed));
  there_.Close();
  EXPECT_THAT(here_.Read(), IsOk());
  EXPECT_THAT(here_.Read(), FailsWith(reason::kEndOfStream));
}

TEST_F(MessageChannelTest, AfterAnErrorNothingNeedCome) {
  here_.ExpectEnd();
  ASSERT_THAT(here_.Write("call"), IsOk());
  ASSERT_THAT(there_.Read(), IsOk());
  ASSERT_THAT(there_.Write("reply"), IsOk());
  ASSERT_THAT(there_.WriteError(absl::NotFoundError("none")), IsOk());
  there_.Close();
  EXPECT_THAT(here_.Read(), IsOk());
  EXPECT_EQ(here_.Read().status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(here_.Read(), FailsWith(reason::kEndOfStream));
}

// A handler may write errors among its replies.
TEST_F(MessageChannelTest, AfterAnErrorMoreMayCome) {
  here_.ExpectEnd();
  ASSERT_THAT(here_.Write("call"), IsOk());
  ASSERT_THAT(there_.Read(), IsOk());
  ASSERT_THAT(there_.WriteError(absl::NotFoundError("none")), IsOk());
  ASSERT_THAT(there_.WriteLast("reply"), IsOk());
  EXPECT_EQ(here_.Read().status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(here_.Read(), IsOk());
  EXPECT_THAT(here_.Read(), FailsWith(reason::kEndOfStream));
}

TEST_F(MessageChannelTest, WhatIsTooLargeToBeLastIsNot) {
  here_.ExpectEnd();
  ASSERT_THAT(here_.Write("call"), IsOk());
  ASSERT_THAT(there_.Read(), IsOk());
  ChannelLimits limits;
  limits.max_frame_bytes = 1000;
  there_.set_limits(limits);
  const absl::Status refused = there_.WriteLast(std::string(2000, 'x'));
  ASSERT_THAT(refused, FailsWith(reason::kFrameTooLarge));
  ASSERT_THAT(there_.WriteError(refused), IsOk());
  EXPECT_THAT(here_.Read(), FailsWith(reason::kFrameTooLarge));
}

TEST_F(MessageChannelTest, TellsNoPeerItsOwnEndAsAnError) {
  // A peer that has ended its side still reads. That it has is no news to it;
  // that more was due is.
  ASSERT_EQ(shutdown(here_.transport()->descriptor(), SHUT_WR), 0);
  const absl::Status end = there_.Read().status();
  ASSERT_THAT(end, FailsWith(reason::kEndOfStream));
  ASSERT_THAT(there_.WriteError(Annotate(end, "message \"x\"")), IsOk());
  const absl::Status told = here_.Read().status();
  EXPECT_THAT(told, FailsWith(reason::kUnexpectedFrame));
  EXPECT_THAT(std::string(told.message()), HasSubstr("message \"x\""));
}

TEST_F(MessageChannelTest, TellsNoPeerThatItWasLostHalfWay) {
  ASSERT_EQ(send(here_.transport()->descriptor(), "\x05\x22", 2, 0), 2);
  ASSERT_EQ(shutdown(here_.transport()->descriptor(), SHUT_WR), 0);
  const absl::Status lost = there_.Read().status();
  ASSERT_THAT(lost, FailsWith(reason::kConnectionLost));
  ASSERT_THAT(there_.WriteError(lost), IsOk());
  EXPECT_THAT(here_.Read(), FailsWith(reason::kMalformedFrame));
}

TEST_F(MessageChannelTest, TellsAPeerTheEndOfAnotherChannel) {
  ASSERT_OK_AND_ASSIGN(auto other, MessageChannel::CreatePair());
  other.first.Close();
  const absl::Status end = other.second.Read().status();
  ASSERT_THAT(there_.WriteError(end), IsOk());
  EXPECT_THAT(here_.Read(), FailsWith(reason::kEndOfStream));
}

TEST_F(MessageChannelTest, CutsLongErrors) {
  ASSERT_THAT(here_.WriteError(MakeError(absl::StatusCode::kInternal,
                                         std::string(129, 'r'),
                                         std::string(4097, 't'))),
              IsOk());
  const absl::Status error = there_.Read().status();
  EXPECT_EQ(ReasonOf(error), std::string(128, 'r'));
  EXPECT_EQ(error.message(), std::string(4096, 't'));
}

TEST_F(MessageChannelTest, AnErrorOfAnyBytesComesThrough) {
  const absl::Status error =
      MakeError(absl::StatusCode::kInternal, "\x80", "not \xff UTF-8");
  ASSERT_THAT(here_.WriteError(error), IsOk());
  EXPECT_EQ(there_.Read().status(), error);
}

TEST_F(MessageChannelTest, WriteReturnsTheErrorThatAClosedPeerLeft) {
  constexpr Reason kRefused{"Refused", absl::StatusCode::kPermissionDenied};
  // Longer than one receive of the channel's takes.
  const std::string text(4096, 'x');
  ASSERT_THAT(here_.Write("never read"), IsOk());
  ASSERT_THAT(there_.WriteError(MakeError(kRefused, text)), IsOk());
  // Closing with unread data makes the kernel report ECONNRESET to the other
  // end, but only after what was sent before (af_unix.c).
  there_.Close();
  const absl::Status status = here_.Write("hello");
  EXPECT_THAT(status, FailsWith(kRefused));
  EXPECT_EQ(status.message(), text);
  EXPECT_THAT(here_.Write("again"), FailsWith(kRefused));
  // Nobody takes what is behind it for an answer.
  EXPECT_THAT(here_.Read(), FailsWith(kRefused));
}

TEST_F(MessageChannelTest, AWriteUnderWayReturnsTheErrorThatThePeerLeft) {
  constexpr Reason kRefused{"Refused", absl::StatusCode::kPermissionDenied};
  std::thread server([&] {
    // The write has begun, and cannot end before the channel is closed.
    char byte;
    EXPECT_EQ(recv(there_.transport()->descriptor(), &byte, 1, 0), 1);
    EXPECT_THAT(there_.WriteError(MakeError(kRefused, "not you")), IsOk());
    there_.Close();
  });
  EXPECT_THAT(here_.WriteScalar(std::string(8 << 20, 'x')),
              FailsWith(kRefused));
  server.join();
}

TEST_F(MessageChannelTest, WhatAClosedPeerLeftCanBeReadAfterAFailedWrite) {
  const Pipe pipe;
  ASSERT_THAT(there_.Write("reply", pipe.read), IsOk());
  ASSERT_THAT(there_.Write("another"), IsOk());
  there_.Close();
  EXPECT_THAT(here_.Write("hello"), FailsWith(reason::kConnectionLost));
  ASSERT_OK_AND_ASSIGN(const Message reply, here_.Read());
  EXPECT_EQ(reply.name(), "reply");
  ASSERT_THAT(reply.descriptors(), SizeIs(1));
  EXPECT_TRUE(IsSameFile(reply.descriptors()[0].get(), pipe.read.get()));
  ASSERT_OK_AND_ASSIGN(const Message another, here_.Read());
  EXPECT_EQ(another.name(), "another");
  EXPECT_THAT(here_.Read(), FailsWith(reason::kEndOfStream));
}

// --- kinds ---

TEST_F(MessageChannelTest, AMessageOfAnotherKindIsRefusedAndTheNextOneRead) {
  const Pipe pipe;
  std::string scalar = "before";
  ASSERT_THAT(here_.WriteScalar("scalar"), IsOk());
  EXPECT_THAT(there_.Read(), FailsWith(reason::kUnexpectedFrame));
  ASSERT_THAT(here_.Write("array", pipe.read), IsOk());
  EXPECT_THAT(there_.ReadScalar(scalar), FailsWith(reason::kUnexpectedFrame));
  EXPECT_EQ(scalar, "before");
  ASSERT_THAT(here_.Write("with a part", pipe.read), IsOk());
  EXPECT_THAT(there_.ReadDescriptor(), FailsWith(reason::kUnexpectedFrame));
  ASSERT_THAT(here_.Write(pipe.read, pipe.write), IsOk());
  EXPECT_THAT(there_.ReadDescriptor(), FailsWith(reason::kUnexpectedFrame));
  ASSERT_THAT(here_.Write(), IsOk());
  EXPECT_THAT(there_.ReadDescriptor(), FailsWith(reason::kUnexpectedFrame));
  ASSERT_THAT(here_.Write("in step"), IsOk());
  EXPECT_THAT(ReadThere(), ElementsAre("in step"));
}

// --- the password ---

TEST_F(MessageChannelTest, AdmitsTheRightPasswordInTheFirstFrameAlone) {
  const Secret password("open sesame");
  here_.PresentPassword(password);
  there_.ExpectPassword(password);
  ASSERT_THAT(here_.Write("hello"), IsOk());
  ASSERT_THAT(here_.Write("again"), IsOk());
  EXPECT_THAT(ReadThere(), ElementsAre("hello"));
  EXPECT_THAT(ReadThere(), ElementsAre("again"));
}

TEST_F(MessageChannelTest, RefusesAnyOtherPassword) {
  const Secret right("open sesame");
  for (const std::string& wrong :
       {std::string(), std::string("o"), std::string("open sesam"),
        std::string("open sesame "), std::string("open sesame\0", 12),
        std::string("open sesamf"), std::string("Open sesame"),
        std::string("open sesameopen sesame")}) {
    ASSERT_OK_AND_ASSIGN(auto ends, MessageChannel::CreatePair());
    auto& [client, server] = ends;
    const Secret presented(wrong);
    client.PresentPassword(presented);
    server.ExpectPassword(right);
    ASSERT_THAT(client.Write("hello"), IsOk());
    ASSERT_THAT(client.Write("again"), IsOk());
    EXPECT_THAT(server.Read(), FailsWith(reason::kInvalidPassword)) << wrong;
    // No second attempt.
    EXPECT_THAT(server.Read(), FailsWith(reason::kInvalidPassword)) << wrong;
  }
}

TEST_F(MessageChannelTest, RefusesAFirstFrameWithoutAPassword) {
  const Pipe pipe;
  const Secret password("open sesame");
  there_.ExpectPassword(password);
  ASSERT_THAT(here_.Write("hello", pipe.read), IsOk());
  EXPECT_THAT(there_.Read(), FailsWith(reason::kInvalidPassword));
}

TEST_F(MessageChannelTest, AdmitsNobodyToAPasswordThatWasNeverSet) {
  const Secret none;
  there_.ExpectPassword(none);
  ASSERT_THAT(here_.Write("hello"), IsOk());
  EXPECT_THAT(there_.Read(), FailsWith(reason::kInvalidPassword));
}

TEST_F(MessageChannelTest, RefusesAPasswordInALaterFrame) {
  const Secret password("open sesame");
  ASSERT_THAT(here_.Write("hello"), IsOk());
  here_.PresentPassword(password);
  ASSERT_THAT(here_.Write("late"), IsOk());
  EXPECT_THAT(ReadThere(), ElementsAre("hello"));
  EXPECT_THAT(there_.Read(), FailsWith(reason::kMalformedFrame));
}

TEST_F(MessageChannelTest, TheRefusedClientsReadSaysThatThePasswordWasWrong) {
  const Secret password("open sesame");
  there_.ExpectPassword(password);
  ASSERT_THAT(here_.Write("hello"), IsOk());
  ASSERT_THAT(there_.WriteError(there_.Read().status()), IsOk());
  there_.Close();
  EXPECT_THAT(here_.Read(), FailsWith(reason::kInvalidPassword));
}

TEST_F(MessageChannelTest, AScalarsMaximumLeavesRoomForThePassword) {
  const Secret password(std::string(10'000, 'p'));
  here_.PresentPassword(password);
  there_.ExpectPassword(password);
  ASSERT_THAT(here_.WriteScalar("x"), IsOk());
  std::string scalar;
  EXPECT_THAT(there_.ReadScalar(scalar, 1), IsOk());
}

// --- descriptors ---

TEST_F(MessageChannelTest, PassesDescriptorsInOrderAndCloseOnExec) {
  const Pipe pipe;
  ASSERT_THAT(here_.Write(pipe.read, "between", pipe.write), IsOk());
  ASSERT_OK_AND_ASSIGN(Message message, there_.Read());
  EXPECT_THAT(message.parts(), ElementsAre("between"));
  ASSERT_THAT(message.descriptors(), SizeIs(2));
  for (const FileDescriptor& descriptor : message.descriptors()) {
    EXPECT_EQ(fcntl(descriptor.get(), F_GETFD), FD_CLOEXEC);
  }
  EXPECT_EQ(write(message.descriptors()[1].get(), "x", 1), 1);
  message.descriptors().pop_back();
  char byte = 0;
  EXPECT_EQ(read(message.descriptors()[0].get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'x');
}

TEST_F(MessageChannelTest, GivesEachOfManyMessagesItsOwnDescriptors) {
  // Read late, so that one receive meets bytes of several messages.
  std::vector<Pipe> pipes(20);
  for (const Pipe& pipe : pipes) {
    ASSERT_THAT(here_.Write("none"), IsOk());
    ASSERT_THAT(here_.Write("one", pipe.read), IsOk());
    ASSERT_THAT(here_.Write("two", pipe.read, pipe.write), IsOk());
  }
  for (const Pipe& pipe : pipes) {
    EXPECT_THAT(ReadThere(), ElementsAre("none"));
    ASSERT_OK_AND_ASSIGN(const Message one, there_.Read());
    ASSERT_THAT(one.descriptors(), SizeIs(1));
    EXPECT_TRUE(IsSameFile(one.descriptors()[0].get(), pipe.read.get()));
    ASSERT_OK_AND_ASSIGN(const Message two, there_.Read());
    ASSERT_THAT(two.descriptors(), SizeIs(2));
    EXPECT_TRUE(IsSameFile(two.descriptors()[1].get(), pipe.write.get()));
  }
}

TEST_F(MessageChannelTest, CarriesADescriptorWithAMessageOfManySends) {
  const Pipe pipe;
  const std::string large(4 << 20, 'x');
  std::thread writer([&] {
    EXPECT_THAT(here_.Write(large, pipe.read), IsOk());
    EXPECT_THAT(here_.Write("next", pipe.write), IsOk());
  });
  for (const int expected : {pipe.read.get(), pipe.write.get()}) {
    absl::StatusOr<Message> message = there_.Read();
    EXPECT_THAT(message, IsOk());
    if (!message.ok()) break;
    EXPECT_THAT(message->descriptors(), SizeIs(1));
    EXPECT_TRUE(IsSameFile(message->descriptors()[0].get(), expected));
  }
  writer.join();
}

TEST_F(MessageChannelTest, RefusesToSendAClosedDescriptorAndStaysInStep) {
  EXPECT_THAT(here_.Write("hello", FileDescriptor()),
              FailsWith(reason::kInvalidArguments));
  // A number that nobody has: the kernel refuses it (EBADF).
  FileDescriptor stale(1'000'000'000);
  EXPECT_FALSE(here_.Write("hello", stale).ok());
  EXPECT_EQ(stale.Release(), 1'000'000'000);
  ASSERT_THAT(here_.Write("in step"), IsOk());
  EXPECT_THAT(ReadThere(), ElementsAre("in step"));
}

TEST_F(MessageChannelTest, LosesOneMessageWhenTheDescriptorTableIsFull) {
  const Pipe pipe;
  for (const rlim_t free_descriptors : {0, 1, 2}) {
    ASSERT_THAT(here_.Write("before", pipe.read), IsOk());
    ASSERT_THAT(here_.Write("lost", pipe.read, pipe.write, pipe.write), IsOk());
    ASSERT_THAT(here_.Write("after", pipe.read), IsOk());
    EXPECT_THAT(ReadThere(), ElementsAre("before"));
    {
      const DescriptorLimit full(free_descriptors);
      EXPECT_THAT(there_.Read(), FailsWith(reason::kDescriptorsTruncated));
    }
    ASSERT_OK_AND_ASSIGN(const Message after, there_.Read());
    EXPECT_THAT(after.parts(), ElementsAre("after"));
    ASSERT_THAT(after.descriptors(), SizeIs(1));
    EXPECT_TRUE(IsSameFile(after.descriptors()[0].get(), pipe.read.get()));
  }
}

TEST_F(MessageChannelTest, RefusesMoreDescriptorsThanItsLimitAndStaysInStep) {
  const Pipe pipe;
  // An odd and an even number: the control message's padding has room for one
  // more that must not come in.
  for (const size_t limit : {0, 1, 2}) {
    ChannelLimits limits;
    limits.max_descriptors = limit;
    there_.set_limits(limits);
    ASSERT_THAT(here_.Write("many", pipe.read, pipe.read, pipe.read), IsOk());
    ASSERT_THAT(here_.Write("none"), IsOk());
    EXPECT_THAT(there_.Read(), FailsWith(reason::kTooManyDescriptors));
    EXPECT_THAT(ReadThere(), ElementsAre("none"));
  }
}

TEST_F(MessageChannelTest, LosesNoDescriptorsRightBehindAFirstFrame) {
  // The first is read under tighter limits than what comes in with it.
  const Secret password("open sesame");
  const Pipe pipe;
  ChannelLimits tight;
  tight.max_descriptors = 16;
  for (size_t count = 17; count <= 100; ++count) {
    std::vector<FileDescriptor> copies;
    while (copies.size() < count) {
      ASSERT_OK_AND_ASSIGN(copies.emplace_back(),
                           FileDescriptor::DuplicateOf(pipe.read.get()));
    }
    const Message many({"many"}, std::move(copies));
    for (int i = 0; i < 24; ++i) {
      ASSERT_OK_AND_ASSIGN(auto ends, MessageChannel::CreatePair());
      auto& [here, there] = ends;
      here.PresentPassword(password);
      there.ExpectPassword(password);
      there.set_limits(tight);
      ASSERT_THAT(here.Write("hello"), IsOk());
      ASSERT_THAT(here.Write(many), IsOk());
      ASSERT_THAT(there.Read(), IsOk());
      there.set_limits({});
      ASSERT_OK_AND_ASSIGN(const Message got, there.Read());
      ASSERT_THAT(got.descriptors(), SizeIs(count));
    }
  }
}

TEST_F(MessageChannelTest, ClosesDescriptorsThatNobodyRead) {
  const Pipe pipe;
  ASSERT_THAT(here_.Write("a", pipe.read), IsOk());
  ASSERT_THAT(here_.Write("b", pipe.read), IsOk());
  // "b"'s may be in the channel, or still in the socket.
  EXPECT_THAT(ReadThere(), ElementsAre("a"));
}

TEST_F(MessageChannelTest, AReaderWaitingForTheLastWriterSeesItGo) {
  // A descriptor that leaked anywhere on its way would keep the pipe open.
  Pipe pipe;
  ASSERT_THAT(here_.Write("take it", pipe.write), IsOk());
  pipe.write.Reset();
  ASSERT_OK_AND_ASSIGN(Message message, there_.Read());
  ASSERT_EQ(write(message.descriptors()[0].get(), "x", 1), 1);
  message = Message();
  EXPECT_EQ(ReadAll(pipe.read.get()), "x");
}

}  // namespace
}  // namespace ward

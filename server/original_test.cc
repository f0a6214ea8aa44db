// The original's own tests of its server (1 to 4) and of its channel (21 to
// 37), under its numbers, in every mode. Those of its collection (5 to 20) are
// in original_collection_test.cc.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/testing/call_server.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using testing::CallServer;
using ::testing::ElementsAre;
using testing::FailsWith;
using testing::IsOk;
using testing::IsOkAndHolds;
using ::testing::Pair;
using testing::RepliesWith;

// --- the server ---

class OriginalServer : public AbstractServer {
 public:
  explicit OriginalServer(ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    DefineMessageHandler("hello",
                         [](MessageChannel& channel, const std::string& name) {
                           return channel.Write("Hello " + name);
                         });
    DefineMessageHandler("random", [](MessageChannel& channel) {
      // NOLINTNEXTLINE(concurrency-mt-unsafe)
      return channel.Write(rand(), rand());
    });
  }
};
WARD_REGISTER_SERVER(OriginalServer);

class OriginalServerTest : public testing::ServerTest<OriginalServer> {};

TEST_F(OriginalServerTest, Original01_TheRandomStateDiffersInEachServer) {
  OriginalServer other;
  ASSERT_THAT(other.Start(), IsOk());
  ASSERT_OK_AND_ASSIGN(const Message here, Call("random"));
  ASSERT_OK_AND_ASSIGN(const Message there, CallServer(other, "random"));
  EXPECT_NE(std::make_pair(here[0], here[1]),
            std::make_pair(there[0], there[1]));
  EXPECT_THAT(other.Stop(), IsOk());
}

TEST_F(OriginalServerTest, Original02_AWrongPasswordGetsAnError) {
  ServerOptions options;
  options.socket_filename = server().socket_filename();
  options.password = Secret("a wrong one");
  OriginalServer stranger(std::move(options));
  EXPECT_THAT(CallServer(stranger, "hello", "Joe"),
              FailsWith(reason::kInvalidPassword));
}

TEST_F(OriginalServerTest, Original03_StopsAndStartsThreeTimesOver) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Call("hello", "Joe"), RepliesWith("Hello Joe"));
    ASSERT_THAT(server().Stop(), IsOk());
    EXPECT_FALSE(server().started());
    ASSERT_THAT(server().Start(), IsOk());
  }
  EXPECT_THAT(Call("hello", "Jack"), RepliesWith("Hello Jack"));
}

TEST_F(OriginalServerTest, Original04_ASecondStartIsRefused) {
  EXPECT_THAT(server().Start(), FailsWith(reason::kServerAlreadyStarted));
  EXPECT_THAT(Call("hello", "Joe"), RepliesWith("Hello Joe"));
}

// --- the channel ---

class OriginalChannelTest : public testing::ServerTestBase {
 protected:
  void SetUp() override {
    auto ends = environment().CreateTransportPair();
    ASSERT_THAT(ends, IsOk());
    writer_ = MessageChannel(std::move(ends->first));
    reader_ = MessageChannel(std::move(ends->second));
  }

  void TearDown() override {
    writer_.Close();
    reader_.Close();
    ServerTestBase::TearDown();
  }

  // Runs `body` in a process of its own, with the reader's end.
  std::unique_ptr<Process> InAnotherProcess(
      absl::AnyInvocable<absl::Status(MessageChannel&)> body) {
    auto ends = environment().CreateTransportPair();
    EXPECT_THAT(ends, IsOk());
    writer_ = MessageChannel(std::move(ends->first));
    ForkOptions options;
    options.keep_open = {ends->second->descriptor()};
    auto process = environment().Fork(
        options,
        [body = std::move(body), end = std::move(ends->second)]() mutable {
          MessageChannel channel(std::move(end));
          return body(channel).ok() ? 0 : 1;
        });
    EXPECT_THAT(process, IsOk());
    return *std::move(process);
  }

  static void ExpectSuccess(Process& process) {
    const auto exit = process.Wait(absl::InfiniteFuture());
    ASSERT_THAT(exit, IsOk());
    EXPECT_TRUE(exit->clean()) << exit->ToString();
  }

  MessageChannel writer_;
  MessageChannel reader_;
};

TEST_F(OriginalChannelTest, Original21_ArrayMessage) {
  ASSERT_THAT(writer_.Write("abcd", "efgh"), IsOk());
  EXPECT_THAT(reader_.Read(), RepliesWith("abcd", "efgh"));
}

TEST_F(OriginalChannelTest, Original22_ArrayMessageWithSpaces) {
  ASSERT_THAT(writer_.Write("a ", " b", "c d"), IsOk());
  EXPECT_THAT(reader_.Read(), RepliesWith("a ", " b", "c d"));
}

TEST_F(OriginalChannelTest, Original23_ArrayMessageOfOneEmptyString) {
  ASSERT_THAT(writer_.Write(""), IsOk());
  EXPECT_THAT(reader_.Read(), RepliesWith(""));
}

TEST_F(OriginalChannelTest, Original24_ArrayMessageWithEmptyArguments) {
  ASSERT_THAT(writer_.Write("hello", "", "world", ""), IsOk());
  EXPECT_THAT(reader_.Read(), RepliesWith("hello", "", "world", ""));
}

TEST_F(OriginalChannelTest, Original25_ArrayAtTheEndOfTheStream) {
  writer_.Close();
  EXPECT_THAT(reader_.Read(), FailsWith(reason::kEndOfStream));
}

TEST_F(OriginalChannelTest, Original26_KeyAndValueMessage) {
  ASSERT_THAT(writer_.WriteMap({{"a", "b"}, {"key", "the value"}}), IsOk());
  EXPECT_THAT(
      reader_.ReadMap(),
      IsOkAndHolds(ElementsAre(Pair("a", "b"), Pair("key", "the value"))));
}

TEST_F(OriginalChannelTest, Original27_KeyWithoutAValueIsRefused) {
  ASSERT_THAT(writer_.Write("a", "b", "key"), IsOk());
  EXPECT_THAT(reader_.ReadMap(), FailsWith(reason::kInvalidArguments));
}

TEST_F(OriginalChannelTest, Original28_ScalarMessage) {
  ASSERT_THAT(writer_.WriteScalar("hello world"), IsOk());
  std::string scalar;
  EXPECT_THAT(reader_.ReadScalar(scalar), IsOk());
  EXPECT_EQ(scalar, "hello world");
}

TEST_F(OriginalChannelTest, Original29_EmptyScalarMessage) {
  ASSERT_THAT(writer_.WriteScalar(""), IsOk());
  std::string scalar = "something else";
  EXPECT_THAT(reader_.ReadScalar(scalar), IsOk());
  EXPECT_EQ(scalar, "");
}

TEST_F(OriginalChannelTest, Original30_ScalarAtTheEndOfTheStream) {
  writer_.Close();
  std::string scalar;
  EXPECT_THAT(reader_.ReadScalar(scalar), FailsWith(reason::kEndOfStream));
}

TEST_F(OriginalChannelTest, Original31_ScalarIntoTheCallersBuffer) {
  ASSERT_THAT(writer_.WriteScalar(std::string(100, 'x')), IsOk());
  std::string scalar;
  scalar.reserve(1000);
  const char* const memory = scalar.data();
  EXPECT_THAT(reader_.ReadScalar(scalar), IsOk());
  EXPECT_EQ(scalar, std::string(100, 'x'));
  EXPECT_EQ(scalar.data(), memory);
}

TEST_F(OriginalChannelTest, Original32_ScalarOverItsMaximumIsRefused) {
  ASSERT_THAT(writer_.WriteScalar(std::string(100, 'x')), IsOk());
  std::string scalar;
  EXPECT_THAT(reader_.ReadScalar(scalar, /*max_size=*/99),
              FailsWith(reason::kFrameTooLarge));
}

absl::Status Echo(MessageChannel& channel) {
  WARD_ASSIGN_OR_RETURN(const Message message, channel.Read());
  return channel.Write(message);
}

TEST_F(OriginalChannelTest, Original33_EchoBetweenTwoProcesses) {
  const std::unique_ptr<Process> process = InAnotherProcess(Echo);
  ASSERT_THAT(writer_.Write("hello", "my", "world"), IsOk());
  EXPECT_THAT(writer_.Read(), RepliesWith("hello", "my", "world"));
  ExpectSuccess(*process);
}

// Of all bytes, at sizes around those of pages and of sockets' buffers.
std::vector<std::string> BinaryFiles() {
  std::vector<std::string> files;
  std::mt19937 random(1);
  for (const size_t size : {size_t{4096}, size_t{65537}, size_t{300000}}) {
    std::string& file = files.emplace_back();
    while (file.size() < size) file.push_back(static_cast<char>(random()));
  }
  return files;
}

TEST_F(OriginalChannelTest, Original34_ThreeBinaryFiles) {
  const std::unique_ptr<Process> process =
      InAnotherProcess([](MessageChannel& channel) -> absl::Status {
        for (const std::string& file : BinaryFiles()) {
          std::string scalar;
          WARD_RETURN_IF_ERROR(channel.ReadScalar(scalar));
          if (scalar != file) return absl::DataLossError("it differs");
          WARD_RETURN_IF_ERROR(channel.WriteScalar(scalar));
        }
        return absl::OkStatus();
      });
  for (const std::string& file : BinaryFiles()) {
    ASSERT_THAT(writer_.WriteScalar(file), IsOk());
    std::string scalar;
    ASSERT_THAT(writer_.ReadScalar(scalar), IsOk());
    EXPECT_EQ(scalar, file);
  }
  ExpectSuccess(*process);
}

// What a pipe's reading end gets when `text` is written to its other end.
void ExpectConnected(const FileDescriptor& in, const FileDescriptor& out,
                     std::string_view text) {
  ASSERT_EQ(write(out.get(), text.data(), text.size()),
            static_cast<ssize_t>(text.size()));
  std::array<char, 100> got;
  const ssize_t size = read(in.get(), got.data(), got.size());
  ASSERT_GE(size, 0);
  EXPECT_EQ(std::string_view(got.data(), static_cast<size_t>(size)), text);
}

TEST_F(OriginalChannelTest, Original35_DescriptorPassing) {
  std::array<int, 2> ends;
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const FileDescriptor in(ends[0]);
  FileDescriptor out(ends[1]);
  ASSERT_THAT(writer_.WriteDescriptor(out), IsOk());
  out.Reset();
  ASSERT_OK_AND_ASSIGN(const FileDescriptor received, reader_.ReadDescriptor());
  ExpectConnected(in, received, "hello");
}

TEST_F(OriginalChannelTest, Original36_AThousandMessagesOf3072Bytes) {
  constexpr int kMessages = 1000;
  const std::unique_ptr<Process> process =
      InAnotherProcess([](MessageChannel& channel) -> absl::Status {
        for (int i = 0; i < kMessages; ++i) {
          WARD_RETURN_IF_ERROR(Echo(channel));
        }
        return absl::OkStatus();
      });
  const std::string part(1024, 'x');
  for (int i = 0; i < kMessages; ++i) {
    ASSERT_THAT(writer_.Write(part, part, part), IsOk());
    ASSERT_THAT(writer_.Read(), RepliesWith(part, part, part));
  }
  ExpectSuccess(*process);
}

TEST_F(OriginalChannelTest, Original37_AllKindsInTurnAndInReverse) {
  const std::unique_ptr<Process> process =
      InAnotherProcess([](MessageChannel& channel) -> absl::Status {
        WARD_ASSIGN_OR_RETURN(const Message array, channel.Read());
        std::string first;
        WARD_RETURN_IF_ERROR(channel.ReadScalar(first));
        WARD_ASSIGN_OR_RETURN(const FileDescriptor descriptor,
                              channel.ReadDescriptor());
        std::string second;
        WARD_RETURN_IF_ERROR(channel.ReadScalar(second));

        WARD_RETURN_IF_ERROR(channel.WriteScalar(second));
        WARD_RETURN_IF_ERROR(channel.WriteDescriptor(descriptor));
        WARD_RETURN_IF_ERROR(channel.WriteScalar(first));
        return channel.Write(array);
      });
  std::array<int, 2> ends;
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const FileDescriptor in(ends[0]);
  const FileDescriptor out(ends[1]);
  ASSERT_THAT(writer_.Write("hello", "world"), IsOk());
  ASSERT_THAT(writer_.WriteScalar("foo"), IsOk());
  ASSERT_THAT(writer_.WriteDescriptor(out), IsOk());
  ASSERT_THAT(writer_.WriteScalar("bar"), IsOk());

  std::string scalar;
  ASSERT_THAT(writer_.ReadScalar(scalar), IsOk());
  EXPECT_EQ(scalar, "bar");
  ASSERT_OK_AND_ASSIGN(const FileDescriptor received, writer_.ReadDescriptor());
  ExpectConnected(in, received, "through it");
  ASSERT_THAT(writer_.ReadScalar(scalar), IsOk());
  EXPECT_EQ(scalar, "foo");
  EXPECT_THAT(writer_.Read(), RepliesWith("hello", "world"));
  ExpectSuccess(*process);
}

}  // namespace
}  // namespace ward

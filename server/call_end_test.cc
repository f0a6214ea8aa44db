// How a client learns that its call has ended, and how, in every mode.

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/proto/frame.pb.h"
#include "ward/server/abstract_server.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using testing::HasProcesses;
using testing::MovesClock;
using testing::RepliesWith;

constexpr int kElements = 93;

absl::Status WriteElements(MessageChannel& channel) {
  for (int i = 0; i < kElements; ++i) {
    WARD_RETURN_IF_ERROR(channel.Write(i));
  }
  return absl::OkStatus();
}

// Reads all elements; what came instead of the next one.
absl::Status ReadElements(MessageChannel& channel) {
  for (int i = 0; i < kElements; ++i) {
    const auto element = channel.Read();
    WARD_RETURN_IF_ERROR(element.status());
    EXPECT_THAT(element, RepliesWith(std::to_string(i)));
  }
  return channel.Read().status();
}

// Whatever comes.
absl::Status ReadToTheLast(MessageChannel& channel) {
  absl::Status status;
  while (status.ok()) status = channel.Read().status();
  return status;
}

class EndingServer : public Registered<EndingServer> {
 public:
  explicit EndingServer(ServerOptions options = {})
      : Registered(std::move(options)) {
    DefineMessageHandler("nothing", [] { return absl::OkStatus(); });
    DefineMessageHandler("answer",
                         []() -> absl::StatusOr<std::string> { return "42"; });
    DefineMessageHandler("elements", &WriteElements);
    DefineMessageHandler("fail", [](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(WriteElements(channel));
      return absl::DataLossError("no more");
    });
    DefineMessageHandler("some", [](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.WriteError(absl::DataLossError("one")));
      return WriteElements(channel);
    });
    // Until it is killed, or its client has gone.
    DefineMessageHandler("hang", [](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(WriteElements(channel));
      return channel.Read().status();
    });
    DefineMessageHandler("to the end",
                         [this](MessageChannel& channel) -> absl::Status {
                           WARD_RETURN_IF_ERROR(Note("reads"));
                           while (channel.Read().ok()) continue;
                           return WriteElements(channel);
                         });
    DefineMessageHandler("exit", [](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(WriteElements(channel));
      _exit(7);
    });
    DefineMessageHandler("late", [](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(WriteElements(channel));
      while (channel.Write().ok()) absl::SleepFor(absl::Milliseconds(10));
      return absl::OkStatus();
    });
    DefineMessageHandler("close", [](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(WriteElements(channel));
      channel.Close();
      return absl::OkStatus();
    });
    DefineMessageHandler("end", [](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(WriteElements(channel));
      WARD_RETURN_IF_ERROR(channel.WriteEnd());
      channel.Close();
      return absl::OkStatus();
    });
    DefineMessageHandler("keep", [this](MessageChannel& channel) {
      absl::MutexLock lock(&mutex_);
      kept_ = std::move(channel);
      return absl::OkStatus();
    });
    DefineMessageHandler("has kept", [this]() -> absl::StatusOr<bool> {
      absl::MutexLock lock(&mutex_);
      if (kept_.is_open()) return true;
      return MakeError(reason::kChannelClosed, "none is kept");
    });
    DefineMessageHandler("finish", [this](bool say_end) -> absl::Status {
      MessageChannel channel = [this] {
        absl::MutexLock lock(&mutex_);
        return std::move(kept_);
      }();
      WARD_RETURN_IF_ERROR(WriteElements(channel));
      return say_end ? channel.WriteEnd() : absl::OkStatus();
    });
  }

 private:
  absl::Mutex mutex_;
  MessageChannel kept_ ABSL_GUARDED_BY(mutex_);
};

class CallEndTest : public ModesTest {
 protected:
  // A call by a stranger who wants to know its end.
  template <typename... Arguments>
  MessageChannel Begin(const AbstractServer& server,
                       const Arguments&... message) {
    MessageChannel channel = Open(server);
    channel.ExpectEnd();
    EXPECT_THAT(channel.Write(message...), IsOk());
    return channel;
  }

  // By one from before ends were said.
  MessageChannel BeginOld(const AbstractServer& server, std::string_view name) {
    MessageChannel channel = Open(server);
    EXPECT_THAT(channel.Write(name), IsOk());
    return channel;
  }
};

TEST_F(CallEndTest, ASuccessIsSaid) {
  EndingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Begin(server, "nothing").Read(), FailsWith(reason::kEndOfStream));
  MessageChannel answer = Begin(server, "answer");
  EXPECT_THAT(answer.Read(), RepliesWith("42"));
  EXPECT_THAT(answer.Read(), FailsWith(reason::kEndOfStream));
  MessageChannel elements = Begin(server, "elements");
  EXPECT_THAT(ReadElements(elements), FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Connect([](MessageChannel& owners) -> absl::Status {
    WARD_RETURN_IF_ERROR(owners.Write("elements"));
    return ReadElements(owners);
  }),
              FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallEndTest, AFailureIsSaid) {
  EndingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Begin(server, "fail");
  EXPECT_EQ(ReadElements(channel).code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_THAT(Begin(server, "none such").Read(),
              FailsWith(reason::kUnknownMessage));
  EXPECT_THAT(Begin(server, "finish", "perhaps").Read(),
              FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallEndTest, ARefusalIsSaid) {
  EndingServer server(Shared());
  server.set_ignore_password_errors(true);
  ASSERT_THAT(server.Start(), IsOk());
  const Secret wrong("another password");
  MessageChannel channel = RawPeer(path());
  channel.PresentPassword(wrong);
  channel.ExpectEnd();
  EXPECT_THAT(channel.Write("nothing"), IsOk());
  EXPECT_THAT(channel.Read(), FailsWith(reason::kInvalidPassword));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallEndTest, AnErrorAmongTheRepliesIsNotTheEnd) {
  EndingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Begin(server, "some");
  EXPECT_EQ(channel.Read().status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(ReadElements(channel), FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallEndTest, ACallOfAServerThatIsKilledIsCut) {
  if (!HasProcesses()) GTEST_SKIP() << "there is nothing to kill";
  EndingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel stranger = Begin(server, "hang");
  EXPECT_THAT(stranger.Read(), RepliesWith("0"));
  // The kernel tells its client in another way.
  MessageChannel unread = Begin(server, "late");
  EXPECT_THAT(unread.Read(), RepliesWith("0"));
  EXPECT_THAT(unread.Write("more"), IsOk());
  MessageChannel old = BeginOld(server, "hang");
  EXPECT_THAT(old.Read(), RepliesWith("0"));
  EXPECT_THAT(server.Connect([&](MessageChannel& owners) -> absl::Status {
    WARD_RETURN_IF_ERROR(owners.Write("hang"));
    for (int i = 0; i < kElements; ++i) {
      WARD_RETURN_IF_ERROR(owners.Read().status());
    }
    Raise(server, SIGKILL);
    return owners.Read().status();
  }),
              // Who may know how it died says so.
              FailsWith(reason::kCallCut, "killed by signal 9"));
  EXPECT_THAT(ReadToTheLast(stranger), FailsWith(reason::kCallCut));
  EXPECT_THAT(ReadToTheLast(unread), FailsWith(reason::kCallCut));
  EXPECT_THAT(ReadToTheLast(old), FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
}

TEST_F(CallEndTest, AStreamToAServerThatIsKilledIsCut) {
  if (!HasProcesses()) GTEST_SKIP() << "there is nothing to kill";
  EndingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Connect([&](MessageChannel& owners) -> absl::Status {
    WARD_RETURN_IF_ERROR(owners.Write("to the end"));
    WARD_RETURN_IF_ERROR(owners.Write("more"));
    Kill(server);
    return owners.Write("more");
  }),
              FailsWith(reason::kCallCut, "killed by signal 9"));
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
}

TEST_F(CallEndTest, ACallWhoseHandlerEndsTheProcessIsCut) {
  if (!HasProcesses() || MovesClock()) GTEST_SKIP() << "it is the test's, too";
  EndingServer server(Shared());
  EndingServer stranger(Shared());
  for (EndingServer* const client : {&server, &stranger}) {
    ASSERT_THAT(server.Start(), IsOk());
    EXPECT_THAT(
        client->Connect([](MessageChannel& channel) -> absl::Status {
          WARD_RETURN_IF_ERROR(channel.Write("exit"));
          return ReadElements(channel);
        }),
        FailsWith(reason::kCallCut,
                  client == &server ? "exited with code 7" : "has not said"));
    EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
  }
}

TEST_F(CallEndTest, AServerThatStopsSaysSo) {
  ServerOptions options = Shared();
  options.drain_time = kSurely / 2;
  EndingServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel waits = Begin(server, "hang");
  EXPECT_THAT(waits.Read(), IsOk());
  // It has all that was sent, and answers it.
  MessageChannel reads = Begin(server, "to the end");
  EXPECT_THAT(reads.Write("more"), IsOk());
  EXPECT_EQ(AwaitNotes(), "reads\n");
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(ReadToTheLast(waits), FailsWith(reason::kServerStopping));
  EXPECT_THAT(ReadElements(reads), FailsWith(reason::kEndOfStream));
}

// When its time is over it can be told no more.
TEST_F(CallEndTest, ACallThatAStopDoesNotWaitForIsCut) {
  ServerOptions options = Shared();
  options.drain_time = absl::Milliseconds(100);
  EndingServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel late = Begin(server, "late");
  EXPECT_THAT(late.Read(), IsOk());
  EXPECT_THAT(server.Connect([&](MessageChannel& owners) -> absl::Status {
    WARD_RETURN_IF_ERROR(owners.Write("late"));
    WARD_RETURN_IF_ERROR(owners.Read().status());
    EXPECT_THAT(server.Stop(), IsOk());
    return ReadToTheLast(owners);
  }),
              FailsWith(reason::kServerStopping));
  EXPECT_THAT(ReadToTheLast(late), FailsWith(reason::kCallCut));
}

TEST_F(CallEndTest, ACallThatTakesTooLongIsToldSo) {
  ServerOptions options = Shared();
  options.call_timeout = absl::Milliseconds(100);
  EndingServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Begin(server, "late");
  EXPECT_THAT(ReadToTheLast(channel),
              FailsWith(reason::kTimedOut, "call_timeout"));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallEndTest, AHandlerThatClosesItsChannelSaysTheEndItself) {
  EndingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel closed = Begin(server, "close");
  EXPECT_THAT(ReadElements(closed), FailsWith(reason::kCallCut));
  MessageChannel ended = Begin(server, "end");
  EXPECT_THAT(ReadElements(ended), FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallEndTest, AChannelThatWasMovedAwayEndsWhereItIs) {
  EndingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  for (const bool say_end : {true, false}) {
    MessageChannel kept = Begin(server, "keep");
    // Its handler's call is over when the next one is served.
    while (HasReason(Begin(server, "finish", say_end).Read().status(),
                     reason::kChannelClosed)) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    EXPECT_THAT(ReadElements(kept),
                FailsWith(say_end ? reason::kEndOfStream : reason::kCallCut));
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

// With descriptors that nobody has read yet, of which the server has a count.
TEST_F(CallEndTest, AChannelThatWasMovedAwayMayOutliveWhatServedIt) {
  EndingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  proto::Frame keep;
  keep.set_password(std::string(server.password().Expose()));
  keep.mutable_array()->add_part("keep");
  proto::Frame behind;
  behind.mutable_array()->add_part("behind");
  behind.set_descriptors(1);
  std::string bytes;
  for (const proto::Frame& frame : {keep, behind}) {
    const std::string body = frame.SerializeAsString();
    absl::StrAppend(&bytes, Varint(body.size()), body);
  }
  MessageChannel channel = Open(server);
  auto* const connection = const_cast<Transport*>(channel.transport());
  ASSERT_OK_AND_ASSIGN(const FileDescriptor attached,
                       FileDescriptor::DuplicateOf(0));
  ASSERT_THAT(connection->Send(bytes, {attached.get()}, absl::InfiniteFuture()),
              IsOkAndHolds(bytes.size()));
  // It is heard before the server stops.
  while (HasReason(Begin(server, "has kept").Read().status(),
                   reason::kChannelClosed)) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallEndTest, WhatAClientSentTooMuchDoesNotHideTheEnd) {
  EndingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  for (int i = 0; i < 10; ++i) {
    MessageChannel channel = Begin(server, "elements");
    // Nobody reads it.
    (void)channel.Write("elements");
    EXPECT_THAT(ReadElements(channel), FailsWith(reason::kEndOfStream));
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallEndTest, AClientThatHasEndedItsSideIsTold) {
  if (MovesClock()) GTEST_SKIP() << "a socket of the kernel's";
  EndingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  for (const std::string_view name : {"to the end", "elements"}) {
    MessageChannel channel = Begin(server, name);
    ASSERT_EQ(shutdown(channel.transport()->descriptor(), SHUT_WR), 0);
    EXPECT_THAT(ReadElements(channel), FailsWith(reason::kEndOfStream));
  }
  MessageChannel waited_for = Begin(server, "hang");
  ASSERT_EQ(shutdown(waited_for.transport()->descriptor(), SHUT_WR), 0);
  EXPECT_THAT(ReadElements(waited_for), FailsWith(reason::kUnexpectedFrame));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallEndTest, AnOldClientSeesNoEnd) {
  EndingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = BeginOld(server, "elements");
  EXPECT_THAT(ReadElements(channel), FailsWith(reason::kEndOfStream));
  EXPECT_THAT(BeginOld(server, "nothing").Read(),
              FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward

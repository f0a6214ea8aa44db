#include "ward/server/message_handler.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/argument.h"
#include "ward/channel/bulk.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/transport.h"
#include "ward/proto/frame.pb.h"
#include "ward/server/call_context.h"
#include "ward/server/cancellation.h"
#include "ward/server/environment.h"
#include "ward/server/handler_faults.h"
#include "ward/server/owner_handle.h"

namespace ward {
namespace {

// Calls handlers with a message that went over a socket, and reads the reply.
class MessageHandlerTest : public ::testing::Test {
 protected:
  MessageHandlerTest() { Connect(); }

  // Again, after a reply that a handler has returned: it is the last.
  void Connect() {
    auto ends = MessageChannel::CreatePair();
    EXPECT_TRUE(ends.ok()) << ends.status();
    client_ = std::move(ends->first);
    server_ = std::move(ends->second);
  }

  template <typename... Arguments>
  absl::Status Call(const MessageHandler& handler,
                    const Arguments&... arguments) {
    EXPECT_TRUE(client_.Write("name", arguments...).ok());
    auto message = server_.Read();
    EXPECT_TRUE(message.ok()) << message.status();
    return Serve(handler, *std::move(message));
  }

  absl::Status Serve(const MessageHandler& handler, Message message) {
    const PeerCredentials peer{1, 2, 3};
    return handler(CallContext(server_, peer, "name", host_), server_, message);
  }

  std::string Reply() {
    auto reply = client_.Read();
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() && reply->size() == 1 ? (*reply)[0] : "";
  }

  MessageChannel client_;
  MessageChannel server_;
  struct Host : CallContext::Host {
    Environment& environment() override { return Environment::Posix(); }
    bool stopping() override { return is_stopping; }
    void Observe(
        absl::Time /*deadline*/,
        const std::shared_ptr<CallCancellation>& /*cancellation*/) override {}

    bool is_stopping = false;
  };
  Host host_;
};

TEST_F(MessageHandlerTest, GivesTheCallsContextToWhoWantsIt) {
  const auto handler =
      MakeMessageHandler([](const CallContext& context, MessageChannel& channel,
                            std::string_view text) {
        return channel.Write(absl::StrCat(
            text, context.peer().uid, context.stopping(), context.cancelled()));
      });
  EXPECT_TRUE(Call(handler, "a").ok());
  EXPECT_EQ(Reply(), "a200");
  host_.is_stopping = true;
  EXPECT_TRUE(Call(handler, "b").ok());
  EXPECT_EQ(Reply(), "b211");
  const auto alone = MakeMessageHandler(
      [](const CallContext& context, int number) -> absl::StatusOr<int> {
        return context.peer().pid + number;
      });
  EXPECT_TRUE(Call(alone, 41).ok());
  EXPECT_EQ(Reply(), "42");
}

TEST_F(MessageHandlerTest, ACallIsCancelledOnceItsDeadlineHasPassed) {
  const auto handler =
      MakeMessageHandler([this](const CallContext& context, bool cancelled) {
        EXPECT_EQ(context.deadline(), server_.deadline());
        EXPECT_EQ(context.cancelled(), cancelled);
        return absl::OkStatus();
      });
  EXPECT_TRUE(Call(handler, false).ok());
  const absl::Time now = server_.transport()->TimeNow();
  server_.set_deadline(now + absl::Hours(1));
  EXPECT_TRUE(Call(handler, false).ok());
  EXPECT_TRUE(client_.Write("name", true).ok());
  auto message = server_.Read();
  ASSERT_TRUE(message.ok()) << message.status();
  server_.set_deadline(now);
  EXPECT_TRUE(Serve(handler, *std::move(message)).ok());
}

TEST_F(MessageHandlerTest, ConvertsArgumentsToTheParametersOfALambda) {
  const auto handler = MakeMessageHandler(
      [](MessageChannel& channel, std::string_view text, int number, bool truth,
         double fraction, const std::string& more) {
        return channel.Write(absl::StrCat(text, "|", number, "|", truth, "|",
                                          fraction, "|", more));
      });
  EXPECT_TRUE(Call(handler, "a b", -7, true, 0.25, "").ok());
  EXPECT_EQ(Reply(), "a b|-7|1|0.25|");
}

TEST_F(MessageHandlerTest, CallsMemberFunctionsConstAndNot) {
  struct Counter {
    absl::StatusOr<int> Add(int amount) { return count += amount; }
    absl::StatusOr<int> Get() const { return count; }
    int count = 0;
  } counter;
  EXPECT_TRUE(Call(MakeMessageHandler(&counter, &Counter::Add), 5).ok());
  EXPECT_EQ(Reply(), "5");
  Connect();
  EXPECT_TRUE(Call(MakeMessageHandler(&counter, &Counter::Get)).ok());
  EXPECT_EQ(Reply(), "5");
}

TEST_F(MessageHandlerTest, TakesAndReturnsProtobufMessages) {
  const auto handler = MakeMessageHandler(
      [](const proto::Error& request) -> absl::StatusOr<proto::Error> {
        proto::Error reply = request;
        reply.set_code(request.code() + 1);
        return reply;
      });
  proto::Error request;
  request.set_code(41);
  request.set_text("kept");
  EXPECT_TRUE(Call(handler, request).ok());
  proto::Error reply;
  ASSERT_TRUE(reply.ParseFromString(Reply()));
  EXPECT_EQ(reply.code(), 42);
  EXPECT_EQ(reply.text(), "kept");
}

TEST_F(MessageHandlerTest, MovesAttachedDescriptorsIntoParameters) {
  struct stat sent;
  struct stat got {};
  const FileDescriptor file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  fstat(file.get(), &sent);
  const auto handler = MakeMessageHandler(
      [&got](std::string_view before, FileDescriptor attached,
             std::string_view after) -> absl::Status {
        EXPECT_EQ(absl::StrCat(before, after), "ab");
        fstat(attached.get(), &got);
        return absl::OkStatus();
      });
  EXPECT_TRUE(Call(handler, "a", file, "b").ok());
  EXPECT_EQ(got.st_rdev, sent.st_rdev);
}

TEST_F(MessageHandlerTest, GivesAMessageUnconvertedToWhoAsksForIt) {
  const auto handler =
      // NOLINTNEXTLINE(performance-unnecessary-value-param): that is its shape.
      MakeMessageHandler([](MessageChannel& channel, Message message) {
        return channel.Write(absl::StrCat(message.name(), message.size()));
      });
  EXPECT_TRUE(Call(handler, "x", "y").ok());
  EXPECT_EQ(Reply(), "name3");
}

TEST_F(MessageHandlerTest, TellsWhatTheHandlersMessagesHave) {
  const auto handler = [](MessageChannel&, std::string_view, int, double, bool,
                          const proto::Error&, FileDescriptor,
                          const Bulk&) { return absl::OkStatus(); };
  EXPECT_THAT(
      ParametersOf<decltype(handler)>(),
      ::testing::ElementsAre(ParameterKind::kString, ParameterKind::kNumber,
                             ParameterKind::kNumber, ParameterKind::kBool,
                             ParameterKind::kProto, ParameterKind::kDescriptor,
                             ParameterKind::kBulk));
  EXPECT_THAT(ParametersOf<absl::Status (*)(Message)>(),
              ::testing::ElementsAre(ParameterKind::kMessage));
  EXPECT_THAT(ParametersOf<absl::Status (*)(MessageChannel&)>(),
              ::testing::IsEmpty());
}

TEST_F(MessageHandlerTest, IsNotCalledWithArgumentsThatDoNotFit) {
  int calls = 0;
  const auto handler =
      MakeMessageHandler([&calls](int, unsigned char) -> absl::Status {
        ++calls;
        return absl::OkStatus();
      });
  const FileDescriptor file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  for (const absl::Status& status :
       {Call(handler), Call(handler, 1), Call(handler, 1, 2, 3),
        Call(handler, "one", 2), Call(handler, 1, 256), Call(handler, 1, -1),
        Call(handler, 1, 2, file), Call(handler, 1, file)}) {
    EXPECT_TRUE(HasReason(status, reason::kInvalidArguments)) << status;
  }
  EXPECT_EQ(calls, 0);
  EXPECT_TRUE(Call(handler, 1, 255).ok());
  EXPECT_EQ(calls, 1);
}

TEST_F(MessageHandlerTest, SaysWhichArgumentDidNotFitButNotItsValue) {
  const auto handler = MakeMessageHandler(
      [](std::string_view, int) { return absl::OkStatus(); });
  const absl::Status status = Call(handler, "text", "a secret");
  EXPECT_TRUE(absl::StrContains(status.message(), "argument 2")) << status;
  EXPECT_FALSE(absl::StrContains(status.message(), "secret")) << status;
}

// --- what does not compile ---

using internal::HandlerFault;

template <typename Handler>
HandlerFault FaultOf(Handler /*handler*/) {
  return internal::FaultOf<Handler>();
}

struct Handlers {
  absl::Status Plain(int) { return absl::OkStatus(); }
  absl::StatusOr<int> Const(const std::string&) const noexcept { return 1; }
};
absl::Status Free(const CallContext&, MessageChannel&, Message) {
  return absl::OkStatus();
}

TEST(HandlerFaultsTest, NoneHasWhatIsAHandler) {
  EXPECT_EQ(FaultOf(&Handlers::Plain), HandlerFault::kNone);
  EXPECT_EQ(FaultOf(&Handlers::Const), HandlerFault::kNone);
  EXPECT_EQ(FaultOf(&Free), HandlerFault::kNone);
  EXPECT_EQ(FaultOf([](FileDescriptor, std::string_view, const proto::Frame&,
                       bool, Bulk&&) noexcept
                    -> absl::StatusOr<std::tuple<int, FileDescriptor>> {
              return absl::CancelledError();
            }),
            HandlerFault::kNone);
  EXPECT_EQ(FaultOf(std::function<absl::Status(const CallContext&, double)>()),
            HandlerFault::kNone);
  EXPECT_EQ(FaultOf([]() -> absl::StatusOr<OwnerHandle> {
              return absl::CancelledError();
            }),
            HandlerFault::kNone);
}

TEST(HandlerFaultsTest, EachIsTold) {
  EXPECT_EQ(FaultOf([](auto) { return absl::OkStatus(); }),
            HandlerFault::kNoFunction);
  EXPECT_EQ(FaultOf(7), HandlerFault::kNoFunction);
  EXPECT_EQ(FaultOf([i = 0](int) mutable {
              ++i;
              return absl::OkStatus();
            }),
            HandlerFault::kNotConst);
  EXPECT_EQ(FaultOf([](int) { return 1; }), HandlerFault::kResult);
  EXPECT_EQ(FaultOf([](int) {}), HandlerFault::kResult);
  EXPECT_EQ(FaultOf([]() -> absl::StatusOr<std::vector<int>> {
              return absl::CancelledError();
            }),
            HandlerFault::kResult);
  EXPECT_EQ(FaultOf([](int, const CallContext&) { return absl::OkStatus(); }),
            HandlerFault::kContext);
  EXPECT_EQ(FaultOf([](int, MessageChannel&) { return absl::OkStatus(); }),
            HandlerFault::kChannel);
  EXPECT_EQ(FaultOf([](const MessageChannel&) { return absl::OkStatus(); }),
            HandlerFault::kChannel);
  EXPECT_EQ(FaultOf([](Message, int) { return absl::OkStatus(); }),
            HandlerFault::kMessage);
  EXPECT_EQ(FaultOf([](const Message&) { return absl::OkStatus(); }),
            HandlerFault::kMessage);
  EXPECT_EQ(FaultOf([](std::string&) { return absl::OkStatus(); }),
            HandlerFault::kReference);
  EXPECT_EQ(FaultOf([](char) { return absl::OkStatus(); }),
            HandlerFault::kType);
  EXPECT_EQ(FaultOf([](const std::vector<int>&) { return absl::OkStatus(); }),
            HandlerFault::kType);
  EXPECT_FALSE((std::is_constructible_v<Argument, std::nullptr_t>));
}

}  // namespace
}  // namespace ward

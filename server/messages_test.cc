// Messages and their handlers, in every mode.

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
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

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr Reason kOutOfPaper{"OutOfPaper", absl::StatusCode::kDataLoss};

absl::Status Reverse(MessageChannel& channel, const std::string& text) {
  return channel.Write(std::string(text.rbegin(), text.rend()));
}

struct Adder {
  int base;
  absl::StatusOr<int> operator()(int number) const { return base + number; }
};

// A handler of each shape that message_handler.h lists.
class Shapes : public Registered<Shapes> {
 public:
  explicit Shapes(ServerOptions options = {}) : Registered(std::move(options)) {
    DefineMessageHandler("method", &Shapes::Method);
    DefineMessageHandler("const_method", &Shapes::ConstMethod);
    DefineMessageHandler("function", &Reverse);
    DefineMessageHandler("functor", Adder{1000});
    DefineMessageHandler("std_function",
                         std::function<absl::StatusOr<bool>(bool)>(
                             [](bool truth) { return !truth; }));
    DefineMessageHandler("nothing", []() { return absl::OkStatus(); });
    DefineMessageHandler("proto", &Shapes::Proto);
    DefineMessageHandler("log", &Shapes::Log);
    DefineMessageHandler("open", &Shapes::Open);
    DefineMessageHandler("anything", &Shapes::Anything);
    DefineMessageHandler(
        "bounce",
        [](Message message) -> absl::StatusOr<Message> { return message; });
    DefineMessageHandler(
        "numbers",
        [](MessageChannel& channel, int64_t a, uint8_t b, double c, float d,
           std::string_view e) { return channel.Write(a, b, c, d, e); });
    DefineMessageHandler("calls", [this](MessageChannel& channel) {
      return channel.Write(calls_.load());
    });
  }

 private:
  absl::Status Method(MessageChannel& channel, std::string_view name, int age) {
    ++calls_;
    return channel.Write(absl::StrCat(name, " is ", age));
  }
  absl::StatusOr<std::string> ConstMethod(const std::string& a,
                                          const std::string& b) const {
    return a + b;
  }
  absl::StatusOr<proto::Error> Proto(const proto::Error& request) {
    proto::Error reply;
    reply.set_code(request.code() + 1);
    reply.set_text(absl::StrCat("re: ", request.text()));
    return reply;
  }
  absl::Status Log(FileDescriptor where, const std::string& line) {
    ++calls_;
    WriteAll(where.get(), line);
    return absl::OkStatus();
  }
  absl::StatusOr<FileDescriptor> Open(const std::string& file) {
    FileDescriptor opened(open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (!opened.is_open()) {
      return SystemError(errno, absl::StrCat("open ", file));
    }
    return opened;
  }
  absl::Status Anything(MessageChannel& channel, Message message) {
    return channel.Write(message.name(), message.arguments().size(),
                         message.descriptors().size());
  }

  std::atomic<int> calls_{0};
};

class MessagesTest : public ModesTest {
 protected:
  void SetUp() override {
    ModesTest::SetUp();
    server_ = std::make_unique<Shapes>();
    ASSERT_THAT(server_->Start(), IsOk());
  }
  void TearDown() override {
    EXPECT_THAT(server_->Stop(), IsOk());
    server_.reset();
    ModesTest::TearDown();
  }

  std::unique_ptr<Shapes> server_;
};

TEST_F(MessagesTest, AHandlerMayHaveAnyListedShape) {
  EXPECT_THAT(Call(*server_, "method", "Joe", 42), IsOkAndHolds("Joe is 42"));
  EXPECT_THAT(Call(*server_, "const_method", "a", "b"), IsOkAndHolds("ab"));
  EXPECT_THAT(Call(*server_, "function", "abc"), IsOkAndHolds("cba"));
  EXPECT_THAT(Call(*server_, "functor", 7), IsOkAndHolds("1007"));
  EXPECT_THAT(Call(*server_, "std_function", false), IsOkAndHolds("true"));
  // One that returns no value and writes none has no reply.
  EXPECT_THAT(Call(*server_, "nothing"), FailsWith(reason::kEndOfStream));
}

TEST_F(MessagesTest, ArgumentsAreConvertedBothWaysWithoutLoss) {
  const std::string binary("\0\xff\n\0x", 5);
  const absl::StatusOr<Message> reply = CallServer(
      *server_, "numbers", INT64_MIN, uint8_t{255}, 0.1, 1.5e-30F, binary);
  ASSERT_THAT(reply, IsOk());
  EXPECT_THAT(reply->parts(), ElementsAre("-9223372036854775808", "255", "0.1",
                                          "1.5e-30", binary));
}

TEST_F(MessagesTest, ProtobufMessagesGoInAndOut) {
  proto::Error request;
  request.set_code(41);
  request.set_text("hello");
  absl::StatusOr<Message> reply = CallServer(*server_, "proto", request);
  ASSERT_THAT(reply, IsOk());
  const auto values = reply->Unpack<proto::Error>();
  ASSERT_THAT(values, IsOk());
  EXPECT_EQ(std::get<0>(*values).code(), 42);
  EXPECT_EQ(std::get<0>(*values).text(), "re: hello");
  EXPECT_THAT(Call(*server_, "proto", "\xff no protobuf"),
              FailsWith(reason::kInvalidArguments, "protobuf"));
}

TEST_F(MessagesTest, AHandlerWithAMessageGetsEverythingUnconverted) {
  const Pipe pipe = MakePipe();
  const absl::StatusOr<Message> reply =
      CallServer(*server_, "anything", "a", 1, pipe.read, "", pipe.write);
  ASSERT_THAT(reply, IsOk());
  EXPECT_THAT(reply->parts(), ElementsAre("anything", "3", "2"));

  const absl::StatusOr<Message> bounced =
      CallServer(*server_, "bounce", "a", pipe.read);
  ASSERT_THAT(bounced, IsOk());
  EXPECT_THAT(bounced->parts(), ElementsAre("bounce", "a"));
  EXPECT_EQ(bounced->descriptors().size(), 1u);
}

TEST_F(MessagesTest, TheServerWritesToAFileOfTheClients) {
  Pipe pipe = MakePipe();
  EXPECT_THAT(Call(*server_, "log", pipe.write, "a line"),
              FailsWith(reason::kEndOfStream));  // It has no reply.
  // Its copy is closed, as the end of this read shows.
  pipe.write.Reset();
  EXPECT_EQ(ReadToEnd(pipe.read.get()), "a line");
}

TEST_F(MessagesTest, TheServerPassesAnOpenFileBack) {
  const std::string file = directory() + "/file";
  WriteAll(FileDescriptor(open(file.c_str(), O_WRONLY | O_CREAT, 0600)).get(),
           "content");
  const absl::StatusOr<Message> reply = CallServer(*server_, "open", file);
  ASSERT_THAT(reply, IsOk());
  ASSERT_EQ(reply->descriptors().size(), 1u);
  EXPECT_EQ(ReadToEnd(reply->descriptors()[0].get()), "content");
  EXPECT_EQ(fcntl(reply->descriptors()[0].get(), F_GETFD), FD_CLOEXEC);
  ASSERT_EQ(unlink(file.c_str()), 0);
  EXPECT_EQ(CallServer(*server_, "open", file).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(MessagesTest, AMessageThatDoesNotFitIsAnsweredAndTheHandlerNotCalled) {
  const Pipe pipe = MakePipe();
  const auto refused = [](std::string_view text) {
    return FailsWith(reason::kInvalidArguments, text);
  };
  EXPECT_THAT(Call(*server_, "method"), refused("2 arguments"));
  EXPECT_THAT(Call(*server_, "method", "Joe"), refused("got 1 argument"));
  EXPECT_THAT(Call(*server_, "method", "Joe", 1, 2), refused("got 3"));
  EXPECT_THAT(Call(*server_, "method", "Joe", "12x"), refused("argument 2"));
  EXPECT_THAT(Call(*server_, "method", "Joe", ""), refused("argument 2"));
  EXPECT_THAT(Call(*server_, "method", "Joe", INT64_MAX),
              refused("argument 2"));
  EXPECT_THAT(Call(*server_, "method", "Joe", 1.5), refused("argument 2"));
  EXPECT_THAT(Call(*server_, "method", "Joe", 1, pipe.read),
              refused("1 descriptor"));
  EXPECT_THAT(Call(*server_, "log", "a line"), refused("0 descriptors"));
  EXPECT_THAT(Call(*server_, "numbers", 1, 256, 1, 1, ""),
              refused("argument 2"));
  EXPECT_THAT(Call(*server_, "std_function", "yes"), refused("true or false"));
  // It may be a secret.
  EXPECT_THAT(Call(*server_, "method", "Joe", "s3cret").status().message(),
              Not(HasSubstr("s3cret")));
  EXPECT_THAT(Call(*server_, "calls"), IsOkAndHolds("0"));
  EXPECT_THAT(Call(*server_, "method", "Joe", 1), IsOk());
  EXPECT_THAT(Call(*server_, "calls"), IsOkAndHolds("1"));
}

TEST_F(ModesTest, AnUnknownMessageIsAnsweredWithTheKnownOnes) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(std::move(options)) {
      DefineMessageHandler("apple", [] { return absl::OkStatus(); });
    }
  };
  Server server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "pear", 1),
              FailsWith(reason::kUnknownMessage,
                        "\"pear\"; it knows: apple, echo, hold"));
  EXPECT_THAT(Call(server, ""), FailsWith(reason::kUnknownMessage));
  // What a peer calls it gets no further than it is fit for a log.
  const absl::Status strange =
      Call(server, std::string(1000, 'x') + "\n").status();
  EXPECT_THAT(strange, FailsWith(reason::kUnknownMessage, "xxx...\""));
  EXPECT_LT(strange.message().size(), 300u);
  EXPECT_THAT(Call(server, "a\n\xff").status().message(),
              HasSubstr("\"a\\n\\xff\""));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, ASecondDefinitionReplacesTheFirst) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(std::move(options)) {
      DefineMessageHandler("echo", [](MessageChannel& channel) {
        return channel.Write("replaced");
      });
    }
  };
  Server server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo"), IsOkAndHolds("replaced"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, AnErrorOfAHandlerReachesTheClientIntact) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(std::move(options)) {
      DefineMessageHandler(
          "print", [] { return MakeError(kOutOfPaper, "tray 2 is empty"); });
      DefineMessageHandler(
          "plain", [] { return absl::NotFoundError("no reason given"); });
      DefineMessageHandler("late", [](MessageChannel& channel) {
        (void)channel.Write("first");
        return MakeError(kOutOfPaper, "tray 3");
      });
      // Of another connection, not of the client's.
      DefineMessageHandler("lost", [] {
        return MakeError(reason::kConnectionLost, "the printer is gone");
      });
      DefineMessageHandler("ended", [] {
        return MakeError(reason::kEndOfStream, "the printer has hung up");
      });
    }
  };
  Server server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "print"),
              FailsWith(kOutOfPaper, "message \"print\": tray 2 is empty"));
  EXPECT_EQ(Call(server, "plain").status(),
            absl::NotFoundError("message \"plain\": no reason given"));
  EXPECT_THAT(server.Connect([](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("late"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    return channel.Read().status();
  }),
              FailsWith(kOutOfPaper, "tray 3"));
  EXPECT_THAT(Call(server, "lost"),
              FailsWith(reason::kConnectionLost, "the printer is gone"));
  EXPECT_THAT(Call(server, "ended"),
              FailsWith(reason::kEndOfStream, "the printer has hung up"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, AnExceptionOfAHandlerIsAnErrorOfItsClientAlone) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(std::move(options)) {
      DefineMessageHandler("throw", []() -> absl::Status {
        throw std::runtime_error("paper jam");
      });
      DefineMessageHandler("throw_anything",
                           []() -> absl::Status { throw 42; });
    }
  };
  Server server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "throw"),
              FailsWith(reason::kUserCodeThrew, "paper jam"));
  EXPECT_THAT(Call(server, "throw_anything"),
              FailsWith(reason::kUserCodeThrew));
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, TheFirstMessageHasLimitsOfItsOwn) {
  ServerOptions options;
  options.first_message_limits = {1000, 10, 1};
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", std::string(1000, 'x')),
              FailsWith(reason::kFrameTooLarge, "first message"));
  EXPECT_THAT(Call(server, "echo", "", "", "", "", "", "", "", "", "", ""),
              FailsWith(reason::kFrameTooLarge, "parts"));
  const Pipe pipe = MakePipe();
  EXPECT_FALSE(Call(server, "echo", pipe.read, pipe.write).ok());
  // All later ones may be larger.
  EXPECT_THAT(server.Connect([](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("hold"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    WARD_RETURN_IF_ERROR(channel.Write(std::string(1000000, 'x')));
    return channel.Read().status();
  }),
              IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, OverMaxBufferedBytesReadersWait) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(std::move(options)) {
      // Says how much it has read within `milliseconds`.
      DefineMessageHandler(
          "take",
          [](MessageChannel& channel, int milliseconds) -> absl::Status {
            WARD_RETURN_IF_ERROR(channel.Write("send it"));
            channel.set_timeout(absl::Milliseconds(milliseconds));
            WARD_ASSIGN_OR_RETURN(const Message message, channel.Read());
            return channel.Write(message[0].size());
          });
    }
  };
  ServerOptions options = Shared();
  options.max_buffered_bytes = 0;  // One at a time.
  Server server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  const auto take = [&server](int milliseconds, size_t size) {
    absl::StatusOr<Message> reply;
    (void)server.Connect([&](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.Write("take", milliseconds));
      WARD_RETURN_IF_ERROR(channel.Read().status());
      // It may be refused half way.
      const absl::Status written = channel.Write(std::string(size, 'x'));
      reply = written.ok() ? channel.Read() : written;
      return absl::OkStatus();
    });
    return reply;
  };
  constexpr size_t kLarge = 3'000'000;
  constexpr int kMinute = 60'000;
  {
    // A client that stops in the middle of a message. Much of what it has sent
    // is not in the socket any more, which has room for 1 MiB.
    proto::Frame frame;
    frame.set_password(std::string(server.password().Expose()));
    for (const char* part : {"take", "60000"}) {
      frame.mutable_array()->add_part(part);
    }
    const std::string request = frame.SerializeAsString();
    const std::string bytes =
        absl::StrCat(Varint(request.size()), request, Varint(kLarge),
                     std::string(2'000'000, 'x'));
    const auto stalled = environment().Connect(
        server.socket_filename(), environment().TimeNow() + absl::Minutes(1));
    ASSERT_THAT(stalled, IsOk());
    for (std::string_view rest = bytes; !rest.empty();) {
      const absl::StatusOr<size_t> sent =
          (*stalled)->Send(rest, {}, absl::InfiniteFuture());
      ASSERT_THAT(sent, IsOk());
      rest.remove_prefix(*sent);
    }
    EXPECT_THAT(take(100, kLarge), FailsWith(reason::kTimedOut));
    EXPECT_THAT(take(kMinute, 100'000), IsOk());
  }
  const absl::StatusOr<Message> reply = take(kMinute, kLarge);
  ASSERT_THAT(reply, IsOk());
  EXPECT_THAT(reply->parts(), ElementsAre(absl::StrCat(kLarge)));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, ConnectReturnsWhatItsFunctionReturns) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Connect([](MessageChannel&) {
    return MakeError(kOutOfPaper, "as I said");
  }),
              FailsWith(kOutOfPaper, "as I said"));
  EXPECT_THAT(server.Connect([](MessageChannel&) { return absl::OkStatus(); }),
              IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, OneConnectionServesOneHandlersCall) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Connect([](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("echo", "x"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    return channel.Read().status();
  }),
              FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, DescriptorsRightBehindTheFirstMessageAllArrive) {
  // More than the first itself may have: often one receive brings both.
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(std::move(options)) {
      DefineMessageHandler(
          "count", [](MessageChannel& channel) -> absl::Status {
            WARD_ASSIGN_OR_RETURN(const Message message, channel.Read());
            return channel.Write(message.descriptors().size());
          });
    }
  };
  Server server;
  ASSERT_THAT(server.Start(), IsOk());
  const Pipe pipe = MakePipe();
  for (size_t count = 17; count <= 100; ++count) {
    std::vector<FileDescriptor> copies;
    while (copies.size() < count) {
      auto copy = FileDescriptor::DuplicateOf(pipe.read.get());
      ASSERT_THAT(copy, IsOk());
      copies.push_back(*std::move(copy));
    }
    const Message many({}, std::move(copies));
    EXPECT_THAT(server.Connect([&](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.Write("count"));
      WARD_RETURN_IF_ERROR(channel.Write(many));
      WARD_ASSIGN_OR_RETURN(const Message reply, channel.Read());
      EXPECT_THAT(reply.parts(), ElementsAre(absl::StrCat(count)));
      return absl::OkStatus();
    }),
                IsOk());
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, BothSidesReadAndWriteAsOftenAsTheyLike) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(std::move(options)) {
      DefineMessageHandler("sum", &Server::Sum);
    }
    absl::Status Sum(MessageChannel& channel, int count) {
      int64_t sum = 0;
      for (int i = 0; i < count; ++i) {
        WARD_RETURN_IF_ERROR(channel.Write("next"));
        WARD_ASSIGN_OR_RETURN(Message message, channel.Read());
        WARD_ASSIGN_OR_RETURN(const auto values, message.Unpack<int64_t>());
        sum += std::get<0>(values);
      }
      WARD_RETURN_IF_ERROR(channel.WriteScalar("the sum follows"));
      return channel.Write(sum);
    }
  };
  Server server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Connect([](MessageChannel& channel) -> absl::Status {
    constexpr int kCount = 100;
    WARD_RETURN_IF_ERROR(channel.Write("sum", kCount));
    for (int i = 0; i < kCount; ++i) {
      WARD_ASSIGN_OR_RETURN(const Message asked, channel.Read());
      EXPECT_THAT(asked.parts(), ElementsAre("next"));
      WARD_RETURN_IF_ERROR(channel.Write(i));
    }
    std::string scalar;
    WARD_RETURN_IF_ERROR(channel.ReadScalar(scalar));
    EXPECT_EQ(scalar, "the sum follows");
    WARD_ASSIGN_OR_RETURN(const Message sum, channel.Read());
    EXPECT_THAT(sum.parts(), ElementsAre("4950"));
    return absl::OkStatus();
  }),
              IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward

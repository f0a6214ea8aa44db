#include <fcntl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ward/benchmarks/subject.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/client.h"
#include "ward/server/server_options.h"

namespace ward::benchmarks {
namespace {

constexpr Method<Arguments<std::string, std::string>,
                 Arguments<std::string, int32_t>>
    kHello{"hello"};

// Names in a conversation, which "converse" begins.
constexpr std::string_view kConverse = "converse";
constexpr std::string_view kHelloAgain = "hello";
constexpr std::string_view kDescriptor = "descriptor";
constexpr std::string_view kScalar = "scalar";

// Room in a frame for what is around its content.
constexpr size_t kAround = 1024;

std::string Greet(std::string_view first, std::string_view last) {
  return absl::StrCat("Hello ", first, " ", last, ", how are you?");
}

absl::Status ReadGreeting(MessageChannel& channel, Greeting& greeting) {
  WARD_ASSIGN_OR_RETURN(Message reply, channel.Read());
  auto values = std::move(reply).Unpack<std::string, int32_t>();
  WARD_RETURN_IF_ERROR(values.status());
  std::tie(greeting.text, greeting.number) = *std::move(values);
  return absl::OkStatus();
}

class Server : public AbstractServer {
 public:
  Server(ServerOptions options, size_t scalar_bytes)
      : AbstractServer(std::move(options)), scalar_(scalar_bytes, kScalarByte) {
    Define(kHello,
           [](std::string_view first, std::string_view last)
               -> absl::StatusOr<std::tuple<std::string, int32_t>> {
             return std::make_tuple(Greet(first, last), kNumber);
           });
    DefineMessageHandler(kConverse, &Server::Converse);
  }

 private:
  absl::Status InitializeServer() override {
    descriptor_ =
        FileDescriptor::Opened(open("/dev/null", O_RDONLY | O_CLOEXEC));
    return absl::OkStatus();
  }

  absl::Status Converse(MessageChannel& channel) {
    while (true) {
      absl::StatusOr<Message> request = channel.Read();
      if (HasReason(request.status(), reason::kEndOfStream)) {
        return absl::OkStatus();
      }
      WARD_RETURN_IF_ERROR(request.status());
      WARD_RETURN_IF_ERROR(Answer(channel, *request));
    }
  }

  absl::Status Answer(MessageChannel& channel, const Message& request) const {
    if (request.name() == kHelloAgain && request.size() == 3) {
      return channel.Write(Greet(request[1], request[2]), kNumber);
    }
    if (request.name() == kDescriptor) {
      return channel.WriteDescriptor(descriptor_);
    }
    if (request.name() == kScalar) return channel.WriteScalar(scalar_);
    return absl::UnimplementedError(request.name());
  }

  const std::string scalar_;
  FileDescriptor descriptor_;
};

class WardConversation : public Subject::Conversation {
 public:
  explicit WardConversation(MessageChannel channel)
      : channel_(std::move(channel)) {}

  absl::Status Hello(Greeting& greeting) override {
    WARD_RETURN_IF_ERROR(channel_.Write(kHelloAgain, kFirstName, kLastName));
    return ReadGreeting(channel_, greeting);
  }

  absl::Status Descriptor() override {
    WARD_RETURN_IF_ERROR(channel_.Write(kDescriptor));
    return channel_.ReadDescriptor().status();
  }

  absl::Status Scalar(std::string& bytes) override {
    WARD_RETURN_IF_ERROR(channel_.Write(kScalar));
    return channel_.ReadScalar(bytes);
  }

 private:
  MessageChannel channel_;
};

class WardCaller : public Subject::Caller {
 public:
  explicit WardCaller(const Server& server)
      : client_({server.socket_filename(), server.password().Copy()}) {}

  absl::Status Hello(Greeting& greeting) override {
    auto values = client_.Call(kHello, kFirstName, kLastName);
    WARD_RETURN_IF_ERROR(values.status());
    std::tie(greeting.text, greeting.number) = *std::move(values);
    return absl::OkStatus();
  }

 private:
  Client client_;
};

class WardSubject : public Subject {
 public:
  explicit WardSubject(Options options)
      : limits_(LimitsFor(options)),
        server_(OptionsFor(options, limits_), options.scalar_bytes) {}

  absl::Status Start() override { return server_.Start(); }
  absl::Status Stop() override { return server_.Stop(); }
  pid_t server_pid() const override { return server_.server_pid(); }

  absl::Status Hello(Greeting& greeting) override {
    return server_.Connect([&](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.Write(kHello.name, kFirstName, kLastName));
      return ReadGreeting(channel, greeting);
    });
  }

  // As Connect does it, but the connection outlives the function.
  absl::StatusOr<std::unique_ptr<Conversation>> Converse() override {
    FileDescriptor socket = FileDescriptor::Opened(
        ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    server_.socket_filename().copy(name.sun_path, sizeof(name.sun_path) - 1);
    if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&name),
                sizeof(name)) != 0) {
      return SystemError(errno, "connect");
    }
    MessageChannel channel(std::move(socket));
    channel.set_limits(limits_);
    channel.ExpectEnd();
    channel.PresentPassword(server_.password());
    WARD_RETURN_IF_ERROR(channel.Write(kConverse));
    return std::make_unique<WardConversation>(std::move(channel));
  }

  absl::StatusOr<std::unique_ptr<Caller>> Keep() override {
    return std::make_unique<WardCaller>(server_);
  }

 private:
  static ChannelLimits LimitsFor(Options options) {
    ChannelLimits limits;
    limits.max_frame_bytes =
        std::max(limits.max_frame_bytes, options.scalar_bytes + kAround);
    return limits;
  }

  static ServerOptions OptionsFor(Options options,
                                  const ChannelLimits& limits) {
    ServerOptions server_options;
    server_options.max_clients = options.clients;
    server_options.limits = limits;
    return server_options;
  }

  const ChannelLimits limits_;
  Server server_;
};

}  // namespace

std::unique_ptr<Subject> MakeWard(Subject::Options options) {
  return std::make_unique<WardSubject>(options);
}

}  // namespace ward::benchmarks

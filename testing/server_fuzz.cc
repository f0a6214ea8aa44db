#include "ward/testing/server_fuzz.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/frame_reader.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/proto/frame.pb.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulation.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// As long as a client waits for room to send, or for a reply.
constexpr absl::Duration kPatience = absl::Milliseconds(10);

constexpr size_t kMostSteps = 200;

// A name that no server has a handler for.
constexpr std::string_view kHonest = "ward.is_anyone_there";

struct Handler {
  std::string name;
  absl::Span<const ParameterKind> parameters;
};

std::string Framed(std::string_view body) {
  std::string frame;
  uint64_t length = body.size();
  for (; length >= 0x80; length >>= 7) {
    frame.push_back(static_cast<char>(length | 0x80));
  }
  frame.push_back(static_cast<char>(length));
  return absl::StrCat(frame, body);
}

void Flip(char& byte, int bit) {
  byte = static_cast<char>(static_cast<uint8_t>(byte) ^ (1U << bit));
}

int ToAttach() {
  static const FileDescriptor* const kAttached =
      new FileDescriptor(open("/dev/null", O_RDWR | O_CLOEXEC));
  return kAttached->get();
}

bool IsError(const Frame& frame) {
  return frame.content == Frame::Content::kError;
}

// One connection after the other.
class Client {
 public:
  Client(const AbstractServer& server, absl::Span<const Handler> handlers)
      : server_(server), handlers_(handlers) {}

  void Step(FuzzInput& in) {
    switch (in.Byte() % 10) {
      case 0:
      case 1:
        return Call(in);
      case 2:
        return Send(Framed(in.String()), in);
      case 3:
        return Send(std::string(in.String()), in);
      case 4: {
        proto::Frame frame;
        frame.set_scalar(std::string(in.String()));
        return SendFrame(frame, in);
      }
      case 5:
      case 6:
        return Read();
      case 7:
        transport_ = nullptr;
        return;
      case 8:
        if (transport_ != nullptr) transport_->ShutDown();
        return;
      default:
        // At least as long as any limit of the server's own.
        return Simulation::Current()->scheduler().Advance(
            in.Bool() ? absl::Seconds(10) : absl::Milliseconds(1));
    }
  }

 private:
  void Call(FuzzInput& in) {
    proto::Frame frame;
    proto::Array& array = *frame.mutable_array();
    const Handler& handler = handlers_[in.Byte() % handlers_.size()];
    array.add_part(handler.name);
    const uint8_t odd = in.Byte();
    size_t descriptors = 0;
    for (const ParameterKind kind : handler.parameters) {
      switch (kind) {
        case ParameterKind::kDescriptor:
          ++descriptors;
          break;
        case ParameterKind::kDescriptors: {
          proto::DescriptorNames names;
          for (size_t more = in.Byte() % 4; more > 0; --more) {
            names.add_name(std::string(in.String()));
          }
          array.add_part(names.SerializeAsString());
          descriptors += names.name_size();
          break;
        }
        case ParameterKind::kBulk: {
          proto::Bulk bulk;
          if (in.Bool()) {
            bulk.set_bytes(std::string(in.String()));
          } else {
            bulk.set_size(in.Number());
            ++descriptors;
          }
          array.add_part(bulk.SerializeAsString());
          break;
        }
        case ParameterKind::kBool:
          array.add_part(in.Bool() ? "true" : "false");
          break;
        case ParameterKind::kNumber:
          array.add_part(Number(in));
          break;
        case ParameterKind::kMessage:
          for (size_t more = in.Byte() % 8; more > 0; --more) {
            array.add_part(std::string(in.String()));
          }
          descriptors += in.Byte() % 3;
          break;
        case ParameterKind::kProto:
        case ParameterKind::kString:
          array.add_part(std::string(in.String()));
          break;
      }
    }
    // Seven of eight calls fit.
    if (odd % 8 == 7) {
      switch (odd / 8 % 4) {
        case 0:
          array.add_part(std::string(in.String()));
          break;
        case 1:
          array.mutable_part()->RemoveLast();
          break;
        case 2:
          descriptors += 1;
          break;
        default:
          *array.mutable_part(in.Byte() % array.part_size()) = in.String();
      }
    }
    frame.set_descriptors(static_cast<uint32_t>(descriptors));
    SendFrame(frame, in);
  }

  static std::string Number(FuzzInput& in) {
    const uint64_t number = in.Number();
    switch (in.Byte() % 8) {
      case 0:
        return absl::StrCat("-", number);
      case 1:
        return absl::StrCat(number, ".", in.Byte());
      case 2:
        return absl::StrCat(in.Byte(), "e", in.Byte());
      default:
        return absl::StrCat(number);
    }
  }

  // With the password, if it is the first and the client is honest.
  void SendFrame(proto::Frame& frame, FuzzInput& in) {
    if (transport_ == nullptr) Connect();
    if (transport_ == nullptr) return;
    if (!sent_) {
      const uint8_t first = in.Byte();
      const uint8_t with = first % 8;
      frame.set_knows_end(first / 8 % 2 != 0);
      if (first / 16 % 2 != 0) frame.mutable_call()->set_keep(true);
      if (first / 32 % 2 != 0) frame.mutable_call()->set_time_left(first);
      if (first / 64 % 2 != 0) {
        frame.mutable_call()->set_trace_id(std::string(first, 't'));
      }
      std::string password(server_.password().Expose());
      // In two places, or Send() could make it right.
      if (with == 6) {
        Flip(password.front(), 0);
        Flip(password.back(), 0);
      }
      if (with != 7) frame.set_password(password);
      knows_password_ = with < 6;
    }
    if (reader_.kept()) {
      reader_.NextCall();
      frame.mutable_call()->set_keep(true);
    }
    Send(Framed(frame.SerializeAsString()), in, frame.descriptors());
  }

  void Send(std::string bytes, FuzzInput& in, size_t descriptors = 0) {
    if (transport_ == nullptr) Connect();
    if (transport_ == nullptr || bytes.empty()) return;
    const uint8_t how = in.Byte();
    if ((how & 1) != 0) descriptors = in.Byte() % 4;
    if ((how & 2) != 0) Flip(bytes[in.Number() % bytes.size()], in.Byte() % 8);
    if ((how & 4) != 0) bytes.resize(1 + in.Number() % bytes.size());
    // In as many pieces of this size as there are.
    const size_t piece = (how & 8) != 0 ? size_t{1} + in.Byte() : bytes.size();
    const std::vector<int> numbers(std::min<size_t>(descriptors, 8),
                                   ToAttach());
    std::string_view rest = bytes;
    while (!rest.empty()) {
      const auto left = transport_->Send(
          rest.substr(0, piece),
          rest.size() == bytes.size() ? numbers : absl::Span<const int>(),
          Deadline());
      sent_ = true;
      if (!left.ok()) return;
      rest.remove_prefix(*left);
    }
  }

  void Read() {
    if (transport_ == nullptr) return;
    std::vector<FileDescriptor> descriptors;
    const ChannelLimits limits;
    const absl::Status status = reader_.Read(
        *transport_, limits.max_frame_bytes, limits, Deadline(), descriptors);
    if (status.ok() || reader_.frame().content == Frame::Content::kEnd) {
      WARD_FUZZ_CHECK(knows_password_ || IsError(reader_.frame()),
                      "it came to a client without the password");
    }
    if (status.ok()) return;
    WARD_FUZZ_CHECK(HasReason(status, reason::kEndOfStream) ||
                        HasReason(status, reason::kConnectionLost) ||
                        HasReason(status, reason::kTimedOut),
                    status);
    if (!HasReason(status, reason::kTimedOut) && !reader_.kept()) {
      transport_ = nullptr;
    }
  }

  void Connect() {
    auto transport =
        Environment::Default().Connect(server_.socket_filename(), Deadline());
    if (!transport.ok()) return;
    transport_ = *std::move(transport);
    reader_ = FrameReader();
    sent_ = false;
    knows_password_ = false;
  }

  static absl::Time Deadline() {
    return Environment::Default().TimeNow() + kPatience;
  }

  const AbstractServer& server_;
  const absl::Span<const Handler> handlers_;
  // Null before the first call, and after the end.
  std::unique_ptr<Transport> transport_;
  FrameReader reader_;
  bool sent_ = false;
  bool knows_password_ = false;
};

void CheckServes(AbstractServer& server) {
  const absl::Status status =
      server.Connect([](MessageChannel& channel) -> absl::Status {
        WARD_RETURN_IF_ERROR(channel.Write(kHonest));
        return channel.Read().status();
      });
  WARD_FUZZ_CHECK(HasReason(status, reason::kUnknownMessage), status);
}

}  // namespace

void FuzzServer(absl::FunctionRef<std::unique_ptr<AbstractServer>()> make,
                FuzzInput input) {
  ToAttach();
  const FuzzDescriptorCheck no_descriptor_left;
  Simulation::ExpectMany();
  const uint8_t schedule = input.Byte();
  std::unique_ptr<Strategy> strategy;
  if (schedule < 128) {
    strategy = std::make_unique<ReplayStrategy>(Deviations());
  } else {
    strategy = std::make_unique<RandomStrategy>(schedule,
                                                /*weighted=*/schedule % 2 == 1);
  }
  SimulationOptions options;
  options.on_stuck = [](const std::string& why) {
    std::cerr << Simulation::Current()->transcript().ToText(
                     Transcript::kMostShown)
              << why << std::endl;
    std::abort();
  };
  Simulation simulation(*strategy, options);
  {
    const std::unique_ptr<AbstractServer> server = make();
    std::vector<Handler> handlers;
    for (auto& [name, parameters] : server->handled_messages()) {
      handlers.push_back({name, parameters});
    }
    const absl::Status started = server->Start();
    WARD_FUZZ_CHECK(started.ok(), started);
    {
      std::array<Client, 3> clients = {Client(*server, handlers),
                                       Client(*server, handlers),
                                       Client(*server, handlers)};
      size_t who = 0;
      for (size_t steps = 0; steps < kMostSteps && !input.empty(); ++steps) {
        if ((input.Byte() & 3) == 3) who = input.Byte() % clients.size();
        clients.at(who).Step(input);
      }
    }
    CheckServes(*server);
    const absl::Status stopped = server->Stop();
    WARD_FUZZ_CHECK(stopped.ok(), stopped);
  }
  for (const std::string& left : simulation.Settle()) {
    WARD_FUZZ_CHECK(false, left);
  }
}

}  // namespace ward::testing

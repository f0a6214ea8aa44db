// Whole sessions: authentication, dispatch, handlers of every shape, with few
// places to have, so that clients wait and are cut. See
// ward/testing/server_fuzz.h for what must not happen.

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/bulk.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/proto/frame.pb.h"
#include "ward/server/abstract_server.h"
#include "ward/server/server_options.h"
#include "ward/testing/server_fuzz.h"

namespace ward {
namespace {

class SessionServer : public AbstractServer {
 public:
  SessionServer() : AbstractServer(FewPlaces()) {
    DefineMessageHandler(
        "texts",
        [](MessageChannel& channel, std::string_view one,
           const std::string& two) { return channel.Write(one, two); });
    DefineMessageHandler("numbers", [](int8_t a, uint64_t b, double c) {
      return absl::StatusOr<double>(a + static_cast<double>(b) + c);
    });
    DefineMessageHandler("proto", [](const proto::Error& error, bool wanted) {
      return wanted ? absl::StatusOr<proto::Error>(error)
                    : absl::AbortedError(error.text());
    });
    DefineMessageHandler("descriptors",
                         [](MessageChannel& channel, FileDescriptor /*dropped*/,
                            std::string_view text, FileDescriptor returned) {
                           return channel.Write(text, returned);
                         });
    DefineMessageHandler(
        "named descriptors",
        [](std::string_view /*text*/, Descriptors returned, const Bulk& bulk) {
          return absl::StatusOr<std::tuple<Descriptors, Bulk>>(
              std::make_tuple(std::move(returned), bulk));
        });
    DefineMessageHandler(
        "anything", [](MessageChannel& channel,
                       // NOLINTNEXTLINE(performance-unnecessary-value-param)
                       Message message) { return channel.Write(message); });
    DefineMessageHandler("throws", [](const std::string& text) -> absl::Status {
      throw std::runtime_error(text);
    });
    DefineMessageHandler("silent", [] { return absl::OkStatus(); });
    DefineMessageHandler("flood", [](MessageChannel& channel, uint16_t count) {
      const std::string much(1000, 'x');
      for (int i = 0; i < count % 1000; ++i) {
        WARD_RETURN_IF_ERROR(channel.Write(much));
      }
      return absl::OkStatus();
    });
    DefineMessageHandler(
        "converse", [](MessageChannel& channel) -> absl::Status {
          std::string scalar;
          while (true) {
            WARD_ASSIGN_OR_RETURN(const Message request, channel.Read());
            if (request.size() == 0) break;
            WARD_RETURN_IF_ERROR(channel.Write(request));
            WARD_RETURN_IF_ERROR(channel.ReadMap().status());
          }
          WARD_RETURN_IF_ERROR(channel.ReadScalar(scalar, 100));
          return channel.WriteScalar(scalar);
        });
  }

 private:
  static ServerOptions FewPlaces() {
    ServerOptions options;
    options.max_clients = 1;
    options.max_waiting_clients = 2;
    options.limits.max_frame_bytes = 2000;
    options.limits.max_parts = 10;
    options.limits.max_descriptors = 4;
    return options;
  }
};

}  // namespace
}  // namespace ward

WARD_FUZZ_SERVER(ward::SessionServer);

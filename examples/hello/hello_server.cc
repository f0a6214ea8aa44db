#include "ward/examples/hello/hello_server.h"

#include <string>
#include <string_view>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"

// So that it can be started by exec, too, from a program that has threads.
WARD_REGISTER_SERVER(HelloServer);

absl::StatusOr<HelloServer::Greeting> HelloServer::Hello(
    std::string_view first_name, std::string_view last_name) {
  Greeting greeting;
  WARD_RETURN_IF_ERROR(
      Connect([&](ward::MessageChannel& channel) -> absl::Status {
        WARD_RETURN_IF_ERROR(channel.Write("hello", first_name, last_name));
        WARD_ASSIGN_OR_RETURN(ward::Message reply, channel.Read());
        WARD_ASSIGN_OR_RETURN(
            std::tie(greeting.text, greeting.pointless_number),
            (reply.Unpack<std::string, int>()));
        return absl::OkStatus();
      }));
  return greeting;
}

absl::Status HelloServer::HandleHello(ward::MessageChannel& channel,
                                      std::string_view first_name,
                                      std::string_view last_name) {
  return channel.Write(
      absl::StrCat("Hello ", first_name, " ", last_name, ", how are you?"),
      1234);
}

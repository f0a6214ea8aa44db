// The shortest client.

#ifndef WARD_TESTING_CALL_SERVER_H_
#define WARD_TESTING_CALL_SERVER_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"

namespace ward::testing {

// Sends one message to `server` and returns the reply.
template <typename... Arguments>
absl::StatusOr<Message> CallServer(AbstractServer& server,
                                   const Arguments&... arguments) {
  Message reply;
  WARD_RETURN_IF_ERROR(
      server.Connect([&](MessageChannel& channel) -> absl::Status {
        WARD_RETURN_IF_ERROR(channel.Write(arguments...));
        WARD_ASSIGN_OR_RETURN(reply, channel.Read());
        return absl::OkStatus();
      }));
  return reply;
}

}  // namespace ward::testing

#endif  // WARD_TESTING_CALL_SERVER_H_

// A server that greets people.

#ifndef WARD_EXAMPLES_HELLO_HELLO_SERVER_H_
#define WARD_EXAMPLES_HELLO_HELLO_SERVER_H_

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/message_channel.h"
#include "ward/server/abstract_server.h"

class HelloServer : public ward::AbstractServer {
 public:
  explicit HelloServer(ward::ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    DefineMessageHandler("hello", &HelloServer::HandleHello);
  }

  // What the server answered. For the owner's process, as many threads as like.
  struct Greeting {
    std::string text;
    int pointless_number = 0;
  };
  absl::StatusOr<Greeting> Hello(std::string_view first_name,
                                 std::string_view last_name);

 private:
  // For the server's process: called on a thread for each client.
  absl::Status HandleHello(ward::MessageChannel& channel,
                           std::string_view first_name,
                           std::string_view last_name);
};

#endif  // WARD_EXAMPLES_HELLO_HELLO_SERVER_H_

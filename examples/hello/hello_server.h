// A server that greets people.
//
//   HelloServer server;
//   WARD_RETURN_IF_ERROR(server.Start());
//   WARD_ASSIGN_OR_RETURN(const auto reply, server.Call(kHello, "Joe",
//                                                       "Dalton"));

#ifndef WARD_EXAMPLES_HELLO_HELLO_SERVER_H_
#define WARD_EXAMPLES_HELLO_HELLO_SERVER_H_

#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/status/statusor.h"
#include "ward/server/abstract_server.h"
#include "ward/server/method.h"

// A first and a last name; a greeting, and a pointless number.
inline constexpr ward::Method<ward::Arguments<std::string, std::string>,
                              ward::Arguments<std::string, int>>
    kHello{"hello"};

class HelloServer : public ward::AbstractServer {
 public:
  explicit HelloServer(ward::ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    Define(kHello, &HelloServer::Hello);
  }

 private:
  // In the server's process, on a thread for each client.
  absl::StatusOr<std::tuple<std::string, int>> Hello(
      std::string_view first_name, std::string_view last_name);
};

#endif  // WARD_EXAMPLES_HELLO_HELLO_SERVER_H_

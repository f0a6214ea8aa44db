#include "ward/examples/hello/hello_server.h"

#include <string>
#include <string_view>
#include <tuple>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ward/server/abstract_server.h"

// So that it can be started by exec, too, from a program that has threads.
WARD_REGISTER_SERVER(HelloServer);

absl::StatusOr<std::tuple<std::string, int>> HelloServer::Hello(
    std::string_view first_name, std::string_view last_name) {
  return std::make_tuple(
      absl::StrCat("Hello ", first_name, " ", last_name, ", how are you?"),
      1234);
}

// What the servers with planted bugs have in common.

#ifndef WARD_TESTING_PLANTED_BUGS_PLANTED_SERVER_H_
#define WARD_TESTING_PLANTED_BUGS_PLANTED_SERVER_H_

#include <functional>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"

namespace ward::testing {

struct Trial {
  // Without the bug.
  bool repaired = false;

  // How long a client waits for an answer: for ever in a simulation, which
  // notices by itself when nothing can happen any more.
  absl::Duration patience = absl::InfiniteDuration();
};

class PlantedServer : public AbstractServer {
 public:
  explicit PlantedServer(const Trial& trial);

  // A client's call: sends the message, returns the number that comes back.
  absl::StatusOr<int> Call(
      std::string_view name,
      std::initializer_list<std::string_view> arguments = {});

  // Makes all calls at the same time, the first on the calling thread. Returns
  // an error if there is any.
  absl::Status AtOnce(const std::vector<std::function<absl::Status()>>& calls);

 protected:
  bool repaired() const { return trial_.repaired; }

 private:
  const Trial trial_;
};

// Gives `body` a server that is started, and stops it.
template <typename Server>
absl::Status Drive(const Trial& trial,
                   absl::FunctionRef<absl::Status(Server&)> body) {
  Server server(trial);
  WARD_RETURN_IF_ERROR(server.Start());
  absl::Status status = body(server);
  status.Update(server.Stop());
  return status;
}

// Where calls may fail that are none of the bug's: only what `body` says
// counts.
template <typename Server>
absl::Status DriveThroughFaults(const Trial& trial,
                                absl::FunctionRef<absl::Status(Server&)> body) {
  Server server(trial);
  if (!server.Start().ok()) return absl::OkStatus();
  absl::Status status = body(server);
  (void)server.Stop();
  return status;
}

// An error that says `otherwise`, unless it holds.
absl::Status Expect(bool holds, std::string_view otherwise);

}  // namespace ward::testing

#endif  // WARD_TESTING_PLANTED_BUGS_PLANTED_SERVER_H_

// What ward leaves to its users: whether, and when, a server that has died is
// started again.

#ifndef WARD_EXAMPLES_SUPERVISOR_SUPERVISOR_H_
#define WARD_EXAMPLES_SUPERVISOR_SUPERVISOR_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"

// Starts again after a delay that doubles with each death, until there were too
// many within a time.
class RestartPolicy {
 public:
  struct Options {
    absl::Duration first_delay = absl::Milliseconds(100);
    absl::Duration longest_delay = absl::Seconds(30);
    // Deaths this far apart have nothing to do with each other.
    absl::Duration window = absl::Minutes(10);
    size_t most_restarts = 8;
  };

  RestartPolicy() : RestartPolicy(Options()) {}
  explicit RestartPolicy(Options options) : options_(options) {}

  // A server has died at `now`: how long to wait before it is started again;
  // nothing: it is not.
  std::optional<absl::Duration> OnDeath(absl::Time now);

 private:
  const Options options_;
  std::deque<absl::Time> deaths_;  // Within the window.
};

// Keeps a server running, in an event loop of one thread.
class Supervisor {
 public:
  // All are borrowed. `note` is told what happens, in words.
  Supervisor(ward::Environment& environment, ward::AbstractServer& server,
             RestartPolicy policy, std::function<void(std::string_view)> note)
      : environment_(environment),
        server_(server),
        policy_(std::move(policy)),
        note_(std::move(note)) {}

  // Returns OK when `quit` becomes readable, and the last error when the policy
  // gives up. The server is stopped then.
  absl::Status Run(const ward::Pollable& quit);

 private:
  // Waits for `quit`, or `other`, until `deadline`; whether it was `quit`.
  absl::StatusOr<bool> Quits(const ward::Pollable& quit,
                             const ward::Pollable* other, absl::Time deadline);
  // From the start of the server to its death, which is returned; OK: `quit`.
  absl::Status RunOnce(const ward::Pollable& quit);

  ward::Environment& environment_;
  ward::AbstractServer& server_;
  RestartPolicy policy_;
  const std::function<void(std::string_view)> note_;
};

#endif  // WARD_EXAMPLES_SUPERVISOR_SUPERVISOR_H_

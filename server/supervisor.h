// Keeps a server running: starts it again when it has died, later and later,
// and gives up when that happens too often.
//
//   ward::SupervisorOptions options;
//   options.on_exit = [](const absl::Status& how,
//                        std::optional<absl::Duration> again_in) { ... };
//   ward::Supervisor supervisor(server, std::move(options));
//   absl::Status status = supervisor.Run(quit);
//
// Run() is a loop of its own. A program with an event loop has pollable() among
// what it waits for, and calls Continue() when that is readable.
//
// Misuse:
// - Beside anybody else who starts or stops the server. Calls may come from any
//   thread meanwhile; those of between two lives fail.
// - StartMode::kFork in a program with other threads: it can start no server
//   again, and gives up. Supervise servers by exec, or by a zygote.

#ifndef WARD_SERVER_SUPERVISOR_H_
#define WARD_SERVER_SUPERVISOR_H_

#include <sys/types.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/poll_set.h"

namespace ward {

// When a server is started again, and who is told.
struct SupervisorOptions {
  // A server that has died, or did not start, is started again after this time,
  // and after twice as much for each further death within `window`: at most
  // after longest_delay, and at most most_restarts times within `window`.
  absl::Duration first_delay = absl::Milliseconds(100);
  absl::Duration longest_delay = absl::Seconds(30);
  absl::Duration window = absl::Minutes(10);
  size_t most_restarts = 8;

  // Both are called by Start, Continue and Run, and must not call the
  // supervisor. The server serves, as this process.
  std::function<void(pid_t)> on_ready;
  // It has ended, or did not start: why, and in what time it is started again;
  // without one, the supervisor gives up. Not after Stop.
  std::function<void(const absl::Status& how,
                     std::optional<absl::Duration> again_in)>
      on_exit;

  // Borrowed; outlives the supervisor: the server's own.
  Environment* environment = &Environment::Default();
};

// For one thread at a time.
class Supervisor {
 public:
  // `server` is borrowed, and not started.
  Supervisor(AbstractServer& server, SupervisorOptions options);
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // Stop(); what that returns is lost.
  ~Supervisor();

  // Starts, and keeps running what it has started, until `quit` is readable:
  // then as Stop(). The last error, when it gives up.
  absl::Status Run(const Pollable& quit);

  // Begins to start the server, and waits for nothing. FailedPrecondition if it
  // is supervised already; the error of a server that may not be started again.
  absl::Status Start();

  // After Start: its descriptor, the same all the time, is readable when
  // Continue() has something to do.
  const Pollable& pollable() const { return *events_; }

  // Does what is due, if anything is, and waits for nothing but the end of a
  // server that is about to. The last error, when it gives up: the server is
  // not supervised then any more, and may be again by Start.
  absl::Status Continue();

  // Stops the server, if it runs, and supervises it no more. As
  // AbstractServer::Stop.
  absl::Status Stop();

 private:
  enum class State { kStopped, kStarting, kServing, kWaiting };

  absl::Status Begin();
  absl::Status Watch(State state);
  void Unwatch();
  absl::Status End(const absl::Status& how);
  std::optional<absl::Duration> NextDelay();

  AbstractServer& server_;
  const SupervisorOptions options_;
  State state_ = State::kStopped;
  std::unique_ptr<PollSet> events_;
  std::shared_ptr<const Pollable> watched_;
  std::deque<absl::Time> deaths_;  // Within the window.
};

}  // namespace ward

#endif  // WARD_SERVER_SUPERVISOR_H_

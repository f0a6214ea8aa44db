// A server that has an application loaded, and forks a worker from it for each
// client that asks: the load is paid for once.
//
//   SpawnServer server;
//   WARD_RETURN_IF_ERROR(server.Start());
//   Worker worker;
//   WARD_RETURN_IF_ERROR(server.Spawn("one", worker));
//   worker.Call(kIsPrime, 199'999);
//   // The worker quits when `worker` goes, however that comes.
//
// A process with threads is not forked, and a server has a thread for each
// client. So the application is loaded in a process of its own, the preloader,
// which InitializeServer forks while the server has one thread. The preloader
// never has another one: it takes one request after the other.

#ifndef WARD_EXAMPLES_SPAWN_SERVER_SPAWN_SERVER_H_
#define WARD_EXAMPLES_SPAWN_SERVER_SPAWN_SERVER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/examples/spawn_server/worker.h"
#include "ward/server/abstract_server.h"
#include "ward/server/lifecycle.h"
#include "ward/server/method.h"
#include "ward/server/owner_handle.h"

// As many workers as there may be are running.
inline constexpr ward::Reason kTooManyWorkers{
    "TooManyWorkers", absl::StatusCode::kResourceExhausted};
// The process that workers are forked from is gone; the spawn server cannot
// make another one. Workers that run go on. Stop the server, and start it
// again.
inline constexpr ward::Reason kPreloaderDied{"PreloaderDied",
                                             absl::StatusCode::kUnavailable};

// Has a worker of this name forked, which is its caller's: kTooManyWorkers,
// kPreloaderDied, and those of Worker's start.
inline constexpr ward::Method<std::string, ward::OwnerHandle> kSpawn{"spawn"};

// How many workers have not ended yet.
inline constexpr ward::Method<void, int> kCountWorkers{"count"};

class SpawnServer : public ward::AbstractServer {
 public:
  static constexpr size_t kMaxWorkers = 16;

  explicit SpawnServer(ward::ServerOptions options = {});

  // For clients: calls kSpawn, and has `worker` adopt what comes, as its only
  // owner.
  absl::Status Spawn(std::string_view name, Worker& worker);

 protected:
  absl::Status InitializeServer() override;
  absl::Status FinalizeServer() override;

 private:
  absl::StatusOr<ward::OwnerHandle> Fork(const std::string& name);
  absl::StatusOr<int> CountWorkers();
  // The preloader's answer.
  absl::StatusOr<ward::Message> Ask(std::string_view what,
                                    std::string_view name = "");

  // The server's. Handlers come one at a time to the preloader.
  std::unique_ptr<ward::ServerProcess> preloader_;
  absl::Mutex mutex_;
  ward::MessageChannel requests_ ABSL_GUARDED_BY(mutex_);
};

#endif  // WARD_EXAMPLES_SPAWN_SERVER_SPAWN_SERVER_H_

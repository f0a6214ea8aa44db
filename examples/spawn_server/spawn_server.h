// A server that has an application loaded, and forks workers from it for each
// client that asks: the load is paid for once.
//
//   SpawnServer server;
//   WARD_RETURN_IF_ERROR(server.Start());
//   WARD_ASSIGN_OR_RETURN(auto spawned, server.Call(kSpawn, 3));
//   while (std::optional<ward::OwnerHandle> handle = spawned.Next()) {
//     WARD_ASSIGN_OR_RETURN(ward::Client worker,
//                           ward::Client::Own(*std::move(handle)));
//     worker.Call(kIsPrime, 199'999);
//     // The worker quits when `worker` goes, however that comes.
//   }
//   WARD_RETURN_IF_ERROR(spawned.status());
//
// A process with threads is not forked, and a server has a thread for each
// client. So the application is loaded in a process of its own, the preloader,
// which InitializeServer forks while the server has one thread. The preloader
// never has another one: it takes one request after the other.

#ifndef WARD_EXAMPLES_SPAWN_SERVER_SPAWN_SERVER_H_
#define WARD_EXAMPLES_SPAWN_SERVER_SPAWN_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/server/abstract_server.h"
#include "ward/server/lifecycle.h"
#include "ward/server/method.h"
#include "ward/server/owner_handle.h"
#include "ward/server/stream.h"

// As many workers as there may be are running.
inline constexpr ward::Reason kTooManyWorkers{
    "TooManyWorkers", absl::StatusCode::kResourceExhausted};
// The process that workers are forked from is gone; the spawn server cannot
// make another one. Workers that run go on. Stop the server, and start it
// again.
inline constexpr ward::Reason kPreloaderDied{"PreloaderDied",
                                             absl::StatusCode::kUnavailable};

// Has so many workers forked, which are the caller's: each comes as soon as it
// has started. Errors: kTooManyWorkers, kPreloaderDied, and those of Worker's
// start. Those that have come before one go on.
inline constexpr ward::Method<uint32_t, ward::Stream<ward::OwnerHandle>> kSpawn{
    "spawn"};

// How many workers have not ended yet.
inline constexpr ward::Method<void, int> kCountWorkers{"count"};

class SpawnServer : public ward::AbstractServer {
 public:
  static constexpr size_t kMaxWorkers = 16;

  explicit SpawnServer(ward::ServerOptions options = {});

 protected:
  absl::Status InitializeServer() override;
  absl::Status FinalizeServer() override;

 private:
  absl::Status Spawn(uint32_t count,
                     ward::StreamWriter<ward::OwnerHandle>& workers);
  absl::StatusOr<int> CountWorkers();
  // The preloader's answer.
  absl::StatusOr<ward::Message> Ask(std::string_view what);

  // The server's. Handlers come one at a time to the preloader.
  std::unique_ptr<ward::ServerProcess> preloader_;
  absl::Mutex mutex_;
  ward::MessageChannel requests_ ABSL_GUARDED_BY(mutex_);
};

#endif  // WARD_EXAMPLES_SPAWN_SERVER_SPAWN_SERVER_H_

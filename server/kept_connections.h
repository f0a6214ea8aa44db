// Connections to one server that are between two calls. For AbstractServer.

#ifndef WARD_SERVER_KEPT_CONNECTIONS_H_
#define WARD_SERVER_KEPT_CONNECTIONS_H_

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "ward/channel/message_channel.h"

namespace ward {

// Thread-safe. Each process, by its Environment::ForkGeneration, has its own:
// of a fork, the child's are none, since two processes cannot call over one
// connection. What it has of its parent's stays untouched; a server's process
// has closed those descriptors already.
class KeptConnections {
 public:
  KeptConnections() = default;
  KeptConnections(const KeptConnections&) = delete;
  KeptConnections& operator=(const KeptConnections&) = delete;

  // The one that has served the last call; null if there is none.
  std::unique_ptr<MessageChannel> Take(int process) ABSL_LOCKS_EXCLUDED(mutex_);

  // Closes it if there are many already, or if Close was called.
  void Put(int process, std::unique_ptr<MessageChannel> channel)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Closes all of this process.
  void Clear(int process) ABSL_LOCKS_EXCLUDED(mutex_);

  // The same, and keeps none from now on.
  void Close(int process) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_map<int, std::vector<std::unique_ptr<MessageChannel>>> idle_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace ward

#endif  // WARD_SERVER_KEPT_CONNECTIONS_H_

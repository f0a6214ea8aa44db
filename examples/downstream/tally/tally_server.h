// Totals by name: see tally.h.

#ifndef TALLY_TALLY_SERVER_H_
#define TALLY_TALLY_SERVER_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "ward/server/abstract_server.h"

class TallyServer : public ward::AbstractServer {
 public:
  explicit TallyServer(ward::ServerOptions options = {});

 private:
  // In the server's process, on a thread for each client.
  absl::StatusOr<int64_t> Add(const std::string& name, int64_t amount);
  absl::StatusOr<int64_t> Total(const std::string& name);

  absl::Mutex mutex_;
  std::map<std::string, int64_t> totals_ ABSL_GUARDED_BY(mutex_);
};

#endif  // TALLY_TALLY_SERVER_H_

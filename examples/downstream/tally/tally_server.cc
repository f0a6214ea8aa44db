#include "tally/tally_server.h"

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "tally/tally.h"
#include "ward/server/abstract_server.h"

// So that it can be started by exec, too, from a program that has threads.
WARD_REGISTER_SERVER(TallyServer);

TallyServer::TallyServer(ward::ServerOptions options)
    : ward::AbstractServer(std::move(options)) {
  Define(kAdd, &TallyServer::Add);
  Define(kTotal, &TallyServer::Total);
}

absl::StatusOr<int64_t> TallyServer::Add(const std::string& name,
                                         int64_t amount) {
  absl::MutexLock lock(&mutex_);
  return totals_[name] += amount;
}

absl::StatusOr<int64_t> TallyServer::Total(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  const auto found = totals_.find(name);
  if (found == totals_.end()) {
    return absl::NotFoundError(absl::StrCat("no total of \"", name, "\""));
  }
  return found->second;
}

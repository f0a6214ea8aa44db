// A call with interceptors around it. For AbstractServer.

#ifndef WARD_SERVER_INTERCEPTION_H_
#define WARD_SERVER_INTERCEPTION_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/log_severity.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ward/server/environment.h"
#include "ward/server/interceptor.h"
#include "ward/server/sparse_log.h"

namespace ward {

// Those of one side of a server's object. Calls under way have a share.
struct Interceptors {
  // Null if there are none.
  static std::shared_ptr<Interceptors> Make(
      std::vector<std::shared_ptr<Interceptor>> all);

  std::vector<std::shared_ptr<Interceptor>> all;
  SparseLog failures{absl::LogSeverity::kError};
};

// For one thread at a time. Destroyed before its end, the call was left by who
// has made it: kCallCancelled.
class Interception {
 public:
  // `environment` is borrowed.
  Interception(std::shared_ptr<Interceptors> interceptors,
               Environment& environment, CallInfo call);
  ~Interception();

  Interception(const Interception&) = delete;
  Interception& operator=(const Interception&) = delete;

  // Asks one after the other. The error of one that refuses is the call's end.
  absl::Status Begin();

  // What they have made of it.
  const std::string& trace_id() const { return call_.trace_id; }

  // Tells those that were asked, the last one first. Nothing, the second time.
  void End(const absl::Status& result);

 private:
  const std::shared_ptr<Interceptors> interceptors_;
  Environment& environment_;
  const absl::Time begin_;
  CallInfo call_;
  // How many of them have been asked, and not told.
  size_t asked_ = 0;
};

}  // namespace ward

#endif  // WARD_SERVER_INTERCEPTION_H_

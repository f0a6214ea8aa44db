// A log of what may repeat for ever.

#ifndef WARD_SERVER_SPARSE_LOG_H_
#define WARD_SERVER_SPARSE_LOG_H_

#include <atomic>

#include "absl/base/log_severity.h"
#include "absl/numeric/bits.h"
#include "absl/strings/str_cat.h"
#include "ward/server/environment.h"

namespace ward {

// Logs the 1st, 2nd, 4th, 8th, ... event of its kind, with its number: sparser
// and sparser, so that a peer that tries for ever does not fill the log.
// Thread-safe.
class SparseLog {
 public:
  explicit SparseLog(absl::LogSeverity severity) : severity_(severity) {}

  // `parts` as of absl::StrCat, which is called for what is logged alone.
  template <typename... Parts>
  void Log(Environment& environment, const Parts&... parts) {
    const unsigned count = ++count_;
    if (!absl::has_single_bit(count)) return;
    environment.Log(severity_, absl::StrCat(parts..., " (number ", count, ")"));
  }

 private:
  const absl::LogSeverity severity_;
  std::atomic<unsigned> count_{0};
};

}  // namespace ward

#endif  // WARD_SERVER_SPARSE_LOG_H_

// What waits for files must end in time, too.

#ifndef WARD_TOOLS_WARDCTL_TIME_LIMIT_H_
#define WARD_TOOLS_WARDCTL_TIME_LIMIT_H_

#include <signal.h>
#include <time.h>

#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ward::ctl {

// From `deadline` on, and as long as this object lives, system calls that wait
// fail with EINTR, again and again. A poll(2) before each of them would not do:
// there is none for the open(2) of a FIFO, and another process may read what it
// has found. One at a time, in a process with one thread: it takes a signal.
//
//   const TimeLimit limit(deadline);
//   while (read(fd, ...) < 0) WARD_RETURN_IF_ERROR(limit.MayTryAgain("read"));
class TimeLimit {
 public:
  // On Environment::TimeNow's clock; InfiniteFuture is none.
  explicit TimeLimit(absl::Time deadline);
  ~TimeLimit();
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;

  // kTimedOut, once it has passed.
  absl::Status Check(std::string_view attempt) const;

  // Of a system call that has failed just now: OK if it was interrupted, and
  // there is time left. kTimedOut; otherwise what errno says.
  absl::Status MayTryAgain(std::string_view attempt) const;

 private:
  const absl::Time deadline_;
  bool has_timer_ = false;
  timer_t timer_ = {};
  struct sigaction action_before_ {};
  sigset_t mask_before_ = {};
};

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_TIME_LIMIT_H_

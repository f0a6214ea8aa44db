// Many things to wait for at once, on one thread.

#ifndef WARD_SERVER_POLL_SET_H_
#define WARD_SERVER_POLL_SET_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/transport.h"

namespace ward {

// As epoll(7): what is in it costs a descriptor, and no thread. One thread
// waits; any may add, remove and wake meanwhile. Readable itself while Wait
// would not wait, it stands for all that is in it where one can be polled.
class PollSet : public Pollable {
 public:
  enum class Event {
    kReadable,  // Or at its end.
    kWritable,  // Or at its end.
    kHangUp,    // The peer has closed its end; not: only stopped sending.
  };

  // Watches `pollable`, which is borrowed until Remove, for `event`. `id` is
  // any number but 0. Not for one that is in the set already.
  virtual absl::Status Add(uint64_t id, const Pollable& pollable,
                           Event event) = 0;

  // Before `pollable` is closed: another process may have it open, too, and
  // then the kernel goes on watching it.
  virtual void Remove(const Pollable& pollable) = 0;

  // Waits until something in the set has its event, and returns its id, again
  // and again while it lasts; one that was removed just now may be among them.
  // 0 after Wake(). kTimedOut at `deadline`.
  virtual absl::StatusOr<uint64_t> Wait(absl::Time deadline) = 0;

  // Ends the Wait under way, or else the next one.
  virtual void Wake() = 0;

  // The same as soon as `time` has come, on the clock of Environment::TimeNow;
  // at no time, if that is absl::InfiniteFuture(). Only the last call counts.
  virtual absl::Status WakeAt(absl::Time time) = 0;
};

}  // namespace ward

#endif  // WARD_SERVER_POLL_SET_H_

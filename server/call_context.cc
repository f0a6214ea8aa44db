#include "ward/server/call_context.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/cancellation.h"

namespace ward {

bool CallContext::cancelled() const {
  const Transport* const connection = channel_.transport();
  return connection == nullptr || connection->HungUp() || stopping() ||
         (deadline_ != absl::InfiniteFuture() &&
          connection->TimeNow() >= deadline_);
}

std::shared_ptr<CallCancellation> CallContext::cancellation() const {
  absl::MutexLock lock(&mutex_);
  if (cancellation_ == nullptr) {
    cancellation_ = std::make_shared<CallCancellation>();
    host_.Observe(deadline_, cancellation_);
  }
  return cancellation_;
}

// The mutex is unlocked before the callback, which locks it, is waited for.
bool CallContext::Await(absl::Mutex& mutex, const absl::Condition& condition)
    const ABSL_NO_THREAD_SAFETY_ANALYSIS {
  while (!condition.Eval()) {
    bool is_over = false;
    absl::AnyInvocable<void()> end = [&] {
      absl::MutexLock lock(&mutex);
      is_over = true;
    };
    std::optional<Cancellation::Registration> registration =
        cancellation()->all.TryOnCancelled(end);
    if (!registration.has_value()) return false;
    const auto changed = [&] { return is_over || condition.Eval(); };
    // Where no thread could be had to watch, there is the time.
    const bool is_in_time =
        mutex.AwaitWithTimeout(absl::Condition(&changed), time_left());
    mutex.Unlock();
    registration.reset();
    mutex.Lock();
    // Abseil's own waits may end early, where the time of day is set.
    if (!is_in_time && time_left() <= absl::ZeroDuration()) {
      return condition.Eval();
    }
  }
  return true;
}

bool CallContext::Wait(absl::CondVar& changed, absl::Mutex& mutex) const
    ABSL_NO_THREAD_SAFETY_ANALYSIS {
  absl::AnyInvocable<void()> end = [&] {
    absl::MutexLock lock(&mutex);
    changed.SignalAll();
  };
  Cancellation& all = cancellation()->all;
  std::optional<Cancellation::Registration> registration =
      all.TryOnCancelled(end);
  if (!registration.has_value()) return false;
  const bool is_late = changed.WaitWithTimeout(&mutex, time_left()) &&
                       time_left() <= absl::ZeroDuration();
  mutex.Unlock();
  registration.reset();
  mutex.Lock();
  return !is_late && !all.cancelled();
}

absl::Duration CallContext::time_left() const {
  return deadline_ == absl::InfiniteFuture()
             ? absl::InfiniteDuration()
             : deadline_ - host_.environment().TimeNow();
}

absl::StatusOr<const Pollable*> CallContext::pollable() const {
  Cancellation& all = cancellation()->all;
  absl::MutexLock lock(&mutex_);
  if (polled_ == nullptr) {
    WARD_ASSIGN_OR_RETURN(auto ends, host_.environment().CreateTransportPair());
    polled_ = std::move(ends.first);
    other_end_ = std::move(ends.second);
    shuts_down_ =
        all.OnCancelled([end = other_end_.get()] { end->ShutDown(); });
  }
  return polled_.get();
}

}  // namespace ward

#include "ward/server/cancellation.h"

#include <iterator>
#include <optional>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace ward {

void Cancellation::Cancel() {
  absl::MutexLock lock(&mutex_);
  if (cancelled_.exchange(true)) return;
  // None is added any more, and the one that is running is not removed.
  for (Callback& callback : callbacks_) {
    callback.is_running = true;
    mutex_.Unlock();
    callback.call();
    mutex_.Lock();
    callback.is_running = false;
  }
}

Cancellation::Registration Cancellation::OnCancelled(
    absl::AnyInvocable<void()> callback) {
  std::optional<Registration> registration = TryOnCancelled(callback);
  if (registration.has_value()) return *std::move(registration);
  callback();
  return {};
}

std::optional<Cancellation::Registration> Cancellation::TryOnCancelled(
    absl::AnyInvocable<void()>& callback) {
  absl::MutexLock lock(&mutex_);
  if (cancelled_) return std::nullopt;
  callbacks_.push_back({std::move(callback)});
  return Registration(this, std::prev(callbacks_.end()));
}

void Cancellation::Remove(Callbacks::iterator place) {
  // It may hold another Registration: destroyed without the lock.
  Callbacks removed;
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](Callback* callback) { return !callback->is_running; }, &*place));
  removed.splice(removed.begin(), callbacks_, place);
}

}  // namespace ward

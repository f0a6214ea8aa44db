// Something that may be cancelled, once: as C++20's std::stop_source is.
//
//   ward::Cancellation cancellation;
//   ward::CallOptions options;
//   options.cancellation = &cancellation;
//   auto result = store.Call(kCompute, options, request);  // on one thread
//   cancellation.Cancel();  // on another: the call returns
//
// Misuse:
// - A callback that waits, or throws: others are behind it, on a thread that is
//   not its own.
// - To destroy a Registration in its own callback, or with a mutex held that
//   the callback locks: each waits for the other.

#ifndef WARD_SERVER_CANCELLATION_H_
#define WARD_SERVER_CANCELLATION_H_

#include <atomic>
#include <list>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace ward {

// Thread-safe.
class Cancellation {
  struct Callback {
    absl::AnyInvocable<void()> call;
    bool is_running = false;
  };
  using Callbacks = std::list<Callback>;

 public:
  // While it lives, its callback may be called. Its destructor waits for one
  // that is being called on another thread. Move-only; not to outlive what it
  // was registered with.
  class [[nodiscard]] Registration {
   public:
    Registration() = default;
    Registration(Registration&& from) noexcept
        : owner_(std::exchange(from.owner_, nullptr)), place_(from.place_) {}
    Registration& operator=(Registration&& from) noexcept {
      Registration(std::move(from)).Swap(*this);
      return *this;
    }
    ~Registration() {
      if (owner_ != nullptr) owner_->Remove(place_);
    }

   private:
    friend class Cancellation;
    Registration(Cancellation* owner, Callbacks::iterator place)
        : owner_(owner), place_(place) {}
    void Swap(Registration& other) {
      std::swap(owner_, other.owner_);
      std::swap(place_, other.place_);
    }

    Cancellation* owner_ = nullptr;
    Callbacks::iterator place_;
  };

  Cancellation() = default;
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  // Calls all that are registered, on this thread. Nothing, the second time.
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);

  bool cancelled() const { return cancelled_; }

  // `callback` is called once, when Cancel is; if it was already, at once, on
  // this thread.
  Registration OnCancelled(absl::AnyInvocable<void()> callback)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The same, but nothing, and not a call, if it was already: for who holds a
  // mutex that `callback` locks.
  std::optional<Registration> TryOnCancelled(
      absl::AnyInvocable<void()>& callback) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Remove(Callbacks::iterator place) ABSL_LOCKS_EXCLUDED(mutex_);

  std::atomic<bool> cancelled_{false};
  absl::Mutex mutex_;
  // Each leaves by its Registration.
  Callbacks callbacks_ ABSL_GUARDED_BY(mutex_);
};

// That of a call, in the server that serves it.
struct CallCancellation {
  // As of CallContext::cancelled().
  Cancellation all;
  // The same, but that the server stops: what the handler still waits for is of
  // use then.
  Cancellation abandoned;
};

}  // namespace ward

#endif  // WARD_SERVER_CANCELLATION_H_

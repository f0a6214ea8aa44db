// How much the channels of a process may buffer together.
//
//   const auto budget =
//       std::make_shared<ward::BufferBudget>(size_t{64} << 20);
//   channel.set_buffer_budget(budget);       // of each
//
// A limit on one message is none on a process that has many clients. Over the
// budget, readers wait, and so do their peers: in front of a full socket. One
// of them at a time goes on all the same until its message is whole, so that
// none waits for ever for more than there is, nor two for each other.
//
// Misuse: a channel without a timeout that reads from a peer which may stop in
// the middle of a message: the others may wait as long.

#ifndef WARD_CHANNEL_BUFFER_BUDGET_H_
#define WARD_CHANNEL_BUFFER_BUDGET_H_

#include <cstddef>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ward {

// Thread-safe.
class BufferBudget {
 public:
  explicit BufferBudget(size_t max_bytes) : max_bytes_(max_bytes) {}

  // What a channel has of it, for one message. Move-only. Keeps it: a handler
  // may have moved the channel to where it outlives its server.
  class Share {
   public:
    Share() = default;
    explicit Share(std::shared_ptr<BufferBudget> budget)
        : budget_(std::move(budget)) {}
    Share(Share&& other) noexcept { Swap(other); }
    Share& operator=(Share&& other) noexcept {
      Share taken(std::move(other));
      Swap(taken);
      return *this;
    }
    ~Share() { Release(); }

    // Waits until it may have `bytes`, of which it has some already. False when
    // that takes longer than `timeout`. At once, without a budget.
    bool GrowTo(size_t bytes, absl::Duration timeout);

    // The message is over.
    void Release() {
      if (!empty()) GiveBack();
    }

    bool empty() const { return bytes_ == 0; }
    const std::shared_ptr<BufferBudget>& budget() const { return budget_; }

   private:
    friend class BufferBudget;
    void Swap(Share& other);
    void GiveBack();

    std::shared_ptr<BufferBudget> budget_;
    size_t bytes_ = 0;
    // It is the one that may go over.
    bool exceeds_ = false;
  };

  // What all have now; at most the maximum and one message.
  size_t used() const;

 private:
  const size_t max_bytes_;

  mutable absl::Mutex mutex_;
  size_t used_ ABSL_GUARDED_BY(mutex_) = 0;
  bool exceeded_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace ward

#endif  // WARD_CHANNEL_BUFFER_BUDGET_H_

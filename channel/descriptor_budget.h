// How many descriptors the channels of a process may hold together of messages
// that are not whole yet, and how many of what lies behind a message that was
// read.
//
//   const auto budget = std::make_shared<ward::DescriptorBudget>(128);
//   channel.set_descriptor_budget(budget, peer->pid);       // of each
//
// The kernel hands them over with a message's first byte, and a peer that never
// sends the last one has filled a part of this process's descriptor table until
// then. Over the budget, those are cut off that hold most. What a peer sends
// ahead, while nobody reads, is its own risk: it is that which finds no room.

#ifndef WARD_CHANNEL_DESCRIPTOR_BUDGET_H_
#define WARD_CHANNEL_DESCRIPTOR_BUDGET_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/transport.h"

namespace ward {

// Thread-safe.
class DescriptorBudget {
 public:
  // As many as a first message may have, by default.
  static constexpr size_t kAlways = 16;

  // Of messages that are not whole, and twice as many behind others; in either
  // case beside those of one message. kAlways of what is behind have room
  // whatever there is, of each process.
  explicit DescriptorBudget(size_t max_descriptors) : max_(max_descriptors) {}

  // What a channel has of it, for one message. Move-only; for one thread at a
  // time. Keeps it: a handler may have moved the channel to where it outlives
  // its server.
  class Share {
   public:
    Share() = default;
    // Of a peer in `process`. To be cut off, `connection` is shut down for
    // receiving.
    Share(std::shared_ptr<DescriptorBudget> budget,
          std::weak_ptr<Transport> connection, pid_t process);
    Share(Share&& other) noexcept { Swap(other); }
    Share& operator=(Share&& other) noexcept {
      Share taken(std::move(other));
      Swap(taken);
      return *this;
    }
    ~Share() { Release(); }

    // The message that is not whole has so many (not 0). If all have more than
    // they may, others are cut off for them: of the process that has most of
    // them the oldest, and so on.
    void Hold(size_t descriptors);

    // Whether this one was cut off since then.
    bool is_cut() const;

    // So many (not 0) came behind a message, and wait until the channel reads
    // on. False if there is no room: they are to be closed.
    bool Keep(size_t descriptors);

    // The message is whole, or its descriptors are closed, or the channel reads
    // on.
    void Release();

    const std::shared_ptr<DescriptorBudget>& budget() const { return budget_; }

   private:
    void Swap(Share& other);

    std::shared_ptr<DescriptorBudget> budget_;
    std::weak_ptr<Transport> connection_;
    pid_t process_ = 0;
    // In held_; 0 if there is nothing.
    uint64_t id_ = 0;
    size_t count_ = 0;
    size_t kept_ = 0;
  };

  // Cuts off the oldest of the process that has most, if there is one, and
  // waits until it has closed its descriptors, but not longer than `timeout`.
  // Whether it has.
  bool CutOne(absl::Duration timeout);

  // What all have now, but for those that were cut off.
  size_t held() const;

 private:
  struct Held {
    std::weak_ptr<Transport> connection;
    pid_t process;
    size_t count;
    bool cut = false;
  };
  using All = absl::btree_map<uint64_t, Held>;

  // But for `id`, which has just come. end() if there is none.
  All::iterator Greediest(uint64_t id) ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void Cut(Held& held) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t max_;

  mutable absl::Mutex mutex_;
  // By when they began to.
  All all_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t held_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t kept_ ABSL_GUARDED_BY(mutex_) = 0;
  // Of that, by process; of those that have any.
  absl::flat_hash_map<pid_t, size_t> kept_of_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ward

#endif  // WARD_CHANNEL_DESCRIPTOR_BUDGET_H_

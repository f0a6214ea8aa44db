// A queue between threads. Nothing in it knows of ward.

#ifndef WARD_EXAMPLES_BOUNDED_QUEUE_BOUNDED_QUEUE_H_
#define WARD_EXAMPLES_BOUNDED_QUEUE_BOUNDED_QUEUE_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <utility>

namespace bounded_queue {

// Holds at most `kRoom` items. Thread-safe.
template <typename T, size_t kRoom>
class BoundedQueue {
 public:
  // Waits for room.
  void Push(T item) {
    std::unique_lock<std::mutex> lock(mutex_);
    taken_.wait(lock, [this] { return items_.size() < kRoom; });
    items_.push_back(std::move(item));
    added_.notify_one();
  }

  // Waits for an item: the one that was pushed first.
  T Pop() {
    std::unique_lock<std::mutex> lock(mutex_);
    added_.wait(lock, [this] { return !items_.empty(); });
    T item = std::move(items_.front());
    items_.pop_front();
    taken_.notify_one();
    return item;
  }

 private:
  std::mutex mutex_;
  std::condition_variable added_;
  std::condition_variable taken_;
  std::deque<T> items_;
};

}  // namespace bounded_queue

#endif  // WARD_EXAMPLES_BOUNDED_QUEUE_BOUNDED_QUEUE_H_

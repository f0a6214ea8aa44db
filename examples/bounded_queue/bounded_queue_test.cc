#include "ward/examples/bounded_queue/bounded_queue.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/explore.h"

namespace bounded_queue {
namespace {

using ::testing::HasSubstr;
using ::ward::testing::Exploration;
using ::ward::testing::Explore;
using ::ward::testing::ExploreOptions;
using ::ward::testing::FindFailure;

ExploreOptions Runs(uint64_t runs) {
  ExploreOptions options;
  options.runs = runs;
  return options;
}

TEST(BoundedQueue, HandsOverEachItemOnce) {
  Explore(Runs(10000), [] {
    BoundedQueue<int, 1> queue;
    std::thread producer([&] {
      for (int item = 0; item < 3; ++item) queue.Push(item);
    });
    for (int item = 0; item < 3; ++item) EXPECT_EQ(queue.Pop(), item);
    producer.join();
  });
}

// One condition for both sides: who is woken may be the one who cannot go on,
// while the one who could sleeps for ever.
class OneConditionQueue {
 public:
  void Push(int item) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !item_.has_value(); });
    item_ = item;
    changed_.notify_one();
  }

  int Pop() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return item_.has_value(); });
    const int item = *item_;
    item_.reset();
    changed_.notify_one();
    return item;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<int> item_;
};

TEST(OneConditionQueue, HangsWithTwoProducers) {
  const Exploration exploration = FindFailure(Runs(10000), [] {
    OneConditionQueue queue;
    std::thread one([&] { queue.Push(1); });
    std::thread other([&] { queue.Push(2); });
    std::thread reader([&] { queue.Pop(); });
    queue.Pop();
    reader.join();
    one.join();
    other.join();
  });
  ASSERT_TRUE(exploration.failure.has_value());
  EXPECT_THAT(exploration.failure->what, HasSubstr("deadlock"));
  EXPECT_TRUE(exploration.failure->replayed);
}

}  // namespace
}  // namespace bounded_queue

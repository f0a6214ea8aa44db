// What the programs of this folder are written with, beside pthreads and the
// C++ library.

#ifndef WARD_TESTING_PLANTED_BUGS_PUBLISHED_PROGRAM_H_
#define WARD_TESTING_PLANTED_BUGS_PUBLISHED_PROGRAM_H_

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

namespace ward::testing {

enum class Access { kRead, kWrite };

// The scheduling point before an access to `variable`.
void PointBefore(Access access, const void* variable);

// A std::atomic whose accesses are scheduling points. In the published programs
// many of these are plain variables, on which threads race; their accesses are
// points in all of the published tools.
template <typename T>
class Atomic {
 public:
  // NOLINTNEXTLINE(google-explicit-constructor): as std::atomic.
  Atomic(T value = T()) : value_(value) {}

  T load() const {
    PointBefore(Access::kRead, this);
    return value_.load();
  }
  void store(T value) {
    PointBefore(Access::kWrite, this);
    value_.store(value);
  }
  T exchange(T value) {
    PointBefore(Access::kWrite, this);
    return value_.exchange(value);
  }
  T fetch_add(T more) {
    PointBefore(Access::kWrite, this);
    return value_.fetch_add(more);
  }
  bool compare_exchange_strong(T& expected, T desired) {
    PointBefore(Access::kWrite, this);
    return value_.compare_exchange_strong(expected, desired);
  }

 private:
  std::atomic<T> value_;
};

// Threads that have ended when this has.
class Threads {
 public:
  Threads() = default;
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
  ~Threads() { Join(); }

  template <typename Body>
  void Start(Body body) {
    threads_.emplace_back(std::move(body));
  }

  void Join() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  std::vector<std::thread> threads_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_PLANTED_BUGS_PUBLISHED_PROGRAM_H_

// A kernel thread that sleeps while others use what it has: its stack, and its
// thread-local storage.

#ifndef WARD_TESTING_SIMULATOR_PARKED_THREAD_H_
#define WARD_TESTING_SIMULATOR_PARKED_THREAD_H_

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <set>

#include "ward/testing/simulator/bare_call.h"
#include "ward/testing/simulator/enlisted.h"

namespace ward::testing {

// The FS base of the calling thread.
uint64_t FsBase();

class ParkedThread : public Enlisted<ParkedThread> {
 public:
  // Null: there can be no more threads; errno says why. `attributes` may be
  // null.
  static std::unique_ptr<ParkedThread> Start(const pthread_attr_t* attributes);

  // Waits for its end. It was given back, and nobody is on its stack.
  ~ParkedThread();

  // Has the variables of this program as a new thread finds them. Those of the
  // C library are the thread's for as long as it lives.
  void ResetVariables() const;

  pthread_t handle() const { return handle_; }
  pid_t number() const { return number_; }
  uint64_t fs_base() const { return fs_base_; }
  char* top() const { return top_; }

  // Of all that there are.
  static bool Has(pid_t number);

 private:
  // What one thread sets, once, and another one waits for.
  class Flag {
   public:
    void Set() {
      word_.store(1, std::memory_order_release);
      BareCall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, INT_MAX);
    }
    void Await() const {
      while (word_.load(std::memory_order_acquire) == 0) {
        BareCall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, 0);
      }
    }

   private:
    std::atomic<int> word_{0};
  };

  ParkedThread() = default;

  static void* Run(void* argument);

  Flag parked_;
  Flag end_;
  bool started_ = false;
  pthread_t handle_{};
  pid_t number_ = 0;
  uint64_t fs_base_ = 0;
  char* top_ = nullptr;
};

// Those that nobody uses. The first is that of the highest address, which the
// C library would give to the first thread: so the order of threads' handles is
// the same in each run.
class ParkedThreads {
 public:
  static ParkedThreads& Only();

  // See ParkedThread::Start.
  std::unique_ptr<ParkedThread> Take();
  void Give(std::unique_ptr<ParkedThread> thread);

  // All end, unless they are to be kept.
  void End();
  void Keep() { are_kept_ = true; }

 private:
  struct HigherFirst {
    bool operator()(const ParkedThread* a, const ParkedThread* b) const {
      return a->handle() > b->handle();
    }
  };

  ParkedThreads();

  std::set<ParkedThread*, HigherFirst> threads_;
  bool are_kept_ = false;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_PARKED_THREAD_H_

// A simulated thread that is a kernel thread, and waits for its turn at a
// semaphore.

#ifndef WARD_TESTING_SIMULATOR_KERNEL_THREAD_H_
#define WARD_TESTING_SIMULATOR_KERNEL_THREAD_H_

#include <pthread.h>

#include "ward/testing/simulator/runner.h"

namespace ward::testing {

class KernelThread final : public Runner {
 public:
  // The calling thread.
  KernelThread();

  // See Runner::Create; without a thread, errno says why.
  KernelThread(const pthread_attr_t* attributes, void (*entry)(void*),
               void* argument);
  ~KernelThread() override;

  bool has_thread() const { return has_thread_; }

  // Whether the calling thread is one of these.
  static bool IsThisThread();

  void SwitchTo(Runner& next) override;
  void LeaveTo(Runner& next) override;
  void AwaitEnd() override;

 private:
  struct State;

  static void* Run(void* argument);

  State* const state_;
  bool has_thread_ = false;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_KERNEL_THREAD_H_

// A simulated thread on the stack and the thread-local storage of a parked
// thread: to go from one to the other is to exchange registers, the stack
// pointer and the FS base.

#ifndef WARD_TESTING_SIMULATOR_FIBER_H_
#define WARD_TESTING_SIMULATOR_FIBER_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>

#include "ward/testing/simulator/enlisted.h"
#include "ward/testing/simulator/parked_thread.h"
#include "ward/testing/simulator/runner.h"

namespace ward::testing {

class Fiber final : public Runner, public Enlisted<Fiber> {
 public:
  // The calling thread.
  Fiber();

  // `is_pooled`: others may have the thread after this one.
  Fiber(std::unique_ptr<ParkedThread> thread, bool is_pooled,
        void (*entry)(void*), void* argument);
  ~Fiber() override;

  void SwitchTo(Runner& next) override;
  void LeaveTo(Runner& next) override;
  void AwaitEnd() override {}

  // See Runner.
  static void VisitAll(void (*visit)(pid_t number));
  static pid_t CurrentNumber();
  static bool RunOnThisThread();

 private:
  struct Saved;

  void Prepare();
  static void Begin(Fiber* self);
  void Go(Fiber& next);

  static Fiber* current_;
  static pid_t kernel_thread_;
  static void (*visit_)(pid_t number);
  static Fiber* visiting_;

  std::unique_ptr<ParkedThread> thread_;
  const bool is_pooled_ = false;
  const uint64_t fs_base_;
  const bool is_callers_ = false;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  void* stack_ = nullptr;
  bool has_begun_ = false;
  bool has_left_ = false;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_FIBER_H_

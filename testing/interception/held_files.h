// The files that threads wait for, whatever becomes of their numbers. For this
// folder's sources.
//
// In the kernel a call that waits has the file that its descriptor referred to
// when it began, and goes on waiting for that if another thread closes the
// descriptor, or has another file take its number: who has the other end does
// not even see it. So what is about to be closed here, and is waited for, gets
// another number first, for as long as the call is under way.

#ifndef WARD_TESTING_INTERCEPTION_HELD_FILES_H_
#define WARD_TESTING_INTERCEPTION_HELD_FILES_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {

// Whether others than the run's threads may end a wait for that descriptor.
using OthersMay = std::function<bool(Scheduler& scheduler, int descriptor)>;

// Those of a call that waits, from then until it has returned.
class HeldFiles final : public AwaitedOutside {
 public:
  // By the thread that runs. `numbers` are the descriptors, borrowed: one that
  // is closed is replaced there by another one of the same file. Those that are
  // negative are none. `others_may` is borrowed; null: OthersMayServe.
  HeldFiles(Scheduler& scheduler, absl::Span<int> numbers,
            const OthersMay* others_may = nullptr);
  HeldFiles(const HeldFiles&) = delete;
  HeldFiles& operator=(const HeldFiles&) = delete;
  // Leaves errno as it is.
  ~HeldFiles();

  bool MayCome() const override;
  std::string Describe() const override;
  std::vector<int> Descriptors() const override;

  // Whether one was.
  bool is_changed() const { return is_changed_; }

  // Before those from `first` to `last` are closed, or others take their
  // numbers. Where no descriptor is to be had, what waits finds them closed.
  static void Keep(Scheduler& scheduler, int first, int last);

  // Calls `close_them` for all parts of that range in which none of these is,
  // until it fails; returns what it said last.
  static int CloseOthers(
      Scheduler& scheduler, unsigned first, unsigned last,
      absl::FunctionRef<int(unsigned first, unsigned last)> close_them);

  // What a call that is to return `number` has opened, or has for itself: it is
  // nobody else's until Give, or until the run ends.
  static void Take(Scheduler& scheduler, int number);
  static void Give(Scheduler& scheduler, int number);

  // By a process that was forked, in which nobody waits.
  static void Close(Scheduler& scheduler);

 private:
  struct All;

  Scheduler& scheduler_;
  const absl::Span<int> numbers_;
  const OthersMay* const others_may_;
  const int process_;
  bool is_changed_ = false;
  // In the run.
  HeldFiles* previous_ = nullptr;
  HeldFiles* next_ = nullptr;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_INTERCEPTION_HELD_FILES_H_

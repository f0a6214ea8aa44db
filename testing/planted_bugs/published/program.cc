#include "ward/testing/planted_bugs/published/program.h"

#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

void PointBefore(Access access, const void* variable) {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr) return;
  if (access == Access::kRead) {
    scheduler->Point("reading a variable", variable, Use::kRead);
  } else {
    scheduler->Point("writing a variable", variable, Use::kWrite);
  }
}

}  // namespace ward::testing

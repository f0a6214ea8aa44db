// The branches of code that is compiled for it.

#include "absl/base/attributes.h"
#include "ward/testing/simulator/scheduler.h"

using ::ward::testing::NoSchedulingPoints;
using ::ward::testing::Scheduler;

extern "C" {

// Called at every branch of code that is compiled with
// -fsanitize-coverage=trace-pc. Weak: libFuzzer brings one that does nothing.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming)
ABSL_ATTRIBUTE_WEAK void __sanitizer_cov_trace_pc() {
  if (NoSchedulingPoints::Exist()) return;
  const NoSchedulingPoints quiet;
  if (Scheduler* const scheduler = Scheduler::Current()) {
    scheduler->Point("running");
  }
}

}  // extern "C"

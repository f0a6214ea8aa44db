#include "ward/testing/simulator/debugged.h"

namespace ward::testing {

[[gnu::used]] Debugged debugged;

[[gnu::noinline]] void StopForDebugger() {
  // So that no call of it is left out.
  asm volatile("");
}

}  // namespace ward::testing

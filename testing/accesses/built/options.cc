#include "ward/testing/accesses/built/options.h"

namespace ward::testing {

void CountByOptions(int& counter) { counter += STEP; }

const char* CompilationMode() { return MODE; }

const char* TargetCpu() { return CPU; }

}  // namespace ward::testing

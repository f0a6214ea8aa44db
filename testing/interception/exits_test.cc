#include <unistd.h>

#include <cstdlib>

#include "gtest/gtest.h"
#include "ward/testing/simulator/exit_guard.h"

namespace ward::testing {
namespace {

using ::testing::ExitedWithCode;

// As a process that has a guard, and is not the test's own.
[[noreturn]] void Guarded(void (*end)(int), bool libfuzzer) {
  const ExitGuard guard;
  if (libfuzzer) ExitGuard::LeaveToLibFuzzer();
  end(77);
  std::abort();
}

void CallExit(int code) { exit(code); }  // NOLINT(concurrency-mt-unsafe)
void CallQuickExit(int code) { quick_exit(code); }
void CallUnderscoreExit(int code) { _exit(code); }
void CallStandardExit(int code) { _Exit(code); }

TEST(ExitsDeathTest, AGuardSaysWhatWouldHaveEndedTheProcess) {
  EXPECT_DEATH(Guarded(CallExit, false), "^exit.77. is called");
  EXPECT_DEATH(Guarded(CallQuickExit, false), "^quick_exit.77. is called");
  EXPECT_DEATH(Guarded(CallUnderscoreExit, false), "^_exit.77. is called");
  EXPECT_DEATH(Guarded(CallStandardExit, false), "^_Exit.77. is called");
}

TEST(ExitsDeathTest, LibFuzzerEndsAsItDoes) {
  EXPECT_EXIT(Guarded(CallStandardExit, true), ExitedWithCode(77), "^$");
  EXPECT_DEATH(Guarded(CallUnderscoreExit, true), "^_exit.77. is called");
}

}  // namespace
}  // namespace ward::testing

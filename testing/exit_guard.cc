// The linker takes each call of exit() for one of __wrap_exit(), and of
// __real_exit() for that of exit(): -Wl,--wrap=exit, and so on.

#include "ward/testing/exit_guard.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <iostream>

#include "ward/testing/watchdog.h"

namespace ward::testing {
namespace {

// The process that is guarded, or 0.
std::atomic<pid_t> guarded{0};

void Check(const char* function, int code) {
  if (guarded != getpid()) return;
  ExitGuard::Disarm();
  std::cerr
      << function << "(" << code
      << ") is called in the test's own process, which it would end: by a "
         "server that runs in it (modes simulated and threaded), or by "
         "the test. Return from the handler, or call Stop().\n";
  Watchdog::PrintStacks();
  std::abort();
}

}  // namespace

ExitGuard::ExitGuard() : found_(guarded.exchange(getpid())) {}

ExitGuard::~ExitGuard() { guarded = found_; }

void ExitGuard::Disarm() { guarded = 0; }

}  // namespace ward::testing

extern "C" {

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
#define WARD_WRAP_EXIT(function)                  \
  [[noreturn]] void __real_##function(int code);  \
  [[noreturn]] void __wrap_##function(int code) { \
    ward::testing::Check(#function, code);        \
    __real_##function(code);                      \
  }

WARD_WRAP_EXIT(exit)
WARD_WRAP_EXIT(quick_exit)
WARD_WRAP_EXIT(_exit)
WARD_WRAP_EXIT(_Exit)
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

}  // extern "C"

// What ends a process.
//
// The linker takes each call of exit() for one of __wrap_exit(), and of
// __real_exit() for that of exit(): -Wl,--wrap=exit, and so on.

#include "ward/testing/simulator/exit_guard.h"

extern "C" {

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
#define WARD_WRAP_EXIT(function)                      \
  [[noreturn]] void __real_##function(int code);      \
  [[noreturn]] void __wrap_##function(int code) {     \
    ward::testing::ExitGuard::Check(#function, code); \
    __real_##function(code);                          \
  }

WARD_WRAP_EXIT(exit)
WARD_WRAP_EXIT(quick_exit)
WARD_WRAP_EXIT(_exit)
WARD_WRAP_EXIT(_Exit)
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

}  // extern "C"

// A server in the test's own process that ends it, as by exit(3) in a handler:
// without a word the test would pass, or whatever it is that exit was told.

#ifndef WARD_TESTING_SIMULATOR_EXIT_GUARD_H_
#define WARD_TESTING_SIMULATOR_EXIT_GUARD_H_

#include <sys/types.h>

namespace ward::testing {

// While one exists, exit(3), _exit(2), _Exit(3) and quick_exit(3) abort this
// process, and say what was called and where; its children they end as ever.
class ExitGuard {
 public:
  ExitGuard();
  ExitGuard(const ExitGuard&) = delete;
  ExitGuard& operator=(const ExitGuard&) = delete;
  ~ExitGuard();

  // From now on they do what they always do.
  static void Disarm();

  // This process is libFuzzer's, which ends by _Exit(3), wherever it then is:
  // with what it has found, out of time, or told to by Ctrl-C.
  static void LeaveToLibFuzzer();

  // For //testing/interception, before `function` does it.
  static void Check(const char* function, int code);

 private:
  const pid_t found_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_EXIT_GUARD_H_

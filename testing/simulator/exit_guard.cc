#include "ward/testing/simulator/exit_guard.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <string_view>

#include "ward/testing/simulator/watchdog.h"

namespace ward::testing {
namespace {

// The process that is guarded, or 0.
std::atomic<pid_t> guarded{0};

std::atomic<bool> left_to_libfuzzer{false};

}  // namespace

ExitGuard::ExitGuard() : found_(guarded.exchange(getpid())) {}

ExitGuard::~ExitGuard() { guarded = found_; }

void ExitGuard::Disarm() { guarded = 0; }

void ExitGuard::LeaveToLibFuzzer() { left_to_libfuzzer = true; }

void ExitGuard::Check(const char* function, int code) {
  if (guarded != getpid()) return;
  if (left_to_libfuzzer && std::string_view(function) == "_Exit") return;
  Disarm();
  std::cerr
      << function << "(" << code
      << ") is called in the test's own process, which it would end: by a "
         "server that runs in it (modes simulated and threaded), or by "
         "the test. Return from the handler, or call Stop().\n";
  Watchdog::PrintStacks();
  std::abort();
}

}  // namespace ward::testing

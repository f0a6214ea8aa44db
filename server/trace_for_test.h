// The system calls of processes, as ptrace(2) has them.

#ifndef WARD_SERVER_TRACE_FOR_TEST_H_
#define WARD_SERVER_TRACE_FOR_TEST_H_

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/wait.h>

#include <cerrno>

#include "absl/functional/function_ref.h"
#include "gtest/gtest.h"

namespace ward {

// Of `child`, which has asked for it (PTRACE_TRACEME) and stops itself, and of
// all that it starts, until all have ended: calls `enters` at the beginning of
// each call. Fails the test for each that does not exit with 0.
inline void TraceSystemCalls(
    pid_t child,
    absl::FunctionRef<void(pid_t thread, const __ptrace_syscall_info& call)>
        enters) {
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSTOPPED(status));
  constexpr long kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK |
                            PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                            PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
  EXPECT_EQ(ptrace(PTRACE_SETOPTIONS, child, nullptr, kOptions), 0);
  ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
  while (true) {
    const pid_t thread = waitpid(-1, &status, __WALL);
    if (thread < 0) {
      EXPECT_EQ(errno, ECHILD);
      return;
    }
    if (!WIFSTOPPED(status)) {
      EXPECT_EQ(status, 0) << "of process " << thread;
      continue;
    }
    long signal = WSTOPSIG(status);
    if (signal == (SIGTRAP | 0x80)) {
      signal = 0;
      __ptrace_syscall_info info{};
      ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(info), &info);
      if (info.op == PTRACE_SYSCALL_INFO_ENTRY) enters(thread, info);
    } else if (signal == SIGTRAP || signal == SIGSTOP) {
      signal = 0;  // Of a thread or process that has been started.
    }
    ptrace(PTRACE_SYSCALL, thread, nullptr, signal);
  }
}

}  // namespace ward

#endif  // WARD_SERVER_TRACE_FOR_TEST_H_

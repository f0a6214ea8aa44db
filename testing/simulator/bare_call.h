// System calls that touch neither variables of the thread's own, as errno, nor
// the stack: others may have them by then.

#ifndef WARD_TESTING_SIMULATOR_BARE_CALL_H_
#define WARD_TESTING_SIMULATOR_BARE_CALL_H_

#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef __x86_64__
#include "ward/testing/simulator/no_scheduling_points.h"
#endif

namespace ward::testing {

#ifdef __x86_64__
inline long BareCall(long number, const void* a = nullptr, long b = 0,
                     long c = 0) {
  long result;
  register long no_limit asm("r10") = 0;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(no_limit)
               : "rcx", "r11", "memory");
  return result;
}
#else
inline long BareCall(long number, const void* a = nullptr, long b = 0,
                     long c = 0) {
  const NoSchedulingPoints quiet;
  return syscall(number, a, b, c, nullptr);
}
#endif

inline pid_t KernelThreadNumber() {
  return static_cast<pid_t>(BareCall(SYS_gettid));
}

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_BARE_CALL_H_

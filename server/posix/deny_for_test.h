// A process that is denied system calls, as in a sandbox.

#ifndef WARD_SERVER_POSIX_DENY_FOR_TEST_H_
#define WARD_SERVER_POSIX_DENY_FOR_TEST_H_

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace ward {

// From now on the system calls of these numbers (SYS_...) fail with `error`, in
// this process and in all that come of it, for ever: so in a child.
inline void DenyCalls(const std::vector<long>& numbers, int error) {
  std::vector<sock_filter> program = {
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)}};
  for (const long number : numbers) {
    program.push_back(
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, static_cast<uint32_t>(number)});
    program.push_back({BPF_RET | BPF_K, 0, 0,
                       SECCOMP_RET_ERRNO | static_cast<uint32_t>(error)});
  }
  program.push_back({BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW});
  const sock_fprog filter{static_cast<uint16_t>(program.size()),
                          program.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    abort();
  }
}

}  // namespace ward

#endif  // WARD_SERVER_POSIX_DENY_FOR_TEST_H_

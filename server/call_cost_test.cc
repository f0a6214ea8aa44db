// What a call over a kept connection costs in system calls, as ptrace(2) has
// them: of the client, and of each thread of the server.

#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using testing::IsOk;
using testing::IsOkAndHolds;

using ::testing::_;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::Le;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr int kCalls = 100;

inline constexpr Method<std::string, std::string> kEcho{"echo"};

// How often the thread that serves it was put to sleep.
inline constexpr Method<Arguments<>, int64_t> kSleeps{"sleeps"};

// Of the calling thread.
int64_t Sleeps() {
  rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

class EchoServer : public AbstractServer {
 public:
  explicit EchoServer(ServerOptions options = ServerOptions())
      : AbstractServer(std::move(options)) {
    Define(kSleeps, []() -> absl::StatusOr<int64_t> { return Sleeps(); });
    Define(kEcho, [](const std::string& text) -> absl::StatusOr<std::string> {
      return text;
    });
  }
};

// Counting begins, and ends, when a thread makes this call: nobody else does.
constexpr long kMark = SYS_sched_get_priority_max;
constexpr int kMarksArgument = 12345;
void Mark() { syscall(kMark, kMarksArgument); }

// By thread and number.
using Counts = std::map<pid_t, std::map<long, int>>;

// Those of `client` (which is stopped, and will be traced by this process), and
// of all that it starts. It has ended with 0.
Counts Trace(pid_t client) {
  Counts counts;
  bool counting = false;
  int status = 0;
  EXPECT_EQ(waitpid(client, &status, 0), client);
  EXPECT_TRUE(WIFSTOPPED(status));
  constexpr long kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK |
                            PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                            PTRACE_O_EXITKILL;
  EXPECT_EQ(ptrace(PTRACE_SETOPTIONS, client, nullptr, kOptions), 0);
  ptrace(PTRACE_SYSCALL, client, nullptr, nullptr);
  while (true) {
    const pid_t thread = waitpid(-1, &status, __WALL);
    if (thread < 0) {
      EXPECT_EQ(errno, ECHILD);
      return counts;
    }
    if (!WIFSTOPPED(status)) {
      EXPECT_EQ(status, 0) << thread;
      continue;
    }
    long signal = WSTOPSIG(status);
    if (signal == (SIGTRAP | 0x80)) {
      signal = 0;
      __ptrace_syscall_info info{};
      ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(info), &info);
      if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        const auto number = static_cast<long>(info.entry.nr);
        if (number == kMark && info.entry.args[0] == kMarksArgument) {
          counting = !counting;
        } else if (counting) {
          ++counts[thread][number];
        }
      }
    } else if (signal == SIGTRAP || signal == SIGSTOP) {
      signal = 0;  // Of a thread or process that has been started.
    }
    ptrace(PTRACE_SYSCALL, thread, nullptr, signal);
  }
}

TEST(CallCostTest, ACallTakesTwoSystemCallsOnEitherSide) {
  const pid_t client = fork();
  if (client == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    const bool ok = [] {
      EchoServer server;
      if (!server.Start().ok()) return false;
      for (int i = 0; i < 2 * kCalls; ++i) {
        if (i == kCalls) Mark();
        if (server.Call(kEcho, "some text").value_or("") != "some text") {
          return false;
        }
      }
      Mark();
      return server.Stop().ok();
    }();
    _exit(ok ? 0 : 1);
  }
  Counts counts = Trace(client);
  // One that the server has started may only now come to where it accepts.
  for (auto thread = counts.begin(); thread != counts.end();) {
    const bool accepts =
        thread->second == Counts::mapped_type{{SYS_accept4, 1}};
    thread = accepts ? counts.erase(thread) : std::next(thread);
  }
  const auto twice =
      UnorderedElementsAre(Pair(SYS_sendto, kCalls), Pair(SYS_recvmsg, kCalls));
  // The server's thread may be on its way to wait for the next call when
  // counting begins, and when it ends.
  const auto about_twice = UnorderedElementsAre(
      Pair(SYS_sendto, kCalls),
      Pair(SYS_recvmsg, AllOf(Ge(kCalls - 1), Le(kCalls + 1))));
  // It has the higher number, and nobody else does anything.
  EXPECT_THAT(counts, ElementsAre(Pair(client, twice), Pair(_, about_twice)));
}

TEST(CallCostTest, WhoSpinsIsNotPutToSleep) {
  cpu_set_t processors;
  ASSERT_EQ(sched_getaffinity(0, sizeof(processors), &processors), 0);
  if (CPU_COUNT(&processors) == 1) GTEST_SKIP() << "nobody spins on one";
  ServerOptions options;
  options.start_mode = StartMode::kFork;
  options.spin_time = absl::Hours(1);
  options.client_spin_time = absl::Hours(1);
  EchoServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_OK_AND_ASSIGN(const int64_t before, server.Call(kSleeps));
  const int64_t own = Sleeps();
  for (int i = 0; i < kCalls; ++i) {
    ASSERT_THAT(server.Call(kEcho, "some text"), IsOkAndHolds("some text"));
  }
  // Not once for each call; another thread may hold a lock now and then.
  EXPECT_LT(Sleeps() - own, kCalls / 2);
  ASSERT_OK_AND_ASSIGN(const int64_t after, server.Call(kSleeps));
  EXPECT_LT(after - before, kCalls / 2);
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward

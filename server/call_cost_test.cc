// What a call costs in system calls, as ptrace(2) has them: of the client, and
// of each thread of the server; over a kept connection, and with one of its
// own.

#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/trace_for_test.h"
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

// By number, and by thread.
using Calls = std::map<long, int>;
using Counts = std::map<pid_t, Calls>;

// Those of `client` (which is stopped, and will be traced by this process), and
// of all that it starts, each time that it counts. It has ended with 0.
std::vector<Counts> Trace(pid_t client) {
  std::vector<Counts> counts;
  bool counting = false;
  TraceSystemCalls(
      client, [&](pid_t thread, const __ptrace_syscall_info& info) {
        const auto number = static_cast<long>(info.entry.nr);
        if (number == kMark && info.entry.args[0] == kMarksArgument) {
          counting = !counting;
          if (counting) counts.emplace_back();
        } else if (counting) {
          ++counts.back()[thread][number];
        }
      });
  return counts;
}

// Those of a process that has `call` called with a server that it has started,
// each time that it counts.
std::vector<Counts> TraceCalls(absl::FunctionRef<bool(EchoServer&)> call,
                               pid_t& client) {
  client = fork();
  if (client == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    const bool ok = [&call] {
      EchoServer server;
      return server.Start().ok() && call(server) && server.Stop().ok();
    }();
    _exit(ok ? 0 : 1);
  }
  return Trace(client);
}

TEST(CallCostTest, ACallTakesTwoSystemCallsOnEitherSide) {
  pid_t client = 0;
  const std::vector<Counts> all = TraceCalls(
      [](EchoServer& server) {
        for (int i = 0; i < 2 * kCalls; ++i) {
          if (i == kCalls) Mark();
          if (server.Call(kEcho, "some text").value_or("") != "some text") {
            return false;
          }
        }
        Mark();
        return true;
      },
      client);
  ASSERT_EQ(all.size(), 1u);
  Counts counts = all.front();
  // One that the server has started may only now come to where it accepts.
  for (auto thread = counts.begin(); thread != counts.end();) {
    const bool accepts = thread->second == Calls{{SYS_accept4, 1}};
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

// In rounds of a few calls, of which one is to be as all are on an idle
// machine: there no client is so slow that it has to be watched.
TEST(CallCostTest, AConnectionForACallTakesSevenSystemCallsAndFive) {
  constexpr int kRounds = 50;
  constexpr int kCallsInARound = 4;
  pid_t client = 0;
  const std::vector<Counts> rounds = TraceCalls(
      [](EchoServer& server) {
        const auto call = [&server] {
          return server.Connect([](MessageChannel& channel) -> absl::Status {
            WARD_RETURN_IF_ERROR(channel.Write(kEcho.name, "some text"));
            return channel.Read().status();
          });
        };
        for (int i = 0; i < kRounds * kCallsInARound; ++i) {
          if (i % kCallsInARound == 0) Mark();
          if (!call().ok()) return false;
          if (i % kCallsInARound == kCallsInARound - 1) Mark();
        }
        return true;
      },
      client);
  ASSERT_EQ(rounds.size(), static_cast<size_t>(kRounds));
  // connect(2) waits for as long as SO_SNDTIMEO allows, by setsockopt(2); and
  // whose the server is (SO_PEERCRED) is asked before the password is said.
  Calls of_client;
  for (const long number :
       {SYS_socket, SYS_setsockopt, SYS_connect, SYS_getsockopt, SYS_sendto,
        SYS_recvmsg, SYS_close}) {
    of_client[number] = kCallsInARound;
  }
  int fit = 0;
  for (const Counts& round : rounds) {
    Calls of_server;
    for (const auto& [thread, calls] : round) {
      if (thread == client) continue;
      for (const auto& [number, count] : calls) of_server[number] += count;
    }
    EXPECT_EQ(round.at(client), of_client);
    // What the client sends comes after it has connected: who has accepted may
    // have to wait for it.
    const int waits = of_server[SYS_ppoll];
    of_server.erase(SYS_ppoll);
    // Whether the client is of its own user, only root does not ask.
    of_server.erase(SYS_geteuid);
    const bool is_plain =
        of_server[SYS_recvmsg] == kCallsInARound + waits &&
        of_server[SYS_getsockopt] == kCallsInARound &&
        of_server[SYS_sendto] == kCallsInARound &&
        // The end of the round before may be counted here, and that of this
        // one not.
        std::abs(of_server[SYS_close] - kCallsInARound) <= 1 &&
        std::abs(of_server[SYS_accept4] - kCallsInARound) <= 1 &&
        of_server.size() == 5;
    if (is_plain && waits <= kCallsInARound) ++fit;
  }
  EXPECT_GT(fit, 0);
}

}  // namespace
}  // namespace ward

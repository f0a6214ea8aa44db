// That a run is determined by its number: thousands of them, made three times.

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string_view>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/explore.h"
#include "ward/testing/simulation.h"

namespace ward::testing {
namespace {

constexpr size_t kMostRuns = 10000;
using Fingerprints = std::array<uint64_t, kMostRuns>;

// WARD_RUNS, up to that.
size_t Runs() {
  return std::min<uint64_t>(EnvironmentNumber("WARD_RUNS", 300), kMostRuns);
}

class EchoServer : public AbstractServer {
 public:
  EchoServer() {
    DefineMessageHandler("echo",
                         [](MessageChannel& channel, std::string_view text) {
                           return channel.Write(text);
                         });
  }
  absl::Status Echo(std::string_view text) {
    return Connect([text](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.Write("echo", text));
      return channel.Read().status();
    });
  }
};

void TwoClients() {
  EchoServer server;
  if (!server.Start().ok()) return;
  {
    const auto thread = Environment::Default().StartThread(
        [&] { (void)server.Echo("from a thread"); });
    (void)server.Echo("from the owner");
  }
  (void)server.Stop();
}

// All threads on one processor: switches between two cost more than their work.
void StayOn(int which) {
  cpu_set_t allowed;
  sched_getaffinity(0, sizeof(allowed), &allowed);
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (!CPU_ISSET(i, &allowed) || which-- > 0) continue;
    CPU_ZERO(&allowed);
    CPU_SET(i, &allowed);
    sched_setaffinity(0, sizeof(allowed), &allowed);
    return;
  }
}

// In a process of its own for every `portion` runs, since threads that were
// killed stay. Returns false if one of them does not end well.
bool MakeRuns(int processor, size_t portion, Fingerprints& made) {
  StayOn(processor);
  ExploreOptions options;
  options.faults = true;
  options.deaths = true;
  options.delays = true;
  for (size_t first = 0; first < Runs(); first += portion) {
    const pid_t child = fork();
    if (child == 0) {
      for (size_t run = first; run < std::min(first + portion, Runs()); ++run) {
        made[run] = FingerprintOfRun(options, run, TwoClients);
      }
      _exit(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) return false;
  }
  return true;
}

TEST(FingerprintOfRun, IsTheSameInOtherProcessesAndOnKernelThreads) {
  void* const memory =
      mmap(nullptr, 3 * sizeof(Fingerprints), PROT_READ | PROT_WRITE,
           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* const made = static_cast<Fingerprints*>(memory);
  // Other portions, so that what earlier runs leave in a process shows, too.
  const pid_t other = fork();
  if (other == 0) {
    Simulation::ExpectMany();
    _exit(MakeRuns(1, 170, made[1]) ? 0 : 1);
  }
  EXPECT_TRUE(MakeRuns(0, 300, made[0]));
  const pid_t threads = fork();
  if (threads == 0) {
    setenv("WARD_KERNEL_THREADS", "1", 1);
    _exit(MakeRuns(0, 230, made[2]) ? 0 : 1);
  }
  for (const pid_t child : {other, threads}) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }

  size_t different = 0;
  for (size_t run = 0; run < Runs(); ++run) {
    if (made[0][run] == made[1][run] && made[0][run] == made[2][run]) continue;
    if (++different < 5) ADD_FAILURE() << "run " << run << " differs";
  }
  EXPECT_EQ(different, 0u);
  const std::set<uint64_t> courses(made[0].begin(), made[0].end());
  EXPECT_GT(courses.size(), Runs() / 20) << "the runs differ from one another";
  munmap(memory, 3 * sizeof(Fingerprints));
}

}  // namespace
}  // namespace ward::testing

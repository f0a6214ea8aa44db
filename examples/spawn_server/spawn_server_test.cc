#include "ward/examples/spawn_server/spawn_server.h"

#include <signal.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"
#include "ward/examples/spawn_server/worker.h"
#include "ward/server/abstract_server.h"
#include "ward/server/client.h"
#include "ward/server/environment.h"
#include "ward/server/owner_handle.h"
#include "ward/server/process.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"
#include "ward/testing/simulation.h"

namespace {

using ::testing::SizeIs;
using ::ward::testing::FailsWith;
using ::ward::testing::HasProcesses;
using ::ward::testing::IsOk;
using ::ward::testing::IsOkAndHolds;
using ::ward::testing::MovesClock;

class SpawnServerTest : public ward::testing::ServerTest<SpawnServer> {
 protected:
  // Adds the workers that come of so many; how that ended.
  static absl::Status Spawn(SpawnServer& server, uint32_t count,
                            std::vector<ward::Client>& workers) {
    WARD_ASSIGN_OR_RETURN(auto spawned, server.Call(kSpawn, count));
    while (std::optional<ward::OwnerHandle> handle = spawned.Next()) {
      WARD_ASSIGN_OR_RETURN(ward::Client worker,
                            ward::Client::Own(*std::move(handle)));
      workers.push_back(std::move(worker));
    }
    return spawned.status();
  }

  std::vector<ward::Client> Spawn(uint32_t count) {
    std::vector<ward::Client> workers;
    EXPECT_THAT(Spawn(server(), count, workers), IsOk());
    EXPECT_THAT(workers, SizeIs(count));
    return workers;
  }

  // Waits until so many workers are left.
  void AwaitWorkers(int count) {
    const absl::Time end = environment().TimeNow() + absl::Seconds(30);
    while (true) {
      const absl::StatusOr<int> now = Call(kCountWorkers);
      ASSERT_THAT(now, IsOk());
      if (*now == count) return;
      ASSERT_LT(environment().TimeNow(), end) << *now << " workers";
      absl::SleepFor(absl::Milliseconds(1));
    }
  }

  // The preloader is a server's first and only child.
  void KillChildOf(pid_t server) {
    if (MovesClock()) {
      ward::testing::Simulation::Current()->environment().Raise(server + 1,
                                                                SIGKILL);
      return;
    }
    pid_t child = 0;
    std::ifstream(
        absl::StrCat("/proc/", server, "/task/", server, "/children")) >>
        child;
    ASSERT_GT(child, 0);
    EXPECT_EQ(kill(child, SIGKILL), 0);
  }

  // Those whose owner is gone would come to this process as orphans.
  void TearDown() override {
    if (server().started()) AwaitWorkers(0);
    ServerTest::TearDown();
  }
};

TEST_F(SpawnServerTest, AWorkerHasWhatWasPreloaded) {
  std::vector<ward::Client> workers = Spawn(1);
  EXPECT_THAT(workers[0].Call(kIsPrime, 199'999), IsOkAndHolds(true));
  EXPECT_THAT(workers[0].Call(kIsPrime, 199'997), IsOkAndHolds(false));
}

TEST_F(SpawnServerTest, TheApplicationIsLoadedOnceForAllWorkers) {
  std::set<std::string> loads;
  std::set<int> pids;
  std::vector<ward::Client> workers = Spawn(3);
  for (ward::Client& worker : workers) {
    ASSERT_OK_AND_ASSIGN(const auto identity, worker.Call(kIdentify));
    const auto& [load_id, pid] = identity;
    loads.insert(load_id);
    pids.insert(pid);
  }
  EXPECT_THAT(loads, SizeIs(1));
  EXPECT_THAT(pids, SizeIs(HasProcesses() ? 3 : 1));
}

TEST_F(SpawnServerTest, AWorkerQuitsWhenItsOwnerLetsGoAndNoOther) {
  std::vector<ward::Client> workers = Spawn(2);
  AwaitWorkers(2);
  workers.pop_back();
  AwaitWorkers(1);
  EXPECT_THAT(workers[0].Call(kIsPrime, 7), IsOkAndHolds(true));
}

TEST_F(SpawnServerTest, AWorkerIsOwnedByWhoAskedForItAlone) {
  ward::AbstractServer worker;
  {
    ASSERT_OK_AND_ASSIGN(auto spawned, server().Call(kSpawn, 1));
    std::optional<ward::OwnerHandle> handle = spawned.Next();
    ASSERT_TRUE(handle.has_value()) << spawned.status();
    ASSERT_THAT(worker.Adopt(*std::move(handle)), IsOk());
  }
  // The spawn server's share goes with its handler, a moment later.
  const absl::Time end = environment().TimeNow() + absl::Seconds(30);
  absl::StatusOr<std::vector<ward::ProcessInfo>> owners;
  do {
    ASSERT_LT(environment().TimeNow(), end);
    absl::SleepFor(absl::Milliseconds(1));
    owners = worker.Owners();
    ASSERT_THAT(owners, IsOk());
  } while (owners->size() > 1);
  ASSERT_EQ(owners->size(), 1U);
  EXPECT_EQ((*owners)[0].pid, environment().ProcessId());
}

TEST_F(SpawnServerTest, AWorkerGoesWithAnOwnerThatDies) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot die";
  std::vector<ward::Client> workers;
  EXPECT_EQ(RunInProcess([&] {
              const bool served = Spawn(server(), 1, workers).ok() &&
                                  workers[0].Call(kIsPrime, 7).ok();
              return served ? 0 : 1;
            }),
            0);
  AwaitWorkers(0);
}

TEST_F(SpawnServerTest, ManyClientsAtOnceGetTheirWorkers) {
  constexpr int kClients = 5;
  std::vector<absl::AnyInvocable<void()>> clients;
  std::vector<std::vector<ward::Client>> workers(kClients);
  for (std::vector<ward::Client>& of_one : workers) {
    clients.emplace_back([&] { of_one = Spawn(2); });
  }
  RunAtOnce(std::move(clients));
  EXPECT_THAT(Call(kCountWorkers), IsOkAndHolds(2 * kClients));
  for (std::vector<ward::Client>& of_one : workers) {
    for (ward::Client& worker : of_one) {
      EXPECT_THAT(worker.Call(kIsPrime, 7), IsOkAndHolds(true));
    }
  }
}

// They had come before it was known that there would be no more.
TEST_F(SpawnServerTest, WhoAsksForTooManyHasThoseThatThereMayBe) {
  std::vector<ward::Client> workers;
  EXPECT_THAT(Spawn(server(), 2'000'000'000, workers),
              FailsWith(kTooManyWorkers));
  EXPECT_THAT(workers, SizeIs(SpawnServer::kMaxWorkers));
  for (ward::Client& worker : workers) {
    EXPECT_THAT(worker.Call(kIsPrime, 7), IsOkAndHolds(true));
  }
  workers.pop_back();
  AwaitWorkers(SpawnServer::kMaxWorkers - 1);
  EXPECT_THAT(Spawn(server(), 1, workers), IsOk());
}

TEST_F(SpawnServerTest, WhatWasNotTakenQuitsWithItsCall) {
  {
    ASSERT_OK_AND_ASSIGN(auto spawned, server().Call(kSpawn, 3));
    EXPECT_TRUE(spawned.Next().has_value()) << spawned.status();
  }
  AwaitWorkers(0);
  EXPECT_THAT(Spawn(1)[0].Call(kIsPrime, 7), IsOkAndHolds(true));
}

TEST_F(SpawnServerTest, WorkersOutliveTheSpawnServer) {
  if (!HasProcesses()) GTEST_SKIP() << "they would stay until the process ends";
  // It waits for what it leaves behind: the worker, which is an orphan then.
  EXPECT_EQ(RunInProcess([] {
              SpawnServer spawner;
              std::vector<ward::Client> workers;
              if (!spawner.Start().ok()) return 1;
              if (!Spawn(spawner, 1, workers).ok()) return 2;
              if (!spawner.Stop().ok()) return 3;
              return workers[0].Call(kIsPrime, 7).ok() ? 0 : 4;
            }),
            0);
}

TEST_F(SpawnServerTest, ADeadPreloaderIsReportedAndEndsNothingElse) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  // It waits for what it leaves behind: the worker, which is an orphan then.
  EXPECT_EQ(RunInProcess([this] {
              SpawnServer spawner;
              std::vector<ward::Client> workers;
              if (!spawner.Start().ok()) return 1;
              if (!Spawn(spawner, 1, workers).ok()) return 2;
              KillChildOf(spawner.server_pid());
              const absl::Status status = Spawn(spawner, 1, workers);
              if (!ward::HasReason(status, kPreloaderDied)) return 3;
              if (!workers[0].Call(kIsPrime, 7).ok()) return 4;
              // Its FinalizeServer tells how the preloader had ended.
              return spawner.Stop().ok() ? 5 : 0;
            }),
            0);
}

}  // namespace

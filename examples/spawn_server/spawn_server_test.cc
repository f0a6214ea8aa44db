#include "ward/examples/spawn_server/spawn_server.h"

#include <signal.h>
#include <sys/types.h>

#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/examples/spawn_server/worker.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"
#include "ward/testing/simulation.h"

namespace {

using ::testing::_;
using ::testing::FieldsAre;
using ::ward::testing::FailsWith;
using ::ward::testing::HasProcesses;
using ::ward::testing::IsOk;
using ::ward::testing::IsOkAndHolds;
using ::ward::testing::MovesClock;

class SpawnServerTest : public ward::testing::ServerTest<SpawnServer> {
 protected:
  std::unique_ptr<Worker> Spawn(const std::string& name) {
    auto worker = std::make_unique<Worker>();
    EXPECT_THAT(server().Spawn(name, *worker), IsOk());
    return worker;
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
  const std::unique_ptr<Worker> worker = Spawn("one");
  EXPECT_THAT(worker->Call(kIsPrime, 199'999), IsOkAndHolds(true));
  EXPECT_THAT(worker->Call(kIsPrime, 199'997), IsOkAndHolds(false));
  EXPECT_THAT(worker->Call(kIdentify), IsOkAndHolds(FieldsAre("one", _, _)));
}

TEST_F(SpawnServerTest, TheApplicationIsLoadedOnceForAllWorkers) {
  std::set<std::string> loads;
  std::set<int> pids;
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < 3; ++i) {
    workers.push_back(Spawn(absl::StrCat(i)));
    ASSERT_OK_AND_ASSIGN(const auto identity, workers.back()->Call(kIdentify));
    const auto& [name, load_id, pid] = identity;
    loads.insert(load_id);
    pids.insert(pid);
  }
  EXPECT_EQ(loads.size(), 1U);
  EXPECT_EQ(pids.size(), HasProcesses() ? 3U : 1U);
}

TEST_F(SpawnServerTest, AWorkerQuitsWhenItsOwnerLetsGoAndNoOther) {
  std::unique_ptr<Worker> one = Spawn("one");
  const std::unique_ptr<Worker> other = Spawn("other");
  AwaitWorkers(2);
  one.reset();
  AwaitWorkers(1);
  EXPECT_THAT(other->Call(kIsPrime, 7), IsOkAndHolds(true));
}

TEST_F(SpawnServerTest, AWorkerIsOwnedByWhoAskedForItAlone) {
  const std::unique_ptr<Worker> worker = Spawn("one");
  // The spawn server's share goes with its handler, a moment later.
  const absl::Time end = environment().TimeNow() + absl::Seconds(30);
  absl::StatusOr<std::vector<ward::ProcessInfo>> owners;
  do {
    ASSERT_LT(environment().TimeNow(), end);
    absl::SleepFor(absl::Milliseconds(1));
    owners = worker->Owners();
    ASSERT_THAT(owners, IsOk());
  } while (owners->size() > 1);
  ASSERT_EQ(owners->size(), 1U);
  EXPECT_EQ((*owners)[0].pid, environment().ProcessId());
}

TEST_F(SpawnServerTest, AWorkerGoesWithAnOwnerThatDies) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot die";
  Worker worker;
  EXPECT_EQ(RunInProcess([&] {
              const bool served = server().Spawn("one", worker).ok() &&
                                  worker.Call(kIsPrime, 7).ok();
              return served ? 0 : 1;
            }),
            0);
  AwaitWorkers(0);
}

TEST_F(SpawnServerTest, ManyClientsAtOnceGetAWorkerEach) {
  constexpr int kClients = 10;
  absl::Mutex mutex;
  std::set<std::string> paths;
  std::vector<absl::AnyInvocable<void()>> clients;
  std::vector<std::unique_ptr<Worker>> workers(kClients);
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&, i] {
      workers[static_cast<size_t>(i)] = Spawn(absl::StrCat(i));
      absl::MutexLock lock(&mutex);
      paths.insert(workers[static_cast<size_t>(i)]->socket_filename());
    });
  }
  RunAtOnce(std::move(clients));
  EXPECT_EQ(paths.size(), static_cast<size_t>(kClients));
  for (const auto& worker : workers) {
    EXPECT_THAT(worker->Call(kIsPrime, 7), IsOkAndHolds(true));
  }
}

TEST_F(SpawnServerTest, ThereAreOnlySoManyWorkers) {
  std::vector<std::unique_ptr<Worker>> workers;
  for (size_t i = 0; i < SpawnServer::kMaxWorkers; ++i) {
    workers.push_back(Spawn(absl::StrCat(i)));
  }
  Worker one_more;
  EXPECT_THAT(server().Spawn("one more", one_more), FailsWith(kTooManyWorkers));
  workers.pop_back();
  AwaitWorkers(SpawnServer::kMaxWorkers - 1);
  EXPECT_THAT(server().Spawn("one more", one_more), IsOk());
}

TEST_F(SpawnServerTest, WorkersOutliveTheSpawnServer) {
  if (!HasProcesses()) GTEST_SKIP() << "they would stay until the process ends";
  // It waits for what it leaves behind: the worker, which is an orphan then.
  EXPECT_EQ(RunInProcess([] {
              SpawnServer spawner;
              Worker worker;
              if (!spawner.Start().ok()) return 1;
              if (!spawner.Spawn("one", worker).ok()) return 2;
              if (!spawner.Stop().ok()) return 3;
              return worker.Call(kIsPrime, 7).ok() ? 0 : 4;
            }),
            0);
}

TEST_F(SpawnServerTest, ADeadPreloaderIsReportedAndEndsNothingElse) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  // It waits for what it leaves behind: the worker, which is an orphan then.
  EXPECT_EQ(RunInProcess([this] {
              SpawnServer spawner;
              Worker worker;
              Worker other;
              if (!spawner.Start().ok()) return 1;
              if (!spawner.Spawn("one", worker).ok()) return 2;
              KillChildOf(spawner.server_pid());
              const absl::Status status = spawner.Spawn("other", other);
              if (!ward::HasReason(status, kPreloaderDied)) return 3;
              if (!worker.Call(kIsPrime, 7).ok()) return 4;
              // Its FinalizeServer tells how the preloader had ended.
              return spawner.Stop().ok() ? 5 : 0;
            }),
            0);
}

}  // namespace

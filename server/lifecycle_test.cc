// Processes and their owners, without AbstractServer.

#include "ward/server/lifecycle.h"

#include <signal.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/process.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::MovesClock;
using ::testing::Not;

// A server that is ready, and quits when its owner wants it to.
absl::Status QuitWhenTold(OwnerLink& owner) {
  EXPECT_THAT(owner.ReportReady(), IsOk());
  const Pollable* const polled[] = {&owner.pollable()};
  return Environment::Default().Poll(polled, absl::InfiniteFuture()).status();
}

absl::Status Hang() {
  absl::SleepFor(absl::InfiniteDuration());
  return absl::OkStatus();
}

absl::Status NeverQuit(OwnerLink& owner) {
  EXPECT_THAT(owner.ReportReady(), IsOk());
  return Hang();
}

// Its children are reaped, or the fixture would find them.
class LifecycleTest : public testing::ServerTestBase {
 protected:
  absl::StatusOr<std::unique_ptr<ServerProcess>> Launch(
      LaunchOptions options,
      absl::AnyInvocable<absl::Status(OwnerLink&)> serve) {
    auto server = ServerProcess::Fork(environment(), std::move(options),
                                      std::move(serve));
    if (!server.ok()) return server;
    const absl::Status ready = (*server)->WaitUntilReady();
    if (!ready.ok()) return ready;
    return server;
  }

  // Waits until it has ended, and returns how.
  absl::Status AwaitEnd(ServerProcess& server) {
    const Pollable* const polled[] = {&server.pollable()};
    EXPECT_THAT(environment().Poll(polled, absl::InfiniteFuture()), IsOk());
    return server.CheckAlive();
  }
};

TEST_F(LifecycleTest, StopsAServerThatQuitsByItself) {
  const auto server = Launch({}, QuitWhenTold);
  ASSERT_THAT(server, IsOk());
  EXPECT_GT((*server)->pid(), 0);
  EXPECT_TRUE((*server)->launched_here());
  EXPECT_THAT((*server)->CheckAlive(), IsOk());
  EXPECT_THAT((*server)->Stop({}), IsOk());
}

TEST_F(LifecycleTest, ReturnsTheVeryErrorThatTheChildReports) {
  constexpr Reason kNoCamera{"NoCamera", absl::StatusCode::kNotFound};
  const auto server = Launch({}, [&](OwnerLink& /*owner*/) {
    return MakeError(kNoCamera, "there is no camera at /dev/video9");
  });
  EXPECT_THAT(server, FailsWith(kNoCamera));
  EXPECT_EQ(server.status().message(), "there is no camera at /dev/video9");
}

TEST_F(LifecycleTest, TellsHowAChildDiedThatWasNotReady) {
  if (MovesClock()) GTEST_SKIP() << "_exit(2) ends the test's own process";
  EXPECT_THAT(Launch({}, [](OwnerLink&) -> absl::Status { _exit(42); }),
              FailsWith(reason::kServerDied, "code 42"));
  EXPECT_THAT(Launch({},
                     [](OwnerLink&) {
                       kill(getpid(), SIGKILL);
                       return absl::OkStatus();
                     }),
              FailsWith(reason::kServerDied, "signal 9"));
}

// Found by //testing's exploration: it was taken for a success.
TEST_F(LifecycleTest, TakesACleanExitBeforeReadinessForADeath) {
  const auto server = Launch({}, [](OwnerLink&) { return absl::OkStatus(); });
  EXPECT_THAT(server, FailsWith(reason::kServerDied, "code 0"));
  // There is nothing left to stop, and nobody has stopped it.
  EXPECT_THAT(server.status().message(), Not(HasSubstr("stop")));
}

TEST_F(LifecycleTest, KillsAChildThatIsNotReadyInTime) {
  LaunchOptions options;
  options.start_timeout = absl::Milliseconds(50);
  EXPECT_THAT(Launch(options, [](OwnerLink&) { return Hang(); }),
              FailsWith(reason::kTimedOut));
}

// An owner that did not launch the server may not care how long it takes.
TEST_F(LifecycleTest, EndsByItselfWhenItIsNotReadyInTimeAndNobodyKillsIt) {
  auto server = ServerProcess::Fork(environment(), {}, [](OwnerLink& owner) {
    owner.QuitWithin(absl::Milliseconds(20));
    return Hang();
  });
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT(AwaitEnd(**server),
              FailsWith(reason::kServerDied, "killed by signal 9"));
}

TEST_F(LifecycleTest, IsKilledWhenItsLastOwnerIsGoneBeforeItIsReady) {
  auto server =
      ServerProcess::Fork(environment(), {}, [](OwnerLink&) { return Hang(); });
  ASSERT_THAT(server, IsOk());
  Owner other = AddOwner();
  const std::unique_ptr<Process> process =
      ServerProcess::Disown(*std::move(server));
  EXPECT_THAT(process->Wait(environment().TimeNow() + absl::Milliseconds(100)),
              FailsWith(reason::kTimedOut));
  other.Kill();
  const absl::Time gone = environment().TimeNow();
  const auto exit = process->Wait(absl::InfiniteFuture());
  ASSERT_THAT(exit, IsOk());
  EXPECT_THAT(exit->ToString(), HasSubstr("killed by signal 9"));
  if (MovesClock()) {
    EXPECT_EQ(environment().TimeNow(), gone);
  }
}

TEST_F(LifecycleTest, IsKilledWhenAnOwnerStopsItBeforeItIsReady) {
  auto server =
      ServerProcess::Fork(environment(), {}, [](OwnerLink&) { return Hang(); });
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT((*server)->Stop({absl::InfiniteDuration()}), IsOk());
}

// Who waits for the server is told what has become of it.
TEST_F(LifecycleTest, TellsThatAnotherOwnerStoppedItBeforeItWasReady) {
  if (MovesClock()) GTEST_SKIP() << "simulated forks share their memory";
  auto server =
      ServerProcess::Fork(environment(), {}, [](OwnerLink&) { return Hang(); });
  ASSERT_THAT(server, IsOk());
  auto other = environment().Fork({{}, /*keep_all_open=*/true}, [&server] {
    return (*server)->Stop({absl::InfiniteDuration()}).ok() ? 0 : 1;
  });
  ASSERT_THAT(other, IsOk());
  EXPECT_THAT((*server)->WaitUntilReady(),
              FailsWith(reason::kServerDied, "another owner that stops it"));
  const auto exit = (*other)->Wait(absl::InfiniteFuture());
  ASSERT_THAT(exit, IsOk());
  EXPECT_TRUE(exit->clean()) << exit->ToString();
}

// It may take its time, and is no longer killed by a word.
TEST_F(LifecycleTest, QuitsByItselfOnceItIsReady) {
  const auto server = Launch({}, [this](OwnerLink& owner) -> absl::Status {
    EXPECT_THAT(owner.ReportReady(), IsOk());
    const Pollable* const polled[] = {&owner.pollable()};
    EXPECT_THAT(environment().Poll(polled, absl::InfiniteFuture()), IsOk());
    absl::SleepFor(absl::Milliseconds(20));
    return absl::OkStatus();
  });
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT((*server)->Stop({}), IsOk());
}

TEST_F(LifecycleTest, EndsByItselfWhenItQuitsTooSlowlyAndHasNoOwner) {
  const auto server = Launch({}, [](OwnerLink& owner) {
    EXPECT_THAT(owner.ReportReady(), IsOk());
    owner.QuitWithin(absl::Milliseconds(20));
    return Hang();
  });
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT(AwaitEnd(**server),
              FailsWith(reason::kServerDied, "killed by signal 9"));
}

TEST_F(LifecycleTest, KillsAServerThatDoesNotQuit) {
  const auto server = Launch({}, NeverQuit);
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT((*server)->Stop({absl::Milliseconds(50)}),
              FailsWith(reason::kServerKilled));
}

// The patient one finds a server that SIGKILL has ended, as the other one does.
TEST_F(LifecycleTest, TellsAllThreadsThatStopAServerThatItWasKilled) {
  const auto server = Launch({}, NeverQuit);
  ASSERT_THAT(server, IsOk());
  const auto patient = environment().StartThread([&server] {
    EXPECT_THAT((*server)->Stop({absl::InfiniteDuration()}),
                FailsWith(reason::kServerKilled));
  });
  ASSERT_THAT(patient, IsOk());
  EXPECT_THAT((*server)->Stop({absl::Milliseconds(50)}),
              FailsWith(reason::kServerKilled));
}

TEST_F(LifecycleTest, TellsHowAServerDied) {
  const auto server = Launch({}, NeverQuit);
  ASSERT_THAT(server, IsOk());
  auto shared = (*server)->ShareProcess();
  ASSERT_THAT(shared, IsOk());
  const auto process =
      environment().AdoptProcess(*std::move(shared), environment().UserId());
  ASSERT_THAT(process, IsOk());
  ASSERT_THAT((*process)->Kill(SIGKILL), IsOk());
  EXPECT_THAT(AwaitEnd(**server),
              FailsWith(reason::kServerDied, "killed by signal 9"));
  EXPECT_THAT((*server)->Stop({}), FailsWith(reason::kServerDied));
}

TEST_F(LifecycleTest, ReportsACleanEndAsClean) {
  const auto server =
      Launch({}, [](OwnerLink& owner) { return owner.ReportReady(); });
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT((*server)->Stop({}), IsOk());
}

TEST_F(LifecycleTest, LogsAFailureThatNobodyWaitsForAnyMore) {
  ::testing::internal::CaptureStderr();
  const auto server = Launch({}, [](OwnerLink& owner) {
    EXPECT_THAT(owner.ReportReady(), IsOk());
    return absl::DataLossError("the cache was not written");
  });
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT((*server)->Stop({}),
              FailsWith(reason::kServerDied, "exited with code 1"));
  const std::string log = ::testing::internal::GetCapturedStderr();
  // A simulation's log is in its transcript.
  if (!MovesClock()) {
    EXPECT_THAT(log, HasSubstr("the cache was not written"));
  }
}

TEST_F(LifecycleTest, LivesAsLongAsOneOfItsOwners) {
  const auto server = Launch({}, QuitWhenTold);
  ASSERT_THAT(server, IsOk());
  Owner other = AddOwner();
  EXPECT_THAT((*server)->CheckAlive(), IsOk());
  other.Kill();
  EXPECT_THAT((*server)->CheckAlive(), IsOk());
  EXPECT_THAT((*server)->Stop({}), IsOk());
}

TEST_F(LifecycleTest, CanBeStoppedByAnOwnerThatIsNotItsParent) {
  if (MovesClock()) GTEST_SKIP() << "simulated forks share their memory";
  const auto server = Launch({}, QuitWhenTold);
  ASSERT_THAT(server, IsOk());
  auto owner = environment().Fork({{}, /*keep_all_open=*/true}, [&server] {
    return !(*server)->launched_here() && (*server)->Stop({}).ok() ? 0 : 1;
  });
  ASSERT_THAT(owner, IsOk());
  const auto exit = (*owner)->Wait(absl::InfiniteFuture());
  ASSERT_THAT(exit, IsOk());
  EXPECT_TRUE(exit->clean()) << exit->ToString();
  EXPECT_THAT(AwaitEnd(**server),
              FailsWith(reason::kServerDied, "exited with code 0"));
  EXPECT_THAT((*server)->Stop({}), IsOk());
}

}  // namespace
}  // namespace ward

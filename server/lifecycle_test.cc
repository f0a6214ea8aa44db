#include "ward/server/lifecycle.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"

namespace ward {
namespace {

Environment& Posix() { return Environment::Posix(); }

// A server that is ready, and quits when its owner wants it to.
absl::Status QuitWhenTold(OwnerLink& owner) {
  EXPECT_TRUE(owner.ReportReady().ok());
  const Pollable* const polled[] = {&owner.pollable()};
  return Posix().Poll(polled, absl::InfiniteFuture()).status();
}

absl::Status NeverQuit(OwnerLink& owner) {
  EXPECT_TRUE(owner.ReportReady().ok());
  while (true) pause();
}

absl::StatusOr<std::unique_ptr<ServerProcess>> Launch(
    LaunchOptions options, absl::AnyInvocable<absl::Status(OwnerLink&)> serve) {
  auto server =
      ServerProcess::Fork(Posix(), std::move(options), std::move(serve));
  if (!server.ok()) return server;
  const absl::Status ready = (*server)->WaitUntilReady();
  if (!ready.ok()) return ready;
  return server;
}

class LifecycleTest : public ::testing::Test {
 protected:
  ~LifecycleTest() override {
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child was not reaped";
    EXPECT_EQ(errno, ECHILD);
  }
};

TEST_F(LifecycleTest, StopsAServerThatQuitsByItself) {
  const auto server = Launch({}, QuitWhenTold);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_GT((*server)->pid(), 0);
  EXPECT_TRUE((*server)->launched_here());
  EXPECT_TRUE((*server)->CheckAlive().ok());
  EXPECT_TRUE((*server)->Stop({}).ok());
}

TEST_F(LifecycleTest, ReturnsTheVeryErrorThatTheChildReports) {
  constexpr Reason kNoCamera{"NoCamera", absl::StatusCode::kNotFound};
  const auto server = Launch({}, [&](OwnerLink& /*owner*/) {
    return MakeError(kNoCamera, "there is no camera at /dev/video9");
  });
  EXPECT_TRUE(HasReason(server.status(), kNoCamera)) << server.status();
  EXPECT_EQ(server.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(server.status().message(), "there is no camera at /dev/video9");
}

TEST_F(LifecycleTest, TellsHowAChildDiedThatWasNotReady) {
  const auto exited = Launch({}, [](OwnerLink&) -> absl::Status { _exit(42); });
  EXPECT_TRUE(HasReason(exited.status(), reason::kServerDied));
  EXPECT_TRUE(absl::StrContains(exited.status().message(), "code 42"))
      << exited.status();

  const auto killed = Launch({}, [](OwnerLink&) -> absl::Status {
    kill(getpid(), SIGKILL);
    return absl::OkStatus();
  });
  EXPECT_TRUE(HasReason(killed.status(), reason::kServerDied));
  EXPECT_TRUE(absl::StrContains(killed.status().message(), "signal 9"))
      << killed.status();
}

// Found by //testing's exploration: it was taken for a success.
TEST_F(LifecycleTest, TakesACleanExitBeforeReadinessForADeath) {
  const auto exited = Launch({}, [](OwnerLink&) -> absl::Status { _exit(0); });
  EXPECT_TRUE(HasReason(exited.status(), reason::kServerDied));
  EXPECT_TRUE(absl::StrContains(exited.status().message(), "code 0"))
      << exited.status();
}

TEST_F(LifecycleTest, KillsAChildThatIsNotReadyInTime) {
  LaunchOptions options;
  options.start_timeout = absl::Milliseconds(50);
  const auto server = Launch(options, [](OwnerLink&) -> absl::Status {
    while (true) pause();
  });
  EXPECT_TRUE(HasReason(server.status(), reason::kTimedOut)) << server.status();
}

// A server whose owner has died cannot count on being killed by it.
TEST_F(LifecycleTest, EndsByItselfWhenItIsNotReadyInTimeAndHasNoOwner) {
  const pid_t child = fork();
  if (child == 0) {
    const OwnerLink owner(Posix(), nullptr, absl::Milliseconds(20));
    while (true) pause();
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
}

TEST_F(LifecycleTest, EndsByItselfWhenItQuitsTooSlowlyAndHasNoOwner) {
  const auto server = Launch({}, [](OwnerLink& owner) {
    (void)owner.ReportReady();
    owner.QuitWithin(absl::Milliseconds(20));
    while (true) pause();
    return absl::OkStatus();
  });
  ASSERT_TRUE(server.ok()) << server.status();
  absl::Status status;
  while (status.ok()) status = (*server)->CheckAlive();
  EXPECT_TRUE(absl::StrContains(status.message(), "killed by signal 9"))
      << status;
}

TEST_F(LifecycleTest, KillsAServerThatDoesNotQuit) {
  const auto server = Launch({}, NeverQuit);
  ASSERT_TRUE(server.ok()) << server.status();
  const absl::Status status = (*server)->Stop({absl::Milliseconds(50)});
  EXPECT_TRUE(HasReason(status, reason::kServerKilled)) << status;
}

TEST_F(LifecycleTest, TellsHowAServerDied) {
  const auto server = Launch({}, NeverQuit);
  ASSERT_TRUE(server.ok()) << server.status();
  ASSERT_EQ(kill((*server)->pid(), SIGKILL), 0);
  // Its end of the socket pair is closed some time after kill(2) returned.
  absl::Status status;
  while (status.ok()) status = (*server)->CheckAlive();
  EXPECT_TRUE(HasReason(status, reason::kServerDied));
  EXPECT_TRUE(absl::StrContains(status.message(), "killed by signal 9"))
      << status;
  EXPECT_TRUE(HasReason((*server)->Stop({}), reason::kServerDied));
}

TEST_F(LifecycleTest, ReportsACleanEndAsClean) {
  const auto server =
      Launch({}, [](OwnerLink& owner) { return owner.ReportReady(); });
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE((*server)->Stop({}).ok());
}

TEST_F(LifecycleTest, LogsAFailureThatNobodyWaitsForAnyMore) {
  ::testing::internal::CaptureStderr();
  const auto server = Launch({}, [](OwnerLink& owner) {
    (void)owner.ReportReady();
    return absl::DataLossError("the cache was not written");
  });
  ASSERT_TRUE(server.ok()) << server.status();
  const absl::Status status = (*server)->Stop({});
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(absl::StrContains(log, "the cache was not written")) << log;
  EXPECT_TRUE(absl::StrContains(status.message(), "exited with code 1"))
      << status;
}

TEST_F(LifecycleTest, LivesAsLongAsOneOfItsOwners) {
  auto server = Launch({}, QuitWhenTold);
  ASSERT_TRUE(server.ok()) << server.status();
  const auto alive = [&server] {
    return kill((*server)->pid(), 0) == 0 && (*server)->CheckAlive().ok();
  };
  // The fork has a copy of the owner's end; it dies by a signal.
  const pid_t other_owner = fork();
  if (other_owner == 0) {
    while (true) pause();
  }
  EXPECT_TRUE(alive());
  kill(other_owner, SIGKILL);
  ASSERT_EQ(waitpid(other_owner, nullptr, 0), other_owner);
  EXPECT_TRUE(alive());
  EXPECT_TRUE((*server)->Stop({}).ok());
}

TEST_F(LifecycleTest, CanBeStoppedByAnOwnerThatIsNotItsParent) {
  const auto server = Launch({}, QuitWhenTold);
  ASSERT_TRUE(server.ok()) << server.status();
  const pid_t other_owner = fork();
  if (other_owner == 0) {
    _exit(!(*server)->launched_here() && (*server)->Stop({}).ok() ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(other_owner, &status, 0), other_owner);
  EXPECT_EQ(status, 0);
  absl::Status dead;
  while (dead.ok()) dead = (*server)->CheckAlive();
  EXPECT_TRUE(absl::StrContains(dead.message(), "exited with code 0")) << dead;
  EXPECT_TRUE((*server)->Stop({}).ok());
}

}  // namespace
}  // namespace ward

#include "ward/server/supervisor.h"

#include <signal.h>
#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/process.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/call_server.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"
#include "ward/testing/simulation.h"

namespace ward {
namespace {

using testing::CallServer;
using testing::FailsWith;
using testing::IsOk;
using testing::MovesClock;
using testing::RepliesWith;

using ::testing::ElementsAre;
using ::testing::Optional;

struct FailingServer : Registered<FailingServer> {
  using Registered::Registered;
  absl::Status InitializeServer() override {
    return MakeError(reason::kPathTaken, "that is taken already");
  }
};

// The supervisor has a thread here, beside which only an exec'd server can be
// started: so these run simulated and by exec.
class SupervisorTest : public testing::ServerTestBase {
 protected:
  void SetUp() override {
    auto ends = environment().CreateTransportPair();
    ASSERT_THAT(ends, IsOk());
    quit_ = std::move(ends->first);
    end_ = std::move(ends->second);
  }

  template <typename Server>
  void Supervise(SupervisorOptions options) {
    ServerOptions server_options;
    server_options.start_mode = StartMode::kExec;
    server_ = std::make_unique<Server>(std::move(server_options));
    options.environment = &environment();
    options.on_ready = [this](pid_t pid) {
      absl::MutexLock lock(&mutex_);
      pid_ = pid;
    };
    options.on_exit = [this](const absl::Status& how,
                             std::optional<absl::Duration> again_in) {
      absl::MutexLock lock(&mutex_);
      pid_ = 0;
      how_ = how;
      again_in_.push_back(again_in);
    };
    supervisor_ = std::make_unique<Supervisor>(*server_, std::move(options));
  }

  // In a loop of its own, on a thread.
  void Run() {
    auto thread = environment().StartThread(
        [this] { status_ = supervisor_->Run(*end_); });
    ASSERT_THAT(thread, IsOk());
    thread_ = *std::move(thread);
  }

  // Until it has come to its end.
  absl::Status Join() {
    thread_.reset();
    return status_;
  }

  // Waits until another process than `before` serves.
  pid_t AwaitServer(pid_t before) {
    const auto serves = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return pid_ != 0 && pid_ != before;
    };
    absl::MutexLock lock(&mutex_, absl::Condition(&serves));
    return pid_;
  }

  void AwaitExits(size_t count) {
    const auto has = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return again_in_.size() >= count;
    };
    absl::MutexLock lock(&mutex_, absl::Condition(&has));
  }

  // The server's own object is the supervisor's: its process is told.
  void Kill(pid_t pid) {
    if (MovesClock()) {
      testing::Simulation::Current()->environment().Raise(pid, SIGKILL);
    } else {
      EXPECT_EQ(kill(pid, SIGKILL), 0);
    }
  }

  void TearDown() override {
    supervisor_.reset();
    server_.reset();
    quit_.reset();
    end_.reset();
    ServerTestBase::TearDown();
  }

  std::unique_ptr<Transport> quit_;
  std::unique_ptr<Transport> end_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<Supervisor> supervisor_;
  absl::Mutex mutex_;
  pid_t pid_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status how_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::optional<absl::Duration>> again_in_ ABSL_GUARDED_BY(mutex_);

 private:
  absl::Status status_;
  std::unique_ptr<Thread> thread_;
};

TEST_F(SupervisorTest, StartsAServerAgainThatWasKilled) {
  SupervisorOptions options;
  options.first_delay = absl::Milliseconds(10);
  Supervise<TestServer>(std::move(options));
  Run();
  pid_t pid = 0;
  for (int i = 0; i < 3; ++i) {
    const absl::Time killed = environment().TimeNow();
    if (pid != 0) Kill(pid);
    pid = AwaitServer(pid);
    if (MovesClock() && i > 0) {
      EXPECT_EQ(environment().TimeNow() - killed,
                absl::Milliseconds(i == 1 ? 10 : 20));
    }
  }
  EXPECT_THAT(CallServer(*server_, "echo", "x"), RepliesWith("x"));
  quit_.reset();
  EXPECT_THAT(Join(), IsOk());
  EXPECT_FALSE(server_->started());
}

TEST_F(SupervisorTest, DoublesTheDelaysUpToTheLongestAndGivesUp) {
  SupervisorOptions options;
  options.first_delay = absl::Milliseconds(1);
  options.longest_delay = absl::Milliseconds(5);
  options.most_restarts = 5;
  Supervise<FailingServer>(std::move(options));
  const absl::Time start = environment().TimeNow();
  Run();
  EXPECT_THAT(Join(), FailsWith(reason::kPathTaken, "taken already"));
  const absl::Duration took = environment().TimeNow() - start;
  EXPECT_GE(took, absl::Milliseconds(17));
  if (MovesClock()) {
    EXPECT_EQ(took, absl::Milliseconds(17));
  }
  absl::MutexLock lock(&mutex_);
  EXPECT_THAT(how_, FailsWith(reason::kPathTaken, "taken already"));
  EXPECT_THAT(again_in_,
              ElementsAre(Optional(absl::Milliseconds(1)),
                          Optional(absl::Milliseconds(2)),
                          Optional(absl::Milliseconds(4)),
                          Optional(absl::Milliseconds(5)),
                          Optional(absl::Milliseconds(5)), std::nullopt));
}

TEST_F(SupervisorTest, ForgetsDeathsThatAreLongAgo) {
  SupervisorOptions options;
  options.first_delay = absl::Milliseconds(20);
  options.window = absl::Milliseconds(1);
  options.most_restarts = 1;
  Supervise<FailingServer>(std::move(options));
  Run();
  AwaitExits(3);
  quit_.reset();
  EXPECT_THAT(Join(), IsOk());
  absl::MutexLock lock(&mutex_);
  for (const std::optional<absl::Duration>& delay : again_in_) {
    EXPECT_THAT(delay, Optional(absl::Milliseconds(20)));
  }
}

TEST_F(SupervisorTest, QuitsWhileItWaits) {
  SupervisorOptions options;
  options.first_delay = absl::Hours(1);
  options.longest_delay = absl::Hours(1);
  Supervise<TestServer>(std::move(options));
  Run();
  Kill(AwaitServer(0));
  AwaitExits(1);
  quit_.reset();
  EXPECT_THAT(Join(), IsOk());
  absl::MutexLock lock(&mutex_);
  EXPECT_THAT(how_, FailsWith(reason::kServerDied, "signal 9"));
}

// As a program with an event loop uses it.
TEST_F(SupervisorTest, GoesOnWhenItIsTold) {
  SupervisorOptions options;
  options.first_delay = absl::Milliseconds(10);
  Supervise<TestServer>(std::move(options));
  EXPECT_THAT(supervisor_->Continue(), IsOk());
  ASSERT_THAT(supervisor_->Start(), IsOk());
  EXPECT_EQ(supervisor_->Start().code(), absl::StatusCode::kFailedPrecondition);
  const auto serves = [this](pid_t before) {
    absl::MutexLock lock(&mutex_);
    return pid_ != 0 && pid_ != before;
  };
  const Pollable* const polled[] = {&supervisor_->pollable()};
  pid_t pid = 0;
  for (int i = 0; i < 2; ++i) {
    while (!serves(pid)) {
      ASSERT_THAT(environment().Poll(polled, absl::InfiniteFuture()), IsOk());
      EXPECT_THAT(supervisor_->Continue(), IsOk());
    }
    pid = server_->server_pid();
    EXPECT_THAT(environment().Poll(polled, environment().TimeNow()),
                FailsWith(reason::kTimedOut));
    // Nothing is due.
    EXPECT_THAT(supervisor_->Continue(), IsOk());
    if (i == 0) Kill(pid);
  }
  EXPECT_THAT(supervisor_->Stop(), IsOk());
  EXPECT_FALSE(server_->started());
  EXPECT_THAT(supervisor_->Stop(), IsOk());
}

}  // namespace
}  // namespace ward

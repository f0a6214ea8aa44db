#include "ward/examples/supervisor/supervisor.h"

#include <signal.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/transport.h"
#include "ward/examples/hello/hello_server.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"
#include "ward/testing/simulation.h"

namespace {

using ::ward::testing::FailsWith;
using ::ward::testing::IsOk;
using ::ward::testing::MovesClock;

TEST(RestartPolicy, DoublesItsDelaysUpToTheLongest) {
  RestartPolicy policy({absl::Seconds(1), absl::Seconds(5), absl::Minutes(10),
                        /*most_restarts=*/5});
  const absl::Time now = absl::FromUnixSeconds(1000);
  for (const int seconds : {1, 2, 4, 5, 5}) {
    EXPECT_EQ(policy.OnDeath(now), absl::Seconds(seconds));
  }
  EXPECT_EQ(policy.OnDeath(now), std::nullopt);
}

TEST(RestartPolicy, ForgetsWhatIsLongAgo) {
  RestartPolicy policy({absl::Seconds(1), absl::Seconds(5), absl::Minutes(10),
                        /*most_restarts=*/1});
  const absl::Time now = absl::FromUnixSeconds(1000);
  EXPECT_EQ(policy.OnDeath(now), absl::Seconds(1));
  EXPECT_EQ(policy.OnDeath(now + absl::Minutes(9)), std::nullopt);
  EXPECT_EQ(policy.OnDeath(now + absl::Minutes(10)), absl::Seconds(1));
}

// The supervisor has a thread here, beside which only an exec'd server can be
// started: so these run simulated and by exec.
class SupervisorTest : public ward::testing::ServerTestBase {
 protected:
  void SetUp() override {
    auto ends = environment().CreateTransportPair();
    ASSERT_THAT(ends, IsOk());
    quit_ = std::move(ends->first);
    end_ = std::move(ends->second);
    ward::ServerOptions options;
    options.start_mode = ward::StartMode::kExec;
    server_ = std::make_unique<HelloServer>(std::move(options));
  }

  void Start(RestartPolicy::Options policy) {
    supervisor_ = std::make_unique<Supervisor>(
        environment(), *server_, RestartPolicy(policy),
        [this](std::string_view what) {
          absl::MutexLock lock(&mutex_);
          notes_.emplace_back(what);
          pid_ = absl::StrContains(what, "serves") ? server_->server_pid() : 0;
        });
    auto thread = environment().StartThread(
        [this] { status_ = supervisor_->Run(*end_); });
    ASSERT_THAT(thread, IsOk());
    thread_ = *std::move(thread);
  }

  // Waits until another process than `before` serves.
  pid_t AwaitServer(pid_t before) {
    const auto serves = [&] { return pid_ != 0 && pid_ != before; };
    absl::MutexLock lock(&mutex_, absl::Condition(&serves));
    return pid_;
  }

  void Kill(pid_t pid) {
    // The server's own object is the supervisor's: its process is told.
    if (MovesClock()) {
      ward::testing::Simulation::Current()->environment().Raise(pid, SIGKILL);
    } else {
      EXPECT_EQ(kill(pid, SIGKILL), 0);
    }
  }

  absl::Status Join() {
    thread_.reset();
    return status_;
  }

  void TearDown() override {
    quit_.reset();
    end_.reset();
    server_.reset();
    ServerTestBase::TearDown();
  }

  std::unique_ptr<ward::Transport> quit_;
  std::unique_ptr<ward::Transport> end_;
  std::unique_ptr<HelloServer> server_;
  absl::Mutex mutex_;
  std::vector<std::string> notes_;
  pid_t pid_ = 0;

 private:
  std::unique_ptr<Supervisor> supervisor_;
  absl::Status status_;
  std::unique_ptr<ward::Thread> thread_;
};

TEST_F(SupervisorTest, StartsAServerAgainThatWasKilled) {
  Start({absl::Milliseconds(10), absl::Seconds(1), absl::Minutes(1), 8});
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
  EXPECT_THAT(server_->Call(kHello, "Joe", "Dalton"), IsOk());
  quit_.reset();
  EXPECT_THAT(Join(), IsOk());
  EXPECT_FALSE(server_->started());
}

TEST_F(SupervisorTest, GivesUpWhenItDiesTooOften) {
  Start({absl::Milliseconds(1), absl::Seconds(1), absl::Minutes(1), 2});
  pid_t pid = 0;
  for (int i = 0; i < 3; ++i) {
    pid = AwaitServer(pid);
    Kill(pid);
  }
  EXPECT_THAT(Join(), FailsWith(ward::reason::kServerDied, "signal 9"));
  EXPECT_EQ(notes_.back(), "gives up");
}

TEST_F(SupervisorTest, QuitsWhileItWaits) {
  Start({absl::Hours(1), absl::Hours(1), absl::Hours(2), 2});
  Kill(AwaitServer(0));
  const auto waits = [&] {
    return absl::StrContains(notes_.back(), "again in 1h");
  };
  { absl::MutexLock lock(&mutex_, absl::Condition(&waits)); }
  quit_.reset();
  EXPECT_THAT(Join(), IsOk());
}

}  // namespace

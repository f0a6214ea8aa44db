// What the collection does beside the original's cases, and the two of the
// original's defects that were the collection's, in every mode.

#include "ward/server/abstract_server_collection.h"

#include <signal.h>
#include <unistd.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using ::testing::ElementsAre;
using testing::HasProcesses;
using ::testing::IsEmpty;
using testing::MovesClock;

using Collection = AbstractServerCollection<std::string, TestServer>;
using Lease = std::shared_ptr<TestServer>;

std::unique_ptr<TestServer> Make(
    absl::Duration max_idle_time = absl::ZeroDuration()) {
  auto server = std::make_unique<TestServer>();
  server->set_max_idle_time(max_idle_time);
  return server;
}

class CollectionTest : public ModesTest {
 protected:
  CollectionOptions Options() {
    CollectionOptions options;
    options.on_stop_failure = [this](const absl::Status& status) {
      absl::MutexLock lock(&mutex_);
      failures_.push_back(ReasonOf(status));
    };
    return options;
  }

  std::vector<std::string> failures() {
    absl::MutexLock lock(&mutex_);
    return failures_;
  }

  // Waits until a cleaner has done it.
  void AwaitGone(const Collection& collection, const std::string& key) {
    const absl::Time end = environment().TimeNow() + absl::Seconds(60);
    while (collection.HasKey(key)) {
      ASSERT_LT(environment().TimeNow(), end);
      absl::SleepFor(absl::Milliseconds(1));
    }
  }

 private:
  absl::Mutex mutex_;
  std::vector<std::string> failures_;
};

// --- look-ups ---

TEST_F(CollectionTest, AFactoryThatFailsLeavesEverythingAsItWas) {
  Collection collection(Options());
  const auto fails = []() -> absl::StatusOr<std::unique_ptr<TestServer>> {
    return absl::NotFoundError("no such camera");
  };
  EXPECT_EQ(collection.LookupOrAdd("a", fails).status(),
            absl::NotFoundError("no such camera"));
  EXPECT_FALSE(collection.HasKey("a"));
  EXPECT_THROW(
      (void)collection.LookupOrAdd("a",
                                   []() -> std::unique_ptr<TestServer> {
                                     throw std::runtime_error("paper jam");
                                   }),
      std::runtime_error);
  EXPECT_EQ(
      collection
          .LookupOrAdd("a",
                       []() -> std::unique_ptr<TestServer> { return nullptr; })
          .status()
          .code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(collection.LookupOrAdd("a", [] { return Make(); }), IsOk());
}

TEST_F(CollectionTest, TwoThreadsThatWantTheSameNewKeyGetOneServer) {
  Collection collection(Options());
  absl::Mutex mutex;
  int made = 0;
  Lease leases[2];
  std::vector<absl::AnyInvocable<void()>> both;
  for (Lease& lease : leases) {
    both.emplace_back([&] {
      auto result = collection.LookupOrAdd("a", [&] {
        // Time enough for the other to come.
        absl::SleepFor(absl::Milliseconds(10));
        absl::MutexLock lock(&mutex);
        ++made;
        return Make();
      });
      ASSERT_THAT(result, IsOk());
      lease = *std::move(result);
    });
  }
  RunAtOnce(std::move(both));
  EXPECT_EQ(made, 1);
  EXPECT_EQ(leases[0], leases[1]);
}

TEST_F(CollectionTest, AFactoryKeepsNobodyWaitingWhoAsksForAnotherKey) {
  Collection collection(Options());
  absl::Notification entered;
  absl::Notification leave;
  std::vector<absl::AnyInvocable<void()>> both;
  both.emplace_back([&] {
    EXPECT_THAT(collection.LookupOrAdd("slow",
                                       [&] {
                                         entered.Notify();
                                         leave.WaitForNotification();
                                         return Make();
                                       }),
                IsOk());
  });
  both.emplace_back([&] {
    entered.WaitForNotification();
    EXPECT_THAT(collection.LookupOrAdd("other", [] { return Make(); }), IsOk());
    EXPECT_FALSE(collection.HasKey("slow"));
    EXPECT_THAT(collection.Delete("slow"), IsOk());
    leave.Notify();
  });
  RunAtOnce(std::move(both));
  EXPECT_TRUE(collection.HasKey("slow"));
}

TEST_F(CollectionTest, ALookUpInAFactoryIsRefusedAndWaitsForNothing) {
  Collection collection(Options());
  absl::Status inner;
  EXPECT_THAT(
      collection.LookupOrAdd(
          "a",
          [&] {
            inner = collection.LookupOrAdd("a", [] { return Make(); }).status();
            return Make();
          }),
      IsOk());
  EXPECT_EQ(inner.code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(CollectionTest, AfterCleanupLookUpsFail) {
  Collection collection(Options());
  EXPECT_THAT(collection.LookupOrAdd("a", [] { return Make(); }), IsOk());
  EXPECT_THAT(collection.Cleanup(), IsOk());
  EXPECT_THAT(collection.Cleanup(), IsOk());
  EXPECT_THAT(collection.LookupOrAdd("a", [] { return Make(); }),
              FailsWith(reason::kCollectionClosed));
  EXPECT_THAT(collection.StartCleaner(), FailsWith(reason::kCollectionClosed));
}

// --- leases ---

TEST_F(CollectionTest, AServerInUseIsNotStoppedUnderItsUsersHands) {
  Collection collection(Options());
  ASSERT_OK_AND_ASSIGN(Lease lease, collection.LookupOrAdd("a", [] {
    auto server = Make(absl::Milliseconds(1));
    EXPECT_THAT(server->Start(), IsOk());
    return server;
  }));
  const std::string path = lease->socket_filename();
  Advance(absl::Milliseconds(5));
  EXPECT_EQ(collection.CheckIdleServers(), 0U);
  EXPECT_THAT(collection.Delete("a"), IsOk());
  EXPECT_FALSE(collection.HasKey("a"));
  EXPECT_THAT(Call(*lease, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_TRUE(Answers(path));
  lease.reset();
  EXPECT_FALSE(Answers(path));
  EXPECT_THAT(failures(), IsEmpty());
}

TEST_F(CollectionTest, ForEachMayUseTheCollection) {
  Collection collection(Options());
  for (const char* key : {"a", "b", "c"}) {
    EXPECT_THAT(collection.LookupOrAdd(key, [] { return Make(); }), IsOk());
  }
  int seen = 0;
  collection.ForEach([&](const std::string& key, TestServer&) {
    ++seen;
    EXPECT_THAT(collection.Delete(key), IsOk());
  });
  EXPECT_EQ(seen, 3);
  EXPECT_TRUE(collection.empty());
}

// --- the cleaner ---

TEST_F(CollectionTest, TheCleanerStopsWhatIsIdleWhenItIsTime) {
  Collection collection(Options());
  const absl::Duration limit =
      MovesClock() ? absl::Minutes(10) : absl::Milliseconds(20);
  EXPECT_THAT(collection.LookupOrAdd("a",
                                     [&] {
                                       auto server = Make(limit);
                                       EXPECT_THAT(server->Start(), IsOk());
                                       return server;
                                     }),
              IsOk());
  EXPECT_THAT(collection.LookupOrAdd("b", [] { return Make(); }), IsOk());
  ASSERT_THAT(collection.StartCleaner(), IsOk());
  ASSERT_THAT(collection.StartCleaner(), IsOk());
  if (MovesClock()) {
    Advance(limit - absl::Seconds(1));
    EXPECT_TRUE(collection.HasKey("a"));
    Advance(absl::Seconds(1));
  }
  AwaitGone(collection, "a");
  EXPECT_TRUE(collection.HasKey("b"));
}

TEST_F(CollectionTest, ALookUpIsActivity) {
  if (!MovesClock()) GTEST_SKIP() << "an hour takes an hour here";
  Collection collection(Options());
  const auto look_up = [&] {
    return collection.LookupOrAdd("a", [] { return Make(absl::Hours(1)); });
  };
  EXPECT_THAT(look_up(), IsOk());
  ASSERT_THAT(collection.StartCleaner(), IsOk());
  for (int i = 0; i < 5; ++i) {
    Advance(absl::Minutes(59));
    ASSERT_TRUE(collection.HasKey("a"));
    ASSERT_OK_AND_ASSIGN(const Lease lease, look_up());
    EXPECT_EQ(lease->next_cleaning_time(),
              environment().TimeNow() + absl::Hours(1));
  }
  Advance(absl::Hours(1));
  EXPECT_FALSE(collection.HasKey("a"));
}

TEST_F(CollectionTest, Defect19_AStopThatFailsDoesNotEndTheCleaner) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  Collection collection(Options());
  const absl::Duration limit = absl::Milliseconds(20);
  pid_t pid = 0;
  EXPECT_THAT(collection.LookupOrAdd("dead",
                                     [&] {
                                       auto server = Make(limit);
                                       EXPECT_THAT(server->Start(), IsOk());
                                       Raise(*server, SIGKILL);
                                       pid = server->server_pid();
                                       return server;
                                     }),
              IsOk());
  EXPECT_NE(pid, 0);
  ASSERT_THAT(collection.StartCleaner(), IsOk());
  AwaitGone(collection, "dead");
  // It goes on.
  EXPECT_THAT(collection.LookupOrAdd("next", [&] { return Make(limit); }),
              IsOk());
  AwaitGone(collection, "next");
  EXPECT_THAT(collection.Cleanup(), IsOk());
  EXPECT_THAT(failures(), ElementsAre("ServerDied"));
}

TEST_F(CollectionTest, Defect19_AStopKeepsNobodyWaiting) {
  Collection collection(Options());
  // Ends when there is the file that is its argument.
  struct SlowServer : Registered<SlowServer> {
    using Registered::Registered;
    absl::Status FinalizeServer() override {
      const Stopwatch watch;
      while (!Exists(options().arguments.at(0)) &&
             watch.Elapsed() < kSurely / 2) {
        absl::SleepFor(absl::Milliseconds(1));
      }
      return absl::OkStatus();
    }
  };
  const std::string go = directory() + "/go";
  EXPECT_THAT(collection.LookupOrAdd("slow",
                                     [&go] {
                                       ServerOptions options;
                                       options.arguments = {go};
                                       auto server =
                                           std::make_unique<SlowServer>(
                                               std::move(options));
                                       EXPECT_THAT(server->Start(), IsOk());
                                       return server;
                                     }),
              IsOk());
  absl::Notification stopped;
  std::vector<absl::AnyInvocable<void()>> both;
  both.emplace_back([&] {
    EXPECT_THAT(collection.Delete("slow"), IsOk());
    stopped.Notify();
  });
  both.emplace_back([&] {
    while (collection.HasKey("slow")) absl::SleepFor(absl::Milliseconds(1));
    EXPECT_THAT(collection.LookupOrAdd("a", [] { return Make(); }), IsOk());
    EXPECT_FALSE(stopped.HasBeenNotified());
    Note(go, "");
  });
  RunAtOnce(std::move(both));
  unlink(go.c_str());
}

TEST_F(CollectionTest, Defect20_LimitsCanChangeAtAnyTime) {
  Collection collection(Options());
  ASSERT_THAT(collection.StartCleaner(), IsOk());
  {
    // None at first, which the original's cleaner did not survive.
    ASSERT_OK_AND_ASSIGN(const Lease lease,
                         collection.LookupOrAdd("a", [] { return Make(); }));
    lease->set_max_idle_time(absl::Milliseconds(10));
  }
  collection.CheckIdleServers();
  AwaitGone(collection, "a");

  ASSERT_OK_AND_ASSIGN(Lease lease, collection.LookupOrAdd("b", [] {
    return Make(absl::Milliseconds(10));
  }));
  lease->set_max_idle_time(absl::ZeroDuration());
  lease.reset();
  Advance(absl::Milliseconds(30));
  EXPECT_TRUE(collection.HasKey("b"));
  EXPECT_EQ(collection.NextCleaningTime(), absl::InfiniteFuture());
}

TEST_F(CollectionTest, ClearReturnsTheFirstErrorAndTellsOfTheOthers) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  Collection collection(Options());
  for (const char* key : {"a", "b", "c"}) {
    EXPECT_THAT(collection.LookupOrAdd(key,
                                       [&] {
                                         auto server = Make();
                                         EXPECT_THAT(server->Start(), IsOk());
                                         if (*key != 'b') {
                                           Raise(*server, SIGKILL);
                                         }
                                         return server;
                                       }),
                IsOk());
  }
  EXPECT_THAT(collection.Clear(), FailsWith(reason::kServerDied));
  EXPECT_TRUE(collection.empty());
  EXPECT_THAT(failures(), ElementsAre("ServerDied"));
}

}  // namespace
}  // namespace ward

// The original's own tests of its collection (5 to 20), under its numbers, in
// every mode. Its "lookup_or_add" with a block is LookupOrAdd with a factory.

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/message_channel.h"
#include "ward/server/abstract_server.h"
#include "ward/server/abstract_server_collection.h"
#include "ward/server/environment.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using testing::IsOk;

class OriginalMember : public AbstractServer {
 public:
  explicit OriginalMember(ServerOptions options = {})
      : AbstractServer(std::move(options)) {}
};
WARD_REGISTER_SERVER(OriginalMember);

class OriginalCollectionTest : public testing::ServerTestBase {
 protected:
  using Collection = AbstractServerCollection<std::string, OriginalMember>;
  using Member = std::shared_ptr<OriginalMember>;

  static std::unique_ptr<OriginalMember> Make(
      absl::Duration max_idle_time = absl::ZeroDuration()) {
    auto server = std::make_unique<OriginalMember>();
    server->set_max_idle_time(max_idle_time);
    return server;
  }

  // Adds one that is in nobody's hands.
  void Add(std::string_view key,
           absl::Duration max_idle_time = absl::ZeroDuration()) {
    EXPECT_THAT(collection().LookupOrAdd(std::string(key),
                                         [&] { return Make(max_idle_time); }),
                IsOk());
  }

  Collection& collection() {
    if (collection_ == nullptr) collection_ = std::make_unique<Collection>();
    return *collection_;
  }

  absl::Time Now() { return environment().TimeNow(); }

  void TearDown() override {
    collection_.reset();
    ServerTestBase::TearDown();
  }

 private:
  std::unique_ptr<Collection> collection_;
};

TEST_F(OriginalCollectionTest, Original05_LookUpAddsWhatTheFactoryReturns) {
  EXPECT_FALSE(collection().HasKey("foo"));
  Add("foo");
  EXPECT_TRUE(collection().HasKey("foo"));
}

TEST_F(OriginalCollectionTest, Original06_TheFactoryIsNotCalledOnAHit) {
  Add("foo");
  bool called = false;
  EXPECT_THAT(collection().LookupOrAdd("foo",
                                       [&] {
                                         called = true;
                                         return Make();
                                       }),
              IsOk());
  EXPECT_FALSE(called);
}

TEST_F(OriginalCollectionTest, Original07_LookUpReturnsWhatItFinds) {
  ASSERT_OK_AND_ASSIGN(const Member added,
                       collection().LookupOrAdd("foo", [] { return Make(); }));
  ASSERT_OK_AND_ASSIGN(const Member found,
                       collection().LookupOrAdd("foo", [] { return Make(); }));
  EXPECT_EQ(found, added);
}

TEST_F(OriginalCollectionTest, Original08_LookUpReturnsWhatTheFactoryReturned) {
  OriginalMember* made = nullptr;
  ASSERT_OK_AND_ASSIGN(const Member added, collection().LookupOrAdd("foo", [&] {
    auto server = Make();
    made = server.get();
    return server;
  }));
  EXPECT_EQ(added.get(), made);
}

TEST_F(OriginalCollectionTest, Original09_DeleteDeletes) {
  Add("foo");
  EXPECT_THAT(collection().Delete("foo"), IsOk());
  EXPECT_FALSE(collection().HasKey("foo"));
}

TEST_F(OriginalCollectionTest, Original10_DeleteStopsAStartedServer) {
  std::string path;
  EXPECT_THAT(collection().LookupOrAdd(
                  "foo",
                  [&]() -> absl::StatusOr<std::unique_ptr<OriginalMember>> {
                    auto server = Make();
                    const absl::Status started = server->Start();
                    if (!started.ok()) return started;
                    path = server->socket_filename();
                    return server;
                  }),
              IsOk());
  EXPECT_THAT(environment().Connect(path, absl::InfiniteFuture()), IsOk());
  EXPECT_THAT(collection().Delete("foo"), IsOk());
  EXPECT_THAT(environment().Connect(path, absl::InfiniteFuture()),
              testing::FailsWith(reason::kServerUnreachable));
}

TEST_F(OriginalCollectionTest, Original11_ClearDeletesAll) {
  Add("foo");
  Add("bar");
  EXPECT_THAT(collection().Clear(), IsOk());
  EXPECT_FALSE(collection().HasKey("foo"));
  EXPECT_FALSE(collection().HasKey("bar"));
  EXPECT_TRUE(collection().empty());
}

TEST_F(OriginalCollectionTest, Original12_CleanupDeletesAll) {
  Add("foo");
  Add("bar");
  EXPECT_THAT(collection().Cleanup(), IsOk());
  EXPECT_TRUE(collection().empty());
}

TEST_F(OriginalCollectionTest, Original13_CleanupStopsAll) {
  std::string path;
  EXPECT_THAT(collection().LookupOrAdd("foo",
                                       [&] {
                                         auto server = Make();
                                         EXPECT_THAT(server->Start(), IsOk());
                                         path = server->socket_filename();
                                         return server;
                                       }),
              IsOk());
  EXPECT_THAT(collection().Cleanup(), IsOk());
  EXPECT_THAT(environment().Connect(path, absl::InfiniteFuture()),
              testing::FailsWith(reason::kServerUnreachable));
}

TEST_F(OriginalCollectionTest,
       Original14_AnIdleServerIsCleanedABusierOneIsNot) {
  const absl::Duration limit = absl::Milliseconds(50);
  Add("idle", limit);
  Add("busier", absl::Hours(1));
  Advance(limit);
  EXPECT_EQ(collection().CheckIdleServers(), 1U);
  EXPECT_FALSE(collection().HasKey("idle"));
  EXPECT_TRUE(collection().HasKey("busier"));
}

TEST_F(OriginalCollectionTest, Original15_WithoutALimitAServerIsNeverCleaned) {
  Add("foo");
  Add("bar", absl::InfiniteDuration());
  Advance(testing::MovesClock() ? absl::Hours(24 * 365)
                                : absl::Milliseconds(20));
  EXPECT_EQ(collection().CheckIdleServers(), 0U);
  EXPECT_EQ(collection().size(), 2U);
}

TEST_F(OriginalCollectionTest, Original16_AddingToAnEmptyOneSetsTheNextTime) {
  EXPECT_EQ(collection().NextCleaningTime(), absl::InfiniteFuture());
  const absl::Time before = Now();
  Add("foo", absl::Minutes(10));
  EXPECT_GE(collection().NextCleaningTime(), before + absl::Minutes(10));
  EXPECT_LE(collection().NextCleaningTime(), Now() + absl::Minutes(10));
}

TEST_F(OriginalCollectionTest, Original17_AddingALaterOneLeavesTheNextTime) {
  Add("foo", absl::Minutes(10));
  const absl::Time next = collection().NextCleaningTime();
  Add("bar", absl::Minutes(20));
  EXPECT_EQ(collection().NextCleaningTime(), next);
}

TEST_F(OriginalCollectionTest, Original18_DeletingTheEarliestMovesTheNextTime) {
  Add("foo", absl::Minutes(10));
  const absl::Time first = collection().NextCleaningTime();
  Add("bar", absl::Minutes(20));
  Add("baz", absl::Minutes(30));
  EXPECT_THAT(collection().Delete("foo"), IsOk());
  EXPECT_GE(collection().NextCleaningTime(), first + absl::Minutes(10));
  EXPECT_LE(collection().NextCleaningTime(), Now() + absl::Minutes(20));
}

TEST_F(OriginalCollectionTest, Original19_DeletingAnotherLeavesTheNextTime) {
  Add("foo", absl::Minutes(10));
  Add("bar", absl::Minutes(20));
  const absl::Time next = collection().NextCleaningTime();
  EXPECT_THAT(collection().Delete("bar"), IsOk());
  EXPECT_EQ(collection().NextCleaningTime(), next);
}

TEST_F(OriginalCollectionTest, Original20_ClearThenAddAnIdleAndANonIdleOne) {
  Add("foo", absl::Minutes(10));
  EXPECT_THAT(collection().Clear(), IsOk());
  EXPECT_EQ(collection().NextCleaningTime(), absl::InfiniteFuture());
  Add("idle", absl::Minutes(10));
  Add("never");
  EXPECT_LE(collection().NextCleaningTime(), Now() + absl::Minutes(10));
  EXPECT_EQ(collection().size(), 2U);
}

}  // namespace
}  // namespace ward

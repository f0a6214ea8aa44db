// Events that servers push, in every mode.

#include "ward/server/publisher.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/call_context.h"
#include "ward/server/method.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/server/stream.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using testing::MovesClock;

inline constexpr Method<void, Stream<std::string>> kWatch{"watch"};
// Publishes so many events of such a size; and returns how many subscribe then.
inline constexpr Method<Arguments<int, int>, int> kPublish{"publish"};
inline constexpr Method<void, void> kEnd{"end"};
inline constexpr Method<void, int> kSubscribers{"subscribers"};

// Its second argument says what becomes of an event that finds no room.
class PushServer : public Registered<PushServer> {
 public:
  explicit PushServer(ServerOptions options = {})
      : Registered(std::move(options)) {
    Define(kWatch, [this](const CallContext& context,
                          StreamWriter<std::string>& events) {
      return publisher_.Serve(context, events);
    });
    Define(kPublish, [this](int count, int size) -> absl::StatusOr<int> {
      for (int i = 0; i < count; ++i) {
        std::string event = absl::StrCat(i);
        event.resize(std::max<size_t>(event.size(), size), ' ');
        publisher_.Publish(std::move(event));
      }
      return Count();
    });
    Define(kEnd, [this] {
      publisher_.End();
      return absl::OkStatus();
    });
    Define(kSubscribers, [this]() -> absl::StatusOr<int> { return Count(); });
  }

 private:
  static OnFull OnFullOf(const ServerOptions& options) {
    const std::string& how = options.arguments.at(1);
    return how == "wait"   ? OnFull::kWait
           : how == "drop" ? OnFull::kDrop
                           : OnFull::kCut;
  }

  int Count() const { return static_cast<int>(publisher_.subscribers()); }

  Publisher<std::string> publisher_{{10, OnFullOf(options())}};
};

using Watch = StreamCall<void, Stream<std::string>>;

class PublisherTest : public ModesTest {
 protected:
  static Watch Subscribe(PushServer& server) {
    auto watch = server.Call(kWatch);
    EXPECT_THAT(watch, IsOk());
    return *std::move(watch);
  }

  // Until so many are known to the server.
  static void Await(PushServer& server, int subscribers) {
    const Stopwatch watch;
    while (watch.Elapsed() < kSurely) {
      const auto count = server.Call(kSubscribers);
      ASSERT_THAT(count, IsOk());
      if (*count == subscribers) return;
      absl::SleepFor(absl::Milliseconds(1));
    }
    FAIL() << "not " << subscribers << " subscribers in " << kSurely;
  }

  // Reads what `watch` has until its end: their numbers.
  static std::vector<int> All(Watch& watch) {
    std::vector<int> all;
    while (const std::optional<std::string> event = watch.Next()) {
      all.push_back(atoi(event->c_str()));
    }
    return all;
  }

  // Of a call that must not hang.
  static CallOptions Bounded() {
    CallOptions bounded;
    bounded.deadline = absl::Now() + kSurely / 4;
    return bounded;
  }

  static std::vector<int> UpTo(int count) {
    std::vector<int> all;
    for (int i = 0; i < count; ++i) all.push_back(i);
    return all;
  }
};

// Some five megabytes: more than a socket and a queue hold.
constexpr int kEvents = 100;
constexpr int kSize = 50'000;

TEST_F(PublisherTest, AllGetAllInOrder) {
  const int count = MovesClock() || kUnderSanitizer ? 50 : 1000;
  const ManyDescriptors descriptors;
  if (!descriptors.are_had()) GTEST_SKIP() << "too few descriptors";
  ServerOptions options = Shared({"wait"});
  options.max_clients = count + 2;
  options.max_waiting_clients = count + 2;
  PushServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<Watch> watches;
  for (int i = 0; i < count; ++i) watches.push_back(Subscribe(server));
  Await(server, count);
  ASSERT_THAT(server.Call(kPublish, 30, 10), IsOkAndHolds(count));
  ASSERT_THAT(server.Call(kEnd), IsOk());
  for (Watch& watch : watches) {
    ASSERT_EQ(All(watch), UpTo(30));
    ASSERT_THAT(watch.status(), IsOk());
  }
  // Who comes now has missed all.
  Watch late = Subscribe(server);
  EXPECT_EQ(All(late), UpTo(0));
  EXPECT_THAT(late.status(), IsOk());
  Await(server, 0);
  EXPECT_THAT(server.Stop(), IsOk());
}

// Of two subscribers one does not read.
TEST_F(PublisherTest, WhoIsTooSlowIsCut) {
  PushServer server(Shared({"cut"}));
  ASSERT_THAT(server.Start(), IsOk());
  Watch slow = Subscribe(server);
  Watch fast = Subscribe(server);
  Await(server, 2);
  std::vector<int> read;
  for (int i = 0; i < kEvents; ++i) {
    ASSERT_THAT(server.Call(kPublish, 1, kSize).status(), IsOk());
    ASSERT_TRUE(fast.Next().has_value());
  }
  ASSERT_THAT(server.Call(kEnd), IsOk());
  EXPECT_EQ(fast.Next(), std::nullopt);
  EXPECT_THAT(fast.status(), IsOk());
  EXPECT_LT(All(slow).size(), kEvents);
  EXPECT_THAT(slow.status(), FailsWith(reason::kSubscriberTooSlow));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(PublisherTest, WhoIsTooSlowMissesSome) {
  PushServer server(Shared({"drop"}));
  ASSERT_THAT(server.Start(), IsOk());
  Watch slow = Subscribe(server);
  Await(server, 1);
  // Waits for nobody.
  ASSERT_THAT(server.Call(kPublish, kEvents, kSize), IsOkAndHolds(1));
  ASSERT_THAT(server.Call(kEnd), IsOk());
  const std::vector<int> all = All(slow);
  EXPECT_THAT(slow.status(), IsOk());
  EXPECT_LT(all.size(), kEvents);
  EXPECT_TRUE(std::is_sorted(all.begin(), all.end()));
  EXPECT_EQ(all.back(), kEvents - 1);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(PublisherTest, WhoIsTooSlowIsWaitedForUntilItLeaves) {
  PushServer server(Shared({"wait"}));
  ASSERT_THAT(server.Start(), IsOk());
  std::optional<Watch> slow = Subscribe(server);
  Watch fast = Subscribe(server);
  Await(server, 2);
  std::atomic<bool> is_published{false};
  RunAtOnce(
      [&] {
        EXPECT_THAT(server.Call(kPublish, kEvents, kSize).status(), IsOk());
        is_published = true;
        EXPECT_THAT(server.Call(kEnd), IsOk());
      },
      [&] { EXPECT_EQ(All(fast), UpTo(kEvents)); },
      [&] {
        absl::SleepFor(absl::Milliseconds(50));
        EXPECT_FALSE(is_published);
        slow.reset();
      });
  EXPECT_TRUE(is_published);
  Await(server, 0);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(PublisherTest, WhoIsTooSlowIsWaitedForAsLongAsTheCallLasts) {
  PushServer server(Shared({"wait"}));
  ASSERT_THAT(server.Start(), IsOk());
  Watch slow = Subscribe(server);
  Await(server, 1);
  CallOptions limited;
  // Time enough for the server to begin it on a machine under load.
  limited.deadline =
      absl::Now() + (MovesClock() ? absl::Milliseconds(50) : absl::Seconds(1));
  EXPECT_THAT(server.Call(kPublish, limited, kEvents, kSize).status(),
              FailsWith(reason::kTimedOut));
  // Nobody waits for it any more, though it has not read yet.
  ASSERT_THAT(server.Call(kPublish, Bounded(), kEvents, kSize).status(),
              IsOk());
  const std::vector<int> all = All(slow);
  EXPECT_THAT(slow.status(), FailsWith(reason::kSubscriberTooSlow));
  EXPECT_EQ(all, UpTo(static_cast<int>(all.size()))) << "nothing is left out";
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(PublisherTest, WhoWaitsForItsTurnDoesSoAsLongAsItsCallLasts) {
  ServerOptions options = Shared({"wait"});
  options.max_clients = 3;
  PushServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  std::optional<Watch> slow = Subscribe(server);
  Await(server, 1);
  RunAtOnce(
      [&] {
        EXPECT_THAT(server.Call(kPublish, kEvents, kSize).status(), IsOk());
      },
      [&] {
        // Each has the one place that is left, and gives it back. The first may
        // well come before the other has had to wait, or in its stead.
        for (int i = 0; i < 5; ++i) {
          CallOptions limited;
          limited.deadline = absl::Now() + absl::Milliseconds(50);
          (void)server.Call(kPublish, limited, kEvents, kSize);
        }
        const absl::Status ended = server.Call(kEnd, Bounded());
        EXPECT_THAT(ended, IsOk()) << "no place, or End waits";
        if (!ended.ok()) slow.reset();  // Or it is waited for, for ever.
      });
  ASSERT_TRUE(slow.has_value());
  EXPECT_GT(All(*slow).size(), 0);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(PublisherTest, AnEndWaitsForNobody) {
  PushServer server(Shared({"wait"}));
  ASSERT_THAT(server.Start(), IsOk());
  std::optional<Watch> slow = Subscribe(server);
  Watch fast = Subscribe(server);
  Await(server, 2);
  RunAtOnce(
      [&] {
        EXPECT_THAT(server.Call(kPublish, kEvents, kSize).status(), IsOk());
      },
      [&] {
        EXPECT_TRUE(fast.Next().has_value());
        const absl::Status ended = server.Call(kEnd, Bounded());
        EXPECT_THAT(ended, IsOk());
        if (!ended.ok()) slow.reset();  // Or it is waited for, for ever.
      });
  EXPECT_LT(All(fast).size(), kEvents);
  EXPECT_THAT(fast.status(), IsOk());
  ASSERT_TRUE(slow.has_value());
  EXPECT_LT(All(*slow).size(), kEvents);
  EXPECT_THAT(slow->status(), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(PublisherTest, WhoLeavesIsForgotten) {
  PushServer server(Shared({"cut"}));
  ASSERT_THAT(server.Start(), IsOk());
  for (int i = 0; i < 3; ++i) {
    const Watch watch = Subscribe(server);
    Await(server, 1);
  }
  Await(server, 0);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(PublisherTest, AStopIsTold) {
  PushServer server(Shared({"cut"}));
  ASSERT_THAT(server.Start(), IsOk());
  Watch watch = Subscribe(server);
  Await(server, 1);
  ASSERT_THAT(server.Call(kPublish, 2, 1), IsOkAndHolds(1));
  RunAtOnce([&] { EXPECT_THAT(server.Stop(), IsOk()); },
            [&] {
              // What was published before is not lost.
              EXPECT_EQ(All(watch), UpTo(2));
              EXPECT_THAT(watch.status(), FailsWith(reason::kServerStopping));
            });
}

}  // namespace
}  // namespace ward

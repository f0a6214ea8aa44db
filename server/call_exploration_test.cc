// Calls of every kind under every schedule, with system calls that fail and a
// server that dies at every step: each returns what its handler returned, or an
// error that is true, and none is late. No handler runs twice for one call.

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/async_client.h"
#include "ward/server/call_context.h"
#include "ward/server/cancellation.h"
#include "ward/server/environment.h"
#include "ward/server/method.h"
#include "ward/server/server_options.h"
#include "ward/server/stream.h"
#include "ward/testing/explore.h"

namespace ward {
namespace {

using testing::Explore;
using testing::ExploreOptions;
using testing::Search;

// Each is called with a number of its own, and returns that.
inline constexpr Method<int, int> kOnce{"once"};
inline constexpr Method<int, int> kForward{"forward"};
// Returns when it is cancelled.
inline constexpr Method<int, int> kWait{"wait"};
// From 0 up to that number.
inline constexpr Method<int, Stream<int>> kCount{"count"};

constexpr int kMostCalls = 16;
// A nested call's: so much more than that of the call that makes it.
constexpr int kNested = kMostCalls;

class NumberServer : public AbstractServer {
 public:
  explicit NumberServer(ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    Define(kOnce, [this](int number) -> absl::StatusOr<int> {
      Handle(number);
      return number;
    });
    Define(kForward, [this](int number) -> absl::StatusOr<int> {
      Handle(number);
      WARD_ASSIGN_OR_RETURN(const int same, Call(kOnce, number + kNested));
      return same - kNested;
    });
    Define(
        kWait,
        [this](const CallContext& context, int number) -> absl::StatusOr<int> {
          Handle(number);
          absl::Mutex mutex;
          absl::MutexLock lock(&mutex);
          bool never = false;
          EXPECT_FALSE(context.Await(mutex, absl::Condition(&never)));
          EXPECT_TRUE(context.cancelled());
          return absl::CancelledError("given up");
        });
    Define(kCount, [this](int number, StreamWriter<int>& out) -> absl::Status {
      Handle(number);
      for (int i = 0; i < number; ++i) WARD_RETURN_IF_ERROR(out.Write(i));
      return absl::OkStatus();
    });
  }

  using AbstractServer::environment;

  // How often a handler has run with each number: simulated processes share
  // memory.
  std::vector<int> handled = std::vector<int>(2 * size_t{kMostCalls});

 private:
  void Handle(int number) { ++handled[static_cast<size_t>(number)]; }
};

class Calls {
 public:
  // Where delays let the clock leap while a thread could run, no time is too
  // long: then they are not `timed`. `all_well`: nothing that goes wrong is put
  // into them.
  Calls(NumberServer& server, bool timed, bool all_well)
      : server_(server), timed_(timed), all_well_(all_well) {}

  int NextNumber() { return last_++; }
  absl::Time TimeNow() { return server_.environment().TimeNow(); }

  // Of the call with this number, which was made at `start` and had `time`.
  void Check(int number, absl::Time start, absl::Duration time,
             const absl::StatusOr<int>& result, std::string_view what) {
    const bool ends_so = what == kWait.name || what == "Cancel";
    SCOPED_TRACE(what);
    SCOPED_TRACE(result.status());
    if (timed_) {
      EXPECT_LE(TimeNow() - start, time);
    }
    const int handled = server_.handled[static_cast<size_t>(number)];
    EXPECT_LE(handled, 1);
    if (result.ok()) {
      EXPECT_EQ(*result, number);
      EXPECT_EQ(handled, 1);
      return;
    }
    const absl::Status& status = result.status();
    EXPECT_FALSE(status.message().empty());
    if (all_well_) {
      EXPECT_TRUE(HasReason(status, reason::kTimedOut) ||
                  HasReason(status, reason::kCallCancelled));
      EXPECT_TRUE(ends_so);
    }
    EXPECT_NE(status.code(), absl::StatusCode::kInternal);
    EXPECT_NE(status.code(), absl::StatusCode::kUnknown);
    // A handler's nested call may have met these.
    const bool of_this = !absl::StrContains(status.message(), "message \"");
    if (of_this && (HasReason(status, reason::kServerUnreachable) ||
                    HasReason(status, reason::kServerFull) ||
                    absl::StrContains(status.message(), "has not run"))) {
      EXPECT_EQ(handled, 0);
    }
  }

  template <typename Reply>
  void Call(const Method<int, Reply>& method, const CallOptions& options,
            absl::Duration time) {
    const int number = NextNumber();
    const absl::Time start = TimeNow();
    if constexpr (internal::kIsStream<Reply>) {
      auto stream = server_.Call(method, options, number);
      if (!stream.ok()) {
        Check(number, start, time, stream.status(), method.name);
        return;
      }
      int next = 0;
      while (const std::optional<int> element = stream->Next()) {
        EXPECT_EQ(*element, next++);
      }
      absl::StatusOr<int> result = next;
      if (!stream->status().ok()) result = stream->status();
      Check(number, start, time, result, method.name);
    } else {
      Check(number, start, time, server_.Call(method, options, number),
            method.name);
    }
  }

 private:
  NumberServer& server_;
  const bool timed_;
  const bool all_well_;
  std::atomic<int> last_{0};
};

CallOptions Within(absl::Duration time) {
  CallOptions options;
  options.deadline = absl::Now() + time;
  return options;
}

// A call's, where nothing else limits it: a connection may be waited for, then
// a place, and the same again in a nested call.
constexpr absl::Duration kLong = absl::Minutes(3);
constexpr absl::Duration kShort = absl::Seconds(1);

// Of one who waits.
void CallOneAfterTheOther(Calls& calls, Cancellation& cancellation) {
  calls.Call(kOnce, {}, kLong);
  calls.Call(kForward, {}, kLong);
  calls.Call(kCount, {}, kLong);
  calls.Call(kWait, Within(kShort), kShort);
  calls.Call(kOnce, Within(kShort), kShort);
  CallOptions cancelled;
  cancelled.cancellation = &cancellation;
  calls.Call(kWait, cancelled, kLong);
}

// Of one who does not.
void CallAllAtOnce(NumberServer& server, Calls& calls,
                   Cancellation& cancellation) {
  auto client = AsyncClient::Create(server);
  if (!client.ok()) return;
  const auto start_call = [&](const Method<int, int>& method,
                              const CallOptions& options, absl::Duration time) {
    const int number = calls.NextNumber();
    const absl::Time start = calls.TimeNow();
    (*client)
        ->StartCall(method, options, number)
        .Then([&calls, number, start, time,
               method](const absl::StatusOr<int>& result) {
          calls.Check(number, start, time, result, method.name);
        });
  };
  start_call(kOnce, {}, kLong);
  start_call(kForward, Within(kShort), kShort);
  start_call(kWait, Within(kShort), kShort);
  CallOptions cancelled;
  cancelled.cancellation = &cancellation;
  start_call(kWait, cancelled, kLong);
  const int number = calls.NextNumber();
  {
    PendingCall<int> left = (*client)->StartCall(kWait, number);
    left.Cancel();
    calls.Check(number, calls.TimeNow(), kShort, left.Result(), "Cancel");
  }
  const Pollable* const polled[] = {&(*client)->pollable()};
  while ((*client)->under_way() > 0) {
    (void)server.environment().Poll(polled, absl::InfiniteFuture());
    (*client)->Progress();
  }
}

// All of them have `places` in the server.
void CallInAllWays(int places, bool timed, bool all_well) {
  ServerOptions options;
  options.max_clients = places;
  options.queue_timeout = absl::Seconds(10);
  NumberServer server(std::move(options));
  if (!server.Start().ok()) return;
  Calls calls(server, timed, all_well);
  Cancellation cancellation;
  {
    // A thread may not be had.
    const auto second = server.environment().StartThread(
        [&] { CallOneAfterTheOther(calls, cancellation); });
    const auto third = server.environment().StartThread(
        [&] { CallAllAtOnce(server, calls, cancellation); });
    absl::SleepFor(absl::Seconds(2));
    cancellation.Cancel();
  }
  (void)server.Stop();
  for (const int handled : server.handled) EXPECT_LE(handled, 1);
}

class CallExplorationTest : public ::testing::TestWithParam<Search> {};

TEST_P(CallExplorationTest, EachReturnsWhatIsTrue) {
  ExploreOptions options;
  options.search = GetParam();
  options.runs = 100;
  options.faults = true;
  options.deaths = true;
  options.deviations = 2;
  options.faults_per_run = 2;
  Explore(options, [] {
    CallInAllWays(/*places=*/3, /*timed=*/true, /*all_well=*/false);
  });
  options.delays = true;
  Explore(options, [] {
    CallInAllWays(/*places=*/3, /*timed=*/false, /*all_well=*/false);
  });
}

TEST_P(CallExplorationTest, EachSucceedsInEveryOrder) {
  ExploreOptions options;
  options.search = GetParam();
  options.runs = 100;
  Explore(options, [] {
    CallInAllWays(/*places=*/20, /*timed=*/true, /*all_well=*/true);
  });
}

INSTANTIATE_TEST_SUITE_P(
    Searches, CallExplorationTest,
    ::testing::Values(Search::kPortfolio, Search::kRandom, Search::kPct),
    [](const ::testing::TestParamInfo<Search>& info) -> std::string {
      switch (info.param) {
        case Search::kRandom:
          return "Random";
        case Search::kPct:
          return "Pct";
        default:
          return "Portfolio";
      }
    });

}  // namespace
}  // namespace ward

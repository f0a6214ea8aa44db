// Calls that are cancelled, and handlers that are told, in every mode.

#include "ward/server/cancellation.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/call_context.h"
#include "ward/server/client.h"
#include "ward/server/environment.h"
#include "ward/server/method.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/server/stream.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using ::testing::HasSubstr;
using testing::MovesClock;
using testing::SharesMemory;

// Each waits in its way until it is cancelled, and notes that.
inline constexpr Method<std::string, void> kWait{"wait"};
inline constexpr Method<Stream<int>, Stream<int>> kStream{"stream"};
inline constexpr Method<void, void> kRelease{"release"};
inline constexpr Method<
    void, Stream<Arguments<std::string, std::string, std::string>>>
    kMethods{"ward.methods"};
// Says how many calls were cancelled.
inline constexpr Method<void, int> kCancelled{"cancelled"};

// Its second argument, if it has one, is where the server of its nested calls
// listens.
class WaitingServer : public Registered<WaitingServer> {
 public:
  explicit WaitingServer(ServerOptions options = {})
      : Registered(std::move(options)) {
    Define(kWait, &WaitingServer::Wait);
    Define(kStream, &WaitingServer::Copy);
    Define(kCancelled, [this]() -> absl::StatusOr<int> { return cancelled_; });
    Define(kRelease, [this] {
      released_ = true;
      return absl::OkStatus();
    });
  }

 private:
  absl::Status Wait(const CallContext& context, const std::string& how) {
    if (how != "nested" && how != "holds") {
      WARD_RETURN_IF_ERROR(Note("waits"));
    }
    if (how == "asks") {
      while (!context.cancelled()) absl::SleepFor(absl::Microseconds(100));
    } else if (how == "is called back") {
      std::atomic<bool> is_over{false};
      const Cancellation::Registration registration =
          context.OnCancelled([&] { is_over = true; });
      while (!is_over) absl::SleepFor(absl::Microseconds(10));
    } else if (how == "awaits a condition") {
      absl::Mutex mutex;
      absl::MutexLock lock(&mutex);
      bool never = false;
      if (context.Await(mutex, absl::Condition(&never))) return Missed();
    } else if (how == "waits for a variable") {
      absl::Mutex mutex;
      absl::CondVar never;
      absl::MutexLock lock(&mutex);
      while (context.Wait(never, mutex)) continue;
    } else if (how == "polls") {
      WARD_ASSIGN_OR_RETURN(const Pollable* const end, context.pollable());
      WARD_RETURN_IF_ERROR(
          environment().Poll({&end, 1}, absl::InfiniteFuture()).status());
    } else if (how == "awaits with others") {
      absl::MutexLock lock(&mutex_);
      bool never = false;
      if (context.Await(mutex_, absl::Condition(&never))) return Missed();
    } else if (how == "holds") {
      absl::MutexLock lock(&mutex_);
      WARD_RETURN_IF_ERROR(Note("waits"));
      while (!released_) absl::SleepFor(absl::Milliseconds(1));
      return absl::OkStatus();
    } else if (how == "nested at the end") {
      while (!context.stopping()) absl::SleepFor(absl::Milliseconds(1));
      if (!HasReason(CallNext("asks"), reason::kCallCancelled)) return Missed();
    } else if (how == "nested") {
      const bool is_last = options().arguments.at(1).back() == '9';
      const absl::Status status = CallNext(is_last ? "asks" : "nested");
      if (!HasReason(status, reason::kCallCancelled) &&
          !HasReason(status, reason::kTimedOut)) {
        return Missed();
      }
    }
    if (!context.cancelled()) return Missed();
    ++cancelled_;
    WARD_RETURN_IF_ERROR(Note(absl::StrCat(how, ", and is told")));
    return absl::CancelledError("given up");
  }

  absl::Status Copy(const CallContext& context, StreamReader<int>& in,
                    StreamWriter<int>& out) {
    while (const std::optional<int> number = in.Next()) {
      if (const absl::Status status = out.Write(*number); !status.ok()) break;
    }
    while (!context.cancelled()) absl::SleepFor(absl::Microseconds(100));
    return Note(absl::StrCat("reads ", ReasonOf(in.status())));
  }

  absl::Status CallNext(const char* how) {
    ClientOptions next;
    next.socket_filename = options().arguments.at(1);
    next.password = password().Copy();
    next.environment = &environment();
    return Client(std::move(next)).Call(kWait, how);
  }

  absl::Status Missed() {
    return absl::InternalError("the wait has ended without a reason");
  }

  std::atomic<int> cancelled_{0};
  absl::Mutex mutex_;
  std::atomic<bool> released_{false};
};

class CancellationTest : public ModesTest {
 protected:
  // Has `check` look at each way in which a handler may wait, of a server that
  // runs.
  void ForEachWay(
      absl::FunctionRef<void(WaitingServer&, const char* how)> check) {
    for (const char* const how :
         {"asks", "is called back", "awaits a condition",
          "waits for a variable", "polls"}) {
      SCOPED_TRACE(how);
      WaitingServer server(Shared());
      ASSERT_THAT(server.Start(), IsOk());
      check(server, how);
      if (server.started()) {
        EXPECT_THAT(server.Stop(), IsOk());
      }
    }
  }

  // Calls kWait so that it is under way, and ends it; what the call returned.
  template <typename End>
  absl::Status EndOf(WaitingServer& server, const std::string& how,
                     const CallOptions& options, End end) {
    absl::Status status;
    std::string notes;
    std::atomic<bool> has_ended{false};
    RunAtOnce(
        [&] {
          status = server.Call(kWait, options, how);
          has_ended = true;
        },
        [&] {
          while (notes.empty() && !has_ended) {
            absl::SleepFor(absl::Milliseconds(1));
            notes += TakeNotes();
          }
          end();
        });
    // However late this thread is.
    if (notes.empty() || notes == "waits\n") notes += AwaitNotes();
    if (notes == "waits\n") notes += AwaitNotes();
    EXPECT_EQ(notes, absl::StrCat("waits\n", how, ", and is told\n"));
    return status;
  }
};

TEST_F(CancellationTest, ACallIsCancelledFromAnotherThread) {
  ForEachWay([&](WaitingServer& server, const char* how) {
    Cancellation cancellation;
    CallOptions options;
    options.cancellation = &cancellation;
    EXPECT_THAT(EndOf(server, how, options, [&] { cancellation.Cancel(); }),
                FailsWith(reason::kCallCancelled, "while it was under way"));
    // Neither this one, which is not begun, nor what is not of it.
    EXPECT_THAT(server.Call(kWait, options, how),
                FailsWith(reason::kCallCancelled, "has not run"));
    EXPECT_THAT(server.Call(kCancelled).status(), IsOk());
  });
}

TEST_F(CancellationTest, AHandlerIsToldThatItsTimeIsOver) {
  ForEachWay([&](WaitingServer& server, const char* how) {
    CallOptions options;
    options.deadline = absl::Now() + (MovesClock() ? absl::Milliseconds(20)
                                                   : absl::Seconds(2));
    EXPECT_THAT(EndOf(server, how, options, [] {}),
                FailsWith(reason::kTimedOut));
  });
}

TEST_F(CancellationTest, AHandlerIsToldThatItsClientLeaves) {
  ForEachWay([&](WaitingServer& server, const char* how) {
    MessageChannel channel = Open(server);
    ASSERT_THAT(channel.Write("wait", how), IsOk());
    EXPECT_EQ(AwaitNotes(), "waits\n");
    channel.Close();
    EXPECT_EQ(AwaitNotes(), absl::StrCat(how, ", and is told\n"));
  });
}

TEST_F(CancellationTest, AHandlerIsToldThatItsServerStops) {
  ForEachWay([&](WaitingServer& server, const char* how) {
    EXPECT_THAT(
        EndOf(server, how, {}, [&] { EXPECT_THAT(server.Stop(), IsOk()); })
            .code(),
        absl::StatusCode::kCancelled);
  });
}

// What a callback waits for, as Await's for a mutex that another handler holds,
// no other client waits for.
TEST_F(CancellationTest, AMutexThatIsHeldHoldsUpNobodyElse) {
  WaitingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const auto call = [&](const char* how) {
    MessageChannel channel = Open(server);
    EXPECT_THAT(channel.Write("wait", how), IsOk());
    EXPECT_EQ(AwaitNotes(), "waits\n");
    return channel;
  };
  MessageChannel awaits = call("awaits with others");
  MessageChannel holds = call("holds");
  MessageChannel polls = call("polls");
  awaits.Close();
  // A thread of the server's may be waiting for the mutex by now.
  polls.Close();
  EXPECT_EQ(AwaitNotes(), "polls, and is told\n");
  EXPECT_THAT(server.Call(kRelease), IsOk());
  EXPECT_EQ(AwaitNotes(), "awaits with others, and is told\n");
  EXPECT_THAT(server.Stop(), IsOk());
}

// A handler that makes a call while its server stops has the drain time.
TEST_F(CancellationTest, ANestedCallDoesNotHoldUpAStop) {
  ServerOptions inner_options = Shared();
  inner_options.socket_filename = path() + "9";
  WaitingServer inner(std::move(inner_options));
  ASSERT_THAT(inner.Start(), IsOk());
  ServerOptions options = Shared({path() + "9"});
  // Time enough to come to the nested call on a machine under load.
  options.drain_time = MovesClock() ? absl::Milliseconds(50) : absl::Seconds(1);
  WaitingServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Open(server);
  ASSERT_THAT(channel.Write("wait", "nested at the end"), IsOk());
  EXPECT_EQ(AwaitNotes(), "waits\n");
  const Stopwatch watch;
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_LT(watch.Elapsed(), MovesClock() ? absl::Milliseconds(60) : kSurely);
  std::string notes = AwaitNotes();
  while (std::count(notes.begin(), notes.end(), '\n') < 3) {
    notes += AwaitNotes();
  }
  EXPECT_THAT(notes, HasSubstr("nested at the end, and is told\n"));
  EXPECT_THAT(notes, HasSubstr("asks, and is told\n"));
  EXPECT_THAT(inner.Stop(), IsOk());
}

// Of what has left already, and of what comes to an end without: once it has
// been told, nothing is waited for.
TEST_F(CancellationTest, WhoIsLateIsToldAtOnce) {
  Cancellation cancellation;
  int calls = 0;
  {
    const Cancellation::Registration gone =
        cancellation.OnCancelled([&] { calls += 100; });
  }
  const Cancellation::Registration before =
      cancellation.OnCancelled([&] { ++calls; });
  EXPECT_EQ(calls, 0);
  EXPECT_FALSE(cancellation.cancelled());
  cancellation.Cancel();
  cancellation.Cancel();
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(cancellation.cancelled());
  const Cancellation::Registration after =
      cancellation.OnCancelled([&] { calls += 10; });
  EXPECT_EQ(calls, 11);
}

// A call that has a cancellation and is not cancelled is as any other.
TEST_F(CancellationTest, WhatIsNotCancelledIsAsEver) {
  WaitingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  Cancellation cancellation;
  CallOptions options;
  options.cancellation = &cancellation;
  for (int i = 0; i < 100; ++i) {
    ASSERT_THAT(server.Call(kCancelled, options), IsOkAndHolds(0));
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CancellationTest, AStreamIsCancelled) {
  WaitingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  Cancellation cancellation;
  CallOptions options;
  options.cancellation = &cancellation;
  ASSERT_OK_AND_ASSIGN(auto numbers, server.Call(kStream, options));
  ASSERT_THAT(numbers.Write(1), IsOk());
  EXPECT_EQ(numbers.Next(), 1);
  RunAtOnce(
      [&] {
        EXPECT_EQ(numbers.Next(), std::nullopt);
        EXPECT_THAT(numbers.status(), FailsWith(reason::kCallCancelled));
        EXPECT_THAT(numbers.Write(2), FailsWith(reason::kCallCancelled));
      },
      [&] { cancellation.Cancel(); });
  EXPECT_EQ(AwaitNotes(), "reads ConnectionLost\n");
  EXPECT_THAT(server.Stop(), IsOk());
}

// What has come whole by then is the call's result.
TEST_F(CancellationTest, WhatHasSucceededIsNotCancelled) {
  if (!MovesClock()) GTEST_SKIP() << "it takes an unknown time to come";
  WaitingServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  Cancellation cancellation;
  CallOptions options;
  options.cancellation = &cancellation;
  ASSERT_OK_AND_ASSIGN(auto methods, server.Call(kMethods, options));
  absl::SleepFor(absl::Seconds(1));
  cancellation.Cancel();
  int count = 0;
  while (methods.Next().has_value()) ++count;
  EXPECT_GT(count, 3);
  EXPECT_THAT(methods.status(), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

// From the first to the last of five, whatever ends it.
TEST_F(CancellationTest, NestedCallsAreCancelledWithTheFirst) {
  constexpr int kServers = 5;
  std::vector<std::unique_ptr<WaitingServer>> servers;
  for (int i = 0; i < kServers; ++i) {
    ServerOptions options =
        Shared({absl::StrCat(path(), i + 2 == kServers ? 9 : i + 1)});
    options.socket_filename = absl::StrCat(path(), i + 1 == kServers ? 9 : i);
    servers.push_back(std::make_unique<WaitingServer>(std::move(options)));
    ASSERT_THAT(servers.back()->Start(), IsOk());
  }
  const auto await_all = [&] {
    std::string all;
    while (std::count(all.begin(), all.end(), '\n') < kServers) {
      all += AwaitNotes();
    }
    return all;
  };
  const std::string rest =
      "nested, and is told\nnested, and is told\nnested, and is told\nnested, "
      "and is told\n";
  // Its client leaves.
  MessageChannel channel = Open(*servers[0]);
  ASSERT_THAT(channel.Write("wait", "nested"), IsOk());
  EXPECT_EQ(AwaitNotes(), "waits\n");
  channel.Close();
  EXPECT_EQ(await_all().size(), rest.size() + 18);
  // It is cancelled.
  Cancellation cancellation;
  CallOptions options;
  options.cancellation = &cancellation;
  RunAtOnce(
      [&] {
        EXPECT_THAT(servers[0]->Call(kWait, options, "nested"),
                    FailsWith(reason::kCallCancelled));
      },
      [&] {
        EXPECT_EQ(AwaitNotes(), "waits\n");
        cancellation.Cancel();
      });
  EXPECT_EQ(await_all().size(), rest.size() + 18);
  for (const auto& server : servers) EXPECT_THAT(server->Stop(), IsOk());
}

// It says how long that takes: less than a millisecond on a machine that has
// nothing else to do.
TEST_F(CancellationTest, AHandlerThatComputesIsTold) {
  if (!SharesMemory() || MovesClock()) GTEST_SKIP() << "for real threads";
  std::atomic<int64_t> told{0};
  class ComputingServer : public TestServer {
   public:
    ComputingServer(ServerOptions options, std::atomic<bool>& computes,
                    std::atomic<int64_t>& told)
        : TestServer(std::move(options)) {
      DefineMessageHandler("compute", [&](const CallContext& context) {
        std::atomic<bool> is_over{false};
        const Cancellation::Registration registration =
            context.OnCancelled([&] { is_over = true; });
        computes = true;
        while (!is_over) continue;
        told = absl::ToUnixNanos(Environment::Default().TimeNow());
        return absl::OkStatus();
      });
    }
  };
  std::atomic<bool> computes{false};
  ComputingServer server(Shared(), computes, told);
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<absl::Duration> times;
  for (int i = 0; i < 101; ++i) {
    computes = false;
    told = 0;
    MessageChannel channel = Open(server);
    ASSERT_THAT(channel.Write("compute"), IsOk());
    while (!computes) absl::SleepFor(absl::Microseconds(100));
    const int64_t start = absl::ToUnixNanos(environment().TimeNow());
    channel.Close();
    while (told == 0) absl::SleepFor(absl::Microseconds(100));
    times.push_back(absl::Nanoseconds(told - start));
  }
  std::cout << "told after " << Median(times) << " (median of 101)\n";
  EXPECT_LT(Median(times), kSurely);
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward

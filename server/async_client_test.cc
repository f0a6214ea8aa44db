// Calls without waiting, in every mode.

#include "ward/server/async_client.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/call_context.h"
#include "ward/server/cancellation.h"
#include "ward/server/client.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/server/method.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/owner_handle.h"
#include "ward/server/process.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using testing::HasProcesses;
using testing::MovesClock;
using testing::SharesMemory;

inline constexpr Method<std::string, std::string> kEcho{"echo text"};
inline constexpr Method<FileDescriptor, FileDescriptor> kSameFile{"same file"};
inline constexpr Method<Descriptors, Descriptors> kNamed{"named"};
inline constexpr Method<void, void> kNothing{"nothing"};
inline constexpr Method<void, void> kFail{"fail"};
inline constexpr Method<void, void> kWait{"wait"};
// Returns when as many calls of it are under way.
inline constexpr Method<int, int> kMeet{"meet"};
inline constexpr Method<void, std::string> kSilent{"silent"};

class AsyncServer : public CountsConnections<AsyncServer> {
 public:
  explicit AsyncServer(ServerOptions options = {})
      : CountsConnections(std::move(options)) {
    Define(kEcho, [](const std::string& text) -> absl::StatusOr<std::string> {
      return text;
    });
    Define(kSameFile,
           [](FileDescriptor file) -> absl::StatusOr<FileDescriptor> {
             return file;
           });
    Define(kNamed, [](Descriptors named) -> absl::StatusOr<Descriptors> {
      return named;
    });
    Define(kNothing, [] { return absl::OkStatus(); });
    Define(kFail, [] { return absl::DataLossError("no luck"); });
    Define(kWait, [this](const CallContext& context) -> absl::Status {
      EXPECT_THAT(Note("waits"), IsOk());
      absl::MutexLock lock(&mutex_);
      bool never = false;
      (void)context.Await(mutex_, absl::Condition(&never));
      EXPECT_THAT(Note("is told"), IsOk());
      return absl::CancelledError("given up");
    });
    Define(kMeet, [this](int count) -> absl::StatusOr<int> {
      absl::MutexLock lock(&mutex_);
      const int number = ++met_;
      const auto all = [&] { return met_ >= count; };
      mutex_.Await(absl::Condition(&all));
      return number;
    });
    DefineMessageHandler("silent", [] { return absl::OkStatus(); });
  }

 private:
  absl::Mutex mutex_;
  int met_ = 0;
};

class AsyncClientTest : public ModesTest {
 protected:
  static std::unique_ptr<AsyncClient> ClientOf(AbstractServer& server) {
    auto client = AsyncClient::Create(server);
    EXPECT_THAT(client, IsOk());
    return *std::move(client);
  }

  // As an event loop does, until no call is under way.
  void Run(AsyncClient& client) {
    while (client.under_way() > 0) {
      const Pollable* const polled[] = {&client.pollable()};
      ASSERT_THAT(environment().Poll(
                      polled, environment().TimeNow() + absl::Minutes(1)),
                  IsOk());
      client.Progress();
    }
  }
};

TEST_F(AsyncClientTest, ACallIsPolledForAndDone) {
  AsyncServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const std::unique_ptr<AsyncClient> client = ClientOf(server);
  PendingCall<std::string> call = client->StartCall(kEcho, "some text");
  while (!call.Done()) {
    const Pollable* const polled[] = {&client->pollable()};
    EXPECT_THAT(environment().Poll(polled, absl::InfiniteFuture()), IsOk());
  }
  EXPECT_THAT(call.Result(), IsOkAndHolds("some text"));
  EXPECT_EQ(client->under_way(), 0u);
  // A result may be waited for.
  EXPECT_THAT(client->StartCall(kNothing).Result(), IsOk());
  EXPECT_EQ(client->StartCall(kFail).Result(),
            absl::DataLossError("message \"fail\": no luck"));
  EXPECT_THAT(client->StartCall(kSilent).Result(),
              FailsWith(reason::kUnexpectedFrame));
  const Pipe pipe = MakePipe();
  ASSERT_OK_AND_ASSIGN(const FileDescriptor same,
                       client->StartCall(kSameFile, pipe.write).Result());
  WriteAll(same.get(), "x");
  EXPECT_EQ(ReadSome(pipe.read.get()), "x");
  Descriptors named;
  ASSERT_OK_AND_ASSIGN(FileDescriptor read,
                       FileDescriptor::DuplicateOf(pipe.read.get()));
  named.Add("read", std::move(read));
  ASSERT_OK_AND_ASSIGN(Descriptors came,
                       client->StartCall(kNamed, named).Result());
  EXPECT_THAT(came.Take("read"), IsOk());
  // All of these over one connection.
  EXPECT_THAT(client->StartCall(kConnections).Result(), IsOkAndHolds(1));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AsyncClientTest, CallbacksAreCalled) {
  AsyncServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const std::unique_ptr<AsyncClient> client = ClientOf(server);
  int called = 0;
  client->StartCall(kEcho, "one")
      .Then([&](const absl::StatusOr<std::string>& reply) {
        EXPECT_THAT(reply, IsOkAndHolds("one"));
        ++called;
        // It may start the next.
        client->StartCall(kNothing).Then([&](const absl::Status& status) {
          EXPECT_THAT(status, IsOk());
          ++called;
        });
      });
  Run(*client);
  EXPECT_EQ(called, 2);
  PendingCall<void> done = client->StartCall(kNothing);
  Run(*client);
  std::move(done).Then([&](const absl::Status& status) {
    EXPECT_THAT(status, IsOk());
    ++called;
  });
  EXPECT_EQ(called, 3);
  EXPECT_THAT(server.Stop(), IsOk());
}

// What is over needs its client no more.
TEST_F(AsyncClientTest, AResultIsThereWhenItsClientIsNot) {
  AsyncServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  std::unique_ptr<AsyncClient> client = ClientOf(server);
  PendingCall<std::string> done = client->StartCall(kEcho, "x");
  PendingCall<std::string> heard = client->StartCall(kEcho, "y");
  Run(*client);
  PendingCall<void> cut = client->StartCall(kWait);
  EXPECT_EQ(AwaitNotes(), "waits\n");
  client.reset();
  EXPECT_EQ(AwaitNotes(), "is told\n");
  EXPECT_THAT(done.Result(), IsOkAndHolds("x"));
  int called = 0;
  std::move(heard).Then([&](const absl::StatusOr<std::string>& reply) {
    EXPECT_THAT(reply, IsOkAndHolds("y"));
    ++called;
  });
  std::move(cut).Then([&](const absl::Status& status) {
    EXPECT_THAT(status, FailsWith(reason::kCallCancelled));
    ++called;
  });
  EXPECT_EQ(called, 2);
  EXPECT_THAT(server.Stop(), IsOk());
}

// None of them ends before all have begun.
TEST_F(AsyncClientTest, AsManyAreUnderWayAsWereStarted) {
  constexpr int kCalls = 40;
  AsyncServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const std::unique_ptr<AsyncClient> client = ClientOf(server);
  int sum = 0;
  for (int i = 0; i < kCalls; ++i) {
    client->StartCall(kMeet, kCalls).Then([&](absl::StatusOr<int> number) {
      ASSERT_THAT(number, IsOk());
      sum += *number;
    });
  }
  Run(*client);
  EXPECT_EQ(sum, kCalls * (kCalls + 1) / 2);
  EXPECT_THAT(server.Stop(), IsOk());
}

// Many more than the server has places, each with a connection of its own.
TEST_F(AsyncClientTest, AThousandAreDrivenByOneThread) {
  const int calls = MovesClock() || kUnderSanitizer ? 100 : 1000;
  const ManyDescriptors descriptors;
  if (!descriptors.are_had()) GTEST_SKIP() << "too few descriptors";
  ServerOptions options = Shared();
  options.max_waiting_clients = 2 * calls;
  AsyncServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  const std::unique_ptr<AsyncClient> client = ClientOf(server);
  int done = 0;
  for (int i = 0; i < calls; ++i) {
    const std::string text = absl::StrCat("text ", i);
    client->StartCall(kEcho, text)
        .Then([&, text](const absl::StatusOr<std::string>& reply) {
          EXPECT_THAT(reply, IsOkAndHolds(text));
          ++done;
        });
  }
  Run(*client);
  EXPECT_EQ(done, calls);
  EXPECT_THAT(server.Stop(), IsOk());
}

// More than a socket takes, in both directions.
TEST_F(AsyncClientTest, WhatFindsNoRoomIsSentLater) {
  AsyncServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const std::unique_ptr<AsyncClient> client = ClientOf(server);
  const std::string large((1 << 20) - 100, 'x');
  PendingCall<std::string> first = client->StartCall(kEcho, large);
  PendingCall<std::string> second = client->StartCall(kEcho, large + "y");
  PendingCall<void> small = client->StartCall(kNothing);
  Run(*client);
  EXPECT_TRUE(first.Result() == absl::StatusOr<std::string>(large));
  EXPECT_TRUE(second.Result() == absl::StatusOr<std::string>(large + "y"));
  EXPECT_THAT(small.Result(), IsOk());
  // What no server would take is not sent.
  EXPECT_THAT(client->StartCall(kEcho, std::string(17 << 20, 'x')).Result(),
              FailsWith(reason::kFrameTooLarge));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AsyncClientTest, ACallEndsAtItsDeadline) {
  AsyncServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const std::unique_ptr<AsyncClient> client = ClientOf(server);
  CallOptions options;
  const absl::Duration time =
      MovesClock() ? absl::Milliseconds(50) : absl::Seconds(1);
  const Stopwatch watch;
  options.deadline = absl::Now() + time;
  PendingCall<void> call = client->StartCall(kWait, options);
  std::string notes = AwaitNotes();
  Run(*client);
  EXPECT_GE(watch.Elapsed(), time);
  EXPECT_LT(watch.Elapsed(), MovesClock() ? absl::Milliseconds(51) : kSurely);
  EXPECT_THAT(call.Result(), FailsWith(reason::kTimedOut));
  // However late this thread is.
  if (notes == "waits\n") notes += AwaitNotes();
  EXPECT_EQ(notes, "waits\nis told\n");
  // One that has passed already is not even begun.
  options.deadline = absl::Now();
  EXPECT_THAT(client->StartCall(kNothing, options).Result(),
              FailsWith(reason::kTimedOut));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AsyncClientTest, ACallIsCancelled) {
  AsyncServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  std::unique_ptr<AsyncClient> client = ClientOf(server);
  const auto await = [&](const char* what) { EXPECT_EQ(AwaitNotes(), what); };
  // By its object,
  PendingCall<void> call = client->StartCall(kWait);
  await("waits\n");
  call.Cancel();
  EXPECT_TRUE(call.Done());
  EXPECT_THAT(call.Result(), FailsWith(reason::kCallCancelled));
  await("is told\n");
  // by that object's end,
  {
    const PendingCall<void> left = client->StartCall(kWait);
    await("waits\n");
  }
  EXPECT_EQ(client->under_way(), 0u);
  await("is told\n");
  // by another thread,
  Cancellation cancellation;
  CallOptions options;
  options.cancellation = &cancellation;
  PendingCall<void> other = client->StartCall(kWait, options);
  await("waits\n");
  RunAtOnce([&] { cancellation.Cancel(); }, [&] { Run(*client); });
  EXPECT_THAT(other.Result(), FailsWith(reason::kCallCancelled));
  await("is told\n");
  EXPECT_THAT(client->StartCall(kNothing, options).Result(),
              FailsWith(reason::kCallCancelled, "has not run"));
  // and by the client's end.
  std::optional<absl::Status> told;
  client->StartCall(kWait).Then(
      [&](const absl::Status& status) { told = status; });
  await("waits\n");
  client.reset();
  ASSERT_TRUE(told.has_value());
  EXPECT_THAT(*told, FailsWith(reason::kCallCancelled));
  await("is told\n");
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AsyncClientTest, AServerIsCalledThatWasStartedAgain) {
  AsyncServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const std::unique_ptr<AsyncClient> client = ClientOf(server);
  EXPECT_THAT(client->StartCall(kEcho, "first").Result(),
              IsOkAndHolds("first"));
  ASSERT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(client->StartCall(kNothing).Result(),
              FailsWith(reason::kServerUnreachable));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(client->StartCall(kEcho, "again").Result(),
              IsOkAndHolds("again"));
  ASSERT_THAT(server.Stop(), IsOk());
}

// Another server has taken the place of one that lives on.
TEST_F(AsyncClientTest, TheServerIsCalledThatWasStartedLast) {
  if (!HasProcesses()) GTEST_SKIP() << "its server has no process of its own";
  ServerOptions options = Shared();
  options.socket_filename.clear();
  AsyncServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  const std::unique_ptr<AsyncClient> client = ClientOf(server);
  EXPECT_THAT(client->StartCall(kEcho, "first").Result(),
              IsOkAndHolds("first"));
  {
    absl::StatusOr<OwnerHandle> share = server.ShareOwnership();
    ASSERT_THAT(share, IsOk());
    absl::StatusOr<std::unique_ptr<Process>> first = server.Disown();
    ASSERT_THAT(first, IsOk());
    ASSERT_THAT(server.Start(), IsOk());
    // Simulated, both count with the same number.
    EXPECT_THAT(client->StartCall(kConnections).Result(),
                IsOkAndHolds(SharesMemory() ? 2 : 1));
    share = absl::UnknownError("given up");
    EXPECT_THAT((*first)->Wait(absl::InfiniteFuture()), IsOk());
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(AsyncClientTest, ADeathIsTold) {
  if (!HasProcesses()) GTEST_SKIP() << "its server has no process of its own";
  AsyncServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const std::unique_ptr<AsyncClient> client = ClientOf(server);
  PendingCall<void> call = client->StartCall(kWait);
  EXPECT_EQ(AwaitNotes(), "waits\n");
  Kill(server);
  EXPECT_THAT(call.Result(), FailsWith(reason::kCallCut, "signal 9"));
  (void)server.Stop();
}

TEST_F(AsyncClientTest, OneMayBeOfAClients) {
  AsyncServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ClientOptions options;
  options.socket_filename = path();
  options.password = server.password().Copy();
  Client caller(std::move(options));
  auto client = AsyncClient::Create(caller);
  ASSERT_THAT(client, IsOk());
  EXPECT_THAT((*client)->StartCall(kEcho, "x").Result(), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

// Where nobody accepts there is no room after a while. It is waited for
// elsewhere: when there is some, and when time is up.
TEST_F(AsyncClientTest, ItsConnectionIsNotWaitedFor) {
  if (!MovesClock()) GTEST_SKIP() << "a kernel's queue is long";
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Listener> listener,
                       environment().Listen({path(), 0600}));
  std::vector<std::unique_ptr<Transport>> queue;
  while (true) {
    auto connection = environment().Connect(path(), absl::InfinitePast());
    if (!connection.ok()) break;
    queue.push_back(*std::move(connection));
  }
  AsyncServer server(Shared());
  const std::unique_ptr<AsyncClient> client = ClientOf(server);
  const Stopwatch watch;
  CallOptions soon;
  soon.deadline = absl::Now() + absl::Milliseconds(20);
  PendingCall<void> late = client->StartCall(kNothing, soon);
  PendingCall<void> given_up = client->StartCall(kNothing);
  EXPECT_EQ(watch.Elapsed(), absl::ZeroDuration());
  EXPECT_THAT(late.Result(), FailsWith(reason::kTimedOut, "stayed full"));
  EXPECT_EQ(watch.Elapsed(), absl::Milliseconds(20));
  EXPECT_FALSE(given_up.Done());
  EXPECT_THAT(given_up.Result(), FailsWith(reason::kTimedOut, "stayed full"));
  EXPECT_EQ(watch.Elapsed(), ServerOptions().connect_timeout);
  PendingCall<void> comes_in = client->StartCall(kNothing);
  EXPECT_THAT(listener->Accept(), IsOk());
  absl::SleepFor(absl::Milliseconds(20));
  EXPECT_FALSE(comes_in.Done());
  // It has found room, and waits for its reply.
  listener->RemovePath();
  listener->Close();
  EXPECT_THAT(comes_in.Result(), FailsWith(reason::kCallCut));
}

}  // namespace
}  // namespace ward

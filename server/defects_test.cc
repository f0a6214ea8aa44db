// What the original got wrong, by the numbers of its defects, in every mode.
// Those that only the real kernel shows are in defects_real_test.cc.

#include <signal.h>

#include <cstddef>
#include <iostream>
#include <stdexcept>
#include <string>
#include <string_view>
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
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using testing::HasProcesses;
using testing::MovesClock;

using DefectsTest = ModesTest;

TEST_F(DefectsTest, Defect01_TwoHandlersCanWaitForEachOther) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(std::move(options)) {
      DefineMessageHandler("meet", [this](MessageChannel& channel) {
        absl::MutexLock lock(&mutex);
        ++here;
        const auto both = [this] { return here == 2; };
        mutex.Await(absl::Condition(&both));
        return channel.Write("met");
      });
    }
    absl::Mutex mutex;
    int here = 0;
  };
  Server server;
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<absl::AnyInvocable<void()>> clients;
  for (int i = 0; i < 2; ++i) {
    clients.emplace_back(
        [&] { EXPECT_THAT(Call(server, "meet"), IsOkAndHolds("met")); });
  }
  RunAtOnce(std::move(clients));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(DefectsTest,
       Defect02_WhatIsWrongWithAMessageEndsOnlyItsClientWhoIsTold) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(std::move(options)) {
      DefineMessageHandler("throw", []() -> absl::Status {
        throw std::runtime_error("paper jam");
      });
    }
  };
  Server server;
  ASSERT_THAT(server.Start(), IsOk());
  const pid_t pid = server.server_pid();
  EXPECT_THAT(server.Connect([&](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("hold"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    EXPECT_THAT(Call(server, "unknown"), FailsWith(reason::kUnknownMessage));
    EXPECT_THAT(Call(server, "echo"), FailsWith(reason::kInvalidArguments));
    EXPECT_THAT(Call(server, "throw"), FailsWith(reason::kUserCodeThrew));
    WARD_RETURN_IF_ERROR(channel.Write("go"));
    return channel.Read().status();
  }),
              IsOk());
  EXPECT_EQ(server.server_pid(), pid);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(DefectsTest, Defect03_ATruncatedHeaderEndsOnlyItsClient) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  for (const std::string_view bytes :
       {"", "\x80", "\xff\xff", "\x05", "\x05\x0a"}) {
    auto peer = environment().Connect(
        server.socket_filename(), environment().TimeNow() + absl::Minutes(1));
    ASSERT_THAT(peer, IsOk());
    if (!bytes.empty()) {
      ASSERT_THAT((*peer)->Send(bytes, {}, absl::InfiniteFuture()),
                  IsOkAndHolds(bytes.size()));
    }
    if (bytes.size() == 1) (*peer)->ShutDown();
    peer->reset();
    EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(DefectsTest, Defect05_ASilentPeerIsToldAndClosedWhenItsTimeIsUp) {
  // It is that of the honest client, too, which may be late.
  const absl::Duration limit =
      MovesClock() ? absl::Milliseconds(100) : absl::Seconds(1);
  ServerOptions options;
  options.authentication_timeout = limit;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  const Stopwatch watch;
  MessageChannel peer = RawPeer(server.socket_filename());
  EXPECT_THAT(peer.Read(), FailsWith(reason::kTimedOut));
  EXPECT_THAT(peer.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_GE(watch.Elapsed(), limit);
  EXPECT_LT(watch.Elapsed(), absl::Seconds(10));
  if (MovesClock()) {
    EXPECT_EQ(watch.Elapsed(), limit);
  }
  // An honest client may take as long as it likes, once it is in.
  EXPECT_THAT(server.Connect([&](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("hold"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    absl::SleepFor(limit + absl::Milliseconds(100));
    WARD_RETURN_IF_ERROR(channel.Write("go"));
    return channel.Read().status();
  }),
              IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(DefectsTest, Defect08_LongMessagesAndNulBytesArriveWhole) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(std::move(options)) {
      DefineMessageHandler("later", [](MessageChannel& channel) {
        (void)channel.Write("go on");
        absl::StatusOr<Message> message = channel.Read();
        return message.ok() ? channel.Write(*message) : message.status();
      });
    }
  };
  Server server;
  ASSERT_THAT(server.Start(), IsOk());
  for (const size_t size : {65'534, 65'535, 65'536, 1'000'000}) {
    std::string text(size, 'x');
    text.front() = text[size / 2] = text.back() = '\0';
    const absl::StatusOr<std::string> reply = Call(server, "echo", text);
    ASSERT_THAT(reply, IsOk()) << size;
    EXPECT_TRUE(*reply == text) << size;
  }
  const std::string text(10'000'000, '\0');
  EXPECT_THAT(server.Connect([&](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("later"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    WARD_RETURN_IF_ERROR(channel.Write(text));
    WARD_ASSIGN_OR_RETURN(const Message reply, channel.Read());
    EXPECT_EQ(reply.size(), 1u);
    EXPECT_TRUE(reply[0] == text);
    return absl::OkStatus();
  }),
              IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(DefectsTest, Defect09_AClientThatLeavesBeforeItsReplyEndsNothing) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(std::move(options)) {
      DefineMessageHandler("answer", [this](MessageChannel& channel) {
        // Until the client has gone.
        (void)channel.Read();
        absl::Status written = channel.Write(std::string(1'000'000, 'x'));
        absl::MutexLock lock(&mutex);
        outcome = ReasonOf(written);
        return written;
      });
      DefineMessageHandler("outcome", [this](MessageChannel& channel) {
        const auto known = [this] { return !outcome.empty(); };
        absl::MutexLock lock(&mutex, absl::Condition(&known));
        return channel.Write(outcome);
      });
    }
    absl::Mutex mutex;
    std::string outcome;
  };
  Server server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Connect([](MessageChannel& channel) {
    return channel.Write("answer");
  }),
              IsOk());
  EXPECT_THAT(Call(server, "outcome"), IsOkAndHolds("ConnectionLost"));
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(DefectsTest, Defect10_AFailingInitializeServerIsReportedAndReaped) {
  static constexpr Reason kOutOfPaper{"OutOfPaper",
                                      absl::StatusCode::kDataLoss};
  struct Server : Registered<Server> {
    using Registered::Registered;
    absl::Status InitializeServer() override {
      return MakeError(kOutOfPaper, "tray 2");
    }
  };
  Server server(Shared());
  EXPECT_THAT(server.Start(), FailsWith(kOutOfPaper, "tray 2"));
  EXPECT_FALSE(server.started());
  // The fixture looks for zombies.
  EXPECT_FALSE(Answers(path()));
}

TEST_F(DefectsTest, Defect11_AHupHandlerRuns) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(std::move(options)) {
      DefineSignalHandler(SIGHUP, [this] { hup.Notify(); });
      DefineMessageHandler("hup", [this](MessageChannel& channel) {
        return channel.Write(hup.WaitForNotificationWithTimeout(kSurely));
      });
    }
    absl::Notification hup;
  };
  Server server;
  ASSERT_THAT(server.Start(), IsOk());
  Raise(server, SIGHUP);
  EXPECT_THAT(Call(server, "hup"), IsOkAndHolds("true"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(DefectsTest, Defect15_ABusyListenerDoesNotKeepTheOwnerWaiting) {
  constexpr int kClients = 4;
  TestServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  absl::Mutex mutex;
  int busy = 0;
  std::vector<absl::AnyInvocable<void()>> bodies;
  for (int i = 0; i < kClients; ++i) {
    bodies.emplace_back([&] {
      TestServer client(Shared());
      for (bool first = true; Call(client, "echo", "x").ok(); first = false) {
        if (!first) continue;
        absl::MutexLock lock(&mutex);
        ++busy;
      }
    });
  }
  bodies.emplace_back([&] {
    const auto all_busy = [&] { return busy == kClients; };
    { absl::MutexLock lock(&mutex, absl::Condition(&all_busy)); }
    const Stopwatch watch;
    EXPECT_THAT(server.Stop(), IsOk());
    std::cout << "stopped a busy server in " << watch.Elapsed() << "\n";
    EXPECT_LT(watch.Elapsed(), MovesClock() ? absl::Seconds(2) : kSurely / 2);
  });
  RunAtOnce(std::move(bodies));
  EXPECT_THAT(Call(server, "echo", "x"), FailsWith(reason::kServerUnreachable));
}

TEST_F(DefectsTest, Defect18_NothingLeaksWhenBeforeForkFails) {
  TestServer server;  // The fixture compares descriptors and files.
  server.before_fork = [] { return absl::AbortedError("not today"); };
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(server.Start(), absl::AbortedError("not today"));
  }
}

TEST_F(DefectsTest, Defect21_ServerPidIsForgottenWhenTheServerHasStopped) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_GT(server.server_pid(), 0);
  ASSERT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(server.server_pid(), 0);

  if (!HasProcesses()) return;
  ASSERT_THAT(server.Start(), IsOk());
  Raise(server, SIGKILL);
  ASSERT_THAT(server.Stop(), FailsWith(reason::kServerDied));
  EXPECT_EQ(server.server_pid(), 0);
}

}  // namespace
}  // namespace ward

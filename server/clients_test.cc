// Who is served, and how many at a time, in every mode.

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

TEST_F(ModesTest, APasswordThatIsMissingIsAWrongOne) {
  TestServer server(Shared());
  server.set_ignore_password_errors(true);
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = RawPeer(path());
  ASSERT_THAT(channel.Write("echo", "x"), IsOk());
  EXPECT_THAT(channel.Read(), FailsWith(reason::kInvalidPassword, "missing"));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, AdmitPeerDecidesOnTheKernelsWord) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options)
        : Registered(Admitting(std::move(options))) {}
    static ServerOptions Admitting(ServerOptions options) {
      options.admit_peer =
          [notes = options.arguments[0]](const PeerCredentials& peer) {
            ward::Note(notes, absl::StrCat(peer.pid, " ", peer.uid));
            return false;
          };
      return options;
    }
  };
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"),
              FailsWith(reason::kPeerNotAllowed,
                        absl::StrCat("user ", environment().UserId())));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(TakeNotes(), absl::StrCat(environment().ProcessId(), " ",
                                      environment().UserId(), "\n"));
}

TEST_F(ModesTest, AnAdmitPeerThatThrowsAdmitsNobodyAndEndsNothing) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options = {})
        : Registered(Admitting(std::move(options))) {}
    static ServerOptions Admitting(ServerOptions options) {
      const auto count = std::make_shared<std::atomic<int>>(0);
      options.admit_peer = [count](const PeerCredentials&) -> bool {
        if (++*count == 1) throw std::runtime_error("paper jam");
        return true;
      };
      return options;
    }
  };
  Server server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"),
              FailsWith(reason::kUserCodeThrew, "paper jam"));
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, ClientsOverMaxClientsWaitUntilOneLeaves) {
  ServerOptions options;
  options.max_clients = 2;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<MessageChannel> channels;
  for (int i = 0; i < 4; ++i) {
    channels.push_back(Open(server));
    ASSERT_THAT(channels[i].Write("hold"), IsOk());
    if (i < 2) {
      ASSERT_THAT(channels[i].Read(), IsOk());
    }
  }
  EXPECT_FALSE(Readable(channels[2], absl::Milliseconds(50)));
  EXPECT_FALSE(Readable(channels[3], absl::ZeroDuration()));
  ASSERT_THAT(channels[0].Write("go"), IsOk());
  ASSERT_THAT(channels[0].Read(), IsOk());
  channels[1].Close();
  EXPECT_THAT(channels[2].Read(), IsOk());
  EXPECT_THAT(channels[3].Read(), IsOk());
  channels.clear();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, UpToMaxClientsAreServedAtOnceAndNeverMore) {
  constexpr int kMax = 3;
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler("meet", [this](MessageChannel& channel) {
        absl::MutexLock lock(&mutex);
        most = std::max(most, ++now);
        // Goes on when all places have been taken once.
        const auto full = [this] { return most >= kMax; };
        mutex.Await(absl::Condition(&full));
        --now;
        return channel.Write("met");
      });
      DefineMessageHandler("most", [this](MessageChannel& channel) {
        absl::MutexLock lock(&mutex);
        return channel.Write(most);
      });
    }
    absl::Mutex mutex;
    int now = 0;
    int most = 0;
  };
  ServerOptions options;
  options.max_clients = kMax;
  Server server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<absl::AnyInvocable<void()>> clients;
  for (int i = 0; i < 3 * kMax; ++i) {
    clients.emplace_back([&] {
      for (int j = 0; j < 10; ++j) {
        EXPECT_THAT(Call(server, "meet"), IsOkAndHolds("met"));
      }
    });
  }
  RunAtOnce(std::move(clients));
  EXPECT_THAT(Call(server, "most"), IsOkAndHolds(absl::StrCat(kMax)));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, AClientThatWaitsForAPlaceIsToldThatTheServerStops) {
  ServerOptions options = Shared();
  options.max_clients = 1;
  options.drain_time = absl::Milliseconds(10);
  TestServer server(std::move(options));
  server.set_ignore_password_errors(true);
  TestServer client(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel served = Open(client);
  ASSERT_THAT(served.Write("hold"), IsOk());
  ASSERT_THAT(served.Read(), IsOk());
  MessageChannel waiting = Open(client);
  ASSERT_THAT(waiting.Write("hold"), IsOk());
  // A wrong password needs no place; and this client comes after the other.
  ServerOptions other = Shared();
  other.password = Secret("another password");
  TestServer stranger(std::move(other));
  ASSERT_THAT(Call(stranger, "echo"), FailsWith(reason::kInvalidPassword));
  EXPECT_THAT(server.Stop(), IsOk());
  const absl::Status status = waiting.Read().status();
  // If its thread had not come to read yet, the end of the stream tells it.
  EXPECT_TRUE(HasReason(status, reason::kServerStopping) ||
              HasReason(status, reason::kEndOfStream))
      << status;
}

TEST_F(ModesTest, OfTooManyPeersWithoutAPasswordTheOldestIsCut) {
  ServerOptions options = Shared();
  options.max_unauthenticated_clients = 2;
  options.authentication_timeout = kSurely;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  const Stopwatch watch;
  const MessageChannel first = RawPeer(path());
  const MessageChannel second = RawPeer(path());
  EXPECT_FALSE(Readable(first, absl::Milliseconds(20)));
  const MessageChannel third = RawPeer(path());
  EXPECT_TRUE(Readable(first, kSurely));
  EXPECT_FALSE(Readable(second, absl::ZeroDuration()));
  // One that shows the password in time is never the oldest for long.
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_TRUE(Readable(second, kSurely));
  EXPECT_FALSE(Readable(third, absl::ZeroDuration()));
  EXPECT_LT(watch.Elapsed(), kSurely);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, PeersWithoutThePasswordAreNotWaitedFor) {
  constexpr absl::Duration kNever = absl::Minutes(5);
  ServerOptions options = Shared();
  options.drain_time = kNever;
  options.stop.kill_after = kNever;
  options.authentication_timeout = kNever;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  const MessageChannel silent = RawPeer(path());
  // Comes after it: when this one is served, the silent one is a client.
  ASSERT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_TRUE(Readable(silent, kSurely));
}

TEST_F(ModesTest, ManyThreadsConnectAtOnce) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  std::atomic<int> right{0};
  std::vector<absl::AnyInvocable<void()>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&, i] {
      for (int j = 0; j < 25; ++j) {
        const std::string text = absl::StrCat(i, ".", j);
        const absl::StatusOr<std::string> reply = Call(server, "echo", text);
        EXPECT_THAT(reply, IsOkAndHolds(text));
        if (reply.ok()) ++right;
      }
    });
  }
  RunAtOnce(std::move(clients));
  EXPECT_EQ(right, 8 * 25);
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward

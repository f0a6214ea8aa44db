// Who is served, and how many at a time, in every mode.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
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
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/client_pool.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"
#include "ward/testing/simulation.h"

namespace ward {
namespace {

using testing::HasProcesses;
using ::testing::HasSubstr;
using testing::MovesClock;
using testing::RepliesWith;

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

TEST_F(ModesTest, TrustServerDecidesOnTheKernelsWord) {
  TestServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  PeerCredentials seen;
  ServerOptions options = Shared();
  options.trust_server = [&seen](const PeerCredentials& who) {
    seen = who;
    return false;
  };
  TestServer client(std::move(options));
  EXPECT_THAT(Call(client, "echo", "x"),
              FailsWith(reason::kServerNotTrusted, path()));
  // Of who listens: in a fork of which the server is.
  EXPECT_EQ(seen.pid, environment().ProcessId());
  EXPECT_EQ(seen.uid, environment().UserId());
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, ATrustServerThatThrowsTrustsNobody) {
  TestServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ServerOptions options = Shared();
  options.trust_server = [](const PeerCredentials&) -> bool {
    throw std::runtime_error("paper jam");
  };
  TestServer client(std::move(options));
  EXPECT_THAT(Call(client, "echo", "x"),
              FailsWith(reason::kUserCodeThrew, "paper jam"));
  EXPECT_THAT(server.Stop(), IsOk());
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

TEST_F(ModesTest, WhoHasWaitedLongestIsServedNext) {
  if (!MovesClock()) GTEST_SKIP() << "who came first cannot be known";
  constexpr int kClients = 4;
  ServerOptions options;
  options.max_clients = 1;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<MessageChannel> channels;
  for (int i = 0; i < kClients; ++i) {
    channels.push_back(Open(server));
    ASSERT_THAT(channels[i].Write("hold"), IsOk());
    Advance(absl::Milliseconds(1));
  }
  for (int i = 0; i < kClients; ++i) {
    EXPECT_THAT(channels[i].Read(), RepliesWith("held"));
    for (int later = i + 1; later < kClients; ++later) {
      EXPECT_FALSE(Readable(channels[later], absl::ZeroDuration())) << later;
    }
    channels[i].Close();
  }
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
  EXPECT_THAT(waiting.Read(), FailsWith(reason::kServerStopping));
}

TEST_F(ModesTest, SilentPeersKeepTheirTimeHoweverManyCome) {
  ServerOptions options = Shared();
  options.authentication_timeout = kSurely;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<MessageChannel> silent;
  for (int i = 0; i < 100; ++i) silent.push_back(RawPeer(path()));
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  for (const MessageChannel& peer : silent) {
    EXPECT_FALSE(Readable(peer, absl::ZeroDuration()));
  }
  // The first one has its word.
  silent[0].PresentPassword(server.password());
  ASSERT_THAT(silent[0].Write("echo", "y"), IsOk());
  EXPECT_THAT(silent[0].Read(), RepliesWith("y"));
  silent.erase(silent.begin());
  EXPECT_THAT(server.Stop(), IsOk());
  for (MessageChannel& peer : silent) {
    EXPECT_THAT(peer.Read(), FailsWith(reason::kServerStopping));
  }
}

TEST_F(ModesTest, OnlyASilentPeerOfAProcessThatTakesAllTheRoomIsRefused) {
  ServerOptions options = Shared();
  options.max_waiting_clients = 4;
  options.authentication_timeout = kSurely;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  // The oldest of all, but what it has to say has begun.
  const auto slow = environment().Connect(path(), absl::InfiniteFuture());
  ASSERT_THAT(slow, IsOk());
  ASSERT_THAT((*slow)->Send("\x20", {}, absl::InfiniteFuture()), IsOk());
  std::vector<MessageChannel> silent;
  for (int i = 0; i < 21; ++i) silent.push_back(RawPeer(path()));
  // Not always the first: the thread that has it may be late.
  std::vector<const Pollable*> peers;
  for (const MessageChannel& peer : silent) peers.push_back(peer.transport());
  ASSERT_OK_AND_ASSIGN(const size_t refused,
                       environment().Poll(peers, absl::InfiniteFuture()));
  EXPECT_THAT(silent[refused].Read(),
              FailsWith(reason::kServerFull, "most of them"));
  // One that comes now is served all the same.
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  const Pollable* const polled[] = {slow->get()};
  EXPECT_THAT(environment().Poll(polled, environment().TimeNow()),
              FailsWith(reason::kTimedOut));
  EXPECT_THAT(server.Stop(), IsOk());
}

// Servers that start meanwhile may have as many descriptors open.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t limit) {
    getrlimit(RLIMIT_NOFILE, &found_);
    rlimit set = found_;
    set.rlim_cur = limit;
    setrlimit(RLIMIT_NOFILE, &set);
  }
  ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &found_); }

 private:
  rlimit found_;
};

class GreedyPeersTest : public ModesTest {
 protected:
  // Until no more than `kept` of them are left.
  void AwaitRefusals(std::vector<MessageChannel>& peers, size_t kept,
                     std::string_view text) {
    while (peers.size() > kept) {
      std::vector<const Pollable*> polled;
      for (const MessageChannel& peer : peers) {
        polled.push_back(peer.transport());
      }
      ASSERT_OK_AND_ASSIGN(const size_t refused,
                           environment().Poll(polled, absl::InfiniteFuture()));
      ASSERT_THAT(peers[refused].Read(),
                  FailsWith(reason::kServerFull, std::string(text)));
      peers.erase(peers.begin() + static_cast<ptrdiff_t>(refused));
    }
  }

  void ExpectNoneIsRefused(const std::vector<MessageChannel>& peers) {
    for (const MessageChannel& peer : peers) {
      EXPECT_FALSE(Readable(peer, absl::ZeroDuration()));
    }
  }
};

TEST_F(GreedyPeersTest, MessagesThatAreNotWholeHaveAnEighthOfTheTable) {
  constexpr rlim_t kLimit = 1024;
  constexpr size_t kEach = 16;
  // One message is allowed on top of that.
  constexpr size_t kKept = kLimit / 8 / kEach + 1;
  ServerOptions options = Shared();
  options.authentication_timeout = kSurely;
  TestServer server(std::move(options));
  {
    const DescriptorLimit limit(kLimit);
    ASSERT_THAT(server.Start(), IsOk());
  }
  const MessageChannel silent = RawPeer(path());
  const FileDescriptor file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::vector<int> attached(kEach, file.get());
  std::vector<MessageChannel> greedy;
  for (size_t i = 0; i < 2 * kKept; ++i) {
    ASSERT_OK_AND_ASSIGN(auto peer,
                         environment().Connect(path(), absl::InfiniteFuture()));
    ASSERT_THAT(peer->Send("\x20", attached, absl::InfiniteFuture()), IsOk());
    greedy.emplace_back(std::move(peer));
  }
  AwaitRefusals(greedy, kKept, "not whole");
  // All have been seen, and nobody else had to go: least of all who holds none.
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  ExpectNoneIsRefused(greedy);
  EXPECT_FALSE(Readable(silent, absl::ZeroDuration()));
  EXPECT_THAT(server.Stop(), IsOk());
}

// In a conversation, or a stream, as well.
TEST_F(GreedyPeersTest, LaterMessagesThatAreNotWholeHaveNoMore) {
  constexpr rlim_t kLimit = 1024;
  constexpr size_t kEach = 100;
  constexpr size_t kKept = kLimit / 8 / kEach + 1;
  TestServer server(Shared());
  {
    const DescriptorLimit limit(kLimit);
    ASSERT_THAT(server.Start(), IsOk());
  }
  MessageChannel honest = Open(server);
  ASSERT_THAT(honest.Write("hold"), IsOk());
  ASSERT_THAT(honest.Read(), RepliesWith("held"));
  const FileDescriptor file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::vector<int> attached(kEach, file.get());
  std::vector<MessageChannel> greedy;
  for (size_t i = 0; i < 8; ++i) {
    greedy.push_back(Open(server));
    ASSERT_THAT(greedy[i].Write("hold"), IsOk());
    ASSERT_THAT(greedy[i].Read(), RepliesWith("held"));
    auto* const connection = const_cast<Transport*>(greedy[i].transport());
    ASSERT_THAT(connection->Send("\x20", attached, absl::InfiniteFuture()),
                IsOk());
  }
  AwaitRefusals(greedy, kKept, "before it was whole");
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  ExpectNoneIsRefused(greedy);
  ASSERT_THAT(honest.Write("x"), IsOk());
  EXPECT_THAT(honest.Read(), RepliesWith("released"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, AClientThatHasLeftIsNotServedAndKeepsNobodyFromAnAnswer) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler("note",
                           [this](MessageChannel&) { return Note("served"); });
    }
  };
  ServerOptions options = Shared();
  options.max_clients = 1;
  Server server(std::move(options));
  server.set_ignore_password_errors(true);
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel holder = Open(server);
  ASSERT_THAT(holder.Write("hold"), IsOk());
  ASSERT_THAT(holder.Read(), IsOk());
  const size_t before = DescriptorsOf(server.server_pid()).size();
  for (int i = 0; i < 30; ++i) {
    ASSERT_THAT(Open(server).Write("note"), IsOk());
  }
  // All places are taken, and 30 clients have come before this one.
  MessageChannel stranger = RawPeer(path());
  ASSERT_THAT(stranger.Write("note"), IsOk());
  EXPECT_THAT(stranger.Read(), FailsWith(reason::kInvalidPassword));
  stranger.Close();
  // Until the server has heard of it that they have left.
  if (MovesClock()) {
    Advance(absl::Milliseconds(1));
  } else {
    const Stopwatch watch;
    while (DescriptorsOf(server.server_pid()).size() > before &&
           watch.Elapsed() < kSurely) {
      absl::SleepFor(absl::Milliseconds(1));
    }
  }
  ASSERT_THAT(holder.Write("go"), IsOk());
  EXPECT_THAT(holder.Read(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  holder.Close();
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(TakeNotes(), "");
}

TEST_F(ModesTest, AWaitForAPlaceEndsAfterTheQueueTimeout) {
  constexpr absl::Duration kTimeout = absl::Milliseconds(100);
  ServerOptions options;
  options.max_clients = 1;
  options.queue_timeout = kTimeout;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel holder = Open(server);
  ASSERT_THAT(holder.Write("hold"), IsOk());
  ASSERT_THAT(holder.Read(), IsOk());
  const Stopwatch watch;
  EXPECT_THAT(Call(server, "echo", "x"),
              FailsWith(reason::kServerFull, "queue_timeout"));
  EXPECT_GE(watch.Elapsed(), kTimeout);
  if (MovesClock()) {
    EXPECT_EQ(watch.Elapsed(), kTimeout);
  }
  ASSERT_THAT(holder.Write("go"), IsOk());
  EXPECT_THAT(holder.Read(), IsOk());
  holder.Close();
  // Its thread may be later than that to give the place back.
  absl::StatusOr<std::string> reply;
  do {
    reply = Call(server, "echo", "x");
  } while (HasReason(reply.status(), reason::kServerFull) &&
           watch.Elapsed() < kSurely);
  EXPECT_THAT(reply, IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, OneProcessTakesNoMorePlacesThanItMay) {
  ServerOptions options = Shared();
  options.max_clients_per_process = 2;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<MessageChannel> held;
  for (int i = 0; i < 2; ++i) {
    held.push_back(Open(server));
    ASSERT_THAT(held[i].Write("hold"), IsOk());
    ASSERT_THAT(held[i].Read(), IsOk());
  }
  EXPECT_THAT(Call(server, "echo", "x"),
              FailsWith(reason::kServerFull, "max_clients_per_process"));
  if (HasProcesses()) {
    const auto other = environment().Fork(
        ForkOptions(), [&] { return Call(server, "echo", "x").ok() ? 0 : 1; });
    ASSERT_THAT(other, IsOk());
    const auto exit = (*other)->Wait(absl::InfiniteFuture());
    ASSERT_THAT(exit, IsOk());
    EXPECT_TRUE(exit->clean()) << exit->ToString();
  }
  held.clear();
  EXPECT_THAT(server.Stop(), IsOk());
}

// The server may not have noticed yet, and its handler may still be on its way.
TEST_F(ModesTest, WhoComesWhenOneOfItsProcessHasLeftIsServed) {
  ServerOptions options = Shared();
  options.max_clients_per_process = 1;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  for (int i = 0; i < 100; ++i) {
    MessageChannel channel = Open(server);
    ASSERT_THAT(channel.Write("hold"), IsOk());
    ASSERT_THAT(channel.Read(), RepliesWith("held"));
  }
  for (int i = 0; i < 100; ++i) {
    ASSERT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

// Whoever waits for one of its own to leave waits for nobody else's place.
TEST_F(ModesTest, AProcessThatHasAllItMayHaveCostsNoOtherItsConnection) {
  if (!HasProcesses()) GTEST_SKIP() << "all clients are of one process";
  constexpr Method<std::string, std::string> kEcho{"echo"};
  int connections = 0;
  ServerOptions options = Shared();
  options.max_clients_per_process = 1;
  options.trust_server = [&connections](const PeerCredentials& /*server*/) {
    ++connections;
    return true;
  };
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel held = Open(server);
  ASSERT_THAT(held.Write("hold"), IsOk());
  ASSERT_THAT(held.Read(), RepliesWith("held"));
  MessageChannel surplus = Open(server);
  ASSERT_THAT(surplus.Write("hold"), IsOk());
  const auto other = environment().Fork(ForkOptions(), [&] {
    connections = 0;
    for (int i = 0; i < 20; ++i) {
      if (!server.Call(kEcho, "x").ok()) return -1;
    }
    return connections;
  });
  ASSERT_THAT(other, IsOk());
  const auto exit = (*other)->Wait(absl::InfiniteFuture());
  ASSERT_THAT(exit, IsOk());
  EXPECT_EQ(exit->value, 1) << exit->ToString();
  // When the one has left the other has its place; elsewhere a second may have
  // passed.
  held.Close();
  if (MovesClock()) {
    EXPECT_THAT(surplus.Read(), RepliesWith("held"));
  }
  surplus.Close();
  EXPECT_THAT(server.Stop(), IsOk());
}

// However many of one process have come before.
TEST_F(ModesTest, AFreePlaceIsForAnotherProcessThanItsLast) {
  if (!MovesClock()) GTEST_SKIP() << "who waits already is not known";
  ServerOptions options = Shared();
  options.max_clients = 2;
  const std::string notes = options.arguments.front();
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<MessageChannel> greedy;
  for (int i = 0; i < 5; ++i) {
    greedy.push_back(Open(server));
    ASSERT_THAT(greedy[i].Write("hold"), IsOk());
  }
  Advance(absl::Milliseconds(10));
  const auto other = environment().Fork(ForkOptions(), [&] {
    MessageChannel channel = Open(server);
    if (!channel.Write("hold").ok() || !channel.Read().ok()) return 1;
    Note(notes, "served");
    return channel.Read().ok() ? 1 : 0;
  });
  ASSERT_THAT(other, IsOk());
  Advance(absl::Milliseconds(10));
  const auto held = [&](const MessageChannel& channel) {
    return channel.is_open() && Readable(channel, absl::ZeroDuration());
  };
  ASSERT_EQ(std::count_if(greedy.begin(), greedy.end(), held), 2);
  std::find_if(greedy.begin(), greedy.end(), held)->Close();
  Advance(absl::Milliseconds(10));
  EXPECT_EQ(TakeNotes(), "served\n");
  EXPECT_EQ(std::count_if(greedy.begin(), greedy.end(), held), 1);
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_THAT((*other)->Wait(absl::InfiniteFuture()), IsOk());
}

TEST_F(ModesTest, OneUserTakesNoMorePlacesThanItMay) {
  ServerOptions options;
  options.max_clients = 1;
  options.max_clients_per_user = 2;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel held = Open(server);
  ASSERT_THAT(held.Write("hold"), IsOk());
  ASSERT_THAT(held.Read(), IsOk());
  // Who waits counts, too. Which of two comes first cannot be known.
  MessageChannel waiting = Open(server);
  ASSERT_THAT(waiting.Write("hold"), IsOk());
  MessageChannel refused = Open(server);
  ASSERT_THAT(refused.Write("hold"), IsOk());
  const Pollable* const both[] = {refused.transport(), waiting.transport()};
  const auto told = environment().Poll(both, absl::InfiniteFuture());
  ASSERT_THAT(told, IsOk());
  if (*told == 1) std::swap(refused, waiting);
  EXPECT_THAT(refused.Read(),
              FailsWith(reason::kServerFull, "max_clients_per_user"));
  held.Close();
  EXPECT_THAT(waiting.Read(), RepliesWith("held"));
  waiting.Close();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, ACallEndsAfterTheCallTimeout) {
  constexpr absl::Duration kTimeout = absl::Milliseconds(200);
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler("talk", [](MessageChannel& channel) -> absl::Status {
        // What a handler sets is no way around it.
        channel.set_timeout(absl::InfiniteDuration());
        while (true) {
          WARD_RETURN_IF_ERROR(channel.Write("more?"));
          WARD_RETURN_IF_ERROR(channel.Read().status());
        }
      });
    }
  };
  ServerOptions options;
  options.call_timeout = kTimeout;
  Server server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  const Stopwatch watch;
  MessageChannel channel = Open(server);
  ASSERT_THAT(channel.Write("talk"), IsOk());
  absl::Status status = channel.Read().status();
  while (status.ok()) {
    absl::SleepFor(absl::Milliseconds(10));
    status = channel.Write("more");
    if (status.ok()) status = channel.Read().status();
  }
  EXPECT_THAT(status, FailsWith(reason::kTimedOut,
                                "ServerOptions::call_timeout is 200ms"));
  EXPECT_GE(watch.Elapsed(), kTimeout);
  channel.Close();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, ACallEndsAfterTheCallTimeoutAlsoIfItNeverWaits) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler("work", [](MessageChannel& channel) -> absl::Status {
        while (true) {
          WARD_RETURN_IF_ERROR(channel.Read().status());
          absl::SleepFor(absl::Milliseconds(20));
          WARD_RETURN_IF_ERROR(channel.Write("done"));
        }
      });
      DefineMessageHandler("late", []() -> absl::StatusOr<std::string> {
        absl::SleepFor(absl::Milliseconds(250));
        return "done";
      });
    }
  };
  ServerOptions options;
  options.call_timeout = absl::Milliseconds(200);
  Server server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Open(server);
  // What the handler reads next is always there already; or its time is over
  // by then.
  for (const char* const word : {"work", "first", "second"}) {
    (void)channel.Write(word);
  }
  absl::Status status;
  for (int done = 0; done < 100 && status.ok(); ++done) {
    status = channel.Read().status();
    if (status.ok()) (void)channel.Write("more");
  }
  EXPECT_THAT(status, FailsWith(reason::kTimedOut,
                                "ServerOptions::call_timeout is 200ms"));
  EXPECT_THAT(
      Call(server, "late"),
      FailsWith(reason::kTimedOut, "ServerOptions::call_timeout is 200ms"));
  channel.Close();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, ASilentClientsCallEndsAfterTheIdleTimeout) {
  constexpr absl::Duration kTimeout = absl::Milliseconds(200);
  ServerOptions options;
  options.idle_timeout = kTimeout;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  const Stopwatch watch;
  MessageChannel channel = Open(server);
  ASSERT_THAT(channel.Write("hold"), IsOk());
  ASSERT_THAT(channel.Read(), RepliesWith("held"));
  EXPECT_THAT(
      channel.Read(),
      FailsWith(reason::kTimedOut, "ServerOptions::idle_timeout is 200ms"));
  EXPECT_GE(watch.Elapsed(), kTimeout);
  if (MovesClock()) {
    EXPECT_EQ(watch.Elapsed(), kTimeout);
  }
  channel.Close();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, TimesThatNoClientCouldKeepAreRefused) {
  const std::pair<const char*, absl::Duration ServerOptions::*> times[] = {
      {"authentication_timeout", &ServerOptions::authentication_timeout},
      {"queue_timeout", &ServerOptions::queue_timeout},
      {"call_timeout", &ServerOptions::call_timeout},
      {"idle_timeout", &ServerOptions::idle_timeout},
      {"drain_time", &ServerOptions::drain_time},
  };
  const auto start = [](absl::Duration ServerOptions::*time,
                        absl::Duration value) {
    ServerOptions options;
    options.*time = value;
    TestServer server(std::move(options));
    absl::Status started = server.Start();
    if (started.ok()) {
      EXPECT_THAT(server.Stop(), IsOk());
    }
    return started;
  };
  for (const auto& [name, time] : times) {
    const absl::Status negative = start(time, -absl::Nanoseconds(1));
    EXPECT_TRUE(absl::IsInvalidArgument(negative)) << name << negative;
    EXPECT_THAT(negative.message(), HasSubstr(name));
    const absl::Status zero = start(time, absl::ZeroDuration());
    if (time == &ServerOptions::drain_time) {
      EXPECT_THAT(zero, IsOk());
    } else {
      EXPECT_TRUE(absl::IsInvalidArgument(zero)) << name << zero;
    }
  }
}

// How many threads the server has, beside its main one.
size_t ThreadsOfPool(const AbstractServer& server) {
  auto* const simulation = testing::Simulation::Current();
  const pid_t pid = server.server_pid();
  return (simulation == nullptr
              ? ThreadsOf(pid)
              : simulation->scheduler().LiveThreads(pid).size()) -
         1;
}

TEST_F(ModesTest, ThreadsComeWithABurstAndGoAfterIt) {
  if (!HasProcesses()) GTEST_SKIP() << "the threads are the test's own, too";
  if (kUnderThreadSanitizer) GTEST_SKIP() << "it has threads of its own";
  constexpr size_t kBurst = 40;
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<MessageChannel> held;
  for (size_t i = 0; i < kBurst; ++i) {
    held.push_back(Open(server));
    ASSERT_THAT(held[i].Write("hold"), IsOk());
    ASSERT_THAT(held[i].Read(), IsOk());
  }
  EXPECT_GE(ThreadsOfPool(server), kBurst);
  held.clear();
  // Those that wait in Accept, and perhaps one on its way.
  constexpr size_t kFew = 5;
  if (MovesClock()) {
    Advance(absl::Seconds(11));
  } else {
    const Stopwatch watch;
    while (ThreadsOfPool(server) > kFew && watch.Elapsed() < kSurely) {
      absl::SleepFor(absl::Milliseconds(10));
    }
  }
  EXPECT_LE(ThreadsOfPool(server), kFew);
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ModesTest, WhoWaitsCostsNoThread) {
  if (!HasProcesses()) GTEST_SKIP() << "the threads are the test's own, too";
  constexpr size_t kMany = 60;
  ServerOptions options;
  options.max_clients = 1;
  options.authentication_timeout = kSurely;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<MessageChannel> peers;
  for (size_t i = 0; i < kMany; ++i) {
    peers.push_back(RawPeer(server.socket_filename()));
    peers.push_back(Open(server));
    ASSERT_THAT(peers.back().Write("hold"), IsOk());
    // It has the place before others are there: they are read in any order.
    if (i == 0) {
      ASSERT_THAT(peers.back().Read(), RepliesWith("held"));
    }
  }
  // The last of them all has been accepted, if this one was.
  MessageChannel stranger = RawPeer(server.socket_filename());
  ASSERT_THAT(stranger.Write("hold"), IsOk());
  EXPECT_THAT(stranger.Read(), FailsWith(reason::kInvalidPassword));
  EXPECT_LT(ThreadsOfPool(server), kMany / 2);
  peers.clear();
  EXPECT_THAT(server.Stop(), IsOk());
}

// One is spared for them: those that accept hear of nobody else. If there is
// none, the one that watches them accepts.
TEST_F(ModesTest, WhoWaitsIsSeenWhereTwoThreadsAreAllThatThereCanBe) {
  if (!MovesClock()) GTEST_SKIP() << "the threads cannot be limited";
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler("limit", [](MessageChannel& channel, int threads) {
        testing::Simulation::Current()->environment().LimitThreads(
            static_cast<size_t>(threads));
        return channel.Write("limited");
      });
    }
  };
  for (const int threads : {2, 3, 4, 5}) {
    SCOPED_TRACE(absl::StrCat(threads, " threads"));
    ServerOptions options;
    options.authentication_timeout = absl::Seconds(30);
    Server server(std::move(options));
    ASSERT_THAT(server.Start(), IsOk());
    // And the main one.
    ASSERT_THAT(Call(server, "limit", 1 + threads), IsOkAndHolds("limited"));
    std::vector<MessageChannel> held;
    for (int i = 1; i < threads; ++i) {
      held.push_back(Open(server));
      ASSERT_THAT(held.back().Write("hold"), IsOk());
      ASSERT_THAT(held.back().Read(), RepliesWith("held"));
    }
    held.clear();
    Advance(absl::Milliseconds(100));
    ASSERT_EQ(ThreadsOfPool(server), static_cast<size_t>(threads));
    const Stopwatch watch;
    MessageChannel silent = Open(server);
    MessageChannel late = Open(server);
    Advance(absl::Seconds(20));
    // It does not leave for having nothing to do.
    EXPECT_EQ(ThreadsOfPool(server), static_cast<size_t>(threads));
    ASSERT_THAT(late.Write("hold"), IsOk());
    ASSERT_THAT(late.Read(), RepliesWith("held"));
    EXPECT_TRUE(Readable(silent, kSurely));
    EXPECT_EQ(watch.Elapsed(), absl::Seconds(30));
    late.Close();
    silent.Close();
    EXPECT_THAT(server.Stop(), IsOk());
  }
}

TEST_F(ModesTest, NoMoreWaitThanMay) {
  constexpr int kMost = 2;
  constexpr int kBurst = 8;
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options)
        : Registered(Counting(std::move(options))) {}
    static ServerOptions Counting(ServerOptions options) {
      options.admit_peer = [notes =
                                options.arguments[0]](const PeerCredentials&) {
        ward::Note(notes, "came");
        return true;
      };
      return options;
    }
  };
  ServerOptions options = Shared();
  options.max_waiting_clients = kMost;
  options.authentication_timeout = kSurely;
  Server server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  // Brings as many threads as may accept.
  std::vector<MessageChannel> held;
  for (int i = 0; i < kBurst; ++i) {
    held.push_back(Open(server));
    ASSERT_THAT(held[i].Write("hold"), IsOk());
    ASSERT_THAT(held[i].Read(), RepliesWith("held"));
  }
  for (MessageChannel& channel : held) {
    ASSERT_THAT(channel.Write("go"), IsOk());
    ASSERT_THAT(channel.Read(), RepliesWith("released"));
    EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  }
  if (MovesClock()) Advance(absl::Milliseconds(100));
  (void)TakeNotes();
  // None of them is silent: a silent one would have to go.
  std::vector<std::unique_ptr<Transport>> waiting;
  for (int i = 0; i < kBurst; ++i) {
    auto peer = environment().Connect(path(), absl::InfiniteFuture());
    ASSERT_THAT(peer, IsOk());
    ASSERT_THAT((*peer)->Send("\x20", {}, absl::InfiniteFuture()), IsOk());
    waiting.push_back(*std::move(peer));
  }
  if (MovesClock()) Advance(absl::Milliseconds(100));
  const std::string came = TakeNotes();
  EXPECT_LE(std::count(came.begin(), came.end(), '\n'), kMost);
  waiting.clear();
  EXPECT_THAT(server.Stop(), IsOk());
}

// Those who trickle always have one byte more by the time that all others have
// been looked at. They wait as long as they may, and so does who says nothing.
TEST_F(ModesTest, AStormOfPeersThatTrickleKeepsNobodyBeyondItsTime) {
  if (!MovesClock()) GTEST_SKIP() << "how fast a machine reads is its own";
  constexpr absl::Duration kTimeout = absl::Seconds(2);
  static constexpr absl::Duration kLook = absl::Milliseconds(1);
  ListenOptions where;
  where.path = path();
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Listener> listener,
                       environment().Listen(where));
  ClientPool::Limits limits{};
  limits.max_clients = limits.max_waiting_clients = 10;
  limits.authentication_timeout = kTimeout;
  ClientPool::Service service;
  service.greet = [](ClientPool::Client&) { return absl::OkStatus(); };
  service.receive = [](ClientPool::Client&, absl::Duration) {
    absl::SleepFor(kLook);
    return MakeError(reason::kTimedOut, "it is not whole yet");
  };
  service.make_room = [](absl::Duration) { return false; };
  service.serve = [](ClientPool::Client&) { return absl::OkStatus(); };
  ClientPool pool(environment(), *listener, limits, std::move(service));
  ASSERT_THAT(pool.Start(), IsOk());
  const Stopwatch watch;
  const MessageChannel silent = RawPeer(path());
  Advance(kTimeout / 2);
  std::vector<std::unique_ptr<Transport>> tricklers;
  for (int i = 0; i < 4; ++i) {
    ASSERT_OK_AND_ASSIGN(auto trickler,
                         environment().Connect(path(), absl::InfiniteFuture()));
    ASSERT_THAT(trickler->Send("x", {}, absl::InfiniteFuture()), IsOk());
    tricklers.push_back(std::move(trickler));
  }
  EXPECT_TRUE(Readable(silent, kSurely));
  EXPECT_GE(watch.Elapsed(), kTimeout);
  EXPECT_LE(watch.Elapsed(), kTimeout + 3 * kLook);
  listener->RemovePath();
  pool.Stop(absl::ZeroDuration());
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

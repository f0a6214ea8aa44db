// What a server tells of itself, in every mode.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/proto/stats.pb.h"
#include "ward/server/abstract_server.h"
#include "ward/server/client.h"
#include "ward/server/interceptor.h"
#include "ward/server/method.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MovesClock;
using ::testing::Not;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr Method<std::string, std::string> kRepeat{"repeat"};
constexpr Method<std::string, void> kFailWith{"fail with"};
constexpr Method<int64_t, void> kSleep{"sleep"};
constexpr Method<FileDescriptor, FileDescriptor> kReturn{"return"};
constexpr Method<bool, proto::ServerStats> kStats{"ward.stats"};

class Server : public Registered<Server> {
 public:
  explicit Server(ServerOptions options = {}) : Registered(std::move(options)) {
    Define(kRepeat, [](const std::string& text) -> absl::StatusOr<std::string> {
      return text;
    });
    Define(kFailWith, [](const std::string& reason) {
      return MakeError(absl::StatusCode::kNotFound, reason, "as asked");
    });
    Define(kSleep, [](int64_t milliseconds) {
      absl::SleepFor(absl::Milliseconds(milliseconds));
      return absl::OkStatus();
    });
    Define(kReturn, [](FileDescriptor file) -> absl::StatusOr<FileDescriptor> {
      return file;
    });
  }
};

proto::MethodStats Of(const proto::ServerStats& stats, std::string_view name) {
  for (const proto::MethodStats& method : stats.methods()) {
    if (method.name() == name) return method;
  }
  ADD_FAILURE() << "there is no method " << name;
  return {};
}

uint64_t Ended(const proto::MethodStats& method) {
  uint64_t ended = 0;
  for (const auto& bucket : method.latency().buckets()) ended += bucket.count();
  return ended;
}

template <typename Errors>
std::map<std::string, uint64_t> Map(const Errors& errors) {
  std::map<std::string, uint64_t> map;
  for (const proto::ErrorCount& error : errors) {
    map[error.reason()] += error.count();
  }
  return map;
}

class StatsTest : public ModesTest {
 protected:
  // Those of which `fits` is true: what a server does after its last word to a
  // client is not over when that has it.
  template <typename Fits>
  proto::ServerStats Await(AbstractServer& server, const Fits& fits) {
    proto::ServerStats stats;
    for (const Stopwatch watch; watch.Elapsed() < kSurely;) {
      const absl::StatusOr<proto::ServerStats> told = server.Stats();
      EXPECT_THAT(told, IsOk());
      if (!told.ok()) return stats;
      stats = *told;
      if (fits(stats)) return stats;
      absl::SleepFor(absl::Milliseconds(1));
    }
    ADD_FAILURE() << stats.SerializeAsString();
    return stats;
  }
};

TEST_F(StatsTest, CountsTheCallsOfEachMethod) {
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const std::string text(1000, 'x');
  for (int i = 0; i < 5; ++i) {
    ASSERT_THAT(server.Call(kRepeat, text), IsOkAndHolds(text));
  }
  ASSERT_OK_AND_ASSIGN(const proto::ServerStats stats, server.Stats());
  EXPECT_EQ(stats.pid(), server.server_pid());
  const proto::MethodStats repeat = Of(stats, "repeat");
  EXPECT_EQ(repeat.calls(), 5u);
  EXPECT_EQ(repeat.running(), 0u);
  EXPECT_EQ(Ended(repeat), 5u);
  EXPECT_THAT(repeat.errors(), IsEmpty());
  for (const uint64_t bytes : {repeat.bytes_in(), repeat.bytes_out()}) {
    EXPECT_GT(bytes, 5000u);
    EXPECT_LT(bytes, 5200u);
  }
  EXPECT_EQ(repeat.descriptors_in(), 0u);
  // All that the server knows are there, whether they were called or not.
  EXPECT_EQ(static_cast<size_t>(stats.methods_size()),
            server.handled_messages().size());
  EXPECT_EQ(Of(stats, "echo").calls(), 0u);
  // This call itself is under way.
  EXPECT_EQ(Of(stats, "ward.stats").calls(), 1u);
  EXPECT_EQ(Of(stats, "ward.stats").running(), 1u);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(StatsTest, CountsDescriptorsBothWays) {
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const Pipe pipe = MakePipe();
  ASSERT_THAT(server.Call(kReturn, pipe.read), IsOk());
  ASSERT_THAT(server.Call(kReturn, pipe.read), IsOk());
  ASSERT_OK_AND_ASSIGN(const proto::ServerStats stats, server.Stats());
  EXPECT_EQ(Of(stats, "return").descriptors_in(), 2u);
  EXPECT_EQ(Of(stats, "return").descriptors_out(), 2u);
  EXPECT_THAT(server.Stop(), IsOk());
}

// But not to the next method.
TEST_F(StatsTest, CountsNothingThatACallHasLeft) {
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Open(server);
  channel.ExpectEnd();
  channel.BeginCall({/*keep=*/true});
  ASSERT_THAT(channel.Write("echo", "x"), IsOk());
  EXPECT_THAT(channel.Read(), testing::RepliesWith("x"));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  ASSERT_TRUE(channel.kept());
  ASSERT_THAT(channel.WriteScalar(std::string(10'000, 'x')), IsOk());
  channel.BeginCall({/*keep=*/true});
  ASSERT_THAT(channel.Write("repeat", "x"), IsOk());
  EXPECT_THAT(channel.Read(), IsOk());
  ASSERT_OK_AND_ASSIGN(const proto::ServerStats stats, server.Stats());
  EXPECT_LT(Of(stats, "echo").bytes_in(), 1000u);
  EXPECT_LT(Of(stats, "repeat").bytes_in(), 1000u);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(StatsTest, CountsErrorsByWardsReasonsOrTheirCode) {
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  for (const char* const reason :
       {"TimedOut", "NoSuchDevice", "", "TimedOut"}) {
    EXPECT_FALSE(server.Call(kFailWith, reason).ok());
  }
  constexpr Method<std::string, std::string> kWrongArguments{"sleep"};
  EXPECT_THAT(server.Call(kWrongArguments, "long"),
              FailsWith(reason::kInvalidArguments));
  ASSERT_OK_AND_ASSIGN(const proto::ServerStats stats, server.Stats());
  EXPECT_THAT(Map(Of(stats, "fail with").errors()),
              UnorderedElementsAre(Pair("TimedOut", 2), Pair("NOT_FOUND", 2)));
  EXPECT_EQ(Ended(Of(stats, "fail with")), 4u);
  EXPECT_THAT(Map(Of(stats, "sleep").errors()),
              UnorderedElementsAre(Pair("InvalidArguments", 1)));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(StatsTest, TellsHowLongCallsTook) {
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_THAT(server.Call(kSleep, 20), IsOk());
  ASSERT_OK_AND_ASSIGN(const proto::ServerStats stats, server.Stats());
  const proto::Latency latency = Of(stats, "sleep").latency();
  ASSERT_EQ(latency.buckets_size(), 1);
  EXPECT_EQ(latency.buckets(0).count(), 1u);
  EXPECT_GT(latency.buckets(0).under_ns(), 20000000u);
  EXPECT_GE(latency.sum_ns(), 20000000u);
  EXPECT_GE(stats.uptime_us(), 20000u);
  if (MovesClock()) {
    // Simulated time is what was slept, and nothing else.
    EXPECT_EQ(latency.sum_ns(), 20000000u);
    EXPECT_EQ(latency.buckets(0).under_ns(), uint64_t{5} << 22);
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(StatsTest, UnknownMessagesAreOne) {
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const int methods = static_cast<int>(server.handled_messages().size());
  for (int i = 0; i < 1000; ++i) {
    const std::string name = absl::StrCat("unknown ", i);
    EXPECT_THAT(server.Call(Method<void, void>{name}),
                FailsWith(reason::kUnknownMessage));
  }
  ASSERT_OK_AND_ASSIGN(const proto::ServerStats stats, server.Stats());
  EXPECT_EQ(stats.methods_size(), methods);
  EXPECT_EQ(stats.unknown_messages().calls(), 1000u);
  EXPECT_EQ(stats.unknown_messages().name(), "");
  EXPECT_THAT(Map(stats.unknown_messages().errors()),
              UnorderedElementsAre(Pair("UnknownMessage", 1000)));
  EXPECT_THAT(stats.SerializeAsString(), Not(HasSubstr("unknown ")));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(StatsTest, CountsClientsAndWhyTheyWereRefused) {
  ServerOptions options = Shared();
  options.max_clients = 2;
  options.authentication_timeout = kSurely;
  Server server(std::move(options));
  server.set_ignore_password_errors(true);
  ASSERT_THAT(server.Start(), IsOk());
  ServerOptions other = Shared();
  other.password = Secret("another password");
  TestServer stranger(std::move(other));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Call(stranger, "echo", "x"),
                FailsWith(reason::kInvalidPassword));
  }
  // One that says nothing, and one that goes.
  MessageChannel silent = RawPeer(path());
  RawPeer(path()).Close();
  MessageChannel held = Open(server);
  ASSERT_THAT(held.Write("hold"), IsOk());
  ASSERT_THAT(held.Read(), IsOk());
  const proto::ServerStats stats =
      Await(server, [](const proto::ServerStats& told) {
        return told.clients().left() == 1 && told.clients().accepted() == 7;
      });
  const proto::ClientStats& clients = stats.clients();
  EXPECT_EQ(clients.silent(), 1u);
  EXPECT_EQ(clients.served(), 2u);
  EXPECT_EQ(clients.idle(), 0u);
  EXPECT_EQ(clients.most_served(), 2u);
  EXPECT_EQ(clients.max_served(), 2u);
  EXPECT_EQ(clients.waiting(), 0u);
  EXPECT_THAT(Map(clients.refused()),
              UnorderedElementsAre(Pair("InvalidPassword", 3)));
  EXPECT_THAT(clients.cut(), IsEmpty());
  EXPECT_GE(stats.threads(), 2u);
  EXPECT_LT(stats.idle_threads(), stats.threads());
  EXPECT_EQ(stats.buffered_bytes(), 0u);
  EXPECT_EQ(stats.max_buffered_bytes(), ServerOptions().max_buffered_bytes);
  silent.Close();
  held.Close();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(StatsTest, CountsClientsThatAreCutAndDismissed) {
  ServerOptions options = Shared();
  options.max_clients = 1;
  // The other calls have all of it.
  options.call_timeout = absl::Seconds(2);
  Server server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  // It is too late for an answer, and its connection ends.
  EXPECT_THAT(server.Call(kSleep, 2010), FailsWith(reason::kTimedOut));
  // An idle one leaves for another.
  ASSERT_THAT(server.Call(kRepeat, "x"), IsOk());
  ASSERT_THAT(Call(server, "echo", "x"), IsOk());
  const proto::ServerStats stats =
      Await(server, [](const proto::ServerStats& told) {
        return told.clients().dismissed() >= 1;
      });
  EXPECT_THAT(Map(stats.clients().cut()),
              UnorderedElementsAre(Pair("TimedOut", 1)));
  EXPECT_THAT(Map(Of(stats, "sleep").errors()),
              UnorderedElementsAre(Pair("TimedOut", 1)));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(StatsTest, CountsTheOwnersIfAsked) {
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_OK_AND_ASSIGN(const proto::ServerStats without, server.Stats());
  EXPECT_FALSE(without.has_owners());
  ASSERT_OK_AND_ASSIGN(const proto::ServerStats with,
                       server.Call(kStats, true));
  const auto owners = server.Owners();
  EXPECT_EQ(with.has_owners(), owners.ok());
  if (owners.ok()) {
    EXPECT_EQ(with.owners(), owners->size());
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(StatsTest, BeginAnewWithEachStart) {
  Server server(Shared());
  for (int i = 0; i < 2; ++i) {
    ASSERT_THAT(server.Start(), IsOk());
    ASSERT_THAT(server.Call(kRepeat, "x"), IsOk());
    ASSERT_OK_AND_ASSIGN(const proto::ServerStats stats, server.Stats());
    EXPECT_EQ(Of(stats, "repeat").calls(), 1u);
    EXPECT_EQ(stats.clients().accepted(), 1u);
    EXPECT_THAT(server.Stop(), IsOk());
  }
}

TEST_F(StatsTest, AreToldOnlyToWhoHasThePassword) {
  Server server(Shared());
  server.set_ignore_password_errors(true);
  ASSERT_THAT(server.Start(), IsOk());
  Client stranger({path(), Secret("another password")});
  EXPECT_THAT(stranger.Stats(), FailsWith(reason::kInvalidPassword));
  MessageChannel raw = RawPeer(path());
  ASSERT_THAT(raw.Write("ward.stats", true), IsOk());
  EXPECT_THAT(raw.Read(), FailsWith(reason::kInvalidPassword));
  EXPECT_THAT(raw.Read(), FailsWith(reason::kEndOfStream));
  Client client({path(), server.password().Copy()});
  EXPECT_THAT(client.Stats(), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

// --- a full server ---

// A server whose only place is taken, by a client that holds it.
class FullTest : public StatsTest {
 protected:
  void Fill(AbstractServer& server) {
    holder_ = Open(server);
    ASSERT_THAT(holder_.Write("hold"), IsOk());
    ASSERT_THAT(holder_.Read(), IsOk());
  }
  void Leave() { holder_.Close(); }

  ServerOptions OnePlace() const {
    ServerOptions options = Shared();
    options.max_clients = 1;
    return options;
  }

 private:
  MessageChannel holder_;
};

TEST_F(FullTest, TellsAllTheSameAndServesNobodyElse) {
  Server server(OnePlace());
  ASSERT_THAT(server.Start(), IsOk());
  Fill(server);
  MessageChannel waits = Open(server);
  ASSERT_THAT(waits.Write("echo", "x"), IsOk());
  const proto::ServerStats stats =
      Await(server, [](const proto::ServerStats& told) {
        return told.clients().waiting() == 1;
      });
  EXPECT_EQ(stats.clients().served(), 1u);
  EXPECT_EQ(stats.clients().most_served(), 1u);
  for (int i = 0; i < 10; ++i) EXPECT_THAT(server.Stats(), IsOk());
  // What had no place has left none.
  EXPECT_FALSE(Readable(waits, absl::Milliseconds(20)));
  Leave();
  EXPECT_THAT(waits.Read(), testing::RepliesWith("x"));
  waits.Close();
  EXPECT_THAT(Call(server, "echo", "y"), IsOkAndHolds("y"));
  ASSERT_OK_AND_ASSIGN(const proto::ServerStats last, server.Stats());
  EXPECT_EQ(last.clients().most_served(), 1u);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(FullTest, TellsWhereAProcessHasAllThatItMay) {
  ServerOptions options = Shared();
  options.max_clients_per_process = 1;
  options.max_clients_per_user = 1;
  Server server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  Fill(server);
  for (int i = 0; i < 3; ++i) EXPECT_THAT(server.Stats(), IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), FailsWith(reason::kServerFull));
  Leave();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(FullTest, TellsManyThatAskAtOnce) {
  Server server(OnePlace());
  ASSERT_THAT(server.Start(), IsOk());
  Fill(server);
  std::vector<absl::AnyInvocable<void()>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&] {
      for (int j = 0; j < 5; ++j) EXPECT_THAT(server.Stats(), IsOk());
    });
  }
  RunAtOnce(std::move(clients));
  Leave();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(FullTest, WhoHasAskedMayNotCallAnythingElse) {
  Server server(OnePlace());
  ASSERT_THAT(server.Start(), IsOk());
  Fill(server);
  MessageChannel channel = Open(server);
  channel.ExpectEnd();
  channel.BeginCall({/*keep=*/true});
  ASSERT_THAT(channel.Write("ward.stats", false), IsOk());
  EXPECT_THAT(channel.Read(), IsOk());
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_TRUE(channel.end_was_said());
  EXPECT_FALSE(channel.kept());
  // Nor is what it has sent behind it served.
  MessageChannel eager = Open(server);
  eager.ExpectEnd();
  eager.BeginCall({/*keep=*/true});
  ASSERT_THAT(eager.Write("ward.stats", false), IsOk());
  // Its connection may have ended by now.
  (void)eager.Write("echo", "x");
  EXPECT_THAT(eager.Read(), IsOk());
  EXPECT_THAT(eager.Read(), FailsWith(reason::kEndOfStream));
  ASSERT_OK_AND_ASSIGN(const proto::ServerStats stats, server.Stats());
  EXPECT_EQ(Of(stats, "echo").calls(), 0u);
  Leave();
  EXPECT_THAT(server.Stop(), IsOk());
}

// What comes with it may take for ever to be closed, and there is but one.
TEST_F(FullTest, WhoAttachesAnythingHasNoPlaceBesideTheOthers) {
  Server server(OnePlace());
  ASSERT_THAT(server.Start(), IsOk());
  Fill(server);
  ASSERT_OK_AND_ASSIGN(const FileDescriptor file,
                       FileDescriptor::DuplicateOf(0));
  MessageChannel attaches = Open(server);
  ASSERT_THAT(attaches.Write("ward.stats", true, file), IsOk());
  (void)Await(server, [](const proto::ServerStats& told) {
    return told.clients().waiting() == 1;
  });
  EXPECT_FALSE(Readable(attaches, absl::Milliseconds(20)));
  Leave();
  EXPECT_THAT(attaches.Read(), FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(FullTest, CountsWhoLeavesTheQueueAsLeft) {
  Server server(OnePlace());
  ASSERT_THAT(server.Start(), IsOk());
  Fill(server);
  MessageChannel waits = Open(server);
  ASSERT_THAT(waits.Write("echo", "x"), IsOk());
  (void)Await(server, [](const proto::ServerStats& told) {
    return told.clients().waiting() == 1;
  });
  waits.Close();
  const proto::ServerStats stats =
      Await(server, [](const proto::ServerStats& told) {
        return told.clients().left() == 1;
      });
  EXPECT_EQ(stats.clients().refused_size(), 0);
  Leave();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(FullTest, TellsNobodyWithoutThePassword) {
  Server server(OnePlace());
  server.set_ignore_password_errors(true);
  ASSERT_THAT(server.Start(), IsOk());
  Fill(server);
  Client stranger({path(), Secret("another password")});
  EXPECT_THAT(stranger.Stats(), FailsWith(reason::kInvalidPassword));
  MessageChannel raw = RawPeer(path());
  ASSERT_THAT(raw.Write("ward.stats", true), IsOk());
  EXPECT_THAT(raw.Read(), FailsWith(reason::kInvalidPassword));
  Leave();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(FullTest, AsksTheInterceptorsToo) {
  struct Refusing : Interceptor {
    absl::Status Before(CallInfo& info) override {
      return info.method == kStats.name
                 ? absl::PermissionDeniedError("not for you")
                 : absl::OkStatus();
    }
  };
  struct Guarded : Registered<Guarded> {
    explicit Guarded(ServerOptions options)
        : Registered([&] {
            options.interceptors = {std::make_shared<Refusing>()};
            return std::move(options);
          }()) {}
  };
  Guarded server(OnePlace());
  ASSERT_THAT(server.Start(), IsOk());
  Fill(server);
  EXPECT_EQ(server.Stats().status().code(),
            absl::StatusCode::kPermissionDenied);
  Leave();
  EXPECT_THAT(server.Stop(), IsOk());
}

// One who comes while the one before is still there waits for it, though there
// are places: his process has all that it may.
TEST_F(FullTest, TellsWhoComesSecondWhereAProcessHasAllThatItMay) {
  struct Slow : Interceptor {
    absl::Status Before(CallInfo& info) override {
      if (info.method == kStats.name) absl::SleepFor(absl::Milliseconds(100));
      return absl::OkStatus();
    }
  };
  struct SlowServer : Registered<SlowServer> {
    explicit SlowServer(ServerOptions options)
        : Registered([&] {
            options.interceptors = {std::make_shared<Slow>()};
            return std::move(options);
          }()) {}
  };
  ServerOptions options = Shared();
  options.max_clients_per_process = 1;
  SlowServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  Fill(server);
  const auto ask = [&] { EXPECT_THAT(server.Stats(), IsOk()); };
  RunAtOnce(ask, ask);
  Leave();
  EXPECT_THAT(server.Stop(), IsOk());
}

// Its answer is larger than what a socket holds.
TEST_F(FullTest, WhoDoesNotReadItsAnswerKeepsNobodyWaiting) {
  if (!MovesClock()) GTEST_SKIP() << "who is slow enough does not read, either";
  struct Large : Registered<Large> {
    explicit Large(ServerOptions options) : Registered(std::move(options)) {
      for (int i = 0; i < 3000; ++i) {
        DefineMessageHandler(absl::StrCat(std::string(100, 'x'), i),
                             [](MessageChannel&) { return absl::OkStatus(); });
      }
    }
  };
  ServerOptions options = OnePlace();
  Large server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  Fill(server);
  std::vector<MessageChannel> deaf;
  for (int i = 0; i < 2; ++i) {
    deaf.push_back(Open(server));
    ASSERT_THAT(deaf[i].Write("ward.stats", false), IsOk());
  }
  const absl::Time begin = environment().TimeNow();
  EXPECT_THAT(server.Stats(), IsOk());
  EXPECT_LE(environment().TimeNow() - begin, absl::Seconds(3));
  deaf.clear();
  Leave();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(StatsTest, SumsAddUpWhileManyCall) {
  constexpr uint64_t kClients = 10;
  constexpr uint64_t kCalls = 20;
  Server server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const auto check = [&](const proto::ServerStats& stats) {
    const proto::MethodStats repeat = Of(stats, "repeat");
    EXPECT_EQ(Ended(repeat) + repeat.running(), repeat.calls());
    // What has ended has all its bytes.
    EXPECT_GE(repeat.bytes_in(), 100 * Ended(repeat));
    EXPECT_GE(repeat.bytes_out(), 100 * Ended(repeat));
  };
  const std::string text(100, 'x');
  std::vector<absl::AnyInvocable<void()>> clients;
  for (uint64_t i = 0; i < kClients; ++i) {
    clients.emplace_back([&] {
      for (uint64_t j = 0; j < kCalls; ++j) {
        EXPECT_THAT(server.Call(kRepeat, text), IsOk());
      }
    });
  }
  clients.emplace_back([&] {
    uint64_t calls = 0;
    for (uint64_t j = 0; j < kCalls; ++j) {
      ASSERT_OK_AND_ASSIGN(const proto::ServerStats stats, server.Stats());
      check(stats);
      EXPECT_GE(Of(stats, "repeat").calls(), calls);
      calls = Of(stats, "repeat").calls();
    }
  });
  RunAtOnce(std::move(clients));
  const proto::ServerStats stats =
      Await(server, [](const proto::ServerStats& told) {
        return Of(told, "repeat").running() == 0;
      });
  check(stats);
  EXPECT_EQ(Of(stats, "repeat").calls(), kClients * kCalls);
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward

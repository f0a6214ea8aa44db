// The life of a server under every schedule, with calls that fail and processes
// that die at every step: whatever happens, each call returns in bounded time
// with a status that says why, and nothing is left behind.

#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/abstract_server_collection.h"
#include "ward/server/environment.h"
#include "ward/server/owner_handle.h"
#include "ward/server/server_options.h"
#include "ward/testing/call_server.h"
#include "ward/testing/explore.h"
#include "ward/testing/matchers.h"
#include "ward/testing/run_at_once.h"
#include "ward/testing/simulation.h"

namespace ward {
namespace {

using testing::CallServer;
using testing::Explore;
using testing::ExploreOptions;
using testing::FailsWith;
using testing::IsOk;
using testing::IsOkAndHolds;
using testing::RepliesWith;
using testing::RunAtOnce;
using testing::Search;

inline constexpr Method<int, int> kOnce{"once"};

class EchoServer : public AbstractServer {
 public:
  explicit EchoServer(ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    DefineMessageHandler("echo",
                         [](MessageChannel& channel, std::string_view text) {
                           return channel.Write(text);
                         });
    // Replies after the client has sent something more.
    DefineMessageHandler("hold", [](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.Write("held"));
      WARD_RETURN_IF_ERROR(channel.Read().status());
      return channel.Write("released");
    });
    DefineMessageHandler("sleep", [](MessageChannel& channel) {
      absl::SleepFor(absl::Seconds(1));
      return channel.Write("slept");
    });
    Define(kOnce, [this](int number) -> absl::StatusOr<int> {
      ++handled[static_cast<size_t>(number)];
      return number;
    });
    DefineSignalHandler(SIGHUP, [] {});
  }

  using AbstractServer::environment;

  // How often kOnce was called with each number: simulated processes share
  // memory.
  std::vector<std::atomic<int>> handled = std::vector<std::atomic<int>>(20);

 protected:
  absl::Status InitializeServer() override { return absl::OkStatus(); }
};

WARD_REGISTER_SERVER(EchoServer);

// Checks how long calls take, and that they fail with more than an empty or a
// generic error.
class Bounds {
 public:
  // Without `timed`, that they return at all: where delays let the clock leap
  // while a thread could run, no time is too long.
  Bounds(Environment& environment, bool timed)
      : environment_(environment), timed_(timed) {}

  template <typename Call>
  auto Check(std::string_view what, absl::Duration limit, Call call) {
    const absl::Time start = environment_.TimeNow();
    auto result = call();
    const absl::Duration took = environment_.TimeNow() - start;
    if (timed_) {
      EXPECT_LE(took, limit) << what;
    }
    const absl::Status& status = testing::internal::StatusOf(result);
    EXPECT_FALSE(status.message().empty() && !status.ok()) << what;
    EXPECT_NE(status.code(), absl::StatusCode::kInternal) << what << status;
    EXPECT_NE(status.code(), absl::StatusCode::kUnknown) << what << status;
    return result;
  }

 private:
  Environment& environment_;
  const bool timed_;
};

// What an owner waits for at most: see LaunchOptions, StopOptions, and the last
// moment that the lifecycle gives a process.
constexpr absl::Duration kStartLimit = absl::Seconds(60 + 30 + 30);
constexpr absl::Duration kStopLimit = absl::Seconds(4 + 30 + 30);
// A call's time is the handler's; a dead server is noticed at once.
constexpr absl::Duration kCallLimit = absl::Seconds(10 + 2 + 5);

// AddressSanitizer finds what there is for it in few, and takes fifteen times
// as long for each.
#ifdef ABSL_HAVE_ADDRESS_SANITIZER
constexpr uint64_t kRuns = 25;
#else
constexpr uint64_t kRuns = 100;
#endif

ExploreOptions FaultsAndDeaths(Search search) {
  ExploreOptions options;
  options.search = search;
  options.runs = 40;
  options.faults = true;
  options.deaths = true;
  options.deviations = 2;
  options.faults_per_run = 2;
  return options;
}

// `body` is told whether its calls can be timed.
void ExploreWithAndWithoutDelays(Search search,
                                 absl::FunctionRef<void(bool timed)> body) {
  ExploreOptions options = FaultsAndDeaths(search);
  Explore(options, [&] { body(true); });
  options.delays = true;
  Explore(options, [&] { body(false); });
}

class ExplorationTest : public ::testing::TestWithParam<Search> {};

INSTANTIATE_TEST_SUITE_P(Searches, ExplorationTest,
                         ::testing::Values(Search::kPortfolio, Search::kRandom,
                                           Search::kPct, Search::kDepthFirst),
                         [](const auto& info) -> std::string {
                           switch (info.param) {
                             case Search::kRandom:
                               return "Random";
                             case Search::kPct:
                               return "Pct";
                             case Search::kDepthFirst:
                               return "DepthFirst";
                             default:
                               return "Portfolio";
                           }
                         });

void StartCallStop(StartMode mode, bool timed) {
  ServerOptions options;
  options.start_mode = mode;
  EchoServer server(std::move(options));
  Bounds bounds(server.environment(), timed);
  for (int i = 0; i < 2; ++i) {
    if (!bounds.Check("Start", kStartLimit, [&] { return server.Start(); })
             .ok()) {
      EXPECT_FALSE(server.started());
      continue;
    }
    {
      const auto client = server.environment().StartThread([&] {
        (void)bounds.Check("Call", kCallLimit,
                           [&] { return CallServer(server, "echo", "a"); });
      });
      const absl::StatusOr<Message> reply = bounds.Check(
          "Call", kCallLimit, [&] { return CallServer(server, "echo", "b"); });
      if (reply.ok()) {
        EXPECT_THAT(reply, RepliesWith("b"));
      }
    }
    (void)bounds.Check("Stop", kStopLimit, [&] { return server.Stop(); });
    EXPECT_FALSE(server.started());
  }
}

TEST_P(ExplorationTest, StartCallStop) {
  ExploreWithAndWithoutDelays(
      GetParam(), [](bool timed) { StartCallStop(StartMode::kFork, timed); });
}

TEST_P(ExplorationTest, StartByExecCallStop) {
  ExploreWithAndWithoutDelays(
      GetParam(), [](bool timed) { StartCallStop(StartMode::kExec, timed); });
}

// The same when nothing goes wrong: everything succeeds, in every order.
TEST_P(ExplorationTest, SucceedsInEveryOrder) {
  ExploreOptions options;
  options.search = GetParam();
  options.runs = 40;
  Explore(options, [] {
    EchoServer server;
    ASSERT_THAT(server.Start(), IsOk());
    {
      const auto client = server.environment().StartThread([&] {
        EXPECT_THAT(CallServer(server, "echo", "a"), RepliesWith("a"));
      });
      EXPECT_THAT(CallServer(server, "echo", "b"), RepliesWith("b"));
    }
    EXPECT_THAT(server.Stop(), IsOk());
  });
}

// A place that becomes free is for who has none: one that has its place, and
// waits for its thread, would take it from the one that waits for a place.
TEST_P(ExplorationTest, AFreePlaceIsForWhoHasNone) {
  ExploreOptions options;
  options.search = GetParam();
  options.runs = kRuns;
  Explore(options, [] {
    ServerOptions server_options;
    server_options.max_clients = 2;
    server_options.authentication_timeout = absl::Minutes(1);
    EchoServer server(std::move(server_options));
    ASSERT_THAT(server.Start(), IsOk());
    const auto open = [&server] {
      auto transport = server.environment().Connect(server.socket_filename(),
                                                    absl::InfiniteFuture());
      EXPECT_THAT(transport, IsOk());
      MessageChannel channel(*std::move(transport));
      channel.set_timeout(absl::Seconds(30));
      channel.PresentPassword(server.password());
      return channel;
    };
    MessageChannel leaving = open();
    MessageChannel second = open();
    MessageChannel third = open();
    ASSERT_THAT(leaving.Write("hold"), IsOk());
    ASSERT_THAT(leaving.Read(), RepliesWith("held"));
    // The other two are watched by now.
    absl::SleepFor(absl::Milliseconds(100));
    ASSERT_THAT(second.Write("hold"), IsOk());
    ASSERT_THAT(third.Write("hold"), IsOk());
    ASSERT_THAT(leaving.Write("go"), IsOk());
    // Both stay.
    EXPECT_THAT(second.Read(), RepliesWith("held"));
    EXPECT_THAT(third.Read(), RepliesWith("held"));
    for (MessageChannel* const channel : {&leaving, &second, &third}) {
      channel->Close();
    }
    EXPECT_THAT(server.Stop(), IsOk());
  });
}

// Nor does one too many of a process wait for its time to be over, when others
// of it have made their calls.
TEST_P(ExplorationTest, OneTooManyIsServedAsSoonAsItMayBe) {
  ExploreOptions options;
  options.search = GetParam();
  options.runs = kRuns;
  for (const int limit : {1, 2}) {
    SCOPED_TRACE(limit);
    Explore(options, [limit] {
      ServerOptions server_options;
      server_options.max_clients_per_process = limit;
      EchoServer server(std::move(server_options));
      ASSERT_THAT(server.Start(), IsOk());
      const absl::Time start = server.environment().TimeNow();
      const auto call = [&server] {
        for (int i = 0; i < 2; ++i) {
          // A connection that is being closed counts, too: more than as many
          // again are refused, but at once.
          const auto made = server.Call(kOnce, i);
          if (!made.ok()) {
            EXPECT_THAT(made, FailsWith(reason::kServerFull));
          }
        }
      };
      if (limit == 1) {
        RunAtOnce(call, call);
      } else {
        RunAtOnce(call, call, call, call);
      }
      EXPECT_LT(server.environment().TimeNow() - start, absl::Seconds(1));
      EXPECT_THAT(server.Stop(), IsOk());
    });
  }
}

// To which the system gives no more threads than these.
struct FewThreadsServer : EchoServer {
  FewThreadsServer(ServerOptions options, size_t threads)
      : EchoServer(std::move(options)), threads_(threads) {}
  absl::Status InitializeServer() override {
    // And the main one.
    testing::Simulation::Current()->environment().LimitThreads(1 + threads_);
    return absl::OkStatus();
  }
  const size_t threads_;
};

// One that says nothing keeps nobody waiting, however few threads the system
// gives to the server.
TEST_P(ExplorationTest, ASilentPeerKeepsNobodyWaitingWhereThreadsAreFew) {
  ExploreOptions options;
  options.search = GetParam();
  options.runs = kRuns;
  for (const size_t threads : {1, 2, 3}) {
    SCOPED_TRACE(threads);
    Explore(options, [threads] {
      ServerOptions server_options;
      server_options.authentication_timeout = absl::Minutes(1);
      FewThreadsServer server(std::move(server_options), threads);
      ASSERT_THAT(server.Start(), IsOk());
      {
        const auto silent = server.environment().Connect(
            server.socket_filename(), absl::InfiniteFuture());
        ASSERT_THAT(silent, IsOk());
        // It is watched by now.
        absl::SleepFor(absl::Milliseconds(100));
        const absl::Time start = server.environment().TimeNow();
        const auto call = [&server] {
          for (int i = 0; i < 3; ++i) {
            EXPECT_THAT(CallServer(server, "echo", "x"), RepliesWith("x"));
            EXPECT_THAT(server.Call(kOnce, i), IsOkAndHolds(i));
          }
        };
        RunAtOnce(call, call);
        EXPECT_LT(server.environment().TimeNow() - start, absl::Seconds(1));
      }
      EXPECT_THAT(server.Stop(), IsOk());
    });
  }
}

// Who closes what they have attached has something else to do, where threads
// are few; and there is nothing that nobody does.
TEST_P(ExplorationTest, PeersThatAttachDescriptorsKeepNobodyWaiting) {
  ExploreOptions options;
  options.search = GetParam();
  options.runs = 15;
  for (const size_t threads : {1, 2, 8}) {
    SCOPED_TRACE(threads);
    Explore(options, [threads] {
      ServerOptions server_options;
      server_options.authentication_timeout = absl::Seconds(2);
      server_options.max_clients = 1;
      FewThreadsServer server(std::move(server_options), threads);
      ASSERT_THAT(server.Start(), IsOk());
      const FileDescriptor file(open("/dev/null", O_RDONLY | O_CLOEXEC));
      // More than a first message may have, too.
      const auto attach = [&](size_t count, Reason told) {
        auto peer = server.environment().Connect(server.socket_filename(),
                                                 absl::InfiniteFuture());
        ASSERT_THAT(peer, IsOk());
        ASSERT_THAT((*peer)->Send("\x20", std::vector<int>(count, file.get()),
                                  absl::InfiniteFuture()),
                    IsOk());
        MessageChannel hostile(*std::move(peer));
        EXPECT_THAT(hostile.Read(), FailsWith(told));
      };
      const auto call = [&server] {
        const absl::Time start = server.environment().TimeNow();
        for (int i = 0; i < 3; ++i) {
          EXPECT_THAT(CallServer(server, "echo", "x"), RepliesWith("x"));
        }
        EXPECT_LT(server.environment().TimeNow() - start, absl::Seconds(1));
      };
      RunAtOnce([&] { attach(1, reason::kTimedOut); },
                [&] { attach(17, reason::kTooManyDescriptors); }, call, call);
      EXPECT_THAT(server.Stop(), IsOk());
    });
  }
}

// Three threads, and two places: each call has its result, or an error that is
// true; no handler runs twice for a call.
TEST_P(ExplorationTest, CallsOverKeptConnections) {
  ExploreWithAndWithoutDelays(GetParam(), [](bool timed) {
    ServerOptions options;
    options.max_clients = 2;
    EchoServer server(std::move(options));
    Bounds bounds(server.environment(), timed);
    if (!server.Start().ok()) return;
    std::atomic<int> last{0};
    const auto call = [&] {
      for (int i = 0; i < 3; ++i) {
        const int number = last++;
        CallOptions call_options;
        if (i == 2) call_options.deadline = absl::Now() + absl::Seconds(20);
        const absl::StatusOr<int> result = bounds.Check(
            "Call", 2 * kCallLimit,
            [&] { return server.Call(kOnce, call_options, number); });
        const int handled = server.handled[static_cast<size_t>(number)];
        if (result.ok()) {
          EXPECT_EQ(*result, number);
          EXPECT_EQ(handled, 1);
        } else if (HasReason(result.status(), reason::kServerUnreachable) ||
                   HasReason(result.status(), reason::kServerFull)) {
          EXPECT_EQ(handled, 0) << result.status();
        }
        EXPECT_LE(handled, 1);
      }
    };
    {
      // A thread may not be had.
      const auto second = server.environment().StartThread(call);
      const auto third = server.environment().StartThread(call);
      call();
    }
    (void)bounds.Check("Stop", kStopLimit, [&] { return server.Stop(); });
    for (const auto& handled : server.handled) EXPECT_LE(handled, 1);
  });
}

// Stop comes while a handler sleeps, one waits for its client, and one client
// says nothing at all.
void StopUnderLoad(bool timed) {
  ServerOptions options;
  options.max_clients = 1;
  options.max_waiting_clients = 1;
  options.drain_time = absl::Milliseconds(500);
  EchoServer server(std::move(options));
  Bounds bounds(server.environment(), timed);
  if (!server.Start().ok()) return;
  {
    const auto sleeper = server.environment().StartThread([&] {
      // Perhaps after the one that holds the only place for 60 s.
      (void)bounds.Check("Call", absl::Minutes(2),
                         [&] { return CallServer(server, "sleep"); });
    });
    const auto holder = server.environment().StartThread([&] {
      (void)bounds.Check("Connect", absl::Minutes(2), [&] {
        return server.Connect([&](MessageChannel& channel) -> absl::Status {
          channel.set_timeout(absl::Seconds(30));
          WARD_RETURN_IF_ERROR(channel.Write("hold"));
          WARD_RETURN_IF_ERROR(channel.Read().status());
          WARD_RETURN_IF_ERROR(channel.Read().status());
          return absl::OkStatus();
        });
      });
    });
    const auto silent = server.environment().StartThread([&] {
      (void)server.Connect([&](MessageChannel& channel) -> absl::Status {
        channel.set_timeout(absl::Seconds(30));
        return channel.Read().status();
      });
    });
    absl::SleepFor(absl::Milliseconds(100));
    // Connects are under way; here the server is asked by a signal to quit.
    if (const pid_t pid = server.server_pid(); pid != 0) {
      testing::Simulation::Current()->environment().Raise(pid, SIGTERM);
    }
  }
  (void)bounds.Check("Stop", kStopLimit, [&] { return server.Stop(); });
  EXPECT_FALSE(server.started());
}

TEST_P(ExplorationTest, StopUnderLoad) {
  ExploreWithAndWithoutDelays(GetParam(), StopUnderLoad);
}

// Owners come and go, by themselves or killed; the server goes with the last.
void Owners() {
  Environment& environment = Environment::Default();
  ForkOptions share;
  share.keep_all_open = true;
  const auto fork = [&](absl::AnyInvocable<int()> body) {
    auto process = environment.Fork(share, std::move(body));
    return process.ok() ? *std::move(process) : nullptr;
  };
  const auto wait = [](const std::unique_ptr<Process>& process) {
    if (process == nullptr) return;
    EXPECT_THAT(process->Wait(absl::InfiniteFuture()), IsOk());
  };
  const auto first = fork([fork, wait] {
    // An owner that is killed never destroys it.
    auto* const server = new EchoServer();
    if (!server->Start().ok()) {
      delete server;
      return 1;
    }
    const auto second = fork([server] {
      (void)CallServer(*server, "echo", "from another owner");
      return 0;
    });
    (void)CallServer(*server, "echo", "from the first owner");
    testing::Simulation::Current()->environment().Raise(server->server_pid(),
                                                        SIGHUP);
    wait(second);
    (void)server->Stop();
    delete server;
    return 0;
  });
  wait(first);
}

TEST_P(ExplorationTest, Owners) {
  ExploreWithAndWithoutDelays(GetParam(), [](bool) { Owners(); });
}

// A share goes to another process, which uses it, may stop the server, and may
// die at any step; its giver stops the server, too.
void HandOwnershipOver(bool timed) {
  ServerOptions options;
  // The server's object is not this one, which may go before it.
  options.start_mode = StartMode::kExec;
  EchoServer server(std::move(options));
  Environment& environment = server.environment();
  Bounds bounds(environment, timed);
  if (!server.Start().ok()) return;
  auto ends = environment.CreateTransportPair();
  if (ends.ok()) {
    ForkOptions keep;
    keep.keep_open = {ends->second->descriptor()};
    const auto receiver = environment.Fork(
        keep, [&bounds, end = std::move(ends->second)]() mutable {
          MessageChannel channel(std::move(end));
          auto handle = OwnerHandle::ReadFrom(channel);
          // One that is killed never destroys it.
          auto* const adopter = new EchoServer();
          if (handle.ok() && adopter->Adopt(*std::move(handle)).ok()) {
            (void)bounds.Check("Call", kCallLimit, [&] {
              return CallServer(*adopter, "echo", "from afar");
            });
            (void)bounds.Check("Stop", kStopLimit,
                               [&] { return adopter->Stop(); });
          }
          delete adopter;
          return 0;
        });
    MessageChannel channel(std::move(ends->first));
    auto handle = server.ShareOwnership();
    if (handle.ok()) (void)handle->WriteTo(channel);
    handle = OwnerHandle();
    channel.Close();
    (void)bounds.Check("Call", kCallLimit,
                       [&] { return CallServer(server, "echo", "from here"); });
    if (receiver.ok()) {
      EXPECT_THAT((*receiver)->Wait(absl::InfiniteFuture()), IsOk());
    }
  }
  (void)bounds.Check("Stop", kStopLimit, [&] { return server.Stop(); });
  EXPECT_FALSE(server.started());
}

TEST_P(ExplorationTest, HandOwnershipOver) {
  ExploreWithAndWithoutDelays(GetParam(), HandOwnershipOver);
}

// Threads that want the same servers, one that deletes them, and the cleaner:
// at any moment there is one server for a key, and none is left.
void Collection(bool timed) {
  using Servers = AbstractServerCollection<int, EchoServer>;
  CollectionOptions options;
  options.on_stop_failure = [](const absl::Status& status) {
    EXPECT_FALSE(status.message().empty());
  };
  Environment& environment = *options.environment;
  Bounds bounds(environment, timed);
  Servers servers(std::move(options));
  (void)servers.StartCleaner();
  const auto use = [&](int key) {
    // Not timed: the factory of another thread is waited for, and its Stop.
    auto server = servers.LookupOrAdd(
        key, [&]() -> absl::StatusOr<std::unique_ptr<EchoServer>> {
          ServerOptions by_exec;
          by_exec.start_mode = StartMode::kExec;
          auto made = std::make_unique<EchoServer>(std::move(by_exec));
          made->set_max_idle_time(absl::Milliseconds(10));
          WARD_RETURN_IF_ERROR(made->Start());
          return made;
        });
    if (!server.ok()) return;
    (void)bounds.Check("Call", kCallLimit,
                       [&] { return CallServer(**server, "echo", "x"); });
  };
  {
    const auto other = environment.StartThread([&] {
      use(1);
      (void)servers.Delete(1);
      use(2);
    });
    use(1);
    absl::SleepFor(absl::Milliseconds(20));
    use(1);
  }
  (void)servers.Cleanup();
  EXPECT_TRUE(servers.empty());
}

TEST_P(ExplorationTest, Collection) {
  ExploreWithAndWithoutDelays(GetParam(), Collection);
}

}  // namespace
}  // namespace ward

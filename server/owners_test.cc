// Shares in a server's ownership that go from hand to hand, and the two halves
// of a start: in every mode.

#include <signal.h>
#include <sys/types.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/method.h"
#include "ward/server/owner_handle.h"
#include "ward/server/stream.h"
#include "ward/testing/call_server.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using testing::CallServer;
using testing::FailsWith;
using testing::HasProcesses;
using testing::IsOk;
using testing::Mode;
using testing::RepliesWith;
using testing::TestMode;

constexpr Reason kNoCamera{"NoCamera", absl::StatusCode::kNotFound};

class EchoServer : public AbstractServer {
 public:
  explicit EchoServer(ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    DefineMessageHandler("echo",
                         [](MessageChannel& channel, std::string_view text) {
                           return channel.Write(text);
                         });
    DefineMessageHandler("owners", [this](MessageChannel& channel) {
      const auto owners = Owners();
      return owners.ok() ? channel.Write(owners->size()) : owners.status();
    });
  }

 protected:
  absl::Status InitializeServer() override {
    return options().arguments.empty()
               ? absl::OkStatus()
               : MakeError(kNoCamera, options().arguments[0]);
  }
};

WARD_REGISTER_SERVER(EchoServer);

inline constexpr Method<void, OwnerHandle> kShare{"share"};
inline constexpr Method<int, Stream<OwnerHandle>> kShares{"shares"};

// Owns a server, and gives shares in it away.
class OwningServer : public AbstractServer {
 public:
  explicit OwningServer(ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    Define(kShare, [this] { return owned_.ShareOwnership(); });
    Define(
        kShares,
        [this](int count, StreamWriter<OwnerHandle>& shares) -> absl::Status {
          for (int i = 0; i < count; ++i) {
            WARD_ASSIGN_OR_RETURN(const OwnerHandle share,
                                  owned_.ShareOwnership());
            WARD_RETURN_IF_ERROR(shares.Write(share));
          }
          return absl::OkStatus();
        });
  }

 protected:
  absl::Status InitializeServer() override { return owned_.Start(); }
  absl::Status FinalizeServer() override { return owned_.Stop(); }

 private:
  EchoServer owned_;
};

WARD_REGISTER_SERVER(OwningServer);

class OwnersTest : public testing::ServerTest<EchoServer> {
 protected:
  // Waits until it has something to tell.
  void Await(const AbstractServer& server) {
    const std::shared_ptr<const Pollable> end = server.pollable();
    ASSERT_NE(end, nullptr);
    const Pollable* const polled[] = {end.get()};
    EXPECT_THAT(
        environment().Poll(polled, environment().TimeNow() + absl::Seconds(30)),
        IsOk());
  }

  // A process that is no owner runs `body` with one end of a connection.
  std::unique_ptr<Process> Fork(absl::AnyInvocable<int(MessageChannel&)> body,
                                std::unique_ptr<Transport>& other_end) {
    auto ends = environment().CreateTransportPair();
    EXPECT_THAT(ends, IsOk());
    ForkOptions options;
    options.keep_open = {ends->second->descriptor()};
    auto process = environment().Fork(
        options,
        [body = std::move(body), end = std::move(ends->second)]() mutable {
          MessageChannel channel(std::move(end));
          return body(channel);
        });
    EXPECT_THAT(process, IsOk());
    other_end = std::move(ends->first);
    return *std::move(process);
  }

  int ExitCode(Process& process) {
    const auto exit = process.Wait(absl::InfiniteFuture());
    EXPECT_THAT(exit, IsOk());
    EXPECT_EQ(exit->kind, ProcessExit::Kind::kExited) << exit->ToString();
    return exit->value;
  }
};

// --- handles ---

TEST_F(OwnersTest, AHandleIsAReplyAndAnElementOfOne) {
  OwningServer owner;
  ASSERT_THAT(owner.Start(), IsOk());
  {
    ASSERT_OK_AND_ASSIGN(OwnerHandle handle, owner.Call(kShare));
    EchoServer other;
    ASSERT_THAT(other.Adopt(std::move(handle)), IsOk());
    EXPECT_THAT(CallServer(other, "echo", "x"), RepliesWith("x"));
    ASSERT_OK_AND_ASSIGN(auto shares, owner.Call(kShares, 3));
    int count = 0;
    while (const std::optional<OwnerHandle> share = shares.Next()) {
      EXPECT_EQ(share->socket_filename(), other.socket_filename());
      ++count;
    }
    EXPECT_THAT(shares.status(), IsOk());
    EXPECT_EQ(count, 3);
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<MethodInfo> methods, owner.Methods());
  EXPECT_EQ(methods[0].reply, "owner");
  EXPECT_EQ(methods[1].reply, "stream of owner");
  EXPECT_THAT(owner.Stop(), IsOk());
}

TEST_F(OwnersTest, WhatIsNoHandleIsNoReply) {
  EXPECT_THAT(Call(Method<std::string, OwnerHandle>{"echo"}, "x"),
              FailsWith(reason::kUnexpectedFrame, "owner"));
  EXPECT_THAT(Call(Method<std::string, OwnerHandle>{"echo"}, "ward.owner"),
              FailsWith(reason::kUnexpectedFrame));
}

TEST_F(OwnersTest, AHandleMakesAnotherObjectAClientAndAnOwner) {
  ASSERT_OK_AND_ASSIGN(OwnerHandle handle, server().ShareOwnership());
  EXPECT_EQ(handle.socket_filename(), server().socket_filename());
  EchoServer other;
  ASSERT_THAT(other.Adopt(std::move(handle)), IsOk());
  EXPECT_TRUE(other.started());
  EXPECT_EQ(other.server_pid(), server().server_pid());
  EXPECT_THAT(CallServer(other, "echo", "x"), RepliesWith("x"));
  EXPECT_THAT(other.CheckAlive(), IsOk());

  EXPECT_THAT(other.Stop(), IsOk());
  EXPECT_FALSE(other.started());
  EXPECT_THAT(server().CheckAlive(), FailsWith(reason::kServerDied));
}

TEST_F(OwnersTest, AnAdoptedServerOutlivesItsAdopter) {
  {
    ASSERT_OK_AND_ASSIGN(OwnerHandle handle, server().ShareOwnership());
    EchoServer other;
    ASSERT_THAT(other.Adopt(std::move(handle)), IsOk());
  }
  EXPECT_THAT(Call("echo", "x"), RepliesWith("x"));
}

TEST_F(OwnersTest, AHandleGoesToAnotherProcessWhichStopsTheServer) {
  std::unique_ptr<Transport> end;
  const std::unique_ptr<Process> process = Fork(
      [](MessageChannel& channel) {
        auto handle = OwnerHandle::ReadFrom(channel);
        EchoServer server;
        if (!handle.ok() || !server.Adopt(*std::move(handle)).ok()) return 1;
        const auto reply = CallServer(server, "echo", "from afar");
        if (!reply.ok() || (*reply)[0] != "from afar") return 2;
        return server.Stop().ok() ? 0 : 3;
      },
      end);
  MessageChannel channel(std::move(end));
  {
    ASSERT_OK_AND_ASSIGN(const OwnerHandle handle, server().ShareOwnership());
    ASSERT_THAT(handle.WriteTo(channel), IsOk());
  }
  EXPECT_EQ(ExitCode(*process), 0);
  EXPECT_THAT(server().CheckAlive(), FailsWith(reason::kServerDied));
}

TEST_F(OwnersTest, TheServerLivesAsLongAsAnyShare) {
  if (!HasProcesses()) GTEST_SKIP() << "its starter has to go";
  EXPECT_EQ(RunInProcess([] {
              EchoServer starter;
              if (!starter.Start().ok()) return 1;
              auto handle = starter.ShareOwnership();
              const auto process = starter.Disown();
              if (!handle.ok() || !process.ok()) return 2;
              {
                auto duplicate = handle->Duplicate();
                if (!duplicate.ok()) return 3;
                *handle = OwnerHandle();
                EchoServer other;
                if (!other.Adopt(*std::move(duplicate)).ok()) return 4;
                if (!CallServer(other, "echo", "x").ok()) return 5;
              }
              const auto exit = (*process)->Wait(absl::InfiniteFuture());
              return exit.ok() && exit->clean() ? 0 : 6;
            }),
            0);
}

TEST_F(OwnersTest, WhoeverAdoptedAKilledServerCleansUpAfterIt) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  ASSERT_OK_AND_ASSIGN(OwnerHandle handle, server().ShareOwnership());
  EchoServer other;
  ASSERT_THAT(other.Adopt(std::move(handle)), IsOk());
  KillServer();
  Await(other);
  EXPECT_THAT(other.CheckAlive(), FailsWith(reason::kServerDied));
  EXPECT_THAT(CallServer(other, "echo", "x"), FailsWith(reason::kServerDied));
  const std::string path = server().socket_filename();
  EXPECT_THAT(other.Stop(), FailsWith(reason::kServerDied));
  EXPECT_THAT(environment().Connect(path, absl::InfiniteFuture()),
              FailsWith(reason::kServerUnreachable));
  EXPECT_THAT(server().Stop(), FailsWith(reason::kServerDied, "signal 9"));
}

TEST_F(OwnersTest, OneObjectOwnsOneServer) {
  ASSERT_OK_AND_ASSIGN(OwnerHandle handle, server().ShareOwnership());
  EXPECT_THAT(server().Adopt(std::move(handle)),
              FailsWith(reason::kServerAlreadyStarted));
  EchoServer none;
  EXPECT_THAT(none.ShareOwnership(), FailsWith(reason::kServerNotStarted));
  EXPECT_THAT(none.Disown(), FailsWith(reason::kServerNotStarted));
  EXPECT_THAT(none.CheckAlive(), FailsWith(reason::kServerNotStarted));
  EXPECT_THAT(none.WaitUntilReady(), FailsWith(reason::kServerNotStarted));
  EXPECT_EQ(none.pollable(), nullptr);
}

TEST_F(OwnersTest, WhatIsNoHandleIsRefused) {
  ASSERT_OK_AND_ASSIGN(auto ends, environment().CreateTransportPair());
  MessageChannel here(std::move(ends.first));
  MessageChannel there(std::move(ends.second));
  ASSERT_THAT(here.Write("hello"), IsOk());
  EXPECT_THAT(OwnerHandle::ReadFrom(there),
              FailsWith(reason::kInvalidArguments));
  ASSERT_OK_AND_ASSIGN(const FileDescriptor secret, Secret("x").Share());
  ASSERT_OK_AND_ASSIGN(const FileDescriptor null,
                       FileDescriptor::DuplicateOf(0));
  ASSERT_THAT(here.Write("ward.owner", "/s", true, null, null, null), IsOk());
  EXPECT_THAT(OwnerHandle::ReadFrom(there),
              FailsWith(reason::kInvalidArguments));
  // A password that its sender could still change.
  ASSERT_THAT(here.Write("ward.owner", "/s", true, null, null, null, null),
              IsOk());
  EXPECT_THAT(OwnerHandle::ReadFrom(there),
              FailsWith(reason::kInvalidArguments, "no password"));
  ASSERT_THAT(here.Write("ward.owner", "/s", true, null, null, null, secret),
              IsOk());
  ASSERT_OK_AND_ASSIGN(OwnerHandle handle, OwnerHandle::ReadFrom(there));
  EchoServer server;
  EXPECT_THAT(server.Adopt(std::move(handle)),
              FailsWith(reason::kInvalidArguments, "no socket of a pair"));
  EXPECT_FALSE(server.started());
}

// A server is that of who made its pair: a connection's end would make it that
// of whoever listened.
TEST_F(OwnersTest, AConnectionIsNoOwnersEnd) {
  ASSERT_OK_AND_ASSIGN(auto ends, environment().CreateTransportPair());
  MessageChannel here(std::move(ends.first));
  MessageChannel there(std::move(ends.second));
  ASSERT_OK_AND_ASSIGN(
      const auto connection,
      environment().Connect(server().socket_filename(),
                            environment().TimeNow() + absl::Seconds(30)));
  ASSERT_OK_AND_ASSIGN(const FileDescriptor end,
                       environment().Share(*connection));
  ASSERT_OK_AND_ASSIGN(const FileDescriptor secret, Secret("x").Share());
  ASSERT_THAT(here.Write("ward.owner", "/s", true, end, end, end, secret),
              IsOk());
  ASSERT_OK_AND_ASSIGN(OwnerHandle handle, OwnerHandle::ReadFrom(there));
  EchoServer other;
  EXPECT_THAT(other.Adopt(std::move(handle)),
              FailsWith(reason::kInvalidArguments, "no socket of a pair"));
}

// --- who owns it ---

TEST_F(OwnersTest, AServerTellsWhoKeepsItAlive) {
  ASSERT_OK_AND_ASSIGN(const std::vector<ProcessInfo> owners,
                       server().Owners());
  ASSERT_EQ(owners.size(), 1U);
  EXPECT_EQ(owners[0].pid, environment().ProcessId());
  EXPECT_NE(owners[0].command, "");
  // A handler knows, too.
  EXPECT_THAT(Call("owners"), RepliesWith("1"));
}

TEST_F(OwnersTest, OwnersComeAndGo) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread owns nothing of its own";
  Owner owner = AddOwner();
  ASSERT_OK_AND_ASSIGN(const std::vector<ProcessInfo> owners,
                       server().Owners());
  ASSERT_EQ(owners.size(), 2U);
  EXPECT_LT(owners[0].pid, owners[1].pid);
  EXPECT_TRUE(std::any_of(owners.begin(), owners.end(),
                          [this](const ProcessInfo& info) {
                            return info.pid == environment().ProcessId();
                          }));
  owner.Kill();
  EXPECT_THAT(Call("owners"), RepliesWith("1"));
}

TEST_F(OwnersTest, AServerThatKeepsAllThatItsOwnerHasDoesNotOwnItself) {
  if (!HasProcesses() || TestMode() == Mode::kExec) {
    GTEST_SKIP() << "only a fork keeps what its owner has";
  }
  ServerOptions options;
  options.launch.fork.keep_all_open = true;
  EchoServer server(std::move(options));
  // Waits for the server's end, too.
  EXPECT_EQ(RunInProcess([&server] { return server.Start().ok() ? 0 : 1; }), 0);
}

// --- the halves of a start ---

TEST_F(OwnersTest, AServerLivesThoughItsFirstWordWasNotReadYet) {
  EchoServer server;
  ASSERT_THAT(server.BeginStart(), IsOk());
  Await(server);
  EXPECT_THAT(server.CheckAlive(), IsOk());
  EXPECT_THAT(server.WaitUntilReady(), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(OwnersTest, AStartCanBeWaitedForInAnEventLoop) {
  EchoServer server;
  ASSERT_THAT(server.BeginStart(), IsOk());
  EXPECT_TRUE(server.started());
  EXPECT_THAT(server.BeginStart(), FailsWith(reason::kServerAlreadyStarted));
  Await(server);
  EXPECT_THAT(server.WaitUntilReady(), IsOk());
  EXPECT_THAT(CallServer(server, "echo", "x"), RepliesWith("x"));
  // Nothing more to tell, while it lives.
  const std::shared_ptr<const Pollable> end = server.pollable();
  const Pollable* const polled[] = {end.get()};
  EXPECT_THAT(environment().Poll(polled, environment().TimeNow()),
              FailsWith(reason::kTimedOut));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(OwnersTest, AStartThatFailsTellsSoWhenItIsWaitedFor) {
  ServerOptions options;
  options.arguments = {"no camera at /dev/video9"};
  EchoServer server(std::move(options));
  ASSERT_THAT(server.BeginStart(), IsOk());
  Await(server);
  EXPECT_THAT(server.WaitUntilReady(),
              FailsWith(kNoCamera, "no camera at /dev/video9"));
  EXPECT_FALSE(server.started());
}

TEST_F(OwnersTest, AServerCanBeStoppedBeforeItIsReady) {
  EchoServer server;
  ASSERT_THAT(server.BeginStart(), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_FALSE(server.started());
}

TEST_F(OwnersTest, ADeathCanBeWaitedForInAnEventLoop) {
  if (!HasProcesses()) GTEST_SKIP() << "a thread cannot be killed";
  KillServer();
  Await(server());
  EXPECT_THAT(server().CheckAlive(), FailsWith(reason::kServerDied, "signal"));
  EXPECT_THAT(server().Stop(), FailsWith(reason::kServerDied, "signal 9"));
}

}  // namespace
}  // namespace ward

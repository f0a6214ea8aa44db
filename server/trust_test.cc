// Whom a client tells the password: with servers of several users, simulated
// and real.

#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/owner_handle.h"
#include "ward/server/process.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"
#include "ward/testing/simulation.h"

namespace ward {
namespace {

using ::testing::HasSubstr;

constexpr uid_t kStranger = 65534;

class TrustTest : public ModesTest {
 protected:
  void SetUp() override {
    if (testing::TestMode() != testing::Mode::kSimulated && geteuid() != 0) {
      GTEST_SKIP() << "needs root, to be several users";
    }
    // As /tmp: everybody may put a socket here.
    ASSERT_EQ(chmod(directory().c_str(), 0777), 0);
  }

  // Changes this process's effective user.
  static bool Become(uid_t user) {
    if (testing::Simulation* const simulation =
            testing::Simulation::Current()) {
      simulation->environment().SetUser(user);
      return true;
    }
    return seteuid(user) == 0;
  }

  // A process of the stranger's, that owns nothing of this one's and runs
  // `body` with one end of a connection.
  struct Stranger {
    std::unique_ptr<Process> process;
    MessageChannel channel;
  };
  Stranger Fork(absl::AnyInvocable<int(MessageChannel&)> body) {
    auto ends = environment().CreateTransportPair();
    EXPECT_THAT(ends, IsOk());
    ForkOptions options;
    options.keep_open = {ends->second->descriptor()};
    auto process = environment().Fork(
        options,
        [body = std::move(body), end = std::move(ends->second)]() mutable {
          MessageChannel channel(std::move(end));
          return Become(kStranger) ? body(channel) : -1;
        });
    EXPECT_THAT(process, IsOk());
    return {*std::move(process), MessageChannel(std::move(ends->first))};
  }

  // One that has put a socket of his at path(), for everybody; it ends with 0
  // if its first client says nothing, and with 1 if it does.
  Stranger Impostor() {
    Stranger impostor = Fork([this](MessageChannel& channel) {
      auto listener = environment().Listen({path(), 0666});
      if (!listener.ok() || !channel.Write("listens").ok()) return 2;
      auto client = (*listener)->Accept();
      (*listener)->RemovePath();
      if (!client.ok()) return 3;
      std::array<char, 100> heard;
      std::vector<FileDescriptor> none;
      const absl::Time deadline = environment().TimeNow() + kSurely;
      while (true) {
        const auto received = client->transport->Receive(absl::MakeSpan(heard),
                                                         0, none, deadline);
        if (!received.ok()) return 4;
        if (received->bytes > 0) return 1;
        if (received->end_of_stream) return 0;
      }
    });
    EXPECT_THAT(impostor.channel.Read(), IsOk());
    return impostor;
  }

  static int ExitCode(const Stranger& stranger) {
    const auto exit = stranger.process->Wait(absl::InfiniteFuture());
    EXPECT_THAT(exit, IsOk());
    EXPECT_EQ(exit->kind, ProcessExit::Kind::kExited) << exit->ToString();
    return exit->value;
  }

  // Options for a server that serves everybody.
  ServerOptions ForAll() const {
    ServerOptions options = Shared();
    options.socket_mode = 0666;
    options.admit_peer = [](const PeerCredentials&) { return true; };
    return options;
  }
};

TEST_F(TrustTest, AnotherUsersServerIsNotToldThePassword) {
  const Stranger impostor = Impostor();
  TestServer client(Shared());
  const absl::Status status = Call(client, "echo", "x").status();
  EXPECT_THAT(status, FailsWith(reason::kServerNotTrusted,
                                absl::StrCat("of user ", kStranger)));
  EXPECT_THAT(status,
              FailsWith(reason::kServerNotTrusted,
                        absl::StrCat("of user ", environment().UserId(), ",")));
  EXPECT_EQ(ExitCode(impostor), 0) << "it has heard something";
}

TEST_F(TrustTest, WhoIsTrustedIsToldIt) {
  const Stranger impostor = Impostor();
  ServerOptions options = Shared();
  options.trust_server = [](const PeerCredentials& server) {
    return server.uid == kStranger;
  };
  TestServer client(std::move(options));
  EXPECT_FALSE(Call(client, "echo", "x").ok());
  EXPECT_EQ(ExitCode(impostor), 1) << "it has heard nothing";
}

TEST_F(TrustTest, AHandleIsAWordForTheUserThatStartedTheServer) {
  Stranger owner = Fork([this](MessageChannel& channel) {
    TestServer server(ForAll());
    if (!server.Start().ok()) return 1;
    const auto handle = server.ShareOwnership();
    if (!handle.ok() || !handle->WriteTo(channel).ok()) return 2;
    (void)channel.Read();
    return server.Stop().ok() ? 0 : 3;
  });
  {
    ASSERT_OK_AND_ASSIGN(OwnerHandle handle,
                         OwnerHandle::ReadFrom(owner.channel));
    TestServer client(Shared());
    EXPECT_THAT(Call(client, "echo", "x"),
                FailsWith(reason::kServerNotTrusted));
    TestServer adopter;
    ASSERT_THAT(adopter.Adopt(std::move(handle)), IsOk());
    EXPECT_THAT(Call(adopter, "echo", "x"), IsOkAndHolds("x"));
  }
  owner.channel.Close();
  EXPECT_EQ(ExitCode(owner), 0);
}

// The directories in its path may be his, too, who can have them lead to
// somebody else's files.
TEST_F(TrustTest, WhatAStrangerHasNamedIsHisToRemove) {
  const uid_t self = environment().UserId();
  ASSERT_TRUE(Become(kStranger));
  const auto his = environment().Listen({path(), 0666});
  ASSERT_TRUE(Become(self));
  ASSERT_THAT(his, IsOk());
  auto parts = (*his)->Share();
  ASSERT_THAT(parts, IsOk());
  const auto adopted =
      environment().AdoptListener(*std::move(parts), kStranger);
  ASSERT_THAT(adopted, IsOk());
  (*adopted)->RemovePath();
  EXPECT_THAT((*his)->CheckPath(), IsOk());
  (*his)->RemovePath();
}

TEST_F(TrustTest, AnOwnerThatChangesItsUserStillTrustsItsServer) {
  const uid_t self = environment().UserId();
  ASSERT_TRUE(Become(kStranger));
  TestServer server(ForAll());
  const absl::Status status = server.Start();
  ASSERT_TRUE(Become(0));
  ASSERT_THAT(status, IsOk());
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  ASSERT_TRUE(Become(self));
}

// --- an owner that may not kill its server ---

class MayNotKillTest : public TrustTest {
 protected:
  // In a process of its own, which starts `server`, waits for a note of it,
  // calls `before`, and becomes the stranger for ever: stops it, and calls
  // `stopped` with what comes of that.
  void StopAsStranger(TestServer& server, absl::FunctionRef<void()> before,
                      absl::FunctionRef<void(const absl::Status&)> stopped) {
    const int code = RunInProcess([this, &server, before, stopped] {
      if (!server.Start().ok()) return 1;
      AwaitNotes();
      before();
      // A process that is root, and effectively somebody else, may kill what is
      // root's.
      const bool became = testing::MovesClock()
                              ? Become(kStranger)
                              : setresuid(kStranger, kStranger, kStranger) == 0;
      if (!became) return 2;
      stopped(server.Stop());
      return 0;
    });
    EXPECT_EQ(code, 0);
  }

  ServerOptions Impatient() const {
    ServerOptions options = Shared();
    options.stop.kill_after = absl::Milliseconds(10);
    return options;
  }
};

// See OwnerLink::QuitWithin.
TEST_F(MayNotKillTest, TheServerEndsItself) {
  TestServer server(Impatient());
  server.initialize = [&server] { return server.Note("begins"); };
  server.finalize = [] {
    absl::SleepFor(absl::InfiniteDuration());
    return absl::OkStatus();
  };
  StopAsStranger(
      server, [] {},
      [](const absl::Status& status) {
        EXPECT_THAT(status, FailsWith(reason::kServerKilled));
      });
}

// It does not even set its own deadline.
TEST_F(MayNotKillTest, AServerThatIsStoppedIsGivenUpAfterFiveSeconds) {
  if (testing::MovesClock()) GTEST_SKIP() << "simulated ones are not stopped";
  const std::string go_on = directory() + "/go_on";
  TestServer server(Impatient());
  server.initialize = [&server] { return server.Note("begins"); };
  const auto stop_process = [&] {
    const pid_t pid = server.server_pid();
    EXPECT_EQ(kill(pid, SIGSTOP), 0);
    EXPECT_EQ(waitpid(pid, nullptr, WUNTRACED), pid);
    // Who may still do so lets it go on, to find that its owner is gone.
    if (fork() != 0) return;
    while (!Exists(go_on)) absl::SleepFor(absl::Milliseconds(1));
    kill(pid, SIGCONT);
    _exit(0);
  };
  const Stopwatch watch;
  StopAsStranger(server, stop_process, [&](const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("send signal 9"));
    EXPECT_GE(watch.Elapsed(), absl::Seconds(5));
    EXPECT_LT(watch.Elapsed(), absl::Seconds(20));
    Note(go_on, "");
  });
  unlink(go_on.c_str());
}

}  // namespace
}  // namespace ward

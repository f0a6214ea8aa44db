// Owners that see other processes, other files, or other users than the
// server's first one does: what they were handed leads to the server.

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/async_client.h"
#include "ward/server/call_context.h"
#include "ward/server/environment.h"
#include "ward/server/method.h"
#include "ward/server/owner_handle.h"
#include "ward/server/server_for_test.h"
#include "ward/server/server_options.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using ::testing::HasSubstr;

constexpr int kCannotEnter = 77;

// Enters a user namespace that knows nobody.
bool LoseUsers() { return unshare(CLONE_NEWUSER) == 0; }

// Gives this process a number in it.
bool BecomeKnownAs(uid_t user, uid_t outside) {
  const FileDescriptor map(open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC));
  const std::string line = absl::StrCat(user, " ", outside, " 1");
  return write(map.get(), line.data(), line.size()) ==
         static_cast<ssize_t>(line.size());
}

class NamespacesTest : public NothingLeftTest {
 protected:
  // Runs `adopt` with a share in the ownership of `server` where neither its
  // process nor its socket's path can be seen. What it returns, as text; empty
  // if there are no such places for this user.
  std::string Elsewhere(const TestServer& server,
                        absl::FunctionRef<absl::Status(OwnerHandle)> adopt) {
    auto handle = server.ShareOwnership();
    EXPECT_THAT(handle, IsOk());
    Pipe report = MakePipe();
    Child child([&] {
      const uid_t user = geteuid();
      if ((user != 0 && !(LoseUsers() && BecomeKnownAs(user, user))) ||
          unshare(CLONE_NEWNS | CLONE_NEWPID) != 0 ||
          mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
          mount("tmpfs", directory().c_str(), "tmpfs", 0, nullptr) != 0) {
        return kCannotEnter;
      }
      // The namespace is for what is forked from now on.
      Child inside([&] {
        if (mount("proc", "/proc", "proc", 0, nullptr) != 0) {
          return kCannotEnter;
        }
        const absl::Status status = adopt(*std::move(handle));
        WriteAll(report.write.get(), status.ToString());
        return 0;
      });
      return inside.Wait();
    });
    report.write.Reset();
    std::string text = ReadToEnd(report.read.get());
    const int code = child.Wait();
    EXPECT_TRUE(code == 0 || code == kCannotEnter) << code;
    return text;
  }
};

TEST_F(NamespacesTest, AHandleIsAllThatAnOwnerNeeds) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  const std::string text =
      Elsewhere(server, [](OwnerHandle handle) -> absl::Status {
        TestServer other;
        WARD_RETURN_IF_ERROR(other.Adopt(std::move(handle)));
        WARD_RETURN_IF_ERROR(Call(other, "echo", "x").status());
        WARD_RETURN_IF_ERROR(other.CheckAlive());
        return other.Stop();
      });
  if (text.empty()) {
    ASSERT_THAT(server.Stop(), IsOk());
    GTEST_SKIP() << "this machine gives no namespaces to this user";
  }
  EXPECT_EQ(text, "OK");
  EXPECT_THAT(server.CheckAlive(), FailsWith(reason::kServerDied, "code 0"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(NamespacesTest, WhatCannotBeKilledFromHereIsSaid) {
  TestServer server;
  server.finalize = []() -> absl::Status {
    while (true) pause();
  };
  ASSERT_THAT(server.Start(), IsOk());
  const std::string text =
      Elsewhere(server, [](OwnerHandle handle) -> absl::Status {
        ServerOptions options;
        options.stop.kill_after = absl::Milliseconds(10);
        TestServer other(std::move(options));
        WARD_RETURN_IF_ERROR(other.Adopt(std::move(handle)));
        return other.Stop();
      });
  EXPECT_EQ(kill(server.server_pid(), SIGKILL), 0);
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
  if (text.empty()) {
    GTEST_SKIP() << "this machine gives no namespaces to this user";
  }
  EXPECT_THAT(text, HasSubstr("pid namespace"));
}

// --- processes with one number ---

// Runs `body` in the init of a pid namespace, a fork of this process. What it
// returns; kCannotEnter if there are no such places for this user.
int InInit(absl::FunctionRef<int()> body) {
  Child outside([&body] {
    if (unshare(CLONE_NEWPID) != 0) return kCannotEnter;
    Child init([&body] { return getpid() == 1 ? body() : 99; });
    return init.Wait();
  });
  return outside.Wait();
}

constexpr const char* kNoPids =
    "this machine gives no pid namespaces to this user";

inline constexpr Method<void, int> kCaller{"caller"};
inline constexpr Method<void, void> kWait{"wait"};

// Whose clients see whether they have another's connection.
struct TwinsServer : TestServer {
  explicit TwinsServer(int go_on) : TestServer(Keeping(go_on)) {
    Define(kCaller, [](const CallContext& context) -> absl::StatusOr<int> {
      return context.peer().pid;
    });
    Define(kWait, [go_on] {
      char byte;
      return read(go_on, &byte, 1) == 1 ? absl::OkStatus()
                                        : absl::DataLossError("no word");
    });
  }
  static ServerOptions Keeping(int fd) {
    ServerOptions options;
    options.launch.fork.keep_open = {fd};
    return options;
  }
};

TEST_F(NamespacesTest, AForkWithItsParentsNumberHasNothingOfItsCalls) {
  const int code = InInit([] {
    const Pipe go_on = MakePipe();
    std::optional<TwinsServer> server(go_on.read.get());
    EXPECT_THAT(server->Start(), IsOk());
    EXPECT_THAT(server->Call(kCaller), IsOkAndHolds(1));
    auto client = AsyncClient::Create(*server);
    EXPECT_THAT(client, IsOk());
    PendingCall<void> call = (*client)->StartCall(kWait);
    EXPECT_EQ(InInit([&] {
                const absl::StatusOr<int> caller = server->Call(kCaller);
                EXPECT_THAT(caller, IsOk());
                EXPECT_NE(caller.value_or(1), 1) << "over its connection";
                client->reset();
                server.reset();
                return HasFailure() ? 1 : 0;
              }),
              0);
    EXPECT_THAT(server->CheckAlive(), IsOk());
    WriteAll(go_on.write.get(), "x");
    EXPECT_THAT(call.Result(), IsOk());
    EXPECT_THAT(server->Call(kCaller), IsOkAndHolds(1));
    client->reset();
    EXPECT_THAT(server->Stop(), IsOk());
    return HasFailure() ? 2 : 0;
  });
  if (code == kCannotEnter) GTEST_SKIP() << kNoPids;
  EXPECT_EQ(code, 0);
}

TEST_F(NamespacesTest, AForkWithItsParentsNumberBeginsAnew) {
  const int code = InInit([] {
    Environment& environment = Environment::Posix();
    const auto signals = environment.TakeSignals({{SIGUSR1}, {}});
    EXPECT_THAT(signals, IsOk());
    EXPECT_THAT(environment.SetProcessDeadline(absl::Hours(1)), IsOk());
    EXPECT_EQ(InInit([&environment] {
                const auto own = environment.TakeSignals({{SIGUSR1}, {}});
                EXPECT_THAT(own, IsOk());
                EXPECT_EQ(raise(SIGUSR1), 0);
                if (own.ok()) {
                  EXPECT_EQ((*own)->Next(), SIGUSR1);
                }
                EXPECT_THAT(environment.SetProcessDeadline(absl::Hours(1)),
                            IsOk());
                return HasFailure() ? 1 : 0;
              }),
              0);
    return HasFailure() ? 2 : 0;
  });
  if (code == kCannotEnter) GTEST_SKIP() << kNoPids;
  EXPECT_EQ(code, 0);
}

// --- users ---

TEST_F(NamespacesTest, WhoIsUnknownTrustsNobodyElseWhoIs) {
  Child child([this] {
    const uid_t user = geteuid();
    if (!LoseUsers()) return kCannotEnter;
    TestServer server(Shared());
    if (!server.Start().ok()) return 1;
    EXPECT_THAT(Call(server, "echo", "x"),
                FailsWith(reason::kServerNotTrusted, "uid_map"));
    ServerOptions options = Shared();
    options.trust_server = [](const PeerCredentials&) { return true; };
    TestServer trusting(std::move(options));
    EXPECT_THAT(Call(trusting, "echo", "x"),
                FailsWith(reason::kPeerNotAllowed, "unknown"));
    // Of this number there is one from now on.
    if (!BecomeKnownAs(geteuid(), user)) return kCannotEnter;
    EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
    EXPECT_THAT(server.Stop(), IsOk());
    return HasFailure() ? 2 : 0;
  });
  const int code = child.Wait();
  if (code == kCannotEnter) {
    GTEST_SKIP() << "this machine gives no user namespace to this user";
  }
  EXPECT_EQ(code, 0);
}

TEST_F(NamespacesTest, AUserWithTheNumberOfTheUnknownIsOneWhereAllAreKnown) {
  constexpr uid_t kNobody = 65534;
  ServerOptions options = Shared();
  options.socket_filename.clear();
  Child child([&options] {
    if (setresuid(kNobody, kNobody, kNobody) != 0) return kCannotEnter;
    unsetenv("TMPDIR");  // Is root's.
    TestServer server(std::move(options));
    EXPECT_THAT(server.Start(), IsOk());
    EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
    EXPECT_THAT(server.Stop(), IsOk());
    return HasFailure() ? 2 : 0;
  });
  const int code = child.Wait();
  if (code == kCannotEnter) GTEST_SKIP() << "needs root, to become nobody";
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace ward

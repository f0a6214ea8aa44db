// Owners that see other processes, and other files, than the server's first one
// does: what they were handed leads to the server.

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/types.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"
#include "ward/server/owner_handle.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using ::testing::HasSubstr;

constexpr int kCannotEnter = 77;

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
      const int user = geteuid() == 0 ? 0 : CLONE_NEWUSER;
      if (unshare(user | CLONE_NEWNS | CLONE_NEWPID) != 0 ||
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

}  // namespace
}  // namespace ward

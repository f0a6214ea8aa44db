// Where a sandbox denies a system call that ward can do without, or an old
// kernel does not have it, ward does without, or says which call it is.

#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/bulk.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/exec_main.h"
#include "ward/server/owner_handle.h"
#include "ward/server/posix/deny_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using ::testing::HasSubstr;

struct DeniedCall {
  std::string_view name;
  long number;
  // Whether everything works without it.
  bool can_do_without;
};

constexpr DeniedCall kCalls[] = {
    {"close_range", SYS_close_range, true},
    {"epoll_create1", SYS_epoll_create1, false},
    {"eventfd", SYS_eventfd2, false},
    {"getrandom", SYS_getrandom, true},
    {"memfd_create", SYS_memfd_create, true},
    {"pidfd_open", SYS_pidfd_open, false},
    {"pidfd_send_signal", SYS_pidfd_send_signal, true},
    {"rt_sigaction", SYS_rt_sigaction, false},
    {"socketpair", SYS_socketpair, false},
    {"timer_create", SYS_timer_create, true},
};

class DeniedCallsTest : public NothingLeftTest {
 protected:
  // One whose argument, if it has any, makes it hang when it should quit.
  struct Server : Registered<Server> {
    using Registered::Registered;
    absl::Status FinalizeServer() override {
      while (!options().arguments.empty()) pause();
      return absl::OkStatus();
    }
  };

  static ServerOptions Options(StartMode mode) {
    ServerOptions options;
    options.start_mode = mode;
    return options;
  }

  // What an owner does with a server.
  static absl::Status Own(StartMode mode) {
    {
      Server server(Options(mode));
      WARD_RETURN_IF_ERROR(server.Start());
      WARD_RETURN_IF_ERROR(Call(server, "echo", "x").status());
      WARD_ASSIGN_OR_RETURN(OwnerHandle handle, server.ShareOwnership());
      Server other;
      WARD_RETURN_IF_ERROR(other.Adopt(std::move(handle)));
      WARD_RETURN_IF_ERROR(Call(other, "echo", "x").status());
      WARD_RETURN_IF_ERROR(server.Stop());
    }
    ServerOptions options = Options(mode);
    options.arguments = {"hang"};
    options.stop.kill_after = absl::Milliseconds(10);
    Server server(std::move(options));
    WARD_RETURN_IF_ERROR(server.Start());
    const absl::Status status = server.Stop();
    return HasReason(status, reason::kServerKilled) ? absl::OkStatus() : status;
  }

  // Runs `owner` in a process in which `calls` fail with `error`, and returns
  // the text of its status.
  static std::string RunWithout(const std::vector<long>& calls, int error,
                                absl::FunctionRef<absl::Status()> owner) {
    Pipe report = MakePipe();
    Child child([&] {
      DenyCalls(calls, error);
      WriteAll(report.write.get(), owner().ToString());
      return 0;
    });
    report.write.Reset();
    std::string text = ReadToEnd(report.read.get());
    EXPECT_EQ(child.Wait(), 0);
    return text;
  }
};

TEST_F(DeniedCallsTest, AServerWorksWithoutThemOrSaysWhichIsMissing) {
  for (const DeniedCall& call : kCalls) {
    for (const int error : {EPERM, ENOSYS}) {
      for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
        // A program with a sanitizer does not start without.
        if (kUnderSanitizer && mode == StartMode::kExec &&
            call.number == SYS_rt_sigaction) {
          continue;
        }
        SCOPED_TRACE(absl::StrCat(
            call.name, ": ", absl::ErrnoToStatus(error, "").message(),
            mode == StartMode::kFork ? ", fork" : ", exec"));
        const std::string text =
            RunWithout({call.number}, error, [mode] { return Own(mode); });
        EXPECT_THAT(text, HasSubstr(call.can_do_without ? "OK" : call.name));
      }
    }
  }
}

// Where neither close_range(2) nor /proc helps, closefrom(3) ends the process.
TEST_F(DeniedCallsTest,
       AServerHasNoDescriptorsOfItsOwnersHoweverTheyAreClosed) {
  for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
    const std::string text = RunWithout(
        {SYS_close_range, SYS_getdents64}, EPERM, [mode]() -> absl::Status {
          Pipe pipe = MakePipe();
          // Not close-on-exec, as careless code leaves it.
          FileDescriptor careless(dup(pipe.write.get()));
          Server server(Options(mode));
          WARD_RETURN_IF_ERROR(server.Start());
          pipe.write.Reset();
          careless.Reset();
          if (!BecomesReadable(pipe.read.get(), absl::Seconds(10))) {
            return absl::InternalError("the server has one of its owner's");
          }
          return server.Stop();
        });
    EXPECT_EQ(text, "OK");
  }
}

TEST_F(DeniedCallsTest, NoServerOutlivesItsOwner) {
  for (const DeniedCall& call : kCalls) {
    if (!call.can_do_without) continue;
    for (const int error : {EPERM, ENOSYS}) {
      for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
        SCOPED_TRACE(absl::StrCat(call.name, " fails with ", error));
        const std::string text =
            RunWithout({call.number}, error, [mode]() -> absl::Status {
              auto& server = *new Server(Options(mode));
              WARD_RETURN_IF_ERROR(server.Start());
              return absl::UnknownError(absl::StrCat(server.server_pid()));
            });
        pid_t server = 0;
        ASSERT_TRUE(
            absl::SimpleAtoi(absl::StripPrefix(text, "UNKNOWN: "), &server))
            << text;
        const FileDescriptor pidfd = OpenPidfd(server);
        EXPECT_TRUE(BecomesReadable(pidfd.get(), absl::Seconds(10)))
            << "the server has no owner, and does not end";
        if (HasFailure()) kill(server, SIGKILL);
        EXPECT_EQ(Reap(server), 0);
      }
    }
  }
}

TEST_F(DeniedCallsTest, OwnersThatAreNotSeenAreNotNobody) {
  const std::string text =
      RunWithout({SYS_readlink, SYS_readlinkat}, EACCES, []() -> absl::Status {
        Server server(Options(StartMode::kFork));
        WARD_RETURN_IF_ERROR(server.Start());
        const auto owners = server.Owners();
        EXPECT_THAT(owners, FailsWith(reason::kOwnersUnknown));
        WARD_RETURN_IF_ERROR(server.Stop());
        return owners.status();
      });
  EXPECT_THAT(text, HasSubstr("/proc/PID/fd"));
}

TEST_F(DeniedCallsTest, WithoutMemoryFilesSmallBulksAreMadeAlone) {
  for (const int error : {EPERM, ENOSYS}) {
    const auto allocate = [error](size_t size) {
      return RunWithout({SYS_memfd_create}, error,
                        [size] { return AllocateBulk(size).status(); });
    };
    EXPECT_EQ(allocate(Bulk::kMostBytesInMessage), "OK");
    EXPECT_THAT(allocate(Bulk::kMostBytesInMessage + 1),
                HasSubstr("allocate a bulk of 32769 bytes (memfd_create)"));
  }
}

// As under RLIMIT_NPROC, which root has not.
TEST_F(DeniedCallsTest, WhereNoProcessCanBeStartedTheLimitsAreNamed) {
  std::vector<long> calls = {SYS_clone, SYS_clone3};
#ifdef SYS_fork
  calls.insert(calls.end(), {SYS_fork, SYS_vfork});
#endif
  for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
    EXPECT_THAT(RunWithout(calls, EAGAIN, [mode] { return Own(mode); }),
                HasSubstr("ulimit -u"));
  }
}

TEST_F(DeniedCallsTest, WhereThereIsNoProcItIsSaid) {
  if (kUnderThreadSanitizer) GTEST_SKIP() << "for it vfork(2) is fork(2)";
  for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
    const std::string text = RunWithout({}, 0, [&]() -> absl::Status {
      if (chroot(directory().c_str()) != 0 || chdir("/") != 0) {
        return absl::UnknownError("no chroot");
      }
      ServerOptions options = Options(mode);
      options.socket_filename = "/socket";
      Server server(std::move(options));
      return server.Start();
    });
    if (absl::StrContains(text, "no chroot")) {
      GTEST_SKIP() << "this user has no other root directory";
    }
    EXPECT_THAT(text, HasSubstr("mount -t proc"));
  }
}

// SIGXFSZ would end the owner (setrlimit(2)).
TEST_F(DeniedCallsTest, AnOwnerThatMayWriteNoFilesStartsServers) {
  if (kUnderThreadSanitizer) GTEST_SKIP() << "its own start writes to a file";
  for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
    EXPECT_EQ(RunWithout({}, 0,
                         [mode]() -> absl::Status {
                           const rlimit none = {0, 0};
                           if (setrlimit(RLIMIT_FSIZE, &none) != 0) {
                             return SystemError(errno, "limit files");
                           }
                           return Own(mode);
                         }),
              "OK");
  }
}

TEST_F(DeniedCallsTest, WithoutRandomBytesThereIsNoPasswordAndNoServer) {
  for (const int error : {EPERM, ENOSYS}) {
    const std::string text = RunWithout({SYS_getrandom, SYS_openat}, error,
                                        [] { return Own(StartMode::kFork); });
    EXPECT_THAT(text, HasSubstr("getrandom"));
    EXPECT_THAT(text, HasSubstr("/dev/urandom"));
  }
}

}  // namespace
}  // namespace ward

int main(int argc, char** argv) {
  ward::ServeIfExeced(argc, argv);
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}

#include "ward/server/posix/tie.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/listener.h"
#include "ward/server/posix/listener.h"

namespace ward {
namespace {

constexpr int kCannotEnter = 77;

// What becomes of a fork that runs `body`: its exit code, or 128 and the signal
// that ended it.
int InChild(absl::FunctionRef<int()> body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// What a server has: a listener, and its end of a pair.
struct Server {
  FileDescriptor end;
  FileDescriptor owners_end;
  std::unique_ptr<Listener> listener = *PosixListen({});

  Server() {
    std::array<int, 2> ends;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      abort();
    }
    end.Reset(ends[0]);
    owners_end.Reset(ends[1]);
  }
  ~Server() { listener->RemovePath(); }

  bool Tie() const { return PosixTieProcess(end.get(), listener.get()).ok(); }
  bool Untie() const { return PosixUntieProcess(end.get()).ok(); }
};

volatile sig_atomic_t handled = 0;
void Count(int /*signal*/) { ++handled; }
void CountTen(int /*signal*/, siginfo_t* /*info*/, void* /*context*/) {
  handled += 10;
}

void ChangeMask(int how) {
  sigset_t sigio;
  sigemptyset(&sigio);
  sigaddset(&sigio, SIGIO);
  pthread_sigmask(how, &sigio, nullptr);
}

TEST(PosixTieProcess, EndsTheProcessAndRemovesTheNameForAWord) {
  const Server server;
  EXPECT_EQ(InChild([&server] {
              if (!server.Tie()) return 90;
              (void)!write(server.owners_end.get(), "x", 1);
              return 91;
            }),
            128 + SIGKILL);
  EXPECT_NE(access(server.listener->path().c_str(), F_OK), 0);
}

TEST(PosixTieProcess, PassesOnWhatComesFromElsewhere) {
  EXPECT_EQ(InChild([] {
              const Server server;
              signal(SIGIO, Count);
              if (!server.Tie()) return 90;
              raise(SIGIO);
              if (handled != 1) return 91;
              if (!server.Untie()) return 92;
              raise(SIGIO);
              struct sigaction action {};
              action.sa_sigaction = CountTen;
              action.sa_flags = SA_SIGINFO;
              sigaction(SIGIO, &action, nullptr);
              if (!server.Tie()) return 93;
              raise(SIGIO);
              // Else its end would be that of its owner.
              return server.Untie() ? static_cast<int>(handled) : 94;
            }),
            12);
}

TEST(PosixTieProcess, LeavesAHandlerThatWasSetSince) {
  EXPECT_EQ(InChild([] {
              const Server server;
              if (!server.Tie()) return 90;
              signal(SIGIO, Count);
              if (!server.Untie()) return 91;
              raise(SIGIO);
              return static_cast<int>(handled);
            }),
            1);
}

TEST(PosixTieProcess, AWordThatIsPendingIsForgottenWithIt) {
  EXPECT_EQ(InChild([] {
              const Server server;
              if (!server.Tie()) return 90;
              ChangeMask(SIG_BLOCK);
              if (write(server.owners_end.get(), "x", 1) != 1) return 91;
              if (!server.Untie()) return 92;
              ChangeMask(SIG_UNBLOCK);
              return 0;
            }),
            0);
}

// Whose own SIGKILL it does not take.
TEST(PosixTieProcess, EndsTheInitOfAPidNamespaceThatHasAWordAlready) {
  const int code = InChild([] {
    const int user = geteuid() == 0 ? 0 : CLONE_NEWUSER;
    if (unshare(user | CLONE_NEWPID) != 0) return kCannotEnter;
    return InChild([] {
      Server server;
      server.owners_end.Reset();
      (void)TieByKill(server.end.get());
      return 1;
    });
  });
  if (code == kCannotEnter) {
    GTEST_SKIP() << "this machine gives no pid namespace to this user";
  }
  EXPECT_EQ(code, 128 + SIGKILL);
}

// In a jail there is no list of them.
TEST(PosixTieProcess, AForkHasNoneOfTheServersSocketsWhereThereIsNoProc) {
  const Server server;
  const std::string& path = server.listener->path();
  const int code = InChild([&] {
    if (!server.Tie()) return 90;
    const int user = geteuid() == 0 ? 0 : CLONE_NEWUSER;
    if (unshare(user | CLONE_FS) != 0) return kCannotEnter;
    const std::string jail = path.substr(0, path.rfind('/'));
    if (chroot(jail.c_str()) != 0 || chdir("/") != 0) return kCannotEnter;
    return InChild([&server] {
      struct stat found;
      const auto is_socket = [&found](int fd) {
        return fstat(fd, &found) == 0 && S_ISSOCK(found.st_mode);
      };
      if (is_socket(server.listener->descriptor())) return 1;
      return is_socket(server.end.get()) ? 2 : 0;
    });
  });
  if (code == kCannotEnter) {
    GTEST_SKIP() << "this machine gives no jail to this user";
  }
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace ward

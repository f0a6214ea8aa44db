// Starts by exec: what only real processes show. What such a server does for
// its clients is tested in every mode elsewhere.

#include <fcntl.h>
#include <grp.h>
#include <link.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/exec_main.h"
#include "ward/server/interceptor.h"
#include "ward/server/posix/process.h"
#include "ward/testing/call_server.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/leak_check.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

namespace fs = std::filesystem;

using testing::CallServer;
using testing::EnvironmentNumber;
using testing::EnvironmentVariable;
using testing::FailsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::LeakCheck;
using ::testing::Not;
using testing::RepliesWith;

// In the environment of a program that is to end before it serves.
constexpr char kEndAtOnce[] = "WARD_TEST_END_AT_ONCE";

std::string Contents(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Does not return before another thread has a stream for itself: it reads what
// nobody writes.
void ReadForEver() {
  std::array<int, 2> ends;
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return;
  FILE* const stream = fdopen(ends[0], "r");
  std::thread([stream] { (void)std::fgetc(stream); }).detach();
  while (ftrylockfile(stream) == 0) {
    funlockfile(stream);
    std::this_thread::yield();
  }
}

// As a static initialiser finds it.
constexpr int kOwnersFile = 50;
const bool kHadOwnersFile = fcntl(kOwnersFile, F_GETFD) >= 0;

class Server : public AbstractServer {
 public:
  explicit Server(ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    DefineMessageHandler("echo",
                         [](MessageChannel& channel, std::string_view text) {
                           return channel.Write(text);
                         });
    DefineMessageHandler("arguments", [this](MessageChannel& channel) {
      return channel.Write(Message(AbstractServer::options().arguments));
    });
    DefineMessageHandler("descriptors", [](MessageChannel& channel) {
      std::vector<std::string> open;
      for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
        std::error_code gone;  // The iterator's own.
        const fs::path target = fs::read_symlink(entry.path(), gone);
        if (!gone) open.push_back(target.string());
      }
      return channel.Write(Message(std::move(open)));
    });
    DefineMessageHandler("owner's file", [](MessageChannel& channel) {
      return channel.Write(kHadOwnersFile, fcntl(kOwnersFile, F_GETFD) >= 0);
    });
    DefineMessageHandler("random", [](MessageChannel& channel) {
      // NOLINTNEXTLINE(concurrency-mt-unsafe)
      return channel.Write(rand(), random(), lrand48());
    });
  }

  using AbstractServer::options;

 protected:
  absl::Status InitializeServer() override {
    if (options().arguments.empty()) return absl::OkStatus();
    if (options().arguments[0] == "exit") _exit(42);
    if (options().arguments[0] == "read") ReadForEver();
    if (options().arguments.back() == "fail") {
      return MakeError(reason::kPathTaken, "that is taken already");
    }
    return absl::OkStatus();
  }
};
WARD_REGISTER_SERVER(Server);

ServerOptions ByExec(std::vector<std::string> arguments = {}) {
  ServerOptions options;
  options.start_mode = StartMode::kExec;
  options.arguments = std::move(arguments);
  return options;
}

class ExecTest : public ::testing::Test {
 protected:
  ~ExecTest() override { EXPECT_THAT(leaks_.Find(), IsEmpty()); }

  const std::string& directory() const { return leaks_.directory(); }

 private:
  LeakCheck leaks_;
};

// --- what the server is told, and by which way ---

TEST_F(ExecTest, TheOptionsArrivePrivately) {
  ServerOptions options = ByExec(
      {"--root=/srv", "", std::string("\0\xff", 2), std::string(100000, 'x')});
  options.password = Secret("a password that nobody sees");
  options.max_clients = 7;
  Server server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(CallServer(server, "arguments"),
              RepliesWith("--root=/srv", "", std::string("\0\xff", 2),
                          std::string(100000, 'x')));
  const std::string folder = absl::StrCat("/proc/", server.server_pid());
  const std::string command = Contents(folder + "/cmdline");
  EXPECT_THAT(command, HasSubstr("--ward-serve=Server"));
  for (const std::string& seen : {command, Contents(folder + "/environ")}) {
    EXPECT_NE(seen, "");
    EXPECT_THAT(seen, Not(HasSubstr("nobody sees")));
    EXPECT_THAT(seen, Not(HasSubstr("/srv")));
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(ExecTest, TheServerHasNoDescriptorsOfItsOwners) {
  const std::string file = directory() + "/open";
  {
    // Not close-on-exec, as careless code leaves it.
    const FileDescriptor careless(open(file.c_str(), O_RDWR | O_CREAT, 0600));
    ASSERT_TRUE(careless.is_open());
    Server server(ByExec());
    ASSERT_THAT(server.Start(), IsOk());
    const auto reply = CallServer(server, "descriptors");
    ASSERT_THAT(reply, IsOk());
    for (const std::string& target : reply->parts()) {
      EXPECT_NE(target, file);
    }
    EXPECT_THAT(server.Stop(), IsOk());
  }
  unlink(file.c_str());
}

// A new program may be looked into by other processes of its user.
TEST_F(ExecTest, TheProgramHasNoFilesOfAnOwnerThatNobodyMayLookInto) {
  const absl::Cleanup restore = [] { prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); };
  const FileDescriptor nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
  const FileDescriptor file(fcntl(nothing.get(), F_DUPFD_CLOEXEC, kOwnersFile));
  ASSERT_EQ(file.get(), kOwnersFile);
  for (const bool is_private : {false, true}) {
    ASSERT_EQ(prctl(PR_SET_DUMPABLE, is_private ? 0 : 1, 0, 0, 0), 0);
    Server server(ByExec());
    ASSERT_THAT(server.Start(), IsOk());
    EXPECT_THAT(CallServer(server, "owner's file"),
                RepliesWith(is_private ? "false" : "true", "false"));
    EXPECT_THAT(server.Stop(), IsOk());
  }
}

TEST_F(ExecTest, EachServerHasARandomStateOfItsOwn) {
  Server one(ByExec());
  Server other(ByExec());
  ASSERT_THAT(one.Start(), IsOk());
  ASSERT_THAT(other.Start(), IsOk());
  const auto from_one = CallServer(one, "random");
  const auto from_other = CallServer(other, "random");
  ASSERT_THAT(from_one, IsOk());
  ASSERT_THAT(from_other, IsOk());
  for (size_t i = 0; i < 3; ++i) EXPECT_NE((*from_one)[i], (*from_other)[i]);
  EXPECT_THAT(one.Stop(), IsOk());
  EXPECT_THAT(other.Stop(), IsOk());
}

// --- what can go wrong ---

TEST_F(ExecTest, WhatGoesWrongInTheServerComesOutOfStart) {
  Server fails(ByExec({"fail"}));
  EXPECT_THAT(fails.Start(), FailsWith(reason::kPathTaken, "taken already"));
  Server exits(ByExec({"exit"}));
  EXPECT_THAT(exits.Start(), FailsWith(reason::kServerDied, "code 42"));
  EXPECT_FALSE(exits.started());
}

// Ignored, the kernel reaps whatever child ends (sigaction(2)).
class ScopedHandler {
 public:
  ScopedHandler(int signal, void (*handler)(int)) : signal_(signal) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    EXPECT_EQ(sigaction(signal, &action, &found_), 0);
  }
  ~ScopedHandler() { sigaction(signal_, &found_, nullptr); }

 private:
  const int signal_;
  struct sigaction found_ {};
};

TEST_F(ExecTest, WhatGoesWrongComesOutOfStartThoughTheKernelReaps) {
  const ScopedHandler ignored(SIGCHLD, SIG_IGN);
  for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
    for (int i = 0; i < 5; ++i) {
      ServerOptions options = ByExec({"fail"});
      options.start_mode = mode;
      Server fails(std::move(options));
      EXPECT_THAT(fails.Start(),
                  FailsWith(reason::kPathTaken, "taken already"));
    }
    ServerOptions options = ByExec({"exit"});
    options.start_mode = mode;
    Server exits(std::move(options));
    EXPECT_THAT(exits.Start(), FailsWith(reason::kServerDied));
  }
}

void ReapAll(int /*signal*/) {
  const int saved_errno = errno;
  while (waitpid(-1, nullptr, 0) > 0) {
  }
  errno = saved_errno;
}

// The handler's signal comes again and again, so that one is there when the
// program has just been started.
TEST_F(ExecTest, AProgramThatEndsAtOnceIsReportedWhoeverHasReapedIt) {
  // NOLINTBEGIN(concurrency-mt-unsafe)
  setenv(kEndAtOnce, "1", 1);
  const ScopedHandler reaps(SIGALRM, ReapAll);
  const itimerval often = {{0, 500}, {0, 500}};
  ASSERT_EQ(setitimer(ITIMER_REAL, &often, nullptr), 0);
  for (int i = 0; i < 5; ++i) {
    Server server(ByExec());
    EXPECT_THAT(server.Start(), FailsWith(reason::kServerDied));
    EXPECT_FALSE(server.started());
  }
  const itimerval never = {};
  setitimer(ITIMER_REAL, &never, nullptr);
  unsetenv(kEndAtOnce);
  // NOLINTEND(concurrency-mt-unsafe)
}

class Unregistered : public Server {
 public:
  using Server::Server;
};

TEST_F(ExecTest, AThreadThatReadsAStreamKeepsNoServerFromItsEnd) {
  for (const StartMode mode : {StartMode::kExec, StartMode::kFork}) {
    const auto options = [mode](std::vector<std::string> arguments) {
      ServerOptions all = ByExec(std::move(arguments));
      all.start_mode = mode;
      return all;
    };
    Server server(options({"read"}));
    ASSERT_THAT(server.Start(), IsOk());
    EXPECT_THAT(server.Stop(), IsOk()) << "it was not killed";
    Server failing(options({"read", "fail"}));
    const absl::Time begin = absl::Now();
    EXPECT_THAT(failing.Start(), FailsWith(reason::kPathTaken));
    EXPECT_LT(absl::Now() - begin, absl::Seconds(15)) << "it was killed";
  }
}

TEST_F(ExecTest, AClassThatIsNotRegisteredIsRefused) {
  Unregistered server(ByExec());
  const absl::Status status = server.Start();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("WARD_REGISTER_SERVER"));
}

class Forgetful : public Server {
 public:
  explicit Forgetful(const ServerOptions& /*options*/) {}
  Forgetful() : Server(ByExec()) {}
};
WARD_REGISTER_SERVER(Forgetful);

class Throws : public Server {
 public:
  explicit Throws(const ServerOptions& /*options*/) {
    throw std::runtime_error("not today");
  }
  Throws() : Server(ByExec()) {}
};
WARD_REGISTER_SERVER(Throws);

TEST_F(ExecTest, AConstructorThatDoesNotDoItsPartIsReported) {
  Forgetful forgetful;
  EXPECT_THAT(std::string(forgetful.Start().message()),
              HasSubstr("does not give the ServerOptions"));
  Throws throws;
  EXPECT_THAT(throws.Start(), FailsWith(reason::kUserCodeThrew, "not today"));
}

TEST_F(ExecTest, WhatCannotBeHandedOverIsRefused) {
  ServerOptions options = ByExec();
  options.admit_peer = [](const PeerCredentials&) { return true; };
  Server admits(std::move(options));
  EXPECT_THAT(std::string(admits.Start().message()), HasSubstr("admit_peer"));
  options = ByExec();
  options.interceptors = {std::make_shared<Interceptor>()};
  Server intercepts(std::move(options));
  EXPECT_THAT(std::string(intercepts.Start().message()),
              HasSubstr("interceptors"));
  options = ByExec();
  options.launch.fork.keep_open = {0};
  Server keeps(std::move(options));
  EXPECT_THAT(std::string(keeps.Start().message()), HasSubstr("keep_open"));
}

// --- from where it works ---

// Threads that never stand still, and allocate.
class BusyThreads {
 public:
  explicit BusyThreads(int count) {
    for (int i = 0; i < count; ++i) {
      auto thread = Environment::Posix().StartThread([this] {
        while (!done_) {
          const std::string garbage(1000, 'x');
          sched_yield();
        }
      });
      EXPECT_THAT(thread, IsOk());
      threads_.push_back(*std::move(thread));
    }
  }
  ~BusyThreads() { done_ = true; }

 private:
  std::atomic<bool> done_{false};
  std::vector<std::unique_ptr<Thread>> threads_;  // Joined first.
};

// With --test_env=WARD_RUNS=10000 it is what a long-lived program does.
TEST_F(ExecTest, StartsFromAnyThreadOfAProgramWithAHundredBusyOnes) {
  const auto starts = static_cast<int>(EnvironmentNumber("WARD_RUNS", 20));
  const BusyThreads busy(100);
  auto thread = Environment::Posix().StartThread([&] {
    for (int i = 0; i < starts && !HasFailure(); ++i) {
      // Beside so many all may be late.
      ServerOptions options = ByExec();
      options.authentication_timeout = absl::Minutes(1);
      options.stop.kill_after = absl::Minutes(1);
      Server server(std::move(options));
      ASSERT_THAT(server.Start(), IsOk());
      EXPECT_THAT(CallServer(server, "echo", "x"), RepliesWith("x"));
      EXPECT_THAT(server.Stop(), IsOk());
    }
  });
  ASSERT_THAT(thread, IsOk());
}

// Runs a copy of this program, of which RunMoved (below) does `what` to its own
// file before it starts a server.
void RunCopy(const std::string& directory, const std::string& what) {
  const std::string copy = directory + "/program";
  fs::copy_file("/proc/self/exe", copy);
  const pid_t child = fork();
  if (child == 0) {
    execl(copy.c_str(), copy.c_str(), what.c_str(), nullptr);
    _exit(127);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << what;
  fs::remove(copy);
}

TEST_F(ExecTest, StartsThoughTheProgramsFileWasRemovedOrReplaced) {
  RunCopy(directory(), "--remove");
  RunCopy(directory(), "--replace");
}

// The loader that this program names; empty if it needs none.
std::string Loader() {
  std::string loader;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t /*size*/, void* result) {
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& header = info->dlpi_phdr[i];
          if (header.p_type != PT_INTERP) continue;
          // An address is how dl_iterate_phdr(3) says it.
          // NOLINTBEGIN(performance-no-int-to-ptr)
          *static_cast<std::string*>(result) =
              reinterpret_cast<const char*>(info->dlpi_addr + header.p_vaddr);
          // NOLINTEND(performance-no-int-to-ptr)
        }
        return 1;
      },
      &loader);
  return loader;
}

TEST_F(ExecTest, AProgramThatTheLoaderWasToldToRunIsRefused) {
  const std::string loader = Loader();
  if (loader.empty()) GTEST_SKIP() << "this program is linked statically";
  const std::string program = fs::read_symlink("/proc/self/exe");
  const pid_t child = fork();
  if (child == 0) {
    execl(loader.c_str(), loader.c_str(), program.c_str(), "--loaded", nullptr);
    _exit(127);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// --- programs that anybody may start ---

constexpr uid_t kStranger = 65534;
constexpr gid_t kStrangers = 65534;
constexpr int kNoServer = 2;  // What a program's process says to a stranger.

// As the stranger, what started by exec would come to: hands a server's process
// of `program` two connections, and over one of them nothing. Returns the code
// of its end.
int PretendToBeItsOwner(int program) {
  std::array<int, 2> hand_over;
  std::array<int, 2> owner;
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, hand_over.data()) != 0 ||
      socketpair(AF_UNIX, SOCK_STREAM, 0, owner.data()) != 0) {
    return 90;
  }
  const pid_t child = fork();
  if (child == 0) {
    close(hand_over[0]);
    close(owner[0]);
    std::string name = "program";
    std::string argument = ExecArgument("Server", hand_over[1], owner[1]);
    const std::array<char*, 3> arguments = {name.data(), argument.data(),
                                            nullptr};
    fexecve(program, arguments.data(), environ);
    _exit(91);
  }
  close(hand_over[0]);
  int status = -1;
  if (waitpid(child, &status, 0) != child) return 92;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 93;
}

// As the stranger, starts `program`, which starts a server of its own.
int StartIt(int program) {
  std::string name = "program";
  std::string what = "--start";
  const std::array<char*, 3> arguments = {name.data(), what.data(), nullptr};
  fexecve(program, arguments.data(), environ);
  return 91;
}

class PrivilegedExecTest : public ExecTest {
 protected:
  void SetUp() override {
    struct statvfs mounted {};
    ASSERT_EQ(statvfs(directory().c_str(), &mounted), 0);
    if ((mounted.f_flag & ST_NOSUID) != 0 ||
        prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 0) {
      GTEST_SKIP() << "no program gains rights in " << directory();
    }
    if (geteuid() != 0) GTEST_SKIP() << "needs root, to give rights";
  }

  // A copy of this program, of which the test goes on to have a descriptor.
  FileDescriptor Copy(mode_t mode, bool with_capabilities = false) {
    const std::string file = directory() + "/program";
    fs::copy_file("/proc/self/exe", file);
    if (with_capabilities) {
      vfs_cap_data capabilities{};
      capabilities.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE;
      capabilities.data[0].permitted = 1U << CAP_NET_BIND_SERVICE;
      has_capabilities_ = setxattr(file.c_str(), "security.capability",
                                   &capabilities, sizeof(capabilities), 0) == 0;
    }
    EXPECT_EQ(chmod(file.c_str(), mode), 0);
    FileDescriptor program(open(file.c_str(), O_PATH | O_CLOEXEC));
    EXPECT_TRUE(program.is_open());
    fs::remove(file);
    return FileDescriptor(fcntl(program.get(), F_DUPFD_CLOEXEC, 10));
  }

  // What `body`, which a stranger runs, returns.
  int AsStranger(const FileDescriptor& program, int (*body)(int)) const {
    const pid_t child = fork();
    if (child == 0) {
      setenv("XDG_RUNTIME_DIR", directory().c_str(), 1);
      if (setgroups(0, nullptr) != 0 ||
          setresgid(kStrangers, kStrangers, kStrangers) != 0 ||
          setresuid(kStranger, kStranger, kStranger) != 0) {
        _exit(94);
      }
      _exit(body(program.get()));
    }
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  bool has_capabilities_ = false;
};

TEST_F(PrivilegedExecTest, ASetUserIdProgramServesItsOwnUserAlone) {
  EXPECT_EQ(AsStranger(Copy(0755), PretendToBeItsOwner), 1)
      << "it would have served";
  const FileDescriptor program = Copy(S_ISUID | 0755);
  EXPECT_EQ(AsStranger(program, PretendToBeItsOwner), kNoServer);
  EXPECT_EQ(AsStranger(program, StartIt), 0);
}

TEST_F(PrivilegedExecTest, ASetGroupIdProgramServesItsOwnGroupAlone) {
  const FileDescriptor program = Copy(S_ISGID | 0755);
  EXPECT_EQ(AsStranger(program, PretendToBeItsOwner), kNoServer);
  EXPECT_EQ(AsStranger(program, StartIt), 0);
}

TEST_F(PrivilegedExecTest, AProgramWithFileCapabilitiesServesNobody) {
  const FileDescriptor program = Copy(0755, /*with_capabilities=*/true);
  if (!has_capabilities_) GTEST_SKIP() << "no file has capabilities here";
  EXPECT_EQ(AsStranger(program, PretendToBeItsOwner), kNoServer);
  EXPECT_EQ(AsStranger(program, StartIt), 1);
}

}  // namespace

// Told to by the dynamic loader, which is what "/proc/self/exe" is then.
int RunLoaded() {
  Server server(ByExec());
  const absl::Status started = server.Start();
  std::cerr << started << "\n";
  return absl::StrContains(started.message(), "ld.so(8)") ? 0 : 1;
}

int RunStarter() {
  Server server(ByExec());
  const absl::Status started = server.Start();
  // A stranger has put into the environment where he wants it.
  if (getauxval(AT_SECURE) != 0 &&
      absl::StartsWith(server.socket_filename(),
                       EnvironmentVariable("XDG_RUNTIME_DIR"))) {
    return 2;
  }
  const absl::StatusOr<Message> reply = CallServer(server, "echo", "x");
  const absl::Status stopped = server.Stop();
  std::cerr << started << " " << reply.status() << " " << stopped << "\n";
  return started.ok() && reply.ok() && stopped.ok() ? 0 : 1;
}

int RunMoved(const std::string& program, std::string_view what) {
  fs::remove(program);
  if (what == "--replace") {
    std::ofstream(program) << "#!/bin/false\n";
    fs::permissions(program, fs::perms::owner_all);
  }
  return RunStarter();
}

}  // namespace ward

int main(int argc, char** argv) {
  if (!ward::EnvironmentVariable(ward::kEndAtOnce).empty()) _exit(3);
  ward::ServeIfExeced(argc, argv);
  const std::string_view what = argc == 2 ? argv[1] : "";
  if (what == "--remove" || what == "--replace") {
    return ward::RunMoved(argv[0], what);
  }
  if (what == "--loaded") return ward::RunLoaded();
  // Without the end of a program: a leak checker could not trace this one.
  if (what == "--start") _exit(ward::RunStarter());
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}

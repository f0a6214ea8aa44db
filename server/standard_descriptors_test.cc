// Programs that were started with 0, 1 or 2 closed: what ward opens is never
// one of these, and what it starts has all three.

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/log_severity.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/exec_main.h"
#include "ward/server/lifecycle.h"
#include "ward/server/owner_handle.h"
#include "ward/server/server_for_test.h"
#include "ward/server/systemd.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

constexpr std::string_view kProgram = "--program=";
constexpr std::string_view kPassword = "the right password";
// Where the program says what it finds: nothing, if all is well.
constexpr int kReport = 30;

// What 0, 1 and 2 are, as "pipe:[1],closed,/dev/null".
std::string StandardDescriptors() {
  std::string all;
  for (const int fd : {0, 1, 2}) {
    std::array<char, 256> target;
    const ssize_t size = readlink(absl::StrCat("/proc/self/fd/", fd).c_str(),
                                  target.data(), target.size());
    absl::StrAppend(
        &all, fd == 0 ? "" : ",",
        size < 0 ? "closed"
                 : std::string_view(target.data(), static_cast<size_t>(size)));
  }
  return all;
}

// What is open is the server's as it is the owner's, but for what is the
// owner's own; the rest is /dev/null.
std::string ExpectedInServer() {
  std::vector<std::string> all = absl::StrSplit(StandardDescriptors(), ',');
  for (int fd = 0; fd < 3; ++fd) {
    // Closed, all bits of it.
    if ((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0) {
      all[static_cast<size_t>(fd)] = "/dev/null";
    }
  }
  return absl::StrJoin(all, ",");
}

// Opens a file of this program's own at each of 0, 1 and 2 that is closed.
void OpenOwnFiles() {
  while (true) {
    const int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
    if (fd <= STDERR_FILENO) continue;
    close(fd);
    return;
  }
}

class Server : public TestServer {
 public:
  explicit Server(ServerOptions options = {}) : TestServer(std::move(options)) {
    DefineMessageHandler("standard", [](MessageChannel& channel) {
      Environment::Posix().Log(absl::LogSeverity::kError,
                               "a line of the server's");
      return channel.Write(StandardDescriptors());
    });
  }
};
WARD_REGISTER_SERVER(Server);

absl::Status Expect(std::string_view what, std::string_view expected,
                    std::string_view found) {
  return expected == found ? absl::OkStatus()
                           : absl::InternalError(absl::StrCat(
                                 what, ": ", found, ", not ", expected));
}

// --- in the program ---

absl::Status Use(AbstractServer& server, std::string_view expected_in_server) {
  WARD_ASSIGN_OR_RETURN(const std::string found, Call(server, "standard"));
  return Expect("in the server", expected_in_server, found);
}

// Takes the lowest numbers that are free, as careless code does, until one is
// above 2; nothing may be written there.
absl::Status LogBesideSockets() {
  std::array<FileDescriptor, 8> ends;
  for (size_t i = 0; i < ends.size(); i += 2) {
    std::array<int, 2> pair;
    // Not close-on-exec.
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()) != 0) abort();
    ends[i].Reset(pair[0]);
    ends[i + 1].Reset(pair[1]);
  }
  Environment::Posix().Log(absl::LogSeverity::kError,
                           "a line for standard error");
  for (const FileDescriptor& end : ends) {
    char byte;
    if (recv(end.get(), &byte, 1, MSG_DONTWAIT) >= 0) {
      return absl::InternalError("a line of the log went to a user's socket");
    }
  }
  return absl::OkStatus();
}

absl::Status Own(StartMode mode) {
  const std::string found = StandardDescriptors();
  const std::string in_server = ExpectedInServer();
  ServerOptions options;
  options.start_mode = mode;
  Server server(std::move(options));
  WARD_RETURN_IF_ERROR(server.Start());
  WARD_RETURN_IF_ERROR(Expect("in the owner", found, StandardDescriptors()));
  WARD_RETURN_IF_ERROR(Use(server, in_server));
  WARD_RETURN_IF_ERROR(LogBesideSockets());
  Environment::Posix().Log(absl::LogSeverity::kError, "a line of the owner's");
  WARD_RETURN_IF_ERROR(server.CheckAlive());
  {
    WARD_ASSIGN_OR_RETURN(OwnerHandle handle, server.ShareOwnership());
    Server other;
    WARD_RETURN_IF_ERROR(other.Adopt(std::move(handle)));
    WARD_RETURN_IF_ERROR(Use(other, in_server));
    WARD_RETURN_IF_ERROR(Expect("in two owners", found, StandardDescriptors()));
  }
  WARD_RETURN_IF_ERROR(server.Stop());
  WARD_RETURN_IF_ERROR(server.Start());
  // It is left to hear of this process's end.
  dprintf(kReport, "%d", server.server_pid());
  _exit(0);
}

absl::Status OwnProcess() {
  const std::string in_server = ExpectedInServer();
  const auto serve = [&in_server](OwnerLink& owner) -> absl::Status {
    WARD_RETURN_IF_ERROR(
        Expect("in the server", in_server, StandardDescriptors()));
    WARD_RETURN_IF_ERROR(owner.ReportReady());
    Environment::Posix().Log(absl::LogSeverity::kError,
                             "a line of the server's");
    const Pollable* const polled[] = {&owner.pollable()};
    return Environment::Posix().Poll(polled, absl::InfiniteFuture()).status();
  };
  WARD_ASSIGN_OR_RETURN(
      const std::unique_ptr<ServerProcess> server,
      ServerProcess::Fork(Environment::Posix(), LaunchOptions(), serve));
  WARD_RETURN_IF_ERROR(server->WaitUntilReady());
  WARD_RETURN_IF_ERROR(LogBesideSockets());
  dprintf(kReport, "%d", server->pid());
  _exit(0);
}

absl::Status ServeAtThree() {
  ServerOptions options;
  options.password = Secret(kPassword);
  Server server(std::move(options));
  return ServeForSystemd(server);
}

// The copy of this program that the test has started.
int RunProgram(std::string_view how) {
  absl::Status status = absl::InvalidArgumentError(how);
  if (how == "fork") status = Own(StartMode::kFork);
  if (how == "exec") status = Own(StartMode::kExec);
  if (how == "process") status = OwnProcess();
  if (how == "fork with files") {
    OpenOwnFiles();
    status = Own(StartMode::kFork);
  }
  if (how == "exec with files") {
    OpenOwnFiles();
    status = Own(StartMode::kExec);
  }
  if (how == "systemd") status = ServeAtThree();
  if (!status.ok()) dprintf(kReport, "%s", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

// --- in the test ---

class StandardDescriptorsTest : public NothingLeftTest {
 protected:
  // Starts the program with the descriptors in `closed` (a bit for each)
  // closed.
  static std::unique_ptr<Child> Start(unsigned closed, const std::string& how,
                                      const FileDescriptor& report,
                                      int third = -1) {
    return std::make_unique<Child>([&] {
      dup2(report.get(), kReport);
      if (third >= 0) {
        dup2(third, 3);
        // NOLINTBEGIN(concurrency-mt-unsafe)
        setenv("LISTEN_PID", absl::StrCat(getpid()).c_str(), 1);
        setenv("LISTEN_FDS", "1", 1);
        // NOLINTEND(concurrency-mt-unsafe)
      }
      for (const int fd : {0, 1, 2}) {
        if ((closed & (1U << static_cast<unsigned>(fd))) != 0) close(fd);
      }
      alarm(30);  // It stands for a test of its own that hangs.
      const std::string argument = absl::StrCat(kProgram, how);
      execl("/proc/self/exe", "program", argument.c_str(), nullptr);
      return 127;
    });
  }

  void ExpectToWork(const std::string& how) {
    for (unsigned closed = 0; closed < 8; ++closed) {
      SCOPED_TRACE(absl::StrCat(how, ", closed: ", closed));
      Pipe report = MakePipe();
      const auto program = Start(closed, how, report.write);
      report.write.Reset();
      // The server has it as little as anything else of its owner's.
      ASSERT_TRUE(BecomesReadable(report.read.get()));
      const std::string said = ReadSome(report.read.get());
      EXPECT_EQ(program->Wait(), 0);
      pid_t server = 0;
      ASSERT_TRUE(absl::SimpleAtoi(said, &server)) << said;
      EXPECT_EQ(Reap(server), 0);
    }
  }
};

TEST_F(StandardDescriptorsTest, ClosedOnesDoNotMatterToAForkedServer) {
  ExpectToWork("fork");
}

TEST_F(StandardDescriptorsTest, ClosedOnesDoNotMatterToAnExecedServer) {
  ExpectToWork("exec");
}

TEST_F(StandardDescriptorsTest, FilesOfTheOwnersAreNotThoseOfAForkedServer) {
  ExpectToWork("fork with files");
}

TEST_F(StandardDescriptorsTest, FilesOfTheOwnersAreNotThoseOfAnExecedServer) {
  ExpectToWork("exec with files");
}

// Of a pipe whose reader has stopped.
TEST_F(StandardDescriptorsTest, AStandardErrorThatIsFullHoldsNobodyUp) {
  const Pipe pipe = MakePipe();
  ASSERT_EQ(fcntl(pipe.write.get(), F_SETFL, O_NONBLOCK), 0);
  const std::string page(PIPE_BUF, 'x');
  while (write(pipe.write.get(), page.data(), page.size()) > 0) continue;
  ASSERT_EQ(fcntl(pipe.write.get(), F_SETFL, 0), 0);
  const auto log = [&pipe](std::string_view line) {
    Child child([&] {
      dup2(pipe.write.get(), STDERR_FILENO);
      alarm(20);
      Environment::Posix().Log(absl::LogSeverity::kError, line);
      return 0;
    });
    return child.Wait();
  };
  EXPECT_EQ(log("nobody reads this"), 0);
  std::string read(PIPE_BUF, '\0');
  ASSERT_EQ(::read(pipe.read.get(), read.data(), read.size()),
            static_cast<ssize_t>(read.size()));
  // As much as there surely is room for.
  EXPECT_EQ(log(std::string(size_t{2} * PIPE_BUF, 'y')), 0);
  ASSERT_EQ(fcntl(pipe.read.get(), F_SETFL, O_NONBLOCK), 0);
  std::string last;
  for (ssize_t got = PIPE_BUF; got > 0;) {
    last = read.substr(0, static_cast<size_t>(got));
    got = ::read(pipe.read.get(), read.data(), read.size());
  }
  EXPECT_THAT(last, ::testing::MatchesRegex("ward\\[.*\\]: y*\\.\\.\\.\n"));
}

TEST_F(StandardDescriptorsTest, ClosedOnesDoNotMatterToAServersProcess) {
  ExpectToWork("process");
}

TEST_F(StandardDescriptorsTest, ClosedOnesDoNotMatterToAServiceOfSystemds) {
  for (unsigned closed = 0; closed < 8; ++closed) {
    SCOPED_TRACE(closed);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path().copy(address.sun_path, sizeof(address.sun_path) - 1);
    const FileDescriptor listener(
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address),
                   sizeof(address)),
              0);
    ASSERT_EQ(listen(listener.get(), 5), 0);
    Pipe report = MakePipe();
    const auto program = Start(closed, "systemd", report.write, listener.get());
    report.write.Reset();
    TestServer client(Shared());
    const auto found = Call(client, "standard");
    ASSERT_THAT(found, IsOk());
    // Nobody has started it but this test, which has left them closed; and none
    // of ward's own has come there.
    std::string expected = StandardDescriptors();
    std::vector<std::string> parts = absl::StrSplit(expected, ',');
    for (unsigned fd = 0; fd < 3; ++fd) {
      if ((closed & (1U << fd)) != 0) parts[fd] = "closed";
    }
    EXPECT_EQ(*found, absl::StrJoin(parts, ","));
    EXPECT_EQ(kill(program->pid(), SIGTERM), 0);
    EXPECT_EQ(program->Wait(), 0);
    EXPECT_EQ(ReadToEnd(report.read.get()), "");
    unlink(path().c_str());
  }
}

}  // namespace
}  // namespace ward

int main(int argc, char** argv) {
  ward::ServeIfExeced(argc, argv);
  std::string_view how = argc == 2 ? argv[1] : "";
  if (absl::ConsumePrefix(&how, ward::kProgram)) return ward::RunProgram(how);
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}

// Plays systemd: passes a socket, hears of readiness, and ends the service.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/secret.h"
#include "ward/examples/hello/hello_server.h"
#include "ward/server/client.h"
#include "ward/testing/leak_check.h"

namespace {

using ::testing::IsEmpty;
using ::ward::FileDescriptor;

FileDescriptor Bind(const std::string& path, int type) {
  FileDescriptor bound(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(
      bind(bound.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)),
      0);
  return bound;
}

std::string NextNotification(const FileDescriptor& from) {
  std::array<char, 100> text;
  const ssize_t size = recv(from.get(), text.data(), text.size(), 0);
  return {text.data(), static_cast<size_t>(size < 0 ? 0 : size)};
}

class SystemdServerTest : public ::testing::Test {
 protected:
  ~SystemdServerTest() override { EXPECT_THAT(leaks_.Find(), IsEmpty()); }

  const std::string& directory() const { return leaks_.directory(); }

  // The program, with descriptor 3 and the variables that systemd sets.
  pid_t Start(int listener, const std::string& notify) const {
    const pid_t child = fork();
    if (child != 0) return child;
    // NOLINTBEGIN(concurrency-mt-unsafe)
    if (listener >= 0) {
      dup2(listener, 3);
      fcntl(3, F_SETFD, 0);
      setenv("LISTEN_PID", absl::StrCat(getpid()).c_str(), 1);
      setenv("LISTEN_FDS", "1", 1);
    }
    setenv("NOTIFY_SOCKET", notify.c_str(), 1);
    setenv("CREDENTIALS_DIRECTORY", directory().c_str(), 1);
    execl(getenv("SYSTEMD_SERVER"), "systemd_server", nullptr);
    // NOLINTEND(concurrency-mt-unsafe)
    _exit(127);
  }

  static int ExitCode(pid_t child) {
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  const ward::testing::LeakCheck leaks_;
};

TEST_F(SystemdServerTest, ServesAtASocketThatSystemdHasMade) {
  const std::string path = directory() + "/hello.socket";
  const std::string notify = directory() + "/notify";
  const std::string password = directory() + "/password";
  std::ofstream(password) << "open sesame\n";
  {
    const FileDescriptor listener = Bind(path, SOCK_STREAM);
    ASSERT_EQ(listen(listener.get(), 5), 0);
    const FileDescriptor notifications = Bind(notify, SOCK_DGRAM);

    ward::Client client({path, ward::Secret("open sesame")});
    // Before there is a server: it waits in the queue.
    absl::StatusOr<std::tuple<std::string, int>> greeting =
        absl::UnknownError("not asked yet");
    std::thread early([&] { greeting = client.Call(kHello, "Joe", "Dalton"); });
    const pid_t server = Start(listener.get(), notify);
    EXPECT_EQ(NextNotification(notifications), "READY=1");
    early.join();
    ASSERT_TRUE(greeting.ok()) << greeting.status();
    EXPECT_EQ(std::get<0>(*greeting), "Hello Joe Dalton, how are you?");

    EXPECT_EQ(kill(server, SIGTERM), 0);
    EXPECT_EQ(NextNotification(notifications), "STOPPING=1");
    EXPECT_EQ(ExitCode(server), 0);

    // The socket is systemd's, as is its name: who comes now waits in its
    // queue, and is served by the next.
    std::thread between(
        [&] { greeting = client.Call(kHello, "Jack", "Dalton"); });
    pollfd waits{listener.get(), POLLIN, 0};
    EXPECT_EQ(poll(&waits, 1, -1), 1);
    const pid_t next = Start(listener.get(), notify);
    EXPECT_EQ(NextNotification(notifications), "READY=1");
    between.join();
    ASSERT_TRUE(greeting.ok()) << greeting.status();
    EXPECT_EQ(std::get<0>(*greeting), "Hello Jack Dalton, how are you?");
    EXPECT_EQ(kill(next, SIGTERM), 0);
    EXPECT_EQ(ExitCode(next), 0);
  }
  for (const std::string& file : {path, notify, password}) {
    std::filesystem::remove(file);
  }
}

// As after a manager's restart that hangs.
TEST_F(SystemdServerTest, EndsThoughTheManagerReadsNothing) {
  const std::string path = directory() + "/hello.socket";
  const std::string notify = directory() + "/notify";
  const std::string password = directory() + "/password";
  std::ofstream(password) << "open sesame\n";
  {
    const FileDescriptor listener = Bind(path, SOCK_STREAM);
    ASSERT_EQ(listen(listener.get(), 5), 0);
    const FileDescriptor notifications = Bind(notify, SOCK_DGRAM);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    notify.copy(address.sun_path, sizeof(address.sun_path) - 1);
    const FileDescriptor other(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    while (sendto(other.get(), "x", 1, MSG_DONTWAIT,
                  reinterpret_cast<const sockaddr*>(&address),
                  sizeof(address)) == 1) {
    }

    const pid_t server = Start(listener.get(), notify);
    ward::Client client({path, ward::Secret("open sesame")});
    EXPECT_TRUE(client.Call(kHello, "Joe", "Dalton").ok());
    EXPECT_EQ(kill(server, SIGTERM), 0);
    EXPECT_EQ(ExitCode(server), 0);
  }
  for (const std::string& file : {path, notify, password}) {
    std::filesystem::remove(file);
  }
}

// As systemd itself counts it, of 10; without what the unit takes away, 8.4.
TEST(UnitTest, TheServiceIsExposedToLittle) {
  // NOLINTBEGIN(concurrency-mt-unsafe)
  if (system("command -v systemd-analyze >/dev/null") != 0) {
    GTEST_SKIP() << "there is no systemd-analyze here";
  }
  const std::string analyze =
      "systemd-analyze --no-pager security --offline=true ";
  if (system((analyze + "--threshold=100 " + getenv("UNIT")).c_str()) != 0) {
    GTEST_SKIP() << "systemd-analyze here knows no unit that is not loaded";
  }
  EXPECT_EQ(system((analyze + "--threshold=10 " + getenv("UNIT")).c_str()), 0);
  // NOLINTEND(concurrency-mt-unsafe)
}

TEST_F(SystemdServerTest, SaysWhatIsMissing) {
  EXPECT_EQ(ExitCode(Start(-1, "")), 1);  // No credential.
  const std::string password = directory() + "/password";
  std::ofstream(password) << "open sesame\n";
  EXPECT_EQ(ExitCode(Start(-1, "")), 1);  // No socket.
  const FileDescriptor no_socket(open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(ExitCode(Start(no_socket.get(), "")), 1);
  std::filesystem::remove(password);
}

}  // namespace

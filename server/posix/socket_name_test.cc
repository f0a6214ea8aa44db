// Sockets' names where other programs have their say: bindfs(1), of FUSE, and
// systemd-tmpfiles(8). .ci/run installs both.

#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/listener.h"
#include "ward/server/posix/listener.h"

namespace ward {
namespace {

// A test needs this program. CI has it.
#define WARD_REQUIRE(program, package)                              \
  if (!IsInstalled(program)) {                                      \
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): nobody sets it. */    \
    if (std::getenv("CI") != nullptr) FAIL() << "install " package; \
    GTEST_SKIP() << "install " package;                             \
  }

bool IsInstalled(const std::string& program) {
  const std::array<std::string, 3> folders = {"/usr/bin/", "/bin/",
                                              "/usr/sbin/"};
  return std::any_of(folders.begin(), folders.end(), [&](const auto& folder) {
    return access((folder + program).c_str(), X_OK) == 0;
  });
}

pid_t Spawn(std::vector<std::string> command) {
  std::vector<char*> arguments;
  for (std::string& argument : command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  return child;
}

int ExitCode(pid_t child) {
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

class SocketNameTest : public ::testing::Test {
 protected:
  SocketNameTest() {
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
    directory_ = std::filesystem::canonical(directory_).string();
  }
  ~SocketNameTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const {
    return absl::StrCat(directory_, "/", name);
  }
  const std::string& directory() const { return directory_; }

 private:
  std::string directory_ = "/tmp/ward-test-XXXXXX";
};

// --- FUSE ---

// `what`, mounted once more at `where` by bindfs, while it exists.
class Bindfs {
 public:
  Bindfs(const std::string& what, const std::string& where)
      : where_(where), process_(Spawn({"bindfs", "-f", what, where})) {
    struct stat before;
    EXPECT_EQ(stat(what.c_str(), &before), 0);
    struct stat now = before;
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while ((stat(where.c_str(), &now) != 0 || now.st_dev == before.st_dev) &&
           absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    EXPECT_NE(now.st_dev, before.st_dev) << "bindfs has mounted nothing";
  }
  ~Bindfs() {
    EXPECT_EQ(umount2(where_.c_str(), MNT_DETACH), 0);
    kill(process_, SIGTERM);
    waitpid(process_, nullptr, 0);
  }

 private:
  const std::string where_;
  const pid_t process_;
};

TEST_F(SocketNameTest, AServerOnFuseIsReachedStoppedAndReplaced) {
  WARD_REQUIRE("bindfs", "bindfs");
  if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0) {
    GTEST_SKIP() << "needs root, and /dev/fuse";
  }
  std::filesystem::create_directory(Path("below"));
  std::filesystem::create_directory(Path("mount"));
  const Bindfs mount(Path("below"), Path("mount"));
  const std::string path = Path("mount/socket");
  auto dead = PosixListen({path});
  ASSERT_TRUE(dead.ok()) << dead.status();
  (*dead)->Close();
  // Replaces a dead one, and is not taken away by the other's cleaning up.
  const auto listener = PosixListen({path, 0666});
  ASSERT_TRUE(listener.ok()) << listener.status();
  (*dead)->RemovePath();
  const auto client = PosixConnect(path, absl::InfiniteFuture());
  EXPECT_TRUE(client.ok()) << client.status();
  struct stat found;
  ASSERT_EQ(stat(path.c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 07777, 0666U);
  (*listener)->RemovePath();
  EXPECT_TRUE(std::filesystem::is_empty(Path("below")));
}

// --- directories ---

TEST_F(SocketNameTest, ADirectoryThatCannotBeReadWillDo) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to become someone else";
  constexpr uid_t kNobody = 65534;
  ASSERT_EQ(chmod(directory().c_str(), 0733), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (setresuid(kNobody, kNobody, kNobody) != 0) _exit(1);
    {
      const auto dead = PosixListen({Path("socket")});
      if (!dead.ok()) _exit(2);
    }
    const auto listener = PosixListen({Path("socket")});
    if (!listener.ok()) _exit(3);
    if (!PosixConnect(Path("socket"), absl::InfiniteFuture()).ok()) _exit(4);
    (*listener)->RemovePath();
    _exit(0);
  }
  EXPECT_EQ(ExitCode(child), 0);
  EXPECT_TRUE(std::filesystem::is_empty(directory()));
}

// As su(1) and sudo(8) leave it: it is removed when its user logs out.
TEST_F(SocketNameTest, NoneIsInTheRuntimeDirectoryOfAnotherUser) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to have another's";
  constexpr uid_t kNobody = 65534;
  const std::string runtime = Path("runtime");
  ASSERT_EQ(mkdir(runtime.c_str(), 0700), 0);
  setenv("XDG_RUNTIME_DIR", runtime.c_str(), 1);
  for (const uid_t user : {geteuid(), kNobody}) {
    ASSERT_EQ(chown(runtime.c_str(), user, user), 0);
    const auto listener = PosixListen({});
    ASSERT_TRUE(listener.ok()) << listener.status();
    EXPECT_EQ(absl::StartsWith((*listener)->path(), runtime), user == geteuid())
        << (*listener)->path();
    (*listener)->RemovePath();
  }
  unsetenv("XDG_RUNTIME_DIR");
}

// --- systemd-tmpfiles ---

FileDescriptor Bind(const std::string& path) {
  FileDescriptor bound(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(
      bind(bound.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)),
      0);
  return bound;
}

TEST_F(SocketNameTest, LiveServersSurviveWhoeverCleansUp) {
  WARD_REQUIRE("systemd-tmpfiles", "systemd-standalone-tmpfiles");
  const std::string target = Path("cleaned");
  const std::string deep = target + "/" + std::string(100, 'd');
  std::filesystem::create_directory(target);
  std::filesystem::create_directory(target + "/real");
  std::filesystem::create_directory(deep);
  std::filesystem::create_symlink(target + "/real", Path("link"));
  const std::vector<std::string> live = {
      target + "/socket",
      deep + "/socket",
      Path("link/socket"),
  };
  std::vector<std::unique_ptr<Listener>> listeners;
  for (const std::string& path : live) {
    auto listener = PosixListen({path});
    ASSERT_TRUE(listener.ok()) << listener.status();
    listeners.push_back(*std::move(listener));
  }
  Bind(target + "/dead").Reset();
  // An age of nothing: whatever is there is old.
  std::ofstream(Path("rules.conf")) << "d " << target << " - - - 0\n";
  EXPECT_EQ(
      ExitCode(Spawn({"systemd-tmpfiles", "--clean",
                      absl::StrCat("--prefix=", target), Path("rules.conf")})),
      0);
  EXPECT_FALSE(std::filesystem::exists(target + "/dead"))
      << "it has not cleaned up at all";
  for (const std::string& path : live) {
    EXPECT_TRUE(PosixConnect(path, absl::InfiniteFuture()).ok()) << path;
  }
}

}  // namespace
}  // namespace ward

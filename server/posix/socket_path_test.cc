#include "ward/server/posix/socket_path.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"

namespace ward {
namespace {

class SocketPathTest : public ::testing::Test {
 protected:
  SocketPathTest() {
    std::string name = "/tmp/ward-test-XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  ~SocketPathTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const {
    return absl::StrCat(directory_, "/", name);
  }

  // A socket bound to `path`; listening or not.
  static FileDescriptor Bind(const std::string& path, bool listening) {
    FileDescriptor bound(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto address = SocketAddress::Of(path);
    EXPECT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(bind(bound.get(), address->get(), address->size()), 0)
        << strerror(errno);
    if (listening) {
      EXPECT_EQ(listen(bound.get(), 1), 0);
    }
    return bound;
  }

  static FileDescriptor NameOf(const std::string& path) {
    FileDescriptor name(open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    EXPECT_TRUE(name.is_open());
    return name;
  }

  std::string directory_;
};

TEST_F(SocketPathTest, APathOfAnyLengthCanBeBoundAndConnectedTo) {
  // 107 bytes are the longest that sun_path holds.
  for (const size_t length : {50, 106, 107, 108, 109, 500}) {
    std::string path = directory_;
    while (path.size() + 1 + 40 < length) {
      absl::StrAppend(&path, "/", std::string(40, 'd'));
      mkdir(path.c_str(), 0700);
    }
    absl::StrAppend(&path, "/", std::string(length - path.size() - 1, 's'));
    ASSERT_EQ(path.size(), length);
    const FileDescriptor server = Bind(path, true);
    const FileDescriptor client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto address = SocketAddress::Of(path);
    ASSERT_TRUE(address.ok());
    EXPECT_EQ(connect(client.get(), address->get(), address->size()), 0)
        << length << ": " << strerror(errno);
    struct stat found;
    EXPECT_EQ(lstat(path.c_str(), &found), 0) << "at the very path asked for";
    EXPECT_TRUE(S_ISSOCK(found.st_mode));
  }
}

TEST_F(SocketPathTest, AFileNameThatDoesNotFitIsRefusedWithItsLength) {
  const auto address = SocketAddress::Of(Path(std::string(120, 'n')));
  EXPECT_TRUE(HasReason(address.status(), reason::kPathTooLong));
  EXPECT_TRUE(absl::StrContains(address.status().message(), "has 120 bytes"))
      << address.status();
}

TEST_F(SocketPathTest, EmptyAndNulPathsAreRefused) {
  EXPECT_FALSE(SocketAddress::Of("").ok());
  EXPECT_FALSE(SocketAddress::Of(std::string("\0abstract", 9)).ok());
}

TEST_F(SocketPathTest, RemovesTheFileItWasToldOf) {
  const FileDescriptor server = Bind(Path("s"), true);
  const FileDescriptor name = NameOf(Path("s"));
  EXPECT_TRUE(RemoveIfSame(Path("s"), name).ok());
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
  EXPECT_TRUE(RemoveIfSame(Path("s"), name).ok()) << "nothing there is fine";
}

TEST_F(SocketPathTest, LeavesASuccessorAlone) {
  const FileDescriptor old = Bind(Path("s"), true);
  const FileDescriptor name = NameOf(Path("s"));
  ASSERT_EQ(unlink(Path("s").c_str()), 0);
  const FileDescriptor successor = Bind(Path("s"), true);
  const FileDescriptor after = NameOf(Path("s"));
  EXPECT_TRUE(RemoveIfSame(Path("s"), name).ok());
  EXPECT_TRUE(LeadsTo(Path("s"), after));
  EXPECT_FALSE(LeadsTo(Path("s"), name));
}

TEST_F(SocketPathTest, AStaleSocketMakesWay) {
  Bind(Path("s"), true).Reset();
  EXPECT_TRUE(ClearStaleSocket(Path("s")).ok());
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
  EXPECT_TRUE(ClearStaleSocket(Path("s")).ok()) << "nothing there is fine";
}

TEST_F(SocketPathTest, ALiveSocketStays) {
  const FileDescriptor live = Bind(Path("s"), true);
  // The queue has room for two; asking again and again must not change the
  // answer.
  for (int i = 0; i < 4; ++i) {
    const absl::Status status = ClearStaleSocket(Path("s"));
    EXPECT_TRUE(HasReason(status, reason::kPathTaken)) << status;
  }
  EXPECT_TRUE(std::filesystem::exists(Path("s")));
}

TEST_F(SocketPathTest, ADatagramSocketStays) {
  FileDescriptor bound(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto address = SocketAddress::Of(Path("s"));
  ASSERT_EQ(bind(bound.get(), address->get(), address->size()), 0);
  EXPECT_TRUE(HasReason(ClearStaleSocket(Path("s")), reason::kPathTaken));
  EXPECT_TRUE(std::filesystem::exists(Path("s")));
}

TEST_F(SocketPathTest, ASocketThatDoesNotListenYetStays) {
  const FileDescriptor bound = Bind(Path("s"), false);
  const absl::Status status = ClearStaleSocket(Path("s"));
  EXPECT_TRUE(HasReason(status, reason::kPathTaken)) << status;
  EXPECT_TRUE(std::filesystem::exists(Path("s")));
}

TEST_F(SocketPathTest, AskingTakesNoPlaceInALiveSocketsQueue) {
  const FileDescriptor live = Bind(Path("s"), true);
  EXPECT_TRUE(HasReason(ClearStaleSocket(Path("s")), reason::kPathTaken));
  pollfd queue{live.get(), POLLIN, 0};
  EXPECT_EQ(poll(&queue, 1, 0), 0);
}

TEST_F(SocketPathTest, ADirectoryThatSomebodyKeepsLockedHangsNobody) {
  FileDescriptor hostile(
      open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(flock(hostile.get(), LOCK_EX), 0);
  const FileDescriptor live = Bind(Path("live"), true);
  Bind(Path("dead"), true).Reset();
  // What lives is seen without the lock.
  EXPECT_TRUE(HasReason(ClearStaleSocket(Path("live")), reason::kPathTaken));
  const absl::Status status =
      ClearStaleSocket(Path("dead"), absl::Milliseconds(50));
  EXPECT_TRUE(HasReason(status, reason::kTimedOut)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), Path("dead"))) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "lslocks")) << status;
  EXPECT_TRUE(std::filesystem::exists(Path("dead")));
  // A server that quits takes its own name with it all the same.
  EXPECT_TRUE(RemoveIfSame(Path("live"), NameOf(Path("live"))).ok());
  EXPECT_FALSE(std::filesystem::exists(Path("live")));
  hostile.Reset();
  EXPECT_TRUE(ClearStaleSocket(Path("dead")).ok());
  EXPECT_FALSE(std::filesystem::exists(Path("dead")));
}

TEST_F(SocketPathTest, ALockEndsThoughAForkedProcessHasItsDescriptor) {
  pid_t child;
  {
    const auto lock = DirectoryLock::Take(Path("s"), absl::ZeroDuration());
    ASSERT_TRUE(lock.ok()) << lock.status();
    const auto second = DirectoryLock::Take(Path("s"), absl::ZeroDuration());
    EXPECT_TRUE(HasReason(second.status(), reason::kTimedOut));
    child = fork();
    if (child == 0) {
      pause();
      _exit(0);
    }
  }
  EXPECT_TRUE(DirectoryLock::Take(Path("s"), absl::ZeroDuration()).ok());
  kill(child, SIGKILL);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

TEST_F(SocketPathTest, FilesDirectoriesAndLinksStay) {
  std::ofstream(Path("file")) << "precious";
  std::filesystem::create_directory(Path("directory"));
  Bind(Path("stale"), true).Reset();
  std::filesystem::create_symlink(Path("stale"), Path("link"));
  for (const std::string name : {"file", "directory", "link"}) {
    const absl::Status status = ClearStaleSocket(Path(name));
    EXPECT_TRUE(HasReason(status, reason::kPathTaken)) << name << status;
    EXPECT_TRUE(absl::StrContains(status.message(), Path(name))) << status;
  }
  std::string content;
  std::ifstream(Path("file")) >> content;
  EXPECT_EQ(content, "precious");
  EXPECT_TRUE(std::filesystem::exists(Path("link")));
}

TEST(IsEndOfPair, IsNotAnEndOfAConnection) {
  std::array<int, 2> ends;
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  FileDescriptor one(ends[0]);
  const FileDescriptor other(ends[1]);
  EXPECT_TRUE(IsEndOfPair(one.get()));
  one.Reset();
  EXPECT_TRUE(IsEndOfPair(other.get())) << "its peer is gone";
  // The kernel's own name, in the abstract namespace.
  const FileDescriptor listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socklen_t size = sizeof(address.sun_family);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size),
            0);
  ASSERT_EQ(listen(listener.get(), 1), 0);
  size = sizeof(address);
  ASSERT_EQ(
      getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size),
      0);
  const FileDescriptor client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_FALSE(IsEndOfPair(client.get())) << "it has no peer yet";
  ASSERT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), size),
            0);
  const FileDescriptor served(accept(listener.get(), nullptr, nullptr));
  EXPECT_FALSE(IsEndOfPair(client.get()));
  EXPECT_FALSE(IsEndOfPair(served.get()));
  EXPECT_FALSE(IsEndOfPair(listener.get()));
  EXPECT_FALSE(IsEndOfPair(-1));
}

}  // namespace
}  // namespace ward

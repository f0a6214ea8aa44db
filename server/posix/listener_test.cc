#include "ward/server/posix/listener.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/posix_wait.h"
#include "ward/channel/transport.h"
#include "ward/server/listener.h"

namespace ward {
namespace {

std::unique_ptr<Listener> Listen(const ListenOptions& options) {
  absl::StatusOr<std::unique_ptr<Listener>> listener = PosixListen(options);
  EXPECT_TRUE(listener.ok()) << listener.status();
  return *std::move(listener);
}

mode_t ModeOf(const std::string& path) {
  struct stat found;
  EXPECT_EQ(lstat(path.c_str(), &found), 0) << path;
  return found.st_mode & 07777;
}

std::string DirectoryOf(const std::string& path) {
  return std::filesystem::path(path).parent_path().string();
}

// A directory that goes with its contents.
class TemporaryDirectory {
 public:
  TemporaryDirectory() { EXPECT_NE(mkdtemp(name_.data()), nullptr); }
  ~TemporaryDirectory() { std::filesystem::remove_all(name_); }
  std::string Path(const std::string& file) const { return name_ + "/" + file; }

 private:
  std::string name_ = "/tmp/ward-test-XXXXXX";
};

TEST(PosixListener, AcceptsWhoConnectsAndKnowsWhoTheyAre) {
  const auto listener = Listen({});
  auto client = PosixConnect(listener->path(), absl::InfiniteFuture());
  ASSERT_TRUE(client.ok()) << client.status();
  auto accepted = listener->Accept();
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  EXPECT_FALSE(accepted->on_reserve);
  const auto peer = accepted->transport->Peer();
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer->pid, getpid());
  EXPECT_EQ(peer->uid, geteuid());

  MessageChannel here(*std::move(client));
  MessageChannel there(std::move(accepted->transport));
  ASSERT_TRUE(here.Write("across").ok());
  EXPECT_EQ(there.Read()->name(), "across");
  listener->RemovePath();
}

TEST(PosixListener, HidesInADirectoryOfItsOwnAndLeavesNothing) {
  const auto listener = Listen({});
  const std::string directory = DirectoryOf(listener->path());
  EXPECT_EQ(ModeOf(directory), 0700);
  EXPECT_EQ(ModeOf(listener->path()), 0600);
  listener->RemovePath();
  EXPECT_FALSE(std::filesystem::exists(directory));
  listener->RemovePath();
}

TEST(PosixListener, TwoOfThemNeverMeet) {
  const auto first = Listen({});
  const auto second = Listen({});
  EXPECT_NE(first->path(), second->path());
  first->RemovePath();
  second->RemovePath();
}

TEST(PosixListener, TakesTheFirstDirectoryThatCanBeUsed) {
  const TemporaryDirectory directory;
  setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
  setenv("TMPDIR", directory.Path("").c_str(), 1);
  const auto listener = Listen({});
  EXPECT_TRUE(absl::StartsWith(listener->path(), directory.Path("")))
      << listener->path();
  unsetenv("XDG_RUNTIME_DIR");
  unsetenv("TMPDIR");
  listener->RemovePath();
}

TEST(PosixListener, GivesTheNameTheModeAskedForWhateverTheUmask) {
  const TemporaryDirectory directory;
  const mode_t umask_before = umask(0077);
  const auto wide = Listen({directory.Path("wide"), 0666});
  umask(0000);
  const auto narrow = Listen({directory.Path("narrow"), 0600});
  umask(umask_before);
  EXPECT_EQ(ModeOf(wide->path()), 0666);
  EXPECT_EQ(ModeOf(narrow->path()), 0600);
}

TEST(PosixListener, LeavesNoSecondNameBehind) {
  const TemporaryDirectory directory;
  const auto listener = Listen({directory.Path("socket")});
  int names = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator(directory.Path(""))) {
    ++names;
  }
  EXPECT_EQ(names, 1);
}

TEST(PosixListener, RefusesATakenPathAndLeavesTheOtherServerItsName) {
  const TemporaryDirectory directory;
  const auto first = Listen({directory.Path("socket")});
  const auto second = PosixListen({directory.Path("socket")});
  EXPECT_TRUE(HasReason(second.status(), reason::kPathTaken))
      << second.status();
  EXPECT_TRUE(PosixConnect(first->path(), absl::InfiniteFuture()).ok());
}

TEST(PosixListener, ReplacesASocketThatNobodyListensTo) {
  const TemporaryDirectory directory;
  Listen({directory.Path("socket")}).reset();
  ASSERT_TRUE(std::filesystem::exists(directory.Path("socket")));
  const auto second = Listen({directory.Path("socket")});
  EXPECT_TRUE(PosixConnect(second->path(), absl::InfiniteFuture()).ok());
}

TEST(PosixListener, DoesNotRemoveItsSuccessorsName) {
  const TemporaryDirectory directory;
  const auto old = Listen({directory.Path("socket")});
  old->Close();
  const auto successor = Listen({directory.Path("socket")});
  old->RemovePath();
  EXPECT_TRUE(PosixConnect(successor->path(), absl::InfiniteFuture()).ok());
}

TEST(PosixListener, MakesARelativePathAbsolute) {
  const TemporaryDirectory directory;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(directory.Path(""));
  const auto listener = Listen({"relative"});
  std::filesystem::current_path(before);
  EXPECT_TRUE(
      PosixConnect(directory.Path("relative"), absl::InfiniteFuture()).ok());
  listener->RemovePath();
  EXPECT_FALSE(std::filesystem::exists(directory.Path("relative")));
}

TEST(PosixListener, ShuttingDownEndsEveryAcceptAndRefusesClients) {
  const auto listener = Listen({});
  std::vector<std::thread> acceptors;
  for (int i = 0; i < 3; ++i) {
    acceptors.emplace_back([&listener] {
      EXPECT_TRUE(
          HasReason(listener->Accept().status(), reason::kServerStopping));
    });
  }
  listener->ShutDown();
  for (std::thread& acceptor : acceptors) acceptor.join();
  const auto client = PosixConnect(listener->path(), absl::InfiniteFuture());
  EXPECT_TRUE(HasReason(client.status(), reason::kServerUnreachable))
      << client.status();
  listener->RemovePath();
}

TEST(PosixConnect, SaysThatNobodyListens) {
  const TemporaryDirectory directory;
  const auto client =
      PosixConnect(directory.Path("nobody"), absl::InfiniteFuture());
  EXPECT_TRUE(HasReason(client.status(), reason::kServerUnreachable));
  EXPECT_TRUE(
      absl::StrContains(client.status().message(), directory.Path("nobody")))
      << client.status();
}

TEST(PosixConnect, WaitsForAPlaceInTheQueueOnlyUntilItsDeadline) {
  const auto listener = Listen({});
  // A queue of one place, filled; connect(2) would wait for ever.
  ASSERT_EQ(listen(listener->descriptor(), 0), 0);
  const auto waiting = PosixConnect(listener->path(), absl::InfiniteFuture());
  ASSERT_TRUE(waiting.ok()) << waiting.status();
  const absl::Time begin = MonotonicNow();
  const auto late =
      PosixConnect(listener->path(), begin + absl::Milliseconds(50));
  EXPECT_TRUE(HasReason(late.status(), reason::kTimedOut)) << late.status();
  EXPECT_GE(MonotonicNow() - begin, absl::Milliseconds(40));
  listener->RemovePath();
}

// --- in another process ---

ListenerParts Shared(const Listener& listener) {
  auto parts = listener.Share();
  EXPECT_TRUE(parts.ok()) << parts.status();
  return *std::move(parts);
}

TEST(PosixAdoptListener, AcceptsAndRemovesTheNameAsTheFirstDoes) {
  const TemporaryDirectory directory;
  auto first = Listen({});
  const std::string path = first->path();
  auto adopted = PosixAdoptListener(Shared(*first), geteuid());
  ASSERT_TRUE(adopted.ok()) << adopted.status();
  first.reset();
  EXPECT_EQ((*adopted)->path(), path);
  const auto client = PosixConnect(path, absl::InfiniteFuture());
  EXPECT_TRUE(client.ok()) << client.status();
  EXPECT_TRUE((*adopted)->Accept().ok());
  (*adopted)->RemovePath();
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(
      std::filesystem::exists(std::filesystem::path(path).parent_path()));
}

TEST(PosixAdoptListener, LeavesAloneWhatIsNoSocketOrAnotherUsers) {
  const TemporaryDirectory directory;
  const std::string file = directory.Path("precious");
  ListenerParts forged;
  forged.path = file;
  forged.name =
      FileDescriptor(open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  const auto no_socket = PosixAdoptListener(std::move(forged), geteuid());
  EXPECT_TRUE(HasReason(no_socket.status(), reason::kInvalidArguments))
      << no_socket.status();
  EXPECT_TRUE(std::filesystem::exists(file));
  unlink(file.c_str());

  const auto listener = Listen({});
  const uid_t other = geteuid() + 1;
  const auto foreign = PosixAdoptListener(Shared(*listener), other);
  EXPECT_TRUE(HasReason(foreign.status(), reason::kInvalidArguments))
      << foreign.status();
  ListenerParts deaf = Shared(*listener);
  deaf.socket = FileDescriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto not_listening = PosixAdoptListener(std::move(deaf), geteuid());
  EXPECT_TRUE(HasReason(not_listening.status(), reason::kInvalidArguments))
      << not_listening.status();
  listener->RemovePath();
}

}  // namespace
}  // namespace ward

#include "ward/server/posix/listener.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/posix_wait.h"
#include "ward/channel/transport.h"
#include "ward/server/listener.h"
#include "ward/server/posix/deny_for_test.h"

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

// The name that /proc/net/unix has for the socket that is the file `path`; the
// kernel tells of its number on other occasions.
std::string KernelsNameFor(const Listener& listener) {
  struct stat found;
  EXPECT_EQ(fstat(listener.descriptor(), &found), 0);
  std::ifstream sockets("/proc/net/unix");
  std::string line;
  std::getline(sockets, line);
  // Num RefCount Protocol Flags Type St Inode Path
  while (std::getline(sockets, line)) {
    const std::vector<std::string> parts =
        absl::StrSplit(line, absl::MaxSplits(' ', 7), absl::SkipEmpty());
    if (parts.size() == 8 && parts[6] == std::to_string(found.st_ino)) {
      return parts[7];
    }
  }
  return "no line";
}

TEST(PosixListener, IsKnownToTheKernelByItsPath) {
  const TemporaryDirectory directory;
  std::string longest = directory.Path("");
  longest += std::string(107 - longest.size(), 'l');
  for (const std::string& path : {directory.Path("socket"), longest}) {
    const auto listener = Listen({path});
    EXPECT_EQ(KernelsNameFor(*listener), path);
    EXPECT_EQ(ModeOf(path), 0600);
    listener->RemovePath();
  }
  const auto own = Listen({});
  EXPECT_EQ(KernelsNameFor(*own), own->path());
  own->RemovePath();
}

TEST(PosixListener, IsKnownToTheKernelByThePathThatWhoCleansUpTakes) {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory.Path("real"));
  std::filesystem::create_symlink(directory.Path("real"),
                                  directory.Path("link"));
  const auto listener = Listen({directory.Path("link/.//../real/./socket")});
  EXPECT_EQ(KernelsNameFor(*listener), directory.Path("real/socket"));
  listener->RemovePath();
  EXPECT_TRUE(std::filesystem::is_empty(directory.Path("real")));
}

// tmpfiles.d(5) and the XDG Base Directory Specification: the sticky bit.
TEST(PosixListener, SaysThatItIsInUseWhereTheKernelHasNoRoomForItsPath) {
  const TemporaryDirectory directory;
  const std::string deep = directory.Path(std::string(100, 'd'));
  std::filesystem::create_directory(deep);
  const mode_t umask_before = umask(0077);
  const auto listener = Listen({deep + "/socket", 0660});
  umask(umask_before);
  EXPECT_EQ(ModeOf(deep + "/socket"), 01660);
  EXPECT_TRUE(PosixConnect(deep + "/socket", absl::InfiniteFuture()).ok());
  listener->RemovePath();
  EXPECT_TRUE(std::filesystem::is_empty(deep));
}

// What `body` returns in a process of its own.
int InChild(absl::FunctionRef<int()> body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(PosixListener, NeedsNoOtherNameThanItsOwn) {
  const TemporaryDirectory directory;
  const std::string path = directory.Path("socket");
  { const auto dead = Listen({path}); }
  EXPECT_EQ(
      InChild([&] {
        // Left by a process of the same number, as in a container.
        std::filesystem::create_directory(absl::StrCat(path, ".", getpid()));
        DenyCalls(
            {SYS_link, SYS_linkat, SYS_rename, SYS_renameat, SYS_renameat2},
            EPERM);
        const auto listener = PosixListen({path});
        if (!listener.ok()) return 1;
        if (!PosixConnect(path, absl::InfiniteFuture()).ok()) return 2;
        if (!(*listener)->Accept().ok()) return 3;
        (*listener)->RemovePath();
        return std::filesystem::exists(path) ? 4 : 0;
      }),
      0);
}

// What became of a start.
enum Outcome { kOther, kWon, kTaken };

// Starts in four processes at the same moment, at `path`, where `names` of this
// process's own, dead all, are removed meanwhile; returns how many were which.
// A winner lives until all have tried, and tells whether it is reached.
std::map<Outcome, int> FourAtOnce(const std::string& path, Listener* dead) {
  std::array<int, 2> go;
  std::array<int, 2> end;
  EXPECT_EQ(pipe(go.data()), 0);
  EXPECT_EQ(pipe(end.data()), 0);
  std::array<FileDescriptor, 4> results;
  std::array<pid_t, 4> children;
  for (size_t i = 0; i < children.size(); ++i) {
    std::array<int, 2> result;
    EXPECT_EQ(pipe(result.data()), 0);
    children[i] = fork();
    if (children[i] == 0) {
      close(go[1]);
      close(end[1]);
      char byte;
      (void)!read(go[0], &byte, 1);
      const auto listener = PosixListen({path});
      byte = static_cast<char>(
          listener.ok()                                      ? kWon
          : HasReason(listener.status(), reason::kPathTaken) ? kTaken
                                                             : kOther);
      (void)!write(result[1], &byte, 1);
      (void)!read(end[0], &byte, 1);
      _exit(0);
    }
    close(result[1]);
    results[i].Reset(result[0]);
  }
  close(go[1]);
  if (dead != nullptr) dead->RemovePath();
  std::map<Outcome, int> outcomes;
  for (const FileDescriptor& result : results) {
    char byte = kOther;
    EXPECT_EQ(read(result.get(), &byte, 1), 1);
    ++outcomes[static_cast<Outcome>(byte)];
  }
  EXPECT_TRUE(PosixConnect(path, absl::InfiniteFuture()).ok())
      << "the one that has won is not reached";
  close(end[1]);
  for (const pid_t child : children) waitpid(child, nullptr, 0);
  close(go[0]);
  close(end[0]);
  return outcomes;
}

TEST(PosixListener, OfFourThatStartAtOnceOneWins) {
  const TemporaryDirectory directory;
  const std::string path = directory.Path("socket");
  const std::map<Outcome, int> expected = {{kWon, 1}, {kTaken, 3}};
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(round);
    std::unique_ptr<Listener> dead;
    switch (round % 3) {
      case 0:  // Nothing is there.
        unlink(path.c_str());
        break;
      case 1:  // A dead server's socket: the last round's.
        break;
      case 2:  // The same, whose owner is about to clean up after it.
        unlink(path.c_str());
        dead = Listen({path});
        dead->Close();
    }
    ASSERT_EQ(FourAtOnce(path, dead.get()), expected);
  }
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

// The socket of `listener`, whose name stays `listener`'s.
std::unique_ptr<Listener> Sibling(const Listener& listener) {
  auto parts = listener.Share();
  EXPECT_TRUE(parts.ok()) << parts.status();
  parts->name.Reset();
  auto sibling = PosixAdoptListener(*std::move(parts), geteuid());
  EXPECT_TRUE(sibling.ok()) << sibling.status();
  return *std::move(sibling);
}

std::vector<std::thread> StartAccepting(Listener& listener, int threads) {
  std::vector<std::thread> acceptors;
  for (int i = 0; i < threads; ++i) {
    acceptors.emplace_back([&listener] {
      EXPECT_TRUE(
          HasReason(listener.Accept().status(), reason::kServerStopping));
    });
  }
  return acceptors;
}

// Where nobody is in the queue.
const auto kNobody = [](const std::unique_ptr<Transport>&) {
  ADD_FAILURE() << "a client was to be refused";
};

TEST(PosixListener, StoppingEndsEveryAcceptAndRefusesClients) {
  const auto listener = Listen({});
  std::vector<std::thread> acceptors = StartAccepting(*listener, 3);
  listener->StopAccepting(kNobody);
  EXPECT_TRUE(HasReason(listener->Accept().status(), reason::kServerStopping));
  for (std::thread& acceptor : acceptors) acceptor.join();
  const auto client = PosixConnect(listener->path(), absl::InfiniteFuture());
  EXPECT_TRUE(HasReason(client.status(), reason::kServerUnreachable))
      << client.status();
  listener->RemovePath();
}

// A full table keeps nobody from being told.
TEST(PosixListener, StoppingGivesThoseInTheQueueToBeRefused) {
  const auto listener = Listen({});
  constexpr int kClients = 5;
  std::vector<std::unique_ptr<Transport>> clients;
  for (int i = 0; i < kClients; ++i) {
    auto client = PosixConnect(listener->path(), absl::InfiniteFuture());
    ASSERT_TRUE(client.ok()) << client.status();
    clients.push_back(*std::move(client));
  }
  EXPECT_EQ(InChild([&] {
              const rlimit few = {40, 40};
              setrlimit(RLIMIT_NOFILE, &few);
              while (open("/dev/zero", O_RDONLY | O_CLOEXEC) >= 0) {
              }
              int refused = 0;
              listener->StopAccepting([&](std::unique_ptr<Transport> client) {
                if (client->Send("no", {}, absl::InfiniteFuture()).ok()) {
                  ++refused;
                }
              });
              return refused == kClients ? 0 : 1;
            }),
            0);
  for (const auto& client : clients) {
    char answer[3] = {};
    EXPECT_EQ(recv(client->descriptor(), answer, sizeof(answer), 0), 2);
    EXPECT_STREQ(answer, "no");
  }
  // Though this process has the socket open still.
  const auto late = PosixConnect(listener->path(), absl::InfiniteFuture());
  EXPECT_TRUE(HasReason(late.status(), reason::kServerUnreachable))
      << late.status();
  listener->RemovePath();
}

TEST(PosixListener, WaitsAtASocketThatASharerHasMadeNonBlocking) {
  const auto listener = Listen({});
  const int flags = fcntl(listener->descriptor(), F_GETFL);
  ASSERT_EQ(fcntl(listener->descriptor(), F_SETFL, flags | O_NONBLOCK), 0);
  std::thread other([&listener] {
    const auto accepted = listener->Accept();
    EXPECT_TRUE(accepted.ok()) << accepted.status();
  });
  const auto client = PosixConnect(listener->path(), absl::InfiniteFuture());
  EXPECT_TRUE(client.ok()) << client.status();
  other.join();
  std::vector<std::thread> acceptors = StartAccepting(*listener, 1);
  listener->StopAccepting(kNobody);
  acceptors.front().join();
  listener->RemovePath();
}

// The client that had it has gone just before, and just after this process had
// looked for it.
TEST(PosixListener, WhoTakesTheReservesPlaceIsOnTheReserve) {
  const auto listener = Listen({});
  const auto first = PosixConnect(listener->path(), absl::InfiniteFuture());
  const auto second = PosixConnect(listener->path(), absl::InfiniteFuture());
  EXPECT_EQ(InChild([&] {
              const rlimit few = {40, 40};
              setrlimit(RLIMIT_NOFILE, &few);
              while (open("/dev/zero", O_RDONLY | O_CLOEXEC) >= 0) {
              }
              DenyCalls({SYS_eventfd2}, EMFILE);
              for (int i = 0; i < 2; ++i) {
                const auto accepted = listener->Accept();
                if (!accepted.ok()) return 1 + 2 * i;
                if (!accepted->on_reserve) return 2 + 2 * i;
              }
              return 0;
            }),
            0);
  listener->RemovePath();
}

TEST(PosixListener, StoppingIsThatOfOneListenerAlone) {
  const auto listener = Listen({});
  const auto sibling = Sibling(*listener);
  std::vector<std::thread> acceptors = StartAccepting(*sibling, 3);
  std::thread other([&listener] {
    const auto accepted = listener->Accept();
    EXPECT_TRUE(accepted.ok()) << accepted.status();
  });
  sibling->StopAccepting(kNobody);
  for (std::thread& acceptor : acceptors) acceptor.join();
  sibling->RemovePath();
  EXPECT_TRUE(PosixConnect(listener->path(), absl::InfiniteFuture()).ok());
  other.join();
  EXPECT_TRUE(PosixConnect(listener->path(), absl::InfiniteFuture()).ok());
  EXPECT_TRUE(listener->Accept().ok()) << "it waits in the queue";
  listener->RemovePath();
}

TEST(PosixListener, NoAcceptIsMissedWhereverItIsWhenStoppingBegins) {
  const auto listener = Listen({});
  for (int i = 0; i < 200; ++i) {
    const auto sibling = Sibling(*listener);
    std::vector<std::thread> acceptors = StartAccepting(*sibling, 4);
    // Another moment each time: it finds them before, and in, accept4.
    for (int pause = 0; pause < i % 50; ++pause) sched_yield();
    sibling->StopAccepting(kNobody);
    for (std::thread& acceptor : acceptors) acceptor.join();
  }
  listener->RemovePath();
}

TEST(PosixListener, StoppingLeavesSigurgToTheUser) {
  struct sigaction own {};
  own.sa_handler = [](int) {};
  own.sa_flags = SA_RESTART | SA_NODEFER;
  ASSERT_EQ(sigaction(SIGURG, &own, nullptr), 0);
  // Several at a time.
  const auto listener = Listen({});
  const auto sibling = Sibling(*listener);
  const auto another = Sibling(*listener);
  std::vector<std::thread> acceptors = StartAccepting(*sibling, 2);
  std::vector<std::thread> others = StartAccepting(*another, 2);
  std::thread stopping([&sibling] { sibling->StopAccepting(kNobody); });
  another->StopAccepting(kNobody);
  stopping.join();
  for (std::thread& acceptor : acceptors) acceptor.join();
  for (std::thread& other : others) other.join();
  struct sigaction found {};
  ASSERT_EQ(sigaction(SIGURG, nullptr, &found), 0);
  EXPECT_EQ(found.sa_handler, own.sa_handler);
  EXPECT_EQ(found.sa_flags & (SA_RESTART | SA_NODEFER), own.sa_flags);
  signal(SIGURG, SIG_DFL);
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

// A hostile process of this machine that may open the socket but does not know
// the password: whatever it sends, honest clients are served meanwhile, and the
// server has nothing more afterwards than it had before.

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/server/abstract_server.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

constexpr int kMaxClients = 8;
constexpr int kMaxUnauthenticated = 4;
constexpr absl::Duration kAuthenticationTimeout = absl::Milliseconds(300);

// --- the hostile side: raw sockets only ---

// False when the server has had enough.
bool Send(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

// Sends `bytes` with `count` descriptors.
bool SendDescriptors(int fd, std::string_view bytes, size_t count) {
  constexpr size_t kMost = 253;
  const FileDescriptor null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::array<int, kMost> descriptors;
  descriptors.fill(null.get());
  union {
    cmsghdr header;
    char bytes[CMSG_SPACE(kMost * sizeof(int))];
  } control{};
  iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = CMSG_SPACE(count * sizeof(int));
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
  memcpy(CMSG_DATA(&control.header), descriptors.data(), count * sizeof(int));
  return sendmsg(fd, &message, MSG_NOSIGNAL) > 0;
}

// Reads until the server has closed the connection.
void AwaitEnd(int fd) {
  std::array<char, 4096> bytes;
  while (true) {
    const ssize_t got = recv(fd, bytes.data(), bytes.size(), 0);
    if (got == 0 || (got < 0 && errno != EINTR)) return;
  }
}

// Whether the server closes the connection within `time`.
bool EndsWithin(int fd, absl::Duration time) {
  const Stopwatch watch;
  std::array<char, 4096> bytes;
  while (watch.Elapsed() < time) {
    if (!BecomesReadable(fd, time - watch.Elapsed())) return false;
    if (recv(fd, bytes.data(), bytes.size(), 0) <= 0) return true;
  }
  return false;
}

void Silence(const std::string& path) { AwaitEnd(RawConnect(path).get()); }

void OneByteAtATime(const std::string& path) {
  const FileDescriptor peer = RawConnect(path);
  std::string bytes = Varint(100'000) + "\x12" + Varint(90'000);
  bytes.resize(90'000, 'x');
  for (const char byte : bytes) {
    if (!Send(peer.get(), std::string_view(&byte, 1))) break;
    // Slow enough to be there for ever.
    if (EndsWithin(peer.get(), absl::Milliseconds(5))) break;
  }
}

void ALengthOf4GiB(const std::string& path) {
  const FileDescriptor peer = RawConnect(path);
  const std::string bytes(100'000, 'x');
  if (!Send(peer.get(), Varint(uint64_t{4} << 30))) return;
  while (Send(peer.get(), bytes)) continue;
}

void RandomBytes(const std::string& path) {
  // The same bytes in each run of the test, other ones at each call.
  static std::mt19937 random(20260101);
  const FileDescriptor peer = RawConnect(path);
  std::string bytes(random() % 5000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  // Half of them as the body of a frame, to get past the length.
  if (random() % 2 == 0) bytes = Varint(bytes.size()) + bytes;
  Send(peer.get(), bytes);
  shutdown(peer.get(), SHUT_WR);
  AwaitEnd(peer.get());
}

void ManyDescriptorsAtOnce(const std::string& path) {
  const FileDescriptor peer = RawConnect(path);
  SendDescriptors(peer.get(), Varint(100), 253);
  AwaitEnd(peer.get());
}

void ManySendsWithDescriptors(const std::string& path) {
  const FileDescriptor peer = RawConnect(path);
  if (!SendDescriptors(peer.get(), Varint(100'000), 16)) return;
  while (SendDescriptors(peer.get(), "x", 16)) continue;
}

void HalfFrames(const std::string& path) {
  const std::string half = Varint(1000) + std::string(500, '\x0a');
  Send(RawConnect(path).get(), half);
  const FileDescriptor stays = RawConnect(path);
  Send(stays.get(), half);
  AwaitEnd(stays.get());
}

void AFloodOfSilentPeers(const std::string& path) {
  std::vector<FileDescriptor> peers;
  for (int i = 0; i < 10 * (kMaxClients + kMaxUnauthenticated); ++i) {
    peers.push_back(RawConnect(path));
  }
}

void AFullQueue(const std::string& path) {
  // Until the queue has no room, or this process no descriptors.
  std::vector<FileDescriptor> peers;
  while (peers.size() < 4000) {
    peers.push_back(RawConnect(path, SOCK_NONBLOCK));
    if (!peers.back().is_open()) break;
  }
}

void WrongPasswords(const std::string& path) {
  const FileDescriptor peer = RawConnect(path);
  // A password of 8 bytes, and an array with one part, "echo".
  const std::string frame =
      "\x12\x08password\x1a\x06\x0a\x04"
      "echo";
  Send(peer.get(), Varint(frame.size()) + frame);
  AwaitEnd(peer.get());
}

void PartsWithoutEnd(const std::string& path) {
  const FileDescriptor peer = RawConnect(path);
  // Empty parts: two bytes each here, dozens in the memory of a naive reader.
  std::string parts;
  for (int i = 0; i < 400'000; ++i) parts += std::string("\x0a\0", 2);
  const std::string frame = "\x1a" + Varint(parts.size()) + parts;
  Send(peer.get(), Varint(frame.size()) + frame);
  AwaitEnd(peer.get());
}

struct Attack {
  const char* name;
  void (*once)(const std::string& path);
};

std::ostream& operator<<(std::ostream& out, const Attack& attack) {
  return out << attack.name;
}

// --- the honest side ---

class HostilePeerTest : public NothingLeftTest {
 protected:
  void SetUp() override {
    ServerOptions options = Shared();
    options.max_clients = kMaxClients;
    options.max_unauthenticated_clients = kMaxUnauthenticated;
    options.authentication_timeout = kAuthenticationTimeout;
    server_ = std::make_unique<TestServer>(std::move(options));
    server_->set_ignore_password_errors(true);
  }

  void TearDown() override {
    EXPECT_THAT(server_->Stop(), IsOk());
    server_.reset();
    NothingLeftTest::TearDown();
  }

  // One whole call, until the server has closed its end: what it had open for
  // it is closed now.
  absl::Status CallToTheEnd() {
    return server_->Connect([](MessageChannel& channel) -> absl::Status {
      absl::Status status = channel.Write("echo", "x");
      if (status.ok()) status = channel.Read().status();
      if (status.ok()) {
        EXPECT_FALSE(channel.Read().ok());
      }
      return status;
    });
  }

  size_t DescriptorsOfServer() {
    return DescriptorsOf(server_->server_pid()).size();
  }

  std::unique_ptr<TestServer> server_;
};

class AttackTest : public HostilePeerTest,
                   public ::testing::WithParamInterface<Attack> {};

TEST_P(AttackTest, HonestClientsAreServedAndNothingStaysBehind) {
  const Pipe report = MakePipe();
  const Pipe go = MakePipe();
  // Made before the server, and no owner of it.
  Child attacker([&] {
    ReadSome(go.read.get());
    GetParam().once(path());
    WriteAll(report.write.get(), "under way");
    while (true) GetParam().once(path());
    return 0;
  });
  ASSERT_THAT(server_->Start(), IsOk());
  ASSERT_THAT(CallToTheEnd(), IsOk());
  const size_t descriptors_before = DescriptorsOfServer();
  WriteAll(go.write.get(), "x");
  ASSERT_TRUE(BecomesReadable(report.read.get()));

  std::vector<absl::Duration> times;
  const Stopwatch all;
  for (int i = 0; i < 100 && (i < 10 || all.Elapsed() < absl::Seconds(5));
       ++i) {
    const Stopwatch watch;
    ASSERT_THAT(Call(*server_, "echo", "x"), IsOkAndHolds("x")) << "call " << i;
    times.push_back(watch.Elapsed());
  }
  std::cout << GetParam().name << ": honest calls took (median) "
            << Median(times) << ", (longest) "
            << *std::max_element(times.begin(), times.end()) << "\n";
  RecordProperty("honest_call", absl::FormatDuration(Median(times)));
  EXPECT_LT(Median(times), absl::Seconds(2));

  attacker.Kill();
  attacker.Wait();
  // Threads are kept, but only so many: the main thread, the pool's, and those
  // that ThreadSanitizer has in a forked process.
  EXPECT_LE(ThreadsOf(server_->server_pid()),
            size_t{1 + kMaxClients + kMaxUnauthenticated + 1 +
                   (kUnderThreadSanitizer ? 2 : 0)});
  // Its last connections end when the server comes to them.
  const Stopwatch watch;
  do {
    ASSERT_THAT(CallToTheEnd(), IsOk());
  } while (DescriptorsOfServer() > descriptors_before &&
           watch.Elapsed() < kSurely);
  EXPECT_EQ(DescriptorsOfServer(), descriptors_before);
}

INSTANTIATE_TEST_SUITE_P(
    Attacks, AttackTest,
    ::testing::Values(Attack{"Silence", Silence},
                      Attack{"OneByteAtATime", OneByteAtATime},
                      Attack{"ALengthOf4GiB", ALengthOf4GiB},
                      Attack{"RandomBytes", RandomBytes},
                      Attack{"ManyDescriptorsAtOnce", ManyDescriptorsAtOnce},
                      Attack{"ManySendsWithDescriptors",
                             ManySendsWithDescriptors},
                      Attack{"HalfFrames", HalfFrames},
                      Attack{"AFloodOfSilentPeers", AFloodOfSilentPeers},
                      Attack{"AFullQueue", AFullQueue},
                      Attack{"WrongPasswords", WrongPasswords},
                      Attack{"PartsWithoutEnd", PartsWithoutEnd}),
    [](const auto& info) { return std::string(info.param.name); });

// --- its deadline ---

TEST_F(HostilePeerTest, ASilentPeerIsClosedByItsDeadline) {
  ASSERT_THAT(server_->Start(), IsOk());
  const Stopwatch watch;
  const FileDescriptor peer = RawConnect(path());
  EXPECT_TRUE(EndsWithin(peer.get(), kSurely));
  EXPECT_GE(watch.Elapsed(), kAuthenticationTimeout);
}

TEST_F(HostilePeerTest, APeerThatSendsByteAfterByteGetsNoMoreTime) {
  ASSERT_THAT(server_->Start(), IsOk());
  const Stopwatch watch;
  const FileDescriptor peer = RawConnect(path());
  ASSERT_TRUE(Send(peer.get(), Varint(100'000)));
  bool ended = false;
  while (!ended && watch.Elapsed() < kSurely) {
    ended =
        !Send(peer.get(), "x") || EndsWithin(peer.get(), absl::Milliseconds(5));
  }
  EXPECT_TRUE(ended);
  EXPECT_GE(watch.Elapsed(), kAuthenticationTimeout);
  EXPECT_LT(watch.Elapsed(), kAuthenticationTimeout + absl::Seconds(10));
}

TEST_F(HostilePeerTest, AHalfFrameIsClosedByItsDeadline) {
  ASSERT_THAT(server_->Start(), IsOk());
  const Stopwatch watch;
  const FileDescriptor peer = RawConnect(path());
  ASSERT_TRUE(Send(peer.get(), Varint(1000) + std::string(500, '\x0a')));
  EXPECT_TRUE(EndsWithin(peer.get(), kSurely));
  EXPECT_GE(watch.Elapsed(), kAuthenticationTimeout);
}

TEST_F(HostilePeerTest, AnImpossibleLengthIsClosedAtOnce) {
  ASSERT_THAT(server_->Start(), IsOk());
  MessageChannel peer(RawConnect(path()));
  ASSERT_TRUE(Send(peer.transport()->descriptor(), Varint(uint64_t{4} << 30)));
  EXPECT_THAT(peer.Read(), FailsWith(reason::kFrameTooLarge, "first message"));
  EXPECT_FALSE(peer.Read().ok());
}

TEST_F(HostilePeerTest, DescriptorsOfAnUnfinishedFrameAreBounded) {
  ASSERT_THAT(server_->Start(), IsOk());
  ASSERT_THAT(CallToTheEnd(), IsOk());
  const size_t before = DescriptorsOfServer();
  const FileDescriptor peer = RawConnect(path());
  ASSERT_TRUE(SendDescriptors(peer.get(), Varint(100'000), 16));
  size_t most = 0;
  while (SendDescriptors(peer.get(), "x", 16)) {
    most = std::max(most, DescriptorsOfServer() - before);
  }
  std::cout << "at most " << most << " descriptors\n";
  // Its own, and those of two messages.
  EXPECT_LE(most, 1u + 3 * 16);
}

}  // namespace
}  // namespace ward

// A hostile process of this machine that may open the socket but does not know
// the password: whatever it sends, honest clients are served meanwhile, and the
// server has nothing more afterwards than it had before.

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/process.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using testing::MovesClock;
using testing::SharesMemory;

constexpr int kMaxClients = 8;
constexpr int kMaxWaiting = 4;
// A real client may be late between connecting and sending.
absl::Duration AuthenticationTimeout() {
  return MovesClock() ? absl::Milliseconds(300) : absl::Seconds(1);
}

// --- the hostile side: bytes and descriptors only ---

// Null when the server cannot be reached by `deadline`.
std::unique_ptr<Transport> Connect(
    const std::string& path, absl::Time deadline = absl::InfiniteFuture()) {
  auto peer = Environment::Default().Connect(path, deadline);
  return peer.ok() ? *std::move(peer) : nullptr;
}

// Sends all of `bytes`, the first with `descriptors` copies of standard input.
// False when the server has had enough.
bool Send(Transport& peer, std::string_view bytes, size_t descriptors = 0) {
  std::vector<int> attached(descriptors, STDIN_FILENO);
  while (!bytes.empty()) {
    const auto sent = peer.Send(bytes, attached, absl::InfiniteFuture());
    if (!sent.ok()) return false;
    bytes.remove_prefix(*sent);
    if (*sent > 0) attached.clear();
  }
  return true;
}

// Reads until the server has closed the connection; false if it has not within
// `time`.
bool EndsWithin(Transport& peer, absl::Duration time) {
  const absl::Time deadline = peer.TimeNow() + time;
  std::array<char, 4096> bytes;
  std::vector<FileDescriptor> none;
  while (true) {
    const auto got = peer.Receive(absl::MakeSpan(bytes), 0, none, deadline);
    if (!got.ok()) return !HasReason(got.status(), reason::kTimedOut);
    if (got->end_of_stream) return true;
  }
}

void AwaitEnd(Transport& peer) {
  (void)EndsWithin(peer, absl::InfiniteDuration());
}

void Silence(const std::string& path) { AwaitEnd(*Connect(path)); }

void OneByteAtATime(const std::string& path) {
  const auto peer = Connect(path);
  std::string bytes = Varint(100'000) + "\x12" + Varint(90'000);
  bytes.resize(90'000, 'x');
  for (const char byte : bytes) {
    if (!Send(*peer, std::string_view(&byte, 1))) break;
    // Slow enough to be there for ever.
    if (EndsWithin(*peer, absl::Milliseconds(5))) break;
  }
}

void ALengthOf4GiB(const std::string& path) {
  const auto peer = Connect(path);
  const std::string bytes(100'000, 'x');
  if (!Send(*peer, Varint(uint64_t{4} << 30))) return;
  while (Send(*peer, bytes)) continue;
}

void RandomBytes(const std::string& path) {
  // The same bytes in each run of the test, other ones at each call.
  static std::mt19937 random(20260101);
  const auto peer = Connect(path);
  std::string bytes(1 + random() % 5000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  // Half of them as the body of a frame, to get past the length.
  if (random() % 2 == 0) bytes = Varint(bytes.size()) + bytes;
  Send(*peer, bytes);
  AwaitEnd(*peer);
}

void ManyDescriptorsAtOnce(const std::string& path) {
  const auto peer = Connect(path);
  Send(*peer, Varint(100), kMaxDescriptorsPerMessage);
  AwaitEnd(*peer);
}

void ManySendsWithDescriptors(const std::string& path) {
  const auto peer = Connect(path);
  if (!Send(*peer, Varint(100'000), 16)) return;
  while (Send(*peer, "x", 16)) continue;
}

void HalfFrames(const std::string& path) {
  const std::string half = Varint(1000) + std::string(500, '\x0a');
  Send(*Connect(path), half);
  const auto stays = Connect(path);
  Send(*stays, half);
  AwaitEnd(*stays);
}

void AFloodOfSilentPeers(const std::string& path) {
  std::vector<std::unique_ptr<Transport>> peers;
  for (int i = 0; i < 10 * (kMaxClients + kMaxWaiting); ++i) {
    peers.push_back(Connect(path));
  }
}

void AFullQueue(const std::string& path) {
  // Until the queue has no room, or this process no descriptors.
  std::vector<std::unique_ptr<Transport>> peers;
  while (peers.size() < 4000) {
    peers.push_back(Connect(path, Environment::Default().TimeNow()));
    if (peers.back() == nullptr) break;
  }
}

void WrongPasswords(const std::string& path) {
  const auto peer = Connect(path);
  // A password of 8 bytes, and an array with one part, "echo".
  const std::string frame =
      "\x12\x08password\x1a\x06\x0a\x04"
      "echo";
  Send(*peer, Varint(frame.size()) + frame);
  AwaitEnd(*peer);
}

void PartsWithoutEnd(const std::string& path) {
  const auto peer = Connect(path);
  // Empty parts: two bytes each here, dozens in the memory of a naive reader.
  std::string parts;
  for (int i = 0; i < 400'000; ++i) parts += std::string("\x0a\0", 2);
  const std::string frame = "\x1a" + Varint(parts.size()) + parts;
  Send(*peer, Varint(frame.size()) + frame);
  AwaitEnd(*peer);
}

struct Attack {
  const char* name;
  void (*once)(const std::string& path);
};

std::ostream& operator<<(std::ostream& out, const Attack& attack) {
  return out << attack.name;
}

// --- the honest side ---

class HostilePeerTest : public ModesTest {
 protected:
  void SetUp() override {
    ServerOptions options = Shared();
    options.max_clients = kMaxClients;
    options.max_waiting_clients = kMaxWaiting;
    options.authentication_timeout = AuthenticationTimeout();
    options.connect_timeout = kSurely;
    server_ = std::make_unique<TestServer>(std::move(options));
    server_->set_ignore_password_errors(true);
    ASSERT_THAT(server_->Start(), IsOk());
  }

  void TearDown() override {
    EXPECT_THAT(server_->Stop(), IsOk());
    server_.reset();
    ModesTest::TearDown();
  }

  // One whole call, until the server has closed its end: what it had open for
  // it is closed now. The call's end is not asked for, it comes before.
  absl::Status CallToTheEnd() {
    MessageChannel channel(Connect(path()));
    channel.PresentPassword(server_->password());
    WARD_RETURN_IF_ERROR(channel.Write("echo", "x"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
    return absl::OkStatus();
  }

  // Of a process of its own.
  size_t DescriptorsOfServer() {
    return DescriptorsOf(server_->server_pid()).size();
  }

  // The time that a peer had which has been cut at its deadline.
  static void ExpectDeadline(absl::Duration took) {
    EXPECT_GE(took, AuthenticationTimeout());
    if (MovesClock()) {
      EXPECT_EQ(took, AuthenticationTimeout());
    }
  }

  std::unique_ptr<TestServer> server_;
};

class AttackTest : public HostilePeerTest,
                   public ::testing::WithParamInterface<Attack> {
 protected:
  // A process that attacks until it is killed, and no owner of the server.
  // Returns when it has attacked once.
  std::unique_ptr<Process> StartAttacker() {
    auto ends = environment().CreateTransportPair();
    EXPECT_THAT(ends, IsOk());
    ForkOptions options;
    options.keep_open = {ends->second->descriptor()};
    auto attacker = environment().Fork(
        options, [this, report = std::move(ends->second)]() -> int {
          GetParam().once(path());
          report->ShutDown();
          while (true) GetParam().once(path());
        });
    EXPECT_THAT(attacker, IsOk());
    EXPECT_TRUE(EndsWithin(*ends->first, kSurely));
    return *std::move(attacker);
  }
};

TEST_P(AttackTest, HonestClientsAreServedAndNothingStaysBehind) {
  ASSERT_THAT(CallToTheEnd(), IsOk());
  const size_t descriptors_before = DescriptorsOfServer();
  const std::unique_ptr<Process> attacker = StartAttacker();

  std::vector<absl::Duration> times;
  // A simulated flood takes its time, which is not that of its own clock.
  const int most = MovesClock() ? 20 : 100;
  const Stopwatch all;
  for (int i = 0; i < most && (i < 10 || all.Elapsed() < absl::Seconds(5));
       ++i) {
    const Stopwatch watch;
    ASSERT_THAT(Call(*server_, "echo", "x"), IsOkAndHolds("x")) << "call " << i;
    times.push_back(watch.Elapsed());
  }
  const absl::Duration longest = *std::max_element(times.begin(), times.end());
  std::cout << GetParam().name << ": honest calls took (median) "
            << Median(times) << ", (longest) " << longest << "\n";
  RecordProperty("honest_call", absl::FormatDuration(Median(times)));
  EXPECT_LT(Median(times), absl::Seconds(10));
  if (MovesClock()) {
    EXPECT_LE(longest, AuthenticationTimeout());
  }

  ASSERT_THAT(attacker->Kill(SIGKILL), IsOk());
  ASSERT_THAT(attacker->Wait(absl::InfiniteFuture()), IsOk());
  ASSERT_THAT(CallToTheEnd(), IsOk());
  // Its last connections end when the server comes to them; in a simulation,
  // the fixture looks for them.
  if (SharesMemory()) return;
  const Stopwatch watch;
  while (DescriptorsOfServer() > descriptors_before &&
         watch.Elapsed() < kSurely) {
    ASSERT_THAT(CallToTheEnd(), IsOk());
  }
  EXPECT_EQ(DescriptorsOfServer(), descriptors_before);
  // Threads, too, are only so many: the main thread, the pool's for its
  // clients, for those that it has just accepted, to watch and to accept, and
  // to close what an attacker, who has one connection at a time, has attached;
  // and those that ThreadSanitizer has in a forked process.
  EXPECT_LE(ThreadsOf(server_->server_pid()),
            size_t{1 + kMaxClients + 16 + 1 + 4 + 4 +
                   (kUnderThreadSanitizer ? 2 : 0)});
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

// --- silent crowds ---

// As many processes, each of which has one silent connection, and another at
// once when it is cut. The limits are the defaults.
class SilentCrowdTest : public ModesTest,
                        public ::testing::WithParamInterface<int> {};

TEST_P(SilentCrowdTest, NoHonestCallFails) {
  if (MovesClock() && GetParam() > 64) {
    GTEST_SKIP() << "takes long; the real modes have it";
  }
  TestServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<std::unique_ptr<Process>> crowd;
  for (int i = 0; i < GetParam(); ++i) {
    auto silent = environment().Fork(ForkOptions(), [this]() -> int {
      while (true) Silence(path());
    });
    ASSERT_THAT(silent, IsOk());
    crowd.push_back(*std::move(silent));
  }
  const uint64_t calls = testing::EnvironmentNumber(
      "WARD_RUNS", MovesClock() || kUnderSanitizer ? 100 : 1000);
  uint64_t failed = 0;
  const Stopwatch watch;
  for (uint64_t i = 0; i < calls; ++i) {
    const auto reply = Call(server, "echo", "x");
    if (reply.ok()) continue;
    if (++failed == 1) std::cout << reply.status() << "\n";
  }
  std::cout << failed << " of " << calls << " honest calls failed beside "
            << GetParam() << " silent processes, in " << watch.Elapsed()
            << "\n";
  EXPECT_EQ(failed, 0u);
  for (const auto& silent : crowd) {
    ASSERT_THAT(silent->Kill(SIGKILL), IsOk());
    ASSERT_THAT(silent->Wait(absl::InfiniteFuture()), IsOk());
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

INSTANTIATE_TEST_SUITE_P(Crowds, SilentCrowdTest,
                         ::testing::Values(2, 17, 32, 64, 500),
                         ::testing::PrintToStringParamName());

// --- its deadline ---

TEST_F(HostilePeerTest, ASilentPeerIsClosedByItsDeadline) {
  const Stopwatch watch;
  const auto peer = Connect(path());
  EXPECT_TRUE(EndsWithin(*peer, kSurely));
  ExpectDeadline(watch.Elapsed());
}

TEST_F(HostilePeerTest, APeerThatSendsByteAfterByteGetsNoMoreTime) {
  const Stopwatch watch;
  const auto peer = Connect(path());
  ASSERT_TRUE(Send(*peer, Varint(100'000)));
  bool ended = false;
  while (!ended && watch.Elapsed() < kSurely) {
    ended = !Send(*peer, "x") || EndsWithin(*peer, absl::Milliseconds(5));
  }
  EXPECT_TRUE(ended);
  ExpectDeadline(watch.Elapsed());
  EXPECT_LT(watch.Elapsed(), AuthenticationTimeout() + absl::Seconds(10));
}

TEST_F(HostilePeerTest, AHalfFrameIsClosedByItsDeadline) {
  const Stopwatch watch;
  const auto peer = Connect(path());
  ASSERT_TRUE(Send(*peer, Varint(1000) + std::string(500, '\x0a')));
  EXPECT_TRUE(EndsWithin(*peer, kSurely));
  ExpectDeadline(watch.Elapsed());
}

TEST_F(HostilePeerTest, AnImpossibleLengthIsClosedAtOnce) {
  auto connected = Connect(path());
  ASSERT_TRUE(Send(*connected, Varint(uint64_t{4} << 30)));
  MessageChannel peer(std::move(connected));
  EXPECT_THAT(peer.Read(), FailsWith(reason::kFrameTooLarge, "first message"));
  EXPECT_FALSE(peer.Read().ok());
}

TEST_F(HostilePeerTest, DescriptorsOfAnUnfinishedFrameAreBounded) {
  if (SharesMemory()) GTEST_SKIP() << "the server's are the test's own";
  ASSERT_THAT(CallToTheEnd(), IsOk());
  const size_t before = DescriptorsOfServer();
  const auto peer = Connect(path());
  ASSERT_TRUE(Send(*peer, Varint(100'000), 16));
  size_t most = 0;
  while (Send(*peer, "x", 16)) {
    most = std::max(most, DescriptorsOfServer() - before);
  }
  std::cout << "at most " << most << " descriptors\n";
  // Its own, and those of two messages.
  EXPECT_LE(most, 1u + 3 * 16);
}

TEST_F(HostilePeerTest, MoreDescriptorsThanItMayHaveEndAHalfFrameAtOnce) {
  for (const size_t count : {size_t{17}, size_t{253}}) {
    auto connected = Connect(path());
    ASSERT_TRUE(Send(*connected, Varint(1000), count));
    MessageChannel peer(std::move(connected));
    EXPECT_THAT(peer.Read(), FailsWith(reason::kTooManyDescriptors));
    EXPECT_FALSE(peer.Read().ok());
  }
}

}  // namespace
}  // namespace ward

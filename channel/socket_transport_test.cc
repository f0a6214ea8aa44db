// What the seam promises (transport.h), of the real socket.

#include "ward/channel/socket_transport.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/channel/transport.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using testing::FailsWith;
using testing::IsOk;

using ::testing::IsEmpty;
using ::testing::SizeIs;

// SO_PASSPIDFD (Linux 6.5), which older headers lack.
constexpr int kPassPidfd = 76;

class SocketTransportTest : public ::testing::Test {
 protected:
  SocketTransportTest() : open_before_(OpenDescriptors()) {}

  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(auto ends, SocketTransport::CreatePair());
    here_ = std::move(ends.first);
    there_ = std::move(ends.second);
  }

  void TearDown() override {
    here_.reset();
    there_.reset();
    descriptors_.clear();
    EXPECT_EQ(OpenDescriptors(), open_before_);
  }

  // Receives at `there_`, at most `size` bytes, into bytes_ and descriptors_.
  absl::StatusOr<Transport::Received> Receive(
      size_t size, size_t max_descriptors = kMaxDescriptorsPerMessage,
      absl::Time deadline = absl::InfinitePast()) {
    descriptors_.clear();
    bytes_.assign(size, '?');
    absl::StatusOr<Transport::Received> received = there_->Receive(
        absl::MakeSpan(bytes_), max_descriptors, descriptors_, deadline);
    bytes_.resize(received.ok() ? received->bytes : 0);
    return received;
  }

  std::unique_ptr<Transport> here_;
  std::unique_ptr<Transport> there_;
  std::vector<char> bytes_;
  std::vector<FileDescriptor> descriptors_;
  const std::map<int, std::string> open_before_;
};

TEST_F(SocketTransportTest, ItsSocketsAreCloseOnExec) {
  EXPECT_EQ(fcntl(here_->descriptor(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(fcntl(there_->descriptor(), F_GETFD), FD_CLOEXEC);
}

TEST_F(SocketTransportTest, NeverGluesTheDescriptorsOfTwoSends) {
  const int fds[] = {0, 0, 0};
  ASSERT_THAT(here_->Send("aa", {}, absl::InfiniteFuture()), IsOk());
  ASSERT_THAT(here_->Send("bb", absl::MakeSpan(fds, 1), absl::InfinitePast()),
              IsOk());
  ASSERT_THAT(here_->Send("cc", absl::MakeSpan(fds, 2), absl::InfinitePast()),
              IsOk());
  ASSERT_THAT(here_->Send("dd", {}, absl::InfinitePast()), IsOk());
  // Bytes before descriptors come with them, those after them do not.
  ASSERT_THAT(Receive(100), IsOk());
  EXPECT_EQ(std::string(bytes_.begin(), bytes_.end()), "aabb");
  EXPECT_THAT(descriptors_, SizeIs(1));
  // They come with the first byte, whatever the room.
  ASSERT_THAT(Receive(1), IsOk());
  EXPECT_THAT(descriptors_, SizeIs(2));
  ASSERT_THAT(Receive(100), IsOk());
  EXPECT_EQ(std::string(bytes_.begin(), bytes_.end()), "cdd");
  EXPECT_THAT(descriptors_, IsEmpty());
}

TEST_F(SocketTransportTest, TakesNoDescriptorMoreThanItWasAskedTo) {
  const int fds[] = {0, 0, 0, 0};
  for (size_t max = 0; max <= 4; ++max) {
    ASSERT_THAT(here_->Send("x", fds, absl::InfinitePast()), IsOk());
    ASSERT_OK_AND_ASSIGN(const Transport::Received received, Receive(1, max));
    EXPECT_THAT(descriptors_, SizeIs(max));
    EXPECT_EQ(received.descriptors_truncated, max < 4);
    EXPECT_EQ(received.bytes, 1u);
  }
}

TEST_F(SocketTransportTest, WhatElseASocketTellsTakesNoDescriptorsPlace) {
  // A listener of systemd's may have set these (PassCredentials=, ...), and a
  // socket gets them from its listener. Not every kernel has all.
  for (const int option : {SO_PASSCRED, SO_PASSSEC, kPassPidfd}) {
    const int on = 1;
    (void)setsockopt(there_->descriptor(), SOL_SOCKET, option, &on, sizeof(on));
  }
  const std::vector<int> fds(253, 0);
  ASSERT_THAT(here_->Send("x", fds, absl::InfinitePast()), IsOk());
  ASSERT_OK_AND_ASSIGN(const Transport::Received received, Receive(1));
  EXPECT_THAT(descriptors_, SizeIs(253));
  EXPECT_FALSE(received.descriptors_truncated);
  // Not even the peer's pidfd stays open.
  descriptors_.clear();
  EXPECT_EQ(OpenDescriptors().size(), open_before_.size() + 2);
}

// The descriptors of a message come first. In a table that has room for them
// alone the kernel makes no pidfd, and gives an errno for its number.
TEST_F(SocketTransportTest, APidfdThatFindsNoRoomIsNoDescriptorThatWasLost) {
  const int on = 1;
  if (setsockopt(there_->descriptor(), SOL_SOCKET, kPassPidfd, &on,
                 sizeof(on)) != 0) {
    GTEST_SKIP() << "needs Linux 6.5";
  }
  const std::vector<int> fds(2, 0);
  ASSERT_THAT(here_->Send("x", fds, absl::InfinitePast()), IsOk());
  std::vector<FileDescriptor> taken;
  const int highest = OpenDescriptors().rbegin()->first;
  while (taken.empty() || taken.back().get() < highest) {
    ASSERT_OK_AND_ASSIGN(FileDescriptor next, FileDescriptor::DuplicateOf(0));
    taken.push_back(std::move(next));
  }
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit limit = before;
  limit.rlim_cur = static_cast<rlim_t>(taken.back().get()) + 1 + fds.size();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  const auto received = Receive(1);
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_THAT(received, IsOk());
  EXPECT_FALSE(received->descriptors_truncated);
  ASSERT_THAT(descriptors_, SizeIs(2));
  for (const FileDescriptor& descriptor : descriptors_) {
    EXPECT_EQ(fcntl(descriptor.get(), F_GETFD), FD_CLOEXEC);
  }
}

TEST_F(SocketTransportTest, RefusesMoreDescriptorsThanOneMessageCarries) {
  const std::vector<int> fds(254, 0);
  EXPECT_THAT(here_->Send("x", fds, absl::InfinitePast()),
              FailsWith(reason::kTooManyDescriptors));
  EXPECT_THAT(Receive(1), FailsWith(reason::kTimedOut));
  ASSERT_THAT(
      here_->Send("x", absl::MakeSpan(fds).first(253), absl::InfinitePast()),
      IsOk());
  // Asked for more than can be, it takes what can be.
  ASSERT_THAT(Receive(1, 100'000), IsOk());
  EXPECT_THAT(descriptors_, SizeIs(253));
}

// unix(7), ETOOMANYREFS: who is privileged may have any number; root of a user
// namespace, such as a sandbox's, is not, and may know no other user. Those of
// the user's other processes count, too.
TEST_F(SocketTransportTest, DescriptorsThatNobodyReadsAreAnErrorThatPasses) {
  const pid_t child = fork();
  if (child == 0) {
    constexpr uid_t kNobody = 65534;
    if (geteuid() == 0) (void)setresuid(kNobody, kNobody, kNobody);
    const rlimit few{2000, 2000};
    if (setrlimit(RLIMIT_NOFILE, &few) != 0) _exit(2);
    const std::vector<int> fds(30, 0);
    const auto send = [&] {
      return here_->Send("x", fds, absl::InfinitePast()).status();
    };
    absl::Status status;
    int sent = 0;
    for (; status.ok() && sent < 1000; ++sent) status = send();
    if (!HasReason(status, reason::kDescriptorsInFlight)) _exit(3);
    while (--sent > 0) {
      if (!Receive(1).ok()) _exit(4);
    }
    _exit(send().ok() ? 0 : 5);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
}

TEST_F(SocketTransportTest, DescriptorsTravelWithTheFirstOfAPartialSend) {
  const int fds[] = {0};
  const std::string large(8 << 20, 'x');
  ASSERT_OK_AND_ASSIGN(const size_t sent,
                       here_->Send(large, fds, absl::InfinitePast()));
  EXPECT_GT(sent, 0u);
  EXPECT_LT(sent, large.size());
  ASSERT_THAT(Receive(1), IsOk());
  EXPECT_THAT(descriptors_, SizeIs(1));
  while (true) {
    const auto received = Receive(1 << 20);
    if (!received.ok()) {
      EXPECT_THAT(received, FailsWith(reason::kTimedOut));
      break;
    }
    EXPECT_THAT(descriptors_, IsEmpty());
  }
}

TEST_F(SocketTransportTest, SendsPiecesAsOne) {
  const int fds[] = {0};
  const std::vector<std::string_view> pieces(kMaxPieces, "ab");
  ASSERT_OK_AND_ASSIGN(const size_t sent,
                       here_->SendPieces(pieces, fds, absl::InfinitePast()));
  EXPECT_EQ(sent, 2 * kMaxPieces);
  ASSERT_THAT(Receive(100), IsOk());
  EXPECT_EQ(bytes_.size(), 2 * kMaxPieces);
  EXPECT_EQ(std::string(bytes_.begin(), bytes_.begin() + 4), "abab");
  EXPECT_THAT(descriptors_, SizeIs(1));
}

TEST_F(SocketTransportTest, HasMoreRoomOnceMuchIsSent) {
  const auto room = [this] {
    int size = 0;
    socklen_t length = sizeof(size);
    EXPECT_EQ(
        getsockopt(here_->descriptor(), SOL_SOCKET, SO_SNDBUF, &size, &length),
        0);
    return size;
  };
  const auto ask_for = [this](int size) {
    EXPECT_EQ(setsockopt(here_->descriptor(), SOL_SOCKET, SO_SNDBUF, &size,
                         sizeof(size)),
              0);
  };
  ask_for(1 << 19);
  const int as_much_as_allowed = room();
  for (const bool in_pieces : {false, true}) {
    SetUp();
    ask_for(10'000);
    const int little = room();
    EXPECT_LT(little, as_much_as_allowed);
    ASSERT_THAT(here_->Send("x", {}, absl::InfinitePast()), IsOk());
    EXPECT_EQ(room(), little);
    const std::string half(1 << 20, 'x');
    const std::vector<std::string_view> pieces = {half, half};
    ASSERT_THAT(in_pieces ? here_->SendPieces(pieces, {}, absl::InfinitePast())
                          : here_->Send(half, {}, absl::InfinitePast()),
                IsOk());
    EXPECT_EQ(room(), as_much_as_allowed);
  }
  // What there is is not taken away.
  SetUp();
  ask_for(1 << 20);
  const int more = room();
  ASSERT_THAT(here_->Send(std::string(1 << 20, 'x'), {}, absl::InfinitePast()),
              IsOk());
  EXPECT_EQ(room(), more);
}

TEST_F(SocketTransportTest, SaysWhenThePeerHasClosed) {
  ASSERT_THAT(here_->Send("x", {}, absl::InfinitePast()), IsOk());
  here_.reset();
  ASSERT_OK_AND_ASSIGN(const Transport::Received last, Receive(10));
  EXPECT_EQ(last.bytes, 1u);
  EXPECT_FALSE(last.end_of_stream);
  ASSERT_OK_AND_ASSIGN(const Transport::Received end, Receive(10));
  EXPECT_EQ(end.bytes, 0u);
  EXPECT_TRUE(end.end_of_stream);
  EXPECT_THAT(there_->Send("x", {}, absl::InfiniteFuture()),
              FailsWith(reason::kConnectionLost));
}

TEST_F(SocketTransportTest, APeerThatDidNotReadAllIsLostNotEnded) {
  ASSERT_THAT(there_->Send("x", {}, absl::InfinitePast()), IsOk());
  ASSERT_THAT(here_->Send("y", {}, absl::InfinitePast()), IsOk());
  here_.reset();
  ASSERT_OK_AND_ASSIGN(const Transport::Received last, Receive(10));
  EXPECT_EQ(last.bytes, 1u);
  EXPECT_THAT(Receive(10), FailsWith(reason::kConnectionLost));
}

TEST_F(SocketTransportTest, SendingIntoAFullSocketTimesOut) {
  const std::string piece(1 << 16, 'x');
  absl::StatusOr<size_t> sent = 0;
  while (sent.ok()) sent = here_->Send(piece, {}, absl::InfinitePast());
  EXPECT_THAT(sent, FailsWith(reason::kTimedOut));
}

TEST_F(SocketTransportTest, AnInterruptedReceiveIsNoError) {
  // Repeated, so that one comes while the receive waits, whenever that begins.
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  struct sigaction before;
  ASSERT_EQ(sigaction(SIGALRM, &action, &before), 0);
  const itimerval often = {{0, 1000}, {0, 1000}};
  ASSERT_EQ(setitimer(ITIMER_REAL, &often, nullptr), 0);
  const auto received = Receive(1, 0, absl::InfiniteFuture());
  const itimerval never = {};
  setitimer(ITIMER_REAL, &never, nullptr);
  sigaction(SIGALRM, &before, nullptr);
  ASSERT_THAT(received, IsOk());
  EXPECT_EQ(received->bytes, 0u);
  EXPECT_FALSE(received->end_of_stream);
}

TEST_F(SocketTransportTest, ShutDownEndsBothDirectionsForBothEnds) {
  here_->ShutDown();
  ASSERT_OK_AND_ASSIGN(const Transport::Received received, Receive(1));
  EXPECT_TRUE(received.end_of_stream);
  EXPECT_THAT(here_->Send("x", {}, absl::InfinitePast()),
              FailsWith(reason::kConnectionLost));
  EXPECT_THAT(there_->Send("x", {}, absl::InfinitePast()),
              FailsWith(reason::kConnectionLost));
}

TEST_F(SocketTransportTest, KnowsItsPeer) {
  ASSERT_OK_AND_ASSIGN(const PeerCredentials peer, here_->Peer());
  EXPECT_EQ(peer.pid, getpid());
  EXPECT_EQ(peer.uid, geteuid());
  EXPECT_EQ(peer.gid, getegid());
}

}  // namespace
}  // namespace ward

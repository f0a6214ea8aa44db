// The room that simulated sockets have, against that of the kernel's: not to
// the byte, since kernels differ, but near enough for the same programs to get
// stuck. What else they have in common is parity_test's.

#include "ward/testing/simulator/simulated_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/socket_transport.h"
#include "ward/channel/transport.h"

namespace ward::testing {
namespace {

using ::testing::AllOf;
using ::testing::Ge;
using ::testing::Le;

// How many sends of one size fit, and how many must then be read until a
// waiting sender is woken.
struct Room {
  size_t fitting = 0;
  size_t until_woken = 0;
};

Room OfTheKernel(const std::string& bytes) {
  std::array<int, 2> ends;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                 ends.data()) != 0) {
    return {};
  }
  const FileDescriptor sender(ends[0]);
  const FileDescriptor receiver(ends[1]);
  // The kernel doubles it (socket(7)).
  const int size = SimulatedSocket::kCapacity / 2;
  EXPECT_EQ(
      setsockopt(sender.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
  Room room;
  while (send(sender.get(), bytes.data(), bytes.size(), 0) ==
         static_cast<ssize_t>(bytes.size())) {
    ++room.fitting;
  }
  std::string buffer(bytes.size(), '\0');
  pollfd polled = {sender.get(), POLLOUT, 0};
  while (poll(&polled, 1, 0) == 0) {
    if (recv(receiver.get(), buffer.data(), buffer.size(), 0) < 0) break;
    ++room.until_woken;
  }
  return room;
}

Room OfTheSimulation(const std::string& bytes) {
  const auto [sender, receiver] = SimulatedSocket::CreatePair({}, {});
  Room room;
  while (sender->Send(bytes, {}).bytes == bytes.size()) ++room.fitting;
  EXPECT_EQ(sender->Send(bytes, {}).error, EAGAIN);
  std::string buffer(bytes.size(), '\0');
  std::vector<FileDescriptor> none;
  while (!sender->Writable()) {
    const SimulatedSocket::Result got =
        receiver->Receive(absl::MakeSpan(buffer), 0, none);
    if (got.error != 0) break;
    ++room.until_woken;
  }
  sender->Close();
  receiver->Close();
  return room;
}

TEST(SimulatedSocket, HasAboutAsMuchRoomAsTheKernels) {
  const auto near = [](size_t expected) {
    const size_t slack = 1 + expected / 6;
    return AllOf(Ge(expected - slack), Le(expected + slack));
  };
  for (const size_t size : {1, 10, 100, 500, 1000, 3000, 5000, 10000, 30000}) {
    const std::string bytes(size, 'x');
    const Room real = OfTheKernel(bytes);
    const Room simulated = OfTheSimulation(bytes);
    ASSERT_GT(real.fitting, 1u);
    EXPECT_THAT(simulated.fitting, near(real.fitting)) << size << " bytes";
    EXPECT_THAT(simulated.until_woken, near(real.until_woken))
        << size << " bytes";
  }
}

TEST(SimulatedSocket, TakesNothingOfWhatIsNotRoomFor) {
  const auto [sender, receiver] = SimulatedSocket::CreatePair({}, {});
  const SimulatedSocket::Result sent =
      sender->Send(std::string(10'000'000, 'x'), {});
  EXPECT_EQ(sent.error, 0);
  EXPECT_THAT(sent.bytes, AllOf(Ge(SimulatedSocket::kCapacity / 2),
                                Le(2 * SimulatedSocket::kCapacity)));
  EXPECT_EQ(sender->Send("x", {}).error, EAGAIN);
  EXPECT_FALSE(sender->Writable());
  // To be told that sending fails is worth waking up for.
  receiver->Close();
  EXPECT_TRUE(sender->Writable());
  EXPECT_EQ(sender->Send("x", {}).error, EPIPE);
  sender->Close();
}

// Of a long transfer only the first piece has the descriptors, and a read ends
// with it (unix_stream_read_generic).
TEST(SimulatedSocket, BindsDescriptorsToTheFirstPiece) {
  const std::string bytes(100'000, 'x');
  const std::vector<int> one = {STDIN_FILENO};
  std::string buffer(2 * bytes.size(), '\0');

  ASSERT_TRUE(fcntl(STDIN_FILENO, F_GETFD) >= 0);
  auto ends = SocketTransport::CreatePair();
  ASSERT_TRUE(ends.ok()) << ends.status();
  std::vector<FileDescriptor> real_descriptors;
  const auto sent = ends->first->Send(bytes, one, absl::InfinitePast());
  ASSERT_TRUE(sent.ok()) << sent.status();
  const auto real = ends->second->Receive(
      absl::MakeSpan(buffer), 9, real_descriptors, absl::InfinitePast());
  ASSERT_TRUE(real.ok()) << real.status();
  EXPECT_LT(real->bytes, bytes.size());

  const auto [sender, receiver] = SimulatedSocket::CreatePair({}, {});
  ASSERT_EQ(sender->Send(bytes, one).bytes, bytes.size());
  std::vector<FileDescriptor> descriptors;
  SimulatedSocket::Result got =
      receiver->Receive(absl::MakeSpan(buffer), 9, descriptors);
  EXPECT_EQ(got.bytes, SimulatedSocket::kMostOfSegment);
  EXPECT_EQ(descriptors.size(), real_descriptors.size());
  got = receiver->Receive(absl::MakeSpan(buffer), 9, descriptors);
  EXPECT_EQ(got.bytes, bytes.size() - SimulatedSocket::kMostOfSegment);
  EXPECT_EQ(descriptors.size(), 1u);
  sender->Close();
  receiver->Close();
}

// A fault: both ends take the other one for gone, and lose nothing that they
// have not read yet.
TEST(SimulatedSocket, AResetLosesWhatTheOtherEndHasNotSentYet) {
  const auto [end, peer] = SimulatedSocket::CreatePair({}, {});
  ASSERT_EQ(end->Send("to the peer", {}).bytes, 11u);
  end->Reset();
  std::string buffer(100, '\0');
  std::vector<FileDescriptor> none;
  EXPECT_EQ(end->Receive(absl::MakeSpan(buffer), 0, none).error, ECONNRESET);
  EXPECT_EQ(end->Send("more", {}).error, EPIPE);
  EXPECT_EQ(peer->Receive(absl::MakeSpan(buffer), 0, none).bytes, 11u);
  EXPECT_TRUE(peer->Receive(absl::MakeSpan(buffer), 0, none).end_of_stream);
  EXPECT_EQ(peer->Send("more", {}).error, EPIPE);
  end->Close();
  peer->Close();
}

}  // namespace
}  // namespace ward::testing

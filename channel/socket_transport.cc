#include "ward/channel/socket_transport.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/posix_wait.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"

namespace ward {
namespace {

// Room for the control message with the most descriptors, and for others that
// come before and after it on a socket whose listener somebody else has set up
// (SO_PASSCRED, SO_PASSSEC, SO_PASSPIDFD): they must not take its place. A
// union, since cmsghdr must be aligned (cmsg(3)).
union ControlBuffer {
  cmsghdr header;
  char bytes[CMSG_SPACE(kMaxDescriptorsPerMessage * sizeof(int)) +
             CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(512) +
             CMSG_SPACE(sizeof(int))];
};

// What a socket has room for by default, or a little less; and where more is
// sent than that. Twice as much again is no faster, and a peer that does not
// read keeps it.
constexpr size_t kUsualRoom = size_t{200} << 10;
constexpr int kMoreRoom = 512 << 10;

constexpr std::string_view kSendAttempt = "send to the peer";

// SCM_PIDFD (Linux 6.5), which older headers lack.
constexpr int kScmPidfd = 4;

// MSG_DONTWAIT keeps a call with a deadline from blocking past it: even after
// poll(2) said ready, another holder of the socket may have been faster.
int WaitFlag(absl::Time deadline) {
  return deadline == absl::InfiniteFuture() ? 0 : MSG_DONTWAIT;
}

ssize_t SendMessage(int socket, absl::Span<const std::string_view> pieces,
                    absl::Span<const int> descriptors, int flags) {
  std::array<iovec, kMaxPieces> vector;
  for (size_t i = 0; i < pieces.size(); ++i) {
    // sendmsg(2) does not write through iov_base; its type serves recvmsg too.
    vector[i] = {const_cast<char*>(pieces[i].data()), pieces[i].size()};
  }
  msghdr message{};
  message.msg_iov = vector.data();
  message.msg_iovlen = pieces.size();
  ControlBuffer control;
  if (!descriptors.empty()) {
    const size_t size = descriptors.size() * sizeof(int);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(&control.header), descriptors.data(), size);
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(size);
  }
  return sendmsg(socket, &message, flags);
}

// Takes ownership of every descriptor in `message`, and appends them. False if
// there was no room for one that came as 0, 1 or 2.
bool TakeDescriptors(msghdr& message,
                     std::vector<FileDescriptor>& descriptors) {
  bool all = true;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET) continue;
    // A pidfd of the peer is a descriptor too, which nobody has asked for.
    std::vector<FileDescriptor> dropped;
    if (header->cmsg_type != SCM_RIGHTS && header->cmsg_type != kScmPidfd) {
      continue;
    }
    std::vector<FileDescriptor>& kept =
        header->cmsg_type == SCM_RIGHTS ? descriptors : dropped;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      FileDescriptor taken = FileDescriptor::Opened(fd);
      // A pidfd that the kernel could not make is a negative number.
      if (header->cmsg_type == SCM_RIGHTS) all = all && taken.is_open();
      if (taken.is_open()) kept.push_back(std::move(taken));
    }
  }
  return all;
}

}  // namespace

absl::StatusOr<
    std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>>>
SocketTransport::CreatePair() {
  std::array<int, 2> ends;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return SystemError(errno, "create two connected sockets (socketpair)");
  }
  FileDescriptor first = FileDescriptor::Opened(ends[0]);
  FileDescriptor second = FileDescriptor::Opened(ends[1]);
  if (!first.is_open() || !second.is_open()) {
    return SystemError(errno, "create two connected sockets (socketpair)");
  }
  return std::make_pair(std::make_unique<SocketTransport>(std::move(first)),
                        std::make_unique<SocketTransport>(std::move(second)));
}

absl::StatusOr<size_t> SocketTransport::Send(std::string_view bytes,
                                             absl::Span<const int> descriptors,
                                             absl::Time deadline) {
  if (!descriptors.empty()) {
    return SendPieces(absl::MakeConstSpan(&bytes, 1), descriptors, deadline);
  }
  MakeRoomFor(bytes.size());
  // Of a small message, sendmsg(2) takes a sixth longer.
  const ssize_t sent = send(socket_.get(), bytes.data(), bytes.size(),
                            MSG_NOSIGNAL | WaitFlag(deadline));
  if (sent >= 0) return static_cast<size_t>(sent);
  return NotSent(deadline);
}

absl::StatusOr<size_t> SocketTransport::SendPieces(
    absl::Span<const std::string_view> pieces,
    absl::Span<const int> descriptors, absl::Time deadline) {
  // The control buffer has room for no more.
  if (descriptors.size() > kMaxDescriptorsPerMessage) {
    return TooManyDescriptorsError(kSendAttempt);
  }
  pieces = pieces.subspan(0, kMaxPieces);
  size_t size = 0;
  for (const std::string_view piece : pieces) size += piece.size();
  MakeRoomFor(size);
  const ssize_t sent = SendMessage(socket_.get(), pieces, descriptors,
                                   MSG_NOSIGNAL | WaitFlag(deadline));
  if (sent >= 0) return static_cast<size_t>(sent);
  return NotSent(deadline);
}

absl::StatusOr<size_t> SocketTransport::NotSent(absl::Time deadline) const {
  if (errno == EINTR) return 0;
  if (errno != EAGAIN) return TransferError(errno, kSendAttempt);
  WARD_RETURN_IF_ERROR(Await(POLLOUT, deadline));
  return 0;
}

void SocketTransport::MakeRoomFor(size_t bytes) {
  if (bytes <= kUsualRoom || has_more_room_) return;
  has_more_room_ = true;
  // What the system or the user has given it stays. It says twice what it was
  // asked for (socket(7)).
  int room = 0;
  socklen_t size = sizeof(room);
  if (getsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &room, &size) != 0 ||
      room >= 2 * kMoreRoom) {
    return;
  }
  // Without it, the two wait for each other more often. The system may allow
  // less (net.core.wmem_max).
  setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &kMoreRoom,
             sizeof(kMoreRoom));
}

absl::StatusOr<Transport::Received> SocketTransport::Receive(
    absl::Span<char> buffer, size_t max_descriptors,
    std::vector<FileDescriptor>& descriptors, absl::Time deadline) {
  constexpr std::string_view kAttempt = "receive from the peer";
  iovec piece{buffer.data(), buffer.size()};
  ControlBuffer control;
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof(control);
  ssize_t got = -1;
  const auto receive = [&](int flags) {
    got = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | flags);
    return got >= 0 || errno != EAGAIN;
  };
  if (!spin_.has_value() ||
      !spin_->Until(deadline, [&] { return receive(MSG_DONTWAIT); })) {
    receive(WaitFlag(deadline));
  }
  if (got < 0) {
    if (errno == EINTR) return Received{};
    if (errno != EAGAIN) return TransferError(errno, kAttempt);
    WARD_RETURN_IF_ERROR(Await(POLLIN, deadline));
    return Received{};
  }
  const size_t had = descriptors.size();
  const bool taken = TakeDescriptors(message, descriptors);
  const bool too_many = descriptors.size() - had > max_descriptors;
  if (too_many) descriptors.resize(had + max_descriptors);
  Received received;
  received.bytes = static_cast<size_t>(got);
  received.end_of_stream = got == 0;
  received.descriptors_truncated =
      !taken || too_many || (message.msg_flags & MSG_CTRUNC) != 0;
  return received;
}

void SocketTransport::ShutDown() { shutdown(socket_.get(), SHUT_RDWR); }

void SocketTransport::ShutDownReceiving() { shutdown(socket_.get(), SHUT_RD); }

bool SocketTransport::HungUp() const {
  // It is told of without being asked for.
  pollfd polled{socket_.get(), 0, 0};
  return poll(&polled, 1, 0) > 0;
}

void SocketTransport::set_spin_time(absl::Duration time) {
  spin_.reset();
  if (time > absl::ZeroDuration()) spin_.emplace(time);
}

absl::StatusOr<PeerCredentials> SocketTransport::Peer() const {
  ucred credentials;
  socklen_t size = sizeof(credentials);
  if (getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) !=
      0) {
    return SystemError(errno, "ask who the peer is (SO_PEERCRED)");
  }
  return PeerCredentials{credentials.pid, credentials.uid, credentials.gid};
}

absl::Time SocketTransport::TimeNow() const { return MonotonicNow(); }

absl::Status SocketTransport::Await(int events, absl::Time deadline) const {
  pollfd polled{socket_.get(), static_cast<int16_t>(events), 0};
  WARD_ASSIGN_OR_RETURN(const int ready,
                        PollUntil(absl::MakeSpan(&polled, 1), deadline));
  if (ready > 0) return absl::OkStatus();
  return MakeError(reason::kTimedOut, events == POLLIN
                                          ? "the peer sent nothing in time"
                                          : "the peer read nothing in time");
}

}  // namespace ward

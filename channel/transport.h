// The seam under a channel: a connected stream of bytes that carries
// descriptors, as a Unix socket is (unix(7)).
//
// MessageChannel speaks to it and to nothing else; SocketTransport is the real
// one. Each call stands for one system call and may do less than it was asked:
// take some of the bytes, or none when it was interrupted. Repeating is the
// caller's work, so that a test can interrupt at every byte.

#ifndef WARD_CHANNEL_TRANSPORT_H_
#define WARD_CHANNEL_TRANSPORT_H_

#include <sys/types.h>

#include <cstddef>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"

namespace ward {

// The most descriptors that one sendmsg(2) carries: SCM_MAX_FD, which the
// kernel does not export.
inline constexpr size_t kMaxDescriptorsPerMessage = 253;

// The most pieces that one SendPieces takes.
inline constexpr size_t kMaxPieces = 16;

// Something that can be waited for until it is readable (poll(2), POLLIN).
class Pollable {
 public:
  virtual ~Pollable() = default;

  // The descriptor to poll; -1 in an environment that has none. Still owned by
  // this object.
  virtual int descriptor() const = 0;
};

// Who is at the other end, as the kernel saw it when the connection was made.
struct PeerCredentials {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

// One end of a connection; closes it when destroyed. One thread may send while
// another receives; ShutDown may be called from any thread at any time.
class Transport : public Pollable {
 public:
  // What one Receive has brought, beside the bytes and descriptors themselves.
  struct Received {
    // 0 without `end_of_stream`: interrupted, call again.
    size_t bytes = 0;
    bool end_of_stream = false;
    // Descriptors came that this process had no room for (MSG_CTRUNC): its
    // table is full, or they were more than were asked for. They are lost.
    bool descriptors_truncated = false;
  };

  // Sends a part of `bytes` (not empty), and waits until `deadline` for room.
  // `descriptors` (borrowed, at most kMaxDescriptorsPerMessage) travel with the
  // first byte: when the result is not 0 they are gone, when it is 0 nothing
  // happened. Never raises SIGPIPE.
  //
  // Errors: kConnectionLost, kTimedOut, kDescriptorsInFlight, and those of
  // SystemError.
  virtual absl::StatusOr<size_t> Send(std::string_view bytes,
                                      absl::Span<const int> descriptors,
                                      absl::Time deadline) = 0;

  // The same for what lies in several places: `pieces`, 1 to kMaxPieces of them
  // and none empty, are one sequence of bytes. A part of it may always be the
  // first piece alone, as here.
  virtual absl::StatusOr<size_t> SendPieces(
      absl::Span<const std::string_view> pieces,
      absl::Span<const int> descriptors, absl::Time deadline) {
    return Send(pieces.front(), descriptors, deadline);
  }

  // Receives at most `buffer.size()` (not 0) bytes, and waits until `deadline`
  // for the first. Appends the descriptors that came with them, at most
  // `max_descriptors` (no more than kMaxDescriptorsPerMessage), all
  // close-on-exec. They are those of one Send: where the bytes of a Send with
  // descriptors end, a Receive that has reached them ends too (unix(7)), and
  // the others' wait for the next one.
  //
  // Errors: as of Send.
  virtual absl::StatusOr<Received> Receive(
      absl::Span<char> buffer, size_t max_descriptors,
      std::vector<FileDescriptor>& descriptors, absl::Time deadline) = 0;

  // Ends both directions: a Send or Receive under way in another thread
  // returns, the peer sees the end of the stream (shutdown(2)).
  virtual void ShutDown() = 0;

  // Ends this direction alone, from any thread at any time: what has come can
  // be received, and then the end of the stream; the peer can send no more, but
  // receive (shutdown(2), SHUT_RD).
  virtual void ShutDownReceiving() = 0;

  // Whether nothing can go in either direction any more: the peer has closed
  // its end, or one of the two was shut down (poll(2), POLLHUP). Something may
  // still be there to receive. Never waits; from any thread.
  virtual bool HungUp() const = 0;

  // How long a Receive that has to wait may look again before it has the kernel
  // wake it; see Spin. Before the first Receive. Default, and where nothing
  // needs to be woken: not at all.
  virtual void set_spin_time(absl::Duration /*time*/) {}

  virtual absl::StatusOr<PeerCredentials> Peer() const = 0;

  // The clock of the deadlines above: monotonic, not the time of day.
  virtual absl::Time TimeNow() const = 0;

  // kTimedOut once `deadline` has passed.
  absl::Status CheckTime(absl::Time deadline) const;
};

// What a Send or Receive that failed with `error_number` returns.
absl::Status TransferError(int error_number, std::string_view attempt);

// kTooManyDescriptors: more than kMaxDescriptorsPerMessage in one Send.
absl::Status TooManyDescriptorsError(std::string_view attempt);

}  // namespace ward

#endif  // WARD_CHANNEL_TRANSPORT_H_

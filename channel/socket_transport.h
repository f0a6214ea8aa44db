// A Transport over a connected Unix stream socket.

#ifndef WARD_CHANNEL_SOCKET_TRANSPORT_H_
#define WARD_CHANNEL_SOCKET_TRANSPORT_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/spare_memory.h"
#include "ward/channel/spin.h"
#include "ward/channel/transport.h"

namespace ward {

// Without a deadline a call is one system call, blocking. With one it is tried
// without blocking first, and waited for only if that came too early: what a
// server reads has mostly come before its thread has woken.
class SocketTransport final : public Transport, public internal::InSpareMemory {
 public:
  // `socket` may be blocking or not.
  explicit SocketTransport(FileDescriptor socket)
      : socket_(std::move(socket)) {}

  // Two connected ends (socketpair(2)), close-on-exec.
  static absl::StatusOr<
      std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>>>
  CreatePair();

  int descriptor() const override { return socket_.get(); }
  absl::StatusOr<size_t> Send(std::string_view bytes,
                              absl::Span<const int> descriptors,
                              absl::Time deadline) override;
  absl::StatusOr<size_t> SendPieces(absl::Span<const std::string_view> pieces,
                                    absl::Span<const int> descriptors,
                                    absl::Time deadline) override;
  absl::StatusOr<Received> Receive(absl::Span<char> buffer,
                                   size_t max_descriptors,
                                   std::vector<FileDescriptor>& descriptors,
                                   absl::Time deadline) override;
  void ShutDown() override;
  void ShutDownReceiving() override;
  bool HungUp() const override;
  void set_spin_time(absl::Duration time) override;
  absl::StatusOr<PeerCredentials> Peer() const override;
  absl::Time TimeNow() const override;

 private:
  // What a Send returns that has failed with errno.
  absl::StatusOr<size_t> NotSent(absl::Time deadline) const;
  // Before a Send of so much.
  void MakeRoomFor(size_t bytes);
  // Waits for `events`, then lets the caller try again.
  absl::Status Await(int events, absl::Time deadline) const;

  FileDescriptor socket_;
  // More room was asked for already.
  bool has_more_room_ = false;
  // For Receive, if it does.
  std::optional<Spin> spin_;
};

}  // namespace ward

#endif  // WARD_CHANNEL_SOCKET_TRANSPORT_H_

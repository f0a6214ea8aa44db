// What a connection has no room for yet: for who does not wait.

#ifndef WARD_SERVER_OUTGOING_BUFFER_H_
#define WARD_SERVER_OUTGOING_BUFFER_H_

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"

namespace ward {

// Takes all that it is given to send, whatever the deadline, and keeps what its
// connection does not take at once, descriptors included, until Flush(). A Send
// does not tell that the peer has gone: who has learnt that may want to wait
// for its last word. As thread-safe as any Transport; Flush is a Send.
class OutgoingBuffer final : public Transport {
 public:
  explicit OutgoingBuffer(std::unique_ptr<Transport> connection)
      : connection_(std::move(connection)) {}
  ~OutgoingBuffer() override;

  // To be waited for, in a PollSet.
  const Transport& connection() const { return *connection_; }

  // Sends what can be sent now, and whether that was all. Errors: as of Send.
  absl::StatusOr<bool> Flush();

  // The peer takes no more.
  bool is_lost() const { return !lost_.ok(); }

  int descriptor() const override { return connection_->descriptor(); }
  absl::StatusOr<size_t> Send(std::string_view bytes,
                              absl::Span<const int> descriptors,
                              absl::Time deadline) override {
    return SendPieces(absl::MakeConstSpan(&bytes, 1), descriptors, deadline);
  }
  absl::StatusOr<size_t> SendPieces(absl::Span<const std::string_view> pieces,
                                    absl::Span<const int> descriptors,
                                    absl::Time deadline) override;
  absl::StatusOr<Received> Receive(absl::Span<char> buffer,
                                   size_t max_descriptors,
                                   std::vector<FileDescriptor>& descriptors,
                                   absl::Time deadline) override {
    return connection_->Receive(buffer, max_descriptors, descriptors, deadline);
  }
  void ShutDown() override { connection_->ShutDown(); }
  void ShutDownReceiving() override { connection_->ShutDownReceiving(); }
  bool HungUp() const override { return connection_->HungUp(); }
  absl::StatusOr<PeerCredentials> Peer() const override {
    return connection_->Peer();
  }
  absl::Time TimeNow() const override { return connection_->TimeNow(); }

 private:
  // One Send that was not taken whole.
  struct Piece {
    std::string bytes;
    std::vector<FileDescriptor> descriptors;
    size_t sent = 0;
  };

  // How much of it was taken, if only nothing.
  absl::StatusOr<size_t> SendNow(absl::Span<const std::string_view> pieces,
                                 absl::Span<const int> descriptors);

  const std::unique_ptr<Transport> connection_;
  std::deque<Piece> left_;
  absl::Status lost_;
};

}  // namespace ward

#endif  // WARD_SERVER_OUTGOING_BUFFER_H_

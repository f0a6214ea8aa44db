// A Transport without a socket: the test says what comes, in which pieces and
// with which interruptions, and sees what goes out. Its clock is the test's.

#ifndef WARD_CHANNEL_SCRIPTED_TRANSPORT_FOR_TEST_H_
#define WARD_CHANNEL_SCRIPTED_TRANSPORT_FOR_TEST_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"

namespace ward {

// What a ScriptedTransport does, and what was done to it. The test keeps it:
// the transport belongs to the channel.
struct Script {
  // What one Receive would bring, had it room enough. As in the kernel, it
  // never goes past the end of a piece, and that has descriptors of one Send
  // alone.
  struct Piece {
    std::string bytes;
    std::vector<FileDescriptor> descriptors;
    bool truncated = false;
    // The byte that they came with.
    size_t at = 0;
  };

  // --- set by the test ---

  std::deque<Piece> incoming;
  // After the last piece: the end of the stream, or this error.
  absl::Status after_last;

  // The most bytes that one call moves.
  size_t most_received = SIZE_MAX;
  size_t most_sent = SIZE_MAX;
  // Every call is interrupted once before it does something.
  bool interruptions = false;
  // How long every call takes.
  absl::Duration call_time = absl::ZeroDuration();
  // After this many bytes, Send fails with this.
  size_t sendable = SIZE_MAX;
  absl::Status send_error;

  absl::Time now = absl::UnixEpoch();

  // --- seen by the test ---

  std::string sent;
  size_t sends = 0;
  // Where in `sent` descriptors were attached, and their numbers.
  std::vector<std::pair<size_t, std::vector<int>>> attached;
  size_t receives = 0;
  // The largest room that a Receive was given: the channel's memory.
  size_t largest_room = 0;
  bool shut_down = false;
};

class ScriptedTransport final : public Transport {
 public:
  explicit ScriptedTransport(std::shared_ptr<Script> script)
      : script_(std::move(script)) {}

  int descriptor() const override { return -1; }

  absl::StatusOr<size_t> Send(std::string_view bytes,
                              absl::Span<const int> descriptors,
                              absl::Time deadline) override {
    if (bytes.empty()) return absl::InternalError("a Send of no bytes");
    return SendPieces(absl::MakeConstSpan(&bytes, 1), descriptors, deadline);
  }

  absl::StatusOr<size_t> SendPieces(absl::Span<const std::string_view> pieces,
                                    absl::Span<const int> descriptors,
                                    absl::Time deadline) override {
    if (pieces.size() > kMaxPieces) return absl::InternalError("many pieces");
    if (Interrupted()) return 0;
    script_->now += script_->call_time;
    if (script_->now > deadline) return TimedOut();
    const size_t left = script_->sendable - script_->sent.size();
    if (left == 0) return script_->send_error;
    const size_t before = script_->sent.size();
    if (!descriptors.empty()) {
      script_->attached.emplace_back(
          script_->sent.size(),
          std::vector<int>(descriptors.begin(), descriptors.end()));
    }
    for (const std::string_view piece : pieces) {
      if (piece.empty()) return absl::InternalError("a piece of no bytes");
      const size_t sent = script_->sent.size() - before;
      script_->sent.append(
          piece.substr(0, std::min(script_->most_sent, left) - sent));
    }
    ++script_->sends;
    return script_->sent.size() - before;
  }

  absl::StatusOr<Received> Receive(absl::Span<char> buffer,
                                   size_t max_descriptors,
                                   std::vector<FileDescriptor>& descriptors,
                                   absl::Time deadline) override {
    ++script_->receives;
    script_->largest_room = std::max(script_->largest_room, buffer.size());
    if (buffer.empty()) return absl::InternalError("a Receive into no room");
    script_->now += script_->call_time;
    if (Interrupted()) return Received{};
    // As the kernel, which is asked before it is waited for.
    if (script_->now > deadline && script_->incoming.empty()) return TimedOut();
    Received received;
    if (script_->incoming.empty()) {
      if (!script_->after_last.ok()) return script_->after_last;
      received.end_of_stream = true;
      return received;
    }
    Script::Piece& piece = script_->incoming.front();
    received.bytes =
        std::min({buffer.size(), piece.bytes.size(), script_->most_received});
    std::copy_n(piece.bytes.begin(), received.bytes, buffer.begin());
    piece.bytes.erase(0, received.bytes);
    if (piece.at < received.bytes) {
      received.descriptors_truncated =
          piece.truncated || piece.descriptors.size() > max_descriptors;
      piece.truncated = false;
      if (piece.descriptors.size() > max_descriptors) {
        piece.descriptors.resize(max_descriptors);
      }
      std::move(piece.descriptors.begin(), piece.descriptors.end(),
                std::back_inserter(descriptors));
      piece.descriptors.clear();
    }
    piece.at -= std::min(piece.at, received.bytes);
    if (piece.bytes.empty()) script_->incoming.pop_front();
    return received;
  }

  void ShutDownReceiving() override { script_->incoming.clear(); }
  bool HungUp() const override { return script_->shut_down; }
  void ShutDown() override { script_->shut_down = true; }

  absl::StatusOr<PeerCredentials> Peer() const override {
    return PeerCredentials();
  }

  absl::Time TimeNow() const override { return script_->now; }

 private:
  bool Interrupted() {
    if (!script_->interruptions) return false;
    interrupted_ = !interrupted_;
    return interrupted_;
  }

  absl::Status TimedOut() const {
    return MakeError(reason::kTimedOut, "the script's time is over");
  }

  const std::shared_ptr<Script> script_;
  bool interrupted_ = false;
};

}  // namespace ward

#endif  // WARD_CHANNEL_SCRIPTED_TRANSPORT_FOR_TEST_H_

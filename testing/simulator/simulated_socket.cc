#include "ward/testing/simulator/simulated_socket.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <iterator>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/numeric/bits.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"
#include "ward/testing/simulator/order.h"

namespace ward::testing {

std::pair<std::shared_ptr<SimulatedSocket>, std::shared_ptr<SimulatedSocket>>
SimulatedSocket::CreatePair(const PeerCredentials& first,
                            const PeerCredentials& second) {
  auto a = std::make_shared<SimulatedSocket>();
  auto b = std::make_shared<SimulatedSocket>();
  a->other_ = b;
  b->other_ = a;
  a->connection_ = b->connection_ = std::make_shared<int>(0);
  b->is_second_ = true;
  a->peer_credentials_ = second;
  b->peer_credentials_ = first;
  return {std::move(a), std::move(b)};
}

// A head of a page at the most, in one of the allocator's sizes; whole pages
// for the rest; and what describes them (sock_alloc_send_pskb).
size_t SimulatedSocket::Charge(size_t bytes) {
  constexpr size_t kDescription = 256;
  constexpr size_t kPage = 4096;
  constexpr size_t kHeadsEnd = 320;
  constexpr size_t kSmallestHead = 512;
  constexpr size_t kMostOfHead = kPage - kHeadsEnd;
  const auto whole_pages = [](size_t size) {
    return (size + kPage - 1) / kPage * kPage;
  };
  const size_t rest = bytes <= kMostOfHead
                          ? 0
                          : std::min(bytes, whole_pages(bytes - kMostOfHead));
  const size_t head = absl::bit_ceil(bytes - rest + kHeadsEnd);
  return kDescription + std::max(head, kSmallestHead) + whole_pages(rest);
}

SimulatedSocket::Result SimulatedSocket::Send(
    std::string_view bytes, absl::Span<const int> descriptors) {
  if (send_shut_ || other_ == nullptr || other_->receive_shut_) return {EPIPE};
  if (charged_ >= kCapacity) return {EAGAIN};
  std::vector<FileDescriptor> copies;
  for (const int fd : descriptors) {
    absl::StatusOr<FileDescriptor> copy = FileDescriptor::DuplicateOf(fd);
    // Only the simulation needs a free number for it.
    if (!copy.ok()) return {fcntl(fd, F_GETFD) < 0 ? EBADF : EMFILE};
    copies.push_back(*std::move(copy));
  }
  size_t sent = 0;
  while (sent < bytes.size() && charged_ < kCapacity) {
    Segment segment;
    segment.bytes.assign(bytes.substr(sent, kMostOfSegment));
    segment.descriptors = std::exchange(copies, {});
    sent += segment.bytes.size();
    charged_ += Charge(segment.bytes.size());
    other_->received_.push_back(std::move(segment));
  }
  // Who reads from it has seen all that was sent until then.
  Order::Release(other_.get());
  return {0, sent};
}

// Segments are read into one another, but not past one that had descriptors
// (unix_stream_read_generic).
SimulatedSocket::Result SimulatedSocket::Receive(
    absl::Span<char> buffer, size_t max_descriptors,
    std::vector<FileDescriptor>& descriptors) {
  if (received_.empty()) {
    if (reset_ || receive_shut_) Order::Acquire(this);
    if (std::exchange(reset_, false)) return {ECONNRESET};
    if (receive_shut_) return {0, 0, true};
    return {EAGAIN};
  }
  Order::Acquire(this);
  Result result;
  while (result.bytes < buffer.size() && !received_.empty()) {
    Segment& segment = received_.front();
    const size_t size = std::min(buffer.size() - result.bytes,
                                 segment.bytes.size() - segment.read);
    std::copy_n(segment.bytes.begin() + static_cast<ptrdiff_t>(segment.read),
                size, buffer.begin() + static_cast<ptrdiff_t>(result.bytes));
    result.bytes += size;
    segment.read += size;
    const bool had_descriptors = !segment.descriptors.empty();
    if (segment.descriptors.size() > max_descriptors) {
      result.descriptors_truncated = true;
      segment.descriptors.resize(max_descriptors);
    }
    std::move(segment.descriptors.begin(), segment.descriptors.end(),
              std::back_inserter(descriptors));
    segment.descriptors.clear();
    if (segment.read == segment.bytes.size()) {
      if (other_ != nullptr) other_->charged_ -= Charge(segment.bytes.size());
      received_.pop_front();
    }
    if (had_descriptors) break;
  }
  return result;
}

void SimulatedSocket::ShutDown() {
  Order::Release(this);
  Order::Release(other_.get());
  receive_shut_ = true;
  send_shut_ = true;
  if (other_ == nullptr) return;
  other_->receive_shut_ = true;
  other_->send_shut_ = true;
}

void SimulatedSocket::ShutDownReceiving() {
  Order::Release(this);
  receive_shut_ = true;
  if (other_ != nullptr) other_->send_shut_ = true;
}

void SimulatedSocket::Close() {
  if (std::exchange(closed_, true)) return;
  if (other_ != nullptr) {
    if (!received_.empty()) other_->reset_ = true;
    ShutDown();
    other_->other_ = nullptr;
    other_ = nullptr;
  }
  received_.clear();
}

void SimulatedSocket::Reset() {
  if (other_ == nullptr) return;
  reset_ = true;
  ShutDown();
}

bool SimulatedSocket::Writable() const {
  return send_shut_ || other_ == nullptr || other_->receive_shut_ ||
         charged_ <= kCapacity / 4;
}

bool SimulatedSocket::Readable() const {
  return !received_.empty() || receive_shut_ || reset_;
}

}  // namespace ward::testing

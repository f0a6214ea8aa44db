#include "ward/channel/receive_buffer.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "ward/channel/secret.h"
#include "ward/channel/spare_memory.h"

namespace ward {
namespace {

// A first piece that holds most messages whole. Each connection needs one.
constexpr size_t kFirstPiece = 4096;

// More than this is kept between two messages that need it only...
constexpr size_t kKeptBytes = size_t{64} << 10;

// ...and more than this is not. It takes more than one receive anyway: a socket
// holds less.
constexpr size_t kMostKeptBytes = size_t{256} << 10;

}  // namespace

void ReceiveBuffer::Swap(ReceiveBuffer& other) {
  std::swap(bytes_, other.bytes_);
  std::swap(begin_, other.begin_);
  std::swap(end_, other.end_);
  std::swap(last_frame_bytes_, other.last_frame_bytes_);
  std::swap(secret_, other.secret_);
  std::swap(share_, other.share_);
}

bool ReceiveBuffer::Reserve(size_t frame_bytes,
                            absl::FunctionRef<absl::Duration()> time_left) {
  if (begin_ > 0) {
    const size_t unread = size();
    std::memmove(bytes_.get(), bytes_.get() + begin_, unread);
    // What was moved must not stay where it was.
    const size_t stale = std::max(begin_, unread);
    ward::Wipe(bytes_.get() + stale, end_ - stale);
    begin_ = 0;
    end_ = unread;
  }
  if (end_ == 0 && capacity() > kKeptBytes && last_frame_bytes_ <= kKeptBytes) {
    Resize(kFirstPiece);
    share_.Release();
  } else if (end_ == capacity()) {
    // Doubled as bytes come, never sized by the length that the peer claims.
    const size_t larger =
        std::max(kFirstPiece, std::min(2 * capacity(), frame_bytes));
    if (larger > kMostKeptBytes && !share_.GrowTo(larger, time_left())) {
      return false;
    }
    Resize(larger);
  }
  return true;
}

ReceiveBuffer::Bytes ReceiveBuffer::Allocate(size_t capacity) {
  void* const memory = capacity == kFirstPiece ? internal::TakeSpare(capacity)
                                               : ::operator new(capacity);
  return {static_cast<char*>(memory), Free(capacity)};
}

void ReceiveBuffer::Free::operator()(char* bytes) const {
  if (capacity == kFirstPiece) return internal::GiveSpare(bytes, capacity);
  ::operator delete(bytes);
}

void ReceiveBuffer::Resize(size_t capacity) {
  Bytes other = Allocate(capacity);
  if (end_ > 0) std::memcpy(other.get(), bytes_.get(), end_);
  WipeUnread();
  bytes_ = std::move(other);
}

void ReceiveBuffer::Consume(size_t frame_bytes) {
  begin_ += frame_bytes;
  if (begin_ == end_) begin_ = end_ = 0;
  last_frame_bytes_ = frame_bytes;
}

void ReceiveBuffer::Release() {
  if (end_ > 0 || capacity() <= kMostKeptBytes) return;
  bytes_ = Bytes();
  share_.Release();
}

void ReceiveBuffer::Wipe(std::string_view part) {
  if (part.empty()) return;
  ward::Wipe(bytes_.get() + (part.data() - bytes_.get()), part.size());
}

void ReceiveBuffer::WipeUnread() {
  // A password that is not due lies near the start of its frame, as a peer of
  // ward's writes it; all of large frames is too dear to wipe for it.
  const size_t most = secret_ ? size() : std::min(size(), kKeptBytes);
  if (most > 0) ward::Wipe(bytes_.get() + begin_, most);
}

}  // namespace ward

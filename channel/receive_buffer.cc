#include "ward/channel/receive_buffer.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "ward/channel/frame.h"
#include "ward/channel/secret.h"
#include "ward/channel/spare_memory.h"

namespace ward {
namespace {

// More than this is kept between two messages that need it only...
constexpr size_t kKeptBytes = size_t{64} << 10;

// ...and more than this is not. It takes more than one receive anyway: a socket
// holds less.
constexpr size_t kMostKeptBytes = size_t{256} << 10;

}  // namespace

ReceivedScalar::~ReceivedScalar() {
  ward::Wipe(bytes.data(), std::min(end, kKeptBytes));
}

void ReceiveBuffer::Swap(ReceiveBuffer& other) {
  std::swap(bytes_, other.bytes_);
  std::swap(begin_, other.begin_);
  std::swap(end_, other.end_);
  std::swap(last_frame_bytes_, other.last_frame_bytes_);
  std::swap(scalar_, other.scalar_);
  std::swap(secret_, other.secret_);
  std::swap(share_, other.share_);
}

bool ReceiveBuffer::Reserve(size_t frame_bytes,
                            absl::FunctionRef<absl::Duration()> time_left) {
  if (scalar_comes()) return ReserveForScalar(time_left);
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

void ReceiveBuffer::ReceiveApart(ScalarPlace place, std::string& memory) {
  const std::string_view come = unread().substr(place.begin);
  scalar_ = std::make_unique<ReceivedScalar>();
  scalar_->size = place.size;
  scalar_->head_bytes = place.begin - place.tag;
  scalar_->bytes.swap(memory);
  if (scalar_->bytes.size() < come.size()) scalar_->bytes.resize(come.size());
  scalar_->end = scalar_->room = come.copy(scalar_->bytes.data(), come.size());
  Wipe(come);
  end_ = begin_ + place.tag;
}

bool ReceiveBuffer::ReserveForScalar(
    absl::FunctionRef<absl::Duration()> time_left) {
  ReceivedScalar& scalar = *scalar_;
  if (scalar.end < scalar.room) return true;
  std::string& bytes = scalar.bytes;
  // Doubled as bytes come, too; what the string has already costs nothing.
  const size_t larger = std::min(
      scalar.size, std::max({kFirstPiece, 2 * scalar.end,
                             std::min(bytes.capacity(), kMostKeptBytes)}));
  const size_t counted = capacity() > kMostKeptBytes ? capacity() : 0;
  if (larger > kMostKeptBytes &&
      !share_.GrowTo(counted + larger, time_left())) {
    return false;
  }
  if (bytes.size() < larger) {
    // What has come is copied half as often, and nothing touches the rest.
    if (bytes.capacity() < larger) {
      ReceivedScalar other;
      other.bytes.reserve(std::min(scalar.size, 2 * larger));
      other.bytes.assign(scalar.received());
      other.bytes.swap(bytes);
      other.end = scalar.end;
    }
    bytes.resize(larger);
  }
  scalar.room = larger;
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

void ReceiveBuffer::ReleaseMuch() {
  // Of a frame that is under way nothing goes.
  if (scalar_ != nullptr) return;
  if (end_ == 0 && capacity() > kMostKeptBytes) bytes_ = Bytes();
  // A scalar's share is over, also with more behind it.
  if (capacity() <= kMostKeptBytes) share_.Release();
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

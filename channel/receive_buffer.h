// The bytes that a channel has received and not yet read.

#ifndef WARD_CHANNEL_RECEIVE_BUFFER_H_
#define WARD_CHANNEL_RECEIVE_BUFFER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/buffer_budget.h"
#include "ward/channel/frame.h"

namespace ward {

// A large scalar that comes into a string of its own, so that it is copied
// neither as more of it comes nor when it has come. Wipes what it drops, as
// ReceiveBuffer does.
struct ReceivedScalar {
  ReceivedScalar() = default;
  ReceivedScalar(const ReceivedScalar&) = delete;
  ReceivedScalar& operator=(const ReceivedScalar&) = delete;
  ~ReceivedScalar();

  std::string_view received() const { return {bytes.data(), end}; }
  // What has come of it, and all of it, with tag and length.
  size_t wire_begin() const { return head_bytes + end; }
  size_t wire_bytes() const { return head_bytes + size; }
  bool whole() const { return end == size; }

  std::string bytes;
  size_t size = 0;
  // bytes[0, end) have come; there is room up to `room`.
  size_t end = 0;
  size_t room = 0;
  // What tag and length had.
  size_t head_bytes = 0;
};

// Wipes what it drops unread: a peer may have sent a password in it, if only
// by mistake. Move-only; empty after it was moved from. Not thread-safe.
class ReceiveBuffer {
 public:
  ReceiveBuffer() = default;
  ReceiveBuffer(ReceiveBuffer&& other) noexcept { Swap(other); }
  ReceiveBuffer& operator=(ReceiveBuffer&& other) noexcept {
    ReceiveBuffer taken(std::move(other));
    Swap(taken);
    return *this;
  }
  ~ReceiveBuffer() { WipeUnread(); }

  std::string_view unread() const { return {bytes_.get() + begin_, size()}; }
  size_t size() const { return end_ - begin_; }

  // Makes room for at least one more byte of a frame of `frame_bytes`, which
  // begins with the first unread one, less the scalar() that it has; 0 if its
  // size is not known yet. For much it waits for its share of the budget,
  // `time_left()` at most; false when that is over. Invalidates what unread()
  // returned.
  bool Reserve(size_t frame_bytes,
               absl::FunctionRef<absl::Duration()> time_left);

  // Where the next bytes go.
  absl::Span<char> room() {
    if (scalar_comes()) {
      return {scalar_->bytes.data() + scalar_->end,
              scalar_->room - scalar_->end};
    }
    return {bytes_.get() + end_, capacity() - end_};
  }

  // That many of room() have come.
  void Received(size_t size) { (scalar_comes() ? scalar_->end : end_) += size; }

  // The scalar at `place`, of which unread() has the beginning, and nothing
  // behind it, moves into `memory`, which is empty then, and so does its rest
  // as it comes. It is no part of unread() any more, nor are its tag and
  // length.
  void ReceiveApart(ScalarPlace place, std::string& memory);
  // Null if there is none.
  const ReceivedScalar* scalar() const { return scalar_.get(); }
  std::unique_ptr<ReceivedScalar> TakeScalar() { return std::move(scalar_); }

  // The first unread ones, a frame, have been read. They stay where they are
  // until Reserve.
  void Consume(size_t frame_bytes);

  // Gives back the memory of a large frame, unless there is more to read.
  void Release() {
    if (capacity() > kFirstPiece || !share_.empty()) ReleaseMuch();
  }

  // Overwrites `part` of unread().
  void Wipe(std::string_view part);

  // What it keeps between two frames is not counted.
  void set_budget(const std::shared_ptr<BufferBudget>& budget) {
    if (share_.budget() != budget) share_ = BufferBudget::Share(budget);
  }

  // All of unread() may be secret, and not only its beginning.
  void set_secret(bool secret) { secret_ = secret; }

 private:
  // A first piece that holds most messages whole. Each connection needs one.
  static constexpr size_t kFirstPiece = 4096;

  void ReleaseMuch();
  bool scalar_comes() const { return scalar_ != nullptr && !scalar_->whole(); }
  bool ReserveForScalar(absl::FunctionRef<absl::Duration()> time_left);
  void WipeUnread();
  void Swap(ReceiveBuffer& other);
  void Resize(size_t capacity);

  struct Free {
    Free() : Free(0) {}
    explicit Free(size_t size) : capacity(size) {}
    void operator()(char* bytes) const;

    size_t capacity;
  };
  using Bytes = std::unique_ptr<char[], Free>;
  static Bytes Allocate(size_t capacity);
  size_t capacity() const { return bytes_.get_deleter().capacity; }

  // Unread: bytes_[begin_, end_).
  Bytes bytes_;
  size_t begin_ = 0;
  size_t end_ = 0;
  size_t last_frame_bytes_ = 0;
  std::unique_ptr<ReceivedScalar> scalar_;
  bool secret_ = false;
  BufferBudget::Share share_;
};

}  // namespace ward

#endif  // WARD_CHANNEL_RECEIVE_BUFFER_H_

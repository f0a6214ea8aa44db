// What a client and a server that were written by hand say to each other: a
// length, and as many bytes. Private to the two.

#ifndef WARD_BENCHMARKS_FLOOR_WIRE_H_
#define WARD_BENCHMARKS_FLOOR_WIRE_H_

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

namespace ward::floor {

using Length = uint32_t;

// What a request asks for; and whether the server is to close the connection
// once it has answered: then neither side waits for the other one to do so.
struct Request {
  enum class Kind : uint8_t { kHello, kDescriptor, kScalar };
  Kind kind;
  bool keep;
};

// All messages but scalars are this small. The memory that is touched for one
// is a page of each thread's stack.
constexpr size_t kMostBytes = 512;
using Buffer = std::array<char, kMostBytes>;

// A message that is written into a buffer.
class Writer {
 public:
  template <typename Value>
  void Put(const Value& value) {
    PutBytes(&value, sizeof(value));
  }
  void PutString(std::string_view text) {
    Put(static_cast<Length>(text.size()));
    PutBytes(text.data(), text.size());
  }
  void PutBytes(const void* bytes, size_t size) {
    fits_ = fits_ && size <= buffer_.size() - size_;
    if (!fits_) return;
    std::memcpy(buffer_.data() + size_, bytes, size);
    size_ += size;
  }

  // False, and errno, as all that can fail here.
  bool Send(int socket) {
    if (!fits_) {
      errno = EMSGSIZE;
      return false;
    }
    const auto length = static_cast<Length>(size_ - sizeof(Length));
    std::memcpy(buffer_.data(), &length, sizeof(length));
    // Shorter than what a socket has room for: all of it, or none.
    ssize_t sent;
    do {
      sent = send(socket, buffer_.data(), size_, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent == static_cast<ssize_t>(size_);
  }

 private:
  Buffer buffer_;
  size_t size_ = sizeof(Length);
  bool fits_ = true;
};

// Takes a message apart.
class Reader {
 public:
  explicit Reader(std::string_view message) : rest_(message) {}

  template <typename Value>
  bool Get(Value& value) {
    std::string_view bytes;
    if (!GetBytes(sizeof(value), bytes)) return false;
    std::memcpy(&value, bytes.data(), sizeof(value));
    return true;
  }
  bool GetString(std::string_view& text) {
    Length size = 0;
    return Get(size) && GetBytes(size, text);
  }
  bool GetBytes(size_t size, std::string_view& bytes) {
    if (size > rest_.size()) {
      errno = EBADMSG;
      return false;
    }
    bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }

 private:
  std::string_view rest_;
};

// The next message, in `buffer`; none when the peer has left. There is no more
// behind it: whoever has asked waits for the answer.
inline std::optional<std::string_view> Receive(int socket, Buffer& buffer) {
  size_t size = 0;
  while (true) {
    const ssize_t got =
        recv(socket, buffer.data() + size, buffer.size() - size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = ECONNRESET;
    if (got <= 0) return std::nullopt;
    size += static_cast<size_t>(got);
    if (size < sizeof(Length)) continue;
    Length length;
    std::memcpy(&length, buffer.data(), sizeof(length));
    const size_t whole = sizeof(Length) + length;
    if (whole > buffer.size() || size > whole) {
      errno = EBADMSG;
      return std::nullopt;
    }
    if (size == whole) {
      return std::string_view(buffer.data() + sizeof(Length), length);
    }
  }
}

// Whether the process at the other end is this user's, or root's.
inline bool IsTrusted(int socket, uid_t user) {
  ucred peer;
  socklen_t size = sizeof(peer);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return false;
  }
  if (peer.uid == user || peer.uid == 0) return true;
  errno = EPERM;
  return false;
}

}  // namespace ward::floor

#endif  // WARD_BENCHMARKS_FLOOR_WIRE_H_

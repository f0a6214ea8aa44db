#include "ward/benchmarks/floor/connection.h"

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "ward/benchmarks/floor/server.h"
#include "ward/benchmarks/floor/wire.h"

namespace ward::floor {

Connection::Connection(const Address& address, bool keep)
    : address_(address), keep_(keep) {
  static const uid_t kUser = geteuid();
  socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_ < 0) return;
  // The password is not for everyone who listens.
  if (connect(socket_, reinterpret_cast<const sockaddr*>(&address.name),
              sizeof(address.name)) == 0 &&
      IsTrusted(socket_, kUser)) {
    return;
  }
  const int error = errno;
  close(socket_);
  errno = error;
  socket_ = -1;
}

Connection::~Connection() {
  if (socket_ >= 0) close(socket_);
}

bool Connection::Hello(std::string_view first, std::string_view last,
                       std::string& text, int32_t& number) {
  Writer request;
  Begin(request, Request::Kind::kHello);
  request.PutString(first);
  request.PutString(last);
  if (!request.Send(socket_)) return false;
  Buffer buffer;
  const std::optional<std::string_view> message = Receive(socket_, buffer);
  if (!message.has_value()) return false;
  Reader reply(*message);
  std::string_view bytes;
  if (!reply.Get(number) || !reply.GetString(bytes)) return false;
  text = bytes;
  return true;
}

bool Connection::Descriptor(int& descriptor) {
  Writer request;
  Begin(request, Request::Kind::kDescriptor);
  if (!request.Send(socket_)) return false;
  Length length = 1;
  iovec part = {&length, sizeof(length)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control;
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got;
  do {
    got = recvmsg(socket_, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return false;
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (got != sizeof(length) || length != 0 || header == nullptr ||
      header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(sizeof(int))) {
    errno = got == 0 ? ECONNRESET : EBADMSG;
    return false;
  }
  std::memcpy(&descriptor, CMSG_DATA(header), sizeof(descriptor));
  return true;
}

bool Connection::Scalar(std::string& bytes) {
  Writer request;
  Begin(request, Request::Kind::kScalar);
  if (!request.Send(socket_)) return false;
  // Into where the last one was: this one has as many bytes, as a rule.
  Length length = 0;
  size_t size = 0;
  while (size < sizeof(length)) {
    std::array<iovec, 2> parts = {
        {{reinterpret_cast<char*>(&length) + size, sizeof(length) - size},
         {bytes.data(), bytes.size()}}};
    const ssize_t got = readv(socket_, parts.data(), parts.size());
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = ECONNRESET;
    if (got <= 0) return false;
    size += static_cast<size_t>(got);
  }
  size -= sizeof(length);
  if (size > length) {
    errno = EBADMSG;
    return false;
  }
  bytes.resize(length);
  while (size < length) {
    const ssize_t got =
        recv(socket_, bytes.data() + size, length - size, MSG_WAITALL);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = ECONNRESET;
    if (got <= 0) return false;
    size += static_cast<size_t>(got);
  }
  return true;
}

void Connection::Begin(Writer& writer, Request::Kind kind) {
  if (is_new_) {
    writer.PutBytes(address_.password.data(), address_.password.size());
  }
  is_new_ = false;
  writer.Put(Request{kind, keep_});
}

}  // namespace ward::floor

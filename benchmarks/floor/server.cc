#include "ward/benchmarks/floor/server.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "ward/benchmarks/floor/wire.h"

namespace ward::floor {
namespace {

constexpr int kQueueLength = 128;

// A thread needs no more for a call.
constexpr size_t kStackBytes = size_t{64} << 10;

// What a socket holds: by default, and where much is sent, if the system allows
// that.
constexpr size_t kUsualRoom = size_t{200} << 10;
constexpr int kLargeRoom = 1 << 20;

// Memory is behind the first: no disk takes its time for the socket's name.
constexpr std::array<std::string_view, 2> kDirectories = {"/dev/shm", "/tmp"};

bool FillWithDigits(Password& password) {
  std::array<uint8_t, sizeof(Password) / 2> bytes;
  if (getrandom(bytes.data(), bytes.size(), 0) !=
      static_cast<ssize_t>(bytes.size())) {
    return false;
  }
  constexpr std::string_view kDigits = "0123456789abcdef";
  auto* digit = password.begin();
  for (const uint8_t byte : bytes) {
    *digit++ = kDigits[byte >> 4U];
    *digit++ = kDigits[byte & 0xfU];
  }
  return true;
}

// Takes the same time wherever they differ.
bool Matches(std::string_view attempt, const Password& password) {
  uint8_t difference = 0;
  for (size_t i = 0; i < password.size(); ++i) {
    difference |= static_cast<uint8_t>(attempt[i] ^ password[i]);
  }
  return difference == 0;
}

bool SendHello(int client, Reader& request) {
  std::string_view first;
  std::string_view last;
  if (!request.GetString(first) || !request.GetString(last)) return false;
  constexpr std::string_view kHello = "Hello ";
  constexpr std::string_view kHowAreYou = ", how are you?";
  Writer reply;
  reply.Put(int32_t{1234});
  reply.Put(static_cast<Length>(kHello.size() + first.size() + 1 + last.size() +
                                kHowAreYou.size()));
  reply.PutBytes(kHello.data(), kHello.size());
  reply.PutBytes(first.data(), first.size());
  reply.Put(' ');
  reply.PutBytes(last.data(), last.size());
  reply.PutBytes(kHowAreYou.data(), kHowAreYou.size());
  return reply.Send(client);
}

// A message of no bytes.
bool SendDescriptor(int client, int descriptor) {
  Length length = 0;
  iovec part = {&length, sizeof(length)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control;
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof(descriptor));
  return sendmsg(client, &message, MSG_NOSIGNAL) == sizeof(length);
}

bool SendScalar(int client, std::string_view scalar) {
  // The two wait for each other less often; with more, memory is cold.
  if (scalar.size() > kUsualRoom) {
    setsockopt(client, SOL_SOCKET, SO_SNDBUF, &kLargeRoom, sizeof(kLargeRoom));
  }
  auto length = static_cast<Length>(scalar.size());
  std::array<iovec, 2> parts = {
      {{&length, sizeof(length)},
       // sendmsg(2) only reads it.
       {const_cast<char*>(scalar.data()), scalar.size()}}};
  msghdr message = {};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  size_t left = sizeof(length) + scalar.size();
  while (true) {
    const ssize_t sent = sendmsg(client, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    left -= static_cast<size_t>(sent);
    if (left == 0) return true;
    // Only a signal leaves something; the length has gone then.
    parts[1].iov_base = const_cast<char*>(scalar.data() + scalar.size() - left);
    parts[1].iov_len = left;
    message.msg_iov = &parts[1];
    message.msg_iovlen = 1;
  }
}

// The server's threads.
class Pool {
 public:
  Pool(int listener, const Password& password, std::string_view scalar)
      : listener_(listener), password_(password), scalar_(scalar) {
    pthread_attr_init(&attributes_);
    pthread_attr_setstacksize(&attributes_, kStackBytes);
    pthread_attr_setdetachstate(&attributes_, PTHREAD_CREATE_DETACHED);
  }

  // A thread's life.
  [[noreturn]] void Work() {
    while (true) {
      const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) continue;
      // Somebody waits for the next one. Who has waited once stays.
      if (--idle_ == 0) AddThread();
      Serve(client);
      close(client);
      ++idle_;
    }
  }

 private:
  void AddThread() {
    ++idle_;
    pthread_t thread;
    const int error = pthread_create(
        &thread, &attributes_,
        [](void* pool) -> void* { static_cast<Pool*>(pool)->Work(); }, this);
    if (error != 0) abort();
  }

  void Serve(int client) const {
    if (!IsTrusted(client, user_)) return;
    Buffer buffer;
    bool is_known = false;
    while (const std::optional<std::string_view> message =
               Receive(client, buffer)) {
      Reader reader(*message);
      if (!is_known) {
        std::string_view attempt;
        is_known = reader.GetBytes(password_.size(), attempt) &&
                   Matches(attempt, password_);
        if (!is_known) return;
      }
      Request request;
      if (!reader.Get(request)) return;
      if (!Answer(client, request.kind, reader) || !request.keep) return;
    }
  }

  bool Answer(int client, Request::Kind kind, Reader& request) const {
    switch (kind) {
      case Request::Kind::kHello:
        return SendHello(client, request);
      case Request::Kind::kDescriptor:
        return SendDescriptor(client, descriptor_);
      case Request::Kind::kScalar:
        return SendScalar(client, scalar_);
    }
    return false;
  }

  const int listener_;
  const Password& password_;
  const std::string_view scalar_;
  const uid_t user_ = geteuid();
  // The one that is given away.
  const int descriptor_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
  pthread_attr_t attributes_;
  // Of those that accept, or are about to.
  std::atomic<int> idle_{1};
};

}  // namespace

bool Server::Start() {
  for (const std::string_view parent : kDirectories) {
    directory_ = std::string(parent) + "/ward-floor-XXXXXX";
    if (mkdtemp(directory_.data()) != nullptr) break;
    directory_.clear();
  }
  if (directory_.empty() || !FillWithDigits(address_.password)) return false;
  address_.name.sun_family = AF_UNIX;
  const std::string path = directory_ + "/socket";
  std::fill(std::copy(path.begin(), path.end(), address_.name.sun_path),
            std::end(address_.name.sun_path), '\0');
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) return false;
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address_.name),
           sizeof(address_.name)) != 0 ||
      listen(listener, kQueueLength) != 0) {
    close(listener);
    return false;
  }
  const pid_t owner = getpid();
  const pid_t child = fork();
  if (child == 0) Serve(listener, owner);
  close(listener);
  if (child < 0) return false;
  pid_ = child;
  return true;
}

bool Server::Stop() {
  if (pid_ != 0) kill(pid_, SIGKILL);
  if (!directory_.empty()) {
    unlink(address_.name.sun_path);
    rmdir(directory_.c_str());
    directory_.clear();
  }
  if (pid_ == 0) return true;
  const bool ended = waitpid(pid_, nullptr, 0) == pid_;
  pid_ = 0;
  return ended;
}

void Server::Serve(int listener, pid_t owner) const {
  // The kernel ends it with its owner's thread; it may have ended already.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != owner) _exit(1);
  Pool pool(listener, address_.password, scalar_);
  pool.Work();
}

}  // namespace ward::floor

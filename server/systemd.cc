#include "ward/server/systemd.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/base/log_severity.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/server/posix/allocator.h"

namespace ward {
namespace {

// SD_LISTEN_FDS_START of sd_listen_fds(3).
constexpr int kFirstSocket = 3;

// How long the service manager may leave its queue full.
constexpr timeval kNotifyWithin = {2, 0};

// getenv(3) and unsetenv(3) are unsafe beside other threads, of which main()
// has none yet. NOLINTBEGIN(concurrency-mt-unsafe)
std::string Variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string TakeVariable(const char* name) {
  std::string value = Variable(name);
  unsetenv(name);
  return value;
}
// NOLINTEND(concurrency-mt-unsafe)

absl::Status NoSocket(std::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat(
      "take the socket that systemd has passed: ", why,
      "; start this with systemctl, and write one ListenStream=/run/... into "
      "its .socket unit"));
}

// The path that `socket` is bound to; empty if it is none, or has none.
std::string PathOf(int socket) {
  sockaddr_un address{};
  socklen_t size = sizeof(address);
  int type = 0;
  socklen_t type_size = sizeof(type);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      address.sun_family != AF_UNIX ||
      size <= offsetof(sockaddr_un, sun_path) ||
      getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &type_size) != 0 ||
      type != SOCK_STREAM) {
    return "";
  }
  // An abstract name begins with a NUL.
  return {address.sun_path,
          strnlen(address.sun_path, size - offsetof(sockaddr_un, sun_path))};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> SystemdListener(
    Environment& environment) {
  const std::string for_process = TakeVariable("LISTEN_PID");
  const std::string count = TakeVariable("LISTEN_FDS");
  (void)TakeVariable("LISTEN_FDNAMES");
  if (for_process.empty() || count.empty()) {
    return NoSocket("LISTEN_PID or LISTEN_FDS is not set");
  }
  // Inherited from a process that did not take them out.
  if (for_process != absl::StrCat(environment.ProcessId())) {
    return NoSocket(absl::StrCat("it is for process ", for_process));
  }
  if (count != "1") return NoSocket(absl::StrCat("there are ", count));
  ListenerParts parts;
  parts.socket.Reset(kFirstSocket);
  if (fcntl(kFirstSocket, F_SETFD, FD_CLOEXEC) != 0) {
    (void)parts.socket.Release();
    return NoSocket("descriptor 3 is not open");
  }
  parts.path = PathOf(kFirstSocket);
  if (parts.path.empty()) {
    return NoSocket("descriptor 3 is no Unix stream socket with a path");
  }
  return environment.AdoptListener(std::move(parts), environment.UserId());
}

absl::Status NotifySystemd(std::string_view state) {
  const std::string path = Variable("NOTIFY_SOCKET");
  if (path.empty()) return absl::OkStatus();
  const std::string attempt =
      absl::StrCat("notify the service manager at ", path);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return SystemError(ENAMETOOLONG, attempt);
  }
  path.copy(address.sun_path, path.size());
  // As in /proc/net/unix, "@" stands for the NUL of an abstract name.
  if (path.front() == '@') address.sun_path[0] = '\0';
  const FileDescriptor socket =
      FileDescriptor::Opened(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.is_open() ||
      setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &kNotifyWithin,
                 sizeof(kNotifyWithin)) != 0 ||
      sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL,
             reinterpret_cast<const sockaddr*>(&address),
             static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) +
                                    path.size())) < 0) {
    const std::string_view why =
        errno == EAGAIN ? ", which has not read what was sent before" : "";
    return SystemError(errno, absl::StrCat(attempt, why));
  }
  return absl::OkStatus();
}

absl::StatusOr<Secret> SystemdCredential(std::string_view name) {
  constexpr size_t kMost = 4096;
  const std::string directory = Variable("CREDENTIALS_DIRECTORY");
  const std::string path = absl::StrCat(directory, "/", name);
  const FileDescriptor file = FileDescriptor::Opened(
      directory.empty() ? -1 : open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.is_open()) {
    return absl::NotFoundError(absl::StrCat(
        "there is no credential \"", name, "\" (", path,
        "); write LoadCredential=", name, ":/etc/... into the .service unit"));
  }
  std::array<char, kMost + 2> bytes;
  const ssize_t got = read(file.get(), bytes.data(), bytes.size());
  if (got < 0) return SystemError(errno, absl::StrCat("read ", path));
  std::string_view content(bytes.data(), static_cast<size_t>(got));
  if (absl::EndsWith(content, "\n")) content.remove_suffix(1);
  if (content.empty() || content.size() > kMost) {
    Wipe(bytes.data(), bytes.size());
    return absl::InvalidArgumentError(absl::StrCat(
        "the credential in ", path, " has no byte, or over ", kMost));
  }
  Secret secret(content);
  Wipe(bytes.data(), bytes.size());
  return secret;
}

absl::Status ServeForSystemd(AbstractServer& server, Environment& environment) {
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<Listener> listener,
                        SystemdListener(environment));
  // A service's process is its server's. No thread of ward's runs yet.
  ReturnFreeMemory();
  // The owner is systemd, which ends the server by SIGTERM: this end of the
  // pair stays open, and only hears that the server is ready.
  WARD_ASSIGN_OR_RETURN(auto ends, environment.CreateTransportPair());
  MessageChannel owner(std::move(ends.first));
  const auto notify = [&environment](std::string_view state) {
    const absl::Status status = NotifySystemd(state);
    if (!status.ok()) {
      environment.Log(absl::LogSeverity::kWarning, status.message());
    }
  };
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<Thread> waits,
                        environment.StartThread([&] {
                          if (owner.Read().ok()) notify("READY=1");
                        }));
  absl::Status status =
      server.StartSynchronously(std::move(listener), std::move(ends.second));
  waits.reset();  // It has read the end of the stream, if nothing else.
  notify("STOPPING=1");
  return status;
}

}  // namespace ward

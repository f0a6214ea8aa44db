#include "ward/server/posix/tie.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/server/listener.h"
#include "ward/server/posix/open_descriptors.h"
#include "ward/server/posix/own_process.h"
#include "ward/server/posix/socket_path.h"

namespace ward {
namespace {

// What the handler of SIGIO reads. It may be about to run on another thread
// when the process is untied, so there is one for the life of the process.
struct Tie {
  // The ForkGeneration; 0: untied. A fork has its parent's.
  std::atomic<int> process{0};
  int end = -1;
  FileDescriptor name;
  std::string path;
  std::string directory;  // Empty: not the server's own.
  struct sigaction found {};
  // The process whose children have neither `end` nor what has this address;
  // it stays when the process is untied.
  std::atomic<pid_t> server{0};
  sockaddr_un address{};
  socklen_t address_size = 0;
};
Tie& tie = *new Tie();

// Of descriptors, one by one.
constexpr rlim_t kMostLookedAt = 1 << 20;

thread_local bool children_keep_everything = false;

bool HasWord(int end) {
  pollfd polled{end, POLLIN, 0};
  return poll(&polled, 1, 0) > 0;
}

// The init of a pid namespace is not killed from within (pid_namespaces(7)).
[[noreturn]] void Die() {
  kill(getpid(), SIGKILL);
  _exit(128 + SIGKILL);
}

// In signal context, and on any thread: system calls alone.
void RemoveNameAndDie(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  if (tie.process == ForkGeneration() && HasWord(tie.end)) {
    // A socket that is alive is replaced by nobody: no lock is needed.
    if (LeadsTo(tie.path, tie.name)) unlink(tie.path.c_str());
    if (!tie.directory.empty()) rmdir(tie.directory.c_str());
    Die();
  }
  errno = saved_errno;
  // It came from elsewhere.
  if ((tie.found.sa_flags & SA_SIGINFO) != 0) {
    tie.found.sa_sigaction(signal, info, context);
  } else if (tie.found.sa_handler != SIG_DFL &&
             tie.found.sa_handler != SIG_IGN) {
    tie.found.sa_handler(signal);
  }
}

void PutSignalBack() {
  struct sigaction now {};
  sigaction(SIGIO, nullptr, &now);
  // Else it is the user's own handler, set since.
  if ((now.sa_flags & SA_SIGINFO) == 0 ||
      now.sa_sigaction != RemoveNameAndDie) {
    return;
  }
  // What is pending would be the end of the process: ignored, it is forgotten
  // (sigaction(3p)).
  now = {};
  now.sa_handler = SIG_IGN;
  sigaction(SIGIO, &now, nullptr);
  sigaction(SIGIO, &tie.found, nullptr);
}

// --- in the child of a fork: system calls alone ---

// Whether it is the listener, or one of its connections: they have its address
// as their own (unix(7)).
bool HasServersAddress(int fd) {
  sockaddr_un address;
  socklen_t size = sizeof(address);
  return getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0 &&
         size == tie.address_size && size > sizeof(address.sun_family) &&
         std::memcmp(&address, &tie.address, size) == 0;
}

void DropServersSockets() {
  if (tie.server.exchange(0) == 0 || children_keep_everything) return;
  if (tie.process.exchange(0) != 0) PutSignalBack();
  // Their numbers stay taken: objects of the server's have them still.
  const FileDescriptor null(open("/dev/null", O_RDWR | O_CLOEXEC));
  const auto drop = [&null](int fd) {
    if (dup3(null.get(), fd, O_CLOEXEC) < 0) close(fd);
  };
  drop(tie.end);
  const auto look = [&drop](int fd) {
    if (HasServersAddress(fd)) drop(fd);
  };
  ForEachOpenDescriptor(kMostLookedAt, look);
}

// --- in the server ---

// Has the kernel send this process `signal` for what comes to `end` (fcntl(2),
// F_SETOWN): for bytes and for the other end's close (unix_stream_sendmsg,
// unix_release_sock). It holds on to the process, not to its number. All of it
// belongs to the open file description.
int SendForWords(int end, int signal) {
  const int flags = fcntl(end, F_GETFL);
  if (flags < 0 || fcntl(end, F_SETSIG, signal) != 0 ||
      fcntl(end, F_SETOWN, getpid()) != 0 ||
      fcntl(end, F_SETFL, flags | O_ASYNC) != 0) {
    return errno;
  }
  // For what came before it sends nothing.
  if (HasWord(end)) {
    if (signal == SIGKILL) Die();
    kill(getpid(), signal);
  }
  return 0;
}

absl::Status TieError(int error) {
  return SystemError(error,
                     "tie the server's process to its owner (fcntl, O_ASYNC)");
}

}  // namespace

// SIGKILL can be neither blocked nor caught (signal(7)).
int TieByKill(int end) { return SendForWords(end, SIGKILL); }

absl::Status PosixTieProcess(int end, const Listener* listener) {
  if (listener == nullptr) {
    const int error = TieByKill(end);
    return error == 0 ? absl::OkStatus() : TieError(error);
  }
  [[maybe_unused]] static const int kAtFork =
      pthread_atfork(nullptr, nullptr, &DropServersSockets);
  WARD_ASSIGN_OR_RETURN(ListenerParts parts, listener->Share());
  tie.address_size = sizeof(tie.address);
  if (getsockname(listener->descriptor(),
                  reinterpret_cast<sockaddr*>(&tie.address),
                  &tie.address_size) != 0) {
    tie.address_size = 0;
  }
  tie.server = getpid();
  tie.end = end;
  tie.name = std::move(parts.name);
  tie.path = std::move(parts.path);
  tie.directory =
      parts.private_directory ? tie.path.substr(0, tie.path.rfind('/')) : "";
  tie.process = ForkGeneration();
  // First: the handler reads it.
  sigaction(SIGIO, nullptr, &tie.found);
  struct sigaction action {};
  action.sa_sigaction = RemoveNameAndDie;
  sigfillset(&action.sa_mask);
  action.sa_flags = SA_RESTART | SA_SIGINFO;
  sigaction(SIGIO, &action, nullptr);
  sigset_t word;
  sigemptyset(&word);
  sigaddset(&word, SIGIO);
  pthread_sigmask(SIG_UNBLOCK, &word, nullptr);
  const int error = SendForWords(end, SIGIO);
  return error == 0 ? absl::OkStatus() : TieError(error);
}

pid_t ForkWithEverything() {
  children_keep_everything = true;
  const pid_t pid = fork();
  children_keep_everything = false;
  return pid;
}

absl::Status PosixUntieProcess(int end) {
  const int flags = fcntl(end, F_GETFL);
  if (flags < 0 || fcntl(end, F_SETFL, flags & ~O_ASYNC) != 0) {
    return TieError(errno);
  }
  if (tie.process.exchange(0) == ForkGeneration()) {
    PutSignalBack();
    tie.name.Reset();
  }
  return absl::OkStatus();
}

}  // namespace ward

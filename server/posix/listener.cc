#include "ward/server/posix/listener.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/posix_wait.h"
#include "ward/channel/socket_transport.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/listener.h"
#include "ward/server/posix/interruption.h"
#include "ward/server/posix/socket_path.h"

namespace ward {
namespace {

// Long enough for a burst; clients over it wait in connect(2). Not SOMAXCONN
// (4096): an honest client would stand behind as many of a flood's silent ones.
constexpr int kQueueLength = 128;

constexpr mode_t kAllModeBits = 07777;

// Of what there is everywhere; a jail may have no file that can be opened.
FileDescriptor OpenReserve() {
  return FileDescriptor::Opened(eventfd(0, EFD_CLOEXEC));
}

// mkdtemp(3) makes a directory with mode 0700, less what the umask takes away.
bool IsOpenToItsUser(const std::string& directory) {
  struct stat found;
  return lstat(directory.c_str(), &found) == 0 &&
         (found.st_mode & kAllModeBits) == 0700;
}

// By no name: in another user's directory it could be a link by now.
bool OpenToItsUser(const std::string& directory) {
  const FileDescriptor made = FileDescriptor::Opened(
      open(directory.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  return made.is_open() &&
         chmod(absl::StrCat("/proc/self/fd/", made.get()).c_str(), 0700) == 0;
}

// One of another user, as after su(1), goes when that one logs out
// (pam_systemd(8)), and the server's name with it.
bool IsOfThisUser(const char* directory) {
  struct stat found;
  return stat(directory, &found) == 0 && found.st_uid == geteuid();
}

absl::StatusOr<std::string> MakePrivateDirectory() {
  std::string tried;
  // Not what a stranger says who has started a program with the set-user-ID
  // bit.
  const char* const runtime = secure_getenv("XDG_RUNTIME_DIR");
  const std::array<const char*, 3> bases = {
      runtime != nullptr && IsOfThisUser(runtime) ? runtime : nullptr,
      secure_getenv("TMPDIR"), "/tmp"};
  for (const char* base : bases) {
    if (base == nullptr || *base != '/') continue;
    std::string name = absl::StrCat(base, "/ward-XXXXXX");
    if (mkdtemp(name.data()) != nullptr) {
      if (IsOpenToItsUser(name) || OpenToItsUser(name)) return name;
      const int error = errno;
      rmdir(name.c_str());
      errno = error;
    }
    const absl::Status failure = absl::ErrnoToStatus(errno, base);
    absl::StrAppend(&tried, tried.empty() ? "" : "; ", failure.message());
  }
  return absl::UnavailableError(
      absl::StrCat("make a private directory for the server's socket: ", tried,
                   "; set TMPDIR to a directory that this user can write"));
}

// `path` without links in its directories, as who comes from the root finds it;
// `path` itself where that cannot be told.
std::string RealName(const std::string& path) {
  const std::filesystem::path whole(path);
  std::error_code error;
  const std::filesystem::path directory =
      std::filesystem::canonical(whole.parent_path(), error);
  return error ? path : (directory / whole.filename()).string();
}

class PosixListener final : public Listener {
 public:
  explicit PosixListener(std::string path, std::string private_directory)
      : path_(std::move(path)),
        private_directory_(std::move(private_directory)) {}

  // On failure nothing stays behind in the file system.
  absl::Status Open(mode_t mode) {
    absl::Status status = Publish(mode);
    if (!status.ok()) RemoveDirectory();
    return status;
  }

  absl::Status Adopt(FileDescriptor name, FileDescriptor socket, uid_t user) {
    is_own_ = name.is_open();
    struct stat found {};
    if (name.is_open() && fstat(name.get(), &found) != 0) {
      return SystemError(errno, "look at the socket's name that came");
    }
    // Whoever sent it must not have another user's files removed by this one.
    if (name.is_open() &&
        (!S_ISSOCK(found.st_mode) || (user != 0 && found.st_uid != user))) {
      return MakeError(
          reason::kInvalidArguments,
          absl::StrCat("the name that came for \"", path_,
                       "\" is not that of a socket of user ", user));
    }
    {
      absl::MutexLock lock(&name_mutex_);
      name_ = std::move(name);
      is_strangers_ = user != geteuid();
      // In another mount namespace, or root, the path leads elsewhere; the name
      // that came leads to the socket wherever it is.
      if (name_.is_open() && !LeadsTo(path_, name_)) {
        path_here_ = absl::StrCat("/proc/self/fd/", name_.get());
      }
    }
    socket_ = std::move(socket);
    if (!socket_.is_open()) return absl::OkStatus();
    int listens = 0;
    socklen_t size = sizeof(listens);
    if (getsockopt(socket_.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) !=
            0 ||
        listens == 0) {
      return MakeError(reason::kInvalidArguments,
                       absl::StrCat("the descriptor that came for \"", path_,
                                    "\" is no listening socket"));
    }
    absl::MutexLock lock(&mutex_);
    reserve_ = OpenReserve();
    return absl::OkStatus();
  }

  int descriptor() const override { return socket_.get(); }

  absl::StatusOr<Accepted> Accept() override {
    const Interruption::Section section(stop_);
    if (reserve_used_) RestoreReserve();
    while (!stop_.requested()) {
      FileDescriptor client = FileDescriptor::Opened(
          accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (client.is_open()) {
        // It may have the reserve's place: the client that had that has left,
        // or another thread was about to take it. The lock is not for here: who
        // accepts on the reserve holds it for as long as no client comes.
        const bool full = reserve_used_ && !OpenReserve().is_open();
        return Accepted{Wrap(std::move(client)), full};
      }
      switch (errno) {
        case EINTR:
        case ECONNABORTED:
          continue;
        case EAGAIN: {  // Somebody who shares the socket wants no waiting.
          pollfd polled{socket_.get(), POLLIN, 0};
          poll(&polled, 1, -1);
          continue;
        }
        case EMFILE:
        case ENFILE:
          return AcceptOnReserve();
        default:
          return SystemError(errno, "accept a client");
      }
    }
    return Stopping();
  }

  void StopAccepting(
      absl::FunctionRef<void(std::unique_ptr<Transport>)> refuse) override {
    // Not by shutdown(2), which reaches everyone who has the socket.
    stop_.Request();
    if (is_own_) RefuseQueued(refuse);
    Close();
  }

  void Close() override {
    socket_.Reset();
    absl::MutexLock lock(&mutex_);
    reserve_.Reset();
  }

  const std::string& path() const override {
    return path_here_.empty() ? path_ : path_here_;
  }

  absl::Status CheckPath() const override {
    absl::MutexLock lock(&name_mutex_);
    // A name that is somebody else's is his to look after.
    if (!name_.is_open() || !path_here_.empty() || LeadsTo(path_, name_)) {
      return absl::OkStatus();
    }
    struct stat found;
    const std::string there =
        lstat(path_.c_str(), &found) == 0
            ? "another file is there"
            : absl::StrCat(absl::ErrnoToStatus(errno, "look there").message());
    const bool exists = fstat(name_.get(), &found) == 0 && found.st_nlink > 0;
    return MakeError(
        reason::kServerUnreachable,
        absl::StrCat(
            "\"", path_, "\" does not lead to its socket: ", there, ", and ",
            exists ? "the socket's file is elsewhere: it was renamed, or this "
                     "process has changed its root directory, mounts or user "
                     "since"
                   : "the socket's file was removed, which no server recovers "
                     "from: stop it, and start it again"));
  }

  void RemovePath() override {
    absl::MutexLock lock(&name_mutex_);
    if (!name_.is_open()) return;
    // What another user has named is his to remove: the directories in its path
    // may be his, who can make them lead elsewhere at any moment.
    if (is_strangers_) return name_.Reset();
    // Nobody is there to hear of a failure; the directory is private, or the
    // user's own affair.
    (void)RemoveIfSame(path_, name_);
    RemoveDirectory();
    name_.Reset();
  }

  std::vector<int> descriptors() const override {
    absl::MutexLock name_lock(&name_mutex_);
    absl::MutexLock lock(&mutex_);
    return {socket_.get(), name_.get(), reserve_.get()};
  }

  absl::StatusOr<ListenerParts> Share() const override {
    ListenerParts parts;
    parts.path = path_;
    parts.private_directory = !private_directory_.empty();
    absl::MutexLock lock(&name_mutex_);
    if (name_.is_open()) {
      WARD_ASSIGN_OR_RETURN(parts.name,
                            FileDescriptor::DuplicateOf(name_.get()));
    }
    if (socket_.is_open()) {
      WARD_ASSIGN_OR_RETURN(parts.socket,
                            FileDescriptor::DuplicateOf(socket_.get()));
    }
    return parts;
  }

 private:
  static absl::Status Stopping() {
    return MakeError(reason::kServerStopping,
                     "the server accepts no more clients");
  }

  static std::unique_ptr<Transport> Wrap(FileDescriptor client) {
    return std::make_unique<SocketTransport>(std::move(client));
  }

  // The socket is bound to the very name by which it is found, and to no other
  // before: in /proc/net/unix it has the name that it was bound to for ever,
  // and what cleans up (systemd-tmpfiles(8), ss(8), lsof(8)) goes by that; on
  // FUSE a second name of the file would be another file; and some sandboxes
  // forbid link(2).
  absl::Status Publish(mode_t mode) {
    const std::string attempt = absl::StrCat("listen at \"", path_, "\"");
    // So that a name that is too long is reported as the user's.
    WARD_RETURN_IF_ERROR(SocketAddress::Of(path_).status());
    const std::string real = RealName(path_);
    const bool fits = SocketAddress::Fits(real);
    WARD_ASSIGN_OR_RETURN(const SocketAddress address,
                          SocketAddress::Of(fits ? real : path_));
    // What /proc/net/unix cannot say, this bit tells those who clean up: the
    // file is in use (XDG Base Directory Specification, tmpfiles.d(5)).
    if (!fits) mode |= S_ISVTX;
    socket_ =
        FileDescriptor::Opened(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket_.is_open()) return SystemError(errno, "create a socket");
    // bind(2) gives the name the socket's own mode, less the umask.
    if (fchmod(socket_.get(), mode) != 0) return SystemError(errno, attempt);
    WARD_RETURN_IF_ERROR(Bind(address, attempt));
    absl::Status status = FinishListening(mode, attempt);
    // Nobody replaces a socket that is bound.
    if (!status.ok()) unlink(path_.c_str());
    is_own_ = status.ok();
    return status;
  }

  absl::Status Bind(const SocketAddress& address, const std::string& attempt) {
    if (bind(socket_.get(), address.get(), address.size()) == 0) {
      return absl::OkStatus();
    }
    if (errno != EADDRINUSE) return SystemError(errno, attempt);
    WARD_RETURN_IF_ERROR(ClearStaleSocket(path_));
    if (bind(socket_.get(), address.get(), address.size()) == 0) {
      return absl::OkStatus();
    }
    if (errno != EADDRINUSE) return SystemError(errno, attempt);
    return MakeError(reason::kPathTaken,
                     absl::StrCat("the socket's path \"", path_,
                                  "\" was taken just now by another server; "
                                  "choose another path"));
  }

  // Nobody can connect before listen(2): the mode is right by then.
  absl::Status FinishListening(mode_t mode, const std::string& attempt) {
    absl::MutexLock name_lock(&name_mutex_);
    // For RemovePath, which must not mistake a successor for this socket.
    name_ = FileDescriptor::Opened(
        open(path_.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat found;
    if (!name_.is_open() || fstat(name_.get(), &found) != 0) {
      return SystemError(errno, attempt);
    }
    // By the descriptor: a path could lead to another file by now.
    const std::string file = absl::StrCat("/proc/self/fd/", name_.get());
    if ((found.st_mode & kAllModeBits) != mode &&
        chmod(file.c_str(), mode) != 0) {
      return SystemError(errno, attempt);
    }
    if (listen(socket_.get(), kQueueLength) != 0) {
      return SystemError(errno, attempt);
    }
    absl::MutexLock lock(&mutex_);
    reserve_ = OpenReserve();
    return reserve_.is_open()
               ? absl::OkStatus()
               : SystemError(errno, absl::StrCat(attempt, " (eventfd)"));
  }

  // With a full table accept4(2) fails while the client stays in the queue: an
  // endless loop here, a client that hears nothing there. A descriptor that is
  // held for this moment makes room to tell it.
  absl::StatusOr<Accepted> AcceptOnReserve() {
    absl::MutexLock lock(&mutex_);
    if (!reserve_.is_open()) reserve_ = OpenReserve();
    if (!reserve_.is_open()) return SystemError(errno, "accept a client");
    // First: another thread's client may come to have its place.
    reserve_used_ = true;
    reserve_.Reset();
    FileDescriptor client;
    do {
      if (stop_.requested()) return Stopping();
      client = FileDescriptor::Opened(
          accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    } while (!client.is_open() && errno == EINTR);
    if (!client.is_open()) return SystemError(errno, "accept a client");
    reserve_ = OpenReserve();
    reserve_used_ = !reserve_.is_open();
    return Accepted{Wrap(std::move(client)), reserve_used_};
  }

  void RefuseQueued(
      absl::FunctionRef<void(std::unique_ptr<Transport>)> refuse) {
    {
      // Room for one at a time in a full table.
      absl::MutexLock lock(&mutex_);
      reserve_.Reset();
    }
    // Nobody can connect any more, and accept4(2) waits for nobody.
    if (shutdown(socket_.get(), SHUT_RDWR) != 0) return;
    while (true) {
      FileDescriptor client = FileDescriptor::Opened(
          accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (client.is_open()) {
        refuse(Wrap(std::move(client)));
      } else if (errno != EINTR && errno != ECONNABORTED) {
        return;
      }
    }
  }

  // Takes the slot back from the client that has had it, or the next one would
  // be served on it and a third hear nothing.
  void RestoreReserve() {
    absl::MutexLock lock(&mutex_);
    if (!reserve_.is_open()) reserve_ = OpenReserve();
    reserve_used_ = !reserve_.is_open();
  }

  void RemoveDirectory() {
    if (private_directory_.empty() || !path_here_.empty()) return;
    rmdir(private_directory_.c_str());
  }

  const std::string path_;
  std::string path_here_;                // Empty if it is the same.
  const std::string private_directory_;  // Empty if the user chose the path.
  FileDescriptor socket_;
  // The name is not somebody else's.
  bool is_own_ = false;
  // Its own: whoever accepts on the reserve holds the other one for as long as
  // no client comes.
  mutable absl::Mutex name_mutex_;
  FileDescriptor name_ ABSL_GUARDED_BY(name_mutex_);
  bool is_strangers_ ABSL_GUARDED_BY(name_mutex_) = false;
  Interruption stop_;
  mutable absl::Mutex mutex_;
  FileDescriptor reserve_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> reserve_used_{false};
};

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> PosixListen(
    const ListenOptions& options) {
  std::string path;
  std::string directory;
  if (options.path.empty()) {
    WARD_ASSIGN_OR_RETURN(directory, MakePrivateDirectory());
    path = absl::StrCat(directory, "/socket");
  } else {
    std::error_code error;
    path = std::filesystem::absolute(options.path, error).string();
    if (error) return SystemError(error.value(), "find the working directory");
  }
  auto listener = std::make_unique<PosixListener>(path, directory);
  WARD_RETURN_IF_ERROR(listener->Open(options.mode));
  return listener;
}

absl::StatusOr<std::unique_ptr<Listener>> PosixAdoptListener(
    ListenerParts parts, uid_t user) {
  std::string directory;
  if (parts.private_directory) {
    directory = std::filesystem::path(parts.path).parent_path().string();
  }
  auto listener = std::make_unique<PosixListener>(std::move(parts.path),
                                                  std::move(directory));
  WARD_RETURN_IF_ERROR(
      listener->Adopt(std::move(parts.name), std::move(parts.socket), user));
  return listener;
}

absl::StatusOr<std::unique_ptr<Transport>> PosixConnect(const std::string& path,
                                                        absl::Time deadline) {
  const auto failed = [&path](int error_number) -> absl::Status {
    const std::string attempt = absl::StrCat("connect to \"", path, "\"");
    switch (error_number) {
      case ENOENT:
      case ECONNREFUSED:
        return MakeError(
            reason::kServerUnreachable,
            absl::StrCat(absl::ErrnoToStatus(error_number, attempt).message(),
                         "; no server listens there: it was not started, or "
                         "has stopped"));
      case EACCES:
        return SystemError(
            error_number,
            absl::StrCat(attempt, " as user ", geteuid(),
                         ", whom the socket's mode (see "
                         "ServerOptions::socket_mode) or a directory on its "
                         "path keeps out"));
      case EAGAIN:
        return MakeError(reason::kTimedOut,
                         absl::StrCat(attempt,
                                      ": the server's queue of "
                                      "waiting clients stayed full"));
      default:
        return SystemError(error_number, attempt);
    }
  };
  WARD_ASSIGN_OR_RETURN(const SocketAddress address, SocketAddress::Of(path));
  const bool waits = deadline > MonotonicNow();
  FileDescriptor client = FileDescriptor::Opened(socket(
      AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (waits ? 0 : SOCK_NONBLOCK), 0));
  if (!client.is_open()) return failed(errno);
  do {
    if (waits && deadline != absl::InfiniteFuture()) {
      // What connect(2) waits for on a Unix socket is room in the queue, and
      // no poll(2) tells of that; its time limit is the one for sending. Zero
      // would mean none.
      const timeval limit = absl::ToTimeval(
          std::max(deadline - MonotonicNow(), absl::Milliseconds(1)));
      if (setsockopt(client.get(), SOL_SOCKET, SO_SNDTIMEO, &limit,
                     sizeof(limit)) != 0) {
        return failed(errno);
      }
    }
    if (connect(client.get(), address.get(), address.size()) == 0) {
      return std::make_unique<SocketTransport>(std::move(client));
    }
  } while (errno == EINTR);
  return failed(errno);
}

}  // namespace ward

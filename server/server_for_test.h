// What the tests of AbstractServer share: a server to give hooks and handlers,
// real processes with an end that can be waited for, and a fixture that fails a
// test which leaves something behind.

#ifndef WARD_SERVER_SERVER_FOR_TEST_H_
#define WARD_SERVER_SERVER_FOR_TEST_H_

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/method.h"
#include "ward/testing/call_server.h"
#include "ward/testing/leak_check.h"
#include "ward/testing/matchers.h"

namespace ward {

#ifdef ABSL_HAVE_THREAD_SANITIZER
inline constexpr bool kUnderThreadSanitizer = true;
#else
inline constexpr bool kUnderThreadSanitizer = false;
#endif

// One that keeps what was freed, and has more memory and address space of its
// own than any test.
#ifdef ABSL_HAVE_ADDRESS_SANITIZER
inline constexpr bool kUnderSanitizer = true;
#else
inline constexpr bool kUnderSanitizer = kUnderThreadSanitizer;
#endif

// An upper bound for what must come at all, however loaded the machine is.
inline constexpr absl::Duration kSurely = absl::Seconds(60);

using testing::FailsWith;
using testing::IsOk;
using testing::IsOkAndHolds;

// --- time ---

class Stopwatch {
 public:
  absl::Duration Elapsed() const {
    return Environment::Default().TimeNow() - start_;
  }

 private:
  absl::Time start_ = Environment::Default().TimeNow();
};

inline absl::Duration Median(std::vector<absl::Duration> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// --- descriptors ---

struct Pipe {
  FileDescriptor read;
  FileDescriptor write;
};

inline Pipe MakePipe() {
  std::array<int, 2> ends;
  if (pipe2(ends.data(), O_CLOEXEC) != 0) abort();
  return {FileDescriptor(ends[0]), FileDescriptor(ends[1])};
}

// Whether `fd` becomes readable, or ends, in time.
inline bool BecomesReadable(int fd, absl::Duration within = kSurely) {
  pollfd polled{fd, POLLIN, 0};
  int ready;
  do {
    ready = poll(&polled, 1, static_cast<int>(within / absl::Milliseconds(1)));
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

inline void WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR) abort();
    if (written > 0) bytes.remove_prefix(static_cast<size_t>(written));
  }
}

// What comes next, at most a page; empty at the end.
inline std::string ReadSome(int fd) {
  std::string bytes(4096, '\0');
  ssize_t got;
  do {
    got = read(fd, bytes.data(), bytes.size());
  } while (got < 0 && errno == EINTR);
  bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return bytes;
}

inline std::string ReadToEnd(int fd) {
  std::string all;
  while (true) {
    const std::string bytes = ReadSome(fd);
    if (bytes.empty()) return all;
    all += bytes;
  }
}

// Adds a line to `file`.
inline void Note(const std::string& file, std::string_view line) {
  const FileDescriptor opened(
      open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  WriteAll(opened.get(), absl::StrCat(line, "\n"));
}

// Room for a thousand connections in this process's table, and in those of
// servers that it forks then; if the system allows it.
class ManyDescriptors {
 public:
  ManyDescriptors() {
    if (getrlimit(RLIMIT_NOFILE, &found_) != 0) abort();
    rlimit raised = found_;
    raised.rlim_cur =
        std::max(found_.rlim_cur, std::min<rlim_t>(found_.rlim_max, kWanted));
    if (setrlimit(RLIMIT_NOFILE, &raised) != 0) abort();
  }
  ~ManyDescriptors() { setrlimit(RLIMIT_NOFILE, &found_); }
  ManyDescriptors(const ManyDescriptors&) = delete;
  ManyDescriptors& operator=(const ManyDescriptors&) = delete;

  bool are_had() const { return found_.rlim_max >= kWanted; }

 private:
  static constexpr rlim_t kWanted = 4096;
  rlimit found_;
};

// --- what a process has ---

// The open descriptors of `process`, and what they stand for.
inline std::map<int, std::string> DescriptorsOf(pid_t process) {
  std::map<int, std::string> found;
  const std::string folder = absl::StrCat("/proc/", process, "/fd");
  DIR* const directory = opendir(folder.c_str());
  if (directory == nullptr) return found;
  while (const dirent* const entry = readdir(directory)) {
    if (entry->d_name[0] == '.') continue;
    const int fd = atoi(entry->d_name);
    if (process == getpid() && fd == dirfd(directory)) continue;
    std::string target(256, '\0');
    const ssize_t size = readlink(absl::StrCat(folder, "/", fd).c_str(),
                                  target.data(), target.size());
    target.resize(size < 0 ? 0 : static_cast<size_t>(size));
    found[fd] = target;
  }
  closedir(directory);
  return found;
}

// The names in `directory`.
inline std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  DIR* const open = opendir(directory.c_str());
  if (open == nullptr) return names;
  while (const dirent* const entry = readdir(open)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  closedir(open);
  std::sort(names.begin(), names.end());
  return names;
}

inline size_t ThreadsOf(pid_t process) {
  return NamesIn(absl::StrCat("/proc/", process, "/task")).size();
}

inline bool Exists(const std::string& path) {
  struct stat found;
  return lstat(path.c_str(), &found) == 0;
}

// --- processes ---

inline FileDescriptor OpenPidfd(pid_t pid) {
  return FileDescriptor(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
}

// A fork that runs `body` and exits with what it returns. What is still there
// at the end is killed.
class Child {
 public:
  explicit Child(absl::FunctionRef<int()> body) : pid_(fork()) {
    if (pid_ == 0) _exit(body());
    if (pid_ < 0) abort();
    pidfd_ = OpenPidfd(pid_);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ <= 0) return;
    Kill();
    Wait();
  }

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }
  void Kill() const { kill(pid_, SIGKILL); }

  // Its exit code, or minus the signal that killed it.
  int Wait() {
    int status = 0;
    pid_t reaped;
    do {
      reaped = waitpid(pid_, &status, 0);
    } while (reaped < 0 && errno == EINTR);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_;
  FileDescriptor pidfd_;
};

// Reaps `pid`, an orphan that has come to this process; see NothingLeftTest.
inline int Reap(pid_t pid) {
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) return -999;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

// Catches what this process, and those it forks, write to standard error.
class StderrCapture {
 public:
  StderrCapture()
      : file_(memfd_create("stderr", MFD_CLOEXEC)),
        found_(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10)) {
    dup2(file_.get(), STDERR_FILENO);
  }
  ~StderrCapture() {
    const std::string text = Text();
    dup2(found_.get(), STDERR_FILENO);
    // A sanitizer's report must not get lost here.
    WriteAll(STDERR_FILENO, text);
  }

  std::string Text() const {
    std::string text(static_cast<size_t>(lseek(file_.get(), 0, SEEK_END)),
                     '\0');
    const ssize_t got = pread(file_.get(), text.data(), text.size(), 0);
    text.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return text;
  }

 private:
  FileDescriptor file_;
  FileDescriptor found_;
};

// --- servers ---

// It knows "echo" (replies with its argument) and "hold" (replies "held", and
// "released" when the client has sent anything). A test gives it hooks and
// handlers, which a fork has, too. Started by exec it has none of them: see
// Registered.
class TestServer : public AbstractServer {
 public:
  explicit TestServer(ServerOptions options = {})
      : AbstractServer(Patient(std::move(options))) {
    DefineMessageHandler("echo",
                         [](MessageChannel& channel, std::string_view text) {
                           return channel.Write(text);
                         });
    DefineMessageHandler("hold", [](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.Write("held"));
      WARD_RETURN_IF_ERROR(channel.Read().status());
      return channel.Write("released");
    });
  }

  using AbstractServer::DefineMessageHandler;
  using AbstractServer::DefineSignalHandler;
  using AbstractServer::environment;

  // Into the file that is the first of its arguments.
  absl::Status Note(std::string_view line) const {
    ward::Note(options().arguments.at(0), line);
    return absl::OkStatus();
  }

  std::function<absl::Status()> before_fork;
  std::function<absl::Status()> initialize;
  std::function<absl::Status()> finalize;

 protected:
  absl::Status BeforeFork() override { return CallHook(before_fork); }
  absl::Status InitializeServer() override { return CallHook(initialize); }
  absl::Status FinalizeServer() override { return CallHook(finalize); }

 private:
  // Not even a machine that stands still for seconds makes a test fail that
  // does not care for this limit.
  static ServerOptions Patient(ServerOptions options) {
    if (options.stop.kill_after == StopOptions().kill_after) {
      options.stop.kill_after = kSurely;
    }
    return options;
  }

  static absl::Status CallHook(const std::function<absl::Status()>& hook) {
    return hook == nullptr ? absl::OkStatus() : hook();
  }
};

inline const bool kTestServerIsRegistered =
    AbstractServer::Register<TestServer>("ward::TestServer");

// A TestServer with hooks and handlers of its own, which can be started by exec
// wherever its class is written, in the middle of a test, too:
//   struct Server : Registered<Server> {
//     using Registered::Registered;
//     absl::Status FinalizeServer() override { return Note("finalized"); }
//   };
template <typename Server>
class Registered : public TestServer {
 public:
  explicit Registered(ServerOptions options = {})
      : TestServer(std::move(options)) {
    // Uses it: or there would be none.
    (void)kIsRegistered;
  }

 private:
  static inline const bool kIsRegistered =
      AbstractServer::Register<Server>(typeid(Server).name());
};

// One that says how many connections it has had. A simulated server counts on
// where the one before has stopped.
inline constexpr Method<void, int> kConnections{"connections"};
template <typename Server>
class CountsConnections : public Registered<Server> {
 public:
  explicit CountsConnections(ServerOptions options)
      : CountsConnections(std::move(options),
                          std::make_shared<std::atomic<int>>()) {}

 private:
  CountsConnections(ServerOptions options,
                    std::shared_ptr<std::atomic<int>> connections)
      : Registered<Server>([&] {
          options.admit_peer = [connections](const PeerCredentials&) {
            ++*connections;
            return true;
          };
          return std::move(options);
        }()) {
    this->Define(kConnections, [connections]() -> absl::StatusOr<int> {
      return *connections;
    });
  }
};

using testing::CallServer;

// CallServer, for a reply of one part.
template <typename... Arguments>
absl::StatusOr<std::string> Call(AbstractServer& server,
                                 const Arguments&... arguments) {
  WARD_ASSIGN_OR_RETURN(const Message reply, CallServer(server, arguments...));
  if (reply.size() != 1) {
    return absl::InternalError(
        absl::StrCat("a reply of ", reply.size(), " parts"));
  }
  return reply[0];
}

// A connected socket at `path`, with neither password nor protocol.
inline FileDescriptor RawConnect(const std::string& path, int flags = 0) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) abort();
  path.copy(address.sun_path, path.size());
  FileDescriptor peer(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  int connected;
  do {
    connected = connect(peer.get(), reinterpret_cast<const sockaddr*>(&address),
                        sizeof(address));
  } while (connected != 0 && errno == EINTR);
  if (connected != 0) peer.Reset();
  return peer;
}

// A length as frames begin with it.
inline std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) {
    bytes.push_back(static_cast<char>(value | 0x80));
  }
  bytes.push_back(static_cast<char>(value));
  return bytes;
}

// --- the fixture ---

// A test of real processes that fails for what it leaves behind; see LeakCheck.
class NothingLeftTest : public ::testing::Test {
 protected:
  void TearDown() override {
    for (const std::string& leak : leaks_.Find()) {
      ADD_FAILURE() << "The test has left something behind: " << leak;
    }
  }

  // Where private directories of servers appear too.
  const std::string& directory() const { return leaks_.directory(); }

  // A place for a socket.
  std::string path() const { return directory() + "/s"; }

  // Options for a server at path(), to be reached by other objects too.
  ServerOptions Shared() const {
    ServerOptions options;
    options.socket_filename = path();
    options.password = Secret("the right password");
    return options;
  }

 private:
  const testing::LeakCheck leaks_;
};

}  // namespace ward

#endif  // WARD_SERVER_SERVER_FOR_TEST_H_

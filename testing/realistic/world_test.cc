// Servers that use what the system has: files, other programs, the network.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/abstract_server.h"
#include "ward/server/signals.h"
#include "ward/testing/call_server.h"
#include "ward/testing/matchers.h"
#include "ward/testing/realistic/survives.h"
#include "ward/testing/run_at_once.h"

namespace ward::testing {
namespace {

// A folder of the run's own: others are made at the same time.
class Folder {
 public:
  Folder() {
    // Bazel's.
    path_ = absl::StrCat(std::getenv("TEST_TMPDIR"), "/XXXXXX");
    if (mkdtemp(path_.data()) == nullptr) std::abort();
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path_); }

  std::string File(std::string_view name) const {
    return absl::StrCat(path_, "/", name);
  }

 private:
  std::string path_;
};

// --- a file's lock ---

class CounterFileServer : public AbstractServer {
 public:
  CounterFileServer() { DefineMessageHandler("add", &CounterFileServer::Add); }

 private:
  absl::StatusOr<int> Add(int number) {
    const FileDescriptor file = FileDescriptor::Opened(open(
        folder_.File("counter").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (flock(file.get(), LOCK_EX) != 0) {
      return absl::ErrnoToStatus(errno, "the counter cannot be locked");
    }
    std::array<char, 20> text{};
    int value = 0;
    if (read(file.get(), text.data(), text.size() - 1) > 0 &&
        !absl::SimpleAtoi(text.data(), &value)) {
      return absl::DataLossError("the counter's file has no number");
    }
    value += number;
    const std::string written = absl::StrCat(value);
    if (lseek(file.get(), 0, SEEK_SET) != 0 ||
        write(file.get(), written.data(), written.size()) < 0) {
      return absl::ErrnoToStatus(errno, "the counter cannot be written");
    }
    return value;
  }

  const Folder folder_;
};

TEST(World, AFilesLock) {
  Survives<CounterFileServer>([](CounterFileServer& server) {
    const auto add = [&] {
      EXPECT_THAT(CallServer(server, "add", 40), IsOk());
    };
    RunAtOnce(add, add);
    EXPECT_THAT(CallServer(server, "add", 4), RepliesWith("84"));
  });
}

// --- files ---

class StoreServer : public AbstractServer {
 public:
  StoreServer() {
    DefineMessageHandler("put", &StoreServer::Put);
    DefineMessageHandler("get", &StoreServer::Get);
    DefineMessageHandler("count", &StoreServer::Count);
  }

 private:
  absl::StatusOr<bool> Put(const std::string& key, const std::string& value) {
    const absl::MutexLock lock(&mutex_);
    const std::string draft = folder_.File("draft");
    {
      std::ofstream file(draft);
      file << value << '\n';
      file.flush();
      if (!file.good()) return absl::UnavailableError("it cannot be written");
    }
    if (std::rename(draft.c_str(), folder_.File(key).c_str()) != 0) {
      return absl::ErrnoToStatus(errno, "it cannot be put in its place");
    }
    return true;
  }
  absl::StatusOr<std::string> Get(const std::string& key) {
    std::ifstream file(folder_.File(key));
    std::string value;
    if (!std::getline(file, value)) return absl::NotFoundError(key);
    return value;
  }
  absl::StatusOr<int> Count() {
    int files = 0;
    for (const auto& entry :
         std::filesystem::directory_iterator(folder_.File(""))) {
      files += entry.is_regular_file() ? 1 : 0;
    }
    return files;
  }

  const Folder folder_;
  absl::Mutex mutex_;  // The draft's.
};

TEST(World, Files) {
  Survives<StoreServer>([](StoreServer& server) {
    RunAtOnce(
        [&] { EXPECT_THAT(CallServer(server, "put", "a", "one"), IsOk()); },
        [&] { EXPECT_THAT(CallServer(server, "put", "b", "two"), IsOk()); });
    RunAtOnce(
        [&] { EXPECT_THAT(CallServer(server, "put", "b", "three"), IsOk()); },
        [&] {
          EXPECT_THAT(CallServer(server, "get", "a"), RepliesWith("one"));
        });
    EXPECT_THAT(CallServer(server, "get", "b"), RepliesWith("three"));
    EXPECT_THAT(CallServer(server, "count"), RepliesWith("2"));
  });
}

// --- chance ---

class TokenServer : public AbstractServer {
 public:
  TokenServer() { DefineMessageHandler("token", &TokenServer::Token); }

 private:
  absl::StatusOr<std::string> Token() {
    std::random_device device;
    std::mt19937_64 generator(device());
    return absl::StrCat(absl::Hex(generator()), absl::Hex(device()));
  }
};

TEST(World, RandomDevice) {
  Survives<TokenServer>([](TokenServer& server) {
    RunAtOnce([&] { EXPECT_THAT(CallServer(server, "token"), IsOk()); },
              [&] { EXPECT_THAT(CallServer(server, "token"), IsOk()); });
  });
}

// --- names of hosts ---

class ResolvingServer : public AbstractServer {
 public:
  ResolvingServer() {
    DefineMessageHandler("resolve", &ResolvingServer::Resolve);
  }

 private:
  absl::StatusOr<std::string> Resolve(const std::string& host) {
    addrinfo hints{};
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int error = getaddrinfo(host.c_str(), "80", &hints, &found);
    if (error != 0) return absl::NotFoundError(gai_strerror(error));
    const absl::Cleanup free = [found] { freeaddrinfo(found); };
    std::array<char, INET_ADDRSTRLEN> address;
    sockaddr_in internet;
    std::memcpy(&internet, found->ai_addr, sizeof(internet));
    inet_ntop(AF_INET, &internet.sin_addr, address.data(), address.size());
    return std::string(address.data());
  }
};

TEST(World, Getaddrinfo) {
  Survives<ResolvingServer>([](ResolvingServer& server) {
    RunAtOnce(
        [&] {
          EXPECT_THAT(CallServer(server, "resolve", "localhost"),
                      RepliesWith("127.0.0.1"));
        },
        [&] {
          EXPECT_THAT(CallServer(server, "resolve", "127.0.0.2"),
                      RepliesWith("127.0.0.2"));
        });
  });
}

// --- other programs ---

class ShellServer : public AbstractServer {
 public:
  ShellServer() { DefineMessageHandler("run", &ShellServer::Run); }

 private:
  absl::StatusOr<std::string> Run(const std::string& command) {
    const UnblockedSignals unblocked;
    FILE* const output = popen(command.c_str(), "re");
    if (output == nullptr) return absl::ErrnoToStatus(errno, "no shell");
    std::string printed;
    std::array<char, 100> line;
    while (std::fgets(line.data(), line.size(), output) != nullptr) {
      printed += line.data();
    }
    return absl::StrCat(printed, WEXITSTATUS(pclose(output)));
  }
};

TEST(World, Popen) {
  Survives<ShellServer>([](ShellServer& server) {
    RunAtOnce(
        [&] {
          EXPECT_THAT(CallServer(server, "run", "echo hi"),
                      RepliesWith("hi\n0"));
        },
        [&] {
          EXPECT_THAT(CallServer(server, "run", "exit 3"), RepliesWith("3"));
        });
  });
}

class SpawningServer : public AbstractServer {
 public:
  SpawningServer() { DefineMessageHandler("run", &SpawningServer::Run); }

 private:
  absl::StatusOr<int> Run(const std::string& command) {
    const UnblockedSignals unblocked;
    std::string shell = "/bin/sh";
    std::string flag = "-c";
    std::string text = command;
    std::array<char*, 4> arguments = {shell.data(), flag.data(), text.data(),
                                      nullptr};
    pid_t child = 0;
    const int error = posix_spawn(&child, shell.c_str(), nullptr, nullptr,
                                  arguments.data(), environ);
    if (error != 0) return absl::ErrnoToStatus(error, "no shell");
    int status = 0;
    if (waitpid(child, &status, 0) != child) {
      return absl::ErrnoToStatus(errno, "the shell is lost");
    }
    return WEXITSTATUS(status);
  }
};

TEST(World, PosixSpawn) {
  Survives<SpawningServer>([](SpawningServer& server) {
    RunAtOnce(
        [&] {
          EXPECT_THAT(CallServer(server, "run", "exit 7"), RepliesWith("7"));
        },
        [&] {
          EXPECT_THAT(CallServer(server, "run", "exit 8"), RepliesWith("8"));
        });
  });
}

// --- a signal to itself ---

class ReloadingServer : public AbstractServer {
 public:
  ReloadingServer() {
    DefineMessageHandler("reload", &ReloadingServer::Reload);
    DefineSignalHandler(SIGHUP, [this] {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++version_;
      changed_.notify_all();
    });
  }

 private:
  absl::StatusOr<bool> Reload() {
    std::unique_lock<std::mutex> lock(mutex_);
    const int found = version_;
    if (kill(getpid(), SIGHUP) != 0) {
      return absl::ErrnoToStatus(errno, "no signal can be sent");
    }
    changed_.wait(lock, [&] { return version_ > found; });
    return true;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int version_ = 0;
};

TEST(World, KillOfItself) {
  Survives<ReloadingServer>([](ReloadingServer& server) {
    const auto reload = [&] {
      EXPECT_THAT(CallServer(server, "reload"), IsOk());
    };
    RunAtOnce(reload, reload);
  });
}

// --- TCP ---

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

// Answers each of two connections with what it says.
class Upstream {
 public:
  Upstream()
      : listener_(FileDescriptor::Opened(
            socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))) {
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof(address);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(listener_.get(), generic, size), 0);
    EXPECT_EQ(listen(listener_.get(), 2), 0);
    EXPECT_EQ(getsockname(listener_.get(), generic, &size), 0);
    port_ = ntohs(address.sin_port);
  }

  uint16_t port() const { return port_; }

  void Serve() const {
    for (int i = 0; i < 2; ++i) {
      const FileDescriptor client = FileDescriptor::Opened(
          accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      std::array<char, 100> buffer;
      ssize_t size;
      while ((size = recv(client.get(), buffer.data(), buffer.size(), 0)) > 0) {
        EXPECT_EQ(send(client.get(), buffer.data(), static_cast<size_t>(size),
                       MSG_NOSIGNAL),
                  size);
      }
      EXPECT_EQ(size, 0);
    }
  }

 private:
  const FileDescriptor listener_;
  uint16_t port_ = 0;
};

class ProxyServer : public AbstractServer {
 public:
  explicit ProxyServer(uint16_t port) : port_(port) {
    DefineMessageHandler("ask", &ProxyServer::Ask);
  }

 private:
  absl::StatusOr<std::string> Ask(const std::string& question) const {
    const FileDescriptor upstream =
        FileDescriptor::Opened(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in address = Loopback(port_);
    if (connect(upstream.get(), reinterpret_cast<const sockaddr*>(&address),
                sizeof(address)) != 0 ||
        send(upstream.get(), question.data(), question.size(), MSG_NOSIGNAL) <
            0) {
      return absl::ErrnoToStatus(errno, "upstream cannot be asked");
    }
    shutdown(upstream.get(), SHUT_WR);
    std::string answer;
    std::array<char, 100> buffer;
    ssize_t size;
    while ((size = recv(upstream.get(), buffer.data(), buffer.size(), 0)) > 0) {
      answer.append(buffer.data(), static_cast<size_t>(size));
    }
    if (size < 0) return absl::ErrnoToStatus(errno, "upstream does not answer");
    return answer;
  }

  const uint16_t port_;
};

TEST(World, ATcpClient) {
  Survives([] {
    const Upstream upstream;
    ProxyServer server(upstream.port());
    ASSERT_THAT(server.Start(), IsOk());
    std::thread serving([&] { upstream.Serve(); });
    const auto ask = [&](std::string_view question) {
      EXPECT_THAT(CallServer(server, "ask", question), RepliesWith(question));
    };
    RunAtOnce([&] { ask("one"); }, [&] { ask("two"); });
    serving.join();
    EXPECT_THAT(server.Stop(), IsOk());
  });
}

}  // namespace
}  // namespace ward::testing

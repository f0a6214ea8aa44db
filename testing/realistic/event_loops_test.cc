// Servers with a thread that waits for descriptors.

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/call_server.h"
#include "ward/testing/matchers.h"
#include "ward/testing/realistic/survives.h"
#include "ward/testing/run_at_once.h"

namespace ward::testing {
namespace {

using namespace std::chrono_literals;  // NOLINT(google-build-using-namespace)

// --- epoll(7) ---

// Has the connections that it is given answered by one thread.
class Loop {
 public:
  absl::Status Start() {
    epoll_ = FileDescriptor::Opened(epoll_create1(EPOLL_CLOEXEC));
    woken_ = FileDescriptor::Opened(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!epoll_.is_open() || !woken_.is_open()) {
      return absl::ErrnoToStatus(errno, "no event loop");
    }
    Watch(woken_.get());
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

  void Stop() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    Wake();
    thread_.join();
  }

  void Add(FileDescriptor connection) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      added_.push_back(std::move(connection));
    }
    Wake();
  }

 private:
  void Wake() const {
    const uint64_t one = 1;
    (void)!write(woken_.get(), &one, sizeof(one));
  }
  void Watch(int fd) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  }

  void Run() {
    std::array<epoll_event, 8> events;
    while (true) {
      const int count = epoll_wait(epoll_.get(), events.data(),
                                   static_cast<int>(events.size()), -1);
      for (int i = 0; i < count; ++i) {
        const int fd = events.at(static_cast<size_t>(i)).data.fd;
        if (fd != woken_.get()) {
          Answer(fd);
        } else if (!TakeOver()) {
          return;
        }
      }
    }
  }
  // False: it is to stop.
  bool TakeOver() {
    uint64_t count;
    (void)!read(woken_.get(), &count, sizeof(count));
    const std::lock_guard<std::mutex> lock(mutex_);
    for (FileDescriptor& connection : added_) {
      const int fd = connection.get();
      connections_[fd] = std::move(connection);
      Watch(fd);
    }
    added_.clear();
    return !stopping_;
  }
  void Answer(int fd) {
    std::array<char, 100> buffer;
    const ssize_t size = read(fd, buffer.data(), buffer.size());
    if (size <= 0) {
      connections_.erase(fd);
      return;
    }
    const std::string answer = absl::AsciiStrToUpper(
        std::string_view(buffer.data(), static_cast<size_t>(size)));
    (void)!write(fd, answer.data(), answer.size());
  }

  FileDescriptor epoll_;
  FileDescriptor woken_;
  std::mutex mutex_;
  std::vector<FileDescriptor> added_;
  bool stopping_ = false;
  // The thread's own.
  std::map<int, FileDescriptor> connections_;
  std::thread thread_;
};

class LoopServer : public AbstractServer {
 public:
  LoopServer() { DefineMessageHandler("shout", &LoopServer::Shout); }

 private:
  absl::Status InitializeServer() override { return loop_.Start(); }
  absl::Status FinalizeServer() override {
    loop_.Stop();
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Shout(const std::string& word) {
    std::array<int, 2> ends;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      return absl::ErrnoToStatus(errno, "no connection to the loop");
    }
    loop_.Add(FileDescriptor(ends[1]));
    const FileDescriptor own(ends[0]);
    if (write(own.get(), word.data(), word.size()) < 0) {
      return absl::ErrnoToStatus(errno, "the loop does not listen");
    }
    std::string answer(word.size(), '\0');
    const ssize_t size = read(own.get(), answer.data(), answer.size());
    if (size < 0) return absl::ErrnoToStatus(errno, "the loop does not answer");
    return answer;
  }

  Loop loop_;
};

TEST(EventLoops, Epoll) {
  Survives<LoopServer>([](LoopServer& server) {
    RunAtOnce(
        [&] {
          EXPECT_THAT(CallServer(server, "shout", "joe"), RepliesWith("JOE"));
        },
        [&] {
          EXPECT_THAT(CallServer(server, "shout", "jack"), RepliesWith("JACK"));
        });
  });
}

// --- a pipe to oneself ---

class PipeServer : public AbstractServer {
 public:
  PipeServer() {
    DefineMessageHandler("ring", &PipeServer::Ring);
    DefineMessageHandler("await", &PipeServer::Await);
  }

 private:
  absl::Status InitializeServer() override {
    std::array<int, 2> ends;
    if (pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
      return absl::ErrnoToStatus(errno, "no pipe");
    }
    read_end_.Reset(ends[0]);
    write_end_.Reset(ends[1]);
    thread_ = std::thread([this] { Listen(); });
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override {
    write_end_.Reset();
    thread_.join();
    read_end_.Reset();
    return absl::OkStatus();
  }

  // Until there is no writer.
  void Listen() {
    while (true) {
      pollfd polled{read_end_.get(), POLLIN, 0};
      if (poll(&polled, 1, -1) < 0) continue;
      std::array<char, 10> bytes;
      ssize_t size;
      while ((size = read(read_end_.get(), bytes.data(), bytes.size())) > 0) {
        const std::lock_guard<std::mutex> lock(mutex_);
        rings_ += static_cast<int>(size);
        changed_.notify_all();
      }
      if (size == 0) return;
    }
  }

  absl::StatusOr<bool> Ring() { return write(write_end_.get(), "x", 1) == 1; }
  absl::StatusOr<int> Await(int rings) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return rings_ >= rings; });
    return rings_;
  }

  FileDescriptor read_end_;
  FileDescriptor write_end_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int rings_ = 0;
};

TEST(EventLoops, ASelfPipe) {
  Survives<PipeServer>([](PipeServer& server) {
    const auto ring = [&] {
      EXPECT_THAT(CallServer(server, "ring"), RepliesWith("true"));
    };
    RunAtOnce(ring, ring, [&] {
      EXPECT_THAT(CallServer(server, "await", 2), RepliesWith("2"));
    });
  });
}

// --- a timer that is a descriptor ---

class TickingServer : public AbstractServer {
 public:
  TickingServer() { DefineMessageHandler("await", &TickingServer::Await); }

 private:
  absl::Status InitializeServer() override {
    timer_ =
        FileDescriptor::Opened(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
    stop_ = FileDescriptor::Opened(eventfd(0, EFD_CLOEXEC));
    const timespec second = {1, 0};
    const itimerspec each = {second, second};
    if (!stop_.is_open() ||
        timerfd_settime(timer_.get(), 0, &each, nullptr) != 0) {
      return absl::ErrnoToStatus(errno, "no timer");
    }
    ticker_ = std::thread([this] { Tick(); });
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override {
    const uint64_t one = 1;
    (void)!write(stop_.get(), &one, sizeof(one));
    ticker_.join();
    timer_.Reset();
    stop_.Reset();
    return absl::OkStatus();
  }

  void Tick() {
    while (true) {
      std::array<pollfd, 2> polled = {
          {{timer_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
      if (poll(polled.data(), polled.size(), -1) < 0) continue;
      if (polled[1].revents != 0) return;
      uint64_t expired = 0;
      if (read(timer_.get(), &expired, sizeof(expired)) < 0) continue;
      const std::lock_guard<std::mutex> lock(mutex_);
      ticks_ += expired;
      changed_.notify_all();
    }
  }

  absl::StatusOr<bool> Await(uint64_t ticks) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return ticks_ >= ticks; });
    return true;
  }

  FileDescriptor timer_;
  FileDescriptor stop_;
  std::thread ticker_;
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t ticks_ = 0;
};

TEST(EventLoops, ATicker) {
  Survives<TickingServer>([](TickingServer& server) {
    const auto start = std::chrono::steady_clock::now();
    const auto await = [&](uint64_t ticks) {
      EXPECT_THAT(CallServer(server, "await", ticks), IsOk());
    };
    RunAtOnce([&] { await(2); }, [&] { await(60); });
    EXPECT_GE(std::chrono::steady_clock::now() - start, 59s);
  });
}

}  // namespace
}  // namespace ward::testing

// Servers that have threads of their own, from the C++ library.

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <queue>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "gtest/gtest.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/call_server.h"
#include "ward/testing/matchers.h"
#include "ward/testing/realistic/survives.h"
#include "ward/testing/run_at_once.h"

namespace ward::testing {
namespace {

// What is to be done, by one thread or several.
class Jobs {
 public:
  void Add(std::function<void()> job) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      jobs_.push(std::move(job));
    }
    changed_.notify_one();
  }

  void Close() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

  // Until it is closed, and all is done.
  void Work() {
    while (const std::function<void()> job = Next()) job();
  }

 private:
  std::function<void()> Next() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return closed_ || !jobs_.empty(); });
    if (jobs_.empty()) return nullptr;
    std::function<void()> next = std::move(jobs_.front());
    jobs_.pop();
    return next;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::queue<std::function<void()>> jobs_;
  bool closed_ = false;
};

// --- one worker ---

class WorkerServer : public AbstractServer {
 public:
  WorkerServer() { DefineMessageHandler("double", &WorkerServer::Double); }

 private:
  absl::Status InitializeServer() override {
    worker_ = std::thread([this] { jobs_.Work(); });
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override {
    jobs_.Close();
    worker_.join();
    return absl::OkStatus();
  }

  absl::StatusOr<int> Double(int number) {
    std::mutex mutex;
    std::condition_variable changed;
    int result = 0;
    bool done = false;
    jobs_.Add([&] {
      const std::lock_guard<std::mutex> lock(mutex);
      result = 2 * number;
      done = true;
      changed.notify_one();
    });
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return done; });
    return result;
  }

  Jobs jobs_;
  std::thread worker_;
};

template <typename Server>
void TwoDouble(Server& server) {
  RunAtOnce(
      [&] { EXPECT_THAT(CallServer(server, "double", 7), RepliesWith("14")); },
      [&] { EXPECT_THAT(CallServer(server, "double", 8), RepliesWith("16")); });
}

TEST(Threads, AWorker) { Survives<WorkerServer>(TwoDouble<WorkerServer>); }

// --- several ---

class PoolServer : public AbstractServer {
 public:
  PoolServer() { DefineMessageHandler("double", &PoolServer::Double); }

 private:
  absl::Status InitializeServer() override {
    for (int i = 0; i < 3; ++i) {
      threads_.emplace_back([this] { jobs_.Work(); });
    }
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override {
    jobs_.Close();
    for (std::thread& thread : threads_) thread.join();
    return absl::OkStatus();
  }

  absl::StatusOr<int> Double(int number) {
    const auto task = std::make_shared<std::packaged_task<int()>>(
        [number] { return 2 * number; });
    std::future<int> result = task->get_future();
    jobs_.Add([task] { (*task)(); });
    return result.get();
  }

  Jobs jobs_;
  std::vector<std::thread> threads_;
};

TEST(Threads, APool) { Survives<PoolServer>(TwoDouble<PoolServer>); }

// --- one that is told to stop ---

class CountingServer : public AbstractServer {
 public:
  CountingServer() {
    DefineMessageHandler("count", &CountingServer::Count);
    DefineMessageHandler("counted", &CountingServer::Counted);
  }

 private:
  absl::Status InitializeServer() override {
    counter_ =
        std::jthread([this](const std::stop_token& stop) { CountUntil(stop); });
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override {
    counter_ = std::jthread();  // Asks it to stop, and joins it.
    return absl::OkStatus();
  }

  void CountUntil(const std::stop_token& stop) {
    std::unique_lock<std::mutex> lock(mutex_);
    while (changed_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
      counted_ += waiting_.front();
      waiting_.pop();
      changed_.notify_all();
    }
  }

  absl::StatusOr<bool> Count(int number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.push(number);
    changed_.notify_all();
    return true;
  }
  absl::StatusOr<int> Counted() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return waiting_.empty(); });
    return counted_;
  }

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::queue<int> waiting_;
  int counted_ = 0;
  std::jthread counter_;
};

TEST(Threads, OneThatIsAskedToStop) {
  Survives<CountingServer>([](CountingServer& server) {
    RunAtOnce([&] { EXPECT_THAT(CallServer(server, "count", 3), IsOk()); },
              [&] { EXPECT_THAT(CallServer(server, "count", 4), IsOk()); });
    EXPECT_THAT(CallServer(server, "counted"), RepliesWith("7"));
  });
}

// --- one for each request ---

class AsyncServer : public AbstractServer {
 public:
  AsyncServer() { DefineMessageHandler("greet", &AsyncServer::Greet); }

 private:
  absl::StatusOr<std::string> Greet(std::string_view name) {
    std::future<std::string> greeting = std::async(std::launch::async, [this] {
      const std::lock_guard<std::mutex> lock(mutex_);
      return greeting_;
    });
    std::future<std::string> upper = std::async(
        std::launch::async, [name] { return absl::AsciiStrToUpper(name); });
    return greeting.get() + upper.get();
  }

  std::mutex mutex_;
  std::string greeting_ = "Hello ";
};

TEST(Threads, OneForEachRequest) {
  Survives<AsyncServer>([](AsyncServer& server) {
    RunAtOnce(
        [&] {
          EXPECT_THAT(CallServer(server, "greet", "Joe"),
                      RepliesWith("Hello JOE"));
        },
        [&] {
          EXPECT_THAT(CallServer(server, "greet", "Jack"),
                      RepliesWith("Hello JACK"));
        });
  });
}

// --- one that nobody waits for ---

class LoggingServer : public AbstractServer {
 public:
  LoggingServer() {
    DefineMessageHandler("log", &LoggingServer::Log);
    DefineMessageHandler("flush", &LoggingServer::Flush);
  }

 private:
  absl::Status InitializeServer() override {
    // Until the process ends.
    std::thread([this] { WriteForEver(); }).detach();
    return absl::OkStatus();
  }

  void WriteForEver() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return !lines_.empty(); });
      std::vector<std::string> lines;
      lines.swap(lines_);
      lock.unlock();
      size_t bytes = 0;
      for (const std::string& line : lines) bytes += line.size();
      lock.lock();
      written_ += bytes;
      changed_.notify_all();
    }
  }

  absl::StatusOr<bool> Log(std::string line) {
    const std::lock_guard<std::mutex> lock(mutex_);
    logged_ += line.size();
    lines_.push_back(std::move(line));
    changed_.notify_all();
    return true;
  }
  absl::StatusOr<size_t> Flush() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return written_ == logged_; });
    return written_;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
  size_t logged_ = 0;
  size_t written_ = 0;
};

TEST(Threads, ADetachedOne) {
  Survives<LoggingServer>([](LoggingServer& server) {
    RunAtOnce([&] { EXPECT_THAT(CallServer(server, "log", "ab"), IsOk()); },
              [&] { EXPECT_THAT(CallServer(server, "log", "cde"), IsOk()); });
    EXPECT_THAT(CallServer(server, "flush"), RepliesWith("5"));
  });
}

}  // namespace
}  // namespace ward::testing

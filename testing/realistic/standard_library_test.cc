// Servers whose handlers meet at what the C++ library has for that, or at what
// Abseil has.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/call_server.h"
#include "ward/testing/matchers.h"
#include "ward/testing/realistic/survives.h"
#include "ward/testing/run_at_once.h"

namespace ward::testing {
namespace {

using namespace std::chrono_literals;  // NOLINT(google-build-using-namespace)

// --- a lock that is held while its client is written to ---

class LedgerServer : public AbstractServer {
 public:
  LedgerServer() { DefineMessageHandler("deposit", &LedgerServer::Deposit); }

 private:
  absl::Status Deposit(MessageChannel& channel, int amount) {
    const std::lock_guard<std::mutex> lock(mutex_);
    balance_ += amount;
    // Its client has to make room for the second.
    WARD_RETURN_IF_ERROR(channel.Write(std::string(300'000, '.')));
    return channel.Write(balance_);
  }

  std::mutex mutex_;
  int balance_ = 0;
};

TEST(StandardLibrary, AMutexOverAReply) {
  Survives<LedgerServer>([](LedgerServer& server) {
    std::atomic<int> sum{0};
    const auto deposit = [&] {
      EXPECT_THAT(server.Connect([&](MessageChannel& channel) -> absl::Status {
        WARD_RETURN_IF_ERROR(channel.Write("deposit", 5));
        WARD_RETURN_IF_ERROR(channel.Read().status());
        WARD_ASSIGN_OR_RETURN(const Message reply, channel.Read());
        sum += std::stoi(std::string(reply[0]));
        return absl::OkStatus();
      }),
                  IsOk());
    };
    RunAtOnce(deposit, deposit);
    EXPECT_EQ(sum, 5 + 10);
  });
}

// --- a wait with a time limit ---

class MailboxServer : public AbstractServer {
 public:
  MailboxServer() {
    DefineMessageHandler("put", &MailboxServer::Put);
    DefineMessageHandler("take", &MailboxServer::Take);
  }

 private:
  absl::StatusOr<bool> Put(std::string letter) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      letters_.push_back(std::move(letter));
    }
    changed_.notify_one();
    return true;
  }

  absl::StatusOr<std::string> Take(int milliseconds) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::milliseconds(milliseconds),
                           [this] { return !letters_.empty(); })) {
      return "nothing";
    }
    std::string letter = std::move(letters_.front());
    letters_.pop_front();
    return letter;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> letters_;
};

TEST(StandardLibrary, AConditionWithATimeLimit) {
  Survives<MailboxServer>([](MailboxServer& server) {
    EXPECT_THAT(CallServer(server, "take", 500), RepliesWith("nothing"));
    RunAtOnce(
        [&] {
          EXPECT_THAT(CallServer(server, "take", 60'000), RepliesWith("hi"));
        },
        [&] { EXPECT_THAT(CallServer(server, "put", "hi"), IsOk()); });
    EXPECT_THAT(CallServer(server, "take", 1), RepliesWith("nothing"));
  });
}

// --- what there is one of in the program ---

// A table that is made when it is first asked for, and never destroyed.
class Dictionary {
 public:
  static Dictionary& Instance() {
    static auto& instance = *new Dictionary;
    return instance;
  }

  std::string Translate(const std::string& word) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = words_.find(word);
    return found == words_.end() ? "?" : found->second;
  }

 private:
  Dictionary() {
    Define("one", "un");
    Define("two", "deux");
  }
  void Define(std::string word, std::string translation) {
    const std::lock_guard<std::mutex> lock(mutex_);
    words_[std::move(word)] = std::move(translation);
  }

  std::mutex mutex_;
  std::map<std::string, std::string> words_;
};

class TranslationServer : public AbstractServer {
 public:
  TranslationServer() {
    DefineMessageHandler("translate", [](const std::string& word) {
      static const std::string kNotes = " (" + std::string("fr") + ")";
      return absl::StatusOr<std::string>(
          Dictionary::Instance().Translate(word) + kNotes);
    });
  }
};

TEST(StandardLibrary, StaticSingletons) {
  Survives<TranslationServer>([](TranslationServer& server) {
    RunAtOnce(
        [&] {
          EXPECT_THAT(CallServer(server, "translate", "one"),
                      RepliesWith("un (fr)"));
        },
        [&] {
          EXPECT_THAT(CallServer(server, "translate", "two"),
                      RepliesWith("deux (fr)"));
        });
  });
}

// --- what is made by the first who asks ---

class LazyServer : public AbstractServer {
 public:
  LazyServer() { DefineMessageHandler("key", &LazyServer::Key); }

 private:
  absl::StatusOr<std::string> Key() {
    std::call_once(once_, [this] {
      std::this_thread::sleep_for(10ms);  // A long calculation.
      const std::lock_guard<std::mutex> lock(mutex_);
      key_ += "secret";
    });
    return key_;
  }

  std::once_flag once_;
  std::mutex mutex_;
  std::string key_;
};

TEST(StandardLibrary, CallOnce) {
  Survives<LazyServer>([](LazyServer& server) {
    const auto key = [&] {
      EXPECT_THAT(CallServer(server, "key"), RepliesWith("secret"));
    };
    RunAtOnce(key, key);
  });
}

// --- a loop that looks, and sleeps ---

class PollingServer : public AbstractServer {
 public:
  PollingServer() {
    DefineMessageHandler("open", &PollingServer::Open);
    DefineMessageHandler("pass", &PollingServer::Pass);
  }

 private:
  absl::StatusOr<bool> Open() {
    open_ = true;
    return true;
  }
  absl::StatusOr<bool> Pass() {
    while (!open_) std::this_thread::sleep_for(10ms);
    return true;
  }

  std::atomic<bool> open_{false};
};

TEST(StandardLibrary, SleepPolling) {
  Survives<PollingServer>([](PollingServer& server) {
    RunAtOnce([&] { EXPECT_THAT(CallServer(server, "pass"), IsOk()); },
              [&] {
                std::this_thread::sleep_for(1s);
                EXPECT_THAT(CallServer(server, "open"), IsOk());
              });
  });
}

// --- Abseil alone ---

class AuctionServer : public AbstractServer {
 public:
  AuctionServer() {
    DefineMessageHandler("bid", &AuctionServer::Bid);
    DefineMessageHandler("result", &AuctionServer::Result);
  }

 private:
  absl::StatusOr<bool> Bid(int amount) {
    const absl::MutexLock lock(&mutex_);
    if (amount > highest_) highest_ = amount;
    if (++bids_ == 2) closed_.Notify();
    changed_.SignalAll();
    return true;
  }
  absl::StatusOr<int> Result() {
    closed_.WaitForNotification();
    absl::SleepFor(absl::Milliseconds(10));
    absl::MutexLock lock(&mutex_);
    while (bids_ < 2) changed_.Wait(&mutex_);
    mutex_.Await(absl::Condition(this, &AuctionServer::IsSold));
    return highest_;
  }

  bool IsSold() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return highest_ > 0;
  }

  absl::Mutex mutex_;
  absl::CondVar changed_;
  absl::Notification closed_;
  int bids_ ABSL_GUARDED_BY(mutex_) = 0;
  int highest_ ABSL_GUARDED_BY(mutex_) = 0;
};

TEST(StandardLibrary, AbseilOnly) {
  Survives<AuctionServer>([](AuctionServer& server) {
    RunAtOnce(
        [&] { EXPECT_THAT(CallServer(server, "bid", 20), IsOk()); },
        [&] { EXPECT_THAT(CallServer(server, "bid", 30), IsOk()); },
        [&] { EXPECT_THAT(CallServer(server, "result"), RepliesWith("30")); });
  });
}

}  // namespace
}  // namespace ward::testing

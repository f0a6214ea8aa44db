// What docs/testing.md and the headers in testing/ show, and no other test has.

#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <ostream>
#include <string>
#include <string_view>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/examples/bounded_queue/bounded_queue.h"
#include "ward/server/abstract_server.h"
#include "ward/server/method.h"
#include "ward/testing/call_server.h"
#include "ward/testing/explore.h"
#include "ward/testing/fuzz.h"
#include "ward/testing/linearizable.h"
#include "ward/testing/matchers.h"
#include "ward/testing/run_at_once.h"
#include "ward/testing/simulation.h"

namespace testing_page {

namespace reason = ::ward::reason;
using ::bounded_queue::BoundedQueue;
using ::ward::testing::CallServer;
using ::ward::testing::Explore;
using ::ward::testing::FailsWith;
using ::ward::testing::HasDescriptors;
using ::ward::testing::History;
using ::ward::testing::IsOk;
using ::ward::testing::Linearizable;
using ::ward::testing::RepliesWith;
using ::ward::testing::RunAtOnce;
using ::ward::testing::Simulation;

// --- docs/testing.md, explore.h ---

class AccountServer : public ward::AbstractServer {
 public:
  AccountServer() {
    DefineMessageHandler("deposit", &AccountServer::Deposit);
    DefineMessageHandler("balance", [this] { return Deposit(0); });
  }

 private:
  absl::StatusOr<int> Deposit(int amount) {
    const absl::MutexLock lock(&mutex_);
    balance_ += amount;
    return balance_;
  }

  absl::Mutex mutex_;
  int balance_ ABSL_GUARDED_BY(mutex_) = 0;
};

TEST(Account, LosesNoUpdate) {
  Explore({.runs = 10000}, [] {
    AccountServer server;
    ASSERT_THAT(server.Start(), IsOk());
    const auto deposit = [&] {
      EXPECT_THAT(CallServer(server, "deposit", 1), IsOk());
    };
    RunAtOnce(deposit, deposit);
    EXPECT_THAT(CallServer(server, "balance"), RepliesWith("2"));
    EXPECT_THAT(server.Stop(), IsOk());
  });
}

TEST(BoundedQueue, HandsOverEachItemOnce) {
  Explore({.runs = 10000}, [] {
    BoundedQueue<int, 1> queue;
    std::thread producer([&] {
      for (int item = 0; item < 3; ++item) queue.Push(item);
    });
    for (int item = 0; item < 3; ++item) EXPECT_EQ(queue.Pop(), item);
    producer.join();
  });
}

// --- fuzz.h ---

std::string Format(std::string_view name, uint64_t count) {
  return absl::StrCat(count, " ", name);
}

std::string Parse(std::string_view text) {
  return std::string(text.substr(text.find(' ') + 1));
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ward::testing::FuzzInput in(data, size);
  const std::string_view name = in.String();
  const uint64_t count = in.Number();
  WARD_FUZZ_CHECK(Parse(Format(name, count)) == name, "it was " << name);
  return 0;
}

TEST(Fuzz, TakesAnInputApart) {
  EXPECT_EQ(LLVMFuzzerTestOneInput(nullptr, 0), 0);
}

// --- linearizable.h ---

constexpr ward::Method<std::string, int> kGet{"get"};
constexpr ward::Method<ward::Arguments<std::string, int>, void> kPut{"put"};

class Store : public ward::AbstractServer {
 public:
  Store() {
    Define(kGet, [this](const std::string& key) -> absl::StatusOr<int> {
      const absl::MutexLock lock(&mutex_);
      return values_[key];
    });
    Define(kPut, [this](const std::string& key, int value) {
      const absl::MutexLock lock(&mutex_);
      values_[key] = value;
      return absl::OkStatus();
    });
  }

 private:
  absl::Mutex mutex_;
  std::map<std::string, int> values_ ABSL_GUARDED_BY(mutex_);
};

struct Get {
  std::string key;
};  // Each with operator<<, or PrintTo().
struct Put {
  std::string key;
  int value;
};

void PrintTo(const Get& get, std::ostream* out) { *out << "Get " << get.key; }
void PrintTo(const Put& put, std::ostream* out) {
  *out << "Put " << put.key << " " << put.value;
}

// What the server is to do, one call after the other.
struct Model {
  using State = std::map<std::string, int>;
  int Apply(const State& values, const Get& get) const {
    const auto found = values.find(get.key);
    return found == values.end() ? 0 : found->second;
  }
  void Apply(State& values, const Put& put) const {
    values[put.key] = put.value;
  }
};

TEST(Store, IsLinearizable) {
  Explore({.runs = 10000}, [] {
    Store store;
    ASSERT_THAT(store.Start(), IsOk());
    History<Model> history;
    const auto get = [&] {
      return history.Record(Get{"a"}, [&] { return store.Call(kGet, "a"); });
    };
    const auto put = [&](int value) {
      return history.Record(Put{"a", value},
                            [&] { return store.Call(kPut, "a", value); });
    };
    RunAtOnce([&] { EXPECT_THAT(put(1), IsOk()); },
              [&] { EXPECT_THAT(get(), IsOk()); });
    EXPECT_THAT(get(), IsOk());
    EXPECT_THAT(history, Linearizable(Model()));
    EXPECT_THAT(store.Stop(), IsOk());
  });
}

// --- matchers.h, run_at_once.h ---

class HelloServer : public ward::AbstractServer {
 public:
  HelloServer() {
    DefineMessageHandler(
        "hello", [](std::string_view name) -> absl::StatusOr<std::string> {
          return absl::StrCat("Hello ", name);
        });
    DefineMessageHandler(
        "add", [](int number) -> absl::StatusOr<int> { return number; });
  }
};

TEST(Server, IsCalled) {
  Explore({.runs = 100}, [] {
    HelloServer server;
    // NOLINTNEXTLINE(readability-identifier-naming): as a fixture has it.
    const auto Call = [&server](const auto&... arguments) {
      return CallServer(server, arguments...);
    };
    ASSERT_OK_AND_ASSIGN(auto ends, ward::MessageChannel::CreatePair());
    auto& [channel, other] = ends;
    const ward::FileDescriptor file(open("/dev/null", O_RDONLY | O_CLOEXEC));
    ASSERT_THAT(other.Write("file", file), IsOk());

    EXPECT_THAT(server.Start(), IsOk());
    EXPECT_THAT(Call("hello", "Joe"), RepliesWith("Hello Joe"));
    EXPECT_THAT(Call("no such"), FailsWith(reason::kUnknownMessage));
    ASSERT_OK_AND_ASSIGN(ward::Message reply, channel.Read());
    EXPECT_THAT(reply, HasDescriptors(1));

    RunAtOnce([&] { EXPECT_THAT(CallServer(server, "add", 1), IsOk()); },
              [&] { EXPECT_THAT(CallServer(server, "add", 2), IsOk()); });
    EXPECT_THAT(server.Stop(), IsOk());
  });
}

// --- simulation.h ---

void Kill(pid_t pid) {
  if (auto* const simulation = Simulation::Current()) {
    simulation->environment().Raise(pid, SIGKILL);
  } else {
    kill(pid, SIGKILL);
  }
}

}  // namespace testing_page

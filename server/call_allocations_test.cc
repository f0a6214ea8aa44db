// What a call over a kept connection allocates, once all is warm: in its
// thread of the client's, and in its thread of the server's; and one with a
// connection of its own. Nothing but what the caller and the handler have as
// values.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/matchers.h"

namespace {

// What operator new has given to this thread, and to all of the process.
thread_local int64_t allocations = 0;
std::atomic<int64_t> all_allocations{0};

}  // namespace

void* operator new(size_t size) {
  ++allocations;
  all_allocations.fetch_add(1, std::memory_order_relaxed);
  void* const memory = malloc(size);
  if (memory == nullptr) abort();
  return memory;
}
void operator delete(void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }

namespace ward {
namespace {

using testing::IsOk;
using testing::IsOkAndHolds;

constexpr int64_t kCalls = 100;

constexpr Method<void, int64_t> kAllocations{"allocations"};
constexpr Method<void, int64_t> kAllAllocations{"all allocations"};
constexpr Method<Arguments<int64_t, double>, bool> kIsLess{"is less"};
constexpr Method<std::string, std::string> kEcho{"echo"};
constexpr Method<std::string, int64_t> kLength{"the length of a string"};
constexpr Method<Stream<std::string>, int64_t> kTake{"take"};
constexpr Method<int64_t, Stream<std::string>> kGive{"give"};

class TestServer : public AbstractServer {
 public:
  TestServer() {
    Define(kAllocations,
           []() -> absl::StatusOr<int64_t> { return allocations; });
    Define(kAllAllocations,
           []() -> absl::StatusOr<int64_t> { return all_allocations.load(); });
    Define(kIsLess, [](int64_t one, double other) -> absl::StatusOr<bool> {
      return static_cast<double>(one) < other;
    });
    Define(kEcho, [](const std::string& text) -> absl::StatusOr<std::string> {
      return text;
    });
    Define(kLength, [](std::string_view text) -> absl::StatusOr<int64_t> {
      return static_cast<int64_t>(text.size());
    });
    // What it takes to read all elements but the first.
    Define(kTake,
           [](StreamReader<std::string>& texts) -> absl::StatusOr<int64_t> {
             std::optional<std::string> text = texts.Next();
             const int64_t before = allocations;
             while (text.has_value()) text = texts.Next();
             const int64_t after = allocations;
             WARD_RETURN_IF_ERROR(texts.status());
             return after - before;
           });
    // The last element is what it took to write the others.
    Define(kGive,
           [](int64_t count, StreamWriter<std::string>& texts) -> absl::Status {
             const std::string text = "some text";
             const int64_t before = allocations;
             for (int64_t i = 0; i < count; ++i) {
               WARD_RETURN_IF_ERROR(texts.Write(text));
             }
             return texts.Write(std::to_string(allocations - before));
           });
    // What it takes to answer all messages but the first, up to the last.
    DefineMessageHandler("converse", [](MessageChannel& channel) {
      std::optional<int64_t> before;
      while (true) {
        absl::StatusOr<Message> message = channel.Read();
        if (!message.ok()) return message.status();
        if (message->name() == "last") {
          return channel.Write(allocations - before.value_or(0));
        }
        WARD_RETURN_IF_ERROR(channel.Write((*message)[1], 1234));
        if (!before.has_value()) before = allocations;
      }
    });
  }
};

class CallAllocationsTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_THAT(server_.Start(), IsOk()); }
  void TearDown() override { EXPECT_THAT(server_.Stop(), IsOk()); }

  // What kCalls of them allocate, on either side.
  struct Cost {
    int64_t client = 0;
    int64_t server = 0;
  };
  Cost CostOf(absl::FunctionRef<absl::Status()> call) {
    Cost cost;
    for (int64_t i = 0; i < kCalls; ++i) EXPECT_THAT(call(), IsOk());
    const absl::StatusOr<int64_t> before = server_.Call(kAllocations);
    const int64_t client = allocations;
    for (int64_t i = 0; i < kCalls; ++i) {
      if (!call().ok()) ADD_FAILURE();
    }
    cost.client = allocations - client;
    const absl::StatusOr<int64_t> after = server_.Call(kAllocations);
    EXPECT_THAT(before, IsOk());
    EXPECT_THAT(after, IsOk());
    cost.server = after.value_or(0) - before.value_or(0);
    return cost;
  }

  TestServer server_;
  const std::string long_text_ = std::string(100, 'x');
};

TEST_F(CallAllocationsTest, SmallValuesTakeNone) {
  const Cost numbers =
      CostOf([&] { return server_.Call(kIsLess, 1, 1.5).status(); });
  EXPECT_EQ(numbers.client, 0);
  EXPECT_EQ(numbers.server, 0);
  const Cost texts =
      CostOf([&] { return server_.Call(kEcho, "some text").status(); });
  EXPECT_EQ(texts.client, 0);
  EXPECT_EQ(texts.server, 0);
}

TEST_F(CallAllocationsTest, ADeadlineTakesNone) {
  CallOptions options;
  options.deadline = absl::Now() + absl::Hours(1);
  const Cost cost = CostOf(
      [&] { return server_.Call(kEcho, options, "some text").status(); });
  EXPECT_EQ(cost.client, 0);
  EXPECT_EQ(cost.server, 0);
}

TEST_F(CallAllocationsTest, OfLongStringsTheHandlersAndTheCallersAreAll) {
  const Cost copied =
      CostOf([&] { return server_.Call(kEcho, long_text_).status(); });
  EXPECT_EQ(copied.client, kCalls);
  // The handler's argument, and what it returns.
  EXPECT_EQ(copied.server, 2 * kCalls);
  const Cost viewed =
      CostOf([&] { return server_.Call(kLength, long_text_).status(); });
  EXPECT_EQ(viewed.client, 0);
  // The first after a call with fewer arguments has none's memory to use again.
  EXPECT_LE(viewed.server, 1);
}

TEST_F(CallAllocationsTest, MessagesOnAnOpenChannelTakeNone) {
  EXPECT_THAT(server_.Connect([](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("converse"));
    int64_t before = 0;
    for (int64_t i = 0; i <= kCalls; ++i) {
      if (i == 1) before = allocations;
      WARD_RETURN_IF_ERROR(channel.Write("say", "some text"));
      WARD_ASSIGN_OR_RETURN(const Message reply, channel.Read());
      EXPECT_EQ(reply.size(), 2u);
    }
    EXPECT_EQ(allocations - before, 0);
    WARD_RETURN_IF_ERROR(channel.Write("last"));
    WARD_ASSIGN_OR_RETURN(const Message taken, channel.Read());
    EXPECT_EQ(taken.name(), "0");
    return absl::OkStatus();
  }),
              IsOk());
}

// In rounds, of which one is to be as all are on an idle machine: there no
// client is so slow that it has to be watched, and no thread is new.
TEST_F(CallAllocationsTest, AConnectionForACallTakesNone) {
  constexpr int kCallsInARound = 20;
  constexpr int kRounds = 100;
  int64_t client = 0;
  int64_t server = 0;
  for (int round = 0; round < kRounds; ++round) {
    ASSERT_OK_AND_ASSIGN(const int64_t before, server_.Call(kAllAllocations));
    const int64_t own_before = allocations;
    for (int i = 0; i < kCallsInARound; ++i) {
      const absl::Status called =
          server_.Connect([](MessageChannel& channel) -> absl::Status {
            WARD_RETURN_IF_ERROR(channel.Write(kEcho.name, "some text"));
            return channel.Read().status();
          });
      if (!called.ok()) ADD_FAILURE() << called;
    }
    client = allocations - own_before;
    ASSERT_OK_AND_ASSIGN(const int64_t after, server_.Call(kAllAllocations));
    server = after - before;
    if (client == 0 && server == 0) return;
  }
  ADD_FAILURE() << kCallsInARound << " calls took " << client
                << " allocations in the client, and " << server
                << " in the server";
}

TEST_F(CallAllocationsTest, ElementsOfStreamsTakeNone) {
  ASSERT_OK_AND_ASSIGN(auto taken, server_.Call(kTake));
  ASSERT_THAT(taken.Write("some text"), IsOk());
  const int64_t before_writing = allocations;
  for (int64_t i = 0; i < kCalls; ++i) {
    if (!taken.Write("some text").ok()) ADD_FAILURE();
  }
  EXPECT_EQ(allocations - before_writing, 0);
  EXPECT_THAT(taken.Finish(), IsOkAndHolds(0));

  ASSERT_OK_AND_ASSIGN(auto given, server_.Call(kGive, kCalls));
  std::optional<std::string> text = given.Next();
  const int64_t before_reading = allocations;
  std::string last;
  for (; text.has_value(); text = given.Next()) last.swap(*text);
  EXPECT_EQ(allocations - before_reading, 0);
  EXPECT_THAT(given.status(), IsOk());
  EXPECT_EQ(last, "0");
}

}  // namespace
}  // namespace ward

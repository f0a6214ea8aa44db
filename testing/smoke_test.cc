#include <chrono>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/explore.h"
#include "ward/testing/simulation.h"

namespace ward::testing {
namespace {
class HelloServer : public AbstractServer {
 public:
  HelloServer() {
    DefineMessageHandler("hello", &HelloServer::Handle);
    DefineMessageHandler("slow", &HelloServer::Slow);
  }
  absl::Status Hello(std::string_view which, std::string& out) {
    return Connect([&](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.Write(which, "Joe"));
      WARD_ASSIGN_OR_RETURN(Message reply, channel.Read());
      out = std::string(reply[0]);
      return absl::OkStatus();
    });
  }
  absl::Status Handle(MessageChannel& channel, std::string_view name) {
    return channel.Write(absl::StrCat("Hello ", name));
  }
  absl::Status Slow(MessageChannel& channel, std::string_view name) {
    absl::SleepFor(absl::Minutes(10));
    return channel.Write(absl::StrCat("Hello ", name));
  }
};

TEST(Smoke, Hello) {
  uint64_t switches = 0, steps = 0;
  const auto start = std::chrono::steady_clock::now();
  std::string text;
  size_t different = 0;
  uint64_t last = 0;
  for (int i = 0; i < 1000; ++i) {
    RandomStrategy strategy(i);
    Simulation simulation(strategy, {});
    {
      HelloServer server;
      absl::Status status = server.Start();
      ASSERT_TRUE(status.ok()) << status;
      std::string out;
      status = server.Hello("hello", out);
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_EQ(out, "Hello Joe");
      status = server.Hello("slow", out);
      ASSERT_TRUE(status.ok()) << status;
      status = server.Stop();
      ASSERT_TRUE(status.ok()) << status;
    }
    EXPECT_EQ(simulation.environment().Leftovers().size(), 0u);
    for (auto& l : simulation.environment().Leftovers()) std::cout << l << "\n";
    switches += simulation.scheduler().switches();
    steps += simulation.scheduler().steps();
    text = simulation.transcript().ToText();
    different += simulation.transcript().Fingerprint() != last;
    last = simulation.transcript().Fingerprint();
  }
  const auto t = std::chrono::steady_clock::now() - start;
  std::cout << text << switches << " switches " << steps << " steps in "
            << std::chrono::duration<double>(t).count() << " different "
            << different << "\n";
}

class Counter : public AbstractServer {
 public:
  using AbstractServer::environment;
  Counter() {
    DefineMessageHandler("add",
                         [this](MessageChannel& channel) -> absl::Status {
                           int was = count_;
                           SchedulingPoint();
                           count_ = was + 1;
                           return channel.Write("ok");
                         });
  }
  absl::Status Add() {
    return Connect([&](MessageChannel& c) -> absl::Status {
      WARD_RETURN_IF_ERROR(c.Write("add"));
      return c.Read().status();
    });
  }
  int count_ = 0;
};
TEST(Smoke, LostUpdate) {
  for (Search s : {Search::kRandom, Search::kPct, Search::kDepthFirst}) {
    auto found = FindFailure({s, 10000}, [] {
      Counter server;
      ASSERT_TRUE(server.Start().ok());
      {
        auto thread = server.environment().StartThread(
            [&] { EXPECT_TRUE(server.Add().ok()); });
        EXPECT_TRUE(server.Add().ok());
      }
      EXPECT_EQ(server.count_, 2);
      EXPECT_TRUE(server.Stop().ok());
    });
    ASSERT_TRUE(found.failure.has_value());
    std::cout << found.runs << " " << found.failure->what
              << FormatDeviations(found.failure->deviations) << "\n"
              << found.failure->transcript << found.failure->replayed << "\n";
  }
}
TEST(Smoke, Faults) {
  Explore({Search::kRandom, 10000, true, true, true}, [] {
    HelloServer server;
    if (server.Start().ok()) {
      std::string out;
      (void)server.Hello("hello", out);
      (void)server.Hello("slow", out);
      (void)server.Stop();
    }
  });
}
}  // namespace
}  // namespace ward::testing

// A listening socket that several have: a service manager and its services, or
// siblings that serve at one name. One that stops leaves it to the others.

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/process.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using testing::RepliesWith;

// Serves in a process of its own at a listener that others have, too, and says
// who it is when it is told "who".
class Service {
 public:
  Service(Environment& environment, const Listener& shared,
          ServerOptions options, std::string name) {
    auto ends = environment.CreateTransportPair();
    if (!ends.ok()) abort();
    ForkOptions fork;
    fork.keep_open = shared.descriptors();
    fork.keep_open.push_back(ends->second->descriptor());
    auto process = environment.Fork(
        fork, [&environment, &shared, name = std::move(name),
               options = std::make_shared<ServerOptions>(std::move(options)),
               end = std::move(ends->second)]() mutable {
          absl::StatusOr<std::unique_ptr<Listener>> listener =
              Adopt(environment, shared);
          if (!listener.ok()) return 2;
          TestServer server(std::move(*options));
          server.DefineMessageHandler("who", [&](MessageChannel& channel) {
            return channel.Write(name);
          });
          return server.StartSynchronously(*std::move(listener), std::move(end))
                         .ok()
                     ? 0
                     : 1;
        });
    if (!process.ok()) abort();
    process_ = *std::move(process);
    owner_ = std::make_unique<MessageChannel>(std::move(ends->first));
    EXPECT_THAT(owner_->Read(), IsOk());
  }

  // Its exit code.
  int Stop() {
    owner_->Close();
    const auto exit = process_->Wait(absl::InfiniteFuture());
    return exit.ok() && exit->kind == ProcessExit::Kind::kExited ? exit->value
                                                                 : -1;
  }

 private:
  // The socket alone: its name is not this service's to remove.
  static absl::StatusOr<std::unique_ptr<Listener>> Adopt(
      Environment& environment, const Listener& shared) {
    WARD_ASSIGN_OR_RETURN(ListenerParts parts, shared.Share());
    parts.name.Reset();
    return environment.AdoptListener(std::move(parts), environment.UserId());
  }

  std::unique_ptr<Process> process_;
  std::unique_ptr<MessageChannel> owner_;
};

class SharedListenerTest : public ModesTest {
 protected:
  void SetUp() override {
    auto listener = environment().Listen({path()});
    ASSERT_THAT(listener, IsOk());
    listener_ = *std::move(listener);
  }
  void TearDown() override {
    if (listener_ != nullptr) listener_->RemovePath();
    listener_.reset();
    ModesTest::TearDown();
  }

  Service Serve(std::string name) {
    return {environment(), *listener_, Shared(), std::move(name)};
  }

  // A call that has begun, and is to be answered some time.
  MessageChannel Ask() {
    MessageChannel channel = Open(client_);
    EXPECT_THAT(channel.Write("who"), IsOk());
    return channel;
  }

  std::unique_ptr<Listener> listener_;
  TestServer client_{Shared()};
};

TEST_F(SharedListenerTest, WhoConnectsBetweenTwoServicesIsAnsweredByTheSecond) {
  Service first = Serve("first");
  EXPECT_THAT(Call(client_, "who"), IsOkAndHolds("first"));
  EXPECT_EQ(first.Stop(), 0);

  std::vector<MessageChannel> waiting;
  for (int i = 0; i < 5; ++i) waiting.push_back(Ask());
  EXPECT_FALSE(Readable(waiting.front(), absl::Milliseconds(20)));
  Service second = Serve("second");
  for (MessageChannel& channel : waiting) {
    EXPECT_THAT(channel.Read(), RepliesWith("second"));
  }
  EXPECT_THAT(Call(client_, "who"), IsOkAndHolds("second"));
  EXPECT_EQ(second.Stop(), 0);
}

TEST_F(SharedListenerTest, OneOfTwoThatStopsLeavesAllClientsToTheOther) {
  Service first = Serve("first");
  Service second = Serve("second");
  for (int i = 0; i < 20; ++i) EXPECT_THAT(Call(client_, "who"), IsOk());
  EXPECT_EQ(first.Stop(), 0);
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(Call(client_, "who"), IsOkAndHolds("second"));
  }
  EXPECT_EQ(second.Stop(), 0);
}

// Not an endless wait: there is nobody left who could serve them.
TEST_F(SharedListenerTest, WhoIsInTheQueueIsRefusedWithTheLastThatHasIt) {
  Service service = Serve("it");
  EXPECT_EQ(service.Stop(), 0);
  MessageChannel waits = Ask();
  listener_->RemovePath();
  listener_.reset();
  EXPECT_THAT(waits.Read(), FailsWith(reason::kConnectionLost));
  EXPECT_FALSE(Answers(path()));
}

}  // namespace
}  // namespace ward

#include "ward/examples/hello/hello_server.h"

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace {

using ::ward::testing::FailsWith;
using ::ward::testing::IsOk;
using ::ward::testing::RepliesWith;

class HelloServerTest : public ward::testing::ServerTest<HelloServer> {};

TEST_F(HelloServerTest, GreetsByName) {
  EXPECT_THAT(Call("hello", "Joe", "Dalton"),
              RepliesWith("Hello Joe Dalton, how are you?", "1234"));
}

TEST_F(HelloServerTest, HasAClientOfItsOwn) {
  const absl::StatusOr<HelloServer::Greeting> greeting =
      server().Hello("Joe", "Dalton");
  ASSERT_THAT(greeting, IsOk());
  EXPECT_EQ(greeting->text, "Hello Joe Dalton, how are you?");
  EXPECT_EQ(greeting->pointless_number, 1234);
}

TEST_F(HelloServerTest, WantsBothNames) {
  EXPECT_THAT(Call("hello", "Joe"), FailsWith(ward::reason::kInvalidArguments));
}

}  // namespace

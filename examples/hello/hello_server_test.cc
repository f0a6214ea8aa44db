#include "ward/examples/hello/hello_server.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace {

using ::testing::FieldsAre;
using ::ward::testing::FailsWith;
using ::ward::testing::IsOkAndHolds;
using ::ward::testing::RepliesWith;

class HelloServerTest : public ward::testing::ServerTest<HelloServer> {};

TEST_F(HelloServerTest, GreetsByName) {
  EXPECT_THAT(Call(kHello, "Joe", "Dalton"),
              IsOkAndHolds(FieldsAre("Hello Joe Dalton, how are you?", 1234)));
}

// As a client in another language, or of before there were methods.
TEST_F(HelloServerTest, GreetsWhoSendsItsMessage) {
  EXPECT_THAT(Call("hello", "Joe", "Dalton"),
              RepliesWith("Hello Joe Dalton, how are you?", "1234"));
}

TEST_F(HelloServerTest, WantsBothNames) {
  EXPECT_THAT(Call("hello", "Joe"), FailsWith(ward::reason::kInvalidArguments));
}

}  // namespace

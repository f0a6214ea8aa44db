#include "ward/examples/hello/hello_server.h"

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"

TEST(HelloServer, GreetsByName) {
  HelloServer server;
  ASSERT_TRUE(server.Start().ok());
  const absl::StatusOr<HelloServer::Greeting> greeting =
      server.Hello("Joe", "Dalton");
  ASSERT_TRUE(greeting.ok()) << greeting.status();
  EXPECT_EQ(greeting->text, "Hello Joe Dalton, how are you?");
  EXPECT_EQ(greeting->pointless_number, 1234);
  EXPECT_TRUE(server.Stop().ok());
}

#include <stdio.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/secret.h"
#include "ward/server/abstract_server.h"

namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// What the tool prints, and its exit status. WARD_OWNERS is set by the BUILD
// file.
std::string Ask(const std::string& socket, const std::string& password) {
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  const std::string command =
      absl::StrCat("printf '%s\\n' '", password, "' | ", getenv("WARD_OWNERS"),
                   " '", socket, "' 2>&1; echo status $?");
  FILE* const output = popen(command.c_str(), "r");
  std::string text;
  std::array<char, 1000> part;
  for (size_t size; (size = fread(part.data(), 1, part.size(), output)) > 0;) {
    text.append(part.data(), size);
  }
  pclose(output);
  return text;
}

TEST(WardOwners, ListsTheOwnersOfAServer) {
  ward::ServerOptions options;
  options.password = ward::Secret("open sesame");
  ward::AbstractServer server(std::move(options));
  ASSERT_TRUE(server.Start().ok());
  const std::string owners = Ask(server.socket_filename(), "open sesame");
  EXPECT_THAT(owners, StartsWith(absl::StrCat(getpid(), "  ")));
  EXPECT_THAT(owners, HasSubstr("ward_owners_test"));
  EXPECT_THAT(owners, HasSubstr("status 0"));

  const std::string refused = Ask(server.socket_filename(), "wrong");
  EXPECT_THAT(refused, HasSubstr("password"));
  EXPECT_THAT(refused, HasSubstr("status 1"));
  EXPECT_TRUE(server.Stop().ok());
  EXPECT_THAT(Ask("/nowhere", "x"), HasSubstr("no server listens there"));
}

}  // namespace

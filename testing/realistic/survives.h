// What each of the servers in this folder is held to.

#ifndef WARD_TESTING_REALISTIC_SURVIVES_H_
#define WARD_TESTING_REALISTIC_SURVIVES_H_

#include "absl/functional/function_ref.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/matchers.h"

namespace ward::testing {

// Fails the calling test unless `body` is right in each of WARD_RUNS schedules
// (default: 100) of each random search, has the same course again in the same
// schedule, and other courses in others.
void Survives(absl::FunctionRef<void()> body);

// The same of a server, of which `use` is a client or several.
template <typename Server>
void Survives(absl::FunctionRef<void(Server&)> use) {
  Survives([use] {
    Server server;
    ASSERT_THAT(server.Start(), IsOk());
    use(server);
    EXPECT_THAT(server.Stop(), IsOk());
  });
}

}  // namespace ward::testing

#endif  // WARD_TESTING_REALISTIC_SURVIVES_H_

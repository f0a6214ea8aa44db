#include "ward/testing/simulator/interception_check.h"

#include "gtest/gtest.h"

namespace ward::testing {
namespace {

TEST(InterceptionCheckDeathTest, SaysThatNothingIsTakenOver) {
  EXPECT_DEATH(CheckInterception(),
               "does not see pthread_mutex_lock.*//testing/interception is not "
               "linked");
}

}  // namespace
}  // namespace ward::testing

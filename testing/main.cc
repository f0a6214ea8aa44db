// The main() of ward_server_test: GoogleTest's, of a program whose servers can
// be started by exec.

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/server/exec_main.h"
#include "ward/testing/failure_relay.h"
#include "ward/testing/simulator/watchdog.h"

int main(int argc, char** argv) {
  ward::testing::FailureRelay::JoinThatOfTheTest();
  ward::ServeIfExeced(argc, argv);
  ward::testing::Watchdog::ShowStackOfCrash();
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}

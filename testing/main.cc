// The main() of ward_server_test: GoogleTest's, of a program whose servers can
// be started by exec.

#include "absl/base/config.h"
#include "absl/debugging/failure_signal_handler.h"
#include "absl/debugging/symbolize.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/server/exec_main.h"
#include "ward/testing/failure_relay.h"

int main(int argc, char** argv) {
  ward::testing::FailureRelay::JoinThatOfTheTest();
  ward::ServeIfExeced(argc, argv);
  // Who crashes, or is told to end because its time is over, says where it was.
  // Sanitizers do that themselves.
#if !defined(ABSL_HAVE_ADDRESS_SANITIZER) && \
    !defined(ABSL_HAVE_THREAD_SANITIZER)
  absl::InitializeSymbolizer(argv[0]);
  absl::InstallFailureSignalHandler({});
#endif
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}

// Failed assertions of other processes, brought to the test: of handlers, in a
// server that is forked or started by exec.

#ifndef WARD_TESTING_FAILURE_RELAY_H_
#define WARD_TESTING_FAILURE_RELAY_H_

#include <string>

#include "ward/channel/file_descriptor.h"

namespace ward::testing {

// While one exists, every process that this one starts adds to it, by way of an
// environment variable. One at a time.
class FailureRelay {
 public:
  FailureRelay();
  FailureRelay(const FailureRelay&) = delete;
  FailureRelay& operator=(const FailureRelay&) = delete;
  ~FailureRelay();

  // What has failed so far, as GoogleTest tells it; empty if nothing has.
  std::string Failures() const;

  // For main(), before it serves: a program that a test has started by exec
  // tells it of its failures. Does nothing in others.
  static void JoinThatOfTheTest();

 private:
  FileDescriptor failures_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_FAILURE_RELAY_H_

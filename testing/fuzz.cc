#include "ward/testing/fuzz.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string>

namespace ward::testing {
namespace {

int LowestFree() {
  const int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
  close(fd);
  return fd;
}

}  // namespace

void FailFuzzing(const char* file, int line, const char* condition,
                 const std::string& why) {
  std::cerr << file << ":" << line << ": " << condition
            << " does not hold: " << why << std::endl;
  std::abort();
}

FuzzDescriptorCheck::FuzzDescriptorCheck() : lowest_free_(LowestFree()) {}

FuzzDescriptorCheck::~FuzzDescriptorCheck() {
  const int now = LowestFree();
  WARD_FUZZ_CHECK(now == lowest_free_, "the lowest free descriptor was "
                                           << lowest_free_ << " and is "
                                           << now);
}

}  // namespace ward::testing

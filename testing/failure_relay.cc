#include "ward/testing/failure_relay.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/testing/environment_variable.h"

namespace ward::testing {
namespace {

// A file of the test's, as seen by others. They do not inherit it: a server
// closes what it does not know.
constexpr char kVariable[] = "WARD_TEST_FAILURES";

std::string PathOf(const FileDescriptor& file) {
  return absl::StrCat("/proc/", getpid(), "/fd/", file.get());
}

class Listener final : public ::testing::EmptyTestEventListener {
 public:
  // In the test's own process they have gone where they belong.
  explicit Listener(pid_t test) : test_(test) {}

  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed() || getpid() == test_) return;
    const std::string path(EnvironmentVariable(kVariable));
    if (path.empty()) return;
    const FileDescriptor file(
        open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    const std::string text =
        absl::StrCat(result.file_name() == nullptr ? "?" : result.file_name(),
                     ":", result.line_number(), ": ", result.message(), "\n");
    if (!file.is_open() || write(file.get(), text.data(), text.size()) < 0) {
      // Another user, say. That this process dies is noticed.
      std::cerr << SystemError(errno, "tell the test of a failed assertion")
                << "\n";
      std::abort();
    }
  }

 private:
  const pid_t test_;
};

void Listen(pid_t test) {
  ::testing::UnitTest::GetInstance()->listeners().Append(new Listener(test));
}

}  // namespace

FailureRelay::FailureRelay()
    : failures_(memfd_create("failures", MFD_CLOEXEC)) {
  static const bool kListening = (Listen(getpid()), true);
  (void)kListening;
  // Tests have no other thread at this point.
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  setenv(kVariable, PathOf(failures_).c_str(), 1);
}

FailureRelay::~FailureRelay() {
  unsetenv(kVariable);  // NOLINT(concurrency-mt-unsafe): as above.
}

std::string FailureRelay::Failures() const {
  std::string text(64 << 10, '\0');
  const ssize_t size = pread(failures_.get(), text.data(), text.size(), 0);
  text.resize(size < 0 ? 0 : static_cast<size_t>(size));
  return text;
}

void FailureRelay::JoinThatOfTheTest() {
  if (!EnvironmentVariable(kVariable).empty()) Listen(/*test=*/0);
}

}  // namespace ward::testing

#include "ward/testing/search/foreign_threads.h"

#include <sys/types.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/testing/simulator/runner.h"

namespace ward::testing {

std::vector<std::string> ForeignThreads() {
  std::vector<std::string> names;
  if (!Runner::AreFibers()) return names;
  std::vector<std::filesystem::path> threads;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/self/task", error)) {
    pid_t number = 0;
    if (absl::SimpleAtoi(entry.path().filename().string(), &number) &&
        number != gettid() && !Runner::IsParked(number)) {
      threads.push_back(entry.path());
    }
  }
  // One that was joined is still there for a moment.
  if (!threads.empty()) absl::SleepFor(absl::Milliseconds(10));
  for (const auto& thread : threads) {
    std::ifstream file(thread / "comm");
    std::string name;
    if (std::getline(file, name)) names.push_back(name);
  }
  return names;
}

}  // namespace ward::testing

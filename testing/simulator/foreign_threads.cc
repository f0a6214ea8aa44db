#include "ward/testing/simulator/foreign_threads.h"

#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
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
  // One that was joined is still there for a moment: a real one, though this
  // may be asked within a simulation.
  constexpr timespec kMoment = {0, 10'000'000};
  if (!threads.empty()) syscall(SYS_nanosleep, &kMoment, nullptr);
  for (const auto& thread : threads) {
    std::ifstream file(thread / "comm");
    std::string name;
    if (std::getline(file, name)) names.push_back(name);
  }
  return names;
}

}  // namespace ward::testing

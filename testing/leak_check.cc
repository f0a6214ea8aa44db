#include "ward/testing/leak_check.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/server/environment.h"

namespace ward::testing {
namespace {

namespace fs = std::filesystem;

// Of this process, for one test after the other: to make one for each, and to
// remove it, would be a third of what a simulated test takes.
class Folder {
 public:
  static const std::string& OfThisProcess() {
    static std::optional<Folder> folder;
    if (!folder.has_value() || !folder->IsUsable()) folder.emplace();
    return folder->path_;
  }

  Folder() {
    if (mkdtemp(path_.data()) == nullptr) std::abort();
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    if (IsOwn()) fs::remove_all(path_, ignored);
  }

 private:
  // Not that of the process which this one was forked from.
  bool IsOwn() const { return process_ == getpid(); }
  // Nor one that a test has removed.
  bool IsUsable() const {
    return IsOwn() && access(path_.c_str(), R_OK | W_OK | X_OK) == 0;
  }

  std::string path_ = "/tmp/ward-test-XXXXXX";
  const pid_t process_ = getpid();
};

// Names and numbers.
std::vector<std::string> Threads() {
  std::vector<std::string> threads;
  for (const fs::directory_entry& entry :
       fs::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(entry.path() / "comm"), name);
    threads.push_back(
        absl::StrCat(entry.path().filename().string(), " (", name, ")"));
  }
  std::sort(threads.begin(), threads.end());
  return threads;
}

// What each signal does: its handler's address, flags, and whether it is
// blocked.
std::map<int, std::string> SignalSettings() {
  std::map<int, std::string> settings;
  sigset_t mask;
  sigemptyset(&mask);
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  // The last one is the watchdog's.
  for (int signal = 1; signal < SIGRTMAX; ++signal) {
    struct sigaction action {};
    if (sigaction(signal, nullptr, &action) != 0) continue;
    // SA_RESTORER: the C library adds it to whatever it sets.
    constexpr int kRestorer = 0x04000000;
    const int flags = action.sa_flags & ~kRestorer;
    settings[signal] = absl::StrCat(
        action.sa_handler == SIG_DFL ? "at its default"
        : action.sa_handler == SIG_IGN
            ? "ignored"
            : absl::StrCat("handled at ", absl::Hex(reinterpret_cast<uintptr_t>(
                                              action.sa_handler))),
        flags == 0 ? "" : absl::StrCat(" (flags ", absl::Hex(flags), ")"),
        sigismember(&mask, signal) != 0 ? ", blocked" : "");
  }
  return settings;
}

// All of this process's children, by SIGKILL.
void KillChildren() {
  do {
    for (const fs::directory_entry& thread :
         fs::directory_iterator("/proc/self/task")) {
      // proc(5).
      std::ifstream children(thread.path() / "children");
      for (pid_t child; children >> child;) kill(child, SIGKILL);
    }
    // With each one that ends, its own children come to this process.
  } while (waitpid(-1, nullptr, 0) > 0 || errno == EINTR);
}

// What comes with the first test, and stays.
void PrepareProcess() {
  static const bool kPrepared = [] {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    // ThreadSanitizer's own thread comes with the first one of a process.
    std::thread([] {}).join();
    // Its event for signals stays open by design.
    (void)Environment::Posix().TakeSignals({});
    return true;
  }();
  (void)kPrepared;
}

}  // namespace

LeakCheck::LeakCheck() : directory_(Folder::OfThisProcess()) {
  // Tests have no other thread at this point.
  // NOLINTBEGIN(concurrency-mt-unsafe)
  for (auto& [name, found] : variables_) {
    if (const char* const value = std::getenv(name)) found = value;
    unsetenv(name);
  }
  setenv("TMPDIR", directory_.c_str(), 1);
  // NOLINTEND(concurrency-mt-unsafe)
  PrepareProcess();
  descriptors_ = OpenDescriptors();
  threads_ = Threads();
  signals_ = SignalSettings();
}

LeakCheck::~LeakCheck() {
  // NOLINTBEGIN(concurrency-mt-unsafe): as above.
  for (const auto& [name, found] : variables_) {
    if (found.has_value()) {
      setenv(name, found->c_str(), 1);
    } else {
      unsetenv(name);
    }
  }
  // NOLINTEND(concurrency-mt-unsafe)
  KillChildren();
  std::error_code ignored;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(directory_, ignored)) {
    fs::remove_all(entry, ignored);
  }
}

std::vector<std::string> LeakCheck::FindAllButThreads(
    absl::FunctionRef<std::string(int)> origin_of) const {
  std::vector<std::string> found;
  const std::map<int, std::string> descriptors = OpenDescriptors();
  for (const auto& [number, target] : descriptors) {
    const auto before = descriptors_.find(number);
    if (before == descriptors_.end() || before->second != target) {
      const std::string origin = origin_of(number);
      found.push_back(absl::StrCat("descriptor ", number, " is left open: ",
                                   target, origin.empty() ? "" : ", ", origin));
    }
  }
  for (const auto& [number, target] : descriptors_) {
    if (descriptors.count(number) == 0) {
      found.push_back(
          absl::StrCat("descriptor ", number,
                       ", which the test did not open, is closed: ", target));
    }
  }
  siginfo_t child{};
  if (waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT) == 0) {
    found.push_back(child.si_pid == 0
                        ? "a child process is still running"
                        : absl::StrCat("child process ", child.si_pid,
                                       " has ended and was not waited for"));
  }
  for (const fs::directory_entry& entry :
       fs::recursive_directory_iterator(directory_)) {
    found.push_back(absl::StrCat("a file is left: ", entry.path().string()));
  }
  for (const auto& [signal, setting] : SignalSettings()) {
    const auto before = signals_.find(signal);
    if (before != signals_.end() && before->second != setting) {
      const char* const name = sigabbrev_np(signal);  // No real-time ones.
      found.push_back(
          absl::StrCat(name != nullptr ? absl::StrCat("SIG", name)
                                       : absl::StrCat("signal ", signal),
                       " was ", before->second, ", and is ", setting));
    }
  }
  return found;
}

std::vector<std::string> LeakCheck::Find(
    absl::FunctionRef<std::string(int)> origin_of) const {
  std::vector<std::string> found = FindAllButThreads(origin_of);
  // A thread that was joined can be seen for a moment longer: pthread_join(3)
  // waits for the clearing of its number, with which its end begins.
  const absl::Time patience = absl::Now() + absl::Seconds(2);
  std::vector<std::string> more;
  do {
    more.clear();
    const std::vector<std::string> threads = Threads();
    std::set_difference(threads.begin(), threads.end(), threads_.begin(),
                        threads_.end(), std::back_inserter(more));
    if (!more.empty()) absl::SleepFor(absl::Milliseconds(1));
  } while (!more.empty() && absl::Now() < patience);
  for (const std::string& thread : more) {
    found.push_back(absl::StrCat("thread ", thread, " is still running"));
  }
  return found;
}

}  // namespace ward::testing

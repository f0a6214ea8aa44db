#include "ward/testing/server_test.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/server_options.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/failure_relay.h"
#include "ward/testing/leak_check.h"
#include "ward/testing/report/places.h"
#include "ward/testing/report/recording_environment.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulation.h"
#include "ward/testing/simulator/threaded_environment.h"
#include "ward/testing/simulator/watchdog.h"

namespace ward::testing {
namespace {

constexpr absl::Duration kLongestWait = absl::Seconds(10);

// The whole of it, as text and for Mermaid, beside the test's outputs.
void WriteOutputs(const Transcript& transcript) {
  const std::string_view folder =
      EnvironmentVariable("TEST_UNDECLARED_OUTPUTS_DIR");
  const auto* const test =
      ::testing::UnitTest::GetInstance()->current_test_info();
  if (folder.empty() || test == nullptr) return;
  const std::string name = absl::StrReplaceAll(
      absl::StrCat(test->test_suite_name(), ".", test->name()), {{"/", "_"}});
  std::ofstream(absl::StrCat(folder, "/", name, ".txt")) << transcript.ToText();
  std::ofstream(absl::StrCat(folder, "/", name, ".mmd"))
      << transcript.ToMermaid();
}

// Bazel ends a test that is out of time without a word, so it is told shortly
// before, of how it hangs. Once: the time is that of all tests of the program.
void SetTimeLimit() {
  static const bool kIsSet = [] {
    const auto limit = static_cast<int>(EnvironmentNumber("TEST_TIMEOUT", 0));
    if (limit > 0) Watchdog::LimitRealTest(limit - limit / 10);
    return limit > 0;
  }();
  (void)kIsSet;
}

// Another schedule for each repetition of a test (--gtest_repeat), and none of
// those of the next few --runs_per_test.
uint64_t ScheduleNumber() {
  class Repetitions final : public ::testing::EmptyTestEventListener {
   public:
    uint64_t number = 0;

   private:
    void OnTestIterationStart(const ::testing::UnitTest& /*program*/,
                              int iteration) override {
      number = static_cast<uint64_t>(iteration);
    }
  };
  static const Repetitions* const kRepetitions = [] {
    auto* const listener = new Repetitions;  // GoogleTest's.
    ::testing::UnitTest::GetInstance()->listeners().Append(listener);
    return listener;
  }();
  return RunNumber() + 1000 * kRepetitions->number;
}

// As a shell has it.
constexpr int kSignalBase = 128;

// Runs `body` in a child, and waits for it and for all that it leaves behind:
// orphans would come to the test, which could not tell them from its own.
int RunAndReap(absl::AnyInvocable<int()>& body) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  const pid_t child = fork();
  if (child == 0) {
    const int code = body();
    std::fflush(nullptr);
    _exit(code);
  }
  // So as not to be one more owner.
  close_range(STDERR_FILENO + 1, ~0U, 0);
  int status = 0;
  int result = -1;
  for (pid_t ended; (ended = waitpid(-1, &status, 0)) > 0 || errno == EINTR;) {
    if (ended != child) continue;
    result = WIFEXITED(status) ? WEXITSTATUS(status)
                               : kSignalBase + WTERMSIG(status);
  }
  return result;
}

}  // namespace

ServerTestBase* ServerTestBase::simulated_test_ = nullptr;

Mode TestMode() {
  constexpr std::pair<std::string_view, Mode> kModes[] = {
      {"_simulated", Mode::kSimulated},
      {"_threaded", Mode::kThreaded},
      {"_forked", Mode::kForked},
      {"_exec", Mode::kExec}};
  const std::string_view asked = EnvironmentVariable("WARD_TEST_MODE");
  for (const auto& [ending, mode] : kModes) {
    if (asked.empty() ? absl::EndsWith(program_invocation_short_name, ending)
                      : asked == ending.substr(1)) {
      return mode;
    }
  }
  if (asked.empty()) return Mode::kSimulated;
  std::cerr << "WARD_TEST_MODE is simulated, threaded, forked or exec, not \""
            << asked << "\"\n";
  std::abort();
}

ServerTestBase::ServerTestBase() {
  if (TestMode() == Mode::kThreaded) SetTimeLimit();
  if (TestMode() != Mode::kSimulated) relay_.emplace();
  leaks_.emplace();
  switch (TestMode()) {
    case Mode::kSimulated: {
      SimulationOptions options;
      static auto& open_before = *new std::optional<std::set<int>>;
      open_before = OpenNumbers();
      if (open_before.has_value()) options.open_before = &*open_before;
      options.on_stuck = [this](const std::string& why) {
        std::cerr << why;
        ShowWhatHappened();
        Watchdog::PrintStacks();
        std::abort();
      };
      options.on_fault = [](const std::string& what) {
        ADD_FAILURE() << WithPlaces(what);
      };
      simulated_test_ = this;
      Watchdog::SetTold([](std::string_view why) {
        (void)!write(STDERR_FILENO, why.data(), why.size());
        Simulation::TellOfHang([](Simulation& hanging) {
          std::cerr << hanging.scheduler().WhoWaits();
          simulated_test_->ShowWhatHappened();
        });
      });
      strategy_ = std::make_unique<RandomStrategy>(ScheduleNumber());
      simulation_ = std::make_unique<Simulation>(*strategy_, options);
      break;
    }
    case Mode::kThreaded:
      threaded_ = std::make_unique<ThreadedEnvironment>();
      break;
    case Mode::kForked:
      break;
    case Mode::kExec:
      SetDefaultStartModeForTesting(StartMode::kExec);
      break;
  }
  if (simulation_ != nullptr) return;
  recording_ = std::make_unique<RecordingEnvironment>(
      threaded_ != nullptr ? *threaded_ : Environment::Posix());
  Environment::SetDefaultForTesting(recording_.get());
}

ServerTestBase::~ServerTestBase() {
  if (!torn_down_) {
    ADD_FAILURE() << "The fixture's TearDown() does not call that of its base, "
                     "which looks for what the test has left behind.";
  }
  if (simulation_ != nullptr) Watchdog::SetTold(nullptr);
  simulation_.reset();
  Environment::SetDefaultForTesting(nullptr);
  SetDefaultStartModeForTesting(StartMode::kFork);
}

void ServerTestBase::TearDown() {
  torn_down_ = true;
  if (relay_.has_value()) {
    const std::string failures = relay_->Failures();
    if (!failures.empty()) ADD_FAILURE() << "In another process: " << failures;
  }
  std::vector<std::string> left;
  if (simulation_ != nullptr) {
    left = simulation_->Settle();
    for (std::string& leak : leaks_->FindAllButThreads()) {
      left.push_back(std::move(leak));
    }
  } else {
    left = leaks_->Find(
        [this](int descriptor) { return recording_->OriginOf(descriptor); });
  }
  for (const std::string& leak : left) {
    ADD_FAILURE() << "The test has left something behind: " << leak;
  }
  if (HasFailure()) ShowWhatHappened();
}

void ServerTestBase::ShowWhatHappened() {
  const Transcript& transcript = simulation_ != nullptr
                                     ? simulation_->transcript()
                                     : recording_->transcript();
  std::cout << transcript.ToText(Transcript::kMostShown);
  WriteOutputs(transcript);
  if (simulation_ == nullptr) return;
  std::cout << "With the same schedule: --test_env=TEST_RUN_NUMBER="
            << ScheduleNumber() << std::endl;
}

void ServerTestBase::Advance(absl::Duration time) {
  if (simulation_ != nullptr) {
    simulation_->scheduler().Advance(time);
  } else if (time <= kLongestWait) {
    absl::SleepFor(time);
  } else {
    ADD_FAILURE() << "Only a simulated test can let "
                  << absl::FormatDuration(time)
                  << " pass: ask MovesClock() first";
  }
}

void ServerTestBase::Raise(const AbstractServer& server, int signal) {
  // To kill(2) it would mean all processes of the test's group.
  if (server.server_pid() <= 0) {
    ADD_FAILURE() << "Raise(" << signal << "): the server is not running";
    return;
  }
  if (simulation_ != nullptr) {
    simulation_->environment().Raise(server.server_pid(), signal);
    return;
  }
  recording_->NoteSignal(server.server_pid(), signal);
  if (threaded_ != nullptr) {
    EXPECT_EQ(threaded_->Raise(signal), absl::OkStatus());
  } else {
    EXPECT_EQ(kill(server.server_pid(), signal), 0);
  }
}

void ServerTestBase::Kill(AbstractServer& server) {
  const std::shared_ptr<const Pollable> end = server.pollable();
  Raise(server, SIGKILL);
  if (end == nullptr) return;
  const Pollable* const polled[] = {end.get()};
  EXPECT_EQ(environment().Poll(polled, absl::InfiniteFuture()).status(),
            absl::OkStatus());
  // That was the beginning of its end: one that is still dying may take another
  // call. This waits for its last moment.
  EXPECT_FALSE(server.CheckAlive().ok());
}

void ServerTestBase::RemoveName(const AbstractServer& server) {
  const std::string path = server.socket_filename();
  if (simulation_ != nullptr) {
    simulation_->environment().Unlink(path);
  } else {
    EXPECT_EQ(unlink(path.c_str()), 0) << path;
  }
}

ServerTestBase::Owner ServerTestBase::AddOwner() {
  Owner owner;
  if (!HasProcesses()) {
    ADD_FAILURE() << "AddOwner(): this mode has no processes: ask "
                     "HasProcesses() first";
    return owner;
  }
  auto ends = environment().CreateTransportPair();
  if (!ends.ok()) {
    ADD_FAILURE() << ends.status();
    return owner;
  }
  ForkOptions options;
  options.keep_all_open = true;
  options.keep_open = {ends->second->descriptor()};
  auto process = environment().Fork(
      options,
      [told = std::move(ends->second), tells = &ends->first, this]() mutable {
        // A copy of the test's end, which would keep it from ever hearing of
        // the test's.
        if (simulation_ == nullptr) tells->reset();
        MessageChannel channel(std::move(told));
        (void)channel.Read();
        return 0;
      });
  if (!process.ok()) {
    ADD_FAILURE() << process.status();
    return owner;
  }
  owner.told_ = std::move(ends->first);
  owner.process_ = *std::move(process);
  return owner;
}

void ServerTestBase::Owner::Kill() {
  if (process_ == nullptr) return;  // There is none, and the test has failed.
  EXPECT_EQ(process_->Kill(SIGKILL), absl::OkStatus());
  EXPECT_TRUE(process_->Wait(absl::InfiniteFuture()).ok());
  told_.reset();
}

void ServerTestBase::Owner::Quit() {
  if (process_ == nullptr) return;
  told_->ShutDown();
  EXPECT_TRUE(process_->Wait(absl::InfiniteFuture()).ok());
  told_.reset();
}

int ServerTestBase::RunInProcess(absl::AnyInvocable<int()> body) {
  if (!HasProcesses()) {
    ADD_FAILURE() << "RunInProcess(): this mode has no processes: ask "
                     "HasProcesses() first";
    return -1;
  }
  ForkOptions options;
  options.keep_all_open = true;
  absl::AnyInvocable<int()> child = std::move(body);
  if (simulation_ == nullptr) {
    child = [body = std::move(child)]() mutable { return RunAndReap(body); };
  }
  auto process = environment().Fork(options, std::move(child));
  if (!process.ok()) {
    ADD_FAILURE() << process.status();
    return -1;
  }
  const auto exit = (*process)->Wait(absl::InfiniteFuture());
  if (!exit.ok()) {
    ADD_FAILURE() << exit.status();
    return -1;
  }
  if (simulation_ != nullptr) {
    simulation_->environment().AwaitDescendants((*process)->pid());
  }
  return exit->kind == ProcessExit::Kind::kExited ? exit->value
                                                  : kSignalBase + exit->value;
}

}  // namespace ward::testing

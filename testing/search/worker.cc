#include "ward/testing/search/worker.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/process.h"
#include "ward/testing/report/run_events.h"
#include "ward/testing/search/exploration.h"
#include "ward/testing/search/explored_run.h"
#include "ward/testing/search/pairs.h"
#include "ward/testing/search/portfolio.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulator/coverage.h"
#include "ward/testing/simulator/remarks.h"
#include "ward/testing/simulator/run_listener.h"
#include "ward/testing/simulator/simulation.h"
#include "ward/testing/simulator/strategy.h"
#include "ward/testing/simulator/watchdog.h"

namespace ward::testing {
namespace {

// A process with more threads that sleep for ever gives way to a fresh one.
constexpr size_t kMostKilledThreads = 256;

// And one that has made its part: what happens in the first run of a process
// alone is to be tried under more than one schedule. Of short runs it makes
// more, as a fork takes as long as some thousand switches of threads.
bool HasMadeItsPart(uint64_t runs, uint64_t switches) {
  return runs >= 128 || (runs >= 32 && switches >= 4000);
}

// What the process cannot do without.
int Must(long result, std::string_view attempt) {
  if (result >= 0) return static_cast<int>(result);
  std::cerr << SystemError(errno, absl::StrCat("explore: ", attempt)) << "\n";
  std::abort();
}

// Notes failed assertions, and GTEST_SKIP().
class FailureListener : public ::testing::EmptyTestEventListener {
 public:
  explicit FailureListener(Record& record) : record_(record) {}

  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (result.skipped()) ++record_.skipped;
    if (!result.failed()) return;
    Simulation* const simulation = Simulation::Current();
    if (record_.failed_in < 0 && simulation != nullptr) {
      record_.failed_in = simulation->scheduler().thread();
    }
    record_.Fail(
        absl::StrCat(result.file_name() == nullptr ? "?" : result.file_name(),
                     ":", result.line_number(), ": ", result.message(), "\n"));
  }

 private:
  Record& record_;
};

// Whether so many are open, of processes that were killed, that the next run
// may find the table full.
bool HasManyDescriptors() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
  // The lowest that is free.
  const FileDescriptor next(dup(STDOUT_FILENO));
  return static_cast<rlim_t>(next.get()) > limit.rlim_cur / 2;
}

// What earlier runs have printed.
void ForgetOutput() {
  FlushOutput();
  if (lseek(STDOUT_FILENO, 0, SEEK_CUR) == 0) return;
  Must(ftruncate(STDOUT_FILENO, 0), "make room for a run's output");
  lseek(STDOUT_FILENO, 0, SEEK_SET);
}

Record* record_of_this_process = nullptr;

// In the child.
[[noreturn]] void DoWork(const Work& work, Record& record,
                         absl::FunctionRef<void()> body) {
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new FailureListener(record));
  if (work.keep != Keep::kNever) Watchdog::ShowStackOfCrash();
  record_of_this_process = &record;
  Watchdog::SetTold(
      [](std::string_view why) { KeepHang(*record_of_this_process, why); });
  Remarks::SetSink(
      [](std::string_view remark) { record_of_this_process->Remark(remark); });
  Simulation::ExpectMany();

  const ExploreOptions& options = work.options;
  const bool searches = work.strategy == nullptr;
  DepthFirstStrategy all(
      options.deviations, options.faults_per_run,
      {record.level,
       {record.path.begin(),
        record.path.begin() + static_cast<ptrdiff_t>(record.path_size)}},
      work.profile);
  std::optional<CoverageRecorder> coverage;
  if (work.covers) coverage.emplace(record.coverage, TellsPairs());
  std::array<std::optional<PairsStrategy>, kPairsLanes> pairs;
  const uint64_t runs_before = record.runs;
  const uint64_t switches_before = record.switches;
  size_t killed_threads = 0;
  record.warm = false;
  if (work.warm) {
    MakeDullRun(options, body, record);
    record.warm = true;
  }
  static const Profile kUnknown = {};
  const auto next_run = [&] {
    do {
      ++record.run;
    } while (searches &&
             OwnerOf(options.search, record.run, work.workers) != work.worker);
  };
  for (; record.run < record.end; next_run()) {
    std::unique_ptr<Strategy> strategy;
    Turn turn = TurnOf(options.search, record.run);
    // What is left to a portfolio then is what is random: with seeds that no
    // other run has.
    if (turn.search == Search::kDepthFirst && record.exhausted) {
      turn = {Search::kRandom, turn.number + (uint64_t{1} << 39)};
    }
    const bool depth_first = searches && turn.search == Search::kDepthFirst;
    if (!searches) {
      strategy = (*work.strategy)(record.run);
    } else if (turn.search == Search::kPairs) {
      const size_t lane = turn.number % kPairsLanes;
      if (!pairs[lane].has_value()) {
        pairs[lane].emplace(record.orders[lane], lane, work.dull);
      }
      pairs[lane]->BeginRun(work.seed + turn.number);
    } else if (!depth_first) {
      strategy =
          MakeStrategy(options, work.seed, turn,
                       work.profile == nullptr ? kUnknown : *work.profile);
    }
    record.search = turn.search;
    ForgetOutput();
    Strategy& chosen = strategy != nullptr ? *strategy
                       : depth_first       ? static_cast<Strategy&>(all)
                                           : *pairs[turn.number % kPairsLanes];
    killed_threads += Run(
        options, chosen, work.keep, body, record, [] {}, work.events,
        work.listener, work.covers ? &*coverage : nullptr);
    if (searches && record.courses < record.course_of.size()) {
      record.course_of[record.courses++] = record.course;
    }
    const bool failed = record.HasFailed();
    if (failed &&
        (work.failure == nullptr || record.HasFailedAs(*work.failure))) {
      record.outcome = Record::Outcome::kFailed;
      FlushOutput();
      _exit(1);
    }
    if (depth_first) {
      record.exhausted = !all.NextRun();
      if (record.exhausted && options.search == Search::kDepthFirst) break;
      const auto& [level, path] = all.position();
      record.level = level;
      record.path_size = std::min(path.size(), record.path.size());
      std::copy_n(path.begin(), record.path_size, record.path.begin());
    }
    record.warm = true;
    const bool has_made_its_part =
        options.fresh_process ||
        HasMadeItsPart(record.runs - runs_before,
                       record.switches - switches_before);
    // Not if the next one would not know where to go on.
    if ((failed || has_made_its_part || killed_threads > kMostKilledThreads ||
         (killed_threads > 0 && HasManyDescriptors())) &&
        all.position().path.size() <= record.path.size()) {
      next_run();
      record.outcome = Record::Outcome::kRetired;
      _exit(0);
    }
  }
  record.outcome = Record::Outcome::kFinished;
  _exit(0);
}

}  // namespace

Worker::Worker() {
  Watchdog::PrepareStacks();
  output_.Reset(Must(memfd_create("output", MFD_CLOEXEC),
                     "make a file for the output of runs"));
}

std::vector<int> Worker::Processors() {
  std::vector<int> processors;
  cpu_set_t allowed;
  // Fails where there are more processors than a cpu_set_t has.
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &allowed)) processors.push_back(i);
    }
  }
  if (processors.empty()) processors.push_back(sched_getcpu());
  return processors;
}

void Worker::Start(const Work& work, uint64_t end,
                   absl::FunctionRef<void()> body) {
  record().outcome = Record::Outcome::kRunning;
  record().end = end;
  record().crashed = false;
  record().hung = false;
  record().looped = false;
  record().was_stuck = false;
  record().failed_in = -1;
  record().what_size = 0;
  Must(ftruncate(output_.get(), 0), "make room for the output of runs");
  lseek(output_.get(), 0, SEEK_SET);
  std::cout.flush();
  const pid_t parent = getpid();
  pid_ = Must(fork(), "fork a process for runs");
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    // Reports of sanitizers, and what the body prints.
    dup2(output_.get(), STDOUT_FILENO);
    dup2(output_.get(), STDERR_FILENO);
    // Switches between processors cost more than the threads' work.
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(work.processor, &one);
    sched_setaffinity(0, sizeof(one), &one);
    DoWork(work, record(), body);
  }
  pidfd_.Reset(Must(syscall(SYS_pidfd_open, pid_, 0),
                    "wait for a process of runs (pidfd_open)"));
}

void Worker::Reap() {
  const int status = Wait();
  if (record().outcome != Record::Outcome::kRunning) return;
  record().outcome = Record::Outcome::kFailed;
  // Why, the watchdog has said.
  if (record().hung) return;
  record().crashed = true;
  const ProcessExit exit =
      WIFSIGNALED(status)
          ? ProcessExit{ProcessExit::Kind::kSignaled, WTERMSIG(status)}
          : ProcessExit{ProcessExit::Kind::kExited, WEXITSTATUS(status)};
  record().Fail(absl::StrCat("a crash: the process ", exit.ToString(), "\n"));
}

void Worker::MakeOne(Work work, absl::FunctionRef<void()> body) {
  record().run = 0;
  work.processor = sched_getcpu();
  Start(work, /*end=*/1, body);
  Reap();
}

void Worker::MakeProfile(const ExploreOptions& options,
                         absl::FunctionRef<void()> body) {
  record().profile = {};
  const StrategyOf strategy = [this](uint64_t /*run*/) {
    return std::make_unique<ProfilingStrategy>(record().profile);
  };
  Work work;
  work.options = options;
  work.strategy = &strategy;
  work.covers = true;
  work.keep = Keep::kAlways;
  MakeOne(work, body);
}

void Worker::Replay(const ExploreOptions& options, const Deviations& deviations,
                    bool warm, absl::FunctionRef<void()> body, Keep keep,
                    RunEvents* events, RunListener* listener) {
  const StrategyOf strategy = [&deviations](uint64_t /*run*/) {
    return std::make_unique<ReplayStrategy>(deviations);
  };
  Work work;
  work.options = options;
  work.strategy = &strategy;
  work.warm = warm;
  work.keep = keep;
  work.events = events;
  work.listener = listener;
  MakeOne(work, body);
}

std::string Worker::Output() const {
  const off_t size = lseek(output_.get(), 0, SEEK_END);
  const off_t stacks = StacksAt();
  return Shortened(0, stacks < 0 ? size : stacks);
}

std::string Worker::Stacks() const {
  const off_t stacks = StacksAt();
  return stacks < 0 ? "" : Shortened(stacks, lseek(output_.get(), 0, SEEK_END));
}

// One that hangs is not made again: its stacks are all that there is.
off_t Worker::StacksAt() const {
  return record_->was_stuck && !record_->hung
             ? static_cast<off_t>(record_->stacks_at)
             : -1;
}

std::string Worker::Shortened(off_t from, off_t end) const {
  constexpr off_t kHalf = 8192;
  const off_t size = end - from;
  if (size <= 2 * kHalf) return Printed(from, size);
  return absl::StrCat(Printed(from, kHalf), "\n... ", size - 2 * kHalf,
                      " bytes are left out ...\n", Printed(end - kHalf, kHalf));
}

int Worker::Wait() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
  return status;
}

std::string Worker::Printed(off_t from, off_t size) const {
  std::string text(static_cast<size_t>(size), '\0');
  const ssize_t got = pread(output_.get(), text.data(), text.size(), from);
  text.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  return text;
}

}  // namespace ward::testing

#include "ward/testing/explore.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/process.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/simulation.h"
#include "ward/testing/strategy.h"
#include "ward/testing/transcript.h"
#include "ward/testing/watchdog.h"

namespace ward::testing {
namespace {

// After the body: how long what it has started may take to end by itself, on
// the simulated clock.
constexpr absl::Duration kSettle = absl::Minutes(2);

// A process with more threads that sleep for ever gives way to a fresh one.
constexpr size_t kMostKilledThreads = 256;

// The most attempts to make a failure simpler.
constexpr int kMostAttempts = 400;
// One that the watchdog ends takes 5 s.
constexpr absl::Duration kMostTimeForAttempts = absl::Seconds(30);

// How long to look for one that is simple of itself.
constexpr uint64_t kMostSimpleRuns = 10000;
constexpr absl::Duration kMostTimeForSimpleRuns = absl::Seconds(10);

constexpr absl::Duration kProgress = absl::Seconds(5);

// Of one run, as can be kept. More than the most steps by default, each of
// which may be a few choices; memory that is not used costs nothing.
constexpr size_t kMostChoices = size_t{1} << 19;

// Memory that a child's last words are in, however it ends.
struct Record {
  enum class Outcome { kRunning, kFailed, kRetired, kFinished };

  std::atomic<Outcome> outcome;
  // The run under way, and the totals of those before it.
  uint64_t run;
  uint64_t runs;
  uint64_t switches;
  uint64_t thread_choices;
  uint64_t fingerprint;
  bool exhausted;
  size_t deviations;
  std::array<std::pair<uint32_t, uint32_t>, kMostChoices> deviation;
  // Of Search::kDepthFirst.
  int level;
  size_t path_size;
  std::array<DepthFirstStrategy::Branch, kMostChoices> path;
  // Why it failed.
  size_t what_size;
  std::array<char, 1 << 16> what;
  size_t transcript_size;
  std::array<char, 1 << 18> transcript;

  bool HasFailed() const { return what_size > 0; }

  void Fail(std::string_view why) {
    const size_t size = std::min(why.size(), what.size() - what_size);
    std::copy_n(why.begin(), size,
                what.begin() + static_cast<ptrdiff_t>(what_size));
    what_size += size;
  }

  void Keep(const Transcript& shown) {
    const std::string text = shown.ToText(Transcript::kMostShown);
    transcript_size = std::min(text.size(), transcript.size());
    std::copy_n(text.begin(), transcript_size, transcript.begin());
    fingerprint = shown.Fingerprint();
  }

  Deviations Taken() const {
    return {deviation.begin(),
            deviation.begin() + static_cast<ptrdiff_t>(deviations)};
  }
};

class SharedRecord {
 public:
  SharedRecord()
      : memory_(mmap(nullptr, sizeof(Record), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED) std::abort();
  }
  SharedRecord(const SharedRecord&) = delete;
  SharedRecord& operator=(const SharedRecord&) = delete;
  ~SharedRecord() { munmap(memory_, sizeof(Record)); }

  // Fresh memory is zero, and so are these.
  Record& operator*() const { return *static_cast<Record*>(memory_); }
  Record* operator->() const { return static_cast<Record*>(memory_); }

 private:
  void* const memory_;
};

// Notes failed assertions.
class FailureListener : public ::testing::EmptyTestEventListener {
 public:
  explicit FailureListener(Record& record) : record_(record) {}

  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    record_.Fail(
        absl::StrCat(result.file_name() == nullptr ? "?" : result.file_name(),
                     ":", result.line_number(), ": ", result.message(), "\n"));
  }

 private:
  Record& record_;
};

uint64_t SeedOf(uint64_t run) {
  const uint64_t base = (EnvironmentNumber("TEST_RUN_NUMBER", 1) << 8) +
                        EnvironmentNumber("TEST_SHARD_INDEX", 0);
  return (base << 40) + run;
}

std::unique_ptr<Strategy> MakeStrategy(const ExploreOptions& options,
                                       uint64_t run, uint64_t length) {
  if (options.search == Search::kPct) {
    const uint64_t deepest = std::max(options.depth, 1);
    return std::make_unique<PctStrategy>(
        SeedOf(run), static_cast<int>(1 + run % deepest), length);
  }
  return std::make_unique<RandomStrategy>(SeedOf(run),
                                          /*weighted=*/run % 2 == 1);
}

// One run. Its course, and how it fails, go into `record` while it is made; the
// transcript only if it fails or is `known` to. Returns how many threads stay.
// A run that is stuck ends the process, after `when_stuck`.
size_t Run(
    const ExploreOptions& options, Strategy& strategy, bool known,
    absl::FunctionRef<void()> body, Record& record,
    absl::FunctionRef<void()> when_stuck = [] {}) {
  record.deviations = 0;
  record.transcript_size = 0;
  SimulationOptions simulated;
  simulated.faults = {options.faults, options.deaths};
  simulated.delays = options.delays;
  simulated.max_steps = options.max_steps;
  uint64_t thread_choices = 0;
  simulated.on_choice = [&](uint32_t step, const Choice& choice,
                            size_t option) {
    // At once: the run may fail before its end.
    if (choice.kind == ChoiceKind::kThread) {
      record.thread_choices = std::max(record.thread_choices, ++thread_choices);
    }
    if (option == 0 || record.deviations == record.deviation.size()) return;
    record.deviation[record.deviations++] = {step,
                                             static_cast<uint32_t>(option)};
  };
  Simulation* running = nullptr;
  simulated.on_stuck = [&](const std::string& why) {
    record.Fail(why);
    record.Keep(running->transcript());
    record.outcome = Record::Outcome::kFailed;
    when_stuck();
    Watchdog::PrintStacks();
    _exit(1);
  };
  Simulation simulation(strategy, simulated);
  running = &simulation;
  body();
  simulation.scheduler().Advance(kSettle);
  const std::vector<std::string> left = simulation.environment().Leftovers();
  for (const std::string& leak : left) record.Fail(leak + "\n");
  if (known || record.HasFailed()) record.Keep(simulation.transcript());
  record.switches += simulation.scheduler().switches();
  return simulation.scheduler().killed_threads();
}

// In the child: the runs first, first + stride, ... below `end`.
void Work(const ExploreOptions& options, uint64_t stride, uint64_t end,
          uint64_t length, const Deviations* replayed,
          absl::FunctionRef<void()> body, Record& record) {
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new FailureListener(record));

  const bool depth_first =
      options.search == Search::kDepthFirst && replayed == nullptr;
  DepthFirstStrategy all(
      options.deviations, options.faults_per_run,
      {record.level,
       {record.path.begin(),
        record.path.begin() + static_cast<ptrdiff_t>(record.path_size)}});
  size_t killed_threads = 0;
  for (; record.run < end; record.run += stride) {
    std::unique_ptr<Strategy> strategy;
    if (replayed != nullptr) {
      strategy = std::make_unique<ReplayStrategy>(*replayed);
    } else if (!depth_first) {
      strategy = MakeStrategy(options, record.run, length);
    }
    try {
      killed_threads += Run(options, depth_first ? all : *strategy,
                            replayed != nullptr, body, record);
    } catch (const std::exception& exception) {
      record.Fail(absl::StrCat("the body threw: ", exception.what(), "\n"));
    }
    ++record.runs;
    if (record.HasFailed()) {
      record.outcome = Record::Outcome::kFailed;
      _exit(1);
    }
    if (depth_first) {
      record.exhausted = !all.NextRun();
      if (record.exhausted) break;
      const auto& [level, path] = all.position();
      record.level = level;
      record.path_size = std::min(path.size(), record.path.size());
      std::copy_n(path.begin(), record.path_size, record.path.begin());
    }
    // Not if the next one would not know where to go on.
    if (killed_threads > kMostKilledThreads &&
        (!depth_first || all.position().path.size() <= record.path.size())) {
      record.run += stride;
      record.outcome = Record::Outcome::kRetired;
      _exit(0);
    }
  }
  record.outcome = Record::Outcome::kFinished;
  _exit(0);
}

// A child at work.
class Worker {
 public:
  Worker() : output_(memfd_create("output", MFD_CLOEXEC)) {}

  Record& record() { return *record_; }
  bool running() const { return pid_ > 0; }
  int pidfd() const { return pidfd_.get(); }

  void Start(const ExploreOptions& options, int processor, uint64_t stride,
             uint64_t end, uint64_t length, const Deviations* replayed,
             absl::FunctionRef<void()> body) {
    record().outcome = Record::Outcome::kRunning;
    record().what_size = 0;
    if (ftruncate(output_.get(), 0) != 0) std::abort();
    lseek(output_.get(), 0, SEEK_SET);
    std::cout.flush();
    pid_ = fork();
    if (pid_ < 0) std::abort();
    if (pid_ == 0) {
      // Reports of sanitizers, and what the body prints.
      dup2(output_.get(), STDOUT_FILENO);
      dup2(output_.get(), STDERR_FILENO);
      // Switches between processors cost more than the threads' work.
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(processor, &one);
      sched_setaffinity(0, sizeof(one), &one);
      Work(options, stride, end, length, replayed, body, record());
    }
    pidfd_.Reset(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  }

  // Waits for the child to end: how it did is in the record. One that takes
  // longer is killed, and has not failed.
  void Reap(absl::Time deadline) {
    pollfd end = {pidfd(), POLLIN, 0};
    do {
      const absl::Duration left =
          std::max(deadline - absl::Now(), absl::ZeroDuration());
      if (poll(&end, 1, static_cast<int>(left / absl::Milliseconds(1))) == 0) {
        Kill();
        return;
      }
    } while (end.revents == 0);
    Reap();
  }

  // The child has ended: how it did is in the record.
  void Reap() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
    if (record().outcome != Record::Outcome::kRunning) return;
    record().outcome = Record::Outcome::kFailed;
    const ProcessExit exit =
        WIFSIGNALED(status)
            ? ProcessExit{ProcessExit::Kind::kSignaled, WTERMSIG(status)}
            : ProcessExit{ProcessExit::Kind::kExited, WEXITSTATUS(status)};
    record().Fail(absl::StrCat("a crash: the process ", exit.ToString(), "\n"));
  }

  void Kill() {
    if (!running()) return;
    kill(pid_, SIGKILL);
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
  }

  // The end of what it has printed.
  std::string Output() const {
    constexpr off_t kMost = 8192;
    const off_t size = lseek(output_.get(), 0, SEEK_END);
    std::string text(static_cast<size_t>(std::min(size, kMost)), '\0');
    const ssize_t got = pread(output_.get(), text.data(), text.size(),
                              std::max<off_t>(size - kMost, 0));
    text.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
    return text;
  }

 private:
  SharedRecord record_;
  FileDescriptor output_;
  FileDescriptor pidfd_;
  pid_t pid_ = 0;
};

bool Failed(const Record& record) {
  return record.outcome == Record::Outcome::kFailed;
}

// Makes the one run that `deviations` tell.
void Replay(const ExploreOptions& options, const Deviations& deviations,
            absl::FunctionRef<void()> body, Worker& worker) {
  worker.record().run = 0;
  worker.Start(options, sched_getcpu(), 1, 1, 0, &deviations, body);
  worker.Reap();
}

// Whether the first line of why is the same: an assertion's place, and what it
// is about, or what the scheduler has found.
bool FailedAs(const Record& record, std::string_view what) {
  const auto first_line = [](std::string_view text) {
    return text.substr(0, text.find('\n'));
  };
  return Failed(record) &&
         first_line({record.what.data(), record.what_size}) == first_line(what);
}

// Most bugs need no more than one deviation, or two. A run that has no others,
// and fails in the same way, is worth more than what is left of a run at
// random.
void TakeASimpleOne(ExploreOptions options, absl::FunctionRef<void()> body,
                    int most, const std::string& what, Worker& worker,
                    absl::FunctionRef<void(Worker&)> take) {
  const absl::Time end = absl::Now() + kMostTimeForSimpleRuns;
  options.search = Search::kDepthFirst;
  options.deviations = std::min(most, 2);
  options.faults_per_run = 1;
  Record& record = worker.record();
  record.run = 0;
  record.runs = 0;
  record.level = 0;
  record.path_size = 0;
  do {
    worker.Start(options, sched_getcpu(), 1, kMostSimpleRuns, 0, nullptr, body);
    worker.Reap(end);
  } while (record.outcome == Record::Outcome::kRetired);
  if (!FailedAs(record, what)) return;
  // Again, now with a transcript.
  Replay(options, record.Taken(), body, worker);
  if (FailedAs(record, what)) take(worker);
}

Exploration::Failure Describe(Worker& worker, const ExploreOptions& options,
                              absl::FunctionRef<void()> body) {
  Exploration::Failure failure;
  failure.run = worker.record().run;
  failure.found = worker.record().Taken();
  const auto take = [&failure](Worker& from) {
    const Record& record = from.record();
    failure.deviations = record.Taken();
    failure.what = absl::StrCat(
        std::string_view(record.what.data(), record.what_size), from.Output());
    failure.transcript.assign(record.transcript.data(), record.transcript_size);
  };
  take(worker);

  Worker again;
  Replay(options, failure.found, body, again);
  failure.replayed = Failed(again.record());
  if (!failure.replayed) return failure;
  take(again);
  const auto most = static_cast<int>(failure.deviations.size()) - 1;
  if (most > 0) TakeASimpleOne(options, body, most, failure.what, again, take);
  // Leaves out ever smaller pieces for as long as that does not mend it.
  int attempts = 0;
  const absl::Time end = absl::Now() + kMostTimeForAttempts;
  for (size_t size = std::max<size_t>(failure.deviations.size() / 2, 1);
       size > 0; size /= 2) {
    for (size_t from = 0; from < failure.deviations.size();) {
      if (++attempts > kMostAttempts || absl::Now() > end) return failure;
      Deviations fewer;
      size_t i = 0;
      for (const auto& entry : failure.deviations) {
        if (i < from || i >= from + size) fewer.insert(entry);
        ++i;
      }
      Replay(options, fewer, body, again);
      if (FailedAs(again.record(), failure.what) &&
          again.record().deviations < failure.deviations.size()) {
        take(again);
      } else {
        from += size;
      }
    }
  }
  return failure;
}

std::string CommandFor(const Deviations& deviations) {
  const auto* const test =
      ::testing::UnitTest::GetInstance()->current_test_info();
  const std::string_view target = EnvironmentVariable("TEST_TARGET");
  return absl::StrCat(
      "bazel test ", target.empty() ? "<this target>" : target,
      " --test_output=all --test_filter=", test->test_suite_name(), ".",
      test->name(), " --test_env=WARD_REPLAY=", FormatDeviations(deviations));
}

}  // namespace

Exploration FindFailure(const ExploreOptions& options,
                        absl::FunctionRef<void()> body) {
  const absl::Time start = absl::Now();
  const uint64_t runs = EnvironmentNumber("WARD_RUNS", options.runs);
  Exploration exploration;

  // How many choices a run has, for PctStrategy.
  uint64_t length = 0;
  if (options.search == Search::kPct) {
    Worker dull;
    Replay(options, {}, body, dull);
    if (Failed(dull.record())) {
      exploration.failure = Describe(dull, options, body);
      exploration.runs = 1;
      exploration.time = absl::Now() - start;
      return exploration;
    }
    length = dull.record().thread_choices;
  }

  cpu_set_t allowed;
  sched_getaffinity(0, sizeof(allowed), &allowed);
  std::vector<int> processors;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &allowed)) processors.push_back(i);
  }
  // What is left to try depth first is known to one alone.
  if (options.search == Search::kDepthFirst || runs < 2) processors.resize(1);
  std::vector<std::unique_ptr<Worker>> workers;
  const auto begin = [&](size_t i) {
    workers[i]->Start(options, processors[i], processors.size(), runs, length,
                      nullptr, body);
  };
  for (size_t i = 0; i < processors.size(); ++i) {
    workers.push_back(std::make_unique<Worker>());
    workers[i]->record().run = i;
    begin(i);
  }

  const auto count = [&] {
    exploration.runs = 0;
    exploration.switches = 0;
    for (const auto& worker : workers) {
      exploration.runs += worker->record().runs;
      exploration.switches += worker->record().switches;
    }
    exploration.time = absl::Now() - start;
  };
  absl::Time next_progress = start + kProgress;
  Worker* failed = nullptr;
  while (failed == nullptr) {
    std::vector<pollfd> ends;
    std::vector<size_t> running;
    for (size_t i = 0; i < workers.size(); ++i) {
      if (!workers[i]->running()) continue;
      ends.push_back({workers[i]->pidfd(), POLLIN, 0});
      running.push_back(i);
    }
    if (running.empty()) break;
    poll(ends.data(), ends.size(),
         static_cast<int>(kProgress / absl::Milliseconds(1)));
    for (size_t i = 0; i < running.size(); ++i) {
      if (ends[i].revents == 0) continue;
      Worker& worker = *workers[running[i]];
      worker.Reap();
      if (Failed(worker.record())) {
        failed = &worker;
      } else if (worker.record().outcome == Record::Outcome::kRetired) {
        begin(running[i]);
      }
      exploration.exhausted |= worker.record().exhausted;
    }
    if (absl::Now() >= next_progress) {
      next_progress = absl::Now() + kProgress;
      count();
      std::cout << "explored " << exploration.runs << " of " << runs
                << " runs in " << absl::ToInt64Seconds(exploration.time)
                << " s, "
                << static_cast<double>(exploration.switches) /
                       absl::ToDoubleSeconds(exploration.time)
                << " switches/s" << std::endl;
    }
  }
  for (const auto& worker : workers) worker->Kill();
  count();
  if (failed != nullptr) {
    exploration.failure = Describe(*failed, options, body);
  }
  return exploration;
}

void Explore(const ExploreOptions& options, absl::FunctionRef<void()> body) {
  // Empty for the dull run. NOLINTNEXTLINE(concurrency-mt-unsafe)
  if (const char* const replay = std::getenv("WARD_REPLAY")) {
    const std::optional<Deviations> deviations = ParseDeviations(replay);
    if (!deviations.has_value()) {
      FAIL() << "WARD_REPLAY is no list of step=option, as an earlier failure "
                "has printed it: "
             << replay;
    }
    ReplayStrategy strategy(*deviations);
    const SharedRecord record;
    const auto print = [&record] {
      std::cout << std::string_view(record->what.data(), record->what_size)
                << std::string_view(record->transcript.data(),
                                    record->transcript_size)
                << std::flush;
    };
    Run(options, strategy, /*known=*/true, body, *record, print);
    print();
    EXPECT_FALSE(record->HasFailed()) << "it has left something behind";
    return;
  }
  const Exploration exploration = FindFailure(options, body);
  if (!exploration.failure.has_value()) return;
  const Exploration::Failure& failure = *exploration.failure;
  ADD_FAILURE() << "Run " << failure.run << " (seed " << SeedOf(failure.run)
                << ", " << failure.found.size()
                << " switches and faults) failed.\n"
                << (failure.replayed
                        ? absl::StrCat("It fails in the same way with ",
                                       failure.deviations.size(),
                                       " of them. To see it again:\n  ",
                                       CommandFor(failure.deviations), "\n")
                        : "Replayed, it did not fail: something else than its "
                          "schedule decides, such as the address of an object, "
                          "memory that was never set, or a file.\n")
                << "\n"
                << failure.what << "\n"
                << failure.transcript;
}

uint64_t FingerprintOfRun(const ExploreOptions& options, uint64_t run,
                          absl::FunctionRef<void()> body) {
  const std::unique_ptr<Strategy> strategy = MakeStrategy(options, run, 100);
  const SharedRecord record;
  Run(options, *strategy, /*known=*/true, body, *record);
  return record->fingerprint;
}

void SchedulingPoint() {
  if (Scheduler* const scheduler = Scheduler::Current()) {
    scheduler->Point("at a SchedulingPoint()");
  }
}

}  // namespace ward::testing

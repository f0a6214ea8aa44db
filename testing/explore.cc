#include "ward/testing/explore.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/debugging/failure_signal_handler.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/server/process.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/exit_guard.h"
#include "ward/testing/link_time_hooks.h"
#include "ward/testing/simulation.h"
#include "ward/testing/strategy.h"
#include "ward/testing/transcript.h"
#include "ward/testing/watchdog.h"

namespace ward::testing {
namespace {

// A process with more threads that sleep for ever gives way to a fresh one.
constexpr size_t kMostKilledThreads = 256;

// The most attempts to make a failure simpler.
constexpr int kMostAttempts = 400;
// One that the watchdog ends takes 5 s.
constexpr absl::Duration kMostTimeForAttempts = absl::Seconds(20);

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
  // No run from this one on is to be made.
  std::atomic<uint64_t> end;
  // The run under way, and the totals of those before it.
  uint64_t run;
  uint64_t runs;
  uint64_t skipped;
  uint64_t switches;
  uint64_t thread_choices;
  uint64_t fingerprint;
  bool exhausted;
  bool crashed;
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

// Notes failed assertions, and GTEST_SKIP().
class FailureListener : public ::testing::EmptyTestEventListener {
 public:
  explicit FailureListener(Record& record) : record_(record) {}

  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (result.skipped()) ++record_.skipped;
    if (!result.failed()) return;
    record_.Fail(
        absl::StrCat(result.file_name() == nullptr ? "?" : result.file_name(),
                     ":", result.line_number(), ": ", result.message(), "\n"));
  }

 private:
  Record& record_;
};

// What the process cannot do without.
int Must(long result, std::string_view attempt) {
  if (result >= 0) return static_cast<int>(result);
  std::cerr << SystemError(errno, absl::StrCat("explore: ", attempt)) << "\n";
  std::abort();
}

uint64_t SeedOf(uint64_t run) {
  const uint64_t base =
      (RunNumber() << 8) + EnvironmentNumber("TEST_SHARD_INDEX", 0);
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

void FlushOutput() {
  std::cout.flush();
  std::fflush(stdout);
}

// When the transcript is kept.
enum class Keep {
  kIfItFails,
  kAlways,
  // At every choice, which is the only way to have that of a crash.
  kAllTheTime,
};

// In a child, where nobody else tells of it.
void ShowStackOfCrash() {
#if !defined(ABSL_HAVE_ADDRESS_SANITIZER) && \
    !defined(ABSL_HAVE_THREAD_SANITIZER)
  absl::InstallFailureSignalHandler({});
#endif
}

// One run. Its course, and how it fails, go into `record` while it is made.
// Returns how many threads stay. A run that is stuck ends the process, after
// `when_stuck`.
size_t Run(
    const ExploreOptions& options, Strategy& strategy, Keep keep,
    absl::FunctionRef<void()> body, Record& record,
    absl::FunctionRef<void()> when_stuck = [] {}) {
  ++record.runs;
  record.deviations = 0;
  record.transcript_size = 0;
  SimulationOptions simulated;
  simulated.faults = {options.faults, options.deaths};
  simulated.delays = options.delays;
  simulated.max_steps = options.max_steps;
  uint64_t thread_choices = 0;
  Simulation* running = nullptr;
  simulated.on_choice = [&](uint32_t step, const Choice& choice,
                            size_t option) {
    // At once: the run may fail before its end.
    if (choice.kind == ChoiceKind::kThread) {
      record.thread_choices = std::max(record.thread_choices, ++thread_choices);
    }
    if (keep == Keep::kAllTheTime) record.Keep(running->transcript());
    if (option == 0 || record.deviations == record.deviation.size()) return;
    record.deviation[record.deviations++] = {step,
                                             static_cast<uint32_t>(option)};
  };
  simulated.on_stuck = [&](const std::string& why) {
    record.Fail(why);
    record.Keep(running->transcript());
    record.outcome = Record::Outcome::kFailed;
    FlushOutput();
    when_stuck();
    Watchdog::PrintStacks();
    ExitGuard::Disarm();
    _exit(1);
  };
  const std::map<int, std::string> open = OpenDescriptors();
  Simulation simulation(strategy, simulated);
  running = &simulation;
  // Here, and not in GoogleTest, which would take this process for the test's.
  try {
    body();
  } catch (const std::exception& exception) {
    record.Fail(absl::StrCat("the body threw: ", exception.what(), "\n"));
  } catch (...) {
    record.Fail("the body threw something that is no std::exception\n");
  }
  const std::vector<std::string> left = simulation.Settle();
  for (const std::string& leak : left) record.Fail(leak + "\n");
  const size_t killed_threads = simulation.scheduler().killed_threads();
  // Real descriptors of a process that was killed are nobody's to close.
  if (killed_threads == 0 && left.empty()) {
    for (const auto& [number, target] : OpenDescriptors()) {
      if (open.count(number) > 0) continue;
      // Its number comes last: it may be another one in the replayed run.
      record.Fail(absl::StrCat("a descriptor is left open: ", target,
                               "\n  its number is ", number, "\n"));
    }
  }
  if (keep != Keep::kIfItFails || record.HasFailed()) {
    record.Keep(simulation.transcript());
  }
  record.switches += simulation.scheduler().switches();
  return killed_threads;
}

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

// In the child: the runs first, first + stride, ... below `record.end`.
void Work(const ExploreOptions& options, uint64_t stride, uint64_t length,
          const Deviations* replayed, Keep keep, absl::FunctionRef<void()> body,
          Record& record) {
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
  ShowStackOfCrash();
  for (; record.run < record.end; record.run += stride) {
    std::unique_ptr<Strategy> strategy;
    if (replayed != nullptr) {
      strategy = std::make_unique<ReplayStrategy>(*replayed);
    } else if (!depth_first) {
      strategy = MakeStrategy(options, record.run, length);
    }
    ForgetOutput();
    killed_threads +=
        Run(options, depth_first ? all : *strategy, keep, body, record);
    if (record.HasFailed()) {
      record.outcome = Record::Outcome::kFailed;
      FlushOutput();
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
    if ((killed_threads > kMostKilledThreads ||
         (killed_threads > 0 && HasManyDescriptors())) &&
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
  Worker() {
    output_.Reset(Must(memfd_create("output", MFD_CLOEXEC),
                       "make a file for the output of runs"));
  }

  Record& record() { return *record_; }
  bool running() const { return pid_ > 0; }
  int pidfd() const { return pidfd_.get(); }

  void Start(const ExploreOptions& options, int processor, uint64_t stride,
             uint64_t end, uint64_t length, const Deviations* replayed,
             Keep keep, absl::FunctionRef<void()> body) {
    record().outcome = Record::Outcome::kRunning;
    record().end = end;
    record().crashed = false;
    record().what_size = 0;
    Must(ftruncate(output_.get(), 0), "make room for the output of runs");
    lseek(output_.get(), 0, SEEK_SET);
    std::cout.flush();
    const pid_t parent = getpid();
    pid_ = Must(fork(), "fork a process for runs");
    if (pid_ == 0) {
      // Not to go on when the test was killed.
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);
      // Reports of sanitizers, and what the body prints.
      dup2(output_.get(), STDOUT_FILENO);
      dup2(output_.get(), STDERR_FILENO);
      // Switches between processors cost more than the threads' work.
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(processor, &one);
      sched_setaffinity(0, sizeof(one), &one);
      Work(options, stride, length, replayed, keep, body, record());
    }
    pidfd_.Reset(Must(syscall(SYS_pidfd_open, pid_, 0),
                      "wait for a process of runs (pidfd_open)"));
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
    const int status = Wait();
    if (record().outcome != Record::Outcome::kRunning) return;
    record().outcome = Record::Outcome::kFailed;
    record().crashed = true;
    const ProcessExit exit =
        WIFSIGNALED(status)
            ? ProcessExit{ProcessExit::Kind::kSignaled, WTERMSIG(status)}
            : ProcessExit{ProcessExit::Kind::kExited, WEXITSTATUS(status)};
    record().Fail(absl::StrCat("a crash: the process ", exit.ToString(), "\n"));
  }

  void Kill() {
    if (!running()) return;
    kill(pid_, SIGKILL);
    Wait();
  }

  // What the run has printed; of much, the beginning and the end.
  std::string Output() const {
    constexpr off_t kHalf = 8192;
    const off_t size = lseek(output_.get(), 0, SEEK_END);
    if (size <= 2 * kHalf) return Printed(0, size);
    return absl::StrCat(Printed(0, kHalf), "\n... ", size - 2 * kHalf,
                        " bytes are left out ...\n",
                        Printed(size - kHalf, kHalf));
  }

 private:
  int Wait() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
    return status;
  }

  std::string Printed(off_t from, off_t size) const {
    std::string text(static_cast<size_t>(size), '\0');
    const ssize_t got = pread(output_.get(), text.data(), text.size(), from);
    text.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
    return text;
  }

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
            absl::FunctionRef<void()> body, Worker& worker,
            Keep keep = Keep::kAlways) {
  worker.record().run = 0;
  worker.Start(options, sched_getcpu(), 1, 1, 0, &deviations, keep, body);
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
    worker.Start(options, sched_getcpu(), 1, kMostSimpleRuns, 0, nullptr,
                 Keep::kIfItFails, body);
    worker.Reap(end);
  } while (record.outcome == Record::Outcome::kRetired);
  if (!FailedAs(record, what)) return;
  // Again, now with a transcript.
  Replay(options, record.Taken(), body, worker);
  if (FailedAs(record, what)) take(worker);
}

// Makes `failure`, which can be replayed, as simple as it gets. `announce` is
// called when that takes long.
void Simplify(const ExploreOptions& options, absl::FunctionRef<void()> body,
              const Exploration::Failure& failure, Worker& worker,
              absl::FunctionRef<void(Worker&)> take,
              absl::FunctionRef<void()> announce) {
  const absl::Time start = absl::Now();
  const auto most = static_cast<int>(failure.deviations.size()) - 1;
  if (most > 0) TakeASimpleOne(options, body, most, failure.what, worker, take);
  // Leaves out ever smaller pieces for as long as that does not mend it.
  int attempts = 0;
  bool announced = false;
  for (size_t size = std::max<size_t>(failure.deviations.size() / 2, 1);
       size > 0; size /= 2) {
    for (size_t from = 0; from < failure.deviations.size();) {
      const absl::Duration taken = absl::Now() - start;
      if (++attempts > kMostAttempts || taken > kMostTimeForAttempts) return;
      if (taken > kProgress && !std::exchange(announced, true)) announce();
      Deviations fewer;
      size_t i = 0;
      for (const auto& entry : failure.deviations) {
        if (i < from || i >= from + size) fewer.insert(entry);
        ++i;
      }
      Replay(options, fewer, body, worker);
      if (FailedAs(worker.record(), failure.what) &&
          worker.record().deviations < failure.deviations.size()) {
        take(worker);
      } else {
        from += size;
      }
    }
  }
}

// The command that runs them again. Of several explorations in a test, which
// one it is stands before them.
std::string CommandFor(const Deviations& deviations, int ordinal) {
  const auto* const test =
      ::testing::UnitTest::GetInstance()->current_test_info();
  const std::string_view target = EnvironmentVariable("TEST_TARGET");
  return absl::StrCat(
      "bazel test ", target.empty() ? "<this target>" : target,
      " --test_output=all",
      test == nullptr ? ""
                      : absl::StrCat(" --test_filter=", test->test_suite_name(),
                                     ".", test->name()),
      " --test_env=WARD_REPLAY=", ordinal > 1 ? absl::StrCat(ordinal, ":") : "",
      FormatDeviations(deviations));
}

// Which call of Explore in this test the next one is, from 1 on.
int NextOrdinal() {
  struct Ordinal {
    const ::testing::TestInfo* test;
    int64_t start;
    int number;
  };
  static Ordinal last = {};
  const auto* const test =
      ::testing::UnitTest::GetInstance()->current_test_info();
  // With --gtest_repeat the same test comes again, at another time.
  const int64_t start = test == nullptr ? 0 : test->result()->start_timestamp();
  if (last.test != test || last.start != start) last = {test, start, 0};
  return ++last.number;
}

Exploration::Failure Describe(Worker& worker, const ExploreOptions& options,
                              int ordinal, absl::FunctionRef<void()> body) {
  Exploration::Failure failure;
  failure.run = worker.record().run;
  failure.found = worker.record().Taken();
  bool crashed = false;
  const auto take = [&](Worker& from) {
    const Record& record = from.record();
    crashed = record.crashed;
    failure.deviations = record.Taken();
    failure.what = absl::StrCat(
        std::string_view(record.what.data(), record.what_size), from.Output());
    failure.transcript.assign(record.transcript.data(), record.transcript_size);
  };
  take(worker);

  Worker again;
  Replay(options, failure.found, body, again);
  failure.replayed = FailedAs(again.record(), failure.what);
  if (!failure.replayed) return failure;
  take(again);
  // In case that the test's time is over before it is done.
  const auto announce = [&] {
    std::cout << "Run " << failure.run
              << " failed. While a simpler one is looked for, this runs it "
                 "again:\n  "
              << CommandFor(failure.deviations, ordinal) << "\n"
              << failure.what << std::endl;
  };
  Simplify(options, body, failure, again, take, announce);
  if (crashed) {
    Replay(options, failure.deviations, body, again, Keep::kAllTheTime);
    if (FailedAs(again.record(), failure.what)) take(again);
  }
  return failure;
}

}  // namespace

namespace {

// As FindFailure.
Exploration MakeRuns(const ExploreOptions& options, int ordinal,
                     absl::FunctionRef<void()> body) {
  const absl::Time start = absl::Now();
  Exploration exploration;
  const uint64_t runs = EnvironmentNumber("WARD_RUNS", options.runs);
  if (runs == 0) {
    ADD_FAILURE() << "An exploration of no runs shows nothing.";
    return exploration;
  }
  if (Simulation::Current() != nullptr) {
    ADD_FAILURE()
        << "Explore() makes simulations of its own, and is in one here: call "
           "it in a TEST, not in one of a fixture that is a ServerTest, nor "
           "in another exploration's body.";
    return exploration;
  }
  CheckLinkTimeHooks();

  // How many choices a run has, for PctStrategy.
  uint64_t length = 0;
  if (options.search == Search::kPct) {
    Worker dull;
    Replay(options, {}, body, dull);
    if (Failed(dull.record())) {
      exploration.failure = Describe(dull, options, ordinal, body);
      exploration.runs = 1;
      exploration.time = absl::Now() - start;
      return exploration;
    }
    length = dull.record().thread_choices;
  }

  std::vector<int> processors = {sched_getcpu()};
  // What is left to try depth first is known to one alone.
  if (options.search != Search::kDepthFirst && runs > 1) {
    cpu_set_t allowed;
    // Fails where there are more processors than a cpu_set_t has.
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
      processors.clear();
      for (int i = 0; i < CPU_SETSIZE; ++i) {
        if (CPU_ISSET(i, &allowed)) processors.push_back(i);
      }
    }
  }
  // Of several runs that fail the first is reported, so that the same search
  // always has the same result: the others go on until they have come as far.
  uint64_t end = runs;
  std::vector<std::unique_ptr<Worker>> workers;
  const auto begin = [&](size_t i) {
    workers[i]->Start(options, processors[i], processors.size(), end, length,
                      nullptr, Keep::kIfItFails, body);
  };
  for (size_t i = 0; i < processors.size(); ++i) {
    workers.push_back(std::make_unique<Worker>());
    workers[i]->record().run = i;
    begin(i);
  }

  const auto count = [&] {
    exploration.runs = 0;
    exploration.skipped = 0;
    exploration.switches = 0;
    for (const auto& worker : workers) {
      exploration.runs += worker->record().runs;
      exploration.skipped += worker->record().skipped;
      exploration.switches += worker->record().switches;
    }
    exploration.time = absl::Now() - start;
  };
  absl::Time next_progress = start + kProgress;
  Worker* failed = nullptr;
  while (true) {
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
        if (worker.record().run > end) continue;
        failed = &worker;
        end = worker.record().run;
        for (const auto& other : workers) other->record().end = end;
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
  count();
  if (failed != nullptr) {
    exploration.failure = Describe(*failed, options, ordinal, body);
  }
  return exploration;
}

// The one run that WARD_REPLAY has, in this process, if it is of this
// exploration.
void ReplayHere(std::string_view replay, const ExploreOptions& options,
                int ordinal, absl::FunctionRef<void()> body) {
  const std::pair<std::string_view, std::string_view> parts =
      absl::StrSplit(replay, absl::MaxSplits(':', 1));
  const bool has_ordinal = absl::StrContains(replay, ':');
  int of = 1;
  const std::optional<Deviations> deviations =
      ParseDeviations(has_ordinal ? parts.second : replay);
  if (!deviations.has_value() ||
      (has_ordinal && !absl::SimpleAtoi(parts.first, &of))) {
    FAIL() << "WARD_REPLAY is no list of step=option, as an earlier failure "
              "has printed it: "
           << replay;
  }
  if (of != ordinal) {
    std::cout << "Not replayed: WARD_REPLAY is a run of this test's "
                 "exploration number "
              << of << ", and this is number " << ordinal << std::endl;
    return;
  }
  ReplayStrategy strategy(*deviations);
  const SharedRecord record;
  const auto print = [&record] {
    std::cout << std::string_view(record->what.data(), record->what_size)
              << std::string_view(record->transcript.data(),
                                  record->transcript_size)
              << std::flush;
  };
  Run(options, strategy, Keep::kAlways, body, *record, print);
  print();
  EXPECT_FALSE(record->HasFailed()) << "the replayed run fails, see above";
  if (::testing::Test::HasFailure()) return;
  std::cout << "The replayed run did not fail; " << record->deviations << " of "
            << deviations->size() << " deviations came to pass." << std::endl;
}

}  // namespace

Exploration FindFailure(const ExploreOptions& options,
                        absl::FunctionRef<void()> body) {
  return MakeRuns(options, 1, body);
}

void Explore(const ExploreOptions& options, absl::FunctionRef<void()> body) {
  const int ordinal = NextOrdinal();
  // Empty for the dull run. NOLINTNEXTLINE(concurrency-mt-unsafe)
  if (const char* const replay = std::getenv("WARD_REPLAY")) {
    ReplayHere(replay, options, ordinal, body);
    return;
  }
  const Exploration exploration = MakeRuns(options, ordinal, body);
  if (!exploration.failure.has_value()) {
    if (exploration.runs > 0 && exploration.skipped >= exploration.runs) {
      GTEST_SKIP() << "every run of the exploration was skipped";
    }
    return;
  }
  const Exploration::Failure& failure = *exploration.failure;
  ADD_FAILURE() << "Run " << failure.run << " (" << failure.found.size()
                << " switches and faults) failed.\n"
                << (failure.replayed
                        ? absl::StrCat("It fails in the same way with ",
                                       failure.deviations.size(),
                                       " of them. To see it again:\n  ",
                                       CommandFor(failure.deviations, ordinal),
                                       "\n")
                        : "Replayed, it did not fail in the same way: "
                          "something else than its schedule decides, such as "
                          "the address of an object, memory that was never "
                          "set, what an earlier run has left, or a file.\n")
                << "\n"
                << failure.what << "\n"
                << failure.transcript;
}

uint64_t FingerprintOfRun(const ExploreOptions& options, uint64_t run,
                          absl::FunctionRef<void()> body) {
  const std::unique_ptr<Strategy> strategy = MakeStrategy(options, run, 100);
  const SharedRecord record;
  Run(options, *strategy, Keep::kAlways, body, *record);
  return record->fingerprint;
}

void SchedulingPoint() {
  if (Scheduler* const scheduler = Scheduler::Current()) {
    scheduler->Point("at a SchedulingPoint()");
  }
}

}  // namespace ward::testing

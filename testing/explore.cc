#include "ward/testing/explore.h"

#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/exploration_worker.h"
#include "ward/testing/explored_run.h"
#include "ward/testing/simulation.h"
#include "ward/testing/simulator/interception_check.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// The most attempts to make a failure simpler.
constexpr int kMostAttempts = 400;
// One that the watchdog ends takes 5 s.
constexpr absl::Duration kMostTimeForAttempts = absl::Seconds(20);

// How long to look for one that is simple of itself.
constexpr uint64_t kMostSimpleRuns = 10000;
constexpr absl::Duration kMostTimeForSimpleRuns = absl::Seconds(10);

constexpr absl::Duration kProgress = absl::Seconds(5);

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
  Work work;
  work.options = options;
  work.failure = &what;
  work.processor = sched_getcpu();
  do {
    worker.Start(work, kMostSimpleRuns, body);
    worker.Reap(end);
  } while (record.outcome == Record::Outcome::kRetired);
  if (!record.HasFailedAs(what)) return;
  // Again, now with a transcript.
  worker.Replay(options, record.Taken(), body);
  if (record.HasFailedAs(what)) take(worker);
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
      worker.Replay(options, fewer, body);
      if (worker.record().HasFailedAs(failure.what) &&
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
  again.Replay(options, failure.found, body);
  failure.replayed = again.record().HasFailedAs(failure.what);
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
    again.Replay(options, failure.deviations, body, Keep::kAllTheTime);
    if (again.record().HasFailedAs(failure.what)) take(again);
  }
  return failure;
}

// One for each process that makes runs.
std::vector<int> ProcessorsFor(Search search, uint64_t runs) {
  std::vector<int> processors;
  cpu_set_t allowed;
  // What is left to try depth first is known to one alone. The call fails where
  // there are more processors than a cpu_set_t has.
  if (search != Search::kDepthFirst && runs > 1 &&
      sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &allowed)) processors.push_back(i);
    }
  }
  if (processors.empty()) processors.push_back(sched_getcpu());
  return processors;
}

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
  CheckInterception();

  // How many choices a run has, for PctStrategy.
  uint64_t length = 0;
  if (options.search == Search::kPct) {
    Worker dull;
    dull.Replay(options, {}, body);
    if (dull.record().HasFailed()) {
      exploration.failure = Describe(dull, options, ordinal, body);
      exploration.runs = 1;
      exploration.time = absl::Now() - start;
      return exploration;
    }
    length = dull.record().thread_choices;
  }

  const std::vector<int> processors = ProcessorsFor(options.search, runs);
  // Of several runs that fail the first is reported, so that the same search
  // always has the same result: the others go on until they have come as far.
  uint64_t end = runs;
  std::vector<std::unique_ptr<Worker>> workers;
  const auto begin = [&](size_t i) {
    Work work;
    work.options = options;
    work.stride = processors.size();
    work.length = length;
    work.processor = processors[i];
    workers[i]->Start(work, end, body);
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
      if (worker.record().HasFailed()) {
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

#include "ward/testing/search/explored_run.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/testing/report/run_events.h"
#include "ward/testing/search/exploration.h"
#include "ward/testing/search/portfolio.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulator/coverage.h"
#include "ward/testing/simulator/exit_guard.h"
#include "ward/testing/simulator/run_listener.h"
#include "ward/testing/simulator/simulation.h"
#include "ward/testing/simulator/strategy.h"
#include "ward/testing/simulator/thread_exit.h"
#include "ward/testing/simulator/watchdog.h"

namespace ward::testing {

namespace {

// The first line of why a run has failed, without the values that GoogleTest
// has in it: "Expected: (a) < (b), actual: 3 vs 2", and "The difference between
// a and b is 3, which exceeds c, where".
std::pair<std::string_view, std::string_view> KindOf(std::string_view what) {
  const std::string_view line = what.substr(0, what.find('\n'));
  const auto without = [line](size_t from, size_t to) {
    return std::pair(line.substr(0, from), line.substr(to));
  };
  const size_t compared = line.find(": Expected: (");
  const size_t actual =
      line.find(", actual: ", std::min(compared, line.size()));
  if (actual != std::string_view::npos) return without(actual, line.size());
  const size_t near = line.find(": The difference between ");
  const size_t exceeds = line.rfind(", which exceeds ");
  if (near != std::string_view::npos && exceeds != std::string_view::npos) {
    const size_t is = line.rfind(" is ", exceeds);
    if (is != std::string_view::npos && is > near) return without(is, exceeds);
  }
  return without(line.size(), line.size());
}

}  // namespace

bool Record::AreAlike(std::string_view what, std::string_view other) {
  return KindOf(what) == KindOf(other);
}

std::unique_ptr<Strategy> MakeStrategy(const ExploreOptions& options,
                                       uint64_t seed, const Turn& turn,
                                       const Profile& profile) {
  const uint64_t run = turn.number;
  switch (turn.search) {
    case Search::kPct: {
      const uint64_t deepest = std::max(options.depth, 1);
      return std::make_unique<PctStrategy>(
          seed + run, static_cast<int>(1 + run % deepest), profile.length,
          /*after=*/run / deepest % 4 == 3);
    }
    case Search::kPos:
      return std::make_unique<PosStrategy>(seed + run, /*after=*/run % 2 == 1);
    case Search::kSurw:
      return std::make_unique<SurwStrategy>(seed + run, profile,
                                            /*after=*/run % 4 == 3);
    default:
      return std::make_unique<RandomStrategy>(RandomStrategy::OfRun(seed, run));
  }
}

void FlushOutput() {
  std::cout.flush();
  std::fflush(stdout);
}

namespace {

// The descriptors of this process, listed anew when there are more or fewer.
class OpenTable {
 public:
  // As of then; null: it is not known.
  const std::set<int>* numbers() const {
    return numbers_.has_value() ? &*numbers_ : nullptr;
  }

  // Those that were not open when it was last called; none, if that is not
  // known.
  std::vector<int> TakeNew() {
    const off_t count = Count();
    if (count != 0 && count == count_) return {};
    count_ = count;
    const std::optional<std::set<int>> before =
        std::exchange(numbers_, OpenNumbers());
    if (numbers_.has_value()) numbers_->erase(folder_.get());
    std::vector<int> opened;
    if (!before.has_value() || !numbers_.has_value()) return opened;
    std::set_difference(numbers_->begin(), numbers_->end(), before->begin(),
                        before->end(), std::back_inserter(opened));
    return opened;
  }

 private:
  // Since Linux 6.2 the folder's size is how many there are; 0 before.
  off_t Count() {
    struct stat table {};
    const auto is_there = [&] {
      return fstat(folder_.get(), &table) == 0 && table.st_ino == inode_;
    };
    // A fork has another one, and a run may close what it has not opened.
    if (process_ != getpid() || !is_there()) {
      process_ = getpid();
      (void)folder_.Release();
      count_ = 0;
      folder_.Reset(open("/proc/self/fd", O_PATH | O_CLOEXEC));
      if (fstat(folder_.get(), &table) != 0) return 0;
      inode_ = table.st_ino;
    }
    return table.st_size;
  }

  // Kept open: to look a path up takes as long as a short run.
  FileDescriptor folder_;
  pid_t process_ = 0;
  ino_t inode_ = 0;
  off_t count_ = 0;
  std::optional<std::set<int>> numbers_;
};

}  // namespace

size_t Run(const ExploreOptions& options, Strategy& strategy, Keep keep,
           absl::FunctionRef<void()> body, Record& record,
           absl::FunctionRef<void()> when_stuck, RunEvents* events,
           RunListener* listener, CoverageRecorder* coverage) {
  ++record.runs;
  if (coverage != nullptr) coverage->BeginRun(__builtin_frame_address(0));
  record.deviations = 0;
  record.steps = 0;
  record.transcript_size = 0;
  record.course = 0xcbf29ce484222325;
  SimulationOptions simulated;
  simulated.faults = {options.faults, options.deaths};
  simulated.delays = options.delays;
  simulated.early_sleeps = options.early_sleeps
                               ? SchedulerOptions::EarlySleeps::kTried
                               : SchedulerOptions::EarlySleeps::kCounted;
  simulated.weak_memory = options.weak_memory;
  simulated.max_steps = options.max_steps;
  Places places;
  bool is_cut = false;
  Simulation* running = nullptr;
  simulated.on_choice = [&](uint32_t step, const Choice& choice,
                            size_t option) {
    // At once: the run may fail before its end.
    record.steps = running->scheduler().steps();
    record.kept_limits |= running->scheduler().has_kept_limits();
    record.Follow(choice, option);
    if (keep == Keep::kAllTheTime) record.Keep(running->transcript());
    const PlacedDeviation placed = places.Place(choice, option);
    if (option == 0) return;
    if (record.deviations == record.deviation.size()) {
      if (!std::exchange(is_cut, true)) {
        record.Remark(absl::StrCat(
            "A run deviated more than ", record.deviations,
            " times from the dull one, of which no more are kept: a failure "
            "after that cannot be replayed.\n"));
      }
      return;
    }
    record.placed[record.deviations] = placed;
    record.deviation[record.deviations++] = {step,
                                             static_cast<uint32_t>(option)};
  };
  simulated.on_fault = [&](const std::string& what) { record.Fail(what); };
  simulated.on_stuck = [&](const std::string& why) {
    record.Fail(why);
    record.steps = running->scheduler().steps();
    record.kept_limits |= running->scheduler().has_kept_limits();
    record.hung = running->scheduler().has_waited_in_vain();
    record.looped = running->scheduler().has_looped();
    if (keep != Keep::kNever) record.Keep(running->transcript());
    record.outcome = Record::Outcome::kFailed;
    FlushOutput();
    record.was_stuck = true;
    record.stacks_at = static_cast<size_t>(
        std::max<off_t>(lseek(STDOUT_FILENO, 0, SEEK_CUR), 0));
    when_stuck();
    if (keep != Keep::kNever) Watchdog::PrintStacks();
    ExitGuard::Disarm();
    _exit(1);
  };
  simulated.listener = listener;
  std::optional<RunRecorder> recorder;
  simulated.coverage = coverage;
  if (events != nullptr) simulated.listener = &recorder.emplace(*events);
  static auto& table = *new OpenTable;
  table.TakeNew();
  const bool is_known = table.numbers() != nullptr;
  simulated.open_before = table.numbers();
  srandom(1);  // rand(3), too.
  Simulation simulation(strategy, simulated);
  running = &simulation;
  if (recorder.has_value()) simulation.transcript().SetListener(*recorder);
  // Here, and not in GoogleTest, which would take this process for the test's.
  try {
    CallUntilExit([body]() -> void* {
      body();
      return nullptr;
    });
  } catch (const std::exception& exception) {
    record.Fail(absl::StrCat("the body threw: ", exception.what(), "\n"));
  } catch (...) {
    record.Fail("the body threw something that is no std::exception\n");
  }
  const std::vector<std::string> left = simulation.Settle();
  for (const std::string& leak : left) record.Fail(leak + "\n");
  const size_t killed_threads = simulation.scheduler().killed_threads();
  const std::vector<int> opened = table.TakeNew();
  // Real descriptors of a process that was killed are nobody's to close.
  if (killed_threads == 0 && left.empty()) {
    if (is_known && table.numbers() == nullptr) {
      record.Fail(
          "descriptors are left open: so many that none is left to look with "
          "for which they are\n");
    }
    for (const int number : opened) {
      // Its number comes last: it may be another one in the replayed run.
      record.Fail(absl::StrCat("a descriptor is left open: ", TargetOf(number),
                               "\n  its number is ", number, "\n"));
    }
  }
  const bool is_kept =
      keep == Keep::kIfItFails ? record.HasFailed() : keep != Keep::kNever;
  if (is_kept) record.Keep(simulation.transcript());
  record.steps = simulation.scheduler().steps();
  record.switches += simulation.scheduler().switches();
  record.points += record.steps;
  record.kept_limits |= simulation.scheduler().has_kept_limits();
  return killed_threads;
}

void MakeDullRun(const ExploreOptions& options, absl::FunctionRef<void()> body,
                 Record& record) {
  ReplayStrategy dull({});
  Run(options, dull, Keep::kIfItFails, body, record);
  record.what_size = 0;
  record.failed_in = -1;
}

void KeepHang(Record& record, std::string_view why) {
  record.Fail(why);
  record.hung = true;
  Simulation::TellOfHang([&record](Simulation& hanging) {
    record.Fail(hanging.scheduler().WhoWaits());
    record.Keep(hanging.transcript());
  });
}

}  // namespace ward::testing

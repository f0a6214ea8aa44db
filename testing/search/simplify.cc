#include "ward/testing/search/simplify.h"

#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/testing/search/exploration.h"
#include "ward/testing/search/explored_run.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/search/worker.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// How many runs may be made for each of the ways below, at most: not many times
// as many as are asked for, as of a body that takes its time there are fewer;
// and long ones as many as have so many steps. No limit is a time: the result
// is to be the same on a machine that is slow.
constexpr uint64_t kMostRuns = 10000;
constexpr uint64_t kFewestRuns = 100;
constexpr uint64_t kMostTimes = 4;
constexpr uint64_t kMostSteps = 1000000;

uint64_t MostRuns(uint64_t asked_for, uint64_t steps) {
  const uint64_t by_steps = kMostSteps / std::max<uint64_t>(steps, 1);
  const uint64_t by_runs = kMostTimes * std::min(asked_for, kMostRuns);
  return std::clamp(std::min(by_steps, by_runs), kFewestRuns, kMostRuns);
}

// Of those that hang, each of which takes as long as the watchdog's patience.
constexpr int kMostHung = 2;

// As many as are easily read. With more, any so many of them are tried.
constexpr size_t kFew = 3;

// When to announce it.
constexpr absl::Duration kLong = absl::Seconds(5);

using Placed = std::vector<PlacedDeviation>;

// The deviations of a run, by its number.
using PlacedRuns = absl::FunctionRef<Placed(uint64_t run)>;

bool IsOldValue(const PlacedDeviation& deviation) {
  return deviation.kind == ChoiceKind::kLoad;
}

// How old the values are that are loaded: a sum.
uint64_t AgeOf(const Placed& deviations) {
  uint64_t age = 0;
  for (const PlacedDeviation& deviation : deviations) {
    if (IsOldValue(deviation)) age += deviation.chosen;
  }
  return age;
}

// Has one load alone return an old value, the oldest, of those that may.
class OneOldValue final : public Strategy {
 public:
  // `loads`: how many there are, in the end; must outlive it.
  OneOldValue(const Placed& others, uint64_t which, uint64_t& loads)
      : others_(others), which_(which), loads_(loads) {
    loads_ = 0;
  }
  size_t Choose(const Choice& choice) override {
    if (choice.kind != ChoiceKind::kLoad) return others_.Choose(choice);
    return loads_++ == which_ ? choice.options - 1 : 0;
  }

 private:
  PlacedStrategy others_;
  const uint64_t which_;
  uint64_t& loads_;
};

class Simplifier {
 public:
  Simplifier(const ExploreOptions& options, absl::FunctionRef<void()> body,
             const Exploration::Failure& failure, Worker& worker,
             absl::FunctionRef<void(Worker&)> take,
             absl::FunctionRef<void()> announce)
      : options_(options),
        body_(body),
        failure_(failure),
        worker_(worker),
        take_(take),
        announce_(announce),
        most_runs_(MostRuns(options.runs, worker.record().steps)),
        failed_in_(worker.record().failed_in),
        placed_(worker.record().Placed()) {}

  void Simplify() {
    if (placed_.size() > 1) GoStraightThere();
    if (placed_.size() > 1) TakeASimpleOne();
    LeaveOutPieces();
    if (placed_.size() > kFew) TakeFew();
    const auto old_values =
        std::count_if(placed_.begin(), placed_.end(), IsOldValue);
    if (old_values > 1 || (old_values > 0 && placed_.size() > kFew)) {
      TakeOneOldValue();
    }
    TakeNewerValues();
  }

 private:
  // Has one thread held back, where one was, and the one go on at once whose
  // assertion failed: of many threads, this is found in none of the other ways.
  void GoStraightThere();

  // Most bugs need no more than one deviation, or two. A run that has no
  // others, and fails in the same way, is worth more than what is left of a run
  // at random.
  void TakeASimpleOne();

  // Leaves out ever smaller pieces for as long as that does not mend it.
  void LeaveOutPieces();

  // Only one of them, or two, or three.
  void TakeFew();

  // Has one load return an old value, whichever it is, and leaves out one of
  // the other deviations at a time. A loop that waits for the last value goes
  // on sooner without old ones, or without a switch: what comes after it is
  // then at another place, where none of the other ways finds it.
  void TakeOneOldValue();
  bool TakeOneOldValue(const Placed& others);

  // Has loads return values that are newer, if not the last.
  void TakeNewerValues();

  // Makes `count` of these, one after the other, until one fails as it should,
  // is simpler, and fails again: takes that. Returns which, or `count`.
  uint64_t TryEach(const StrategyOf& attempts, uint64_t count);
  uint64_t Try(PlacedRuns attempts, uint64_t count);

  // The run that the worker has made, and that has failed as it should.
  bool Take();
  bool IsSimpler();

  bool IsSpent() const { return runs_ > most_runs_ || hung_ > kMostHung; }

  // Waits until the worker is done, or it is time to announce it.
  void AnnounceInTime();

  // Lets the worker do it, in as many processes as that takes.
  void Do(Work work, uint64_t end);

  const ExploreOptions& options_;
  const absl::FunctionRef<void()> body_;
  const Exploration::Failure& failure_;
  Worker& worker_;
  const absl::FunctionRef<void(Worker&)> take_;
  const absl::FunctionRef<void()> announce_;
  const absl::Time start_ = absl::Now();
  bool announced_ = false;
  int hung_ = 0;
  const uint64_t most_runs_;
  // Since the way was begun.
  uint64_t runs_ = 0;
  const int failed_in_;
  // The deviations of `failure_`.
  Placed placed_;
};

void Simplifier::Do(Work work, uint64_t end) {
  work.failure = &failure_.what;
  work.warm = failure_.warm;
  work.processor = sched_getcpu();
  do {
    worker_.Start(work, end, body_);
    if (!announced_) AnnounceInTime();
    worker_.Reap();
  } while (worker_.record().outcome == Record::Outcome::kRetired);
  if (worker_.record().hung) ++hung_;
}

void Simplifier::AnnounceInTime() {
  const absl::Duration left =
      std::max(kLong - (absl::Now() - start_), absl::ZeroDuration());
  pollfd end = {worker_.pidfd(), POLLIN, 0};
  if (poll(&end, 1, static_cast<int>(left / absl::Milliseconds(1))) != 0) {
    return;
  }
  announced_ = true;
  announce_();
}

bool Simplifier::IsSimpler() {
  const size_t before = failure_.deviations.size();
  const Record& record = worker_.record();
  return record.deviations < before ||
         (record.deviations == before &&
          AgeOf(record.Placed()) < AgeOf(placed_));
}

bool Simplifier::Take() {
  if (!IsSimpler()) return false;
  // Again, now with a transcript.
  worker_.Replay(options_, worker_.record().Taken(), failure_.warm, body_);
  if (!worker_.record().HasFailedAs(failure_.what) || !IsSimpler()) {
    return false;
  }
  placed_ = worker_.record().Placed();
  take_(worker_);
  return true;
}

void Simplifier::GoStraightThere() {
  if (failed_in_ < 0) return;
  Placed switches;
  for (PlacedDeviation deviation : placed_) {
    if (deviation.kind != ChoiceKind::kThread) continue;
    deviation.chosen = static_cast<uint32_t>(failed_in_);
    switches.push_back(deviation);
  }
  runs_ = 0;
  Try([&](uint64_t run) { return Placed{switches[run]}; },
      std::min<uint64_t>(switches.size(), most_runs_));
}

void Simplifier::TakeASimpleOne() {
  ExploreOptions options = options_;
  options.search = Search::kDepthFirst;
  options.deviations =
      std::min<int>(static_cast<int>(placed_.size()) - 1, kFew - 1);
  options.faults_per_run = 1;
  worker_.MakeProfile(options, body_);
  const Profile profile = worker_.record().profile;
  Record& record = worker_.record();
  record.run = 0;
  record.level = 0;
  record.path_size = 0;
  record.exhausted = false;
  Work work;
  work.options = options;
  work.profile = &profile;
  Do(work, most_runs_);
  if (record.HasFailedAs(failure_.what)) Take();
}

uint64_t Simplifier::Try(PlacedRuns attempts, uint64_t count) {
  return TryEach(
      [attempts](uint64_t run) {
        return std::make_unique<PlacedStrategy>(attempts(run));
      },
      count);
}

uint64_t Simplifier::TryEach(const StrategyOf& attempts, uint64_t count) {
  Record& record = worker_.record();
  for (uint64_t next = 0; next < count && !IsSpent();) {
    record.run = next;
    Work work;
    work.options = options_;
    work.strategy = &attempts;
    Do(work, count);
    const uint64_t made = record.run;
    runs_ += made - next + 1;
    if (made < count && record.HasFailedAs(failure_.what) && Take()) {
      return made;
    }
    next = made + 1;
  }
  return count;
}

void Simplifier::LeaveOutPieces() {
  runs_ = 0;
  for (size_t size = std::max<size_t>(placed_.size() / 2, 1); size > 0;
       size /= 2) {
    for (size_t from = 0; from < placed_.size() && !IsSpent();) {
      const auto without = [&](uint64_t piece) {
        Placed fewer = placed_;
        const size_t first = from + static_cast<size_t>(piece) * size;
        const size_t last = std::min(first + size, fewer.size());
        fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(first),
                    fewer.begin() + static_cast<ptrdiff_t>(last));
        return fewer;
      };
      const uint64_t pieces = (placed_.size() - from + size - 1) / size;
      from += size * static_cast<size_t>(Try(without, pieces));
    }
  }
}

void Simplifier::TakeFew() {
  std::vector<Placed> few;
  const auto more = [&] { return few.size() < most_runs_; };
  const size_t count = placed_.size();
  for (size_t i = 0; i < count && more(); ++i) few.push_back({placed_[i]});
  for (size_t i = 0; i < count && more(); ++i) {
    for (size_t j = i + 1; j < count && more(); ++j) {
      few.push_back({placed_[i], placed_[j]});
    }
  }
  for (size_t i = 0; i < count && more(); ++i) {
    for (size_t j = i + 1; j < count && more(); ++j) {
      for (size_t k = j + 1; k < count && more(); ++k) {
        few.push_back({placed_[i], placed_[j], placed_[k]});
      }
    }
  }
  runs_ = 0;
  Try([&](uint64_t run) { return few[run]; }, few.size());
}

void Simplifier::TakeOneOldValue() {
  runs_ = 0;
  for (bool is_simpler = true; is_simpler && !IsSpent();) {
    is_simpler = false;
    Placed others;
    std::remove_copy_if(placed_.begin(), placed_.end(),
                        std::back_inserter(others), IsOldValue);
    for (size_t i = 0; i <= others.size() && !is_simpler; ++i) {
      Placed fewer = others;
      if (i > 0) fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(i) - 1);
      is_simpler = TakeOneOldValue(fewer);
    }
  }
  LeaveOutPieces();
}

bool Simplifier::TakeOneOldValue(const Placed& others) {
  const Shared<uint64_t> loads;
  const StrategyOf strategy = [&](uint64_t run) {
    return std::make_unique<OneOldValue>(others, run, *loads);
  };
  // How many there are the first one tells.
  if (TryEach(strategy, 1) == 0) return true;
  const uint64_t count = *loads;
  return TryEach(strategy, count) < count;
}

void Simplifier::TakeNewerValues() {
  runs_ = 0;
  for (size_t i = 0; i < placed_.size() && !IsSpent(); ++i) {
    if (!IsOldValue(placed_[i])) continue;
    const auto newer = [&](uint64_t run) {
      Placed deviations = placed_;
      deviations[i].chosen = static_cast<uint32_t>(run + 1);
      return deviations;
    };
    Try(newer, placed_[i].chosen - 1);
  }
}

}  // namespace

void Simplify(const ExploreOptions& options, absl::FunctionRef<void()> body,
              const Exploration::Failure& failure, Worker& worker,
              absl::FunctionRef<void(Worker&)> take,
              absl::FunctionRef<void()> announce) {
  Simplifier(options, body, failure, worker, take, announce).Simplify();
}

}  // namespace ward::testing

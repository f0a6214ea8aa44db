#include "ward/testing/search/simplify.h"

#include <sched.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ward/testing/search/exploration.h"
#include "ward/testing/search/explored_run.h"
#include "ward/testing/search/worker.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// The most attempts to make a failure simpler.
constexpr int kMostAttempts = 400;
// A run may take its time, and one that fails otherwise may hang.
constexpr absl::Duration kMostTimeForAttempts = absl::Seconds(20);

// How long to look for one that is simple of itself.
constexpr uint64_t kMostSimpleRuns = 10000;
constexpr absl::Duration kMostTimeForSimpleRuns = absl::Seconds(10);

// When to announce it.
constexpr absl::Duration kLong = absl::Seconds(5);

// Most bugs need no more than one deviation, or two. A run that has no others,
// and fails in the same way, is worth more than what is left of a run at
// random.
void TakeASimpleOne(ExploreOptions options, absl::FunctionRef<void()> body,
                    int most, const Exploration::Failure& failure,
                    Worker& worker, absl::FunctionRef<void(Worker&)> take) {
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
  work.failure = &failure.what;
  work.warm = failure.warm;
  work.processor = sched_getcpu();
  do {
    worker.Start(work, kMostSimpleRuns, body);
    worker.Reap(end);
  } while (record.outcome == Record::Outcome::kRetired);
  if (!record.HasFailedAs(failure.what)) return;
  // Again, now with a transcript.
  worker.Replay(options, record.Taken(), failure.warm, body);
  if (record.HasFailedAs(failure.what)) take(worker);
}

}  // namespace

void Simplify(const ExploreOptions& options, absl::FunctionRef<void()> body,
              const Exploration::Failure& failure, Worker& worker,
              absl::FunctionRef<void(Worker&)> take,
              absl::FunctionRef<void()> announce) {
  const absl::Time start = absl::Now();
  const auto most = static_cast<int>(failure.deviations.size()) - 1;
  if (most > 0) TakeASimpleOne(options, body, most, failure, worker, take);
  // Leaves out ever smaller pieces for as long as that does not mend it.
  int attempts = 0;
  bool announced = false;
  for (size_t size = std::max<size_t>(failure.deviations.size() / 2, 1);
       size > 0; size /= 2) {
    for (size_t from = 0; from < failure.deviations.size();) {
      const absl::Duration taken = absl::Now() - start;
      if (++attempts > kMostAttempts || taken > kMostTimeForAttempts) return;
      if (taken > kLong && !std::exchange(announced, true)) announce();
      Deviations fewer;
      size_t i = 0;
      for (const auto& entry : failure.deviations) {
        if (i < from || i >= from + size) fewer.insert(entry);
        ++i;
      }
      worker.Replay(options, fewer, failure.warm, body);
      if (worker.record().HasFailedAs(failure.what) &&
          worker.record().deviations < failure.deviations.size()) {
        take(worker);
      } else {
        from += size;
      }
    }
  }
}

}  // namespace ward::testing

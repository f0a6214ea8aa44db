// One run of an exploration, and what is kept of it. For this folder's
// sources, and Explore's.

#ifndef WARD_TESTING_SEARCH_EXPLORED_RUN_H_
#define WARD_TESTING_SEARCH_EXPLORED_RUN_H_

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "ward/testing/report/run_events.h"
#include "ward/testing/report/transcript.h"
#include "ward/testing/search/exploration.h"
#include "ward/testing/search/pairs.h"
#include "ward/testing/search/portfolio.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulator/coverage.h"
#include "ward/testing/simulator/remarks.h"
#include "ward/testing/simulator/run_listener.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

// Of one run, as can be kept. More than the most steps by default, each of
// which may be a few choices; memory that is not used costs nothing.
constexpr size_t kMostChoices = size_t{1} << 19;

// Of a worker: those of more runs are not counted.
constexpr size_t kMostCourses = size_t{1} << 20;

// Memory that a child's last words are in, however it ends.
struct Record {
  enum class Outcome { kRunning, kFailed, kRetired, kFinished };

  std::atomic<Outcome> outcome;
  // No run from this one on is to be made.
  std::atomic<uint64_t> end;
  // The run under way, whose it is, and totals in which it counts.
  uint64_t run;
  Search search;
  // Others were made before it, in this process.
  bool warm;
  // See Scheduler::has_kept_limits, of any of them.
  bool kept_limits;
  uint64_t runs;
  uint64_t skipped;
  uint64_t switches;
  uint64_t points;
  // `course` of each run that was made.
  size_t courses;
  std::array<uint64_t, kMostCourses> course_of;
  // Of the choices of the run, and of its transcript.
  uint64_t course;
  uint64_t fingerprint;
  bool exhausted;
  bool crashed;
  // See Exploration::Failure.
  bool hung;
  // It took more than ExploreOptions::max_steps.
  bool looped;
  size_t deviations;
  std::array<std::pair<uint32_t, uint32_t>, kMostChoices> deviation;
  // The same by their places.
  std::array<PlacedDeviation, kMostChoices> placed;
  uint64_t steps;
  // See Worker::MakeProfile.
  Profile profile;
  // Of the runs of a search; and of each lane of kPairs.
  Coverage coverage;
  std::array<KnownOrders, kPairsLanes> orders;
  // Of Search::kDepthFirst.
  int level;
  size_t path_size;
  std::array<DepthFirstStrategy::Branch, kMostChoices> path;
  // It cannot go on; and where in what it has printed the stacks begin.
  bool was_stuck;
  size_t stacks_at;
  // Why it failed, and the thread whose assertion did, or -1.
  int failed_in;
  size_t what_size;
  std::array<char, 1 << 16> what;
  // See Exploration.
  size_t remarks_size;
  std::array<char, 1 << 14> remarks;
  size_t transcript_size;
  std::array<char, 1 << 18> transcript;

  bool HasFailed() const { return what_size > 0; }

  std::string_view What() const { return {what.data(), what_size}; }

  // Whether it has failed in the same way as `other`, which says why.
  bool HasFailedAs(std::string_view other) const {
    return HasFailed() && AreAlike(What(), other);
  }
  // The first line is the same, an assertion's place and what it is about, or
  // what the scheduler has found; whatever values an assertion was made of.
  static bool AreAlike(std::string_view what, std::string_view other);

  void Fail(std::string_view why) {
    const size_t size = std::min(why.size(), what.size() - what_size);
    std::copy_n(why.begin(), size,
                what.begin() + static_cast<ptrdiff_t>(what_size));
    what_size += size;
  }

  std::string_view Remarked() const { return {remarks.data(), remarks_size}; }

  // Once, however many processes have worked on it.
  void Remark(std::string_view remark) {
    if (absl::StrContains(Remarked(), Remarks::Subject(remark))) return;
    const size_t size = std::min(remark.size(), remarks.size() - remarks_size);
    std::copy_n(remark.begin(), size,
                remarks.begin() + static_cast<ptrdiff_t>(remarks_size));
    remarks_size += size;
  }

  void Keep(const Transcript& shown) {
    const std::string text = shown.ToText(Transcript::kMostShown);
    transcript_size = std::min(text.size(), transcript.size());
    std::copy_n(text.begin(), transcript_size, transcript.begin());
    fingerprint = shown.Fingerprint() ^ course;
  }

  // As FNV-1a does with bytes.
  void Follow(const Choice& choice, size_t option) {
    const auto chosen = choice.threads.empty()
                            ? option
                            : static_cast<size_t>(choice.threads[option]);
    for (const size_t part :
         {static_cast<size_t>(choice.kind), choice.options, chosen}) {
      course = (course ^ part) * 0x100000001b3;
    }
  }

  Deviations Taken() const {
    return {deviation.begin(),
            deviation.begin() + static_cast<ptrdiff_t>(deviations)};
  }

  std::vector<PlacedDeviation> Placed() const {
    return {placed.begin(),
            placed.begin() + static_cast<ptrdiff_t>(deviations)};
  }
};

// In memory that processes share which are forked later.
template <typename T>
class Shared {
 public:
  Shared()
      : memory_(mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED) std::abort();
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { munmap(memory_, sizeof(T)); }

  // Fresh memory is zero, and so are these.
  T& operator*() const { return *static_cast<T*>(memory_); }
  T* operator->() const { return static_cast<T*>(memory_); }

 private:
  void* const memory_;
};

using SharedRecord = Shared<Record>;

// The strategy of `turn` of a search that is not depth first, whose first one
// has `seed`. `profile` must outlive it.
std::unique_ptr<Strategy> MakeStrategy(const ExploreOptions& options,
                                       uint64_t seed, const Turn& turn,
                                       const Profile& profile);

// When the transcript is kept.
enum class Keep {
  // Nor is what a crash or a deadlock prints of its stacks, which takes longer
  // than a short run.
  kNever,
  kIfItFails,
  kAlways,
  // At every choice, which is the only way to have that of a crash.
  kAllTheTime,
};

// One run. Its course, and how it fails, go into `record` while it is made.
// Returns how many threads stay. A run that is stuck ends the process, after
// `when_stuck`. All that happens goes into `events`, unless it is null, or else
// is told to `listener`, and what is interleaved goes into `coverage`, unless
// these are null.
size_t Run(
    const ExploreOptions& options, Strategy& strategy, Keep keep,
    absl::FunctionRef<void()> body, Record& record,
    absl::FunctionRef<void()> when_stuck = [] {}, RunEvents* events = nullptr,
    RunListener* listener = nullptr, CoverageRecorder* coverage = nullptr);

// One that deviates nowhere, for what it does to the process. How it ends is
// forgotten.
void MakeDullRun(const ExploreOptions& options, absl::FunctionRef<void()> body,
                 Record& record);

// The run under way hangs, as the watchdog says. In signal context.
void KeepHang(Record& record, std::string_view why);

// Of what the body prints.
void FlushOutput();

}  // namespace ward::testing

#endif  // WARD_TESTING_SEARCH_EXPLORED_RUN_H_

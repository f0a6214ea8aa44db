#include "ward/testing/interception/held_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ward/testing/interception/outside.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {
namespace {

// Where programs' own do not come, so that these have the numbers that they
// always have.
constexpr int kFirst = 768;

}  // namespace

struct HeldFiles::All {
  ~All() { Close(); }

  void Close() {
    const NoSchedulingPoints quiet;
    for (const auto& [number, original] : replacements) close(number);
    replacements.clear();
  }

  HeldFiles* first = nullptr;
  // And what they have replaced.
  std::map<int, int> replacements;
};

HeldFiles::HeldFiles(Scheduler& scheduler, absl::Span<int> numbers,
                     const OthersMay* others_may)
    : scheduler_(scheduler),
      numbers_(numbers),
      others_may_(others_may),
      process_(scheduler.group()) {
  All& all = scheduler_.Kept<All>();
  next_ = all.first;
  if (next_ != nullptr) next_->previous_ = this;
  all.first = this;
}

HeldFiles::~HeldFiles() {
  const NoSchedulingPoints quiet;
  All& all = scheduler_.Kept<All>();
  (previous_ == nullptr ? all.first : previous_->next_) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
  if (!is_changed_) return;
  const int error = errno;
  for (const int number : numbers_) {
    if (all.replacements.erase(number) > 0) close(number);
  }
  errno = error;
}

bool HeldFiles::MayCome() const {
  return OthersMayAct(scheduler_) ||
         std::any_of(numbers_.begin(), numbers_.end(), [this](int number) {
           return others_may_ == nullptr ? OthersMayServe(scheduler_, number)
                                         : (*others_may_)(scheduler_, number);
         });
}

std::string HeldFiles::Describe() const {
  const NoSchedulingPoints quiet;
  const All& all = scheduler_.Kept<All>();
  constexpr size_t kFew = 4;
  std::string text = numbers_.size() > 1 ? "descriptors " : "descriptor ";
  size_t told = 0;
  for (const int number : numbers_) {
    if (told == kFew) {
      absl::StrAppend(&text, " and ", numbers_.size() - told, " more");
      break;
    }
    const auto closed = all.replacements.find(number);
    absl::StrAppend(&text, told++ > 0 ? ", " : "",
                    closed == all.replacements.end() ? number : closed->second,
                    " (", KindOf(scheduler_, number),
                    closed == all.replacements.end()
                        ? ""
                        : "; it was closed meanwhile, which wakes nobody",
                    ")");
  }
  return told == 0 ? "" : text;
}

std::vector<int> HeldFiles::Descriptors() const {
  const NoSchedulingPoints quiet;
  std::vector<int> numbers(numbers_.begin(), numbers_.end());
  const All& all = scheduler_.Kept<All>();
  for (int& number : numbers) {
    const auto closed = all.replacements.find(number);
    if (closed != all.replacements.end()) number = closed->second;
  }
  return numbers;
}

void HeldFiles::Keep(Scheduler& scheduler, int first, int last) {
  const NoSchedulingPoints quiet;
  All& all = scheduler.Kept<All>();
  for (HeldFiles* held = all.first; held != nullptr; held = held->next_) {
    // Of a process that was killed nobody waits any more.
    if (scheduler.CountLiveThreads(held->process_) == 0) continue;
    for (int& number : held->numbers_) {
      if (number < std::max(first, 0) || number > last ||
          all.replacements.count(number) > 0) {
        continue;
      }
      int other = fcntl(number, F_DUPFD_CLOEXEC, kFirst);
      if (other < 0) other = fcntl(number, F_DUPFD_CLOEXEC, 0);
      if (other < 0) continue;
      all.replacements.emplace(other, number);
      held->is_changed_ = true;
      number = other;
    }
  }
}

int HeldFiles::CloseOthers(
    Scheduler& scheduler, unsigned first, unsigned last,
    absl::FunctionRef<int(unsigned first, unsigned last)> close_them) {
  for (const auto& [number, original] : scheduler.Kept<All>().replacements) {
    const auto kept = static_cast<unsigned>(number);
    if (kept < first || kept > last) continue;
    if (kept > first && close_them(first, kept - 1) != 0) return -1;
    if (kept == last) return 0;
    first = kept + 1;
  }
  return close_them(first, last);
}

void HeldFiles::Take(Scheduler& scheduler, int number) {
  const NoSchedulingPoints quiet;
  scheduler.Kept<All>().replacements.emplace(number, number);
}

void HeldFiles::Give(Scheduler& scheduler, int number) {
  const NoSchedulingPoints quiet;
  scheduler.Kept<All>().replacements.erase(number);
}

void HeldFiles::Close(Scheduler& scheduler) { scheduler.Kept<All>().Close(); }

}  // namespace ward::testing

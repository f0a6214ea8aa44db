#include "ward/channel/buffer_budget.h"

#include <cstddef>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ward {

void BufferBudget::Share::Swap(Share& other) {
  std::swap(budget_, other.budget_);
  std::swap(bytes_, other.bytes_);
  std::swap(exceeds_, other.exceeds_);
}

bool BufferBudget::Share::GrowTo(size_t bytes, absl::Duration timeout) {
  if (budget_ == nullptr || bytes <= bytes_) return true;
  const size_t more = bytes - bytes_;
  BufferBudget& budget = *budget_;
  absl::MutexLock lock(&budget.mutex_);
  const auto fits = [&budget, more]()
                        ABSL_SHARED_LOCKS_REQUIRED(budget.mutex_) {
                          return budget.used_ + more <= budget.max_bytes_;
                        };
  const auto may_go_on = [this, &budget, &fits]()
                             ABSL_SHARED_LOCKS_REQUIRED(budget.mutex_) {
                               return exceeds_ || !budget.exceeded_ || fits();
                             };
  if (!budget.mutex_.AwaitWithTimeout(absl::Condition(&may_go_on), timeout)) {
    return false;
  }
  if (!fits()) budget.exceeded_ = exceeds_ = true;
  budget.used_ += more;
  bytes_ = bytes;
  return true;
}

void BufferBudget::Share::GiveBack() {
  absl::MutexLock lock(&budget_->mutex_);
  budget_->used_ -= std::exchange(bytes_, 0);
  if (std::exchange(exceeds_, false)) budget_->exceeded_ = false;
}

size_t BufferBudget::used() const {
  absl::MutexLock lock(&mutex_);
  return used_;
}

}  // namespace ward

#include "ward/channel/descriptor_budget.h"

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/transport.h"

namespace ward {

DescriptorBudget::Share::Share(std::shared_ptr<DescriptorBudget> budget,
                               std::weak_ptr<Transport> connection,
                               pid_t process)
    : budget_(std::move(budget)),
      connection_(std::move(connection)),
      process_(process) {}

void DescriptorBudget::Share::Swap(Share& other) {
  std::swap(budget_, other.budget_);
  std::swap(connection_, other.connection_);
  std::swap(process_, other.process_);
  std::swap(id_, other.id_);
  std::swap(count_, other.count_);
  std::swap(kept_, other.kept_);
}

void DescriptorBudget::Share::Hold(size_t descriptors) {
  if (budget_ == nullptr || descriptors == count_) return;
  Release();
  DescriptorBudget& budget = *budget_;
  absl::MutexLock lock(&budget.mutex_);
  id_ = ++budget.last_id_;
  count_ = descriptors;
  budget.all_.emplace(id_, Held{connection_, process_, count_});
  while (budget.held_ > budget.max_) {
    const auto greediest = budget.Greediest(id_);
    if (greediest == budget.all_.end()) break;
    budget.Cut(greediest->second);
  }
  budget.held_ += count_;
}

bool DescriptorBudget::Share::is_cut() const {
  if (id_ == 0) return false;
  absl::MutexLock lock(&budget_->mutex_);
  return budget_->all_.at(id_).cut;
}

bool DescriptorBudget::Share::Keep(size_t descriptors) {
  if (budget_ == nullptr) return true;
  absl::MutexLock lock(&budget_->mutex_);
  const auto found = budget_->kept_of_.find(process_);
  const size_t own = found == budget_->kept_of_.end() ? 0 : found->second;
  if (own + descriptors > kAlways && budget_->kept_ > 0 &&
      budget_->kept_ + descriptors > 2 * budget_->max_) {
    return false;
  }
  budget_->kept_of_[process_] = own + descriptors;
  budget_->kept_ += descriptors;
  kept_ += descriptors;
  return true;
}

void DescriptorBudget::Share::Release() {
  if (id_ == 0 && kept_ == 0) return;
  absl::MutexLock lock(&budget_->mutex_);
  if (kept_ > 0) {
    budget_->kept_ -= kept_;
    const auto found = budget_->kept_of_.find(process_);
    found->second -= std::exchange(kept_, 0);
    if (found->second == 0) budget_->kept_of_.erase(found);
  }
  if (id_ == 0) return;
  const auto own = budget_->all_.find(std::exchange(id_, 0));
  if (!own->second.cut) budget_->held_ -= count_;
  budget_->all_.erase(own);
  count_ = 0;
}

DescriptorBudget::All::iterator DescriptorBudget::Greediest(uint64_t id) {
  absl::flat_hash_map<pid_t, size_t> counts;
  pid_t greediest = 0;
  size_t most = 0;
  for (const auto& [number, held] : all_) {
    if (held.cut || number == id) continue;
    const size_t count = counts[held.process] += held.count;
    if (count <= most) continue;
    most = count;
    greediest = held.process;
  }
  auto oldest = all_.begin();
  while (oldest != all_.end() && (oldest->second.cut || oldest->first == id ||
                                  oldest->second.process != greediest)) {
    ++oldest;
  }
  return oldest;
}

void DescriptorBudget::Cut(Held& held) {
  held.cut = true;
  held_ -= held.count;
  if (const std::shared_ptr<Transport> connection = held.connection.lock()) {
    connection->ShutDownReceiving();
  }
}

bool DescriptorBudget::CutOne(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto greediest = Greediest(0);
  if (greediest == all_.end()) return false;
  Cut(greediest->second);
  const auto is_gone =
      [this, id = greediest->first]()
          ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !all_.contains(id); };
  return mutex_.AwaitWithTimeout(absl::Condition(&is_gone), timeout);
}

size_t DescriptorBudget::held() const {
  absl::MutexLock lock(&mutex_);
  return held_;
}

}  // namespace ward

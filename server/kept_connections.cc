#include "ward/server/kept_connections.h"

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "ward/channel/message_channel.h"

namespace ward {
namespace {

// As many as a server has places for, by default.
constexpr size_t kMostKept = 64;

}  // namespace

std::unique_ptr<MessageChannel> KeptConnections::Take(int process) {
  absl::MutexLock lock(&mutex_);
  const auto own = idle_.find(process);
  if (own == idle_.end() || own->second.empty()) return nullptr;
  std::unique_ptr<MessageChannel> last = std::move(own->second.back());
  own->second.pop_back();
  return last;
}

void KeptConnections::Put(int process,
                          std::unique_ptr<MessageChannel> channel) {
  absl::MutexLock lock(&mutex_);
  if (closed_) return;
  std::vector<std::unique_ptr<MessageChannel>>& own = idle_[process];
  if (own.size() < kMostKept) own.push_back(std::move(channel));
}

void KeptConnections::Clear(int process) {
  std::vector<std::unique_ptr<MessageChannel>> closed;
  absl::MutexLock lock(&mutex_);
  const auto own = idle_.find(process);
  if (own != idle_.end()) closed.swap(own->second);
}

void KeptConnections::Close(int process) {
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  Clear(process);
}

}  // namespace ward

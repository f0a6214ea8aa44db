#include "ward/server/client_pool.h"

#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"
#include "ward/server/environment.h"

namespace ward {
namespace {

// How long a thread waits before it tries again to accept, when the system has
// no room for another client.
constexpr absl::Duration kBackOff = absl::Milliseconds(50);

}  // namespace

ClientPool::ClientPool(Environment& environment, Listener& listener,
                       Limits limits, std::function<void(Client&)> serve)
    : environment_(environment),
      listener_(listener),
      limits_(limits),
      serve_(std::move(serve)) {}

ClientPool::~ClientPool() {
  std::vector<std::unique_ptr<Thread>> threads;
  {
    absl::MutexLock lock(&mutex_);
    threads = std::move(threads_);
  }
}

absl::Status ClientPool::Start() {
  absl::MutexLock lock(&mutex_);
  return StartThread();
}

absl::Status ClientPool::StartThread() {
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<Thread> thread,
                        environment_.StartThread([this] { Run(); }));
  threads_.push_back(std::move(thread));
  ++idle_;
  return absl::OkStatus();
}

void ClientPool::Run() {
  while (true) {
    Client client(*this);
    if (!AcceptOne(client)) return;
    serve_(client);
    absl::MutexLock lock(&mutex_);
    ++idle_;
  }
}

// Comes and leaves with this thread counted as idle, or as serving `client`.
bool ClientPool::AcceptOne(Client& client) {
  absl::StatusOr<Listener::Accepted> accepted = listener_.Accept();
  while (!accepted.ok()) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(
              absl::Condition(this, &ClientPool::IsStopping), kBackOff)) {
        --idle_;
        return false;
      }
    }
    accepted = listener_.Accept();
  }
  client.transport = std::move(accepted->transport);
  client.on_reserve = accepted->on_reserve;
  client.connection_ = client.transport.get();
  client.peer = client.transport->Peer();

  absl::MutexLock lock(&mutex_);
  --idle_;
  clients_.push_back(&client);
  // Enough for all clients with a place, all without one, and one to come.
  const size_t max_threads = size_t{1} +
                             static_cast<size_t>(limits_.max_clients) +
                             static_cast<size_t>(limits_.max_unauthenticated);
  if (idle_ == 0 && threads_.size() < max_threads && !stopping_) {
    const absl::Status status = StartThread();
    if (!status.ok()) {
      // Not this client's fault: it is served, the next one waits for it.
      environment_.Log(
          absl::StrCat("clients are served by ", threads_.size(),
                       " threads, not by more, because: ", status.ToString()));
    }
  }
  if (stopping_) Cut(client);
  CutExcess();
  return true;
}

void ClientPool::CutExcess() {
  const auto unauthenticated = [](const Client* client) {
    return client->state_ == Client::kUnauthenticated;
  };
  const auto over =
      std::count_if(clients_.begin(), clients_.end(), unauthenticated) -
      limits_.max_unauthenticated;
  for (auto i = over; i > 0; --i) {
    absl::flat_hash_map<pid_t, int> counts;
    pid_t busiest = 0;
    int most = 0;
    for (const Client* client : clients_) {
      if (!unauthenticated(client)) continue;
      const int count = ++counts[client->peer_pid()];
      if (count <= most) continue;
      most = count;
      busiest = client->peer_pid();
    }
    // What one has sent may be a password that its thread had no time yet to
    // read; if all have sent something, none stays for long.
    const auto victim = std::find_if(
        clients_.begin(), clients_.end(), [&](const Client* client) {
          return unauthenticated(client) && client->peer_pid() == busiest &&
                 !HasSent(*client);
        });
    if (victim == clients_.end()) return;
    Cut(**victim);
  }
}

bool ClientPool::HasSent(const Client& client) const {
  const Pollable* const polled[] = {client.connection_};
  return environment_.Poll(polled, environment_.TimeNow()).ok();
}

void ClientPool::Cut(Client& client) {
  client.state_ = Client::kCut;
  client.connection_->ShutDown();
}

bool ClientPool::Admit(Client& client) {
  absl::MutexLock lock(&mutex_);
  if (client.state_ == Client::kCut) return false;
  client.state_ = Client::kWaiting;
  mutex_.Await(absl::Condition(this, &ClientPool::HasPlace));
  if (stopping_) return false;
  client.state_ = Client::kServed;
  ++served_;
  return true;
}

void ClientPool::Remove(Client& client) {
  absl::MutexLock lock(&mutex_);
  const auto place = std::find(clients_.begin(), clients_.end(), &client);
  if (place == clients_.end()) return;
  clients_.erase(place);
  if (client.state_ == Client::kServed) --served_;
}

void ClientPool::Stop(absl::Duration drain_time) {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  listener_.StopAccepting();
  absl::MutexLock lock(&mutex_);
  for (Client* client : clients_) {
    if (client->state_ == Client::kUnauthenticated) Cut(*client);
  }
  const absl::Condition empty(this, &ClientPool::IsEmpty);
  if (mutex_.AwaitWithTimeout(empty, drain_time)) return;
  for (const Client* client : clients_) client->connection_->ShutDown();
  mutex_.Await(empty);
}

bool ClientPool::HasPlace() const {
  return stopping_ || served_ < limits_.max_clients;
}

bool ClientPool::IsStopping() const { return stopping_; }

bool ClientPool::IsEmpty() const { return clients_.empty(); }

}  // namespace ward

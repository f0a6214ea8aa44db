#include "ward/server/client_pool.h"

#include <malloc.h>
#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/call_stats.h"
#include "ward/server/cancellation.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/server/poll_set.h"

namespace ward {
namespace {

// How long a thread waits before it tries again to accept, when the system has
// no room for another client.
constexpr absl::Duration kBackOff = absl::Milliseconds(50);

// How long a thread waits for the first message of a client that it has just
// accepted: an honest one's is on its way. It saves the wake-ups that watching
// costs. Of those threads there are only so many at a time.
constexpr absl::Duration kSoon = absl::Milliseconds(5);
constexpr int kMaxReceiving = 16;

// As many wait in Accept at a time. Those for whom nothing else is left to do
// end after a while.
constexpr int kMaxAccepting = 4;
constexpr absl::Duration kMaxIdleTime = absl::Seconds(10);

// When half of at least so many that waited have gone, so has the memory that
// their messages had; looked for no more often than this, since whoever comes
// and goes chooses when.
constexpr size_t kCrowd = 16;
constexpr absl::Duration kReleaseInterval = absl::Seconds(1);

// How long one too many of a process, or of a user, waits for another one to be
// gone: it may have left, or been told the end of its call, and still be here.
constexpr absl::Duration kLeavingTime = absl::Seconds(1);

// How long a client may take to read why it was refused. One that was never
// served has all the socket's room for that: it is told at once.
constexpr absl::Duration kErrorTimeout = absl::Seconds(1);

// How long one may take that is served without a place: its answer waits for
// nobody but a client that does not read it.
constexpr absl::Duration kTimeBeside = absl::Seconds(1);

// The listener's id in watched_; no client's.
constexpr uint64_t kNewClient = std::numeric_limits<uint64_t>::max();

absl::Status StoppingError() {
  return MakeError(reason::kServerStopping, "the server is about to quit");
}

// The C library keeps what was freed, in an arena for each few threads, until
// it is told that it will not be needed soon.
void ReleaseMemory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

// Connections that are not served yet leave half of the descriptor table to
// those that are.
ClientPool::Limits Bounded(ClientPool::Limits limits, size_t max_descriptors) {
  const size_t half = std::max(max_descriptors / 2, size_t{1});
  if (half < static_cast<size_t>(limits.max_waiting_clients)) {
    limits.max_waiting_clients = static_cast<int>(half);
  }
  return limits;
}

// Of one process or user.
constexpr int kNoLimit = std::numeric_limits<int>::max();

bool AnyClient(const ClientPool::Client& /*client*/) { return true; }

bool IsBeside(const ClientPool::Client& client) {
  return client.most_time != absl::InfiniteDuration();
}

// Of a client that nobody has cut off.
bool HasLeft(const absl::Status& status) {
  return HasReason(status, reason::kEndOfStream) ||
         HasReason(status, reason::kConnectionLost);
}

pid_t PidOf(const absl::StatusOr<PeerCredentials>& peer) {
  return peer.ok() ? peer->pid : 0;
}

}  // namespace

ClientPool::ClientPool(Environment& environment, Listener& listener,
                       Limits limits, Service service)
    : environment_(environment),
      listener_(listener),
      limits_(Bounded(limits, environment.MaxDescriptors())),
      max_held_(environment.MaxDescriptors() / 8),
      service_(std::move(service)) {}

ClientPool::~ClientPool() {
  std::vector<std::unique_ptr<Thread>> threads;
  absl::MutexLock lock(&mutex_);
  while (!threads_.empty() || ended_ != nullptr) {
    threads.push_back(std::move(ended_));
    for (auto& [number, thread] : threads_) {
      threads.push_back(std::move(thread));
    }
    threads_.clear();
    mutex_.Unlock();
    threads.clear();
    mutex_.Lock();
  }
}

absl::Status ClientPool::Start() {
  WARD_ASSIGN_OR_RETURN(watched_, environment_.CreatePollSet());
  absl::MutexLock lock(&mutex_);
  return StartThread();
}

// --- threads ---

void ClientPool::Run(int thread) {
  mutex_.Lock();
  --called_;
  while (!stopping_ || !ready_.empty() || !to_close_.empty()) {
    if (std::unique_ptr<Client> client = TakeReady()) {
      Serve(std::move(client));
    } else if (!to_close_.empty()) {
      CloseNext();
    } else if (!watching_ && !deadlines_.empty()) {
      Watch();
    } else if (MayAccept()) {
      Accept();
    } else if (!AwaitCall() && !IsSpare()) {
      break;
    }
  }
  // Those that are called now and then stay, whatever there was before.
  const bool burst_is_over = !stopping_ && idle_.size() <= kMaxAccepting;
  End(thread);
  mutex_.Unlock();
  if (burst_is_over) ReleaseMemory();
}

absl::Status ClientPool::StartThread() {
  const int number = ++last_thread_;
  WARD_ASSIGN_OR_RETURN(
      std::unique_ptr<Thread> thread,
      environment_.StartThread([this, number] { Run(number); }));
  threads_.emplace(number, std::move(thread));
  ++called_;
  return absl::OkStatus();
}

bool ClientPool::Call() {
  // One that waits for a client's next call, perhaps.
  return CallIdle() || DismissIdle(AnyClient) || leaving_ > 0;
}

bool ClientPool::CallIdle() {
  if (!idle_.empty()) {
    Idle& idle = *idle_.back();
    idle_.pop_back();
    idle.called = true;
    ++called_;
    idle.changed.Signal();
    return true;
  }
  // All that can be busy with a client, the one beside them, one that watches,
  // and some to accept; and those that may be busy for ever.
  const size_t max_threads = static_cast<size_t>(limits_.max_clients) + 1 +
                             kMaxReceiving + 1 + kMaxAccepting + CountHanging();
  if (threads_.size() < max_threads) {
    const absl::Status status = StartThread();
    if (status.ok()) return true;
    // Nobody's fault: who is here is served, the others wait.
    no_threads_.Log(environment_, "clients are served by ", threads_.size(),
                    " threads, not by more, because: ", status.ToString());
  }
  return false;
}

bool ClientPool::AwaitCall() {
  Idle idle;
  idle_.push_back(&idle);
  const absl::Time end = environment_.TimeNow() + kMaxIdleTime;
  while (!idle.called && !stopping_) {
    const absl::Duration left = end - environment_.TimeNow();
    if (left <= absl::ZeroDuration()) break;
    idle.changed.WaitWithTimeout(&mutex_, left);
  }
  if (idle.called) {
    --called_;
    return true;
  }
  idle_.erase(std::find(idle_.begin(), idle_.end(), &idle));
  return false;
}

// A thread cannot join itself: it leaves that to the next one that ends, or to
// the destructor.
void ClientPool::End(int thread) {
  std::unique_ptr<Thread> earlier = std::move(ended_);
  const auto self = threads_.find(thread);
  if (self != threads_.end()) {  // Or the destructor has it.
    ended_ = std::move(self->second);
    threads_.erase(self);
  }
  mutex_.Unlock();
  earlier.reset();
  mutex_.Lock();
}

void ClientPool::LeaveAccepting() {
  if (accepting_ + called_ > 0 || stopping_ || Call()) return;
  if (watching_) watched_->Wake();
}

// --- coming in ---

void ClientPool::Accept() {
  ++accepting_;
  AwaitRoom();
  mutex_.Unlock();
  absl::StatusOr<Listener::Accepted> accepted = listener_.Accept();
  mutex_.Lock();
  if (!accepted.ok()) {
    const bool is_full =
        HasReason(accepted.status(), reason::kDescriptorTableFull);
    // accept(2) says so, too, where nobody is to be accepted.
    if (!is_full || !HasCome(listener_) || !MakeRoomInTable()) {
      if (!is_full && !HasReason(accepted.status(), reason::kServerStopping)) {
        failures_.Log(environment_, accepted.status().ToString());
      }
      mutex_.AwaitWithTimeout(absl::Condition(this, &ClientPool::IsStopping),
                              kBackOff);
    }
    --accepting_;
    return;
  }
  --accepting_;
  ++receiving_;
  const uint64_t number = ++counts_.accepted;
  const bool may_wait = receiving_ <= kMaxReceiving;
  LeaveAccepting();
  if (accepted->on_reserve && MakeRoomInTable()) accepted->on_reserve = false;
  ++reading_;
  mutex_.Unlock();

  auto client = std::make_unique<Client>(
      internal::Shared(std::move(accepted->transport)));
  client->number = number;
  client->on_reserve = accepted->on_reserve;
  client->deadline_ = environment_.TimeNow() + limits_.authentication_timeout;
  client->channel.set_keeps_refused(true);
  absl::Status status = service_.greet(*client);
  if (status.ok()) {
    const absl::Duration soon = std::min(kSoon, limits_.authentication_timeout);
    status = service_.receive(*client, may_wait ? soon : absl::ZeroDuration());
  }

  mutex_.Lock();
  // However late it is by now: what came in time is looked for once more.
  client = Settle(std::move(client), std::move(status), /*is_late=*/false);
  if (client != nullptr) Serve(std::move(client));
}

bool ClientPool::MayAccept() {
  if (accepting_ == 0) {
    // Not the last one that is left for those who wait.
    if (!watching_ || !IsSpare() || Call()) return true;
    watched_->Wake();
    return false;
  }
  return accepting_ < kMaxAccepting &&
         CountWaiting() + accepting_ < limits_.max_waiting_clients &&
         !IsSpare();
}

bool ClientPool::NobodyAccepts() const {
  return accepting_ + called_ == 0 && HasRoom();
}

bool ClientPool::IsSpare() const {
  return !deadlines_.empty() && idle_.empty();
}

int ClientPool::CountWaiting() const {
  return static_cast<int>(silent_.size() + queued_.size()) + receiving_;
}

bool ClientPool::MakeRoomInTable() {
  mutex_.Unlock();
  const bool has_room = service_.make_room(kBackOff);
  mutex_.Lock();
  if (has_room) return true;
  const absl::Time end = environment_.TimeNow() + kLeavingTime;
  const uint64_t closed = closed_;
  const bool one_leaves = DismissIdle(AnyClient) || leaving_ > 0;
  while (closed_ == closed) {
    const bool refused = RefuseHolder({&silent_, &queued_}, 0);
    // What fills it may be a client's that a thread receives from just now, or
    // is about to close.
    const auto is_hopeless = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return reading_ == 0 && closing_.empty() && !one_leaves;
    };
    const auto changed = [&, last_id = last_id_]()
                             ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
                               return stopping_ || closed_ != closed ||
                                      (!refused && last_id_ != last_id) ||
                                      is_hopeless();
                             };
    if (is_hopeless()) return false;
    const bool one_closes_alone = !refused && reading_ == 0 && !one_leaves;
    const absl::Duration left = end - environment_.TimeNow();
    // One that takes long to be closed, or for ever, is not the last that is
    // tried; nor does anybody wait for it alone.
    const bool has_changed = mutex_.AwaitWithTimeout(
        absl::Condition(&changed),
        refused || one_closes_alone ? std::min(left, kBackOff) : left);
    if (stopping_ || environment_.TimeNow() >= end) return false;
    if (one_closes_alone && !has_changed) return false;
  }
  return true;
}

bool ClientPool::RefuseHolder(absl::Span<Waiting* const> among,
                              size_t allowed) {
  absl::flat_hash_map<pid_t, size_t> counts;
  pid_t greediest = 0;
  size_t most = 0;
  size_t all = 0;
  for (const Waiting* const waiting : among) {
    for (const auto& [id, client] : *waiting) {
      const size_t held = client->channel.unclaimed_descriptors();
      all += held;
      const size_t count = counts[PidOf(client->peer)] += held;
      if (count <= most) continue;
      most = count;
      greediest = PidOf(client->peer);
    }
  }
  if (all <= allowed) return false;
  for (Waiting* const waiting : among) {
    const auto holder =
        std::find_if(waiting->begin(), waiting->end(), [&](const auto& entry) {
          return PidOf(entry.second->peer) == greediest &&
                 entry.second->channel.unclaimed_descriptors() > 0;
        });
    if (holder == waiting->end()) continue;
    std::unique_ptr<Client> client = Take(*waiting, holder);
    if (waiting == &queued_ && client->refusal_.ok()) (void)AdmitSurplus();
    Refuse(std::move(client),
           MakeError(reason::kServerFull,
                     waiting == &silent_
                         ? "the server needs the descriptors that came with "
                           "this message, which is not whole yet; try again, "
                           "and send it whole at once"
                         : "the server needs the descriptors that came behind "
                           "this message; try again, and send nothing else "
                           "before it has its answer"));
    return true;
  }
  return false;
}

bool ClientPool::HasCome(const Pollable& pollable) const {
  const Pollable* const polled[] = {&pollable};
  return environment_.Poll(polled, environment_.TimeNow()).ok();
}

void ClientPool::AwaitRoom() {
  while (!HasRoom()) {
    std::unique_ptr<Client> greedy = TakeFromGreediest();
    if (greedy != nullptr) {
      const pid_t process = PidOf(greedy->peer);
      Refuse(std::move(greedy),
             MakeError(
                 reason::kServerFull,
                 absl::StrCat("the server has ", limits_.max_waiting_clients,
                              " clients that wait, most of them of "
                              "process ",
                              process, ", and this one has sent nothing yet")));
      continue;
    }
    // Or until there is one more that may be silent.
    const auto changed = [this, last_id = last_id_]()
                             ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
                               return HasRoom() || last_id_ != last_id;
                             };
    mutex_.Await(absl::Condition(&changed));
  }
}

bool ClientPool::HasRoom() const {
  return stopping_ || CountWaiting() < limits_.max_waiting_clients;
}

std::unique_ptr<ClientPool::Client> ClientPool::TakeFromGreediest() {
  absl::flat_hash_map<pid_t, int> counts;
  pid_t greediest = 0;
  int most = 0;
  for (const auto& [id, client] : silent_) {
    // 0 stands for all that this pid namespace does not know.
    if (PidOf(client->peer) == 0) continue;
    const int count = ++counts[PidOf(client->peer)];
    if (count <= most) continue;
    most = count;
    greediest = PidOf(client->peer);
  }
  // Only a process that fills the room by itself: not one that has more than
  // others, as an honest one with many threads does.
  if (most < 2 || most <= limits_.max_waiting_clients / 2) return nullptr;
  for (auto it = silent_.begin(); it != silent_.end(); ++it) {
    Client& client = *it->second;
    if (PidOf(client.peer) != greediest || client.channel.partly_read()) {
      continue;
    }
    if (HasCome(*client.connection_)) continue;
    return Take(silent_, it);
  }
  return nullptr;
}

std::unique_ptr<ClientPool::Client> ClientPool::Settle(
    std::unique_ptr<Client> client, absl::Status received, bool is_late) {
  const bool unfinished = HasReason(received, reason::kTimedOut);
  // Whatever one message has may come: what others have makes room for it.
  if (unfinished && client->channel.unclaimed_descriptors() > 0) {
    while (RefuseHolder({&silent_}, max_held_)) continue;
  }
  --reading_;
  // Until now Stop waits for it, so that it is told.
  --receiving_;
  if (stopping_ && (received.ok() || unfinished)) {
    received = StoppingError();
  } else if (unfinished && !is_late) {
    Wait(silent_, std::move(client), PollSet::Event::kReadable);
    return nullptr;
  }
  if (received.ok() && MayBeBeside(*client) &&
      !(HasPlace() && HasShare(*client))) {
    client->most_time = kTimeBeside;
    GivePlace(*client);
    return client;
  }
  if (received.ok()) received = CheckShare(*client);
  if (!received.ok()) {
    Refuse(std::move(client), received);
    return nullptr;
  }
  const bool is_surplus = !client->refusal_.ok();
  if (!is_surplus && HasPlace()) {
    GivePlace(*client);
    return client;
  }
  client->deadline_ =
      environment_.TimeNow() +
      (is_surplus ? std::min(kLeavingTime, limits_.queue_timeout)
                  : limits_.queue_timeout);
  Wait(queued_, std::move(client), PollSet::Event::kHangUp);
  if (!is_surplus && SomebodyWaits()) (void)DismissIdle(AnyClient);
  return nullptr;
}

absl::Status ClientPool::CheckShare(Client& client) {
  const PeerCredentials& peer = *client.peer;
  const auto check = [&client](int limit, std::string_view option,
                               std::string_view whose, const auto& shares,
                               auto who) -> absl::Status {
    const auto found = shares.find(who);
    if (found == shares.end()) return absl::OkStatus();
    const Share& share = found->second;
    if (share.served + share.queued < limit) return absl::OkStatus();
    absl::Status refusal =
        MakeError(reason::kServerFull,
                  absl::StrCat("the server takes at most ", limit,
                               " clients at a time of one ", whose, " (",
                               option, "); close one, or try again later"));
    if (share.surplus >= limit) return refusal;
    client.refusal_ = std::move(refusal);
    return absl::OkStatus();
  };
  WARD_RETURN_IF_ERROR(check(limits_.max_clients_per_process,
                             "ServerOptions::max_clients_per_process",
                             "process", processes_, peer.pid));
  WARD_RETURN_IF_ERROR(check(limits_.max_clients_per_user,
                             "ServerOptions::max_clients_per_user", "user",
                             users_, peer.uid));
  if (!client.refusal_.ok()) return absl::OkStatus();
  // Those that are between two calls make room.
  const auto make_room = [this](int limit, const auto& shares, auto who,
                                absl::FunctionRef<bool(const Client&)> is_same)
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                               const auto found = shares.find(who);
                               if (found == shares.end()) return;
                               const Share& share = found->second;
                               int all =
                                   share.served + share.queued + share.idle;
                               for (; all >= limit; --all) {
                                 (void)DismissIdle(is_same);
                               }
                             };
  make_room(limits_.max_clients_per_process, processes_, peer.pid,
            [&](const Client& other) { return other.peer->pid == peer.pid; });
  make_room(limits_.max_clients_per_user, users_, peer.uid,
            [&](const Client& other) { return other.peer->uid == peer.uid; });
  return absl::OkStatus();
}

bool ClientPool::HasShare(const Client& client) const {
  const auto has = [](int limit, const auto& shares, auto who) {
    const auto found = shares.find(who);
    return found == shares.end() ||
           found->second.served + found->second.queued < limit;
  };
  const PeerCredentials& peer = *client.peer;
  return has(limits_.max_clients_per_process, processes_, peer.pid) &&
         has(limits_.max_clients_per_user, users_, peer.uid);
}

bool ClientPool::IsWaitedFor(const Client& client) const {
  if (surplus_ == 0) return false;
  const PeerCredentials& own = *client.peer;
  const auto waits =
      [this, &own](const auto& waiting) ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
        const PeerCredentials& peer = *waiting.second->peer;
        const bool is_same =
            peer.pid == own.pid ||
            (limits_.max_clients_per_user != kNoLimit && peer.uid == own.uid);
        return is_same && !waiting.second->refusal_.ok() &&
               HasShare(*waiting.second);
      };
  return std::any_of(queued_.begin(), queued_.end(), waits);
}

bool ClientPool::AdmitSurplus() {
  if (surplus_ == 0) return false;
  const auto found = std::find_if(
      queued_.begin(), queued_.end(),
      [this](const auto& waiting) ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
        return !waiting.second->refusal_.ok() && HasShare(*waiting.second);
      });
  if (found == queued_.end()) return false;
  const auto& [id, client] = *found;
  CountQueued(*client, -1);
  client->refusal_ = absl::OkStatus();
  CountQueued(*client, 1);
  deadlines_.erase({client->deadline_, id});
  client->deadline_ = environment_.TimeNow() + limits_.queue_timeout;
  deadlines_.emplace(client->deadline_, id);
  return true;
}

// --- being served ---

void ClientPool::Serve(std::unique_ptr<Client> client) {
  LeaveAccepting();
  while (client != nullptr) {
    do {
      ServeCall(*client);
    } while (client->channel.kept() && AwaitNextCall(*client));
    // Before its connection is closed: it must not be shut down any more.
    TakePlace(*client);
    std::unique_ptr<Client> next = NextToServe(client->peer->pid);
    // Few have another one wait for their thread: to look at what else each has
    // sent would cost more than all the rest of its end.
    const bool is_waited_for = next != nullptr || client->leaves_ ||
                               NobodyAccepts() ||
                               (!watching_ && !deadlines_.empty());
    if (is_waited_for) {
      Close(std::move(client));
    } else {
      CloseHere(std::move(client),
                closing_.insert(closing_.end(), environment_.TimeNow()));
    }
    client = next != nullptr ? std::move(next) : TakeReady();
  }
}

size_t ClientPool::CountPlaces() const {
  return served_.size() - (serves_beside_ ? 1 : 0);
}

bool ClientPool::HasPlace() const {
  return CountPlaces() < static_cast<size_t>(limits_.max_clients);
}

bool ClientPool::MayBeBeside(const Client& client) const {
  return !serves_beside_ && service_.may_be_beside != nullptr &&
         service_.may_be_beside(client);
}

void ClientPool::GivePlace(Client& client) {
  client.served_ = served_.insert(served_.end(), &client);
  if (IsBeside(client)) {
    serves_beside_ = true;
    return;
  }
  counts_.most_served = std::max(counts_.most_served, CountPlaces());
  Count(client, {1, 0, 0, 0});
}

void ClientPool::TakePlace(Client& client) {
  served_.erase(client.served_);
  if (IsBeside(client)) {
    serves_beside_ = false;
    return;
  }
  Count(client, {-1, 0, 0, 0});
}

void ClientPool::Count(const Client& client, Share more) {
  const auto count = [&](int limit, auto& shares, auto who) {
    if (limit == kNoLimit) return;
    Share& share = shares[who];
    share.served += more.served;
    share.queued += more.queued;
    share.surplus += more.surplus;
    share.idle += more.idle;
    if (share.served + share.queued + share.surplus + share.idle == 0) {
      shares.erase(who);
    }
  };
  count(limits_.max_clients_per_process, processes_, client.peer->pid);
  count(limits_.max_clients_per_user, users_, client.peer->uid);
}

void ClientPool::CountQueued(const Client& client, int more) {
  if (client.refusal_.ok()) {
    Count(client, {0, more, 0, 0});
  } else {
    Count(client, {0, 0, more, 0});
    surplus_ += more;
  }
}

void ClientPool::ServeCall(Client& client) {
  // It is served what came before it was told to leave, and nothing else.
  if (client.leaves_ || IsBeside(client)) client.channel.KeepNoLonger();
  mutex_.Unlock();
  // It keeps it until it serves another's: to be named costs a system call.
  environment_.NameThread(absl::StrCat("ward ", client.peer->pid));
  // It has its thread to itself now.
  client.channel.set_keeps_refused(false);
  absl::Status status = service_.serve(client);
  // A handler that waited for its client has read the end of the stream.
  const bool cut = HasLeft(status);
  if (cut && stopping()) status = StoppingError();
  // One that would not have called again is told what it has asked for.
  const bool ends_early = !status.ok() && client.channel.call().keep;
  if (!status.ok()) Tell(client, status);
  mutex_.Lock();
  if (ends_early) CountCut(status);
  if (client.observed_ != 0) Forget(std::exchange(client.observed_, 0));
}

bool ClientPool::AwaitNextCall(Client& client) {
  while (true) {
    EnterBetweenCalls(client);
    mutex_.Unlock();
    client.channel.set_keeps_refused(true);
    absl::Status status = service_.receive(client, absl::InfiniteDuration());
    if (status.ok() && stopping()) status = StoppingError();
    const bool goes_on =
        HasReason(status, reason::kTimedOut) && client.channel.has_refused();
    // It may leave, or be made to; all else is told.
    const bool ends = !status.ok() && !goes_on;
    if (ends && !HasLeft(status)) Tell(client, status);
    mutex_.Lock();
    LeaveBetweenCalls(client);
    if (ends) {
      CountCut(status);
      return false;
    }
    LeaveAccepting();
    // Who has been waiting for this one's place, or thread, waits for
    // another's.
    if (SomebodyWaits()) (void)DismissIdle(AnyClient);
    if (status.ok()) return true;
    // Closes what it has thrown away, and is not one that idles meanwhile.
    mutex_.Unlock();
    client.channel.set_keeps_refused(false);
    mutex_.Lock();
  }
}

void ClientPool::EnterBetweenCalls(Client& client) {
  if (client.leaves_) {
    client.is_leaving_ = true;
    ++leaving_;
  }
  if (client.idle_.empty()) client.idle_.push_back(&client);
  client.between_ = client.idle_.begin();
  between_calls_.splice(between_calls_.end(), client.idle_);
  Count(client, {-1, 0, 0, client.leaves_ ? 0 : 1});
  if (IsWaitedFor(client) || SomebodyWaits()) Dismiss(client);
}

void ClientPool::LeaveBetweenCalls(Client& client) {
  client.idle_.splice(client.idle_.end(), between_calls_, client.between_);
  Count(client, {1, 0, 0, client.leaves_ ? 0 : -1});
  if (std::exchange(client.is_leaving_, false)) --leaving_;
}

bool ClientPool::SomebodyWaitsForAPlace() const {
  return static_cast<int>(queued_.size()) > surplus_ + leaving_;
}

bool ClientPool::SomebodyWaits() const {
  return stopping_ || SomebodyWaitsForAPlace() ||
         ready_.size() > static_cast<size_t>(called_) ||
         (NobodyAccepts() && !watching_);
}

bool ClientPool::DismissIdle(absl::FunctionRef<bool(const Client&)> fits) {
  const auto found = std::find_if(
      between_calls_.begin(), between_calls_.end(),
      [&](const Client* client) { return !client->leaves_ && fits(*client); });
  if (found == between_calls_.end()) return false;
  Dismiss(**found);
  return true;
}

void ClientPool::Dismiss(Client& client) {
  if (client.leaves_) return;
  client.leaves_ = client.is_leaving_ = true;
  ++counts_.dismissed;
  Count(client, {0, 0, 0, -1});
  ++leaving_;
  client.connection_->ShutDownReceiving();
}

std::unique_ptr<ClientPool::Client> ClientPool::NextToServe(pid_t process) {
  const bool has_admitted = AdmitSurplus();
  const auto find = [&](absl::FunctionRef<bool(const Client&)> fits)
                        ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                          auto next = queued_.end();
                          for (auto it = queued_.begin(); it != queued_.end();
                               ++it) {
                            const Client& client = *it->second;
                            if (!fits(client)) continue;
                            if (next == queued_.end()) next = it;
                            if (client.peer->pid == process) continue;
                            return it;
                          }
                          return next;
                        };
  // Those that are ready have their places: the free one is for the queue. If
  // there is none, the one that has left was beside them, where another may be.
  auto next = queued_.end();
  if (HasPlace()) {
    next = find([](const Client& client) { return client.refusal_.ok(); });
  }
  const bool is_beside = next == queued_.end();
  if (is_beside) {
    next = find([this](const Client& client) ABSL_SHARED_LOCKS_REQUIRED(
                    mutex_) { return MayBeBeside(client); });
  }
  if (next != queued_.end() && !stopping_) {
    std::unique_ptr<Client> client = Take(queued_, next);
    if (is_beside) client->most_time = kTimeBeside;
    GivePlace(*client);
    ready_.push_back(std::move(client));
  }
  if (has_admitted && SomebodyWaitsForAPlace()) (void)DismissIdle(AnyClient);
  return TakeReady();
}

std::unique_ptr<ClientPool::Client> ClientPool::TakeReady() {
  if (ready_.empty()) return nullptr;
  std::unique_ptr<Client> first = std::move(ready_.front());
  ready_.pop_front();
  return first;
}

void ClientPool::Refuse(std::unique_ptr<Client> client,
                        const absl::Status& why) {
  if (HasLeft(why)) {
    ++counts_.left;
  } else {
    ++counts_.refused[ErrorKindOf(why)];
  }
  mutex_.Unlock();
  Tell(*client, why);
  mutex_.Lock();
  Close(std::move(client));
}

void ClientPool::CountCut(const absl::Status& why) {
  if (!HasLeft(why)) ++counts_.cut[ErrorKindOf(why)];
}

void ClientPool::Tell(Client& client, const absl::Status& error) {
  client.channel.set_timeout(kErrorTimeout);
  client.channel.set_deadline(absl::InfiniteFuture());
  // A client that does not want to hear it, or has left, has its answer.
  (void)client.channel.WriteError(error);
  (void)client.channel.DiscardUnread();
}

void ClientPool::Close(std::unique_ptr<Client> client) {
  mutex_.Unlock();
  const bool has_attached = HasAttached(*client);
  mutex_.Lock();
  const auto since =
      has_attached ? closing_.insert(closing_.begin(), absl::InfinitePast())
                   : closing_.insert(closing_.end(), environment_.TimeNow());
  if (has_attached && CallIdle()) {
    to_close_.emplace_back(std::move(client), since);
  } else {
    CloseHere(std::move(client), since);
  }
}

void ClientPool::CloseHere(std::unique_ptr<Client> client,
                           Closings::iterator since) {
  mutex_.Unlock();
  while (client->channel.unclaimed_descriptors() > 0) {
    client->channel.CloseUnclaimed();
    (void)client->channel.DiscardUnread();
  }
  client->request.Recycle();
  client.reset();
  mutex_.Lock();
  closing_.erase(since);
  ++closed_;
}

void ClientPool::CloseNext() {
  auto [client, since] = std::move(to_close_.front());
  to_close_.pop_front();
  LeaveAccepting();
  CloseHere(std::move(client), since);
}

size_t ClientPool::CountHanging() const {
  const absl::Time long_ago = environment_.TimeNow() - kLeavingTime;
  const auto recent =
      std::find_if(closing_.begin(), closing_.end(),
                   [long_ago](absl::Time since) { return since > long_ago; });
  return static_cast<size_t>(std::distance(closing_.begin(), recent));
}

bool ClientPool::HasAttached(Client& client) {
  // Its handler may have closed the channel, or given it to somebody who still
  // has it.
  if (!client.channel.is_open() && client.connection_.use_count() == 1) {
    client.channel = MessageChannel(client.connection_);
  }
  const bool none_unread = client.channel.DiscardUnread();
  return !none_unread || !client.request.descriptors().empty();
}

// --- waiting ---

void ClientPool::Wait(Waiting& waiting, std::unique_ptr<Client> client,
                      PollSet::Event event) {
  const uint64_t id = ++last_id_;
  const absl::Status status = watched_->Add(id, *client->connection_, event);
  if (!status.ok()) {
    Refuse(std::move(client), Annotate(status, "wait for the client"));
    return;
  }
  const absl::Time deadline = client->deadline_;
  deadlines_.emplace(deadline, id);
  if (&waiting == &queued_) CountQueued(*client, 1);
  waiting.emplace(id, std::move(client));
  if (watching_ && deadline < watching_until_) watched_->Wake();
}

std::unique_ptr<ClientPool::Client> ClientPool::Take(Waiting& waiting,
                                                     Waiting::iterator client) {
  std::unique_ptr<Client> taken = std::move(client->second);
  if (&waiting == &queued_) CountQueued(*taken, -1);
  watched_->Remove(*taken->connection_);
  deadlines_.erase({taken->deadline_, client->first});
  waiting.erase(client);
  return taken;
}

void ClientPool::Observe(
    Client& client, absl::Time deadline,
    const std::shared_ptr<CallCancellation>& cancellation) {
  bool is_over;
  bool is_cut;
  {
    absl::MutexLock lock(&mutex_);
    is_over = stopping_;
    is_cut = cut_;
    const uint64_t id = ++last_id_;
    client.observed_ = id;
    observed_.emplace(
        id, Observed{client.connection_.get(), deadline, cancellation});
    if (!is_over) {
      // Without, there are its deadline and Stop.
      const absl::Status status =
          watched_->Add(id, *client.connection_, PollSet::Event::kHangUp);
      if (!status.ok()) {
        failures_.Log(environment_,
                      "a handler is not told when its client leaves: ",
                      status.ToString());
      }
      deadlines_.emplace(deadline, id);
      if (!watching_) {
        (void)Call();
      } else if (deadline < watching_until_) {
        watched_->Wake();
      }
    }
  }
  if (is_over) cancellation->all.Cancel();
  if (is_cut) cancellation->abandoned.Cancel();
}

std::shared_ptr<CallCancellation> ClientPool::Forget(uint64_t observed) {
  const auto found = observed_.find(observed);
  if (found == observed_.end()) return nullptr;
  const Observed& forgotten = found->second;
  watched_->Remove(*forgotten.connection);
  deadlines_.erase({forgotten.deadline, observed});
  std::shared_ptr<CallCancellation> cancellation = forgotten.cancellation;
  observed_.erase(found);
  return cancellation;
}

void ClientPool::Watch() {
  watching_ = true;
  LeaveAccepting();
  std::unique_ptr<Client> client;
  std::shared_ptr<CallCancellation> cancelled;
  std::optional<uint64_t> attended;
  bool listens = false;
  bool comes = false;
  // A crowd that has left leaves its memory, which is to be given back.
  const auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return !deadlines_.empty() || most_waiting_ >= kCrowd;
  };
  while (client == nullptr && cancelled == nullptr && !attended.has_value() &&
         !comes && !stopping_ && has_work()) {
    const size_t waiting = silent_.size() + queued_.size();
    most_waiting_ = std::max(most_waiting_, waiting);
    const bool crowd_is_gone =
        most_waiting_ >= kCrowd && waiting <= most_waiting_ / 2;
    if (crowd_is_gone && environment_.TimeNow() >= next_release_) {
      most_waiting_ = waiting;
      next_release_ = environment_.TimeNow() + kReleaseInterval;
      mutex_.Unlock();
      ReleaseMemory();
      mutex_.Lock();
      continue;
    }
    if (listens && !NobodyAccepts()) {
      watched_->Remove(listener_);
      listens = false;
    } else if (!listens && NobodyAccepts()) {
      listens =
          watched_->Add(kNewClient, listener_, PollSet::Event::kReadable).ok();
    }
    watching_until_ =
        deadlines_.empty() ? next_release_ : deadlines_.begin()->first;
    if (crowd_is_gone) {
      watching_until_ = std::min(watching_until_, next_release_);
    }
    // Where there was no memory to listen, it is tried again.
    if (!listens && NobodyAccepts()) {
      watching_until_ =
          std::min(watching_until_, environment_.TimeNow() + kBackOff);
    }
    const absl::Time until = watching_until_;
    mutex_.Unlock();
    const absl::StatusOr<uint64_t> heard_of = watched_->Wait(until);
    mutex_.Lock();
    // Those whose time is up come first: no storm of others, of which each may
    // have one byte more, keeps them.
    const bool is_due = !deadlines_.empty() &&
                        deadlines_.begin()->first <= environment_.TimeNow();
    if (!is_due && heard_of.ok() && *heard_of == kNewClient) {
      comes = NobodyAccepts();
    } else if (is_due || heard_of.ok()) {
      const uint64_t id = is_due ? deadlines_.begin()->second : *heard_of;
      cancelled = Forget(id);
      if (!silent_.contains(id) && !queued_.contains(id)) continue;
      // Where its request is refused, what came with that is closed: others
      // have another thread meanwhile, if one can be had.
      if (CallIdle()) {
        attended = id;
      } else {
        client = Attend(id);
      }
    } else if (!HasReason(heard_of.status(), reason::kTimedOut)) {
      failures_.Log(environment_,
                    "waiting for clients: ", heard_of.status().ToString());
      mutex_.AwaitWithTimeout(absl::Condition(this, &ClientPool::IsStopping),
                              kBackOff);
    }
    if (client == nullptr) continue;
    ready_.push_back(std::move(client));
    // With no other thread to be had, it waits for one that serves; if there
    // is none either, this one does.
    if (!Call() && served_.size() == ready_.size()) client = TakeReady();
  }
  watching_ = false;
  if (listens) watched_->Remove(listener_);
  if (attended.has_value()) client = Attend(*attended);
  if (cancelled != nullptr) {
    // Its callbacks are a user's: they may take their time.
    if (!deadlines_.empty()) (void)Call();
    mutex_.Unlock();
    cancelled->all.Cancel();
    cancelled->abandoned.Cancel();
    mutex_.Lock();
  }
  if (client != nullptr) Serve(std::move(client));
  if (comes) Accept();
}

std::unique_ptr<ClientPool::Client> ClientPool::Attend(uint64_t id) {
  const auto silent = silent_.find(id);
  if (silent != silent_.end()) {
    std::unique_ptr<Client> client = Take(silent_, silent);
    ++receiving_;
    ++reading_;
    mutex_.Unlock();
    // Asked before: what has come by its deadline is read, however late this
    // thread is.
    const bool is_late = environment_.TimeNow() >= client->deadline_;
    absl::Status status = service_.receive(*client, absl::ZeroDuration());
    mutex_.Lock();
    return Settle(std::move(client), std::move(status), is_late);
  }
  const auto queued = queued_.find(id);
  if (queued == queued_.end()) return nullptr;
  // It has left, or its time is up.
  std::unique_ptr<Client> client = Take(queued_, queued);
  // Where it has waited for a place, all are taken.
  if (client->refusal_.ok()) (void)AdmitSurplus();
  const absl::Status refusal =
      client->connection_->HungUp()
          ? MakeError(reason::kEndOfStream, "it has left")
      : !client->refusal_.ok()
          ? client->refusal_
          : MakeError(reason::kServerFull,
                      absl::StrCat("all ", limits_.max_clients,
                                   " places of the server "
                                   "(ServerOptions::max_clients) stayed taken "
                                   "for ",
                                   absl::FormatDuration(limits_.queue_timeout),
                                   " (ServerOptions::queue_timeout); try again "
                                   "later"));
  Refuse(std::move(client), refusal);
  return nullptr;
}

// --- the end ---

void ClientPool::Stop(absl::Duration drain_time) {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  // In a full table there is room for one of them at a time, and all have to be
  // told: each is gone before the next one comes, but for those that take long.
  const absl::Time end = environment_.TimeNow() + kBackOff;
  listener_.StopAccepting([&](std::unique_ptr<Transport> connection) {
    absl::MutexLock lock(&mutex_);
    ++counts_.accepted;
    Refuse(std::make_unique<Client>(internal::Shared(std::move(connection))),
           StoppingError());
    mutex_.AwaitWithTimeout(absl::Condition(this, &ClientPool::HasClosedAll),
                            end - environment_.TimeNow());
  });
  absl::MutexLock lock(&mutex_);
  if (watched_ != nullptr) watched_->Wake();
  while (std::unique_ptr<Client> client = TakeReady()) {
    TakePlace(*client);
    Refuse(std::move(client), StoppingError());
  }
  for (Waiting* const waiting : {&silent_, &queued_}) {
    while (!waiting->empty()) {
      Refuse(Take(*waiting, waiting->begin()), StoppingError());
    }
  }
  for (Idle* const idle : idle_) idle->changed.Signal();
  // Not both directions: they can still be told.
  for (const Client* client : served_) {
    client->connection_->ShutDownReceiving();
  }
  // Callbacks are users': what they wait for may be one of those served.
  std::unique_ptr<Thread> tells;
  if (!observed_.empty()) {
    const auto tell = [observed = AllObserved()] {
      for (const auto& cancellation : observed) cancellation->all.Cancel();
    };
    mutex_.Unlock();
    absl::StatusOr<std::unique_ptr<Thread>> thread =
        environment_.StartThread(tell);
    if (thread.ok()) {
      tells = *std::move(thread);
    } else {
      tell();
    }
    mutex_.Lock();
  }
  const absl::Condition empty(this, &ClientPool::IsEmpty);
  // Abseil's own waits may end early, where the time of day is set.
  const absl::Time drained = environment_.TimeNow() + drain_time;
  while (!mutex_.AwaitWithTimeout(empty, drained - environment_.TimeNow()) &&
         environment_.TimeNow() < drained) {
  }
  if (!IsEmpty()) {
    cut_ = true;
    for (const Client* client : served_) client->connection_->ShutDown();
    const auto observed = AllObserved();
    mutex_.Unlock();
    for (const auto& cancellation : observed) cancellation->abandoned.Cancel();
    mutex_.Lock();
    mutex_.Await(empty);
  }
  mutex_.Unlock();
  tells.reset();
  mutex_.Lock();
}

std::vector<std::shared_ptr<CallCancellation>> ClientPool::AllObserved() const {
  std::vector<std::shared_ptr<CallCancellation>> all;
  for (const auto& [id, observed] : observed_) {
    all.push_back(observed.cancellation);
  }
  return all;
}

bool ClientPool::stopping() const {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

ClientPool::Counts ClientPool::counts() const {
  absl::MutexLock lock(&mutex_);
  Counts counts = counts_;
  counts.served = CountPlaces();
  counts.idle = between_calls_.size();
  counts.waiting = queued_.size();
  counts.silent = silent_.size() + static_cast<size_t>(receiving_);
  counts.threads = threads_.size();
  counts.idle_threads =
      idle_.size() + static_cast<size_t>(accepting_ + (watching_ ? 1 : 0));
  return counts;
}

bool ClientPool::IsStopping() const { return stopping_; }

bool ClientPool::HasClosedAll() const { return closing_.empty(); }

bool ClientPool::IsEmpty() const { return served_.empty() && receiving_ == 0; }

}  // namespace ward

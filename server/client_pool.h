// Who is a client now, and the threads that serve them, one each.
//
// Idle threads wait in Accept themselves, and the one that gets a client serves
// it: no hand-over, one wake-up. A client whose first message does not come
// soon, and one that has to wait for one of `max_clients` places, costs a
// descriptor and no thread: all of them are watched, in a PollSet, by one
// thread, while there are any. So no silent peer has to be cut to make room for
// another client: each has its time, and leaves when that is over. Where there
// is room for no more of them (`max_waiting_clients`), the listen queue waits.
// What they send along with a message that is not whole yet is bounded, too,
// and theirs is the room that is made in a full descriptor table.
//
// A client that keeps its connection between two calls keeps its place and its
// thread, which waits in recvmsg for the next call: no wake-up but the call's
// own. When somebody else waits for a place, when the table is full, or when
// the system gives no more threads, the one that has been idle for longest
// leaves. Its socket is shut down for receiving first (unix(7)): a call that is
// in it already is still served, and a client that writes one later is told
// that it was not, by EPIPE.
//
// One more may be served beside those that have a place, for a call that is to
// be answered however full the server is. It has no other one, and little time.
//
// Who serves a client may have it observed: then the thread that watches hears,
// too, when that one leaves.
//
// What a peer has attached takes as long to close as it likes: a file of a file
// system that does not answer, for ever. So nothing of that is closed while
// anybody waits: not in receiving a first message, between two calls only by
// one that has its place again, and with the connection only by a thread that
// has come for that, if one can be had.
//
// Threads are started when all are busy, and end when they are idle for long;
// a few are kept. Where the system gives no more of them, the one that watches
// accepts, too.

#ifndef WARD_SERVER_CLIENT_POOL_H_
#define WARD_SERVER_CLIENT_POOL_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/log_severity.h"
#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/spare_memory.h"
#include "ward/channel/transport.h"
#include "ward/server/call_stats.h"
#include "ward/server/cancellation.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/server/poll_set.h"
#include "ward/server/sparse_log.h"

namespace ward {

class ClientPool {
 public:
  // As of ServerOptions.
  struct Limits {
    int max_clients;
    int max_waiting_clients;
    int max_clients_per_process;
    int max_clients_per_user;
    absl::Duration authentication_timeout;
    absl::Duration queue_timeout;
  };

  struct Client : internal::InSpareMemory {
    Client() = default;
    explicit Client(std::shared_ptr<Transport> connection)
        : channel(connection),
          peer(connection->Peer()),
          connection_(std::move(connection)) {}

    MessageChannel channel;
    absl::StatusOr<PeerCredentials> peer = PeerCredentials();

    // Of all that came.
    uint64_t number = 0;

    // See Listener::Accepted.
    bool on_reserve = false;

    // A call's first message, once it was received.
    Message request;

    // How long its call may take, whatever else says. Not infinite: it is
    // served without a place.
    absl::Duration most_time = absl::InfiniteDuration();

   private:
    friend class ClientPool;
    using List = std::list<Client*, internal::SpareAllocator<Client*>>;

    // To be shut down, whatever a handler has done to its channel.
    std::shared_ptr<Transport> connection_;
    // When its wait ends: for its first message, or for a place.
    absl::Time deadline_;
    // If it waits for one of the same to leave: what it is told when none does.
    absl::Status refusal_;
    // It was told to leave, between two calls; and is one of leaving_.
    bool leaves_ = false;
    bool is_leaving_ = false;
    // Its place in served_; and its own part of between_calls_, while it is not
    // there.
    List::iterator served_;
    List idle_;
    List::iterator between_;
    // In observed_; 0 if it is not.
    uint64_t observed_ = 0;
  };

  // What is to be done with a client, on the pool's threads. An error is for
  // the client: the pool tells it, and closes the connection. None may throw.
  struct Service {
    // Whether it may be one. Before a byte of it is read.
    std::function<absl::Status(Client&)> greet;

    // Receives client.request as far as it comes within `time`, and goes on
    // where it stopped the last time. kTimedOut when it is not whole yet, or
    // what was thrown away before it is to be closed
    // (MessageChannel::set_keeps_refused). Of infinite time a request that has
    // begun to come has no more than it may take.
    std::function<absl::Status(Client&, absl::Duration time)> receive;

    // When the table of descriptors is full: makes room among those of clients
    // that are served, within `time`. Whether there is some.
    std::function<bool(absl::Duration time)> make_room;

    // Whether the request, which was received, may do without a place; null:
    // none may. Called with the pool locked.
    std::function<bool(const Client&)> may_be_beside;

    // Serves the request. If the channel is kept() then, the client may call
    // again.
    std::function<absl::Status(Client&)> serve;
  };

  // What there is now, and what has been since Start: see proto/stats.proto.
  struct Counts {
    uint64_t accepted = 0;
    size_t served = 0;
    size_t idle = 0;
    size_t most_served = 0;
    size_t waiting = 0;
    size_t silent = 0;
    ErrorCounts refused{};
    uint64_t left = 0;
    ErrorCounts cut{};
    uint64_t dismissed = 0;
    size_t threads = 0;
    size_t idle_threads = 0;
  };

  // All are borrowed.
  ClientPool(Environment& environment, Listener& listener, Limits limits,
             Service service);

  // Joins all threads: Stop must have been called, or Start never.
  ~ClientPool();

  absl::Status Start();

  // Refuses new clients, and those that wait. A handler that waits for its
  // client to send finds the end of the stream; what runs otherwise may finish
  // for `drain_time`, then its channel is cut. Returns when no client is served
  // any more.
  void Stop(absl::Duration drain_time);

  // For `service.serve`, once for each call: has `cancellation` cancelled as
  // soon as the client has left, or its connection was cut, or `deadline` has
  // passed, or Stop is called; until the call has been served.
  void Observe(Client& client, absl::Time deadline,
               const std::shared_ptr<CallCancellation>& cancellation)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether Stop was called. From any thread.
  bool stopping() const ABSL_LOCKS_EXCLUDED(mutex_);

  // From any thread.
  Counts counts() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Waiting = absl::btree_map<uint64_t, std::unique_ptr<Client>>;
  using Closings = std::list<absl::Time, internal::SpareAllocator<absl::Time>>;

  // A client that is served, while that wants to know whether it is still
  // there.
  struct Observed {
    const Transport* connection;
    absl::Time deadline;
    std::shared_ptr<CallCancellation> cancellation;
  };

  // What the clients of a process, or of a user, have.
  struct Share {
    int served = 0;
    // Waits for a place; and, being one too many, for one of the others to
    // leave first.
    int queued = 0;
    int surplus = 0;
    // Between two calls, but for those that are about to leave.
    int idle = 0;
  };
  template <typename Who>
  using Shares = absl::flat_hash_map<Who, Share>;

  // A thread that has nothing to do.
  struct Idle {
    absl::CondVar changed;
    bool called = false;
  };

  // A thread's life. All that follows, but for what says otherwise, is called
  // and left with mutex_ locked, and unlocks it for whatever takes time.
  void Run(int thread) ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether another thread may: each may bring a client that waits.
  bool MayAccept() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether no thread accepts, or can be had for it, though one more client may
  // come: the one that watches is to hear of it.
  bool NobodyAccepts() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Whether the calling thread, which has nothing to do, is all that there is
  // for clients that are heard of: perhaps no other can be started, and those
  // that accept hear of nothing.
  bool IsSpare() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void Accept() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // In the process's descriptor table, which is full: whether there is some
  // now. Waits for clients that leave, or are received from, no longer than
  // kLeavingTime.
  bool MakeRoomInTable() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether it refused one: of those that have descriptors here, of a first
  // message that is not whole, or behind it, the oldest of the process that has
  // most of them; of silent_ before those of queued_. Only if all have over
  // `allowed`. They may not be closed yet.
  bool RefuseHolder(absl::Span<Waiting* const> among, size_t allowed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether there is something to be read, or accepted, by now.
  bool HasCome(const Pollable& pollable) const;
  void AwaitRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int CountWaiting() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void Watch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False when none came for long: this thread is to end.
  bool AwaitCall() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(int thread) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Has another thread come, to do what is to be done. False if there is none.
  bool Call() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The same, but of those that have nothing to do, and new ones.
  bool CallIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status StartThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // This thread will be busy: another one accepts, if it can be had.
  void LeaveAccepting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Says what becomes of a client that was among those of receiving_, whose
  // request was received, or was not, if only because its time was up already
  // before (`is_late`). Returns one that this thread is to serve.
  std::unique_ptr<Client> Settle(std::unique_ptr<Client> client,
                                 absl::Status received, bool is_late)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether it may have a place, now or later: if its process, or user, has all
  // that it may have, client.refusal_ says so. One of the same who is between
  // two calls leaves for it.
  absl::Status CheckShare(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether its process and user have less than they may have.
  bool HasShare(const Client& client) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // When it has made its call: whether one too many of its process or user
  // waits for a place that it may have.
  bool IsWaitedFor(const Client& client) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // One has left: the oldest that was one too many, and is not any more, waits
  // for a place as others do. Whether there is one.
  bool AdmitSurplus() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Serves it, and whoever waits for its place then.
  void Serve(std::unique_ptr<Client> client)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // How many have one; whether one is free.
  size_t CountPlaces() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool HasPlace() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Whether it may be served without one.
  bool MayBeBeside(const Client& client) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void GivePlace(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakePlace(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What `client` has more than before; and one of queued_.
  void Count(const Client& client, Share more)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountQueued(const Client& client, int more)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Serves one call of it; and whether it has made another one.
  void ServeCall(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AwaitNextCall(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EnterBetweenCalls(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LeaveBetweenCalls(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // For a place, or that or a thread: of those that leave each gives one.
  bool SomebodyWaitsForAPlace() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool SomebodyWaits() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Has the one leave that has been between two calls for longest, of those for
  // which `fits`. False if there is none.
  bool DismissIdle(absl::FunctionRef<bool(const Client&)> fits)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Dismiss(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // When one of `process` has given up its place, or what it had beside them:
  // it goes to the oldest that waits for it, of another process if there is
  // one. So a process whose clients come
  // without end, and leave at once, keeps no other's waiting.
  std::unique_ptr<Client> NextToServe(pid_t process)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Null if there is none.
  std::unique_ptr<Client> TakeReady() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wait(Waiting& waiting, std::unique_ptr<Client> client,
            PollSet::Event event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::unique_ptr<Client> Take(Waiting& waiting, Waiting::iterator client)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The one that `id` stands for has been heard of, or its time is up. Not one
  // of observed_.
  std::unique_ptr<Client> Attend(uint64_t id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of a process that has the most of the room, the oldest that is silent; null
  // if there is none.
  std::unique_ptr<Client> TakeFromGreediest()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<CallCancellation> Forget(uint64_t observed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::shared_ptr<CallCancellation>> AllObserved() const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void Refuse(std::unique_ptr<Client> client, const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountCut(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Tell(Client& client, const absl::Status& error);

  // Closes its connection, if only when another thread has come.
  void Close(std::unique_ptr<Client> client)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The same on this thread, whatever that takes.
  void CloseHere(std::unique_ptr<Client> client, Closings::iterator since)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CloseNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // How many of closing_ take so long that it may be for ever.
  size_t CountHanging() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Whether that may take long. It is not read any more.
  static bool HasAttached(Client& client);

  // Conditions.
  bool HasRoom() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool IsStopping() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool IsEmpty() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool HasClosedAll() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  Environment& environment_;
  Listener& listener_;
  const Limits limits_;
  // Descriptors of first messages that are not whole.
  const size_t max_held_;
  const Service service_;
  std::unique_ptr<PollSet> watched_;
  SparseLog no_threads_{absl::LogSeverity::kWarning};
  SparseLog failures_{absl::LogSeverity::kError};

  mutable absl::Mutex mutex_;
  // What has been; the rest of it is counted when it is asked for.
  Counts counts_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // All that was served has been cut.
  bool cut_ ABSL_GUARDED_BY(mutex_) = false;
  // One of served_ has no place.
  bool serves_beside_ ABSL_GUARDED_BY(mutex_) = false;

  absl::btree_map<int, std::unique_ptr<Thread>> threads_
      ABSL_GUARDED_BY(mutex_);
  int last_thread_ ABSL_GUARDED_BY(mutex_) = 0;
  // Has ended, or is about to: to be joined.
  std::unique_ptr<Thread> ended_ ABSL_GUARDED_BY(mutex_);
  // The last one is the first to be called: the others come to their end.
  std::vector<Idle*> idle_ ABSL_GUARDED_BY(mutex_);
  // How many are on their way to what is to be done; wait in Accept; receive
  // from a client that they have just accepted.
  int called_ ABSL_GUARDED_BY(mutex_) = 0;
  int accepting_ ABSL_GUARDED_BY(mutex_) = 0;
  int receiving_ ABSL_GUARDED_BY(mutex_) = 0;
  // Those of receiving_ that have room in the descriptor table, or do without.
  int reading_ ABSL_GUARDED_BY(mutex_) = 0;
  bool watching_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time watching_until_ ABSL_GUARDED_BY(mutex_);

  // Those that have a place, with the one that is served without; and of them
  // those that have no thread yet.
  Client::List served_ ABSL_GUARDED_BY(mutex_);
  // Of them, those that are between two calls, in the order in which they came
  // there; and how many of these are about to leave.
  Client::List between_calls_ ABSL_GUARDED_BY(mutex_);
  int leaving_ ABSL_GUARDED_BY(mutex_) = 0;
  // Since when each is being closed, in order: one that has attached anything
  // since ever, as it may take for ever. Those of them that a thread was called
  // for; and how many have been closed.
  Closings closing_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::pair<std::unique_ptr<Client>, Closings::iterator>> to_close_
      ABSL_GUARDED_BY(mutex_);
  uint64_t closed_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::unique_ptr<Client>> ready_ ABSL_GUARDED_BY(mutex_);
  // Of those that have any; empty where there is no limit to them.
  Shares<pid_t> processes_ ABSL_GUARDED_BY(mutex_);
  Shares<uid_t> users_ ABSL_GUARDED_BY(mutex_);
  // Those whose first message has not come, or not all of it; and those that
  // wait for a place. By when they came, which is their id in watched_.
  Waiting silent_ ABSL_GUARDED_BY(mutex_);
  Waiting queued_ ABSL_GUARDED_BY(mutex_);
  // How many of queued_ are one too many.
  int surplus_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  // Of both together, since memory was last given back.
  size_t most_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time next_release_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::btree_map<uint64_t, Observed> observed_ ABSL_GUARDED_BY(mutex_);
  // Of all three.
  absl::btree_set<std::pair<absl::Time, uint64_t>> deadlines_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace ward

#endif  // WARD_SERVER_CLIENT_POOL_H_

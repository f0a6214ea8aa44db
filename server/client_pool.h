// The threads that accept clients and serve them, one client each.
//
// Idle threads wait in Accept themselves, and the one that gets a client serves
// it: no hand-over, one wake-up. The last idle thread that gets a client first
// starts another one, up to the limits. Threads are kept until the end.
//
// Two kinds of place. A client that has not shown the password yet holds one of
// `max_unauthenticated`. When one more comes, one that is silent is cut: the
// oldest of those of the process that has the most. An honest client's password
// comes right behind its connection, but a flood of others may come in between.
// So silent peers can neither fill the pool nor keep others from getting in. A
// client that has shown it holds one of `max_clients`, or waits for one.

#ifndef WARD_SERVER_CLIENT_POOL_H_
#define WARD_SERVER_CLIENT_POOL_H_

#include <sys/types.h>

#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"

namespace ward {

class ClientPool {
 public:
  struct Limits {
    int max_clients;
    int max_unauthenticated;
  };

  // A client's place in the pool, on its thread's stack while it is served.
  class Client {
   public:
    // The connection; whoever serves the client takes it. It must live as long
    // as this Client is served, or be released by Leave().
    std::unique_ptr<Transport> transport;

    // Who it is.
    absl::StatusOr<PeerCredentials> peer = PeerCredentials();

    // See Listener::Accepted.
    bool on_reserve = false;

    // The client has shown the password. Waits for one of `max_clients` places;
    // false when the client was cut, or the server stops, meanwhile: it is to
    // be refused.
    bool Authenticated() { return pool_.Admit(*this); }

    // The connection is about to be closed: it must not be cut any more.
    void Leave() { pool_.Remove(*this); }

   private:
    friend class ClientPool;
    explicit Client(ClientPool& pool) : pool_(pool) {}

    pid_t peer_pid() const { return peer.ok() ? peer->pid : 0; }

    ClientPool& pool_;
    Transport* connection_ = nullptr;
    enum {
      kUnauthenticated,
      kCut,
      kWaiting,
      kServed
    } state_ = kUnauthenticated;
  };

  // `serve` is called on the pool's threads, must not throw, and must call
  // Leave() before it closes the connection. All three are borrowed.
  ClientPool(Environment& environment, Listener& listener, Limits limits,
             std::function<void(Client&)> serve);

  // Joins all threads: Stop must have been called, or Start never.
  ~ClientPool();

  absl::Status Start();

  // Refuses new clients, and those who have not shown the password. Lets those
  // that are served finish for `drain_time`, then cuts their channels. Returns
  // when none is served any more.
  void Stop(absl::Duration drain_time);

 private:
  void Run();
  bool AcceptOne(Client& client);
  bool Admit(Client& client);
  void Remove(Client& client);
  void Cut(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CutExcess() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether there is something of the client's that was not read yet.
  bool HasSent(const Client& client) const;
  absl::Status StartThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Conditions to wait for.
  bool HasPlace() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool IsStopping() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool IsEmpty() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  Environment& environment_;
  Listener& listener_;
  const Limits limits_;
  const std::function<void(Client&)> serve_;

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int idle_ ABSL_GUARDED_BY(mutex_) = 0;
  int served_ ABSL_GUARDED_BY(mutex_) = 0;
  // All clients, the oldest first.
  std::vector<Client*> clients_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Thread>> threads_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ward

#endif  // WARD_SERVER_CLIENT_POOL_H_

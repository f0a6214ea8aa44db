// Servers by key, each made when it is first asked for, and stopped when nobody
// has asked for it for a while.
//
//   ward::AbstractServerCollection<std::string, HelloServer> servers;
//
//   WARD_ASSIGN_OR_RETURN(
//       std::shared_ptr<HelloServer> server,
//       servers.LookupOrAdd(path, [&]() -> absl::StatusOr<...> {
//         auto made = std::make_unique<HelloServer>();
//         made->set_max_idle_time(absl::Minutes(5));
//         WARD_RETURN_IF_ERROR(made->Start());
//         return made;
//       }));
//   WARD_RETURN_IF_ERROR(server->Hello("Joe"));
//
// The pointer is a lease: while anybody but the collection has it, the server
// is in use, is not idle, and is not stopped, even when it is deleted from the
// collection meanwhile; whoever lets go of it last stops it then. Hold it for
// as long as it takes to use it.
//
// Idle servers are stopped by CheckIdleServers(), from the program's own loop
// (NextCleaningTime() says when), or by a thread that StartCleaner() starts.
// With that thread the program cannot fork servers any more: start them by exec
// or a zygote (StartMode).
//
// Neither a factory nor a Stop is called with the collection's lock held: a
// server that takes long to start or to stop keeps nobody waiting but those who
// ask for that one.
//
// Misuse:
// - Keeping the pointer: the server is never idle.
// - Looking up in a factory: refused, since two of them could wait for each
//   other.

#ifndef WARD_SERVER_ABSTRACT_SERVER_COLLECTION_H_
#define WARD_SERVER_ABSTRACT_SERVER_COLLECTION_H_

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/log_severity.h"
#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"

namespace ward {

namespace internal {

// Where the thread that lets go of a server wants to have how its end went.
inline thread_local absl::Status* stop_result = nullptr;

}  // namespace internal

// For one collection.
struct CollectionOptions {
  // Told of a server that could not be stopped well where there is no caller to
  // return it to: an idle one, one that was deleted while it was in use, and
  // all but the first of Clear's. On any thread, without a lock. Default:
  // Environment::Log.
  std::function<void(const absl::Status&)> on_stop_failure;

  // Borrowed; outlives the collection. For the clock, and for the cleaner.
  Environment* environment = &Environment::Default();
};

// `Key` is what absl::flat_hash_map takes. Thread-safe.
template <typename Key, typename Server = AbstractServer>
class AbstractServerCollection {
 public:
  static_assert(std::is_base_of_v<AbstractServer, Server>,
                "a collection is of servers");

  explicit AbstractServerCollection(CollectionOptions options = {})
      : environment_(*options.environment),
        on_stop_failure_(std::make_shared<OnStopFailure>(
            options.on_stop_failure != nullptr
                ? std::move(options.on_stop_failure)
                : [environment =
                       options.environment](const absl::Status& status) {
                    environment->Log(absl::LogSeverity::kError,
                                     absl::StrCat("a server of a collection: ",
                                                  status.ToString()));
                  })) {}

  AbstractServerCollection(const AbstractServerCollection&) = delete;
  AbstractServerCollection& operator=(const AbstractServerCollection&) = delete;

  // Cleanup(); what that returns goes to on_stop_failure.
  ~AbstractServerCollection() { Report(Cleanup()); }

  // The server at `key`; if there is none, that which `factory` returns. The
  // server's idle time begins anew. The collection starts nothing: that is the
  // factory's, or the caller's.
  //
  // Of several threads that ask for a new key at once, one calls its factory,
  // and the others wait for it. If it fails, its caller gets the error, the
  // collection is as it was, and the next one calls its own.
  //
  // Factory: absl::StatusOr<std::unique_ptr<Server>>(), or
  // std::unique_ptr<Server>(), of Server or a class derived from it.
  // kCollectionClosed after Cleanup; FailedPrecondition in a factory.
  template <typename Factory>
  absl::StatusOr<std::shared_ptr<Server>> LookupOrAdd(const Key& key,
                                                      Factory factory);

  // Whether there is a server at `key`; it may be gone when this returns. One
  // that is being made is not there yet.
  bool HasKey(const Key& key) const {
    absl::MutexLockMaybe lock(&mutex_);
    const auto entry = entries_.find(key);
    return entry != entries_.end() && entry->second.server != nullptr;
  }
  size_t size() const {
    absl::MutexLockMaybe lock(&mutex_);
    return static_cast<size_t>(std::count_if(
        entries_.begin(), entries_.end(),
        [](const auto& entry) { return entry.second.server != nullptr; }));
  }
  bool empty() const { return size() == 0; }

  // Takes the server at `key` out of the collection and stops it, if it is
  // started: now, and its status is returned, or, if it is in use, when it no
  // more is. A key that is not there is no error.
  absl::Status Delete(const Key& key);

  // Calls `visit` for each server that was there at one moment, while it is in
  // use by this call: it may be deleted meanwhile. The collection may be used.
  void ForEach(absl::FunctionRef<void(const Key&, Server&)> visit);

  // Delete of all. Returns the first error; all are tried.
  absl::Status Clear();

  // Stops the servers that are due, and takes them out; returns how many. Call
  // it also after a max_idle_time was changed, so that the cleaner knows.
  size_t CheckIdleServers();

  // When CheckIdleServers will have something to do, on Environment::TimeNow's
  // clock; InfiniteFuture() if no server has a limit.
  absl::Time NextCleaningTime() const {
    absl::MutexLockMaybe lock(&mutex_);
    return NextTime();
  }

  // Starts a thread that calls CheckIdleServers when it is time. OK if there is
  // one. kCollectionClosed after Cleanup.
  absl::Status StartCleaner();

  // Ends the cleaner, and clears; look-ups fail from now on. May be called
  // again.
  absl::Status Cleanup();

 private:
  using OnStopFailure = std::function<void(const absl::Status&)>;

  struct Entry {
    std::shared_ptr<Server> server;  // Null while it is being made.
    absl::Time last_activity;
    bool taken_out = false;
  };
  using Entries = absl::flat_hash_map<Key, Entry>;

  void Report(const absl::Status& status) const {
    if (!status.ok()) (*on_stop_failure_)(status);
  }

  // The lease's end, which may outlive the collection.
  static std::shared_ptr<Server> Lease(
      std::unique_ptr<Server> server,
      const std::shared_ptr<OnStopFailure>& on_stop_failure) {
    return {server.release(), [on_stop_failure](Server* ended) {
              const std::unique_ptr<Server> owned(ended);
              if (!owned->started()) return;
              const absl::Status status = owned->Stop();
              if (internal::stop_result != nullptr) {
                *internal::stop_result = status;
              } else if (!status.ok()) {
                (*on_stop_failure)(status);
              }
            }};
  }

  // Lets go of what was taken out of the collection. If this was the last
  // lease, the server is stopped here, and how that went is returned.
  static absl::Status Release(std::shared_ptr<Server> server) {
    absl::Status status;
    internal::stop_result = &status;
    server.reset();
    internal::stop_result = nullptr;
    return status;
  }

  // Under the lock: the server to release without it.
  static std::shared_ptr<Server> TakeOut(Entry& entry) {
    entry.taken_out = true;
    return std::move(entry.server);
  }
  void EraseTakenOut() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    absl::erase_if(entries_,
                   [](const auto& entry) { return entry.second.taken_out; });
  }

  absl::Time Due(const Entry& entry) const {
    if (entry.server == nullptr) return absl::InfiniteFuture();
    const absl::Duration limit = entry.server->max_idle_time();
    return limit > absl::ZeroDuration() ? entry.last_activity + limit
                                        : absl::InfiniteFuture();
  }
  absl::Time NextTime() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    absl::Time next = absl::InfiniteFuture();
    for (const auto& [key, entry] : entries_) next = std::min(next, Due(entry));
    return next;
  }
  void Touch(Entry& entry) const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    entry.last_activity = environment_.TimeNow();
    entry.server->set_next_cleaning_time(Due(entry));
  }
  void RunCleaner();

  Environment& environment_;
  const std::shared_ptr<OnStopFailure> on_stop_failure_;
  // MutexLockMaybe locks by a pointer in each Abseil without a warning to those
  // who include this: MutexLock takes a reference instead since 2025.
  mutable absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  // Something has changed that the cleaner should look at.
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;
  Entries entries_ ABSL_GUARDED_BY(mutex_);
  // Those in a factory.
  absl::flat_hash_set<std::thread::id> makers_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<Thread> cleaner_ ABSL_GUARDED_BY(mutex_);
};

// --- implementation ---

template <typename Key, typename Server>
template <typename Factory>
absl::StatusOr<std::shared_ptr<Server>>
AbstractServerCollection<Key, Server>::LookupOrAdd(const Key& key,
                                                   Factory factory) {
  const std::thread::id self = std::this_thread::get_id();
  {
    absl::MutexLockMaybe lock(&mutex_);
    if (makers_.contains(self)) {
      return absl::FailedPreconditionError(
          "a factory of a server collection looks a server up in it: it could "
          "wait for itself; look it up before");
    }
    const auto made = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      const auto entry = entries_.find(key);
      return closed_ || entry == entries_.end() ||
             entry->second.server != nullptr;
    };
    mutex_.Await(absl::Condition(&made));
    if (closed_) {
      return MakeError(
          reason::kCollectionClosed,
          "the server collection was cleaned up; make another one");
    }
    const auto [entry, added] = entries_.try_emplace(key);
    if (!added) {
      Touch(entry->second);
      return entry->second.server;
    }
    makers_.insert(self);
  }
  // A factory that throws is one that failed.
  bool returned = false;
  std::shared_ptr<Server> server;
  const auto finish = [&] {
    absl::MutexLockMaybe lock(&mutex_);
    makers_.erase(self);
    const auto entry = entries_.find(key);
    if (server == nullptr || closed_) {
      entries_.erase(entry);
    } else {
      entry->second.server = server;
      Touch(entry->second);
      changed_ = true;
    }
    return closed_;
  };
  const absl::Cleanup on_throw = [&] {
    if (!returned) (void)finish();
  };
  absl::StatusOr<std::unique_ptr<Server>> result = factory();
  returned = true;
  if (result.ok() && *result == nullptr) {
    result = absl::InvalidArgumentError(
        "the factory of a server collection returned no server");
  }
  const absl::Status made = result.status();
  if (made.ok()) server = Lease(*std::move(result), on_stop_failure_);
  if (finish() && server != nullptr) {
    return MakeError(reason::kCollectionClosed,
                     "the server collection was cleaned up while the server "
                     "was made; make another one");
  }
  if (!made.ok()) return made;
  return server;
}

template <typename Key, typename Server>
absl::Status AbstractServerCollection<Key, Server>::Delete(const Key& key) {
  std::shared_ptr<Server> server;
  {
    absl::MutexLockMaybe lock(&mutex_);
    const auto entry = entries_.find(key);
    // One that is being made comes after this.
    if (entry == entries_.end() || entry->second.server == nullptr) {
      return absl::OkStatus();
    }
    server = TakeOut(entry->second);
    entries_.erase(entry);
  }
  return Release(std::move(server));
}

template <typename Key, typename Server>
void AbstractServerCollection<Key, Server>::ForEach(
    absl::FunctionRef<void(const Key&, Server&)> visit) {
  std::vector<std::pair<Key, std::shared_ptr<Server>>> servers;
  {
    absl::MutexLockMaybe lock(&mutex_);
    for (const auto& [key, entry] : entries_) {
      if (entry.server != nullptr) servers.emplace_back(key, entry.server);
    }
  }
  for (const auto& [key, server] : servers) visit(key, *server);
}

template <typename Key, typename Server>
absl::Status AbstractServerCollection<Key, Server>::Clear() {
  std::vector<std::shared_ptr<Server>> servers;
  {
    absl::MutexLockMaybe lock(&mutex_);
    for (auto& [key, entry] : entries_) {
      if (entry.server != nullptr) servers.push_back(TakeOut(entry));
    }
    EraseTakenOut();
  }
  absl::Status first;
  for (std::shared_ptr<Server>& server : servers) {
    const absl::Status status = Release(std::move(server));
    if (first.ok()) {
      first = status;
    } else {
      Report(status);
    }
  }
  return first;
}

template <typename Key, typename Server>
size_t AbstractServerCollection<Key, Server>::CheckIdleServers() {
  std::vector<std::shared_ptr<Server>> idle;
  {
    absl::MutexLockMaybe lock(&mutex_);
    const absl::Time now = environment_.TimeNow();
    for (auto& [key, entry] : entries_) {
      if (entry.server == nullptr) continue;
      entry.server->set_next_cleaning_time(Due(entry));
      if (Due(entry) > now) continue;
      if (entry.server.use_count() > 1) {
        Touch(entry);  // In use is not idle.
      } else {
        idle.push_back(TakeOut(entry));
      }
    }
    EraseTakenOut();
    changed_ = true;
  }
  for (std::shared_ptr<Server>& server : idle) {
    Report(Release(std::move(server)));
  }
  return idle.size();
}

template <typename Key, typename Server>
absl::Status AbstractServerCollection<Key, Server>::StartCleaner() {
  absl::MutexLockMaybe lock(&mutex_);
  if (closed_) {
    return MakeError(reason::kCollectionClosed,
                     "the server collection was cleaned up; make another one");
  }
  if (cleaner_ != nullptr) return absl::OkStatus();
  WARD_ASSIGN_OR_RETURN(cleaner_,
                        environment_.StartThread([this] { RunCleaner(); }));
  return absl::OkStatus();
}

template <typename Key, typename Server>
void AbstractServerCollection<Key, Server>::RunCleaner() {
  while (true) {
    {
      absl::MutexLockMaybe lock(&mutex_);
      const auto woken = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
        return closed_ || changed_;
      };
      mutex_.AwaitWithTimeout(absl::Condition(&woken),
                              NextTime() - environment_.TimeNow());
      if (closed_) return;
      changed_ = false;
      if (NextTime() > environment_.TimeNow()) continue;
    }
    (void)CheckIdleServers();
  }
}

template <typename Key, typename Server>
absl::Status AbstractServerCollection<Key, Server>::Cleanup() {
  std::unique_ptr<Thread> cleaner;
  {
    absl::MutexLockMaybe lock(&mutex_);
    closed_ = true;
    cleaner = std::move(cleaner_);
  }
  cleaner.reset();  // Joins it.
  absl::Status status = Clear();
  // A factory under way finds its collection closed; but for one that has
  // called this, it is waited for.
  const std::thread::id self = std::this_thread::get_id();
  absl::MutexLockMaybe lock(&mutex_);
  const auto none = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return makers_.size() == makers_.count(self);
  };
  mutex_.Await(absl::Condition(&none));
  return status;
}

}  // namespace ward

#endif  // WARD_SERVER_ABSTRACT_SERVER_COLLECTION_H_

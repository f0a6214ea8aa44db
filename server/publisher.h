// Events, to whoever has subscribed: a stream whose handler waits for them.
//
//   class Doors : public ward::AbstractServer {
//    public:
//     Doors() { Define(kWatch, &Doors::Watch); }
//
//    private:
//     absl::Status Watch(const ward::CallContext& context,
//                        ward::StreamWriter<Door>& doors) {
//       return opened_.Serve(context, doors);
//     }
//     void Opens(const Door& door) { opened_.Publish(door); }   // Any thread.
//
//     ward::Publisher<Door> opened_;
//   };
//
// Each subscriber has a queue of its own, and is written to by the thread that
// serves it: one that does not read holds up nobody, unless OnFull says so.
//
// Misuse:
// - What was published before somebody subscribed does not come. A client that
//   needs to know how things stand asks for that after its subscription.
// - More subscribers than ServerOptions::max_clients, 64 by default: each has a
//   place, and the others, and all other clients, wait for one.

#ifndef WARD_SERVER_PUBLISHER_H_
#define WARD_SERVER_PUBLISHER_H_

#include <algorithm>
#include <cstddef>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"
#include "ward/server/call_context.h"
#include "ward/server/method.h"
#include "ward/server/stream.h"

namespace ward {

// What becomes of an event for a subscriber whose queue is full.
enum class OnFull {
  kWait,  // Publish waits until there is room, or that one has left. In a
          // handler, it waits only until the handler's call is cancelled
          // (CallContext::cancelled()): then this is kCut.
  kDrop,  // The oldest in the queue is dropped for it.
  kCut,   // Its stream ends with kSubscriberTooSlow, once it reads that far.
          // ServerOptions::idle_timeout is for one that reads no more at all.
};

// For each subscriber's queue.
struct PublisherOptions {
  // How many events wait for a subscriber, beside what its socket holds (some
  // 200 KiB) and those that its thread has taken to write; at least 1.
  size_t capacity = 100;
  OnFull on_full = OnFull::kCut;
};

// Thread-safe. Its server's, and not to be destroyed while it serves.
template <typename Element>
class Publisher {
 public:
  using Event = typename internal::ValuesOf<Element>::Value;

  explicit Publisher(PublisherOptions options = {}) : options_(options) {
    options_.capacity = std::max(options_.capacity, size_t{1});
  }
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  // Writes what is published from now on, until End() (then OK), until the call
  // is cancelled (kServerStopping, or CancelledError), or cannot be written to.
  // For a handler, whose result this is.
  absl::Status Serve(const CallContext& context, StreamWriter<Element>& out) {
    const auto subscriber = std::make_shared<Subscriber>();
    Join(subscriber);
    absl::Status status = Forward(context, *subscriber, out);
    Leave(subscriber);
    return status;
  }

  // To all who have subscribed; in the same order, if this is called on many
  // threads. One copy is made of `event`, whoever gets it: nobody, if another
  // Publish waits (kWait), and the call of the handler that calls this is
  // cancelled before that one is done.
  void Publish(Event event) ABSL_LOCKS_EXCLUDED(mutex_) {
    const auto shared = std::make_shared<const Event>(std::move(event));
    std::vector<std::shared_ptr<Subscriber>> subscribers;
    {
      absl::MutexLockMaybe lock(&mutex_);
      const auto is_its_turn = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
        return !is_publishing_;
      };
      if (!Await(mutex_, absl::Condition(&is_its_turn))) return;
      is_publishing_ = true;
      subscribers = subscribers_;
    }
    const absl::Cleanup next = [this] {
      absl::MutexLockMaybe lock(&mutex_);
      is_publishing_ = false;
    };
    for (const auto& subscriber : subscribers) Add(*subscriber, shared);
  }

  // Ends all streams, once all has been written that was published; later ones
  // at once. Waits for nobody: what a Publish waits with (kWait) meanwhile does
  // not come to those that have no room for it.
  void End() ABSL_LOCKS_EXCLUDED(mutex_) {
    std::vector<std::shared_ptr<Subscriber>> subscribers;
    {
      absl::MutexLockMaybe lock(&mutex_);
      has_ended_ = true;
      subscribers = subscribers_;
    }
    for (const auto& subscriber : subscribers) {
      absl::MutexLockMaybe lock(&subscriber->mutex);
      subscriber->has_ended = true;
    }
  }

  // How many there are.
  size_t subscribers() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLockMaybe lock(&mutex_);
    return subscribers_.size();
  }

 private:
  struct Subscriber {
    bool HasNews() const ABSL_SHARED_LOCKS_REQUIRED(mutex) {
      return !events.empty() || has_ended || is_too_slow;
    }

    absl::Mutex mutex;
    std::deque<std::shared_ptr<const Event>> events ABSL_GUARDED_BY(mutex);
    // No more comes; of kCut; its handler is about to return.
    bool has_ended ABSL_GUARDED_BY(mutex) = false;
    bool is_too_slow ABSL_GUARDED_BY(mutex) = false;
    bool has_left ABSL_GUARDED_BY(mutex) = false;
  };

  void Join(const std::shared_ptr<Subscriber>& subscriber) {
    absl::MutexLockMaybe lock(&mutex_);
    subscribers_.push_back(subscriber);
    absl::MutexLockMaybe its_lock(&subscriber->mutex);
    subscriber->has_ended = has_ended_;
  }

  void Leave(const std::shared_ptr<Subscriber>& subscriber) {
    {
      absl::MutexLockMaybe lock(&subscriber->mutex);
      subscriber->has_left = true;
    }
    absl::MutexLockMaybe lock(&mutex_);
    subscribers_.erase(
        std::find(subscribers_.begin(), subscribers_.end(), subscriber));
  }

  // As absl::Mutex::Await; in a handler, false if its call is cancelled before.
  static bool Await(absl::Mutex& mutex, const absl::Condition& condition)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const CallContext* const context = CallContext::Current();
    if (context != nullptr) return context->Await(mutex, condition);
    mutex.Await(condition);
    return true;
  }

  void Add(Subscriber& subscriber, const std::shared_ptr<const Event>& event) {
    absl::MutexLockMaybe lock(&subscriber.mutex);
    const auto has_room = [&]() ABSL_SHARED_LOCKS_REQUIRED(subscriber.mutex) {
      return subscriber.events.size() < options_.capacity ||
             subscriber.has_left || subscriber.has_ended ||
             subscriber.is_too_slow;
    };
    if (!has_room() && options_.on_full == OnFull::kDrop) {
      subscriber.events.pop_front();
    } else if (!has_room() &&
               (options_.on_full == OnFull::kCut ||
                !Await(subscriber.mutex, absl::Condition(&has_room)))) {
      subscriber.is_too_slow = true;
    }
    if (!subscriber.has_left && !subscriber.has_ended &&
        !subscriber.is_too_slow) {
      subscriber.events.push_back(event);
    }
  }

  static absl::Status Stopping() {
    return MakeError(reason::kServerStopping,
                     "the server stops, and so do its events");
  }

  absl::Status Forward(const CallContext& context, Subscriber& subscriber,
                       StreamWriter<Element>& out) {
    while (true) {
      std::deque<std::shared_ptr<const Event>> events;
      {
        absl::MutexLockMaybe lock(&subscriber.mutex);
        const absl::Condition has_news(&subscriber, &Subscriber::HasNews);
        if (!context.Await(subscriber.mutex, has_news)) {
          return context.stopping()
                     ? Stopping()
                     : absl::CancelledError("the subscriber has left");
        }
        if (subscriber.is_too_slow) {
          return MakeError(
              reason::kSubscriberTooSlow,
              absl::StrCat("over ", options_.capacity,
                           " events wait to be read (PublisherOptions)"));
        }
        if (subscriber.events.empty()) return absl::OkStatus();
        events.swap(subscriber.events);
      }
      for (const auto& event : events) WARD_RETURN_IF_ERROR(out.Write(*event));
      // However fast they come.
      if (context.stopping()) return Stopping();
    }
  }

  PublisherOptions options_;
  // MutexLockMaybe locks by a pointer in each Abseil without a warning to those
  // who include this: MutexLock takes a reference instead since 2025.
  mutable absl::Mutex mutex_;
  // A Publish has its turn. None waits for that in a lock: it could not give
  // up.
  bool is_publishing_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::shared_ptr<Subscriber>> subscribers_ ABSL_GUARDED_BY(mutex_);
  bool has_ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace ward

#endif  // WARD_SERVER_PUBLISHER_H_

// What happens before what in a simulated run, as C++ has it ([intro.races]):
// told to who checks by it whether accesses to memory could come at the same
// time, which is //testing/accesses where a test has that.
//
// Each call is by the simulated thread that it is about. What it does without a
// listener is a branch.

#ifndef WARD_TESTING_SIMULATOR_ORDER_H_
#define WARD_TESTING_SIMULATOR_ORDER_H_

#include "ward/testing/simulator/run_listener.h"

namespace ward::testing {

class Scheduler;

class Order {
 public:
  enum class Lock { kExclusive, kShared };

  class Listener {
   public:
    virtual ~Listener() = default;

    virtual void RunBegins(Scheduler& scheduler) = 0;
    virtual void RunEnds() = 0;
    virtual void ThreadBegins(int thread, int group) = 0;
    virtual void ThreadEnds() = 0;

    virtual void Acquire(const void* object) = 0;
    virtual void Release(const void* object) = 0;
    virtual void Locked(const void* object, Lock lock) = 0;
    virtual Lock Unlocked(const void* object) = 0;

    virtual void Uses(const void* object) = 0;

    // Accesses are not looked at until Resume.
    virtual void Pause() = 0;
    virtual void Resume() = 0;
  };

  // One, for as long as the process lives; before any simulation.
  static void SetListener(Listener& listener) { listener_ = &listener; }
  static Listener* listener() { return listener_; }

  // Of this `shows` is told, too, who shows the run to a user; null for nobody.
  static void RunBegins(Scheduler& scheduler, RunListener* shows) {
    shows_ = shows;
    if (listener_ != nullptr) listener_->RunBegins(scheduler);
  }
  static void RunEnds() {
    shows_ = nullptr;
    if (listener_ != nullptr) listener_->RunEnds();
  }
  // The thread goes on for the first time, and does not any more.
  static void ThreadBegins(int thread, int group) {
    if (listener_ != nullptr) listener_->ThreadBegins(thread, group);
    if (shows_ != nullptr) shows_->GoesOn(thread);
  }
  static void ThreadEnds(int thread) {
    if (listener_ != nullptr) listener_->ThreadEnds();
    if (shows_ != nullptr) shows_->Ends(thread);
  }

  // The thread has seen what others had done before they released it. An object
  // is an address; what is there does not matter.
  static void Acquire(const void* object) {
    if (listener_ != nullptr) listener_->Acquire(object);
  }
  static void Release(const void* object) {
    if (listener_ != nullptr) listener_->Release(object);
  }

  // The thread does something with an object that lies in the program's memory,
  // such as to lock it or to signal it: that must be there. Told before
  // Release, and of a lock by Locked and Unlocked, too.
  static void Uses(const void* object) {
    if (listener_ != nullptr) listener_->Uses(object);
  }

  // As Acquire and Release, of a lock. Those who share it do not come after one
  // another.
  static void Locked(const void* object, Lock lock = Lock::kExclusive) {
    if (listener_ != nullptr) listener_->Locked(object, lock);
    if (shows_ != nullptr) shows_->IsLocked(object, lock == Lock::kShared);
  }
  // Returns how it was locked, if that is known.
  static Lock Unlocked(const void* object) {
    if (shows_ != nullptr) shows_->IsUnlocked(object);
    return listener_ == nullptr ? Lock::kExclusive
                                : listener_->Unlocked(object);
  }

  // The thread begins what others then wait for, as a static variable's
  // initialisation, and ends it: to who shows a run that is a lock.
  static void Begun(const void* object) {
    if (shows_ != nullptr) shows_->IsLocked(object, /*is_shared=*/false);
  }
  static void Ended(const void* object) {
    if (shows_ != nullptr) shows_->IsUnlocked(object);
  }

  // While one exists, this thread's accesses are not looked at: it does
  // something for another one, or what it is ordered by cannot be told.
  class Unseen {
   public:
    Unseen() {
      if (listener_ != nullptr) listener_->Pause();
    }
    Unseen(const Unseen&) = delete;
    Unseen& operator=(const Unseen&) = delete;
    ~Unseen() {
      if (listener_ != nullptr) listener_->Resume();
    }
  };

 private:
  static inline Listener* listener_ = nullptr;
  static inline RunListener* shows_ = nullptr;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_ORDER_H_

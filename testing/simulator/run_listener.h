// Told what happens in a run, when it happens: for who shows it to a user.
//
// Each call is by the thread that runs, with NoSchedulingPoints, and must not
// change the run's course. Threads have their numbers (Scheduler::Start),
// groups are processes. What is done, `doing`, lives for ever; an object is an
// address, or null. Locks Order tells, and that threads go on
// for the first time and end.

#ifndef WARD_TESTING_SIMULATOR_RUN_LISTENER_H_
#define WARD_TESTING_SIMULATOR_RUN_LISTENER_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

class RunListener {
 public:
  virtual ~RunListener() = default;

  // A thread was started; and has ended, or was killed with its group.
  virtual void Starts(int thread, int group, std::string_view name) = 0;
  virtual void Ends(int thread) = 0;
  virtual void IsKilled(int thread) = 0;

  // It has come to a scheduling point, before or `after` that; or begins to
  // wait, which ends in time whatever others do if that `is_timed`. The object
  // of a wait is null if it is not one alone.
  virtual void Arrives(int thread, std::string_view doing, const void* object,
                       bool after) = 0;
  virtual void Waits(int thread, std::string_view doing, const void* object,
                     bool is_timed) = 0;
  // What it waits for next is another one's end.
  virtual void Joins(int thread, int other) = 0;
  // What it waits for outside of the simulation, in words, and which
  // descriptors these are, when the run is stuck.
  virtual void Awaits(int thread, std::string_view what,
                      absl::Span<const int> descriptors) = 0;
  // It has opened a descriptor.
  virtual void Opens(int thread, int descriptor) = 0;
  // It goes on, and another one, or none, did before.
  virtual void GoesOn(int thread) = 0;

  // The thread that runs has a lock, and has given it back.
  virtual void IsLocked(const void* object, bool is_shared) = 0;
  virtual void IsUnlocked(const void* object) = 0;

  // Choice `number` of the run, from 0 on; in words.
  virtual void Chooses(uint32_t number, const Choice& choice, size_t option,
                       std::string_view words) = 0;

  // It is so long after the run has begun.
  virtual void TimePasses(absl::Duration since_begin) = 0;

  // The program did something wrong, such as a data race, and goes on; with
  // places, see report/places.h. `object` is a lock that it is about, or null.
  virtual void IsAtFault(std::string_view what, const void* object) = 0;

  // The run cannot go on: it ends here.
  virtual void IsStuck(std::string_view why) = 0;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_RUN_LISTENER_H_

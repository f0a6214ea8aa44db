// What the functions have in common that stand in front of the C library's.

#ifndef WARD_TESTING_INTERCEPTION_INTERCEPTION_H_
#define WARD_TESTING_INTERCEPTION_INTERCEPTION_H_

#include <sys/types.h>
#include <time.h>

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

// The scheduler of the calling thread. Null where the function is to do what it
// always does: on threads that are not simulated, and for the simulator itself.
Scheduler* Intercepting();

// A point in time of any of the clocks: they are one in a simulation.
bool IsValid(const timespec& time);
absl::Time DeadlineOf(const timespec& time);
// A length of time, as a system call takes it, or null for no limit.
bool IsValidLength(const timespec* time);

// All descriptors, as one object of the schedule, of which each connection is a
// part: what is read or written is of one of these, and what opens, closes or
// waits for several of them all. For Order it is one, with locks of files, and
// signals: who takes any of it comes after all that others had given until
// then.
extern const char kDescriptors;

// Sets errno, and returns -1 as system calls do.
int Failed(int error);

// What an object is called in reports. Must live for ever.
struct Names {
  const char* taking;
  const char* waiting;
  const char* giving;
  // What taking it is to others that take it.
  Use use = Use::kWrite;
  // Of what processes may share: whether a real child may give it, where it is
  // taken, and whether it is not taken any more.
  bool (*is_elsewhere)(const Scheduler& scheduler,
                       const void* object) = nullptr;
  bool (*is_free)(const void* object) = nullptr;
};

// Scheduler::WaitAt, as system calls say it: 0, ETIMEDOUT or EINTR.
int WaitToBeWoken(Scheduler& scheduler, const void* object, const char* waiting,
                  absl::Time deadline,
                  int Interruptions::*interruption = nullptr,
                  uint32_t bits = Scheduler::kAnyBit);

// Takes a lock, or something like one, in the schedule: with `try_to_take`, as
// often as somebody may have given it back. Returns what that said last unless
// it was `busy`; ETIMEDOUT when `deadline` has come; EINTR when a handler has
// run of a signal that counts among `interruption`.
int TakeInSchedule(Scheduler& scheduler, const void* object, const Names& names,
                   absl::FunctionRef<int()> try_to_take, int busy,
                   absl::Time deadline = absl::InfiniteFuture(),
                   int Interruptions::*interruption = nullptr);

// The same with a limit, which must be valid if it has to be waited for.
int TakeInSchedule(Scheduler& scheduler, const void* object, const Names& names,
                   absl::FunctionRef<int()> try_to_take, int busy,
                   const timespec& limit,
                   int Interruptions::*interruption = nullptr);

// Tells Order of a lock, unless there was an error; returns that.
int Locked(const void* object, int error,
           Order::Lock lock = Order::Lock::kExclusive);

// Where the calling thread is, on a line of its own in what Scheduler::Fault is
// told.
std::string StackHere();

// What is wrong with giving back a lock that `owner` has, as gettid(2) has it,
// or 0: nobody, and not the thread that runs. `what` is "a mutex", `comes_to`
// what becomes of that.
void FailUnlock(Scheduler& scheduler, const void* object, const char* what,
                pid_t owner, const char* comes_to);

// Has those go on that wait for it. After it was given back.
void GiveInSchedule(Scheduler& scheduler, const void* object,
                    const Names& names);

}  // namespace ward::testing

#endif  // WARD_TESTING_INTERCEPTION_INTERCEPTION_H_

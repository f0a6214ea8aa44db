// Threads in lock step, on a clock of their own.
//
// Each simulated thread has a stack and variables of its own (Runner), but only
// one of them runs at a time; at every scheduling point a Strategy says who
// goes on. Time stands still while a thread can run, and leaps to the next
// deadline, rounded up to a microsecond, when none can. So a run is determined
// by its choices: the same ones give the same run.
//
// Scheduling points are the calls of the simulated Environment, and what
// testing/interception puts itself in front of: Abseil's locks and waits, and
// those of pthreads, semaphores and futexes, on which the C++ library's stand.
// A thread that waits for something else stops the schedule; a watchdog then
// prints what all threads are doing, and aborts. A thread that was started
// otherwise has no part in it: if it calls any of this, the program is aborted.
//
// Threads come in groups, which stand for processes: a group can be killed,
// and then none of its threads ever runs again, wherever it was. Such a thread
// stays, asleep, until this process ends.

#ifndef WARD_TESTING_SIMULATOR_SCHEDULER_H_
#define WARD_TESTING_SIMULATOR_SCHEDULER_H_

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <typeindex>
#include <typeinfo>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/testing/simulator/coverage.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/run_listener.h"
#include "ward/testing/simulator/runner.h"
#include "ward/testing/simulator/split_mix.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

struct SchedulerOptions {
  // Let time pass at any step, to the next deadline, as on a machine that is
  // slow just then; and waits end early that may (WakesForNoReason).
  bool delays = false;

  // A sleep may end while threads could still run, as on a machine that is slow
  // just then, a few times in a run, and not after the time limit of somebody
  // who waits. With `delays`, all may. kCounted: it does not, but is a choice
  // none the less, so that others have the same numbers.
  enum class EarlySleeps { kNone, kCounted, kTried };
  EarlySleeps early_sleeps = EarlySleeps::kNone;

  // Atomic loads may return older values than the last: for who checks
  // accesses, see ward/testing/accesses/checker.h. Without, it fails the
  // program.
  bool weak_memory = false;

  // What is done with real descriptors may fail as it does in the kernel: see
  // ward/testing/interception/faults.h.
  bool faults = false;

  // A run that takes more steps than this is stuck in a loop. Of Advance, each
  // part between two deadlines may take as many. So no thread that could go on
  // is held back for as long: see Scheduler::Overdue.
  size_t max_steps = 1000000;

  // Told of each choice that was made; may be null.
  std::function<void(const Choice&, size_t option)> on_choice;

  // Told why the run cannot go on: a deadlock, a loop. Must not return.
  std::function<void(const std::string& why)> on_stuck;

  // Told what the program did wrong, such as a data race, which goes on.
  // Without it, that ends the process.
  std::function<void(const std::string& what)> on_fault;
  // The descriptors that were open when the run began: something may come for
  // them from outside of it. Borrowed; null: for any.
  const std::set<int>* open_before = nullptr;
  // Borrowed; null, for nobody, costs a branch.
  RunListener* listener = nullptr;
  // The same.
  CoverageRecorder* coverage = nullptr;
};

// How many handlers of signals have interrupted what a thread waits for: of
// all, and of those whose sigaction(2) has no SA_RESTART.
struct Interruptions {
  int all = 0;
  int without_restart = 0;
};

// What a thread waits for that is not the simulation's, such as a descriptor.
// Asked when no thread can go on, and must not change anything.
class AwaitedOutside {
 public:
  // Whether it may come though none of them ever does.
  virtual bool MayCome() const = 0;
  // "descriptor 5 (a pipe's reading end)"; empty if there is nothing to say.
  virtual std::string Describe() const = 0;
  // Which descriptors these are, or were when the wait began.
  virtual std::vector<int> Descriptors() const = 0;

 protected:
  ~AwaitedOutside() = default;
};

class Scheduler {
 public:
  // The calling thread becomes the first one, "main", of group 1.
  Scheduler(Strategy& strategy, SchedulerOptions options);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // By the first thread. Threads that have not ended sleep for ever, and keep
  // what they use.
  ~Scheduler();

  // The scheduler that the calling thread belongs to, or null.
  static Scheduler* Current();

  // In a process that was forked: it has none of the other threads, and is not
  // simulated.
  static void LeaveInChild();

  absl::Time now() const { return now_; }

  // Of the thread that runs.
  int group() const;

  // The names of the threads of `group` that can still run.
  std::vector<std::string> LiveThreads(int group) const;
  size_t CountLiveThreads(int group) const;

  // Starts a thread of `group`; returns its number.
  int Start(std::string name, int group, absl::AnyInvocable<void()> body);

  // The same for pthread_create(3), whose attributes may be null. Stores its
  // handle before it runs. It must be joined, as pthread_join does, or
  // detached.
  int StartJoinable(int group, const pthread_attr_t* attributes,
                    pthread_t* handle, absl::AnyInvocable<void*()> body);
  // -1: `handle` is none of this scheduler's, or was joined or detached.
  int Joinable(pthread_t handle) const;
  // Of a Joinable one that has ended: what it returned; null if it was killed.
  void* TakeResult(int thread);
  void Detach(int thread);

  // Waits for the end of a thread, in the schedule; false if `deadline` came
  // first. One that was killed has ended: who joins it is of another group,
  // which has none of it.
  bool Join(int thread, absl::Time deadline = absl::InfiniteFuture());

  // A scheduling point. `doing` is for reports; it must live for ever. What
  // the caller does next it does with `object`; null if that is not known, or
  // not one. `whole` is the object that it is a part of, see Operation, or
  // null.
  void Point(std::string_view doing, const void* object = nullptr,
             Use use = Use::kWrite, const void* whole = nullptr);

  // The same, when something was done that others may see, such as unlocking:
  // for what the caller does next without a point before it, if there is any.
  // Searches pay less heed to it than to other points.
  void PointAfter(std::string_view done, const void* object = nullptr);

  // The same, in a loop that waits for others by asking again and again: the
  // caller comes after all of them. A hundred in a row let time pass.
  void Yield(std::string_view doing);

  // Waits until `ready`, which is asked again at every step, or `deadline`.
  // Returns what it said last.
  bool BlockUntil(std::string_view doing, absl::FunctionRef<bool()> ready,
                  absl::Time deadline);

  // The same for who waits for nothing but that time; see early_sleeps.
  bool Sleep(absl::FunctionRef<bool()> is_interrupted, absl::Time deadline);

  // The same for what may be decided outside of the simulation, as by another
  // process: when nothing else is left to do, the world is given time, unless
  // `awaited`, or of several threads each of theirs, says that it decides
  // nothing.
  bool AwaitWorld(std::string_view doing, absl::FunctionRef<bool()> ready,
                  absl::Time deadline, const AwaitedOutside* awaited = nullptr);

  // Waits until somebody wakes who waits at `address`, of whatever is there, as
  // futex(2) does, for one of `bits`; false if `deadline` came first, or a
  // handler of a signal that counts among `interruption`.
  bool WaitAt(const void* address, std::string_view doing,
              absl::Time deadline = absl::InfiniteFuture(),
              int Interruptions::*interruption = nullptr,
              uint32_t bits = kAnyBit);
  // Wakes at most `count` of those that wait there, for one of `bits`, as the
  // strategy chooses them; returns how many. No scheduling point.
  size_t WakeAt(const void* address,
                size_t count = std::numeric_limits<size_t>::max(),
                uint32_t bits = kAnyBit);
  static constexpr uint32_t kAnyBit = ~uint32_t{0};
  // Whether somebody waits there, by WaitAt, and says so by `doing`.
  bool IsWaitedFor(const void* address, std::string_view doing) const;

  // Whether what waits now goes on at once, for no reason, as POSIX allows for
  // conditions: a choice, with `delays`. A thread that then waits again waits.
  bool WakesForNoReason();

  // Somebody has waited for others until a time limit, which came only when
  // nobody could run.
  bool has_kept_limits() const { return has_limits_ && !options_.delays; }

  bool has_weak_memory() const { return options_.weak_memory; }

  // Lets the strategy choose among `options`; 0 if there is only one. Of
  // kFault: `errors` as in Choice.
  size_t Choose(ChoiceKind kind, size_t options,
                absl::Span<const int> errors = {});

  // For what asks the system for randomness: the same numbers in each run.
  uint64_t NextRandom();

  // Ends all threads of `group`. If the calling one is among them, it goes on
  // until LeaveIfKilled, which then does not return. With `exits` the process
  // ends by itself, which is what its threads are said to do.
  void Kill(int group, bool exits = false);
  void LeaveIfKilled();

  // Calls `at_time` when `time` has come, on the thread that runs then;
  // replaces an earlier one of the same group and number. InfiniteFuture()
  // takes it back.
  void SetTimer(int group, absl::Time time, std::function<void()> at_time,
                int number = 0);

  // Waits until no other thread can run at this time; with `or_yield`, or does
  // more than yield.
  void WaitUntilIdle(bool or_yield = false);

  // Told of the signals that a process sends to itself: true if it has taken
  // one, which is then no matter of threads.
  void SetSignalTaker(std::function<bool(int group, int signal)> taker) {
    signal_taker_ = std::move(taker);
  }

  // Asked when no thread can go on, before time passes or others act.
  // `is_last` looks once more, and says whether the run would end here: what
  // others have done until then counts. True: it has done something about that.
  using LastResort = std::function<bool(absl::FunctionRef<bool()> is_last)>;
  // `last_words` are those of others that wait, too, said of a run that is
  // stuck: lines, or none.
  void SetLastResort(LastResort act, std::function<std::string()> last_words) {
    last_resort_ = std::move(act);
    last_words_ = std::move(last_words);
  }

  // Moves the clock, and lets everyone act whose time comes meanwhile.
  void Advance(absl::Duration time);

  // How often another thread went on.
  uint64_t switches() const { return switches_; }
  size_t steps() const { return steps_; }

  // It is stuck because what was to come from outside did not, for 5 s; or as
  // there is no end of its steps.
  bool has_waited_in_vain() const { return has_waited_in_vain_; }
  bool has_looped() const { return steps_ - first_step_ > options_.max_steps; }

  // A line for each thread that can still run, and what it waits for, or did
  // last.
  std::string WhoWaits() const;

  // A thread, for reports, and what it did wrong: see SchedulerOptions. In
  // `what` there may be places, see report/places.h. `object` is a lock that it
  // is about, or null.
  std::string Describe(int thread) const;
  void Fault(const std::string& what, const void* object = nullptr);

  // How many threads will stay asleep for ever.
  size_t killed_threads() const;

  // --- for //testing/interception ---

  // See SchedulerOptions.
  const std::set<int>* open_before() const { return options_.open_before; }
  bool has_faults() const { return options_.faults; }

  // The thread that runs has opened it.
  void TellOpened(int descriptor) const;

  // What a family of functions keeps for the length of this run, by its type.
  template <typename T>
  T& Kept() {
    std::shared_ptr<void>& kept = kept_[typeid(T)];
    if (kept == nullptr) kept = std::make_shared<T>();
    return *static_cast<T*>(kept.get());
  }

  // The thread that runs, and one by its handle, or -1 if none has it that has
  // not ended.
  int thread() const;
  int Find(pthread_t handle) const;
  // The same by what gettid(2) says there, see Runner.
  int FindByNumber(pid_t number) const;
  // Whether it is that of the thread that runs.
  bool Runs(pid_t number) const;

  // See SetSignalTaker; of the thread that runs.
  bool TakesSignal(int signal) const {
    return signal_taker_ && signal_taker_(group(), signal);
  }
  // Which thread of this process takes it: the one that runs unless it blocks
  // it; -1 if all do.
  int ThreadForSignal(int signal) const;
  // Has another thread raise it when it next goes on, be it to wait again.
  void SendSignal(int thread, int signal);
  // What the thread that runs blocks, and those that it starts.
  void SetSignalMask(const sigset_t& mask);
  // The same until it next goes on, and not in the kernel yet.
  void SetWaitingMask(const sigset_t& mask);
  // Of the thread that runs, for as long as there is this scheduler.
  const Interruptions& interruptions() const;

  // absl's ThreadIdentity of the thread that runs. At its end, it may become
  // another one's.
  void SetIdentity(const void* identity);

  // absl's per-thread semaphore, by the thread's identity. False if none of
  // this scheduler's threads has it.
  bool PostSemaphore(const void* identity);

  // By a thread that no scheduler has: fails the program if one of theirs has
  // it.
  static void CheckForeignPost(const void* identity);
  bool WaitSemaphore(absl::Time deadline);

 private:
  struct Thread;

  // A switch to a kernel thread on another processor costs ten times as much;
  // those that are started meanwhile stay on this one, too. And a program that
  // asks how many there are finds one in each run.
  class OneProcessor {
   public:
    OneProcessor();
    OneProcessor(const OneProcessor&) = delete;
    OneProcessor& operator=(const OneProcessor&) = delete;
    ~OneProcessor();

   private:
    cpu_set_t found_;
  };

  // Joinable if its `handle` is asked for.
  int StartThread(std::string name, int group, absl::AnyInvocable<void*()> body,
                  const pthread_attr_t* attributes, pthread_t* handle);
  static void RunThread(void* argument);
  // By a thread when it is its turn again: sees off the one before, if that has
  // ended.
  void TakeTurn(Thread& thread);
  // Fails the program if the caller is not one of the threads.
  void CheckCaller() const;
  void Reschedule();
  // Somebody goes on; see Debugged.
  static void CountTurn();
  void TellArrival(const Thread& thread) const;
  // Raises what was sent to the thread that runs; false if nothing was.
  bool RaiseSignals();
  size_t Choose(const Choice& choice);
  // That the strategy, or who else decides, has chosen this; returns it.
  size_t Choose(const Choice& choice, size_t option);
  // What was chosen, in words.
  std::string Describe(const Choice& choice, size_t option) const;
  Thread* Next();
  bool ComesBefore(const Thread& a, const Thread& b) const;
  void FindCandidates();
  // The candidate that was held back for so long that others may have waited
  // for it all the time, by asking again and again; null if none was. It goes
  // on, whatever the strategy would choose; and the more often that happens,
  // the sooner.
  Thread* Overdue();
  // Counts the steps from here on, against max_steps and for Overdue.
  void CountSteps();
  Thread* ChooseCandidate(int yielded, int after);
  Operation NextOf(const Thread& thread);
  int NumberOf(const void* object);
  void RemoveTheDead();
  void AdvanceTo(absl::Time time);
  absl::Time NextDeadline() const;
  // See early_sleeps.
  bool MaySleepEndEarly() const;
  bool SomebodyHasADeadline() const;
  bool SomethingMayCome() const;
  // What each thread waits for outside, to the listener.
  void TellAwaited() const;
  bool CanRun(const Thread& thread) const;
  [[noreturn]] void Stuck(std::string_view why);

  const OneProcessor one_processor_;
  Strategy& strategy_;
  const SchedulerOptions options_;
  absl::Time now_;
  // All that there were, by their numbers, and those that can still run.
  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<Thread*> live_;
  Thread* running_ = nullptr;
  // Of the kernel thread that runs.
  sigset_t kernel_mask_{};
  // Has handed over for the last time.
  Thread* ending_ = nullptr;
  struct Timer {
    absl::Time time;
    std::function<void()> at_time;
  };
  // By group and number.
  absl::btree_map<std::pair<int, int>, Timer> timers_;
  absl::btree_map<std::type_index, std::shared_ptr<void>> kept_;
  std::function<bool(int group, int signal)> signal_taker_;
  LastResort last_resort_;
  std::function<std::string()> last_words_;
  // At this step, and their numbers.
  std::vector<Thread*> candidates_;
  std::vector<int> candidate_ids_;
  std::vector<Operation> candidate_operations_;
  Thread* longest_ready_ = nullptr;
  // Of WakeAt, which handlers of signals call, where nothing may be allocated.
  std::vector<Thread*> waiting_;
  std::vector<int> waiting_ids_;
  // By their addresses; if the strategy asks, or what is done is covered.
  const bool looks_ahead_;
  absl::flat_hash_map<const void*, int> objects_;
  SplitMix random_;
  uint64_t switches_ = 0;
  uint64_t waits_ = 0;
  size_t steps_ = 0;
  bool has_waited_in_vain_ = false;
  // The step from which on the most are counted.
  size_t first_step_ = 0;
  // Threads that sleep, or were killed while they did; and how many sleeps have
  // ended early.
  int sleepers_ = 0;
  int early_sleeps_ = 0;
  bool has_limits_ = false;
  // Who has just yielded, or -1; and how often that happened in a row.
  int yielded_ = -1;
  int yields_ = 0;
  // The one that runs is at a PointAfter.
  bool after_ = false;
  // For how many steps one may be held back.
  size_t patience_ = 0;
  // For a debugger that has asked.
  std::string decision_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_SCHEDULER_H_

#include "ward/testing/simulator/scheduler.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/internal/cycleclock.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/testing/report/places.h"
#include "ward/testing/simulator/coverage.h"
#include "ward/testing/simulator/debugged.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/run_listener.h"
#include "ward/testing/simulator/runner.h"
#include "ward/testing/simulator/strategy.h"
#include "ward/testing/simulator/thread_destructors.h"
#include "ward/testing/simulator/thread_exit.h"
#include "ward/testing/simulator/watchdog.h"

namespace ward::testing {
namespace {

// Not the epoch, which programs take for "no time".
const absl::Time kStart = absl::FromUnixSeconds(1'000'000'000);

// The clock moves by whole ticks, so that all that tell the time agree, down to
// gettimeofday(2), from which Abseil counts some time limits: a wait must not
// end before its time, or who waits again for the rest does so for ever.
constexpr absl::Duration kTick = absl::Microseconds(1);

// What the kernel has of a sigset_t; nobody sets the rest.
constexpr size_t kSizeOfMask = (NSIG - 1) / 8;

// How many yields in a row, with nothing else between, are taken for waiting
// until time passes.
constexpr int kMostYields = 100;

// For which part of the most steps a thread may be held back at first: longer
// than any is in runs of a usual length. And for how many steps at last, for
// each that could go on.
constexpr size_t kPartOfSteps = 8;
constexpr size_t kLeastPatience = 16;

// So few that who asks again and again, and sleeps in between, has many times
// left.
constexpr int kMostEarlySleeps = 3;

// How often in a row time leaps to a timer that wakes nobody.
constexpr int kMostLeaps = 1000;

absl::Duration RealTime() {
  timespec time{};
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time);
  return absl::DurationFromTimespec(time);
}

void ReallySleep(absl::Duration time) {
  const timespec moment = absl::ToTimespec(time);
  syscall(SYS_nanosleep, &moment, nullptr);
}

thread_local Scheduler* current_scheduler = nullptr;

// Of all simulated threads; asked by those that are not.
class Identities {
 public:
  static Identities& All() {
    static auto& all = *new Identities;
    return all;
  }
  void Add(const void* identity) {
    const std::lock_guard<std::mutex> lock(mutex_);
    identities_.insert(identity);
  }
  void Remove(const void* identity) {
    const std::lock_guard<std::mutex> lock(mutex_);
    identities_.erase(identity);
  }
  bool Contain(const void* identity) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return identities_.count(identity) > 0;
  }

 private:
  std::mutex mutex_;  // Not Abseil's, which calls this.
  std::set<const void*> identities_;
};

[[noreturn]] void FailForeignThread(std::string_view what) {
  std::cerr << "A thread that was there before the simulation " << what
            << ". The simulation cannot schedule it: start it in the test's "
               "body, or in the server.\n";
  Watchdog::PrintStacks();
  std::abort();
}

}  // namespace

struct Scheduler::Thread {
  enum class State { kReady, kBlocked, kEnded, kKilled };

  Thread(Scheduler& owner, int number, int of_group, std::string its_name)
      : scheduler(owner),
        id(number),
        group(of_group),
        name(std::move(its_name)) {}

  bool alive() const {
    return state == State::kReady || state == State::kBlocked;
  }

  bool has_ended() const { return state == State::kEnded; }

  Scheduler& scheduler;
  const int id;
  const int group;
  const std::string name;
  State state = State::kReady;

  // Goes on when no other can.
  bool idle = false;
  // Or when others do nothing but yield.
  bool outlasts_yields = false;
  // While it is blocked: for something outside of the simulation; and what that
  // is, if it is known.
  bool awaits_world = false;
  // Or for a time alone.
  bool sleeps = false;
  const AwaitedOutside* awaited = nullptr;
  bool joinable = false;

  // While it is blocked.
  const absl::FunctionRef<bool()>* ready = nullptr;
  absl::Time deadline = absl::InfiniteFuture();
  std::string_view doing = "starting";
  // What it does it with, and how. To begin is no matter of others.
  const void* object = nullptr;
  const void* whole = nullptr;
  Use use = Use::kNothing;
  // See CoverageRecorder; 0: not known.
  uint32_t place = 0;
  uintptr_t stack_end = 0;
  // Of those that it has been at.
  uint64_t points = 0;

  // At which step it last ran, and was last held back by a choice; 0: never.
  size_t ran = 0;
  size_t held = 0;
  // Since which step it could have gone on; 0: it did, or cannot.
  size_t ready_since = 0;

  std::unique_ptr<Runner> runner;
  void* result = nullptr;

  // absl's semaphore of this thread.
  int tokens = 0;
  // When it last began to wait for one until then.
  absl::Time was_due = absl::InfinitePast();
  const void* identity = nullptr;

  // Its last wait that may end for no reason did.
  bool woke_for_no_reason = false;

  // Where it waits, and since when, in the order of all waits; see WaitAt.
  const void* waits_at = nullptr;
  uint32_t wait_bits = 0;
  uint64_t wait = 0;

  sigset_t mask{};
  // Sent to it, and not raised.
  std::vector<int> signals;
  Interruptions interruptions;

  absl::AnyInvocable<void*()> body;
};

Scheduler::OneProcessor::OneProcessor() {
  sched_getaffinity(0, sizeof(found_), &found_);
  if (CPU_COUNT(&found_) == 1) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  sched_setaffinity(0, sizeof(one), &one);
}

Scheduler::OneProcessor::~OneProcessor() {
  if (CPU_COUNT(&found_) == 1) return;
  sched_setaffinity(0, sizeof(found_), &found_);
}

Scheduler::Scheduler(Strategy& strategy, SchedulerOptions options)
    : strategy_(strategy),
      options_(std::move(options)),
      now_(kStart),
      looks_ahead_(strategy.LooksAhead()) {
  // Not within a handler of a signal.
  if (looks_ahead_ || options_.coverage != nullptr) objects_.reserve(64);
  CountSteps();
  if (options_.weak_memory && Order::listener() == nullptr) {
    std::cerr << "Weak memory is simulated where accesses are checked: the "
                 "test's rule must have accesses = True (docs/testing.md).\n";
    std::abort();
  }
  // Abseil measures the processor's frequency when it is first asked for, by
  // sleeping: not in the schedule of the first run, whose course it would
  // change.
  static const double kFrequency = absl::base_internal::CycleClock::Frequency();
  (void)kFrequency;
  auto main = std::make_unique<Thread>(*this, 0, 1, "main");
  main->runner = Runner::ForCallingThread();
  pthread_sigmask(SIG_BLOCK, nullptr, &main->mask);
  kernel_mask_ = main->mask;
  if (options_.coverage != nullptr) {
    main->stack_end = options_.coverage->stack_end();
  }
  running_ = main.get();
  live_.push_back(running_);
  threads_.push_back(std::move(main));
  current_scheduler = this;
  debugged.decisions_before = debugged.decisions;
  if (options_.listener != nullptr) {
    const NoSchedulingPoints quiet;
    options_.listener->Starts(0, running_->group, running_->name);
  }
  Watchdog::Start();
  Order::RunBegins(*this, options_.listener);
}

Scheduler::~Scheduler() {
  Watchdog::Stop();
  Order::RunEnds();
  current_scheduler = nullptr;
  for (auto& thread : threads_) {
    if (thread->identity != nullptr) {
      Identities::All().Remove(thread->identity);
    }
    const bool stays = thread->id != 0 && !thread->has_ended();
    thread->runner.reset();
    // What is on its stack refers to this object, for ever.
    if (stays) (void)thread.release();
  }
  Runner::EndParkedThreads();
}

Scheduler* Scheduler::Current() { return current_scheduler; }

void Scheduler::LeaveInChild() {
  if (std::exchange(current_scheduler, nullptr) == nullptr) return;
  if (Order::listener() != nullptr) Order::listener()->ThreadEnds();
}

int Scheduler::group() const { return running_->group; }

std::vector<std::string> Scheduler::LiveThreads(int group) const {
  const NoSchedulingPoints quiet;
  std::vector<std::string> names;
  for (const Thread* thread : live_) {
    if (thread->group == group) {
      names.push_back(absl::StrCat(thread->name, " (", thread->doing, ")"));
    }
  }
  return names;
}

size_t Scheduler::CountLiveThreads(int group) const {
  return static_cast<size_t>(std::count_if(
      live_.begin(), live_.end(),
      [group](const Thread* thread) { return thread->group == group; }));
}

size_t Scheduler::killed_threads() const {
  const NoSchedulingPoints quiet;
  return static_cast<size_t>(
      std::count_if(threads_.begin(), threads_.end(), [](const auto& thread) {
        return thread->state == Thread::State::kKilled;
      }));
}

int Scheduler::Start(std::string name, int group,
                     absl::AnyInvocable<void()> body) {
  const NoSchedulingPoints quiet;
  return StartThread(
      std::move(name), group,
      [body = std::move(body)]() mutable -> void* {
        body();
        return nullptr;
      },
      nullptr, nullptr);
}

int Scheduler::StartJoinable(int group, const pthread_attr_t* attributes,
                             pthread_t* handle,
                             absl::AnyInvocable<void*()> body) {
  const NoSchedulingPoints quiet;
  return StartThread(absl::StrCat("thread ", threads_.size()), group,
                     std::move(body), attributes, handle);
}

int Scheduler::StartThread(std::string name, int group,
                           absl::AnyInvocable<void*()> body,
                           const pthread_attr_t* attributes,
                           pthread_t* handle) {
  threads_.push_back(std::make_unique<Thread>(
      *this, static_cast<int>(threads_.size()), group, std::move(name)));
  Thread& thread = *threads_.back();
  thread.body = std::move(body);
  thread.joinable = handle != nullptr;
  thread.ran = steps_;
  thread.mask = running_->mask;
  thread.runner = Runner::Create(attributes, &RunThread, &thread);
  if (thread.runner == nullptr) {
    Stuck(absl::StrCat("no thread could be started (error ", errno,
                       "); are there too many killed ones?"));
  }
  if (handle != nullptr) *handle = thread.runner->handle();
  live_.push_back(&thread);
  Order::Release(&thread);
  if (options_.listener != nullptr) {
    options_.listener->Starts(thread.id, group, thread.name);
  }
  Point("starting a thread", nullptr, Use::kNothing);
  return thread.id;
}

int Scheduler::Joinable(pthread_t handle) const {
  for (const auto& thread : threads_) {
    if (thread->joinable &&
        pthread_equal(thread->runner->handle(), handle) != 0) {
      return thread->id;
    }
  }
  return -1;
}

void* Scheduler::TakeResult(int thread) {
  const NoSchedulingPoints quiet;
  Thread& joined = *threads_[static_cast<size_t>(thread)];
  joined.joinable = false;
  if (joined.has_ended()) joined.runner.reset();
  return joined.result;
}

void Scheduler::Detach(int thread) {
  // Its end is awaited in any case.
  if (threads_[static_cast<size_t>(thread)]->has_ended()) {
    TakeResult(thread);
  } else {
    threads_[static_cast<size_t>(thread)]->joinable = false;
  }
}

void Scheduler::RunThread(void* argument) {
  Thread& thread = *static_cast<Thread*>(argument);
  Scheduler& scheduler = thread.scheduler;
  current_scheduler = &scheduler;
  ThreadDestructors::Begin();
  thread.stack_end = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  {
    const NoSchedulingPoints quiet;
    scheduler.TakeTurn(thread);
    Order::ThreadBegins(thread.id, thread.group);
    Order::Acquire(&thread);
    // For debuggers and top(1); 15 characters (pthread_setname_np(3)).
    if (!Runner::AreFibers()) {
      pthread_setname_np(pthread_self(), thread.name.substr(0, 15).c_str());
    }
    CountTurn();
  }
  thread.result = CallUntilExit([&] {
    void* const result = thread.body();
    thread.body = nullptr;
    return result;
  });
  ThreadDestructors::RunForObjects();
  for (int round = 0; round < ThreadDestructors::kRounds; ++round) {
    // Abseil's destructor makes it another thread's.
    scheduler.SetIdentity(nullptr);
    if (!ThreadDestructors::RunForKeys()) break;
  }
  const NoSchedulingPoints quiet;
  Order::Release(&thread);
  Order::ThreadEnds(thread.id);
  thread.state = Thread::State::kEnded;
  scheduler.RemoveTheDead();
  current_scheduler = nullptr;
  Thread* const next = scheduler.Next();
  scheduler.running_ = next;
  scheduler.ending_ = &thread;
  ++scheduler.switches_;
  thread.runner->LeaveTo(*next->runner);
}

void Scheduler::TakeTurn(Thread& thread) {
  if (Thread* const ended = std::exchange(ending_, nullptr)) {
    ended->runner->AwaitEnd();
    if (!ended->joinable) ended->runner.reset();
  }
  // One kernel thread has the masks of all fibers.
  if (Runner::AreFibers() &&
      memcmp(&kernel_mask_, &thread.mask, kSizeOfMask) != 0) {
    kernel_mask_ = thread.mask;
    pthread_sigmask(SIG_SETMASK, &kernel_mask_, nullptr);
  }
}

bool Scheduler::Join(int thread, absl::Time deadline) {
  const NoSchedulingPoints quiet;
  const Thread& joined = *threads_[static_cast<size_t>(thread)];
  running_->use = Use::kNothing;
  if (options_.listener != nullptr) {
    options_.listener->Joins(running_->id, thread);
  }
  if (!BlockUntil(
          "joining a thread", [&] { return !joined.alive(); }, deadline)) {
    return false;
  }
  Order::Acquire(&joined);
  return true;
}

void Scheduler::CheckCaller() const {
  if (current_scheduler == this) return;
  FailForeignThread(
      "calls a simulated server, or something else of a "
      "simulated Environment");
}

void Scheduler::Point(std::string_view doing, const void* object, Use use,
                      const void* whole) {
  const NoSchedulingPoints quiet;
  CheckCaller();
  running_->doing = doing;
  running_->object = object;
  running_->whole = whole;
  running_->use = use;
  running_->place = 0;
  const bool covers =
      options_.coverage != nullptr && object != nullptr && use != Use::kNothing;
  if (covers) {
    running_->place = options_.coverage->PlaceOf(__builtin_frame_address(0),
                                                 running_->stack_end);
  }
  TellArrival(*running_);
  Operation next;
  if (looks_ahead_ || covers) next = NextOf(*running_);
  if (looks_ahead_) strategy_.Arrives(running_->id, next);
  yields_ = 0;
  Reschedule();
  if (next.place != 0) options_.coverage->Add(running_->id, next);
  if (looks_ahead_) strategy_.GoesOn(running_->id, next);
  RaiseSignals();
}

void Scheduler::PointAfter(std::string_view done, const void* object) {
  after_ = true;
  Point(done, object, Use::kNothing);
}

void Scheduler::Yield(std::string_view doing) {
  const NoSchedulingPoints quiet;
  CheckCaller();
  running_->doing = doing;
  running_->object = nullptr;
  running_->whole = nullptr;
  running_->use = Use::kAnything;
  running_->place = 0;
  TellArrival(*running_);
  running_->held = steps_ + 1;
  yielded_ = running_->id;
  ++yields_;
  Reschedule();
  RaiseSignals();
}

bool Scheduler::BlockUntil(std::string_view doing,
                           absl::FunctionRef<bool()> ready,
                           absl::Time deadline) {
  const NoSchedulingPoints quiet;
  CheckCaller();
  LeaveIfKilled();
  Thread& self = *running_;
  yields_ = 0;
  if (deadline != absl::InfiniteFuture() && !self.sleeps) has_limits_ = true;
  if (options_.listener != nullptr) {
    // What is a part of all descriptors is one of them.
    const bool is_connection = self.awaits_world && self.whole != nullptr;
    options_.listener->Waits(self.id, doing,
                             is_connection ? self.object : self.waits_at,
                             deadline != absl::InfiniteFuture());
  }
  // A signal's handler does not end it.
  do {
    self.doing = doing;
    self.ready = &ready;
    self.deadline = deadline;
    self.state = Thread::State::kBlocked;
    Reschedule();
    self.deadline = absl::InfiniteFuture();
    self.ready = nullptr;
  } while (RaiseSignals() && !ready() && now_ < deadline);
  return ready();
}

bool Scheduler::Sleep(absl::FunctionRef<bool()> is_interrupted,
                      absl::Time deadline) {
  // Nobody sleeps twice, but a signal's handler may while it is interrupted.
  const bool before = std::exchange(running_->sleeps, true);
  ++sleepers_;
  const bool interrupted = BlockUntil("sleeping", is_interrupted, deadline);
  --sleepers_;
  running_->sleeps = before;
  return interrupted;
}

void Scheduler::Reschedule() {
  Thread& self = *running_;
  Thread* const next = Next();
  if (next != &self) {
    running_ = next;
    ++switches_;
    self.runner->SwitchTo(*next->runner);
    TakeTurn(self);
    if (options_.listener != nullptr) options_.listener->GoesOn(self.id);
  }
  CountTurn();
}

void Scheduler::TellArrival(const Thread& thread) const {
  if (options_.listener == nullptr) return;
  options_.listener->Arrives(thread.id, thread.doing, thread.object, after_);
}

void Scheduler::CountTurn() {
  debugged.turns = debugged.turns + 1;
  if (debugged.wants_turn() || debugged.wants_decision()) StopForDebugger();
}

bool Scheduler::CanRun(const Thread& thread) const {
  if (thread.state == Thread::State::kReady) return true;
  if (!thread.signals.empty()) return true;
  if (thread.idle) {
    if (thread.outlasts_yields && yields_ > kMostYields) return true;
    return std::none_of(
        live_.begin(), live_.end(),
        [this](const Thread* other) { return !other->idle && CanRun(*other); });
  }
  return now_ >= thread.deadline || (*thread.ready)();
}

// The one that runs comes first: option 0 is to go on. Then the one that has
// not run for the longest time. Whoever was held back comes after all others,
// from then on: a single deviation lets them do as much as they can without
// that thread (as PctStrategy's drops do).
bool Scheduler::ComesBefore(const Thread& a, const Thread& b) const {
  if (a.held != b.held) return a.held < b.held;
  if (&a == running_ || &b == running_) return &a == running_;
  if (a.ran != b.ran) return a.ran < b.ran;
  return a.id < b.id;
}

void Scheduler::FindCandidates() {
  candidates_.clear();
  longest_ready_ = nullptr;
  // A few, and mostly in order: nothing sorts them faster.
  for (Thread* const thread : live_) {
    if (!CanRun(*thread)) {
      thread->ready_since = 0;
      continue;
    }
    if (thread->ready_since == 0) thread->ready_since = steps_;
    if (longest_ready_ == nullptr ||
        thread->ready_since < longest_ready_->ready_since) {
      longest_ready_ = thread;
    }
    size_t place = candidates_.size();
    candidates_.push_back(thread);
    for (; place > 0 && ComesBefore(*thread, *candidates_[place - 1]);
         --place) {
      candidates_[place] = candidates_[place - 1];
    }
    candidates_[place] = thread;
  }
}

Scheduler::Thread* Scheduler::Next() {
  Watchdog::Feed();
  if (++steps_ - first_step_ > options_.max_steps) {
    if (last_resort_) last_resort_(/*is_last=*/[] { return true; });
    Stuck(absl::StrCat(
        "no end after ", options_.max_steps,
        " steps: a loop that waits for nothing? One that waits for another "
        "thread should sleep or yield: std::this_thread::yield().",
        NextDeadline() == absl::InfiniteFuture()
            ? ""
            : " Time stands still while a thread can run: until the loop "
              "sleeps, none that sleeps wakes up."));
  }
  ++running_->points;
  const int yielded = std::exchange(yielded_, -1);
  // A timer may kill it meanwhile.
  const auto after = [this, is_after = std::exchange(after_, false)] {
    return is_after && running_->alive() ? running_->id : -1;
  };
  bool may_delay = options_.delays || options_.early_sleeps !=
                                          SchedulerOptions::EarlySleeps::kNone;
  absl::Duration moment = absl::Microseconds(100);
  absl::Duration idle_since = absl::ZeroDuration();
  int leaps = 0;
  while (true) {
    FindCandidates();
    if (candidates_.empty()) {
      const absl::Time next_deadline = NextDeadline();
      const auto is_last = [this, next_deadline] {
        if (next_deadline != absl::InfiniteFuture()) return false;
        FindCandidates();
        return candidates_.empty();
      };
      if (last_resort_ && (last_resort_(is_last) || !candidates_.empty())) {
        continue;
      }
      if (next_deadline == absl::InfiniteFuture()) {
        const bool hope = SomethingMayCome();
        if (idle_since == absl::ZeroDuration()) idle_since = RealTime();
        if (hope &&
            RealTime() - idle_since < absl::Seconds(Watchdog::Patience())) {
          Watchdog::Feed();
          ReallySleep(moment);
          moment = std::min(2 * moment, absl::Milliseconds(10));
          continue;
        }
        // Whoever could act may have done so meanwhile, and be gone.
        if (!hope) FindCandidates();
        if (!candidates_.empty()) continue;
        has_waited_in_vain_ = hope;
        Stuck(hope ? absl::StrCat("all threads wait, one of them for something "
                                  "outside of the simulation, and nothing came "
                                  "for ",
                                  Watchdog::Patience(), " s")
                   : "deadlock: all threads wait, and for no point in time (or "
                     "one waits for a thread that was there before the "
                     "simulation)");
      }
      // What another program may say first takes real time, even if nobody but
      // waits until it is worth asking again.
      if (Watchdog::ExpectsTheWorld()) {
        if (idle_since == absl::ZeroDuration()) idle_since = RealTime();
        if (RealTime() - idle_since < next_deadline - now_) {
          Watchdog::Feed();
          ReallySleep(moment);
          moment = std::min(2 * moment, absl::Milliseconds(10));
          continue;
        }
        idle_since = absl::ZeroDuration();
      }
      // A timer that nobody waits for may go off for ever.
      if (++leaps > kMostLeaps && !SomebodyHasADeadline()) {
        Stuck("deadlock: all threads wait, and no timer wakes one of them");
      }
      Watchdog::Feed();
      AdvanceTo(next_deadline);
      continue;
    }
    if (yields_ > kMostYields && NextDeadline() != absl::InfiniteFuture() &&
        std::none_of(candidates_.begin(), candidates_.end(),
                     [](const Thread* thread) { return thread->idle; })) {
      yields_ = 0;
      AdvanceTo(NextDeadline());
      continue;
    }
    if (may_delay && (options_.delays ? NextDeadline() != absl::InfiniteFuture()
                                      : MaySleepEndEarly())) {
      may_delay = false;
      const Choice choice{ChoiceKind::kDelay, 2, {}, -1, after(), running_->id,
                          running_->points};
      const bool is_tried =
          options_.delays ||
          options_.early_sleeps == SchedulerOptions::EarlySleeps::kTried;
      if ((is_tried ? Choose(choice) : Choose(choice, 0)) == 1) {
        ++early_sleeps_;
        AdvanceTo(NextDeadline());
        continue;
      }
    }
    Thread* next = Overdue();
    if (next == nullptr) next = ChooseCandidate(yielded, after());
    next->state = Thread::State::kReady;
    next->ran = steps_;
    next->ready_since = 0;
    return next;
  }
}

bool Scheduler::AwaitWorld(std::string_view doing,
                           absl::FunctionRef<bool()> ready, absl::Time deadline,
                           const AwaitedOutside* awaited) {
  const NoSchedulingPoints quiet;
  if (deadline != absl::InfiniteFuture()) has_limits_ = true;
  if (ready()) return true;
  Thread& self = *running_;
  // It may be in a signal's handler, which interrupts another wait.
  const bool awaits_before = std::exchange(self.awaits_world, true);
  const auto* const awaited_before = std::exchange(self.awaited, awaited);
  const bool is_ready = BlockUntil(doing, ready, deadline);
  self.awaits_world = awaits_before;
  self.awaited = awaited_before;
  return is_ready;
}

bool Scheduler::WaitAt(const void* address, std::string_view doing,
                       absl::Time deadline, int Interruptions::*interruption,
                       uint32_t bits) {
  const NoSchedulingPoints quiet;
  Thread& self = *running_;
  // If it is what it was at the point before, it is what is waited for.
  if (self.object != address) self.place = 0;
  self.object = address;
  self.whole = nullptr;
  self.use = Use::kWrite;
  self.waits_at = address;
  self.wait_bits = bits;
  self.wait = ++waits_;
  const Interruptions before = self.interruptions;
  BlockUntil(
      doing,
      [&] {
        return self.waits_at == nullptr ||
               (interruption != nullptr &&
                self.interruptions.*interruption != before.*interruption);
      },
      deadline);
  return std::exchange(self.waits_at, nullptr) == nullptr;
}

size_t Scheduler::WakeAt(const void* address, size_t count, uint32_t bits) {
  const NoSchedulingPoints quiet;
  waiting_.clear();
  for (Thread* thread : live_) {
    if (thread->waits_at == address && (thread->wait_bits & bits) != 0) {
      waiting_.push_back(thread);
    }
  }
  if (waiting_.empty()) return 0;
  std::sort(waiting_.begin(), waiting_.end(),
            [](const Thread* a, const Thread* b) { return a->wait < b->wait; });
  size_t woken = 0;
  for (; woken < count && !waiting_.empty(); ++woken) {
    size_t chosen = 0;
    if (count - woken < waiting_.size()) {
      waiting_ids_.clear();
      for (const Thread* thread : waiting_) waiting_ids_.push_back(thread->id);
      const Choice choice{
          ChoiceKind::kWaiter, waiting_ids_.size(), waiting_ids_, -1, -1,
          running_->id,        running_->points};
      chosen = Choose(choice);
    }
    waiting_[chosen]->waits_at = nullptr;
    waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(chosen));
  }
  return woken;
}

bool Scheduler::IsWaitedFor(const void* address, std::string_view doing) const {
  return std::any_of(live_.begin(), live_.end(), [&](const Thread* thread) {
    return thread->waits_at == address && thread->doing == doing;
  });
}

void Scheduler::CountSteps() {
  first_step_ = steps_;
  patience_ = options_.max_steps / kPartOfSteps;
}

Scheduler::Thread* Scheduler::Overdue() {
  if (steps_ - longest_ready_->ready_since <= patience_) return nullptr;
  patience_ = std::min(
      patience_, std::max(patience_ / 2, kLeastPatience * candidates_.size()));
  longest_ready_->held = 0;
  return longest_ready_;
}

Scheduler::Thread* Scheduler::ChooseCandidate(int yielded, int after) {
  if (candidates_.size() == 1) return candidates_.front();
  candidate_ids_.clear();
  for (const Thread* thread : candidates_) {
    candidate_ids_.push_back(thread->id);
  }
  Choice choice{
      ChoiceKind::kThread, candidates_.size(), candidate_ids_, yielded, after,
      running_->id,        running_->points};
  if (looks_ahead_) {
    candidate_operations_.clear();
    for (Thread* const thread : candidates_) {
      candidate_operations_.push_back(NextOf(*thread));
    }
    choice.next = candidate_operations_;
  }
  const size_t chosen = Choose(choice);
  for (size_t i = 0; i < chosen; ++i) candidates_[i]->held = steps_;
  return candidates_[chosen];
}

Operation Scheduler::NextOf(const Thread& thread) {
  if (thread.use == Use::kNothing) return {Use::kNothing, -1};
  if (thread.object == nullptr) return {};
  return {thread.use, NumberOf(thread.object), thread.place,
          thread.whole == nullptr ? -1 : NumberOf(thread.whole)};
}

int Scheduler::NumberOf(const void* object) {
  const auto number = static_cast<int>(objects_.size());
  return objects_.try_emplace(object, number).first->second;
}

bool Scheduler::WakesForNoReason() {
  bool& wakes = running_->woke_for_no_reason;
  wakes = options_.delays && !wakes && Choose(ChoiceKind::kWakeUp, 2) == 1;
  return wakes;
}

size_t Scheduler::Choose(ChoiceKind kind, size_t options,
                         absl::Span<const int> errors) {
  const NoSchedulingPoints quiet;
  if (options < 2) return 0;
  Choice choice{kind, options, {}, -1, -1, running_->id, running_->points};
  choice.errors = errors;
  const size_t option = Choose(choice);
  // Where the next one goes on, and not sooner, if it is who that is.
  if (debugged.wants_decision()) StopForDebugger();
  return option;
}

size_t Scheduler::Choose(const Choice& choice) {
  return Choose(choice, strategy_.Choose(choice));
}

size_t Scheduler::Choose(const Choice& choice, size_t option) {
  debugged.decisions = debugged.decisions + 1;
  if (debugged.wants_decision()) {
    decision_ = Describe(choice, option);
    debugged.text = decision_.c_str();
  }
  if (options_.listener != nullptr) {
    const uint64_t before = debugged.decisions_before + 1;
    options_.listener->Chooses(
        static_cast<uint32_t>(debugged.decisions - before), choice, option,
        Describe(choice, option));
  }
  if (options_.on_choice) options_.on_choice(choice, option);
  return option;
}

std::string Scheduler::Describe(const Choice& choice, size_t option) const {
  const auto describe = [this](int number) {
    const Thread& thread = *threads_[static_cast<size_t>(number)];
    return absl::StrCat("thread ", number, " (", thread.name, ", ",
                        thread.doing, ")");
  };
  switch (choice.kind) {
    case ChoiceKind::kThread:
    case ChoiceKind::kWaiter: {
      std::string text = absl::StrCat(
          describe(choice.threads[option]),
          choice.kind == ChoiceKind::kThread ? " goes on" : " is woken",
          ", and not ");
      constexpr size_t kFew = 3;
      size_t told = 0;
      for (size_t i = 0; i < choice.options && told < kFew; ++i) {
        if (i == option) continue;
        absl::StrAppend(&text, told++ > 0 ? ", " : "",
                        describe(choice.threads[i]));
      }
      const size_t others = choice.options - 1 - told;
      if (others > 0) absl::StrAppend(&text, " and ", others, " more");
      return text;
    }
    case ChoiceKind::kDelay:
      return option == 0 ? "no time passes" : "time passes";
    case ChoiceKind::kFault:
      return option == 0 ? "the call does not fail"
                         : absl::StrCat(
                               "the call fails (",
                               strerrorname_np(choice.errors[option - 1]), ")");
    case ChoiceKind::kDeath:
      return option == 0 ? "the process is not killed"
                         : "the process is killed";
    case ChoiceKind::kWakeUp:
      return option == 0 ? "the wait does not end for no reason"
                         : "the wait ends for no reason";
    case ChoiceKind::kLoad:
      return absl::StrCat(
          describe(choice.running), " reads ",
          option == 0 ? "the last value"
                      : absl::StrCat("an older value than the last, number ",
                                     option, " of ", choice.options - 1));
  }
  return "";
}

uint64_t Scheduler::NextRandom() { return random_(); }

absl::Time Scheduler::NextDeadline() const {
  absl::Time next = absl::InfiniteFuture();
  for (const Thread* thread : live_) {
    if (thread->state == Thread::State::kBlocked && thread->deadline > now_) {
      next = std::min(next, thread->deadline);
    }
  }
  for (const auto& [owner, timer] : timers_) next = std::min(next, timer.time);
  return next;
}

bool Scheduler::MaySleepEndEarly() const {
  // Another process has the time that a sleep is to give it, or none.
  if (sleepers_ == 0 || early_sleeps_ == kMostEarlySleeps ||
      Watchdog::ExpectsTheWorld()) {
    return false;
  }
  absl::Time first_end = absl::InfiniteFuture();
  absl::Time first_limit = absl::InfiniteFuture();
  for (const Thread* thread : live_) {
    if (thread->state != Thread::State::kBlocked || thread->deadline <= now_) {
      continue;
    }
    absl::Time& first = thread->sleeps ? first_end : first_limit;
    first = std::min(first, thread->deadline);
  }
  for (const auto& [owner, timer] : timers_) {
    first_limit = std::min(first_limit, timer.time);
  }
  return first_end + kTick < first_limit;
}

bool Scheduler::SomebodyHasADeadline() const {
  return std::any_of(live_.begin(), live_.end(), [](const Thread* thread) {
    return thread->state == Thread::State::kBlocked &&
           thread->deadline != absl::InfiniteFuture();
  });
}

bool Scheduler::SomethingMayCome() const {
  return std::any_of(live_.begin(), live_.end(), [](const Thread* thread) {
    return thread->state == Thread::State::kBlocked && thread->awaits_world &&
           (thread->awaited == nullptr || thread->awaited->MayCome());
  });
}

void Scheduler::TellAwaited() const {
  for (const Thread* thread : live_) {
    if (thread->awaited == nullptr) continue;
    const std::string what = thread->awaited->Describe();
    if (what.empty()) continue;
    options_.listener->Awaits(thread->id, what, thread->awaited->Descriptors());
  }
}

void Scheduler::TellOpened(int descriptor) const {
  if (options_.listener == nullptr) return;
  const NoSchedulingPoints quiet;
  options_.listener->Opens(running_->id, descriptor);
}

void Scheduler::AdvanceTo(absl::Time time) {
  now_ = std::max(now_, kStart + absl::Ceil(time - kStart, kTick));
  if (options_.listener != nullptr) {
    options_.listener->TimePasses(now_ - kStart);
  }
  while (true) {
    const auto due = std::find_if(
        timers_.begin(), timers_.end(),
        [&](const auto& entry) { return entry.second.time <= now_; });
    if (due == timers_.end()) return;
    const std::function<void()> at_time = std::move(due->second.at_time);
    timers_.erase(due);
    at_time();
  }
}

void Scheduler::WaitUntilIdle(bool or_yield) {
  const NoSchedulingPoints quiet;
  CheckCaller();
  LeaveIfKilled();
  Thread& self = *running_;
  do {
    self.idle = true;
    self.outlasts_yields = or_yield;
    self.doing = "waiting until the others wait";
    if (options_.listener != nullptr) {
      options_.listener->Waits(self.id, self.doing, nullptr,
                               /*is_timed=*/false);
    }
    self.state = Thread::State::kBlocked;
    Reschedule();
    self.idle = false;
  } while (RaiseSignals());
}

void Scheduler::Advance(absl::Duration time) {
  const NoSchedulingPoints quiet;
  const absl::Time end = now_ + time;
  // One deadline after the other: whoever is woken acts at its own time.
  WaitUntilIdle();
  while (NextDeadline() <= end) {
    CountSteps();
    AdvanceTo(NextDeadline());
    WaitUntilIdle();
  }
  AdvanceTo(end);
  WaitUntilIdle();
}

void Scheduler::SetTimer(int group, absl::Time time,
                         std::function<void()> at_time, int number) {
  const NoSchedulingPoints quiet;
  const std::pair<int, int> owner(group, number);
  timers_.erase(owner);
  if (time == absl::InfiniteFuture()) return;
  has_limits_ = true;
  timers_.emplace(owner, Timer{time, std::move(at_time)});
}

void Scheduler::Kill(int group, bool exits) {
  const NoSchedulingPoints quiet;
  timers_.erase(timers_.lower_bound({group, 0}),
                timers_.lower_bound({group + 1, 0}));
  for (Thread* thread : live_) {
    if (thread->group != group) continue;
    thread->state = Thread::State::kKilled;
    if (options_.listener == nullptr) continue;
    if (exits) {
      options_.listener->Ends(thread->id);
    } else {
      options_.listener->IsKilled(thread->id);
    }
  }
  RemoveTheDead();
}

void Scheduler::RemoveTheDead() {
  live_.erase(
      std::remove_if(live_.begin(), live_.end(),
                     [](const Thread* thread) { return !thread->alive(); }),
      live_.end());
}

void Scheduler::LeaveIfKilled() {
  const NoSchedulingPoints quiet;
  if (!running_->alive()) Reschedule();
}

// --- signals ---

int Scheduler::thread() const { return running_->id; }

int Scheduler::Find(pthread_t handle) const {
  for (const Thread* thread : live_) {
    if (pthread_equal(thread->runner->handle(), handle) != 0) {
      return thread->id;
    }
  }
  return -1;
}

int Scheduler::FindByNumber(pid_t number) const {
  for (const Thread* thread : live_) {
    if (thread->runner->number() == number) return thread->id;
  }
  return -1;
}

bool Scheduler::Runs(pid_t number) const {
  return running_->runner->number() == number;
}

int Scheduler::ThreadForSignal(int signal) const {
  const auto takes = [&](const Thread& thread) {
    return thread.group == running_->group &&
           sigismember(&thread.mask, signal) == 0;
  };
  if (running_->alive() && takes(*running_)) return running_->id;
  for (const Thread* thread : live_) {
    if (takes(*thread)) return thread->id;
  }
  return -1;
}

void Scheduler::SendSignal(int thread, int signal) {
  const NoSchedulingPoints quiet;
  Thread& receiver = *threads_[static_cast<size_t>(thread)];
  receiver.signals.push_back(signal);
  Order::Release(&receiver.signals);
}

void Scheduler::SetSignalMask(const sigset_t& mask) {
  running_->mask = kernel_mask_ = mask;
}

void Scheduler::SetWaitingMask(const sigset_t& mask) { running_->mask = mask; }

const Interruptions& Scheduler::interruptions() const {
  return running_->interruptions;
}

bool Scheduler::RaiseSignals() {
  Thread& self = *running_;
  if (self.signals.empty()) return false;
  const std::vector<int> signals = std::exchange(self.signals, {});
  Order::Acquire(&self.signals);
  for (const int signal : signals) {
    struct sigaction action;
    if (sigismember(&self.mask, signal) == 0 &&
        sigaction(signal, nullptr, &action) == 0 &&
        action.sa_handler != SIG_IGN && action.sa_handler != SIG_DFL) {
      ++self.interruptions.all;
      if ((action.sa_flags & SA_RESTART) == 0) {
        ++self.interruptions.without_restart;
      }
    }
    const NoSchedulingPoints::Suspended handlers_have_them;
    raise(signal);
  }
  return true;
}

std::string Scheduler::WhoWaits() const {
  const NoSchedulingPoints quiet;
  std::string text;
  for (const Thread* thread : live_) {
    absl::StrAppend(&text, "  thread ", thread->id, " of process ",
                    thread->group, ", ", thread->name, ": ", thread->doing);
    if (thread->state == Thread::State::kReady) {
      absl::StrAppend(&text, ", and does not wait");
    }
    const std::string awaited =
        thread->awaited == nullptr ? "" : thread->awaited->Describe();
    if (!awaited.empty()) absl::StrAppend(&text, ": ", awaited);
    if (thread->deadline != absl::InfiniteFuture()) {
      absl::StrAppend(&text, ", for ",
                      absl::FormatDuration(thread->deadline - now_));
    }
    absl::StrAppend(&text, " (its stack is that of thread ",
                    thread->runner->number(), ")\n");
  }
  return text;
}

std::string Scheduler::Describe(int thread) const {
  const Thread& described = *threads_[static_cast<size_t>(thread)];
  return absl::StrCat("thread ", thread, " of process ", described.group, ", ",
                      described.name);
}

void Scheduler::Fault(const std::string& what, const void* object) {
  const NoSchedulingPoints quiet;
  if (options_.listener != nullptr) {
    options_.listener->IsAtFault(what, object);
  }
  if (options_.on_fault) {
    options_.on_fault(what);
    return;
  }
  std::cerr << WithPlaces(what);
  std::abort();
}

void Scheduler::Stuck(std::string_view why) {
  const std::string text = absl::StrCat(
      why, "\n", WhoWaits(), last_words_ ? last_words_() : std::string());
  debugged.text = text.c_str();
  StopForDebugger();
  if (options_.listener != nullptr) {
    TellAwaited();
    options_.listener->IsStuck(why);
  }
  if (options_.on_stuck) options_.on_stuck(text);
  std::cerr << (options_.on_fault ? text : WithPlaces(text));
  Watchdog::PrintStacks();
  std::abort();
}

void Scheduler::SetIdentity(const void* identity) {
  if (running_->identity == identity) return;
  const NoSchedulingPoints quiet;
  if (running_->identity != nullptr) {
    Identities::All().Remove(running_->identity);
  }
  running_->identity = identity;
  if (identity != nullptr) Identities::All().Add(identity);
}

bool Scheduler::PostSemaphore(const void* identity) {
  const NoSchedulingPoints quiet;
  for (const auto& thread : threads_) {
    if (thread->identity != identity) continue;
    ++thread->tokens;
    Point("waking a thread", nullptr, Use::kNothing);
    return true;
  }
  return false;
}

void Scheduler::CheckForeignPost(const void* identity) {
  if (!Identities::All().Contain(identity)) return;
  FailForeignThread(
      "wakes one that was, by a mutex, condition or notification");
}

bool Scheduler::WaitSemaphore(absl::Time deadline) {
  const NoSchedulingPoints quiet;
  Thread& self = *running_;
  const bool due = deadline == now_;
  const bool due_again = due && self.was_due == now_;
  if (due) self.was_due = now_;
  const bool woken = BlockUntil(
      "waiting for a mutex, condition or notification",
      [&] { return self.tokens > 0; }, deadline);
  if (woken) {
    --self.tokens;
  } else {
    // Abseil cuts time limits to whole nanoseconds: to wait for what is cut off
    // again and again takes another tick.
    if (due_again) AdvanceTo(deadline + kTick);
    // What it gave up waiting for may come before it goes on.
    Point("giving up a wait");
  }
  return woken;
}

}  // namespace ward::testing

#include "ward/testing/simulator/scheduler.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
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
#include "absl/synchronization/internal/create_thread_identity.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/testing/simulator/strategy.h"
#include "ward/testing/simulator/watchdog.h"

namespace ward::testing {
namespace {

// Not the epoch, which programs take for "no time".
const absl::Time kStart = absl::FromUnixSeconds(1'000'000'000);

// The clock moves by whole ticks, so that all that tell the time agree, down to
// gettimeofday(2), from which Abseil counts some time limits: a wait must not
// end before its time, or who waits again for the rest does so for ever.
constexpr absl::Duration kTick = absl::Microseconds(1);

// How many yields in a row, with nothing else between, are taken for waiting
// until time passes.
constexpr int kMostYields = 100;

thread_local Scheduler* current_scheduler = nullptr;
thread_local int no_branch_points = 0;

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
  std::cerr << "A thread that was not started through "
               "ward::Environment::StartThread "
            << what
            << ". The simulation cannot schedule it: start it with "
               "ward::Environment::Default().StartThread(), in the test as in "
               "the server.\n";
  Watchdog::PrintStacks();
  std::abort();
}

}  // namespace

NoBranchPoints::NoBranchPoints() { ++no_branch_points; }

NoBranchPoints::~NoBranchPoints() { --no_branch_points; }

bool NoBranchPoints::Exist() { return no_branch_points > 0; }

struct Scheduler::Thread {
  enum class State { kReady, kBlocked, kEnded, kKilled };

  Thread(Scheduler& owner, int number, int of_group, std::string its_name)
      : scheduler(owner),
        id(number),
        group(of_group),
        name(std::move(its_name)) {
    sem_init(&baton, 0, 0);
  }

  bool alive() const {
    return state == State::kReady || state == State::kBlocked;
  }

  Scheduler& scheduler;
  const int id;
  const int group;
  const std::string name;
  State state = State::kReady;

  // Goes on when no other can.
  bool idle = false;

  // While it is blocked.
  const absl::FunctionRef<bool()>* ready = nullptr;
  absl::Time deadline = absl::InfiniteFuture();
  std::string_view doing = "starting";

  // At which step it last ran, and was last held back by a choice; 0: never.
  size_t ran = 0;
  size_t held = 0;

  sem_t baton;
  bool has_handle = false;
  pthread_t handle{};
  pid_t number = 0;  // As stacks have it; once it has run.

  // absl's semaphore of this thread.
  int tokens = 0;
  const void* identity = nullptr;

  absl::AnyInvocable<void()> body;
};

Scheduler::OneProcessor::OneProcessor() {
  sched_getaffinity(0, sizeof(found_), &found_);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  sched_setaffinity(0, sizeof(one), &one);
}

Scheduler::OneProcessor::~OneProcessor() {
  sched_setaffinity(0, sizeof(found_), &found_);
}

Scheduler::Scheduler(Strategy& strategy, SchedulerOptions options)
    : strategy_(strategy), options_(std::move(options)), now_(kStart) {
  // Abseil measures the processor's frequency when it is first asked for, by
  // sleeping: not in the schedule of the first run, whose course it would
  // change.
  static const double kFrequency = absl::base_internal::CycleClock::Frequency();
  (void)kFrequency;
  auto main = std::make_unique<Thread>(*this, 0, 1, "main");
  main->identity =
      absl::synchronization_internal::GetOrCreateCurrentThreadIdentity();
  Identities::All().Add(main->identity);
  main->handle = pthread_self();
  main->number = static_cast<pid_t>(syscall(SYS_gettid));
  running_ = main.get();
  threads_.push_back(std::move(main));
  current_scheduler = this;
  Watchdog::Start();
}

Scheduler::~Scheduler() {
  Watchdog::Stop();
  current_scheduler = nullptr;
  for (auto& thread : threads_) {
    Identities::All().Remove(thread->identity);
    // One that has not ended sleeps on its semaphore, and refers to this
    // object, for ever.
    if (thread->has_handle) (void)thread.release();
  }
}

Scheduler* Scheduler::Current() { return current_scheduler; }

int Scheduler::group() const { return running_->group; }

std::vector<std::string> Scheduler::LiveThreads(int group) const {
  const NoBranchPoints quiet;
  std::vector<std::string> names;
  for (const auto& thread : threads_) {
    if (thread->group == group && thread->alive()) {
      names.push_back(absl::StrCat(thread->name, " (", thread->doing, ")"));
    }
  }
  return names;
}

size_t Scheduler::killed_threads() const {
  const NoBranchPoints quiet;
  return static_cast<size_t>(
      std::count_if(threads_.begin(), threads_.end(), [](const auto& thread) {
        return thread->state == Thread::State::kKilled;
      }));
}

int Scheduler::Start(std::string name, int group,
                     absl::AnyInvocable<void()> body) {
  const NoBranchPoints quiet;
  const int id = static_cast<int>(threads_.size());
  threads_.push_back(
      std::make_unique<Thread>(*this, id, group, std::move(name)));
  Thread& thread = *threads_.back();
  thread.ran = steps_;
  thread.body = std::move(body);
  const int error =
      pthread_create(&thread.handle, nullptr, &RunThread, &thread);
  if (error != 0) {
    Stuck(absl::StrCat("no thread could be started (error ", error,
                       "); are there too many killed ones?"));
  }
  thread.has_handle = true;
  Point("starting a thread");
  return id;
}

void* Scheduler::RunThread(void* argument) {
  Thread& thread = *static_cast<Thread*>(argument);
  current_scheduler = &thread.scheduler;
  Scheduler& scheduler = thread.scheduler;
  scheduler.AwaitTurn(thread);
  thread.number = static_cast<pid_t>(syscall(SYS_gettid));
  thread.identity =
      absl::synchronization_internal::GetOrCreateCurrentThreadIdentity();
  Identities::All().Add(thread.identity);
  thread.body();
  thread.body = nullptr;
  const NoBranchPoints quiet;
  thread.state = Thread::State::kEnded;
  Identities::All().Remove(thread.identity);
  thread.identity = nullptr;
  current_scheduler = nullptr;
  Thread* const next = scheduler.Next();
  scheduler.running_ = next;
  scheduler.ending_ = &thread;
  ++scheduler.switches_;
  sem_post(&next->baton);
  return nullptr;
}

void Scheduler::AwaitTurn(Thread& thread) {
  while (sem_wait(&thread.baton) != 0 && errno == EINTR) {
  }
  // What it does at its end is no part of the schedule, and must not go on
  // beside it: it locks what Abseil has for all threads.
  Thread* const ending = std::exchange(ending_, nullptr);
  if (ending == nullptr) return;
  pthread_join(ending->handle, nullptr);
  ending->has_handle = false;
}

void Scheduler::Join(int thread) {
  const NoBranchPoints quiet;
  const Thread& joined = *threads_[static_cast<size_t>(thread)];
  BlockUntil(
      "joining a thread", [&] { return !joined.alive(); },
      absl::InfiniteFuture());
}

void Scheduler::CheckCaller() const {
  if (current_scheduler == this) return;
  FailForeignThread(
      "calls a simulated server, or something else of a "
      "simulated Environment");
}

void Scheduler::Point(std::string_view doing) {
  const NoBranchPoints quiet;
  CheckCaller();
  running_->doing = doing;
  yields_ = 0;
  Reschedule();
}

void Scheduler::Yield(std::string_view doing) {
  const NoBranchPoints quiet;
  CheckCaller();
  running_->doing = doing;
  running_->held = steps_ + 1;
  yielded_ = running_->id;
  ++yields_;
  Reschedule();
}

bool Scheduler::BlockUntil(std::string_view doing,
                           absl::FunctionRef<bool()> ready,
                           absl::Time deadline) {
  const NoBranchPoints quiet;
  CheckCaller();
  LeaveIfKilled();
  Thread& self = *running_;
  self.doing = doing;
  yields_ = 0;
  self.ready = &ready;
  self.deadline = deadline;
  self.state = Thread::State::kBlocked;
  Reschedule();
  self.deadline = absl::InfiniteFuture();
  self.ready = nullptr;
  return ready();
}

void Scheduler::Reschedule() {
  Thread& self = *running_;
  Thread* const next = Next();
  if (next == &self) return;
  running_ = next;
  ++switches_;
  sem_post(&next->baton);
  AwaitTurn(self);
}

bool Scheduler::CanRun(const Thread& thread) const {
  switch (thread.state) {
    case Thread::State::kReady:
      return true;
    case Thread::State::kBlocked:
      if (thread.idle) {
        return std::none_of(threads_.begin(), threads_.end(),
                            [this](const auto& other) {
                              return !other->idle && CanRun(*other);
                            });
      }
      return now_ >= thread.deadline || (*thread.ready)();
    default:
      return false;
  }
}

Scheduler::Thread* Scheduler::Next() {
  Watchdog::Feed();
  if (++steps_ - first_step_ > options_.max_steps) {
    Stuck(absl::StrCat("no end after ", options_.max_steps,
                       " steps: a loop that waits for nothing? One that waits "
                       "for another thread must sleep or yield: "
                       "std::this_thread::yield()."));
  }
  const int yielded = std::exchange(yielded_, -1);
  bool may_delay = options_.delays;
  while (true) {
    // The one that runs comes first: option 0 is to go on. Then the one that
    // has not run for the longest time. Whoever was held back comes after all
    // others, from then on: a single deviation lets them do as much as they can
    // without that thread (as PctStrategy's drops do).
    candidates_.clear();
    for (const auto& thread : threads_) {
      if (CanRun(*thread)) candidates_.push_back(thread->id);
    }
    std::sort(candidates_.begin(), candidates_.end(), [this](int a, int b) {
      const auto turn = [this](int id) {
        const Thread& thread = *threads_[static_cast<size_t>(id)];
        return std::make_tuple(thread.held, &thread != running_, thread.ran,
                               id);
      };
      return turn(a) < turn(b);
    });
    const absl::Time next_deadline = NextDeadline();
    if (candidates_.empty()) {
      if (next_deadline == absl::InfiniteFuture()) {
        Stuck(
            "deadlock: all threads wait, and for no point in time (or one "
            "waits for a thread that was not started through Environment)");
      }
      AdvanceTo(next_deadline);
      continue;
    }
    if (yields_ > kMostYields && next_deadline != absl::InfiniteFuture()) {
      yields_ = 0;
      AdvanceTo(next_deadline);
      continue;
    }
    if (may_delay && next_deadline != absl::InfiniteFuture()) {
      may_delay = false;
      if (Choose(ChoiceKind::kDelay, 2) == 1) {
        AdvanceTo(next_deadline);
        continue;
      }
    }
    size_t chosen = 0;
    if (candidates_.size() > 1) {
      const Choice choice{ChoiceKind::kThread, candidates_.size(), candidates_,
                          yielded};
      chosen = strategy_.Choose(choice);
      if (options_.on_choice) options_.on_choice(choice, chosen);
    }
    for (size_t i = 0; i < chosen; ++i) {
      threads_[static_cast<size_t>(candidates_[i])]->held = steps_;
    }
    Thread* const next =
        threads_[static_cast<size_t>(candidates_[chosen])].get();
    next->state = Thread::State::kReady;
    next->ran = steps_;
    return next;
  }
}

size_t Scheduler::Choose(ChoiceKind kind, size_t options) {
  const NoBranchPoints quiet;
  if (options < 2) return 0;
  const Choice choice{kind, options};
  const size_t option = strategy_.Choose(choice);
  if (options_.on_choice) options_.on_choice(choice, option);
  return option;
}

absl::Time Scheduler::NextDeadline() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& thread : threads_) {
    if (thread->state == Thread::State::kBlocked && thread->deadline > now_) {
      next = std::min(next, thread->deadline);
    }
  }
  for (const auto& [group, timer] : timers_) next = std::min(next, timer.time);
  return next;
}

void Scheduler::AdvanceTo(absl::Time time) {
  now_ = std::max(now_, kStart + absl::Ceil(time - kStart, kTick));
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

void Scheduler::WaitUntilIdle() {
  const NoBranchPoints quiet;
  CheckCaller();
  LeaveIfKilled();
  Thread& self = *running_;
  self.idle = true;
  self.doing = "waiting until the others wait";
  self.state = Thread::State::kBlocked;
  Reschedule();
  self.idle = false;
}

void Scheduler::Advance(absl::Duration time) {
  const NoBranchPoints quiet;
  const absl::Time end = now_ + time;
  // One deadline after the other: whoever is woken acts at its own time.
  WaitUntilIdle();
  while (NextDeadline() <= end) {
    first_step_ = steps_;
    AdvanceTo(NextDeadline());
    WaitUntilIdle();
  }
  AdvanceTo(end);
  WaitUntilIdle();
}

void Scheduler::SetTimer(int group, absl::Time time,
                         std::function<void()> at_time) {
  const NoBranchPoints quiet;
  timers_.erase(group);
  if (time == absl::InfiniteFuture()) return;
  timers_.emplace(group, Timer{time, std::move(at_time)});
}

void Scheduler::Kill(int group) {
  const NoBranchPoints quiet;
  timers_.erase(group);
  for (const auto& thread : threads_) {
    if (thread->group == group && thread->alive()) {
      thread->state = Thread::State::kKilled;
    }
  }
}

void Scheduler::LeaveIfKilled() {
  const NoBranchPoints quiet;
  if (!running_->alive()) Reschedule();
}

void Scheduler::Stuck(std::string_view why) {
  std::string text = absl::StrCat(why, "\n");
  for (const auto& thread : threads_) {
    if (!thread->alive()) continue;
    absl::StrAppend(&text, "  thread ", thread->id, " of process ",
                    thread->group, ", ", thread->name, ": ", thread->doing);
    if (thread->deadline != absl::InfiniteFuture()) {
      absl::StrAppend(&text, ", for ",
                      absl::FormatDuration(thread->deadline - now_));
    }
    if (thread->number != 0) {
      absl::StrAppend(&text, " (its stack is that of thread ", thread->number,
                      ")");
    }
    absl::StrAppend(&text, "\n");
  }
  if (options_.on_stuck) options_.on_stuck(text);
  std::cerr << text;
  Watchdog::PrintStacks();
  std::abort();
}

bool Scheduler::PostSemaphore(const void* identity) {
  const NoBranchPoints quiet;
  for (const auto& thread : threads_) {
    if (thread->identity != identity) continue;
    ++thread->tokens;
    Point("waking a thread");
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
  const NoBranchPoints quiet;
  Thread& self = *running_;
  const bool due = deadline == now_;
  const bool woken = BlockUntil(
      "waiting for a mutex, condition or notification",
      [&] { return self.tokens > 0; }, deadline);
  if (woken) {
    --self.tokens;
  } else {
    // Abseil cuts time limits to whole nanoseconds: to wait for what is cut off
    // takes another tick.
    if (due) AdvanceTo(deadline + kTick);
    // What it gave up waiting for may come before it goes on.
    Point("giving up a wait");
  }
  return woken;
}

}  // namespace ward::testing

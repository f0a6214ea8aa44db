#include "ward/testing/simulator/watchdog.h"

#include <dirent.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string_view>
#include <utility>

#include "absl/base/config.h"
#include "absl/debugging/failure_signal_handler.h"
#include "absl/debugging/symbolize.h"
#include "absl/time/time.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/runner.h"
#include "ward/testing/simulator/traced.h"

namespace ward::testing {
namespace {

constexpr int kPatience = 5;  // Seconds.
constexpr int kPatienceWithTheWorld = 60;
// So that it is not 6 s before the report is there.
constexpr int kTicksPerSecond = 4;

constexpr int kTicks = kPatience * kTicksPerSecond;

// Of the processor's time, in nanoseconds. Who gets less in 5 s waits: even one
// of hundreds that want it gets more. On a busy machine the ticks themselves
// take some of it.
constexpr int64_t kNoTime = 10'000'000;

// Not blocked by the threads of servers (Environment::StartThread).
constexpr int kStackSignal = SIGURG;

std::atomic<uint64_t> steps{0};
// As of the last tick, and how many ticks ago that changed.
std::atomic<uint64_t> seen{0};
std::atomic<int> ticks{0};
// What this process had had of the processor's time at each of the last ticks,
// and when the last step was seen.
std::array<std::atomic<int64_t>, kTicks> time_at_tick;
std::atomic<int64_t> time_at_step{0};
std::atomic<void (*)(std::string_view why)> told{nullptr};

// See ExpectTheWorld.
std::atomic<int> expected{0};

timer_t timer;
pid_t timer_process = 0;  // Timers do not survive a fork.
bool traced = false;
// Whether a simulation runs. The timer may go on without one.
std::atomic<bool> watches{false};
bool stays_awake = false;
bool is_awake = false;
sem_t printed;

void Print(std::string_view text) {
  [[maybe_unused]] const ssize_t ignored =
      write(STDERR_FILENO, text.data(), text.size());
}

// In signal context: the functions below are safe there.
void PrintOwnStack(pid_t number) {
  const NoSchedulingPoints quiet;
  std::array<void*, 40> frames;
  // Not absl::GetStackTrace: it goes by frame pointers, and the C library,
  // where most threads wait, has none.
  const int depth = backtrace(frames.data(), frames.size());
  std::array<char, 256> line;
  snprintf(line.data(), line.size(), "thread %d:\n", number);
  Print(line.data());
  constexpr int kOwn = 1;  // This function.
  for (int i = kOwn; i < depth; ++i) {
    std::array<char, 200> name;
    const bool known = absl::Symbolize(frames[i], name.data(), name.size());
    snprintf(line.data(), line.size(), "    %p  %s\n", frames[i],
             known ? name.data() : "?");
    Print(line.data());
  }
}

void PrintStacksOfKernelThread(int) {
  const NoSchedulingPoints quiet;
  if (watches && !Runner::IsInSchedule()) {
    std::array<char, 16> name;  // PR_GET_NAME (prctl(2)).
    prctl(PR_GET_NAME, name.data());
    Print("not in the schedule, \"");
    Print(name.data());
    Print("\", ");
  }
  PrintOwnStack(Runner::CurrentNumber());
  Runner::VisitFibers(&PrintOwnStack);
  sem_post(&printed);
}

void PrintStackOf(pid_t thread) {
  if (Runner::IsParked(thread)) return;
  sem_init(&printed, 0, 0);
  if (syscall(SYS_tgkill, getpid(), thread, kStackSignal) != 0) return;
  // The function of this name would give the simulation's time, if the calling
  // thread is in one.
  timespec patience;
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &patience);
  patience.tv_sec += 2;
  while (sem_timedwait(&printed, &patience) != 0 && errno == EINTR) {
  }
}

int64_t ProcessorTime() {
  timespec time{};
  syscall(SYS_clock_gettime, CLOCK_PROCESS_CPUTIME_ID, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// Not by the clock alone: on a machine under load a thread that is right may
// not run for long.
void Tick(int) {
  const NoSchedulingPoints quiet;
  const uint64_t now = steps;
  const int64_t time = ProcessorTime();
  if (now != seen.exchange(now) || !watches) {
    time_at_tick[0] = time_at_step = time;
    ticks = 0;
    return;
  }
  const int tick = ++ticks;
  const int64_t time_then =
      time_at_tick[static_cast<size_t>(tick % kTicks)].exchange(time);
  const bool waits = tick >= Watchdog::Patience() * kTicksPerSecond &&
                     time - time_then < kNoTime;
  const bool loops = time - time_at_step >= kPatience * int64_t{1'000'000'000};
  if ((!waits && !loops) || IsTraced()) return;
  std::array<char, 512> why;
  snprintf(why.data(), why.size(),
           loops ? "A simulated thread has not come to a scheduling point for "
                   "%d s of the processor's time: it loops. One that waits for "
                   "another thread must sleep or yield.\n"
                 : "A simulated thread waits for something outside the "
                   "schedule, for %d s: for a thread that was there before the "
                   "simulation, another process or a machine, or in a call "
                   "that docs/testing.md does not list.\n",
           loops ? kPatience : Watchdog::Patience());
  void (*const tell)(std::string_view) = told;
  (tell == nullptr ? Print : tell)(why.data());
  Print("The stacks of all threads:\n");
  Watchdog::PrintStacks();
  // Who was told needs no crash to see it by.
  if (tell != nullptr) syscall(SYS_exit_group, 1);
  abort();
}

void Handle(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(signal, &action, nullptr);
}

// Abseil's.
void (*show_crash)(int signal, siginfo_t* about, void* context) = nullptr;

// What it reads to name functions is no part of the run that has crashed. Not
// where a sanitizer shows it.
[[maybe_unused]] void ShowCrash(int signal, siginfo_t* about, void* context) {
  const NoSchedulingPoints quiet;
  show_crash(signal, about, context);
}

// In a test of real threads: in the last of its time.
void Expire(int) {
  const NoSchedulingPoints quiet;
  if (IsTraced()) return;
  Print(
      "This test is about to run out of its time (TEST_TIMEOUT): something in "
      "it "
      "hangs. The stacks of all threads:\n");
  Watchdog::PrintStacks();
  abort();
}

void MakeTimer() {
  if (timer_process == getpid()) return;
  Watchdog::PrepareStacks();
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMAX;
  if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) abort();
  timer_process = getpid();
  traced = IsTraced();
}

void SetTimer(absl::Duration interval) {
  itimerspec setting{};
  setting.it_value = absl::ToTimespec(interval);
  setting.it_interval = setting.it_value;
  timer_settime(timer, 0, &setting, nullptr);
}

}  // namespace

void Watchdog::Start() {
  const NoSchedulingPoints quiet;
  expected = 0;
  watches = true;
  if (is_awake) return;
  MakeTimer();
  is_awake = stays_awake;
  ticks = 0;
  time_at_tick[0] = time_at_step = ProcessorTime();
  Handle(SIGRTMAX, Tick);
  // A debugger would stop at each tick.
  SetTimer(traced ? absl::ZeroDuration() : absl::Seconds(1) / kTicksPerSecond);
}

void Watchdog::StayAwake() {
  if (std::exchange(stays_awake, true)) return;
  pthread_atfork(nullptr, nullptr, [] { is_awake = false; });
}

void Watchdog::Stop() {
  watches = false;
  if (is_awake) return;
  SetTimer(absl::ZeroDuration());
  Handle(SIGRTMAX, SIG_IGN);  // One that is under way must not end us.
}

void Watchdog::LimitRealTest(int seconds) {
  MakeTimer();
  Handle(SIGRTMAX, Expire);
  SetTimer(traced ? absl::ZeroDuration() : absl::Seconds(seconds));
}

void Watchdog::ExpectTheWorld() { ++expected; }

void Watchdog::WorldHasAnswered() { --expected; }

bool Watchdog::ExpectsTheWorld() { return expected > 0; }

int Watchdog::Patience() {
  return ExpectsTheWorld() ? kPatienceWithTheWorld : kPatience;
}

void Watchdog::PrepareStacks() {
  [[maybe_unused]] static const bool kDone = [] {
    absl::InitializeSymbolizer("/proc/self/exe");
    // The first call loads a library, which no signal handler may.
    std::array<void*, 1> frame;
    return backtrace(frame.data(), frame.size()) > 0;
  }();
}

void Watchdog::SetTold(void (*function)(std::string_view why)) {
  told = function;
}

void Watchdog::Feed() { steps.fetch_add(1, std::memory_order_relaxed); }

void Watchdog::ShowStackOfCrash() {
#if !defined(ABSL_HAVE_ADDRESS_SANITIZER) && \
    !defined(ABSL_HAVE_THREAD_SANITIZER)
  PrepareStacks();
  absl::InstallFailureSignalHandler({});
  for (const int signal :
       {SIGSEGV, SIGILL, SIGFPE, SIGABRT, SIGTERM, SIGBUS, SIGTRAP}) {
    struct sigaction action {};
    sigaction(signal, nullptr, &action);
    show_crash = std::exchange(action.sa_sigaction, &ShowCrash);
    sigaction(signal, &action, nullptr);
  }
#endif
}

bool Watchdog::ShowsCrash(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 &&
         action.sa_sigaction == &ShowCrash;
}

void Watchdog::PrintStacks() {
  const NoSchedulingPoints quiet;
  Handle(kStackSignal, PrintStacksOfKernelThread);
  // Not opendir(3), which allocates: this may be in a signal handler.
  const int threads = open("/proc/self/task", O_RDONLY | O_CLOEXEC);
  if (threads < 0) return;
  alignas(dirent64) std::array<char, 4096> entries;
  while (true) {
    const long size =
        syscall(SYS_getdents64, threads, entries.data(), entries.size());
    if (size <= 0) break;
    for (long at = 0; at < size;) {
      const auto* const entry =
          reinterpret_cast<const dirent64*>(entries.data() + at);
      at += entry->d_reclen;
      if (const pid_t thread = atoi(entry->d_name)) PrintStackOf(thread);
    }
  }
  close(threads);
}

}  // namespace ward::testing

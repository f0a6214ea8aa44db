#include "ward/testing/simulator/kernel_thread.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>

#include "ward/testing/simulator/bare_call.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/runner.h"

namespace ward::testing {
namespace {

void Await(sem_t& semaphore) {
  while (sem_wait(&semaphore) != 0 && errno == EINTR) {
  }
}

// Read in signal handlers.
thread_local bool is_one = false;

}  // namespace

struct KernelThread::State {
  State() {
    sem_init(&baton, 0, 0);
    sem_init(&started, 0, 0);
  }

  sem_t baton;
  sem_t started;
  void (*entry)(void*) = nullptr;
  void* argument = nullptr;
  pid_t number = 0;
  bool left = false;
};

KernelThread::KernelThread() : state_(new State) {
  is_one = true;
  handle_ = pthread_self();
  number_ = KernelThreadNumber();
  state_->left = true;  // Nobody has to wait for its end.
}

KernelThread::KernelThread(const pthread_attr_t* attributes,
                           void (*entry)(void*), void* argument)
    : state_(new State) {
  state_->entry = entry;
  state_->argument = argument;
  const int error = pthread_create(&handle_, attributes, &Run, state_);
  has_thread_ = error == 0;
  errno = error;
  if (!has_thread_) return;
  Await(state_->started);
  number_ = state_->number;
}

KernelThread::~KernelThread() {
  if (!state_->left) return;  // It refers to the state for ever.
  if (has_thread_) pthread_join(handle_, nullptr);
  delete state_;
}

bool KernelThread::IsThisThread() { return is_one; }

void KernelThread::SwitchTo(Runner& next) {
  // This object may be gone when the other one has run: whoever was killed
  // waits for ever.
  State& own = *state_;
  sem_post(&static_cast<KernelThread&>(next).state_->baton);
  Await(own.baton);
}

void KernelThread::LeaveTo(Runner& next) {
  state_->left = true;
  sem_post(&static_cast<KernelThread&>(next).state_->baton);
}

// The next one may get its stack, or another one.
void KernelThread::AwaitEnd() {
  while (syscall(SYS_tgkill, getpid(), number_, 0) == 0) {
    syscall(SYS_sched_yield);
  }
}

void* KernelThread::Run(void* argument) {
  State& state = *static_cast<State*>(argument);
  {
    const NoSchedulingPoints quiet;
    is_one = true;
    state.number = KernelThreadNumber();
    sem_post(&state.started);
    Await(state.baton);
  }
  state.entry(state.argument);
  return nullptr;
}

}  // namespace ward::testing

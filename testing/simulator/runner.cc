#include "ward/testing/simulator/runner.h"

#include <elf.h>
#include <limits.h>
#include <link.h>
#include <linux/futex.h>
#include <locale.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <utility>

#include "absl/base/config.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/traced.h"

// void ward_switch_fiber(void** from, void* to, uint64_t fs_base): saves what a
// function must not change (System V ABI, AMD64 supplement) and the stack
// pointer in `*from`; takes them from `to`, where this was done before.
// NOLINTNEXTLINE(readability-identifier-naming): so the assembler has it.
extern "C" void ward_switch_fiber(void** from, void* to, uint64_t fs_base);
// NOLINTNEXTLINE(readability-identifier-naming)
extern "C" void ward_begin_fiber();
#ifdef __x86_64__
asm(R"(
  .text
  .type ward_switch_fiber, @function
ward_switch_fiber:
  .cfi_startproc
  pushq %rbp
  .cfi_adjust_cfa_offset 8
  pushq %rbx
  .cfi_adjust_cfa_offset 8
  pushq %r12
  .cfi_adjust_cfa_offset 8
  pushq %r13
  .cfi_adjust_cfa_offset 8
  pushq %r14
  .cfi_adjust_cfa_offset 8
  pushq %r15
  .cfi_adjust_cfa_offset 8
  subq $8, %rsp
  .cfi_adjust_cfa_offset 8
  stmxcsr (%rsp)
  fnstcw 4(%rsp)
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  wrfsbase %rdx
  ldmxcsr (%rsp)
  fldcw 4(%rsp)
  addq $8, %rsp
  .cfi_adjust_cfa_offset -8
  popq %r15
  .cfi_adjust_cfa_offset -8
  popq %r14
  .cfi_adjust_cfa_offset -8
  popq %r13
  .cfi_adjust_cfa_offset -8
  popq %r12
  .cfi_adjust_cfa_offset -8
  popq %rbx
  .cfi_adjust_cfa_offset -8
  popq %rbp
  .cfi_adjust_cfa_offset -8
  ret
  .cfi_endproc
  .size ward_switch_fiber, . - ward_switch_fiber

  .type ward_begin_fiber, @function
ward_begin_fiber:
  .cfi_startproc
  .cfi_undefined rip
  movq %rbx, %rdi
  call *%r12
  ud2
  .cfi_endproc
  .size ward_begin_fiber, . - ward_begin_fiber
)");
#else
void ward_switch_fiber(void**, void*, uint64_t) { std::abort(); }
void ward_begin_fiber() { std::abort(); }
#endif

namespace ward::testing {
namespace {

// System calls that touch neither variables of the thread's own, as errno, nor
// the stack: others may have them by then.
#ifdef __x86_64__
long BareCall(long number, const void* a = nullptr, long b = 0, long c = 0) {
  long result;
  register long no_limit asm("r10") = 0;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(no_limit)
               : "rcx", "r11", "memory");
  return result;
}
#else
long BareCall(long number, const void* a = nullptr, long b = 0, long c = 0) {
  const NoSchedulingPoints quiet;
  return syscall(number, a, b, c, nullptr);
}
#endif

pid_t KernelThreadNumber() { return static_cast<pid_t>(BareCall(SYS_gettid)); }

// What one thread sets, once, and another one waits for.
class Flag {
 public:
  void Set() {
    word_.store(1, std::memory_order_release);
    BareCall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, INT_MAX);
  }
  void Await() const {
    while (word_.load(std::memory_order_acquire) == 0) {
      BareCall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, 0);
    }
  }

 private:
  std::atomic<int> word_{0};
};

// --- kernel threads ---

class KernelThread final : public Runner {
 public:
  KernelThread() : state_(new State) {
    handle_ = pthread_self();
    number_ = KernelThreadNumber();
    state_->left = true;  // Nobody has to wait for its end.
  }

  KernelThread(const pthread_attr_t* attributes, void (*entry)(void*),
               void* argument)
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

  ~KernelThread() override {
    if (!state_->left) return;  // It refers to the state for ever.
    if (has_thread_) pthread_join(handle_, nullptr);
    delete state_;
  }

  bool has_thread() const { return has_thread_; }

  void SwitchTo(Runner& next) override {
    // This object may be gone when the other one has run: whoever was killed
    // waits for ever.
    State& own = *state_;
    sem_post(&static_cast<KernelThread&>(next).state_->baton);
    Await(own.baton);
  }

  void LeaveTo(Runner& next) override {
    state_->left = true;
    sem_post(&static_cast<KernelThread&>(next).state_->baton);
  }

  // The next one may get its stack, or another one.
  void AwaitEnd() override {
    while (syscall(SYS_tgkill, getpid(), number_, 0) == 0) {
      syscall(SYS_sched_yield);
    }
  }

 private:
  struct State {
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

  static void Await(sem_t& semaphore) {
    while (sem_wait(&semaphore) != 0 && errno == EINTR) {
    }
  }

  static void* Run(void* argument) {
    State& state = *static_cast<State*>(argument);
    {
      const NoSchedulingPoints quiet;
      state.number = KernelThreadNumber();
      sem_post(&state.started);
      Await(state.baton);
    }
    state.entry(state.argument);
    return nullptr;
  }

  State* const state_;
  bool has_thread_ = false;
};

// --- fibers ---

// That a new thread finds in its thread-local variables of this program, and
// where they are. Those of the C library are the thread's for as long as it
// lives.
struct ThreadLocals {
  static const ThreadLocals& OfProgram() {
    static const ThreadLocals kFound = Find();
    return kFound;
  }

  void Reset(uint64_t fs_base) const {
    if (size == 0) return;
    // NOLINTNEXTLINE(performance-no-int-to-ptr): as the register has it.
    auto* const variables = reinterpret_cast<char*>(fs_base - below);
    memcpy(variables, image, image_size);
    memset(variables + image_size, 0, size - image_size);
  }

  const void* image = nullptr;
  size_t image_size = 0;
  size_t size = 0;
  uint64_t below = 0;  // The FS base.

 private:
  static ThreadLocals Find();
};

uint64_t FsBase() {
  uint64_t base = 0;
#ifdef __x86_64__
  asm volatile("rdfsbase %0" : "=r"(base));
#endif
  return base;
}

ThreadLocals ThreadLocals::Find() {
  ThreadLocals found;
  dl_iterate_phdr(
      [](dl_phdr_info* module, size_t, void* argument) {
        for (int i = 0; i < module->dlpi_phnum; ++i) {
          const ElfW(Phdr)& segment = module->dlpi_phdr[i];
          if (segment.p_type != PT_TLS) continue;
          *static_cast<ThreadLocals*>(argument) = {
              // NOLINTNEXTLINE(performance-no-int-to-ptr): so the ABI has it.
              reinterpret_cast<const void*>(module->dlpi_addr +
                                            segment.p_vaddr),
              segment.p_filesz, segment.p_memsz,
              FsBase() - reinterpret_cast<uint64_t>(module->dlpi_tls_data)};
        }
        return 1;  // The first one is the program.
      },
      &found);
  return found;
}

// A thread that sleeps while others use what it has.
class ParkedThread {
 public:
  // Null: there can be no more threads; errno says why.
  static std::unique_ptr<ParkedThread> Start(const pthread_attr_t* attributes) {
    std::unique_ptr<ParkedThread> thread(new ParkedThread);
    // Signals are for the thread that runs.
    sigset_t all;
    sigset_t found;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &found);
    const int error =
        pthread_create(&thread->handle_, attributes, &Run, thread.get());
    pthread_sigmask(SIG_SETMASK, &found, nullptr);
    if (error != 0) {
      errno = error;
      return nullptr;
    }
    thread->started_ = true;
    thread->next_ = std::exchange(first_, thread.get());
    thread->parked_.Await();
    return thread;
  }

  ParkedThread(const ParkedThread&) = delete;
  ParkedThread& operator=(const ParkedThread&) = delete;
  ~ParkedThread() {
    if (!started_) return;
    end_.Set();
    pthread_join(handle_, nullptr);
    for (ParkedThread** at = &first_; *at != nullptr; at = &(*at)->next_) {
      if (*at != this) continue;
      *at = next_;
      break;
    }
  }

  // In a fork.
  static void ForgetAll() { first_ = nullptr; }

  // Of all that there are.
  static bool Has(pid_t number) {
    for (ParkedThread* at = first_; at != nullptr; at = at->next_) {
      if (at->number_ == number) return true;
    }
    return false;
  }

  pthread_t handle() const { return handle_; }
  pid_t number() const { return number_; }
  uint64_t fs_base() const { return fs_base_; }
  char* top() const { return top_; }

 private:
  ParkedThread() = default;

  static void* Run(void* argument) {
    ParkedThread& self = *static_cast<ParkedThread*>(argument);
    self.number_ = KernelThreadNumber();
    self.fs_base_ = FsBase();
    // Further down than what it calls here.
    constexpr size_t kOwn = 16384;
    self.top_ = static_cast<char*>(__builtin_frame_address(0)) - kOwn;
    self.parked_.Set();
    // From here on it uses nothing of what it has.
    self.end_.Await();
    return nullptr;
  }

  static ParkedThread* first_;
  ParkedThread* next_ = nullptr;

  Flag parked_;
  Flag end_;
  bool started_ = false;
  pthread_t handle_{};
  pid_t number_ = 0;
  uint64_t fs_base_ = 0;
  char* top_ = nullptr;
};

ParkedThread* ParkedThread::first_ = nullptr;

// Those that nobody uses. The first is that of the highest address, which the
// C library would give to the first thread: so the order of threads' handles
// is the same in each run.
class Pool {
 public:
  static Pool& Only() {
    static auto& only = *new Pool;
    return only;
  }

  std::unique_ptr<ParkedThread> Take() {
    if (threads_.empty()) return ParkedThread::Start(nullptr);
    ParkedThread* const taken = *threads_.begin();
    threads_.erase(threads_.begin());
    return std::unique_ptr<ParkedThread>(taken);
  }

  void Give(std::unique_ptr<ParkedThread> thread) {
    threads_.insert(thread.release());
  }

  void Empty() {
    while (!are_kept_ && !threads_.empty()) Take();
  }

  void Keep() { are_kept_ = true; }

 private:
  struct HigherFirst {
    bool operator()(const ParkedThread* a, const ParkedThread* b) const {
      return a->handle() > b->handle();
    }
  };

  Pool() {
    // A fork has none of them.
    pthread_atfork(nullptr, nullptr, [] {
      Only().threads_.clear();
      ParkedThread::ForgetAll();
    });
  }

  std::set<ParkedThread*, HigherFirst> threads_;
  bool are_kept_ = false;
};

class Fiber final : public Runner {
 public:
  // The calling thread.
  Fiber() : fs_base_(FsBase()), is_callers_(true) {
    handle_ = pthread_self();
    number_ = KernelThreadNumber();
    kernel_thread_ = number_;
    current_ = this;
    Enlist();
  }

  Fiber(std::unique_ptr<ParkedThread> thread, bool is_pooled,
        void (*entry)(void*), void* argument)
      : thread_(std::move(thread)),
        is_pooled_(is_pooled),
        fs_base_(thread_->fs_base()),
        entry_(entry),
        argument_(argument) {
    handle_ = thread_->handle();
    number_ = thread_->number();
    ThreadLocals::OfProgram().Reset(fs_base_);
    Prepare();
    Enlist();
  }

  ~Fiber() override {
    for (Fiber** at = &first_; *at != nullptr; at = &(*at)->next_) {
      if (*at != this) continue;
      *at = next_;
      break;
    }
    if (is_callers_) {
      current_ = nullptr;
      kernel_thread_ = 0;
    } else if (!has_left_) {
      (void)thread_.release();
    } else if (is_pooled_) {
      Pool::Only().Give(std::move(thread_));
    }
  }

  void SwitchTo(Runner& next) override {
    Go(static_cast<Fiber&>(next));
    // Not for its turn, but to show its stack.
    while (visit_ != nullptr) {
      Fiber& visitor = *visiting_;
      std::exchange(visit_, nullptr)(number_);
      Go(visitor);
    }
  }

  void LeaveTo(Runner& next) override {
    has_left_ = true;
    Go(static_cast<Fiber&>(next));
  }

  void AwaitEnd() override {}

  static void VisitAll(void (*how)(pid_t number)) {
    if (current_ == nullptr || KernelThreadNumber() != kernel_thread_) return;
    Fiber& self = *current_;
    for (Fiber* fiber = first_; fiber != nullptr; fiber = fiber->next_) {
      if (fiber == &self || !fiber->has_begun_ || fiber->has_left_) continue;
      visit_ = how;
      visiting_ = &self;
      self.Go(*fiber);
    }
  }

  static pid_t Current() {
    const pid_t number = KernelThreadNumber();
    return number == kernel_thread_ ? current_->number() : number;
  }

 private:
  // As ward_switch_fiber leaves it.
  struct Saved {
    uint32_t mxcsr = 0x1f80;  // As a program finds them at its start.
    uint16_t x87 = 0x37f;
    uint16_t padding = 0;
    void* r15 = nullptr;
    void* r14 = nullptr;
    void* r13 = nullptr;
    void (*r12)(Fiber*) = nullptr;
    Fiber* rbx = nullptr;
    void* rbp = nullptr;
    void (*rip)() = nullptr;
  };

  void Enlist() {
    next_ = first_;
    first_ = this;
  }

  void Prepare() {
    Saved saved;
    saved.r12 = &Begin;
    saved.rbx = this;
    saved.rip = &ward_begin_fiber;
    // So that the stack is aligned when Saved was taken from it.
    const auto top =
        reinterpret_cast<uintptr_t>(thread_->top()) & ~uintptr_t{63};
    // NOLINTNEXTLINE(performance-no-int-to-ptr): aligned.
    stack_ = reinterpret_cast<char*>(top) - sizeof(Saved);
    memcpy(stack_, &saved, sizeof(saved));
  }

  static void Begin(Fiber* self) {
    // What the C library has of its thread.
    uselocale(LC_GLOBAL_LOCALE);
    errno = 0;
    self->entry_(self->argument_);
    std::abort();  // It has left.
  }

  void Go(Fiber& next) {
    current_ = &next;
    next.has_begun_ = true;
    ward_switch_fiber(&stack_, next.stack_, next.fs_base_);
  }

  static Fiber* first_;
  static Fiber* current_;
  static pid_t kernel_thread_;
  static void (*visit_)(pid_t number);
  static Fiber* visiting_;

  std::unique_ptr<ParkedThread> thread_;
  const bool is_pooled_ = false;
  const uint64_t fs_base_;
  const bool is_callers_ = false;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  void* stack_ = nullptr;
  bool has_begun_ = false;
  bool has_left_ = false;
  Fiber* next_ = nullptr;
};

Fiber* Fiber::first_ = nullptr;
Fiber* Fiber::current_ = nullptr;
pid_t Fiber::kernel_thread_ = 0;
void (*Fiber::visit_)(pid_t number) = nullptr;
Fiber* Fiber::visiting_ = nullptr;

}  // namespace

bool Runner::AreFibers() {
#if !defined(__x86_64__) || defined(ABSL_HAVE_ADDRESS_SANITIZER) || \
    defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_MEMORY_SANITIZER)
  return false;
#else
  constexpr unsigned long kFsGsBase = 2;  // HWCAP2_FSGSBASE
  static const bool kCan = (getauxval(AT_HWCAP2) & kFsGsBase) != 0 &&
                           // NOLINTNEXTLINE(concurrency-mt-unsafe)
                           getenv("WARD_KERNEL_THREADS") == nullptr &&
                           !IsTraced();
  return kCan;
#endif
}

std::unique_ptr<Runner> Runner::ForCallingThread() {
  if (AreFibers()) return std::make_unique<Fiber>();
  return std::make_unique<KernelThread>();
}

std::unique_ptr<Runner> Runner::Create(const pthread_attr_t* attributes,
                                       void (*entry)(void*), void* argument) {
  if (!AreFibers()) {
    auto thread = std::make_unique<KernelThread>(attributes, entry, argument);
    if (!thread->has_thread()) return nullptr;
    return thread;
  }
  // One that was asked for with a stack of its own is nobody else's.
  const bool is_pooled = attributes == nullptr;
  std::unique_ptr<ParkedThread> thread =
      is_pooled ? Pool::Only().Take() : ParkedThread::Start(attributes);
  if (thread == nullptr) return nullptr;
  return std::make_unique<Fiber>(std::move(thread), is_pooled, entry, argument);
}

void Runner::EndParkedThreads() { Pool::Only().Empty(); }

void Runner::KeepParkedThreads() { Pool::Only().Keep(); }

void Runner::VisitFibers(void (*visit)(pid_t number)) {
  Fiber::VisitAll(visit);
}

pid_t Runner::CurrentNumber() { return Fiber::Current(); }

bool Runner::IsParked(pid_t number) { return ParkedThread::Has(number); }

}  // namespace ward::testing

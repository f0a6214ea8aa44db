#include "ward/testing/simulator/fiber.h"

#include <locale.h>
#include <pthread.h>
#include <sys/types.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "ward/testing/simulator/bare_call.h"
#include "ward/testing/simulator/parked_thread.h"
#include "ward/testing/simulator/runner.h"

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

Fiber* Fiber::current_ = nullptr;
pid_t Fiber::kernel_thread_ = 0;
void (*Fiber::visit_)(pid_t number) = nullptr;
Fiber* Fiber::visiting_ = nullptr;

// As ward_switch_fiber leaves it.
struct Fiber::Saved {
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

Fiber::Fiber() : fs_base_(FsBase()), is_callers_(true) {
  handle_ = pthread_self();
  number_ = KernelThreadNumber();
  kernel_thread_ = number_;
  current_ = this;
}

Fiber::Fiber(std::unique_ptr<ParkedThread> thread, bool is_pooled,
             void (*entry)(void*), void* argument)
    : thread_(std::move(thread)),
      is_pooled_(is_pooled),
      fs_base_(thread_->fs_base()),
      entry_(entry),
      argument_(argument) {
  handle_ = thread_->handle();
  number_ = thread_->number();
  thread_->ResetVariables();
  Prepare();
}

Fiber::~Fiber() {
  if (is_callers_) {
    current_ = nullptr;
    kernel_thread_ = 0;
  } else if (!has_left_) {
    (void)thread_.release();
  } else if (is_pooled_) {
    ParkedThreads::Only().Give(std::move(thread_));
  }
}

void Fiber::SwitchTo(Runner& next) {
  Go(static_cast<Fiber&>(next));
  // Not for its turn, but to show its stack.
  while (visit_ != nullptr) {
    Fiber& visitor = *visiting_;
    std::exchange(visit_, nullptr)(number_);
    Go(visitor);
  }
}

void Fiber::LeaveTo(Runner& next) {
  has_left_ = true;
  Go(static_cast<Fiber&>(next));
}

void Fiber::VisitAll(void (*visit)(pid_t number)) {
  if (current_ == nullptr || KernelThreadNumber() != kernel_thread_) return;
  Fiber& self = *current_;
  for (Fiber* fiber = First(); fiber != nullptr; fiber = fiber->Next()) {
    if (fiber == &self || !fiber->has_begun_ || fiber->has_left_) continue;
    visit_ = visit;
    visiting_ = &self;
    self.Go(*fiber);
  }
}

pid_t Fiber::CurrentNumber() {
  const pid_t number = KernelThreadNumber();
  return number == kernel_thread_ ? current_->number() : number;
}

bool Fiber::RunOnThisThread() { return KernelThreadNumber() == kernel_thread_; }

void Fiber::Prepare() {
  Saved saved;
  saved.r12 = &Begin;
  saved.rbx = this;
  saved.rip = &ward_begin_fiber;
  // So that the stack is aligned when Saved was taken from it.
  const auto top = reinterpret_cast<uintptr_t>(thread_->top()) & ~uintptr_t{63};
  // NOLINTNEXTLINE(performance-no-int-to-ptr): aligned.
  stack_ = reinterpret_cast<char*>(top) - sizeof(Saved);
  memcpy(stack_, &saved, sizeof(saved));
}

void Fiber::Begin(Fiber* self) {
  // What the C library has of its thread.
  uselocale(LC_GLOBAL_LOCALE);
  errno = 0;
  self->entry_(self->argument_);
  std::abort();  // It has left.
}

void Fiber::Go(Fiber& next) {
  current_ = &next;
  next.has_begun_ = true;
  ward_switch_fiber(&stack_, next.stack_, next.fs_base_);
}

}  // namespace ward::testing

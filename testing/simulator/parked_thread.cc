#include "ward/testing/simulator/parked_thread.h"

#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "ward/server/posix/signal_mask.h"
#include "ward/testing/simulator/bare_call.h"

namespace ward::testing {
namespace {

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

}  // namespace

uint64_t FsBase() {
  uint64_t base = 0;
#ifdef __x86_64__
  asm volatile("rdfsbase %0" : "=r"(base));
#endif
  return base;
}

std::unique_ptr<ParkedThread> ParkedThread::Start(
    const pthread_attr_t* attributes) {
  std::unique_ptr<ParkedThread> thread(new ParkedThread);
  // Signals are for the thread that runs.
  sigset_t all;
  sigfillset(&all);
  const int error = [&] {
    const ScopedSignalMask mask(all);
    return pthread_create(&thread->handle_, attributes, &Run, thread.get());
  }();
  if (error != 0) {
    errno = error;
    return nullptr;
  }
  thread->started_ = true;
  thread->parked_.Await();
  return thread;
}

ParkedThread::~ParkedThread() {
  if (!started_) return;
  end_.Set();
  pthread_join(handle_, nullptr);
}

void ParkedThread::ResetVariables() const {
  ThreadLocals::OfProgram().Reset(fs_base_);
}

bool ParkedThread::Has(pid_t number) {
  for (ParkedThread* at = First(); at != nullptr; at = at->Next()) {
    if (at->number_ == number) return true;
  }
  return false;
}

void* ParkedThread::Run(void* argument) {
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

ParkedThreads& ParkedThreads::Only() {
  static auto& only = *new ParkedThreads;
  return only;
}

ParkedThreads::ParkedThreads() {
  // A fork has none of them.
  pthread_atfork(nullptr, nullptr, [] {
    Only().threads_.clear();
    ParkedThread::ForgetAll();
  });
}

std::unique_ptr<ParkedThread> ParkedThreads::Take() {
  if (threads_.empty()) return ParkedThread::Start(nullptr);
  ParkedThread* const taken = *threads_.begin();
  threads_.erase(threads_.begin());
  return std::unique_ptr<ParkedThread>(taken);
}

void ParkedThreads::Give(std::unique_ptr<ParkedThread> thread) {
  threads_.insert(thread.release());
}

void ParkedThreads::End() {
  while (!are_kept_ && !threads_.empty()) Take();
}

}  // namespace ward::testing

#include "ward/testing/interception/children.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/scheduler.h"

WARD_REAL(fork);

namespace ward::testing {
namespace {

// A fork that is under way, by the thread that calls it.
struct Fork {
  const Scheduler* parent;
  std::shared_ptr<LastWords> words;
  // From the last of the parent's functions before it to the first one after
  // it: the C library has locks of its own then. In the child until its end.
  std::optional<NoSchedulingPoints> quiet;
};

thread_local Fork* under_way = nullptr;

// Of the child that this process is. As it was in the parent when that forked.
struct Child {
  const Scheduler* parent = nullptr;
  std::shared_ptr<LastWords> words;
  std::atomic<bool> has_threads{false};
  // It is a child's child, of which the simulation knows nothing.
  bool is_of_child = false;
};

Child& Own() {
  static auto& own = *new Child;
  return own;
}

std::atomic<bool> is_child{false};

// The first to be registered is the last to be called before a fork, and the
// first after it (pthread_atfork(3)): before any of the program's own.
__attribute__((constructor(101))) void RegisterAtFork() {
  pthread_atfork(
      [] {
        if (under_way != nullptr) under_way->quiet.emplace();
      },
      [] {
        if (under_way != nullptr) under_way->quiet.reset();
      },
      [] {
        Scheduler::LeaveInChild();
        if (is_child) Own().is_of_child = true;
        if (under_way != nullptr) is_child = true;
        // A child's own child has none of its threads either.
        if (is_child) Own().has_threads = false;
      });
}

}  // namespace

LastWords::LastWords()
    : memory_(static_cast<Memory*>(mmap(nullptr, sizeof(Memory),
                                        PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}

LastWords::~LastWords() {
  if (memory_ != MAP_FAILED) munmap(memory_, sizeof(Memory));
}

void LastWords::Say(const std::string& words) {
  if (memory_ == MAP_FAILED) return;
  const size_t size = std::min(words.size(), memory_->text.size());
  std::copy_n(words.begin(), size, memory_->text.begin());
  memory_->size = size;
}

std::string LastWords::Said() const {
  if (memory_ == MAP_FAILED) return "";
  return {memory_->text.data(), std::min(memory_->size, memory_->text.size())};
}

void LastWords::WaitForGood(const std::string& words) {
  if (memory_ == MAP_FAILED) return;
  Say(words);
  memory_->waits_for_good = true;
}

void LastWords::GoOn() {
  if (memory_ == MAP_FAILED) return;
  memory_->waits_for_good = false;
  memory_->size = 0;
}

bool LastWords::WaitsForGood() const {
  return memory_ != MAP_FAILED && memory_->waits_for_good;
}

pid_t ForkInSchedule(Scheduler& scheduler, std::shared_ptr<LastWords> words) {
  Fork fork{&scheduler, std::move(words), std::nullopt};
  under_way = &fork;
  const pid_t child = real_fork();
  under_way = nullptr;
  if (child == 0) {
    Own().parent = fork.parent;
    Own().words = std::move(fork.words);
  }
  return child;
}

bool IsChild() { return is_child; }

void ChildHasThreads() {
  if (is_child) Own().has_threads = true;
}

WaitInChild::WaitInChild(const char* waiting, pid_t owner) {
  if (!is_child || (owner == 0 ? Own().has_threads.load()
                               : syscall(SYS_tgkill, getpid(), owner, 0) == 0 ||
                                     errno != ESRCH)) {
    return;
  }
  const bool may_be_killed = owner == 0;
  // Nobody that the simulation knows starts a child's child, or ends it.
  if (may_be_killed && (Own().is_of_child || Own().words == nullptr)) return;
  std::string why = absl::StrCat("deadlock in a child process: it is ", waiting,
                                 ", and has no thread that would end that\n");
  if (!may_be_killed) std::cerr << why << std::flush;
  const int thread = owner == 0 || Own().parent == nullptr
                         ? -1
                         : Own().parent->FindByNumber(owner);
  if (thread >= 0) {
    absl::StrAppend(&why, "  ", Own().parent->Describe(thread),
                    ", had it when the process was forked.\n");
  }
  absl::StrAppend(
      &why, "  The child waits in:\n", StackHere(),
      "  A child has but the thread that calls fork(2): what others had locked "
      "stays locked. Lock it before the fork, and unlock it on both sides, as "
      "functions of pthread_atfork(3) do; or let the child do nothing but to "
      "call exec(3) or _exit(2).\n");
  if (may_be_killed) {
    Own().words->WaitForGood(why);
    is_said_ = true;
    return;
  }
  if (Own().words != nullptr) Own().words->Say(why);
  syscall(SYS_exit_group, 1);
}

WaitInChild::~WaitInChild() {
  if (is_said_) Own().words->GoOn();
}

}  // namespace ward::testing

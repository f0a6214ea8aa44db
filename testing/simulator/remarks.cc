#include "ward/testing/simulator/remarks.h"

#include <execinfo.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <iostream>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "absl/debugging/symbolize.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "ward/testing/simulator/no_scheduling_points.h"

namespace ward::testing {
namespace {

constexpr int kMostFrames = 12;

constexpr std::string_view kCalled = "This run called ";

struct Said {
  std::mutex mutex;
  // A child that was forked says it for itself.
  pid_t process = 0;
  std::set<std::string> calls;
  void (*sink)(std::string_view remark) = nullptr;
};

Said& All() {
  static auto& all = *new Said;
  return all;
}

// The names of the functions under way, from `function` on, a line each.
//
// Abseil keeps the program's file open from the first name on that it looks up:
// a descriptor that is left open, which children would share, and its position.
// So another process does this. It allocates nothing, as it was made where a
// thread may have been anywhere; nobody is told of its end by SIGCHLD.
std::string Stack(std::string_view function) {
  std::array<void*, kMostFrames> frames;
  const int depth = backtrace(frames.data(), kMostFrames);
  struct Text {
    size_t size;
    std::array<char, size_t{kMostFrames} * 256> text;
  };
  void* const memory = mmap(nullptr, sizeof(Text), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return "";
  auto& shared = *static_cast<Text*>(memory);
  const long child = syscall(SYS_clone, 0, 0, 0, 0, 0);
  if (child == 0) {
    for (int i = 0; i < depth; ++i) {
      std::array<char, 200> name;
      if (!absl::Symbolize(frames[static_cast<size_t>(i)], name.data(),
                           name.size())) {
        continue;
      }
      const int size =
          snprintf(shared.text.data() + shared.size,
                   shared.text.size() - shared.size, "    %s\n", name.data());
      shared.size += static_cast<size_t>(size);
      // What is above it is the simulator's.
      if (name.data() == function) shared.size = 0;
    }
    syscall(SYS_exit_group, 0);
  }
  while (waitpid(static_cast<pid_t>(child), nullptr, __WALL) < 0 &&
         errno == EINTR) {
  }
  std::string stack(shared.text.data(), shared.size);
  munmap(memory, sizeof(Text));
  return stack;
}

}  // namespace

void Remarks::Add(std::string_view function, std::string_view why) {
  const NoSchedulingPoints quiet;
  Said& said = All();
  const std::lock_guard<std::mutex> lock(said.mutex);
  if (said.process != getpid()) {
    said.process = getpid();
    said.calls.clear();
  }
  if (!said.calls.insert(absl::StrCat(function, why)).second) return;
  const std::string remark = absl::StrCat(kCalled, function, ", ", why,
                                          ". It did so in\n", Stack(function));
  if (said.sink != nullptr) {
    said.sink(remark);
  } else {
    std::cerr << remark << std::flush;
  }
}

std::string_view Remarks::Function(std::string_view subject) {
  if (!absl::ConsumePrefix(&subject, kCalled)) return "";
  // What follows is why.
  return subject.substr(0, subject.find(", which "));
}

void Remarks::SetSink(void (*sink)(std::string_view remark)) {
  const NoSchedulingPoints quiet;
  const std::lock_guard<std::mutex> lock(All().mutex);
  All().sink = sink;
}

}  // namespace ward::testing

#include "ward/testing/simulator/threaded_environment.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/server/environment.h"
#include "ward/server/exec_entry.h"

namespace ward::testing {
namespace {

// Readable once it was set.
class Event final : public Pollable {
 public:
  static absl::StatusOr<Event> Create() {
    FileDescriptor fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!fd.is_open()) return SystemError(errno, "create an event");
    return Event(std::move(fd));
  }
  explicit Event(FileDescriptor fd) : fd_(std::move(fd)) {}
  int descriptor() const override { return fd_.get(); }
  void Set() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t ignored =
        write(fd_.get(), &one, sizeof(one));
  }
  void Clear() const {
    uint64_t value;
    [[maybe_unused]] const ssize_t ignored =
        read(fd_.get(), &value, sizeof(value));
  }

 private:
  FileDescriptor fd_;
};

// A forked child would have a copy: the owner's Close must not end the
// server's.
class SharedListener final : public Listener {
 public:
  explicit SharedListener(std::unique_ptr<Listener> listener)
      : listener_(std::move(listener)) {}

  int descriptor() const override { return listener_->descriptor(); }
  absl::StatusOr<Accepted> Accept() override { return listener_->Accept(); }
  void StopAccepting(
      absl::FunctionRef<void(std::unique_ptr<Transport>)> refuse) override {
    listener_->StopAccepting(refuse);
  }
  void Close() override {}
  const std::string& path() const override { return listener_->path(); }
  absl::Status CheckPath() const override { return listener_->CheckPath(); }
  void RemovePath() override { listener_->RemovePath(); }
  std::vector<int> descriptors() const override {
    return listener_->descriptors();
  }
  absl::StatusOr<ListenerParts> Share() const override {
    return listener_->Share();
  }

 private:
  const std::unique_ptr<Listener> listener_;
};

class ThreadedProcess final : public Process {
 public:
  // As another owner sees it, who is not its parent; until Start.
  ThreadedProcess(ThreadedEnvironment& environment, Event ended)
      : environment_(environment), ended_(std::move(ended)) {}

  absl::Status Start(absl::AnyInvocable<int()> child) {
    WARD_ASSIGN_OR_RETURN(
        thread_,
        environment_.StartThread([this, child = std::move(child)]() mutable {
          const int code = child();
          child = nullptr;
          code_ = code;
          ended_.Set();
        }));
    return absl::OkStatus();
  }

  int descriptor() const override { return ended_.descriptor(); }
  pid_t pid() const override { return environment_.ProcessId(); }
  absl::StatusOr<ProcessExit> Wait(absl::Time deadline) override {
    const Pollable* const polled[] = {&ended_};
    WARD_RETURN_IF_ERROR(environment_.Poll(polled, deadline).status());
    if (thread_ == nullptr) return ProcessExit{};
    return ProcessExit{ProcessExit::Kind::kExited, code_};
  }
  bool Ending() const override {
    const Pollable* const polled[] = {&ended_};
    return environment_.Poll(polled, environment_.TimeNow()).ok();
  }
  absl::Status Kill(int signal) override {
    if (signal == 0 || Ending()) return absl::OkStatus();
    return environment_.Raise(signal);
  }

 private:
  ThreadedEnvironment& environment_;
  const Event ended_;
  std::atomic<int> code_{0};
  std::unique_ptr<Thread> thread_;  // Joined first.
};

}  // namespace

class ThreadedSignals final : public Signals {
 public:
  ThreadedSignals(ThreadedEnvironment& environment, SignalPlan plan,
                  Event event)
      : environment_(environment),
        plan_(std::move(plan)),
        event_(std::move(event)) {
    absl::MutexLock lock(&environment_.mutex_);
    environment_.signals_.push_back(this);
  }
  ~ThreadedSignals() override {
    absl::MutexLock lock(&environment_.mutex_);
    std::vector<ThreadedSignals*>& all = environment_.signals_;
    all.erase(std::remove(all.begin(), all.end(), this), all.end());
  }

  int descriptor() const override { return event_.descriptor(); }

  int Next() override {
    absl::MutexLock lock(&environment_.mutex_);
    event_.Clear();
    if (pending_.empty()) return 0;
    const int signal = pending_.front();
    pending_.erase(pending_.begin());
    return signal;
  }

  absl::Status Raise(int signal) {
    const auto has = [signal](const std::vector<int>& signals) {
      return std::find(signals.begin(), signals.end(), signal) != signals.end();
    };
    if (has(plan_.receive)) {
      if (!has(pending_)) pending_.push_back(signal);
      event_.Set();
      return absl::OkStatus();
    }
    if (has(plan_.ignore)) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("a server in a thread cannot be ended by signal ", signal,
                     "; run this test in mode forked or simulated"));
  }

 private:
  ThreadedEnvironment& environment_;
  const SignalPlan plan_;
  const Event event_;
  std::vector<int> pending_;
};

absl::StatusOr<std::unique_ptr<Listener>> ThreadedEnvironment::Listen(
    const ListenOptions& options) {
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<Listener> listener,
                        posix_.Listen(options));
  return std::make_unique<SharedListener>(std::move(listener));
}

absl::StatusOr<std::unique_ptr<Process>> ThreadedEnvironment::Fork(
    const ForkOptions&, absl::AnyInvocable<int()> child) {
  WARD_ASSIGN_OR_RETURN(Event ended, Event::Create());
  auto process = std::make_unique<ThreadedProcess>(*this, std::move(ended));
  WARD_RETURN_IF_ERROR(process->Start(std::move(child)));
  return process;
}

absl::StatusOr<std::unique_ptr<Process>> ThreadedEnvironment::Exec(
    const std::string& entry, ExecLinks links, ProcessGroup /*group*/) {
  WARD_ASSIGN_OR_RETURN(const ExecEntry main, FindExecEntry(entry));
  return Fork({}, [this, main, links = std::move(links)]() mutable {
    return main(*this, std::move(links));
  });
}

absl::StatusOr<std::unique_ptr<Process>> ThreadedEnvironment::AdoptProcess(
    FileDescriptor shared, uid_t /*user*/) {
  return std::make_unique<ThreadedProcess>(*this, Event(std::move(shared)));
}

absl::StatusOr<std::unique_ptr<Listener>> ThreadedEnvironment::AdoptListener(
    ListenerParts parts, uid_t user) {
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<Listener> listener,
                        posix_.AdoptListener(std::move(parts), user));
  return std::make_unique<SharedListener>(std::move(listener));
}

absl::StatusOr<std::unique_ptr<Signals>> ThreadedEnvironment::TakeSignals(
    const SignalPlan& plan) {
  WARD_RETURN_IF_ERROR(CheckSignalPlan(plan));
  WARD_ASSIGN_OR_RETURN(Event event, Event::Create());
  return std::make_unique<ThreadedSignals>(*this, plan, std::move(event));
}

absl::Status ThreadedEnvironment::Raise(int signal) {
  absl::MutexLock lock(&mutex_);
  if (signals_.size() != 1) {
    return absl::FailedPreconditionError(absl::StrCat(
        "signal ", signal, " is for one server, and ", signals_.size(),
        " take signals in this process; run this test in mode forked or "
        "simulated"));
  }
  return signals_.front()->Raise(signal);
}

}  // namespace ward::testing

// The operating system, but for processes: a fork is a thread.
//
// Servers that it starts run in the test's own process, over real sockets and
// in real time, where a debugger and sanitizers see both sides at once. Signals
// exist between the test and such a server alone. What takes a process of its
// own is refused with FailedPrecondition: to be killed.

#ifndef WARD_TESTING_SIMULATOR_THREADED_ENVIRONMENT_H_
#define WARD_TESTING_SIMULATOR_THREADED_ENVIRONMENT_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/log_severity.h"
#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"
#include "ward/server/confinement.h"
#include "ward/server/environment.h"
#include "ward/testing/simulator/exit_guard.h"

namespace ward::testing {

class ThreadedEnvironment final : public Environment {
 public:
  absl::Time TimeNow() override { return posix_.TimeNow(); }
  absl::StatusOr<std::unique_ptr<Thread>> StartThread(
      absl::AnyInvocable<void()> body) override {
    return posix_.StartThread(std::move(body));
  }
  void NameThread(const std::string& name) override { posix_.NameThread(name); }
  absl::StatusOr<std::unique_ptr<Listener>> Listen(
      const ListenOptions& options) override;
  absl::StatusOr<std::unique_ptr<Transport>> Connect(
      const std::string& path, absl::Time deadline) override {
    return posix_.Connect(path, deadline);
  }
  absl::StatusOr<
      std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>>>
  CreateTransportPair() override {
    return posix_.CreateTransportPair();
  }
  absl::StatusOr<size_t> Poll(absl::Span<const Pollable* const> polled,
                              absl::Time deadline) override {
    return posix_.Poll(polled, deadline);
  }
  absl::StatusOr<std::unique_ptr<PollSet>> CreatePollSet() override {
    return posix_.CreatePollSet();
  }
  absl::StatusOr<std::unique_ptr<Process>> Fork(
      const ForkOptions& options, absl::AnyInvocable<int()> child) override;
  absl::StatusOr<std::unique_ptr<Process>> Exec(const std::string& entry,
                                                ExecLinks links,
                                                ProcessGroup group) override;
  absl::StatusOr<FileDescriptor> Share(const Pollable& shared) override {
    return posix_.Share(shared);
  }
  absl::StatusOr<std::unique_ptr<Transport>> AdoptTransport(
      FileDescriptor shared) override {
    return posix_.AdoptTransport(std::move(shared));
  }
  absl::StatusOr<std::unique_ptr<Process>> AdoptProcess(FileDescriptor shared,
                                                        uid_t user) override;
  absl::StatusOr<std::unique_ptr<Listener>> AdoptListener(ListenerParts parts,
                                                          uid_t user) override;
  // The process is the test's.
  absl::Status Confine(const Confinement& /*confinement*/) override {
    return absl::OkStatus();
  }
  absl::StatusOr<uint64_t> SocketId(const Transport& transport) override {
    return posix_.SocketId(transport);
  }
  absl::StatusOr<std::vector<ProcessInfo>> Holders(
      uint64_t socket_id) override {
    return posix_.Holders(socket_id);
  }
  // A thread cannot be ended from outside: tests have Bazel's time limit.
  absl::Status SetProcessDeadline(absl::Duration) override {
    return absl::OkStatus();
  }
  absl::Status TieProcess(const Transport&, const Listener*) override {
    return absl::OkStatus();
  }
  absl::Status UntieProcess(const Transport&) override {
    return absl::OkStatus();
  }
  pid_t ProcessId() override { return posix_.ProcessId(); }
  int ForkGeneration() override { return posix_.ForkGeneration(); }
  uid_t UserId() override { return posix_.UserId(); }
  bool KnowsUser(uid_t user) override { return posix_.KnowsUser(user); }
  size_t MaxDescriptors() override { return posix_.MaxDescriptors(); }
  absl::StatusOr<std::unique_ptr<Signals>> TakeSignals(
      const SignalPlan& plan) override;
  void Log(absl::LogSeverity severity, std::string_view line) override {
    posix_.Log(severity, line);
  }

  // Sends `signal` to the server that takes signals, of which there is one.
  absl::Status Raise(int signal);

 private:
  friend class ThreadedSignals;

  const ExitGuard guard_;
  Environment& posix_ = Environment::Posix();
  absl::Mutex mutex_;
  std::vector<class ThreadedSignals*> signals_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_THREADED_ENVIRONMENT_H_

// An Environment that writes down what goes through it, for the transcript of a
// test that fails: see transcript.h.
//
// The process that made it sees its own calls: whom it starts, how they end,
// what it says on its connections and is told, both ways. That is all there is
// between a server, its owner and its clients, so that the same test has the
// same transcript here as in a simulation, but for the times. In a child that
// was forked it records nothing.

#ifndef WARD_TESTING_REPORT_RECORDING_ENVIRONMENT_H_
#define WARD_TESTING_REPORT_RECORDING_ENVIRONMENT_H_

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
#include "absl/container/btree_map.h"
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
#include "ward/testing/report/transcript.h"

namespace ward::testing {

class RecordingEnvironment final : public Environment {
 public:
  // `real` is borrowed: Posix(), or one whose descriptors are real as well.
  explicit RecordingEnvironment(Environment& real);

  // --- Environment ---

  absl::Time TimeNow() override { return real_.TimeNow(); }
  absl::StatusOr<std::unique_ptr<Thread>> StartThread(
      absl::AnyInvocable<void()> body) override {
    return real_.StartThread(std::move(body));
  }
  void NameThread(const std::string& name) override { real_.NameThread(name); }
  absl::StatusOr<std::unique_ptr<Listener>> Listen(
      const ListenOptions& options) override;
  absl::StatusOr<std::unique_ptr<Transport>> Connect(
      const std::string& path, absl::Time deadline) override;
  absl::StatusOr<
      std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>>>
  CreateTransportPair() override;
  absl::StatusOr<size_t> Poll(absl::Span<const Pollable* const> polled,
                              absl::Time deadline) override {
    return real_.Poll(polled, deadline);
  }
  absl::StatusOr<std::unique_ptr<PollSet>> CreatePollSet() override {
    return real_.CreatePollSet();
  }
  absl::StatusOr<std::unique_ptr<Process>> Fork(
      const ForkOptions& options, absl::AnyInvocable<int()> child) override;
  absl::StatusOr<std::unique_ptr<Process>> Exec(const std::string& entry,
                                                ExecLinks links,
                                                ProcessGroup group) override;
  absl::StatusOr<std::unique_ptr<Zygote>> StartZygote() override;
  absl::Status TieProcess(const Transport& end,
                          const Listener* listener) override {
    return real_.TieProcess(end, listener);
  }
  absl::Status UntieProcess(const Transport& end) override {
    return real_.UntieProcess(end);
  }
  absl::Status SetProcessDeadline(absl::Duration left) override {
    return real_.SetProcessDeadline(left);
  }
  absl::StatusOr<FileDescriptor> Share(const Pollable& shared) override {
    return real_.Share(shared);
  }
  absl::StatusOr<std::unique_ptr<Transport>> AdoptTransport(
      FileDescriptor shared) override {
    return real_.AdoptTransport(std::move(shared));
  }
  absl::StatusOr<std::unique_ptr<Process>> AdoptProcess(FileDescriptor shared,
                                                        uid_t user) override {
    return real_.AdoptProcess(std::move(shared), user);
  }
  absl::StatusOr<std::unique_ptr<Listener>> AdoptListener(ListenerParts parts,
                                                          uid_t user) override {
    return real_.AdoptListener(std::move(parts), user);
  }
  absl::Status Confine(const Confinement& confinement) override {
    return real_.Confine(confinement);
  }
  absl::StatusOr<uint64_t> SocketId(const Transport& transport) override {
    return real_.SocketId(transport);
  }
  absl::StatusOr<std::vector<ProcessInfo>> Holders(
      uint64_t socket_id) override {
    return real_.Holders(socket_id);
  }
  pid_t ProcessId() override { return real_.ProcessId(); }
  int ForkGeneration() override { return real_.ForkGeneration(); }
  uid_t UserId() override { return real_.UserId(); }
  bool KnowsUser(uid_t user) override { return real_.KnowsUser(user); }
  size_t MaxDescriptors() override { return real_.MaxDescriptors(); }
  absl::StatusOr<std::unique_ptr<Signals>> TakeSignals(
      const SignalPlan& plan) override {
    return real_.TakeSignals(plan);
  }
  void Log(absl::LogSeverity severity, std::string_view line) override {
    real_.Log(severity, line);
  }

  // --- for tests ---

  // The process that was started last as `pid` gets a signal from elsewhere.
  void NoteSignal(pid_t pid, int signal);

  // So far; while nothing goes on.
  const Transcript& transcript() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return transcript_;
  }

  // Where a descriptor of this process's came from, as far as it came through
  // here; empty otherwise.
  std::string OriginOf(int descriptor) const;

 private:
  friend class RecordingTransport;
  friend class RecordingProcess;
  friend class RecordingZygote;

  // In the transcript processes are numbered as in a simulation: the test is 1.
  static constexpr pid_t kTest = 1;

  // Who is at the other end. Of a pair, the process that is started next.
  using Peer = std::shared_ptr<pid_t>;

  bool records() const { return real_.ForkGeneration() == recorded_; }
  std::unique_ptr<Transport> Record(std::unique_ptr<Transport> transport,
                                    Peer peer, std::string origin)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::unique_ptr<Process> Started(std::unique_ptr<Process> process,
                                   std::string_view name);

  Environment& real_;
  const int recorded_;  // The ForkGeneration of the test's process.
  mutable absl::Mutex mutex_;
  Transcript transcript_ ABSL_GUARDED_BY(mutex_);
  pid_t last_ ABSL_GUARDED_BY(mutex_) = kTest;
  int last_stream_ ABSL_GUARDED_BY(mutex_) = 0;
  // By the paths of their sockets, and by their real numbers.
  absl::btree_map<std::string, Peer> servers_ ABSL_GUARDED_BY(mutex_);
  absl::btree_map<pid_t, pid_t> numbers_ ABSL_GUARDED_BY(mutex_);
  // Of the process that comes next.
  std::vector<Peer> expected_ ABSL_GUARDED_BY(mutex_);
  absl::btree_map<int, std::string> origins_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ward::testing

#endif  // WARD_TESTING_REPORT_RECORDING_ENVIRONMENT_H_

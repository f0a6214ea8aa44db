// An Environment in memory: sockets, processes, signals and time that exist in
// this process alone, on the threads of a Scheduler.
//
// Processes share their memory, which real ones do not: a server and its owner
// use the same object. What a fork copies and an exit gives back is the
// kernel's part: descriptors, signals, threads. A process that is killed stops
// where it is, with whatever locks it held.

#ifndef WARD_TESTING_SIMULATOR_SIMULATED_ENVIRONMENT_H_
#define WARD_TESTING_SIMULATOR_SIMULATED_ENVIRONMENT_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/log_severity.h"
#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"
#include "ward/server/confinement.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/server/process.h"
#include "ward/server/signals.h"
#include "ward/testing/report/transcript.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/simulated_socket.h"

namespace ward::testing {

struct SimulationFaults {
  // Calls may fail as the kernel's do: interrupted, cut short, out of
  // descriptors or memory, connections reset.
  bool faults = false;

  // At each of its calls, a process other than the first may be killed.
  bool deaths = false;
};

// Thread-safe within the schedule.
class SimulatedEnvironment final : public Environment {
 public:
  // The process that the test runs in.
  static constexpr pid_t kTestProcess = 1;

  // All three are borrowed; `transcript` is written to.
  SimulatedEnvironment(Scheduler& scheduler, SimulationFaults faults,
                       Transcript& transcript);
  ~SimulatedEnvironment() override;

  // --- Environment ---

  absl::Time TimeNow() override;
  absl::StatusOr<std::unique_ptr<Thread>> StartThread(
      absl::AnyInvocable<void()> body) override;
  // Its threads have the names that reports give them.
  void NameThread(const std::string& /*name*/) override {}
  absl::StatusOr<std::unique_ptr<Listener>> Listen(
      const ListenOptions& options) override;
  absl::StatusOr<std::unique_ptr<Transport>> Connect(
      const std::string& path, absl::Time deadline) override;
  absl::StatusOr<
      std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>>>
  CreateTransportPair() override;
  absl::StatusOr<size_t> Poll(absl::Span<const Pollable* const> polled,
                              absl::Time deadline) override;
  absl::StatusOr<std::unique_ptr<PollSet>> CreatePollSet() override;
  absl::StatusOr<std::unique_ptr<Process>> Fork(
      const ForkOptions& options, absl::AnyInvocable<int()> child) override;
  absl::StatusOr<std::unique_ptr<Process>> Exec(const std::string& entry,
                                                ExecLinks links,
                                                ProcessGroup group) override;
  absl::Status TieProcess(const Transport& end,
                          const Listener* listener) override;
  absl::Status UntieProcess(const Transport& end) override;
  absl::Status SetProcessDeadline(absl::Duration left) override;
  absl::StatusOr<FileDescriptor> Share(const Pollable& shared) override;
  absl::StatusOr<std::unique_ptr<Transport>> AdoptTransport(
      FileDescriptor shared) override;
  absl::StatusOr<std::unique_ptr<Process>> AdoptProcess(FileDescriptor shared,
                                                        uid_t user) override;
  absl::StatusOr<std::unique_ptr<Listener>> AdoptListener(ListenerParts parts,
                                                          uid_t user) override;
  // The process is the test's.
  absl::Status Confine(const Confinement& /*confinement*/) override {
    return absl::OkStatus();
  }
  absl::StatusOr<uint64_t> SocketId(const Transport& transport) override;
  absl::StatusOr<std::vector<ProcessInfo>> Holders(uint64_t socket_id) override;
  pid_t ProcessId() override;
  // No two have one number.
  int ForkGeneration() override { return ProcessId(); }
  uid_t UserId() override;
  bool KnowsUser(uid_t /*user*/) override { return true; }
  // What most systems say, on every machine.
  size_t MaxDescriptors() override { return 1024; }
  absl::StatusOr<std::unique_ptr<Signals>> TakeSignals(
      const SignalPlan& plan) override;
  void Log(absl::LogSeverity severity, std::string_view line) override;

  // --- for tests ---

  // As kill(2), but for SIGSTOP: a simulated process cannot be stopped.
  void Raise(pid_t pid, int signal);

  // The same for all processes of the process group that `pid` is in, as the
  // terminal does.
  void RaiseInGroupOf(pid_t pid, int signal);

  // Waits until all children of `process`, theirs, and so on, have ended.
  void AwaitDescendants(pid_t process);

  // Sets the calling process's user, as setuid(2).
  void SetUser(uid_t user);

  // The calling process has no more than `limit` threads from now on, as with
  // setrlimit(2), RLIMIT_NPROC.
  void LimitThreads(size_t limit);

  // Removes a socket's name, as unlink(2).
  void Unlink(const std::string& path);

  bool IsAlive(pid_t process) const;

  // What the test process has open, who else runs, and which sockets' names are
  // left that not all of their users have died over: a line each.
  std::vector<std::string> Leftovers();

  // What was logged.
  const std::vector<std::string>& log() const { return log_; }

 private:
  friend class SimulatedTransport;
  friend class SimulatedListener;
  friend class SimulatedPollSet;
  friend class SimulatedProcess;
  friend class SimulatedSignals;
  friend class SimulatedThread;

  struct ListenSocket {
    // Whether clients of this user may connect.
    bool Admits(uid_t user) const;

    std::string path;
    mode_t mode = 0;
    bool private_directory = false;
    // Who made it, which is what its clients are told (unix(7), SO_PEERCRED).
    PeerCredentials owner;
    std::deque<std::shared_ptr<SimulatedSocket>> queue;
    bool stopped = false;  // Nobody can connect any more.
    bool shut = false;     // Nobody has it open.
    absl::btree_set<pid_t> holders;
    // How many threads of each process are about to accept, which has it open
    // until they have; and the processes that accept no more.
    absl::btree_map<pid_t, int> accepting;
    absl::btree_set<pid_t> stopped_in;
    // All that ever had it.
    absl::btree_set<pid_t> users;
  };

  struct ProcessState {
    pid_t pid;
    pid_t parent;
    std::string name;
    uid_t user;
    std::optional<ProcessExit> exit = std::nullopt;
    bool reaped = false;
    // Signals that came while they were blocked, or are to be received.
    absl::btree_set<int> pending = {};
    bool blocked = false;
    std::optional<SignalPlan> plan = std::nullopt;
    // See TieProcess; null if it is not tied, or leaves no name.
    std::shared_ptr<SimulatedSocket> tied_to = nullptr;
    std::shared_ptr<ListenSocket> tied_name = nullptr;
    // The number of its process group.
    pid_t group = 0;
    size_t most_threads = SIZE_MAX;
    // Was started by exec: its memory is its own. When it is killed, the real
    // descriptors that it was given, and has open, are closed: their numbers,
    // and what they are.
    bool execed = false;
    absl::btree_map<int, uint64_t> descriptors = {};
  };

  // What was shared: a real descriptor stands for something simulated, as long
  // as it is open anywhere. It is the reading end of a pipe; that nobody has it
  // any more is seen at the other end.
  struct Token {
    FileDescriptor watch;
    int number = 0;
    std::shared_ptr<SimulatedSocket> socket;
    std::shared_ptr<ListenSocket> listener;
    // The listening socket, and not only its name.
    bool holds_listener = false;
    pid_t process = 0;
  };
  absl::StatusOr<FileDescriptor> MakeToken(Token token);
  // By the number of the pipe that `descriptor` belongs to; null if none does.
  const Token* FindToken(const FileDescriptor& descriptor) const;
  // Forgets those that nobody has any more.
  void SweepTokens();

  // Has the kernel make the table of descriptors as large as Own() needs it.
  static void EnlargeDescriptorTable();
  // Notes that this process was given a real descriptor, and may give it
  // another number.
  void Own(FileDescriptor& descriptor);

  ProcessState& Self() { return processes_.at(ProcessId()); }

  // Before each call: another thread may go on first, and this process may die.
  // If it is about nothing but a connection, that is SimulatedSocket's; or
  // null.
  void Step(std::string_view doing, const void* connection = nullptr);
  // After what others may have seen (Scheduler::PointAfter); not by one that is
  // in no simulation any more.
  void StepAfter(std::string_view done);
  // One of `errors` if it is to happen now, or 0.
  int Fault(std::initializer_list<int> errors);

  std::unique_ptr<Transport> Wrap(std::shared_ptr<SimulatedSocket> socket,
                                  std::string origin);
  // Gives back one hold on a socket, or on a listener all that there are; it is
  // closed with the last one of anybody's.
  void Release(SimulatedSocket& socket, pid_t holder);
  void Release(ListenSocket& socket, pid_t holder);
  // What is sent there, for the transcript: half of it is the connection's
  // number, which are in the order in which somebody first sends.
  int StreamOf(const SimulatedSocket& socket);
  void CloseIfUnheld(SimulatedSocket& socket);
  // Ends the processes that are tied to a socket which is readable by now.
  void EndTied();
  void CloseIfUnheld(ListenSocket& socket);
  void RemoveName(const std::shared_ptr<ListenSocket>& socket);
  pid_t NewProcess(std::string name, ProcessGroup group);
  void StartMain(pid_t pid, absl::AnyInvocable<int()> child);
  void AwaitOtherThreads(pid_t pid);
  void End(pid_t pid, ProcessExit exit);
  void Deliver(ProcessState& process, int signal);
  size_t OtherThreads(pid_t pid) const;

  Scheduler& scheduler_;
  const SimulationFaults faults_;
  Transcript& transcript_;
  // Not a btree_map: a SimulatedProcess refers to its element.
  std::map<pid_t, ProcessState> processes_;
  absl::btree_map<std::string, std::shared_ptr<ListenSocket>> names_;
  // By the numbers that stand for descriptors.
  absl::btree_map<int, std::shared_ptr<SimulatedSocket>> sockets_;
  absl::btree_map<int, std::shared_ptr<ListenSocket>> listeners_;
  // By the numbers of their pipes.
  absl::btree_map<uint64_t, Token> tokens_;
  int next_number_;
  int next_path_ = 1;
  int connections_ = 0;
  std::vector<std::string> log_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_SIMULATED_ENVIRONMENT_H_

// The part of SimulatedEnvironment that is about processes: their life, what
// goes from one to another, signals, and what they leave behind.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/exec_entry.h"
#include "ward/server/listener.h"
#include "ward/server/process.h"
#include "ward/server/signals.h"
#include "ward/testing/report/transcript.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/simulated_environment.h"
#include "ward/testing/simulator/simulated_handles.h"
#include "ward/testing/simulator/simulated_socket.h"
#include "ward/testing/simulator/thread_exit.h"

namespace ward::testing {
namespace {

// From here on the descriptors of processes that were started by exec have
// their numbers: the test's own do not come that far.
constexpr int kFirstOfExeced = 512;

// 0 if it is not open.
uint64_t InodeOf(int descriptor) {
  struct stat found;
  return fstat(descriptor, &found) == 0 ? found.st_ino : 0;
}

// One of the holds that `from` has becomes `to`'s.
void MoveHold(SimulatedSocket& socket, pid_t from, pid_t to) {
  const auto held = socket.holders.find(from);
  if (held != socket.holders.end() && --held->second == 0) {
    socket.holders.erase(held);
  }
  ++socket.holders[to];
}

}  // namespace

// --- processes ---

pid_t SimulatedEnvironment::NewProcess(std::string name, ProcessGroup group) {
  const pid_t pid = processes_.rbegin()->first + 1;
  transcript_.Name(pid, name);
  transcript_.Arrow(scheduler_.now(), ProcessId(), pid, "forks");
  ProcessState& made =
      processes_
          .emplace(pid,
                   ProcessState{pid, ProcessId(), std::move(name), UserId()})
          .first->second;
  made.group = group == ProcessGroup::kOwn ? pid : Self().group;
  return pid;
}

void SimulatedEnvironment::StartMain(pid_t pid,
                                     absl::AnyInvocable<int()> child) {
  scheduler_.Start("main", pid,
                   [this, pid, child = std::move(child)]() mutable {
                     int code = 0;
                     bool has_exited = true;
                     CallUntilExit([&]() -> void* {
                       code = child();
                       has_exited = false;
                       return nullptr;
                     });
                     // The last thread ends it (pthread_exit(3)).
                     if (has_exited) AwaitOtherThreads(pid);
                     child = nullptr;
                     // All that _exit(2) lets a parent see.
                     End(pid, {ProcessExit::Kind::kExited, code & 0xff});
                   });
}

void SimulatedEnvironment::AwaitOtherThreads(pid_t pid) {
  scheduler_.BlockUntil(
      "waiting for the other threads of its process, by pthread_exit(3)",
      [&] { return OtherThreads(pid) == 0; }, absl::InfiniteFuture());
}

absl::StatusOr<std::unique_ptr<Process>> SimulatedEnvironment::Fork(
    const ForkOptions& options, absl::AnyInvocable<int()> child) {
  const NoSchedulingPoints quiet;
  Step("forking");
  const auto others = static_cast<int>(OtherThreads(ProcessId()));
  if (others > 0 && !options.allow_threads) return ForkWithThreadsError(others);
  if (const int fault = Fault({EAGAIN, ENOMEM})) {
    return SystemError(fault, "fork");
  }
  const pid_t parent = ProcessId();
  const pid_t pid = NewProcess(options.keep_all_open ? "fork" : "server",
                               options.process_group);
  const auto has = [](const std::vector<int>& numbers, int number) {
    return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
  };
  const auto keeps = [&](int number) { return has(options.keep_open, number); };
  for (const auto& [number, socket] : sockets_) {
    if (has(options.close, number)) continue;
    // `child` owns it: the caller's copy is closed with its copy of `child`.
    if (keeps(number)) {
      MoveHold(*socket, parent, pid);
    } else if (options.keep_all_open && socket->holders.contains(parent)) {
      socket->holders.emplace(pid, 1);
    }
  }
  for (const auto& [number, socket] : listeners_) {
    if (keeps(number) ||
        (options.keep_all_open && socket->holders.contains(parent))) {
      socket->holders.insert(pid);
      socket->users.insert(pid);
    }
  }
  processes_.at(pid).blocked = true;
  auto process = std::make_unique<SimulatedProcess>(*this, pid);
  StartMain(pid, std::move(child));
  return process;
}

void SimulatedEnvironment::End(pid_t pid, ProcessExit exit) {
  const NoSchedulingPoints quiet;
  ProcessState& process = processes_.at(pid);
  if (process.exit.has_value()) return;
  process.exit = exit;
  Order::Release(&process);
  process.tied_to = nullptr;
  process.tied_name = nullptr;
  if (process.execed && exit.kind == ProcessExit::Kind::kSignaled) {
    for (const auto& [descriptor, inode] : process.descriptors) {
      if (InodeOf(descriptor) == inode) close(descriptor);
    }
  }
  transcript_.Event(scheduler_.now(), pid, exit.ToString());
  scheduler_.Kill(pid, exit.kind == ProcessExit::Kind::kExited);
  for (const auto& [number, socket] : sockets_) {
    socket->holders.erase(pid);
    CloseIfUnheld(*socket);
  }
  for (const auto& [number, socket] : listeners_) {
    socket->accepting.erase(pid);
    Release(*socket, pid);
  }
  SweepTokens();
}

absl::StatusOr<std::unique_ptr<Process>> SimulatedEnvironment::Exec(
    const std::string& entry, ExecLinks links, ProcessGroup group) {
  const NoSchedulingPoints quiet;
  Step("starting a program");
  if (const int fault = Fault({EAGAIN, ENOMEM})) {
    return SystemError(fault, "start the server's program");
  }
  WARD_ASSIGN_OR_RETURN(const ExecEntry main, FindExecEntry(entry));
  const pid_t pid = NewProcess("server", group);
  const auto inherit = [&](Transport& link) {
    const auto& socket = dynamic_cast<SimulatedTransport&>(link).socket();
    MoveHold(*socket, ProcessId(), pid);
    return socket;
  };
  inherit(*links.hand_over);
  ProcessState& state = processes_.at(pid);
  state.tied_to = inherit(*links.owner);
  state.blocked = true;
  state.execed = true;
  auto process = std::make_unique<SimulatedProcess>(*this, pid);
  StartMain(pid, [this, main, links = std::move(links)]() mutable {
    return main(*this, std::move(links));
  });
  return process;
}

absl::Status SimulatedEnvironment::TieProcess(const Transport& end,
                                              const Listener* listener) {
  const NoSchedulingPoints quiet;
  ProcessState& self = Self();
  self.tied_to = dynamic_cast<const SimulatedTransport&>(end).socket();
  if (listener != nullptr) {
    self.tied_name = dynamic_cast<const SimulatedListener&>(*listener).named();
  }
  EndTied();
  scheduler_.LeaveIfKilled();
  return absl::OkStatus();
}

absl::Status SimulatedEnvironment::UntieProcess(const Transport& /*end*/) {
  ProcessState& self = Self();
  self.tied_to = nullptr;
  self.tied_name = nullptr;
  return absl::OkStatus();
}

void SimulatedEnvironment::EndTied() {
  for (auto& [pid, process] : processes_) {
    if (process.tied_to == nullptr || !process.tied_to->Readable()) continue;
    // Nobody hears of what comes to an end that is closed itself.
    const bool hears = !process.tied_to->closed();
    process.tied_to = nullptr;
    if (!hears) continue;
    if (process.tied_name != nullptr) RemoveName(process.tied_name);
    End(pid, {ProcessExit::Kind::kSignaled, SIGKILL});
  }
}

// --- from process to process ---

absl::StatusOr<FileDescriptor> SimulatedEnvironment::MakeToken(Token token) {
  std::array<int, 2> ends;
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return SystemError(errno, "make what stands for a simulated descriptor");
  }
  FileDescriptor shared(ends[0]);
  token.watch.Reset(ends[1]);
  tokens_.emplace(InodeOf(shared.get()), std::move(token));
  Own(shared);
  return shared;
}

const SimulatedEnvironment::Token* SimulatedEnvironment::FindToken(
    const FileDescriptor& descriptor) const {
  const auto found = tokens_.find(InodeOf(descriptor.get()));
  return found == tokens_.end() ? nullptr : &found->second;
}

void SimulatedEnvironment::SweepTokens() {
  const NoSchedulingPoints quiet;
  for (auto entry = tokens_.begin(); entry != tokens_.end();) {
    pollfd polled{entry->second.watch.get(), 0, 0};
    if (poll(&polled, 1, 0) <= 0) {
      ++entry;
      continue;
    }
    const Token token = std::move(entry->second);
    entry = tokens_.erase(entry);
    if (token.socket != nullptr) CloseIfUnheld(*token.socket);
    if (token.holds_listener) CloseIfUnheld(*token.listener);
  }
}

void SimulatedEnvironment::EnlargeDescriptorTable() {
  // Once a process has threads, the kernel waits for all of the machine's
  // processors when it does so (expand_fdtable, synchronize_rcu): some 15 ms,
  // and once more than the watchdog allows. A table does not become smaller
  // again, but a fork's is as small as it can be.
  static pid_t enlarged_in = 0;
  if (std::exchange(enlarged_in, getpid()) == enlarged_in) return;
  const FileDescriptor last(
      fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, kFirstOfExeced));
}

void SimulatedEnvironment::Own(FileDescriptor& descriptor) {
  ProcessState& self = Self();
  if (!self.execed) return;
  // Where the table is small they stay where they are.
  FileDescriptor moved(
      fcntl(descriptor.get(), F_DUPFD_CLOEXEC, kFirstOfExeced));
  if (moved.is_open()) descriptor = std::move(moved);
  // Whoever had this number has closed it.
  for (auto& [pid, process] : processes_) {
    process.descriptors.erase(descriptor.get());
  }
  self.descriptors.emplace(descriptor.get(), InodeOf(descriptor.get()));
}

absl::StatusOr<FileDescriptor> SimulatedEnvironment::Share(
    const Pollable& shared) {
  const NoSchedulingPoints quiet;
  Step("sharing a descriptor");
  if (const int fault = Fault({EMFILE})) {
    return SystemError(fault, "duplicate a descriptor");
  }
  Token token;
  if (const auto* transport =
          dynamic_cast<const SimulatedTransport*>(&shared)) {
    token.number = transport->descriptor();
    token.socket = transport->socket();
  } else if (const auto* process =
                 dynamic_cast<const SimulatedProcess*>(&shared)) {
    token.process = process->pid();
  } else {
    return absl::FailedPreconditionError(
        "only a connection and a process can be shared");
  }
  return MakeToken(std::move(token));
}

absl::StatusOr<std::unique_ptr<Transport>> SimulatedEnvironment::AdoptTransport(
    FileDescriptor shared) {
  const NoSchedulingPoints quiet;
  Step("adopting a connection");
  const Token* const token = FindToken(shared);
  if (token == nullptr || token->socket == nullptr || !token->socket->of_pair) {
    return MakeError(reason::kInvalidArguments,
                     "the descriptor that came is no socket of a pair");
  }
  std::shared_ptr<SimulatedSocket> socket = token->socket;
  const int number = token->number;
  ++socket->holders[ProcessId()];
  sockets_.emplace(number, socket);
  return std::make_unique<SimulatedTransport>(*this, number, std::move(socket));
}

absl::StatusOr<std::unique_ptr<Process>> SimulatedEnvironment::AdoptProcess(
    FileDescriptor shared, uid_t user) {
  const NoSchedulingPoints quiet;
  Step("adopting a process");
  const Token* const token = FindToken(shared);
  if (token == nullptr || token->process == 0 ||
      (user != 0 && processes_.at(token->process).user != user)) {
    return MakeError(reason::kInvalidArguments,
                     absl::StrCat("the descriptor that came is that of no "
                                  "process of user ",
                                  user));
  }
  return std::make_unique<SimulatedProcess>(*this, token->process,
                                            /*adopted=*/true);
}

absl::StatusOr<std::unique_ptr<Listener>> SimulatedEnvironment::AdoptListener(
    ListenerParts parts, uid_t user) {
  const NoSchedulingPoints quiet;
  Step("adopting a listener");
  const Token* const token =
      FindToken(parts.socket.is_open() ? parts.socket : parts.name);
  if (token == nullptr || token->listener == nullptr ||
      (user != 0 && token->listener->owner.uid != user)) {
    return MakeError(reason::kInvalidArguments,
                     absl::StrCat("the descriptor that came for \"", parts.path,
                                  "\" is no listener of user ", user));
  }
  std::shared_ptr<ListenSocket> socket = token->listener;
  if (parts.socket.is_open()) {
    socket->holders.insert(ProcessId());
    socket->stopped_in.erase(ProcessId());
  }
  socket->users.insert(ProcessId());
  const int number = next_number_++;
  listeners_.emplace(number, socket);
  return std::make_unique<SimulatedListener>(
      *this, number, std::move(socket), parts.name.is_open(), user != UserId());
}

absl::StatusOr<uint64_t> SimulatedEnvironment::SocketId(
    const Transport& transport) {
  return static_cast<uint64_t>(transport.descriptor());
}

absl::StatusOr<std::vector<ProcessInfo>> SimulatedEnvironment::Holders(
    uint64_t socket_id) {
  const NoSchedulingPoints quiet;
  Step("looking who has a connection open");
  std::vector<ProcessInfo> holders;
  const auto socket = sockets_.find(static_cast<int>(socket_id));
  if (socket == sockets_.end()) return holders;
  for (const auto& [pid, count] : socket->second->holders) {
    holders.push_back({pid, processes_.at(pid).name});
  }
  return holders;
}

absl::Status SimulatedEnvironment::SetProcessDeadline(absl::Duration left) {
  const NoSchedulingPoints quiet;
  const pid_t pid = ProcessId();
  // Never at once: a timer of no time is one of a moment (timer_settime(2)).
  const absl::Time end =
      scheduler_.now() + std::max(left, absl::Nanoseconds(1));
  scheduler_.SetTimer(pid, end, [this, pid] {
    End(pid, {ProcessExit::Kind::kSignaled, SIGKILL});
  });
  return absl::OkStatus();
}

void SimulatedEnvironment::AwaitDescendants(pid_t process) {
  const auto descends = [this, process](pid_t pid) {
    while (pid != process && pid != 0) pid = processes_.at(pid).parent;
    return pid == process;
  };
  scheduler_.BlockUntil(
      "waiting for orphans to end",
      [&] {
        return std::none_of(
            processes_.begin(), processes_.end(), [&](const auto& entry) {
              return !entry.second.exit.has_value() && descends(entry.first);
            });
      },
      absl::InfiniteFuture());
}

bool SimulatedEnvironment::IsAlive(pid_t process) const {
  const NoSchedulingPoints quiet;
  const auto found = processes_.find(process);
  return found != processes_.end() && !found->second.exit.has_value();
}

// --- signals ---

absl::StatusOr<std::unique_ptr<Signals>> SimulatedEnvironment::TakeSignals(
    const SignalPlan& plan) {
  const NoSchedulingPoints quiet;
  Step("taking over the signals");
  WARD_RETURN_IF_ERROR(CheckSignalPlan(plan));
  ProcessState& process = Self();
  if (process.plan.has_value()) return SignalsTakenError();
  process.plan = plan;
  auto signals = std::make_unique<SimulatedSignals>(*this, process.pid);
  const absl::btree_set<int> pending = std::exchange(process.pending, {});
  for (const int signal : pending) Deliver(process, signal);
  scheduler_.LeaveIfKilled();
  return signals;
}

void SimulatedEnvironment::Raise(pid_t pid, int signal) {
  const NoSchedulingPoints quiet;
  ProcessState& process = processes_.at(pid);
  // 0 only asks whether it may be sent.
  if (process.exit.has_value() || signal == 0) return;
  transcript_.Signal(scheduler_.now(), pid, signal);
  Order::Release(&process);
  if (signal == SIGKILL) {
    End(pid, {ProcessExit::Kind::kSignaled, signal});
  } else if (process.blocked) {
    process.pending.insert(signal);
  } else {
    Deliver(process, signal);
  }
  scheduler_.LeaveIfKilled();
}

void SimulatedEnvironment::RaiseInGroupOf(pid_t pid, int signal) {
  const pid_t group = processes_.at(pid).group;
  for (const auto& [member, process] : processes_) {
    if (process.group == group) Raise(member, signal);
  }
}

void SimulatedEnvironment::Deliver(ProcessState& process, int signal) {
  const auto has = [signal](const std::vector<int>& signals) {
    return std::find(signals.begin(), signals.end(), signal) != signals.end();
  };
  if (process.plan.has_value()) {
    if (has(process.plan->receive)) {
      process.pending.insert(signal);
      return;
    }
    if (has(process.plan->ignore)) return;
  }
  // The defaults of signal(7); none stops or continues a process here.
  constexpr std::array<int, 7> kIgnored = {SIGCHLD, SIGURG,  SIGWINCH, SIGCONT,
                                           SIGTSTP, SIGTTIN, SIGTTOU};
  if (std::find(kIgnored.begin(), kIgnored.end(), signal) != kIgnored.end()) {
    return;
  }
  End(process.pid, {ProcessExit::Kind::kSignaled, signal});
}

// --- teardown ---

std::vector<std::string> SimulatedEnvironment::Leftovers() {
  const NoSchedulingPoints quiet;
  SweepTokens();
  std::vector<std::string> left;
  for (const auto& [number, socket] : sockets_) {
    if (socket->holders.contains(kTestProcess)) {
      left.push_back(
          absl::StrCat("a connection is still open: ", socket->origin));
    }
  }
  for (const auto& [number, socket] : listeners_) {
    if (socket->holders.contains(kTestProcess)) {
      left.push_back(absl::StrCat("a listener is still open: ", socket->path));
    }
  }
  for (const auto& [pid, process] : processes_) {
    if (pid == kTestProcess) continue;
    if (!process.exit.has_value()) {
      left.push_back(absl::StrCat(
          "process ", pid, " (", process.name, ") is still running: ",
          absl::StrJoin(scheduler_.LiveThreads(pid), ", ")));
    } else if (process.parent == kTestProcess && !process.reaped) {
      left.push_back(absl::StrCat("process ", pid, " (", process.name,
                                  ") was not waited for: it ",
                                  process.exit->ToString()));
    }
  }
  const std::vector<std::string> threads = scheduler_.LiveThreads(kTestProcess);
  for (size_t i = 1; i < threads.size(); ++i) {
    left.push_back(absl::StrCat("a thread is still running: ", threads[i]));
  }
  for (const auto& [path, socket] : names_) {
    const bool all_killed = std::all_of(
        socket->users.begin(), socket->users.end(), [this](pid_t pid) {
          const auto& exit = processes_.at(pid).exit;
          return exit.has_value() && exit->kind == ProcessExit::Kind::kSignaled;
        });
    if (all_killed) continue;
    left.push_back(absl::StrCat("a socket's name is left: ", path));
  }
  if (processes_.at(kTestProcess).plan.has_value()) {
    left.emplace_back("the test's signals were not given back");
  }
  return left;
}

}  // namespace ward::testing

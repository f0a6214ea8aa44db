#include "ward/testing/simulated_environment.h"

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
#include <cstring>
#include <deque>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/exec_entry.h"
#include "ward/testing/scheduler.h"
#include "ward/testing/simulated_socket.h"
#include "ward/testing/transcript.h"

namespace ward::testing {
namespace {

// Numbers that no real descriptor has.
constexpr int kFirstNumber = 1 << 24;

// As of the real listener, see posix_listener.cc; the kernel lets one more in.
constexpr size_t kQueueLength = 128 + 1;

// As of the real one: what is left of sun_path for a name in a directory that
// is reached through /proc/self/fd.
constexpr size_t kLongestName = 80;

// From here on the descriptors of processes that were started by exec have
// their numbers: the test's own do not come that far.
constexpr int kFirstOfExeced = 512;

absl::Status CheckName(const std::string& path) {
  const size_t size = path.size() - (path.rfind('/') + 1);
  if (size <= kLongestName) return absl::OkStatus();
  return MakeError(
      reason::kPathTooLong,
      absl::StrCat("the socket's file name in \"", path, "\" has ", size,
                   " bytes, over the ", kLongestName, " that fit"));
}

// All processes have the same working directory.
std::string Absolute(std::string_view path) {
  return absl::StartsWith(path, "/") ? std::string(path)
                                     : absl::StrCat("/simulated/", path);
}

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

// What Poll can wait for.
class Readiness {
 public:
  virtual ~Readiness() = default;
  virtual bool Readable() const = 0;
  // Otherwise its descriptor is -1, which poll(2) ignores.
  virtual bool IsOpen() const { return true; }
};

}  // namespace

class SimulatedThread final : public Thread {
 public:
  SimulatedThread(SimulatedEnvironment& environment, int id)
      : environment_(environment), id_(id) {}
  ~SimulatedThread() override { environment_.scheduler_.Join(id_); }

 private:
  SimulatedEnvironment& environment_;
  const int id_;
};

class SimulatedTransport final : public Transport, public Readiness {
 public:
  SimulatedTransport(SimulatedEnvironment& environment, int number,
                     std::shared_ptr<SimulatedSocket> socket)
      : environment_(environment),
        number_(number),
        socket_(std::move(socket)) {}

  ~SimulatedTransport() override {
    const NoBranchPoints quiet;
    environment_.Release(*socket_, environment_.ProcessId());
    if (socket_->holders.empty()) environment_.sockets_.erase(number_);
  }

  int descriptor() const override { return number_; }
  bool Readable() const override {
    environment_.SweepTokens();
    return socket_->Readable();
  }
  const std::shared_ptr<SimulatedSocket>& socket() const { return socket_; }

  absl::StatusOr<size_t> Send(std::string_view bytes,
                              absl::Span<const int> descriptors,
                              absl::Time deadline) override {
    const NoBranchPoints quiet;
    constexpr std::string_view kAttempt = "send to the peer";
    environment_.Step("sending");
    if (descriptors.size() > kMaxDescriptorsPerMessage) {
      return TooManyDescriptorsError(kAttempt);
    }
    switch (const int fault =
                environment_.Fault({EINTR, EMSGSIZE, ECONNRESET})) {
      case EINTR:
        return 0;
      case EMSGSIZE:
        bytes = bytes.substr(0, (bytes.size() + 1) / 2);
        break;
      case ECONNRESET:
        socket_->Reset();
        return TransferError(fault, kAttempt);
    }
    const SimulatedSocket::Result result = socket_->Send(bytes, descriptors);
    if (result.error == 0) {
      // One that was not accepted yet is held by nobody.
      const absl::btree_map<pid_t, int>& receivers = socket_->other()->holders;
      environment_.transcript_.Bytes(
          environment_.scheduler_.now(), number_, environment_.ProcessId(),
          receivers.empty() ? socket_->other()->acceptor
                            : receivers.rbegin()->first,
          bytes.substr(0, result.bytes), descriptors.size());
      return result.bytes;
    }
    if (result.error != EAGAIN) return TransferError(result.error, kAttempt);
    if (environment_.scheduler_.BlockUntil(
            "waiting for the peer to read",
            [this] {
              environment_.SweepTokens();
              return socket_->Writable();
            },
            deadline)) {
      return 0;
    }
    return MakeError(reason::kTimedOut, "the peer read nothing in time");
  }

  absl::StatusOr<Received> Receive(absl::Span<char> buffer,
                                   size_t max_descriptors,
                                   std::vector<FileDescriptor>& descriptors,
                                   absl::Time deadline) override {
    const NoBranchPoints quiet;
    constexpr std::string_view kAttempt = "receive from the peer";
    environment_.Step("receiving");
    max_descriptors = std::min(max_descriptors, kMaxDescriptorsPerMessage);
    switch (const int fault =
                environment_.Fault({EINTR, EMSGSIZE, ECONNRESET, EMFILE})) {
      case EINTR:
        return Received{};
      case EMSGSIZE:
        buffer = buffer.subspan(0, (buffer.size() + 3) / 4);
        break;
      case ECONNRESET:
        socket_->Reset();
        return TransferError(fault, kAttempt);
      case EMFILE:  // Bites only if descriptors come.
        max_descriptors = 0;
        break;
    }
    const size_t had = descriptors.size();
    const SimulatedSocket::Result result =
        socket_->Receive(buffer, max_descriptors, descriptors);
    if (result.error == 0) {
      for (size_t i = had; i < descriptors.size(); ++i) {
        environment_.Own(descriptors[i]);
      }
      return Received{result.bytes, result.end_of_stream,
                      result.descriptors_truncated};
    }
    if (result.error != EAGAIN) return TransferError(result.error, kAttempt);
    if (environment_.scheduler_.BlockUntil(
            "waiting for the peer to send", [this] { return Readable(); },
            deadline)) {
      return Received{};
    }
    return MakeError(reason::kTimedOut, "the peer sent nothing in time");
  }

  void ShutDown() override {
    const NoBranchPoints quiet;
    environment_.Step("shutting a connection down");
    socket_->ShutDown();
  }

  absl::StatusOr<PeerCredentials> Peer() const override {
    return socket_->peer();
  }

  absl::Time TimeNow() const override { return environment_.scheduler_.now(); }

 private:
  SimulatedEnvironment& environment_;
  const int number_;
  const std::shared_ptr<SimulatedSocket> socket_;
};

class SimulatedListener final : public Listener, public Readiness {
 public:
  SimulatedListener(SimulatedEnvironment& environment, int number,
                    std::shared_ptr<SimulatedEnvironment::ListenSocket> socket)
      : environment_(environment),
        number_(number),
        socket_(std::move(socket)),
        path_(socket_->path) {}

  ~SimulatedListener() override {
    const NoBranchPoints quiet;
    Close();
    if (socket_->holders.empty()) environment_.listeners_.erase(number_);
  }

  int descriptor() const override { return number_; }
  bool Readable() const override {
    return !socket_->queue.empty() || socket_->shut;
  }
  bool IsOpen() const override {
    return socket_->holders.contains(environment_.ProcessId());
  }

  absl::StatusOr<Accepted> Accept() override {
    const NoBranchPoints quiet;
    environment_.Step("accepting");
    environment_.scheduler_.BlockUntil(
        "waiting for a client", [this] { return Readable(); },
        absl::InfiniteFuture());
    if (socket_->queue.empty()) {
      return MakeError(reason::kServerStopping,
                       "the server accepts no more clients");
    }
    const int fault = environment_.Fault({EMFILE, ENOMEM});
    if (fault == ENOMEM) return SystemError(fault, "accept a client");
    std::shared_ptr<SimulatedSocket> client = std::move(socket_->queue.front());
    socket_->queue.pop_front();
    return Accepted{environment_.Wrap(std::move(client),
                                      absl::StrCat("accepted at ", path_)),
                    fault == EMFILE};
  }

  void ShutDown() override {
    const NoBranchPoints quiet;
    environment_.Step("shutting the listener down");
    if (IsOpen()) socket_->shut = true;
  }

  void Close() override {
    const NoBranchPoints quiet;
    environment_.Release(*socket_, environment_.ProcessId());
  }

  const std::string& path() const override { return path_; }

  void RemovePath() override {
    const NoBranchPoints quiet;
    environment_.Step("removing the socket's name");
    const auto named = environment_.names_.find(path_);
    if (named != environment_.names_.end() && named->second == socket_) {
      environment_.names_.erase(named);
    }
  }

  std::vector<int> descriptors() const override { return {number_}; }

  absl::StatusOr<ListenerParts> Share() const override {
    const NoBranchPoints quiet;
    ListenerParts parts;
    parts.path = path_;
    const auto token = [this](bool holds) {
      SimulatedEnvironment::Token token;
      token.listener = socket_;
      token.holds_listener = holds;
      return environment_.MakeToken(std::move(token));
    };
    WARD_ASSIGN_OR_RETURN(parts.name, token(false));
    if (IsOpen()) {
      WARD_ASSIGN_OR_RETURN(parts.socket, token(true));
    }
    return parts;
  }

 private:
  SimulatedEnvironment& environment_;
  const int number_;
  const std::shared_ptr<SimulatedEnvironment::ListenSocket> socket_;
  const std::string path_;
};

class SimulatedProcess final : public Process, public Readiness {
 public:
  // One that was adopted is left for somebody else to reap.
  SimulatedProcess(SimulatedEnvironment& environment, pid_t pid,
                   bool adopted = false)
      : environment_(environment),
        state_(environment.processes_.at(pid)),
        adopted_(adopted) {}

  int descriptor() const override { return -1; }
  pid_t pid() const override { return state_.pid; }
  bool Readable() const override { return state_.exit.has_value(); }
  bool Ending() const override { return state_.exit.has_value(); }

  absl::StatusOr<ProcessExit> Wait(absl::Time deadline) override {
    const NoBranchPoints quiet;
    environment_.Step("waiting for a process");
    if (!environment_.scheduler_.BlockUntil(
            "waiting for a process to end", [this] { return Ending(); },
            deadline)) {
      return MakeError(reason::kTimedOut,
                       absl::StrCat("process ", pid(), " is still running"));
    }
    if (state_.parent != environment_.ProcessId()) return ProcessExit{};
    if (!adopted_) state_.reaped = true;
    return *state_.exit;
  }

  absl::Status Kill(int signal) override {
    const NoBranchPoints quiet;
    environment_.Step("sending a signal");
    if (signal < 0 || signal > SIGRTMAX) {
      return SystemError(EINVAL,
                         absl::StrCat("send signal ", signal, " to ", pid()));
    }
    if (signal == SIGSTOP) {
      return absl::UnimplementedError(
          "a simulated process cannot be stopped (SIGSTOP); run this test with "
          "real ones");
    }
    environment_.Raise(pid(), signal);
    return absl::OkStatus();
  }

 private:
  SimulatedEnvironment& environment_;
  SimulatedEnvironment::ProcessState& state_;
  const bool adopted_;
};

class SimulatedSignals final : public Signals, public Readiness {
 public:
  SimulatedSignals(SimulatedEnvironment& environment, pid_t pid)
      : environment_(environment),
        state_(environment.processes_.at(pid)),
        found_blocked_(std::exchange(state_.blocked, false)) {}
  ~SimulatedSignals() override {
    state_.plan.reset();
    state_.blocked = found_blocked_;
    state_.pending.clear();
  }

  int descriptor() const override { return -1; }
  bool Readable() const override { return !state_.pending.empty(); }

  int Next() override {
    const NoBranchPoints quiet;
    environment_.Step("looking for signals");
    if (state_.pending.empty()) return 0;
    const int signal = *state_.pending.begin();
    state_.pending.erase(signal);
    return signal;
  }

 private:
  SimulatedEnvironment& environment_;
  SimulatedEnvironment::ProcessState& state_;
  const bool found_blocked_;
};

// --- the environment ---

SimulatedEnvironment::SimulatedEnvironment(Scheduler& scheduler,
                                           SimulationFaults faults,
                                           Transcript& transcript)
    : scheduler_(scheduler),
      faults_(faults),
      transcript_(transcript),
      next_number_(kFirstNumber) {
  ProcessState test{kTestProcess, 0, "test", 1000};
  processes_.emplace(kTestProcess, std::move(test));
  transcript_.Name(kTestProcess, "test");
}

SimulatedEnvironment::~SimulatedEnvironment() {
  // The two ends of a connection refer to each other.
  for (const auto& [number, socket] : sockets_) socket->Close();
}

void SimulatedEnvironment::Step(std::string_view doing) {
  scheduler_.Point(doing);
  SweepTokens();
  if (faults_.deaths && ProcessId() != kTestProcess &&
      scheduler_.Choose(ChoiceKind::kDeath, 2) == 1) {
    Raise(ProcessId(), SIGKILL);
  }
}

int SimulatedEnvironment::Fault(std::initializer_list<int> errors) {
  if (!faults_.faults) return 0;
  const size_t fault = scheduler_.Choose(ChoiceKind::kFault, errors.size() + 1);
  return fault == 0 ? 0 : *(errors.begin() + fault - 1);
}

absl::Time SimulatedEnvironment::TimeNow() { return scheduler_.now(); }

pid_t SimulatedEnvironment::ProcessId() { return scheduler_.group(); }

uid_t SimulatedEnvironment::UserId() { return Self().user; }

void SimulatedEnvironment::SetUser(uid_t user) { Self().user = user; }

void SimulatedEnvironment::Log(std::string_view line) {
  const NoBranchPoints quiet;
  log_.emplace_back(line);
  transcript_.Event(scheduler_.now(), ProcessId(), absl::StrCat("log: ", line));
}

// --- threads ---

absl::StatusOr<std::unique_ptr<Thread>> SimulatedEnvironment::StartThread(
    absl::AnyInvocable<void()> body) {
  const NoBranchPoints quiet;
  Step("starting a thread");
  if (const int fault = Fault({EAGAIN})) {
    return SystemError(fault, "start a thread");
  }
  return std::make_unique<SimulatedThread>(
      *this, scheduler_.Start("a thread of StartThread", ProcessId(),
                              std::move(body)));
}

size_t SimulatedEnvironment::OtherThreads(pid_t pid) const {
  return scheduler_.LiveThreads(pid).size() - 1;
}

// --- sockets ---

std::unique_ptr<Transport> SimulatedEnvironment::Wrap(
    std::shared_ptr<SimulatedSocket> socket, std::string origin) {
  const int number = next_number_++;
  socket->holders = {{ProcessId(), 1}};
  socket->origin = std::move(origin);
  sockets_.emplace(number, socket);
  return std::make_unique<SimulatedTransport>(*this, number, std::move(socket));
}

void SimulatedEnvironment::Release(SimulatedSocket& socket, pid_t holder) {
  const auto held = socket.holders.find(holder);
  if (held != socket.holders.end() && --held->second == 0) {
    socket.holders.erase(held);
  }
  CloseIfUnheld(socket);
}

void SimulatedEnvironment::Release(ListenSocket& socket, pid_t holder) {
  socket.holders.erase(holder);
  CloseIfUnheld(socket);
}

void SimulatedEnvironment::CloseIfUnheld(SimulatedSocket& socket) {
  const bool on_its_way = std::any_of(
      tokens_.begin(), tokens_.end(),
      [&](const auto& entry) { return entry.second.socket.get() == &socket; });
  if (socket.holders.empty() && !on_its_way) socket.Close();
}

void SimulatedEnvironment::CloseIfUnheld(ListenSocket& socket) {
  const bool on_its_way =
      std::any_of(tokens_.begin(), tokens_.end(), [&](const auto& entry) {
        return entry.second.holds_listener &&
               entry.second.listener.get() == &socket;
      });
  if (!socket.holders.empty() || on_its_way) return;
  socket.shut = true;
  // Clients that nobody has accepted lose their connection; some may have left.
  for (const auto& client : socket.queue) {
    // Or has it gone itself?
    if (client->other() != nullptr) client->other()->Reset();
    client->Close();
  }
  socket.queue.clear();
}

absl::StatusOr<std::unique_ptr<Listener>> SimulatedEnvironment::Listen(
    const ListenOptions& options) {
  const NoBranchPoints quiet;
  Step("listening");
  const std::string path =
      !options.path.empty()
          ? Absolute(options.path)
          : absl::StrCat("/simulated/ward-", next_path_++, "/socket");
  if (const int fault = Fault({EMFILE, ENOMEM})) {
    return SystemError(fault, absl::StrCat("listen at \"", path, "\""));
  }
  WARD_RETURN_IF_ERROR(CheckName(path));
  const auto taken = names_.find(path);
  if (taken != names_.end() && !taken->second->shut) {
    // Whoever asks whether somebody listens there is a client that has gone.
    if (taken->second->queue.size() < kQueueLength) {
      const PeerCredentials self{ProcessId(), UserId(), UserId()};
      auto ends = SimulatedSocket::CreatePair(self, self);
      ends.first->Close();
      taken->second->queue.push_back(std::move(ends.second));
    }
    return MakeError(reason::kPathTaken,
                     absl::StrCat("the socket's path \"", path,
                                  "\" is taken: a server answers there"));
  }
  auto socket = std::make_shared<ListenSocket>();
  socket->path = path;
  socket->mode = options.mode;
  socket->private_directory = options.path.empty();
  socket->owner = {ProcessId(), UserId(), UserId()};
  socket->holders = {ProcessId()};
  socket->users = {ProcessId()};
  names_[path] = socket;
  const int number = next_number_++;
  listeners_.emplace(number, socket);
  return std::make_unique<SimulatedListener>(*this, number, std::move(socket));
}

// As the file system has it, in which nobody is in another's group.
bool SimulatedEnvironment::ListenSocket::Admits(uid_t user) const {
  if (user == 0) return true;
  if (user == owner.uid) return (mode & S_IWUSR) != 0;
  return !private_directory && (mode & S_IWOTH) != 0;
}

absl::StatusOr<std::unique_ptr<Transport>> SimulatedEnvironment::Connect(
    const std::string& path, absl::Time deadline) {
  const NoBranchPoints quiet;
  Step("connecting");
  const std::string attempt = absl::StrCat("connect to \"", path, "\"");
  if (const int fault = Fault({EMFILE, ENOMEM})) {
    return SystemError(fault, attempt);
  }
  WARD_RETURN_IF_ERROR(CheckName(path));
  const auto named = names_.find(Absolute(path));
  const std::shared_ptr<ListenSocket> listener =
      named == names_.end() ? nullptr : named->second;
  if (listener != nullptr && !listener->Admits(UserId())) {
    return SystemError(EACCES, attempt);
  }
  const auto refused = [&] { return listener == nullptr || listener->shut; };
  if (!refused() &&
      !scheduler_.BlockUntil(
          "waiting for room in the server's queue",
          [&] { return refused() || listener->queue.size() < kQueueLength; },
          deadline)) {
    return MakeError(reason::kTimedOut,
                     absl::StrCat(attempt,
                                  ": the server's queue of waiting clients "
                                  "stayed full"));
  }
  if (refused()) {
    return MakeError(reason::kServerUnreachable,
                     absl::StrCat(attempt,
                                  ": no server listens there: it was not "
                                  "started, or has stopped"));
  }
  // Nobody has one that is on its way from process to process.
  const pid_t server = listener->holders.empty() ? listener->owner.pid
                                                 : *listener->holders.rbegin();
  auto ends = SimulatedSocket::CreatePair({ProcessId(), UserId(), UserId()},
                                          listener->owner);
  ends.second->acceptor = server;
  listener->queue.push_back(std::move(ends.second));
  transcript_.Arrow(scheduler_.now(), ProcessId(), server, "connects");
  return Wrap(std::move(ends.first), absl::StrCat("connected to ", path));
}

absl::StatusOr<
    std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>>>
SimulatedEnvironment::CreateTransportPair() {
  const NoBranchPoints quiet;
  Step("creating a pair of sockets");
  if (const int fault = Fault({EMFILE, ENOMEM})) {
    return SystemError(fault, "create a pair of connected sockets");
  }
  const PeerCredentials self{ProcessId(), UserId(), UserId()};
  auto ends = SimulatedSocket::CreatePair(self, self);
  return std::make_pair(Wrap(std::move(ends.first), "one of a pair"),
                        Wrap(std::move(ends.second), "one of a pair"));
}

absl::StatusOr<size_t> SimulatedEnvironment::Poll(
    absl::Span<const Pollable* const> polled, absl::Time deadline) {
  const NoBranchPoints quiet;
  Step("polling");
  std::vector<const Readiness*> entries;
  for (const Pollable* pollable : polled) {
    entries.push_back(dynamic_cast<const Readiness*>(pollable));
    if (entries.back() == nullptr) {
      return absl::FailedPreconditionError(
          "a simulated Poll of something that is not simulated: make it with "
          "the same Environment");
    }
    if (!entries.back()->IsOpen()) entries.back() = nullptr;
  }
  const auto ready = [&entries] {
    return std::find_if(entries.begin(), entries.end(),
                        [](const Readiness* entry) {
                          return entry != nullptr && entry->Readable();
                        });
  };
  if (scheduler_.BlockUntil(
          "polling", [&] { return ready() != entries.end(); }, deadline)) {
    return static_cast<size_t>(ready() - entries.begin());
  }
  return MakeError(reason::kTimedOut, "nothing happened in time");
}

// --- processes ---

pid_t SimulatedEnvironment::NewProcess(std::string name) {
  const pid_t pid = processes_.rbegin()->first + 1;
  transcript_.Name(pid, name);
  transcript_.Arrow(scheduler_.now(), ProcessId(), pid, "forks");
  processes_.emplace(pid,
                     ProcessState{pid, ProcessId(), std::move(name), UserId()});
  return pid;
}

void SimulatedEnvironment::StartMain(pid_t pid,
                                     absl::AnyInvocable<int()> child) {
  scheduler_.Start("main", pid,
                   [this, pid, child = std::move(child)]() mutable {
                     const int code = child();
                     child = nullptr;
                     // All that _exit(2) lets a parent see.
                     End(pid, {ProcessExit::Kind::kExited, code & 0xff});
                   });
}

absl::StatusOr<std::unique_ptr<Process>> SimulatedEnvironment::Fork(
    const ForkOptions& options, absl::AnyInvocable<int()> child) {
  const NoBranchPoints quiet;
  Step("forking");
  const auto others = static_cast<int>(OtherThreads(ProcessId()));
  if (others > 0 && !options.allow_threads) return ForkWithThreadsError(others);
  if (const int fault = Fault({EAGAIN, ENOMEM})) {
    return SystemError(fault, "fork");
  }
  const pid_t parent = ProcessId();
  const pid_t pid = NewProcess(options.keep_all_open ? "fork" : "server");
  const auto keeps = [&](int number) {
    return std::find(options.keep_open.begin(), options.keep_open.end(),
                     number) != options.keep_open.end();
  };
  for (const auto& [number, socket] : sockets_) {
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
  const NoBranchPoints quiet;
  ProcessState& process = processes_.at(pid);
  if (process.exit.has_value()) return;
  process.exit = exit;
  if (process.execed && exit.kind == ProcessExit::Kind::kSignaled) {
    for (const auto& [descriptor, inode] : process.descriptors) {
      if (InodeOf(descriptor) == inode) close(descriptor);
    }
  }
  transcript_.Event(scheduler_.now(), pid, exit.ToString());
  scheduler_.Kill(pid);
  for (const auto& [number, socket] : sockets_) {
    socket->holders.erase(pid);
    CloseIfUnheld(*socket);
  }
  for (const auto& [number, socket] : listeners_) Release(*socket, pid);
}

absl::StatusOr<std::unique_ptr<Process>> SimulatedEnvironment::Exec(
    const std::string& entry, std::unique_ptr<Transport> link) {
  const NoBranchPoints quiet;
  Step("starting a program");
  if (const int fault = Fault({EAGAIN, ENOMEM})) {
    return SystemError(fault, "start the server's program");
  }
  const ExecEntry main = FindExecEntry(entry);
  if (main == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "start by exec: nothing is registered as \"", entry, "\""));
  }
  const pid_t pid = NewProcess("server");
  MoveHold(*dynamic_cast<SimulatedTransport&>(*link).socket(), ProcessId(),
           pid);
  processes_.at(pid).blocked = true;
  processes_.at(pid).execed = true;
  auto process = std::make_unique<SimulatedProcess>(*this, pid);
  StartMain(pid, [this, main, link = std::move(link)]() mutable {
    return main(*this, std::move(link));
  });
  return process;
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
  const NoBranchPoints quiet;
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
  const NoBranchPoints quiet;
  Step("adopting a connection");
  const Token* const token = FindToken(shared);
  if (token == nullptr || token->socket == nullptr) {
    return MakeError(reason::kInvalidArguments,
                     "the descriptor that came is no socket");
  }
  std::shared_ptr<SimulatedSocket> socket = token->socket;
  const int number = token->number;
  ++socket->holders[ProcessId()];
  sockets_.emplace(number, socket);
  return std::make_unique<SimulatedTransport>(*this, number, std::move(socket));
}

absl::StatusOr<std::unique_ptr<Process>> SimulatedEnvironment::AdoptProcess(
    FileDescriptor shared, uid_t user) {
  const NoBranchPoints quiet;
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
  const NoBranchPoints quiet;
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
  if (parts.socket.is_open()) socket->holders.insert(ProcessId());
  socket->users.insert(ProcessId());
  const int number = next_number_++;
  listeners_.emplace(number, socket);
  return std::make_unique<SimulatedListener>(*this, number, std::move(socket));
}

absl::StatusOr<uint64_t> SimulatedEnvironment::SocketId(
    const Transport& transport) {
  return static_cast<uint64_t>(transport.descriptor());
}

absl::StatusOr<std::vector<ProcessInfo>> SimulatedEnvironment::Holders(
    uint64_t socket_id) {
  const NoBranchPoints quiet;
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
  const NoBranchPoints quiet;
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
  const NoBranchPoints quiet;
  const auto found = processes_.find(process);
  return found != processes_.end() && !found->second.exit.has_value();
}

// --- signals ---

absl::StatusOr<std::unique_ptr<Signals>> SimulatedEnvironment::TakeSignals(
    const SignalPlan& plan) {
  const NoBranchPoints quiet;
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
  const NoBranchPoints quiet;
  ProcessState& process = processes_.at(pid);
  // 0 only asks whether it may be sent.
  if (process.exit.has_value() || signal == 0) return;
  const char* const description = sigdescr_np(signal);  // No real-time ones.
  transcript_.Event(
      scheduler_.now(), pid,
      absl::StrCat("gets signal ", signal, " (",
                   description != nullptr ? description : "real-time", ")"));
  if (signal == SIGKILL) {
    End(pid, {ProcessExit::Kind::kSignaled, signal});
  } else if (process.blocked) {
    process.pending.insert(signal);
  } else {
    Deliver(process, signal);
  }
  scheduler_.LeaveIfKilled();
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
  const NoBranchPoints quiet;
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

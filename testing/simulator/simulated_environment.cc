#include "ward/testing/simulator/simulated_environment.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/log_severity.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/testing/report/transcript.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/simulated_handles.h"
#include "ward/testing/simulator/simulated_socket.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// Numbers that no real descriptor has.
constexpr int kFirstNumber = 1 << 24;

// As of the real listener, see server/posix/listener.cc; the kernel lets one
// more in.
constexpr size_t kQueueLength = 128 + 1;

// As of the real one: what is left of sun_path for a name in a directory that
// is reached through /proc/self/fd.
constexpr size_t kLongestName = 80;

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

}  // namespace

SimulatedEnvironment::SimulatedEnvironment(Scheduler& scheduler,
                                           SimulationFaults faults,
                                           Transcript& transcript)
    : scheduler_(scheduler),
      faults_(faults),
      transcript_(transcript),
      next_number_(kFirstNumber) {
  ProcessState test{kTestProcess, 0, "test", 1000};
  test.group = kTestProcess;
  processes_.emplace(kTestProcess, std::move(test));
  transcript_.Name(kTestProcess, "test");
  // The test's own are the real process's, until it has a plan for them.
  scheduler_.SetSignalTaker([this](pid_t pid, int signal) {
    if (pid == kTestProcess && !Self().plan.has_value()) return false;
    Raise(pid, signal);
    return true;
  });
  EnlargeDescriptorTable();
}

SimulatedEnvironment::~SimulatedEnvironment() {
  scheduler_.SetSignalTaker(nullptr);
  // The two ends of a connection refer to each other.
  for (const auto& [number, socket] : sockets_) socket->Close();
}

void SimulatedEnvironment::Step(std::string_view doing,
                                const void* connection) {
  // All sockets and processes are one object here, as names, descriptors and
  // queues hang together; but for what is sent and received.
  if (connection == nullptr) {
    scheduler_.Point(doing, this);
  } else {
    scheduler_.Point(doing, connection, Use::kWrite, /*whole=*/this);
  }
  SweepTokens();
  if (faults_.deaths && ProcessId() != kTestProcess &&
      scheduler_.Choose(ChoiceKind::kDeath, 2) == 1) {
    Raise(ProcessId(), SIGKILL);
  }
}

void SimulatedEnvironment::StepAfter(std::string_view done) {
  if (Scheduler::Current() == &scheduler_) scheduler_.PointAfter(done);
}

int SimulatedEnvironment::Fault(std::initializer_list<int> errors) {
  if (!faults_.faults) return 0;
  const size_t fault =
      scheduler_.Choose(ChoiceKind::kFault, errors.size() + 1, errors);
  return fault == 0 ? 0 : *(errors.begin() + fault - 1);
}

absl::Time SimulatedEnvironment::TimeNow() { return scheduler_.now(); }

pid_t SimulatedEnvironment::ProcessId() { return scheduler_.group(); }

uid_t SimulatedEnvironment::UserId() { return Self().user; }

void SimulatedEnvironment::SetUser(uid_t user) { Self().user = user; }

void SimulatedEnvironment::LimitThreads(size_t limit) {
  Self().most_threads = limit;
}

void SimulatedEnvironment::Unlink(const std::string& path) {
  names_.erase(Absolute(path));
}

void SimulatedEnvironment::Log(absl::LogSeverity /*severity*/,
                               std::string_view line) {
  const NoSchedulingPoints quiet;
  log_.emplace_back(line);
  transcript_.Event(scheduler_.now(), ProcessId(), absl::StrCat("log: ", line));
}

// --- threads ---

absl::StatusOr<std::unique_ptr<Thread>> SimulatedEnvironment::StartThread(
    absl::AnyInvocable<void()> body) {
  const NoSchedulingPoints quiet;
  Step("starting a thread");
  const bool full = 1 + OtherThreads(ProcessId()) >= Self().most_threads;
  if (const int fault = full ? EAGAIN : Fault({EAGAIN})) {
    return SystemError(fault, "start a thread");
  }
  return std::make_unique<SimulatedThread>(
      *this, scheduler_.Start("a thread of StartThread", ProcessId(),
                              std::move(body)));
}

size_t SimulatedEnvironment::OtherThreads(pid_t pid) const {
  return scheduler_.CountLiveThreads(pid) - 1;
}

// --- sockets ---

int SimulatedEnvironment::StreamOf(const SimulatedSocket& socket) {
  int& number = socket.connection_number();
  if (number == 0) number = ++connections_;
  return 2 * number + (socket.is_second() ? 1 : 0);
}

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
  if (!socket.holders.empty() || on_its_way) return;
  socket.Close();
  EndTied();
}

void SimulatedEnvironment::CloseIfUnheld(ListenSocket& socket) {
  const bool on_its_way =
      std::any_of(tokens_.begin(), tokens_.end(), [&](const auto& entry) {
        return entry.second.holds_listener &&
               entry.second.listener.get() == &socket;
      });
  if (!socket.holders.empty() || !socket.accepting.empty() || on_its_way) {
    return;
  }
  Order::Release(&socket);
  socket.stopped = socket.shut = true;
  // Clients that nobody has accepted lose their connection; some may have left.
  for (const auto& client : socket.queue) {
    // Or has it gone itself?
    if (client->other() != nullptr) client->other()->Reset();
    client->Close();
  }
  socket.queue.clear();
}

void SimulatedEnvironment::RemoveName(
    const std::shared_ptr<ListenSocket>& socket) {
  const auto named = names_.find(socket->path);
  if (named != names_.end() && named->second == socket) names_.erase(named);
}

absl::StatusOr<std::unique_ptr<Listener>> SimulatedEnvironment::Listen(
    const ListenOptions& options) {
  const NoSchedulingPoints quiet;
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
    return MakeError(reason::kPathTaken,
                     absl::StrCat("the socket's path \"", path,
                                  "\" is taken: a server has it"));
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
  return std::make_unique<SimulatedListener>(*this, number, std::move(socket),
                                             /*has_name=*/true);
}

// As the file system has it, in which nobody is in another's group.
bool SimulatedEnvironment::ListenSocket::Admits(uid_t user) const {
  if (user == 0) return true;
  if (user == owner.uid) return (mode & S_IWUSR) != 0;
  return !private_directory && (mode & S_IWOTH) != 0;
}

absl::StatusOr<std::unique_ptr<Transport>> SimulatedEnvironment::Connect(
    const std::string& path, absl::Time deadline) {
  const NoSchedulingPoints quiet;
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
  const auto refused = [&] { return listener == nullptr || listener->stopped; };
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
  Order::Release(listener.get());
  transcript_.Arrow(scheduler_.now(), ProcessId(), server, "connects");
  return Wrap(std::move(ends.first), absl::StrCat("connected to ", path));
}

absl::StatusOr<
    std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>>>
SimulatedEnvironment::CreateTransportPair() {
  const NoSchedulingPoints quiet;
  Step("creating a pair of sockets");
  if (const int fault = Fault({EMFILE, ENOMEM})) {
    return SystemError(fault, "create a pair of connected sockets");
  }
  const PeerCredentials self{ProcessId(), UserId(), UserId()};
  auto ends = SimulatedSocket::CreatePair(self, self);
  ends.first->of_pair = ends.second->of_pair = true;
  return std::make_pair(Wrap(std::move(ends.first), "one of a pair"),
                        Wrap(std::move(ends.second), "one of a pair"));
}

absl::StatusOr<size_t> SimulatedEnvironment::Poll(
    absl::Span<const Pollable* const> polled, absl::Time deadline) {
  const NoSchedulingPoints quiet;
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
    if (entries.back() != nullptr) {
      deadline = std::min(deadline, entries.back()->ReadableFrom());
    }
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

absl::StatusOr<std::unique_ptr<PollSet>> SimulatedEnvironment::CreatePollSet() {
  const NoSchedulingPoints quiet;
  Step("creating a poll set");
  if (const int fault = Fault({EMFILE, ENOMEM})) {
    return SystemError(fault, "create an epoll");
  }
  return std::make_unique<SimulatedPollSet>(*this);
}

}  // namespace ward::testing

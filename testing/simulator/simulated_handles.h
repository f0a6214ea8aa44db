// What SimulatedEnvironment hands out: threads, connections, listeners,
// processes and signals. For its sources alone.

#ifndef WARD_TESTING_SIMULATOR_SIMULATED_HANDLES_H_
#define WARD_TESTING_SIMULATOR_SIMULATED_HANDLES_H_

#include <signal.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/server/poll_set.h"
#include "ward/server/process.h"
#include "ward/server/signals.h"
#include "ward/testing/report/transcript.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/simulated_environment.h"
#include "ward/testing/simulator/simulated_socket.h"

namespace ward::testing {

// What Poll can wait for.
class Readiness {
 public:
  virtual ~Readiness() = default;
  virtual bool Readable() const = 0;
  // From when on it is, though nothing happens.
  virtual absl::Time ReadableFrom() const { return absl::InfiniteFuture(); }
  virtual bool Writable() const { return false; }
  // The peer has closed its end (POLLHUP).
  virtual bool HungUp() const { return false; }
  // Otherwise its descriptor is -1, which poll(2) ignores.
  virtual bool IsOpen() const { return true; }
};

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
    const NoSchedulingPoints quiet;
    environment_.Release(*socket_, environment_.ProcessId());
    if (socket_->holders.empty()) environment_.sockets_.erase(number_);
    environment_.StepAfter("closing a connection");
  }

  int descriptor() const override { return number_; }
  bool Readable() const override {
    environment_.SweepTokens();
    return socket_->Readable();
  }
  bool Writable() const override { return socket_->Writable(); }
  bool HungUp() const override {
    environment_.SweepTokens();
    return socket_->HungUp();
  }
  const std::shared_ptr<SimulatedSocket>& socket() const { return socket_; }

  absl::StatusOr<size_t> Send(std::string_view bytes,
                              absl::Span<const int> descriptors,
                              absl::Time deadline) override {
    const NoSchedulingPoints quiet;
    constexpr std::string_view kAttempt = "send to the peer";
    environment_.Step("sending", socket_->connection());
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
        Reset();
        return TransferError(fault, kAttempt);
    }
    const SimulatedSocket::Result result = socket_->Send(bytes, descriptors);
    if (result.error == 0) {
      environment_.transcript_.Bytes(
          environment_.scheduler_.now(), environment_.StreamOf(*socket_),
          environment_.ProcessId(), Receiver(), bytes.substr(0, result.bytes),
          descriptors.size());
      environment_.EndTied();
      environment_.StepAfter("sending");
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
    const NoSchedulingPoints quiet;
    constexpr std::string_view kAttempt = "receive from the peer";
    environment_.Step("receiving", socket_->connection());
    max_descriptors = std::min(max_descriptors, kMaxDescriptorsPerMessage);
    switch (const int fault =
                environment_.Fault({EINTR, EMSGSIZE, ECONNRESET, EMFILE})) {
      case EINTR:
        return Received{};
      case EMSGSIZE:
        buffer = buffer.subspan(0, (buffer.size() + 3) / 4);
        break;
      case ECONNRESET:
        Reset();
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
    const NoSchedulingPoints quiet;
    environment_.Step("shutting a connection down");
    if (socket_->other() != nullptr && !socket_->HungUp()) {
      environment_.transcript_.Arrow(environment_.scheduler_.now(),
                                     environment_.ProcessId(), Receiver(),
                                     "cuts the connection");
    }
    socket_->ShutDown();
    environment_.EndTied();
    environment_.StepAfter("shutting a connection down");
  }

  void ShutDownReceiving() override {
    const NoSchedulingPoints quiet;
    environment_.Step("ending the receiving from a connection");
    socket_->ShutDownReceiving();
    environment_.StepAfter("ending the receiving from a connection");
  }

  absl::StatusOr<PeerCredentials> Peer() const override {
    return socket_->peer();
  }

  absl::Time TimeNow() const override { return environment_.scheduler_.now(); }

 private:
  // Who has the other end. One that was not accepted yet is held by nobody.
  pid_t Receiver() const {
    const absl::btree_map<pid_t, int>& holders = socket_->other()->holders;
    return holders.empty() ? socket_->other()->acceptor
                           : holders.rbegin()->first;
  }

  void Reset() {
    socket_->Reset();
    environment_.EndTied();
    environment_.scheduler_.LeaveIfKilled();
  }

  SimulatedEnvironment& environment_;
  const int number_;
  const std::shared_ptr<SimulatedSocket> socket_;
};

class SimulatedPollSet final : public PollSet, public Readiness {
 public:
  explicit SimulatedPollSet(SimulatedEnvironment& environment)
      : environment_(environment) {}

  int descriptor() const override { return -1; }
  bool Readable() const override {
    return woken_ || environment_.scheduler_.now() >= wake_at_ ||
           NextReady() != 0;
  }
  absl::Time ReadableFrom() const override { return wake_at_; }

  absl::Status Add(uint64_t id, const Pollable& pollable,
                   Event event) override {
    const NoSchedulingPoints quiet;
    environment_.Step("adding to a poll set");
    Order::Release(this);
    constexpr std::string_view kAttempt = "watch a descriptor (epoll_ctl)";
    if (const int fault = environment_.Fault({ENOMEM, ENOSPC})) {
      return SystemError(fault, kAttempt);
    }
    const auto* const readiness = dynamic_cast<const Readiness*>(&pollable);
    if (readiness == nullptr) {
      return absl::FailedPreconditionError(
          "a simulated PollSet cannot watch what is not simulated: make it "
          "with the same Environment");
    }
    for (const auto& [other, entry] : entries_) {
      if (entry.pollable == &pollable) return SystemError(EEXIST, kAttempt);
    }
    entries_[id] = {&pollable, readiness, event};
    return absl::OkStatus();
  }

  void Remove(const Pollable& pollable) override {
    const NoSchedulingPoints quiet;
    environment_.Step("removing from a poll set");
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      if (it->second.pollable != &pollable) continue;
      entries_.erase(it);
      return;
    }
  }

  absl::StatusOr<uint64_t> Wait(absl::Time deadline) override {
    const NoSchedulingPoints quiet;
    environment_.Step("waiting for one of many");
    if (!environment_.scheduler_.BlockUntil(
            "waiting for one of many", [this] { return Readable(); },
            std::min(deadline, wake_at_))) {
      return MakeError(reason::kTimedOut, "nothing happened in time");
    }
    if (environment_.scheduler_.now() >= wake_at_) {
      wake_at_ = absl::InfiniteFuture();
      woken_ = true;
    }
    Order::Acquire(this);
    if (std::exchange(woken_, false)) return 0;
    return last_ = NextReady();
  }

  void Wake() override {
    const NoSchedulingPoints quiet;
    environment_.Step("waking who waits for one of many");
    Order::Release(this);
    woken_ = true;
  }

  absl::Status WakeAt(absl::Time time) override {
    const NoSchedulingPoints quiet;
    environment_.Step("setting a poll set's timer");
    Order::Release(this);
    wake_at_ = time;
    return absl::OkStatus();
  }

 private:
  struct Entry {
    const Pollable* pollable;
    const Readiness* readiness;
    Event event;
  };

  // The first one after the last, and around: as the kernel, which puts what it
  // has reported at the end of its list. 0 if there is none.
  uint64_t NextReady() const {
    uint64_t first = 0;
    for (const auto& [id, entry] : entries_) {
      const bool ready =
          entry.readiness->HungUp() ||
          (entry.event == Event::kReadable && entry.readiness->Readable()) ||
          (entry.event == Event::kWritable && entry.readiness->Writable());
      if (ready && id > last_) return id;
      if (ready && first == 0) first = id;
    }
    return first;
  }

  SimulatedEnvironment& environment_;
  absl::btree_map<uint64_t, Entry> entries_;
  uint64_t last_ = 0;
  bool woken_ = false;
  absl::Time wake_at_ = absl::InfiniteFuture();
};

class SimulatedListener final : public Listener, public Readiness {
 public:
  SimulatedListener(SimulatedEnvironment& environment, int number,
                    std::shared_ptr<SimulatedEnvironment::ListenSocket> socket,
                    bool has_name, bool is_strangers = false)
      : environment_(environment),
        number_(number),
        socket_(std::move(socket)),
        has_name_(has_name),
        is_strangers_(is_strangers),
        path_(socket_->path) {}

  ~SimulatedListener() override {
    const NoSchedulingPoints quiet;
    Close();
    if (socket_->holders.empty()) environment_.listeners_.erase(number_);
  }

  int descriptor() const override { return number_; }
  bool Readable() const override { return !socket_->queue.empty(); }
  bool IsOpen() const override {
    return socket_->holders.contains(environment_.ProcessId());
  }

  absl::StatusOr<Accepted> Accept() override {
    const NoSchedulingPoints quiet;
    environment_.Step("accepting");
    const pid_t self = environment_.ProcessId();
    const auto stopped = [&] {
      return socket_->stopped || socket_->stopped_in.contains(self);
    };
    const bool was_open = IsOpen();
    if (was_open) {
      ++socket_->accepting[self];
      environment_.scheduler_.BlockUntil(
          "waiting for a client", [&] { return stopped() || Readable(); },
          absl::InfiniteFuture());
    }
    Order::Acquire(socket_.get());
    const absl::Cleanup closes_at_last = [&] {
      if (was_open) HasAccepted(self);
    };
    if (!was_open || stopped()) {
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

  void StopAccepting(
      absl::FunctionRef<void(std::unique_ptr<Transport>)> refuse) override {
    {
      const NoSchedulingPoints quiet;
      environment_.Step("accepting no more");
      Order::Release(socket_.get());
      if (has_name_ && IsOpen()) socket_->stopped = true;
      socket_->stopped_in.insert(environment_.ProcessId());
    }
    while (std::unique_ptr<Transport> client = TakeStopped()) {
      refuse(std::move(client));
    }
    Close();
  }

  void Close() override {
    const NoSchedulingPoints quiet;
    environment_.Release(*socket_, environment_.ProcessId());
    environment_.StepAfter("closing a listener");
  }

  const std::string& path() const override { return path_; }

  absl::Status CheckPath() const override {
    const NoSchedulingPoints quiet;
    environment_.Step("looking at the socket's name");
    const auto named = environment_.names_.find(path_);
    const bool there = named != environment_.names_.end();
    if (there && named->second == socket_) return absl::OkStatus();
    return MakeError(
        reason::kServerUnreachable,
        absl::StrCat("\"", path_, "\" does not lead to its socket: ",
                     there ? "another file is there" : "nothing is there",
                     ", and the socket's file was removed, which no server "
                     "recovers from: stop it, and start it again"));
  }

  void RemovePath() override {
    const NoSchedulingPoints quiet;
    environment_.Step("removing the socket's name");
    if (has_name_ && !is_strangers_) environment_.RemoveName(socket_);
  }
  // Null if the name is somebody else's.
  std::shared_ptr<SimulatedEnvironment::ListenSocket> named() const {
    return has_name_ ? socket_ : nullptr;
  }

  std::vector<int> descriptors() const override { return {number_}; }

  absl::StatusOr<ListenerParts> Share() const override {
    const NoSchedulingPoints quiet;
    ListenerParts parts;
    parts.path = path_;
    const auto token = [this](bool holds) {
      SimulatedEnvironment::Token token;
      token.listener = socket_;
      token.holds_listener = holds;
      return environment_.MakeToken(std::move(token));
    };
    if (has_name_) {
      WARD_ASSIGN_OR_RETURN(parts.name, token(false));
    }
    if (IsOpen()) {
      WARD_ASSIGN_OR_RETURN(parts.socket, token(true));
    }
    return parts;
  }

 private:
  void HasAccepted(pid_t process) {
    const auto accepting = socket_->accepting.find(process);
    if (--accepting->second == 0) socket_->accepting.erase(accepting);
    environment_.CloseIfUnheld(*socket_);
  }

  // One that waits in the queue of a socket that is stopped, or null. The
  // others stay there: they lose their connections if this process is killed.
  std::unique_ptr<Transport> TakeStopped() {
    const NoSchedulingPoints quiet;
    if (!socket_->stopped || !IsOpen() || !Readable()) return nullptr;
    std::shared_ptr<SimulatedSocket> client = std::move(socket_->queue.front());
    socket_->queue.pop_front();
    return environment_.Wrap(std::move(client),
                             absl::StrCat("refused at ", path_));
  }

  SimulatedEnvironment& environment_;
  const int number_;
  const std::shared_ptr<SimulatedEnvironment::ListenSocket> socket_;
  const bool has_name_;
  const bool is_strangers_;  // What another user has named is his to remove.
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
    const NoSchedulingPoints quiet;
    environment_.Step("waiting for a process");
    if (!environment_.scheduler_.BlockUntil(
            "waiting for a process to end", [this] { return Ending(); },
            deadline)) {
      return MakeError(reason::kTimedOut,
                       absl::StrCat("process ", pid(), " is still running"));
    }
    Order::Acquire(&state_);
    if (state_.parent != environment_.ProcessId()) return ProcessExit{};
    if (!adopted_) state_.reaped = true;
    return *state_.exit;
  }

  absl::Status Kill(int signal) override {
    const NoSchedulingPoints quiet;
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
    // kill(2); one that has ended is no error.
    const uid_t sender = environment_.UserId();
    if (sender != 0 && sender != state_.user && !Ending()) {
      return SystemError(EPERM,
                         absl::StrCat("send signal ", signal, " to ", pid()));
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
    const NoSchedulingPoints quiet;
    environment_.Step("looking for signals");
    // As they come out of a real one: the next ones when all are returned.
    if (taken_.empty()) taken_.swap(state_.pending);
    if (taken_.empty()) return 0;
    const int signal = *taken_.begin();
    taken_.erase(taken_.begin());
    Order::Acquire(&state_);
    return signal;
  }

 private:
  SimulatedEnvironment& environment_;
  SimulatedEnvironment::ProcessState& state_;
  const bool found_blocked_;
  absl::btree_set<int> taken_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_SIMULATED_HANDLES_H_

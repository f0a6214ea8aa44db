// The simulated sockets and processes against the kernel's: random sequences
// of operations, run step by step on both, must have the same outcomes.
//
// A sequence is known by its seed: WARD_PARITY_SEED=<n> runs one alone.

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cinttypes>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/server/process.h"
#include "ward/server/signals.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/simulator/simulation.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// Without WARD_RUNS. Each run of --runs_per_test has seeds of its own.
constexpr uint64_t kSequences = 2000;
constexpr uint64_t kMostSequences = 1'000'000'000;

// So many in flight stay far from the kernel's limit, whose accounting the
// simulator does not copy.
constexpr size_t kMaxSend = 3000;
constexpr size_t kMaxReceive = 5000;

constexpr size_t kTransports = 6;
constexpr size_t kListeners = 3;
constexpr size_t kFiles = 8;
constexpr int kNobody = -1;

// Already over: what would wait does not.
const absl::Time kDue = absl::InfinitePast();

// SplitMix64: cheap to seed, which is done for each sequence.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  size_t Below(size_t bound) { return static_cast<size_t>(Next() % bound); }
  bool OneIn(size_t n) { return Below(n) == 0; }

 private:
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

// --- what both sides share ---

// Bytes to send from, and files to pass.
class Material {
 public:
  Material() {
    Random random(0);
    for (size_t i = 0; i < 2 * kMaxSend; ++i) {
      bytes_.push_back(static_cast<char>(random.Below(256)));
    }
    for (size_t i = 0; i < kFiles; ++i) {
      files_[i].Reset(memfd_create("parity", MFD_CLOEXEC));
      inodes_[i] = Inode(files_[i].get());
    }
    std::string directory = "/tmp/ward-parity-XXXXXX";
    if (mkdtemp(directory.data()) == nullptr) abort();
    directory_ = directory;
  }
  ~Material() { rmdir(directory_.c_str()); }

  std::string_view bytes() const { return bytes_; }
  int file(size_t number) const { return files_[number % kFiles].get(); }

  // "f3", whatever number the descriptor has.
  std::string NameOf(const FileDescriptor& fd) const {
    const auto* const found =
        std::find(inodes_.begin(), inodes_.end(), Inode(fd.get()));
    return found == inodes_.end() ? "unknown"
                                  : absl::StrCat("f", found - inodes_.begin());
  }

  const std::string& directory() const { return directory_; }

 private:
  static ino_t Inode(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 ? found.st_ino : 0;
  }

  std::string bytes_;
  std::array<FileDescriptor, kFiles> files_;
  std::array<ino_t, kFiles> inodes_;
  std::string directory_;
};

const Material* material = nullptr;

// Paths are chosen by number.
enum Path {
  kPathA,
  kPathB,
  kPathC,
  kLongPath,
  kTooLongPath,
  kNoPath,
  kOwnPath
};
constexpr size_t kSharedPaths = 4;

std::string PathOf(int path) {
  switch (path) {
    case kLongPath:
      return absl::StrCat(material->directory(), "/", std::string(60, 'd'));
    case kTooLongPath:
      return absl::StrCat(material->directory(), "/", std::string(200, 'e'));
    case kNoPath:
      return absl::StrCat(material->directory(), "/nobody");
    case kOwnPath:
      return "";
    default:
      return absl::StrCat(material->directory(), "/",
                          std::string(1, static_cast<char>('a' + path)));
  }
}

std::string PathName(int path) {
  switch (path) {
    case kLongPath:
      return "a long path";
    case kTooLongPath:
      return "too long a path";
    case kNoPath:
      return "a path that is not there";
    case kOwnPath:
      return "a path of its own";
    default:
      return {static_cast<char>('a' + path)};
  }
}

// --- a sequence of steps ---

enum class Kind {
  kCreatePair,
  kSend,
  kFill,
  kReceive,
  kShutDown,
  kShutDownReceiving,
  kClose,
  kPeer,
  kPoll,
  kListen,
  kConnect,
  kFlood,
  kAccept,
  kRemovePath,
  kStopAccepting,
  kCloseListener,
  kDestroyListener,
  kFork,
  kShare,
  kEndShare,
};

// How a child ends once it has run its steps.
enum class Ending {
  kExits,
  kIsKilled,
  kIsTerminated,
  kBlocksSignals,
  kReceivesSignal,
  kOutlivesDeadline,
};

struct Step {
  Kind kind;
  // What it is done to, and the other one it makes.
  size_t slot = 0;
  size_t other = 0;
  int path = 0;
  size_t bytes = 0;
  size_t offset = 0;
  size_t descriptors = 0;
  // Transports, and above them listeners.
  std::vector<size_t> polled = {};
  // Of a child.
  std::vector<Step> script = {};
  Ending ending = Ending::kExits;
  int code = 0;

  std::string ToString() const;
};

std::string Polled(size_t number) {
  return number < kTransports ? absl::StrCat("t", number)
                              : absl::StrCat("l", number - kTransports);
}

std::string Step::ToString() const {
  const std::string transport = absl::StrCat("t", slot);
  const std::string listener = absl::StrCat("l", slot);
  switch (kind) {
    case Kind::kCreatePair:
      return absl::StrCat("t", slot, ", t", other, " = CreateTransportPair()");
    case Kind::kSend:
      return absl::StrCat(transport, ".Send(", bytes, " bytes, ", descriptors,
                          " descriptors)");
    case Kind::kFill:
      return absl::StrCat("fill ", transport, " with sends of ", bytes,
                          " bytes, then read all");
    case Kind::kReceive:
      return absl::StrCat(transport, ".Receive(", bytes, " bytes, ",
                          descriptors, " descriptors)");
    case Kind::kShutDown:
      return absl::StrCat(transport, ".ShutDown()");
    case Kind::kShutDownReceiving:
      return absl::StrCat(transport, ".ShutDownReceiving()");
    case Kind::kClose:
      return absl::StrCat("destroy ", transport);
    case Kind::kPeer:
      return absl::StrCat(transport, ".Peer()");
    case Kind::kPoll: {
      std::vector<std::string> names;
      for (const size_t number : polled) names.push_back(Polled(number));
      return absl::StrCat("Poll(", absl::StrJoin(names, ", "), ")");
    }
    case Kind::kListen:
      return absl::StrCat(listener, " = Listen(", PathName(path), ")");
    case Kind::kConnect:
      return absl::StrCat(transport, " = Connect(", PathName(path), ")");
    case Kind::kFlood:
      return absl::StrCat("connect to ", PathName(path),
                          " until its queue is full, and close all");
    case Kind::kAccept:
      return absl::StrCat("t", other, " = ", listener, ".Accept()");
    case Kind::kRemovePath:
      return absl::StrCat(listener, ".RemovePath()");
    case Kind::kStopAccepting:
      return absl::StrCat(listener, ".StopAccepting()");
    case Kind::kCloseListener:
      return absl::StrCat(listener, ".Close()");
    case Kind::kDestroyListener:
      return absl::StrCat("destroy ", listener);
    case Kind::kShare:
      return absl::StrCat("fork with ", listener, ", and let the child wait");
    case Kind::kEndShare:
      return "end that child";
    case Kind::kFork: {
      std::string text =
          absl::StrCat("fork with ", transport, ": the child does");
      for (const Step& step : script) {
        absl::StrAppend(&text, " ", step.ToString(), ",");
      }
      switch (ending) {
        case Ending::kExits:
          return absl::StrCat(text, " and exits with ", code);
        case Ending::kIsKilled:
          return absl::StrCat(text, " and is killed");
        case Ending::kIsTerminated:
          return absl::StrCat(text, " and gets a SIGTERM");
        case Ending::kBlocksSignals:
          return absl::StrCat(text, " and gets a SIGTERM that it blocks");
        case Ending::kReceivesSignal:
          return absl::StrCat(text, " and exits when it receives SIGUSR1");
        case Ending::kOutlivesDeadline:
          return absl::StrCat(text, " and outlives its deadline");
      }
    }
  }
  return "";
}

// --- one side ---

std::string Outcome(const absl::Status& status) {
  if (status.ok()) return "ok";
  const std::string reason = ReasonOf(status);
  return reason.empty() ? absl::StatusCodeToString(status.code()) : reason;
}

std::string Send(Transport& transport, const Step& step) {
  std::vector<int> descriptors;
  for (size_t i = 0; i < step.descriptors; ++i) {
    descriptors.push_back(material->file(step.offset + i));
  }
  const absl::StatusOr<size_t> sent = transport.Send(
      material->bytes().substr(step.offset, step.bytes), descriptors, kDue);
  return sent.ok() ? absl::StrCat(*sent, " bytes") : Outcome(sent.status());
}

struct Read {
  std::string outcome;
  size_t bytes = 0;
  std::string descriptors = {};
};

Read Receive(Transport& transport, size_t size, size_t max_descriptors) {
  std::array<char, kMaxReceive> buffer;
  std::vector<FileDescriptor> descriptors;
  const absl::StatusOr<Transport::Received> received = transport.Receive(
      absl::MakeSpan(buffer.data(), size), max_descriptors, descriptors, kDue);
  if (!received.ok()) return {Outcome(received.status())};
  std::string outcome =
      received->end_of_stream
          ? "end of stream"
          : absl::StrCat(received->bytes, " bytes ",
                         absl::Hex(std::hash<std::string_view>()(
                             {buffer.data(), received->bytes})));
  std::string names;
  for (const FileDescriptor& fd : descriptors) {
    absl::StrAppend(&names, " ", material->NameOf(fd));
  }
  if (received->descriptors_truncated) absl::StrAppend(&names, " truncated");
  absl::StrAppend(&outcome, names);
  return {std::move(outcome), received->bytes, std::move(names)};
}

// Runs steps in one environment.
class Interpreter {
 public:
  explicit Interpreter(Environment& environment) : environment_(environment) {}
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // In the simulation the names do not exist.
  ~Interpreter() {
    EndShare();
    for (const std::string& path : paths_) unlink(path.c_str());
    for (const std::string& path : own_paths_) {
      unlink(path.c_str());
      rmdir(path.substr(0, path.rfind('/')).c_str());
    }
  }

  std::vector<std::string> Run(absl::Span<const Step> steps) {
    std::vector<std::string> outcomes;
    outcomes.reserve(steps.size());
    for (const Step& step : steps) outcomes.push_back(Run(step));
    return outcomes;
  }

 private:
  struct End {
    std::unique_ptr<Transport> transport;
    // The other end's slot, where it is known.
    int peer = kNobody;
  };

  // What a step finds nothing for is nothing, so that every subsequence of a
  // sequence is one too.
  static std::string Nothing() { return "-"; }

  void Put(size_t slot, std::unique_ptr<Transport> transport,
           int peer = kNobody) {
    Drop(slot);
    ends_[slot] = {std::move(transport), peer};
  }

  std::unique_ptr<Transport> Drop(size_t slot) {
    End& end = ends_[slot];
    if (end.peer != kNobody) {
      ends_[static_cast<size_t>(end.peer)].peer = kNobody;
    }
    end.peer = kNobody;
    return std::move(end.transport);
  }

  std::string Run(const Step& step) {
    switch (step.kind) {
      case Kind::kCreatePair:
        return CreatePair(step);
      case Kind::kPoll:
        return Poll(step);
      case Kind::kListen:
        return Listen(step);
      case Kind::kConnect:
        return Connect(step);
      case Kind::kFlood:
        return Flood(step);
      case Kind::kEndShare:
        return EndShare();
      case Kind::kAccept:
      case Kind::kRemovePath:
      case Kind::kStopAccepting:
      case Kind::kCloseListener:
      case Kind::kDestroyListener:
      case Kind::kShare:
        return listeners_[step.slot] == nullptr ? Nothing() : OnListener(step);
      default:
        return ends_[step.slot].transport == nullptr ? Nothing()
                                                     : OnTransport(step);
    }
  }

  std::string CreatePair(const Step& step) {
    auto pair = environment_.CreateTransportPair();
    if (!pair.ok()) return Outcome(pair.status());
    Put(step.slot, std::move(pair->first));
    Put(step.other, std::move(pair->second));
    ends_[step.slot].peer = static_cast<int>(step.other);
    ends_[step.other].peer = static_cast<int>(step.slot);
    return "ok";
  }

  std::string OnTransport(const Step& step) {
    Transport& transport = *ends_[step.slot].transport;
    switch (step.kind) {
      case Kind::kSend:
        return Send(transport, step);
      case Kind::kReceive:
        return Receive(transport, step.bytes, step.descriptors).outcome;
      case Kind::kFill:
        return Fill(step);
      case Kind::kShutDown:
        transport.ShutDown();
        return "done";
      case Kind::kShutDownReceiving:
        transport.ShutDownReceiving();
        return "done";
      case Kind::kClose:
        Drop(step.slot);
        return "done";
      case Kind::kPeer:
        return Peer(transport);
      case Kind::kFork:
        return Fork(step);
      default:
        return Nothing();
    }
  }

  std::string Peer(const Transport& transport) {
    const absl::StatusOr<PeerCredentials> peer = transport.Peer();
    if (!peer.ok()) return Outcome(peer.status());
    return absl::StrCat(
        peer->pid == environment_.ProcessId() ? "this" : "another",
        " process, ", peer->uid == environment_.UserId() ? "this" : "another",
        " user", transport.HungUp() ? ", hung up" : "");
  }

  // How much fits is the kernel's own affair; that it does again when all has
  // been read is not.
  std::string Fill(const Step& step) {
    End& end = ends_[step.slot];
    if (end.peer == kNobody) return Nothing();
    Transport& peer = *ends_[static_cast<size_t>(end.peer)].transport;
    const std::string_view bytes = material->bytes().substr(0, step.bytes);
    size_t sent = 0;
    absl::Status status;
    while (status.ok()) {
      const absl::StatusOr<size_t> size = end.transport->Send(bytes, {}, kDue);
      status = size.status();
      sent += size.value_or(0);
    }
    std::string outcome = absl::StrCat("full: ", Outcome(status), "; ",
                                       Send(*end.transport, step), "; read:");
    size_t read = 0;
    Read last;
    do {
      last = Receive(peer, kMaxReceive, kFiles);
      read += last.bytes;
      // Not the bytes, which depend on how much fitted.
      absl::StrAppend(&outcome, last.descriptors);
    } while (last.bytes > 0);
    absl::StrAppend(&outcome, " ", read - sent, " bytes from before, then ",
                    last.outcome, "; ", Send(*end.transport, step));
    return outcome;
  }

  std::string Poll(const Step& step) {
    std::vector<const Pollable*> polled;
    for (const size_t number : step.polled) {
      const Pollable* pollable = nullptr;
      if (number < kTransports) {
        pollable = ends_[number].transport.get();
      } else {
        pollable = listeners_[number - kTransports].get();
      }
      if (pollable != nullptr) polled.push_back(pollable);
    }
    if (polled.empty()) return Nothing();
    const absl::StatusOr<size_t> ready = environment_.Poll(polled, kDue);
    return ready.ok() ? absl::StrCat("ready: ", *ready)
                      : Outcome(ready.status());
  }

  std::string Listen(const Step& step) {
    ListenOptions options;
    options.path = PathOf(step.path);
    auto listener = environment_.Listen(options);
    if (!listener.ok()) return Outcome(listener.status());
    auto& paths = step.path == kOwnPath ? own_paths_ : paths_;
    paths.push_back((*listener)->path());
    listeners_[step.slot] = *std::move(listener);
    return "ok";
  }

  std::string Connect(const Step& step) {
    const std::optional<std::string> path = ToConnect(step);
    if (!path.has_value()) return Nothing();
    auto transport = environment_.Connect(*path, kDue);
    if (!transport.ok()) return Outcome(transport.status());
    Put(step.slot, *std::move(transport));
    return "ok";
  }

  std::string Flood(const Step& step) {
    const std::optional<std::string> path = ToConnect(step);
    if (!path.has_value()) return Nothing();
    std::vector<std::unique_ptr<Transport>> clients;
    while (true) {
      auto client = environment_.Connect(*path, kDue);
      if (!client.ok()) {
        return absl::StrCat(clients.size(), " clients, then ",
                            Outcome(client.status()));
      }
      clients.push_back(*std::move(client));
    }
  }

  std::optional<std::string> ToConnect(const Step& step) const {
    if (step.path != kOwnPath) return PathOf(step.path);
    if (own_paths_.empty()) return std::nullopt;
    return own_paths_.back();
  }

  std::string OnListener(const Step& step) {
    Listener& listener = *listeners_[step.slot];
    switch (step.kind) {
      case Kind::kAccept: {
        const std::vector<const Pollable*> polled = {&listener};
        const absl::Status waits = environment_.Poll(polled, kDue).status();
        if (!waits.ok()) return Outcome(waits);
        absl::StatusOr<Listener::Accepted> accepted = listener.Accept();
        if (!accepted.ok()) return Outcome(accepted.status());
        Put(step.other, std::move(accepted->transport));
        return accepted->on_reserve ? "on the reserve" : "ok";
      }
      case Kind::kRemovePath:
        listener.RemovePath();
        return "done";
      case Kind::kStopAccepting:
        listener.StopAccepting([](const std::unique_ptr<Transport>&) {});
        return "done";
      case Kind::kCloseListener:
        listener.Close();
        return "done";
      case Kind::kDestroyListener:
        listeners_[step.slot] = nullptr;
        return "done";
      case Kind::kShare:
        return Share(listener);
      default:
        return Nothing();
    }
  }

  // A child that has the listener open, too, until the next EndShare.
  std::string Share(const Listener& listener) {
    std::string outcome = EndShare();
    auto pair = environment_.CreateTransportPair();
    if (!pair.ok()) return Outcome(pair.status());
    ForkOptions options;
    options.allow_threads = true;
    options.keep_open = {pair->second->descriptor()};
    for (const int fd : listener.descriptors()) {
      if (fd >= 0) options.keep_open.push_back(fd);
    }
    auto process =
        environment_.Fork(options, [this, child = std::move(pair->second)] {
          // Nothing else of the parent's is open now.
          (void)child->Send(".", {}, absl::InfiniteFuture());
          const std::vector<const Pollable*> polled = {child.get()};
          (void)environment_.Poll(polled, absl::InfiniteFuture());
          return 0;
        });
    if (!process.ok()) return Outcome(process.status());
    sharer_ = *std::move(process);
    until_ = std::move(pair->first);
    const std::vector<const Pollable*> polled = {until_.get()};
    const auto ready = environment_.Poll(polled, absl::InfiniteFuture());
    return absl::StrCat(outcome, "; ", Outcome(ready.status()));
  }

  std::string EndShare() {
    if (sharer_ == nullptr) return Nothing();
    until_ = nullptr;
    const auto exit = sharer_->Wait(absl::InfiniteFuture());
    sharer_ = nullptr;
    return exit.ok() ? exit->ToString() : Outcome(exit.status());
  }

  // From the fork to the child's end, so that the order is known. A pair of its
  // own tells the parent what the child saw, and the child when to go on.
  std::string Fork(const Step& step) {
    auto pair = environment_.CreateTransportPair();
    if (!pair.ok()) return Outcome(pair.status());
    Transport& parent = *pair->first;
    std::unique_ptr<Transport> end = Drop(step.slot);
    ForkOptions options;
    options.keep_open = {end->descriptor(), pair->second->descriptor()};
    for (size_t i = 0; i < kFiles; ++i) {
      options.keep_open.push_back(material->file(i));
    }
    // The simulation leaves threads behind that were killed.
    options.allow_threads = true;
    auto process =
        environment_.Fork(options, [this, &step, end = std::move(end),
                                    child = std::move(pair->second)]() mutable {
          return RunChild(step, *end, *child);
        });
    if (!process.ok()) return Outcome(process.status());
    std::string outcome = FinishChild(step, **process, parent);
    const auto exit = (*process)->Wait(absl::InfiniteFuture());
    absl::StrAppend(&outcome, "; it ",
                    exit.ok() ? exit->ToString() : Outcome(exit.status()));
    const auto again = (*process)->Wait(kDue);
    absl::StrAppend(&outcome, "; again ",
                    again.ok() ? again->ToString() : Outcome(again.status()));
    absl::StrAppend(
        &outcome, "; Kill: ", Outcome((*process)->Kill(SIGKILL)),
        "; from the child: ", Receive(parent, kMaxReceive, 0).outcome);
    return outcome;
  }

  // In the parent: what the child did, up to where it is about to end.
  std::string FinishChild(const Step& step, Process& process,
                          Transport& parent) {
    std::string report(kMaxReceive, '\0');
    std::vector<FileDescriptor> none;
    size_t size = 0;
    while (size == 0) {
      const auto received = parent.Receive(absl::MakeSpan(report), 0, none,
                                           absl::InfiniteFuture());
      if (!received.ok()) return Outcome(received.status());
      if (received->end_of_stream) return "no report";
      size = received->bytes;
    }
    report.resize(size);
    const std::vector<const Pollable*> polled = {&process};
    switch (step.ending) {
      case Ending::kIsKilled:
        Kill(process, SIGKILL, report);
        break;
      case Ending::kIsTerminated:
        Kill(process, SIGTERM, report);
        break;
      case Ending::kBlocksSignals:
        Kill(process, SIGTERM, report);
        ReportLife(process, report);
        parent.ShutDown();
        break;
      case Ending::kReceivesSignal:
        Kill(process, SIGUSR1, report);
        break;
      default:
        break;
    }
    const auto ended = environment_.Poll(polled, absl::InfiniteFuture());
    absl::StrAppend(&report, "; poll: ", Outcome(ended.status()),
                    process.Ending() ? ", ending" : ", not ending");
    return report;
  }

  void Kill(Process& process, int signal, std::string& report) {
    ReportLife(process, report);
    absl::StrAppend(&report, "; kill: ", Outcome(process.Kill(signal)));
  }

  void ReportLife(Process& process, std::string& report) {
    const std::vector<const Pollable*> polled = {&process};
    absl::StrAppend(
        &report, "; poll: ", Outcome(environment_.Poll(polled, kDue).status()),
        process.Ending() ? ", ending" : ", not ending");
    absl::StrAppend(&report, ", wait: ", Outcome(process.Wait(kDue).status()));
  }

  // In the child.
  int RunChild(const Step& step, Transport& end, Transport& child) {
    std::string report;
    for (const Step& part : step.script) {
      if (part.kind == Kind::kSend) {
        absl::StrAppend(&report, Send(end, part), ", ");
      } else if (part.kind == Kind::kReceive) {
        absl::StrAppend(
            &report, Receive(end, part.bytes, part.descriptors).outcome, ", ");
      } else if (part.kind == Kind::kPeer) {
        absl::StrAppend(&report, Peer(end), ", ");
      } else {
        end.ShutDown();
      }
    }
    std::unique_ptr<Signals> signals;
    if (step.ending == Ending::kIsTerminated ||
        step.ending == Ending::kReceivesSignal) {
      SignalPlan plan;
      if (step.ending == Ending::kReceivesSignal) plan.receive = {SIGUSR1};
      auto taken = environment_.TakeSignals(plan);
      absl::StrAppend(&report, Outcome(taken.status()));
      if (taken.ok()) signals = *std::move(taken);
    }
    (void)child.Send(absl::StrCat(report, "."), {}, absl::InfiniteFuture());
    if (step.ending == Ending::kExits) return step.code;
    if (step.ending == Ending::kOutlivesDeadline) {
      (void)environment_.SetProcessDeadline(absl::ZeroDuration());
    }
    std::vector<const Pollable*> polled = {&child};
    if (signals != nullptr) polled.push_back(signals.get());
    (void)environment_.Poll(polled, absl::InfiniteFuture());
    return signals == nullptr ? step.code : signals->Next();
  }

  Environment& environment_;
  std::array<End, kTransports> ends_;
  std::array<std::unique_ptr<Listener>, kListeners> listeners_;
  std::vector<std::string> paths_;
  std::vector<std::string> own_paths_;
  std::unique_ptr<Process> sharer_;
  std::unique_ptr<Transport> until_;
};

// --- sequences ---

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}

  std::vector<Step> Make() {
    const size_t size = 5 + random_.Below(21);
    const bool listening = random_.OneIn(3);
    const size_t fork_at = random_.OneIn(50) ? 3 + random_.Below(size - 3) : 0;
    shares_ = random_.OneIn(50);
    std::vector<Step> steps;
    steps.push_back(listening ? Listen() : CreatePair());
    while (steps.size() < size) {
      if (fork_at != 0 && steps.size() == fork_at) {
        steps.push_back(Fork());
      } else if (listening && random_.Below(5) < 3) {
        steps.push_back(OnListener());
      } else {
        steps.push_back(OnTransport());
      }
    }
    return steps;
  }

 private:
  // A slot that is in use as far as this knows, or any.
  template <size_t size>
  size_t Used(const std::array<bool, size>& used) {
    return Pick(used, true);
  }
  template <size_t size>
  size_t Free(const std::array<bool, size>& used) {
    return Pick(used, false);
  }
  template <size_t size>
  size_t Pick(const std::array<bool, size>& used, bool wanted) {
    const size_t start = random_.Below(size);
    for (size_t i = 0; i < size; ++i) {
      if (used[(start + i) % size] == wanted) return (start + i) % size;
    }
    return start;
  }

  // Half of the sizes are small, so that several fit into one another.
  size_t Size(size_t most) {
    return 1 + random_.Below(random_.OneIn(2) ? 20 : most);
  }

  Step Send(size_t slot) {
    Step step{Kind::kSend, slot};
    step.bytes = Size(kMaxSend);
    step.offset = random_.Below(kMaxSend);
    step.descriptors = random_.OneIn(2) ? 0 : random_.Below(6);
    return step;
  }

  Step Receive(size_t slot) {
    Step step{Kind::kReceive, slot};
    step.bytes = Size(kMaxReceive);
    step.descriptors = random_.Below(7);
    return step;
  }

  Step CreatePair() {
    Step step{Kind::kCreatePair, Free(transports_)};
    transports_[step.slot] = true;
    step.other = Free(transports_);
    if (step.other == step.slot) step.other = (step.slot + 1) % kTransports;
    transports_[step.other] = true;
    return step;
  }

  Step OnTransport() {
    const size_t slot = Used(transports_);
    const size_t choice = random_.Below(100);
    if (choice < 35) return Send(slot);
    if (choice < 70) return Receive(slot);
    if (choice < 75) return CreatePair();
    if (choice < 78) return {Kind::kShutDown, slot};
    if (choice < 80) return {Kind::kShutDownReceiving, slot};
    if (choice < 85) {
      transports_[slot] = false;
      return {Kind::kClose, slot};
    }
    if (choice < 88) return {Kind::kPeer, slot};
    if (choice < 89 && random_.OneIn(4)) {
      Step step{Kind::kFill, slot};
      step.bytes = 1000 + random_.Below(kMaxSend - 1000);
      return step;
    }
    return Poll();
  }

  Step Poll() {
    Step step{Kind::kPoll};
    const size_t size = 1 + random_.Below(3);
    for (size_t i = 0; i < size; ++i) {
      step.polled.push_back(random_.OneIn(4) ? kTransports + Used(listeners_)
                                             : Used(transports_));
    }
    return step;
  }

  int ListenPath() {
    if (random_.OneIn(12)) return kTooLongPath;
    if (random_.OneIn(8)) return kOwnPath;
    return random_.OneIn(2) ? kPathA
                            : static_cast<int>(random_.Below(kSharedPaths));
  }

  // Most often one at which somebody has listened.
  int ConnectPath() {
    if (random_.OneIn(20)) return kNoPath;
    if (random_.OneIn(20) || listened_.empty()) return ListenPath();
    return listened_[random_.Below(listened_.size())];
  }

  Step Listen() {
    Step step{Kind::kListen, Free(listeners_)};
    step.path = ListenPath();
    if (step.path != kTooLongPath) listened_.push_back(step.path);
    listeners_[step.slot] = true;
    return step;
  }

  Step OnListener() {
    const size_t slot = Used(listeners_);
    if (shares_ && random_.OneIn(4)) {
      if (random_.OneIn(2)) return {Kind::kPeer, Used(transports_)};
      return {random_.OneIn(3) ? Kind::kEndShare : Kind::kShare, slot};
    }
    const size_t choice = random_.Below(100);
    if (choice < 40) {
      Step step{Kind::kConnect, Free(transports_)};
      step.path = ConnectPath();
      transports_[step.slot] = true;
      return step;
    }
    if (choice < 65) {
      Step step{Kind::kAccept, slot, Free(transports_)};
      transports_[step.other] = true;
      return step;
    }
    if (choice < 75) return Listen();
    if (choice < 80) return {Kind::kRemovePath, slot};
    if (choice < 84) return {Kind::kStopAccepting, slot};
    if (choice < 88) return {Kind::kCloseListener, slot};
    if (choice < 93) {
      listeners_[slot] = false;
      return {Kind::kDestroyListener, slot};
    }
    if (choice < 94 && random_.OneIn(8)) {
      Step step{Kind::kFlood};
      step.path = ConnectPath();
      return step;
    }
    return Poll();
  }

  Step Fork() {
    Step step{Kind::kFork, Used(transports_)};
    transports_[step.slot] = false;
    const size_t size = random_.Below(5);
    for (size_t i = 0; i < size; ++i) {
      const size_t choice = random_.Below(10);
      step.script.push_back(choice < 5   ? Send(step.slot)
                            : choice < 8 ? Receive(step.slot)
                            : choice < 9 ? Step{Kind::kPeer, step.slot}
                                         : Step{Kind::kShutDown, step.slot});
    }
    if (random_.OneIn(2)) {
      step.ending = static_cast<Ending>(1 + random_.Below(5));
    }
    step.code = static_cast<int>(random_.Below(256));
    return step;
  }

  Random random_;
  std::array<bool, kTransports> transports_{};
  std::array<bool, kListeners> listeners_{};
  std::vector<int> listened_;
  bool shares_ = false;
};

// --- both sides ---

std::atomic<uint64_t> current_seed{0};

// A crash has no report, but a seed. The handler before this one has the rest.
class SeedOfCrash {
 public:
  SeedOfCrash() {
    struct sigaction action {};
    action.sa_handler = Print;
    for (size_t i = 0; i < kSignals.size(); ++i) {
      sigaction(kSignals[i], &action, &before_[i]);
    }
  }
  ~SeedOfCrash() { Restore(); }

 private:
  static constexpr std::array<int, 2> kSignals = {SIGSEGV, SIGABRT};

  static void Print(int) {
    std::array<char, 64> line;
    const int size =
        snprintf(line.data(), line.size(),
                 "WARD_PARITY_SEED=%" PRIu64 " crashes\n", current_seed.load());
    [[maybe_unused]] const ssize_t ignored =
        write(STDERR_FILENO, line.data(), static_cast<size_t>(size));
    Restore();
  }

  static void Restore() {
    for (size_t i = 0; i < kSignals.size(); ++i) {
      sigaction(kSignals[i], &before_[i], nullptr);
    }
  }

  static inline std::array<struct sigaction, kSignals.size()> before_;
};

std::vector<std::string> RunOnKernel(absl::Span<const Step> steps) {
  return Interpreter(Environment::Posix()).Run(steps);
}

std::vector<std::string> RunInSimulation(absl::Span<const Step> steps) {
  ReplayStrategy strategy({});
  SimulationOptions options;
  options.on_stuck = [](const std::string& why) {
    std::cerr << "the simulation is stuck: " << why;
    abort();
  };
  Simulation simulation(strategy, options);
  return Interpreter(simulation.environment()).Run(steps);
}

// Where the outcomes differ, and what they are.
struct Difference {
  size_t step;
  std::string kernel;
  std::string simulated;
};

std::optional<Difference> Compare(absl::Span<const Step> steps) {
  const std::vector<std::string> kernel = RunOnKernel(steps);
  const std::vector<std::string> simulated = RunInSimulation(steps);
  for (size_t i = 0; i < steps.size(); ++i) {
    if (kernel[i] != simulated[i]) {
      return Difference{i, kernel[i], simulated[i]};
    }
  }
  return std::nullopt;
}

// Takes away whatever the difference does not need.
void Shrink(std::vector<Step>& steps, Difference& difference) {
  for (bool shrunk = true; shrunk;) {
    shrunk = false;
    steps.resize(difference.step + 1);
    for (size_t i = steps.size(); i-- > 0;) {
      std::vector<Step> fewer = steps;
      fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(i));
      std::optional<Difference> still = Compare(fewer);
      if (!still.has_value()) continue;
      steps = std::move(fewer);
      difference = *std::move(still);
      shrunk = true;
      break;
    }
  }
}

std::string Report(uint64_t seed, absl::Span<const Step> steps,
                   const Difference& difference) {
  std::string text = absl::StrCat("WARD_PARITY_SEED=", seed, "\n");
  for (const Step& step : steps) {
    absl::StrAppend(&text, "  ", step.ToString(), "\n");
  }
  absl::StrAppend(&text, "    the kernel:    ", difference.kernel,
                  "\n    the simulator: ", difference.simulated, "\n");
  return text;
}

// False if the sides differ.
bool RunSeed(uint64_t seed) {
  current_seed = seed;
  std::vector<Step> steps = Generator(seed).Make();
  std::optional<Difference> difference = Compare(steps);
  if (!difference.has_value()) return true;
  Shrink(steps, *difference);
  ADD_FAILURE() << Report(seed, steps, *difference);
  return false;
}

TEST(ParityTest, SimulatorAndKernelAgree) {
  const Material shared;
  material = &shared;
  const SeedOfCrash seed_of_crash;
  if (!EnvironmentVariable("WARD_PARITY_SEED").empty()) {
    const uint64_t seed = EnvironmentNumber("WARD_PARITY_SEED", 0);
    for (const Step& step : Generator(seed).Make()) {
      std::cout << "  " << step.ToString() << std::endl;
    }
    RunSeed(seed);
    return;
  }
  const uint64_t sequences = EnvironmentNumber("WARD_RUNS", kSequences);
  const uint64_t first = RunNumber() * kMostSequences;
  // Whatever is opened once and for all.
  ASSERT_TRUE(RunSeed(first));
  const auto before = OpenDescriptors();
  int differences = 0;
  for (uint64_t i = 1; i < sequences && differences < 3; ++i) {
    if (!RunSeed(first + i)) ++differences;
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

}  // namespace
}  // namespace ward::testing

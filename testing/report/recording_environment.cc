#include "ward/testing/report/recording_environment.h"

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"

namespace ward::testing {

class RecordingTransport final : public Transport {
 public:
  RecordingTransport(RecordingEnvironment& environment,
                     std::unique_ptr<Transport> real, int stream,
                     RecordingEnvironment::Peer peer)
      : environment_(environment),
        real_(std::move(real)),
        stream_(stream),
        peer_(std::move(peer)) {}

  int descriptor() const override { return real_->descriptor(); }

  absl::StatusOr<size_t> Send(std::string_view bytes,
                              absl::Span<const int> descriptors,
                              absl::Time deadline) override {
    absl::StatusOr<size_t> sent = real_->Send(bytes, descriptors, deadline);
    if (sent.ok() && *sent > 0 && environment_.records()) {
      absl::MutexLock lock(&environment_.mutex_);
      environment_.transcript_.Bytes(
          TimeNow(), stream_, RecordingEnvironment::kTest, *peer_,
          bytes.substr(0, *sent), descriptors.size());
    }
    return sent;
  }

  absl::StatusOr<Received> Receive(absl::Span<char> buffer,
                                   size_t max_descriptors,
                                   std::vector<FileDescriptor>& descriptors,
                                   absl::Time deadline) override {
    const size_t had = descriptors.size();
    absl::StatusOr<Received> got =
        real_->Receive(buffer, max_descriptors, descriptors, deadline);
    if (got.ok() && got->bytes > 0 && environment_.records()) {
      absl::MutexLock lock(&environment_.mutex_);
      environment_.transcript_.Bytes(
          TimeNow(), stream_, *peer_, RecordingEnvironment::kTest,
          {buffer.data(), got->bytes}, descriptors.size() - had);
    }
    return got;
  }

  void ShutDown() override {
    if (environment_.records() && !real_->HungUp()) {
      absl::MutexLock lock(&environment_.mutex_);
      environment_.transcript_.Arrow(TimeNow(), RecordingEnvironment::kTest,
                                     *peer_, "cuts the connection");
    }
    real_->ShutDown();
  }
  void ShutDownReceiving() override { real_->ShutDownReceiving(); }
  bool HungUp() const override { return real_->HungUp(); }
  void set_spin_time(absl::Duration time) override {
    real_->set_spin_time(time);
  }
  absl::StatusOr<PeerCredentials> Peer() const override {
    return real_->Peer();
  }
  absl::Time TimeNow() const override { return real_->TimeNow(); }

 private:
  RecordingEnvironment& environment_;
  const std::unique_ptr<Transport> real_;
  const int stream_;
  const RecordingEnvironment::Peer peer_;
};

class RecordingProcess final : public Process {
 public:
  RecordingProcess(RecordingEnvironment& environment,
                   std::unique_ptr<Process> real, pid_t number)
      : environment_(environment), real_(std::move(real)), number_(number) {}

  int descriptor() const override { return real_->descriptor(); }
  pid_t pid() const override { return real_->pid(); }
  bool Ending() const override { return real_->Ending(); }

  absl::StatusOr<ProcessExit> Wait(absl::Time deadline) override {
    absl::StatusOr<ProcessExit> exit = real_->Wait(deadline);
    if (exit.ok() && environment_.records()) {
      absl::MutexLock lock(&environment_.mutex_);
      if (!std::exchange(ended_, true)) {
        environment_.transcript_.Event(environment_.TimeNow(), number_,
                                       exit->ToString());
      }
    }
    return exit;
  }

  absl::Status Kill(int signal) override {
    environment_.NoteSignal(pid(), signal);
    return real_->Kill(signal);
  }

 private:
  RecordingEnvironment& environment_;
  const std::unique_ptr<Process> real_;
  const pid_t number_;
  bool ended_ = false;
};

class RecordingZygote final : public Zygote {
 public:
  RecordingZygote(RecordingEnvironment& environment,
                  std::unique_ptr<Zygote> real)
      : environment_(environment), real_(std::move(real)) {}

  pid_t pid() const override { return real_->pid(); }
  absl::StatusOr<std::unique_ptr<Process>> Fork(const std::string& entry,
                                                ExecLinks links,
                                                ProcessGroup group,
                                                absl::Time deadline) override {
    WARD_ASSIGN_OR_RETURN(
        std::unique_ptr<Process> process,
        real_->Fork(entry, std::move(links), group, deadline));
    if (!environment_.records()) return process;
    return environment_.Started(std::move(process), "server");
  }

 private:
  RecordingEnvironment& environment_;
  const std::unique_ptr<Zygote> real_;
};

RecordingEnvironment::RecordingEnvironment(Environment& real)
    : real_(real), recorded_(real.ForkGeneration()) {
  absl::MutexLock lock(&mutex_);
  transcript_.Name(kTest, "test");
}

std::unique_ptr<Transport> RecordingEnvironment::Record(
    std::unique_ptr<Transport> transport, Peer peer, std::string origin) {
  origins_[transport->descriptor()] = std::move(origin);
  return std::make_unique<RecordingTransport>(*this, std::move(transport),
                                              ++last_stream_, std::move(peer));
}

absl::StatusOr<std::unique_ptr<Listener>> RecordingEnvironment::Listen(
    const ListenOptions& options) {
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<Listener> listener,
                        real_.Listen(options));
  if (!records()) return listener;
  absl::MutexLock lock(&mutex_);
  servers_[listener->path()] =
      expected_.emplace_back(std::make_shared<pid_t>(kTest));
  for (const int descriptor : listener->descriptors()) {
    origins_[descriptor] = absl::StrCat("listening at ", listener->path());
  }
  return listener;
}

absl::StatusOr<std::unique_ptr<Transport>> RecordingEnvironment::Connect(
    const std::string& path, absl::Time deadline) {
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<Transport> transport,
                        real_.Connect(path, deadline));
  if (!records()) return transport;
  absl::MutexLock lock(&mutex_);
  Peer& server = servers_[path];
  if (server == nullptr) server = std::make_shared<pid_t>(kTest);
  transcript_.Arrow(TimeNow(), kTest, *server, "connects");
  return Record(std::move(transport), server,
                absl::StrCat("connected to ", path));
}

absl::StatusOr<
    std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>>>
RecordingEnvironment::CreateTransportPair() {
  WARD_ASSIGN_OR_RETURN(auto ends, real_.CreateTransportPair());
  if (!records()) return ends;
  absl::MutexLock lock(&mutex_);
  origins_[ends.second->descriptor()] = "one of a pair";
  // What the other end says and is told is the same.
  ends.first = Record(std::move(ends.first),
                      expected_.emplace_back(std::make_shared<pid_t>(kTest)),
                      "one of a pair");
  return ends;
}

std::unique_ptr<Process> RecordingEnvironment::Started(
    std::unique_ptr<Process> process, std::string_view name) {
  absl::MutexLock lock(&mutex_);
  const pid_t number = ++last_;
  numbers_[process->pid()] = number;
  transcript_.Name(number, name);
  transcript_.Arrow(TimeNow(), kTest, number, "forks");
  for (const Peer& peer : expected_) *peer = number;
  expected_.clear();
  return std::make_unique<RecordingProcess>(*this, std::move(process), number);
}

absl::StatusOr<std::unique_ptr<Process>> RecordingEnvironment::Fork(
    const ForkOptions& options, absl::AnyInvocable<int()> child) {
  const bool recorded = records();
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<Process> process,
                        real_.Fork(options, std::move(child)));
  if (!recorded) return process;
  return Started(std::move(process), options.keep_all_open ? "fork" : "server");
}

absl::StatusOr<std::unique_ptr<Process>> RecordingEnvironment::Exec(
    const std::string& entry, ExecLinks links, ProcessGroup group) {
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<Process> process,
                        real_.Exec(entry, std::move(links), group));
  if (!records()) return process;
  return Started(std::move(process), "server");
}

absl::StatusOr<std::unique_ptr<Zygote>> RecordingEnvironment::StartZygote() {
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<Zygote> zygote, real_.StartZygote());
  return std::make_unique<RecordingZygote>(*this, std::move(zygote));
}

void RecordingEnvironment::NoteSignal(pid_t pid, int signal) {
  if (!records()) return;
  absl::MutexLock lock(&mutex_);
  const auto number = numbers_.find(pid);
  if (number == numbers_.end()) return;
  transcript_.Signal(TimeNow(), number->second, signal);
}

std::string RecordingEnvironment::OriginOf(int descriptor) const {
  absl::MutexLock lock(&mutex_);
  const auto origin = origins_.find(descriptor);
  return origin == origins_.end() ? "" : origin->second;
}

}  // namespace ward::testing

#include "ward/examples/spawn_server/spawn_server.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/examples/spawn_server/worker.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/lifecycle.h"
#include "ward/server/owner_handle.h"
#include "ward/server/stream.h"

namespace {

// More than a fork and the start of a worker ever take.
constexpr absl::Duration kSpawnTimeout = absl::Seconds(30);

struct Running {
  std::unique_ptr<Worker> worker;
  std::unique_ptr<ward::Process> process;
};

// Workers that outlive their preloader, owned by whoever asked for them. Where
// a process is a thread, or simulated, they go on using these very objects.
std::vector<Running>& Survivors() {
  static auto& survivors = *new std::vector<Running>();
  return survivors;
}

// The process in which the application is loaded.
class Preloader {
 public:
  Preloader(ward::Environment& environment, ward::MessageChannel requests)
      : environment_(environment), requests_(std::move(requests)) {}

  ~Preloader() {
    std::move(workers_.begin(), workers_.end(),
              std::back_inserter(Survivors()));
  }

  absl::Status Run(ward::OwnerLink& owner) {
    application_ = Application::Load();
    WARD_RETURN_IF_ERROR(owner.ReportReady());
    while (true) {
      std::vector<const ward::Pollable*> polled = {&owner.pollable(),
                                                   requests_.transport()};
      for (const Running& running : workers_) {
        polled.push_back(running.process.get());
      }
      WARD_ASSIGN_OR_RETURN(const size_t ready,
                            environment_.Poll(polled, absl::InfiniteFuture()));
      if (ready == 0) return absl::OkStatus();
      if (ready == 1) {
        absl::StatusOr<ward::Message> request = requests_.Read();
        // The server has closed its end, and is about to stop this process.
        if (!request.ok()) return absl::OkStatus();
        const absl::Status status = request->name() == kCountWorkers.name
                                        ? requests_.Write(workers_.size())
                                        : Spawn();
        if (!status.ok()) WARD_RETURN_IF_ERROR(requests_.WriteError(status));
      } else {
        const auto ended = workers_.begin() + static_cast<ptrdiff_t>(ready - 2);
        WARD_RETURN_IF_ERROR(
            ended->process->Wait(absl::InfiniteFuture()).status());
        workers_.erase(ended);
      }
    }
  }

 private:
  absl::Status Spawn() {
    if (workers_.size() >= SpawnServer::kMaxWorkers) {
      return ward::MakeError(kTooManyWorkers,
                             absl::StrCat("there are ", workers_.size(),
                                          " workers; let go of some first"));
    }
    auto worker = std::make_unique<Worker>(application_);
    WARD_RETURN_IF_ERROR(worker->Start());
    // If it cannot be given away, the destructor stops it.
    WARD_ASSIGN_OR_RETURN(const ward::OwnerHandle handle,
                          worker->ShareOwnership());
    WARD_RETURN_IF_ERROR(handle.WriteTo(requests_));
    WARD_ASSIGN_OR_RETURN(std::unique_ptr<ward::Process> process,
                          worker->Disown());
    workers_.push_back({std::move(worker), std::move(process)});
    return absl::OkStatus();
  }

  ward::Environment& environment_;
  ward::MessageChannel requests_;
  std::shared_ptr<const Application> application_;
  std::vector<Running> workers_;
};

}  // namespace

WARD_REGISTER_SERVER(SpawnServer);

SpawnServer::SpawnServer(ward::ServerOptions options)
    : AbstractServer(std::move(options)) {
  Define(kSpawn, &SpawnServer::Spawn);
  Define(kCountWorkers, &SpawnServer::CountWorkers);
}

absl::Status SpawnServer::InitializeServer() {
  WARD_ASSIGN_OR_RETURN(auto ends, environment().CreateTransportPair());
  ward::LaunchOptions options;
  options.fork.keep_open = {ends.second->descriptor()};
  WARD_ASSIGN_OR_RETURN(
      preloader_,
      ward::ServerProcess::Fork(
          environment(), std::move(options),
          [environment = &environment(),
           end = std::move(ends.second)](ward::OwnerLink& owner) mutable {
            return Preloader(*environment, ward::MessageChannel(std::move(end)))
                .Run(owner);
          }));
  WARD_RETURN_IF_ERROR(preloader_->WaitUntilReady());
  absl::MutexLock lock(&mutex_);
  requests_ = ward::MessageChannel(std::move(ends.first));
  requests_.set_timeout(kSpawnTimeout);
  return absl::OkStatus();
}

absl::Status SpawnServer::FinalizeServer() {
  {
    absl::MutexLock lock(&mutex_);
    requests_.Close();
  }
  return preloader_->Stop({});
}

absl::StatusOr<ward::Message> SpawnServer::Ask(std::string_view what) {
  const auto ask = [&]() -> absl::StatusOr<ward::Message> {
    absl::MutexLock lock(&mutex_);
    WARD_RETURN_IF_ERROR(requests_.Write(what));
    return requests_.Read();
  };
  absl::StatusOr<ward::Message> answer = ask();
  if (answer.ok()) return answer;
  const absl::Status alive = preloader_->CheckAlive();
  if (alive.ok()) return answer;
  return ward::MakeError(
      kPreloaderDied,
      absl::StrCat("no worker can be forked any more: ", alive.message()));
}

absl::Status SpawnServer::Spawn(
    uint32_t count, ward::StreamWriter<ward::OwnerHandle>& workers) {
  for (; count > 0; --count) {
    WARD_ASSIGN_OR_RETURN(ward::Message answer, Ask(kSpawn.name));
    WARD_ASSIGN_OR_RETURN(const ward::OwnerHandle worker,
                          ward::OwnerHandle::FromMessage(answer));
    WARD_RETURN_IF_ERROR(workers.Write(worker));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> SpawnServer::CountWorkers() {
  WARD_ASSIGN_OR_RETURN(ward::Message answer, Ask(kCountWorkers.name));
  WARD_ASSIGN_OR_RETURN(const auto count, answer.Unpack<int>());
  return std::get<0>(count);
}

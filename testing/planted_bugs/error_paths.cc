// A call fails, or does less than it might, and nobody reckoned with it.

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/testing/planted_bugs/planted_bugs.h"
#include "ward/testing/planted_bugs/planted_server.h"

namespace ward::testing {
namespace {

// --- a descriptor is not closed where an error returns early ---

constexpr char kCounted[] = "/dev/zero";

int OpenDescriptors() {
  int count = 0;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/self/fd")) {
    // One may be closed by now.
    count +=
        std::filesystem::read_symlink(entry.path(), error) == kCounted ? 1 : 0;
  }
  return count;
}

class Inspector : public PlantedServer {
 public:
  explicit Inspector(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("inspect", &Inspector::Inspect);
    DefineMessageHandler("leaked", &Inspector::Leaked);
  }

 private:
  absl::Status InitializeServer() override {
    // A simulated server shares them with those of earlier runs.
    open_before_ = OpenDescriptors();
    return absl::OkStatus();
  }
  absl::Status Inspect(MessageChannel& channel) {
    {
      absl::MutexLock lock(&mutex_);
      ++running_;
    }
    const absl::Cleanup done = [this] {
      absl::MutexLock lock(&mutex_);
      --running_;
    };
    const int device = open(kCounted, O_RDONLY | O_CLOEXEC);
    const FileDescriptor owner(repaired() ? device : -1);
    WARD_RETURN_IF_ERROR(channel.Write(1));
    if (!repaired()) close(device);
    return absl::OkStatus();
  }
  absl::StatusOr<int> Leaked() {
    absl::MutexLock lock(&mutex_,
                         absl::Condition(
                             // NOLINTNEXTLINE(readability-non-const-parameter)
                             +[](int* n) { return *n == 0; }, &running_));
    return OpenDescriptors() - open_before_;
  }

  int open_before_ = 0;
  absl::Mutex mutex_;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status DescriptorLeak(const Trial& trial) {
  return DriveThroughFaults<Inspector>(trial, [](Inspector& server) {
    (void)server.Call("inspect");
    (void)server.Call("inspect");
    const absl::StatusOr<int> leaked = server.Call("leaked");
    return Expect(!leaked.ok() || *leaked == 0, "a descriptor is left open");
  });
}

// --- a short read is taken for the whole ---

class Relay : public PlantedServer {
 public:
  explicit Relay(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("relay", &Relay::Pass);
    DefineMessageHandler("torn", &Relay::Torn);
  }

 private:
  absl::StatusOr<int> Pass(std::string_view text) {
    WARD_ASSIGN_OR_RETURN(const auto ends, environment().CreateTransportPair());
    for (size_t sent = 0; sent < text.size();) {
      WARD_ASSIGN_OR_RETURN(
          const size_t more,
          ends.first->Send(text.substr(sent), {}, absl::InfiniteFuture()));
      sent += more;
    }
    std::string got(text.size(), '\0');
    std::vector<FileDescriptor> none;
    size_t size = 0;
    do {
      WARD_ASSIGN_OR_RETURN(
          const Transport::Received more,
          ends.second->Receive(absl::MakeSpan(got).subspan(size), 0, none,
                               absl::InfiniteFuture()));
      size += more.bytes;
    } while (repaired() ? size < got.size() : size == 0);
    if (got != text) ++torn_;
    return 1;
  }
  absl::StatusOr<int> Torn() { return torn_.load(); }

  std::atomic<int> torn_ = 0;
};

absl::Status ShortRead(const Trial& trial) {
  return DriveThroughFaults<Relay>(trial, [](Relay& server) {
    (void)server.Call("relay", {"some bytes"});
    const absl::StatusOr<int> torn = server.Call("torn");
    return Expect(!torn.ok() || *torn == 0, "bytes are missing");
  });
}

// --- a thread that was counted was never started ---

class Workshop : public PlantedServer {
 public:
  explicit Workshop(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("work", &Workshop::Work);
    DefineMessageHandler("working", &Workshop::Working);
  }

 private:
  absl::StatusOr<int> Work() {
    Add(1);
    const absl::StatusOr<std::unique_ptr<Thread>> worker =
        environment().StartThread([this] { Add(-1); });
    if (worker.ok()) return 1;
    if (repaired()) Add(-1);
    return worker.status();
  }
  absl::StatusOr<int> Working() {
    absl::MutexLock lock(&mutex_);
    // As one that stops would wait, but not for ever.
    mutex_.AwaitWithTimeout(
        absl::Condition(
            // NOLINTNEXTLINE(readability-non-const-parameter)
            +[](int* n) { return *n == 0; }, &working_),
        absl::Minutes(1));
    return working_;
  }
  void Add(int n) {
    absl::MutexLock lock(&mutex_);
    working_ += n;
  }

  absl::Mutex mutex_;
  int working_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status FailedStart(const Trial& trial) {
  return DriveThroughFaults<Workshop>(trial, [](Workshop& server) {
    (void)server.Call("work");
    const absl::StatusOr<int> working = server.Call("working");
    return Expect(!working.ok() || *working == 0, "one works for ever");
  });
}

constexpr PlantedBug kBugs[] = {
    {"descriptor leak", DescriptorLeak, /*faults=*/true},
    {"short read", ShortRead, /*faults=*/true},
    {"failed start", FailedStart, /*faults=*/true},
};

}  // namespace

absl::Span<const PlantedBug> ErrorPathBugs() { return kBugs; }

}  // namespace ward::testing

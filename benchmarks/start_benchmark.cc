// How long the start of a server takes, and start, first answer and stop
// together, by each StartMode: in owners of several sizes, whose pages are all
// touched, with a thread that touches some again each millisecond. One after
// the other in each round, of which the medians count; zygote and threads are
// there before. A table of Markdown:
//
//   ./bazelw build -c opt //benchmarks:start_benchmark
//   bazel-bin/benchmarks/start_benchmark [MiB]...
//
// docs/starting.md has one. The sizes are 10, 1024 and 4096 unless others are
// given, one after the other. The machine must have memory for the largest of
// them: 4 GiB, and half of one for all else.

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/exec_main.h"
#include "ward/server/server_options.h"
#include "ward/server/zygote.h"

namespace {

constexpr int kRounds = 41;
constexpr size_t kPage = 4096;
constexpr size_t kMebibyte = size_t{1} << 20;

constexpr ward::Method<std::string, std::string> kHello{"hello"};

class HelloServer : public ward::AbstractServer {
 public:
  explicit HelloServer(ward::ServerOptions options)
      : AbstractServer(std::move(options)) {
    Define(kHello, [](const std::string& name) -> absl::StatusOr<std::string> {
      return "Hello " + name;
    });
  }
};
WARD_REGISTER_SERVER(HelloServer);

struct Way {
  ward::StartMode mode;
  std::string_view name;
};
constexpr std::array<Way, 3> kWays = {{{ward::StartMode::kFork, "fork"},
                                       {ward::StartMode::kExec, "exec"},
                                       {ward::StartMode::kZygote, "zygote"}}};

size_t MebibytesOfMachine() {
  return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) /
         (kMebibyte / static_cast<size_t>(sysconf(_SC_PAGESIZE)));
}

// Memory of a size, and who uses it.
class Ballast {
 public:
  explicit Ballast(size_t size)
      : bytes_(size, 'x'), user_([this] {
          for (size_t at = 0; !done_; at = (at + kPage) % bytes_.size()) {
            ++bytes_[at];
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
          }
        }) {}
  Ballast(const Ballast&) = delete;
  Ballast& operator=(const Ballast&) = delete;
  ~Ballast() {
    done_ = true;
    user_.join();
  }

 private:
  std::vector<char> bytes_;
  std::atomic<bool> done_{false};
  std::thread user_;
};

struct Times {
  absl::Duration start;
  absl::Duration whole;
};

absl::StatusOr<Times> StartCallStop(
    ward::StartMode mode, const std::shared_ptr<ward::Zygote>& zygote) {
  ward::Environment& environment = ward::Environment::Posix();
  ward::ServerOptions options;
  options.start_mode = mode;
  options.zygote = zygote;
  // This program's thread has no locks.
  options.launch.fork.allow_threads = true;
  HelloServer server(std::move(options));
  const absl::Time begin = environment.TimeNow();
  WARD_RETURN_IF_ERROR(server.Start());
  const absl::Time started = environment.TimeNow();
  WARD_ASSIGN_OR_RETURN(const std::string reply, server.Call(kHello, "Joe"));
  if (reply != "Hello Joe") return absl::InternalError("another reply");
  WARD_RETURN_IF_ERROR(server.Stop());
  return Times{started - begin, environment.TimeNow() - begin};
}

absl::Duration Median(const std::vector<Times>& all,
                      absl::Duration Times::*time) {
  std::vector<absl::Duration> sorted;
  for (const Times& times : all) sorted.push_back(times.*time);
  std::sort(sorted.begin(), sorted.end());
  return sorted[sorted.size() / 2];
}

absl::Status Measure(size_t mebibytes) {
  const Ballast ballast(mebibytes * kMebibyte);
  WARD_ASSIGN_OR_RETURN(const std::shared_ptr<ward::Zygote> zygote,
                        ward::Environment::Posix().StartZygote());
  std::array<std::vector<Times>, kWays.size()> times;
  for (int round = -1; round < kRounds; ++round) {
    for (size_t i = 0; i < kWays.size(); ++i) {
      WARD_ASSIGN_OR_RETURN(const Times measured,
                            StartCallStop(kWays[i].mode, zygote));
      if (round >= 0) times[i].push_back(measured);
    }
  }
  const absl::Duration floor = Median(times.back(), &Times::start);
  for (size_t i = 0; i < kWays.size(); ++i) {
    const absl::Duration start = Median(times[i], &Times::start);
    std::cout << absl::StreamFormat(
        "| %d | %s | %.2f ms | %.2f ms | %.1f |\n", mebibytes, kWays[i].name,
        absl::ToDoubleMilliseconds(start),
        absl::ToDoubleMilliseconds(Median(times[i], &Times::whole)),
        absl::FDivDuration(start, floor));
  }
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  ward::ServeIfExeced(argc, argv);
  std::vector<size_t> sizes;
  for (int i = 1; i < argc; ++i) {
    if (!absl::SimpleAtoi(argv[i], &sizes.emplace_back()) ||
        sizes.back() == 0) {
      std::cerr << argv[i] << " is no number of MiB\n";
      return 1;
    }
  }
  if (sizes.empty()) sizes = {10, 1024, 4096};
  const size_t largest = *std::max_element(sizes.begin(), sizes.end());
  if (largest > MebibytesOfMachine()) {
    std::cerr << "this machine has " << MebibytesOfMachine()
              << " MiB of memory, and an owner would need " << largest
              << ": say smaller sizes\n";
    return 1;
  }
  std::cout << "| MiB in the owner | by | start | start, first answer, stop | "
               "start / zygote's |\n|--:|---|--:|--:|--:|\n";
  for (const size_t size : sizes) {
    const absl::Status status = Measure(size);
    if (status.ok()) continue;
    std::cerr << status << "\n";
    return 1;
  }
  return 0;
}

// A whole call (connect, password, request, reply, close), beside the same
// system calls written by hand. What counts is the ratio of the two, in one run
// on a quiet machine:
//
//   ./bazelw run -c opt //benchmarks:call_benchmark

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"

namespace {

class EchoServer : public ward::AbstractServer {
 public:
  EchoServer() {
    DefineMessageHandler(
        "hello", [](std::string_view first, std::string_view last) {
          return absl::StatusOr<ward::Message>(ward::Message(
              {absl::StrCat("Hello ", first, " ", last, ", how are you?"),
               "1234"}));
        });
  }

  absl::Status Hello() {
    return Connect([](ward::MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.Write("hello", "Joe", "Dalton"));
      WARD_ASSIGN_OR_RETURN(const ward::Message reply, channel.Read());
      benchmark::DoNotOptimize(reply);
      return absl::OkStatus();
    });
  }
};

void WardCall(benchmark::State& state) {
  EchoServer server;
  if (!server.Start().ok()) std::abort();
  for ([[maybe_unused]] auto _ : state) {
    if (!server.Hello().ok()) state.SkipWithError("the call failed");
  }
  if (!server.Stop().ok()) std::abort();
}
BENCHMARK(WardCall)->UseRealTime();

// What ward sends for the call above, and its reply with the call's end.
constexpr size_t kRequestBytes = 91;
constexpr size_t kReplyBytes = 46;

void ServeByHand(int listener) {
  std::array<char, kRequestBytes> request;
  const std::array<char, kReplyBytes> reply{};
  while (true) {
    const int client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) return;
    ucred peer;
    socklen_t size = sizeof(peer);
    getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    if (recv(client, request.data(), request.size(), 0) > 0) {
      send(client, reply.data(), reply.size(), MSG_NOSIGNAL);
    }
    close(client);
  }
}

void CallByHand(benchmark::State& state) {
  std::string directory = "/tmp/ward-floor-XXXXXX";
  if (mkdtemp(directory.data()) == nullptr) std::abort();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = directory + "/socket";
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener, generic, sizeof(address)) != 0) std::abort();
  listen(listener, SOMAXCONN);
  const pid_t server = fork();
  if (server == 0) {
    std::thread other(ServeByHand, listener);
    ServeByHand(listener);
    other.join();
    _exit(0);
  }
  close(listener);
  const std::array<char, kRequestBytes> request{};
  std::array<char, kReplyBytes> reply;
  for ([[maybe_unused]] auto _ : state) {
    const int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(client, generic, sizeof(address)) != 0) std::abort();
    send(client, request.data(), request.size(), MSG_NOSIGNAL);
    if (recv(client, reply.data(), reply.size(), 0) <= 0) std::abort();
    close(client);
  }
  kill(server, SIGKILL);
  waitpid(server, nullptr, 0);
  unlink(path.c_str());
  rmdir(directory.c_str());
}
BENCHMARK(CallByHand)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();

// A whole call (connect, password, request, reply, close), and one over a
// connection that is kept, each beside the same system calls written by hand.
// What counts is the ratio of the two, in one run on a quiet machine:
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
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"

namespace {

constexpr ward::Method<ward::Arguments<std::string, std::string>,
                       ward::Arguments<std::string, int>>
    kHello{"hello"};

class EchoServer : public ward::AbstractServer {
 public:
  EchoServer() {
    Define(kHello,
           [](std::string_view first, std::string_view last)
               -> absl::StatusOr<std::tuple<std::string, int>> {
             return std::make_tuple(
                 absl::StrCat("Hello ", first, " ", last, ", how are you?"),
                 1234);
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

void WardKeptCall(benchmark::State& state) {
  EchoServer server;
  if (!server.Start().ok()) std::abort();
  for ([[maybe_unused]] auto _ : state) {
    if (!server.Call(kHello, "Joe", "Dalton").ok()) {
      state.SkipWithError("the call failed");
    }
  }
  if (!server.Stop().ok()) std::abort();
}
BENCHMARK(WardKeptCall)->UseRealTime();

// What ward sends for a first call, and its reply with the call's end.
constexpr size_t kRequestBytes = 91;
constexpr size_t kReplyBytes = 46;

// A server with two threads.
class ServerByHand {
 public:
  // `keep`: serves calls on a connection for as long as they come.
  explicit ServerByHand(bool keep) {
    if (mkdtemp(directory_.data()) == nullptr) std::abort();
    address_.sun_family = AF_UNIX;
    path_ = directory_ + "/socket";
    path_.copy(address_.sun_path, sizeof(address_.sun_path) - 1);
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, Generic(), sizeof(address_)) != 0) std::abort();
    listen(listener, SOMAXCONN);
    process_ = fork();
    if (process_ == 0) {
      std::thread other(&ServerByHand::Serve, listener, keep);
      Serve(listener, keep);
      other.join();
      _exit(0);
    }
    close(listener);
  }
  ServerByHand(const ServerByHand&) = delete;
  ServerByHand& operator=(const ServerByHand&) = delete;
  ~ServerByHand() {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
    unlink(path_.c_str());
    rmdir(directory_.c_str());
  }

  int Connect() const {
    const int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(client, Generic(), sizeof(address_)) != 0) std::abort();
    return client;
  }

  static void Call(int client) {
    const std::array<char, kRequestBytes> request{};
    std::array<char, kReplyBytes> reply;
    send(client, request.data(), request.size(), MSG_NOSIGNAL);
    if (recv(client, reply.data(), reply.size(), 0) <= 0) std::abort();
  }

 private:
  const sockaddr* Generic() const {
    return reinterpret_cast<const sockaddr*>(&address_);
  }

  static void Serve(int listener, bool keep) {
    std::array<char, kRequestBytes> request;
    const std::array<char, kReplyBytes> reply{};
    while (true) {
      const int client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) return;
      ucred peer;
      socklen_t size = sizeof(peer);
      getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size);
      while (recv(client, request.data(), request.size(), 0) > 0) {
        send(client, reply.data(), reply.size(), MSG_NOSIGNAL);
        if (!keep) break;
      }
      close(client);
    }
  }

  std::string directory_ = "/tmp/ward-floor-XXXXXX";
  std::string path_;
  sockaddr_un address_{};
  pid_t process_ = 0;
};

void CallByHand(benchmark::State& state) {
  const ServerByHand server(/*keep=*/false);
  for ([[maybe_unused]] auto _ : state) {
    const int client = server.Connect();
    ServerByHand::Call(client);
    close(client);
  }
}
BENCHMARK(CallByHand)->UseRealTime();

void KeptCallByHand(benchmark::State& state) {
  const ServerByHand server(/*keep=*/true);
  const int client = server.Connect();
  for ([[maybe_unused]] auto _ : state) ServerByHand::Call(client);
  close(client);
}
BENCHMARK(KeptCallByHand)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();

// What docs/starting.md shows: a program with threads, whose server comes of a
// zygote.

#include <iostream>
#include <memory>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/examples/hello/hello_server.h"
#include "ward/server/environment.h"
#include "ward/server/exec_main.h"
#include "ward/server/zygote.h"

int main(int argc, char** argv) {
  ward::ServeIfExeced(argc, argv);
  // As early as it likes, or later, from any thread: it is small in any case.
  absl::StatusOr<std::shared_ptr<ward::Zygote>> zygote =
      ward::Environment::Default().StartZygote();
  if (!zygote.ok()) {
    std::cerr << zygote.status() << "\n";
    return 1;
  }
  absl::Status result;
  std::thread([&result, &zygote] {
    ward::ServerOptions options;
    options.start_mode = ward::StartMode::kZygote;
    options.zygote = *zygote;
    HelloServer server(std::move(options));
    absl::Status status = server.Start();
    if (status.ok()) status = server.Call(kHello, "Joe", "Dalton").status();
    status.Update(server.Stop());
    result = status;
  }).join();
  if (!result.ok()) std::cerr << result << "\n";
  return result.ok() ? 0 : 1;
}

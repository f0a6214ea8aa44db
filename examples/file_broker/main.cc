// A broker that opens files for an unprivileged client. Run as root, the client
// is another user; else, it is the same one, and the files are its own.

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/examples/file_broker/file_broker.h"
#include "ward/server/abstract_server.h"
#include "ward/server/client.h"

namespace {

constexpr uid_t kNobody = 65534;

ward::ServerOptions Options(const std::string& directory,
                            const ward::Secret& password) {
  ward::ServerOptions options;
  options.socket_filename = directory + "/socket";
  options.socket_mode = 0666;
  options.password = password.Copy();
  options.arguments = {directory + "/files", "read  public/*\nwrite inbox/*\n"};
  return options;
}

void Show(ward::Client& broker, const std::string& path) {
  std::cout << "client, user " << geteuid() << ": " << path << ": ";
  const absl::StatusOr<ward::FileDescriptor> file =
      broker.Call(kOpen, "read", path);
  if (!file.ok()) {
    std::cout << file.status().message() << "\n";
    return;
  }
  std::array<char, 100> text;
  const ssize_t size = read(file->get(), text.data(), text.size());
  std::cout << std::string(text.data(), size < 0 ? 0 : size);
}

absl::Status Run(const std::string& directory) {
  WARD_ASSIGN_OR_RETURN(const ward::Secret password, ward::Secret::Generate());
  std::array<int, 2> ends;
  if (pipe(ends.data()) != 0) return absl::InternalError("no pipe");
  ward::FileDescriptor wait(ends[0]);
  ward::FileDescriptor go(ends[1]);
  // Before the start: it shall be no owner.
  const pid_t client = fork();
  if (client == 0) {
    go.Reset();
    char ready = 0;
    const bool started = read(wait.get(), &ready, 1) == 1;
    const bool dropped =
        geteuid() != 0 || setresuid(kNobody, kNobody, kNobody) == 0;
    if (!started || !dropped) _exit(1);
    ward::Client broker({directory + "/socket", password.Copy()});
    Show(broker, "public/motd");
    Show(broker, "private/key");
    Show(broker, "public/../private/key");
    Show(broker, "public/link");
    std::cout.flush();
    _exit(0);
  }
  FileBroker broker(Options(directory, password));
  const absl::Status started = broker.Start();
  if (started.ok() && write(go.get(), "x", 1) != 1) {
    return absl::InternalError("the client is gone");
  }
  go.Reset();
  int status = 0;
  waitpid(client, &status, 0);
  WARD_RETURN_IF_ERROR(started);
  WARD_RETURN_IF_ERROR(broker.Stop());
  return status == 0 ? absl::OkStatus()
                     : absl::InternalError("the client failed");
}

}  // namespace

int main() {
  std::string directory = "/tmp/file-broker-XXXXXX";
  if (mkdtemp(directory.data()) == nullptr ||
      chmod(directory.c_str(), 0711) != 0) {
    std::cerr << "no directory in /tmp\n";
    return 1;
  }
  const std::filesystem::path files = directory + "/files";
  std::filesystem::create_directories(files / "public");
  std::filesystem::create_directories(files / "private");
  std::ofstream(files / "public/motd") << "welcome\n";
  std::ofstream(files / "private/key") << "the key\n";
  std::filesystem::create_symlink("../private/key", files / "public/link");
  // Nobody but the broker gets in here.
  std::filesystem::permissions(files, std::filesystem::perms::owner_all);
  const absl::Status status = Run(directory);
  std::filesystem::remove_all(directory);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}

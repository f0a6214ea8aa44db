// What a forked server has of its owner's descriptors, and what becomes of the
// numbers that a library believes to be its own.

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <cerrno>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/server/abstract_server.h"
#include "ward/server/exec_main.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

// A library that keeps a socket of which it tells nobody, and makes another one
// when that does not work, as syslog(3) does.
class Library {
 public:
  explicit Library(const std::string& path) {
    address_.sun_family = AF_UNIX;
    path.copy(address_.sun_path, sizeof(address_.sun_path) - 1);
    Open();
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() { close(hidden_); }

  void Log(std::string_view line) {
    if (send(hidden_, line.data(), line.size(), MSG_NOSIGNAL) >= 0) return;
    close(hidden_);
    Open();
    (void)send(hidden_, line.data(), line.size(), MSG_NOSIGNAL);
  }

  void WriteAsToAStream(std::string_view line) const {
    [[maybe_unused]] const ssize_t ignored =
        write(hidden_, line.data(), line.size());
  }

 private:
  void Open() {
    hidden_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    (void)connect(hidden_, reinterpret_cast<sockaddr*>(&address_),
                  sizeof(address_));
  }

  sockaddr_un address_{};
  int hidden_ = -1;
};

// A socket at `path`, of a high number: low ones are for what comes later.
FileDescriptor Bind(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const FileDescriptor bound(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (bind(bound.get(), reinterpret_cast<sockaddr*>(&address),
           sizeof(address)) != 0) {
    return {};
  }
  return FileDescriptor(fcntl(bound.get(), F_DUPFD_CLOEXEC, 100));
}

// In a process of its own: a library has the lowest number, and `log` makes it
// write to `received`, once in the owner and then in a handler. Returns 0, or
// what went wrong.
int LogInOwnerAndServer(const FileDescriptor& received,
                        absl::FunctionRef<void(const char*)> log) {
  log("from the owner");
  if (!absl::StrContains(ReadSome(received.get()), "from the owner")) return 1;
  TestServer server;
  server.DefineMessageHandler("log", [&](MessageChannel& channel) {
    log("from a handler");
    return channel.Write("logged");
  });
  if (!server.Start().ok()) return 2;
  const bool told = Call(server, "log").value_or("") == "logged" &&
                    BecomesReadable(received.get(), absl::Seconds(10)) &&
                    absl::StrContains(ReadSome(received.get()), "a handler");
  const FileDescriptor pidfd = OpenPidfd(server.server_pid());
  kill(server.server_pid(), SIGTERM);
  const bool heard = BecomesReadable(pidfd.get(), absl::Seconds(10));
  if (!heard) kill(server.server_pid(), SIGKILL);
  if (!server.Stop().ok()) return heard ? 3 : 4;
  return told ? 0 : 5;
}

// So that what is opened next has the lowest numbers.
void CloseAll() { syscall(SYS_close_range, 3, ~0U, 0U); }

class InheritedDescriptorsTest : public NothingLeftTest {};

TEST_F(InheritedDescriptorsTest,
       ALibraryThatReopensItsOwnClosesNothingOfWards) {
  const std::string path = directory() + "/log";
  Child child([&path] {
    CloseAll();
    const FileDescriptor received = Bind(path);
    Library library(path);
    return LogInOwnerAndServer(received,
                               [&](const char* line) { library.Log(line); });
  });
  EXPECT_EQ(child.Wait(), 0);
  unlink(path.c_str());
}

TEST_F(InheritedDescriptorsTest, WhatALibraryWritesReachesNoClient) {
  const std::string path = directory() + "/log";
  Child child([&path] {
    CloseAll();
    const FileDescriptor received = Bind(path);
    std::vector<std::unique_ptr<Library>> libraries;
    for (int i = 0; i < 20; ++i) {
      libraries.push_back(std::make_unique<Library>(path));
    }
    TestServer server;
    server.DefineMessageHandler("write", [&libraries](MessageChannel& channel) {
      for (const auto& library : libraries) library->WriteAsToAStream("a line");
      return channel.Write("written");
    });
    if (!server.Start().ok()) return 1;
    if (Call(server, "write").value_or("") != "written") return 2;
    if (Call(server, "echo", "x").value_or("") != "x") return 3;
    return server.Stop().ok() ? 0 : 4;
  });
  EXPECT_EQ(child.Wait(), 0);
  unlink(path.c_str());
}

// In a /dev that has nothing, not even a null device.
bool EnterEmptyDev() {
  const int spaces = geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
  return unshare(spaces) == 0 &&
         mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mount("tmpfs", "/dev", "tmpfs", 0, nullptr) == 0;
}

constexpr int kCannotEnter = 77;

TEST_F(InheritedDescriptorsTest, SyslogWorksInOwnerAndServer) {
  Child child([] {
    if (!EnterEmptyDev()) return kCannotEnter;
    CloseAll();
    const FileDescriptor received = Bind("/dev/log");
    openlog("ward-test", LOG_NDELAY, LOG_USER);
    return LogInOwnerAndServer(
        received, [](const char* line) { syslog(LOG_INFO, "%s", line); });
  });
  const int code = child.Wait();
  if (code == kCannotEnter) {
    GTEST_SKIP() << "this machine gives no mount namespace to this user";
  }
  EXPECT_EQ(code, 0);
}

// So many clients at once as `server` serves, up to `most`.
absl::Status HoldClients(AbstractServer& server, int most) {
  if (most == 0) return absl::OkStatus();
  return server.Connect([&](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("hold"));
    WARD_RETURN_IF_ERROR(channel.Read().status());
    return HoldClients(server, most - 1);
  });
}

constexpr rlimit kFew = {40, 40};

TEST_F(InheritedDescriptorsTest, AServerNeedsNoNullDevice) {
  struct Server : Registered<Server> {
    explicit Server(ServerOptions options) : Registered(std::move(options)) {
      DefineMessageHandler("read", [](MessageChannel& channel) {
        char byte;
        return channel.Write(read(STDIN_FILENO, &byte, 1));
      });
    }
    absl::Status InitializeServer() override {
      return setrlimit(RLIMIT_NOFILE, &kFew) == 0
                 ? absl::OkStatus()
                 : SystemError(errno, "limit the descriptors");
    }
  };
  for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
    SCOPED_TRACE(mode == StartMode::kFork ? "fork" : "exec");
    ServerOptions options = Shared();
    options.start_mode = mode;
    Child child([&options] {
      if (!EnterEmptyDev()) return kCannotEnter;
      close(STDIN_FILENO);
      Server server(std::move(options));
      if (!server.Start().ok()) return 1;
      if (Call(server, "read").value_or("") != "0") return 2;
      const absl::Status status = HoldClients(server, kFew.rlim_max);
      if (!HasReason(status, reason::kDescriptorTableFull)) {
        std::cerr << "Told with a full table: " << status << "\n";
        return 3;
      }
      return server.Stop().ok() ? 0 : 4;
    });
    const int code = child.Wait();
    if (code == kCannotEnter) {
      GTEST_SKIP() << "this machine gives no mount namespace to this user";
    }
    EXPECT_EQ(code, 0);
  }
}

}  // namespace
}  // namespace ward

int main(int argc, char** argv) {
  ward::ServeIfExeced(argc, argv);
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}

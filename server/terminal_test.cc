// A server whose owner runs at a terminal, and what is typed there.

#include <pty.h>
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <string>
#include <tuple>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/abstract_server.h"
#include "ward/server/process.h"
#include "ward/server/server_for_test.h"
#include "ward/server/server_options.h"

namespace ward {
namespace {

constexpr char kControlC[] = "\x03";

// Notes what it gets.
struct Noting : Registered<Noting> {
  explicit Noting(ServerOptions options = {}) : Registered(std::move(options)) {
    DefineSignalHandler(SIGINT, [this] { (void)Note("interrupted"); });
    DefineSignalHandler(SIGUSR1, [this] { (void)Note("asked"); });
  }
};

class TerminalTest : public NothingLeftTest,
                     public ::testing::WithParamInterface<StartMode> {
 protected:
  std::string notes() const { return directory() + "/notes"; }

  std::string ReadNotes() const {
    const FileDescriptor file(open(notes().c_str(), O_RDONLY | O_CLOEXEC));
    return file.is_open() ? ReadToEnd(file.get()) : "";
  }

  // Types Ctrl-C at a terminal whose foreground program owns a server, and then
  // lets it call `used`. Returns what that does, and 99 without a server.
  int TypeControlC(const ServerOptions& like,
                   absl::FunctionRef<int(Noting&)> used) {
    Pipe started = MakePipe();
    int controls = -1;
    const pid_t owner = forkpty(&controls, nullptr, nullptr, nullptr);
    if (owner == 0) _exit(Own(like, started.write.get(), used));
    const FileDescriptor terminal(controls);
    started.write.Reset();
    EXPECT_EQ(ReadSome(started.read.get()), "started");
    WriteAll(terminal.get(), kControlC);
    return Reap(owner);
  }

  ServerOptions In(ProcessGroup group) const {
    ServerOptions options = Shared();
    options.arguments = {notes()};
    options.start_mode = GetParam();
    options.launch.process_group = group;
    return options;
  }

  void TearDown() override {
    unlink(notes().c_str());
    NothingLeftTest::TearDown();
  }

 private:
  static int Own(const ServerOptions& like, int started,
                 absl::FunctionRef<int(Noting&)> used) {
    sigset_t interrupt;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, nullptr);
    ServerOptions options;
    options.socket_filename = like.socket_filename;
    options.password = like.password.Copy();
    options.arguments = like.arguments;
    options.start_mode = like.start_mode;
    options.launch = like.launch;
    Noting server(std::move(options));
    if (!server.Start().ok()) return 99;
    WriteAll(started, "started");
    int signal;
    sigwait(&interrupt, &signal);
    return used(server);
  }
};

INSTANTIATE_TEST_SUITE_P(Modes, TerminalTest,
                         ::testing::Values(StartMode::kFork, StartMode::kExec),
                         [](const auto& info) {
                           return info.param == StartMode::kFork ? "Fork"
                                                                 : "Exec";
                         });

TEST_P(TerminalTest, ControlCIsTheOwnersAlone) {
  EXPECT_EQ(TypeControlC(In(ProcessGroup::kOwn),
                         [this](Noting& server) {
                           // Comes after what was typed.
                           kill(server.server_pid(), SIGUSR1);
                           while (ReadNotes().empty()) {
                             absl::SleepFor(absl::Milliseconds(1));
                           }
                           if (!Call(server, "echo", "x").ok()) return 1;
                           return server.Stop().ok() ? 0 : 2;
                         }),
            0);
  EXPECT_EQ(ReadNotes(), "asked\n");
}

TEST_P(TerminalTest, ControlCReachesAServerInItsOwnersGroup) {
  EXPECT_EQ(TypeControlC(In(ProcessGroup::kParents),
                         [this](Noting& server) {
                           while (ReadNotes().empty()) {
                             absl::SleepFor(absl::Milliseconds(1));
                           }
                           return server.Stop().ok() ? 0 : 2;
                         }),
            0);
  EXPECT_EQ(ReadNotes(), "interrupted\n");
}

TEST_P(TerminalTest, ByDefaultTheServerHasAGroupOfItsOwn) {
  ServerOptions options;
  options.start_mode = GetParam();
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_EQ(getpgid(server.server_pid()), server.server_pid());
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward

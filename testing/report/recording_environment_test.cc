#include "ward/testing/report/recording_environment.h"

#include <signal.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/secret.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/testing/call_server.h"
#include "ward/testing/leak_check.h"
#include "ward/testing/matchers.h"
#include "ward/testing/report/transcript.h"
#include "ward/testing/simulation.h"
#include "ward/testing/simulator/strategy.h"
#include "ward/testing/simulator/threaded_environment.h"

namespace ward::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class EchoServer : public AbstractServer {
 public:
  explicit EchoServer(ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    // Reply and end in one: a client that leaves after a reply hears no end.
    DefineMessageHandler(
        "echo",
        [](std::string text) -> absl::StatusOr<std::string> { return text; });
  }
};
WARD_REGISTER_SERVER(EchoServer);

ServerOptions Options(StartMode mode) {
  ServerOptions options;
  options.start_mode = mode;
  if (mode == StartMode::kZygote) {
    options.zygote = Environment::Default().StartZygote().value();
  }
  options.password = Secret("a password that nobody sees");
  options.arguments = {"an argument that nobody sees"};
  return options;
}

void StartCallStop(StartMode mode) {
  EchoServer server(Options(mode));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(CallServer(server, "echo", "text"), RepliesWith("text"));
  EXPECT_THAT(CallServer(server, "no such").status(), Not(IsOk()));
  EXPECT_THAT(server.Stop(), IsOk());
}

// Without the times.
std::string Drawing(const Transcript& transcript) {
  constexpr size_t kMargin = 14;
  std::string drawing;
  for (const std::string_view line :
       absl::StrSplit(transcript.ToText(), '\n')) {
    absl::StrAppend(&drawing, line.substr(std::min(kMargin, line.size())),
                    "\n");
  }
  return drawing;
}

std::string Simulated(StartMode mode) {
  ReplayStrategy strategy({});
  Simulation simulation(strategy, {});
  StartCallStop(mode);
  return Drawing(simulation.transcript());
}

std::string Recorded(Environment& real, StartMode mode) {
  const LeakCheck leaks;
  RecordingEnvironment environment(real);
  Environment::SetDefaultForTesting(&environment);
  StartCallStop(mode);
  Environment::SetDefaultForTesting(nullptr);
  EXPECT_THAT(leaks.Find(), IsEmpty());
  return Drawing(environment.transcript());
}

class RecordingEnvironmentTest : public ::testing::TestWithParam<StartMode> {};

INSTANTIATE_TEST_SUITE_P(Modes, RecordingEnvironmentTest,
                         ::testing::Values(StartMode::kFork, StartMode::kExec,
                                           StartMode::kZygote),
                         [](const auto& info) -> std::string {
                           return info.param == StartMode::kFork   ? "Fork"
                                  : info.param == StartMode::kExec ? "Exec"
                                                                   : "Zygote";
                         });

TEST_P(RecordingEnvironmentTest, DrawsWhatTheSimulationDraws) {
  const std::string simulated = Simulated(GetParam());
  EXPECT_THAT(simulated, HasSubstr("\"echo\", \"text\" (with a password)"));
  EXPECT_THAT(simulated, HasSubstr("exited with code 0"));
  EXPECT_EQ(Recorded(Environment::Posix(), GetParam()), simulated);
  ThreadedEnvironment threaded;
  EXPECT_EQ(Recorded(threaded, GetParam()), simulated);
}

TEST_P(RecordingEnvironmentTest, LeavesSecretsOut) {
  EXPECT_THAT(Recorded(Environment::Posix(), GetParam()),
              Not(HasSubstr("nobody sees")));
}

TEST(RecordingEnvironment, TellsOfSignalsDeathsAndOrigins) {
  RecordingEnvironment environment(Environment::Posix());
  ServerOptions options = Options(StartMode::kFork);
  options.environment = &environment;
  EchoServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Connect([&](MessageChannel& channel) {
    EXPECT_EQ(environment.OriginOf(channel.transport()->descriptor()),
              absl::StrCat("connected to ", server.socket_filename()));
    return channel.Write("echo", "x");
  }),
              IsOk());
  environment.NoteSignal(server.server_pid(), SIGKILL);
  ASSERT_EQ(kill(server.server_pid(), SIGKILL), 0);
  EXPECT_THAT(server.Stop(), Not(IsOk()));
  const std::string text = environment.transcript().ToText();
  EXPECT_THAT(text, HasSubstr("* gets signal 9 (Killed)"));
  EXPECT_THAT(text, HasSubstr("* was killed by signal 9 (Killed)"));
  EXPECT_EQ(environment.OriginOf(12345), "");
}

}  // namespace
}  // namespace ward::testing

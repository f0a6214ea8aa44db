// What the fixture says of tests that misbehave, in every mode. Each is a
// disabled test of this program, which is run once more for it.

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/testing/explore.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward::testing {

constexpr std::string_view kPassword = "a password that nobody must see";

class EchoServer : public AbstractServer {
 public:
  explicit EchoServer(ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    DefineMessageHandler("echo",
                         [](MessageChannel& channel, std::string_view text) {
                           return channel.Write(text);
                         });
    DefineMessageHandler("fail", [](MessageChannel& channel) {
      ADD_FAILURE() << "a handler's own failure";
      return channel.Write("done");
    });
    DefineMessageHandler("leak", [this](MessageChannel& channel) {
      (void)open("/dev/null", O_RDONLY | O_CLOEXEC);
      auto pair = environment().CreateTransportPair();
      (void)pair->first.release();
      return channel.Write("done");
    });
    DefineMessageHandler("exit", [](MessageChannel&) -> absl::Status {
      std::exit(0);  // NOLINT(concurrency-mt-unsafe)
    });
    DefineMessageHandler("block", [](MessageChannel&) -> absl::Status {
      while (true) syscall(SYS_pause);
    });
    DefineMessageHandler("hang", [](MessageChannel&) {
      absl::Notification never;
      never.WaitForNotification();
      return absl::OkStatus();
    });
  }
};

WARD_REGISTER_SERVER(EchoServer);

namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

// --- tests that misbehave ---

class Misbehaving : public ServerTest<EchoServer> {
 protected:
  std::unique_ptr<EchoServer> MakeServer() override {
    ServerOptions options;
    options.password = Secret(kPassword);
    // What is left to hang is not waited for.
    options.drain_time = absl::Milliseconds(100);
    return std::make_unique<EchoServer>(std::move(options));
  }
};

void SleepForEver() { absl::SleepFor(absl::InfiniteDuration()); }

TEST_F(Misbehaving, DISABLED_Not) {
  EXPECT_THAT(Call("echo", "a"), RepliesWith("a"));
}

TEST_F(Misbehaving, DISABLED_ByAWrongReply) {
  EXPECT_THAT(Call("echo", "a"), RepliesWith("b"));
}

TEST_F(Misbehaving, DISABLED_ByAHandlersAssertion) {
  EXPECT_THAT(Call("fail"), RepliesWith("done"));
}

TEST_F(Misbehaving, DISABLED_ByAnAssertionInAProcess) {
  RunInProcess([] {
    ADD_FAILURE() << "a process's own failure";
    return 0;
  });
}

TEST_F(Misbehaving, DISABLED_ByADescriptor) {
  (void)open("/dev/null", O_RDONLY | O_CLOEXEC);
}

TEST_F(Misbehaving, DISABLED_ByAConnection) {
  auto connection =
      environment().Connect(server().socket_filename(), absl::InfiniteFuture());
  ASSERT_THAT(connection, IsOk());
  (void)connection->release();
}

TEST_F(Misbehaving, DISABLED_ByAThread) {
  (void)environment().StartThread(SleepForEver)->release();
}

TEST_F(Misbehaving, DISABLED_ByAProcess) {
  (void)environment()
      .Fork({},
            [] {
              prctl(PR_SET_PDEATHSIG, SIGKILL);
              SleepForEver();
              return 0;
            })
      ->release();
}

TEST_F(Misbehaving, DISABLED_Not2) {}

TEST_F(Misbehaving, DISABLED_ByAnOwner) { (void)AddOwner(); }

TEST_F(Misbehaving, DISABLED_Not3) {}

TEST_F(Misbehaving, DISABLED_ByProcessesWithoutThem) {
  EXPECT_EQ(RunInProcess([] { return 3; }), 3);
  AddOwner().Quit();
}

TEST_F(Misbehaving, DISABLED_ByAListener) {
  ASSERT_THAT(environment().Listen({}), IsOk());
}

TEST_F(Misbehaving, DISABLED_ByRemovingItsFolder) {
  std::filesystem::remove_all(directory());
}

TEST_F(Misbehaving, DISABLED_ByAFile) {
  std::ofstream(absl::StrCat(directory(), "/file")) << "text";
}

TEST_F(Misbehaving, DISABLED_ByASignal) { signal(SIGUSR1, SIG_IGN); }

TEST_F(Misbehaving, DISABLED_ByClosingWhatIsNotItsOwn) { close(STDIN_FILENO); }

TEST_F(Misbehaving, DISABLED_ByRaisingASignalInNoServer) {
  ASSERT_THAT(server().Stop(), IsOk());
  KillServer();
}

TEST_F(Misbehaving, DISABLED_ByADeadlock) { (void)Call("hang"); }

// A thread that was there before the simulation, and sees the end of it.
class Indexer {
 public:
  Indexer()
      : thread_([this] {
          pthread_setname_np(pthread_self(), "indexer");
          is_named_.Notify();
          end_.WaitForNotification();
        }) {
    is_named_.WaitForNotification();
  }
  ~Indexer() {
    end_.Notify();
    thread_.join();
  }

 private:
  absl::Notification is_named_;
  absl::Notification end_;
  std::thread thread_;
};

class Haunted : private Indexer, public Misbehaving {};

TEST_F(Haunted, DISABLED_ByAHang) { (void)Call("block"); }

TEST_F(Misbehaving, DISABLED_ByAHandlersDescriptors) {
  EXPECT_THAT(Call("leak"), RepliesWith("done"));
}

TEST_F(Misbehaving, DISABLED_ByExiting) { EXPECT_THAT(Call("exit"), IsOk()); }

TEST_F(Misbehaving, DISABLED_ByExploring) {
  Explore({}, [] {});
}

TEST_F(Misbehaving, DISABLED_ByWaitingForRealTime) { Advance(absl::Hours(1)); }

class Forgetful : public Misbehaving {
 protected:
  void TearDown() override { EXPECT_THAT(server().Stop(), IsOk()); }
};

TEST_F(Forgetful, DISABLED_OfTearDown) {}

class Twins : public ServerTestBase {};

TEST_F(Twins, DISABLED_GetASignalForOne) {
  EchoServer first;
  EchoServer second;
  ASSERT_THAT(first.Start(), IsOk());
  ASSERT_THAT(second.Start(), IsOk());
  Raise(first, SIGTERM);
  Advance(absl::Seconds(1));
  EXPECT_THAT(CallServer(second, "echo", "a"), RepliesWith("a"));
  (void)first.Stop();
  EXPECT_THAT(second.Stop(), IsOk());
}

class Race : public ServerTestBase {};

TEST_F(Race, DISABLED_OfTwo) {
  absl::Mutex mutex;
  int first = -1;
  const auto come = [&](int thread) {
    absl::MutexLock lock(&mutex);
    if (first < 0) first = thread;
  };
  RunAtOnce([&] { come(0); }, [&] { come(1); });
  std::cout << "thread " << first << " has come first\n";
}

// --- what becomes of them ---

struct Outcome {
  bool passed = false;
  std::string text;
};

Outcome OutcomeOf(std::string_view test, int repetitions = 1) {
  const FileDescriptor output(memfd_create("output", MFD_CLOEXEC));
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  const std::string filter = absl::StrCat("--gtest_filter=", test);
  const std::string repeat = absl::StrCat("--gtest_repeat=", repetitions);
  const pid_t child = fork();
  if (child == 0) {
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    dup2(output.get(), STDOUT_FILENO);
    dup2(output.get(), STDERR_FILENO);
    // They are for this program's tests.
    for (const char* name :
         {"TEST_SHARD_INDEX", "TEST_TOTAL_SHARDS", "XML_OUTPUT_FILE",
          "TEST_PREMATURE_EXIT_FILE", "TESTBRIDGE_TEST_ONLY",
          "TEST_UNDECLARED_OUTPUTS_DIR"}) {
      unsetenv(name);
    }
    execl(program.c_str(), program_invocation_name, filter.c_str(),
          repeat.c_str(), "--gtest_also_run_disabled_tests", nullptr);
    _exit(127);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  std::string text(1 << 20, '\0');
  const ssize_t size = pread(output.get(), text.data(), text.size(), 0);
  text.resize(size < 0 ? 0 : static_cast<size_t>(size));
  return {WIFEXITED(status) && WEXITSTATUS(status) == 0, std::move(text)};
}

void ExpectFails(std::string_view test,
                 const ::testing::Matcher<std::string>& how) {
  const Outcome outcome = OutcomeOf(test);
  EXPECT_FALSE(outcome.passed) << test;
  EXPECT_THAT(outcome.text, how) << test;
}

TEST(Fixture, PassesATestThatBehaves) {
  const Outcome outcome = OutcomeOf("Misbehaving.DISABLED_Not");
  EXPECT_TRUE(outcome.passed) << outcome.text;
  EXPECT_THAT(outcome.text, HasSubstr("[  PASSED  ] 1 test."));
}

// One that leaves a process has not spoiled it for the others.
TEST(Fixture, PassesATestThatComesAfterOneThatMisbehaves) {
  const Outcome outcome = OutcomeOf(
      "Misbehaving.DISABLED_ByAProcess:Misbehaving.DISABLED_Not2:"
      "Misbehaving.DISABLED_ByAnOwner:Misbehaving.DISABLED_Not3");
  EXPECT_FALSE(outcome.passed);
  EXPECT_THAT(outcome.text, HasSubstr("[  PASSED  ] 2 tests."));
  EXPECT_THAT(outcome.text, HasSubstr(" 2 FAILED TESTS"));
}

TEST(Fixture, HasAnEmptyFolderForEachTestAndRemovesIt) {
  const Outcome outcome = OutcomeOf(
      "Misbehaving.DISABLED_ByRemovingItsFolder:Misbehaving.DISABLED_ByAFile:"
      "Misbehaving.DISABLED_ByASignal");
  EXPECT_THAT(outcome.text, HasSubstr(" 3 FAILED TESTS"));
  const std::vector<std::string_view> parts =
      absl::StrSplit(outcome.text, "a file is left: ");
  ASSERT_EQ(parts.size(), 2u) << outcome.text;
  const std::filesystem::path file(parts[1].substr(0, parts[1].find('\n')));
  EXPECT_EQ(file.filename(), "file");
  EXPECT_FALSE(std::filesystem::exists(file.parent_path())) << file;
}

TEST(Fixture, ShowsWhatWasSaidAndNotThePassword) {
  ExpectFails("Misbehaving.DISABLED_ByAWrongReply",
              AllOf(HasSubstr("| \"echo\", \"a\" (with a password)"),
                    HasSubstr("| \"a\""), HasSubstr("* exited with code 0"),
                    Not(HasSubstr(std::string(kPassword)))));
}

TEST(Fixture, FailsForAssertionsOfOtherProcesses) {
  ExpectFails("Misbehaving.DISABLED_ByAHandlersAssertion",
              HasSubstr("a handler's own failure"));
  if (!HasProcesses()) return;
  ExpectFails("Misbehaving.DISABLED_ByAnAssertionInAProcess",
              HasSubstr("a process's own failure"));
}

TEST(Fixture, FailsForWhatIsLeftBehind) {
  const bool simulated = TestMode() == Mode::kSimulated;
  ExpectFails("Misbehaving.DISABLED_ByADescriptor",
              ContainsRegex("descriptor [0-9]+ is left open: /dev/null"));
  ExpectFails(
      "Misbehaving.DISABLED_ByAConnection",
      ContainsRegex(simulated
                        ? "a connection is still open: connected to "
                        : "descriptor [0-9]+ is left open: socket:.*connect"));
  ExpectFails("Misbehaving.DISABLED_ByAThread",
              ContainsRegex(simulated ? "a thread is still running: "
                                      : "thread [0-9]+ .*is still running"));
  ExpectFails("Misbehaving.DISABLED_ByAListener",
              ContainsRegex(simulated ? "a socket's name is left: "
                                      : "a file is left: .*/socket"));
  ExpectFails("Misbehaving.DISABLED_ByAFile",
              ContainsRegex("a file is left: .*/file"));
  ExpectFails("Misbehaving.DISABLED_ByASignal",
              HasSubstr("SIGUSR1 was at its default, and is ignored"));
  ExpectFails("Misbehaving.DISABLED_ByClosingWhatIsNotItsOwn",
              HasSubstr("descriptor 0, which the test did not open, is closed: "
                        "/dev/null"));
  if (!HasProcesses()) return;
  ExpectFails("Misbehaving.DISABLED_ByAProcess",
              AnyOf(ContainsRegex("process [0-9]+ .* is still running"),
                    HasSubstr("a child process is still running")));
}

// What other modes leave to the end of the server's process.
TEST(Fixture, FailsForWhatServersLeaveInThisProcess) {
  if (TestMode() != Mode::kThreaded) GTEST_SKIP();
  ExpectFails("Misbehaving.DISABLED_ByAHandlersDescriptors",
              AllOf(ContainsRegex("descriptor [0-9]+ is left open: /dev/null"),
                    ContainsRegex("descriptor [0-9]+ is left open: socket:")));
}

TEST(Fixture, FailsForWhatCannotBeDone) {
  ExpectFails("Misbehaving.DISABLED_ByRaisingASignalInNoServer",
              HasSubstr("Raise(9): the server is not running"));
  ExpectFails("Forgetful.DISABLED_OfTearDown",
              HasSubstr("does not call that of its base"));
  if (!HasProcesses()) {
    ExpectFails("Misbehaving.DISABLED_ByProcessesWithoutThem",
                AllOf(HasSubstr("RunInProcess(): this mode has no processes"),
                      HasSubstr("AddOwner(): this mode has no processes")));
  }
  if (!MovesClock()) {
    ExpectFails("Misbehaving.DISABLED_ByWaitingForRealTime",
                HasSubstr("Only a simulated test can let 1h pass"));
  }
}

TEST(Fixture, SendsASignalToTheServerThatIsMeant) {
  const Outcome outcome = OutcomeOf("Twins.DISABLED_GetASignalForOne");
  EXPECT_EQ(outcome.passed, HasProcesses()) << outcome.text;
  if (HasProcesses()) return;
  EXPECT_THAT(outcome.text, HasSubstr("2 take signals in this process"));
}

TEST(Fixture, HasAnotherScheduleForEachRepetitionOfATest) {
  if (TestMode() != Mode::kSimulated) GTEST_SKIP();
  const Outcome outcome = OutcomeOf("Race.DISABLED_OfTwo", 20);
  EXPECT_TRUE(outcome.passed) << outcome.text;
  EXPECT_THAT(outcome.text, AllOf(HasSubstr("thread 0 has come first"),
                                  HasSubstr("thread 1 has come first")));
}

// Without a word the test's process would end well, and the test would pass.
TEST(Fixture, FailsWhenAHandlerExits) {
  ExpectFails("Misbehaving.DISABLED_ByExiting",
              SharesMemory() ? HasSubstr("exit(0) is called in the test's own")
                             : HasSubstr("FAILED"));
}

TEST(Fixture, ShowsHowASimulationGotStuck) {
  if (TestMode() != Mode::kSimulated) GTEST_SKIP();
  ExpectFails(
      "Misbehaving.DISABLED_ByADeadlock",
      AllOf(HasSubstr("deadlock: all threads wait"),
            HasSubstr("| \"hang\" (with a password)"),
            HasSubstr("With the same schedule: --test_env=TEST_RUN_NUMBER=1"),
            ContainsRegex("thread [0-9]+:")));
}

TEST(Fixture, ShowsHowASimulatedTestHangs) {
  if (TestMode() != Mode::kSimulated) GTEST_SKIP();
#ifdef ABSL_HAVE_THREAD_SANITIZER
  GTEST_SKIP() << "It withholds the signal that prints a stack.";
#endif
  ExpectFails(
      "Haunted.DISABLED_ByAHang",
      AllOf(HasSubstr("waits for something outside the schedule"),
            ContainsRegex("of process 2, .*, and does not wait "),
            ContainsRegex("of process 1, main: [^,]* \\(its stack"),
            HasSubstr("| \"block\" (with a password)"),
            HasSubstr("With the same schedule: --test_env=TEST_RUN_NUMBER=1"),
            HasSubstr("AbstractServer::Dispatch"),
            ContainsRegex("not in the schedule, \"indexer\", thread [0-9]+:"),
            Not(ContainsRegex("not in the schedule, .*not in the schedule"))));
}

TEST(Fixture, ShowsWhereAThreadOfTheServerHangs) {
  if (TestMode() != Mode::kThreaded) GTEST_SKIP();
#ifdef ABSL_HAVE_THREAD_SANITIZER
  GTEST_SKIP() << "It withholds the signal where all threads wait.";
#endif
  setenv("TEST_TIMEOUT", "3", 1);  // NOLINT(concurrency-mt-unsafe)
  ExpectFails("Misbehaving.DISABLED_ByADeadlock",
              AllOf(HasSubstr("about to run out of its time"),
                    HasSubstr("WaitForNotification"),
                    HasSubstr("AbstractServer::Dispatch")));
}

TEST(Fixture, RefusesToExplore) {
  if (TestMode() != Mode::kSimulated) GTEST_SKIP();
  const Outcome outcome = OutcomeOf("Misbehaving.DISABLED_ByExploring");
  EXPECT_FALSE(outcome.passed);
  EXPECT_THAT(outcome.text, HasSubstr("makes simulations of its own"));
}

TEST(Matchers, SayWhatIsHeld) {
  const absl::StatusOr<int> one = 1;
  ::testing::StringMatchResultListener said;
  EXPECT_FALSE(::testing::ExplainMatchResult(IsOkAndHolds(2), one, &said));
  EXPECT_EQ(said.str(), "which holds 1");
}

}  // namespace
}  // namespace ward::testing

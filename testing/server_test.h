// A fixture that runs a server, and the test its client.
//
//   class HelloServerTest : public ward::testing::ServerTest<HelloServer> {};
//
//   TEST_F(HelloServerTest, GreetsByName) {
//     EXPECT_THAT(Call(kHello, "Joe"),
//                 IsOkAndHolds("Hello Joe, how are you?"));
//   }
//
// The same test runs in four modes; ward_server_test (defs.bzl) makes a target
// for each:
//   simulated  server and test in one process, on simulated threads, sockets,
//              processes and time: deterministic, and done in microseconds
//   threaded   server and test in one process, over real sockets
//   forked     as in production
//   exec       the same, with StartMode::kExec: the server's class needs
//              WARD_REGISTER_SERVER, and all that it must know in its options
// Which it is, the program's name says, "..._forked"; without one, it is
// simulated. WARD_TEST_MODE=forked says otherwise.
//
// What holds in which mode:
//                                        simulated  threaded  forked, exec
//   SharesMemory(): the test may look
//     at what handlers did to server()       x          x
//   HasProcesses(): the server can be
//     killed, owners come and go             x                     x
//   MovesClock(): Advance() of any
//     length takes no time                   x
// A test that needs one of these asks for it first:
//   if (!SharesMemory()) GTEST_SKIP();
// What a server has open and running when its process ends goes with the
// process, as in reality: that it leaks while it serves is seen where it is
// threaded, and of real descriptors where it is simulated. Where memory is
// shared, the server runs on the test's own object: Stop() it before the
// object's destructor begins, as the fixture does with server().
//
// A test fails, by name of what it is, for whatever it leaves behind: open
// descriptors and connections, threads, processes, sockets' names, files in
// directory(), changed signals; and for assertions that failed in another
// process, as in a handler. One that fails prints what its processes said
// to each other, as a sequence diagram, if that is long its end; the whole, and
// another one for Mermaid, are among the test's undeclared outputs.

#ifndef WARD_TESTING_SERVER_TEST_H_
#define WARD_TESTING_SERVER_TEST_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/method.h"
#include "ward/testing/call_server.h"
#include "ward/testing/failure_relay.h"
#include "ward/testing/leak_check.h"
#include "ward/testing/report/recording_environment.h"
#include "ward/testing/run_at_once.h"
#include "ward/testing/simulation.h"
#include "ward/testing/simulator/strategy.h"
#include "ward/testing/simulator/threaded_environment.h"

namespace ward::testing {

// How a test runs; see above.
enum class Mode { kSimulated, kThreaded, kForked, kExec };

// Of this process.
Mode TestMode();

// Whether the test may look at what handlers did to server().
inline bool SharesMemory() {
  return TestMode() == Mode::kSimulated || TestMode() == Mode::kThreaded;
}

// Whether the server can be killed, and owners come and go.
inline bool HasProcesses() { return TestMode() != Mode::kThreaded; }

// Whether Advance() of any length takes no time.
inline bool MovesClock() { return TestMode() == Mode::kSimulated; }

// What the fixture does for any server, or for several. Servers that the test
// makes itself run in the test's mode, too.
class ServerTestBase : public ::testing::Test {
 protected:
  ServerTestBase();
  ~ServerTestBase() override;

  // The environment of the mode.
  Environment& environment() { return Environment::Default(); }

  // For the test's files. Empty, and to be left empty.
  const std::string& directory() const { return leaks_->directory(); }

  // Lets `time` pass. Where the clock cannot be moved, really waits; over ten
  // seconds that fails the test.
  void Advance(absl::Duration time);

  // See run_at_once.h.
  template <typename... Bodies>
  void RunAtOnce(Bodies... bodies) {
    testing::RunAtOnce(std::move(bodies)...);
  }

  // Sends `signal` to the process of `server` (HasProcesses(), or one that the
  // server receives and no other server runs). Fails the test if it does not
  // run.
  void Raise(const AbstractServer& server, int signal);

  // SIGKILL (HasProcesses()); the server is dead when it returns.
  void Kill(AbstractServer& server);

  // Removes the name of `server`'s socket while it runs, as who cleans up /tmp
  // may.
  void RemoveName(const AbstractServer& server);

  // A process that owns the servers that this one owns, and does nothing else
  // (HasProcesses()). End it with one of the two.
  class Owner {
   public:
    void Kill();  // By SIGKILL.
    void Quit();  // By itself.

   private:
    friend class ServerTestBase;
    std::unique_ptr<Transport> told_;
    std::unique_ptr<Process> process_;
  };
  Owner AddOwner();

  // Runs `body` in a process of its own, which has all that this one has, and
  // waits for its end and for that of the processes that it leaves behind
  // (HasProcesses()). Returns its code, or 128 and the signal that ended it.
  int RunInProcess(absl::AnyInvocable<int()> body);

  // Fails the test for what it leaves behind. One that overrides this must call
  // it.
  void TearDown() override;

 private:
  // The transcript, and how to have it again.
  void ShowWhatHappened();

  // For the watchdog.
  static ServerTestBase* simulated_test_;

  bool torn_down_ = false;
  std::optional<FailureRelay> relay_;
  std::optional<LeakCheck> leaks_;
  std::unique_ptr<Strategy> strategy_;
  std::unique_ptr<Simulation> simulation_;
  std::unique_ptr<ThreadedEnvironment> threaded_;
  std::unique_ptr<RecordingEnvironment> recording_;
};

// Starts a Server before each test, and stops it afterwards. Override
// MakeServer() to give it options.
template <typename Server>
class ServerTest : public ServerTestBase {
 protected:
  virtual std::unique_ptr<Server> MakeServer() {
    if constexpr (std::is_default_constructible_v<Server>) {
      return std::make_unique<Server>();
    } else {
      return std::make_unique<Server>(ServerOptions());
    }
  }

  void SetUp() override {
    server_ = MakeServer();
    ASSERT_EQ(server_->Start(), absl::OkStatus());
  }

  void TearDown() override {
    if (server_ != nullptr && server_->started()) {
      EXPECT_EQ(server_->Stop(), absl::OkStatus());
    }
    server_.reset();
    ServerTestBase::TearDown();
  }

  // The owner's object. What handlers did to it can be seen here only where
  // SharesMemory().
  Server& server() { return *server_; }

  // Calls a method.
  template <typename Request, typename Reply, typename... Arguments>
  auto Call(const Method<Request, Reply>& method,
            const Arguments&... arguments) {
    return server().Call(method, arguments...);
  }

  // Sends one message and returns the reply.
  template <typename... Arguments>
  absl::StatusOr<Message> Call(const Arguments&... arguments) {
    return CallServer(server(), arguments...);
  }

  absl::Status Connect(absl::FunctionRef<absl::Status(MessageChannel&)> use) {
    return server().Connect(use);
  }

  void Raise(int signal) { ServerTestBase::Raise(server(), signal); }

  // SIGKILL (HasProcesses()); the server is dead when it returns. The next
  // call, or Stop, tells of it.
  void KillServer() { Kill(server()); }

 private:
  std::unique_ptr<Server> server_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SERVER_TEST_H_

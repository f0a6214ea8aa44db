// What the tests of AbstractServer share that run in every mode.

#ifndef WARD_SERVER_MODES_FOR_TEST_H_
#define WARD_SERVER_MODES_FOR_TEST_H_

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/server_test.h"
#include "ward/testing/simulation.h"

namespace ward {

// Sends this process a signal: the calling thread has caught it when it
// returns. HasProcesses().
inline void RaiseHere(int signal) {
  if (testing::Simulation* const simulation = testing::Simulation::Current()) {
    simulation->environment().Raise(Environment::Default().ProcessId(), signal);
  } else {
    raise(signal);
  }
}

class ModesTest : public testing::ServerTestBase {
 protected:
  // A place for a socket.
  std::string path() const { return directory() + "/s"; }

  // Options for a server at path(), to be reached by other objects too, with a
  // file for its notes, and with `arguments`.
  ServerOptions Shared(std::vector<std::string> arguments = {}) const {
    ServerOptions options;
    options.socket_filename = path();
    options.password = Secret("the right password");
    options.arguments = std::move(arguments);
    options.arguments.insert(options.arguments.begin(), notes());
    return options;
  }

  // What servers have noted since the last call.
  std::string TakeNotes() {
    const std::string all = ReadToEnd(
        FileDescriptor(open(notes().c_str(), O_RDONLY | O_CLOEXEC)).get());
    return all.substr(std::exchange(taken_, all.size()));
  }

  // The same, when there is a line of it.
  std::string AwaitNotes() {
    std::string taken;
    while (true) {
      taken += TakeNotes();
      if (!taken.empty() && taken.back() == '\n') return taken;
      absl::SleepFor(absl::Milliseconds(1));
    }
  }

  // A connection without a password, and one that need not end with a function.
  MessageChannel RawPeer(const std::string& where) {
    auto transport = environment().Connect(
        where, environment().TimeNow() + absl::Minutes(1));
    return transport.ok() ? MessageChannel(*std::move(transport))
                          : MessageChannel();
  }
  MessageChannel Open(const AbstractServer& server) {
    MessageChannel channel = RawPeer(server.socket_filename());
    channel.PresentPassword(server.password());
    return channel;
  }

  // Whether there is something to read within `time`.
  bool Readable(const MessageChannel& channel, absl::Duration time) {
    const Pollable* const polled[] = {channel.transport()};
    return environment().Poll(polled, environment().TimeNow() + time).ok();
  }

  // Waits until `server`, which has been told to, has ended.
  void AwaitEnd(AbstractServer& server) {
    const std::shared_ptr<const Pollable> end = server.pollable();
    const Pollable* const polled[] = {end.get()};
    EXPECT_THAT(
        environment().Poll(polled, environment().TimeNow() + absl::Minutes(1)),
        IsOk());
    // To its last moment.
    EXPECT_THAT(server.CheckAlive(), FailsWith(reason::kServerDied));
  }

  // Whether a server answers at `where`.
  bool Answers(const std::string& where) { return RawPeer(where).is_open(); }

  void TearDown() override {
    unlink(notes().c_str());
    ServerTestBase::TearDown();
  }

 private:
  std::string notes() const { return directory() + "/notes"; }

  size_t taken_ = 0;
};

}  // namespace ward

#endif  // WARD_SERVER_MODES_FOR_TEST_H_

#include "ward/testing/simulator/simulated_environment.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/exec_entry.h"
#include "ward/server/listener.h"
#include "ward/server/process.h"
#include "ward/server/signals.h"
#include "ward/testing/matchers.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulator/simulation.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr absl::Time kNever = absl::InfiniteFuture();

// A child with all that this process has.
std::unique_ptr<Process> ForkWithAll(SimulatedEnvironment& environment,
                                     absl::AnyInvocable<int()> child) {
  ForkOptions options;
  options.keep_all_open = true;
  return environment.Fork(options, std::move(child)).value();
}

// Makes runs of `body` under several schedules; each must leave nothing.
void Simulate(absl::FunctionRef<void(SimulatedEnvironment&)> body) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    RandomStrategy strategy(seed);
    Simulation simulation(strategy, {});
    body(simulation.environment());
    simulation.scheduler().Advance(absl::Minutes(2));
    EXPECT_THAT(simulation.environment().Leftovers(), IsEmpty())
        << "seed " << seed;
    if (::testing::Test::HasFailure()) return;
  }
}

void Sleep() { absl::SleepFor(absl::InfiniteDuration()); }

// A child that sleeps until it is killed.
absl::StatusOr<std::unique_ptr<Process>> ForkSleeper(Environment& environment) {
  return environment.Fork({}, [] {
    Sleep();
    return 0;
  });
}

ProcessExit ExitOf(Process& process) {
  const absl::StatusOr<ProcessExit> exit = process.Wait(kNever);
  return exit.ok() ? *exit : ProcessExit{};
}

MATCHER_P(ExitedWith, code, "") {
  *result_listener << arg.ToString();
  return arg.kind == ProcessExit::Kind::kExited && arg.value == code;
}

MATCHER_P(KilledBy, signal, "") {
  *result_listener << arg.ToString();
  return arg.kind == ProcessExit::Kind::kSignaled && arg.value == signal;
}

absl::StatusOr<std::string> ReceiveSome(Transport& transport) {
  std::array<char, 64> buffer;
  std::vector<FileDescriptor> descriptors;
  while (true) {
    WARD_ASSIGN_OR_RETURN(
        const Transport::Received received,
        transport.Receive(absl::MakeSpan(buffer), 0, descriptors, kNever));
    if (received.bytes > 0) return std::string(buffer.data(), received.bytes);
    if (received.end_of_stream) return "";
  }
}

// A program that is started by exec: takes a descriptor with each byte, closes
// the first one, and keeps the others.
constexpr std::string_view kTakesDescriptors = "takes descriptors";

int TakeDescriptors(Environment&, ExecLinks links) {
  const std::unique_ptr<Transport> link = std::move(links.hand_over);
  std::vector<FileDescriptor> kept;
  while (true) {
    std::array<char, 1> byte;
    const auto received = link->Receive(absl::MakeSpan(byte), 1, kept, kNever);
    if (!received.ok() || received->end_of_stream) return 0;
    if (received->bytes == 0) continue;
    if (byte[0] == '1') kept.clear();
    if (!link->Send(".", {}, kNever).ok()) return 1;
  }
}

[[maybe_unused]] const bool kRegistered = [] {
  RegisterExecEntry(kTakesDescriptors, typeid(TakeDescriptors),
                    &TakeDescriptors);
  return true;
}();

// --- time and threads ---

TEST(SimulatedEnvironment, HasTheSchedulersTime) {
  Simulate([](SimulatedEnvironment& environment) {
    const absl::Time start = environment.TimeNow();
    absl::SleepFor(absl::Hours(100));
    EXPECT_EQ(environment.TimeNow(), start + absl::Hours(100));
    EXPECT_EQ(environment.TimeNow(), absl::Now());
  });
}

TEST(SimulatedEnvironment, DestroyingAThreadJoinsIt) {
  Simulate([](SimulatedEnvironment& environment) {
    bool done = false;
    {
      ASSERT_OK_AND_ASSIGN(const auto thread, environment.StartThread([&] {
        absl::SleepFor(absl::Seconds(1));
        EXPECT_EQ(environment.ProcessId(), SimulatedEnvironment::kTestProcess);
        done = true;
      }));
    }
    EXPECT_TRUE(done);
  });
}

TEST(SimulatedEnvironment, RefusesToForkWithThreads) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto thread, environment.StartThread([] {
      absl::SleepFor(absl::Seconds(1));
    }));
    EXPECT_THAT(ForkSleeper(environment), FailsWith(reason::kForkWithThreads));
    ForkOptions allowed;
    allowed.allow_threads = true;
    ASSERT_OK_AND_ASSIGN(const auto child,
                         environment.Fork(allowed, [] { return 5; }));
    EXPECT_THAT(ExitOf(*child), ExitedWith(5));
    thread.reset();
    ASSERT_OK_AND_ASSIGN(const auto again,
                         environment.Fork({}, [] { return 6; }));
    EXPECT_THAT(ExitOf(*again), ExitedWith(6));
  });
}

// --- processes ---

TEST(SimulatedProcess, HasANumberAndACodeOfItsOwn) {
  Simulate([](SimulatedEnvironment& environment) {
    std::vector<std::unique_ptr<Process>> children;
    // Enough to see that they keep apart.
    for (int i = 0; i < 10; ++i) {
      ASSERT_OK_AND_ASSIGN(children.emplace_back(),
                           environment.Fork({}, [&environment, i] {
                             return environment.ProcessId() * 10 + i;
                           }));
    }
    for (int i = 0; i < 10; ++i) {
      EXPECT_THAT(ExitOf(*children[i]),
                  ExitedWith((children[i]->pid() * 10 + i) & 0xff));
      EXPECT_FALSE(environment.IsAlive(children[i]->pid()));
      EXPECT_TRUE(children[i]->Ending());
      EXPECT_THAT(ExitOf(*children[i]),
                  ExitedWith((children[i]->pid() * 10 + i) & 0xff))
          << "the same again";
    }
  });
}

TEST(SimulatedProcess, OnlyTheLowBitsOfACodeAreSeen) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(const auto child,
                         environment.Fork({}, [] { return 0x1203; }));
    EXPECT_THAT(ExitOf(*child), ExitedWith(3));
  });
}

TEST(SimulatedProcess, IsWaitedForUntilADeadline) {
  Simulate([](SimulatedEnvironment& environment) {
    const absl::Time start = environment.TimeNow();
    ASSERT_OK_AND_ASSIGN(const auto child, environment.Fork({}, [] {
      absl::SleepFor(absl::Seconds(10));
      return 0;
    }));
    EXPECT_THAT(child->Wait(start + absl::Seconds(3)),
                FailsWith(reason::kTimedOut));
    EXPECT_EQ(environment.TimeNow(), start + absl::Seconds(3));
    EXPECT_FALSE(child->Ending());
    EXPECT_TRUE(environment.IsAlive(child->pid()));
    EXPECT_THAT(ExitOf(*child), ExitedWith(0));
    EXPECT_EQ(environment.TimeNow(), start + absl::Seconds(10));
  });
}

TEST(SimulatedProcess, TellsOnlyItsParentHowItEnded) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(const auto child,
                         environment.Fork({}, [] { return 3; }));
    const auto stranger = ForkWithAll(environment, [&] {
      const absl::StatusOr<ProcessExit> exit = child->Wait(kNever);
      return exit.ok() && exit->kind == ProcessExit::Kind::kUnknown ? 0 : 1;
    });
    EXPECT_THAT(ExitOf(*stranger), ExitedWith(0));
    EXPECT_THAT(ExitOf(*child), ExitedWith(3));
  });
}

TEST(SimulatedProcess, IsKilledWithAllItsThreads) {
  Simulate([](SimulatedEnvironment& environment) {
    int beats = 0;
    ASSERT_OK_AND_ASSIGN(const auto child, environment.Fork({}, [&] {
      const auto thread = environment.StartThread([&] {
        while (true) {
          absl::SleepFor(absl::Seconds(1));
          ++beats;
        }
      });
      Sleep();
      return 0;
    }));
    absl::SleepFor(absl::Milliseconds(5500));
    EXPECT_EQ(beats, 5);
    EXPECT_THAT(child->Kill(SIGKILL), IsOk());
    EXPECT_THAT(ExitOf(*child), KilledBy(SIGKILL));
    absl::SleepFor(absl::Seconds(5));
    EXPECT_EQ(beats, 5);
    EXPECT_THAT(child->Kill(SIGKILL), IsOk()) << "one that has ended";
  });
}

TEST(SimulatedProcess, ThreadsThatWereKilledAreNotWaitedFor) {
  Simulate([](SimulatedEnvironment& environment) {
    // In a simulation the owner sees what its server has stored.
    std::unique_ptr<Thread> of_the_server;
    ASSERT_OK_AND_ASSIGN(const auto child, environment.Fork({}, [&] {
      auto thread = environment.StartThread(Sleep);
      if (thread.ok()) of_the_server = *std::move(thread);
      Sleep();
      return 0;
    }));
    absl::SleepFor(absl::Seconds(1));
    EXPECT_THAT(child->Kill(SIGKILL), IsOk());
    of_the_server.reset();
    EXPECT_THAT(ExitOf(*child), KilledBy(SIGKILL));
  });
}

TEST(SimulatedProcess, EndsAtItsDeadlineWhateverItDoes) {
  Simulate([](SimulatedEnvironment& environment) {
    const absl::Time start = environment.TimeNow();
    ASSERT_OK_AND_ASSIGN(const auto late, environment.Fork({}, [&] {
      EXPECT_THAT(environment.SetProcessDeadline(absl::Seconds(7)), IsOk());
      Sleep();
      return 0;
    }));
    EXPECT_THAT(ExitOf(*late), KilledBy(SIGKILL));
    EXPECT_EQ(environment.TimeNow(), start + absl::Seconds(7));

    for (const absl::Duration none : {absl::ZeroDuration(), -absl::Hours(1)}) {
      ASSERT_OK_AND_ASSIGN(const auto at_once, environment.Fork({}, [&] {
        EXPECT_THAT(environment.SetProcessDeadline(none), IsOk());
        Sleep();
        return 0;
      }));
      EXPECT_THAT(ExitOf(*at_once), KilledBy(SIGKILL));
    }

    ASSERT_OK_AND_ASSIGN(const auto spared, environment.Fork({}, [&] {
      EXPECT_THAT(environment.SetProcessDeadline(absl::Seconds(7)), IsOk());
      const auto grandchild = environment.Fork({}, [&] {
        absl::SleepFor(absl::Seconds(20));
        return 4;
      });
      EXPECT_THAT(environment.SetProcessDeadline(absl::InfiniteDuration()),
                  IsOk());
      return ExitOf(**grandchild).value;
    }));
    EXPECT_THAT(ExitOf(*spared), ExitedWith(4));
  });
}

// As parity with the kernel has it: see PosixTieProcess.
TEST(SimulatedProcess, EndsWithWhatItIsTiedTo) {
  Simulate([](SimulatedEnvironment& environment) {
    const auto tied = [&environment](bool in_time) {
      auto ends = environment.CreateTransportPair();
      EXPECT_THAT(ends, IsOk());
      ForkOptions keep;
      keep.keep_open = {ends->second->descriptor()};
      auto process = environment.Fork(
          keep, [&environment, in_time, end = std::move(ends->second)] {
            if (!in_time) absl::SleepFor(absl::Seconds(1));
            EXPECT_THAT(environment.TieProcess(*end, nullptr), IsOk());
            Sleep();
            return 0;
          });
      EXPECT_THAT(process, IsOk());
      absl::SleepFor(absl::Milliseconds(1));
      return std::make_pair(*std::move(process), std::move(ends->first));
    };
    for (const bool in_time : {true, false}) {
      auto [closed, end] = tied(in_time);
      EXPECT_FALSE(closed->Ending());
      end.reset();
      EXPECT_EQ(closed->Ending(), in_time);
      EXPECT_THAT(ExitOf(*closed), KilledBy(SIGKILL));

      auto [told, tells] = tied(in_time);
      EXPECT_THAT(tells->Send("x", {}, kNever), IsOk());
      EXPECT_EQ(told->Ending(), in_time);
      EXPECT_THAT(ExitOf(*told), KilledBy(SIGKILL));
    }
  });
}

TEST(SimulatedProcess, OutlivesWhatItIsNoLongerTiedTo) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto ends, environment.CreateTransportPair());
    ForkOptions keep;
    keep.keep_open = {ends.second->descriptor()};
    ASSERT_OK_AND_ASSIGN(
        const auto process,
        environment.Fork(keep, [&environment, end = std::move(ends.second)] {
          EXPECT_THAT(environment.TieProcess(*end, nullptr), IsOk());
          EXPECT_THAT(environment.UntieProcess(*end), IsOk());
          absl::SleepFor(absl::Seconds(1));
          return 4;
        }));
    absl::SleepFor(absl::Milliseconds(1));
    ends.first.reset();
    EXPECT_THAT(ExitOf(*process), ExitedWith(4));
  });
}

TEST(SimulatedProcess, IsInAGroupThatSignalsReach) {
  Simulate([](SimulatedEnvironment& environment) {
    const auto sleeper = [&](ProcessGroup group) {
      ForkOptions options;
      options.process_group = group;
      auto process = environment.Fork(options, [&environment] {
        const auto signals = environment.TakeSignals({});
        Sleep();
        return 0;
      });
      EXPECT_THAT(process, IsOk());
      absl::SleepFor(absl::Milliseconds(1));
      return *std::move(process);
    };
    ForkOptions own;
    own.process_group = ProcessGroup::kOwn;
    ASSERT_OK_AND_ASSIGN(
        const auto leader, environment.Fork(own, [&environment, &sleeper] {
          const auto signals = environment.TakeSignals({{SIGINT}, {}});
          const auto beside = sleeper(ProcessGroup::kParents);
          const auto apart = sleeper(ProcessGroup::kOwn);
          environment.RaiseInGroupOf(environment.ProcessId(), SIGINT);
          EXPECT_EQ((*signals)->Next(), SIGINT);
          EXPECT_THAT(ExitOf(*beside), KilledBy(SIGINT));
          EXPECT_FALSE(apart->Ending());
          EXPECT_THAT(apart->Kill(SIGKILL), IsOk());
          EXPECT_THAT(ExitOf(*apart), KilledBy(SIGKILL));
          return 0;
        }));
    EXPECT_THAT(ExitOf(*leader), ExitedWith(0));
  });
}

TEST(SimulatedProcess, TakesSignalsAsKillDoes) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(const auto child, ForkSleeper(environment));
    EXPECT_THAT(child->Kill(0), IsOk());
    EXPECT_FALSE(child->Kill(-1).ok());
    EXPECT_FALSE(child->Kill(SIGRTMAX + 1).ok());
    absl::SleepFor(absl::Seconds(1));
    EXPECT_FALSE(child->Ending());
    EXPECT_THAT(child->Kill(SIGKILL), IsOk());
    EXPECT_THAT(ExitOf(*child), KilledBy(SIGKILL));
  });
}

// --- signals ---

TEST(SimulatedSignals, AreBlockedInAFreshChildUntilItTakesThem) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(const auto child, environment.Fork({}, [&] {
      absl::SleepFor(absl::Seconds(1));
      const auto signals = environment.TakeSignals({{SIGUSR1}, {}});
      EXPECT_THAT(signals, IsOk());
      return (*signals)->Next() == SIGUSR1 && (*signals)->Next() == 0 ? 7 : 1;
    }));
    EXPECT_THAT(child->Kill(SIGUSR1), IsOk());
    EXPECT_THAT(child->Kill(SIGUSR1), IsOk()) << "returned once";
    EXPECT_THAT(ExitOf(*child), ExitedWith(7));
  });
}

TEST(SimulatedSignals, ThatCameBeforeEndAProcessThatDoesNotReceiveThem) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(const auto child, environment.Fork({}, [&] {
      absl::SleepFor(absl::Seconds(1));
      const auto signals = environment.TakeSignals({{SIGUSR1}, {}});
      ADD_FAILURE() << "outlived SIGTERM";
      return 0;
    }));
    EXPECT_THAT(child->Kill(SIGTERM), IsOk());
    EXPECT_THAT(ExitOf(*child), KilledBy(SIGTERM));
  });
}

TEST(SimulatedSignals, AreReceivedIgnoredOrHaveTheirDefault) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(const auto child, environment.Fork({}, [&] {
      const auto signals = environment.TakeSignals(
          {{SIGUSR1, SIGTERM}, {SIGHUP, SIGPIPE, SIGTERM}});
      EXPECT_THAT(signals, IsOk());
      const Pollable* const polled[] = {signals->get()};
      EXPECT_THAT(environment.Poll(polled, kNever), IsOk());
      EXPECT_EQ((*signals)->Next(), SIGTERM) << "received, though ignored";
      EXPECT_EQ((*signals)->Next(), 0);
      Sleep();
      return 0;
    }));
    absl::SleepFor(absl::Seconds(1));
    for (const int signal : {SIGHUP, SIGPIPE, SIGCHLD, SIGWINCH, SIGTERM}) {
      EXPECT_THAT(child->Kill(signal), IsOk());
    }
    absl::SleepFor(absl::Seconds(1));
    EXPECT_FALSE(child->Ending());
    EXPECT_THAT(child->Kill(SIGUSR2), IsOk());
    EXPECT_THAT(ExitOf(*child), KilledBy(SIGUSR2));
  });
}

TEST(SimulatedSignals, AreTakenByOneAtATimeAndPutBackAsFound) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(const auto child, environment.Fork({}, [&] {
      {
        const auto signals = environment.TakeSignals({{SIGUSR1}, {}});
        EXPECT_THAT(environment.TakeSignals({}),
                    FailsWith(reason::kSignalsTaken));
        environment.Raise(environment.ProcessId(), SIGUSR1);
      }
      // Blocked again.
      environment.Raise(environment.ProcessId(), SIGTERM);
      absl::SleepFor(absl::Seconds(1));
      const auto signals = environment.TakeSignals({{SIGUSR1, SIGTERM}, {}});
      EXPECT_THAT(signals, IsOk());
      EXPECT_EQ((*signals)->Next(), SIGTERM);
      EXPECT_EQ((*signals)->Next(), 0) << "SIGUSR1 was received, and dropped";
      return 9;
    }));
    EXPECT_THAT(ExitOf(*child), ExitedWith(9));
  });
}

TEST(SimulatedProcess, CannotBeStopped) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(const auto child, environment.Fork({}, [] {
      Sleep();
      return 0;
    }));
    EXPECT_EQ(child->Kill(SIGSTOP).code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(child->Kill(0), IsOk());
    environment.Raise(child->pid(), 0);
    EXPECT_FALSE(child->Ending());
    EXPECT_THAT(child->Kill(SIGKILL), IsOk());
    EXPECT_THAT(ExitOf(*child), KilledBy(SIGKILL));
  });
}

// A killed process's real descriptors are closed with it, and no others: not
// those of the test that refer to the same file.
TEST(SimulatedProcess, LosesItsRealDescriptorsWhenItIsKilled) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto link, environment.CreateTransportPair());
    ASSERT_OK_AND_ASSIGN(auto owner, environment.CreateTransportPair());
    ASSERT_OK_AND_ASSIGN(
        const auto server,
        environment.Exec(std::string(kTakesDescriptors),
                         {std::move(link.second), std::move(owner.second)},
                         ProcessGroup::kParents));
    std::array<int, 2> ends;
    ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
    const FileDescriptor reader(ends[0]);
    FileDescriptor writer(ends[1]);
    const int number = writer.get();
    // It closes the first one, and keeps the second.
    ASSERT_THAT(link.first->Send("1", {number}, kNever), IsOk());
    ASSERT_THAT(ReceiveSome(*link.first), IsOkAndHolds("."));
    std::vector<FileDescriptor> own;
    for (int i = 0; i < 20; ++i) own.emplace_back(dup(number));
    ASSERT_THAT(link.first->Send("2", {number}, kNever), IsOk());
    ASSERT_THAT(ReceiveSome(*link.first), IsOkAndHolds("."));
    ASSERT_THAT(server->Kill(SIGKILL), IsOk());
    ASSERT_THAT(ExitOf(*server), KilledBy(SIGKILL));
    for (const FileDescriptor& each : own) {
      EXPECT_GE(fcntl(each.get(), F_GETFD), 0);
    }
    // With the test's own closed, nobody has the writing end any more.
    own.clear();
    writer.Reset();
    char byte;
    EXPECT_EQ(read(reader.get(), &byte, 1), 0);
  });
}

// In a process that has no large table yet, of an earlier test.
TEST(SimulatedProcess, FindsRoomForItsDescriptors) {
  EXPECT_EXIT(
      {
        RandomStrategy strategy(0);
        { const Simulation simulation(strategy, {}); }
        std::ifstream status("/proc/self/status");
        std::string word;
        while (status >> word && word != "FDSize:") {
        }
        int size = 0;
        status >> size;
        std::cerr << "a table of " << size;
        _exit(size > 512 ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "a table of ");
}

TEST(SimulatedSignals, CannotBeOtherThanSignalsWithHandlers) {
  Simulate([](SimulatedEnvironment& environment) {
    for (const int signal : {SIGKILL, SIGSTOP, 0, -1, 32, SIGRTMAX + 1}) {
      EXPECT_THAT(environment.TakeSignals({{signal}, {}}),
                  FailsWith(reason::kInvalidSignal));
    }
    EXPECT_THAT(environment.TakeSignals({}), IsOk());
  });
}

// --- sockets ---

TEST(SimulatedListener, AdmitsWhomTheFileSystemWould) {
  Simulate([](SimulatedEnvironment& environment) {
    const uid_t self = environment.UserId();
    ASSERT_OK_AND_ASSIGN(auto narrow, environment.Listen({"/narrow", 0600}));
    ASSERT_OK_AND_ASSIGN(auto wide, environment.Listen({"/wide", 0666}));
    ASSERT_OK_AND_ASSIGN(auto own, environment.Listen({"", 0666}));
    const auto admits = [&](const Listener& listener, uid_t user) {
      environment.SetUser(user);
      const absl::Status status =
          environment.Connect(listener.path(), kNever).status();
      environment.SetUser(self);
      EXPECT_TRUE(status.ok() || absl::IsPermissionDenied(status)) << status;
      return status.ok();
    };
    EXPECT_TRUE(admits(*narrow, self));
    EXPECT_FALSE(admits(*narrow, self + 1));
    EXPECT_TRUE(admits(*narrow, 0));
    EXPECT_TRUE(admits(*wide, self + 1));
    EXPECT_TRUE(admits(*own, self));
    EXPECT_FALSE(admits(*own, self + 1)) << "its directory is private";
    EXPECT_TRUE(admits(*own, 0));
    for (auto* const listener : {&narrow, &wide, &own}) {
      (*listener)->RemovePath();
      listener->reset();
    }
  });
}

TEST(SimulatedListener, TakesClientsWhileItIsOnItsWayToAnotherProcess) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto listener, environment.Listen({}));
    ASSERT_OK_AND_ASSIGN(ListenerParts parts, listener->Share());
    listener->Close();
    ASSERT_OK_AND_ASSIGN(const auto client,
                         environment.Connect(listener->path(), kNever));
    ASSERT_OK_AND_ASSIGN(
        auto adopted,
        environment.AdoptListener(std::move(parts), environment.UserId()));
    EXPECT_THAT(adopted->Accept(), IsOk());
    adopted->RemovePath();
  });
}

TEST(SimulatedTransport, CarriesCredentialsOfTheMomentOfTheConnection) {
  Simulate([](SimulatedEnvironment& environment) {
    environment.SetUser(501);
    ASSERT_OK_AND_ASSIGN(auto listener, environment.Listen({"/s", 0666}));
    environment.SetUser(502);
    ASSERT_OK_AND_ASSIGN(const auto client, environment.Fork({}, [&] {
      environment.SetUser(600);
      const auto transport = environment.Connect("/s", kNever);
      environment.SetUser(601);
      EXPECT_THAT(ReceiveSome(**transport).status(), IsOk());
      // The one that has called listen(2).
      EXPECT_EQ((*transport)->Peer()->pid, SimulatedEnvironment::kTestProcess);
      EXPECT_EQ((*transport)->Peer()->uid, 501u);
      return 0;
    }));
    ASSERT_OK_AND_ASSIGN(const Listener::Accepted accepted, listener->Accept());
    ASSERT_OK_AND_ASSIGN(const PeerCredentials peer,
                         accepted.transport->Peer());
    EXPECT_EQ(peer.pid, client->pid());
    EXPECT_EQ(peer.uid, 600u);
    EXPECT_THAT(accepted.transport->Send("x", {}, kNever), IsOk());
    EXPECT_THAT(ExitOf(*client), ExitedWith(0));
    EXPECT_EQ(environment.UserId(), 502u);
    listener->RemovePath();
  });
}

TEST(SimulatedTransport, EndsInTheOtherProcessWhenItsHolderIsKilled) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto ends, environment.CreateTransportPair());
    ForkOptions options;
    options.keep_open = {ends.second->descriptor()};
    ASSERT_OK_AND_ASSIGN(
        const auto child,
        environment.Fork(options, [end = std::move(ends.second)] {
          EXPECT_THAT(end->Send("hello", {}, kNever), IsOk());
          Sleep();
          return 0;
        }));
    ASSERT_OK_AND_ASSIGN(const std::string text, ReceiveSome(*ends.first));
    EXPECT_EQ(text, "hello");
    const Pollable* const polled[] = {ends.first.get()};
    EXPECT_THAT(environment.Poll(polled, environment.TimeNow()),
                FailsWith(reason::kTimedOut));
    EXPECT_THAT(child->Kill(SIGKILL), IsOk());
    EXPECT_THAT(environment.Poll(polled, kNever), IsOk());
    ASSERT_OK_AND_ASSIGN(const std::string end, ReceiveSome(*ends.first));
    EXPECT_EQ(end, "");
    EXPECT_THAT(ends.first->Send("x", {}, kNever),
                FailsWith(reason::kConnectionLost));
    EXPECT_THAT(ExitOf(*child), KilledBy(SIGKILL));
  });
}

TEST(SimulatedTransport, StaysOpenForEveryProcessThatHasIt) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto ends, environment.CreateTransportPair());
    // Has both ends, and keeps them when the second is given to a child.
    const auto copy = ForkWithAll(environment, [] {
      Sleep();
      return 0;
    });
    ForkOptions options;
    options.keep_open = {ends.second->descriptor()};
    ASSERT_OK_AND_ASSIGN(
        const auto child,
        environment.Fork(options,
                         [end = std::move(ends.second)] { return 0; }));
    EXPECT_THAT(ExitOf(*child), ExitedWith(0));
    const Pollable* const polled[] = {ends.first.get()};
    EXPECT_THAT(
        environment.Poll(polled, environment.TimeNow() + absl::Seconds(1)),
        FailsWith(reason::kTimedOut));
    EXPECT_THAT(copy->Kill(SIGKILL), IsOk());
    EXPECT_THAT(environment.Poll(polled, kNever), IsOk());
    EXPECT_THAT(ExitOf(*copy), KilledBy(SIGKILL));
  });
}

TEST(SimulatedTransport, WaitsForRoomUntilADeadline) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto ends, environment.CreateTransportPair());
    const std::string much(size_t{1} << 20, 'x');
    const absl::Time deadline = environment.TimeNow() + absl::Seconds(5);
    size_t sent = 0;
    absl::Status status;
    while (status.ok()) {
      const absl::StatusOr<size_t> some = ends.first->Send(much, {}, deadline);
      status = some.status();
      if (some.ok()) sent += *some;
    }
    EXPECT_THAT(status, FailsWith(reason::kTimedOut));
    EXPECT_EQ(environment.TimeNow(), deadline);
    EXPECT_GE(sent, SimulatedSocket::kCapacity);
    EXPECT_LT(sent,
              SimulatedSocket::kCapacity + SimulatedSocket::kMostOfSegment);
    while (sent > 0) {
      ASSERT_OK_AND_ASSIGN(const std::string some, ReceiveSome(*ends.second));
      sent -= some.size();
    }
    EXPECT_THAT(ends.first->Send(much, {}, kNever), IsOk());
  });
}

TEST(SimulatedTransport, ClosesDescriptorsInFlightThatNobodyReads) {
  Simulate([](SimulatedEnvironment& environment) {
    std::array<int, 2> pipe_ends;
    ASSERT_EQ(pipe2(pipe_ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
    const FileDescriptor reader(pipe_ends[0]);
    FileDescriptor writer(pipe_ends[1]);
    const auto someone_can_write = [&] {
      char byte;
      return read(reader.get(), &byte, 1) < 0;
    };
    {
      ASSERT_OK_AND_ASSIGN(auto ends, environment.CreateTransportPair());
      const std::array<int, 1> sent = {writer.get()};
      EXPECT_THAT(ends.first->Send("x", sent, kNever), IsOk());
      writer.Reset();
      EXPECT_TRUE(someone_can_write());
    }
    EXPECT_FALSE(someone_can_write());
  });
}

// The peer may see it before the caller does the next thing.
TEST(SimulatedTransport, SendingAndClosingAreFollowedByPoints) {
  bool seen_early = false;
  bool end_seen_early = false;
  Simulate([&](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto ends, environment.CreateTransportPair());
    bool sent = false;
    bool closed = false;
    ASSERT_OK_AND_ASSIGN(auto thread, environment.StartThread([&] {
      EXPECT_THAT(ReceiveSome(*ends.second), IsOkAndHolds("x"));
      seen_early |= !sent;
      EXPECT_THAT(ReceiveSome(*ends.second), IsOkAndHolds(""));
      end_seen_early |= !closed;
    }));
    EXPECT_THAT(ends.first->Send("x", {}, kNever), IsOk());
    sent = true;
    ends.first.reset();
    closed = true;
    thread.reset();
  });
  EXPECT_TRUE(seen_early);
  EXPECT_TRUE(end_seen_early);
}

TEST(SimulatedTransport, ShuttingDownWakesWhoeverWaits) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto ends, environment.CreateTransportPair());
    ASSERT_OK_AND_ASSIGN(auto thread, environment.StartThread([&] {
      const absl::StatusOr<std::string> end = ReceiveSome(*ends.first);
      EXPECT_THAT(end, IsOk());
      EXPECT_EQ(*end, "");
    }));
    absl::SleepFor(absl::Seconds(1));
    ends.first->ShutDown();
    thread.reset();
    ASSERT_OK_AND_ASSIGN(const std::string end, ReceiveSome(*ends.second));
    EXPECT_EQ(end, "");
  });
}

TEST(SimulatedPoll, ReturnsTheFirstThatIsReadable) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto a, environment.CreateTransportPair());
    ASSERT_OK_AND_ASSIGN(auto b, environment.CreateTransportPair());
    ASSERT_OK_AND_ASSIGN(const auto child,
                         environment.Fork({}, [] { return 0; }));
    const Pollable* const polled[] = {a.first.get(), b.first.get(),
                                      child.get()};
    EXPECT_THAT(ExitOf(*child), ExitedWith(0));
    EXPECT_EQ(*environment.Poll(polled, kNever), 2u);
    EXPECT_THAT(b.second->Send("x", {}, kNever), IsOk());
    EXPECT_EQ(*environment.Poll(polled, kNever), 1u);
    EXPECT_THAT(a.second->Send("x", {}, kNever), IsOk());
    EXPECT_EQ(*environment.Poll(polled, environment.TimeNow()), 0u);
  });
}

TEST(SimulatedPoll, EndsAtItsDeadline) {
  Simulate([](SimulatedEnvironment& environment) {
    const absl::Time deadline = environment.TimeNow() + absl::Hours(100);
    EXPECT_THAT(environment.Poll({}, deadline), FailsWith(reason::kTimedOut));
    EXPECT_EQ(environment.TimeNow(), deadline);
    class Foreign final : public Pollable {
      int descriptor() const override { return 0; }
    } foreign;
    const Pollable* const polled[] = {&foreign};
    EXPECT_EQ(environment.Poll(polled, kNever).status().code(),
              absl::StatusCode::kFailedPrecondition);
  });
}

// --- listeners ---

TEST(SimulatedListener, ClaimsItsPathUntilNobodyListens) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto first, environment.Listen({"/s"}));
    EXPECT_THAT(environment.Listen({"/s"}), FailsWith(reason::kPathTaken));
    first->Close();
    EXPECT_THAT(environment.Connect("/s", kNever),
                FailsWith(reason::kServerUnreachable));
    ASSERT_OK_AND_ASSIGN(auto second, environment.Listen({"/s"}));
    first->RemovePath();
    EXPECT_THAT(environment.Connect("/s", kNever), IsOk())
        << "the name is the second one's now";
    second->RemovePath();
    second->RemovePath();
    EXPECT_THAT(environment.Connect("/s", kNever),
                FailsWith(reason::kServerUnreachable));
    EXPECT_EQ(second->path(), "/s");
  });
}

TEST(SimulatedListener, ReplacesTheNameOfAServerThatWasKilled) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(const auto child, environment.Fork({}, [&] {
      const auto listener = environment.Listen({"/s"});
      Sleep();
      return 0;
    }));
    absl::SleepFor(absl::Seconds(1));
    EXPECT_THAT(environment.Listen({"/s"}), FailsWith(reason::kPathTaken));
    EXPECT_THAT(child->Kill(SIGKILL), IsOk());
    EXPECT_THAT(ExitOf(*child), KilledBy(SIGKILL));
    ASSERT_OK_AND_ASSIGN(auto listener, environment.Listen({"/s"}));
    listener->RemovePath();
  });
}

TEST(SimulatedListener, ChoosesAPathOfItsOwn) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto first, environment.Listen({}));
    ASSERT_OK_AND_ASSIGN(auto second, environment.Listen({}));
    EXPECT_NE(first->path(), second->path());
    EXPECT_THAT(environment.Connect(second->path(), kNever), IsOk());
    first->RemovePath();
    second->RemovePath();
  });
}

TEST(SimulatedListener, MakesItsPathAbsolute) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto listener, environment.Listen({"here/s"}));
    EXPECT_THAT(listener->path(), ::testing::StartsWith("/"));
    EXPECT_THAT(environment.Connect(listener->path(), kNever), IsOk());
    EXPECT_THAT(environment.Connect("here/s", kNever), IsOk());
    listener->RemovePath();
  });
}

TEST(SimulatedListener, LimitsTheFileNameAndNotThePath) {
  Simulate([](SimulatedEnvironment& environment) {
    const std::string folder = "/" + std::string(500, 'd') + "/";
    ASSERT_OK_AND_ASSIGN(auto listener,
                         environment.Listen({folder + std::string(80, 's')}));
    const std::string long_name = folder + std::string(81, 's');
    EXPECT_THAT(environment.Listen({long_name}),
                FailsWith(reason::kPathTooLong));
    EXPECT_THAT(environment.Connect(long_name, kNever),
                FailsWith(reason::kPathTooLong));
    listener->RemovePath();
  });
}

TEST(SimulatedListener, HasAQueueAndClientsWaitForRoomInIt) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto listener, environment.Listen({"/s"}));
    std::vector<std::unique_ptr<Transport>> clients;
    const absl::Time deadline = environment.TimeNow() + absl::Seconds(5);
    while (true) {
      auto client = environment.Connect("/s", deadline);
      if (!client.ok()) {
        EXPECT_THAT(client, FailsWith(reason::kTimedOut));
        break;
      }
      clients.push_back(*std::move(client));
    }
    EXPECT_EQ(environment.TimeNow(), deadline);
    // listen(2) was told 128, and the kernel lets one more in.
    EXPECT_EQ(clients.size(), 129u);
    ASSERT_OK_AND_ASSIGN(auto thread, environment.StartThread([&] {
      absl::SleepFor(absl::Seconds(1));
      EXPECT_THAT(listener->Accept().status(), IsOk());
    }));
    EXPECT_THAT(environment.Connect("/s", kNever), IsOk());
    EXPECT_EQ(environment.TimeNow(), deadline + absl::Seconds(1));
    thread.reset();
    listener->RemovePath();
  });
}

TEST(SimulatedListener, ClosingCutsClientsInTheQueue) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto listener, environment.Listen({"/s"}));
    ASSERT_OK_AND_ASSIGN(auto stays, environment.Connect("/s", kNever));
    ASSERT_OK_AND_ASSIGN(auto leaves, environment.Connect("/s", kNever));
    leaves.reset();
    listener->RemovePath();
    listener.reset();
    EXPECT_THAT(ReceiveSome(*stays), FailsWith(reason::kConnectionLost));
  });
}

TEST(SimulatedListener, StoppingEndsEveryAcceptOfOneProcess) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto listener, environment.Listen({"/s"}));
    ForkOptions options;
    options.keep_open = listener->descriptors();
    ASSERT_OK_AND_ASSIGN(const auto child, environment.Fork(options, [&] {
      EXPECT_THAT(listener->Accept(), IsOk());
      return 0;
    }));
    ASSERT_OK_AND_ASSIGN(auto thread, environment.StartThread([&] {
      EXPECT_THAT(listener->Accept().status(),
                  FailsWith(reason::kServerStopping));
    }));
    absl::SleepFor(absl::Seconds(1));
    // Not by the one that has the name: then nobody else is there.
    ASSERT_OK_AND_ASSIGN(ListenerParts parts, listener->Share());
    parts.name.Reset();
    ASSERT_OK_AND_ASSIGN(
        auto sibling,
        environment.AdoptListener(std::move(parts), environment.UserId()));
    sibling->StopAccepting([](const std::unique_ptr<Transport>&) {
      ADD_FAILURE() << "others accept at it";
    });
    thread.reset();
    EXPECT_THAT(environment.Connect("/s", kNever), IsOk());
    EXPECT_THAT(ExitOf(*child), ExitedWith(0));
    EXPECT_THAT(environment.Connect("/s", kNever),
                FailsWith(reason::kServerUnreachable));
    listener->RemovePath();
  });
}

// As accept(2), which has the socket until it returns: whoever relies on
// Close() to wake it hangs.
TEST(SimulatedListener, ClosingEndsNoAccept) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto listener, environment.Listen({"/s"}));
    bool has_returned = false;
    ASSERT_OK_AND_ASSIGN(auto thread, environment.StartThread([&] {
      EXPECT_THAT(listener->Accept(), IsOk());
      has_returned = true;
    }));
    absl::SleepFor(absl::Seconds(1));
    listener->Close();
    absl::SleepFor(absl::Seconds(1));
    EXPECT_FALSE(has_returned);
    EXPECT_THAT(environment.Connect("/s", kNever), IsOk());
    thread.reset();
    EXPECT_THAT(environment.Connect("/s", kNever),
                FailsWith(reason::kServerUnreachable));
    listener->RemovePath();
  });
}

TEST(SimulatedListener, ListensUntilTheLastOfItsProcessesHasEnded) {
  Simulate([](SimulatedEnvironment& environment) {
    ASSERT_OK_AND_ASSIGN(auto listener, environment.Listen({"/s"}));
    ForkOptions options;
    options.keep_open = listener->descriptors();
    ASSERT_OK_AND_ASSIGN(const auto child, environment.Fork(options, [&] {
      Sleep();
      return 0;
    }));
    listener->Close();
    EXPECT_THAT(environment.Connect("/s", kNever), IsOk());
    EXPECT_THAT(child->Kill(SIGKILL), IsOk());
    EXPECT_THAT(environment.Connect("/s", kNever),
                FailsWith(reason::kServerUnreachable));
    EXPECT_THAT(ExitOf(*child), KilledBy(SIGKILL));
    listener->RemovePath();
  });
}

// --- servers ---

class EchoServer : public AbstractServer {
 public:
  explicit EchoServer(ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    DefineMessageHandler("echo",
                         [](MessageChannel& channel, std::string_view text) {
                           return channel.Write(text);
                         });
  }
  absl::Status Echo() {
    return Connect([](MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.Write("echo", "hello"));
      WARD_ASSIGN_OR_RETURN(const Message reply, channel.Read());
      return reply.size() == 1 && reply[0] == "hello"
                 ? absl::OkStatus()
                 : absl::InternalError("another reply");
    });
  }
};

TEST(SimulatedServer, RefusesAnotherUser) {
  Simulate([](SimulatedEnvironment& environment) {
    ServerOptions options;
    options.socket_filename = "/s";
    options.socket_mode = 0666;
    options.password = Secret("the right password");
    EchoServer server(std::move(options));
    ASSERT_THAT(server.Start(), IsOk());
    const auto ask_as = [&](uid_t user) {
      return ForkWithAll(environment, [&environment, &server, user] {
        environment.SetUser(user);
        const absl::Status status = server.Echo();
        if (status.ok()) return 0;
        return HasReason(status, reason::kPeerNotAllowed) ? 1 : 2;
      });
    };
    EXPECT_THAT(ExitOf(*ask_as(environment.UserId())), ExitedWith(0));
    EXPECT_THAT(ExitOf(*ask_as(environment.UserId() + 1)), ExitedWith(1));
    EXPECT_THAT(ExitOf(*ask_as(0)), ExitedWith(0)) << "root may";
    EXPECT_THAT(server.Stop(), IsOk());
  });
}

TEST(SimulatedServer, EndsWhenTheLastOfItsOwnersIsKilledAndNotBefore) {
  Simulate([](SimulatedEnvironment& environment) {
    pid_t server_pid = 0;
    std::unique_ptr<Process> second;
    const auto first = ForkWithAll(environment, [&] {
      auto* const server = new EchoServer;
      EXPECT_THAT(server->Start(), IsOk());
      server_pid = server->server_pid();
      second = ForkWithAll(environment, [server] {
        absl::SleepFor(absl::Seconds(20));
        EXPECT_THAT(server->Echo(), IsOk());
        Sleep();
        return 0;
      });
      Sleep();
      return 0;
    });
    absl::SleepFor(absl::Seconds(10));
    environment.Raise(first->pid(), SIGKILL);
    absl::SleepFor(absl::Seconds(50));
    EXPECT_TRUE(environment.IsAlive(server_pid));
    environment.Raise(second->pid(), SIGKILL);
    absl::SleepFor(absl::Seconds(50));
    EXPECT_FALSE(environment.IsAlive(server_pid));
    EXPECT_THAT(ExitOf(*first), KilledBy(SIGKILL));
  });
}

TEST(SimulatedServer, SeveralLiveSideBySide) {
  Simulate([](SimulatedEnvironment&) {
    std::vector<std::unique_ptr<EchoServer>> servers;
    for (int i = 0; i < 6; ++i) {
      servers.push_back(std::make_unique<EchoServer>());
      ASSERT_THAT(servers.back()->Start(), IsOk());
    }
    for (const auto& server : servers) EXPECT_THAT(server->Echo(), IsOk());
    for (const auto& server : servers) EXPECT_THAT(server->Stop(), IsOk());
  });
}

// --- what is left ---

TEST(Leftovers, NameEachKindOfThingThatIsLeft) {
  ReplayStrategy dull({});
  Simulation simulation(dull, {});
  SimulatedEnvironment& environment = simulation.environment();
  EXPECT_THAT(environment.Leftovers(), IsEmpty());
  ASSERT_OK_AND_ASSIGN(auto listener, environment.Listen({"/s"}));
  ASSERT_OK_AND_ASSIGN(auto client, environment.Connect("/s", kNever));
  ASSERT_OK_AND_ASSIGN(auto accepted, listener->Accept());
  ASSERT_OK_AND_ASSIGN(auto pair, environment.CreateTransportPair());
  ASSERT_OK_AND_ASSIGN(auto running, ForkSleeper(environment));
  ASSERT_OK_AND_ASSIGN(auto zombie, environment.Fork({}, [] { return 3; }));
  ASSERT_OK_AND_ASSIGN(auto signals, environment.TakeSignals({}));
  ASSERT_OK_AND_ASSIGN(auto thread, environment.StartThread([] {
    absl::SleepFor(absl::Seconds(1));
  }));
  simulation.scheduler().WaitUntilIdle();
  EXPECT_THAT(
      environment.Leftovers(),
      UnorderedElementsAre(
          "a connection is still open: connected to /s",
          "a connection is still open: accepted at /s",
          "a connection is still open: one of a pair",
          "a connection is still open: one of a pair",
          "a listener is still open: /s", "a socket's name is left: /s",
          "process 2 (server) is still running: main (sleeping)",
          "process 3 (server) was not waited for: it exited with code 3",
          "a thread is still running: a thread of StartThread (sleeping)",
          "the test's signals were not given back"));
  thread.reset();
  signals.reset();
  EXPECT_THAT(ExitOf(*zombie), ExitedWith(3));
  EXPECT_THAT(running->Kill(SIGKILL), IsOk());
  EXPECT_THAT(ExitOf(*running), KilledBy(SIGKILL));
  pair = {};
  accepted = {};
  client.reset();
  listener->RemovePath();
  listener.reset();
  EXPECT_THAT(environment.Leftovers(), IsEmpty());
}

// --- faults and deaths ---

TEST(SimulationFaults, EveryCallFailsInTime) {
  std::set<std::string> failed;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    RandomStrategy strategy(seed);
    SimulationOptions options;
    options.faults.faults = true;
    Simulation simulation(strategy, options);
    SimulatedEnvironment& environment = simulation.environment();
    const auto note = [&](std::string_view call, const absl::Status& status) {
      if (!status.ok()) failed.insert(std::string(call));
      return status.ok();
    };
    note("thread", environment.StartThread([] {}).status());
    if (const auto child = environment.Fork({}, [] { return 0; });
        note("fork", child.status())) {
      EXPECT_THAT(ExitOf(**child), ExitedWith(0));
    }
    if (auto ends = environment.CreateTransportPair();
        note("pair", ends.status())) {
      const auto sent = ends->first->Send("hello", {}, kNever);
      if (note("send", sent.status())) {
        if (*sent == 0) failed.insert("send interrupted");
        if (*sent > 0 && *sent < 5) failed.insert("send cut short");
        if (*sent > 0) note("receive", ReceiveSome(*ends->second).status());
      }
    }
    const auto listener = environment.Listen({"/s"});
    if (!note("listen", listener.status())) continue;
    const auto client = environment.Connect("/s", kNever);
    if (note("connect", client.status())) {
      const auto accepted = (*listener)->Accept();
      if (note("accept", accepted.status()) && accepted->on_reserve) {
        failed.insert("on reserve");
      }
    }
  }
  EXPECT_THAT(failed, UnorderedElementsAre("thread", "fork", "pair", "send",
                                           "send interrupted", "send cut short",
                                           "receive", "listen", "connect",
                                           "accept", "on reserve"));
}

TEST(SimulationFaults, DeathsTakeAnyProcessButTheTests) {
  int killed = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    RandomStrategy strategy(seed);
    SimulationOptions options;
    options.faults.deaths = true;
    Simulation simulation(strategy, options);
    SimulatedEnvironment& environment = simulation.environment();
    for (int i = 0; i < 50; ++i) {
      EXPECT_THAT(environment.Connect("/s", kNever),
                  FailsWith(reason::kServerUnreachable));
    }
    ASSERT_OK_AND_ASSIGN(const auto child, environment.Fork({}, [&] {
      for (int i = 0; i < 10; ++i) {
        (void)environment.Connect("/s", kNever);
      }
      return 0;
    }));
    killed += ExitOf(*child).kind == ProcessExit::Kind::kSignaled ? 1 : 0;
  }
  EXPECT_GT(killed, 5);
  EXPECT_LT(killed, 60);
}

}  // namespace
}  // namespace ward::testing

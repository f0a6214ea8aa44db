// Servers that a zygote makes: what only real processes show. What such a
// server does for its clients is what one that was started by exec does.

#include "ward/server/zygote.h"

#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/environment.h"
#include "ward/server/exec_main.h"
#include "ward/server/posix/deny_for_test.h"
#include "ward/server/process.h"
#include "ward/server/server_for_test.h"
#include "ward/server/server_options.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using ::testing::AllOf;
using testing::EnvironmentNumber;
using ::testing::HasSubstr;

// In the environment of a program that ends, starts a thread, or takes its
// descriptors from itself, before its servers' processes begin.
constexpr char kEndAtOnce[] = "WARD_TEST_END_AT_ONCE";
constexpr char kStartThread[] = "WARD_TEST_START_THREAD";
constexpr char kHaveFewDescriptors[] = "WARD_TEST_HAVE_FEW_DESCRIPTORS";

// For what is not there.
constexpr int kSkipped = 77;

// Whether the C library knows this thread's number, and the kernel its list of
// mutexes: neither is so in a mere copy of another process.
bool IsAThreadOfItsOwn() {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
  pthread_mutex_t mutex;
  pthread_mutex_init(&mutex, &attributes);
  pthread_mutex_lock(&mutex);
  const bool owns = mutex.__data.__owner == gettid();
  pthread_mutex_unlock(&mutex);
  pthread_mutex_destroy(&mutex);
  void* list = nullptr;
  size_t size = 0;
  syscall(SYS_get_robust_list, 0, &list, &size);
  return owns && list != nullptr;
}

// Its argument is what it does in InitializeServer, or when it should quit.
struct Server : Registered<Server> {
  using Registered::Registered;

  bool Has(std::string_view argument) const {
    return !options().arguments.empty() && options().arguments[0] == argument;
  }
  absl::Status InitializeServer() override {
    if (!IsAThreadOfItsOwn()) return absl::InternalError("a mere copy");
    if (Has("fail")) return MakeError(reason::kPathTaken, "taken already");
    if (Has("exit")) _exit(42);
    if (Has("print")) std::cout << "printed by the server";
    if (Has("hang")) std::cout << "hangs" << std::flush;
    while (Has("hang")) pause();
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override {
    while (Has("never quit")) pause();
    return absl::OkStatus();
  }
};

std::shared_ptr<Zygote> StartZygote() {
  absl::StatusOr<std::shared_ptr<Zygote>> zygote =
      Environment::Default().StartZygote();
  EXPECT_THAT(zygote, IsOk());
  return *std::move(zygote);
}

ServerOptions By(const std::shared_ptr<Zygote>& zygote,
                 std::vector<std::string> arguments = {}) {
  ServerOptions options;
  options.start_mode = StartMode::kZygote;
  options.zygote = zygote;
  options.arguments = std::move(arguments);
  return options;
}

absl::Status StartCallStop(const std::shared_ptr<Zygote>& zygote) {
  Server server(By(zygote));
  WARD_RETURN_IF_ERROR(server.Start());
  WARD_ASSIGN_OR_RETURN(const std::string reply, Call(server, "echo", "x"));
  if (reply != "x") return absl::InternalError("another reply");
  return server.Stop();
}

// What the kernel says of `process` at `key`.
std::string StatusOf(pid_t process, std::string_view key) {
  std::ifstream file(absl::StrCat("/proc/", process, "/status"));
  for (std::string line; std::getline(file, line);) {
    const std::pair<std::string, std::string> entry =
        absl::StrSplit(line, absl::MaxSplits(":\t", 1));
    if (entry.first == key) return entry.second;
  }
  return "";
}

// Those of a process that are open to another one, too.
std::vector<std::string> SocketsOf(pid_t process) {
  std::vector<std::string> sockets;
  for (const auto& [fd, target] : DescriptorsOf(process)) {
    if (fd > STDERR_FILENO && absl::StartsWith(target, "socket:")) {
      sockets.push_back(target);
    }
  }
  return sockets;
}

class ZygoteTest : public NothingLeftTest {
 protected:
  void SetUp() override {
    if (kUnderThreadSanitizer) GTEST_SKIP() << "there are no zygotes";
  }
};

// Where there are none, too.
class EveryZygoteTest : public NothingLeftTest {};

TEST_F(EveryZygoteTest, AProgramWithThreadsStartsServersFromAnyOfThem) {
  const std::shared_ptr<Zygote> zygote = StartZygote();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&zygote] {
      for (int start = 0; start < 5; ++start) {
        EXPECT_THAT(StartCallStop(zygote), IsOk());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(EveryZygoteTest, WhatGoesWrongInTheServerComesOutOfStart) {
  const std::shared_ptr<Zygote> zygote = StartZygote();
  Server fails(By(zygote, {"fail"}));
  EXPECT_THAT(fails.Start(), FailsWith(reason::kPathTaken, "taken already"));
  Server exits(By(zygote, {"exit"}));
  EXPECT_THAT(exits.Start(), FailsWith(reason::kServerDied, "code 42"));
  EXPECT_FALSE(exits.started());
  EXPECT_THAT(StartCallStop(zygote), IsOk());
}

TEST_F(EveryZygoteTest, HowAServerEndedIsKnown) {
  const std::shared_ptr<Zygote> zygote = StartZygote();
  Server killed(By(zygote));
  ASSERT_THAT(killed.Start(), IsOk());
  const FileDescriptor pidfd = OpenPidfd(killed.server_pid());
  kill(killed.server_pid(), SIGKILL);
  EXPECT_TRUE(BecomesReadable(pidfd.get()));
  EXPECT_THAT(Call(killed, "echo", "x"),
              FailsWith(reason::kServerDied, "signal 9"));
  EXPECT_THAT(killed.Stop(), FailsWith(reason::kServerDied, "signal 9"));

  ServerOptions options = By(zygote, {"never quit"});
  options.stop.kill_after = absl::Milliseconds(10);
  Server hangs(std::move(options));
  ASSERT_THAT(hangs.Start(), IsOk());
  EXPECT_THAT(hangs.Stop(), FailsWith(reason::kServerKilled));
}

TEST_F(EveryZygoteTest, WhatCannotBeStartedIsRefused) {
  Server without(By(nullptr));
  EXPECT_THAT(std::string(without.Start().message()),
              HasSubstr("Environment::StartZygote()"));
  struct Unregistered : TestServer {
    using TestServer::TestServer;
  };
  const std::shared_ptr<Zygote> zygote = StartZygote();
  Unregistered unregistered(By(zygote));
  EXPECT_THAT(std::string(unregistered.Start().message()),
              HasSubstr("WARD_REGISTER_SERVER"));
}

TEST_F(ZygoteTest, ItsServersAreThisProcessesChildrenAndTheirObjectsKeepIt) {
  std::shared_ptr<Zygote> zygote = StartZygote();
  const pid_t pid = zygote->pid();
  const FileDescriptor pidfd = OpenPidfd(pid);
  auto first = std::make_unique<Server>(By(zygote));
  auto second = std::make_unique<Server>(By(zygote));
  Server& one = *first;
  Server& other = *second;
  ASSERT_THAT(one.Start(), IsOk());
  ASSERT_THAT(other.Start(), IsOk());
  EXPECT_EQ(zygote->pid(), pid);
  for (Server* const server : {&one, &other}) {
    EXPECT_EQ(StatusOf(server->server_pid(), "PPid"), absl::StrCat(getpid()));
    EXPECT_NE(server->server_pid(), pid);
  }
  EXPECT_THAT(one.Stop(), IsOk());
  EXPECT_THAT(Call(other, "echo", "x"), IsOkAndHolds("x"));
  zygote.reset();
  first.reset();
  const auto owners = other.Owners();
  ASSERT_THAT(owners, IsOk());
  ASSERT_EQ(owners->size(), 1u);
  EXPECT_EQ((*owners)[0].pid, getpid());
  EXPECT_THAT(other.Stop(), IsOk());
  EXPECT_THAT(other.Start(), IsOk());
  EXPECT_THAT(other.Stop(), IsOk());
  EXPECT_FALSE(BecomesReadable(pidfd.get(), absl::ZeroDuration()));
  second.reset();
  EXPECT_TRUE(BecomesReadable(pidfd.get(), absl::ZeroDuration()));
}

// A process closes what it has passed on, or looked at, a moment after others
// have heard of that.
bool HasSoon(pid_t process, size_t descriptors) {
  const absl::Time end = absl::Now() + kSurely;
  while (DescriptorsOf(process).size() != descriptors) {
    if (absl::Now() >= end) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

TEST_F(ZygoteTest, NobodyHasWhatIsAnothers) {
  const size_t before = DescriptorsOf(getpid()).size();
  {
    // Not close-on-exec, as careless code leaves it.
    const FileDescriptor careless(dup(MakePipe().read.get()));
    const std::shared_ptr<Zygote> zygote = StartZygote();
    // So that it has come to where it waits.
    ASSERT_THAT(StartCallStop(zygote), IsOk());
    Server one(By(zygote));
    Server other(By(zygote));
    ASSERT_THAT(one.Start(), IsOk());
    ASSERT_THAT(other.Start(), IsOk());
    // What it has passed on it closes when the server begins.
    EXPECT_TRUE(HasSoon(zygote->pid(), 5));
    const std::map<int, std::string> zygotes = DescriptorsOf(zygote->pid());
    for (const int fd : {0, 1, 2}) EXPECT_EQ(zygotes.at(fd), "/dev/null");
    std::map<std::string, int> had;
    for (const pid_t process :
         {getpid(), zygote->pid(), one.server_pid(), other.server_pid()}) {
      for (const std::string& socket : SocketsOf(process)) ++had[socket];
    }
    for (const auto& [socket, processes] : had) EXPECT_EQ(processes, 1);
    ServerOptions options;
    options.start_mode = StartMode::kExec;
    Server by_exec(std::move(options));
    ASSERT_THAT(by_exec.Start(), IsOk());
    EXPECT_TRUE(
        HasSoon(by_exec.server_pid(), DescriptorsOf(one.server_pid()).size()));
    for (const char* const key :
         {"SigBlk", "SigIgn", "SigCgt", "ShdPnd", "Threads"}) {
      EXPECT_EQ(StatusOf(one.server_pid(), key),
                StatusOf(by_exec.server_pid(), key))
          << key;
    }
    EXPECT_THAT(by_exec.Stop(), IsOk());
    EXPECT_THAT(one.Stop(), IsOk());
    EXPECT_THAT(other.Stop(), IsOk());
  }
  EXPECT_EQ(DescriptorsOf(getpid()).size(), before);
}

TEST_F(ZygoteTest, AServerHasTheStandardDescriptorsOfItsStart) {
  const std::string file = directory() + "/out";
  Child owner([&file] {
    const std::shared_ptr<Zygote> zygote = StartZygote();
    if (!StartCallStop(zygote).ok()) return 1;
    const FileDescriptor out(
        open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    dup2(out.get(), STDOUT_FILENO);
    close(STDIN_FILENO);
    Server server(By(zygote, {"print"}));
    if (!server.Start().ok()) return 2;
    const std::map<int, std::string> its = DescriptorsOf(server.server_pid());
    if (its.at(STDIN_FILENO) != "/dev/null") return 3;
    if (its.at(STDOUT_FILENO) != file) return 4;
    if (its.at(STDERR_FILENO) != DescriptorsOf(getpid()).at(STDERR_FILENO)) {
      return 5;
    }
    return server.Stop().ok() ? 0 : 6;
  });
  EXPECT_EQ(owner.Wait(), 0);
  std::ifstream in(file);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}),
            "printed by the server");
  unlink(file.c_str());
}

TEST_F(ZygoteTest, AServerIsInTheProcessGroupThatWasAskedFor) {
  const std::shared_ptr<Zygote> zygote = StartZygote();
  for (const ProcessGroup group :
       {ProcessGroup::kOwn, ProcessGroup::kParents}) {
    ServerOptions options = By(zygote);
    options.launch.process_group = group;
    Server server(std::move(options));
    ASSERT_THAT(server.Start(), IsOk());
    EXPECT_EQ(getpgid(server.server_pid()),
              group == ProcessGroup::kOwn ? server.server_pid() : getpgrp());
    EXPECT_THAT(server.Stop(), IsOk());
  }
  // What is typed, or sent to the program's group, is not for it.
  EXPECT_EQ(getpgid(zygote->pid()), zygote->pid());
}

TEST_F(ZygoteTest, ServersAndZygoteAreGoneWithTheirOwner) {
  Pipe report = MakePipe();
  Pipe out = MakePipe();
  Child owner([&] {
    dup2(out.write.get(), STDOUT_FILENO);
    const std::shared_ptr<Zygote> zygote = StartZygote();
    Server serves(By(zygote));
    Server hangs(By(zygote, {"hang"}));
    if (!serves.Start().ok() || !hangs.BeginStart().ok()) return 1;
    WriteAll(report.write.get(),
             absl::StrCat(zygote->pid(), " ", serves.server_pid(), " ",
                          hangs.server_pid()));
    while (true) pause();
  });
  report.write.Reset();
  out.write.Reset();
  std::vector<pid_t> pids;
  std::vector<FileDescriptor> pidfds;
  for (const std::string_view text :
       absl::StrSplit(ReadSome(report.read.get()), ' ')) {
    ASSERT_TRUE(absl::SimpleAtoi(text, &pids.emplace_back()));
    pidfds.push_back(OpenPidfd(pids.back()));
  }
  ASSERT_EQ(pids.size(), 3u);
  // From here on it leaves no name, either.
  ASSERT_EQ(ReadSome(out.read.get()), "hangs");
  const Stopwatch watch;
  owner.Kill();
  for (const FileDescriptor& pidfd : pidfds) {
    EXPECT_TRUE(BecomesReadable(pidfd.get()));
  }
  std::cout << "gone after " << watch.Elapsed() << "\n";
  EXPECT_EQ(owner.Wait(), -SIGKILL);
  EXPECT_EQ(Reap(pids[0]), -SIGKILL);
  EXPECT_EQ(Reap(pids[1]), 0);
  EXPECT_EQ(Reap(pids[2]), -SIGKILL);
}

TEST_F(ZygoteTest, OneThatWasKilledIsReplacedAndItsServersLiveOn) {
  const std::shared_ptr<Zygote> zygote = StartZygote();
  Server server(By(zygote));
  ASSERT_THAT(server.Start(), IsOk());
  const pid_t first = zygote->pid();
  kill(first, SIGKILL);
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(StartCallStop(zygote), IsOk());
  EXPECT_NE(zygote->pid(), first);
  EXPECT_THAT(server.Stop(), IsOk());
  // One that is stopped ends with its object all the same.
  kill(zygote->pid(), SIGSTOP);
}

// Whenever it is killed, the start succeeds, and no process is left of which
// nobody knows. With --test_env=WARD_RUNS=1000 a thousand times.
TEST_F(ZygoteTest, OneThatIsKilledMeanwhileLeavesNothing) {
  const auto runs = static_cast<int>(EnvironmentNumber("WARD_RUNS", 15));
  const std::shared_ptr<Zygote> zygote = StartZygote();
  for (int i = 0; i < runs && !HasFailure(); ++i) {
    ASSERT_THAT(StartCallStop(zygote), IsOk());
    const pid_t pid = zygote->pid();
    std::atomic<bool> begun{false};
    std::thread killer([&begun, pid, i] {
      while (!begun) {
      }
      for (volatile int spin = 0; spin < i % 30 * 20000; spin = spin + 1) {
      }
      kill(pid, SIGKILL);
    });
    begun = true;
    EXPECT_THAT(StartCallStop(zygote), IsOk());
    killer.join();
  }
}

TEST_F(ZygoteTest, OneThatAlwaysDiesIsReported) {
  setenv(kEndAtOnce, "1", 1);
  EXPECT_THAT(StartCallStop(StartZygote()),
              FailsWith(reason::kServerDied,
                        "exited with code 3, as did another before"));
  unsetenv(kEndAtOnce);
}

// What is tied to an owner that is gone dies before it can say a word. It is
// this process's child all the same.
TEST_F(ZygoteTest, AProcessThatDiesBeforeItsFirstWordIsKnown) {
  Environment& environment = Environment::Default();
  const std::shared_ptr<Zygote> zygote = StartZygote();
  for (int i = 0; i < 10; ++i) {
    auto hand_over = environment.CreateTransportPair();
    auto owner = environment.CreateTransportPair();
    ASSERT_THAT(hand_over, IsOk());
    ASSERT_THAT(owner, IsOk());
    owner->first.reset();
    const auto process = zygote->Fork(
        "ward.zygote", {std::move(hand_over->second), std::move(owner->second)},
        ProcessGroup::kOwn, environment.TimeNow() + kSurely);
    ASSERT_THAT(process, IsOk());
    const auto exit = (*process)->Wait(environment.TimeNow() + kSurely);
    ASSERT_THAT(exit, IsOk());
    EXPECT_THAT(exit->ToString(), HasSubstr("signal 9"));
  }
}

TEST_F(ZygoteTest, OneThatIsStoppedIsWaitedForAsLongAsAServer) {
  const std::shared_ptr<Zygote> zygote = StartZygote();
  ASSERT_THAT(StartCallStop(zygote), IsOk());
  const pid_t pid = zygote->pid();
  const FileDescriptor pidfd = OpenPidfd(pid);
  for (const bool in_halves : {false, true}) {
    kill(zygote->pid(), SIGSTOP);
    ServerOptions options = By(zygote);
    options.launch.start_timeout = absl::Milliseconds(50);
    Server server(std::move(options));
    const Stopwatch watch;
    EXPECT_THAT(in_halves ? server.BeginStart() : server.Start(),
                FailsWith(reason::kTimedOut, "SIGSTOP"));
    EXPECT_GE(watch.Elapsed(), absl::Milliseconds(50));
    EXPECT_FALSE(server.started());
    EXPECT_TRUE(BecomesReadable(pidfd.get()));
    EXPECT_THAT(StartCallStop(zygote), IsOk());
    EXPECT_NE(zygote->pid(), pid);
  }
}

// It may be on its way, however long that is. The servers that nobody has
// waited for are nobody's.
TEST_F(ZygoteTest, OneThatHasNotAnsweredYetStays) {
  const std::shared_ptr<Zygote> zygote = StartZygote();
  const pid_t pid = zygote->pid();
  kill(pid, SIGSTOP);
  for (int i = 0; i < 3; ++i) {
    ServerOptions options = By(zygote);
    options.launch.start_timeout = absl::Milliseconds(10);
    Server server(std::move(options));
    EXPECT_THAT(server.Start(),
                FailsWith(reason::kTimedOut, "LaunchOptions::start_timeout"));
  }
  kill(pid, SIGCONT);
  EXPECT_THAT(StartCallStop(zygote), IsOk());
  EXPECT_EQ(zygote->pid(), pid);
}

TEST_F(ZygoteTest, OneWithThreadsMakesNoServers) {
  setenv(kStartThread, "1", 1);
  const std::shared_ptr<Zygote> zygote = StartZygote();
  EXPECT_THAT(StartCallStop(zygote),
              FailsWith(reason::kForkWithThreads,
                        absl::StrCat("the zygote (pid ", zygote->pid(),
                                     "), before ward::ServeIfExeced")));
  unsetenv(kStartThread);
}

TEST_F(ZygoteTest, OneThatCannotTakeARequestSaysWhy) {
  setenv(kHaveFewDescriptors, "1", 1);
  EXPECT_THAT(StartCallStop(StartZygote()).ToString(),
              AllOf(HasSubstr("exited with code 1 ("), HasSubstr("descriptor"),
                    HasSubstr("as did another before")));
  unsetenv(kHaveFewDescriptors);
}

TEST_F(ZygoteTest, AServerHasTheUmaskOfItsStart) {
  const std::shared_ptr<Zygote> zygote = StartZygote();
  const pid_t pid = zygote->pid();
  const mode_t found = umask(0);
  for (const mode_t mask : {mode_t{0000}, mode_t{0027}, mode_t{0777}}) {
    umask(mask);
    Server server(By(zygote));
    EXPECT_THAT(server.Start(), IsOk());
    EXPECT_EQ(StatusOf(server.server_pid(), "Umask"),
              StatusOf(getpid(), "Umask"));
    EXPECT_THAT(server.Stop(), IsOk());
  }
  umask(found);
  EXPECT_EQ(zygote->pid(), pid);
}

TEST_F(ZygoteTest, IsSmallHoweverLargeItsOwnerIs) {
  if (kUnderSanitizer) GTEST_SKIP() << "all programs are large";
  constexpr size_t kSize = size_t{100} << 20;
  const std::vector<char> memory(kSize, 'x');
  const std::shared_ptr<Zygote> zygote = StartZygote();
  ASSERT_THAT(StartCallStop(zygote), IsOk());
  int kilobytes = 0;
  const std::string text = StatusOf(zygote->pid(), "VmRSS");
  ASSERT_TRUE(absl::SimpleAtoi(
      absl::StripSuffix(absl::StripLeadingAsciiWhitespace(text), " kB"),
      &kilobytes))
      << text;
  EXPECT_LT(kilobytes, static_cast<int>(kSize >> 10) / 2);
}

// Whoever is no longer what the zygote was started by gets another one.
TEST_F(ZygoteTest, AForkOrAnotherSessionHasAZygoteOfItsOwn) {
  std::shared_ptr<Zygote> zygote = StartZygote();
  const pid_t first = zygote->pid();
  Child fork([&zygote, first] {
    if (!StartCallStop(zygote).ok()) return 1;
    const pid_t own = zygote->pid();
    if (own == first || StatusOf(own, "PPid") != absl::StrCat(getpid())) {
      return 2;
    }
    if (setsid() < 0) return 3;
    if (!StartCallStop(zygote).ok()) return 4;
    const pid_t other = zygote->pid();
    if (other == own || getsid(other) != getsid(0)) return 5;
    zygote.reset();
    return 0;
  });
  EXPECT_EQ(fork.Wait(), 0);
  EXPECT_THAT(StartCallStop(zygote), IsOk());
  EXPECT_EQ(zygote->pid(), first);
}

// One that was started with more rights than the program has left is not asked,
// and ends though the program may not kill it.
TEST_F(ZygoteTest, AProgramThatHasChangedItsUserHasAnotherZygote) {
  constexpr uid_t kStranger = 65534;
  const auto become_stranger = [] {
    return setresuid(kStranger, kStranger, kStranger) == 0;
  };
  Child probe([&become_stranger] {
    if (!become_stranger()) return kSkipped;
    ServerOptions options;
    options.start_mode = StartMode::kExec;
    Server server(std::move(options));
    return server.Start().ok() && server.Stop().ok() ? 0 : kSkipped;
  });
  if (probe.Wait() == kSkipped) {
    GTEST_SKIP() << "only root may become another user; or there is none "
                    "here, or he may not run this program";
  }
  Child owner([&become_stranger] {
    const std::shared_ptr<Zygote> zygote = StartZygote();
    const pid_t first = zygote->pid();
    const FileDescriptor pidfd = OpenPidfd(first);
    if (!become_stranger()) return 1;
    if (!StartCallStop(zygote).ok()) return 2;
    if (zygote->pid() == first) return 3;
    return BecomesReadable(pidfd.get()) ? 0 : 4;
  });
  EXPECT_EQ(owner.Wait(), 0);
}

TEST_F(ZygoteTest, AProgramThatHasChangedItsGroupsHasAnotherZygote) {
  Child owner([] {
    const std::shared_ptr<Zygote> zygote = StartZygote();
    const pid_t first = zygote->pid();
    const gid_t groups[] = {12345};
    if (setgroups(1, groups) != 0) return kSkipped;
    Server server(By(zygote));
    if (!server.Start().ok()) return 1;
    if (zygote->pid() == first) return 2;
    if (StatusOf(server.server_pid(), "Groups") !=
        StatusOf(getpid(), "Groups")) {
      return 3;
    }
    return server.Stop().ok() ? 0 : 4;
  });
  const int code = owner.Wait();
  if (code == kSkipped) GTEST_SKIP() << "this user may not change his groups";
  EXPECT_EQ(code, 0);
}

// Who has its owner's ends and sends what is no request ends it, and nothing
// else.
TEST_F(ZygoteTest, WhatIsNoRequestEndsIt) {
  const std::map<int, std::string> before = DescriptorsOf(getpid());
  const std::shared_ptr<Zygote> zygote = StartZygote();
  const auto garbage = [](FileDescriptor end) {
    WriteAll(end.get(), "\x05garbage");
    end.Reset();
  };
  const auto too_little = [](FileDescriptor end) {
    EXPECT_THAT(MessageChannel(std::move(end)).Write("ward.zygote", 0), IsOk());
  };
  const auto no_sockets = [](FileDescriptor end) {
    const FileDescriptor file = MakePipe().read;
    EXPECT_THAT(
        MessageChannel(std::move(end))
            .Write("ward.zygote", 0, file, file, file, file, file, file),
        IsOk());
  };
  const std::vector<void (*)(FileDescriptor)> sends = {garbage, too_little,
                                                       no_sockets};
  for (const auto& send : sends) {
    // Those that requests go by, and what it is tied to.
    for (const size_t end : {0, 1}) {
      ASSERT_THAT(StartCallStop(zygote), IsOk());
      std::vector<int> ends;
      for (const auto& [fd, target] : DescriptorsOf(getpid())) {
        if (before.count(fd) == 0 && absl::StartsWith(target, "socket:")) {
          ends.push_back(fd);
        }
      }
      ASSERT_EQ(ends.size(), 2u);
      const FileDescriptor pidfd = OpenPidfd(zygote->pid());
      send(FileDescriptor(dup(ends[end])));
      EXPECT_TRUE(BecomesReadable(pidfd.get()));
    }
  }
  EXPECT_THAT(StartCallStop(zygote), IsOk());
}

TEST_F(ZygoteTest, ADeniedCallIsNamed) {
  struct Denied {
    long call;
    std::string_view name;
  };
  for (const Denied& denied : {Denied{SYS_prctl, "PR_GET_TID_ADDRESS"}
#ifdef SYS_vfork  // Elsewhere it is clone(2), too.
                               ,
                               Denied{SYS_clone, "clone, CLONE_PARENT"}
#endif
       }) {
    Pipe report = MakePipe();
    Child owner([&] {
      DenyCalls({denied.call}, EPERM);
      WriteAll(report.write.get(), StartCallStop(StartZygote()).ToString());
      return 0;
    });
    report.write.Reset();
    EXPECT_THAT(ReadToEnd(report.read.get()),
                AllOf(HasSubstr(std::string(denied.name)),
                      HasSubstr("FAILED_PRECONDITION"),
                      HasSubstr("by fork or by exec")));
    EXPECT_EQ(owner.Wait(), 0);
  }
}

// Makes what is forked from now on a part of another pid namespace.
bool UnsharePids() {
  return unshare(geteuid() == 0 ? CLONE_NEWPID
                                : CLONE_NEWPID | CLONE_NEWUSER) == 0;
}

// Its numbers are not its owner's, whether it is the init there or another has
// come before.
TEST_F(ZygoteTest, OneInAnotherPidNamespaceMakesNoServers) {
  for (const bool is_init : {true, false}) {
    Pipe report = MakePipe();
    Child owner([&] {
      if (!UnsharePids()) return kSkipped;
      const auto wait = [] {
        while (true) pause();
        return 0;
      };
      std::optional<Child> init;
      if (!is_init) init.emplace(wait);
      WriteAll(report.write.get(), StartCallStop(StartZygote()).ToString());
      return 0;
    });
    report.write.Reset();
    const std::string text = ReadToEnd(report.read.get());
    const int code = owner.Wait();
    if (code == kSkipped) {
      GTEST_SKIP() << "this machine gives no pid namespace to this user";
    }
    EXPECT_EQ(code, 0);
    EXPECT_THAT(text, AllOf(HasSubstr("FAILED_PRECONDITION"),
                            HasSubstr("in another pid namespace")));
  }
}

// Two inits have the same number, session and user.
TEST_F(ZygoteTest, AForkThatLooksLikeItsParentHasAZygoteOfItsOwn) {
  const auto fork_of_number_1 = [] {
    std::shared_ptr<Zygote> zygote = StartZygote();
    if (!StartCallStop(zygote).ok()) return 1;
    const FileDescriptor pidfd = OpenPidfd(zygote->pid());
    if (!UnsharePids()) return kSkipped;
    Child twin([&zygote] {
      if (getpid() != 1 || setsid() != 1) return 2;
      if (!StartCallStop(zygote).ok()) return 3;
      zygote.reset();
      return 0;
    });
    if (const int code = twin.Wait(); code != 0) return code;
    return BecomesReadable(pidfd.get(), absl::ZeroDuration()) ? 4 : 0;
  };
  Child outside([&fork_of_number_1] {
    if (!UnsharePids()) return kSkipped;
    Child first([&fork_of_number_1] {
      if (getpid() != 1 || setsid() != 1) return 5;
      return fork_of_number_1();
    });
    return first.Wait();
  });
  const int code = outside.Wait();
  if (code == kSkipped) {
    GTEST_SKIP() << "this machine gives no pid namespace to this user";
  }
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace ward

int main(int argc, char** argv) {
  const bool is_server =
      argc == 2 && std::string_view(argv[1]).substr(0, 7) == "--ward-";
  if (is_server && std::getenv(ward::kEndAtOnce) != nullptr) return 3;
  if (is_server && std::getenv(ward::kStartThread) != nullptr) {
    std::thread([] { pause(); }).detach();
  }
  if (is_server && std::getenv(ward::kHaveFewDescriptors) != nullptr) {
    // Its own five, and fewer than come with a request.
    const rlimit few = {8, 8};
    setrlimit(RLIMIT_NOFILE, &few);
  }
  ward::ServeIfExeced(argc, argv);
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}

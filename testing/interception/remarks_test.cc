// What asks the world, and what is not in the schedule: it works, and is said
// once, by name and place.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/testing/explore.h"

namespace ward::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;

int Count(std::string_view text, std::string_view part) {
  int count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string_view::npos;
       ++at) {
    ++count;
  }
  return count;
}

// Neither inlined nor tail calls, so that the stacks name them.
[[gnu::noinline]] int ResolveLocalhost() {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo("localhost", "80", &hints, &found);
  if (error == 0) freeaddrinfo(found);
  return error;
}

[[gnu::noinline]] std::string OutputOf(const char* command) {
  FILE* const pipe = popen(command, "re");
  std::array<char, 100> line{};
  while (std::fgets(line.data(), line.size(), pipe) != nullptr) {
  }
  return absl::StrCat(line.data(), WEXITSTATUS(pclose(pipe)));
}

[[gnu::noinline]] int Spawn(const char* command) {
  std::string shell = "sh";
  std::string option = "-c";
  std::string text = command;
  char* const arguments[] = {shell.data(), option.data(), text.data(), nullptr};
  pid_t child = 0;
  EXPECT_EQ(posix_spawnp(&child, "sh", nullptr, nullptr, arguments, environ),
            0);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WEXITSTATUS(status);
}

// Sends nothing: where it would go is asked for.
[[gnu::noinline]] int ConnectTo(const char* address) {
  const FileDescriptor socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(9);
  inet_pton(AF_INET, address, &to.sin_addr);
  return connect(socket.get(), reinterpret_cast<const sockaddr*>(&to),
                 sizeof(to));
}

TEST(Remarks, SayOnceWhatAsksTheWorld) {
  const Exploration found = FindFailure({.runs = 20}, [] {
    std::thread other([] { EXPECT_EQ(ResolveLocalhost(), 0); });
    EXPECT_EQ(ResolveLocalhost(), 0);
    EXPECT_EQ(OutputOf("echo hi"), "hi\n0");
    EXPECT_EQ(Spawn("exit 7"), 7);
    EXPECT_EQ(WEXITSTATUS(std::system("exit 3")), 3);
    (void)ConnectTo("192.0.2.1");
    EXPECT_EQ(ConnectTo("127.0.0.1"), 0);
    other.join();
  });
  ASSERT_FALSE(found.failure.has_value()) << found.failure->what;
  EXPECT_EQ(found.runs, 20u);
  for (const char* const call :
       {"getaddrinfo", "popen", "posix_spawnp", "system", "connect"}) {
    EXPECT_EQ(Count(found.remarks,
                    absl::StrCat("This run called ", call,
                                 ", which asks the world: a replay may "
                                 "differ.")),
              1)
        << call << "\n"
        << found.remarks;
  }
  for (const char* const place :
       {"ResolveLocalhost", "OutputOf", "Spawn", "ConnectTo"}) {
    EXPECT_THAT(found.remarks, HasSubstr(place));
  }
}

TEST(Remarks, AreMadeOfNothingElse) {
  const Exploration found = FindFailure({.runs = 20}, [] {
    std::thread other([] {});
    EXPECT_EQ(ConnectTo("127.0.0.1"), 0);
    other.join();
  });
  EXPECT_THAT(found.remarks, IsEmpty());
}

// A second more than is waited for otherwise.
TEST(Remarks, TheWorldIsGivenTheTimeItTakes) {
  const Exploration found = FindFailure({.runs = 1}, [] {
    std::thread other([] { EXPECT_EQ(Spawn("sleep 6; exit 7"), 7); });
    other.join();
    EXPECT_EQ(OutputOf("sleep 6; echo hi"), "hi\n0");
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

// Its own limits do not come before what it waits for.
TEST(Remarks, TimePassesAsInTheWorldWhileAProgramRuns) {
  const Exploration found = FindFailure({.runs = 3}, [] {
    std::array<int, 2> ends;
    ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
    const FileDescriptor from(ends[0]);
    FileDescriptor to(ends[1]);
    const pid_t child = fork();
    if (child == 0) {
      usleep(300'000);  // A real one.
      (void)!write(to.get(), "x", 1);
      _exit(7);
    }
    to.Reset();
    pollfd polled{from.get(), POLLIN, 0};
    EXPECT_EQ(poll(&polled, 1, 5000), 1);
    int status = 0;
    EXPECT_EQ(wait(&status), child);
    EXPECT_EQ(WEXITSTATUS(status), 7);
    EXPECT_EQ(poll(nullptr, 0, 3'600'000), 0) << "an hour";
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
  EXPECT_EQ(Count(found.remarks, "This run called fork"), 1) << found.remarks;
}

// Also for who does not wait for it, but asks again and again.
TEST(Remarks, WhoAsksTheWorldAgainAndAgainGivesItTime) {
  using Ask = bool (*)(pid_t child, int from);
  constexpr Ask kAsk[] = {
      [](pid_t child, int) {
        siginfo_t about{};
        const auto id = static_cast<id_t>(child);
        waitid(P_PID, id, &about, WEXITED | WNOHANG | WNOWAIT);
        return about.si_pid == child;
      },
      [](pid_t, int from) {
        pollfd polled{from, POLLIN, 0};
        return poll(&polled, 1, 0) == 1;
      },
      [](pid_t, int from) {
        char byte;
        return recv(from, &byte, 1, MSG_DONTWAIT) == 1;
      },
  };
  for (const Ask ask : kAsk) {
    const Exploration found = FindFailure({.runs = 2}, [ask] {
      std::array<int, 2> ends;
      ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()),
                0);
      const FileDescriptor from(ends[0]);
      const FileDescriptor to(ends[1]);
      const pid_t child = fork();
      if (child == 0) {
        usleep(100'000);  // A real one.
        (void)!write(to.get(), "x", 1);
        _exit(7);
      }
      int times = 0;
      for (; times < 1000 && !ask(child, from.get()); ++times) usleep(10'000);
      EXPECT_LT(times, 1000) << "10 s, of which it takes a tenth of one";
      int status = 0;
      EXPECT_EQ(waitpid(child, &status, 0), child);
    });
    EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
  }
}

[[gnu::noinline]] void SetAnAlarm() {
  alarm(100);
  alarm(0);
}

[[gnu::noinline]] void ReallySleep() {
  const timespec time = {0, 1000};
  syscall(SYS_nanosleep, &time, nullptr);
#ifdef SYS_poll
  syscall(SYS_poll, nullptr, 0, 0);
#endif
}

[[gnu::noinline]] void StartAProcess() {
  static std::array<char, 16384> stack;
  const auto run = [](void*) { return 7; };
  const pid_t child = clone(run, stack.data() + stack.size(), SIGCHLD, nullptr);
  ASSERT_GT(child, 0);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(Remarks, SayWhatIsNotInTheSchedule) {
  const Exploration found = FindFailure({.runs = 20}, [] {
    SetAnAlarm();
    ReallySleep();
    StartAProcess();
  });
  ASSERT_FALSE(found.failure.has_value()) << found.failure->what;
  EXPECT_EQ(Count(found.remarks,
                  "This run called alarm, which is not in the schedule."),
            1)
      << found.remarks;
  EXPECT_THAT(found.remarks, HasSubstr("SetAnAlarm"));
  EXPECT_EQ(Count(found.remarks,
                  "This run called syscall, with SYS_nanosleep, which is not "
                  "in the schedule."),
            1)
      << found.remarks;
  EXPECT_THAT(found.remarks, HasSubstr("ReallySleep"));
#ifdef SYS_poll
  EXPECT_EQ(Count(found.remarks, "This run called syscall, with SYS_poll,"), 1)
      << found.remarks;
#endif
  EXPECT_EQ(Count(found.remarks, "This run called clone, which is not in"), 1)
      << found.remarks;
  EXPECT_THAT(found.remarks, HasSubstr("StartAProcess"));
  EXPECT_THAT(found.remarks, Not(HasSubstr("Unseen")));
  EXPECT_THAT(found.unseen,
              IsSupersetOf({"alarm", "clone", "syscall, with SYS_nanosleep"}));
}

TEST(Remarks, AreWithWhatFails) {
  const Exploration found = FindFailure({.runs = 20}, [] {
    ResolveLocalhost();
    FAIL() << "no luck";
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_THAT(found.remarks, HasSubstr("This run called getaddrinfo"));
}

}  // namespace
}  // namespace ward::testing

// Programs that wait in the kernel for descriptors which their own threads
// serve: they run in the schedule, and the same again.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/testing/explore.h"
#include "ward/testing/simulator/scheduler.h"

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" ssize_t __read_chk(int fd, void* buffer, size_t size, size_t room);
extern "C" int __poll_chk(pollfd* polled, nfds_t count, int limit, size_t room);
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

namespace ward::testing {
namespace {

struct Pair {
  FileDescriptor first;
  FileDescriptor second;
};

Pair MakePair(int (*make)(int*)) {
  std::array<int, 2> ends;
  EXPECT_EQ(make(ends.data()), 0);
  return {FileDescriptor(ends[0]), FileDescriptor(ends[1])};
}
Pair MakePipe() {
  return MakePair([](int* ends) { return pipe2(ends, O_CLOEXEC); });
}
Pair MakeSocketPair() {
  return MakePair([](int* ends) {
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
  });
}

void WriteOne(const FileDescriptor& to) {
  EXPECT_EQ(write(to.get(), "x", 1), 1);
}
void ReadOne(const FileDescriptor& from) {
  char byte;
  EXPECT_EQ(read(from.get(), &byte, 1), 1);
}

void Everywhere(void (*body)()) {
  for (const Search search :
       {Search::kRandom, Search::kPct, Search::kDepthFirst}) {
    ExploreOptions options;
    options.runs = 300;
    options.search = search;
    Explore(options, body);
  }
  ExploreOptions options;
  for (uint64_t run = 0; run < 20; ++run) {
    EXPECT_EQ(FingerprintOfRun(options, run, body),
              FingerprintOfRun(options, run, body));
  }
}

TEST(EventLoops, APipeIsReadByOneAndWrittenByAnother) {
  Everywhere([] {
    const Pair pipe = MakePipe();
    std::thread writer([&] {
      for (int i = 0; i < 3; ++i) WriteOne(pipe.second);
    });
    for (int i = 0; i < 3; ++i) ReadOne(pipe.first);
    writer.join();
  });
}

// Far more than a pipe or a socket holds.
TEST(EventLoops, ALongWriteWaitsForItsReader) {
  for (Pair (*const make)() : {MakePipe, MakeSocketPair}) {
    Explore({.runs = 20}, [&] {
      const Pair own = make();
      const std::string sent(500'000, 'x');
      std::thread writer([&] {
        EXPECT_EQ(write(own.second.get(), sent.data(), sent.size()),
                  static_cast<ssize_t>(sent.size()));
      });
      size_t got = 0;
      std::array<char, 5000> buffer;
      while (got < sent.size()) {
        const ssize_t size =
            read(own.first.get(), buffer.data(), buffer.size());
        ASSERT_GT(size, 0);
        got += static_cast<size_t>(size);
      }
      writer.join();
    });
  }
}

// One that keeps its messages apart is not written to in pieces.
TEST(EventLoops, AMessageStaysWhole) {
  Explore({.runs = 20}, [] {
    const Pair own = MakePair([](int* ends) {
      return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
    });
    const std::string sent(10'000, 'x');
    std::thread writer([&] {
      EXPECT_EQ(write(own.second.get(), sent.data(), sent.size()), 10'000);
      EXPECT_EQ(send(own.second.get(), sent.data(), sent.size(), 0), 10'000);
    });
    std::vector<char> buffer(20'000);
    EXPECT_EQ(read(own.first.get(), buffer.data(), buffer.size()), 10'000);
    EXPECT_EQ(recv(own.first.get(), buffer.data(), buffer.size(), 0), 10'000);
    writer.join();
  });
}

TEST(EventLoops, ASocketsOwnLimitIsOfSimulatedTime) {
  Explore({.runs = 20}, [] {
    const Pair own = MakeSocketPair();
    const timeval limit{3, 0};
    ASSERT_EQ(setsockopt(own.first.get(), SOL_SOCKET, SO_RCVTIMEO, &limit,
                         sizeof(limit)),
              0);
    const absl::Time start = Scheduler::Current()->now();
    char byte;
    EXPECT_EQ(recv(own.first.get(), &byte, 1, 0), -1);
    EXPECT_EQ(errno, EAGAIN);
    EXPECT_EQ(Scheduler::Current()->now() - start, absl::Seconds(3));
  });
}

TEST(EventLoops, AnEpollLoopServesItsClientsAndStopsByAnEvent) {
  Everywhere([] {
    Pair one = MakeSocketPair();
    Pair other = MakeSocketPair();
    const FileDescriptor stop(eventfd(0, EFD_CLOEXEC));
    const FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
    const std::vector<int> watched = {one.first.get(), other.first.get(),
                                      stop.get()};
    for (const int fd : watched) {
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.fd = fd;
      ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event), 0);
    }
    std::thread loop([&] {
      while (true) {
        epoll_event event;
        ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, -1), 1);
        if (event.data.fd == stop.get()) return;
        char byte;
        ASSERT_EQ(recv(event.data.fd, &byte, 1, 0), 1);
        ASSERT_EQ(send(event.data.fd, &byte, 1, MSG_NOSIGNAL), 1);
      }
    });
    const auto call = [](const FileDescriptor& end) {
      WriteOne(end);
      ReadOne(end);
    };
    std::thread client([&] { call(one.second); });
    call(other.second);
    client.join();
    const uint64_t word = 1;
    ASSERT_EQ(write(stop.get(), &word, sizeof(word)),
              static_cast<ssize_t>(sizeof(word)));
    loop.join();
  });
}

TEST(EventLoops, LimitsOfPollsAreOfSimulatedTime) {
  Explore({.runs = 100}, [] {
    const Pair pipe = MakePipe();
    const absl::Time start = Scheduler::Current()->now();
    pollfd polled{pipe.first.get(), POLLIN, 0};
    EXPECT_EQ(poll(&polled, 1, 3000), 0);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pipe.first.get(), &set);
    timeval limit{4, 0};
    EXPECT_EQ(select(pipe.first.get() + 1, &set, nullptr, nullptr, &limit), 0);
    EXPECT_EQ(Scheduler::Current()->now() - start, absl::Seconds(7));
    WriteOne(pipe.second);
    EXPECT_EQ(poll(&polled, 1, 3000), 1);
    FD_SET(pipe.first.get(), &set);
    EXPECT_EQ(select(pipe.first.get() + 1, &set, nullptr, nullptr, nullptr), 1);
    EXPECT_EQ(Scheduler::Current()->now() - start, absl::Seconds(7));
  });
}

TEST(EventLoops, AFileLockExcludesInTheSchedule) {
  Everywhere([] {
    const std::string name = std::string(std::getenv("TEST_TMPDIR")) + "/lock";
    int inside = 0;
    const auto work = [&] {
      const FileDescriptor file(
          open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
      ASSERT_EQ(flock(file.get(), LOCK_EX), 0);
      EXPECT_EQ(++inside, 1);
      SchedulingPoint();
      --inside;
    };
    std::thread other(work);
    work();
    other.join();
  });
}

// As code that is compiled with _FORTIFY_SOURCE has it.
TEST(EventLoops, ACheckedReadWaitsToo) {
  Everywhere([] {
    const Pair pipe = MakePipe();
    std::thread writer([&] { WriteOne(pipe.second); });
    char byte;
    pollfd polled{pipe.first.get(), POLLIN, 0};
    EXPECT_EQ(__poll_chk(&polled, 1, -1, sizeof(polled)), 1);
    EXPECT_EQ(__read_chk(pipe.first.get(), &byte, 1, 1), 1);
    writer.join();
  });
}

// What nobody of the simulation can say is waited for.
TEST(EventLoops, TheWorldIsGivenTime) {
  Explore({.runs = 5}, [] {
    const Pair pipe = MakePipe();
    timespec start;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &start);
    const pid_t child = fork();
    if (child == 0) {
      usleep(20'000);  // A real one.
      (void)!write(pipe.second.get(), "x", 1);
      _exit(7);
    }
    ReadOne(pipe.first);
    timespec end;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &end);
    EXPECT_GE(
        absl::DurationFromTimespec(end) - absl::DurationFromTimespec(start),
        absl::Milliseconds(15));
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(WEXITSTATUS(status), 7);
  });
}

// A child that waits, or not, and ends.
pid_t StartChild(int from = -1) {
  const pid_t child = fork();
  if (child != 0) return child;
  char byte;
  if (from >= 0) (void)!read(from, &byte, 1);
  _exit(7);
}

void AwaitChild(pid_t child) {
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

// However long it takes, which no machine is to decide.
TEST(EventLoops, AChildsEndHasItsPlaceInTheSchedule) {
  Everywhere([] {
    std::atomic<bool> ended{false};
    std::thread other([&] {
      AwaitChild(StartChild());
      ended = true;
    });
    std::thread ticker([&] {
      while (!ended) std::this_thread::sleep_for(std::chrono::seconds(1));
    });
    AwaitChild(StartChild());
    while (!ended) std::this_thread::yield();
    other.join();
    ticker.join();
  });
}

TEST(EventLoops, AChildMayWaitForAnotherThread) {
  Explore({.runs = 5}, [] {
    const Pair pipe = MakePipe();
    std::thread writer([&] {
      std::this_thread::sleep_for(std::chrono::seconds(1));
      WriteOne(pipe.second);
    });
    AwaitChild(StartChild(pipe.first.get()));
    writer.join();
  });
}

TEST(EventLoops, AnyFunctionWaitsForAChildInTheSchedule) {
  using Wait = pid_t (*)(pid_t child, int* status);
  constexpr Wait kWaits[] = {
      [](pid_t, int* status) { return wait(status); },
      [](pid_t, int* status) { return wait3(status, 0, nullptr); },
      [](pid_t child, int* status) { return wait4(child, status, 0, nullptr); },
      [](pid_t child, int* status) {
        siginfo_t about{};
        const auto id = static_cast<id_t>(child);
        if (waitid(P_PID, id, &about, WEXITED) != 0) return -1;
        *status = W_EXITCODE(about.si_status, 0);
        return about.si_pid;
      },
  };
  for (const Wait wait_for : kWaits) {
    Explore({.runs = 3}, [wait_for] {
      const Pair pipe = MakePipe();
      std::thread writer([&] {
        std::this_thread::sleep_for(std::chrono::seconds(1));
        WriteOne(pipe.second);
      });
      const pid_t child = StartChild(pipe.first.get());
      int status = 0;
      EXPECT_EQ(wait_for(child, &status), child);
      EXPECT_EQ(WEXITSTATUS(status), 7);
      writer.join();
    });
  }
}

TEST(EventLoops, ADescriptorThatIsClosedTooEarlyIsFound) {
  const Exploration found = FindFailure({.runs = 1000}, [] {
    Pair pipe = MakePipe();
    std::thread reader([&] { WriteOne(pipe.second); });
    pipe.second.Reset();
    reader.join();
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_TRUE(found.failure->replayed);
}

}  // namespace
}  // namespace ward::testing

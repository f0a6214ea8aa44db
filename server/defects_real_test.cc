// The defects of the original that ward must not have, by their numbers, as far
// as only the real kernel shows them. The others are in defects_test.cc, in
// every mode; 19 and 20, which are the collection's, are tested with it.

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/server/abstract_server.h"
#include "ward/server/posix/deny_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"

namespace {

// The mode of each socket's name in the moment when bind(2) has made it.
std::vector<mode_t>* modes_when_bound = nullptr;

}  // namespace

// In the place of the C library's, to look between two calls of ward's.
extern "C" int bind(int fd, const sockaddr* address, socklen_t size) noexcept {
  const long result = syscall(SYS_bind, fd, address, size);
  if (result == 0 && modes_when_bound != nullptr) {
    struct stat found {};
    lstat(reinterpret_cast<const sockaddr_un*>(address)->sun_path, &found);
    modes_when_bound->push_back(found.st_mode & 07777);
  }
  return static_cast<int>(result);
}

namespace ward {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class DefectsRealTest : public NothingLeftTest {
 protected:
  static int64_t PeakKilobytes(pid_t process) {
    std::ifstream status(absl::StrCat("/proc/", process, "/status"));
    std::string word;
    int64_t kilobytes = 0;
    while (status >> word) {
      if (word == "VmHWM:") status >> kilobytes;
    }
    return kilobytes;
  }

  static std::string ContentOf(const std::string& file) {
    return ReadToEnd(
        FileDescriptor(open(file.c_str(), O_RDONLY | O_CLOEXEC)).get());
  }

  // How long it takes to stop a process that does nothing but wait for it.
  static absl::Duration ABareProcessStops() {
    Pipe life = MakePipe();
    Child child([&] {
      life.write.Reset();
      ReadSome(life.read.get());
      return 0;
    });
    const Stopwatch watch;
    life.write.Reset();
    child.Wait();
    return watch.Elapsed();
  }
};

TEST_F(DefectsRealTest, Defect01_ClientsAreServedAtTheSameTime) {
  const absl::Time start = Environment::Posix().TimeNow();
  // In the server.
  std::atomic<int> begun{0};
  TestServer server;
  server.DefineMessageHandler("sleep", [&](MessageChannel& channel) {
    const auto now = [&] {
      return absl::ToInt64Nanoseconds(Environment::Posix().TimeNow() - start);
    };
    const int64_t begin = now();
    ++begun;
    absl::SleepFor(absl::Milliseconds(500));
    // The other client may be later than that.
    for (const Stopwatch watch; begun < 2 && watch.Elapsed() < kSurely / 2;) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    return channel.Write(begin, now());
  });
  ASSERT_THAT(server.Start(), IsOk());
  // One that says nothing is in nobody's way.
  const FileDescriptor silent = RawConnect(server.socket_filename());
  struct Handler {
    int64_t begin = 0;
    int64_t end = 0;
  };
  const auto sleep = [&](Handler& handler) {
    const absl::StatusOr<Message> reply = CallServer(server, "sleep");
    ASSERT_THAT(reply, IsOk());
    ASSERT_TRUE(absl::SimpleAtoi((*reply)[0], &handler.begin));
    ASSERT_TRUE(absl::SimpleAtoi((*reply)[1], &handler.end));
  };
  Handler one;
  Handler two;
  std::thread other([&] { sleep(one); });
  sleep(two);
  other.join();
  // How long both take together is a question of the machine's load, too; each
  // after the other they would not overlap on any.
  const int64_t elapsed =
      std::max(one.end, two.end) - std::min(one.begin, two.begin);
  std::cout << "two handlers of 500 ms took " << elapsed / 1'000'000 << " ms\n";
  EXPECT_LT(std::max(one.begin, two.begin), std::min(one.end, two.end));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(DefectsRealTest, Defect04_APasswordOf200MegabytesIsNotBuffered) {
  TestServer server;
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  const int64_t before = PeakKilobytes(server.server_pid());
  const FileDescriptor peer = RawConnect(server.socket_filename());
  // A frame's length, and its field 2, the password.
  constexpr uint64_t kSize = 200'000'000;
  std::string bytes = Varint(kSize + 5) + "\x12" + Varint(kSize);
  size_t sent = 0;
  while (sent < kSize) {
    const ssize_t went =
        send(peer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (went <= 0) break;
    sent += static_cast<size_t>(went);
    bytes.assign(100'000, 'x');
  }
  EXPECT_LT(sent, 10'000'000u) << "it was read on and on";
  EXPECT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
  const int64_t grown = PeakKilobytes(server.server_pid()) - before;
  EXPECT_LT(grown, 50'000) << "kilobytes";
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(DefectsRealTest, Defect06_APasswordIsComparedInConstantTime) {
  // So long that a comparison that stops at the first difference is thousands
  // of times faster when that is the first byte than when it is the last.
  const std::string right(1 << 20, 'x');
  const Secret secret(right);
  std::string wrong_first = right;
  wrong_first.front() = 'y';
  std::string wrong_last = right;
  wrong_last.back() = 'y';
  // This thread's time alone, whatever else the machine does meanwhile.
  const auto now = [] {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return absl::DurationFromTimespec(time);
  };
  const auto fastest = [&](const std::string& attempt) {
    absl::Duration best = absl::InfiniteDuration();
    for (int i = 0; i < 20; ++i) {
      const absl::Duration start = now();
      EXPECT_FALSE(secret.Matches(attempt));
      best = std::min(best, now() - start);
    }
    return best;
  };
  EXPECT_TRUE(secret.Matches(right));
  EXPECT_GT(fastest(wrong_first), fastest(wrong_last) / 4);
}

TEST_F(DefectsRealTest,
       Defect07_AWrongPasswordIsToldAndLoggedUnlessThatIsIgnored) {
  for (const bool ignore : {false, true}) {
    TestServer server(Shared());
    server.set_ignore_password_errors(ignore);
    ServerOptions options = Shared();
    options.password = Secret("another password");
    TestServer stranger(std::move(options));
    const StderrCapture log;
    ASSERT_THAT(server.Start(), IsOk());
    EXPECT_THAT(Call(stranger, "echo", "x"),
                FailsWith(reason::kInvalidPassword));
    EXPECT_THAT(server.Stop(), IsOk());
    if (ignore) {
      EXPECT_EQ(log.Text(), "");
    } else {
      EXPECT_THAT(log.Text(), HasSubstr("wrong password"));
    }
  }
}

TEST_F(DefectsRealTest,
       Defect12_TheSocketsNameNeverAppearsWithMoreThanItsMode) {
  std::vector<mode_t> modes;
  modes_when_bound = &modes;
  const mode_t found = umask(0);
  TestServer server(Shared());
  const absl::Status status = server.Start();
  umask(found);
  modes_when_bound = nullptr;
  ASSERT_THAT(status, IsOk());
  EXPECT_THAT(modes, AllOf(Not(IsEmpty()), Each(mode_t{0600})));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(DefectsRealTest, Defect13_StartTouchesNothingButAStaleSocket) {
  const std::string target = directory() + "/target";
  const auto refused = [this] {
    TestServer server(Shared());
    EXPECT_THAT(server.Start(), FailsWith(reason::kPathTaken, path()));
  };
  WriteAll(FileDescriptor(open(target.c_str(), O_CREAT | O_WRONLY, 0600)).get(),
           "precious");

  ASSERT_EQ(link(target.c_str(), path().c_str()), 0);
  refused();
  EXPECT_EQ(ContentOf(path()), "precious");
  ASSERT_EQ(unlink(path().c_str()), 0);

  ASSERT_EQ(symlink(target.c_str(), path().c_str()), 0);
  refused();
  EXPECT_EQ(ContentOf(path()), "precious");
  ASSERT_EQ(unlink(path().c_str()), 0);

  ASSERT_EQ(mkdir(path().c_str(), 0700), 0);
  refused();
  ASSERT_EQ(rmdir(path().c_str()), 0);

  ASSERT_EQ(mkfifo(path().c_str(), 0600), 0);
  refused();
  ASSERT_EQ(unlink(path().c_str()), 0);
  ASSERT_EQ(unlink(target.c_str()), 0);
}

TEST_F(DefectsRealTest,
       Defect14_AnOldServersEndLeavesItsSuccessorsSocketAlone) {
  // Its name is gone, and another server has it now, when it stops.
  TestServer old(Shared());
  TestServer successor(Shared());
  ASSERT_THAT(old.Start(), IsOk());
  ASSERT_EQ(unlink(path().c_str()), 0);
  ASSERT_THAT(successor.Start(), IsOk());
  EXPECT_THAT(old.Stop(), IsOk());
  EXPECT_THAT(Call(successor, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(successor.Stop(), IsOk());

  // It was killed, and its owner cleans up after the successor has come.
  ASSERT_THAT(old.Start(), IsOk());
  const FileDescriptor pidfd = OpenPidfd(old.server_pid());
  ASSERT_EQ(kill(old.server_pid(), SIGKILL), 0);
  ASSERT_TRUE(BecomesReadable(pidfd.get()));
  ASSERT_THAT(successor.Start(), IsOk());
  EXPECT_THAT(old.Stop(), FailsWith(reason::kServerDied));
  EXPECT_THAT(Call(successor, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(successor.Stop(), IsOk());
  EXPECT_FALSE(Exists(path()));
}

TEST_F(DefectsRealTest, Defect16_StopWaitsForTheServerAndNotForATimer) {
  std::vector<absl::Duration> times;
  std::vector<absl::Duration> least;
  TestServer server;
  for (int i = 0; i < 20; ++i) {
    least.push_back(ABareProcessStops());
    ASSERT_THAT(server.Start(), IsOk());
    ASSERT_THAT(Call(server, "echo", "x"), IsOkAndHolds("x"));
    const Stopwatch watch;
    ASSERT_THAT(server.Stop(), IsOk());
    times.push_back(watch.Elapsed());
  }
  std::cout << "stop took (median) " << Median(times) << ", a bare process "
            << Median(least) << "\n";
  RecordProperty("stop", absl::FormatDuration(Median(times)));
  EXPECT_LT(Median(times),
            std::max(absl::Milliseconds(kUnderSanitizer ? 1000 : 50),
                     10 * Median(least)));
}

TEST_F(DefectsRealTest, Defect17_AHighDescriptorLimitDoesNotSlowTheStart) {
  rlimit found;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &found), 0);
  // In a process of its own: a hard limit cannot be lowered and raised again by
  // everyone.
  Child child([&] {
    rlimit high = {1'000'000, 1'000'000};
    if (setrlimit(RLIMIT_NOFILE, &high) != 0) {
      high = {found.rlim_max, found.rlim_max};
      if (setrlimit(RLIMIT_NOFILE, &high) != 0) return 1;
    }
    const rlimit low = {1000, high.rlim_max};
    const Pipe pipe = MakePipe();
    TestServer server;
    // In processor time, of owner and server: beside others a server waits for
    // its turn, and for how long is not its own affair.
    const auto used = [] {
      absl::Duration all;
      for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
        rusage usage{};
        getrusage(who, &usage);
        all += absl::DurationFromTimeval(usage.ru_utime) +
               absl::DurationFromTimeval(usage.ru_stime);
      }
      return all;
    };
    const auto least_of = [&](absl::Duration& least, const rlimit& limit) {
      if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
      const absl::Duration before = used();
      if (!server.Start().ok() || !server.Stop().ok()) return false;
      least = std::min(least, used() - before);
      return true;
    };
    absl::Duration at_low = absl::InfiniteDuration();
    absl::Duration at_high = absl::InfiniteDuration();
    for (int i = 0; i < 7; ++i) {
      if (!least_of(at_low, low)) return 2;
      if (!least_of(at_high, high)) return 3;
    }
    std::cout << "a start and stop took " << at_low << " at a limit of "
              << low.rlim_cur << ", " << at_high << " at " << high.rlim_cur
              << std::endl;
    if (at_high > 2 * at_low) return 4;

    // And all are closed, the highest too.
    const int highest =
        dup2(pipe.write.get(), static_cast<int>(high.rlim_cur) - 1);
    if (highest < 0 || !server.Start().ok()) return 5;
    const std::string target = DescriptorsOf(getpid())[highest];
    for (const auto& [fd, what] : DescriptorsOf(server.server_pid())) {
      if (what == target) return 6;
    }
    return server.Stop().ok() ? 0 : 7;
  });
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(DefectsRealTest, Defect18_NothingLeaksWhenForkOrWhatFollowsItFails) {
#ifdef SYS_fork
  const std::vector<long> forks = {SYS_clone, SYS_clone3, SYS_fork};
#else
  const std::vector<long> forks = {SYS_clone, SYS_clone3};
#endif
  const std::vector<long> watches = {SYS_pidfd_open};
  for (const std::vector<long>& failing : {forks, watches}) {
    Child child([&] {
      // An instrumented process may open something of its own at the first
      // fork.
      TestServer server;
      if (!server.Start().ok() || !server.Stop().ok()) return 1;
      const auto before = DescriptorsOf(getpid());
      DenyCalls(failing, EAGAIN);
      for (int i = 0; i < 10; ++i) {
        if (server.Start().ok()) return 3;
      }
      if (server.started()) return 4;
      if (waitpid(-1, nullptr, WNOHANG) != -1) return 5;
      if (!NamesIn(directory()).empty()) return 6;
      return DescriptorsOf(getpid()) == before ? 0 : 7;
    });
    EXPECT_EQ(child.Wait(), 0);
  }
}

// A thread on a stack of its own: in a forked child the C library uses the
// stacks of the parent's other threads again, where ThreadSanitizer still knows
// those.
class OtherThread {
 public:
  OtherThread() : stack_(size_t{1} << 20) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack_.data(), stack_.size());
    if (pthread_create(&thread_, &attributes, &Run, this) != 0) abort();
    pthread_attr_destroy(&attributes);
    if (!BecomesReadable(began_.read.get())) abort();
  }
  ~OtherThread() {
    WriteAll(done_.write.get(), "x");
    pthread_join(thread_, nullptr);
  }

 private:
  // In system calls alone once it has begun: whatever it had locked would stay
  // so in a child.
  static void* Run(void* self) {
    const auto& own = *static_cast<OtherThread*>(self);
    WriteAll(own.began_.write.get(), "x");
    char byte;
    (void)!read(own.done_.read.get(), &byte, 1);
    return nullptr;
  }

  std::vector<char> stack_;
  const Pipe began_ = MakePipe();
  const Pipe done_ = MakePipe();
  pthread_t thread_{};
};

TEST_F(DefectsRealTest, Defect22_AProcessWithThreadsIsNotForkedUnlessToldTo) {
  auto other = std::make_unique<OtherThread>();
  TestServer server;
  const absl::Status status = server.Start();
  EXPECT_THAT(status, FailsWith(reason::kForkWithThreads));
  // Both ways out.
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("before the threads"), HasSubstr("exec")));
  EXPECT_FALSE(server.started());
  ServerOptions options;
  options.launch.fork.allow_threads = true;
  TestServer told(std::move(options));
  EXPECT_THAT(told.Start(), IsOk());
  EXPECT_THAT(Call(told, "echo", "x"), IsOkAndHolds("x"));
  EXPECT_THAT(told.Stop(), IsOk());
  other.reset();
  EXPECT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward

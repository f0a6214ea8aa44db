#include "ward/server/posix/holders.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"

namespace ward {
namespace {

// The table of descriptors, with room for so many more.
class NearlyFullTable {
 public:
  explicit NearlyFullTable(size_t room) {
    getrlimit(RLIMIT_NOFILE, &found_);
    rlimit lowered = found_;
    lowered.rlim_cur = 256;
    if (setrlimit(RLIMIT_NOFILE, &lowered) != 0) abort();
    while (true) {
      FileDescriptor one(open("/dev/null", O_RDONLY | O_CLOEXEC));
      if (!one.is_open()) break;
      taken_.push_back(std::move(one));
    }
    taken_.resize(taken_.size() - room);
  }
  NearlyFullTable(const NearlyFullTable&) = delete;
  NearlyFullTable& operator=(const NearlyFullTable&) = delete;
  ~NearlyFullTable() { setrlimit(RLIMIT_NOFILE, &found_); }

 private:
  rlimit found_{};
  std::vector<FileDescriptor> taken_;
};

TEST(HoldersTest, ANearlyFullTableMakesAnErrorAndNoWrongAnswer) {
  std::array<int, 2> ends;
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const FileDescriptor one(ends[0]);
  const FileDescriptor other(ends[1]);
  struct stat found;
  ASSERT_EQ(fstat(one.get(), &found), 0);
  for (size_t room = 0; room < 4; ++room) {
    absl::StatusOr<std::vector<ProcessInfo>> holders =
        std::vector<ProcessInfo>();
    {
      const NearlyFullTable table(room);
      holders = PosixHolders(found.st_ino);
    }
    if (room < 2) {
      // /proc, and a process's fd.
      EXPECT_TRUE(HasReason(holders.status(), reason::kDescriptorTableFull))
          << room << ": " << holders.status();
      continue;
    }
    ASSERT_TRUE(holders.ok()) << room << ": " << holders.status();
    ASSERT_EQ(holders->size(), 1u) << room;
    EXPECT_EQ(holders->front().pid, getpid());
    EXPECT_NE(holders->front().command.find("holders_test"), std::string::npos);
  }
}

TEST(HoldersTest, AProcessWhoseMainThreadHasEndedHoldsWhatItHad) {
  std::array<int, 2> ends;
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  FileDescriptor held(ends[0]);
  const FileDescriptor told(ends[1]);
  struct stat found;
  ASSERT_EQ(fstat(held.get(), &found), 0);
  const pid_t child = fork();
  if (child == 0) {
    static const int kHeld = held.get();
    pthread_t rest;
    const auto run = [](void*) -> void* {
      std::error_code error;
      while (std::filesystem::directory_iterator("/proc/self/fd", error) !=
             std::filesystem::directory_iterator()) {
        sched_yield();
      }
      [[maybe_unused]] const ssize_t ignored = write(kHeld, "x", 1);
      while (true) pause();
    };
    if (pthread_create(&rest, nullptr, run, nullptr) != 0) abort();
    syscall(SYS_exit, 0);  // Of this thread, which C++ would unwind.
  }
  ASSERT_GT(child, 0);
  held.Reset();
  char word = 0;
  EXPECT_EQ(read(told.get(), &word, 1), 1);
  const absl::StatusOr<std::vector<ProcessInfo>> holders =
      PosixHolders(found.st_ino);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  ASSERT_TRUE(holders.ok()) << holders.status();
  ASSERT_EQ(holders->size(), 1u);
  EXPECT_EQ(holders->front().pid, child);
}

}  // namespace
}  // namespace ward

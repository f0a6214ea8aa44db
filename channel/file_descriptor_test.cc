#include "ward/channel/file_descriptor.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <string>
#include <type_traits>
#include <utility>

#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

static_assert(!std::is_copy_constructible_v<FileDescriptor>);
static_assert(std::is_nothrow_move_constructible_v<FileDescriptor>);
static_assert(!std::is_convertible_v<int, FileDescriptor>);

int OpenNull() { return open("/dev/null", O_RDWR | O_CLOEXEC); }

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

TEST(FileDescriptorTest, ClosesWhatItOwnsWhenDestroyed) {
  const int fd = OpenNull();
  {
    const FileDescriptor owner(fd);
    EXPECT_TRUE(owner.is_open());
    EXPECT_EQ(owner.get(), fd);
    EXPECT_TRUE(IsOpen(fd));
  }
  EXPECT_FALSE(IsOpen(fd));
}

TEST(FileDescriptorTest, OwnsNothingByDefaultOrFromAnyNegativeNumber) {
  EXPECT_FALSE(FileDescriptor().is_open());
  EXPECT_EQ(FileDescriptor(-17).get(), -1);
  FileDescriptor none;
  none.Reset(-17);
  EXPECT_EQ(none.get(), -1);
  EXPECT_EQ(none.Release(), -1);
}

TEST(FileDescriptorTest, WhatWasOpenedIsNoStandardDescriptor) {
  const pid_t child = fork();
  if (child == 0) {
    for (const int fd : {0, 1, 2}) close(fd);
    const int low = OpenNull();
    const FileDescriptor opened = FileDescriptor::Opened(low);
    const bool moved = low == 0 && opened.get() > 2 && !IsOpen(0) &&
                       fcntl(opened.get(), F_GETFD) == FD_CLOEXEC;
    const auto copy = FileDescriptor::DuplicateOf(opened.get());
    const bool high = copy.ok() && copy->get() > 2;
    // With no room to move to there is nothing, and errno says so.
    const rlimit none = {static_cast<rlim_t>(1), static_cast<rlim_t>(1)};
    setrlimit(RLIMIT_NOFILE, &none);
    const int last = OpenNull();
    const bool lost = last == 0 && !FileDescriptor::Opened(last).is_open() &&
                      (errno == EMFILE || errno == EINVAL) && !IsOpen(0);
    _exit(moved && high && lost ? 0 : 1);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  const int fd = OpenNull();
  EXPECT_EQ(FileDescriptor::Opened(fd).get(), fd)
      << "where it is, if it may be";
  errno = ENOENT;
  EXPECT_FALSE(FileDescriptor::Opened(-1).is_open());
  EXPECT_EQ(errno, ENOENT);
}

TEST(FileDescriptorTest, AMoveLeavesOneOwner) {
  const std::map<int, std::string> before = OpenDescriptors();
  {
    FileDescriptor first(OpenNull());
    const int fd = first.get();
    FileDescriptor second(std::move(first));
    EXPECT_EQ(first.get(), -1);  // NOLINT(bugprone-use-after-move)
    EXPECT_EQ(second.get(), fd);
    FileDescriptor third(OpenNull());
    const int replaced = third.get();
    third = std::move(second);
    EXPECT_EQ(third.get(), fd);
    EXPECT_TRUE(IsOpen(fd));
    EXPECT_FALSE(IsOpen(replaced));
    FileDescriptor& alias = third;
    third = std::move(alias);
    EXPECT_EQ(third.get(), fd);
    EXPECT_TRUE(IsOpen(fd));
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST(FileDescriptorTest, ClosesOnceEvenIfTheNumberIsTakenAgain) {
  FileDescriptor owner(OpenNull());
  const int fd = owner.get();
  owner.Reset();
  // The lowest free number is given out next (open(2)).
  const FileDescriptor successor(OpenNull());
  ASSERT_EQ(successor.get(), fd);
  owner.Reset();
  owner = FileDescriptor();
  EXPECT_TRUE(IsOpen(fd));
}

TEST(FileDescriptorTest, ReleaseGivesTheNumberAwayOpen) {
  FileDescriptor owner(OpenNull());
  const int fd = owner.get();
  EXPECT_EQ(owner.Release(), fd);
  EXPECT_FALSE(owner.is_open());
  EXPECT_TRUE(IsOpen(fd));
  close(fd);
}

TEST(FileDescriptorTest, ResetTakesTheNewOneInPlaceOfTheOld) {
  FileDescriptor owner(OpenNull());
  const int old = owner.get();
  const int next = OpenNull();
  owner.Reset(next);
  EXPECT_FALSE(IsOpen(old));
  EXPECT_EQ(owner.get(), next);
}

TEST(FileDescriptorTest, ClosingPreservesErrno) {
  FileDescriptor unknown(1'000'000'000);  // close(2) fails with EBADF.
  errno = ENOENT;
  unknown.Reset();
  EXPECT_EQ(errno, ENOENT);
}

TEST(FileDescriptorTest, ADuplicateIsItsOwnAndCloseOnExec) {
  const FileDescriptor original(OpenNull());
  ASSERT_OK_AND_ASSIGN(const FileDescriptor copy,
                       FileDescriptor::DuplicateOf(original.get()));
  EXPECT_NE(copy.get(), original.get());
  EXPECT_EQ(fcntl(copy.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_TRUE(IsOpen(original.get()));
}

TEST(FileDescriptorTest, DuplicatingNothingIsAnErrorThatNamesIt) {
  const auto copy = FileDescriptor::DuplicateOf(-1);
  ASSERT_FALSE(copy.ok());
  EXPECT_NE(copy.status().message().find("duplicate descriptor -1"),
            std::string::npos)
      << copy.status();
}

}  // namespace
}  // namespace ward

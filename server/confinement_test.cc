// What is given up is gone, and what is kept works; in children of the test's,
// since nothing of it comes back.

#include "ward/server/confinement.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/posix/deny_for_test.h"
#include "ward/server/server_for_test.h"

namespace ward {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr uid_t kSomebody = 12345;
constexpr gid_t kSomeGroup = 12346;

constexpr const char* kNeedsRoot = "needs root, to have what is given up";

// What a system call has come to, in a word.
std::string Outcome(long result) {
  return result >= 0 ? "done" : strerrorname_np(errno);
}

// Made in the order in which they stand, unlike the arguments of a function.
std::string InTurn(std::initializer_list<std::string> outcomes) {
  return absl::StrJoin(outcomes, " ");
}

std::string ToOpen(const std::string& path, int flags) {
  return Outcome(
      FileDescriptor(open(path.c_str(), flags | O_CLOEXEC, 0600)).get());
}

class ConfinementTest : public NothingLeftTest {
 protected:
  // Confines a child and returns the error's text, or what `look` has seen in
  // it then; "signal N" if that was its end.
  static std::string Confined(const Confinement& confinement,
                              absl::FunctionRef<std::string()> look) {
    return InChild([&] {
      const absl::Status status = Confine(confinement);
      return status.ok() ? look() : status.ToString();
    });
  }

  static std::string InChild(absl::FunctionRef<std::string()> body) {
    Pipe report = MakePipe();
    Child child([&] {
      WriteAll(report.write.get(), body());
      return 0;
    });
    report.write.Reset();
    std::string text = ReadToEnd(report.read.get());
    const int code = child.Wait();
    return code == 0 ? text : absl::StrCat("signal ", -code);
  }
};

TEST_F(ConfinementTest, NoExecGivesRightsAnyMore) {
  EXPECT_EQ(
      Confined(
          {},
          [] { return absl::StrCat(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); }),
      "1");
}

// What comes of a number that was not found, or not said.
TEST_F(ConfinementTest, AUserNeedsBothNumbers) {
  Confinement confinement;
  confinement.user.emplace().user = kSomebody;
  EXPECT_THAT(Confined(confinement, [] { return "confined"; }),
              StartsWith("INVALID_ARGUMENT: become another user"));
  confinement.user.emplace().group = kSomeGroup;
  EXPECT_THAT(Confined(confinement, [] { return "confined"; }),
              StartsWith("INVALID_ARGUMENT: become another user"));
}

// It has the rights of its maker, whatever that gives up, and is asked through
// memory.
TEST_F(ConfinementTest, AThreadThatPollsAnIoUringIsNoneToBeConfinedWith) {
  EXPECT_THAT(InChild([] {
                io_uring_params params{};
                params.flags = IORING_SETUP_SQPOLL;
                const FileDescriptor ring(
                    static_cast<int>(syscall(SYS_io_uring_setup, 1, &params)));
                return ring.is_open() ? Confine({}).ToString() : "no io_uring";
              }),
              AnyOf(HasSubstr("other threads"), "no io_uring"));
}

// --- capabilities ---

TEST_F(ConfinementTest, RootKeepsTheCapabilitiesThatAreNamedAlone) {
  if (geteuid() != 0) GTEST_SKIP() << kNeedsRoot;
  const std::string file = directory() + "/file";
  std::ofstream(file) << "text";
  const auto use_both = [&file] {
    return InTurn({Outcome(chown(file.c_str(), kSomebody, kSomeGroup)),
                   Outcome(chroot("/"))});
  };
  EXPECT_EQ(InChild(use_both), "done done");
  EXPECT_EQ(Confined({}, use_both), "EPERM EPERM");
  Confinement confinement;
  confinement.capabilities = {CAP_CHOWN};
  EXPECT_EQ(Confined(confinement, use_both), "done EPERM");
  confinement.user = {kSomebody, kSomeGroup, {}};
  EXPECT_EQ(chmod(directory().c_str(), 0711), 0);
  EXPECT_EQ(Confined(confinement, use_both), "done EPERM");
  // One of the second word.
  confinement.capabilities = {CAP_CHOWN, CAP_WAKE_ALARM};
  EXPECT_EQ(
      Confined(
          confinement,
          [] {
            __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
            std::array<__user_cap_data_struct, 2> kept{};
            syscall(SYS_capget, &header, kept.data());
            return absl::StrCat(kept[0].effective, " ", kept[1].effective);
          }),
      absl::StrCat(1 << CAP_CHOWN, " ", 1 << (CAP_WAKE_ALARM - 32)));
  std::filesystem::remove(file);
}

// As root's number would otherwise have it (capabilities(7)).
TEST_F(ConfinementTest, CapabilitiesDoNotComeBack) {
  if (geteuid() != 0) GTEST_SKIP() << kNeedsRoot;
  EXPECT_EQ(
      Confined(
          {},
          [] {
            __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
            std::array<__user_cap_data_struct, 2> all{};
            all[0].permitted = all[0].effective = 1U << CAP_CHOWN;
            return Outcome(syscall(SYS_capset, &header, all.data()));
          }),
      "EPERM");
  EXPECT_EQ(
      InChild([] {
        const absl::Status first = Confine({});
        Confinement confinement;
        confinement.capabilities = {CAP_CHOWN, CAP_SYS_CHROOT};
        return absl::StrCat(first.ToString(), ", ",
                            Confine(confinement).ToString());
      }),
      "OK, FAILED_PRECONDITION: keep capabilities 0, 18 "
      "(linux/capability.h): the process does not have them; start it with "
      "them, as root or by AmbientCapabilities= of systemd");
}

TEST_F(ConfinementTest, WhatIsNoCapabilityIsSaid) {
  Confinement confinement;
  for (const int number : {-1, 64}) {
    confinement.capabilities = {number};
    EXPECT_THAT(Confined(confinement, [] { return "confined"; }),
                HasSubstr(absl::StrCat("keep capability ", number)));
  }
}

// --- user and groups ---

TEST_F(ConfinementTest, BecomesTheUserForGood) {
  if (geteuid() != 0) GTEST_SKIP() << kNeedsRoot;
  const std::string file = directory() + "/file";
  std::ofstream(file) << "text";
  EXPECT_EQ(chmod(file.c_str(), 0600), 0);
  EXPECT_EQ(chmod(directory().c_str(), 0711), 0);
  Confinement confinement;
  confinement.user = {kSomebody, kSomeGroup, {100, 50}};
  EXPECT_EQ(Confined(confinement,
                     [&file] {
                       std::array<uid_t, 3> users;
                       std::array<gid_t, 3> groups;
                       std::array<gid_t, 8> more{};
                       getresuid(users.data(), &users[1], &users[2]);
                       getresgid(groups.data(), &groups[1], &groups[2]);
                       const int count = getgroups(8, more.data());
                       return absl::StrCat(
                           users[0], " ", users[1], " ", users[2], ", ",
                           groups[0], " ", groups[1], " ", groups[2], ", ",
                           count, ": ", more[0], " ", more[1], ", ",
                           InTurn({ToOpen(file, O_RDONLY), Outcome(setuid(0)),
                                   Outcome(setgid(0)),
                                   Outcome(setgroups(0, nullptr))}));
                     }),
            "12345 12345 12345, 12346 12346 12346, 2: 50 100, EACCES EPERM "
            "EPERM EPERM");
  // As it is, so it may stay.
  EXPECT_EQ(InChild([&confinement] {
              return InTurn({Confine(confinement).ToString(),
                             Confine(confinement).ToString()});
            }),
            "OK OK");
  std::filesystem::remove(file);
}

TEST_F(ConfinementTest, WhoMayNotBecomeAnotherIsToldWhatItTakes) {
  if (kUnderThreadSanitizer) {
    GTEST_SKIP() << "its own thread keeps its capabilities, and the C library "
                    "ends a process of whose threads not all may do so";
  }
  Confinement confinement;
  confinement.user = {kSomebody, kSomeGroup, {}};
  const std::string text = InChild([&confinement] {
    EXPECT_TRUE(Confine({}).ok());
    return Confine(confinement).ToString();
  });
  EXPECT_THAT(text, HasSubstr("become user 12345 and group 12346 (set"));
  EXPECT_THAT(text, HasSubstr("CAP_SETUID and CAP_SETGID"));
}

// --- limits ---

TEST_F(ConfinementTest, LowersLimitsAndRaisesNone) {
  Confinement confinement;
  confinement.limits = {
      {RLIMIT_CORE, 0}, {RLIMIT_NOFILE, 20}, {RLIMIT_NOFILE, RLIM_INFINITY}};
  EXPECT_EQ(Confined(confinement,
                     [] {
                       rlimit limit;
                       getrlimit(RLIMIT_NOFILE, &limit);
                       const rlimit more = {21, 21};
                       return InTurn({absl::StrCat(limit.rlim_cur),
                                      absl::StrCat(limit.rlim_max),
                                      Outcome(setrlimit(RLIMIT_NOFILE, &more)),
                                      Outcome(fcntl(0, F_DUPFD, 19)),
                                      Outcome(fcntl(0, F_DUPFD, 20))});
                     }),
            "20 20 EPERM done EINVAL");
  for (const int number : {-1, 16}) {
    confinement.limits = {{number, 1}};
    EXPECT_THAT(Confined(confinement, [] { return "confined"; }),
                HasSubstr(absl::StrCat("limit resource ", number, ": there")));
  }
}

// --- paths ---

class PathsTest : public ConfinementTest {
 protected:
  PathsTest() {
    for (const char* name : {"/read", "/write", "/execute", "/other"}) {
      std::filesystem::create_directory(directory() + name);
      std::ofstream(directory() + name + "/file") << "text";
    }
    paths_.readable = {directory() + "/read"};
    paths_.writable = {directory() + "/write"};
    paths_.executable = {directory() + "/execute"};
    paths_.least_landlock_abi = 1;
  }

  void TearDown() override {
    for (const char* name : {"/read", "/write", "/execute", "/other"}) {
      std::filesystem::remove_all(directory() + name);
    }
    ConfinementTest::TearDown();
  }

  Confinement ToPaths() const {
    Confinement confinement;
    confinement.paths = paths_;
    return confinement;
  }

  bool IsMissing() const {
    return kUnderSanitizer ||
           absl::StrContains(Confined(ToPaths(), [] { return ""; }),
                             "is needed");
  }

  AllowedPaths paths_;
};

constexpr const char* kNoLandlock =
    "this kernel, or a sanitizer, has no Landlock";

TEST_F(PathsTest, WhatIsNotNamedIsDenied) {
  if (IsMissing()) GTEST_SKIP() << kNoLandlock;
  const FileDescriptor open_already(
      open((directory() + "/other").c_str(), O_PATH | O_CLOEXEC));
  const std::string seen = Confined(ToPaths(), [&] {
    std::string all;
    for (const char* name : {"/read", "/write", "/execute", "/other"}) {
      const std::string path = directory() + name;
      absl::StrAppend(&all, name, ": ",
                      InTurn({ToOpen(path + "/file", O_RDONLY),
                              ToOpen(path, O_RDONLY | O_DIRECTORY),
                              ToOpen(path + "/file", O_WRONLY),
                              ToOpen(path + "/new", O_WRONLY | O_CREAT),
                              Outcome(mkdir((path + "/folder").c_str(), 0700)),
                              Outcome(unlink((path + "/file").c_str()))}),
                      "\n");
    }
    return absl::StrCat(all,
                        Outcome(openat(open_already.get(), "file", O_RDONLY)));
  });
  EXPECT_EQ(seen,
            "/read: done done EACCES EACCES EACCES EACCES\n"
            "/write: done done done done done done\n"
            "/execute: done done EACCES EACCES EACCES EACCES\n"
            "/other: EACCES EACCES EACCES EACCES EACCES EACCES\n"
            "EACCES");
}

TEST_F(PathsTest, ExecutesWhatIsNamedForIt) {
  if (IsMissing()) GTEST_SKIP() << kNoLandlock;
  const auto execute = [](const std::string& path) {
    const std::array<char*, 1> nothing = {nullptr};
    execve(path.c_str(), nothing.data(), nothing.data());
    return std::string(strerrorname_np(errno));
  };
  for (const char* name : {"/read", "/execute"}) {
    EXPECT_EQ(chmod((directory() + name + "/file").c_str(), 0700), 0);
  }
  EXPECT_EQ(Confined(ToPaths(),
                     [&] {
                       return InTurn({execute(directory() + "/read/file"),
                                      execute(directory() + "/execute/file")});
                     }),
            "EACCES ENOEXEC");
}

TEST_F(PathsTest, FilesAreNamedAsDirectoriesAre) {
  if (IsMissing()) GTEST_SKIP() << kNoLandlock;
  paths_.writable = {directory() + "/other/file"};
  EXPECT_EQ(
      Confined(ToPaths(),
               [this] {
                 return InTurn({ToOpen(directory() + "/other/file", O_RDWR),
                                ToOpen(directory() + "/write/file", O_RDONLY)});
               }),
      "done EACCES");
}

TEST_F(PathsTest, ProcessesOutsideGetNoSignals) {
  paths_.least_landlock_abi = 6;
  if (IsMissing()) GTEST_SKIP() << kNoLandlock;
  const pid_t parent = getpid();
  EXPECT_EQ(Confined(ToPaths(),
                     [parent] {
                       return InTurn({Outcome(kill(getpid(), 0)),
                                      Outcome(kill(parent, 0))});
                     }),
            "done EPERM");
}

TEST_F(PathsTest, NothingIsTruncatedByItsName) {
  paths_.least_landlock_abi = 3;
  if (IsMissing()) GTEST_SKIP() << kNoLandlock;
  EXPECT_EQ(
      Confined(ToPaths(),
               [this] {
                 const auto empty = [this](std::string_view name) {
                   const std::string path = absl::StrCat(directory(), name);
                   return Outcome(truncate(path.c_str(), 0));
                 };
                 return InTurn({empty("/read/file"), empty("/write/file")});
               }),
      "EACCES done");
}

TEST_F(PathsTest, APathThatIsNotThereIsSaid) {
  if (IsMissing()) GTEST_SKIP() << kNoLandlock;
  paths_.readable.emplace_back("/no/such");
  EXPECT_THAT(Confined(ToPaths(), [] { return "confined"; }),
              HasSubstr("NOT_FOUND: confine the process to \"/no/such\""));
}

TEST_F(PathsTest, AKernelWithoutIsAnErrorUnlessItIsNot) {
  const auto without = [this](int error) {
    return InChild([this, error] {
      if (error != 0) DenyCalls({SYS_landlock_create_ruleset}, error);
      const absl::Status status = Confine(ToPaths());
      return status.ok() ? ToOpen(directory() + "/other/file", O_RDONLY)
                         : status.ToString();
    });
  };
  for (const int error : {ENOSYS, EOPNOTSUPP}) {
    EXPECT_THAT(without(error), HasSubstr("UNIMPLEMENTED: confine the process "
                                          "to paths: Landlock: "));
  }
  paths_.least_landlock_abi = 0;
  EXPECT_EQ(without(ENOSYS), "done");
  paths_.least_landlock_abi = 1000;
  EXPECT_THAT(without(0), HasSubstr("and version 1000 is needed"));
}

// --- system calls ---

class SystemCallsTest : public ConfinementTest {
 protected:
  void SetUp() override {
    if (kUnderSanitizer) GTEST_SKIP() << "a sanitizer makes calls of its own";
  }

  // Where denied calls fail, unless they are named.
  static Confinement ToCalls(std::vector<long> also = {}) {
    Confinement confinement;
    confinement.system_calls = {std::move(also),
                                AllowedSystemCalls::WhenDenied::kFail};
    return confinement;
  }
};

TEST_F(SystemCallsTest, WhatIsNotNamedEndsTheProcessOrFails) {
  const auto call = [] { return Outcome(syscall(SYS_sched_rr_get_interval)); };
  Confinement confinement = ToCalls();
  EXPECT_EQ(Confined(confinement, call), "EPERM");
  confinement.system_calls->when_denied = AllowedSystemCalls::WhenDenied::kKill;
  EXPECT_EQ(Confined(confinement, call), absl::StrCat("signal ", SIGSYS));
  confinement.system_calls->also = {SYS_sched_rr_get_interval};
  EXPECT_NE(Confined(confinement, call), "EPERM");
  EXPECT_EQ(Confined({}, call), Confined(confinement, call));
}

TEST_F(SystemCallsTest, ThreadsAreStartedAndProcessesAreNot) {
  const auto start_both = [] {
    bool ran = false;
    std::thread([&ran] { ran = true; }).join();
    const pid_t child = fork();
    if (child == 0) _exit(0);
    if (child > 0) waitpid(child, nullptr, 0);
    return InTurn({ran ? "done" : "not run", Outcome(child)});
  };
  EXPECT_EQ(Confined(ToCalls(), start_both), "done EPERM");
  EXPECT_EQ(Confined(ToCalls({SYS_clone, SYS_wait4}), start_both), "done done");
}

TEST_F(SystemCallsTest, SignalsAndLimitsAreTheProcesssOwn) {
  const pid_t parent = getpid();
  const auto look = [parent] {
    rlimit limit;
    const FileDescriptor event(eventfd(0, EFD_CLOEXEC));
    return InTurn({Outcome(kill(getpid(), 0)), Outcome(kill(parent, 0)),
                   Outcome(syscall(SYS_tgkill, getpid(), getpid(), 0)),
                   Outcome(syscall(SYS_tgkill, parent, parent, 0)),
                   Outcome(prlimit(0, RLIMIT_NOFILE, nullptr, &limit)),
                   Outcome(prlimit(parent, RLIMIT_NOFILE, nullptr, &limit)),
                   Outcome(fcntl(event.get(), F_GETFD)),
                   Outcome(fcntl(event.get(), F_SETOWN, parent)),
                   Outcome(kill(getpid(), 0)), Outcome(kill(0, 0)),
                   Outcome(prctl(PR_SET_NAME, "a thread")),
                   Outcome(prctl(PR_SET_PDEATHSIG, 0))});
  };
  EXPECT_EQ(Confined(ToCalls(), look),
            "done EPERM done EPERM done EPERM done EPERM done EPERM done "
            "EPERM");
}

TEST_F(SystemCallsTest, FilesAreOpenedToBeRead) {
  const std::string file = directory() + "/file";
  std::ofstream(file) << "text";
  EXPECT_EQ(
      Confined(ToCalls(),
               [&] {
                 return InTurn({ToOpen(file, O_RDONLY),
                                ToOpen(directory(), O_RDONLY | O_DIRECTORY),
                                ToOpen(file, O_PATH), ToOpen(file, O_WRONLY),
                                ToOpen(file, O_RDWR),
                                ToOpen(file + "2", O_RDONLY | O_CREAT),
                                ToOpen(file, O_RDONLY | O_TRUNC),
                                ToOpen(directory(), O_TMPFILE | O_RDWR)});
               }),
      "done done done EPERM EPERM EPERM EPERM EPERM");
  EXPECT_EQ(
      Confined(ToCalls({SYS_openat}), [&file] { return ToOpen(file, O_RDWR); }),
      "done");
  std::filesystem::remove(file);
}

TEST_F(SystemCallsTest, WhatANewerLibraryTriesIsNotThere) {
  EXPECT_EQ(
      Confined(ToCalls(),
               [] {
                 return InTurn({Outcome(syscall(SYS_clone3, nullptr, 0)),
                                Outcome(syscall(SYS_faccessat2, 0, "", 0, 0)),
                                Outcome(syscall(SYS_process_madvise)),
                                Outcome(syscall(SYS_landlock_create_ruleset)),
                                Outcome(syscall(1 << 20))});
               }),
      "ENOSYS EPERM ENOSYS ENOSYS ENOSYS");
  EXPECT_EQ(Confined(ToCalls({SYS_clone3}),
                     [] { return Outcome(syscall(SYS_clone3, nullptr, 0)); }),
            "EINVAL");
}

#ifdef __x86_64__
// These numbers mean other calls.
TEST_F(SystemCallsTest, CallsOfAnotherMachineEndTheProcess) {
  EXPECT_EQ(Confined(ToCalls({SYS_getpid}),
                     [] {
                       long result = 20;  // getpid, of 32 bits.
                       asm volatile("int $0x80" : "+a"(result) : : "memory");
                       return absl::StrCat(result);
                     }),
            absl::StrCat("signal ", SIGSYS));
}
#endif

TEST_F(SystemCallsTest, MoreThanAFilterHasRoomForAreAnError) {
  EXPECT_THAT(Confined(ToCalls(std::vector<long>(1900, SYS_getpid)),
                       [] { return "confined"; }),
              "confined");
  EXPECT_THAT(Confined(ToCalls(std::vector<long>(2048, SYS_getpid)),
                       [] { return "confined"; }),
              HasSubstr("has 2048 calls"));
}

// --- threads ---

TEST_F(ConfinementTest, AProcessWithThreadsIsRefused) {
  EXPECT_THAT(InChild([] {
                std::thread other([] {
                  while (true) pause();
                });
                other.detach();
                return Confine({}).ToString();
              }),
              HasSubstr("FAILED_PRECONDITION: confine the process: it has 1 "
                        "other threads"));
}

}  // namespace
}  // namespace ward

#include "ward/examples/file_broker/file_broker.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/examples/file_broker/policy.h"
#include "ward/server/abstract_server.h"
#include "ward/server/posix/deny_for_test.h"
#include "ward/testing/explore.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace {

namespace fs = std::filesystem;

using ::testing::HasSubstr;
using ::ward::testing::FailsWith;

constexpr std::string_view kPolicy =
    "# What the tests ask for.\n"
    "deny  public/drafts/*\n"
    "read  public/*\n"
    "write inbox/*\n";

std::string Contents(const ward::FileDescriptor& file) {
  std::array<char, 100> text;
  const ssize_t size = read(file.get(), text.data(), text.size());
  return {text.data(), static_cast<size_t>(size < 0 ? 0 : size)};
}

class FileBrokerTest : public ward::testing::ServerTest<FileBroker> {
 protected:
  std::string root() const { return directory() + "/root"; }

  ward::ServerOptions Options(std::string_view policy) const {
    ward::ServerOptions options;
    options.arguments = {root(), std::string(policy)};
    return options;
  }

  std::unique_ptr<FileBroker> MakeServer() override {
    fs::create_directories(root() + "/public/drafts");
    fs::create_directories(root() + "/private");
    fs::create_directories(root() + "/inbox");
    fs::create_directories(directory() + "/outside");
    Put(root() + "/public/motd", "welcome");
    Put(root() + "/public/drafts/plan", "a draft");
    Put(root() + "/private/key", "the key");
    Put(directory() + "/outside/secret", "the secret");
    return std::make_unique<FileBroker>(Options(kPolicy));
  }

  void TearDown() override {
    fs::remove_all(root());
    fs::remove_all(directory() + "/outside");
    ServerTest::TearDown();
  }

  static void Put(const std::string& file, std::string_view text) {
    std::ofstream(file) << text;
  }

  std::string Read(std::string_view path) {
    const auto file = Call(kOpen, "read", path);
    return file.ok() ? Contents(*file) : std::string(file.status().message());
  }
};

TEST_F(FileBrokerTest, OpensWhatThePolicyAllows) {
  ASSERT_OK_AND_ASSIGN(const ward::FileDescriptor file,
                       Call(kOpen, "read", "public/motd"));
  EXPECT_EQ(Contents(file), "welcome");
  EXPECT_EQ(fcntl(file.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(write(file.get(), "x", 1), -1) << "it is for reading";
}

TEST_F(FileBrokerTest, CreatesAndWritesWhereThePolicySaysSo) {
  {
    ASSERT_OK_AND_ASSIGN(const ward::FileDescriptor file,
                         Call(kOpen, "create", "inbox/letter"));
    EXPECT_EQ(write(file.get(), "dear", 4), 4);
  }
  EXPECT_EQ(Call(kOpen, "create", "inbox/letter").status().code(),
            absl::StatusCode::kAlreadyExists);
  ASSERT_OK_AND_ASSIGN(const ward::FileDescriptor file,
                       Call(kOpen, "write", "inbox/letter"));
  EXPECT_EQ(write(file.get(), "D", 1), 1);
  std::string text;
  std::ifstream(root() + "/inbox/letter") >> text;
  EXPECT_EQ(text, "Dear");
  EXPECT_THAT(Call(kOpen, "read", "inbox/letter"), FailsWith(kDenied));
  EXPECT_THAT(Call(kOpen, "write", "public/motd"), FailsWith(kDenied));
}

TEST_F(FileBrokerTest, TellsNothingOfWhatIsDenied) {
  const absl::Status there = Call(kOpen, "read", "private/key").status();
  EXPECT_THAT(there, FailsWith(kDenied));
  EXPECT_EQ(Call(kOpen, "read", "private/nothing").status(), there);
  EXPECT_EQ(Call(kOpen, "read", "public/drafts/plan").status(), there);
  // Of what is allowed, all.
  EXPECT_EQ(Call(kOpen, "read", "public/nothing").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(FileBrokerTest, LeavesTheRootByNoPath) {
  for (const std::string_view path :
       {"", "/", "/etc/passwd", "..", "../outside/secret", "public/..",
        "public/../private/key", "public/./motd", "public//motd",
        "public/motd/", "./public/motd"}) {
    EXPECT_THAT(Call(kOpen, "read", path), FailsWith(kInvalidPath)) << path;
  }
  EXPECT_THAT(Call(kOpen, "read", std::string_view("public/motd\0x", 13)),
              FailsWith(kInvalidPath));
  EXPECT_THAT(
      Call(kOpen, "read", absl::StrCat("public/", std::string(5000, 'x'))),
      FailsWith(kInvalidPath));
  EXPECT_THAT(Call(kOpen, "own", "public/motd"),
              FailsWith(ward::reason::kInvalidArguments));
}

TEST_F(FileBrokerTest, FollowsNoLink) {
  fs::create_symlink("../private/key", root() + "/public/inside");
  fs::create_symlink(directory() + "/outside/secret", root() + "/public/away");
  fs::create_symlink("/proc/self/root/etc/passwd", root() + "/public/magic");
  fs::create_directory_symlink(directory() + "/outside",
                               root() + "/public/folder");
  fs::create_hard_link(directory() + "/outside/secret",
                       root() + "/public/second_name");
  for (const char* name :
       {"inside", "away", "magic", "folder/secret", "second_name"}) {
    EXPECT_THAT(Call(kOpen, "read", absl::StrCat("public/", name)),
                FailsWith(kDenied))
        << name;
  }
  EXPECT_THAT(Call(kOpen, "create", "inbox/../public/x"),
              FailsWith(kInvalidPath));
}

TEST_F(FileBrokerTest, HandsOutRegularFilesOnlyAndWaitsForNone) {
  ASSERT_EQ(mkfifo((root() + "/public/fifo").c_str(), 0600), 0);
  ASSERT_EQ(mkfifo((root() + "/inbox/fifo").c_str(), 0600), 0);
  EXPECT_THAT(Call(kOpen, "read", "public/fifo"), FailsWith(kDenied));
  EXPECT_THAT(Call(kOpen, "write", "inbox/fifo"), FailsWith(kDenied));
  EXPECT_THAT(Call(kOpen, "read", "public/drafts"), FailsWith(kDenied));
}

// A link that comes and goes while the broker opens: what is read is the file's
// or nothing.
TEST_F(FileBrokerTest, IsNotFooledByALinkThatIsSwappedIn) {
  const std::string name = root() + "/public/swapped";
  const std::string link = root() + "/link";
  std::vector<absl::AnyInvocable<void()>> both;
  absl::Notification done;
  both.emplace_back([&] {
    while (!done.HasBeenNotified()) {
      fs::remove(link);
      fs::create_symlink(directory() + "/outside/secret", link);
      Put(name + ".new", "harmless");
      fs::rename(name + ".new", name);
      ward::testing::SchedulingPoint();
      fs::rename(link, name);
    }
  });
  both.emplace_back([&] {
    for (int i = 0; i < 300; ++i) {
      const std::string text = Read("public/swapped");
      EXPECT_FALSE(absl::StrContains(text, "secret")) << text;
    }
    done.Notify();
  });
  RunAtOnce(std::move(both));
}

TEST_F(FileBrokerTest, WhateverIsAskedForStaysWithinPolicyAndRoot) {
  fs::create_symlink("..", root() + "/public/up");
  const std::array<const char*, 12> parts = {
      "public", "private", "inbox", "drafts", "..", ".",
      "up",     "motd",    "plan",  "key",    "",   "outside"};
  std::mt19937 random(1);
  int opened = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string path;
    for (uint32_t left = 1 + random() % 4; left > 0; --left) {
      absl::StrAppend(&path, path.empty() ? "" : "/",
                      parts.at(random() % parts.size()));
    }
    const auto file = Call(kOpen, "read", path);
    if (!file.ok()) continue;
    ++opened;
    const std::string target =
        fs::read_symlink(absl::StrCat("/proc/self/fd/", file->get())).string();
    EXPECT_EQ(target, fs::canonical(root()).string() + "/public/motd") << path;
  }
  EXPECT_GT(opened, 0);
}

TEST_F(FileBrokerTest, WhatIsWrongWithThePolicyComesOutOfStart) {
  FileBroker typo(Options("read public/*\nraed private/*\n"));
  EXPECT_THAT(std::string(typo.Start().message()),
              HasSubstr("line 2 of the policy begins with \"raed\""));
  FileBroker absolute(Options("read /etc/*\n"));
  EXPECT_THAT(std::string(absolute.Start().message()), HasSubstr("line 1"));
  ward::ServerOptions options = Options("");
  options.arguments[0] += "/nothing";
  FileBroker nowhere(std::move(options));
  EXPECT_EQ(nowhere.Start().code(), absl::StatusCode::kNotFound);
  FileBroker nothing{ward::ServerOptions()};
  EXPECT_EQ(nothing.Start().code(), absl::StatusCode::kInvalidArgument);
}

// What the kernel says of it (proc(5), /proc/pid/status).
std::string StatusOf(pid_t process, std::string_view field) {
  std::ifstream status(absl::StrCat("/proc/", process, "/status"));
  for (std::string line; std::getline(status, line);) {
    if (absl::StartsWith(line, field)) return line;
  }
  return "";
}

TEST_F(FileBrokerTest, HasGivenUpWhatItDoesNotNeed) {
  if (ward::testing::TestMode() != ward::testing::Mode::kForked &&
      ward::testing::TestMode() != ward::testing::Mode::kExec) {
    GTEST_SKIP() << "a server in the test's own process gives up nothing";
  }
  const pid_t broker = server().server_pid();
  EXPECT_EQ(StatusOf(broker, "NoNewPrivs:"), "NoNewPrivs:\t1");
  EXPECT_EQ(StatusOf(broker, "CapPrm:"), "CapPrm:\t0000000000000000");
#if !defined(ABSL_HAVE_ADDRESS_SANITIZER) && \
    !defined(ABSL_HAVE_THREAD_SANITIZER)
  EXPECT_EQ(StatusOf(broker, "Seccomp:"), "Seccomp:\t2");
#endif
}

// Of a process of its own: it is denied the call for ever.
class BrokerInASandbox : public FileBroker {
 public:
  using FileBroker::FileBroker;

 protected:
  absl::Status InitializeServer() override {
    ward::DenyCalls({SYS_openat2}, ENOSYS);
    return FileBroker::InitializeServer();
  }
};

TEST_F(FileBrokerTest, SaysAtItsStartThatASandboxDeniesItsCall) {
  if (ward::testing::TestMode() != ward::testing::Mode::kForked) {
    GTEST_SKIP() << "a server in the test's own process has its sandbox, and "
                    "one that is started by exec is a FileBroker";
  }
  BrokerInASandbox broker(Options(kPolicy));
  EXPECT_THAT(std::string(broker.Start().message()), HasSubstr("openat2"));
}

}  // namespace

// Servers that are confined before their first client: they serve as others do,
// and have lost what they gave up. What ward calls is what its list has.

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/bulk.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/call_context.h"
#include "ward/server/confinement.h"
#include "ward/server/environment.h"
#include "ward/server/exec_main.h"
#include "ward/server/method.h"
#include "ward/server/posix/system_call_filter.h"
#include "ward/server/server_for_test.h"
#include "ward/server/stream.h"
#include "ward/server/trace_for_test.h"
#include "ward/server/zygote.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uid_t kSomebody = 12345;
constexpr gid_t kSomeGroup = 12346;

inline constexpr Method<std::string, std::string> kEcho{"method"};
inline constexpr Method<Bulk, Bulk> kTurn{"turn"};
inline constexpr Method<FileDescriptor, FileDescriptor> kPass{"pass"};
inline constexpr Method<Stream<int>, int> kSum{"sum"};
// Replies at once, and goes on until its channel is cut.
inline constexpr Method<void, Stream<int>> kUntilCut{"until_cut"};
inline constexpr Method<void, void> kThrow{"throw"};
inline constexpr Method<void, void> kUntilCancelled{"until_cancelled"};
inline constexpr Method<void, int> kHangups{"hangups"};
// What a file that InitializeServer has opened has.
inline constexpr Method<void, std::string> kReadOpened{"read_opened"};
inline constexpr Method<std::string, std::string> kRead{"read"};
inline constexpr Method<void, std::string> kRights{"rights"};
// Makes the system call of this number, without arguments.
inline constexpr Method<int, int> kCallKernel{"call_kernel"};
inline constexpr Method<void, int> kFork{"fork"};

// One that does whatever ward can do. Its argument, if it has one, is a file
// that it opens before it is confined.
struct Server : Registered<Server> {
  explicit Server(ServerOptions options = {}) : Registered(std::move(options)) {
    Define(kEcho, [](const std::string& text) -> absl::StatusOr<std::string> {
      return text;
    });
    Define(kTurn, [](const Bulk& in) -> absl::StatusOr<Bulk> {
      WARD_ASSIGN_OR_RETURN(BulkBuffer out, AllocateBulk(in.bytes().size()));
      std::copy(in.bytes().rbegin(), in.bytes().rend(), out.bytes().begin());
      return std::move(out).Seal();
    });
    Define(kPass, [](FileDescriptor file) -> absl::StatusOr<FileDescriptor> {
      return file;
    });
    Define(kSum, [](StreamReader<int>& numbers) -> absl::StatusOr<int> {
      int sum = 0;
      while (const std::optional<int> number = numbers.Next()) sum += *number;
      WARD_RETURN_IF_ERROR(numbers.status());
      return sum;
    });
    Define(kUntilCut, [](const CallContext& context, StreamWriter<int>& out) {
      WARD_RETURN_IF_ERROR(out.Write(1));
      return UntilCancelled(context);
    });
    Define(kThrow, []() -> absl::Status { throw std::runtime_error("oops"); });
    Define(kUntilCancelled, &UntilCancelled);
    Define(kHangups, [this]() -> absl::StatusOr<int> { return hangups_; });
    DefineSignalHandler(SIGHUP, [this] { ++hangups_; });
    Define(kReadOpened, [this]() -> absl::StatusOr<std::string> {
      return ReadSome(opened_.get());
    });
    Define(kRead, [](const std::string& file) -> absl::StatusOr<std::string> {
      const FileDescriptor opened(open(file.c_str(), O_RDONLY | O_CLOEXEC));
      if (!opened.is_open()) return SystemError(errno, file);
      return ReadSome(opened.get());
    });
    Define(kRights, []() -> absl::StatusOr<std::string> {
      __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
      std::array<__user_cap_data_struct, 2> sets{};
      syscall(SYS_capget, &header, sets.data());
      gid_t more = 0;
      const int groups = getgroups(1, &more);
      rlimit limit{};
      getrlimit(RLIMIT_NOFILE, &limit);
      return absl::StrCat(getuid(), " ", getgid(), " ", groups, ":", more, " ",
                          sets[0].effective, " ", limit.rlim_max, " ",
                          prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    });
    Define(kCallKernel, [](int number) -> absl::StatusOr<int> {
      return syscall(number) < 0 ? errno : 0;
    });
    Define(kFork, []() -> absl::StatusOr<int> {
      const pid_t child = fork();
      if (child < 0) return errno;
      if (child == 0) _exit(0);
      int status = -1;
      waitpid(child, &status, 0);
      return status;
    });
  }

 protected:
  absl::Status InitializeServer() override {
    if (options().arguments.empty()) return absl::OkStatus();
    opened_ = FileDescriptor(
        open(options().arguments[0].c_str(), O_RDONLY | O_CLOEXEC));
    return opened_.is_open() ? absl::OkStatus()
                             : SystemError(errno, options().arguments[0]);
  }

 private:
  static absl::Status UntilCancelled(const CallContext& context) {
    while (!context.cancelled()) absl::SleepFor(absl::Milliseconds(1));
    return absl::CancelledError("as it was told");
  }

  std::atomic<int> hangups_{0};
  FileDescriptor opened_;
};

struct Mode {
  std::string_view name;
  StartMode mode;
};
constexpr Mode kModes[] = {{"fork", StartMode::kFork},
                           {"exec", StartMode::kExec},
                           {"zygote", StartMode::kZygote}};

ServerOptions InMode(StartMode mode, Confinement confinement) {
  ServerOptions options;
  options.start_mode = mode;
  options.confinement = std::move(confinement);
  return options;
}

std::shared_ptr<Zygote> MakeZygote() {
  auto zygote = Environment::Default().StartZygote();
  EXPECT_THAT(zygote, IsOk());
  return *std::move(zygote);
}

// Has `use` use a server of each mode.
void InEachMode(const Confinement& confinement,
                const std::vector<std::string>& arguments,
                absl::FunctionRef<void(Server&)> use) {
  for (const Mode& mode : kModes) {
    SCOPED_TRACE(mode.name);
    ServerOptions options = InMode(mode.mode, confinement);
    options.arguments = arguments;
    if (mode.mode == StartMode::kZygote) options.zygote = MakeZygote();
    Server server(std::move(options));
    ASSERT_THAT(server.Start(), IsOk());
    use(server);
  }
}

class ConfinedServerTest : public NothingLeftTest {};

// --- what is given up ---

TEST_F(ConfinedServerTest, HasGivenUpWhatItIsTo) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to have what is given up";
  const std::string file = directory() + "/file";
  std::ofstream(file) << "for root";
  EXPECT_EQ(chmod(file.c_str(), 0600), 0);
  Confinement confinement;
  confinement.user = {kSomebody, kSomeGroup, {50}};
  confinement.capabilities = {CAP_CHOWN};
  confinement.limits = {{RLIMIT_NOFILE, 300}};
  InEachMode(confinement, {file}, [&file](Server& server) {
    EXPECT_THAT(server.Call(kRights),
                IsOkAndHolds(absl::StrCat(kSomebody, " ", kSomeGroup, " 1:50 ",
                                          1 << CAP_CHOWN, " 300 1")));
    EXPECT_THAT(server.Call(kReadOpened), IsOkAndHolds("for root"));
    EXPECT_THAT(server.Owners(),
                FailsWith(reason::kOwnersUnknown, "is confined"));
    EXPECT_EQ(server.Call(kRead, file).status().code(),
              absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(server.Stop(), IsOk());
  });
  std::filesystem::remove(file);
}

TEST_F(ConfinedServerTest, OpensWhatItMayAndHasWhatItHadOpened) {
  if (kUnderSanitizer ||
      syscall(SYS_landlock_create_ruleset, nullptr, 0, 1) < 1) {
    GTEST_SKIP() << "this kernel, or a sanitizer, has no Landlock";
  }
  std::vector<std::string> files;
  for (const char* name : {"/read", "/write", "/execute", "/other"}) {
    files.push_back(directory() + name);
    std::ofstream(files.back()) << name;
  }
  Confinement confinement;
  confinement.paths.emplace().readable = {files[0]};
  confinement.paths->writable = {files[1]};
  confinement.paths->executable = {files[2]};
  confinement.paths->least_landlock_abi = 1;
  InEachMode(confinement, {files[3]}, [&](Server& server) {
    EXPECT_THAT(server.Call(kRead, files[0]), IsOkAndHolds("/read"));
    EXPECT_THAT(server.Call(kRead, files[1]), IsOkAndHolds("/write"));
    EXPECT_THAT(server.Call(kRead, files[2]), IsOkAndHolds("/execute"));
    EXPECT_EQ(server.Call(kRead, files[3]).status().code(),
              absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(server.Call(kReadOpened), IsOkAndHolds("/other"));
    EXPECT_THAT(server.Stop(), IsOk());
  });
  for (const std::string& file : files) std::filesystem::remove(file);
}

TEST_F(ConfinedServerTest, AServerThatCannotBeConfinedDoesNotStart) {
  const std::string notes = directory() + "/notes";
  struct Noting : Registered<Noting> {
    using Registered::Registered;
    absl::Status FinalizeServer() override { return Note("finalized"); }
  };
  Confinement confinement;
  confinement.paths.emplace().least_landlock_abi = 1000;
  for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
    ServerOptions options = InMode(mode, confinement);
    options.arguments = {notes};
    Noting server(std::move(options));
    EXPECT_THAT(std::string(server.Start().message()),
                HasSubstr("version 1000 is needed"));
    EXPECT_TRUE(Exists(notes)) << "what it had begun was not ended";
    std::filesystem::remove(notes);
  }
}

// --- all that ward does ---

// For what a client waits for in vain.
constexpr absl::Duration kShort = absl::Milliseconds(50);

// Has a server of these options do what ward can do, and stops it.
absl::Status UseAll(ServerOptions options) {
  options.max_clients = 2;
  options.authentication_timeout = kShort;
  options.spin_time = absl::Milliseconds(1);
  options.drain_time = kShort;
  Server server(std::move(options));
  WARD_RETURN_IF_ERROR(server.Start());

  // Values, errors, descriptors, memory, streams.
  for (const size_t size : {1, 300000, 3000000}) {
    const std::string text(size, 'x');
    WARD_ASSIGN_OR_RETURN(const std::string reply, server.Call(kEcho, text));
    if (reply != text) return absl::InternalError("another text");
  }
  for (const size_t size : {10, 100000, 3000000}) {
    WARD_ASSIGN_OR_RETURN(BulkBuffer out, AllocateBulk(size));
    WARD_ASSIGN_OR_RETURN(const Bulk bulk, std::move(out).Seal());
    WARD_RETURN_IF_ERROR(server.Call(kTurn, bulk).status());
  }
  EXPECT_THAT(server.Call(kThrow), FailsWith(reason::kUserCodeThrew));
  EXPECT_THAT(Call(server, "no such"), FailsWith(reason::kUnknownMessage));
  {
    Pipe pipe = MakePipe();
    WARD_RETURN_IF_ERROR(server.Call(kPass, pipe.read).status());
    WARD_ASSIGN_OR_RETURN(auto numbers, server.Call(kSum));
    for (int i = 0; i < 1000; ++i) WARD_RETURN_IF_ERROR(numbers.Write(i));
    EXPECT_THAT(numbers.Finish(), IsOkAndHolds(499500));
  }
  WARD_RETURN_IF_ERROR(server.Stats().status());
  WARD_RETURN_IF_ERROR(server.Methods().status());
  (void)server.Owners();

  // Calls that end early.
  CallOptions short_one;
  short_one.deadline = absl::Now() + kShort;
  EXPECT_THAT(server.Call(kUntilCancelled, short_one),
              FailsWith(reason::kTimedOut));

  // Clients that are none.
  {
    ServerOptions wrong;
    wrong.socket_filename = server.socket_filename();
    wrong.password = Secret("a wrong password");
    TestServer client(std::move(wrong));
    EXPECT_THAT(Call(client, "echo", "x"), FailsWith(reason::kInvalidPassword));
    const FileDescriptor silent = RawConnect(server.socket_filename());
    const FileDescriptor talks = RawConnect(server.socket_filename());
    WriteAll(talks.get(), "this is no frame");
    RawConnect(server.socket_filename());
    EXPECT_TRUE(BecomesReadable(silent.get()));
    EXPECT_TRUE(BecomesReadable(talks.get()));
  }

  // More than there are places for, on threads that come and go.
  std::vector<std::thread> clients;
  for (int i = 0; i < 6; ++i) {
    clients.emplace_back(
        [&server] { EXPECT_THAT(CallServer(server, "echo", "x"), IsOk()); });
  }
  for (std::thread& client : clients) client.join();

  // Signals, and the end while a client is served.
  EXPECT_EQ(kill(server.server_pid(), SIGHUP), 0);
  while (server.Call(kHangups).value_or(1) == 0) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  WARD_ASSIGN_OR_RETURN(auto events, server.Call(kUntilCut));
  EXPECT_TRUE(events.Next().has_value());
  absl::Status stopped;
  EXPECT_FALSE(server
                   .Connect([&](MessageChannel& channel) -> absl::Status {
                     WARD_RETURN_IF_ERROR(channel.Write("hold"));
                     WARD_RETURN_IF_ERROR(channel.Read().status());
                     stopped = server.Stop();
                     return channel.Read().status();
                   })
                   .ok());
  return stopped;
}

TEST_F(ConfinedServerTest, ServesWithTheListAlone) {
  if (kUnderSanitizer) GTEST_SKIP() << "a sanitizer makes calls of its own";
  Confinement confinement;
  confinement.system_calls.emplace();
  for (const Mode& mode : kModes) {
    SCOPED_TRACE(mode.name);
    ServerOptions options = InMode(mode.mode, confinement);
    if (mode.mode == StartMode::kZygote) options.zygote = MakeZygote();
    EXPECT_THAT(UseAll(std::move(options)), IsOk());
  }
}

// As a broker for other users would be.
TEST_F(ConfinedServerTest, ServesWithAllGivenUp) {
  if (kUnderSanitizer) GTEST_SKIP() << "a sanitizer makes calls of its own";
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to have what is given up";
  Confinement confinement;
  confinement.user = {kSomebody, kSomeGroup, {}};
  confinement.limits = {{RLIMIT_CORE, 0}, {RLIMIT_NOFILE, 200}};
  confinement.paths.emplace().least_landlock_abi = 0;
  confinement.system_calls.emplace();
  for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
    EXPECT_THAT(UseAll(InMode(mode, confinement)), IsOk());
  }
}

TEST_F(ConfinedServerTest, WhatItIsNotToCallEndsItAndTheOwnerIsTold) {
  if (kUnderSanitizer) GTEST_SKIP() << "a sanitizer makes calls of its own";
  Confinement confinement;
  confinement.system_calls.emplace().also = {SYS_getppid};
  InEachMode(confinement, {}, [](Server& server) {
    EXPECT_THAT(server.Call(kCallKernel, SYS_getppid), IsOkAndHolds(0));
    EXPECT_THAT(server.Call(kCallKernel, SYS_getpgid),
                FailsWith(reason::kCallCut, "Confinement::system_calls"));
    EXPECT_THAT(server.Stop(),
                FailsWith(reason::kServerDied, "Confinement::system_calls"));
  });
  confinement.system_calls->when_denied = AllowedSystemCalls::WhenDenied::kFail;
  InEachMode(confinement, {}, [](Server& server) {
    EXPECT_THAT(server.Call(kCallKernel, SYS_getpgid), IsOkAndHolds(EPERM));
    EXPECT_THAT(server.Call(kFork), IsOkAndHolds(EPERM));
    EXPECT_THAT(server.Stop(), IsOk());
  });
}

TEST_F(ConfinedServerTest, AHandlerMayForkWithTheCallsThatItTakes) {
  if (kUnderSanitizer) GTEST_SKIP() << "a sanitizer makes calls of its own";
  Confinement confinement;
  confinement.system_calls.emplace().also = {
      SYS_clone, SYS_wait4, SYS_getsockname, SYS_dup3, SYS_openat};
  InEachMode(confinement, {}, [](Server& server) {
    EXPECT_THAT(server.Call(kFork), IsOkAndHolds(0));
    EXPECT_THAT(server.Stop(), IsOk());
  });
}

// --- the list ---

// What a confined process, and its threads, call until it ends, by number; each
// with how often.
using Calls = std::map<long, int>;

pid_t ProcessOf(pid_t thread) {
  std::ifstream status(absl::StrCat("/proc/", thread, "/status"));
  for (std::string line; std::getline(status, line);) {
    pid_t process;
    if (std::sscanf(line.c_str(), "Tgid: %d", &process) == 1) return process;
  }
  return 0;
}

// Those of the processes that come of `body`, which runs in a child, from where
// they restrict their calls.
Calls TraceConfined(absl::FunctionRef<int()> body) {
  const pid_t child = fork();
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    _exit(body());
  }
  Calls calls;
  std::map<pid_t, pid_t> processes;  // Of threads.
  std::set<pid_t> confined;
  TraceSystemCalls(child, [&](pid_t thread, const __ptrace_syscall_info& info) {
    const auto number = static_cast<long>(info.entry.nr);
    pid_t& process = processes[thread];
    if (process == 0) process = ProcessOf(thread);
    if (confined.count(process) != 0) {
      ++calls[number];
    } else if (number == SYS_prctl && info.entry.args[0] == PR_SET_SECCOMP) {
      confined.insert(process);
    }
  });
  return calls;
}

// What depends on the user, the machine, its C library, or chance.
constexpr std::string_view kNotAlways[] = {"brk",
                                           "clock_gettime",
                                           "fstat",
                                           "geteuid",
                                           "getrandom",
                                           "gettid",
                                           "ioctl",
                                           "kill",
                                           "lseek",
                                           "mprotect",
                                           "mremap",
                                           "pread64",
                                           "pwrite64",
                                           "restart_syscall",
                                           "rseq",
                                           "sched_getparam",
                                           "sched_getscheduler",
                                           "sched_yield",
                                           "set_robust_list",
                                           "sched_getaffinity",
                                           "timerfd_create",
                                           "timerfd_settime",
                                           "writev"};

TEST_F(ConfinedServerTest, TheListHasWhatWardCalls) {
  if (kUnderSanitizer) GTEST_SKIP() << "a sanitizer makes calls of its own";
  Confinement confinement;
  confinement.system_calls.emplace();
  // So that a call which is not on the list is seen, and does not end it.
  for (long number = 0; number < SYS_clone3; ++number) {
    confinement.system_calls->also.push_back(number);
  }
  std::set<long> seen;
  for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
    const Calls calls = TraceConfined([&] {
      EXPECT_THAT(UseAll(InMode(mode, confinement)), IsOk());
      return HasFailure() ? 1 : 0;
    });
    for (const auto& [number, times] : calls) seen.insert(number);
  }
  std::vector<std::string> unseen;
  for (const AllowedCall& call : WardsCalls()) {
    if (seen.erase(call.number) == 0) unseen.emplace_back(call.name);
  }
  seen.erase(SYS_clone3);  // Which is answered as on an older kernel.
  EXPECT_THAT(seen, IsEmpty()) << "they are not on the list";
  EXPECT_THAT(unseen, ::testing::IsSubsetOf(kNotAlways)) << "nobody makes them";
}

std::string Condition(Only only) {
  switch (only) {
    case Only::kAlways:
      return "";
    case Only::kThreads:
      return "`CLONE_THREAD`: no process";
    case Only::kThisProcess:
      return "of the process itself";
    case Only::kThisProcessOrZero:
      return "of the process itself, or 0";
    case Only::kNaming:
      return "`PR_SET_NAME`, `PR_SET_VMA`";
    case Only::kAskingForTerminal:
      return "`TCGETS`";
    case Only::kNotOwner:
      return "not `F_SETOWN`, `F_SETOWN_EX`";
    case Only::kReading:
      return "to read";
  }
  return "";
}

// On a machine whose calls they are.
TEST_F(ConfinedServerTest, TheListIsDocumented) {
#ifndef __x86_64__
  GTEST_SKIP() << "the document has the names of x86-64";
#endif
  std::string table;
  for (const AllowedCall& call : WardsCalls()) {
    absl::StrAppend(&table, "| `", call.name, "` | ", call.what_for, " | ",
                    Condition(call.only), " |\n");
  }
  std::ifstream file("docs/confinement.md");
  std::stringstream page;
  page << file.rdbuf();
  EXPECT_THAT(page.str(), HasSubstr(table)) << "the table is\n" << table;
}

}  // namespace
}  // namespace ward

int main(int argc, char** argv) {
  ward::ServeIfExeced(argc, argv);
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}

// What asks the world, whose answers no seed decides: names of hosts, other
// programs, other machines. It does what it always does, and is said once; the
// watchdog waits a minute for it.

#include "ward/testing/interception/world.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ward/testing/interception/children.h"
#include "ward/testing/interception/held_files.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/outside.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/remarks.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/watchdog.h"

WARD_REAL(getaddrinfo);
WARD_REAL(getnameinfo);
WARD_REAL(gethostbyname);
WARD_REAL(gethostbyname2);
WARD_REAL(gethostbyaddr);
WARD_REAL(gethostbyname_r);
WARD_REAL(gethostbyname2_r);
WARD_REAL(gethostbyaddr_r);
WARD_REAL(connect);
WARD_REAL(popen);
WARD_REAL(pclose);
WARD_REAL(system);
WARD_REAL(fork);
WARD_REAL(vfork);
WARD_REAL(posix_spawn);
WARD_REAL(posix_spawnp);
WARD_REAL(ppoll);
WARD_REAL(waitid);

namespace ward::testing {
namespace {

struct Program {
  // What a child may have to say; null for another program.
  std::shared_ptr<const LastWords> words;
  // It waits until it is killed, as far as is known, and so nothing of it is
  // waited for.
  bool waits_for_good = false;
  // The run fails, as nobody will.
  bool is_told = false;
};

// Programs that run, and are to be waited for.
struct Programs {
  std::map<pid_t, Program> processes;
  std::set<const FILE*> pipes;
};

bool IsRunning(pid_t process) {
  siginfo_t about{};
  return real_waitid(P_PID, static_cast<id_t>(process), &about,
                     WEXITED | WNOHANG | WNOWAIT) == 0 &&
         about.si_pid == 0;
}

// Whether it sleeps, and no signal is on its way to it, which would end it or
// have it do something (proc(5)). Who has said that it is going to wait may not
// do so yet.
bool IsAtRest(pid_t process) {
  std::ifstream about(absl::StrCat("/proc/", process, "/status"));
  bool sleeps = false;
  uint64_t sent = 0;
  uint64_t blocked = 0;
  for (std::string name; about >> name;) {
    std::string value;
    if (name == "State:") sleeps = about >> value && value == "S";
    if (name != "SigPnd:" && name != "ShdPnd:" && name != "SigBlk:") continue;
    uint64_t signals = 0;
    if (!(about >> value) || !absl::SimpleHexAtoi(value, &signals)) {
      return false;
    }
    (name == "SigBlk:" ? blocked : sent) |= signals;
  }
  return sleeps && (sent & ~blocked) == 0;
}

// Whether there are programs, all of which wait for good.
bool AllWaitForGood(Programs& programs) {
  bool all = programs.pipes.empty() && !programs.processes.empty();
  for (auto& [process, program] : programs.processes) {
    const bool waits = program.words != nullptr &&
                       program.words->WaitsForGood() && IsRunning(process) &&
                       IsAtRest(process);
    if (waits && !program.waits_for_good) Watchdog::WorldHasAnswered();
    if (!waits && program.waits_for_good) Watchdog::ExpectTheWorld();
    program.waits_for_good = waits;
    all &= waits;
  }
  return all;
}

// Who waits for good is in a deadlock if nobody of this run is left who might
// kill it; see Scheduler::SetLastResort. Only once all are at rest none of them
// can have anybody go on any more.
bool TellDeadlocks(Scheduler& scheduler, absl::FunctionRef<bool()> is_last) {
  const NoSchedulingPoints quiet;
  auto& programs = scheduler.Kept<Programs>();
  if (!AllWaitForGood(programs) || !is_last()) return false;
  bool are_new = false;
  for (auto& [process, program] : programs.processes) {
    if (std::exchange(program.is_told, true)) continue;
    are_new = true;
    scheduler.Fault(program.words->Said());
    kill(process, SIGKILL);
  }
  return are_new;
}

// What those say that wait for good, though others may still kill them.
std::string LastWordsOfAll(Scheduler& scheduler) {
  const NoSchedulingPoints quiet;
  std::string all;
  for (const auto& [process, program] : scheduler.Kept<Programs>().processes) {
    if (program.words != nullptr && program.words->WaitsForGood() &&
        !program.is_told && IsRunning(process)) {
      absl::StrAppend(&all, program.words->Said());
    }
  }
  return all;
}

void Remark(Scheduler& scheduler, const char* function) {
  AskOutside(scheduler);
  Remarks::Add(function, "which asks the world: a replay may differ");
}

// A call by a simulated thread that asks the world, and waits for the answer:
// not in the schedule, as it may hold locks of the C library's.
class AskingTheWorld {
 public:
  AskingTheWorld(Scheduler& scheduler, const char* function) {
    Remark(scheduler, function);
    Watchdog::ExpectTheWorld();
  }
  AskingTheWorld(const AskingTheWorld&) = delete;
  AskingTheWorld& operator=(const AskingTheWorld&) = delete;
  ~AskingTheWorld() { Watchdog::WorldHasAnswered(); }

 private:
  const NoSchedulingPoints quiet_;
};

template <typename Result, typename... Parameters, typename... Arguments>
Result Ask(const char* function, Real<Result, Parameters...>& real,
           Arguments... arguments) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real(arguments...);
  scheduler->Point("asking the world");
  const AskingTheWorld asking(*scheduler, function);
  return real(arguments...);
}

void Expect(Scheduler& scheduler, pid_t child,
            std::shared_ptr<const LastWords> words = nullptr) {
  scheduler.Kept<Programs>().processes[child].words = std::move(words);
  Watchdog::ExpectTheWorld();
  scheduler.SetLastResort(
      [&scheduler](absl::FunctionRef<bool()> is_last) {
        return TellDeadlocks(scheduler, is_last);
      },
      [&scheduler] { return LastWordsOfAll(scheduler); });
}

template <typename Function, typename... Arguments>
int Spawn(const char* function, Function& real, pid_t* child,
          Arguments... arguments) {
  Scheduler* const scheduler = Intercepting();
  pid_t started = 0;
  int error;
  if (scheduler == nullptr) {
    error = real(&started, arguments...);
  } else {
    scheduler->Point("starting a program");
    const NoSchedulingPoints quiet;
    Remark(*scheduler, function);
    error = real(&started, arguments...);
    if (error == 0) Expect(*scheduler, started);
  }
  if (child != nullptr && error == 0) *child = started;
  return error;
}

pid_t Fork(const char* function) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_fork();
  scheduler->Point("forking");
  const auto words = [&] {
    const NoSchedulingPoints quiet;
    Remark(*scheduler, function);
    return std::make_shared<LastWords>();
  }();
  const pid_t child = ForkInSchedule(*scheduler, words);
  const NoSchedulingPoints quiet;
  if (child > 0) Expect(*scheduler, child, words);
  if (child == 0) HeldFiles::Close(*scheduler);
  return child;
}

pid_t ForkAsVfork() { return Fork("vfork"); }

}  // namespace

bool IsElsewhere(const sockaddr* address, socklen_t size) {
  if (address->sa_family == AF_INET && size >= sizeof(sockaddr_in)) {
    sockaddr_in found;
    std::memcpy(&found, address, sizeof(found));
    // Linux takes no address for its own.
    const in_addr_t host = ntohl(found.sin_addr.s_addr);
    return host != INADDR_ANY && host >> IN_CLASSA_NSHIFT != IN_LOOPBACKNET;
  }
  if (address->sa_family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
    sockaddr_in6 found;
    std::memcpy(&found, address, sizeof(found));
    return !IN6_IS_ADDR_UNSPECIFIED(&found.sin6_addr) &&
           !IN6_IS_ADDR_LOOPBACK(&found.sin6_addr);
  }
  return false;
}

int ConnectElsewhere(int fd, const sockaddr* address, socklen_t size) {
  return Ask("connect", real_connect, fd, address, size);
}

pid_t GiveTimeToChild(Scheduler& scheduler, absl::FunctionRef<pid_t()> look) {
  scheduler.WaitUntilIdle(/*or_yield=*/true);
  timespec moment = {0, 50'000};
  for (int naps = 0; naps < 17; ++naps) {
    const pid_t found = look();
    if (found != 0) return found;
    const NoSchedulingPoints quiet;
    if (AllWaitForGood(scheduler.Kept<Programs>())) return 0;
    real_ppoll(nullptr, 0, &moment, nullptr);
    // 50 us, 100 us, ... 51 ms.
    if (naps < 10) moment.tv_nsec *= 2;
  }
  return 0;
}

bool HasChildren(Scheduler& scheduler) {
  const NoSchedulingPoints quiet;
  const auto& processes = scheduler.Kept<Programs>().processes;
  return std::any_of(
      processes.begin(), processes.end(),
      [](const auto& process) { return IsRunning(process.first); });
}

void ChildHasEnded(Scheduler& scheduler, pid_t child) {
  const NoSchedulingPoints quiet;
  auto& processes = scheduler.Kept<Programs>().processes;
  const auto found = processes.find(child);
  if (found == processes.end()) return;
  // It may have been stopped only, or left to be waited for again.
  siginfo_t about{};
  if (real_waitid(P_PID, static_cast<id_t>(child), &about,
                  WEXITED | WNOHANG | WNOWAIT) == 0) {
    return;
  }
  const Program program = std::move(found->second);
  processes.erase(found);
  if (!program.waits_for_good) Watchdog::WorldHasAnswered();
  const std::string said =
      program.words == nullptr ? "" : program.words->Said();
  if (said.empty() || program.is_told) return;
  if (!program.words->WaitsForGood()) {
    scheduler.Fault(said);
    return;
  }
  Remarks::Add("wait4",
               "which tells of a child that has ended while it waited for what "
               "no thread of it gives");
}

}  // namespace ward::testing

using ::ward::testing::Ask;
using ::ward::testing::Intercepting;
using ::ward::testing::NoSchedulingPoints;
using ::ward::testing::Programs;
using ::ward::testing::Scheduler;
using ::ward::testing::Spawn;
using ::ward::testing::Watchdog;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

int getaddrinfo(const char* host, const char* service, const addrinfo* hints,
                addrinfo** found) {
  return Ask("getaddrinfo", real_getaddrinfo, host, service, hints, found);
}

int getnameinfo(const sockaddr* address, socklen_t size, char* host,
                socklen_t host_size, char* service, socklen_t service_size,
                int flags) {
  return Ask("getnameinfo", real_getnameinfo, address, size, host, host_size,
             service, service_size, flags);
}

hostent* gethostbyname(const char* name) {
  return Ask("gethostbyname", real_gethostbyname, name);
}

hostent* gethostbyname2(const char* name, int family) {
  return Ask("gethostbyname2", real_gethostbyname2, name, family);
}

hostent* gethostbyaddr(const void* address, socklen_t size, int family) {
  return Ask("gethostbyaddr", real_gethostbyaddr, address, size, family);
}

int gethostbyname_r(const char* name, hostent* found, char* buffer, size_t size,
                    hostent** result, int* error) {
  return Ask("gethostbyname_r", real_gethostbyname_r, name, found, buffer, size,
             result, error);
}

int gethostbyname2_r(const char* name, int family, hostent* found, char* buffer,
                     size_t size, hostent** result, int* error) {
  return Ask("gethostbyname2_r", real_gethostbyname2_r, name, family, found,
             buffer, size, result, error);
}

int gethostbyaddr_r(const void* address, socklen_t address_size, int family,
                    hostent* found, char* buffer, size_t size, hostent** result,
                    int* error) {
  return Ask("gethostbyaddr_r", real_gethostbyaddr_r, address, address_size,
             family, found, buffer, size, result, error);
}

int system(const char* command) { return Ask("system", real_system, command); }

// Its output is read, and awaited, by functions that the C library makes
// itself.
FILE* popen(const char* command, const char* mode) {
  FILE* const pipe = Ask("popen", real_popen, command, mode);
  Scheduler* const scheduler = Intercepting();
  if (scheduler != nullptr && pipe != nullptr) {
    const NoSchedulingPoints quiet;
    scheduler->Kept<Programs>().pipes.insert(pipe);
    Watchdog::ExpectTheWorld();
  }
  return pipe;
}

int pclose(FILE* pipe) {
  Scheduler* const scheduler = Intercepting();
  if (scheduler == nullptr) return real_pclose(pipe);
  scheduler->Point("waiting for a program");
  const NoSchedulingPoints quiet;
  const bool expected = scheduler->Kept<Programs>().pipes.erase(pipe) > 0;
  const int status = real_pclose(pipe);
  if (expected) Watchdog::WorldHasAnswered();
  return status;
}

pid_t fork() noexcept { return ward::testing::Fork("fork"); }

// What vfork() jumps to. A simulated thread has fork(2), as POSIX allows: a
// child with this process's memory would be in the schedule with all that it
// calls.
pid_t (*WardChooseVfork())() {
  if (Intercepting() != nullptr) return &ward::testing::ForkAsVfork;
  return real_vfork.Find();
}

int posix_spawn(pid_t* child, const char* path,
                const posix_spawn_file_actions_t* actions,
                const posix_spawnattr_t* attributes, char* const arguments[],
                char* const environment[]) {
  return Spawn("posix_spawn", real_posix_spawn, child, path, actions,
               attributes, arguments, environment);
}

int posix_spawnp(pid_t* child, const char* file,
                 const posix_spawn_file_actions_t* actions,
                 const posix_spawnattr_t* attributes, char* const arguments[],
                 char* const environment[]) {
  return Spawn("posix_spawnp", real_posix_spawnp, child, file, actions,
               attributes, arguments, environment);
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"

// The child returns to where it was called from, and the parent does so after
// it: there may be no other function between (vfork(2)).
#if defined(__x86_64__)
asm(R"(
  .text
  .globl vfork
  .type vfork, @function
vfork:
  .cfi_startproc
  endbr64
  subq $8, %rsp
  .cfi_adjust_cfa_offset 8
  call WardChooseVfork@PLT
  addq $8, %rsp
  .cfi_adjust_cfa_offset -8
  jmp *%rax
  .cfi_endproc
  .size vfork, .-vfork
)");
#elif defined(__aarch64__)
asm(R"(
  .text
  .globl vfork
  .type vfork, %function
vfork:
  .cfi_startproc
  stp x29, x30, [sp, #-16]!
  .cfi_adjust_cfa_offset 16
  bl WardChooseVfork
  mov x16, x0
  ldp x29, x30, [sp], #16
  .cfi_adjust_cfa_offset -16
  br x16
  .cfi_endproc
  .size vfork, .-vfork
)");
#endif

// What a process gives up for ever when it has what it needs: so that whoever
// takes a server over through a client has little by it.
//
//   ward::Confinement confinement;
//   confinement.user = {kBrokerUser, kBrokerGroup, {}};
//   confinement.paths.emplace().readable = {"/srv/files"};
//   confinement.system_calls.emplace().also = {SYS_openat2};
//   options.confinement = std::move(confinement);  // ServerOptions
//
// A server's process is confined before its first client. Another process calls
// Confine().
//
// Always given up, whatever else is: to get more rights by exec, as from a
// set-user-ID program (no_new_privs, prctl(2)), and all capabilities that are
// not named.
//
// In a program with AddressSanitizer, ThreadSanitizer or MemorySanitizer,
// `paths` and `system_calls` are looked at, and not applied: their runtimes
// read /proc, and trace the process at its end.
//
// Misuse:
// - In a process with threads: capabilities and paths are a thread's own
//   (capset(2), landlock_restrict_self(2)), and the others would keep theirs.
//   Refused. A server that starts threads in InitializeServer calls Confine()
//   there first, and has no ServerOptions::confinement.
// - A limit of RLIMIT_NPROC: it counts the threads of all of the user's
//   processes (getrlimit(2)), and a server has one for each client.
// - RLIMIT_FSIZE under the size of what a server replies in a Bulk, which is a
//   file: the signal SIGXFSZ.

#ifndef WARD_SERVER_CONFINEMENT_H_
#define WARD_SERVER_CONFINEMENT_H_

#include <sys/resource.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace ward {

// See Confinement::user. Both numbers must be there: -1 is refused.
struct ProcessUser {
  uid_t user = static_cast<uid_t>(-1);
  gid_t group = static_cast<gid_t>(-1);
  std::vector<gid_t> groups;
};

// See Confinement::limits.
struct ResourceLimit {
  int resource = RLIMIT_CORE;
  rlim_t most = 0;
};

// See Confinement::paths.
struct AllowedPaths {
  // Read, and list.
  std::vector<std::string> readable;
  // Read, list, write, truncate, create, rename, remove, and ioctl(2) of
  // devices.
  std::vector<std::string> writable;
  // Read, list, and execute.
  std::vector<std::string> executable;

  // The version of Landlock's interface without which this fails
  // (Unimplemented). 3, of Linux 6.2, is the first that keeps a process from
  // emptying a file by truncate(2). With 0 the process is confined as far as
  // the kernel can do it: where that has no Landlock, not at all.
  int least_landlock_abi = 3;
};

// See Confinement::system_calls.
struct AllowedSystemCalls {
  // Numbers (SYS_... of sys/syscall.h), with whatever arguments.
  std::vector<long> also;

  enum class WhenDenied {
    // The process ends by SIGSYS, and its owner is told so; the kernel's log
    // has the number (journalctl -k, or dmesg: "sig=31 ... syscall="). A server
    // that does what it never does is not to be trusted with one more
    // instruction; and no code has been tested with all the errors that it
    // would get otherwise.
    kKill,
    // The call fails with EPERM. For who has to find out what handlers need.
    kFail,
  };
  WhenDenied when_denied = WhenDenied::kKill;
};

// All that a process gives up; the default is what it always does.
struct Confinement {
  // Whom the process becomes: real, effective and saved user and group, and the
  // supplementary groups, which are these alone (setresuid(2), setgroups(2)).
  // Needs CAP_SETUID and CAP_SETGID, unless it is that user already. Default:
  // who it is.
  //
  // Of another user it is not for others of that user to trace, and dumps core
  // for nobody, or where fs.suid_dumpable is 2 for root (prctl(2),
  // PR_SET_DUMPABLE). It cannot remove its socket's name
  // any more: its owner does, if it lives (docs/names.md). It does not see who
  // its owners are. Clients are by default processes of the new user, and root:
  // see ServerOptions::admit_peer, and socket_mode.
  std::optional<ProcessUser> user;

  // The capabilities that the process keeps (CAP_... of linux/capability.h),
  // also as another user; it must have them. All others go, those of root too.
  // Default: none (capabilities(7)). User 0 owns the system's files without
  // any: as root, set `user` or `paths`, too. With fewer than an owner it does
  // not see that one (AbstractServer::Owners; ptrace(2), "access mode
  // checking").
  std::vector<int> capabilities;

  // What it may use at most, in the unit that getrlimit(2) has for `resource`
  // (RLIMIT_...): the soft and the hard limit are lowered to it, and never
  // raised.
  std::vector<ResourceLimit> limits;

  // The files that the process may use from now on: these, and those beneath
  // these directories (landlock(7)). What is open stays open; files are not
  // hidden (stat(2)); their modes, owners, times and attributes may be changed
  // as before, so set system_calls, too; sockets are connected to as before,
  // but of version 6 on (Linux 6.12) not abstract ones of processes outside,
  // which then get no signals either. Default: all that its user may use.
  //
  // Without its socket's directory among the writable ones it cannot remove its
  // socket's name: as under `user`. It sees no owner.
  std::optional<AllowedPaths> paths;

  // The system calls that the process may make from now on: those that ward
  // makes in a server's (docs/confinement.md lists them), and these. So what
  // handlers do beyond that has to be named: to execute, fork, connect, or
  // write to files that are not open, ward does not need (seccomp(2)). To open
  // files for reading, and to remove them, it does: set `paths`, too. Default:
  // all.
  //
  // Calls of another kind of machine, as those of 32 bits on x86-64, end the
  // process. What Linux has learned since 5.9 fails with ENOSYS unless it is
  // named: a newer C library does without, as on that kernel. So does clone3:
  // threads are started by clone, which starts nothing else.
  std::optional<AllowedSystemCalls> system_calls;
};

// Confines the calling process, which must not have other threads. After an
// error it has given up a part: let it end.
//
// FailedPrecondition if it has other threads, or does not have a capability
// that it is to keep; InvalidArgument for what is no capability, user, or
// resource, and for some 1900 system calls; Unimplemented as of
// least_landlock_abi, and for system calls of another machine than x86-64 and
// arm64; those of the system call that has failed.
absl::Status Confine(const Confinement& confinement);

}  // namespace ward

#endif  // WARD_SERVER_CONFINEMENT_H_

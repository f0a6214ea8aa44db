#include "ward/server/lifecycle.h"

#include <signal.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/log_severity.h"
#include "absl/cleanup/cleanup.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/listener.h"
#include "ward/server/poll_set.h"
#include "ward/server/process.h"
#include "ward/server/zygote.h"

namespace ward {
namespace {

constexpr std::string_view kReady = "ready";
constexpr std::string_view kQuit = "quit";

// How long a process may take from closing its descriptors, or from SIGKILL, to
// its end: nothing but the kernel's own work, of which 5 s were seen on a
// machine under load.
constexpr absl::Duration kLastMoment = absl::Seconds(30);

// A server kills itself when its owner should have done so this long ago: there
// is none. At the same moment, a live owner would take it for a crash.
constexpr absl::Duration kOwnerIsGone = absl::Seconds(1);

bool WasKilled(const ProcessExit& exit) {
  return exit.kind == ProcessExit::Kind::kSignaled && exit.value == SIGKILL;
}

}  // namespace

OwnerLink::OwnerLink(Environment& environment,
                     std::unique_ptr<Transport> transport,
                     absl::Duration start_timeout, uint64_t owners_end)
    : environment_(&environment),
      channel_(std::move(transport)),
      owners_end_(owners_end) {
  Tie(nullptr);
  QuitWithin(start_timeout);
}

int OwnerLink::Serve(absl::AnyInvocable<absl::Status(OwnerLink&)> serve) {
  const absl::Status status = serve(*this);
  if (status.ok()) return 0;
  if (ready_) {
    environment_->Log(absl::LogSeverity::kError,
                      absl::StrCat("server failed: ", status.ToString()));
  } else {
    ReportFailure(status);
  }
  return 1;
}

absl::StatusOr<std::vector<ProcessInfo>> OwnerLink::Owners() const {
  if (environment_ == nullptr) {
    return MakeError(reason::kOwnersUnknown,
                     "who owns the server is known only to one that its owner "
                     "has started in a process of its own");
  }
  WARD_ASSIGN_OR_RETURN(std::vector<ProcessInfo> owners,
                        environment_->Holders(owners_end_));
  if (owners.empty() && !channel_.transport()->HungUp()) {
    return MakeError(
        reason::kOwnersUnknown,
        "the server has an owner, but sees in /proc/PID/fd none that holds its "
        "end: the server's user may not look into it (it is another user's, or "
        "has changed its user since its program started: prctl(2), "
        "PR_SET_DUMPABLE; or the server is confined, and the owner is not), it "
        "is in another pid namespace, or the end is on "
        "its way in a message. Have the owner set PR_SET_DUMPABLE to 1, or ask "
        "as root: `ss -xp` shows both ends");
  }
  return owners;
}

void OwnerLink::Tie(const Listener* listener) {
  if (environment_ == nullptr) return;
  // Untied it still ends: at its deadline, or when it is ready.
  const absl::Status status =
      environment_->TieProcess(*channel_.transport(), listener);
  if (!status.ok()) {
    environment_->Log(absl::LogSeverity::kWarning, status.message());
  }
}

void OwnerLink::Untie() {
  if (environment_ == nullptr) return;
  const absl::Status status = environment_->UntieProcess(*channel_.transport());
  if (!status.ok()) {
    environment_->Log(absl::LogSeverity::kWarning, status.message());
  }
}

void OwnerLink::LeaveNoName(const Listener& listener) { Tie(&listener); }

void OwnerLink::SetDeadline(absl::Duration left) {
  if (environment_ == nullptr) return;
  // Without its deadline the process still ends when its owner sees to it.
  const absl::Status status = environment_->SetProcessDeadline(left);
  if (!status.ok()) {
    environment_->Log(absl::LogSeverity::kWarning, status.message());
  }
}

void OwnerLink::QuitWithin(absl::Duration limit) {
  SetDeadline(limit + kOwnerIsGone);
}

absl::Status OwnerLink::ReportReady() {
  ready_ = true;
  Untie();
  SetDeadline(absl::InfiniteDuration());
  return channel_.Write(kReady);
}

void OwnerLink::ReportFailure(const absl::Status& status) {
  if (ready_) return;
  // An owner that has read it says the word: the end is this process's own.
  Untie();
  // An owner that is gone needs no answer.
  (void)channel_.WriteError(status);
}

absl::StatusOr<std::unique_ptr<OwnerWatch>> OwnerWatch::Create(
    Environment& environment, OwnerLink& owner, Listener& listener) {
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<PollSet> events,
                        environment.CreatePollSet());
  WARD_RETURN_IF_ERROR(
      events->Add(1, owner.pollable(), PollSet::Event::kReadable));
  return absl::WrapUnique(
      new OwnerWatch(environment, owner, listener, std::move(events)));
}

OwnerWatch::OwnerWatch(Environment& environment, OwnerLink& owner,
                       Listener& listener, std::unique_ptr<PollSet> events)
    : environment_(environment),
      owner_(owner),
      listener_(listener),
      events_(std::move(events)) {}

void OwnerWatch::Call(absl::Duration limit, absl::FunctionRef<void()> body) {
  absl::StatusOr<std::unique_ptr<Thread>> thread =
      environment_.StartThread([this, limit] { Watch(limit); });
  if (!thread.ok()) {
    environment_.Log(absl::LogSeverity::kWarning, thread.status().message());
  }
  const absl::Cleanup end = [&] {
    if (!thread.ok()) return;
    events_->Wake();
    thread->reset();
  };
  body();
}

void OwnerWatch::Watch(absl::Duration limit) {
  const absl::StatusOr<uint64_t> heard_of =
      events_->Wait(absl::InfiniteFuture());
  if (!heard_of.ok() || *heard_of == 0) return;
  // First: the file system of the name may not answer.
  owner_.QuitWithin(limit);
  listener_.RemovePath();
}

ServerProcess::ServerProcess(Environment& environment,
                             std::unique_ptr<Process> process,
                             std::unique_ptr<Transport> owner)
    : environment_(environment),
      process_(std::move(process)),
      owner_(std::move(owner)) {}

absl::Status ServerProcess::Watch() {
  WARD_ASSIGN_OR_RETURN(news_, environment_.CreatePollSet());
  WARD_RETURN_IF_ERROR(
      news_->Add(1, *owner_.transport(), PollSet::Event::kReadable));
  return news_->Add(2, *process_, PollSet::Event::kReadable);
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Adopt(
    Environment& environment, std::unique_ptr<Process> process,
    std::unique_ptr<Transport> owner) {
  std::unique_ptr<ServerProcess> server(
      new ServerProcess(environment, std::move(process), std::move(owner)));
  WARD_RETURN_IF_ERROR(server->Watch());
  return server;
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Launched(
    Environment& environment, std::unique_ptr<Process> process,
    std::unique_ptr<Transport> owner, absl::Duration start_timeout,
    absl::Time start_deadline) {
  std::unique_ptr<ServerProcess> server(
      new ServerProcess(environment, std::move(process), std::move(owner)));
  server->launcher_ = environment.ForkGeneration();
  server->start_timeout_ = start_timeout;
  server->start_deadline_ = start_deadline;
  server->waited_ = false;
  const absl::Status status = server->Watch();
  if (status.ok()) return server;
  server->KillAndReap();
  return status;
}

void ServerProcess::KillAndReap() {
  (void)process_->Kill(SIGKILL);
  (void)Stop({kLastMoment});
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Fork(
    Environment& environment, LaunchOptions options,
    absl::AnyInvocable<absl::Status(OwnerLink&)> serve) {
  WARD_ASSIGN_OR_RETURN(auto ends, environment.CreateTransportPair());
  WARD_ASSIGN_OR_RETURN(const uint64_t owners_end,
                        environment.SocketId(*ends.first));
  options.fork.keep_open.push_back(ends.second->descriptor());
  options.fork.tie = ends.second->descriptor();
  options.fork.process_group = options.process_group;
  // Or it would own itself.
  options.fork.close.push_back(ends.first->descriptor());
  // The server's end lives in the child's function alone: were it to stay open
  // here, the end of the stream would never come.
  auto child = [&environment, transport = std::move(ends.second),
                timeout = options.start_timeout, owners_end,
                serve = std::move(serve)]() mutable {
    OwnerLink owner(environment, std::move(transport), timeout, owners_end);
    return owner.Serve(std::move(serve));
  };
  WARD_ASSIGN_OR_RETURN(std::unique_ptr<Process> process,
                        environment.Fork(options.fork, std::move(child)));
  return Launched(environment, std::move(process), std::move(ends.first),
                  options.start_timeout,
                  environment.TimeNow() + options.start_timeout);
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Exec(
    Environment& environment, const LaunchOptions& options, Zygote* zygote,
    const std::string& entry,
    absl::FunctionRef<absl::Status(MessageChannel&, uint64_t owners_end)>
        hand_over) {
  const absl::Time deadline = environment.TimeNow() + options.start_timeout;
  WARD_ASSIGN_OR_RETURN(auto ends, environment.CreateTransportPair());
  WARD_ASSIGN_OR_RETURN(auto link, environment.CreateTransportPair());
  WARD_ASSIGN_OR_RETURN(const uint64_t owners_end,
                        environment.SocketId(*ends.first));
  ExecLinks links = {std::move(link.second), std::move(ends.second)};
  WARD_ASSIGN_OR_RETURN(
      std::unique_ptr<Process> process,
      zygote != nullptr
          ? zygote->Fork(entry, std::move(links), options.process_group,
                         deadline)
          : environment.Exec(entry, std::move(links), options.process_group));
  WARD_ASSIGN_OR_RETURN(
      std::unique_ptr<ServerProcess> server,
      Launched(environment, std::move(process), std::move(ends.first),
               options.start_timeout, deadline));
  MessageChannel out(std::move(link.first));
  out.set_timeout(deadline - environment.TimeNow());
  const absl::Status status = hand_over(out, owners_end);
  // That the child is gone is better told by WaitUntilReady: it knows how.
  if (status.ok() || HasReason(status, reason::kConnectionLost)) return server;
  server->KillAndReap();
  return status;
}

absl::Status ServerProcess::WaitUntilReady() {
  waited_ = true;
  // A child of the server's may have kept its end open.
  const Pollable* const polled[] = {owner_.transport(), process_.get()};
  const absl::StatusOr<size_t> news =
      environment_.Poll(polled, start_deadline_);
  const bool ended = news.ok() && *news == 1;
  owner_.set_timeout(start_deadline_ - environment_.TimeNow());
  const absl::StatusOr<Message> word =
      ended ? absl::StatusOr<Message>(MakeError(
                  reason::kEndOfStream, "the server's process has ended"))
            : owner_.Read();
  owner_.set_timeout(kLastMoment);
  if (word.ok()) return absl::OkStatus();

  const bool died = HasReason(word.status(), reason::kEndOfStream) ||
                    HasReason(word.status(), reason::kConnectionLost);
  const bool late = HasReason(word.status(), reason::kTimedOut);
  if (late) (void)process_->Kill(SIGKILL);
  const absl::Status end = Stop({kLastMoment});
  if (died) {
    // One that exits cleanly before it has said anything has failed, too.
    const absl::Status how =
        end.ok() ? Died({ProcessExit::Kind::kExited, 0}) : end;
    const absl::StatusOr<ProcessExit> exit =
        process_->Wait(environment_.TimeNow());
    return Annotate(how, !killed_ && exit.ok() && WasKilled(*exit)
                             ? "the server was not ready yet (another owner "
                               "that stops it then kills it)"
                             : "the server was not ready yet (its standard "
                               "error may say why)");
  }
  if (late) {
    return Annotate(
        word.status(),
        absl::StrCat("the server was not ready within ",
                     absl::FormatDuration(start_timeout_), " and was killed"));
  }
  return word.status();
}

bool ServerProcess::launched_here() const {
  return environment_.ForkGeneration() == launcher_;
}

absl::Status ServerProcess::Stop(const StopOptions& options) {
  // Once: a channel has one user. A failure to write means that the server has
  // closed its end already.
  const absl::Status asked =
      asked_to_quit_.exchange(true) ? absl::OkStatus() : owner_.Write(kQuit);
  absl::StatusOr<ProcessExit> exit =
      process_->Wait(environment_.TimeNow() + options.kill_after);
  std::string why;
  if (!exit.ok()) {
    why = absl::StrCat(" (", exit.status().message(), ")");
    killed_ = true;
    // One that this process may not kill, as its user was changed, does so
    // itself: see OwnerLink::QuitWithin.
    const absl::Status killed = process_->Kill(SIGKILL);
    const absl::Duration rest = killed.ok() ? kLastMoment : 5 * kOwnerIsGone;
    exit = process_->Wait(environment_.TimeNow() + rest);
    if (!exit.ok()) return killed.ok() ? exit.status() : killed;
  }
  if (exit->clean()) return absl::OkStatus();
  const bool unknown = exit->kind == ProcessExit::Kind::kUnknown;
  const bool by_sigkill = WasKilled(*exit);
  // By this thread, or by another one that stops it and had less patience.
  if (killed_ && (unknown || by_sigkill)) {
    return MakeError(
        reason::kServerKilled,
        absl::StrCat("the server (pid ", pid(), ") did not quit within ",
                     absl::FormatDuration(options.kill_after), why,
                     " and was killed; if nothing had stopped it, look for a "
                     "handler, or a FinalizeServer, that does not return when "
                     "its channel is cut, or for a sandbox that denies "
                     "shutdown or tgkill"));
  }
  // It was tied to its end still; see OwnerLink.
  const bool starting = !waited_ && by_sigkill;
  return (unknown || starting) && asked.ok() ? absl::OkStatus() : Died(*exit);
}

absl::Status ServerProcess::CheckAlive(absl::Time until) {
  // A process that dies closes a client's connection before, or after, its end
  // of this one. That may well be readable: the word that the server is ready
  // stays there until WaitUntilReady.
  if (!owner_.transport()->HungUp() && !process_->Ending()) {
    return absl::OkStatus();
  }
  const absl::Time last_moment = environment_.TimeNow() + kLastMoment;
  const absl::StatusOr<ProcessExit> exit =
      process_->Wait(std::min(until, last_moment));
  if (exit.ok()) {
    return Died(*exit, "; stop it to clean up, and start it again");
  }
  const bool is_early =
      until < last_moment && HasReason(exit.status(), reason::kTimedOut);
  return is_early ? absl::OkStatus() : exit.status();
}

absl::Status ServerProcess::Died(const ProcessExit& exit,
                                 std::string_view advice) const {
  return MakeError(
      reason::kServerDied,
      absl::StrCat("the server (pid ", pid(), ") ", exit.ToString(), advice));
}

}  // namespace ward

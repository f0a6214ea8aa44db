// Errors that say why in a way that code can test and a person can act on.
//
// Each of ward's errors is an absl::Status with a code, a text, and a *reason*:
// a short name, carried as the status's payload and across channels.
//
//   absl::Status status = server.Start();
//   if (ward::HasReason(status, ward::reason::kPathTaken)) { ... }
//
// A server's author may add reasons: declare a `Reason` constant and return
// `MakeError(kNoSuchDevice, "...")` from a handler; the client's Read() returns
// it with code, reason and text intact.
//
// Misuse: testing the text. It is for people, and changes.

#ifndef WARD_CHANNEL_ERROR_H_
#define WARD_CHANNEL_ERROR_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace ward {

// A reason and the canonical code that always goes with it.
struct Reason {
  std::string_view name;
  absl::StatusCode code;
};

namespace reason {

// --- channel ---

// The peer has ended, between two messages: nothing more will come. In a client
// that expects ends (MessageChannel::ExpectEnd): the call has succeeded.
inline constexpr Reason kEndOfStream{"EndOfStream",
                                     absl::StatusCode::kOutOfRange};
// The peer vanished in the middle of a message, or does not read any more.
inline constexpr Reason kConnectionLost{"ConnectionLost",
                                        absl::StatusCode::kUnavailable};
// The connection broke before the server had said how the call ended. The text
// says how the server died, where this process can know. Whether the handler
// has run, or how far, nobody knows.
inline constexpr Reason kCallCut{"CallCut", absl::StatusCode::kUnavailable};
// The call was cancelled on this side, or a handler's own one on the other,
// which passes that on. Whether the handler has run, or how far, nobody knows,
// unless the text says that it has not.
inline constexpr Reason kCallCancelled{"CallCancelled",
                                       absl::StatusCode::kCancelled};
// The operation's time ran out.
inline constexpr Reason kTimedOut{"TimedOut",
                                  absl::StatusCode::kDeadlineExceeded};
// What came is no frame, or not what its own header says.
inline constexpr Reason kMalformedFrame{"MalformedFrame",
                                        absl::StatusCode::kInvalidArgument};
// A frame over the limit, refused before it was sent or buffered.
inline constexpr Reason kFrameTooLarge{"FrameTooLarge",
                                       absl::StatusCode::kResourceExhausted};
// A well-formed frame of another kind than the one asked for.
inline constexpr Reason kUnexpectedFrame{"UnexpectedFrame",
                                         absl::StatusCode::kFailedPrecondition};
// More descriptors than one message can carry (253), or than are allowed.
inline constexpr Reason kTooManyDescriptors{
    "TooManyDescriptors", absl::StatusCode::kResourceExhausted};
// More descriptors of this user are in messages that nobody has read yet than
// may be (unix(7), ETOOMANYREFS): nothing was sent; later it may be.
inline constexpr Reason kDescriptorsInFlight{
    "DescriptorsInFlight", absl::StatusCode::kResourceExhausted};
// This process's descriptor table was full when descriptors arrived; they are
// lost, the channel is in step.
inline constexpr Reason kDescriptorsTruncated{
    "DescriptorsTruncated", absl::StatusCode::kResourceExhausted};
// No free descriptor in this process (EMFILE) or in the system (ENFILE).
inline constexpr Reason kDescriptorTableFull{
    "DescriptorTableFull", absl::StatusCode::kResourceExhausted};
// The wrong number of arguments, or one that does not convert.
inline constexpr Reason kInvalidArguments{"InvalidArguments",
                                          absl::StatusCode::kInvalidArgument};
// The channel was closed on this side.
inline constexpr Reason kChannelClosed{"ChannelClosed",
                                       absl::StatusCode::kFailedPrecondition};
// The password is missing or wrong.
inline constexpr Reason kInvalidPassword{"InvalidPassword",
                                         absl::StatusCode::kPermissionDenied};

// --- server ---

// It runs, and can be started again once it has been stopped.
inline constexpr Reason kServerAlreadyStarted{
    "ServerAlreadyStarted", absl::StatusCode::kFailedPrecondition};
// It was never started, or has been stopped.
inline constexpr Reason kServerNotStarted{
    "ServerNotStarted", absl::StatusCode::kFailedPrecondition};
// Who owns the server is not to be found out: it has no process of its own, or
// may look into none of its owners'.
inline constexpr Reason kOwnersUnknown{"OwnersUnknown",
                                       absl::StatusCode::kFailedPrecondition};
// The server has no handler of that name.
inline constexpr Reason kUnknownMessage{"UnknownMessage",
                                        absl::StatusCode::kUnimplemented};
// A handler or a hook threw an exception.
inline constexpr Reason kUserCodeThrew{"UserCodeThrew",
                                       absl::StatusCode::kInternal};
// The server does not serve this user (SO_PEERCRED).
inline constexpr Reason kPeerNotAllowed{"PeerNotAllowed",
                                        absl::StatusCode::kPermissionDenied};
// The server is another user's, and was not told the password (SO_PEERCRED).
inline constexpr Reason kServerNotTrusted{"ServerNotTrusted",
                                          absl::StatusCode::kPermissionDenied};
// The server is on its way out.
inline constexpr Reason kServerStopping{"ServerStopping",
                                        absl::StatusCode::kUnavailable};
// The server has no room for this client, or for one more of its process or
// user; later it may.
inline constexpr Reason kServerFull{"ServerFull",
                                    absl::StatusCode::kResourceExhausted};
// A subscriber does not read what is published (OnFull::kCut).
inline constexpr Reason kSubscriberTooSlow{
    "SubscriberTooSlow", absl::StatusCode::kResourceExhausted};
// The server's process has ended; the text names its exit code or signal.
inline constexpr Reason kServerDied{"ServerDied", absl::StatusCode::kAborted};
// The server did not stop in time and was ended with SIGKILL.
inline constexpr Reason kServerKilled{"ServerKilled",
                                      absl::StatusCode::kAborted};
// Nobody listens at the socket's path; or it is not the server's any more.
inline constexpr Reason kServerUnreachable{"ServerUnreachable",
                                           absl::StatusCode::kUnavailable};
// Something lives at the socket's path: a file, or a server that answers.
inline constexpr Reason kPathTaken{"PathTaken",
                                   absl::StatusCode::kAlreadyExists};
// The socket's file name is longer than a Unix socket's address can say.
inline constexpr Reason kPathTooLong{"PathTooLong",
                                     absl::StatusCode::kInvalidArgument};
// A fork from a process that has other threads.
inline constexpr Reason kForkWithThreads{"ForkWithThreads",
                                         absl::StatusCode::kFailedPrecondition};
// Another server of this process already receives its signals.
inline constexpr Reason kSignalsTaken{"SignalsTaken",
                                      absl::StatusCode::kFailedPrecondition};
// The collection of servers was cleaned up and takes no more.
inline constexpr Reason kCollectionClosed{
    "CollectionClosed", absl::StatusCode::kFailedPrecondition};
// SIGKILL, SIGSTOP or no signal at all.
inline constexpr Reason kInvalidSignal{"InvalidSignal",
                                       absl::StatusCode::kInvalidArgument};

// All of them.
inline constexpr Reason kAll[] = {
    kEndOfStream,
    kConnectionLost,
    kCallCut,
    kCallCancelled,
    kTimedOut,
    kMalformedFrame,
    kFrameTooLarge,
    kUnexpectedFrame,
    kTooManyDescriptors,
    kDescriptorsInFlight,
    kDescriptorsTruncated,
    kDescriptorTableFull,
    kInvalidArguments,
    kChannelClosed,
    kInvalidPassword,
    kServerAlreadyStarted,
    kServerNotStarted,
    kOwnersUnknown,
    kUnknownMessage,
    kUserCodeThrew,
    kPeerNotAllowed,
    kServerNotTrusted,
    kServerStopping,
    kServerFull,
    kSubscriberTooSlow,
    kServerDied,
    kServerKilled,
    kServerUnreachable,
    kPathTaken,
    kPathTooLong,
    kForkWithThreads,
    kSignalsTaken,
    kCollectionClosed,
    kInvalidSignal,
};

}  // namespace reason

// A status with the reason's code and name.
absl::Status MakeError(const Reason& reason, std::string_view text);

// As MakeError, for a reason that came from elsewhere; an empty `reason` is
// none. An OK code stays OK.
absl::Status MakeError(absl::StatusCode code, std::string_view reason,
                       std::string_view text);

// What a failed system call means: "`attempt`: <strerror>", with the code of
// absl::ErrnoToStatus. EMFILE and ENFILE get kDescriptorTableFull and what to
// do about it.
absl::Status SystemError(int error_number, std::string_view attempt);

// `status` with "`context`: " before its text; code and payloads are kept.
absl::Status Annotate(const absl::Status& status, std::string_view context);

// The name of the reason that `status` carries, or nothing.
std::string ReasonOf(const absl::Status& status);
// Whether that is `reason`'s name.
bool HasReason(const absl::Status& status, const Reason& reason);

}  // namespace ward

#endif  // WARD_CHANNEL_ERROR_H_

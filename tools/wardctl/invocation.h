// A call of a method as it stands on the command line.

#ifndef WARD_TOOLS_WARDCTL_INVOCATION_H_
#define WARD_TOOLS_WARDCTL_INVOCATION_H_

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/message.h"
#include "ward/tools/wardctl/access.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/content.h"
#include "ward/tools/wardctl/messages.h"

namespace ward::ctl {

inline constexpr Option kDescriptorSet{
    "descriptor-set", "FILE",
    "where the .proto files of the messages are, if the server does not tell "
    "(protoc --include_imports --descriptor_set_out=FILE)"};

// Has `messages` know those of the server, or of that file. A server that does
// not have them is no error.
absl::Status Learn(Access& access, const CommandLine& line, Messages& messages);

struct Invocation {
  Content request;
  Content reply;
  // The message that begins the call.
  Message first;
  // Of a request that is a stream.
  std::vector<Message> elements;
  // These come from standard input instead, a line each.
  bool reads_input = false;
};

// Asks the server what its method METHOD takes and makes that of ARGUMENT...,
// which are `words`. `messages` knows the types of both sides then. All by
// access.deadline(). kUsage.
absl::StatusOr<Invocation> Prepare(Access& access, const CommandLine& line,
                                   absl::Span<const std::string> words,
                                   Messages& messages);

// Makes the call, and calls `use` for each message until its end. What the
// server says while it is written to does not stand in its way, unless an
// element is larger than what sockets hold. May be called by many threads at
// once, if nothing comes from standard input. Over a connection that an earlier
// call has left only if `may_be_kept`, and the call is one message.
absl::Status Invoke(Access& access, absl::Time deadline, bool may_be_kept,
                    const Invocation& invocation, const Messages& messages,
                    absl::FunctionRef<absl::Status(Message)> use);

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_INVOCATION_H_

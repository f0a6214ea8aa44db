#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/message.h"
#include "ward/channel/status_macros.h"
#include "ward/tools/wardctl/access.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/commands.h"
#include "ward/tools/wardctl/content.h"
#include "ward/tools/wardctl/invocation.h"
#include "ward/tools/wardctl/messages.h"
#include "ward/tools/wardctl/password.h"

namespace ward::ctl {
namespace {

constexpr Option kCallTimeout{
    kTimeout.name, kTimeout.argument,
    "give up after TIME, such as 500ms, 2s or 1m30s; the server is told. "
    "Default: never"};
constexpr Option kOptions[] = {kCallTimeout,  kOutput,     kRaw,
                               kPasswordFile, kPasswordFd, kServerUser,
                               kDescriptorSet};

absl::Status Run(const CommandLine& line) {
  WARD_ASSIGN_OR_RETURN(const std::unique_ptr<Access> access,
                        Access::Make(line, absl::InfiniteDuration()));
  Messages messages;
  Printer printer(line, messages, access->deadline());
  WARD_ASSIGN_OR_RETURN(
      const Invocation invocation,
      Prepare(*access, line, absl::MakeConstSpan(line.operands()).subspan(1),
              messages));
  return Invoke(*access, access->deadline(), /*may_be_kept=*/false, invocation,
                messages, [&](Message reply) {
                  return printer.Print(invocation.reply, std::move(reply));
                });
}

}  // namespace

constexpr Command kCall = {
    "call",
    "SERVER METHOD [ARGUMENT]...",
    2,
    10000,
    "call a method of a server, and print its reply",
    "The server is asked for what METHOD takes and returns (wardctl methods). "
    "An "
    "ARGUMENT stands for a value of it:\n\n"
    "  string, number, bool   itself\n"
    "  protobuf message       its text format, such as 'name: \"bolt\" most: "
    "2', "
    "or\n"
    "                         \"-\", which reads that from standard input\n"
    "  bulk                   a file that has its bytes; \"-\" is standard "
    "input\n"
    "  descriptor             a file to be opened for reading, or \"fd:N\",\n"
    "                         descriptor N of the shell's (as 3>log opens it)\n"
    "  descriptors            NAME=FILE,..., each as above\n"
    "  stream of these        as many as there are, or \"-\", for a stream of "
    "one\n"
    "                         value each: lines of standard input, as they "
    "come\n\n"
    "A reply, and each element of a stream as it comes, is a line: its values, "
    "with tabs between. What is no printable character is escaped as in C. A "
    "protobuf message that is alone in its reply has several lines. Of a "
    "descriptor there is what it leads to, such as </etc/hosts>.\n\n"
    "A handler that converses gets the arguments, and hears that there are no "
    "more.",
    kOptions,
    &Run,
};

}  // namespace ward::ctl

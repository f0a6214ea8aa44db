// What stands in requests and replies: words of the command line on the one
// side, lines on the other.

#ifndef WARD_TOOLS_WARDCTL_CONTENT_H_
#define WARD_TOOLS_WARDCTL_CONTENT_H_

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/messages.h"

namespace ward::ctl {

// A request or a reply, as ward.methods tells of it (docs/protocol.md).
struct Content {
  bool is_stream = false;
  std::vector<std::string> types;

  static Content Parse(std::string_view text);

  // Any parts: a handler that converts none, or converses.
  bool is_anything() const;
  // Whether one of the types is a protobuf's name.
  bool has_protobuf() const;
};

// A message of `name`, unless that is empty, and `words`, one for each type.
// What a word stands for is in the help of `wardctl call`; what is read for it
// comes until `deadline`, on Environment::TimeNow's clock. kUsage, kTimedOut.
absl::StatusOr<Message> MakeMessage(std::string_view name,
                                    const Content& content,
                                    absl::Span<const std::string> words,
                                    const Messages& messages,
                                    absl::Time deadline);

inline constexpr Option kOutput{
    "output", "[NAME=]FILE",
    "write what the reply's descriptor NAME can be read for into FILE (\"-\" "
    "is "
    "standard output), instead of telling of it; those without names are 1, "
    "2, ..., and 1 need not be said; may be given again"};
inline constexpr Option kRaw{
    "raw", "",
    "write strings and bulks of the reply as they are, and nothing between or "
    "behind them"};

// Prints what a call returns.
class Printer {
 public:
  // Descriptors are read until `deadline`, on Environment::TimeNow's clock.
  Printer(const CommandLine& line, const Messages& messages,
          absl::Time deadline);

  // A line on standard output; kUnexpectedFrame if `message` is not of
  // `content`; kOutputLost; kTimedOut.
  absl::Status Print(const Content& content, Message message);

 private:
  absl::Status Show(const std::vector<std::string>& fields) const;
  // What stands for it in the line; nothing if it has an output.
  absl::StatusOr<std::string> Deliver(const std::string& name,
                                      const FileDescriptor& descriptor);

  const bool raw_;
  const Messages& messages_;
  const absl::Time deadline_;
  // Of descriptors, by name; and those that were opened.
  std::map<std::string, std::string> outputs_;
  std::map<std::string, FileDescriptor> opened_;
};

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_CONTENT_H_

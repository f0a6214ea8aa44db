// How wardctl's own failures, and those that servers tell, become exit codes.

#ifndef WARD_TOOLS_WARDCTL_FAILURE_H_
#define WARD_TOOLS_WARDCTL_FAILURE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"

namespace ward::ctl {
namespace reason {

// What was typed makes no sense; nothing was asked of a server.
inline constexpr Reason kUsage{"Usage", absl::StatusCode::kInvalidArgument};
// No password was given, and there is no terminal to ask for it.
inline constexpr Reason kNoPassword{"NoPassword",
                                    absl::StatusCode::kUnauthenticated};
// The socket's mode, or a directory's, keeps this user out.
inline constexpr Reason kNotAllowed{"NotAllowed",
                                    absl::StatusCode::kPermissionDenied};
// What a server has given could not be written.
inline constexpr Reason kOutputLost{"OutputLost", absl::StatusCode::kDataLoss};

}  // namespace reason

struct ExitCode {
  int code;
  std::string_view meaning;
};

// All that there are, 0 included.
absl::Span<const ExitCode> ExitCodes();
int ExitCodeOf(const absl::Status& status);

absl::Status UsageError(std::string_view text);

// For standard error: the text, and the reason or the code. Peers' words, fit
// for a terminal.
std::string Described(const absl::Status& failure);

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_FAILURE_H_

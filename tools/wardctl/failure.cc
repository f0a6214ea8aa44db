#include "ward/tools/wardctl/failure.h"

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/tools/wardctl/printable.h"

namespace ward::ctl {
namespace {

enum : int {
  kDone = 0,
  kFailed,
  kWrong,
  kNobody,
  kRefused,
  kLate,
  kUnknown,
  kLost
};

constexpr std::array<ExitCode, 8> kExitCodes = {{
    {kDone, "Done."},
    {kFailed,
     "The server's answer is an error of its own, or something else failed."},
    {kWrong,
     "What was typed is wrong, or the server has no such method, or takes "
     "other "
     "arguments. Nothing has run, but for what stood before a wrong element of "
     "a stream."},
    {kNobody,
     "Nothing has run: no server is there, or it has no room. Later, maybe."},
    {kRefused,
     "Nothing has run: the password is missing or wrong, or one side does not "
     "trust the other's user."},
    {kLate, "Time is over. The call may have run, or run still."},
    {kUnknown,
     "The server died, was stopped, or the connection broke. The call may have "
     "run, or in part."},
    {kLost, "The call was made, but what came could not be written."},
}};

constexpr std::pair<const Reason*, int> kCodes[] = {
    {&reason::kUsage, kWrong},
    {&ward::reason::kUnknownMessage, kWrong},
    {&ward::reason::kInvalidArguments, kWrong},
    {&ward::reason::kPathTooLong, kWrong},
    {&ward::reason::kServerUnreachable, kNobody},
    {&ward::reason::kServerFull, kNobody},
    {&reason::kNoPassword, kRefused},
    {&reason::kNotAllowed, kRefused},
    {&ward::reason::kInvalidPassword, kRefused},
    {&ward::reason::kPeerNotAllowed, kRefused},
    {&ward::reason::kServerNotTrusted, kRefused},
    {&ward::reason::kTimedOut, kLate},
    {&ward::reason::kCallCut, kUnknown},
    {&ward::reason::kConnectionLost, kUnknown},
    {&ward::reason::kServerDied, kUnknown},
    {&ward::reason::kServerStopping, kUnknown},
    {&reason::kOutputLost, kLost},
};

}  // namespace

absl::Span<const ExitCode> ExitCodes() { return kExitCodes; }

int ExitCodeOf(const absl::Status& status) {
  if (status.ok()) return kDone;
  for (const auto& [known, code] : kCodes) {
    if (HasReason(status, *known)) return code;
  }
  return kFailed;
}

absl::Status UsageError(std::string_view text) {
  return MakeError(reason::kUsage, text);
}

std::string Described(const absl::Status& failure) {
  std::string reason = ReasonOf(failure);
  if (HasReason(failure, reason::kUsage)) {
    return Printable(failure.message());
  }
  if (reason.empty()) reason = absl::StatusCodeToString(failure.code());
  return absl::StrCat(Printable(failure.message()), " [", Printable(reason),
                      "]");
}

}  // namespace ward::ctl

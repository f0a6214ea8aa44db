#include "ward/channel/error.h"

#include <cerrno>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace ward {
namespace {

constexpr std::string_view kPayloadUrl = "ward/reason";

}  // namespace

absl::Status MakeError(const Reason& reason, std::string_view text) {
  return MakeError(reason.code, reason.name, text);
}

absl::Status MakeError(absl::StatusCode code, std::string_view reason,
                       std::string_view text) {
  absl::Status status(code, text);
  if (!reason.empty()) status.SetPayload(kPayloadUrl, absl::Cord(reason));
  return status;
}

absl::Status SystemError(int error_number, std::string_view attempt) {
  absl::Status plain = absl::ErrnoToStatus(error_number, attempt);
  if (error_number == EMFILE || error_number == ENFILE) {
    return MakeError(reason::kDescriptorTableFull,
                     absl::StrCat(plain.message(),
                                  "; close descriptors that are not needed, or "
                                  "raise the limit (ulimit -n)"));
  }
  return plain;
}

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(),
                         absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload(
      [&annotated](std::string_view url, const absl::Cord& payload) {
        annotated.SetPayload(url, payload);
      });
  return annotated;
}

std::string ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  return std::string(payload.value_or(absl::Cord()));
}

bool HasReason(const absl::Status& status, const Reason& reason) {
  if (status.ok()) return false;
  const auto payload = status.GetPayload(kPayloadUrl);
  return payload.has_value() && *payload == reason.name;
}

}  // namespace ward

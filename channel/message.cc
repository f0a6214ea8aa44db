#include "ward/channel/message.h"

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"

namespace ward {
namespace {

std::string Count(size_t count, std::string_view noun) {
  return absl::StrCat(count, " ", noun, count == 1 ? "" : "s");
}

}  // namespace

std::string_view Message::name() const {
  return parts_.empty() ? std::string_view() : parts_.front();
}

absl::Span<const std::string> Message::arguments() const {
  return parts().subspan(parts_.empty() ? 0 : 1);
}

absl::Status Message::CheckCounts(size_t first, size_t values,
                                  size_t descriptors) const {
  if (parts_.size() < first) {
    return MakeError(reason::kInvalidArguments, "the message has no name");
  }
  const size_t got = parts_.size() - first;
  if (got == values && descriptors_.size() == descriptors) {
    return absl::OkStatus();
  }
  return MakeError(reason::kInvalidArguments,
                   absl::StrCat("expected ", Count(values, "argument"), " and ",
                                Count(descriptors, "descriptor"), ", got ",
                                Count(got, "argument"), " and ",
                                Count(descriptors_.size(), "descriptor")));
}

absl::Status Message::Unfit(size_t argument, std::string_view kind) const {
  return MakeError(reason::kInvalidArguments,
                   absl::StrCat("argument ", argument, " must be ", kind));
}

}  // namespace ward

#include "ward/channel/message.h"

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/unclaimed_descriptors.h"

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

void Message::Recycle() {
  constexpr size_t kKeptBytes = size_t{1} << 10;
  // Those that the handler has left are a peer's, and may linger.
  UnclaimedDescriptors unclaimed;
  unclaimed.all().swap(descriptors_);
  if (parts_.capacity() > MessageParts().capacity()) {
    parts_.clear();
    parts_.shrink_to_fit();
  }
  for (std::string& part : parts_) {
    if (part.capacity() > kKeptBytes) part = std::string();
  }
}

namespace internal {

absl::Status NoName() {
  return MakeError(reason::kInvalidArguments, "the message has no name");
}

absl::Status WrongCounts(size_t parts, size_t descriptors, size_t got_parts,
                         size_t got_descriptors) {
  return MakeError(reason::kInvalidArguments,
                   absl::StrCat("expected ", Count(parts, "argument"), " and ",
                                Count(descriptors, "descriptor"), ", got ",
                                Count(got_parts, "argument"), " and ",
                                Count(got_descriptors, "descriptor")));
}

absl::Status Unfit(size_t argument, std::string_view kind) {
  return MakeError(reason::kInvalidArguments,
                   absl::StrCat("argument ", argument, " must be ", kind));
}

absl::Status OfArgument(size_t argument, const absl::Status& status) {
  return Annotate(status, absl::StrCat("argument ", argument));
}

}  // namespace internal
}  // namespace ward

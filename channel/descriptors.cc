#include "ward/channel/descriptors.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"
#include "ward/proto/frame.pb.h"

namespace ward {
namespace {

// Of a name on the wire: a tag, and a length of two bytes.
constexpr size_t kNameOverhead = 3;
constexpr size_t kLongestPart =
    kMaxDescriptorsPerMessage * (Descriptors::kLongestName + kNameOverhead);

// A name, which may be a peer's, for an error text.
std::string Quoted(std::string_view name) {
  return absl::StrCat("\"", absl::CHexEscape(name), "\"");
}

// The names, for an error text.
std::string Listed(absl::Span<const std::string> names) {
  constexpr size_t kMostShown = 16;
  if (names.empty()) return "there are none";
  return absl::StrCat(
      "there are ",
      absl::StrJoin(names.subspan(0, kMostShown), ", ",
                    [](std::string* text, std::string_view name) {
                      absl::StrAppend(text, Quoted(name));
                    }),
      names.size() > kMostShown
          ? absl::StrCat(", and ", names.size() - kMostShown, " more")
          : "");
}

// What is wrong with them; nothing if they are fit.
std::string Fault(absl::Span<const std::string> names) {
  for (const std::string& name : names) {
    if (name.empty()) return "one has the empty name";
    if (name.size() > Descriptors::kLongestName) {
      return absl::StrCat("a name has ", name.size(), " bytes, over the ",
                          Descriptors::kLongestName, " that it may have");
    }
  }
  std::vector<std::string_view> sorted(names.begin(), names.end());
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice == sorted.end()) return {};
  return absl::StrCat("two have the name ", Quoted(*twice));
}

}  // namespace

void Descriptors::Add(std::string_view name, FileDescriptor descriptor) {
  names_.emplace_back(name);
  descriptors_.push_back(std::move(descriptor));
}

absl::StatusOr<FileDescriptor> Descriptors::Take(std::string_view name) {
  const auto found = std::find(names_.begin(), names_.end(), name);
  if (found == names_.end()) {
    return MakeError(reason::kInvalidArguments,
                     absl::StrCat("no descriptor has the name ", Quoted(name),
                                  "; ", Listed(names_)));
  }
  const auto at = descriptors_.begin() + (found - names_.begin());
  FileDescriptor taken = std::move(*at);
  descriptors_.erase(at);
  names_.erase(found);
  return taken;
}

absl::Status Descriptors::Check() const {
  std::string fault = Fault(names_);
  for (size_t i = 0; i < size() && fault.empty(); ++i) {
    if (!descriptors_[i].is_open()) {
      fault = absl::StrCat(Quoted(names_[i]), " is not open");
    }
  }
  if (fault.empty()) return absl::OkStatus();
  return MakeError(reason::kInvalidArguments,
                   absl::StrCat("named descriptors: ", fault));
}

std::string Descriptors::NamesToPart() const {
  proto::DescriptorNames names;
  for (const std::string& name : names_) names.add_name(name);
  return names.SerializeAsString();
}

bool Descriptors::NamesFromPart(std::string_view part) {
  // An empty name is 2 bytes here, and many times that in memory.
  proto::DescriptorNames names;
  if (part.size() > kLongestPart ||
      !names.ParseFromArray(part.data(), static_cast<int>(part.size()))) {
    return false;
  }
  names_.assign(std::make_move_iterator(names.mutable_name()->begin()),
                std::make_move_iterator(names.mutable_name()->end()));
  return Fault(names_).empty();
}

void Descriptors::TakeNext(std::vector<FileDescriptor>::iterator& next) {
  const auto end = next + static_cast<std::ptrdiff_t>(size());
  descriptors_.assign(std::make_move_iterator(next),
                      std::make_move_iterator(end));
  next = end;
}

}  // namespace ward

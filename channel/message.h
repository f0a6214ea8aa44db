// A message as it was received: a list of byte strings, the first of which is
// its name where it asks for something, and the descriptors that came with it.
//
//   WARD_ASSIGN_OR_RETURN(ward::Message reply, channel.Read());
//   reply[0];                              // the first part
//   auto values = reply.Unpack<std::string, int>();   // StatusOr<tuple<...>>
//
// Misuse: keeping a string_view or Span into a message that is gone.

#ifndef WARD_CHANNEL_MESSAGE_H_
#define WARD_CHANNEL_MESSAGE_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ward/channel/argument.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/file_descriptor.h"

namespace ward {

// Move-only, since it owns its descriptors. Not thread-safe.
class Message {
 public:
  // Empty: no name, no parts, no descriptors, as one is that was moved from.
  Message() = default;
  explicit Message(std::vector<std::string> parts,
                   std::vector<FileDescriptor> descriptors = {})
      : parts_(std::move(parts)), descriptors_(std::move(descriptors)) {}

  // The first part; empty if there is none.
  std::string_view name() const;

  // All parts but the first.
  absl::Span<const std::string> arguments() const;

  absl::Span<const std::string> parts() const { return parts_; }
  size_t size() const { return parts_.size(); }
  const std::string& operator[](size_t i) const { return parts_[i]; }

  // The attached descriptors, in the order in which they were sent. They are
  // closed with the message unless they are moved out.
  std::vector<FileDescriptor>& descriptors() { return descriptors_; }
  const std::vector<FileDescriptor>& descriptors() const {
    return descriptors_;
  }

  // All parts, converted (see argument.h); a FileDescriptor among the types
  // takes the next attached one, Descriptors a part with names and as many. The
  // count must be exact, in parts and in descriptors. kInvalidArguments says
  // which one did not fit; its value is not repeated, it may be a secret. The
  // message is then as it was; otherwise its descriptors now belong to the
  // result.
  template <typename... Values>
  absl::StatusOr<std::tuple<Values...>> Unpack() {
    return UnpackFrom<Values...>(0);
  }

  // The same for the arguments alone.
  template <typename... Values>
  absl::StatusOr<std::tuple<Values...>> UnpackArguments() {
    return UnpackFrom<Values...>(1);
  }

 private:
  template <typename... Values>
  absl::StatusOr<std::tuple<Values...>> UnpackFrom(size_t first);

  // Converts the next part, unless `value` is a descriptor; false if it is
  // unfit, and `error` then says why.
  template <typename Value>
  bool UnpackNext(size_t& next_part, size_t first, Value& value,
                  absl::Status& error) const;

  // How many descriptors a value has names for.
  template <typename Value>
  static size_t NamesIn(const Value& value);

  // Takes the next descriptor, if `value` is one, or those that it has names
  // for.
  template <typename Value>
  void TakeNext(std::vector<FileDescriptor>::iterator& next, Value& value);

  absl::Status CheckCounts(size_t first, size_t values,
                           size_t descriptors) const;
  absl::Status Unfit(size_t argument, std::string_view kind) const;

  std::vector<std::string> parts_;
  std::vector<FileDescriptor> descriptors_;
};

// --- implementation ---

template <typename... Values>
absl::StatusOr<std::tuple<Values...>> Message::UnpackFrom(size_t first) {
  constexpr size_t kAlone =
      (size_t{0} + ... + size_t{std::is_same_v<Values, FileDescriptor>});
  constexpr size_t kParts = sizeof...(Values) - kAlone;
  // Where descriptors have names, these are read first.
  constexpr bool kHasNamed = (... || std::is_same_v<Values, Descriptors>);
  absl::Status status =
      CheckCounts(first, kParts, kHasNamed ? descriptors_.size() : kAlone);
  if (!status.ok()) return status;
  std::tuple<Values...> values;
  size_t part = first;
  const bool all_fit = std::apply(
      [&](auto&... value) {
        return (UnpackNext(part, first, value, status) && ...);
      },
      values);
  if (!all_fit) return status;
  const size_t named = std::apply(
      [](const auto&... value) { return (size_t{0} + ... + NamesIn(value)); },
      values);
  status = CheckCounts(first, kParts, kAlone + named);
  if (!status.ok()) return status;
  auto descriptor = descriptors_.begin();
  std::apply([&](auto&... value) { (TakeNext(descriptor, value), ...); },
             values);
  descriptors_.clear();
  return values;
}

template <typename Value>
bool Message::UnpackNext(size_t& next_part, size_t first, Value& value,
                         absl::Status& error) const {
  if constexpr (!std::is_same_v<Value, FileDescriptor>) {
    const size_t part = next_part++;
    bool fits = false;
    if constexpr (std::is_same_v<Value, Descriptors>) {
      fits = value.NamesFromPart(parts_[part]);
    } else {
      fits = internal::FromPart(parts_[part], value);
    }
    if (fits) return true;
    error = Unfit(part - first + 1, internal::KindOf<Value>());
    return false;
  } else {
    return true;
  }
}

template <typename Value>
size_t Message::NamesIn(const Value& value) {
  if constexpr (std::is_same_v<Value, Descriptors>) {
    return value.size();
  } else {
    return 0;
  }
}

template <typename Value>
void Message::TakeNext(std::vector<FileDescriptor>::iterator& next,
                       Value& value) {
  if constexpr (std::is_same_v<Value, FileDescriptor>) {
    value = std::move(*next++);
  } else if constexpr (std::is_same_v<Value, Descriptors>) {
    value.TakeNext(next);
  }
}

}  // namespace ward

#endif  // WARD_CHANNEL_MESSAGE_H_

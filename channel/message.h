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
#include <iterator>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ward/channel/argument.h"
#include "ward/channel/bulk.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/file_descriptor.h"

namespace ward {

// Few messages have more parts, and need no memory beside their strings'.
using MessageParts = absl::InlinedVector<std::string, 4>;

// Move-only, since it owns its descriptors. Not thread-safe.
class Message {
 public:
  // Empty: no name, no parts, no descriptors, as one is that was moved from.
  Message() = default;
  explicit Message(std::vector<std::string> parts,
                   std::vector<FileDescriptor> descriptors = {})
      : parts_(std::make_move_iterator(parts.begin()),
               std::make_move_iterator(parts.end())),
        descriptors_(std::move(descriptors)) {}

  // What they are moved from would keep its parts, empty ones.
  Message(Message&& other) noexcept
      : parts_(std::move(other.parts_)),
        descriptors_(std::move(other.descriptors_)),
        max_bulk_bytes_(other.max_bulk_bytes_) {
    other.parts_.clear();
  }
  Message& operator=(Message&& other) noexcept {
    parts_ = std::move(other.parts_);
    descriptors_ = std::move(other.descriptors_);
    max_bulk_bytes_ = other.max_bulk_bytes_;
    other.parts_.clear();
    return *this;
  }

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

  // Closes what is attached still, and gives back the memory of much: the rest
  // serves the next message that is read into this one.
  void Recycle();

  // All parts, converted (see argument.h); a FileDescriptor among the types
  // takes the next attached one, Descriptors a part with names and as many, a
  // Bulk a part, and one where that says so. The count must be exact, in parts
  // and in descriptors. kInvalidArguments says which one did not fit; its value
  // is not repeated, it may be a secret. So do errors of a Bulk's, which may be
  // kFrameTooLarge, or the kernel's that has no room to map it. The message is
  // then as it was; otherwise its descriptors now belong to the result. Of a
  // message that is about to go,
  // `std::move(message).Unpack<...>()`, so do its strings, in any case.
  template <typename... Values>
  absl::StatusOr<std::tuple<Values...>> Unpack() & {
    return UnpackFrom<Values...>(0, /*takes=*/false);
  }
  template <typename... Values>
  absl::StatusOr<std::tuple<Values...>> Unpack() && {
    return UnpackFrom<Values...>(0, /*takes=*/true);
  }

  // The same for the arguments alone.
  template <typename... Values>
  absl::StatusOr<std::tuple<Values...>> UnpackArguments() & {
    return UnpackFrom<Values...>(1, /*takes=*/false);
  }
  template <typename... Values>
  absl::StatusOr<std::tuple<Values...>> UnpackArguments() && {
    return UnpackFrom<Values...>(1, /*takes=*/true);
  }

 private:
  friend class MessageChannel;

  // `takes`: strings are moved.
  template <typename... Values>
  absl::StatusOr<std::tuple<Values...>> UnpackFrom(size_t first, bool takes);

  MessageParts parts_;
  std::vector<FileDescriptor> descriptors_;
  // Of the channel that it was read from.
  size_t max_bulk_bytes_ = ChannelLimits().max_bulk_bytes;
};

// --- implementation ---

namespace internal {

// Those of a Message, one after the other.
struct StoredParts {
  MessageParts& parts;
  size_t next;
  bool takes;

  size_t left() const { return parts.size() - next; }

  template <typename Value>
  bool Next(Value& value) {
    std::string& part = parts[next++];
    if constexpr (std::is_same_v<Value, std::string>) {
      if (takes) {
        value = std::move(part);
        return true;
      }
    }
    return FromPart(std::string_view(part), value);
  }
};

absl::Status WrongCounts(size_t parts, size_t descriptors, size_t got_parts,
                         size_t got_descriptors);
absl::Status Unfit(size_t argument, std::string_view kind);
absl::Status OfArgument(size_t argument, const absl::Status& status);

// False if the next of `parts` is unfit, and `error` then says why.
template <typename Value, typename Parts>
bool UnpackNext(Parts& parts, size_t& part, Value& value, absl::Status& error) {
  if constexpr (!std::is_same_v<Value, FileDescriptor>) {
    ++part;
    if (parts.Next(value)) return true;
    error = Unfit(part, KindOf<Value>());
    return false;
  } else {
    return true;
  }
}

// Whether how many descriptors a value has is said by its part.
template <typename Value>
inline constexpr bool kHasAttached =
    std::is_same_v<Value, Descriptors> || std::is_same_v<Value, Bulk>;

// How many that is.
template <typename Value>
size_t AttachedTo(const Value& value) {
  if constexpr (std::is_same_v<Value, Descriptors>) {
    return value.size();
  } else if constexpr (std::is_same_v<Value, Bulk>) {
    return value.has_memory() ? 1 : 0;
  } else {
    return 0;
  }
}

// False if the next descriptor is to be the memory of `value`, and is unfit;
// `error` then says why. `next` is the one behind those of `value` afterwards.
template <typename Value>
bool MapNext(std::vector<FileDescriptor>::const_iterator& next, size_t& part,
             Value& value, size_t max_bulk_bytes, absl::Status& error) {
  if constexpr (std::is_same_v<Value, FileDescriptor>) {
    ++next;
    return true;
  } else {
    ++part;
    const auto mine = next;
    next += static_cast<std::ptrdiff_t>(AttachedTo(value));
    if constexpr (std::is_same_v<Value, Bulk>) {
      if (mine == next) return true;
      error = OfArgument(part, value.Map(*mine, max_bulk_bytes));
    }
    return error.ok();
  }
}

// Takes the next descriptor, if `value` is one, or those that are its own.
template <typename Value>
void TakeNext(std::vector<FileDescriptor>::iterator& next, Value& value) {
  if constexpr (std::is_same_v<Value, FileDescriptor>) {
    value = std::move(*next++);
  } else if constexpr (std::is_same_v<Value, Descriptors>) {
    value.TakeNext(next);
  } else if constexpr (std::is_same_v<Value, Bulk>) {
    if (value.has_memory()) value.Own(std::move(*next++));
  }
}

// All that is left() in `parts`, each of which Next() converts, and
// `descriptors`, which are empty then. Of a Bulk no more than `max_bulk_bytes`.
template <typename... Values, typename Parts>
absl::StatusOr<std::tuple<Values...>> UnpackAll(
    Parts parts, std::vector<FileDescriptor>& descriptors,
    size_t max_bulk_bytes) {
  constexpr size_t kAlone =
      (size_t{0} + ... + size_t{std::is_same_v<Values, FileDescriptor>});
  constexpr size_t kParts = sizeof...(Values) - kAlone;
  // Where parts say how many descriptors there are, these are read first.
  constexpr bool kAnyAttached = (... || kHasAttached<Values>);
  const size_t wanted = kAnyAttached ? descriptors.size() : kAlone;
  if (parts.left() != kParts || descriptors.size() != wanted) {
    return WrongCounts(kParts, wanted, parts.left(), descriptors.size());
  }
  std::tuple<Values...> values;
  absl::Status status;
  size_t part = 0;
  const bool all_fit = std::apply(
      [&](auto&... value) {
        return (UnpackNext(parts, part, value, status) && ...);
      },
      values);
  if (!all_fit) return status;
  if constexpr (kAnyAttached) {
    const size_t all = std::apply(
        [](const auto&... value) { return (kAlone + ... + AttachedTo(value)); },
        values);
    if (descriptors.size() != all) {
      return WrongCounts(kParts, all, kParts, descriptors.size());
    }
    auto next = descriptors.cbegin();
    part = 0;
    const bool all_mapped = std::apply(
        [&](auto&... value) {
          return (MapNext(next, part, value, max_bulk_bytes, status) && ...);
        },
        values);
    if (!all_mapped) return status;
  }
  auto descriptor = descriptors.begin();
  std::apply([&](auto&... value) { (TakeNext(descriptor, value), ...); },
             values);
  descriptors.clear();
  return values;
}

absl::Status NoName();

}  // namespace internal

template <typename... Values>
absl::StatusOr<std::tuple<Values...>> Message::UnpackFrom(size_t first,
                                                          bool takes) {
  if (parts_.size() < first) return internal::NoName();
  return internal::UnpackAll<Values...>(
      internal::StoredParts{parts_, first, takes}, descriptors_,
      max_bulk_bytes_);
}

}  // namespace ward

#endif  // WARD_CHANNEL_MESSAGE_H_

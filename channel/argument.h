// How C++ values become the arguments of a message, and back.
//
// A message is a list of byte strings, and descriptors beside it. What can be
// an argument, and how it is written:
//
//   strings                  as they are, any bytes
//   integers                 in decimal
//   float, double            in the shortest decimal form that reads back as
//                            the same value
//   bool                     "true" or "false"
//   a protobuf message       serialized
//   FileDescriptor           not in the list: it is attached, and the receiver
//                            gets a duplicate
//   Descriptors              their names; they are attached
//   Bulk                     its bytes, or its size, and its memory is attached
//
// Reading is strict: "12x", " 12", "+12", "" and "300" for a uint8_t are no
// numbers.

#ifndef WARD_CHANNEL_ARGUMENT_H_
#define WARD_CHANNEL_ARGUMENT_H_

#include <charconv>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "ward/channel/bulk.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/file_descriptor.h"

namespace ward {
namespace internal {

template <typename T>
inline constexpr bool kIsProto =
    std::is_base_of_v<google::protobuf::MessageLite, T>;

// bool and char have integers' traits, and are none here: a bool has its own
// spelling, and whether 'x' means 120 should not be guessed. Nor is long
// double: it differs between machines, and libstdc++ 12 does not read all of
// its own back.
template <typename T>
inline constexpr bool kIsNumber =
    std::is_arithmetic_v<T> && !std::is_same_v<T, bool> &&
    !std::is_same_v<T, char> && !std::is_same_v<T, long double>;

}  // namespace internal

// One argument on its way out; made implicitly by MessageChannel::Write, as
// absl::AlphaNum is by absl::StrCat. Borrows what it was made from.
class Argument {
 public:
  // NOLINTBEGIN(google-explicit-constructor)
  template <typename T,
            std::enable_if_t<std::is_convertible_v<const T&, std::string_view>,
                             int> = 0>
  Argument(const T& text) : view_(text) {}

  template <typename T, std::enable_if_t<internal::kIsNumber<T>, int> = 0>
  Argument(T number) {
    const auto end = std::to_chars(digits_, digits_ + sizeof(digits_), number);
    view_ = std::string_view(digits_, end.ptr - digits_);
  }

  template <typename T, std::enable_if_t<std::is_same_v<T, bool>, int> = 0>
  Argument(T truth) : view_(truth ? "true" : "false") {}

  template <typename T, std::enable_if_t<internal::kIsProto<T>, int> = 0>
  Argument(const T& message)
      : serialized_(message.SerializeAsString()), view_(serialized_) {}

  // It would be a null char pointer.
  Argument(std::nullptr_t) = delete;

  Argument(const FileDescriptor& attached) : descriptor_(&attached) {}

  Argument(const Descriptors& named)
      : serialized_(named.NamesToPart()), view_(serialized_), named_(&named) {}

  Argument(const Bulk& bulk)
      : serialized_(bulk.ToPart()),
        view_(serialized_),
        memory_(bulk.memory()) {}
  // NOLINTEND(google-explicit-constructor)

  Argument(const Argument&) = delete;
  Argument& operator=(const Argument&) = delete;

  std::string_view view() const { return view_; }

  // The descriptor to attach instead of a part; null for every other kind.
  const FileDescriptor* descriptor() const { return descriptor_; }

  // Those to attach beside the part; null for every other kind.
  const Descriptors* named() const { return named_; }

  // The one to attach beside the part; null for every other kind, and for a
  // Bulk that is all in its part.
  const FileDescriptor* memory() const { return memory_; }

 private:
  char digits_[32];  // The longest is a double's: "-2.2250738585072014e-308".
  std::string serialized_;
  std::string_view view_;
  const FileDescriptor* descriptor_ = nullptr;
  const Descriptors* named_ = nullptr;
  const FileDescriptor* memory_ = nullptr;
};

namespace internal {

// What a message is written of: parts, and the numbers of the descriptors that
// go with it.
struct BorrowedMessage {
  absl::InlinedVector<std::string_view, 8> parts;
  absl::InlinedVector<int, 8> descriptors;
};

// Adds `arguments`, which it borrows. Errors: those of Descriptors::Check.
absl::Status AddArguments(std::initializer_list<Argument> arguments,
                          BorrowedMessage& message);

// The kinds of value that a part converts to, as error texts name them.
template <typename T>
constexpr std::string_view KindOf() {
  if constexpr (std::is_same_v<T, bool>) {
    return "true or false";
  } else if constexpr (std::is_floating_point_v<T>) {
    return "a number";
  } else if constexpr (std::is_unsigned_v<T>) {
    return "a whole number from 0 on, in range";
  } else if constexpr (std::is_integral_v<T>) {
    return "a whole number, in range";
  } else if constexpr (kIsProto<T>) {
    return "a serialized protobuf message";
  } else if constexpr (std::is_same_v<T, Descriptors>) {
    return "the names of descriptors, no two the same, of 1 to 255 bytes each";
  } else if constexpr (std::is_same_v<T, Bulk>) {
    return "a bulk, either its bytes or its size";
  } else {
    return "a string";
  }
}

// Converts `part`; false if it is not a T. A string_view result borrows it.
template <typename T>
bool FromPart(std::string_view part, T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    value = part == "true";
    return value || part == "false";
  } else if constexpr (kIsNumber<T>) {
    const char* end = part.data() + part.size();
    const auto read = std::from_chars(part.data(), end, value);
    // It takes "nan(...)" for a number.
    return read.ec == std::errc() && read.ptr == end && part.back() != ')';
  } else if constexpr (std::is_same_v<T, Descriptors>) {
    return value.NamesFromPart(part);
  } else if constexpr (std::is_same_v<T, Bulk>) {
    return value.FromPart(part);
  } else if constexpr (kIsProto<T>) {
    return value.ParseFromArray(part.data(), static_cast<int>(part.size()));
  } else {
    static_assert(std::is_constructible_v<T, std::string_view>,
                  "an argument must be a string, a number, a bool, a protobuf "
                  "message, a FileDescriptor, Descriptors or a Bulk");
    value = T(part);
    return true;
  }
}

}  // namespace internal
}  // namespace ward

#endif  // WARD_CHANNEL_ARGUMENT_H_

// What methods' types are called where a server tells of its methods: the same
// in every language and program. For abstract_server.h.

#ifndef WARD_SERVER_TYPE_NAMES_H_
#define WARD_SERVER_TYPE_NAMES_H_

#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/argument.h"
#include "ward/channel/bulk.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/server/message_handler.h"
#include "ward/server/method.h"
#include "ward/server/owner_handle.h"

namespace ward::internal {

// "string", "int32", "bool", "double", "descriptor", "descriptors" for named
// ones, "bulk", "owner" for an OwnerHandle, "message" for a Message, and the
// full name of a protobuf.
template <typename Value>
std::string TypeName() {
  if constexpr (std::is_same_v<Value, Message>) {
    return "message";
  } else if constexpr (std::is_same_v<Value, FileDescriptor>) {
    return "descriptor";
  } else if constexpr (std::is_same_v<Value, Descriptors>) {
    return "descriptors";
  } else if constexpr (std::is_same_v<Value, Bulk>) {
    return "bulk";
  } else if constexpr (std::is_same_v<Value, OwnerHandle>) {
    return "owner";
  } else if constexpr (std::is_same_v<Value, bool>) {
    return "bool";
  } else if constexpr (std::is_floating_point_v<Value>) {
    return sizeof(Value) == sizeof(float) ? "float" : "double";
  } else if constexpr (kIsNumber<Value>) {
    return absl::StrCat(std::is_signed_v<Value> ? "int" : "uint",
                        8 * sizeof(Value));
  } else if constexpr (kIsProto<Value>) {
    return std::string(Value().GetTypeName());
  } else {
    return "string";
  }
}

// "string, int32"; nothing for none.
template <typename... Values>
std::string TypeNames(TypeList<Values...> /*values*/) {
  std::string names;
  ((absl::StrAppend(&names, names.empty() ? "" : ", ",
                    TypeName<std::decay_t<Values>>())),
   ...);
  return names;
}

// Of a method's request or reply: "stream of string, int32".
template <typename Content>
std::string ContentName() {
  if constexpr (kIsStream<Content>) {
    return absl::StrCat("stream of ", ContentName<ElementOf<Content>>());
  } else {
    return TypeNames(typename ValuesOf<Content>::Types());
  }
}

template <typename Value>
std::string ReplyName(const absl::StatusOr<Value>* /*result*/) {
  return TypeName<Value>();
}
template <typename... Values>
std::string ReplyName(const absl::StatusOr<std::tuple<Values...>>* /*result*/) {
  return TypeNames(TypeList<Values...>());
}
inline std::string ReplyName(const absl::Status* /*result*/) { return ""; }

// Of a handler of messages. One that has the channel may read and write more.
template <typename Handler>
MethodInfo InfoOfHandler(std::string_view name) {
  using Parts = Handling<typename Signature<Handler>::Parameters>;
  const typename Signature<Handler>::Result* const result = nullptr;
  return {std::string(name), TypeNames(typename Parts::Values()),
          Parts::kHasChannel ? "conversation" : ReplyName(result)};
}

template <typename Request, typename Reply>
MethodInfo InfoOfMethod(std::string_view name) {
  return {std::string(name), ContentName<Request>(), ContentName<Reply>()};
}

}  // namespace ward::internal

#endif  // WARD_SERVER_TYPE_NAMES_H_

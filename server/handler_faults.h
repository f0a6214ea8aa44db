// What is wrong with a handler's signature, for a compiler to say in one line.
// For abstract_server.h.

#ifndef WARD_SERVER_HANDLER_FAULTS_H_
#define WARD_SERVER_HANDLER_FAULTS_H_

#include <string_view>
#include <tuple>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/argument.h"
#include "ward/channel/bulk.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/server/call_context.h"
#include "ward/server/message_handler.h"
#include "ward/server/owner_handle.h"

namespace ward::internal {

enum class HandlerFault {
  kNone,
  kNoFunction,
  kNotConst,
  kResult,
  kContext,
  kChannel,
  kMessage,
  kReference,
  kType
};

template <typename T>
inline constexpr bool kIsParameter =
    std::is_same_v<T, FileDescriptor> || std::is_same_v<T, Descriptors> ||
    std::is_same_v<T, Bulk> || std::is_same_v<T, bool> || kIsNumber<T> ||
    kIsProto<T> || std::is_constructible_v<T, std::string_view>;

template <typename T>
inline constexpr bool kIsReply =
    std::is_constructible_v<Argument, const T&> || std::is_same_v<T, Message>;
template <>
inline constexpr bool kIsReply<OwnerHandle> = true;
template <typename... Values>
inline constexpr bool kIsReply<std::tuple<Values...>> =
    (std::is_constructible_v<Argument, const Values&> && ...);

template <typename T>
inline constexpr bool kIsResult = false;
template <>
inline constexpr bool kIsResult<absl::Status> = true;
template <typename T>
inline constexpr bool kIsResult<absl::StatusOr<T>> = kIsReply<T>;

// Of one of those that are behind the context and the channel.
template <typename Parameter>
constexpr HandlerFault FaultOfParameter(bool is_only) {
  using Value = std::decay_t<Parameter>;
  if (std::is_same_v<Value, CallContext>) return HandlerFault::kContext;
  if (std::is_same_v<Value, MessageChannel>) return HandlerFault::kChannel;
  if (std::is_same_v<Value, Message>) {
    return is_only && std::is_same_v<Parameter, Message>
               ? HandlerFault::kNone
               : HandlerFault::kMessage;
  }
  if (!kIsParameter<Value>) return HandlerFault::kType;
  if (std::is_lvalue_reference_v<Parameter> &&
      !std::is_const_v<std::remove_reference_t<Parameter>>) {
    return HandlerFault::kReference;
  }
  return HandlerFault::kNone;
}

template <typename... Parameters>
constexpr HandlerFault FaultOfParameters(TypeList<Parameters...> /*values*/) {
  HandlerFault first = HandlerFault::kNone;
  ((first = first != HandlerFault::kNone
                ? first
                : FaultOfParameter<Parameters>(sizeof...(Parameters) == 1)),
   ...);
  return first;
}

template <typename Handler>
constexpr HandlerFault FaultOf() {
  if constexpr (!Signature<Handler>::kIsKnown) {
    return HandlerFault::kNoFunction;
  } else if constexpr (std::is_class_v<Handler> &&
                       !Signature<Handler>::kIsConst) {
    return HandlerFault::kNotConst;
  } else if constexpr (!kIsResult<typename Signature<Handler>::Result>) {
    return HandlerFault::kResult;
  } else {
    return FaultOfParameters(
        typename Handling<typename Signature<Handler>::Parameters>::Values());
  }
}

// Whether there is none. Where there is one, it does not compile.
template <typename Handler>
constexpr bool IsHandler() {
  constexpr HandlerFault kFault = FaultOf<Handler>();
  static_assert(kFault != HandlerFault::kNoFunction,
                "a handler is a member function of the server, or a callable "
                "with one operator() that is no template: write the types of a "
                "lambda's parameters out, and an overload in a lambda");
  static_assert(kFault != HandlerFault::kNotConst,
                "a handler runs on many threads at once, so its operator() is "
                "const: write the lambda without \"mutable\", and what it "
                "changes behind a mutex of the server's");
  static_assert(kFault != HandlerFault::kResult,
                "a handler returns absl::Status, or absl::StatusOr of its "
                "reply: a string, a number, a bool, a protobuf message, a "
                "FileDescriptor, Descriptors, a Bulk, an OwnerHandle, or a "
                "std::tuple of such");
  static_assert(kFault != HandlerFault::kContext,
                "a handler takes its context as its first parameter, as const "
                "ward::CallContext&");
  static_assert(kFault != HandlerFault::kChannel,
                "a handler takes its channel before its message's arguments, "
                "as ward::MessageChannel&");
  static_assert(kFault != HandlerFault::kMessage,
                "a handler that takes all of a message takes it by value, as "
                "ward::Message, and no other argument");
  static_assert(kFault != HandlerFault::kReference,
                "a handler takes its message's arguments by value, or as const "
                "references: nobody would see what it writes to others");
  static_assert(kFault != HandlerFault::kType,
                "an argument of a handler is a string, a number, a bool, a "
                "protobuf message, a FileDescriptor, Descriptors, or a Bulk "
                "(no char, no long double, no pointer)");
  return kFault == HandlerFault::kNone;
}

}  // namespace ward::internal

#endif  // WARD_SERVER_HANDLER_FAULTS_H_

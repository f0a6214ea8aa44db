// From a C++ signature to a handler of messages.
//
// What a handler may look like, as a member function or any callable:
//
//   absl::Status Hello(ward::MessageChannel&, std::string_view name, int age);
//   absl::StatusOr<Reply> Find(const Request& request);      // protobufs
//   absl::Status Log(FileDescriptor where, std::string line);
//   absl::Status Anything(ward::MessageChannel&, ward::Message message);
//
//   absl::Status Watch(const ward::CallContext&, ward::MessageChannel&);
//
// A leading CallContext tells whether somebody still waits (call_context.h), a
// leading MessageChannel& is the client's channel. The other parameters are
// the message's arguments, converted as argument.h says, with attached
// descriptors for FileDescriptor, Descriptors and Bulk parameters; a message
// that does not fit is answered with kInvalidArguments, and the handler is not
// called. A string_view is good until the handler returns. A handler whose one
// parameter is a Message gets everything unconverted. What a StatusOr holds is
// the reply, a tuple one of several values, an OwnerHandle what its WriteTo
// writes; it leaves together with the call's end, which after a WriteTo, and
// after a handler's own last Write, takes a system call of its own.
//
// What is none of these does not compile, and one line says why
// (handler_faults.h).
//
// Misuse: success without a reply, as Log's here, to a client that waits for
// one: it reads kEndOfStream.

#ifndef WARD_SERVER_MESSAGE_HANDLER_H_
#define WARD_SERVER_MESSAGE_HANDLER_H_

#include <array>
#include <tuple>
#include <type_traits>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ward/channel/argument.h"
#include "ward/channel/bulk.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/server/call_context.h"
#include "ward/server/owner_handle.h"

namespace ward {

// Handles one message of one client. Called on many threads at once.
using MessageHandler = absl::AnyInvocable<absl::Status(
    const CallContext&, MessageChannel&, Message&) const>;

// What a handler's parameter takes, see argument.h; kMessage: everything.
enum class ParameterKind {
  kString,
  kNumber,
  kBool,
  kProto,
  kDescriptor,
  kDescriptors,
  kBulk,
  kMessage
};

namespace internal {

template <typename... Types>
struct TypeList {};

// The result and parameters of a callable's or a member function's type, if it
// has one signature.
template <typename Callable, typename = void>
struct Signature {
  static constexpr bool kIsKnown = false;
};
template <typename Callable>
struct Signature<Callable, std::void_t<decltype(&Callable::operator())>>
    : Signature<decltype(&Callable::operator())> {};
template <typename R, typename... P>
struct Signature<R (*)(P...)> {
  static constexpr bool kIsKnown = true;
  static constexpr bool kIsConst = true;
  using Result = R;
  using Parameters = TypeList<P...>;
};
template <typename R, typename... P>
struct Signature<R (*)(P...) noexcept> : Signature<R (*)(P...)> {};
template <typename R, typename C, typename... P>
struct Signature<R (C::*)(P...) const> : Signature<R (*)(P...)> {
  using Class = C;
};
template <typename R, typename C, typename... P>
struct Signature<R (C::*)(P...)> : Signature<R (C::*)(P...) const> {
  static constexpr bool kIsConst = false;
};
template <typename R, typename C, typename... P>
struct Signature<R (C::*)(P...) const noexcept>
    : Signature<R (C::*)(P...) const> {};
template <typename R, typename C, typename... P>
struct Signature<R (C::*)(P...) noexcept> : Signature<R (C::*)(P...)> {};

// What a handler's parameters are: the context and the channel, if they lead
// it, and what its message has beside its name.
template <typename Parameters>
struct Handling;
template <typename... Parameters>
struct Handling<TypeList<Parameters...>> {
  static constexpr bool kHasContext = false;
  static constexpr bool kHasChannel = false;
  using Values = TypeList<Parameters...>;
};
template <typename... Parameters>
struct Handling<TypeList<MessageChannel&, Parameters...>> {
  static constexpr bool kHasContext = false;
  static constexpr bool kHasChannel = true;
  using Values = TypeList<Parameters...>;
};
template <typename... Parameters>
struct Handling<TypeList<const CallContext&, Parameters...>>
    : Handling<TypeList<Parameters...>> {
  static constexpr bool kHasContext = true;
};

inline absl::Status Reply(MessageChannel&, absl::Status result) {
  return result;
}

// A reply that cannot be sent is not refused for what its client has sent.
inline absl::Status Replied(absl::Status written) {
  if (HasReason(written, reason::kInvalidArguments) ||
      HasReason(written, reason::kFrameTooLarge) ||
      HasReason(written, reason::kTooManyDescriptors)) {
    return MakeError(reason::kUnexpectedFrame,
                     absl::StrCat("the handler's reply cannot be sent: ",
                                  written.message()));
  }
  return written;
}

template <typename Value>
absl::Status Reply(MessageChannel& channel,
                   const absl::StatusOr<Value>& result) {
  return result.ok() ? Replied(channel.WriteLast(*result)) : result.status();
}

template <typename... Values>
absl::Status Reply(MessageChannel& channel,
                   const absl::StatusOr<std::tuple<Values...>>& result) {
  if (!result.ok()) return result.status();
  return Replied(std::apply(
      [&](const auto&... values) { return channel.WriteLast(values...); },
      *result));
}

inline absl::Status Reply(MessageChannel& channel,
                          const absl::StatusOr<OwnerHandle>& result) {
  return result.ok() ? result->WriteTo(channel) : result.status();
}

// Calls `call` with the arguments of `message`, converted to Values.
template <typename Call, typename... Values>
absl::Status CallUnpacked(const Call& call, MessageChannel& channel,
                          Message& message, TypeList<Values...> /*types*/) {
  auto values =
      std::move(message).template UnpackArguments<std::decay_t<Values>...>();
  if (!values.ok()) return values.status();
  return std::apply(
      [&](auto&... value) {
        return Reply(channel, call(static_cast<Values&&>(value)...));
      },
      *values);
}

template <typename Call>
absl::Status CallUnpacked(const Call& call, MessageChannel& channel,
                          Message& message, TypeList<Message> /*types*/) {
  return Reply(channel, call(std::move(message)));
}

// Of a handler that is called as `Function`, and has `Parameters`.
template <typename Parameters, typename Function>
MessageHandler Bind(Function function) {
  using Parts = Handling<Parameters>;
  return [function = std::move(function)](const CallContext& context,
                                          MessageChannel& channel,
                                          Message& message) {
    const auto call = [&](auto&&... values) {
      if constexpr (Parts::kHasContext && Parts::kHasChannel) {
        return function(context, channel,
                        std::forward<decltype(values)>(values)...);
      } else if constexpr (Parts::kHasContext) {
        return function(context, std::forward<decltype(values)>(values)...);
      } else if constexpr (Parts::kHasChannel) {
        return function(channel, std::forward<decltype(values)>(values)...);
      } else {
        return function(std::forward<decltype(values)>(values)...);
      }
    };
    return CallUnpacked(call, channel, message, typename Parts::Values());
  };
}

template <typename Value>
constexpr ParameterKind KindOfParameter() {
  if constexpr (std::is_same_v<Value, Message>) {
    return ParameterKind::kMessage;
  } else if constexpr (std::is_same_v<Value, FileDescriptor>) {
    return ParameterKind::kDescriptor;
  } else if constexpr (std::is_same_v<Value, Descriptors>) {
    return ParameterKind::kDescriptors;
  } else if constexpr (std::is_same_v<Value, Bulk>) {
    return ParameterKind::kBulk;
  } else if constexpr (std::is_same_v<Value, bool>) {
    return ParameterKind::kBool;
  } else if constexpr (kIsNumber<Value>) {
    return ParameterKind::kNumber;
  } else if constexpr (kIsProto<Value>) {
    return ParameterKind::kProto;
  } else {
    return ParameterKind::kString;
  }
}

template <typename... Values>
absl::Span<const ParameterKind> KindsOf(TypeList<Values...> /*values*/) {
  static constexpr std::array<ParameterKind, sizeof...(Values)> kKinds = {
      KindOfParameter<std::decay_t<Values>>()...};
  return kKinds;
}

}  // namespace internal

// What the message of such a handler, a callable or a member function, has
// beside its name, in order.
template <typename Function>
absl::Span<const ParameterKind> ParametersOf() {
  return internal::KindsOf(
      typename internal::Handling<
          typename internal::Signature<Function>::Parameters>::Values());
}

// A handler from any callable; its call operator must be const.
template <typename Function>
MessageHandler MakeMessageHandler(Function function) {
  return internal::Bind<typename internal::Signature<Function>::Parameters>(
      std::move(function));
}

// A handler from a member function of `object`, which must outlive it.
template <typename Class, typename Method>
MessageHandler MakeMessageHandler(Class* object, Method method) {
  return internal::Bind<typename internal::Signature<Method>::Parameters>(
      [object, method](auto&&... arguments) {
        return (object->*method)(
            std::forward<decltype(arguments)>(arguments)...);
      });
}

}  // namespace ward

#endif  // WARD_SERVER_MESSAGE_HANDLER_H_

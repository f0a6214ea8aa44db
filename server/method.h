// A method of a server's interface, as a constant that both sides see.
//
//   inline constexpr ward::Method<FindRequest, FindReply> kFind{"find"};
//   inline constexpr ward::Method<ward::Arguments<std::string, int>,
//                                 std::string>
//       kHello{"hello"};
//
//   class Store : public ward::AbstractServer {
//    public:
//     Store() { Define(kFind, &Store::Find); }
//    private:
//     absl::StatusOr<FindReply> Find(const FindRequest& request);
//   };
//
//   absl::StatusOr<FindReply> reply = store.Call(kFind, request);
//
// A request, and a reply, is one value of what a message can have (argument.h:
// a protobuf, a string, a number, a bool, a descriptor, named descriptors, a
// Bulk);
// several of them, as Arguments; or void for none. A reply of several is a
// std::tuple. Either may be a Stream of them. A reply, or an element of one,
// may be an OwnerHandle, too: a share in a server's ownership (owner_handle.h).
//
// On the wire it is the message that DefineMessageHandler and Connect speak:
// either side may be of before there were methods.

#ifndef WARD_SERVER_METHOD_H_
#define WARD_SERVER_METHOD_H_

#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/argument.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/server/call_context.h"
#include "ward/server/cancellation.h"
#include "ward/server/message_handler.h"
#include "ward/server/owner_handle.h"

namespace ward {

// Several values in a request or a reply.
template <typename... Values>
struct Arguments {};

// As many as the sender likes: see stream.h.
template <typename Element>
struct Stream {};
template <typename Element>
class StreamReader;
template <typename Element>
class StreamWriter;

// The types are for those who serve it and call it, the name is for the wire.
template <typename Request, typename Reply>
struct Method {
  // Not one that begins with "ward.".
  std::string_view name;
};

// What a server tells of a method, or of a message that it handles.
struct MethodInfo {
  std::string name;
  // Types as "string", "int32", "bool", "double", "descriptor",
  // "descriptors" (named ones), "bulk", "owner", a protobuf's full name;
  // several with
  // ", " between them; "stream of ..."; empty for none. A reply is
  // "conversation" where the handler writes and reads as it likes.
  std::string request;
  std::string reply;
};

// For one call.
struct CallOptions {
  // When the client gives up, as absl::Now() tells time (a CallContext's clock
  // is another: absl::Now() + context.time_left()): the call returns
  // kTimedOut then, whatever the server does. The handler is told how much time
  // is left (CallContext::deadline()).
  absl::Time deadline = absl::InfiniteFuture();

  // Ends the call as soon as it is cancelled, with kCallCancelled; the handler
  // is told (CallContext::cancelled()). Borrowed as long as the call lasts, a
  // StreamCall included; one may be for many calls.
  Cancellation* cancellation = nullptr;

  // What the call belongs to, for logs and traces (CallContext::trace_id(),
  // CallInfo::trace_id): such as W3C's traceparent. Ward passes it on and makes
  // nothing of it. At most 128 bytes, or the call is kInvalidArguments.
  std::string trace_id = {};

  // A call that a handler makes, on its own thread, ends with the handler's
  // time, is cancelled when its client leaves, and has its trace id if it has
  // none of its own. False: it has only what is above.
  bool inherit = true;
};

namespace internal {

// The values that a request or a reply has, how a message is one, which goes
// with that, and how the next one of a channel is.
template <typename Content>
struct ValuesOf {
  using Types = TypeList<Content>;
  using Value = Content;
  using Result = absl::StatusOr<Value>;

  static Result Unpack(Message& message) {
    return TheOne(std::move(message).template Unpack<Content>());
  }
  static Result Read(MessageChannel& channel) {
    return TheOne(channel.ReadUnpacked<Content>());
  }

 private:
  static Result TheOne(absl::StatusOr<std::tuple<Content>> values) {
    if (!values.ok()) return values.status();
    return std::move(std::get<0>(*values));
  }
};

template <typename... Values>
struct ValuesOf<Arguments<Values...>> {
  using Types = TypeList<Values...>;
  using Value = std::tuple<Values...>;
  using Result = absl::StatusOr<Value>;

  static Result Unpack(Message& message) {
    return std::move(message).template Unpack<Values...>();
  }
  static Result Read(MessageChannel& channel) {
    return channel.ReadUnpacked<Values...>();
  }
};

template <>
struct ValuesOf<OwnerHandle> {
  using Types = TypeList<OwnerHandle>;
  using Value = OwnerHandle;
  using Result = absl::StatusOr<Value>;

  static Result Unpack(Message& message) {
    return OwnerHandle::FromMessage(message);
  }
  static Result Read(MessageChannel& channel) {
    absl::StatusOr<Message> message = channel.Read();
    if (!message.ok()) return message.status();
    return Unpack(*message);
  }
};

// Those have none: elements follow, or nothing.
template <>
struct ValuesOf<void> {
  using Types = TypeList<>;
  using Result = absl::Status;
};
template <typename Element>
struct ValuesOf<Stream<Element>> : ValuesOf<void> {};

template <typename Content>
inline constexpr bool kIsStream = false;
template <typename Element>
inline constexpr bool kIsStream<Stream<Element>> = true;

template <typename Content>
struct StreamTraits;
template <typename T>
struct StreamTraits<Stream<T>> {
  using Element = T;
};
template <typename Content>
using ElementOf = typename StreamTraits<Content>::Element;

// Whether each of the one list may stand for the one at its place in the other.
template <template <typename, typename> class Fits, typename These,
          typename Those>
inline constexpr bool kEachFits = false;
template <template <typename, typename> class Fits, typename... These,
          typename... Those>
inline constexpr bool kEachFits<Fits, TypeList<These...>, TypeList<Those...>> =
    [] {
      if constexpr (sizeof...(These) == sizeof...(Those)) {
        return (Fits<These, Those>::value && ...);
      } else {
        return false;
      }
    }();

template <typename Value>
inline constexpr bool kIsText =
    std::is_convertible_v<const Value&, std::string_view>;

// A handler's parameter, for what comes.
template <typename Parameter, typename Value>
struct Takes : std::bool_constant<
                   std::is_same_v<std::decay_t<Parameter>, Value> ||
                   (std::is_same_v<std::decay_t<Parameter>, std::string_view> &&
                    kIsText<Value>)> {};
// A stream is taken as it is.
template <typename Parameter, typename Element>
struct Takes<Parameter, StreamReader<Element>&>
    : std::is_same<Parameter, StreamReader<Element>&> {};
template <typename Parameter, typename Element>
struct Takes<Parameter, StreamWriter<Element>&>
    : std::is_same<Parameter, StreamWriter<Element>&> {};

// An argument of a call, for what is sent. The server finds out whether a
// number is in range.
template <typename Given, typename Value>
struct Says
    : std::bool_constant<
          std::is_same_v<Given, Value> || (kIsText<Given> && kIsText<Value>) ||
          (kIsNumber<Given> && kIsNumber<Value> &&
           (std::is_floating_point_v<Value> || std::is_integral_v<Given>))> {};

// Whether a call of such a method may have these arguments.
template <typename Request, typename... Given>
inline constexpr bool kCalls =
    kEachFits<Says, TypeList<Given...>, typename ValuesOf<Request>::Types>;

// Whether this may be an element of a request.
template <typename Given, typename Request>
inline constexpr bool kSaysElement =
    kEachFits<Says, TypeList<Given>,
              typename ValuesOf<ElementOf<Request>>::Types>;
template <typename... Given, typename Request>
inline constexpr bool kSaysElement<std::tuple<Given...>, Request> =
    kEachFits<Says, TypeList<Given...>,
              typename ValuesOf<ElementOf<Request>>::Types>;

// --- handlers ---

template <typename... Lists>
struct Joined;
template <typename... Types>
struct Joined<TypeList<Types...>> {
  using List = TypeList<Types...>;
};
template <typename... These, typename... Those, typename... More>
struct Joined<TypeList<These...>, TypeList<Those...>, More...>
    : Joined<TypeList<These..., Those...>, More...> {};

template <typename Content>
struct InStreams {
  using List = TypeList<>;
};
template <typename Element>
struct InStreams<Stream<Element>> {
  using List = TypeList<StreamReader<Element>&>;
};
template <typename Content>
struct OutStreams {
  using List = TypeList<>;
};
template <typename Element>
struct OutStreams<Stream<Element>> {
  using List = TypeList<StreamWriter<Element>&>;
};

// Whether `Handler`, a callable or a member function, is one of such a method:
// it takes the request's values, then the streams that are read and written.
template <typename Handler, typename Request, typename Reply>
inline constexpr bool kHandles = [] {
  if constexpr (Signature<Handler>::kIsKnown) {
    using Parts = Handling<typename Signature<Handler>::Parameters>;
    return !Parts::kHasChannel &&
           std::is_same_v<typename Signature<Handler>::Result,
                          typename ValuesOf<Reply>::Result> &&
           kEachFits<Takes, typename Parts::Values,
                     typename Joined<typename ValuesOf<Request>::Types,
                                     typename InStreams<Request>::List,
                                     typename OutStreams<Reply>::List>::List>;
  } else {
    return false;
  }
}();

// `status`: of a conversion.
absl::Status NotTheReply(const absl::Status& status);

template <typename List>
inline constexpr bool kHasView = false;
template <typename... Types>
inline constexpr bool kHasView<TypeList<Types...>> =
    (std::is_same_v<Types, std::string_view> || ...);

// What a call returns that has ended with `status`, and whose reply, if it has
// one, is `message`.
template <typename Reply>
typename ValuesOf<Reply>::Result UnpackReply(const absl::Status& status,
                                             std::optional<Message>& message) {
  static_assert(
      !kHasView<typename ValuesOf<Reply>::Types>,
      "a reply has std::string, and no view: nothing would be left of "
      "what that refers to");
  if constexpr (std::is_void_v<Reply>) {
    return status;
  } else {
    if (!status.ok()) return status;
    auto reply = ValuesOf<Reply>::Unpack(*message);
    if (reply.ok()) return reply;
    return NotTheReply(reply.status());
  }
}

// Behind an error that the server has told comes the end, with it, if the
// connection is kept.
void ReadEndBehindError(MessageChannel& channel);

// One reply, if there is to be one, and the call's end. `timed_out`, unless it
// is null: not all has come in time; call it again with the same `reply`.
absl::Status ReadReply(MessageChannel& channel, bool has_reply,
                       std::optional<Message>& reply,
                       bool* timed_out = nullptr);

// The same, and what the call returns.
template <typename Reply>
typename ValuesOf<Reply>::Result ReadReply(MessageChannel& channel) {
  std::optional<Message> message;
  const absl::Status status =
      ReadReply(channel, !std::is_void_v<Reply>, message);
  return UnpackReply<Reply>(status, message);
}

}  // namespace internal
}  // namespace ward

#endif  // WARD_SERVER_METHOD_H_

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
// a protobuf, a string, a number, a bool, a descriptor); several of them, as
// Arguments; or void for none. A reply of several is a std::tuple.
//
// On the wire it is the message that DefineMessageHandler and Connect speak:
// either side may be of before there were methods.

#ifndef WARD_SERVER_METHOD_H_
#define WARD_SERVER_METHOD_H_

#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/argument.h"
#include "ward/channel/message.h"
#include "ward/server/call_context.h"
#include "ward/server/message_handler.h"

namespace ward {

// Several values in a request or a reply.
template <typename... Values>
struct Arguments {};

template <typename Request, typename Reply>
struct Method {
  // Not one that begins with "ward.".
  std::string_view name;
};

// For one call.
struct CallOptions {
  // When the client gives up, as absl::Now() tells time: the call returns
  // kTimedOut then, whatever the server does. The handler is told how much time
  // is left (CallContext::deadline()).
  absl::Time deadline = absl::InfiniteFuture();

  // A call that a handler makes ends with the handler's own time. False: it has
  // only `deadline`.
  bool inherit = true;
};

namespace internal {

template <typename Content>
struct ValuesOf {
  using Types = TypeList<Content>;
  using Result = absl::StatusOr<Content>;

  static Result Unpack(Message& reply) {
    auto values = reply.Unpack<Content>();
    if (!values.ok()) return values.status();
    return std::move(std::get<0>(*values));
  }
};

template <>
struct ValuesOf<void> {
  using Types = TypeList<>;
  using Result = absl::Status;
};

template <typename... Values>
struct ValuesOf<Arguments<Values...>> {
  using Types = TypeList<Values...>;
  using Result = absl::StatusOr<std::tuple<Values...>>;

  static Result Unpack(Message& reply) { return reply.Unpack<Values...>(); }
};

template <typename... Parameters>
TypeList<std::decay_t<Parameters>...> Decayed(TypeList<Parameters...>);

template <typename... Parameters>
TypeList<Parameters...> WithoutContext(TypeList<Parameters...>);
template <typename... Parameters>
TypeList<Parameters...> WithoutContext(
    TypeList<const CallContext&, Parameters...>);

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
struct Takes
    : std::bool_constant<std::is_same_v<Parameter, Value> ||
                         (std::is_same_v<Parameter, std::string_view> &&
                          kIsText<Value>)> {};

// An argument of a call, for what is sent. The server finds out whether a
// number is in range.
template <typename Given, typename Value>
struct Says
    : std::bool_constant<
          std::is_same_v<Given, Value> || (kIsText<Given> && kIsText<Value>) ||
          (kIsNumber<Given> && kIsNumber<Value> &&
           (std::is_floating_point_v<Value> || std::is_integral_v<Given>))> {};

// Whether `Handler`, a callable or a member function, is one of such a method.
template <typename Handler, typename Request, typename Reply>
inline constexpr bool kHandles =
    std::is_same_v<typename Signature<Handler>::Result,
                   typename ValuesOf<Reply>::Result>&&
        kEachFits<Takes,
                  decltype(Decayed(WithoutContext(
                      typename Signature<Handler>::Parameters()))),
                  typename ValuesOf<Request>::Types>;

// Whether a call of such a method may have these arguments.
template <typename Request, typename... Given>
inline constexpr bool kCalls =
    kEachFits<Says, TypeList<Given...>, typename ValuesOf<Request>::Types>;

}  // namespace internal
}  // namespace ward

#endif  // WARD_SERVER_METHOD_H_

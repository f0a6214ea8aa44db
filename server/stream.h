// Streams in the requests and replies of methods.
//
//   inline constexpr ward::Method<std::string, ward::Stream<Event>> kWatch{
//       "watch"};
//   inline constexpr ward::Method<ward::Stream<int64_t>, int64_t> kSum{"sum"};
//
//   // The handlers:
//   absl::Status Watch(const std::string& what,
//                      ward::StreamWriter<Event>& events);
//   absl::StatusOr<int64_t> Sum(ward::StreamReader<int64_t>& numbers) {
//     int64_t sum = 0;
//     while (const std::optional<int64_t> number = numbers.Next()) {
//       sum += *number;
//     }
//     WARD_RETURN_IF_ERROR(numbers.status());
//     return sum;
//   }
//
//   // The calls:
//   WARD_ASSIGN_OR_RETURN(auto events, server.Call(kWatch, "doors"));
//   while (const std::optional<Event> event = events.Next()) { ... }
//   WARD_RETURN_IF_ERROR(events.status());
//
//   WARD_ASSIGN_OR_RETURN(auto numbers, server.Call(kSum));
//   for (const int64_t number : all) {
//     WARD_RETURN_IF_ERROR(numbers.Write(number));
//   }
//   WARD_ASSIGN_OR_RETURN(const int64_t sum, numbers.Finish());
//
// Nothing but the socket is between the two sides: a Write waits while some 200
// KiB are not read, or 270 small elements, which the kernel counts as 768 bytes
// each; and no thread stands behind it. An element leaves at once, with a
// system call of its own. Both directions may be streams. An element is what a
// request can be: several values, as Arguments<...>, are a std::tuple here.
//
// A call whose request is a stream has a connection of its own, which later
// calls use.
//
// Misuse: writing without end to a side that writes without end: each waits for
// the other to read.

#ifndef WARD_SERVER_STREAM_H_
#define WARD_SERVER_STREAM_H_

#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/server/method.h"
#include "ward/server/outgoing_call.h"
#include "ward/server/owner_handle.h"

namespace ward {
namespace internal {

template <typename Element>
absl::Status WriteElement(MessageChannel& channel, const Element& element) {
  return channel.Write(element);
}
inline absl::Status WriteElement(MessageChannel& channel,
                                 const OwnerHandle& element) {
  return element.WriteTo(channel);
}
template <typename... Values>
absl::Status WriteElement(MessageChannel& channel,
                          const std::tuple<Values...>& element) {
  return std::apply(
      [&](const auto&... values) { return channel.Write(values...); }, element);
}

// The next one, or nothing at the end, which is OK, or with the error that was
// told instead, or found.
template <typename Values>
std::optional<typename Values::Value> ReadElement(MessageChannel& channel,
                                                  absl::Status& status) {
  auto element = Values::Read(channel);
  if (element.ok()) return *std::move(element);
  status = element.status();
  if (HasReason(status, reason::kEndOfStream) && channel.ended()) {
    status = channel.end_was_said()
                 ? absl::OkStatus()
                 : MakeError(reason::kConnectionLost,
                             "the stream broke off: the peer has left "
                             "without saying that it was all");
  }
  return std::nullopt;
}

}  // namespace internal

// What a handler reads. For the handler's thread, while it runs.
template <typename Element>
class StreamReader {
 public:
  using Value = typename internal::ValuesOf<Element>::Value;

  explicit StreamReader(MessageChannel& channel) : channel_(channel) {}

  // Waits for the next element; nothing once status() says more: OK when the
  // client has written all, kConnectionLost when it has left before.
  std::optional<Value> Next() {
    if (ended_) return std::nullopt;
    std::optional<Value> next =
        internal::ReadElement<internal::ValuesOf<Element>>(channel_, status_);
    ended_ = !next.has_value();
    return next;
  }
  const absl::Status& status() const { return status_; }

 private:
  MessageChannel& channel_;
  bool ended_ = false;
  absl::Status status_;
};

// What a handler writes. For the handler's thread, while it runs.
template <typename Element>
class StreamWriter {
 public:
  explicit StreamWriter(MessageChannel& channel) : channel_(channel) {}

  // Waits while the client does not read. kConnectionLost when it has left.
  template <typename Given>
  absl::Status Write(const Given& element) {
    static_assert(
        internal::kSaysElement<std::decay_t<Given>, Stream<Element>>,
        "this is no element of the stream that the method's reply is");
    return internal::WriteElement(channel_, element);
  }

 private:
  MessageChannel& channel_;
};

// A call of a method with streams, in the client. Move-only, and for one thread
// at a time. Destroyed before it has ended, it leaves: the handler is
// cancelled.
template <typename Request, typename Reply>
class [[nodiscard]] StreamCall {
 public:
  explicit StreamCall(std::unique_ptr<OutgoingCall> call)
      : call_(std::move(call)) {}

  // Of a request that is a Stream. Waits while the handler does not read. The
  // error of a call that has ended is told by Finish(), or status().
  template <typename Element>
  absl::Status Write(const Element& element) {
    static_assert(internal::kIsStream<Request>,
                  "the request of this method is no stream");
    static_assert(
        internal::kSaysElement<std::decay_t<Element>, Request>,
        "this is no element of the stream that the method's request is");
    if (call_ == nullptr) return Ended();
    return internal::WriteElement(call_->channel(), element);
  }

  // All was written. Nothing, the second time.
  absl::Status EndWriting() {
    return call_ == nullptr ? Ended() : call_->channel().WriteEnd();
  }

  // Of a reply that is a Stream: waits for the next element; nothing once
  // status() says more: OK when the handler has succeeded.
  auto Next() {
    static_assert(internal::kIsStream<Reply>,
                  "the reply of this method is no stream: see Finish()");
    using Values = internal::ValuesOf<internal::ElementOf<Reply>>;
    std::optional<typename Values::Value> next;
    if (call_ == nullptr) return next;
    MessageChannel& channel = call_->channel();
    next = internal::ReadElement<Values>(channel, status_);
    if (next.has_value()) return next;
    // What was told is about the request.
    if (HasReason(status_, reason::kInvalidArguments) &&
        !channel.read_error()) {
      status_ = internal::NotTheReply(status_);
    }
    End();
    return next;
  }
  const absl::Status& status() const { return status_; }

  // Of a reply that is none: says that all was written, and returns it.
  typename internal::ValuesOf<Reply>::Result Finish() {
    static_assert(!internal::kIsStream<Reply>,
                  "the reply of this method is a stream: see Next()");
    if (call_ == nullptr) return Ended();
    // If that fails, the reply tells why.
    (void)EndWriting();
    auto reply = internal::ReadReply<Reply>(call_->channel());
    if constexpr (std::is_void_v<Reply>) {
      status_ = std::move(reply);
      End();
      return status_;
    } else {
      status_ = reply.status();
      End();
      if (!status_.ok()) reply = status_;
      return reply;
    }
  }

 private:
  absl::Status Ended() const {
    return status_.ok() ? MakeError(reason::kChannelClosed,
                                    "this call has ended already")
                        : status_;
  }

  void End() {
    internal::ReadEndBehindError(call_->channel());
    status_ = call_->End(status_);
    call_.reset();
  }

  // Null once it has ended.
  std::unique_ptr<OutgoingCall> call_;
  absl::Status status_;
};

}  // namespace ward

#endif  // WARD_SERVER_STREAM_H_

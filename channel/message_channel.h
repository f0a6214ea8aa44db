// Discrete messages, with descriptors, over a Unix socket.
//
//   WARD_ASSIGN_OR_RETURN(auto ends, ward::MessageChannel::CreatePair());
//   auto& [here, there] = ends;
//   WARD_RETURN_IF_ERROR(here.Write("open", "/etc/hosts", 0600));
//   WARD_ASSIGN_OR_RETURN(ward::Message request, there.Read());
//   WARD_RETURN_IF_ERROR(there.Write("opened", file));   // a FileDescriptor
//
// Frames are protobuf messages behind their length; docs/protocol.md has them
// to the byte. Every byte that comes is taken for hostile: sizes are checked
// against limits() before anything is buffered, descriptors are counted, and
// what does not fit ends the channel with a status that says why.
//
// Misuse:
// - Both ends writing without reading: each waits for room in the other's
//   socket (about 200 KiB; 1 MiB, if the system allows it, from the first write
//   of more on), for ever unless set_timeout() says otherwise.
// - Two threads in one channel: it has one user at a time. Only ShutDown() may
//   be called from elsewhere.
// - set_deadline(absl::Now() + x): its clock is transport()->TimeNow(), which
//   counts from the machine's start. That deadline never comes.
// - Reading a scalar where an array is due: the two sides must agree on the
//   kinds, as on the order, of their messages.

#ifndef WARD_CHANNEL_MESSAGE_CHANNEL_H_
#define WARD_CHANNEL_MESSAGE_CHANNEL_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/argument.h"
#include "ward/channel/buffer_budget.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/descriptor_budget.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/frame.h"
#include "ward/channel/frame_reader.h"
#include "ward/channel/frame_writer.h"
#include "ward/channel/message.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"

namespace ward {

// One end of a conversation. Move-only; closes its socket when destroyed.
//
// Errors, besides those named at each member: kConnectionLost, kTimedOut,
// kChannelClosed. After kConnectionLost, kMalformedFrame, kFrameTooLarge on
// reading, or a write that timed out half-way, the channel is no longer in
// step with its peer: that direction returns the same error from then on. An
// error that a peer has left, and that a write has found there, both return.
class MessageChannel {
 public:
  // Closed from the start.
  MessageChannel() = default;

  // Shared by who must be able to cut the connection whatever becomes of the
  // channel; the socket is closed with the last share.
  explicit MessageChannel(std::shared_ptr<Transport> transport);

  // Over a connected Unix stream socket.
  explicit MessageChannel(FileDescriptor socket);

  // Two channels connected to each other, for a process and its child, or for
  // a test.
  static absl::StatusOr<std::pair<MessageChannel, MessageChannel>> CreatePair();

  // --- array messages ---

  // Sends one message: `arguments` in order, the first of them its name where
  // it has one. Descriptors among them are attached. What may be an argument:
  // argument.h. Returns when the kernel has taken all of it.
  //
  // If the peer has closed the connection but said why (an error frame), that
  // error is returned. Any other message that it left can still be read.
  //
  // A write that was refused, or failed before its first byte left, leaves the
  // channel as it was.
  template <typename... Arguments>
  absl::Status Write(const Arguments&... arguments) {
    return WriteArguments({Argument(arguments)...});
  }

  // Sends a message on as it is; its descriptors stay `message`'s.
  absl::Status Write(const Message& message) {
    return WriteMessage(message, /*then_end=*/false);
  }

  // The same as Write, then WriteEnd, in one system call.
  template <typename... Arguments>
  absl::Status WriteLast(const Arguments&... arguments) {
    return WriteArguments({Argument(arguments)...}, /*then_end=*/true);
  }
  absl::Status WriteLast(const Message& message) {
    return WriteMessage(message, /*then_end=*/true);
  }

  // Waits for the next message. kEndOfStream when the peer has said its end, or
  // closed it after a whole message; kCallCut, see ExpectEnd();
  // kDescriptorsTruncated when its descriptors found no room in this process,
  // kTooManyDescriptors when they are more than limits() allows (the message is
  // lost, the channel is in step); kUnexpectedFrame for a scalar. An error that
  // the peer wrote is returned as the error it was: code, reason and text.
  absl::StatusOr<Message> Read();

  // The same, and Message::Unpack, without the Message. What does not fit is
  // lost.
  template <typename... Values>
  absl::StatusOr<std::tuple<Values...>> ReadUnpacked() {
    static_assert(!(std::is_same_v<Values, std::string_view> || ...),
                  "nothing would be left of what it refers to");
    std::vector<FileDescriptor> descriptors;
    absl::Status status = ReceiveArray(descriptors);
    if (!status.ok()) return status;
    auto values = internal::UnpackAll<Values...>(
        EncodedParts(reader_.frame()), descriptors, limits_.max_bulk_bytes);
    reader_.Release();
    return values;
  }

  // --- key/value messages: an array of key, value, key, value, ... ---

  absl::Status WriteMap(
      const absl::btree_map<std::string, std::string>& entries);

  // kInvalidArguments when the array has an odd number of parts; of two values
  // for one key the later one counts.
  absl::StatusOr<absl::btree_map<std::string, std::string>> ReadMap();

  // --- scalar messages: one string of bytes ---

  absl::Status WriteScalar(std::string_view bytes);

  // Reads into the caller's buffer, whose memory is reused; a large scalar is
  // received right there, and then the buffer is empty after an error.
  // kFrameTooLarge if the scalar has more than `max_size` bytes; a frame that
  // is too long for any such scalar ends the channel unread.
  absl::Status ReadScalar(std::string& bytes, size_t max_size = SIZE_MAX);

  // --- descriptors alone ---

  absl::Status WriteDescriptor(const FileDescriptor& descriptor);

  // kUnexpectedFrame if the next message is not one descriptor and no part.
  absl::StatusOr<FileDescriptor> ReadDescriptor();

  // --- ends ---

  // Says that all was written: the peer's Read returns kEndOfStream, and this
  // side's writes fail with kChannelClosed. Nothing is sent to a peer that does
  // not ExpectEnd(), nor a second time. A server does this for a handler that
  // has succeeded; one that closes its channel, or moves it away, does it
  // itself when all is written.
  absl::Status WriteEnd();

  // Whether nothing more can be read, as a Read has returned with kEndOfStream
  // (which may also be an error that the peer has passed on) or otherwise; and
  // whether the peer has said its end, which is then no mere end of the stream.
  bool ended() const { return reader_.ended(); }
  bool end_was_said() const { return reader_.at_end(); }

  // --- calls, one after the other ---

  // What the first frame of a call says of it.
  struct Call {
    // The client may call again on this connection.
    bool keep = false;
    // From when that frame is written: how long the client waits.
    absl::Duration time_left = absl::InfiniteDuration();
    // What the call belongs to, for logs and traces. At most kMaxTraceIdBytes:
    // with more, that Write is kInvalidArguments.
    std::string trace_id = {};
  };

  // The next frame that is written begins a call. Not while one is under way;
  // after one, if kept().
  void BeginCall(Call call);

  // As Read, in a server: the first message of the next call, into `message`,
  // whose memory is used again. Once a message has begun to come, its rest may
  // take `time_for_rest`. What is left of the call before is thrown away. Of
  // more than kMostLeftOver the peer learns that nobody reads it: no more is
  // received. What has come is looked through, and a call in it is read.
  static constexpr size_t kMostLeftOver = size_t{1} << 20;
  absl::Status ReadCall(Message& message, absl::Duration time_for_rest =
                                              absl::InfiniteDuration());

  // What that message said.
  const Call& call() const { return call_; }

  // Whether the call that is under way may end so that another follows: its
  // client has said that it may call again, this channel is the one that read
  // that, and nothing is out of step.
  bool may_keep() const {
    return call_.keep && reader_.peer_knows_end() && !was_moved_.value &&
           is_open() && reader_.in_step();
  }

  // In a server: no call follows the one that is under way, whatever its client
  // has said.
  void KeepNoLonger() { call_.keep = false; }

  // Whether a call has ended, and another may follow on this connection: its
  // last End was written, or read, and has said so.
  bool kept() const {
    return keeps_ || (reader_.expects_end() && reader_.kept());
  }

  // Has the first frame that is written ask the peer to say its end. If it then
  // goes without, and its last frame was no error, reads and writes return
  // kCallCut, for ever; or what they would otherwise, if its first frame shows
  // that it says no ends.
  void ExpectEnd() {
    writer_.SayKnowsEnd();
    reader_.ExpectEnd();
  }

  // --- errors ---

  // Tells the peer that what it asked for failed: its Read returns `error`
  // (not OK). A text over 4 KiB is cut, as is a reason over 128 bytes.
  //
  // That this channel has ended, which Read returned here, is not told to a
  // peer that still reads as kEndOfStream or kConnectionLost: it would take it
  // for its own. It reads kUnexpectedFrame, for the message that was due, or
  // kMalformedFrame, for the one that it broke off.
  absl::Status WriteError(const absl::Status& error) {
    return SendError(error, /*then_end=*/false);
  }

  // The same, then WriteEnd, in one system call.
  absl::Status WriteLastError(const absl::Status& error) {
    return SendError(error, /*then_end=*/true);
  }

  // --- settings ---

  // How long each of the operations above may take, as a whole, however the
  // peer splits what it sends. What need not be waited for is done in any case.
  // Default: for ever (the end of the peer's process ends the wait). `why`,
  // unless it is null, and `time` if it is not infinite, begin the text of a
  // kTimedOut that comes of it: what has set this limit. A literal, for it is
  // borrowed.
  void set_timeout(absl::Duration timeout, const char* why = nullptr,
                   absl::Duration time = absl::InfiniteDuration()) {
    timeout_ = timeout;
    timeout_why_ = {why, time};
  }

  // What all channels with this budget may buffer together of messages that are
  // not read yet: those of up to 256 KiB are not counted.
  void set_buffer_budget(const std::shared_ptr<BufferBudget>& budget) {
    reader_.set_buffer_budget(budget);
  }

  // How long a read that has to wait may keep a processor busy with looking for
  // what comes, rather than be woken. See ServerOptions::spin_time.
  void set_spin_time(absl::Duration time) {
    if (transport_ != nullptr) transport_->set_spin_time(time);
  }

  // How many descriptors all channels with this budget may have of messages
  // that are not whole yet. One that is cut off for others returns kServerFull.
  // The peer is in `process`.
  void set_descriptor_budget(const std::shared_ptr<DescriptorBudget>& budget,
                             pid_t process) {
    reader_.set_descriptor_budget(budget, transport_, process);
  }

  void set_limits(const ChannelLimits& limits);
  const ChannelLimits& limits() const { return limits_; }

  // Puts `password` into the first frame that is written. It is borrowed until
  // a byte of that frame has left.
  void PresentPassword(const Secret& password) {
    writer_.PresentPassword(password);
  }

  // Refuses the first frame that is read, with kInvalidPassword, unless it
  // carries `password` (borrowed until then). The comparison takes the same
  // time wherever the two differ, and what came is wiped.
  void ExpectPassword(const Secret& password) {
    reader_.ExpectPassword(password);
  }

  // Once it has passed, all operations end with kTimedOut, whatever
  // set_timeout() says: those under way, and at once those that begin then,
  // also if they need not wait. On the transport's clock. Default: never. `why`
  // and `time` are as of set_timeout().
  void set_deadline(absl::Time deadline, const char* why = nullptr,
                    absl::Duration time = absl::InfiniteDuration()) {
    deadline_ = deadline;
    deadline_why_ = {why, time};
  }
  absl::Time deadline() const { return deadline_; }

  // Whether a part of the next message was received, as by a Read that timed
  // out.
  bool partly_read() const { return reader_.has_begun(); }

  // Whether the last Read has failed because no message had come whole in time;
  // or returned an error that the peer wrote, which may look the same.
  bool read_timed_out() const { return last_read_ == LastRead::kTimedOut; }
  bool read_error() const { return last_read_ == LastRead::kError; }

  // How many descriptors have come with messages that were not read yet, of
  // which one may be received in part; and those of messages that were refused,
  // if they are kept. They are closed with the channel.
  size_t unclaimed_descriptors() const {
    return reader_.unclaimed_descriptors();
  }

  // What has gone through whole since this was last called: also of one that is
  // closed since, or was moved from, until then.
  struct BothWays {
    Traffic read;
    Traffic written;
  };
  BothWays TakeTraffic() {
    BothWays all = std::exchange(closed_traffic_, {});
    all.read += reader_.TakeTraffic();
    all.written += writer_.TakeTraffic();
    return all;
  }

  // --- ending ---

  // A peer that is not trusted could keep Close() waiting, for ever: in it, and
  // in closing the connection over it, goes what the peer has attached; see
  // UnclaimedDescriptors. Who waits for that is a thread that has the time:
  //   if (channel.DiscardUnread()) {
  //     channel.Close();  // At once.
  //   } else {
  //     // Elsewhere:
  //     while (!channel.DiscardUnread()) channel.CloseUnclaimed();
  //   }

  // Receives no more, and throws away what has come, but no descriptors: where
  // it finds any they are unclaimed_descriptors(), and it returns false. The
  // peer can send nothing, but is still written to.
  bool DiscardUnread();

  // Of a channel that is not read any more.
  void CloseUnclaimed() { reader_.CloseUnclaimed(); }

  // Whether descriptors of messages that are refused, or thrown away, stay,
  // unclaimed, rather than be closed as soon as that is known; if not, those
  // that have stayed are closed now. Default: no. ReadCall that has thrown any
  // away before the next call, or of the next call while the rest of that is
  // still to come, returns kTimedOut then, for the caller to have them closed
  // where nobody waits for that, and to go on:
  //   channel.set_keeps_refused(true);
  //   absl::Status status = channel.ReadCall(message);
  //   channel.set_keeps_refused(false);
  void set_keeps_refused(bool keeps) { reader_.set_keeps_refused(keeps); }
  bool has_refused() const { return reader_.has_refused(); }

  // Ends both directions, from any thread: operations under way return, the
  // peer reads the end of the stream.
  void ShutDown();

  // Closes this end: the peer reads the end of the stream. Operations then
  // return kChannelClosed.
  void Close();

  bool is_open() const { return transport_ != nullptr; }

  // What the channel runs over, to wait for; null when it is closed.
  const Transport* transport() const { return transport_.get(); }

 private:
  // Who serves the next call would not look for it there.
  struct WasMoved {
    WasMoved() = default;
    WasMoved(WasMoved&& /*from*/) noexcept : value(true) {}
    WasMoved& operator=(WasMoved&& /*from*/) noexcept {
      value = true;
      return *this;
    }
    bool value = false;
  };

  // What has set a limit. Each call may have another, and few need the text.
  struct Why {
    const char* text = nullptr;
    absl::Duration time = absl::InfiniteDuration();
  };

  absl::Status WriteArguments(std::initializer_list<Argument> arguments,
                              bool then_end = false);

  absl::Status WriteMessage(const Message& message, bool then_end);

  absl::Status WriteParts(absl::Span<const std::string_view> parts,
                          absl::Span<const int> descriptors, bool then_end);

  absl::Status SendError(const absl::Status& error, bool then_end);

  // Sends `frame`, and an end if it is to be the last and is none; if the peer
  // is gone, returns the error it left.
  absl::Status SendFrame(Frame& frame, absl::Span<const int> descriptors,
                         bool is_last = false);
  // Nothing more may be written before the next call.
  void EndCall(bool kept);
  // Copies those of reader_'s frame, an array.
  void TakeParts(Message& message) const;
  // Receives one array into reader_, to be released there.
  absl::Status ReceiveArray(std::vector<FileDescriptor>& descriptors);
  // Receives one frame into reader_, and its descriptors. An error that the
  // peer wrote is returned.
  absl::Status ReceiveFrame(size_t max_bytes,
                            std::vector<FileDescriptor>& descriptors,
                            std::string* scalar_memory = nullptr);
  // The frame in reader_, which is left of the call before.
  void ThrowAway();
  // When an operation that begins now must have ended; kChannelClosed,
  // kTimedOut.
  absl::StatusOr<absl::Time> Begin() const;
  // `status`, of an operation that had until `deadline`, and why it had not
  // longer.
  absl::Status Explain(const absl::Status& status, absl::Time deadline) const;

  std::shared_ptr<Transport> transport_;
  ChannelLimits limits_;
  absl::Duration timeout_ = absl::InfiniteDuration();
  absl::Time deadline_ = absl::InfiniteFuture();
  Why timeout_why_;
  Why deadline_why_;
  // The call that is under way, or was the last.
  Call call_;
  WasMoved was_moved_;
  std::optional<Call> begins_;
  // In a server, between two calls.
  bool awaits_call_ = false;
  // What has come of the one before, in bytes.
  size_t left_over_ = 0;
  enum class LastRead { kOther, kTimedOut, kError };
  LastRead last_read_ = LastRead::kOther;
  bool end_written_ = false;
  bool keeps_ = false;
  FrameReader reader_;
  FrameWriter writer_;
  // From before Close.
  BothWays closed_traffic_;
};

}  // namespace ward

#endif  // WARD_CHANNEL_MESSAGE_CHANNEL_H_

#include "ward/channel/frame_writer.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/error.h"
#include "ward/channel/frame.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"

namespace ward {
namespace {

// Scratch space over this is given back after use.
constexpr size_t kKeptBytes = size_t{64} << 10;

// Smaller fields are copied together; larger ones are sent from where they are,
// for to copy them takes longer.
constexpr size_t kLargeField = size_t{16} << 10;

// So much is copied before it is sent. A socket holds less, so that what is
// left waits anyway.
constexpr size_t kMostCopied = size_t{256} << 10;

// What stands between two fields: tags, lengths and numbers.
constexpr size_t kMostBetween = 64;

// What a frame takes on the wire. Beside Small and Sending, which have the same
// members: what they are called with is said once, in AddBody.
class Size {
 public:
  void AddVarint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) ++size_;
    ++size_;
  }
  // All tags of ours have one byte.
  void AddTag(uint32_t /*field*/, WireType /*type*/) { ++size_; }
  void AddField(uint32_t field, std::string_view bytes) {
    AddSize(field, bytes.size());
  }
  template <typename Add>
  void AddMessage(uint32_t field, size_t size, const Add& /*add*/) {
    AddSize(field, size);
  }

  size_t size() const { return size_; }

 private:
  void AddSize(uint32_t field, size_t size) {
    AddTag(field, kBytesType);
    AddVarint(size);
    size_ += size;
  }

  size_t size_ = 0;
};

absl::Status Check(const Frame& frame, size_t size,
                   absl::Span<const int> descriptors,
                   const ChannelLimits& limits) {
  if (descriptors.size() > limits.max_descriptors) {
    return MakeError(
        reason::kTooManyDescriptors,
        absl::StrCat("one message carries at most ", limits.max_descriptors,
                     " descriptors, not ", descriptors.size(),
                     "; send the rest in further messages"));
  }
  if (std::any_of(descriptors.begin(), descriptors.end(),
                  [](int fd) { return fd < 0; })) {
    return MakeError(reason::kInvalidArguments,
                     "a descriptor to send is closed already");
  }
  if (frame.call.has_value() &&
      frame.call->trace_id.size() > kMaxTraceIdBytes) {
    return MakeError(
        reason::kInvalidArguments,
        absl::StrCat("a call's trace id may have ", kMaxTraceIdBytes,
                     " bytes, not ", frame.call->trace_id.size()));
  }
  if (frame.parts.size() > limits.max_parts) {
    return MakeError(reason::kFrameTooLarge,
                     absl::StrCat("a message has at most ", limits.max_parts,
                                  " parts, not ", frame.parts.size()));
  }
  if (size > limits.max_frame_bytes) {
    return MakeError(
        reason::kFrameTooLarge,
        absl::StrCat("a message may have ", limits.max_frame_bytes,
                     " bytes on the wire, not ", size,
                     "; split it, send a descriptor to the data instead, or "
                     "raise max_frame_bytes on both sides"));
  }
  return absl::OkStatus();
}

// How much of the content of `frame` is sent from where it is.
size_t InPlace(const Frame& frame) {
  size_t bytes = 0;
  const auto add = [&bytes](std::string_view field) {
    if (field.size() >= kLargeField) bytes += field.size();
  };
  add(frame.scalar);
  for (const std::string_view part : frame.parts) add(part);
  return bytes;
}

// Frames on their way out; the first error is kept.
class Departure {
 public:
  // `size`: of all that is sent.
  Departure(Transport& transport, absl::Span<const int> descriptors,
            absl::Time deadline, size_t size)
      : transport_(transport),
        descriptors_(descriptors),
        deadline_(deadline),
        size_(size) {}

  // At most kMaxPieces, which it shortens by what was sent.
  void Send(absl::Span<std::string_view> pieces) {
    while (status_.ok() && !pieces.empty()) {
      const absl::StatusOr<size_t> sent =
          pieces.size() == 1
              ? transport_.Send(pieces.front(), descriptors_, deadline_)
              : transport_.SendPieces(pieces, descriptors_, deadline_);
      if (sent.ok() && *sent > 0) {
        sent_ += *sent;
        if (sent_ == size_) return;
        RemovePrefix(*sent, pieces);
        descriptors_ = {};
        // A peer that always makes room for one byte more gets no more time.
        status_ = transport_.CheckTime(deadline_);
      } else {
        status_ = sent.status();
      }
      if (begun() && HasReason(status_, reason::kTimedOut)) {
        status_ = MakeError(
            reason::kTimedOut,
            absl::StrCat("in time the peer made room for only ", sent_,
                         " of the ", size_, " bytes of a message"));
      }
    }
  }

  // Whether anything has left.
  bool begun() const { return sent_ > 0; }
  const absl::Status& status() const { return status_; }

 private:
  static void RemovePrefix(size_t bytes, absl::Span<std::string_view>& pieces) {
    while (!pieces.empty() && bytes >= pieces.front().size()) {
      bytes -= pieces.front().size();
      pieces.remove_prefix(1);
    }
    if (!pieces.empty()) pieces.front().remove_prefix(bytes);
  }

  Transport& transport_;
  absl::Span<const int> descriptors_;
  const absl::Time deadline_;
  const size_t size_;
  size_t sent_ = 0;
  absl::Status status_;
};

// A small frame, as most are, in one pass: each of its lengths takes one byte,
// which is filled in behind what it is the length of.
class Small {
 public:
  // `secret`: nothing of it may be left behind.
  explicit Small(bool secret) : secret_(secret) {}
  Small(const Small&) = delete;
  Small& operator=(const Small&) = delete;
  ~Small() {
    if (secret_) Wipe(bytes_.data(), size_);
  }

  void AddVarint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) Put(value | 0x80);
    Put(value);
  }
  void AddTag(uint32_t field, WireType type) { Put(field << 3 | type); }
  void AddField(uint32_t field, std::string_view bytes) {
    AddTag(field, kBytesType);
    // Its length takes room, too.
    fits_ =
        fits_ && bytes.size() <= kMost && bytes.size() < bytes_.size() - size_;
    if (!fits_) return;
    Put(bytes.size());
    size_ += bytes.copy(bytes_.data() + size_, bytes.size());
  }
  template <typename Add>
  void AddMessage(uint32_t field, size_t /*size*/, const Add& add) {
    AddTag(field, kBytesType);
    AddBehindLength(add);
  }
  template <typename Add>
  void AddBehindLength(const Add& add) {
    const size_t begin = size_ + 1;
    Put(0);
    add();
    fits_ = fits_ && size_ - begin <= kMost;
    if (fits_) bytes_[begin - 1] = static_cast<char>(size_ - begin);
  }

  // Otherwise it is not small.
  bool fits() const { return fits_; }
  std::string_view bytes() const { return {bytes_.data(), size_}; }

 private:
  static constexpr size_t kMost = 0x7f;

  void Put(uint64_t byte) {
    fits_ = fits_ && size_ < bytes_.size();
    if (fits_) bytes_[size_++] = static_cast<char>(byte);
  }

  const bool secret_;
  // With an end behind it.
  std::array<char, kMost + 16> bytes_;
  size_t size_ = 0;
  bool fits_ = true;
};

// One frame, piece by piece.
class Sending {
 public:
  // `copied`: how much is not sent from where it is. `secret`: of `copies`,
  // which is scratch space, nothing may be left behind. So it does not grow
  // beyond what is reserved, nor move.
  Sending(Departure& departure, size_t copied, bool secret, std::string& copies)
      : departure_(departure), secret_(secret), copies_(copies) {
    copies_.reserve(std::min(copied, kMostCopied + kLargeField + kMostBetween));
  }

  void AddVarint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) {
      copies_.push_back(static_cast<char>(value | 0x80));
    }
    copies_.push_back(static_cast<char>(value));
  }

  void AddTag(uint32_t field, WireType type) {
    copies_.push_back(static_cast<char>(field << 3 | type));
  }

  void AddField(uint32_t field, std::string_view bytes) {
    AddTag(field, kBytesType);
    AddVarint(bytes.size());
    if (bytes.size() >= kLargeField) {
      AddPiece();
      pieces_[count_++] = bytes;
      // Another one takes two, and what is behind it one.
      if (count_ + 2 >= kMaxPieces) Flush();
    } else {
      copies_.append(bytes);
      if (copies_.size() >= kMostCopied) Flush();
    }
  }

  // One of `size` bytes, whose fields `add` adds.
  template <typename Add>
  void AddMessage(uint32_t field, size_t size, const Add& add) {
    AddTag(field, kBytesType);
    AddVarint(size);
    add();
  }

  void Flush() {
    AddPiece();
    departure_.Send(absl::MakeSpan(pieces_.data(), count_));
    if (secret_) Wipe(copies_.data(), copies_.size());
    copies_.clear();
    count_ = begin_ = 0;
  }

 private:
  // What was copied since the last one.
  void AddPiece() {
    if (copies_.size() == begin_) return;
    pieces_[count_++] = std::string_view(copies_).substr(begin_);
    begin_ = copies_.size();
  }

  Departure& departure_;
  const bool secret_;
  std::string& copies_;
  // Of copies_, where the next piece begins.
  size_t begin_ = 0;
  std::array<std::string_view, kMaxPieces> pieces_;
  size_t count_ = 0;
};

template <typename Out>
void AddNumber(uint32_t field, uint64_t value, Out& out) {
  out.AddTag(field, kVarintType);
  out.AddVarint(value);
}

template <typename Out>
void AddParts(const Frame& frame, Out& out) {
  for (const std::string_view part : frame.parts) {
    out.AddField(kPartField, part);
  }
}

// Fields that are zero or empty are left out.
template <typename Out>
void AddError(const Frame::Error& error, Out& out) {
  if (error.code != 0) {
    AddNumber(kCodeField, error.code, out);
  }
  if (!error.reason.empty()) out.AddField(kReasonField, error.reason);
  if (!error.text.empty()) out.AddField(kTextField, error.text);
}

template <typename Out>
void AddEnd(const Frame::End& end, Out& out) {
  if (end.kept) AddNumber(kKeptField, 1, out);
}

template <typename Out>
void AddCall(const CallHeader& call, Out& out) {
  if (call.keep) AddNumber(kKeepField, 1, out);
  if (call.time_left != 0) AddNumber(kTimeLeftField, call.time_left, out);
  if (!call.trace_id.empty()) out.AddField(kTraceIdField, call.trace_id);
}

// Of a message that `add` adds.
template <typename Add>
size_t SizeOf(const Add& add) {
  Size size;
  add(size);
  return size.size();
}

// Of the message that is the content, if it is one.
size_t ContentSize(const Frame& frame) {
  return SizeOf([&frame](Size& size) {
    if (frame.content == Frame::Content::kArray) AddParts(frame, size);
    if (frame.content == Frame::Content::kError) AddError(frame.error, size);
    if (frame.content == Frame::Content::kEnd) AddEnd(frame.end, size);
  });
}

template <typename Out>
void AddBody(const Frame& frame, size_t content, size_t descriptors,
             const Secret* password, bool knows_end, Out& out) {
  if (descriptors > 0) AddNumber(kDescriptorsField, descriptors, out);
  if (password != nullptr) out.AddField(kPasswordField, password->Expose());
  switch (frame.content) {
    case Frame::Content::kArray:
      out.AddMessage(kArrayField, content, [&] { AddParts(frame, out); });
      break;
    case Frame::Content::kScalar:
      out.AddField(kScalarField, frame.scalar);
      break;
    case Frame::Content::kError:
      out.AddMessage(kErrorField, content, [&] { AddError(frame.error, out); });
      break;
    case Frame::Content::kEnd:
      out.AddMessage(kEndField, content, [&] { AddEnd(frame.end, out); });
      break;
  }
  if (knows_end) AddNumber(kKnowsEndField, 1, out);
  if (frame.call.has_value()) {
    const size_t size =
        SizeOf([&frame](Size& call) { AddCall(*frame.call, call); });
    out.AddMessage(kCallField, size, [&] { AddCall(*frame.call, out); });
  }
}

// A frame that is an end, with its length.
template <typename Out>
void AddEndFrame(const Frame::End& end, Out& out) {
  const size_t content = SizeOf([&end](Size& size) { AddEnd(end, size); });
  const auto add = [&](auto& to) {
    to.AddMessage(kEndField, content, [&] { AddEnd(end, to); });
  };
  out.AddVarint(SizeOf(add));
  add(out);
}

}  // namespace

absl::Status FrameWriter::Send(Transport& transport, const Frame& frame,
                               absl::Span<const int> descriptors,
                               const ChannelLimits& limits, absl::Time deadline,
                               const Frame::End* end) {
  WARD_RETURN_IF_ERROR(status_);
  const bool knows_end = knows_end_ && !knows_end_said_;
  {
    Small out(/*secret=*/to_present_ != nullptr);
    out.AddBehindLength([&] {
      AddBody(frame, /*content=*/0, descriptors.size(), to_present_, knows_end,
              out);
    });
    const size_t body = out.bytes().size() - 1;
    if (end != nullptr) AddEndFrame(*end, out);
    if (out.fits()) {
      WARD_RETURN_IF_ERROR(Check(frame, body, descriptors, limits));
      Departure departure(transport, descriptors, deadline, out.bytes().size());
      std::string_view bytes = out.bytes();
      departure.Send(absl::MakeSpan(&bytes, 1));
      return Sent({out.bytes().size(), descriptors.size()}, departure.begun(),
                  departure.status());
    }
  }

  const size_t content = ContentSize(frame);
  Size body;
  AddBody(frame, content, descriptors.size(), to_present_, knows_end, body);
  WARD_RETURN_IF_ERROR(Check(frame, body.size(), descriptors, limits));
  Size all = body;
  all.AddVarint(body.size());
  if (end != nullptr) AddEndFrame(*end, all);

  Departure departure(transport, descriptors, deadline, all.size());
  Sending out(departure, all.size() - InPlace(frame), to_present_ != nullptr,
              bytes_);
  out.AddVarint(body.size());
  AddBody(frame, content, descriptors.size(), to_present_, knows_end, out);
  if (end != nullptr) AddEndFrame(*end, out);
  out.Flush();
  if (bytes_.capacity() > kKeptBytes) bytes_ = std::string();
  return Sent({all.size(), descriptors.size()}, departure.begun(),
              departure.status());
}

absl::Status FrameWriter::Sent(Traffic what, bool begun,
                               const absl::Status& status) {
  if (status.ok()) traffic_ += what;
  if (begun) {
    to_present_ = nullptr;
    knows_end_said_ = knows_end_;
  }
  // With nothing sent yet the stream is in step, and may be used again.
  if (!status.ok() && (begun || HasReason(status, reason::kConnectionLost))) {
    status_ = status;
  }
  return status;
}

}  // namespace ward

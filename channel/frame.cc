#include "ward/channel/frame.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

#include "absl/base/attributes.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"

namespace ward {
namespace {

ABSL_ATTRIBUTE_COLD absl::Status Malformed(std::string_view why) {
  return MakeError(
      reason::kMalformedFrame,
      absl::StrCat("the peer sent what is no frame of ward's protocol: ", why));
}

ABSL_ATTRIBUTE_COLD absl::Status Malformed(uint32_t field,
                                           std::string_view why) {
  return Malformed(absl::StrCat("field ", field, " ", why));
}

// One field of a protobuf message.
struct Field {
  uint32_t number = 0;
  uint32_t type = 0;
  uint64_t varint = 0;
  std::string_view bytes;
};

absl::Status TakeVarint(std::string_view& in, uint64_t& value) {
  const Varint varint = ReadVarint(in);
  if (varint.size == 0) {
    return Malformed("a varint that does not end, or is over 64 bits");
  }
  value = varint.value;
  in.remove_prefix(varint.size);
  return absl::OkStatus();
}

// A tag, or the length of a field. protobuf's parsers take no longer ones, so
// that who reads frames with them would find other fields there.
inline absl::Status TakeShortVarint(std::string_view& in, uint32_t& value) {
  constexpr size_t kMost = 5;
  const Varint varint = ReadVarint(in.substr(0, kMost));
  if (varint.size == 0 || varint.value > std::numeric_limits<uint32_t>::max()) {
    return Malformed("a tag or length that does not end, or is over 32 bits");
  }
  value = static_cast<uint32_t>(varint.value);
  in.remove_prefix(varint.size);
  return absl::OkStatus();
}

inline absl::Status TakeBytes(std::string_view& in, size_t size,
                              std::string_view& bytes) {
  if (size > in.size()) return Malformed("a field longer than what holds it");
  bytes = in.substr(0, size);
  in.remove_prefix(bytes.size());
  return absl::OkStatus();
}

absl::Status TakeField(std::string_view& in, Field& field) {
  uint32_t tag = 0;
  WARD_RETURN_IF_ERROR(TakeShortVarint(in, tag));
  field.number = tag >> 3;
  field.type = tag & 7;
  if (field.number == 0) return Malformed("a field whose number is 0");
  uint32_t size = 0;
  switch (field.type) {
    case kVarintType:
      return TakeVarint(in, field.varint);
    case kFixed64Type:
      return TakeBytes(in, sizeof(uint64_t), field.bytes);
    case kFixed32Type:
      return TakeBytes(in, sizeof(uint32_t), field.bytes);
    case kBytesType:
      WARD_RETURN_IF_ERROR(TakeShortVarint(in, size));
      return TakeBytes(in, size, field.bytes);
    default:
      return Malformed("a group, or a wire type that does not exist");
  }
}

// A field that is known: it has its own wire type, and comes once.
inline absl::Status CheckKnown(const Field& field, WireType type,
                               uint32_t& seen) {
  if (field.type != type) {
    return Malformed(field.number, "with another wire type");
  }
  const uint32_t bit = 1U << field.number;
  if ((seen & bit) != 0) return Malformed(field.number, "twice");
  seen |= bit;
  return absl::OkStatus();
}

absl::Status CountParts(std::string_view array, size_t& count) {
  while (!array.empty()) {
    Field field;
    WARD_RETURN_IF_ERROR(TakeField(array, field));
    if (field.number != kPartField) continue;
    uint32_t repeated = 0;
    WARD_RETURN_IF_ERROR(CheckKnown(field, kBytesType, repeated));
    ++count;
  }
  return absl::OkStatus();
}

// Fields one after the other, of which one or another may be there; as nearly
// all frames have them, which are written in ascending order. What is not so is
// looked at with more care.
class PlainFields {
 public:
  explicit PlainFields(std::string_view in) : in_(in) {}

  bool at_end() const { return in_.empty(); }
  std::string_view rest() const { return in_; }

  // Whether the next one is this.
  bool Begins(uint32_t number, WireType type) const {
    return !in_.empty() && static_cast<uint8_t>(in_[0]) == (number << 3 | type);
  }

  // Take it; false if it is not plain, or not whole.
  bool Take(std::string_view& bytes) {
    if (in_.size() < 2) return false;
    size_t head = 2;
    size_t size = static_cast<uint8_t>(in_[1]);
    if (size >= 0x80) {
      // With one byte more it may be over what a length may be.
      constexpr size_t kMost = 4;
      const Varint varint = ReadVarint(in_.substr(1, kMost));
      if (varint.size == 0) return false;
      head = 1 + varint.size;
      size = static_cast<size_t>(varint.value);
    }
    if (size > in_.size() - head) return false;
    bytes = std::string_view(in_.data() + head, size);
    in_.remove_prefix(head + size);
    return true;
  }
  bool Take(uint64_t& number) {
    const Varint varint = ReadVarint(in_.substr(1));
    number = varint.value;
    in_.remove_prefix(1 + varint.size);
    return varint.size > 0;
  }
  bool Take(bool& truth) {
    uint64_t number = 0;
    const bool taken = Take(number);
    truth = number != 0;
    return taken;
  }

 private:
  std::string_view in_;
};

bool CountPlainParts(std::string_view array, size_t& count) {
  PlainFields in(array);
  for (std::string_view part; !in.at_end(); ++count) {
    if (!in.Begins(kPartField, kBytesType) || !in.Take(part)) return false;
  }
  return true;
}

bool ParsePlainEnd(std::string_view body, Frame::End& end) {
  PlainFields in(body);
  if (in.Begins(kKeptField, kVarintType) && !in.Take(end.kept)) return false;
  return in.at_end();
}

bool ParsePlainCall(std::string_view body, CallHeader& call) {
  PlainFields in(body);
  if (in.Begins(kKeepField, kVarintType) && !in.Take(call.keep)) return false;
  if (in.Begins(kTimeLeftField, kVarintType) && !in.Take(call.time_left)) {
    return false;
  }
  if (in.Begins(kTraceIdField, kBytesType) && !in.Take(call.trace_id)) {
    return false;
  }
  return in.at_end() && call.trace_id.size() <= kMaxTraceIdBytes;
}

// Whether `body` is what most frames are, with no more than is well formed;
// `frame` says something else if it is not.
bool ParsePlain(std::string_view body, Frame& frame) {
  PlainFields in(body);
  if (in.Begins(kDescriptorsField, kVarintType)) {
    uint64_t descriptors = 0;
    if (!in.Take(descriptors)) return false;
    if (descriptors > kMaxDescriptorsPerMessage) return false;
    frame.descriptors = static_cast<uint32_t>(descriptors);
  }
  if (in.Begins(kPasswordField, kBytesType) &&
      !in.Take(frame.password.emplace())) {
    return false;
  }
  std::string_view content;
  if (in.Begins(kArrayField, kBytesType)) {
    frame.content = Frame::Content::kArray;
    if (!in.Take(frame.encoded_parts)) return false;
    if (!CountPlainParts(frame.encoded_parts, frame.encoded_part_count)) {
      return false;
    }
  } else if (in.Begins(kScalarField, kBytesType)) {
    frame.content = Frame::Content::kScalar;
    if (!in.Take(frame.scalar)) return false;
  } else if (in.Begins(kEndField, kBytesType)) {
    frame.content = Frame::Content::kEnd;
    if (!in.Take(content) || !ParsePlainEnd(content, frame.end)) return false;
  } else {
    return false;
  }
  if (in.Begins(kKnowsEndField, kVarintType) && !in.Take(frame.knows_end)) {
    return false;
  }
  if (in.Begins(kCallField, kBytesType)) {
    if (!in.Take(content)) return false;
    if (!ParsePlainCall(content, frame.call.emplace())) return false;
  }
  return in.at_end();
}

absl::Status ParseError(std::string_view in, Frame::Error& error) {
  uint32_t seen = 0;
  while (!in.empty()) {
    Field field;
    WARD_RETURN_IF_ERROR(TakeField(in, field));
    switch (field.number) {
      case kCodeField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kVarintType, seen));
        error.code = field.varint;
        break;
      case kReasonField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kBytesType, seen));
        error.reason = field.bytes;
        break;
      case kTextField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kBytesType, seen));
        error.text = field.bytes;
        break;
      default:
        break;
    }
  }
  return absl::OkStatus();
}

absl::Status ParseEnd(std::string_view in, Frame::End& end) {
  uint32_t seen = 0;
  while (!in.empty()) {
    Field field;
    WARD_RETURN_IF_ERROR(TakeField(in, field));
    if (field.number != kKeptField) continue;
    WARD_RETURN_IF_ERROR(CheckKnown(field, kVarintType, seen));
    end.kept = field.varint != 0;
  }
  return absl::OkStatus();
}

absl::Status ParseCall(std::string_view in, CallHeader& call) {
  uint32_t seen = 0;
  while (!in.empty()) {
    Field field;
    WARD_RETURN_IF_ERROR(TakeField(in, field));
    switch (field.number) {
      case kKeepField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kVarintType, seen));
        call.keep = field.varint != 0;
        break;
      case kTimeLeftField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kVarintType, seen));
        call.time_left = field.varint;
        break;
      case kTraceIdField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kBytesType, seen));
        if (field.bytes.size() > kMaxTraceIdBytes) {
          return Malformed(absl::StrCat("a trace id of ", field.bytes.size(),
                                        " bytes, over the ", kMaxTraceIdBytes,
                                        " that it may have"));
        }
        call.trace_id = field.bytes;
        break;
      default:
        break;
    }
  }
  return absl::OkStatus();
}

// `seen` has the bit of a content that is not in `body`, although the frame has
// it; 0 if there is none.
absl::Status ParseFields(std::string_view body, uint32_t seen, Frame& frame) {
  size_t contents = seen == 0 ? 0 : 1;
  while (!body.empty()) {
    Field field;
    WARD_RETURN_IF_ERROR(TakeField(body, field));
    switch (field.number) {
      case kDescriptorsField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kVarintType, seen));
        if (field.varint > kMaxDescriptorsPerMessage) {
          return Malformed(absl::StrCat("more descriptors (", field.varint,
                                        ") than travel together"));
        }
        frame.descriptors = static_cast<uint32_t>(field.varint);
        break;
      case kPasswordField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kBytesType, seen));
        frame.password = field.bytes;
        break;
      case kArrayField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kBytesType, seen));
        WARD_RETURN_IF_ERROR(CountParts(field.bytes, frame.encoded_part_count));
        frame.content = Frame::Content::kArray;
        frame.encoded_parts = field.bytes;
        ++contents;
        break;
      case kScalarField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kBytesType, seen));
        frame.content = Frame::Content::kScalar;
        frame.scalar = field.bytes;
        ++contents;
        break;
      case kErrorField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kBytesType, seen));
        WARD_RETURN_IF_ERROR(ParseError(field.bytes, frame.error));
        frame.content = Frame::Content::kError;
        ++contents;
        break;
      case kEndField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kBytesType, seen));
        WARD_RETURN_IF_ERROR(ParseEnd(field.bytes, frame.end));
        frame.content = Frame::Content::kEnd;
        ++contents;
        break;
      case kKnowsEndField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kVarintType, seen));
        frame.knows_end = field.varint != 0;
        break;
      case kCallField:
        WARD_RETURN_IF_ERROR(CheckKnown(field, kBytesType, seen));
        WARD_RETURN_IF_ERROR(ParseCall(field.bytes, frame.call.emplace()));
        break;
      default:
        // A later version's.
        break;
    }
  }
  if (contents == 1) return absl::OkStatus();
  return Malformed(contents == 0 ? "no content" : "more than one content");
}

}  // namespace

Varint ReadLongVarint(std::string_view bytes) {
  Varint varint;
  const size_t most = std::min(bytes.size(), kMaxVarintBytes);
  for (size_t i = 0; i < most; ++i) {
    const auto byte = static_cast<uint8_t>(bytes[i]);
    // Of 64 bits one is left for the tenth byte.
    if (i == kMaxVarintBytes - 1 && byte > 1) break;
    varint.value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if ((byte & 0x80) == 0) {
      varint.size = i + 1;
      break;
    }
  }
  return varint;
}

absl::Status ParseFrame(std::string_view body, Frame& frame) {
  frame = Frame{};
  if (ParsePlain(body, frame)) return absl::OkStatus();
  frame = Frame{};
  return ParseFields(body, /*seen=*/0, frame);
}

absl::Status ParseFrameAround(std::string_view scalar, std::string_view body,
                              Frame& frame) {
  frame = Frame{};
  frame.content = Frame::Content::kScalar;
  frame.scalar = scalar;
  return ParseFields(body, 1U << kScalarField, frame);
}

std::optional<ScalarPlace> FindScalar(std::string_view begun,
                                      size_t body_bytes) {
  PlainFields in(begun);
  uint64_t descriptors = 0;
  if (in.Begins(kDescriptorsField, kVarintType) && !in.Take(descriptors)) {
    return std::nullopt;
  }
  if (!in.Begins(kScalarField, kBytesType)) return std::nullopt;
  constexpr size_t kMostOfLength = 5;
  const Varint size = ReadVarint(in.rest().substr(1, kMostOfLength));
  if (size.size == 0) return std::nullopt;
  ScalarPlace place;
  place.tag = begun.size() - in.rest().size();
  place.begin = place.tag + 1 + size.size;
  if (size.value > body_bytes - place.begin) return std::nullopt;
  place.size = static_cast<size_t>(size.value);
  return place;
}

std::string_view EncodedParts::Next() {
  --left_;
  PlainFields in(in_);
  std::string_view part;
  if (in.Begins(kPartField, kBytesType) && in.Take(part)) {
    in_ = in.rest();
    return part;
  }
  Field field;
  // ParseFrame has been through here.
  while (TakeField(in_, field).ok() && field.number != kPartField) continue;
  return field.bytes;
}

}  // namespace ward

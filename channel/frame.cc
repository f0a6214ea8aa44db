#include "ward/channel/frame.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
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

// A tag, and a length that takes one byte.
constexpr size_t kHead = 2;

// Whether `in` begins so, and has all bytes of that field.
bool BeginsPlain(std::string_view in, uint32_t field) {
  return in.size() >= kHead &&
         static_cast<uint8_t>(in[0]) == (field << 3 | kBytesType) &&
         static_cast<uint8_t>(in[1]) < 0x80 &&
         static_cast<uint8_t>(in[1]) <= in.size() - kHead;
}

// Whether `body` is what most frames are: an array, its parts, and nothing
// else, with lengths that take one byte. What is not is looked at with more
// care.
bool IsPlainArray(std::string_view body, size_t& parts) {
  if (!BeginsPlain(body, kArrayField) ||
      static_cast<uint8_t>(body[1]) != body.size() - kHead) {
    return false;
  }
  for (body.remove_prefix(kHead); !body.empty(); ++parts) {
    if (!BeginsPlain(body, kPartField)) return false;
    body.remove_prefix(kHead + static_cast<uint8_t>(body[1]));
  }
  return true;
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
  if (IsPlainArray(body, frame.encoded_part_count)) {
    frame.encoded_parts = body.substr(kHead);
    return absl::OkStatus();
  }
  frame.encoded_part_count = 0;
  size_t contents = 0;
  uint32_t seen = 0;
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

std::string_view EncodedParts::Next() {
  --left_;
  if (BeginsPlain(in_, kPartField)) {
    const std::string_view part =
        in_.substr(kHead, static_cast<uint8_t>(in_[1]));
    in_.remove_prefix(kHead + part.size());
    return part;
  }
  Field field;
  // ParseFrame has been through here.
  while (TakeField(in_, field).ok() && field.number != kPartField) continue;
  return field.bytes;
}

}  // namespace ward
